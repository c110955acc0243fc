"""Input policies and the views they make."""

import re
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch

from gped_nas import rng
from gped_nas.data.base import Dataset, Part, Split, load
from gped_nas.data.dials import DataConfig, turn
from gped_nas.data.views import POLICIES, View, parse_view
from gped_nas.errors import ConfigError, DataError, RegistryError
from gped_nas.io import canonical_json
from tests.storages import Storages

WHERE = "a.yaml: views[0]"


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load({"name": "digits"})


def _noise(**changes: Any) -> View:
    arguments: dict[str, Any] = {
        "settings": {"policy": "noise", "std": 0.3},
        "part": "distillation",
        "seed": 0,
    }
    return parse_view(where=WHERE, **(arguments | changes))


@pytest.mark.parametrize("part", get_args(Part))
def test_clean_view_is_the_normalized_part(digits: Dataset, part: Part) -> None:
    assert parse_view({"policy": "clean"}, WHERE, 0).part == "distillation"
    dataset = turn(digits, DataConfig(calibration_share=0.5), WHERE)
    view = parse_view({"policy": "clean"}, WHERE, 0, part)
    assert torch.equal(view.inputs(dataset), dataset.inputs(part))


def test_noise_has_the_asked_standard_deviation(digits: Dataset) -> None:
    added = (_noise().inputs(digits) - digits.inputs("distillation")).double()
    # 73 600 draws: the standard error of the std is 0.3 / sqrt(2 * 73600) = 0.0008, of the mean
    # 0.0011.
    assert added.numel() == 73_600
    assert float(added.std()) == pytest.approx(0.3, abs=0.0032)
    assert float(added.mean()) == pytest.approx(0, abs=0.0044)


def test_inputs_are_the_same_at_every_call_and_draw_nothing_global(digits: Dataset) -> None:
    state = torch.get_rng_state()
    inputs = _noise().inputs(digits)
    assert torch.equal(inputs, _noise().inputs(digits))
    assert torch.equal(torch.get_rng_state(), state)
    assert inputs.dtype == torch.float32 and inputs.shape == (1150, 1, 8, 8)


@pytest.mark.parametrize(
    ("policy", "copies"),
    [("clean", 1), ("noise", 2), ("mixup", 2), ("shift", 2), ("erase", 2), ("cutmix", 2)],
)
def test_large_inputs_exist_no_oftener_than_needed(
    digits: Dataset, policy: str, copies: int
) -> None:
    """Views of Fashion-MNIST once held three copies, 0.5 GiB, at the peak of a build."""
    raw = torch.zeros(16_000, 1, 28, 28, dtype=torch.uint8)
    large = replace(digits, train=Split(raw, torch.zeros(len(raw), dtype=torch.int64)))
    view = parse_view({"policy": policy}, WHERE, 0)

    with Storages() as storages:
        x = view.inputs(large)
    assert copies - 0.1 < storages.peak / (4 * x.numel()) < copies + 0.5
    assert (raw == 0).all()


def test_views_of_one_part_draw_independently(digits: Dataset) -> None:
    clean = digits.inputs("distillation")
    narrow = _noise(settings={"policy": "noise", "std": 0.1}).inputs(digits) - clean
    for view in (_noise(), _noise(seed=1)):
        noise = view.inputs(digits) - clean
        pair = torch.stack([narrow.flatten(), noise.flatten()])
        # independent noise: the correlation of 73 600 pairs has standard error 0.0037
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 0.015


@pytest.mark.parametrize(
    "changes",
    [{"settings": {"policy": "noise", "std": 0.2}}, {"part": "train"}, {"seed": 1}],
)
def test_name_tells_views_apart(changes: dict[str, object]) -> None:
    assert _noise().name == _noise().name
    assert _noise(**changes).name != _noise().name
    assert _noise(**changes).key() != _noise().key()


def test_name_is_a_plain_file_name() -> None:
    assert re.fullmatch(r"distillation-noise-[0-9a-f]{8}", _noise().name)
    assert re.fullmatch(r"train-_____x-[0-9a-f]{8}", View("../ /x", {}, "train", 0).name)


def test_key_holds_the_defaults_and_rebuilds_the_view() -> None:
    view = parse_view({"policy": "noise"}, WHERE, 4, "train")
    assert view.key() == {"policy": "noise", "settings": {"std": 0.1}, "part": "train", "seed": 4}
    assert View(**view.key()) == view
    assert view == parse_view({"policy": "noise", "std": 0.1}, WHERE, 4, "train")
    assert len({view, View(**view.key())}) == 1


def two_lines(x: torch.Tensor) -> torch.Tensor:
    """Two posterior samples of a classifier that reads the first number a of an input.

    They say p(1 | x) = sigmoid(a) and sigmoid(-a).
    """
    a = x.flatten(1)[:, 0]
    logit = torch.stack([a, -a])
    return torch.stack([torch.sigmoid(-logit), torch.sigmoid(logit)], -1)


