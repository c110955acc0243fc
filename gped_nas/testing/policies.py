"""What every input policy promises: inputs of the same kind, the same each time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.data.base import Split, build
from gped_nas.data.views import POLICIES, Policy, View, parse_view
from gped_nas.errors import ConfigError
from gped_nas.testing.promises import require, require_refusal, run_all

_SHAPES = ((6,), (2, 5, 4))


@dataclass(frozen=True)
class PolicyCase:
    """An input policy and settings of it, without ``policy``."""

    name: str
    settings: Mapping[str, Any]

    def __str__(self) -> str:
        return f"policy '{self.name}'"

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def policy(self) -> Policy[Any]:
        """The policy itself."""
        return POLICIES[self.name]

    @property
    def written(self) -> dict[str, Any]:
        """As a search space has it."""
        return {"policy": self.name, **self.settings}

    def apply(self, x: Tensor, seed: int = 0) -> Tensor:
        """What it makes of inputs."""
        cfg = parse(self.policy.settings, self.written, str(self))
        generator = rng.generator(seed, "contract")
        moved: Tensor = self.policy.apply(cfg, x, generator=generator, answers=_answers)
        return moved


def policy_case(name: str, settings: Mapping[str, Any] | None = None) -> PolicyCase:
    """A registered policy, with its own ``example`` settings by default."""
    return PolicyCase(name, POLICIES[name].example if settings is None else settings)


def check_policy(name: str, settings: Mapping[str, Any] | None = None) -> None:
    """Try a registered input policy.

    Args:
        name: of the policy.
        settings: without ``policy``; its own ``example`` by default.

    Raises:
        AssertionError: it breaks a promise; the message says which.
    """
    run_all(POLICY_CHECKS, [policy_case(name, settings)])


def inputs_stay_of_their_kind(case: PolicyCase) -> None:
    """As many finite inputs, of the same shape and dtype; those that were given are left alone."""
    for shape in _SHAPES:
        x = _inputs(shape)
        before = x.clone()
        moved = case.apply(x)
        require(torch.equal(x, before), f"{case}: writes into the inputs that it was given")
        require(
            moved.shape == x.shape and moved.dtype == x.dtype,
            f"{case}: makes {tuple(moved.shape)} of {moved.dtype}, expected {tuple(x.shape)} of "
            f"{x.dtype}",
        )
        require(bool(moved.isfinite().all()), f"{case}: makes numbers that are not finite")
        require(not moved.requires_grad, f"{case}: its inputs carry a gradient; detach them")


def the_generator_decides(case: PolicyCase) -> None:
    """The same generator gives the same inputs, to the bit."""
    for shape in _SHAPES:
        x = _inputs(shape)
        state = torch.get_rng_state()
        first, again = case.apply(x), case.apply(x)
        require(
            torch.equal(first, again) and torch.equal(state, torch.get_rng_state()),
            f"{case}: the same generator gives other inputs; draw from the generator alone",
        )


def posterior_samples_are_asked_only_if_it_says_so(case: PolicyCase) -> None:
    """A policy without ``num_samples`` works where there are no posterior samples."""
    cfg = parse(case.policy.settings, case.written, str(case))
    if case.policy.num_samples(cfg):
        return

    def refuse(x: Tensor) -> Tensor:
        raise AssertionError(f"{case}: asks posterior samples, and its num_samples says none")

    generator = rng.generator(0, "contract")
    case.policy.apply(cfg, _inputs((6,)), generator=generator, answers=refuse)


def its_view_is_the_same_each_time(case: PolicyCase) -> None:
    """Settings are strict, and a view made of them is named and drawn alike each time."""
    said = require_refusal(
        lambda: parse_view({**case.written, "nonsense": 1}, str(case), 0),
        (ConfigError,),
        f"{case}: takes the setting 'nonsense'",
    )
    require("nonsense" in said, f"{case}: refuses 'nonsense' without naming it: {said}")

    view = parse_view(case.written, str(case), 0)
    again = parse_view({"policy": view.policy, **view.settings}, str(case), 0)
    require(
        again.key() == view.key() and again.name == view.name,
        f"{case}: its settings {view.settings} are read again as {again.settings}",
    )
    if not view.num_samples:
        require(
            torch.equal(_inputs_of(view), _inputs_of(again)), f"{case}: a view is drawn otherwise"
        )


POLICY_CHECKS = (
    inputs_stay_of_their_kind,
    the_generator_decides,
    posterior_samples_are_asked_only_if_it_says_so,
    its_view_is_the_same_each_time,
)
"""Every promise of an input policy: functions of a ``PolicyCase``."""


def _inputs(shape: tuple[int, ...]) -> Tensor:
    return torch.randn((20, *shape), generator=rng.generator(0, "contract inputs", *shape))


def _answers(x: Tensor) -> Tensor:
    """Probabilities of three classes by four posterior samples, (S, N, C)."""
    rows = x.flatten(1)
    weight = torch.randn(
        (4, rows.shape[1], 3), generator=rng.generator(0, "contract answers"), dtype=rows.dtype
    )
    return (rows @ weight).softmax(-1)


def _inputs_of(view: View) -> Tensor:
    x = _inputs((6,))
    dataset = build(
        "contract",
        Split(x, torch.arange(len(x)) % 2),
        class_names=("even", "odd"),
        test=0.2,
        validation=0.2,
        seed=0,
        where="contract",
        unlabeled=x[:3],
    )
    return view.inputs(dataset)
