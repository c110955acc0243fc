"""Views: the inputs where students meet the teacher, an input policy applied to a part of the data.

A policy is one registered ``Policy``: its settings and a function on normalized inputs. In a search
space it is written ``{policy: noise, std: 0.1}``. Labels are never touched: students learn the
teacher's own predictions at the inputs of the view.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args

import torch
from pydantic import Field
from torch import Tensor

from gped_nas import rng
from gped_nas.config import Config, parse
from gped_nas.data.base import Dataset, Part
from gped_nas.errors import ConfigError, DataError
from gped_nas.io import canonical_json, sha256_text
from gped_nas.registry import Registry
from gped_nas.spelling import first_part

PredictionDtype = Literal["float32", "float16"]
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


@dataclass(frozen=True)
class Policy(Generic[C]):
    """An input policy.

    Attributes:
        settings: the class of its settings; has the field ``policy``, the registered name.
        apply: what it does to inputs.
        part: the part of the dataset it is applied to where students learn.
        num_samples: how many posterior samples it asks, by its settings.
        example: settings, without ``policy``, with which the contract suite tries it.
    """

    settings: type[C]
    apply: Apply[C]
    part: Part = "distillation"
    num_samples: Callable[[C], int] = lambda cfg: 0
    example: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str | None:
        """The name that its settings expect, where these say one: ``policy: Literal["noise"]``."""
        names = get_args(self.settings.model_fields["policy"].annotation)
        return names[0] if len(names) == 1 else None


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
        policy: name of the input policy.
        settings: its settings with the defaults filled in, plain data.
        part: the part of the dataset it is applied to.
        seed: root of what the policy draws.
        dtype: how the teacher's predictions at the inputs are stored; see ``stream.format``.
        samples: digest of the posterior samples that the policy asks; empty where it asks none.
    """

    policy: str
    settings: Mapping[str, Any] = field(hash=False)
    part: Part
    seed: int
    dtype: PredictionDtype = "float32"
    samples: str = ""

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
        return key

    @property
    def name(self) -> str:
        """A file name of the view: ``distillation-noise-1a2b3c4d``."""
        policy = re.sub(r"[^A-Za-z0-9_]", "_", self.policy)
        digest = sha256_text(canonical_json(self.key()))
        return f"{first_part(self.part)}-{policy}-{digest[:8]}"

    @property
    def num_samples(self) -> int:
        """How many posterior samples its policy asks."""
        return POLICIES[self.policy].num_samples(self._config())

    def inputs(self, dataset: Dataset, answers: Answers = _no_samples) -> Tensor:
        """Normalized float32 inputs (N, *input_shape).

        They are the same at every call with the same posterior samples.

        Raises:
            ConfigError: the policy asks posterior samples and none were given.
        """
        part = first_part(self.part)
        settings = canonical_json(dict(self.settings))
        generator = rng.generator(self.seed, "view", self.policy, part, settings)

        x = dataset.inputs(self.part)
        policy = POLICIES[self.policy]
        moved: Tensor = policy.apply(self._config(), x, generator=generator, answers=answers)
        return moved

    def check(self, dataset: Dataset, where: str) -> None:
        """Refuse a view of a part that the dataset does not have.

        Raises:
            DataError: the part is empty.
        """
        if not len(dataset.raw(self.part)):
            raise DataError(
                f"{where}: policy '{self.policy}' takes the {self.part} inputs of dataset "
                f"'{dataset.name}', and it has none; bring them (x_pool of an npz) or remove the "
                "view"
            )

    def _config(self) -> Any:
        return POLICIES[self.policy].settings(policy=self.policy, **self.settings)


class DrawnSettings(Config):
    """Settings of a policy that draws.

    Views with other numbers are other draws, and training cycles through all of them.
    """

    draw: int = Field(0, ge=0, description="which draw of the policy it is")


def parse_view(
    settings: Mapping[str, object],
    where: str,
    seed: int,
    part: Part | None = None,
    dtype: PredictionDtype = "float32",
) -> View:
    """The view that ``{policy: name, ...}`` describes.

    Args:
        settings: plain data from a file.
        where: file and key of this place, for messages.
        seed: root of what the policy draws.
        part: the part of the dataset the policy is applied to; by default the policy's own.
        dtype: how predictions at it are stored.

    Raises:
        ConfigError: no policy is named, or a setting it does not take.
        RegistryError: unknown policy.
    """
    policy = POLICIES.named(settings, "policy", where)
    cfg = parse(policy.settings, settings, where)

    resolved = cfg.model_dump(mode="json")
    name = resolved.pop("policy")
    if resolved.get("draw") == 0:
        del resolved["draw"]  # the first draw is named as it was before there were others
    return View(name, resolved, part or policy.part, seed, dtype)
