"""What every input policy promises: inputs of the same kind, the same each time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.data.views import POLICIES, Policy, parse_view, parse_views
from gped_nas.errors import ConfigError
from gped_nas.testing.promises import require, require_refusal, run_all

_SHAPES = ((6,), (2, 9, 8))
"""Of an input of a table, and of a picture."""


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

    @property
    def cfg(self) -> Any:
        """Its settings, read."""
        return parse(self.policy.settings, self.written, str(self))

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Those shapes of an input, among a table's and a picture's, that it says it is for."""
        fitting: list[tuple[int, ...]] = []
        for shape in _SHAPES:
            try:
                self.policy.check(self.cfg, shape)
            except ConfigError:
                continue
            fitting.append(shape)
        require(fitting != [], f"{self}: its check refuses inputs of each shape of {_SHAPES}")
        return fitting

    def apply(self, x: Tensor, seed: int = 0) -> Tensor:
        """What it makes of inputs."""
        generator = rng.generator(seed, "contract")
        moved: Tensor = self.policy.apply(self.cfg, x, generator=generator, answers=_answers)
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
    for shape in case.shapes:
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
    for shape in case.shapes:
        x = _inputs(shape)
        state = torch.get_rng_state()
        first, again = case.apply(x), case.apply(x)
        require(
            torch.equal(first, again) and torch.equal(state, torch.get_rng_state()),
            f"{case}: the same generator gives other inputs; draw from the generator alone",
        )


def posterior_samples_are_asked_only_if_it_says_so(case: PolicyCase) -> None:
    """A policy without ``num_samples`` works where there are no posterior samples."""
    if case.policy.num_samples(case.cfg):
        return

    def refuse(x: Tensor) -> Tensor:
        raise AssertionError(f"{case}: asks posterior samples, and its num_samples says none")

    generator = rng.generator(0, "contract")
    case.policy.apply(case.cfg, _inputs(case.shapes[0]), generator=generator, answers=refuse)


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
    x = _inputs(case.shapes[0])
    require(
        torch.equal(view.move(x, _answers), again.move(x, _answers)),
        f"{case}: a view is drawn otherwise",
    )


def its_draws_differ(case: PolicyCase) -> None:
    """Another number is another draw, where its settings have one."""
    if not case.policy.draws:
        return
    x = _inputs(case.shapes[0])
    first, second = parse_views({**case.written, "draws": 2}, str(case), 0)
    require(
        not torch.equal(first.move(x, _answers), second.move(x, _answers)),
        f"{case}: its settings have draw, and draws 0 and 1 are the same; draw from the generator",
    )


def it_composes(case: PolicyCase) -> None:
    """In company it does what it does alone, to what the policy before it made."""
    step = {"name": case.name, **case.settings}
    step.pop("draw", None)
    view = parse_view({"policy": [step, "noise"]}, str(case), 0)
    again = parse_view({"policy": [step, "noise"]}, str(case), 0)
    x = _inputs(case.shapes[0])
    both = view.move(x, _answers)
    require(torch.equal(both, again.move(x, _answers)), f"{case}: is drawn otherwise in company")

    generators = [rng.generator(0, "company", i) for i in range(2)]
    moved = view.draw(x, generators, _answers)
    alone, noise = (rng.generator(0, "company", i) for i in range(2))
    for (policy, cfg), generator in zip(view.steps, (alone, noise), strict=True):
        x = policy.apply(cfg, x, generator=generator, answers=_answers)
    require(torch.equal(moved, x), f"{case}: does something else in company than alone")


def answers_stay_right_if_it_says_so(case: PolicyCase) -> None:
    """Answers at the untouched input go with a policy that keeps labels, and with no other."""
    written = {**case.written, "answers": "clean"}
    if not case.policy.keeps_label:
        require_refusal(
            lambda: parse_view(written, str(case), 0),
            (ConfigError,),
            f"{case}: keeps no label, and takes answers: clean",
        )
        return

    view, of_its_own = parse_view(written, str(case), 0), parse_view(case.written, str(case), 0)
    x = _inputs(case.shapes[0])
    require(
        torch.equal(view.move(x, _answers), of_its_own.move(x, _answers)),
        f"{case}: answers: clean change its inputs",
    )
    require(
        torch.equal(view.asked.move(x), x), f"{case}: the teacher is asked at inputs that moved"
    )


POLICY_CHECKS = (
    inputs_stay_of_their_kind,
    the_generator_decides,
    posterior_samples_are_asked_only_if_it_says_so,
    its_view_is_the_same_each_time,
    its_draws_differ,
    it_composes,
    answers_stay_right_if_it_says_so,
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
