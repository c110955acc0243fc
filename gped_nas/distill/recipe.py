"""The recipe: how students are trained. Part of every record, so that a student can be made again."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gped_nas.config import Config

Mode = Literal["cached", "online"]
Update = Literal["averaged", "newest", "running_mean"]


class Recipe(Config):
    """Settings of the kernel, the same for every student of a study.

    AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) with a linear warm-up and a cosine to zero over ``steps``, or
    halvings at equal distances. After ``prune_at`` of the steps dead units are removed and the rest fine-tunes what
    is left, without the group penalty. Modes: see ``distill.online``; update rules: see ``distill.feed``.
    """

    mode: Mode = Field(default="cached", description="learn from the stream, or online from a chain of their own")
    update: Update = Field(
        default="averaged",
        description="what a step is shown of the posterior samples; newest by default where mode is online",
    )
    steps: int = Field(default=3000, ge=1, description="optimiser steps, fine-tuning included")
    batch_size: int = Field(default=128, ge=1, description="examples a step, the same ones for every student")
    lr: float = Field(default=3e-3, gt=0, description="peak step size")
    halve_every: int = Field(default=0, ge=0, description="steps between halvings of lr; 0 is a cosine to zero")
    warmup: int = Field(default=100, ge=0, description="steps of linear warm-up")
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled, in units of 1 / lr-weighted step")
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.99, ge=0, lt=1)
    prune_at: float = Field(default=0.6, gt=0, lt=1, description="share of the steps before pruning")
    prox_every: int = Field(default=10, ge=1, description="steps between proximal steps of the group lasso")
    target_weights: Annotated[dict[str, float], Field(description="weight of each target's loss; 1 if absent")] = {}

    @model_validator(mode="before")
    @classmethod
    def _online_is_shown_samples(cls, data: Any) -> Any:
        return {"update": "newest", **data} if isinstance(data, dict) and data.get("mode") == "online" else data

    @model_validator(mode="after")
    def _online_has_no_average(self) -> "Recipe":
        if self.mode == "online" and self.update == "averaged":
            raise ValueError(
                "update: found averaged, expected newest or running_mean: mode online keeps no samples to average"
            )
        return self

    @model_validator(mode="after")
    def _weights_are_positive(self) -> "Recipe":
        for name, weight in self.target_weights.items():
            if weight <= 0:
                raise ValueError(f"target_weights.{name}: found {weight}, expected more than 0")
        return self

    @property
    def prune_step(self) -> int:
        """The step after which dead units are removed: a multiple of ``prox_every`` where there is room."""
        step = max(1, round(self.steps * self.prune_at))
        return max(self.prox_every, step - step % self.prox_every) if step >= self.prox_every else step

    def lr_at(self, step: int) -> float:
        """The step size at an absolute step, counted from 0."""
        warm = min(1.0, (step + 1) / (self.warmup + 1))
        if self.halve_every:
            return self.lr * warm * 0.5 ** (step // self.halve_every)
        return self.lr * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))
