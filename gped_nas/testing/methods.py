"""What every posterior method promises, on one small classifier."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pydantic import ValidationError

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import ConfigError
from gped_nas.models.base import FAMILIES, Genotype, num_params
from gped_nas.posterior.base import (
    METHODS,
    Method,
    MethodConfig,
    PosteriorSample,
    Problem,
    ReadingConfig,
    State,
    Step,
)
from gped_nas.testing.problems import classifier
from gped_nas.testing.promises import require, require_refusal, run_all, same_bits

LONGEST = 8
"""Steps of a run."""
_DTYPES = {"<f2", "<f4", "<f8", "<i8", "<i4", "|i1", "|u1"}


def _nothing(problem: Problem) -> None:
    pass


@dataclass(frozen=True, eq=False)
class MethodCase:
    """A method and settings with which eight of its steps take no time.

    Attributes:
        name: of the method.
        settings: without ``name``.
        prepare: called with the problem before each run, for a method that reads a file.
    """

    name: str
    settings: Mapping[str, Any]
    prepare: Callable[[Problem], None] = field(default=_nothing)

    def __str__(self) -> str:
        return self.name

    @property
    def method(self) -> Method:
        """The method itself."""
        return METHODS[self.name]

    def parse(self, **settings: object) -> Any:
        """Its configuration, with some settings changed."""
        values = {"name": self.name, **self.settings, **settings}
        if self.reads_samples:
            values.setdefault("of", {"name": "sgld", **METHODS["sgld"].example})
        return parse(self.method.config, values, f"method '{self.name}'")

    @property
    def reads_samples(self) -> bool:
        """Whether it reads another method's posterior samples."""
        return issubclass(self.method.config, ReadingConfig)

    def steps(self, problem: Problem, state: State | None = None, seed: int = 0) -> Iterator[Step]:
        """Its steps from the beginning, or from a state."""
        self.prepare(problem)
        if self.reads_samples:
            problem = replace(problem, samples=_random_samples(problem))
        generator = rng.generator(seed, "posterior", 0)
        return self.method(problem, self.parse(), generator=generator, state=state)

    def run(self, problem: Problem, *, state: State | None = None, seed: int = 0) -> list[Step]:
        """Its first steps from the beginning, or from a state."""
        return list(itertools.islice(self.steps(problem, state, seed), LONGEST))


def method_case(
    name: str,
    settings: Mapping[str, Any] | None = None,
    prepare: Callable[[Problem], None] = _nothing,
) -> MethodCase:
    """A registered method, with its own ``example`` settings by default."""
    return MethodCase(name, METHODS[name].example if settings is None else settings, prepare)


def check_method(
    name: str,
    settings: Mapping[str, Any] | None = None,
    prepare: Callable[[Problem], None] = _nothing,
) -> None:
    """Try a registered posterior method.

    Args:
        name: of the method.
        settings: with which eight steps take no time; its own ``example`` by default.
        prepare: called with the problem before each run, for a method that reads a file.

    Raises:
        AssertionError: it breaks a promise; the message says which.
    """
    run_all(METHOD_CHECKS, [method_case(name, settings, prepare)])


def settings_are_strict_and_frozen(case: MethodCase) -> None:
    """Unknown settings are refused, settings cannot be changed, and are read again as they were."""
    require(
        issubclass(case.method.config, MethodConfig),
        f"{case}: its settings are a {case.method.config.__name__}, expected a MethodConfig",
    )
    said = require_refusal(
        lambda: case.parse(nonsense=1), (ConfigError,), f"{case}: takes the setting 'nonsense'"
    )
    require("nonsense" in said, f"{case}: refuses 'nonsense' without naming it: {said}")

    cfg = case.parse()
    require_refusal(
        lambda: setattr(cfg, "name", "other"),
        (ValidationError,),
        f"{case}: settings can be changed",
    )
    again = parse(case.method.config, cfg.model_dump(mode="json"), case.name)
    require(again == cfg, f"{case}: settings {cfg} are read again as {again}")


def samples_are_of_the_problems_size(case: MethodCase) -> None:
    """Finite float32 parameters, one flat tensor each, with weights of at least 0."""
    problem = classifier()
    samples = [step.sample for step in case.run(problem) if step.sample is not None]
    require(
        len(samples) > 0,
        f"{case}: no posterior sample in {LONGEST} steps; give an example with a shorter burn-in",
    )

    size = num_params(problem.shapes)
    for sample in samples:
        theta = sample.theta_W
        require(
            tuple(theta.shape) == (size,) and str(theta.dtype) == "torch.float32",
            f"{case}: a sample is {tuple(theta.shape)} of {theta.dtype}, expected ({size},) of "
            "torch.float32",
        )
        require(bool(theta.isfinite().all()), f"{case}: a sample is not finite")
        require(sample.weight >= 0, f"{case}: a sample weighs {sample.weight}")
        require(not theta.requires_grad, f"{case}: a sample carries a gradient; detach it")


