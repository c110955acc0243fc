"""Views: the inputs where students meet the teacher, input policies applied to a part of the data.

A policy is one registered ``Policy``: its settings and a function on normalized inputs. In a search
space a view is written in one of these ways:

    {policy: noise, std: 0.1}
    {policy: [flip, {name: shift, pixels: 2}, mixup]}      one policy after the other
    {policy: flip, draws: 4}                               four views: draws 0, 1, 2 and 3
    {policy: flip, answers: clean}

Students learn what the teacher answers at the inputs of the view, its ``own`` answers, or what it
answers at the untouched input (``clean``). These are there already, and need no teacher.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args

import torch
from pydantic import Field
from torch import Tensor

from gped_nas import rng
from gped_nas.config import Config, parse
from gped_nas.data.base import Dataset, Part
from gped_nas.data.rows import chunks
from gped_nas.errors import ConfigError, DataError
from gped_nas.io import canonical_json, sha256_text
from gped_nas.registry import Registry
from gped_nas.spelling import first_part

PredictionDtype = Literal["float32", "float16"]
AnswersAt = Literal["own", "clean"]
"""Where the teacher is asked: at the inputs of a view, or at the untouched ones."""

C_contra = TypeVar("C_contra", bound=Config, contravariant=True)
C = TypeVar("C", bound=Config)

Answers = Callable[[Tensor], Tensor]
"""Normalized inputs (N, *input_shape) to the answers (S, N, C) of a few posterior samples.

