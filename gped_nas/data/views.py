"""Views: an input policy applied to a part of the dataset gives the inputs where students meet the teacher.

A policy is one registered ``Policy``: its settings and a function on normalised inputs. In a search space it
is written ``{policy: noise, std: 0.1}``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from gped_nas import rng
from gped_nas.config import Config, parse
from gped_nas.data.base import Dataset, Part, named
from gped_nas.io import canonical_json, sha256_text
from gped_nas.registry import Registry

PredictionDtype = Literal["float32", "float16"]
C_contra = TypeVar("C_contra", bound=Config, contravariant=True)
C = TypeVar("C", bound=Config)


class Apply(Protocol[C_contra]):
    """Normalised float32 inputs (N, *input_shape) in, inputs of the same shape and dtype out.

    Whatever it draws comes from ``generator``, and the inputs given are left as they are.
    """

    def __call__(self, cfg: C_contra, x: Tensor, *, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True)
class Policy(Generic[C]):
    """An input policy.

    Attributes:
        settings: the class of its settings; has the field ``policy``, the registered name.
        apply: what it does to inputs.
    """

    settings: type[C]
    apply: Apply[C]


POLICIES: Registry[Policy[Any]] = Registry("policy", "gped_nas.data")


@dataclass(frozen=True)
class View:
    """The inputs where students are compared with the teacher.

    Attributes:
        policy: name of the input policy.
        settings: its settings with the defaults filled in, plain data.
        part: the part of the dataset it is applied to.
        seed: root of what the policy draws.
        dtype: how the teacher's log-probabilities at the inputs are stored; see ``stream.format``.
    """

    policy: str
    settings: Mapping[str, Any] = field(hash=False)
    part: Part
    seed: int
    dtype: PredictionDtype = "float32"

    def key(self) -> dict[str, Any]:
        """Plain data that fixes the view and its predictions; ``name`` carries its hash."""
        key = {"policy": self.policy, "settings": dict(self.settings), "part": self.part, "seed": self.seed}
        return key if self.dtype == "float32" else {**key, "dtype": self.dtype}

    @property
    def name(self) -> str:
        """A file name of the view: ``pool-noise-1a2b3c4d``."""
        policy = re.sub(r"[^A-Za-z0-9_]", "_", self.policy)
        return f"{self.part}-{policy}-{sha256_text(canonical_json(self.key()))[:8]}"

    def inputs(self, dataset: Dataset) -> Tensor:
        """Normalised float32 inputs (N, *input_shape), the same at every call."""
        policy = POLICIES[self.policy]
        cfg = policy.settings(policy=self.policy, **self.settings)
        generator = rng.generator(self.seed, "view", self.policy, self.part, canonical_json(self.key()["settings"]))
        return policy.apply(cfg, dataset.inputs(self.part), generator=generator)


def parse_view(
    settings: Mapping[str, object], where: str, part: Part, seed: int, dtype: PredictionDtype = "float32"
) -> View:
    """The view that ``{policy: name, ...}`` describes.

    Args:
        settings: plain data from a file.
        where: file and key of this place, for messages.
        part: the part of the dataset the policy is applied to.
        seed: root of what the policy draws.
        dtype: how predictions at it are stored.

    Raises:
        ConfigError: no policy is named, or a setting it does not take.
        RegistryError: unknown policy.
    """
    policy = named(POLICIES, settings, "policy", where)
    cfg = parse(policy.settings, settings, where)
    resolved = cfg.model_dump(mode="json")
    return View(resolved.pop("policy"), resolved, part, seed, dtype)


class CleanSettings(Config):
    """Settings of ``clean``."""

    policy: Literal["clean"]


def _apply_clean(cfg: CleanSettings, x: Tensor, *, generator: torch.Generator) -> Tensor:
    return x


class NoiseSettings(Config):
    """Settings of ``noise``."""

    policy: Literal["noise"]
    std: float = Field(0.1, gt=0, description="standard deviation, in units of the inputs' own standard deviation")


def _apply_noise(cfg: NoiseSettings, x: Tensor, *, generator: torch.Generator) -> Tensor:
    return x + cfg.std * torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


POLICIES.register("clean")(Policy(CleanSettings, _apply_clean))
POLICIES.register("noise")(Policy(NoiseSettings, _apply_noise))
