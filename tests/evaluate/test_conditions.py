"""Conditions: what their functions are given, what is checked, and that one can ask gradients."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.data.base import Normalization
from gped_nas.data.scale import ValueRange, scale_of
from gped_nas.distill.student import Student, StudentSpec
from gped_nas.errors import ConfigError, DataError, RegistryError
from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.condition_names import parse_condition
from gped_nas.evaluate.conditions import (
    CONDITIONS,
    Condition,
    add_condition,
    permuted,
)
from gped_nas.evaluate.student import StudentPredictor, student_predictions
from gped_nas.evaluate.teacher import Ensemble, averaged
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.targets.base import resolve

LABELS = np.array([0, 1, 2, 0])
SHAPE, CLASSES = (1, 2, 2), 3


def brighter(raw: Tensor, *, value: float, **_: Any) -> Tensor:
    return raw + value


@pytest.fixture
def brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    """A condition with a value, registered for one test."""
    # The package's own conditions are registered when one is first asked for.
    CONDITIONS["clean"]
    monkeypatch.setattr(CONDITIONS, "_items", dict(CONDITIONS.items()))
    add_condition("brighter", "inputs made brighter", takes_value=True)(brighter)


def inputs() -> Tensor:
    return torch.rand((4, *SHAPE), generator=rng.generator(0, "inputs"))


def params_of(seed: int) -> dict[str, Tensor]:
    shapes = Genotype("mlp", depth=1, width=5).shapes(SHAPE, CLASSES)
    generator = rng.generator(seed, "weights")
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def student() -> Student:
    spec = StudentSpec(
        family="mlp",
        input_shape=SHAPE,
        class_names=("a", "b", "c"),
        targets=resolve(["predictive"]),
        normalization=Normalization(0.5, 0.3),
        storage_dtype="float32",
    )
    return Student(spec, params_of(0)).eval()


def log_prob(params: dict[str, Tensor], raw: Tensor) -> Tensor:
    outputs = FAMILIES["mlp"].forward(params, Normalization(0.5, 0.3)(raw))
    return outputs.log_softmax(-1)


def teacher() -> Ensemble:
    """Three networks with weights .5, .3 and .2."""

    def networks() -> Iterator[Any]:
        for seed, weight in enumerate((0.5, 0.3, 0.2)):
            params = params_of(seed)
            yield weight, lambda raw, params=params: log_prob(params, raw)

    return Ensemble(networks)


def apply(condition: Condition, raw: Tensor, predictor: Any = None) -> Tensor:
    generator = rng.generator(0, "condition")
    return condition.apply(
        raw, predictor=predictor, labels=LABELS, generator=generator, scale=scale_of(raw)
    )


def test_every_input_keeps_its_numbers_and_all_are_rearranged_alike() -> None:
    x = torch.arange(2 * 12.0).view(2, 1, 3, 4)
    changed = permuted(x, generator=rng.generator(0, "permuted"))
    assert changed.shape == x.shape and not torch.equal(changed, x)
    assert torch.equal(changed.flatten(1).sort(1).values, x.flatten(1))
    assert torch.equal(changed[1] - changed[0], torch.full((1, 3, 4), 12.0))
    assert torch.equal(changed, permuted(x, generator=rng.generator(0, "permuted")))


def test_the_clean_condition_is_the_identity() -> None:
    raw = inputs()
    assert torch.equal(apply(CONDITIONS["clean"], raw), raw)


def test_a_condition_is_called_by_its_name_or_with_its_value(brightness: None) -> None:
    assert parse_condition("permuted", "f").name == "permuted"
    condition = parse_condition("brighter-0.25", "f")
    assert condition.name == "brighter-0.25"
    assert torch.equal(apply(condition, inputs()), inputs() + 0.25)
    small = parse_condition("brighter-1e-3", "f")
    assert torch.equal(apply(small, inputs()), inputs() + 1e-3)


def test_images_in_bytes_are_changed_as_numbers_and_left_alone(brightness: None) -> None:
    raw = torch.tensor([0, 7, 255], dtype=torch.uint8).view(1, 3)

    changed = apply(parse_condition("brighter-0.5", "f"), raw)

    assert torch.equal(changed, torch.tensor([[0.5, 7.5, 255.5]]))


def test_a_condition_that_writes_into_its_inputs_writes_into_a_copy() -> None:
    raw, before = inputs(), inputs()
    zero = Condition("zero", "no light", lambda raw, **_: raw.zero_())

    assert not apply(zero, raw).any()
    assert torch.equal(raw, before)


def test_a_condition_is_registered_without_the_marks_of_names() -> None:
    for name in ("a-b", "a@b", ""):
        with pytest.raises(RegistryError, match="expected a name without"):
            add_condition(name, "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda raw, **_: raw[:2],
            r"'odd': found inputs \(2, 1, 2, 2\) of torch.float32, expected",
        ),
        (lambda raw, **_: raw.double(), "of torch.float64, expected .* of torch.float32"),
        (lambda raw, **_: raw * math.nan, "'odd': found inputs that are not finite"),
        (lambda raw, **_: raw + math.inf, "'odd': found inputs that are not finite"),
        (lambda raw, **_: None, "'odd': found NoneType, expected a tensor"),
        (lambda raw, **_: raw.numpy(), "'odd': found ndarray, expected a tensor"),
    ],
)
def test_inputs_that_cannot_be_used_are_refused(change: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        apply(Condition("odd", "", change), inputs())


def test_inputs_come_without_the_gradients_of_an_attack() -> None:
    attack = Condition("attack", "", lambda raw, **_: raw.requires_grad_() * 0.5)
    changed = apply(attack, inputs())
    assert not changed.requires_grad
    assert torch.equal(changed, inputs() * 0.5)


def steepest(raw: Tensor, *, predictor: Any, labels: Any, **_: Any) -> Tensor:
    """A step that makes the labels less probable on average: the smallest attack."""
    moved = raw.clone().requires_grad_()
    target = torch.as_tensor(labels)[:, None]
    score = torch.zeros(())
    with torch.enable_grad():
        for weight, forward in predictor.networks():
            score = score + weight * forward(moved).gather(1, target).sum()
        (gradient,) = torch.autograd.grad(score, moved)
    return raw - 0.05 * gradient.sign()


@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_a_condition_may_ask_a_predictor_for_gradients(kind: str) -> None:
    predictor: Any = StudentPredictor(student()) if kind == "student" else teacher()
    attacked = apply(Condition("steepest", "", steepest), inputs(), predictor)
    assert (attacked - inputs()).abs().max() <= 0.05 + 1e-6

    before = METRICS["nll"].value(predictor.predict(inputs()), LABELS)
    after = METRICS["nll"].value(predictor.predict(attacked), LABELS)
    assert after > before + 0.01


def test_predictors_predict_as_their_networks_do() -> None:
    raw = inputs()
    ((weight, forward),) = StudentPredictor(student()).networks()
    expected = student_predictions(student(), raw).log_prob_NC
    assert weight == 1.0
    assert forward(raw).detach().numpy() == pytest.approx(expected, abs=1e-6)

    members = torch.stack([forward(raw) for _, forward in teacher().networks()])
    mean = averaged(members, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))
    assert teacher().predict(raw).log_prob_NC == pytest.approx(mean.log_prob_NC, abs=1e-9)


def test_a_condition_that_raises_is_named() -> None:
    def broken(raw: Tensor, **_: Any) -> Tensor:
        return raw[{}]  # type: ignore[index]

    with pytest.raises(
        RegistryError, match=r"^condition 'broken': its function raised .*; mend it"
    ):
        apply(Condition("broken", "broken", broken), inputs())


def test_our_own_errors_of_a_condition_are_passed_on() -> None:
    def refuses(raw: Tensor, **_: Any) -> Tensor:
        raise ConfigError("faded: expected at most 1")

    with pytest.raises(ConfigError, match=r"^faded: expected at most 1$"):
        apply(Condition("faded", "faded", refuses), inputs())


def test_a_condition_that_names_the_scale_is_given_it() -> None:
    def lighter(raw: Tensor, *, scale: Any) -> Tensor:
        return raw + 0.5 * scale.unit(raw)

    condition = Condition("lighter", "lighter", lighter)
    generator = rng.generator(0, "condition")
    changed = condition.apply(
        inputs(),
        predictor=None,  # type: ignore[arg-type]
        labels=LABELS,
        generator=generator,
        scale=ValueRange(0, 16),
    )
    assert torch.equal(changed, inputs() + 8)

    # of inputs alone, as a contract tries it, the scale is what they show
    width = inputs().max() - inputs().min()
    assert apply(condition, inputs()).sub(inputs()).mean() == pytest.approx(float(width) / 2)


def _square(settings: Any, input_shape: tuple[int, ...]) -> None:
    if len(set(input_shape[1:])) > 1:
        raise ConfigError(f"found inputs of {input_shape}, expected squares; crop them")


def test_inputs_that_it_cannot_change_are_refused_before_any_work() -> None:
    turned = Condition("turned", "", lambda raw: raw.mT, check=_square)
    turned.check_shape((1, 2, 2), "f: conditions")
    with pytest.raises(ConfigError) as refused:
        turned.check_shape((1, 2, 3), "f: conditions")
    message = "condition 'turned': found inputs of (1, 2, 3), expected squares; crop them"
    assert str(refused.value) == f"f: conditions: {message}"

    assert torch.equal(apply(turned, inputs()), inputs().mT)
    with pytest.raises(ConfigError, match="^condition 'turned': found inputs of"):
        apply(turned, torch.zeros((4, 1, 2, 3)))


def test_a_check_that_raises_something_else_is_named() -> None:
    broken = Condition("broken", "", lambda raw: raw, check=lambda settings, shape: shape[9])
    with pytest.raises(RegistryError, match="^condition 'broken': its function raised .*; mend"):
        broken.check_shape((1, 2, 2))
