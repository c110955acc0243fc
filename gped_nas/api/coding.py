"""Codecs of a teacher's posterior on one front: bytes against what is lost in function space.

Codecs read all chains of the teacher but the last one, which is the yardstick: how far it is from
the samples that they read is how near any code can be expected to come. With several seeds each has
a teacher of its own. What is measured is kept, a file a code, so that the same call goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gped_nas.api.coding_chains import read_method
from gped_nas.api.coding_choices import Choice, choices_of
from gped_nas.api.coding_inputs import NUM_PROBES
from gped_nas.api.coding_measure import PART, Asking, Measuring
from gped_nas.api.coding_places import CodecPlace, find_codec_place
from gped_nas.api.coding_rows import STREAM, Row, front_of, means_over_seeds
from gped_nas.api.note import STUDENTS
from gped_nas.api.session import Session, new_session
from gped_nas.api.tasks.bench import check_limit
from gped_nas.distill.student import SPEC_FILE, WEIGHTS_FILE
from gped_nas.errors import ConfigError
from gped_nas.evaluate.outside_names import parse_outside
from gped_nas.io import (
    SCHEMA_VERSION,
    lock,
    make_dir,
    remove_temporaries,
    write_json,
    write_text,
)
from gped_nas.suite.cells import CellStore
from gped_nas.suite.tables import to_json_lines

if TYPE_CHECKING:
    import pandas as pd

    from gped_nas.api.study import Study
    from gped_nas.models.module import Modules
    from gped_nas.search.space import SearchSpace

NUM_DRAWS, LIMIT, OUTSIDE = 100, 1000, "permuted"
FRONTS = ("energy", "average_kl", "information_ratio")
"""Measures of which a front is drawn."""
DATA, PAGE, ROWS = "codec.json", "codec.html", "rows.jsonl"
Told = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class CodecFront:
    """What codecs came to.

    Attributes:
        rows: every measure of every code and seed, see ``evaluate.measured.rows``, with ``codec``,
            ``bytes`` and ``seed``.
        data: the numbers of the page: means over seeds, and which codes are on a front.
        notes: what a reader must know.
        folder: where ``codec.html``, ``codec.json`` and ``rows.jsonl`` lie.
    """

    rows: list[Row]
    data: dict[str, Any]
    notes: list[str]
    folder: Path

    @property
    def page(self) -> Path:
        """The page with the picture."""
        return self.folder / PAGE

    def frame(self) -> "pd.DataFrame":
        """The rows as a pandas frame."""
        import pandas as pd

        return pd.DataFrame(self.rows)


def codec(
    what: "Study | SearchSpace | str | Path",
    codecs: str | Sequence[str] = (),
    *,
    sizes: Sequence[int] = (),
    seeds: int = 1,
    ood: str = OUTSIDE,
    draws: int = NUM_DRAWS,
    limit: int | None = LIMIT,
    overrides: Mapping[str, Any] | None = None,
    storage: str | None = None,
    out: str | Path = "reports",
    session: Session | None = None,
    modules: "Modules | None" = None,
    told: Told = lambda name, done, total: None,
) -> CodecFront:
    """Codecs of a teacher's posterior, measured beside a chain that they have not read.

    Args:
        what: a study or a space; or a name: of a study in ``out`` before a shipped space.
        codecs: ``"subset"``, ``"quantized:bits=4 of subset"``, or several; all but ``apd`` by
            default.
        sizes: networks whose bytes codecs may take that can be larger and smaller.
        seeds: the space's seed and so many less one that follow, each with a teacher of its own.
        ood: the set of inputs from outside, as a space lists it.
        draws: of each code that is a law.
        limit: number of examples, drawn by the seed; None for all of validation.
        overrides: settings of a space that is read here, as in ``load_space``.
        storage: where a study lies, if not in its folder.
        out: folder of all studies.
        session: how to run.
        modules: what builds a teacher's network where its family is ``module``, as in ``run``.
        told: called after each code: its name, how many are done, of how many.

    Raises:
        ConfigError, RegistryError: the teacher has no two chains, an unknown codec or set, or a
            setting that does not go with the samples.
        Interrupted: the session said stop; the same call goes on from there.
        GpedError: see the parts.
    """
    from gped_nas.report.coding import codec_page

    texts = [codecs] if isinstance(codecs, str) else list(codecs)
    _check(seeds, draws, limit)
    session = session or new_session()
    place = find_codec_place(
        what,
        overrides=overrides,
        storage=storage,
        out=Path(out),
        session=session,
        modules=modules,
    )
    choices = choices_of(texts, sizes, read_method(place.space))
    outside = parse_outside(ood, "--ood", place.space.conditions)
    asking = Asking(outside, limit, draws)

    folder = make_dir(place.folder)
    with lock(folder / "lock", wait=False):
        remove_temporaries(folder)
        rows, notes = _measure(place, choices, seeds, asking, told)
        data = _data(place, rows, notes, asking)
        write_text(folder / ROWS, to_json_lines(rows))
        write_json(folder / DATA, data)
        write_text(folder / PAGE, codec_page(data))
    return CodecFront(rows, data, notes, folder)


def _check(seeds: int, draws: int, limit: int | None) -> None:
    check_limit(limit)
    if seeds < 1:
        raise ConfigError(f"--seeds: found {seeds}, expected at least 1")
    if draws < 2:
        raise ConfigError(f"--draws: found {draws}, expected at least 2")


def _measure(
    place: CodecPlace,
    choices: Sequence[Choice],
    seeds: int,
    asking: Asking,
    told: Told,
) -> tuple[list[Row], list[str]]:
    """Rows of every code and seed, and what must be said of them."""
    rows: list[Row] = []
    notes: list[str] = []
    first = place.space.seed
    for number, seed in enumerate(range(first, first + seeds)):
        measuring = Measuring(
            place.make_teacher(seed), asking, CellStore(place.folder / "codes"), notes
        )
        done, total = number * (len(choices) + 1), seeds * (len(choices) + 1)
        rows += measuring.stream()
        told(f"{STREAM}, seed {seed}", done + 1, total)
        for count, choice in enumerate(choices, start=2):
            rows += measuring.code(choice)
            told(f"{choice}, seed {seed}", done + count, total)
        if seed == first:
            rows += _student_rows(place, measuring)
    return rows, list(dict.fromkeys(notes))


def _student_rows(place: CodecPlace, measuring: Measuring) -> list[Row]:
    """Rows of the study's chosen student, where there is one."""
    record = None if place.study is None else place.study.chosen()
    if place.study is None or record is None:
        return []
    student = place.study.load_student(record.trial)
    folder = place.study.path / STUDENTS / str(record.trial)
    num_bytes = sum((folder / name).stat().st_size for name in (SPEC_FILE, WEIGHTS_FILE))
    name = f"student of trial {record.trial}"
    return measuring.student(student, record.spec_sha256, num_bytes, name)


def _data(place: CodecPlace, rows: list[Row], notes: list[str], asking: Asking) -> dict[str, Any]:
    """The numbers of the page."""
    means = means_over_seeds(rows)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": place.space.name if place.study is None else place.study.name,
        "teacher": place.space.teacher_text,
        "seeds": sorted({row["seed"] for row in rows}),
        "part": PART,
        "outside": asking.outside.name,
        "draws": asking.num_draws,
        "probes": NUM_PROBES,
        "means": means,
        "fronts": {metric: front_of(means, metric) for metric in FRONTS},
        "notes": notes,
    }
