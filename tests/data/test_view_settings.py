"""How views are written: several policies, several draws, and whose answers are learned."""

from typing import Any

import pytest
import torch

from gped_nas import rng
from gped_nas.data.base import Dataset, load
from gped_nas.data.views import View, parse_view, parse_views
from gped_nas.errors import ConfigError, RegistryError
from gped_nas.io import canonical_json

WHERE = "a.yaml: views[0]"
COMPOSED = {"policy": ["flip", {"name": "shift", "pixels": 1}, "mixup"], "draws": 3, "draw": 2}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load({"name": "digits"})


def test_names_of_views_are_what_they_were() -> None:
    """Streams that exist are found by them."""
    names = {
        "distillation-clean-bc086611": {"policy": "clean"},
        "distillation-noise-96921c59": {"policy": "noise"},
        "distillation-noise-3a3c71ad": {"policy": "noise", "draw": 1},
        "distillation-mixup-c8110a7b": {"policy": "mixup"},
    }
    assert {parse_view(settings, WHERE, 0).name: settings for settings in names.values()} == names


def test_policies_follow_each_other_each_with_its_own_draws(digits: Dataset) -> None:
    views = parse_views(COMPOSED, WHERE, 5)
    assert [view.settings["draw"] for view in views] == [2, 3, 4]
    assert {view.policy for view in views} == {"flip+shift+mixup"}

    settings = canonical_json(dict(views[1].settings))
    x = digits.inputs("distillation")
    for i, name in enumerate(("flip", "shift", "mixup")):
        (policy, cfg) = parse_view(
            {"policy": name, **({"pixels": 1} if name == "shift" else {})}, WHERE, 5
        ).steps[0]
        path = ("view", "flip+shift+mixup", "distillation", settings, i)
        x = policy.apply(cfg, x, generator=rng.generator(5, *path), answers=lambda x: x)
    assert torch.equal(views[1].inputs(digits), x)
    assert not torch.equal(views[0].inputs(digits), x)


def test_key_of_several_policies_rebuilds_the_view(digits: Dataset) -> None:
    for view in parse_views({**COMPOSED, "draw": 0}, WHERE, 5):
        again = View(**view.key())
        assert again == view and again.name == view.name
        assert torch.equal(again.inputs(digits), view.inputs(digits))
    assert "draw" not in parse_views({**COMPOSED, "draw": 0}, WHERE, 5)[0].settings


def test_a_list_of_one_policy_is_that_policy() -> None:
    of_list = parse_view({"policy": [{"name": "noise", "std": 0.2}], "draw": 1}, WHERE, 0)
    alone = parse_view({"policy": {"name": "noise", "std": 0.2}, "draw": 1}, WHERE, 0)
    assert of_list == alone == parse_view({"policy": "noise", "std": 0.2, "draw": 1}, WHERE, 0)


def test_draws_are_the_views_that_one_would_list() -> None:
    listed = [parse_view({"policy": "noise", "draw": draw}, WHERE, 0) for draw in (0, 1, 2)]
    assert list(parse_views({"policy": "noise", "draws": 3}, WHERE, 0)) == listed


def test_clean_answers_are_those_at_the_untouched_inputs(digits: Dataset) -> None:
    own = parse_view({"policy": "flip"}, WHERE, 0)
    clean = parse_view({"policy": "flip", "answers": "clean"}, WHERE, 0)
    assert torch.equal(clean.inputs(digits), own.inputs(digits))
    assert own.asked == own
    assert clean.asked == parse_view({"policy": "clean"}, WHERE, 0)
    assert clean.name != own.name and View(**clean.key()) == clean


def test_the_pool_can_be_moved_too() -> None:
    view = parse_view({"policy": ["pool", "flip"], "answers": "clean"}, WHERE, 0)
    assert view.part == "unlabeled"
    assert view.asked == parse_view({"policy": "pool"}, WHERE, 0)


@pytest.mark.parametrize(
    ("policy", "keeps_label"),
    [
        ("clean", True),
        (["flip", "shift", "crop", "erase", "noise"], True),
        ("mixup", False),
        ("disagreement", False),
        (["flip", "cutmix"], False),
    ],
)
def test_a_view_says_whether_labels_stay_right(policy: Any, keeps_label: bool) -> None:
    assert parse_view({"policy": policy}, WHERE, 0).keeps_label == keeps_label


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"policy": []}, ConfigError, "policy: found an empty list"),
        ({"policy": [3]}, ConfigError, r"policy\[0\]: found 3, expected the name of a policy"),
        ({"policy": ["flip", {"pixels": 2}]}, ConfigError, r"policy\[1\]: found {'pixels': 2}"),
        (
            {"policy": ["flip", {"name": "shift", "pixel": 2}]},
            ConfigError,
            r"policy\[1\]: pixel: unknown key; did you mean 'pixels'",
        ),
        ({"policy": ["flap"]}, RegistryError, r"policy\[0\]: .*'flap'; did you mean 'flip'"),
        (
            {"policy": ["flip", {"name": "shift", "draw": 2}]},
            ConfigError,
            r"policy\[1\]: draw: belongs to the view",
        ),
        ({"policy": ["flip"], "pixels": 2}, ConfigError, "pixels: unknown key"),
        ({"policy": ["flip", "shift"], "pixels": 2}, ConfigError, "pixels: unknown key"),
        ({"policy": "noise", "draws": 0}, ConfigError, "draws: found 0"),
        (
            {"policy": "clean", "draws": 2},
            ConfigError,
            "draws: found 2, expected 1: policy 'clean'",
        ),
        ({"policy": "flip", "answers": "mine"}, ConfigError, "answers: found 'mine'"),
        (
            {"policy": "mixup", "answers": "clean"},
            ConfigError,
            "answers: found clean with policy 'mixup', which moves inputs .* expected own; leave "
            "answers out, or that policy",
        ),
        (
            {"policy": ["flip", "cutmix"], "answers": "clean"},
            ConfigError,
            "found clean with policy 'cutmix'",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(
    settings: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=r"a.yaml: views\[0\].*" + message):
        parse_views(settings, WHERE, 0)
