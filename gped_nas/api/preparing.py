"""What a study needs before its search: its description, and who trains its students."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from math import isfinite
from typing import Any

from gped_nas import device as devices
from gped_nas.api.diagnosis import diagnose
from gped_nas.api.guess import guess_predictor, measure_guess
from gped_nas.api.latency import latency_ends, latency_facts
from gped_nas.api.lessons import rung_set
from gped_nas.api.note import STUDENTS
from gped_nas.api.recipes import decide_recipe
from gped_nas.api.regions import region_of, with_what_is_asked
from gped_nas.api.students import Trainer
from gped_nas.api.study import Study
from gped_nas.api.teacher import Teacher
from gped_nas.api.verdict import judge
from gped_nas.data.base import Dataset
from gped_nas.distill.feed import DistillationSet
from gped_nas.errors import StudyError
from gped_nas.evaluate.base import LabelFacts, draw_resamples
from gped_nas.evaluate.metrics import reliability
from gped_nas.evaluate.predictions import AnyPredictions
from gped_nas.io import make_dir
from gped_nas.search.document import (
    Box,
    Description,
    StoredReference,
    StoredWords,
    StreamPlace,
    TeacherSummary,
)
from gped_nas.search.objectives import axis_ends, measured_words, objective, recorded_metrics
from gped_nas.search.region import SKILL_METRIC
from gped_nas.search.space import SearchSpace


def prepare_trainer(
    study: Study, teacher: Teacher, data: DistillationSet, validation: AnyPredictions
) -> Trainer:
    """Who trains and measures the students of a study."""
    return Trainer(
        teacher=teacher,
        data=data,
        recipe=decide_recipe(study.ledger, teacher, data),
        rung_set=rung_set(teacher, data.layout),
        validation=validation,
        resamples=draw_resamples(
            len(validation),
            root=teacher.space.seed,
            part="validation",
            device=teacher.session.accelerator,
        ),
        guess=_guess_of(study, teacher),
        folder=make_dir(study.path / STUDENTS),
        about={"study": study.name, "stream": teacher.stream.digest},
        alive=study.ledger.renew,
    )


def _guess_of(study: Study, teacher: Teacher) -> AnyPredictions | None:
    """What the guess says of validation; None in a study that was begun before there was one."""
    description = study.ledger.document.description
    if description is None or description.guess is None:
        return None
    return guess_predictor(teacher).predict(teacher.dataset.raw("validation"))


def describe(study: Study, teacher: Teacher, validation: AnyPredictions) -> None:
    """Write down once what never changes while the study grows.

    Raises:
        StudyError: the stream is another than the one that was written down.
    """
    space, dataset, stream = teacher.space, teacher.dataset, teacher.stream
    description = study.ledger.document.description
    if description is not None:
        if description.stream is not None and description.stream.digest != stream.digest:
            raise StudyError(
                f"{stream.folder}: the stream is not the one study '{study.name}' was made with; "
                "restore it, or choose another --study-name"
            )
        with_what_is_asked(study.ledger, space)
        return

    provenance = {
        **_read_versions(),
        **devices.fingerprint(teacher.session.device),
        "seed": space.seed,
        "dataset sha256": dataset.digest,
    }

    of_sets = [outside.condition for outside in space.outside if outside.condition is not None]
    for condition in (*space.conditions, *of_sets):
        if text := condition.describe(dataset.scale):
            provenance[f"condition {condition.name}"] = text

    # kept with the study: reports need the words of a plug-in's metric where it is not installed
    metrics = {}
    recorded = recorded_metrics(space.goal_names, space.outside, space.conditions)
    for name, words in measured_words(recorded).items():
        metrics[name] = StoredWords(label=words.label, direction=words.direction, unit=words.unit)

    guess = measure_guess(teacher)
    box = span_box(space, dataset, latency_ends(space, dataset))
    description = Description(
        config=dict(space.resolved),
        split_text=dataset.split_text,
        class_names=tuple(dataset.class_names),
        stream=StreamPlace(path=str(stream.folder), digest=stream.digest),
        teacher=_summarize(teacher, validation),
        provenance=provenance,
        box=box,
        metrics=metrics,
        guess=StoredReference.of(guess),
        **latency_facts(space),
    )
    region = region_of(teacher, guess, _worst(space, dataset, box))
    study.ledger.change(objectives=space.objectives, description=description, region=region)


def _worst(space: SearchSpace, dataset: Dataset, box: Box) -> dict[str, float]:
    """The declared worst value of each objective, and of the metric that skill is measured by."""
    _, worst = axis_ends(objective(SKILL_METRIC, "skill"), _facts(space, dataset), {}, {})
    names = [goal.name for goal in space.objectives]
    return {SKILL_METRIC: worst, **dict(zip(names, box.worst, strict=True))}


def span_box(
    space: SearchSpace, dataset: Dataset, latencies: Mapping[str, tuple[float, float]]
) -> Box:
    """The reference box: the best and the worst value of each objective.

    Args:
        space: whose objectives they are.
        dataset: of the space.
        latencies: the ends of the costs that are timed.

    Raises:
        ConfigError: the ends of a metric are equal, not finite, or the wrong way round.
    """
    largest = space.largest_cost(dataset.input_shape, dataset.num_outputs)
    smallest = space.smallest_cost(dataset.input_shape, dataset.num_outputs)
    for name, (best, worst) in latencies.items():
        smallest[name], largest[name] = best, worst

    facts = _facts(space, dataset)
    ends = [axis_ends(goal, facts, smallest, largest) for goal in space.objectives]
    return Box(best=tuple(best for best, _ in ends), worst=tuple(worst for _, worst in ends))


def _facts(space: SearchSpace, dataset: Dataset) -> LabelFacts:
    """What the ends of a metric's axis may depend on."""
    label_scale = dataset.label_normalization.std if dataset.label_normalization else None
    targets = {target.name: target for target in space.targets}
    return LabelFacts(dataset.num_outputs, label_scale, targets)


def _summarize(teacher: Teacher, validation: AnyPredictions) -> TeacherSummary:
    """What reports tell of the teacher."""
    space, stream = teacher.space, teacher.stream
    labels = teacher.dataset.labels("validation")
    diagnosis = diagnose(teacher)
    findings = diagnosis.to_json()
    del findings["curve"]  # it stands beside them

    return TeacherSummary(
        digest=stream.digest,
        num_samples=stream.num_samples,
        method=space.method.name,
        genotype="" if space.genotype is None else str(space.genotype),
        samples_to_nll=tuple((num, nll) for num, nll in diagnosis.curve if isfinite(nll)),
        seconds=round(max(teacher.seconds, stream.sampling_seconds), 2),
        reliability=tuple(reliability(validation, labels)),
        diagnosis=findings,
        verdict=asdict(judge(diagnosis)),
        calibration=None if teacher.calibration is None else teacher.calibration.to_json(),
        **_given_facts(space),
    )


def _given_facts(space: SearchSpace) -> dict[str, Any]:
    """What a summary has of a teacher that is given, and of no other."""
    return {} if space.given is None else {"given": asdict(space.given)}


def _read_versions() -> dict[str, Any]:
    return {f"{name} version": version(name) for name in ("gped-nas", "optuna", "numpy")}
