"""What users call: the arrows composed, from a search space to a front, a report and a student."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from gped_nas.api.comparison import MethodComparison, MethodRow, compare_methods
from gped_nas.api.dashboard import serve_study
from gped_nas.api.diagnosis import Diagnosis, diagnose
from gped_nas.api.export import Export, export_student
from gped_nas.api.job import run
from gped_nas.api.predict import predict_files
from gped_nas.api.session import Session, new_session
from gped_nas.api.study import Study, compare_studies, open_study
from gped_nas.api.teacher import Teacher, build_teacher, load_dataset
from gped_nas.api.verdict import Verdict, judge
from gped_nas.data.base import Dataset
from gped_nas.distill.student import Student
from gped_nas.distill.student import load_student as _load_student
from gped_nas.errors import StreamError
from gped_nas.evaluate.base import METRICS
from gped_nas.models.base import FAMILIES, Genotype, Params
from gped_nas.models.costs import Cost, genotype_cost
from gped_nas.posterior.base import METHODS
from gped_nas.search.pareto import pareto_front
from gped_nas.search.record import TrialRecord
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import load_space
from gped_nas.stream.reader import Stream
from gped_nas.targets.base import TARGETS
from gped_nas.targets.expectations import expect, stream_expectations
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


class TeacherStream:
    """A stream for people: parameters, predictions and expectations by name.

    Args:
        stream: the opened stream.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    @property
    def views(self) -> list[str]:
        """Names of the views there are predictions at."""
        return self.stream.views

    @property
    def weight(self) -> Tensor:
        """Weights of the posterior samples, (S,), summing to 1."""
        return self.stream.weight_S

    @property
    def predictions(self) -> Tensor:
        """What each sample predicts at the first view, or at the imported inputs: (S, N, G).

        Log-probabilities of C classes, nats; of a regression, mean and variance of the label in its
        normalized unit.
        """
        if self.stream.has_weights:
            return self.stream.predictions(self._first_view())

        _, predictions_SMG = self.stream.imported()
        return predictions_SMG

    @property
    def log_prob(self) -> Tensor:
        """Log-probabilities at the first view, or at the imported inputs: (S, N, C), nats.

        Raises:
            StreamError: the stream is of a regression.
        """
        if self.stream.key.likelihood_model.prediction != "log_prob":
            raise StreamError(
                f"{self.stream.folder}: a regression has no classes; read 'predictions' instead"
            )
        return self.predictions

    def _first_view(self) -> str:
        if not self.views:
            raise StreamError(
                f"{self.stream.folder}: holds no predictions yet; run `gped-search teacher build "
                "SPACE`"
            )
        return self.views[0]

    def params(self, index: int) -> Params:
        """Named parameters of one posterior sample."""
        return self.stream.params(index)

    def expectation(self, target: str, view: str | None = None) -> Tensor:
        """A mean or derived target's value at the inputs of a view: (N, G).

        Args:
            target: its name.
            view: the view's name; by default the first one, or the imported inputs.

        Raises:
            RegistryError: unknown target.
            ConfigError: a target of kind quantile.
            StreamError: unknown view.
        """
        if view is None and not self.stream.has_weights:
            average = expect(TARGETS[target], self.predictions.double(), self.weight).float()
        else:
            view = view or self._first_view()
            average = stream_expectations(self.stream, [target], view)[target]
        return TARGETS[target].shown(average)


def load_stream(path: str | Path) -> TeacherStream:
    """The stream in a folder, all of its posterior samples.

    Raises:
        StreamError: missing or corrupt.
    """
    return TeacherStream(Stream(Path(path)))


def load_student(folder: str | Path) -> Student:
    """The student in a folder, ready to predict.

    Raises:
        DamageError: a file is not what was written.
        DataError: its files are missing or do not fit each other.
    """
    return _load_student(Path(folder))


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
