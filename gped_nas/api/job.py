"""Run a search: from a space to a study with its front, its references and its report."""

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gped_nas import device as devices
from gped_nas.api import evidence
from gped_nas.api.comparison import sampling_seconds
from gped_nas.api.conclusion import conclude
from gped_nas.api.diagnosis import diagnose
from gped_nas.api.lessons import distillation_set, rung_set
from gped_nas.api.session import Session, new_session
from gped_nas.api.students import Trainer, keep_only
from gped_nas.api.study import DATABASE, REPORT, STUDENTS, STUDY_FILE, Study
from gped_nas.api.teacher import Teacher, build_teacher, load_dataset, stream_key
from gped_nas.api.verdict import judge
from gped_nas.config import dump_yaml
from gped_nas.data.base import Dataset
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.precision import decided
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import ConfigError, GateError, StudyError
from gped_nas.evaluate.base import LabelFacts, draw_resamples
from gped_nas.evaluate.metrics import reliability
from gped_nas.evaluate.predictions import AnyPredictions
from gped_nas.evaluate.teacher import samples_to_nll
from gped_nas.io import (
    canonical_json,
    lock,
    make_dir,
    remove_temporaries,
    sha256_text,
    write_json,
    write_text,
)
from gped_nas.search.database import sqlite_url, storage_refusals
from gped_nas.search.objectives import axis_ends
from gped_nas.search.record import TrialRecord
from gped_nas.search.run import search
from gped_nas.search.space import SearchSpace, StreamConfig
from gped_nas.search.space_file import load_space
from gped_nas.search.study import create_or_load, load
from gped_nas.stream.key import StreamKey


def run(
    space: SearchSpace | str | Path,
    *,
    out: str | Path = "reports",
    study_name: str | None = None,
    storage: str | None = None,
    n_trials: int | None = None,
    timeout_s: float | None = None,
    seed: int | None = None,
    session: Session | None = None,
    told: Callable[[TrialRecord, int], None] = lambda record, finished: None,
) -> Study:
    """Run a search, or go on with the one that is there, and write its report.

    Args:
        space: a search space, its file or its shipped name.
        out: folder of all studies.
        study_name: the study's name; the space's by default.
        storage: an Optuna storage URL; a SQLite file in the study's folder by default.
        n_trials: finished trials wanted, earlier runs included; the space's by default.
        timeout_s: seconds after which no new population is started.
        seed: root of every seed; the space's by default.
        session: how to run.
        told: called with each record and the number of finished trials.

    Returns:
        The study.

    Raises:
        GateError: it finished and no student is feasible.
        Interrupted: the session said stop; the same call goes on from there.
        GpedError: see the parts.
    """
    if not isinstance(space, SearchSpace):
        space = load_space(space, {} if seed is None else {"seed": seed})
    elif seed is not None and seed != space.seed:
        raise ConfigError(
            f"seed: found {seed}, the space says {space.seed}; give the seed when loading the space"
        )
    n_trials = space.search.n_trials if n_trials is None else n_trials
    if n_trials < 1:
        raise ConfigError(f"--n-trials: found {n_trials}, expected at least 1")
    name = study_name or space.name
    if "/" in name or name.startswith(".") or not name.strip():
        raise ConfigError(
            f"--study-name: found {name!r}, expected a name that can be a folder: no '/', no "
            "leading dot"
        )
    session = session or new_session()
    dataset = load_dataset(space)
    space.check_reachable(dataset.input_shape, dataset.num_classes)
    key = stream_key(space, dataset)
    folder = make_dir(Path(out) / name)
    with lock(folder / "lock", wait=False), storage_refusals(name):
        remove_temporaries(folder)
        return _run(space, dataset, key, folder, name, storage, n_trials, timeout_s, session, told)


def _run(
    space: SearchSpace,
    dataset: Dataset,
    key: StreamKey,
    folder: Path,
    name: str,
    storage: str | None,
    n_trials: int,
    timeout_s: float | None,
    session: Session,
    told: Callable[[TrialRecord, int], None],
) -> Study:
    url = storage or sqlite_url(folder / DATABASE)
    about = identity(space, key.digest)
    store = None
    if (folder / STUDY_FILE).exists() or (folder / DATABASE).exists():
        store = create_or_load(
            url, name, space.objectives, about
        )  # another space's is refused before any work
    elif storage:
        with contextlib.suppress(
            StudyError
        ):  # there is none yet; a storage out of reach is told now
            load(storage, name)
    # A new study is made after its teacher: one that cannot be had (it diverged, or an import does
    # not fit) leaves none behind that would refuse the settings once they are mended.
    teacher = build_teacher(space, session, dataset=dataset)
    data = distillation_set(teacher)
    store = store or create_or_load(url, name, space.objectives, about)
    write_json(folder / STUDY_FILE, {"name": name, "storage": "external" if storage else "sqlite"})
    write_text(folder / "config.yaml", dump_yaml(space.resolved))
    study = Study(folder, name, store)
    validation = teacher.averaged("validation", session)
    _describe(study, teacher, validation, session)
    trainer = _trainer(study, teacher, data, validation, session)
    why = search(
        space,
        store,
        trainer,
        n_trials=n_trials,
        timeout_s=timeout_s,
        input_shape=dataset.input_shape,
        num_classes=dataset.num_classes,
        told=told,
        should_stop=session.should_stop,
    )
    front = study.front_records()
    keep_only(trainer.folder, (r.trial for r in front))
    notes = {
        "timeout": "The search ended at its time limit.",
        "exhausted": "Every genotype of the space was tried.",
    }
    store.put("notes", [notes[why]] if why in notes else [])
    conclude(store, folder, trainer, front)
    evidence.gather(folder, trainer, front)
    study.write_report()
    if not front:
        raise GateError(
            f"study '{name}': finished, and no student is feasible; see {folder / REPORT}"
        )
    return study


