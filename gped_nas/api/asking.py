"""Ask a teacher about inputs that nobody has asked it about before."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gped_nas.api.predict import answer_rows, inputs_of
from gped_nas.data.inputs import as_inputs
from gped_nas.errors import ConfigError
from gped_nas.evaluate.answers import posterior_answers
from gped_nas.search.space import SearchSpace

if TYPE_CHECKING:
    from gped_nas.api.teacher import Teacher

CREDIBLE = 0.9
"""Share of the posterior between credible bounds, as between the ends of target ``quantile``."""

_NUMBERS = 2**22
"""Numbers that all posterior samples predict together, at so many inputs at a time: 32 MiB."""


def ask(teacher: "Teacher", x: object, *, credible: float) -> dict[str, Tensor]:
    """See ``Teacher.predict``.

    Samples are read one at a time. A bound needs what all of them say of an input: so many inputs
    are asked together that this has a fixed size.
    """
    check_answers(teacher.space)
    check_credible(credible)
    stream = teacher.stream
    inputs = as_inputs(x, teacher.dataset.raw_shape)

    num_inputs = max(1, _NUMBERS // (stream.num_samples * stream.key.num_predicted))
    parts = torch.split(inputs, num_inputs)
    answers: dict[str, list[Tensor]] = {}
    for i, part in enumerate(parts):
        part_answers = posterior_answers(
            _ask_samples(teacher, part, done=i, total=len(parts)),
            stream.weight_S,
            credible=credible,
            label_normalization=teacher.dataset.label_normalization,
            targets=teacher.space.targets,
        )
        for name, values in part_answers.items():
            answers.setdefault(name, []).append(values)
    return {name: torch.cat(values) for name, values in answers.items()}


def ask_about_files(
    teacher: "Teacher", files: Sequence[str | Path], *, credible: float
) -> list[dict[str, Any]]:
    """See ``Teacher.predict_files``."""
    check_answers(teacher.space)
    check_credible(credible)

    data = teacher.dataset
    rows: list[dict[str, Any]] = []
    for names, inputs in inputs_of(
        files, data.raw_shape, data.normalization, data.preparation, asked="teacher"
    ):
        answers = ask(teacher, inputs, credible=credible)
        rows += answer_rows(names, answers, data.class_names)
    return rows


def _ask_samples(teacher: "Teacher", raw: Tensor, *, done: int, total: int) -> Tensor:
    """What each posterior sample predicts at raw inputs, (S, N, G) float32.

    Args:
        teacher: whose samples they are.
        raw: part ``done`` of ``total`` of the inputs.
    """
    num_samples = teacher.stream.num_samples
    predict = teacher.predictor(teacher.dataset.normalization(raw))
    predicted = []
    for index in range(num_samples):
        teacher.session.raise_if_stopped()
        predicted.append(predict(teacher.stream.theta(index)).cpu())
        teacher.session.progress("predictions", done * num_samples + index + 1, total * num_samples)
    return torch.stack(predicted)


def check_stored(space: SearchSpace, needed: str) -> None:
    """Refuse a teacher of which averages alone are kept.

    Args:
        space: where it is described.
        needed: what needs its samples, for the message.

    Raises:
        ConfigError: its samples are not stored.
    """
    if space.recipe.stream == "none":
        raise ConfigError(
            f"{space.source}: recipe.stream: found none, which keeps averages at validation and "
            f"test inputs alone, expected stored for {needed}; add `--set recipe.stream=stored`, "
            "which samples the teacher anew"
        )


def check_answers(space: SearchSpace) -> None:
    """Refuse a teacher that has no networks to ask.

    Raises:
        ConfigError: its posterior samples are known by their predictions alone, or not stored.
    """
    check_stored(space, "a teacher that is asked about other inputs")
    check_networks(space, "which can be asked about other inputs")


def check_networks(space: SearchSpace, needed: str) -> None:
    """Refuse a teacher that has no networks.

    Args:
        space: where it is described.
        needed: what of them is needed, for the message.

    Raises:
        ConfigError: its posterior samples are known by their predictions alone.
    """
    if space.method.predictions() is not None:
        raise ConfigError(
            f"{space.source}: teacher: found an ensemble that is known by its predictions alone, "
            f"expected networks, {needed}; ask a student of its (`gped-search predict STUDY "
            "INPUTS`), or import the networks' parameters"
        )


def check_credible(credible: float) -> None:
    """Refuse what is no share.

    Raises:
        ConfigError: it is none.
    """
    if not 0 < credible < 1:
        raise ConfigError(
            f"--credible: found {credible:g}, expected a share between 0 and 1, such as {CREDIBLE}"
        )
