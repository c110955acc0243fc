"""A study that begins with what another one found: ``--from-study``; see ``search.earlier``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gped_nas.api.note import STUDY_FILE, Note
from gped_nas.api.opening import open_study
from gped_nas.errors import ConfigError, StudyError
from gped_nas.search.database import storage_errors
from gped_nas.search.document import StudyDocument
from gped_nas.search.earlier import Earlier, carry_over, check_same_search, check_sampler
from gped_nas.search.ledger import Ledger
from gped_nas.search.space import SearchSpace
from gped_nas.search.study import load
from gped_nas.search.trials import check_undamaged


@dataclass(frozen=True)
class Source:
    """The study whose students are told of.

    Attributes:
        ledger: its trials.
        document: what it remembers besides.
    """

    ledger: Ledger
    document: StudyDocument

    @property
    def stream(self) -> str:
        """Digest of its teacher's stream."""
        description = self.document.description
        return description.stream.digest if description and description.stream else ""


def find_source(study: str | Path, *, storage: str | None, out: Path) -> Source:
    """The study of a name below ``out``, in a folder, or in the same storage.

    Raises:
        StudyError: there is none, or it is damaged.
        EnvironmentProblem: its storage cannot be reached.
    """
    places = (Path(study), out / study)
    folder = next((place for place in places if (place / STUDY_FILE).is_file()), None)
    if folder is None and storage is not None:
        with storage_errors(storage):
            return _source(load(storage, str(study)))

    note = None if folder is None else Note.read(folder)
    needs_url = note is not None and note.hidden
    return _source(open_study(study, storage=storage if needs_url else None, out=out).ledger)


def _source(ledger: Ledger) -> Source:
    check_undamaged(ledger.records())
    return Source(ledger, ledger.document)


def check_source(
    source: Source, space: SearchSpace, sampler: str, identity: Mapping[str, str]
) -> None:
    """Refuse a study that says nothing to the sampler of a space.

    Args:
        source: that study.
        space: what is searched.
        sampler: that proposes its genotypes.
        identity: of the study that begins, see ``api.identity``.

    Raises:
        ConfigError: other students or objectives, or a sampler that does not learn.
        StudyError: it has no complete student.
    """
    name = source.ledger.name
    check_sampler(sampler)
    check_same_search(identity, space.objectives, source.document, name)
    if not any(record.state == "complete" for record in source.ledger.records()):
        raise StudyError(
            f"--from-study: study '{name}' has no complete student; run it first, or leave the "
            "option out"
        )


def check_target(source: Source, ledger: Ledger) -> None:
    """Refuse to tell a study that goes on of another one than it began with.

    Raises:
        ConfigError: it began otherwise.
    """
    name, where = source.ledger.name, f"study '{ledger.name}'"
    known = ledger.earlier
    if known is not None and (known.study, known.stream) != (name, source.stream):
        raise ConfigError(
            f"--from-study: {where} began with what study '{known.study}' found, expected that "
            "one; leave the option out to go on, or choose another --study-name"
        )
    if known is None and ledger.num_trials():
        raise ConfigError(
            f"--from-study: {where} has {ledger.num_trials()} trials, expected a study without; "
            "leave the option out to go on, or choose another --study-name"
        )


def tell(source: Source, ledger: Ledger) -> None:
    """Tell a study without trials what students of another one came to; once."""
    if ledger.earlier is not None:
        return
    students = carry_over(
        source.ledger.records(),
        source.ledger.params(),
        source=source.document,
        target=ledger.document,
    )
    ledger.begin_with(Earlier(study=source.ledger.name, stream=source.stream, students=students))
