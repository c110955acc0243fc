"""Input policies and the views they make."""

import re
from typing import get_args

import pytest
import torch

from gped_nas import rng
from gped_nas.data.base import Dataset, Part, load
from gped_nas.data.views import POLICIES, View, parse_view
from gped_nas.errors import ConfigError, RegistryError

WHERE = "a.yaml: views[0]"


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load({"name": "digits"})


def _noise(**changes: object) -> View:
    arguments = {"settings": {"policy": "noise", "std": 0.3}, "part": "pool", "seed": 0} | changes
    return parse_view(arguments["settings"], WHERE, arguments["part"], arguments["seed"])  # type: ignore[arg-type]


@pytest.mark.parametrize("part", get_args(Part))
def test_clean_view_is_the_normalised_part(digits: Dataset, part: str) -> None:
    view = parse_view({"policy": "clean"}, WHERE, part, 0)  # type: ignore[arg-type]
    assert torch.equal(view.inputs(digits), digits.inputs(part))  # type: ignore[arg-type]


def test_noise_has_the_asked_standard_deviation(digits: Dataset) -> None:
    added = (_noise().inputs(digits) - digits.inputs("pool")).double()
    # 73 600 draws: the standard error of the std is 0.3 / sqrt(2 * 73600) = 0.0008, of the mean 0.0011.
    assert added.numel() == 73_600
    assert float(added.std()) == pytest.approx(0.3, abs=0.0032)
    assert float(added.mean()) == pytest.approx(0, abs=0.0044)


def test_inputs_are_the_same_at_every_call_and_draw_nothing_global(digits: Dataset) -> None:
    state = torch.get_rng_state()
    first = _noise().inputs(digits)
    assert torch.equal(first, _noise().inputs(digits))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.dtype == torch.float32 and first.shape == (1150, 1, 8, 8)


def test_views_of_one_part_draw_independently(digits: Dataset) -> None:
    clean = digits.inputs("pool")
    narrow = _noise(settings={"policy": "noise", "std": 0.1}).inputs(digits) - clean
    for other in (_noise(), _noise(seed=1)):
        pair = torch.stack([narrow.flatten(), (other.inputs(digits) - clean).flatten()])
        # Independent noise: the correlation of 73 600 pairs has standard error 0.0037.
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
    assert re.fullmatch(r"pool-noise-[0-9a-f]{8}", _noise().name)
    assert re.fullmatch(r"train-_____x-[0-9a-f]{8}", View("../ /x", {}, "train", 0).name)


def test_key_holds_the_defaults_and_rebuilds_the_view() -> None:
    view = parse_view({"policy": "noise"}, WHERE, "train", 4)
    assert view.key() == {"policy": "noise", "settings": {"std": 0.1}, "part": "train", "seed": 4}
    assert View(**view.key()) == view
    assert view == parse_view({"policy": "noise", "std": 0.1}, WHERE, "train", 4)
    assert len({view, View(**view.key())}) == 1


@pytest.mark.parametrize("name", list(POLICIES))
def test_every_policy_keeps_shape_dtype_and_its_argument(name: str) -> None:
    policy = POLICIES[name]
    x = torch.linspace(-1, 1, 24).reshape(2, 3, 4)
    before = x.clone()
    out = policy.apply(policy.settings(policy=name), x, generator=rng.generator(0, "test"))
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
        ({"policy": "noise", "sdt": 1.0}, ConfigError, r"views\[0\]: sdt: unknown key; did you mean 'std'"),
        ({"policy": "noise", "std": 0.0}, ConfigError, r"views\[0\]: std: found 0.0"),
        ({"policy": "noise", "std": float("nan")}, ConfigError, r"views\[0\]: std: found nan"),
        ({"policy": "clean", "std": 1.0}, ConfigError, r"views\[0\]: std: unknown key"),
    ],
)
def test_wrong_views_are_refused(settings: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_view(settings, WHERE, "pool", 0)  # type: ignore[arg-type]
