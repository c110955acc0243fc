"""The recipe: how students are trained.

It is part of every record, so that a student can be made again.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gped_nas.config import Config
from gped_nas.models.base import Genotype

Mode = Literal["cached", "online"]
KeptStream = Literal["stored", "none"]
Update = Literal["averaged", "newest", "running_mean"]
DrawViews = Literal["once", "fresh"]
Precision = Literal["auto", "float32", "bfloat16"]
Kernel = Literal["auto", "graph", "phases"]


_Positive = Annotated[float, Field(gt=0)]


class Recipe(Config):
    """Settings of the kernel, the same for every student of a study.

    An optimizer (see ``distill.optim``) with a linear warm-up and a cosine to zero over ``steps``,
    halvings at equal distances, or a line to zero at the end. After ``prune_at`` of the steps dead
    units are removed and the rest fine-tunes what is left, without the group penalty. Modes: see
    ``distill.online``; update rules: see ``distill.feed``.
    """

    mode: Mode = Field(
        default="cached", description="learn from the stream, or online from a chain of their own"
    )
    update: Update = Field(
        default="averaged",
        description="what a step is shown of the posterior samples; newest by default where mode "
        "is online",
    )
    stream: KeptStream = Field(
        default="stored",
        description="online: store the teacher's samples for evaluation, or none of them: then "
        "averages run along with its chains",
    )
    draw_views: DrawViews = Field(
        default="once", description="draw views before the training, or anew in each step"
    )
    optimizer: Literal["adamw", "muon", "sgd"] = Field(
        default="adamw", description="see distill.optim"
    )
    precision: Precision = Field(
        default="auto",
        description="what products are computed in; auto probes the device once a study, for "
        "large products",
    )
    kernel: Kernel = Field(
        default="auto",
        description="mlp on a GPU: tiles in phases, a graph of products, or auto: phases where "
        "they run",
    )
    steps: int = Field(default=3000, ge=1, description="optimizer steps, fine-tuning included")
    batch_size: int = Field(
        default=128, ge=1, description="examples a step, the same ones for every student"
    )
    lr: float = Field(default=3e-3, gt=0, description="peak step size")
    lr_probe: Annotated[
        tuple[_Positive, ...],
        Field(
            strict=False,
            description="peak step sizes of which a short probe chooses lr, once a study; none "
            "takes lr as it is",
        ),
    ] = ()
    halve_every: int = Field(
        default=0, ge=0, description="steps between halvings of lr; 0 is a cosine to zero"
    )
    decay_from: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the steps from which lr falls in a line to zero; 0 is a cosine",
    )
    warmup: int = Field(default=100, ge=0, description="steps of linear warm-up")
    components: int = Field(
        default=0,
        ge=0,
        description="mlp: train on so many principal components of the inputs; 0 is plain inputs",
    )
    centered: bool = Field(default=False, description="mlp: train on hidden units less their means")
    lr_rest: float = Field(
        default=3e-3, gt=0, description="muon: peak step size of biases, norms and last layers"
    )
    lr_width_power: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="a student's step size falls with its mean width to this power; 64 is one",
    )
    weight_decay: float = Field(default=0.0, ge=0, description="in units of 1 / lr-weighted step")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="adamw: decay of the first moment")
    beta2: float = Field(default=0.99, ge=0, lt=1, description="adamw: decay of the second moment")
    momentum: float = Field(
        default=0.95, ge=0, lt=1, description="muon, sgd: decay of the momentum"
    )
    average: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay a step of the weights' running average after pruning; 0 keeps none",
    )
    rungs: int = Field(
        default=0, ge=0, description="times, at equal distances, that validation is looked at"
    )
    patience: int = Field(
        default=0,
        ge=0,
        description="rungs after pruning without a lower loss until a student leaves; 0 is never",
    )
    prune_at: float = Field(
        default=0.6, gt=0, lt=1, description="share of the steps before pruning"
    )
    prox_every: int = Field(
        default=10, ge=1, description="steps between proximal steps of the group lasso"
    )
    label_weight: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the labels in the loss at inputs whose label is known; the rest is "
        "the teacher's",
    )
    certify: float = Field(
        default=0.0,
        ge=0,
        description="mlp, cnn: radius, a share of the data's range, within which a bound of the "
        "loss is added; 0 adds none",
    )
    target_weights: Annotated[
        dict[str, float], Field(description="weight of each target's loss; 1 if absent")
    ] = {}

    @model_validator(mode="before")
    @classmethod
    def _online_is_shown_samples(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("mode") == "online":
            return {"update": "newest", **data}
        return data

    @model_validator(mode="after")
    def _online_has_no_average(self) -> "Recipe":
        if self.mode == "online" and self.update == "averaged":
            raise ValueError(
                "update: found averaged, expected newest or running_mean: mode online keeps no "
                "samples to average"
            )
        return self

    @model_validator(mode="after")
    def _students_that_read_samples_have_some(self) -> "Recipe":
        if self.stream == "none" and self.mode != "online":
            raise ValueError(
                f"stream: found none with mode {self.mode}, whose students learn from stored "
                "samples, expected stored; leave stream out, or set recipe.mode to online"
            )
        return self

    @model_validator(mode="after")
    def _lr_falls_in_one_way(self) -> "Recipe":
        if self.halve_every and self.decay_from:
            raise ValueError(
                f"decay_from: found {self.decay_from} with halve_every {self.halve_every}, "
                "expected one of them; remove the other"
            )
        return self

    @model_validator(mode="after")
    def _patience_needs_rungs(self) -> "Recipe":
        if self.patience and not self.rungs:
            raise ValueError(
                "patience: needs rungs of at least 1, because students are checked at rungs; set "
                "recipe.rungs"
            )
        if self.rungs and self.update != "averaged":
            raise ValueError(
                f"rungs: found it with update {self.update}, expected averaged: rungs read averages"
            )
        return self

    @model_validator(mode="after")
    def _a_probe_reads_averages(self) -> "Recipe":
        if self.lr_probe and self.update != "averaged":
            raise ValueError(
                f"lr_probe: found it with update {self.update}, expected averaged: the probe looks "
                "at averages on validation; set recipe.lr alone"
            )
        return self

    @model_validator(mode="after")
    def _weights_are_positive(self) -> "Recipe":
        for name, weight in self.target_weights.items():
            if weight <= 0:
                raise ValueError(f"target_weights.{name}: found {weight}, expected more than 0")
        return self

    def to_record(self) -> dict[str, Any]:
        """What a record says of it: the kind of training, and what is not the default.

        Not the kernel, which changes students by rounding alone.
        """
        kind = {
            "mode": self.mode,
            "update": self.update,
            "optimizer": self.optimizer,
            "precision": self.precision,
        }
        changed = self.model_dump(mode="json", exclude_defaults=True, exclude={"kernel"})
        return {**changed, **kind}

    def label_weight_of(self, genotype: Genotype) -> float:
        """The share of the labels in the loss of a student: its own where its genotype has one."""
        share: Any = dict(genotype.values).get("label_weight", self.label_weight)
        return float(share)

    @property
    def prune_step(self) -> int:
        """The step after which dead units are removed of students that name no share of their own.

        It is a multiple of ``prox_every`` where there is room for one.
        """
        return self._prune_step(self.prune_at)

    def prune_step_of(self, genotype: Genotype) -> int:
        """The step after which a student's dead units are removed."""
        share: Any = dict(genotype.values).get("prune_at", self.prune_at)
        return self._prune_step(float(share))

    def _prune_step(self, share: float) -> int:
        step = max(1, round(self.steps * share))
        if step < self.prox_every:
            return step
        return step - step % self.prox_every

    def phase_start(self, step: int, genotype: Genotype) -> int:
        """The first step of the phase that a student is in at this step."""
        prune_step = self.prune_step_of(genotype)
        return prune_step if step >= prune_step else 0

    @property
    def rung_steps(self) -> tuple[int, ...]:
        """After how many steps validation is looked at; the last rung is the end."""
        steps = {max(1, round(self.steps * (i + 1) / self.rungs)) for i in range(self.rungs)}
        return tuple(sorted(steps))

    def shrinks_after(self, step: int, prune_step: int) -> bool:
        """Whether a proximal step of the group lasso follows this step of the first phase.

        Args:
            step: counted from 0.
            prune_step: of the student.
        """
        return (step + 1) % self.prox_every == 0 or step + 1 == prune_step

    def num_shrinks_left(self, step: int, prune_step: int) -> int:
        """How many proximal steps follow this step of the first phase, that after it included."""
        return -(-(prune_step - step - 1) // self.prox_every) + 1

    def lr_since_shrink(self, step: int) -> float:
        """The sum of step sizes over which the proximal step after ``step`` acts."""
        first = step - step % self.prox_every
        return sum(self.lr_at(s) for s in range(first, step + 1))

    def lr_at(self, step: int) -> float:
        """The step size at an absolute step, counted from 0."""
        warm_up = min(1.0, (step + 1) / (self.warmup + 1))
        if self.halve_every:
            return self.lr * warm_up * 0.5 ** (step // self.halve_every)
        if self.decay_from:
            num_falling = self.steps - round(self.steps * self.decay_from)
            return self.lr * warm_up * min(1.0, (self.steps - step) / max(1, num_falling))
        return self.lr * warm_up * 0.5 * (1 + math.cos(math.pi * step / self.steps))
