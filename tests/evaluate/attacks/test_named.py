"""Attacks stay in their ball, find what is there, and say when they are weaker than they look."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gped_nas.data.base import load
from gped_nas.data.scale import ColumnSpread, ValueRange
from gped_nas.errors import AttackWarning, ConfigError, DataError
from gped_nas.evaluate.attacks.average import entropy
from gped_nas.evaluate.attacks.settings import AttackSettings
from gped_nas.evaluate.condition_names import parse_condition
from gped_nas.evaluate.conditions import CONDITIONS, Forward
from tests.evaluate.attacks.victims import (
    SHAPE,
    Victim,
    attack,
    inputs,
    on_digits,
    random_network,
    trained_on_digits,
)

FEW: dict[str, dict[str, Any]] = {
    "worst": {"steps": 3, "queries": 8},
    "square": {"queries": 20},
    "pgd": {"steps": 5, "restarts": 2},
    "fgsm": {},
}
ATTACKS = [
    name
    for name, condition in CONDITIONS.items()
    if condition.settings is not None and issubclass(condition.settings, AttackSettings)
]


def few(name: str) -> dict[str, Any]:
    return FEW.get(name, {"steps": 5})


def three(dtype: torch.dtype = torch.float32) -> Victim:
    return Victim([(w, random_network(s, dtype=dtype)) for s, w in enumerate((0.5, 0.3, 0.2))])


def table_of_two() -> Victim:
    """Two networks for rows of three numbers, of which some may be missing."""
    first, second = (random_network(s, shape=(3,), dtype=torch.float32) for s in (0, 1))

    def filled(forward: Forward) -> Forward:
        return lambda raw: forward(torch.where(raw.isnan(), 4.0, raw))

    return Victim([(0.5, filled(first)), (0.5, filled(second))])


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor, Any]:
    dataset = load({"name": "digits"})
    return dataset.test.x[:120].float(), dataset.test.y[:120], trained_on_digits()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ATTACKS)
def test_inputs_stay_in_the_ball_and_in_the_range(name: str, norm: str) -> None:
    x = inputs(12, dtype=torch.float32)
    x[0, 0, 0, 0], x[1, 0, 0, 0] = 0, 16.5  # one lies outside the range already
    label = three().log_prob(x).argmax(1)

    found = attack(name, three(), x, label, epsilon=0.1, norm=norm, **few(name))

    moved = (found - x) / 16
    length = moved.abs().amax((1, 2, 3)) if norm == "linf" else moved.flatten(1).norm(dim=1)
    assert length.max() <= 0.1 * (1 + 1e-5)
    assert length.max() > 0.05
    assert found.min() >= 0 and found.max() <= 16.5
    assert torch.equal(found, attack(name, three(), x, label, epsilon=0.1, norm=norm, **few(name)))


@pytest.mark.parametrize("name", ATTACKS)
def test_a_radius_of_zero_changes_nothing(name: str) -> None:
    x = inputs(5, dtype=torch.float32)
    label = three().log_prob(x).argmax(1)
    for norm in ("linf", "l2"):
        found = attack(name, three(), x, label, epsilon=0.0, norm=norm, **few(name))
        assert torch.equal(found, x)


@pytest.mark.parametrize("high", [1.0, 16.0, 255.0])
def test_fgsm_is_a_plain_loop_to_the_bit(high: float) -> None:
    scale, epsilon = ValueRange(0, high), 0.03
    forward = random_network(0, dtype=torch.float32)
    x = inputs(9, dtype=torch.float32) * (high / 16)
    label = torch.arange(9) % 5
    victim = Victim([(1.0, lambda raw: forward(raw * (16 / high)))])

    expected = []
    for one, y in zip(x, label, strict=True):
        leaf = one[None].clone().requires_grad_()
        loss = torch.nn.functional.nll_loss(forward(leaf * (16 / high)), y[None])
        loss.backward()
        assert leaf.grad is not None
        expected.append((one[None] + epsilon * high * leaf.grad.sign()).clamp(0, high).detach())

    found = attack("fgsm", victim, x, label, scale, epsilon=epsilon)
    assert torch.equal(found, torch.cat(expected))


def test_columns_move_by_their_deviation_and_constant_ones_not_at_all() -> None:
    x = inputs(8, (3,), dtype=torch.float32)
    scale = ColumnSpread((1.0, 10.0, 0.0))
    victim = table_of_two()
    label = victim.log_prob(x).argmax(1)

    for name in ATTACKS:
        moved = attack(name, victim, x, label, scale, epsilon=0.2, **few(name)) - x
        assert (moved.abs() <= torch.tensor([0.2, 2.0, 0.0]) * (1 + 1e-4)).all(), name
        assert moved[:, 1].abs().max() > 0.5, name


@pytest.mark.parametrize("name", ATTACKS)
def test_missing_numbers_stay_missing(name: str) -> None:
    victim = table_of_two()
    x = inputs(8, (3,), dtype=torch.float32)
    x[::2, 1] = torch.nan
    label = victim.log_prob(x).argmax(1)

    scale = ColumnSpread((3.0, 3.0, 3.0))
    for norm in ("linf", "l2"):
        found = attack(name, victim, x, label, scale, epsilon=0.3, norm=norm, **few(name))
        assert torch.equal(found.isnan(), x.isnan())
        assert (found - x).abs().nan_to_num().max() > 0


def test_stronger_attacks_break_more(digits: Any) -> None:
    x, y, net = digits
    victim = Victim([(1.0, on_digits(net))])
    left = {}
    for name in ("fgsm", "pgd", "apgd", "worst"):
        settings = {"queries": 100} if name == "worst" else {}
        left[name] = victim.accuracy(attack(name, victim, x, y, epsilon=0.1, **settings), y)

    assert victim.accuracy(x, y) > 0.9
    assert left["worst"] <= left["apgd"] <= left["pgd"] <= left["fgsm"]
    assert left["worst"] < left["fgsm"] - 0.02


@pytest.mark.filterwarnings("ignore::gped_nas.errors.AttackWarning")
def test_an_ensemble_built_to_mask_gradients_is_called_so_and_broken(digits: Any) -> None:
    x, y, net = digits
    others = [on_digits(trained_on_digits(seed), 1000.0) for seed in (1, 2)]
    sure = Victim([(1 / 3, forward) for forward in (on_digits(net, 1000.0), *others)])
    assert sure.accuracy(x, y) > 0.9

    # what follows the cross-entropy reports a robustness that is not there
    assert sure.accuracy(attack("pgd", sure, x, y, epsilon=0.1), y) > 0.75

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = attack("worst", sure, x, y, epsilon=0.1, steps=30, queries=0)
    said = " ".join(str(warning.message) for warning in caught)
    assert "attack 'worst': gradients are exactly zero at about" in said
    assert "following each network by itself broke about" in said and "they are masked" in said
    assert sure.accuracy(found, y) < 0.5


@pytest.mark.filterwarnings("ignore::gped_nas.errors.AttackWarning")
def test_what_has_no_gradients_is_broken_by_random_search_and_called_so(digits: Any) -> None:
    x, y, net = digits
    forward = on_digits(net)
    stepped = Victim([(1.0, lambda raw: forward((raw / 2).round() * 2))])
    before = stepped.accuracy(x, y)
    assert before > 0.85
    assert stepped.accuracy(attack("pgd", stepped, x, y, epsilon=0.1), y) > before - 0.2

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = attack("worst", stepped, x, y, epsilon=0.1, steps=5, queries=300)

    said = " ".join(str(warning.message) for warning in caught)
    assert "gradients are exactly zero at about 100 %" in said
    assert "a bigger budget does not help" in said
    assert "Square, which reads no gradient, broke about" in said
    assert stepped.accuracy(found, y) < 0.6


def test_nothing_is_said_of_a_plain_network(digits: Any) -> None:
    x, y, net = digits
    victim = Victim([(1.0, on_digits(net))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attack("worst", victim, x, y, epsilon=0.05, steps=20, queries=100)


def test_few_classes_are_said() -> None:
    victim = Victim([(1.0, random_network(0, classes=2, dtype=torch.float32))])
    x = inputs(40, dtype=torch.float32)
    label = victim.log_prob(x).argmax(1)
    with pytest.warns(AttackWarning, match="2 classes are too few for the targeted DLR"):
        found = attack("apgd", victim, x, label, epsilon=0.3, loss="targeted", steps=10)
    assert victim.accuracy(found, label) < 0.9


@pytest.mark.parametrize("name", ATTACKS)
def test_who_says_the_same_everywhere_is_left_alone(name: str) -> None:
    constant = Victim([(1.0, lambda raw: torch.full((len(raw), 4), 0.25).log())])
    x = inputs(5, dtype=torch.float32)
    label = torch.zeros(5, dtype=torch.int64)
    assert torch.equal(attack(name, constant, x, label, epsilon=0.1, **few(name)), x)


def test_uncertainty_goes_where_it_is_sent(digits: Any) -> None:
    x = inputs(10, dtype=torch.float32)
    label = three().log_prob(x).argmax(1)

    def total(raw: Tensor) -> Tensor:
        return entropy(three().log_prob(raw))

    def model(raw: Tensor) -> Tensor:
        expected = sum(weight * entropy(forward(raw)) for weight, forward in three().members)
        return total(raw) - expected

    for score, measure in (("total", total), ("model", model)):
        before = measure(x)
        raised = measure(attack(f"raise_{score}", three(), x, label, epsilon=0.1))
        lowered = measure(attack(f"lower_{score}", three(), x, label, epsilon=0.1))
        assert (raised > before + 0.01).all() and (lowered < before - 0.001).all()


def test_the_highest_entropy_of_a_grid_is_found() -> None:
    """Brute force: two numbers, all pairs of 41 values each."""
    victim = Victim(
        [(w, random_network(s, shape=(2,), dtype=torch.float32)) for s, w in enumerate((0.6, 0.4))]
    )
    x = inputs(4, (2,), dtype=torch.float32)
    label = torch.zeros(4, dtype=torch.int64)
    scale = ColumnSpread((16.0, 16.0))
    steps = torch.linspace(-1.6, 1.6, 41)
    moves = torch.cartesian_prod(steps, steps)

    for name, sign in (("raise_total", 1.0), ("lower_total", -1.0)):
        found = sign * entropy(
            victim.log_prob(attack(name, victim, x, label, scale, epsilon=0.1, restarts=3))
        )
        best = [float((sign * entropy(victim.log_prob(row + moves))).max()) for row in x]
        assert found.tolist() == pytest.approx(best, abs=0.005)


def test_sly_answers_are_wrong_and_sure(digits: Any) -> None:
    x, y, net = digits
    victim = Victim([(1.0, on_digits(net))])
    plain = attack("worst", victim, x, y, epsilon=0.15, steps=20, queries=0)
    sly = attack("sly", victim, x, y, epsilon=0.15)

    is_wrong = victim.log_prob(sly).argmax(1) != y
    assert is_wrong.float().mean() > 0.8
    both = is_wrong & (victim.log_prob(plain).argmax(1) != y)
    sure = entropy(victim.log_prob(sly[both])).mean()
    assert sure < entropy(victim.log_prob(plain[both])).mean()


def test_draws_are_the_same_whoever_is_attacked() -> None:
    """What an input becomes does not depend on how the others fare."""
    x = inputs(6, dtype=torch.float32)
    label = three().log_prob(x).argmax(1)
    others = label.clone()
    others[3:] = (label[3:] + 1) % 5  # these are answered wrongly from the start

    for name in ("apgd", "square", "worst"):
        first = attack(name, three(), x, label, epsilon=0.05, **few(name))[:3]
        second = attack(name, three(), x, others, epsilon=0.05, **few(name))[:3]
        assert torch.allclose(first, second, atol=1e-3), name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("worst--0.1", "epsilon"),
        ("fgsm--1", "epsilon"),
        ("apgd", "expected a number after 'apgd-'"),
    ],
)
def test_a_radius_below_zero_or_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_condition(text, "here")


@pytest.mark.parametrize("name", ATTACKS)
def test_real_labels_and_predictors_that_draw_are_refused(name: str) -> None:
    x = inputs(4, dtype=torch.float32)
    with pytest.raises(ConfigError, match=f"'{name}': found real labels, expected classes"):
        attack(name, three(), x, torch.rand(4, generator=torch.Generator()), epsilon=0.1)

    draws = np.random.default_rng(0)

    def drawing(raw: Tensor) -> Tensor:
        noise = torch.from_numpy(draws.normal(size=(len(raw), 5)).astype(np.float32))
        return random_network(0, dtype=torch.float32)(raw) + noise

    with pytest.raises(DataError, match="found two answers to the same inputs"):
        attack(name, Victim([(1.0, drawing)]), x, torch.zeros(4, dtype=torch.int64), epsilon=0.1)


def test_the_radius_is_told_in_the_datas_own_unit() -> None:
    condition = parse_condition("worst-0.03", "here")
    assert isinstance(condition.chosen, AttackSettings)
    said = condition.chosen.describe(ValueRange(0, 255))
    assert said == "epsilon 0.03 (of 0..255: 7.65)"
    assert condition.describe(ValueRange(0, 255)).endswith(said)

    weak = set()
    for name in ATTACKS:
        chosen = parse_condition(f"{name}-1", "x").chosen
        assert isinstance(chosen, AttackSettings)
        if chosen.caution:
            weak.add(name)
    assert weak == {"fgsm", "pgd"}


class _Spread(Victim):
    """A student that says of E[H] what a wave of its input is."""

    @property
    def expected_entropy(self) -> Any:
        return lambda raw: 0.3 + 0.1 * (raw.flatten(1).mean(1) / 4).sin()


class _Silent(Victim):
    expected_entropy = None


def _members() -> Iterator[Any]:
    yield 1.0, random_network(0, dtype=torch.float32)


def test_a_students_model_uncertainty_is_what_it_says_itself() -> None:
    x = inputs(6, SHAPE, dtype=torch.float32)
    student = _Spread(list(_members()))
    label = student.log_prob(x).argmax(1)

    def model(raw: Tensor) -> Tensor:
        return entropy(student.log_prob(raw)) - student.expected_entropy(raw)

    raised = attack("raise_model", student, x, label, epsilon=0.1)
    assert (model(raised) > model(x)).all()
    with pytest.raises(ConfigError, match="'lower_model': found a student that says nothing of"):
        attack("lower_model", _Silent(list(_members())), x, label, epsilon=0.1)