def every_family_can_be_the_teacher(case: MethodCase) -> None:
    """Networks of any family are sampled, not the dense ones of the example alone."""
    for name, family in FAMILIES.items():
        if not family.examples:
            continue

        problem = classifier(Genotype(name, **family.examples[-1]))
        steps = {"steps": 100} if "steps" in case.settings else {}  # less work is enough here
        quick = replace(case, settings={**case.settings, **steps})
        drawn = quick.run(problem)

        samples = [step.sample.theta_W for step in drawn if step.sample is not None]
        size = num_params(problem.shapes)
        require(
            len(samples) > 0
            and tuple(samples[0].shape) == (size,)
            and bool(samples[0].isfinite().all())
            and float(samples[0].std()) > 0,
            f"{case}: no finite sample of {size} different numbers with a teacher of family {name}",
        )


def states_can_be_stored(case: MethodCase) -> None:
    """A state is named tensors of the types that a stream holds."""
    for step in case.run(classifier()):
        for name, value in step.state.items():
            require(
                re.fullmatch(r"[a-z_]+", name) is not None,
                f"{case}: a state holds '{name}', expected names of small letters and '_'",
            )
            kind = value.numpy().dtype.str
            require(
                kind in _DTYPES,
                f"{case}: state '{name}' is of type {kind}, expected one of {sorted(_DTYPES)}",
            )


def resuming_gives_the_same_bits(case: MethodCase) -> None:
    """A run that was stopped anywhere goes on as if it had not been: the state alone decides."""
    whole = case.run(classifier())
    for stop, step in enumerate(whole):
        state = {name: value.clone() for name, value in step.state.items()}
        rest = case.run(classifier(), state=state, seed=99)  # the state's generator, not this one
        expected = whole[stop + 1 :]
        require(
            _same(rest[: len(expected)], expected),
            f"{case}: resumed after step {stop + 1} it goes on otherwise; put everything that it "
            "carries into the state, the generator's too",
        )


def what_was_yielded_stays(case: MethodCase) -> None:
    """Later steps write into nothing that was given away: states are copies."""
    kept, copies = [], []
    for step in itertools.islice(case.steps(classifier()), LONGEST):
        kept.append(step)
        copies.append({name: value.clone() for name, value in step.state.items()})
    for step, copy in zip(kept, copies, strict=True):
        require(
            all(same_bits(step.state[name], copy[name]) for name in copy),
            f"{case}: a state was changed after it was yielded; yield clones",
        )


def a_state_that_is_given_is_left_alone(case: MethodCase) -> None:
    """Resuming writes into a copy of the state."""
    state = case.run(classifier())[0].state
    before = {name: value.clone() for name, value in state.items()}
    case.run(classifier(), state=state)
    require(
        all(same_bits(state[name], before[name]) for name in before),
        f"{case}: resuming writes into the state that it was given; copy it first",
    )


def the_generator_decides(case: MethodCase) -> None:
    """The same generator gives the same steps: nothing is drawn from elsewhere."""
    require(
        _same(case.run(classifier()), case.run(classifier())),
        f"{case}: two runs with the same generator differ; draw from the generator alone",
    )


def a_law_draws_anew_from_another_generator(case: MethodCase) -> None:
    """Draws of a law follow from its state alone, of which they change the generator's part."""
    if not case.method.is_law:
        return

    steps = [step for step in case.run(classifier()) if step.sample is not None]
    laws = [{name: v for name, v in step.state.items() if name != "rng"} for step in steps]
    for law in laws[1:]:
        require(
            law.keys() == laws[0].keys()
            and all(same_bits(law[name], value) for name, value in laws[0].items()),
            f"{case}: a draw changes more of its state than 'rng': such draws are not independent; "
            "give it another origin than 'fitted'",
        )

    other = rng.generator(1, "law").get_state()
    state = {**steps[0].state, "rng": other}
    fresh = case.run(classifier(), state=state)
    require(
        all(step.sample is not None for step in fresh),
        f"{case}: a law that is known yields steps without a sample",
    )
    drawn = [step.sample.theta_W for step in [*steps, *fresh] if step.sample is not None]
    distinct = {theta.numpy().tobytes() for theta in drawn}
    require(
        len(distinct) > len(steps),
        f"{case}: another generator draws the same samples; draw from the state's 'rng'",
    )


METHOD_CHECKS = (
    settings_are_strict_and_frozen,
    samples_are_of_the_problems_size,
    every_family_can_be_the_teacher,
    states_can_be_stored,
    resuming_gives_the_same_bits,
    what_was_yielded_stays,
    a_state_that_is_given_is_left_alone,
    the_generator_decides,
    a_law_draws_anew_from_another_generator,
)
"""Every promise of a posterior method: functions of a ``MethodCase``."""


def _random_samples(problem: Problem) -> list[PosteriorSample]:
    """What another method may have drawn: six different sets of parameters."""
    generator = rng.generator(0, "contract samples")
    size = num_params(problem.shapes)
    return [
        PosteriorSample(torch.randn(size, generator=generator), weight=1.0 + i) for i in range(6)
    ]


def _same(first: list[Step], second: list[Step]) -> bool:
    """Whether two runs yielded the same samples and states, to the bit."""
    if len(first) != len(second):
        return False
    return all(_same_step(a, b) for a, b in zip(first, second, strict=True))


def _same_step(a: Step, b: Step) -> bool:
    if a.state.keys() != b.state.keys():
        return False
    if not all(same_bits(a.state[name], b.state[name]) for name in a.state):
        return False
    if a.sample is None or b.sample is None:
        return a.sample is b.sample
    return same_bits(a.sample.theta_W, b.sample.theta_W) and a.sample.weight == b.sample.weight