Answers are probabilities of classes or means of a real label. They are in the dtype of the inputs
and have gradients with respect to them.
"""


class Apply(Protocol[C_contra]):
    """Normalized float32 inputs (N, *input_shape) in, inputs of the same shape and dtype out.

    Whatever it draws comes from ``generator``, and the inputs given are left as they are.
    ``answers`` asks as many posterior samples as the policy's ``num_samples`` says; a policy that
    says none never calls it.
    """

    def __call__(
        self, cfg: C_contra, x: Tensor, *, generator: torch.Generator, answers: Answers
    ) -> Tensor: ...


def fits_all(cfg: Config, input_shape: tuple[int, ...]) -> None:
    """What ``Policy.check`` is where inputs may have any shape."""


def fits_pictures(cfg: Config, input_shape: tuple[int, ...]) -> None:
    """What ``Policy.check`` is where inputs must be pictures.

    Raises:
        ConfigError: they are not.
    """
    if len(input_shape) != 3:
        raise ConfigError(
            f"found inputs of shape {input_shape}, expected pictures (channels, height, width); "
            "take noise or mixup, which are for tables too"
        )


@dataclass(frozen=True)
class Policy(Generic[C]):
    """An input policy.

    Attributes:
        settings: the class of its settings; has the field ``policy``, the registered name.
        apply: what it does to inputs.
        part: the part of the dataset it is applied to where students learn.
        num_samples: how many posterior samples it asks, by its settings.
        example: settings, without ``policy``, with which the contract suite tries it.
        keeps_label: whether an input keeps its class, so that its label, and the teacher's answer
            at the untouched input, are still right.
        check: raises ``ConfigError`` where it cannot be applied to inputs of a shape; see
            ``fits_pictures``.
    """

    settings: type[C]
    apply: Apply[C]
    part: Part = "distillation"
    num_samples: Callable[[C], int] = lambda cfg: 0
    example: Mapping[str, Any] = field(default_factory=dict)
    keeps_label: bool = False
    check: Callable[[C, tuple[int, ...]], None] = fits_all

    @property
    def name(self) -> str | None:
        """The name that its settings expect, where these say one: ``policy: Literal["noise"]``."""
        names = get_args(self.settings.model_fields["policy"].annotation)
        return names[0] if len(names) == 1 else None

    @property
    def draws(self) -> bool:
        """Whether there are other draws of it."""
        return issubclass(self.settings, DrawnSettings)


POLICIES: Registry[Policy[Any]] = Registry("policy", "gped_nas.data", Policy)


def _no_samples(x: Tensor) -> Tensor:
    raise ConfigError(
        "this input policy asks the teacher's posterior samples, and there are none; remove the "
        "view"
    )


@dataclass(frozen=True)
class View:
    """The inputs where students are compared with the teacher.

    Attributes:
        policy: name of the input policy; of several, their names joined by ``+``.
        settings: its settings with the defaults filled in, plain data; of several policies, those
            of each under ``steps``, and ``draw``.
        part: the part of the dataset it is applied to.
        seed: root of what the policy draws.
        dtype: how the teacher's predictions at the inputs are stored; see ``stream.format``.
        samples: digest of the posterior samples that the policy asks; empty where it asks none.
        answers: where the teacher is asked.
    """

    policy: str
    settings: Mapping[str, Any] = field(hash=False)
    part: Part
    seed: int
    dtype: PredictionDtype = "float32"
    samples: str = ""
    answers: AnswersAt = "own"

    def key(self) -> dict[str, Any]:
        """Plain data that fixes the view and its predictions; ``name`` carries its hash."""
        key = {
            "policy": self.policy,
            "settings": dict(self.settings),
            "part": first_part(self.part),
            "seed": self.seed,
        }
        if self.dtype != "float32":
            key["dtype"] = self.dtype
        if self.samples:
            key["samples"] = self.samples
        if self.answers != "own":
            key["answers"] = self.answers
        return key

    @property
    def name(self) -> str:
        """A file name of the view: ``distillation-noise-1a2b3c4d``."""
        policy = re.sub(r"[^A-Za-z0-9_]", "_", self.policy)
        digest = sha256_text(canonical_json(self.key()))
        return f"{first_part(self.part)}-{policy}-{digest[:8]}"

    @property
    def settings_without_draw(self) -> dict[str, Any]:
        """Its settings, whichever draw it is."""
        return {key: value for key, value in self.settings.items() if key != "draw"}

    @property
    def steps(self) -> tuple[tuple[Policy[Any], Any], ...]:
        """Its policies in their order, each with its settings."""
        if "steps" not in self.settings:
            policy = POLICIES[self.policy]
            return ((policy, policy.settings(policy=self.policy, **self.settings)),)

        steps = []
        for step in self.settings["steps"]:
            settings = dict(step)
            name = settings.pop("name")
            policy = POLICIES[name]
            steps.append((policy, policy.settings(policy=name, **settings)))
        return tuple(steps)

    @property
    def num_samples(self) -> int:
        """How many posterior samples its policies ask."""
        return max(policy.num_samples(cfg) for policy, cfg in self.steps)

    @property
    def keeps_label(self) -> bool:
        """Whether each input keeps its class; what label it has, if any, its part says."""
        return all(policy.keeps_label for policy, _ in self.steps)

    @property
    def is_untouched(self) -> bool:
        """Whether its inputs are those of its part as they are."""
        return all(policy.name in ("clean", "pool") for policy, _ in self.steps)

    @property
    def untouched(self) -> "View":
        """The view of the same inputs as they are."""
        policy = "pool" if self.part == "unlabeled" else "clean"
        return View(policy, {}, self.part, self.seed, self.dtype)

    @property
    def asked(self) -> "View":
        """The view at whose inputs the teacher is asked: its predictions are stored there."""
        return self if self.answers == "own" else self.untouched

    def inputs(self, dataset: Dataset, answers: Answers = _no_samples) -> Tensor:
        """Normalized float32 inputs (N, *input_shape).

        They are the same at every call with the same posterior samples.

        Raises:
            ConfigError: the policy asks posterior samples and none were given.
        """
        return self.move(dataset.inputs(self.part), answers)

    def blocks(self, x: Tensor, answers: Answers = _no_samples) -> Iterator[Tensor]:
        """What its policies make of inputs that are too many for memory, some thousand at a time.

        Each block has draws of its own, and a policy that mixes inputs mixes those of one block.
        Raises as ``inputs``.
        """
        path = ("view", self.policy, first_part(self.part), canonical_json(dict(self.settings)))
        for number, block in enumerate(chunks(x)):
            generators = []
            for step in range(len(self.steps)):
                generators.append(rng.generator(self.seed, *path, "block", number, step))
            yield self.draw(block, generators, answers)

    def move(self, x: Tensor, answers: Answers = _no_samples) -> Tensor:
        """What its policies make of normalized inputs (N, *input_shape). Raises as ``inputs``."""
        part = first_part(self.part)
        path = ("view", self.policy, part, canonical_json(dict(self.settings)))

        if "steps" not in self.settings:
            return self.draw(x, [rng.generator(self.seed, *path)], answers)
        generators = [rng.generator(self.seed, *path, i) for i in range(len(self.steps))]
        return self.draw(x, generators, answers)

    def draw(
        self, x: Tensor, generators: Sequence[torch.Generator], answers: Answers = _no_samples
    ) -> Tensor:
        """What its policies make of inputs, each with a generator of its own."""
        for (policy, cfg), generator in zip(self.steps, generators, strict=True):
            x = policy.apply(cfg, x, generator=generator, answers=answers)
        return x

    def check(self, dataset: Dataset, where: str) -> None:
        """Refuse a view that the dataset cannot have.

        Raises:
            DataError: its part is empty.
            ConfigError: a policy is for inputs of another shape.
        """
        if not len(dataset.raw(self.part)):
            raise DataError(
                f"{where}: policy '{self.policy}' takes the {self.part} inputs of dataset "
                f"'{dataset.name}', and it has none; bring them (x_pool of an npz) or remove the "
                "view"
            )

        for policy, cfg in self.steps:
            try:
                policy.check(cfg, dataset.input_shape)
            except ConfigError as error:
                raise ConfigError(
                    f"{where}: policy '{cfg.policy}', dataset '{dataset.name}': {error}"
                ) from None


class DrawnSettings(Config):
    """Settings of a policy that draws.

    Views with other numbers are other draws, and training cycles through all of them.
    """

    draw: int = Field(0, ge=0, description="which draw of the policy it is")


class ViewSettings(Config):
    """What every view has beside the settings of its policy."""

    draws: int = Field(
        1, ge=1, le=1000, description="so many views: draws draw, draw + 1, and so on"
    )
    answers: AnswersAt = Field(
        "own",
        description="what students learn: the teacher's own answers there, or its answers at the "
        "untouched (clean) input",
    )


def parse_views(
    settings: Mapping[str, object],
    where: str,
    seed: int,
    part: Part | None = None,
    dtype: PredictionDtype = "float32",
) -> tuple[View, ...]:
    """The views that ``{policy: name, ..., draws: 4}`` describes, one a draw.

    Args:
        settings: plain data from a file.
        where: file and key of this place, for messages.
        seed: root of what policies draw.
        part: the part of the dataset the policies are applied to; by default their own.
        dtype: how predictions at it are stored.

    Raises:
        ConfigError: no policy is named, or a setting it does not take; or ``draws`` or
            ``answers: clean`` with a policy that they are not for.
        RegistryError: unknown policy.
    """
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{where}: found {settings!r}, expected a mapping with a policy")
    of_view = {key: settings[key] for key in ViewSettings.model_fields if key in settings}
    of_policy = {key: value for key, value in settings.items() if key not in of_view}

    common = parse(ViewSettings, of_view, where)
    is_composed = isinstance(of_policy.get("policy"), list | Mapping)
    read = _parse_composition if is_composed else _parse_policy
    name, resolved = read(of_policy, where)
    view = View(name, resolved, "distillation", seed, dtype, answers=common.answers)

    parts = [policy.part for policy, _ in view.steps if policy.part != view.part]
    view = replace(view, part=part or (parts[0] if parts else view.part))
    _check_answers(view, where)
    return _at_draws(view, common.draws, where)


def parse_view(
    settings: Mapping[str, object],
    where: str,
    seed: int,
    part: Part | None = None,
    dtype: PredictionDtype = "float32",
) -> View:
    """The first of ``parse_views``, whose arguments and errors it has."""
    return parse_views(settings, where, seed, part, dtype)[0]


def _parse_policy(settings: Mapping[str, object], where: str) -> tuple[str, dict[str, Any]]:
    """The name of a policy, and its settings with defaults filled in."""
    policy = POLICIES.named(settings, "policy", where)
    resolved = parse(policy.settings, settings, where).model_dump(mode="json")
    name: str = resolved.pop("policy")
    if resolved.get("draw") == 0:
        del resolved["draw"]  # the first draw is named as it was before there were others
    return name, resolved


def _parse_composition(settings: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """The name of several policies, and their settings with defaults filled in.

    A list of one policy is that policy, and so is its mapping alone.
    """
    written = settings["policy"]
    listed = [written] if isinstance(written, Mapping) else written
    entries = [_parse_step(entry, f"{where}: policy[{i}]") for i, entry in enumerate(listed)]
    if not entries:
        raise ConfigError(f"{where}: policy: found an empty list, expected at least one policy")

    shared = {key: value for key, value in settings.items() if key != "policy"}
    if len(entries) == 1:
        name, resolved = entries[0]
        return _parse_policy({"policy": name, **resolved, **shared}, where)

    draw = parse(DrawnSettings, shared, where).draw
    steps = [{"name": name, **resolved} for name, resolved in entries]
    composed: dict[str, Any] = {"steps": steps, "draw": draw} if draw else {"steps": steps}
    return "+".join(name for name, _ in entries), composed


def _parse_step(entry: object, where: str) -> tuple[str, dict[str, Any]]:
    """One policy of several: its name, or its name with settings."""
    if isinstance(entry, str):
        return _parse_policy({"policy": entry}, where)
    if not isinstance(entry, Mapping) or "name" not in entry:
        raise ConfigError(
            f"{where}: found {entry!r}, expected the name of a policy, or a mapping with its name; "
            "write {name: shift, pixels: 2}"
        )

    for key in ("draw", *ViewSettings.model_fields):
        if key in entry:
            raise ConfigError(
                f"{where}: {key}: belongs to the view, not to one of its policies; write it beside "
                "policy"
            )
    settings = {key: value for key, value in entry.items() if key != "name"}
    return _parse_policy({"policy": entry["name"], **settings}, where)


def _check_answers(view: View, where: str) -> None:
    """Refuse answers at the untouched input where another class may be right."""
    if view.answers == "own":
        return
    for policy, cfg in view.steps:
        if not policy.keeps_label:
            raise ConfigError(
                f"{where}: answers: found clean with policy '{cfg.policy}', which moves inputs to "
                "where the teacher's answer is another one, expected own; leave answers out, or "
                "that policy"
            )


def _at_draws(view: View, num_draws: int, where: str) -> tuple[View, ...]:
    """So many draws of a view, from its own one on."""
    if num_draws == 1:
        return (view,)
    if not any(policy.draws for policy, _ in view.steps):
        raise ConfigError(
            f"{where}: draws: found {num_draws}, expected 1: policy '{view.policy}' has no draws "
            "that differ; remove draws"
        )

    first = view.settings.get("draw", 0)
    views = []
    for draw in range(first, first + num_draws):
        settings = {**view.settings, "draw": draw}
        if draw == 0:
            del settings["draw"]
        views.append(replace(view, settings=settings))
    return tuple(views)