@pytest.mark.parametrize("name", list(POLICIES))
def test_every_policy_keeps_shape_dtype_and_its_argument(name: str) -> None:
    policy = POLICIES[name]
    x = torch.linspace(-1, 1, 2 * 36).reshape(2, 1, 6, 6)
    before = x.clone()
    cfg = policy.settings(policy=name)
    out = policy.apply(cfg, x, generator=rng.generator(0, "test"), answers=two_lines)
    assert out.shape == x.shape and out.dtype == x.dtype
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, ConfigError, r"views\[0\]: policy: found None, expected the name of a policy"),
        (None, ConfigError, r"views\[0\]: found None, expected a mapping"),
        (
            {"policy": "nose"},
            RegistryError,
            r"views\[0\]: policy: unknown policy 'nose'; did you mean 'noise'",
        ),
        (
            {"policy": "noise", "sdt": 1.0},
            ConfigError,
            r"views\[0\]: sdt: unknown key; did you mean 'std'",
        ),
        ({"policy": "noise", "std": 0.0}, ConfigError, r"views\[0\]: std: found 0.0"),
        ({"policy": "noise", "std": float("nan")}, ConfigError, r"views\[0\]: std: found nan"),
        ({"policy": "clean", "std": 1.0}, ConfigError, r"views\[0\]: std: unknown key"),
        ({"policy": "mixup", "alpha": 0.0}, ConfigError, r"views\[0\]: alpha: found 0.0"),
        ({"policy": "disagreement", "samples": 1}, ConfigError, r"views\[0\]: samples: found 1"),
    ],
)
def test_wrong_views_are_refused(settings: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_view(settings, WHERE, 0)


@pytest.mark.parametrize(("alpha", "variance"), [(1.0, 1 / 12), (0.2, 1 / 5.6)])
def test_mixup_mixes_each_input_with_another_by_a_weight_of_the_asked_law(
    digits: Dataset, alpha: float, variance: float
) -> None:
    """Mixed inputs lie on the segment between their own input and one other by Beta(a, a).

    Beta(a, a) has mean 1/2 and variance 1 / (4 (2a + 1)): 1/12 for a = 1, 0.179 for a = 0.2. With
    1150 weights the standard error of the mean is at most 0.0125, that of the variance at most
    0.0032 (fourth moments of Beta).
    """
    clean = digits.inputs("distillation").flatten(1).double()
    view = parse_view({"policy": "mixup", "alpha": alpha}, WHERE, 0)
    mixed = view.inputs(digits).flatten(1).double()

    settings = canonical_json(dict(view.settings))
    generator = rng.generator(0, "view", "mixup", view.part, settings)
    partner = torch.randperm(len(clean), generator=generator)
    towards = clean - clean[partner]
    length = towards.square().sum(1).clamp_min(1e-12)
    weight = ((mixed - clean[partner]) * towards).sum(1) / length
    assert torch.allclose(mixed, clean[partner] + weight[:, None] * towards, atol=1e-5)

    moved = weight[partner != torch.arange(len(clean))]
    assert -1e-5 <= float(moved.min()) and float(moved.max()) <= 1 + 1e-5
    assert float(moved.mean()) == pytest.approx(0.5, abs=4 * 0.0125)
    assert float(moved.var()) == pytest.approx(variance, abs=4 * 0.0032)


def test_disagreement_moves_by_the_asked_distance_to_where_samples_differ() -> None:
    """Samples sigmoid(a) and sigmoid(-a) differ by tanh(a / 2): only the first number moves.

    The difference grows with |a|. At |a| = 300 both are as sure as can be: the gradient is about
    1e-130, far below what float32 holds, and yet it points outwards.
    """
    x = torch.tensor(
        [[1.0, 5.0, 0.0, 0.0], [-2.0, 5.0, 0.0, 0.0], [300.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    )
    policy = POLICIES["disagreement"]
    cfg = policy.settings(policy="disagreement", distance=0.25)
    moved = policy.apply(cfg, x, generator=rng.generator(0, "test"), answers=two_lines)
    # a move of root mean square 0.25 over 4 numbers has length 0.25 * sqrt(4) = 0.5;
    # at a = 0 there is no gradient
    assert (moved - x)[:, 0].tolist() == pytest.approx([0.5, -0.5, 0.5, 0.0])
    assert torch.equal(moved[:, 1:], x[:, 1:])


def test_a_policy_that_asks_samples_needs_them_and_its_key_holds_them(digits: Dataset) -> None:
    view = parse_view({"policy": "disagreement"}, WHERE, 0)
    assert view.num_samples == 8 and parse_view({"policy": "mixup"}, WHERE, 0).num_samples == 0
    with pytest.raises(ConfigError, match="asks the teacher's posterior samples"):
        view.inputs(digits)

    bound = replace(view, samples="a")
    other = replace(view, samples="b")
    assert len({view.name, bound.name, other.name}) == 3
    assert bound.key() == {**view.key(), "samples": "a"}


def test_pool_is_the_unlabeled_inputs_alone_and_refused_without_any(digits: Dataset) -> None:
    view = parse_view({"policy": "pool"}, WHERE, 0)
    assert view.part == "unlabeled" and view.name == "unlabelled-pool-d6a0882a"
    pool = digits.test.x[:5] + 1
    with_pool = replace(digits, unlabeled=pool)
    assert torch.equal(view.inputs(with_pool), digits.normalization(pool))
    view.check(with_pool, WHERE)

    message = r"views\[0\]: policy 'pool' takes the unlabeled inputs of dataset 'digits'"
    with pytest.raises(DataError, match=message):
        view.check(digits, WHERE)
