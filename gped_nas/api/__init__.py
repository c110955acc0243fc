"""What users call: the arrows composed, from a search space to a front, a report and a student.

The names below are loaded when they are first used: what reads a study needs no torch.
"""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gped_nas.api.asking_boxes import certify_box
    from gped_nas.api.attacking import attack
    from gped_nas.api.certify_inputs import certify
    from gped_nas.api.coding import CodecFront, codec
    from gped_nas.api.comparison import MethodComparison, MethodRow, compare_methods
    from gped_nas.api.dashboard import serve_study
    from gped_nas.api.diagnosis import Diagnosis, diagnose
    from gped_nas.api.ensemble import load_ensemble
    from gped_nas.api.evaluating import Evaluation, evaluate_tasks
    from gped_nas.api.export import Export, export_student
    from gped_nas.api.from_models import distill_from
    from gped_nas.api.job import run
    from gped_nas.api.opening import open_study
    from gped_nas.api.predict import load_student, predict_files
    from gped_nas.api.prior_draws import describe_prior
    from gped_nas.api.recording import record_predictions
    from gped_nas.api.replaying import replay
    from gped_nas.api.seeds import summarise
    from gped_nas.api.session import Session, new_session
    from gped_nas.api.stream import TeacherStream, load_stream
    from gped_nas.api.study import Study, compare_studies
    from gped_nas.api.suite import SuiteResult, run_suite
    from gped_nas.api.taking_posterior import export_posterior
    from gped_nas.api.teacher import Teacher, build_teacher, load_dataset, load_teacher
    from gped_nas.api.tuning import tune_teacher
    from gped_nas.api.tuning_answer import TeacherTuning
    from gped_nas.api.verdict import Verdict, judge
    from gped_nas.data.base import Dataset
    from gped_nas.data.bring import as_dataset
    from gped_nas.distill.student import Student
    from gped_nas.evaluate.base import METRICS
    from gped_nas.evaluate.scores import SCORES
    from gped_nas.models.base import FAMILIES, Genotype
    from gped_nas.models.costs import Cost
    from gped_nas.posterior.base import METHODS
    from gped_nas.report.verdict import StudyVerdict
    from gped_nas.search.pareto import pareto_front
    from gped_nas.search.record import TrialRecord
    from gped_nas.search.space import SearchSpace
    from gped_nas.search.space_file import load_space
    from gped_nas.targets.base import TARGETS

__all__ = [
    "CodecFront",
    "Cost",
    "Dataset",
    "Diagnosis",
    "Evaluation",
    "Export",
    "FAMILIES",
    "Genotype",
    "METHODS",
    "METRICS",
    "MethodComparison",
    "MethodRow",
    "SCORES",
    "SearchSpace",
    "Session",
    "Student",
    "Study",
    "StudyVerdict",
    "SuiteResult",
    "TARGETS",
    "Teacher",
    "TeacherStream",
    "TeacherTuning",
    "TrialRecord",
    "Verdict",
    "as_dataset",
    "attack",
    "build_teacher",
    "certify",
    "certify_box",
    "codec",
    "compare_methods",
    "compare_studies",
    "cost",
    "describe_prior",
    "diagnose",
    "distill_from",
    "evaluate_tasks",
    "export_posterior",
    "export_student",
    "judge",
    "known_cost",
    "load_dataset",
    "load_ensemble",
    "load_space",
    "load_stream",
    "load_student",
    "load_teacher",
    "new_session",
    "open_study",
    "pareto_front",
    "predict_files",
    "record_predictions",
    "replay",
    "run",
    "run_suite",
    "serve_study",
    "summarise",
    "tune_teacher",
]

