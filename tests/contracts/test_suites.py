"""The suites of ``gped_nas.testing`` see what is broken, and say what."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from gped_nas.config import Config, parse
from gped_nas.data.base import DATASETS, Split, build
from gped_nas.data.views import POLICIES, DrawnSettings, Policy
from gped_nas.evaluate.base import METRICS, add_metric
from gped_nas.models.base import FAMILIES, Group, Params, Shapes
from gped_nas.models.elementary import Elementary
from gped_nas.models.mlp import Mlp
from gped_nas.posterior.base import METHODS, Method, PosteriorSample, Step, ThinnedConfig
from gped_nas.targets.base import TARGETS
from gped_nas.targets.mean import mean_target
from gped_nas.testing import (
    check_dataset,
    check_family,
    check_method,
    check_metric,
    check_policy,
    check_target,
)


@pytest.fixture(autouse=True)
def _registries_as_before() -> Iterator[None]:
    registries: tuple[Any, ...] = (DATASETS, FAMILIES, METHODS, METRICS, POLICIES, TARGETS)
    before = [{name: registry[name] for name in registry} for registry in registries]
    yield
    for registry, items in zip(registries, before, strict=True):
        registry._items.clear()
        registry._items.update(items)


# --- families


class HeadFirst(Mlp):
    """Says that its first layer gives the outputs."""

    def head(self, shapes: Shapes) -> tuple[str, str] | None:
        return "layers.0.weight", "layers.0.bias"


class Forgetful(Mlp):
    """Runs without the last bias."""

    def forward(self, params: Params, x: Tensor) -> Tensor:
        full = dict(params)
        last = max(name for name in full if name.endswith("weight"))
        full.setdefault(last.replace("weight", "bias"), torch.zeros(len(full[last])))
        return super().forward(full, x)


class Cheap(Mlp):
    """Forgets to count the first layer."""

    def macs(self, shapes: Shapes, input_shape: tuple[int, ...]) -> dict[str, int]:
        return dict(list(super().macs(shapes, input_shape).items())[1:])


class Batchy(Mlp):
    """Scales by the batch."""

    def forward(self, params: Params, x: Tensor) -> Tensor:
        return super().forward(params, x * x.mean(0, keepdim=True) if len(x) else x)


class Leaky(Mlp):
    """Says that dead units send nothing, though they send relu(bias)."""

    def groups(self, shapes: Shapes) -> list[Group]:
        return [replace(group, constant=None) for group in super().groups(shapes)]


class Bent(Mlp):
    """Forgets the first bias in the layers that bounds are carried through."""

    def layers(self, params: Params) -> list[Elementary]:
        return super().layers({**params, "layers.0.bias": 0 * params["layers.0.bias"]})


class Shrinking(Mlp):
    """Promises that costs grow with a value with which they fall."""

    monotone = frozenset({"width"})

    def shapes(
        self, values: dict[str, Any], input_shape: tuple[int, ...], num_outputs: int
    ) -> Shapes:
        narrow = {**values, "width": tuple(100 // w for w in values["width"])}
        return super().shapes(narrow, input_shape, num_outputs)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (HeadFirst, "head says that 'layers.0.bias' is the bias of the raw outputs"),
        (Forgetful, "forward runs without 'layers.1.bias'; look every parameter up by its name"),
        (Cheap, "macs says {'linear': 9}, fvcore counts {'linear': 21}"),
        (Batchy, "outputs of inputs alone and together"),
        (Leaky, "outputs after removing .* they differ by"),
        (Bent, "outputs of the layers that it gives"),
        (Shrinking, "'width' is in monotone, and macs falls"),
    ],
)
def test_a_broken_family_is_found(family: Callable[[], Mlp], message: str) -> None:
    FAMILIES.register("broken")(family())
    with pytest.raises(AssertionError, match=message):
        check_family("broken", [{"depth": 1, "width": 3}], [(4,)])


def test_a_family_without_examples_asks_for_some() -> None:
    class Bare(Mlp):
        examples = ()

    FAMILIES.register("bare")(Bare())
    with pytest.raises(AssertionError, match="'bare': no genotypes to try it on; give its class"):
        check_family("bare")
    check_family("bare", [{"depth": 1, "width": 3}])


# --- posterior methods


class WalkConfig(ThinnedConfig):
    """Settings of a random walk."""

    mistake: str = ""


def walk(problem: Any, cfg: WalkConfig, *, generator: Any, state: Any = None) -> Iterator[Step]:
    size = sum(int(np.prod(shape)) for shape in problem.shapes.values())
    if state is None:
        state = {"theta": torch.zeros(size), "rng": generator.get_state()}
    theta = state["theta"] if cfg.mistake == "writes" else state["theta"].clone()
    if cfg.mistake != "forgets":
        generator.set_state(state["rng"])
    while True:
        source = None if cfg.mistake == "global" else generator
        theta.add_(torch.randn(size, generator=source))

        yielded = theta if cfg.mistake == "shares" else theta.clone()
        state = {"theta": yielded, "rng": generator.get_state()}
        shape = (1, -1) if cfg.mistake == "shape" else (-1,)
        yield Step(PosteriorSample(theta.clone().view(shape)), state)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("shape", r"a sample is \(1, \d+\) of torch.float32, expected"),
        ("forgets", "resumed after step 1 it goes on otherwise; put everything"),
        ("shares", "a state was changed after it was yielded; yield clones|goes on otherwise"),
        ("writes", "resuming writes into the state that it was given; copy it first"),
    ],
)
def test_a_broken_method_is_found(mistake: str, message: str) -> None:
    METHODS.register("walk")(Method(WalkConfig, walk))
    check_method("walk")
    with pytest.raises(AssertionError, match=message):
        check_method("walk", {"mistake": mistake})


# --- metrics


def _right(predictions: Any, labels: Any, teacher: Any) -> Any:
    return (predictions.log_prob_NC.argmax(1) == labels).astype(np.float64)[:, None]


@pytest.mark.parametrize(
    ("settings", "terms", "message"),
    [
        ({}, lambda p, y, t: _right(p, y, t)[:, 0], r"terms are \(60,\), expected an array \(60,"),
        ({}, lambda p, y, t: _right(p, y, t) * np.arange(60)[:, None], "in another order"),
        ({}, lambda p, y, t: np.nan_to_num(_right(p, y, t)), "hold NaN, expected NaN"),
        (
            {"worst": 1.0, "best": 0.0},
            lambda p, y, t: -np.log(p.log_prob_NC[np.arange(60), y][:, None] * -1),
            "found best 0 and worst 1, expected finite ends",
        ),
        (
            {"worst": -20.0, "best": 0.0},
            lambda p, y, t: p.log_prob_NC[np.arange(60), y][:, None] - 30,
            "neither beats worst",
        ),
    ],
)
def test_a_broken_metric_is_found(settings: dict[str, Any], terms: Any, message: str) -> None:
    add_metric("broken", "maximize", "broken", reads=("predictive",), **settings)(terms)
    with pytest.raises(AssertionError, match=message):
        check_metric("broken")


# --- targets


def _largest(log_prob: Tensor) -> Tensor:
    return log_prob.exp().amax(-1, keepdim=True)


def test_a_target_that_no_metric_reads_is_found() -> None:
    TARGETS.register("largest")(mean_target("largest", _largest, label="largest"))
    with pytest.raises(AssertionError, match=r"no metric reads it.*register one with reads=\('lar"):
        check_target("largest")
    add_metric("largest_error", "minimize", "error", reads=("largest",))(_error_of_largest)
    check_target("largest")
    check_metric("largest_error")


def _error_of_largest(predictions: Any, labels: Any, teacher: Any) -> Any:
    return (predictions.expectations["largest"] - 0.5) ** 2


def test_a_target_whose_loss_learns_something_else_is_found() -> None:
    def absolute(raw: Tensor, heads: Any, expectation: Tensor) -> Tensor:
        return (raw - expectation).abs().sum(-1)

    target = mean_target("largest", _largest, label="largest")
    TARGETS.register("largest")(replace(target, loss=absolute))
    add_metric("largest_error", "minimize", "error", reads=("largest",))(_error_of_largest)
    with pytest.raises(AssertionError, match="gradients of the loss on the average, and on sampl"):
        check_target("largest")


# --- datasets and policies


class CoinsSettings(Config):
    """Settings of a dataset of coins."""

    name: Literal["coins"]
    mistake: str = ""


def coins(settings: dict[str, object], where: str) -> Any:
    if settings.get("mistake") == "lenient":
        settings = {key: value for key, value in settings.items() if key in ("name", "mistake")}
    cfg = parse(CoinsSettings, settings, where)
    generator = None if cfg.mistake == "global" else torch.Generator().manual_seed(0)
    x = torch.randn(50, 3, generator=generator)
    names = ("a", "a") if cfg.mistake == "names" else ("heads", "tails")
    return build(
        "coins",
        Split(x, (x[:, 0] > 0).long()),
        class_names=names,
        test=0.2,
        validation=0.2,
        seed=0,
        where=where,
    )


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("global", "draws from a global generator"),
        ("names", "two classes have one name"),
        ("lenient", "takes the setting 'nonsense'"),
    ],
)
def test_a_broken_dataset_is_found(mistake: str, message: str) -> None:
    DATASETS.register("coins")(coins)
    check_dataset("coins")
    state = torch.get_rng_state()
    with pytest.raises(AssertionError, match=message):
        check_dataset("coins", {"mistake": mistake})
    torch.set_rng_state(state)


class SlideSettings(DrawnSettings):
    """Settings of a policy that moves inputs."""

    policy: Literal["slide"]
    mistake: str = ""


def slide(cfg: SlideSettings, x: Tensor, *, generator: Any, answers: Any) -> Tensor:
    noise = torch.randn(len(x), generator=None if cfg.mistake == "global" else generator)
    if cfg.mistake == "writes":
        x.mul_(2)
    if cfg.mistake == "asks":
        answers(x)
    if cfg.mistake == "constant":
        noise = torch.ones(len(x))
    moved = x + noise.view(-1, *[1] * (x.dim() - 1))
    return moved.double() if cfg.mistake == "dtype" else moved


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("global", "the same generator gives other inputs"),
        ("writes", "writes into the inputs that it was given"),
        ("asks", "asks posterior samples, and its num_samples says none"),
        ("dtype", "expected .* of torch.float32"),
        ("constant", "draws 0 and 1 are the same"),
    ],
)
def test_a_broken_policy_is_found(mistake: str, message: str) -> None:
    POLICIES.register("slide")(Policy(SlideSettings, slide))
    check_policy("slide")
    state = torch.get_rng_state()
    with pytest.raises(AssertionError, match=message):
        check_policy("slide", {"mistake": mistake})
    torch.set_rng_state(state)
