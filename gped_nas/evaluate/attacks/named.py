"""Attacks as conditions: ``apgd-0.1`` is APGD within a tenth of the data's range.

``worst`` is the one to report. FGSM and PGD are there for comparison with papers: ten steps of PGD
leave 56 % right where the standard suite leaves 19 %.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from gped_nas.data.scale import Scale
from gped_nas.errors import AttackWarning, ConfigError
from gped_nas.evaluate.attacks.average import Average, Loss, average_of, check_answers
from gped_nas.evaluate.attacks.ball import ball_around
from gped_nas.evaluate.attacks.hunt import Hunt
from gped_nas.evaluate.attacks.losses import (
    CROSS_ENTROPY,
    LOWER_MODEL,
    LOWER_TOTAL,
    MAJORITY,
    MARGIN,
    PROBABILITY,
    RAISE_MODEL,
    RAISE_TOTAL,
    VOTES,
    WRONG_AND_AGREED,
    WRONG_AND_SURE,
)
from gped_nas.evaluate.attacks.settings import (
    ApgdSettings,
    AttackSettings,
    FgsmSettings,
    ModelUncertaintySettings,
    PgdSettings,
    SlySettings,
    SquareSettings,
    TargetedSettings,
    UncertaintySettings,
    WorstSettings,
)
from gped_nas.evaluate.attacks.steps import Best, fgsm
from gped_nas.evaluate.conditions import Change, Predictor, add_condition
from gped_nas.evaluate.predictions import Labels

_CHECKED = 64
_PGD_REACH = 2.5
"""All steps of PGD together, in radii."""
_VOTED_TARGETS = 3


class Attacked(NamedTuple):
    """Who is attacked, where, and by what draws: all that a condition is given."""

    raw: Tensor
    predictor: Predictor
    labels: Labels
    generator: Generator
    scale: Scale

    @classmethod
    def of(cls, raw: Tensor, given: Mapping[str, Any]) -> "Attacked":
        """What is read of all that a condition is given."""
        return cls(raw, given["predictor"], given["labels"], given["generator"], given["scale"])

    def hunt(self, settings: AttackSettings, name: str) -> Hunt:
        """A hunt that has begun.

        Raises:
            ConfigError: labels are real numbers.
            DataError: the predictor draws while it answers.
        """
        if not np.issubdtype(self.labels.dtype, np.integer):
            raise ConfigError(
                f"condition '{name}': found real labels, expected classes: attacks are on "
                "classifiers; remove it"
            )
        device = getattr(self.predictor, "device", None)
        raw = self.raw if device is None else self.raw.to(device)
        average = average_of(self.predictor)
        label_N = torch.as_tensor(self.labels, dtype=torch.int64, device=raw.device)
        check_answers(average, raw[:_CHECKED], label_N, f"condition '{name}'")

        ball = ball_around(raw, self.scale, settings.epsilon, settings.norm)
        return Hunt(average, ball, label_N, self.generator)


def _add_attack(
    name: str, label: str, settings: type[AttackSettings]
) -> Callable[[Change], Change]:
    """Register an attack, whose radius follows its name."""
    return add_condition(name, label, settings=settings, main="epsilon", kinds=("classification",))


def _ends(hunt: Hunt, name: str) -> Tensor:
    """The inputs that were found, on the processor; what is worth saying is a warning."""
    for note in hunt.notes:
        warnings.warn(f"attack '{name}': {note}", AttackWarning, stacklevel=3)
    return hunt.best.x.detach().cpu()


@_add_attack("fgsm", "a step along the gradient (FGSM)", FgsmSettings)
def fgsm_inputs(raw: Tensor, *, settings: FgsmSettings, **given: Any) -> Tensor:
    """Each input one step further."""
    hunt = Attacked.of(raw, given).hunt(settings, "fgsm")
    x = fgsm(hunt.average, hunt.ball, CROSS_ENTROPY, hunt.aim())
    hunt.best = Best(x, hunt.best.rank_N)
    if not hunt.is_constant:
        hunt.tell_zero_gradients()
    return _ends(hunt, "fgsm")


@_add_attack("pgd", "plain steps along the gradient (PGD)", PgdSettings)
def pgd_inputs(raw: Tensor, *, settings: PgdSettings, **given: Any) -> Tensor:
    """The worst inputs on the way of plain steps."""
    hunt = Attacked.of(raw, given).hunt(settings, "pgd")
    if not hunt.is_constant:
        hunt.tell_zero_gradients()
        hunt.walk(
            CROSS_ENTROPY if settings.loss == "cross_entropy" else MARGIN,
            steps=settings.steps,
            step_size=settings.step_size or _PGD_REACH / settings.steps,
            restarts=settings.restarts,
        )
    return _ends(hunt, "pgd")


@_add_attack("apgd", "APGD on cross-entropy and on the targeted DLR", TargetedSettings)
def apgd_inputs(raw: Tensor, *, settings: TargetedSettings, **given: Any) -> Tensor:
    """The worst inputs of both losses; the second one looks at what the first one left."""
    hunt = Attacked.of(raw, given).hunt(settings, "apgd")
    hunt_with_apgd(hunt, settings)
    return _ends(hunt, "apgd")


def hunt_with_apgd(hunt: Hunt, settings: TargetedSettings) -> None:
    """Go on with a hunt as the attack ``apgd`` does."""
    if hunt.is_constant:
        return
    hunt.tell_zero_gradients()
    if settings.loss != "targeted":
        hunt.climb(CROSS_ENTROPY, hunt.all(), steps=settings.steps, restarts=settings.restarts)
    if settings.loss != "cross_entropy":
        hunt.climb_to_targets(
            targets=settings.targets, steps=settings.steps, restarts=settings.restarts
        )


@_add_attack("pma", "APGD on the margin of probabilities (PMA)", ApgdSettings)
def pma_inputs(raw: Tensor, *, settings: ApgdSettings, **given: Any) -> Tensor:
    """The worst inputs on the way."""
    hunt = Attacked.of(raw, given).hunt(settings, "pma")
    if not hunt.is_constant:
        hunt.tell_zero_gradients()
        hunt.climb(PROBABILITY, hunt.all(), steps=settings.steps, restarts=settings.restarts)
    return _ends(hunt, "pma")


@_add_attack("square", "random search without gradients (Square)", SquareSettings)
def square_inputs(raw: Tensor, *, settings: SquareSettings, **given: Any) -> Tensor:
    """The worst inputs that were asked about."""
    hunt = Attacked.of(raw, given).hunt(settings, "square")
    if not hunt.is_constant:
        hunt.search(queries=settings.queries, restarts=settings.restarts)
    return _ends(hunt, "square")


@_add_attack("worst", "the worst of APGD, PMA and Square for each input", WorstSettings)
def worst_inputs(raw: Tensor, *, settings: WorstSettings, **given: Any) -> Tensor:
    """The worst inputs of all attacks; each looks at what earlier ones left."""
    hunt = Attacked.of(raw, given).hunt(settings, "worst")
    hunt_with_worst(hunt, settings)
    return _ends(hunt, "worst")


def hunt_with_worst(hunt: Hunt, settings: WorstSettings) -> None:
    """Go on with a hunt as the attack ``worst`` does."""
    if hunt.is_constant:
        return
    hunt.tell_zero_gradients()
    steps, restarts = settings.steps, settings.restarts
    hunt.climb(CROSS_ENTROPY, hunt.all(), steps=steps, restarts=restarts)
    hunt.climb_to_targets(targets=settings.targets, steps=steps, restarts=restarts)
    hunt.climb(PROBABILITY, hunt.right(), steps=steps, restarts=restarts)
    if not hunt.average.is_alone:
        num_right = len(hunt.right())
        hunt.climb(MAJORITY, hunt.right(), steps=steps, restarts=restarts)
        hunt.climb_to(VOTES, targets=_VOTED_TARGETS, steps=steps, restarts=restarts)
        hunt.tell_more(num_right, "following each network by itself")

    hunt.tell_large_radius()
    if settings.queries:
        num_right = len(hunt.right())
        hunt.search(queries=settings.queries)
        hunt.tell_more(num_right, "Square, which reads no gradient,")


def _uncertain(
    raw: Tensor, settings: UncertaintySettings, name: str, loss: Loss, given: dict[str, Any]
) -> Tensor:
    """Inputs that a loss of the uncertainty is highest at; their answers may stay right."""
    hunt = Attacked.of(raw, given).hunt(settings, name)
    average = hunt.average
    if loss.entropy and hasattr(given["predictor"], "expected_entropy"):
        _check_says_entropy(average, name)
    if hunt.is_constant:
        return _ends(hunt, name)

    start = average.slope(hunt.ball.center, loss, hunt.aim())
    hunt.best = Best(hunt.ball.center, start.rank_N)
    hunt.climb(loss, hunt.all(), steps=settings.steps, restarts=settings.restarts)
    return _ends(hunt, name)


def _check_says_entropy(average: Average, name: str) -> None:
    if average.expected_entropy is None:
        raise ConfigError(
            f"condition '{name}': found a student that says nothing of expected_entropy, which "
            "its model uncertainty is made of; add it to targets, or take the total one"
        )


@_add_attack("raise_total", "attack that raises the entropy H", UncertaintySettings)
def raise_total(raw: Tensor, *, settings: UncertaintySettings, **given: Any) -> Tensor:
    """Inputs that the answer is least sure about."""
    return _uncertain(raw, settings, "raise_total", RAISE_TOTAL, given)


@_add_attack("lower_total", "attack that lowers the entropy H", UncertaintySettings)
def lower_total(raw: Tensor, *, settings: UncertaintySettings, **given: Any) -> Tensor:
    """Inputs that the answer is surest about."""
    return _uncertain(raw, settings, "lower_total", LOWER_TOTAL, given)


@_add_attack("raise_model", "attack that raises the mutual information", ModelUncertaintySettings)
def raise_model(raw: Tensor, *, settings: ModelUncertaintySettings, **given: Any) -> Tensor:
    """Inputs that posterior samples disagree about most."""
    return _uncertain(raw, settings, "raise_model", RAISE_MODEL, given)


@_add_attack("lower_model", "attack that lowers the mutual information", ModelUncertaintySettings)
def lower_model(raw: Tensor, *, settings: ModelUncertaintySettings, **given: Any) -> Tensor:
    """Inputs that posterior samples agree about most."""
    return _uncertain(raw, settings, "lower_model", LOWER_MODEL, given)


@_add_attack("sly", "attack whose wrong answers are sure", SlySettings)
def sly_inputs(raw: Tensor, *, settings: SlySettings, **given: Any) -> Tensor:
    """Inputs answered wrongly that a detector by this uncertainty does not find."""
    loss = WRONG_AND_SURE if settings.score == "total" else WRONG_AND_AGREED
    return _uncertain(raw, settings, "sly", loss, given)
