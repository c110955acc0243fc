"""The study behind a search: made, or loaded."""

import warnings
from collections.abc import Callable, Mapping, Sequence

import optuna
from optuna.exceptions import ExperimentalWarning

from gped_nas.errors import StudyError
from gped_nas.search.database import open_database, shown, sqlite_file, storage_errors
from gped_nas.search.document import StudyDocument, read_document
from gped_nas.search.goals import Objective
from gped_nas.search.ledger import Ledger
from gped_nas.search.owners import Owner


def create_or_load(
    storage: str,
    name: str,
    objectives: Sequence[Objective],
    identity: Mapping[str, str],
    *,
    home: str = "",
    bind: Callable[[Ledger], None] = lambda ledger: None,
) -> Ledger:
    """The study called ``name``, made if there is none.

    Args:
        storage: an Optuna storage URL.
        name: the study's name.
        objectives: in order.
        identity: part name to digest of everything that must not change between runs.
        home: see ``Owner``.
        bind: called before the first write to a study that is new.

    Raises:
        StudyError: the study is of another space, or the storage is not a study's.
        EnvironmentProblem: the storage cannot be reached or written.
    """
    with storage_errors(storage):
        backend = open_database(storage)
        directions = [objective.direction for objective in objectives]
        if name not in _names(backend):
            study = optuna.create_study(
                storage=backend, study_name=name, directions=directions, load_if_exists=True
            )
        else:
            study = optuna.load_study(storage=backend, study_name=name)

        ledger = Ledger(backend, name, owner=Owner.here(home))
        is_untouched = _is_untouched(study, directions)
        if is_untouched:
            bind(ledger)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.set_metric_names([objective.name for objective in objectives])
            document = StudyDocument(
                identity=dict(identity), objectives=tuple(objectives), counted="trained"
            )
            ledger.write(document)

        _check_identity(study, identity, shown(storage))
        with ledger.reading_errors():
            # Damaged trials are refused before any work; the sampler needs all of them anyway.
            study.get_trials(deepcopy=False)
    return ledger


def _is_untouched(study: optuna.Study, directions: Sequence[str]) -> bool:
    """Whether a study is as ``create_study`` left it.

    It is new, or its maker was killed before it wrote more.
    """
    # Versions without a document wrote the objectives first.
    if not set(study.user_attrs) <= {"gped:objectives"}:
        return False

    # Trials come last: reading those of a study that goes on takes long.
    stored = [direction.name.lower() for direction in study.directions]
    return stored == list(directions) and not study.get_trials(deepcopy=False)


def is_there(storage: str, name: str) -> bool:
    """Whether a storage has a study of that name; none is made.

    Raises as ``load``.
    """
    with storage_errors(storage):
        file = sqlite_file(storage)
        if file is not None and not file.exists():
            return False
        return name in _names(open_database(storage))


def load(storage: str, name: str) -> Ledger:
    """An existing study.

    Raises:
        StudyError: there is none of that name, or the storage is not a study's.
        EnvironmentProblem: the storage cannot be reached.
    """
    with storage_errors(storage):
        file = sqlite_file(storage)
        if file is not None and not file.exists():
            raise StudyError(
                f"{shown(storage)}: no such file; expected the storage of study '{name}'"
            )

        backend = open_database(storage)
        names = _names(backend)
        if name not in names:
            existing = ", ".join(sorted(names)) or "none"
            raise StudyError(f"{shown(storage)}: no study '{name}'; there are: {existing}")
        return Ledger(backend, name)


def _names(backend: optuna.storages.BaseStorage) -> list[str]:
    # Summaries would read every trial.
    return [study.study_name for study in backend.get_all_studies()]


def _check_identity(study: optuna.Study, identity: Mapping[str, str], where: str) -> None:
    study_words = f"{where}: study '{study.study_name}'"
    document = read_document(study.user_attrs, study_words)
    if document is None:
        raise StudyError(f"{study_words} was not made by gped-search; choose another --study-name")

    changed = []
    for part in sorted({*identity, *document.identity}):
        if identity.get(part) != document.identity.get(part):
            changed.append(part)
    if changed:
        raise StudyError(
            f"{study_words} was made with other settings: {', '.join(changed)} differ; "
            "restore them to go on with it, or choose another --study-name"
        )

    directions = [objective.direction for objective in document.objectives]
    if [direction.name.lower() for direction in study.directions] != directions:
        raise StudyError(
            f"{study_words}: its directions in the database are not those of its objectives "
            f"{directions}; they were changed by something other than gped-search; restore the "
            "study from a backup, or choose another --study-name"
        )