_LATER = (("components", 0), ("centred", False))
"""Settings of the recipe that came after the first studies, with the defaults that stand for how
these were made.
"""


def identity(space: SearchSpace, stream: str) -> dict[str, str]:
    """Digests of everything that must not change between runs of one study, by part."""
    resolved = space.resolved
    teacher = {k: v for k, v in resolved["teacher"].items() if k != "method"}
    method = {k: v for k, v in resolved["teacher"]["method"].items() if k != "path"}
    parts = {
        "students": resolved["students"],
        "objectives": resolved["objectives"],
        "constraints": resolved["constraints"],
        # its default leaves the digest as it was before the setting existed, so that older studies
        # go on
        "views": [resolved["views"], resolved["stream"]]
        if space.stream != StreamConfig()
        else resolved["views"],
        "targets": resolved["targets"],
        "recipe": {k: v for k, v in resolved["recipe"].items() if (k, v) not in _LATER},  # likewise
        "seed": resolved["seed"],
        "teacher and dataset (the stream)": [teacher, method, stream],
    }
    return {part: sha256_text(canonical_json(value))[:16] for part, value in parts.items()}


def _trainer(
    study: Study,
    teacher: Teacher,
    data: DistillationSet,
    validation: AnyPredictions,
    session: Session,
) -> Trainer:
    return Trainer(
        teacher=teacher,
        data=data,
        recipe=_decided(study, teacher.space, data, session),
        rung_set=rung_set(teacher, session),
        validation=validation,
        resamples=draw_resamples(len(validation), root=teacher.space.seed, part="validation"),
        folder=make_dir(study.path / STUDENTS),
        session=session,
        about={"study": study.name, "stream": teacher.stream.digest},
    )


def _decided(study: Study, space: SearchSpace, data: DistillationSet, session: Session) -> Recipe:
    """The recipe with the precision that the study's first run found best on its device."""
    if space.recipe.precision != "auto":
        return space.recipe
    precision = study.store.get("precision")
    if precision is None:
        precision = decided(space.recipe, space.corners(), data, session.device).precision
        study.store.put("precision", precision)
    return space.recipe.model_copy(update={"precision": precision})


def _describe(study: Study, teacher: Teacher, validation: AnyPredictions, session: Session) -> None:
    """Write down once what never changes while the study grows."""
    store, space, dataset, stream = study.store, teacher.space, teacher.dataset, teacher.stream
    if store.get("box") is not None:
        if store.get("stream")["digest"] != stream.digest:
            raise StudyError(
                f"{stream.folder}: the stream is not the one study '{study.name}' was made with; "
                "restore it, or choose another --study-name"
            )
        return
    largest = space.largest_cost(dataset.input_shape, dataset.num_classes)
    smallest = space.smallest_cost(dataset.input_shape, dataset.num_classes)
    scale = dataset.label_normalization.std if dataset.label_normalization else None
    facts = LabelFacts(dataset.num_classes, scale, {t.name: t for t in space.targets})
    ends = [axis_ends(one, facts, smallest, largest) for one in space.objectives]
    predicted, labels = teacher.predicted("validation", session), dataset.labels("validation")
    diagnosis = diagnose(teacher, session)
    store.put("config", dict(space.resolved))
    store.put("axes", [asdict(o) for o in space.objectives])
    store.put("split", dataset.split_text)
    store.put("class_names", list(dataset.class_names))
    store.put("stream", {"path": str(stream.folder), "digest": stream.digest})
    store.put(
        "teacher",
        {
            "digest": stream.digest,
            "num_samples": stream.num_samples,
            "method": space.method.name,
            "genotype": str(space.genotype),
            "samples_to_nll": samples_to_nll(
                predicted, stream.weight_S, labels, dataset.label_normalization
            ),
            "seconds": round(max(teacher.seconds, sampling_seconds(stream)), 2),
            "reliability": reliability(validation, labels),
            "diagnosis": {k: v for k, v in diagnosis.to_json().items() if k != "curve"},
            "verdict": asdict(judge(diagnosis)),
        },
    )
    store.put(
        "provenance",
        {
            **_versions(),
            **devices.fingerprint(session.device),
            "seed": space.seed,
            "dataset sha256": dataset.digest,
        },
    )
    store.put("box", {"best": [best for best, _ in ends], "worst": [worst for _, worst in ends]})


def _versions() -> dict[str, Any]:
    return {f"{name} version": version(name) for name in ("gped-nas", "optuna", "numpy")}
