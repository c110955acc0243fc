"""Settings of attacks; a radius is a share of the data's range."""

from typing import ClassVar, Literal

from pydantic import Field

from gped_nas.config import Config
from gped_nas.data.scale import Scale
from gped_nas.evaluate.attacks.ball import Norm

Score = Literal["total", "model"]


TOO_WEAK = "overstates robustness; report the attack worst"


class AttackSettings(Config):
    """What every attack has.

    Attributes:
        caution: what must be said beside a figure under it, after its name; nothing of strong ones.
    """

    caution: ClassVar[str] = ""
    epsilon: float = Field(
        ge=0,
        description="radius: a share of the range of pictures, or of each column's standard "
        "deviation in a table",
    )
    norm: Norm = Field("linf", description="linf: of the largest change; l2: of all together")

    def describe(self, scale: Scale) -> str:
        """The radius for people: ``epsilon 0.03 (of 0..255: 7.65)``."""
        norm = "" if self.norm == "linf" else ", L2"
        return f"epsilon {scale.describe(self.epsilon)}{norm}"


class FgsmSettings(AttackSettings):
    """Settings of ``fgsm``."""

    caution: ClassVar[str] = TOO_WEAK


class PgdSettings(AttackSettings):
    """Settings of ``pgd``."""

    caution: ClassVar[str] = TOO_WEAK
    loss: Literal["cross_entropy", "margin"] = Field(
        "cross_entropy", description="what is raised; margin is the lead of the best other class"
    )
    steps: int = Field(40, ge=1, description="steps of each restart")
    step_size: float | None = Field(
        None, gt=0, description="a share of the radius; 2.5 / steps if nothing is said"
    )
    restarts: int = Field(1, ge=1, description="random starts; the worst one counts")


class ApgdSettings(AttackSettings):
    """Settings of ``apgd`` and ``pma``."""

    steps: int = Field(100, ge=1, description="steps of each restart, and of each target")
    restarts: int = Field(1, ge=1, description="random starts; the worst one counts")


class TargetedSettings(ApgdSettings):
    """Settings of ``apgd``."""

    loss: Literal["both", "cross_entropy", "targeted"] = Field(
        "both",
        description="cross-entropy, the targeted DLR (of log mean probabilities), or the worse",
    )
    targets: int = Field(9, ge=1, description="classes that are aimed at, most probable ones first")


class SquareSettings(AttackSettings):
    """Settings of ``square``."""

    queries: int = Field(5000, ge=1, description="answers asked for, an input and restart")
    restarts: int = Field(1, ge=1, description="random starts; the worst one counts")


class WorstSettings(ApgdSettings):
    """Settings of ``worst``."""

    targets: int = Field(9, ge=1, description="classes that are aimed at, most probable ones first")
    queries: int = Field(
        5000, ge=0, description="answers that Square asks for, an input; 0 leaves it out"
    )


class UncertaintySettings(AttackSettings):
    """Settings of ``raise_total`` and ``lower_total``."""

    steps: int = Field(40, ge=1, description="steps of each restart")
    restarts: int = Field(1, ge=1, description="random starts; the best one counts")


class ModelUncertaintySettings(UncertaintySettings):
    """Settings of ``raise_model`` and ``lower_model``."""

    @property
    def needs_target(self) -> str:
        """The target that a student's model uncertainty is made of."""
        return "expected_entropy"


class SlySettings(UncertaintySettings):
    """Settings of ``sly``."""

    score: Score = Field("total", description="the uncertainty that would give it away")

    @property
    def needs_target(self) -> str:
        """The target that a student's uncertainty is made of; empty where it is the main one."""
        return "expected_entropy" if self.score == "model" else ""
