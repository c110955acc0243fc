"""The calibration that a space asks for, fitted to what its teacher says of held-out labels."""

from dataclasses import replace
from typing import TYPE_CHECKING

from gped_nas.data.base import Part
from gped_nas.errors import ConfigError
from gped_nas.evaluate.teacher_calibration import CalibrationFit, LabeledAnswers, fit_calibration
from gped_nas.posterior.base import ChainConfig
from gped_nas.search.document import Description
from gped_nas.search.space_checks import weighs_chains

if TYPE_CHECKING:
    from gped_nas.api.teacher import Teacher


def calibrated(teacher: "Teacher", fit: CalibrationFit | None = None) -> "Teacher":
    """The teacher as its space wants it read: its stream is the one place that applies it.

    Whoever asks the teacher asks the stream for weights and predictions: expectations, references,
    metrics and twins see the same teacher. Nothing is written.

    Args:
        teacher: a raw one.
        fit: the calibration where it is known; fitted by default, on the calibration part, or on
            validation where there is none; that has the same outcome each time.

    Raises:
        ConfigError: an imported ensemble has one member, which nothing can be weighed against.
        Interrupted: the session said stop.
    """
    kind = teacher.space.calibration
    if kind == "none":
        return teacher

    if fit is None:
        dataset = teacher.dataset
        part: Part = "validation" if dataset.calibration is None else "calibration"
        answers = LabeledAnswers(
            teacher.predicted(part),
            teacher.stream.weight_S,
            dataset.labels(part),
            dataset.label_normalization,
        )
        fit = fit_calibration(kind, answers, num_groups=_num_groups(teacher), part=part)
    return replace(teacher, stream=teacher.stream.calibrated(fit.calibration), calibration=fit)


def remembered(description: Description | None) -> CalibrationFit | None:
    """The calibration that a study remembers; None where it has none, or no teacher yet."""
    stored = None if description is None else description.teacher.calibration
    return None if stored is None else CalibrationFit.from_json(stored)


def _num_groups(teacher: "Teacher") -> int:
    """How many weights stacking has: one a chain, or one a member where samples are members."""
    space, num_samples = teacher.space, teacher.stream.num_samples
    if space.calibration == "stacking" and num_samples == 1:
        raise ConfigError(
            f"{space.source}: teacher.calibration: found stacking with one member, expected "
            "several; set it to temperature or none"
        )
    if isinstance(space.method, ChainConfig) and weighs_chains(space.method):
        return space.method.chains
    return num_samples