_HOMES = {
    "CodecFront": "gped_nas.api.coding",
    "Cost": "gped_nas.models.costs",
    "Dataset": "gped_nas.data.base",
    "Diagnosis": "gped_nas.api.diagnosis",
    "Evaluation": "gped_nas.api.evaluating",
    "Export": "gped_nas.api.export",
    "FAMILIES": "gped_nas.models.base",
    "Genotype": "gped_nas.models.base",
    "METHODS": "gped_nas.posterior.base",
    "METRICS": "gped_nas.evaluate.base",
    "SCORES": "gped_nas.evaluate.scores",
    "MethodComparison": "gped_nas.api.comparison",
    "MethodRow": "gped_nas.api.comparison",
    "SearchSpace": "gped_nas.search.space",
    "Session": "gped_nas.api.session",
    "Student": "gped_nas.distill.student",
    "Study": "gped_nas.api.study",
    "StudyVerdict": "gped_nas.report.verdict",
    "SuiteResult": "gped_nas.api.suite",
    "TARGETS": "gped_nas.targets.base",
    "Teacher": "gped_nas.api.teacher",
    "TeacherStream": "gped_nas.api.stream",
    "TeacherTuning": "gped_nas.api.tuning_answer",
    "TrialRecord": "gped_nas.search.record",
    "Verdict": "gped_nas.api.verdict",
    "as_dataset": "gped_nas.data.bring",
    "attack": "gped_nas.api.attacking",
    "build_teacher": "gped_nas.api.teacher",
    "certify": "gped_nas.api.certify_inputs",
    "certify_box": "gped_nas.api.asking_boxes",
    "codec": "gped_nas.api.coding",
    "compare_methods": "gped_nas.api.comparison",
    "compare_studies": "gped_nas.api.study",
    "describe_prior": "gped_nas.api.prior_draws",
    "diagnose": "gped_nas.api.diagnosis",
    "distill_from": "gped_nas.api.from_models",
    "evaluate_tasks": "gped_nas.api.evaluating",
    "export_posterior": "gped_nas.api.taking_posterior",
    "export_student": "gped_nas.api.export",
    "judge": "gped_nas.api.verdict",
    "load_dataset": "gped_nas.api.teacher",
    "load_ensemble": "gped_nas.api.ensemble",
    "load_space": "gped_nas.search.space_file",
    "load_stream": "gped_nas.api.stream",
    "load_student": "gped_nas.api.predict",
    "load_teacher": "gped_nas.api.teacher",
    "new_session": "gped_nas.api.session",
    "open_study": "gped_nas.api.opening",
    "pareto_front": "gped_nas.search.pareto",
    "predict_files": "gped_nas.api.predict",
    "record_predictions": "gped_nas.api.recording",
    "replay": "gped_nas.api.replaying",
    "run": "gped_nas.api.job",
    "run_suite": "gped_nas.api.suite",
    "serve_study": "gped_nas.api.dashboard",
    "summarise": "gped_nas.api.seeds",
    "tune_teacher": "gped_nas.api.tuning",
}
"""The module that each name comes from."""

if not TYPE_CHECKING:  # to a type checker, a name that is not above is an error

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'gped_nas.api' has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)


def cost(
    genotype: "Genotype",
    *,
    input_shape: Sequence[int],
    num_classes: int,
    targets: Sequence[str] = ("predictive",),
) -> "Cost":
    """The cost of a genotype before pruning.

    Args:
        genotype: family and values.
        input_shape: shape of one input: (D,) or (channels, height, width).
        num_classes: C.
        targets: heads it carries.
    """
    from gped_nas.models.costs import genotype_cost
    from gped_nas.targets.layout import HeadLayout

    num_outputs = HeadLayout(targets, num_classes).num_outputs
    return genotype_cost(genotype, tuple(input_shape), num_outputs)


def known_cost(
    genotype: "Genotype",
    *,
    input_shape: Sequence[int],
    num_classes: int,
    targets: Sequence[str] = ("predictive",),
) -> dict[str, int]:
    """The costs of a genotype that are known before its student is trained, by name.

    All of them where nothing is pruned; those of the budget where it has one, within 2 % of which
    its student ends where units are small enough; none with a group penalty.

    Args:
        genotype, input_shape, num_classes, targets: see ``cost``.
    """
    from gped_nas.models import costs
    from gped_nas.targets.layout import HeadLayout

    num_outputs = HeadLayout(targets, num_classes).num_outputs
    return costs.known_cost(genotype, tuple(input_shape), num_outputs)
