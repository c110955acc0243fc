"""A student in training, and the trained student that it becomes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isfinite

import torch
from torch import Tensor

from gped_nas.distill.centering import Centers, leave
from gped_nas.distill.components import Components
from gped_nas.distill.feed import Position
from gped_nas.models.base import FAMILIES, Genotype, Params, shapes_of
from gped_nas.models.dense import Chain, dense_chain

Points = tuple[tuple[int, float], ...]
"""Steps, each with a loss."""


@dataclass(frozen=True, eq=False)
class TrainedStudent:
    """One trained student.

    Attributes:
        genotype: what was trained.
        params: float32 parameters that are left after pruning, on the CPU; they read plain inputs.
        seed: the seed its initialization came from.
        num_dead: units that the group penalty killed.
        losses: steps with the loss of their training batch, now and then.
        rungs: steps with the loss on validation, one a rung.
        failure: why it is of no use, for people; empty if it is.
    """

    genotype: Genotype
    params: Params
    seed: int
    num_dead: int
    losses: Points
    rungs: Points
    failure: str


@dataclass(eq=False)
class Trainee:
    """A student after so many steps of its course: all that is needed to train it on.

    At a step it has been through everything that happens there: on the pruning step its dead units
    are gone, at a rung validation has been looked at.

    Attributes:
        genotype: what is trained.
        lr_factor: what the recipe's step size is multiplied by.
        ridge: weight of half the squared norm of its parameters in its loss: of a network that
            learns from labels alone, the precision of a normal prior over the number of labels.
        params: float32 parameters by name, in the frame, centered, and in its form.
        memory: what its optimizer remembers of each parameter; empty at the start of a phase.
        average: running average of the parameters; empty where none is kept.
        centers: what is taken off its hidden units in this phase (see ``centering.py``).
        constants: what its form keeps beside its parameters (see ``models/forms.py``).
        seed: the seed its initialization came from.
        precision: what its products are computed in.
        frame: the principal components that it reads; None where it reads plain inputs.
        step: steps of the recipe that it has been trained for.
        position: where the shared batch stream goes on; empty at the beginning and where nothing
            follows.
        num_dead: units that the group penalty killed.
        losses, rungs: see ``TrainedStudent``.
        has_left: it stopped improving, and is trained no further.
        failure: why the last call did not train it, for people; empty if it did.
    """

    genotype: Genotype
    lr_factor: float
    params: Params
    memory: dict[str, Params] = field(default_factory=dict)
    average: Params = field(default_factory=dict)
    centers: Centers = ()
    constants: Params = field(default_factory=dict)
    seed: int = 0
    precision: str = "float32"
    frame: Components | None = None
    step: int = 0
    position: Position = field(default_factory=dict)
    num_dead: int = 0
    losses: Points = ()
    rungs: Points = ()
    has_left: bool = False
    failure: str = ""
    ridge: float = 0.0

    @property
    def outcome(self) -> Params:
        """The plain parameters that the student would end with now."""
        params = self.average or self.params
        form = self.genotype.form
        if form is not None:
            return form.leave(params, self.constants)
        return leave(params, self.chain, self.centers) if self.centers else params

    def forward(self, params: Params, x: Tensor) -> Tensor:
        """Raw outputs (B, U) in training, of parameters as it is trained in."""
        form = self.genotype.form
        if form is not None:
            return form.forward(params, self.constants, x)
        return FAMILIES[self.genotype.family].forward(params, x)

    def settle(self, batches: Sequence[Tensor]) -> None:
        """Fit the constants to the parameters that it would end with now.

        Args:
            batches: distillation inputs, as many in each as in a batch of training.
        """
        form = self.genotype.form
        if form is not None:
            self.constants = form.settle(self.average or self.params, self.constants, batches)

    @property
    def dtype(self) -> torch.dtype:
        """What its products are computed in, as torch calls it."""
        dtype: torch.dtype = getattr(torch, self.precision)
        return dtype

    @property
    def chain(self) -> Chain:
        """Its layers where it is a chain of dense ones."""
        return dense_chain(FAMILIES[self.genotype.family], shapes_of(self.params))

    def to(self, device: torch.device) -> "Trainee":
        """The same student with its numbers on a device; its frame stays where it is."""

        def move(params: Params) -> Params:
            return {name: value.detach().to(device) for name, value in params.items()}

        return replace(
            self,
            params=move(self.params),
            memory={part: move(params) for part, params in self.memory.items()},
            average=move(self.average),
            centers=tuple(center.to(device) for center in self.centers),
            constants=move(self.constants),
        )

    def trained(self, device: torch.device | None = None) -> TrainedStudent:
        """The student that people get if training ends here.

        Args:
            device: where its frame is left; where its parameters lie by default.
        """
        outcome, frame = self.outcome, self.frame
        if frame is not None and device is not None:
            outcome = {name: value.to(device) for name, value in outcome.items()}
            frame = frame.to(device)
        if frame is not None:
            outcome = frame.leave(outcome, self.chain[0])
        params = {name: value.detach().cpu().clone() for name, value in outcome.items()}

        failure = self.failure
        has_finite_params = all(bool(value.isfinite().all()) for value in params.values())
        has_finite_losses = all(isfinite(value) for _, value in (*self.losses, *self.rungs))
        if not failure and not (has_finite_params and has_finite_losses):
            failure = "training diverged: its numbers are not finite"

        return TrainedStudent(
            genotype=self.genotype,
            params={} if self.failure else params,
            seed=self.seed,
            num_dead=self.num_dead,
            losses=self.losses,
            rungs=self.rungs,
            failure=failure,
        )
