"""The workers of one layout: they take the steps from where it begins to where it ends."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from gped_nas import device as devices
from gped_nas.distill.budget import BudgetPath
from gped_nas.distill.bundle import Bundle, InTurn
from gped_nas.distill.certified import WorstLoss
from gped_nas.distill.feed import Batch, DistillationSet, SharedFeed
from gped_nas.distill.fused_mlp import FusedMlp
from gped_nas.distill.layout import Share, lay_out
from gped_nas.distill.loss import loss_of
from gped_nas.distill.phases import has_walk, takes_phases
from gped_nas.distill.phases.bundle import PhasedMlp
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.replay import DeviceSchedule, Replay, ScheduledStep
from gped_nas.distill.trainee import Trainee
from gped_nas.distill.training import TrainedBundle
from gped_nas.models.base import FAMILIES, Family, shapes_of
from gped_nas.models.costs import largest_product
from gped_nas.models.dense import reads_rows

LOG_EVERY = 50
"""Steps between two points of a loss curve; workers wait for each other here."""
GPU_ROUNDING = 8
"""Hidden widths are rounded up to it on a GPU, for 16-byte rows and more equal shapes."""


@dataclass(frozen=True, eq=False)
class Classroom:
    """What all layouts of a call share.

    Attributes:
        data: what students are trained on, on the device and in their frame.
        recipe: how they are trained.
        dtype: what products are computed in.
        device: where.
        num_workers: how many threads there may be.
        feed: a batch for each step, from the call's first one on.
        schedule: batches and step sizes of all steps of the call, where the device finds them
            itself; None where batches are fed.
        input_shape: of one plain input, whatever frame ``data`` is in.
    """

    data: DistillationSet
    recipe: Recipe
    dtype: torch.dtype
    device: torch.device
    num_workers: int
    feed: Iterator[Batch]
    schedule: DeviceSchedule | None
    input_shape: tuple[int, ...]

    def path(self, student: Trainee) -> BudgetPath | None:
        """A student's way to its budget; None where it has none, or is there."""
        genotype = student.genotype
        is_there = self.recipe.phase_start(student.step, genotype) > 0
        if genotype.budget is None or is_there:
            return None
        return BudgetPath(genotype, self.input_shape, self.data.layout.num_outputs)

    def bundle(self, share: Share, students: Sequence[Trainee]) -> Bundle:
        """An empty bundle for the students of a share, in their order."""
        shapes = [shapes_of(student.params) for student in students]
        loss = loss_of(students, self.data.layout, self.recipe, self.device)
        if not share.is_dense:
            family = FAMILIES[share.family]
            return InTurn(
                family,
                shapes,
                loss,
                dtype=self.dtype,
                device=self.device,
                forwards=[student.forward for student in students],
                worst=self._worst(family),
            )

        if has_walk(share.activation) and takes_phases(self.recipe.kernel, self.device):
            return PhasedMlp(
                shapes,
                [student.chain for student in students],
                loss,
                dtype=self.dtype,
                device=self.device,
                centers=[student.centers for student in students],
            )

        return FusedMlp(
            shapes,
            [student.chain for student in students],
            loss,
            dtype=self.dtype,
            device=self.device,
            round_to=GPU_ROUNDING if self.device.type == "cuda" else 1,
            centers=[student.centers for student in students],
        )

    def _worst(self, family: Family) -> WorstLoss | None:
        """The bound of the loss that certified training adds."""
        if not self.recipe.certify:
            return None
        reach, layout = self.data.reach, self.data.layout
        assert reach is not None, "certified training is given how far inputs move"
        main = layout.main.name
        return WorstLoss(family, self.recipe.certify * reach, main, layout.slices[main])


Curve = list[tuple[int, Tensor]]
"""Points of a student's loss curve, on the device until its training ends."""


