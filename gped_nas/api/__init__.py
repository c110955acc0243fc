"""What users call: the arrows composed, from a search space to a front, a report and a student."""

from collections.abc import Sequence

from gped_nas.api.comparison import MethodComparison, MethodRow, compare_methods
from gped_nas.api.dashboard import serve_study
from gped_nas.api.diagnosis import Diagnosis, diagnose
from gped_nas.api.export import Export, export_student
from gped_nas.api.job import run
from gped_nas.api.predict import load_student, predict_files
from gped_nas.api.session import Session, new_session
from gped_nas.api.stream import TeacherStream, load_stream
from gped_nas.api.study import Study, compare_studies, open_study
from gped_nas.api.teacher import Teacher, build_teacher, load_dataset
from gped_nas.api.verdict import Verdict, judge
from gped_nas.data.base import Dataset
from gped_nas.distill.student import Student
from gped_nas.evaluate.base import METRICS
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.models.costs import Cost, genotype_cost
from gped_nas.posterior.base import METHODS
from gped_nas.search.pareto import pareto_front
from gped_nas.search.record import TrialRecord
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import load_space
from gped_nas.targets.base import TARGETS
from gped_nas.targets.layout import HeadLayout

__all__ = [
    "Cost",
    "Dataset",
    "Diagnosis",
    "Export",
    "FAMILIES",
    "Genotype",
    "METHODS",
    "METRICS",
    "MethodComparison",
    "MethodRow",
    "SearchSpace",
    "Session",
    "Student",
    "Study",
    "TARGETS",
    "Teacher",
    "TeacherStream",
    "TrialRecord",
    "Verdict",
    "build_teacher",
    "compare_methods",
    "compare_studies",
    "cost",
    "diagnose",
    "export_student",
    "judge",
    "load_dataset",
    "load_space",
    "load_stream",
    "load_student",
    "new_session",
    "open_study",
    "pareto_front",
    "predict_files",
    "run",
    "serve_study",
]


def cost(
    genotype: Genotype,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    targets: Sequence[str] = ("predictive",),
) -> Cost:
    """The cost of a genotype before pruning.

    Args:
        genotype: family and values.
        input_shape: shape of one input: (D,) or (channels, height, width).
        num_classes: C.
        targets: heads it carries.
    """
    return genotype_cost(genotype, tuple(input_shape), HeadLayout(targets, num_classes).num_outputs)
