"""Turn the uncertainty dials of a space: teacher and students at each setting, and their gap."""

import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gped_nas import device as devices
from gped_nas.api.fixed_students import distill_fixed, smallest_of
from gped_nas.api.session import Session, new_session
from gped_nas.api.teacher import load_dataset, sample_teacher
from gped_nas.data.base import Part
from gped_nas.distill.student import load_student
from gped_nas.evaluate.base import draw_resamples
from gped_nas.evaluate.judging import evaluate, evaluate_or_explain
from gped_nas.evaluate.measured import Measures, to_public
from gped_nas.evaluate.student import student_predictions
from gped_nas.io import (
    SCHEMA_VERSION,
    canonical_json,
    lock,
    make_dir,
    remove_temporaries,
    sha256_text,
    write_json,
    write_text,
)
from gped_nas.models.base import Genotype, num_params
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import load_space
from gped_nas.suite.dials import Setting, measure_all, settings

PART: Part = "validation"
"""Where the gap is measured; the test part is left to studies."""


def turn_dials(
    space: str | Path,
    *,
    masks: Sequence[int] = (),
    subsamples: Sequence[int] = (),
    overrides: Mapping[str, Any] | None = None,
    out: str | Path = "reports",
    session: Session | None = None,
) -> Path:
    """Write ``dials.json`` and ``dials.html`` to ``<out>/<space>-dials``.

    At each setting the space's teacher is built on the turned data, and two students are distilled
    from it by the space's recipe: an unpruned one of the teacher's genotype (Bayesian dark
    knowledge's choice) and the smallest of the space. What was measured before is kept.

    Args:
        space: a search space's file or shipped name.
        masks: sides of the patch, pixels.
        subsamples: numbers of labels.
        overrides: as in ``load_space``.
        out: folder of all reports.
        session: how to run.

    Returns:
        The page.

    Raises:
        ConfigError: nothing to turn, or a dial that the dataset does not have.
        Interrupted: the session said stop; the same call goes on from there.
    """
    from gped_nas.report.dials import dials_page

    session = session or new_session()
    grid = settings(masks, subsamples)

    # what cannot be turned is refused before any teacher is built
    spaces = {setting: _turn(space, overrides, setting) for setting in grid}
    identities = {setting: _identity(turned) for setting, turned in spaces.items()}

    untouched = spaces[grid[0]]
    folder = make_dir(Path(out) / f"{untouched.name}-dials")

    def measure(setting: Setting) -> dict[str, Any]:
        return _measure(spaces[setting], folder / "students" / setting.name, session)

    with lock(folder / "lock", wait=False):
        remove_temporaries(folder)
        points = measure_all(grid, measure, identities, folder / "points")
        for point in points:
            del point["identity"]
        data = {
            "schema_version": SCHEMA_VERSION,
            "name": untouched.name,
            "part": PART,
            "teacher": untouched.teacher_text,
            "views": [dict(view) for view in untouched.resolved["views"]],
            "recipe": dict(untouched.resolved["recipe"]),
            "seed": untouched.seed,
            "points": points,
        }
        write_json(folder / "dials.json", data)
        write_text(folder / "dials.html", dials_page(data))
    return folder / "dials.html"


def _turn(space: str | Path, overrides: Mapping[str, Any] | None, setting: Setting) -> SearchSpace:
    dials = {f"data.{dial}": value for dial, value in setting.data.items()}
    return load_space(space, {**(overrides or {}), **dials})


_NO_MATTER = ("search", "baseline", "objectives", "constraints", "conditions")
"""Parts of a space that no record of a setting follows from."""


def _identity(space: SearchSpace) -> str:
    """Of everything that a record follows from, but for the code, whose version stands for it."""
    parts = {name: part for name, part in space.resolved.items() if name not in _NO_MATTER}
    # the kernel changes students by rounding alone
    parts["recipe"] = {key: value for key, value in parts["recipe"].items() if key != "kernel"}
    return sha256_text(canonical_json([parts, load_dataset(space).digest, version("gped-nas")]))


def _measure(space: SearchSpace, folder: Path, session: Session) -> dict[str, Any]:
    """Teacher and students of one setting, measured on validation.

    The intervals of the gap in NLL are those of a paired bootstrap.
    """
    started = time.monotonic()
    dataset = load_dataset(space)
    teacher = sample_teacher(space, session, dataset=dataset)
    validation = teacher.averaged(PART)
    labels = dataset.labels(PART)
    resamples = draw_resamples(len(labels), root=space.seed, part=PART)

    genotypes = _choose_students(space)
    folders = distill_fixed(teacher, genotypes, folder)

    students = []
    for name, genotype in genotypes.items():
        # measured from the file, as whoever uses it will find it
        student = load_student(folders[name])
        predictions = student_predictions(student, dataset.raw(PART))
        measures = evaluate(predictions, labels, validation, resamples=resamples)
        row = {"name": name, "genotype": str(genotype), "params": num_params(student.shapes)}
        students.append({**row, **_to_numbers(measures)})

    return {
        "n": len(labels),
        "num_labels": len(dataset.train),
        "teacher": _to_numbers(evaluate_or_explain(validation, labels, resamples=resamples)),
        "students": students,
        "stream": teacher.stream.digest,
        "split": dataset.split_text,
        "seconds": round(time.monotonic() - started, 1),
        "hardware": devices.fingerprint(session.device),
    }


def _choose_students(space: SearchSpace) -> dict[str, Genotype]:
    """The teacher's own genotype, and the smallest of the space where that is another one."""
    students = {} if space.module else {"unpruned": space.network}

    smallest = smallest_of(space)
    if smallest != space.network:
        students["smallest"] = smallest
    return students


def _to_numbers(measures: Measures) -> dict[str, Any]:
    public = to_public(measures)
    return {name: public[name] for name in ("metrics", "intervals")}