class Team:
    """The workers of one layout."""

    def __init__(
        self,
        room: Classroom,
        students: Sequence[Trainee],
        curves: Sequence[Curve],
        *,
        start: int,
    ) -> None:
        """Lay out students and fill their buffers.

        Args:
            room: what all layouts share.
            students: taken as they are, on the device.
            curves: of each student; points are added.
            start: the step that comes next.
        """
        self.students = students
        self._room, self._curves = room, curves
        recipe, data = room.recipe, room.data

        shapes = [shapes_of(student.params) for student in students]
        input_shape = tuple(data.inputs.shape[1:])
        batch_size = min(recipe.batch_size, len(data.inputs))
        are_dense = [
            # intervals are carried through one student at a time
            not recipe.certify and reads_rows(student.chain, shape, input_shape)
            for student, shape in zip(students, shapes, strict=True)
        ]

        shares = lay_out(
            [student.genotype for student in students],
            shapes,
            are_dense,
            [recipe.phase_start(start, student.genotype) for student in students],
            input_shape=input_shape,
            batch_size=batch_size,
            num_workers=room.num_workers,
        )
        num_workers = max(share.worker for share in shares) + 1
        self._workers: list[list[tuple[Share, TrainedBundle]]] = [[] for _ in range(num_workers)]
        for share in shares:
            members = [students[i] for i in share.members]
            trained = TrainedBundle(
                room.bundle(share, members),
                members,
                recipe,
                updates=start - share.phase_start,
                paths=[room.path(student) for student in members],
            )
            self._workers[share.worker].append((share, trained))

        self._largest_product = max(
            largest_product(student.genotype.family, shape, input_shape, batch_size)
            for student, shape in zip(students, shapes, strict=True)
        )
        self._replay: Replay | None = None
        if room.schedule is not None:
            bundles = [trained for _, trained in self._workers[0]]
            self._replay = Replay(ScheduledStep(bundles, room.schedule))

    def run(self, steps: range) -> None:
        """Train all students for these steps of the recipe.

        Raises:
            What a worker raises.
        """
        if self._replay is not None:
            self._train_on_device(self._replay, steps)
            return

        if len(self._workers) == 1:
            feed = SharedFeed(self._room.feed, num_readers=1)
            with devices.threads_for(self._largest_product):
                self._train(self._workers[0], feed, steps)
            return

        # With fewer cores than workers, a thread has the bundles of several: the layout alone
        # decides what is computed together.
        num_threads = min(len(self._workers), devices.usable_cores())
        shares = [sum(self._workers[i::num_threads], start=[]) for i in range(num_threads)]
        feed = SharedFeed(self._room.feed, num_readers=num_threads)
        with devices.one_thread(), ThreadPoolExecutor(num_threads) as pool:
            tasks = [pool.submit(self._train, bundles, feed, steps) for bundles in shares]
            for task in tasks:
                task.result()

    def _train(
        self, bundles: Sequence[tuple[Share, TrainedBundle]], feed: SharedFeed, steps: range
    ) -> None:
        """What one worker does."""
        recipe = self._room.recipe
        for number, step in enumerate(steps):
            x, expectations = feed.batch(number)
            for share, trained in bundles:
                losses_P = trained.step(x, expectations, recipe.lr_at(step))
                self._follow(share, trained, losses_P, step)

    def _train_on_device(self, replay: Replay, steps: range) -> None:
        """What the one worker of a GPU does where batches and step sizes are found there."""
        for step in steps:
            losses = replay()
            for (share, trained), losses_P in zip(self._workers[0], losses, strict=True):
                self._follow(share, trained, losses_P, step)

    def _follow(self, share: Share, trained: TrainedBundle, losses_P: Tensor, step: int) -> None:
        """What comes after an update: shrinking or averaging, and points of the loss curves."""
        recipe = self._room.recipe
        if share.phase_start > 0:
            trained.add_to_average()
        else:
            trained.shrink_after(step)

        if step % LOG_EVERY == 0 or step + 1 == recipe.steps:
            # a copy: a replayed step writes its losses to the same place
            for member, value in zip(share.members, losses_P.clone(), strict=True):
                self._curves[member].append((step, value))

    def unload(self) -> None:
        """Write what has been learnt back into the students."""
        for bundles in self._workers:
            for _, trained in bundles:
                trained.unload()
