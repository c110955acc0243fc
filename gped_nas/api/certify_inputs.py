"""Certificates of inputs of your own, of a student or of a teacher."""

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from gped_nas import rng
from gped_nas.api.attacking import as_labels, as_raw, known_scale
from gped_nas.api.certify_names import TIME_LIMIT, USUAL
from gped_nas.data.scale import Scale
from gped_nas.distill.student import Student
from gped_nas.errors import ConfigError, DataError, nearest
from gped_nas.evaluate.certify.bounds import Bounds
from gped_nas.evaluate.certify.box import linf_box
from gped_nas.evaluate.certify.breaking import ATTACKS, Attack
from gped_nas.evaluate.certify.exact import exact_settings
from gped_nas.evaluate.certify.networks import network_of_student
from gped_nas.evaluate.certify.verdict import Judged, judge
from gped_nas.evaluate.student import StudentPredictor

_WHERE = "certify"


def certify(
    student: Student,
    x: Tensor | NDArray[Any],
    y: Tensor | NDArray[Any] | Sequence[int],
    *,
    eps: float,
    bounds: Bounds = "crown",
    exact: bool = False,
    time_limit: float = TIME_LIMIT,
    attack: Attack = "apgd",
    scale: Scale | tuple[float, float] | None = None,
    seed: int = 0,
) -> Judged:
    """What is known of a student's answers at all inputs within a radius of some.

    Args:
        student: of a classifier, read back from its file.
        x: raw inputs (N, *input_shape) in the data's own range, a tensor or a numpy array.
        y: their classes, (N,).
        eps: the radius, a share of ``scale``.
        bounds: what proves: ``"crown"`` or ``"ibp"``.
        exact: whether a mixed-integer programme decides what bounds leave open.
        time_limit: seconds an input of it.
        attack: what looks for inputs that break answers: ``"apgd"``, ``"worst"``, ``"none"``, ...
        scale: what a share of 1 is, where the student does not say it, see ``attack``.
        seed: of what the attack draws.

    Returns:
        ``verdict_N`` has ``"certified"``, ``"broken"`` or ``"unknown"`` for each input, and
        ``share("certified")`` their share; ``inputs`` are those that break what is broken;
        ``lead_N`` is a lower bound of how far the label's logit is above every other one.

    Raises:
        ConfigError: a setting is impossible, or the student's family has no bounds.
        DataError: inputs and labels do not fit each other or the student, or lie outside of the
            data's range.
    """
    if not isinstance(student, Student):
        raise ConfigError(
            f"{_WHERE}: found {type(student).__name__}, expected a student: of other networks the "
            "layers are not known; certify a teacher by `gped-search certify SPACE`"
        )
    if student.spec.label_normalization is not None:
        raise ConfigError(
            f"{_WHERE}: found a student of real labels, expected one of classes, whose answer can "
            "change; ask where a real label lies with `gped-search certify --box`"
        )
    if bounds not in USUAL:
        raise ConfigError(f"{_WHERE}: bounds: found '{bounds}'{nearest(bounds, USUAL)}")
    if attack not in ATTACKS:
        raise ConfigError(f"{_WHERE}: attack: found '{attack}'{nearest(attack, ATTACKS)}")

    raw = as_raw(student, x, _WHERE)
    labels = as_labels(y, len(raw), _WHERE)
    num_classes = len(student.spec.class_names)
    label_N = torch.as_tensor(labels)
    if label_N.is_floating_point() or bool(((label_N < 0) | (label_N >= num_classes)).any()):
        raise DataError(
            f"{_WHERE}: found labels from {labels.min()} to {labels.max()}, expected classes from "
            f"0 to {num_classes - 1}"
        )
    return judge(
        network_of_student(student),
        StudentPredictor(student),
        raw,
        labels,
        linf_box(raw, known_scale(student, scale, _WHERE), eps),
        generator=rng.generator(seed, _WHERE),
        bounds=bounds,
        attack=attack,
        exact=exact_settings(time_limit) if exact else None,
    )
