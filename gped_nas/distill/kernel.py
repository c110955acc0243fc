"""The distillation kernel: one shared batch stream, many students, few large operations.

A population is laid out over workers (``layout.py``), each with bundles of students in flat buffers
(``bundle.py``, ``fused_mlp.py``). A step gathers one batch for all, computes every bundle's losses
and gradients on it, and updates all its parameters in one pass (``optim.py``). No operation mixes
two students: one that diverges changes no bit of its siblings', and siblings or places change a
student by rounding alone. Nothing in a step waits for the device.

Training has two phases: with the group penalty up to the pruning step; then dead units are removed,
the population is laid out anew around what is left, and the remaining steps fine-tune it. At rungs
validation is looked at; a student that has stopped improving can leave there, and only there, since
that is when buffers are laid out anew.

``kernel_reference.py`` does the same one student at a time in the plainest way; tests hold the two
together.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite

import torch
from torch import Tensor

from gped_nas import device as devices
from gped_nas import rng
from gped_nas.distill.bundle import Bundle, InTurn
from gped_nas.distill.centring import check_centred, enter, unit_means
from gped_nas.distill.components import Components, check_components, in_components
from gped_nas.distill.feed import Batch, DistillationSet, SharedFeed, batch_indices, cached_batches
from gped_nas.distill.fused_mlp import FusedMlp
from gped_nas.distill.layout import FUSED_FAMILY, Share, lay_out, num_workers
from gped_nas.distill.precision import decided
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.replay import CountedStep, Replay
from gped_nas.distill.training import TrainedBundle, Trainee
from gped_nas.errors import EnvironmentProblem, Interrupted
from gped_nas.io import canonical_json
from gped_nas.models.base import FAMILIES, Genotype, Params, Shapes
from gped_nas.models.compact import compact, num_dead_units
from gped_nas.models.costs import largest_product
from gped_nas.targets.base import Expectations

LOG_EVERY = 50
"""Steps between two points of a loss curve; workers wait for each other here."""
EVALUATED_AT_ONCE = 512
GPU_ROUNDING = 8
"""Hidden widths are rounded up to it on a GPU: its matrix units want 16-byte rows, and more shapes
become equal.
"""
BASE_WIDTH = 64
"""A student of this mean width takes the recipe's step size as it is."""


@dataclass(frozen=True, eq=False)
class TrainedStudent:
    """One trained student.

    Attributes:
        genotype: what was trained.
        params: float32 parameters that are left after pruning, on the CPU.
        seed: the seed its initialisation came from.
        num_dead: units that the group penalty killed.
        losses: ``[step, loss]`` of the training batch, now and then.
        rungs: ``[step, loss]`` on validation at each rung.
        failure: why it is of no use, for people; empty if it is.
    """

    genotype: Genotype
    params: Params
    seed: int
    num_dead: int
    losses: tuple[tuple[int, float], ...]
    rungs: tuple[tuple[int, float], ...]
    failure: str


@dataclass(frozen=True, eq=False)
class Population:
    """Students trained together, in the order they were asked for."""

    students: tuple[TrainedStudent, ...]


def student_seed(root: int, genotype: Genotype, replicate: int = 0) -> int:
    """The seed of a student: of its genotype and replicate, never of its place in a population."""
    return rng.seed(root, "student", canonical_json(genotype.to_json()), replicate)


def lr_factor(shapes: Shapes, recipe: Recipe) -> float:
    """What the step size of a student with these shapes, before pruning, is multiplied by."""
    widths = [shape[0] for shape in shapes.values() if len(shape) > 1][:-1]
    return (BASE_WIDTH * len(widths) / sum(widths)) ** recipe.lr_width_power if widths else 1.0


def distill(
    genotypes: Sequence[Genotype],
    data: DistillationSet,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    validation: DistillationSet | None = None,
    feed: Iterator[Batch] | None = None,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Population:
    """Train one student for each genotype on one shared batch stream.

    Args:
        genotypes: what to train; equal ones give equal students up to rounding.
        data: inputs and expectations.
        recipe: how to train.
        seed: root seed of initialisations and of the batch order.
        device: where to train.
        validation: what rungs look at; needed where the recipe has rungs.
        feed: what the students are shown, a batch a step, on ``device``; drawn from ``data`` by
            default.
        workers: at most so many threads train; one a core by default.
        progress: told ``(what, steps done, steps in all)``.
        should_stop: asked now and then.

    Returns:
        The students in the order of ``genotypes``; one whose numbers stopped being finite, or that
        fits into no memory, says so. A population that does not fit is trained in halves.

    Raises:
        EnvironmentProblem: the memory does not suffice for a population with a ``feed`` of its own.
        Interrupted: ``should_stop`` said so.
    """
    families = {genotype.family for genotype in genotypes}
    check_components(recipe.components, families, data.inputs[0].numel(), "recipe.components")
    check_centred(recipe.centred, families, "recipe.centred")
    train = partial(
        _Distillation,
        data=data,
        recipe=decided(recipe, genotypes, data, device),  # for the whole: halves are computed alike
        seed=seed,
        device=device,
        validation=validation,
        feed=feed,
        workers=workers,
        progress=progress,
        should_stop=should_stop,
    )
    return Population(_whole_or_in_halves(genotypes, train, seed, can_halve=feed is None))


def _whole_or_in_halves(
    genotypes: Sequence[Genotype],
    train: "Callable[[Sequence[Genotype]], _Distillation]",
    seed: int,
    *,
    can_halve: bool,
) -> tuple[TrainedStudent, ...]:
    """Students trained together where they fit into memory."""
    try:
        return train(genotypes).run()
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        message = str(error).partition("\n")[0] or "no more said"
    if not can_halve:
        raise EnvironmentProblem(
            f"students: {len(genotypes)} at once do not fit into memory ({message}); lower "
            "search.students_at_once"
        )
    if len(genotypes) == 1:
        failure = f"out of memory: {message}"
        return (
            TrainedStudent(genotypes[0], {}, student_seed(seed, genotypes[0]), 0, (), (), failure),
        )
    middle = len(genotypes) // 2
    first = _whole_or_in_halves(genotypes[:middle], train, seed, can_halve=True)
    return first + _whole_or_in_halves(genotypes[middle:], train, seed, can_halve=True)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # the CPU's allocator and CUDA's libraries raise a bare RuntimeError
    said = str(error).lower()
    return any(
        words in said for words in ("allocate memory", "out of memory", "status_alloc_failed")
    )


def finds_batches(device: torch.device) -> bool:
    """Whether a device finds the batches of averages by itself; other rules and chains are always
    fed from here.
    """
    return device.type == "cuda"


class _Distillation:
    """One call of ``distill``."""

    def __init__(
        self,
        genotypes: Sequence[Genotype],
        data: DistillationSet,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        validation: DistillationSet | None,
        feed: Iterator[Batch] | None,
        workers: int | None,
        progress: Callable[[str, int, int], None],
        should_stop: Callable[[], bool],
    ) -> None:
        assert validation is not None or not recipe.rungs, "rungs look at validation"
        shapes = [data.shapes(genotype) for genotype in genotypes]
        self.frame: Components | None = None
        if recipe.components:
            frame, data = in_components(data, recipe.components)
            self.frame = frame = frame.to(device)
            feed = feed and ((frame.project(x), said) for x, said in feed)
        self.dtype: torch.dtype = getattr(torch, recipe.precision)
        data = data.to(device)
        self.data = data = replace(
            data, inputs=data.inputs.to(self.dtype)
        )  # once, not in every batch
        self.recipe, self.device = recipe, device
        self.validation = None if validation is None else self._placed(validation)
        self.feed = feed or cached_batches(data, recipe, seed)
        is_counted = finds_batches(device) and feed is None and recipe.update == "averaged"
        self.index_TB = batch_indices(data, recipe, seed) if is_counted else None
        self.num_workers = 1 if is_counted else workers or num_workers(device)
        self.progress, self.should_stop = progress, should_stop
        self.seeds = [student_seed(seed, g) for g in genotypes]
        self.students = [
            self._fresh(*one) for one in zip(genotypes, shapes, self.seeds, strict=True)
        ]
        self.curves: list[list[tuple[int, Tensor]]] = [[] for _ in genotypes]
        self.rungs: list[list[tuple[int, float]]] = [[] for _ in genotypes]
        self.num_dead = [0] * len(genotypes)

    def _placed(self, validation: DistillationSet) -> DistillationSet:
        """Validation on the device, in the frame that students are trained in."""
        moved = validation.to(self.device)
        return (
            moved if self.frame is None else replace(moved, inputs=self.frame.project(moved.inputs))
        )

    def _fresh(self, genotype: Genotype, shapes: Shapes, seed: int) -> Trainee:
        family = FAMILIES[genotype.family]
        params = family.initialize(shapes, generator=torch.Generator().manual_seed(seed))
        moved = {name: p.to(self.device) for name, p in params.items()}
        return Trainee(
            genotype,
            lr_factor(shapes, self.recipe),
            moved if self.frame is None else self.frame.enter(moved),
        )

    def run(self) -> tuple[TrainedStudent, ...]:
        """Train to the end; students in the order of the genotypes."""
        recipe = self.recipe
        training = list(range(len(self.students)))
        self._begin_phase()
        stops = sorted({recipe.prune_step, recipe.steps, *recipe.rung_steps})
        team, start, phase_start = _Team(self, training, start=0, updates=0), 0, 0
        for stop in stops:
            for first in range(start, stop, LOG_EVERY):
                team.run(range(first, min(first + LOG_EVERY, stop)))
                self.progress("students", min(first + LOG_EVERY, stop), recipe.steps)
                if self.should_stop():
                    raise Interrupted(
                        "stopped while distilling; run the same command again to go on"
                    )
            team.unload()
            start = stop
            if stop in recipe.rung_steps:
                self._look(training, stop)
            left = training
            if stop == recipe.prune_step:
                self._prune()
                phase_start = stop
            elif stop > recipe.prune_step:
                left = [p for p in training if not self._is_done(p)]
            if stop == recipe.steps or not left:
                break
            if stop == recipe.prune_step or left != training:
                training = left
                del team  # two layouts at once might not fit into memory
                team = _Team(self, training, start=stop, updates=stop - phase_start)
        return tuple(self._distilled(p) for p in range(len(self.students)))

    def _begin_phase(self) -> None:
        """Optimisers forget; students are centred where the recipe says so."""
        for student in self.students:
            student.memory = {}
            if self.recipe.centred:
                student.centres = unit_means(student.params, self.data.inputs, self.dtype)
                student.params = enter(student.params, student.centres)

    def _prune(self) -> None:
        """Remove dead units and begin the second phase, in which averages are kept."""
        for p, student in enumerate(self.students):
            self.num_dead[p] = num_dead_units(student.genotype.family, student.params)
            student.params = compact(student.genotype.family, student.outcome)
        self._begin_phase()
        for student in self.students:
            student.average = dict(student.params) if self.recipe.average else {}

    @torch.no_grad()
    def _look(self, training: Sequence[int], step: int) -> None:
        """The loss of each student on validation, at a rung."""
        assert self.validation is not None
        size = len(self.validation.inputs)
        for p in training:
            student = self.students[p]
            total = 0.0
            for first in range(0, size, EVALUATED_AT_ONCE):
                index = torch.arange(
                    first, min(first + EVALUATED_AT_ONCE, size), device=self.device
                )
                x, expectations = self.validation.batch(index)
                raw = FAMILIES[student.genotype.family].forward(student.outcome, x)
                total += float(self.loss(raw[None], expectations)) * len(index)
            self.rungs[p].append((step, total / size))

    def _is_done(self, p: int) -> bool:
        """Whether a student has not improved on validation for so many rungs as the recipe has
        patience.
        """
        losses = [value for step, value in self.rungs[p] if step > self.recipe.prune_step]
        patience = self.recipe.patience
        # said so that a loss which is not a number is no improvement
        return (
            bool(patience)
            and len(losses) > patience
            and not min(losses[-patience:]) < min(losses[:-patience])
        )

    def loss(self, raw_PBU: Tensor, expectations: Expectations) -> Tensor:
        return self.data.layout.loss(raw_PBU, expectations, self.recipe.target_weights)

    def _distilled(self, p: int) -> TrainedStudent:
        student = self.students[p]
        outcome = student.outcome if self.frame is None else self.frame.leave(student.outcome)
        params = {name: value.detach().cpu().clone() for name, value in outcome.items()}
        curve = tuple((step, float(value)) for step, value in self.curves[p])
        losses = [value for _, value in (*curve, *self.rungs[p])]
        is_finite = all(bool(v.isfinite().all()) for v in params.values()) and all(
            map(isfinite, losses)
        )
        failure = "" if is_finite else "training diverged: its numbers are not finite"
        return TrainedStudent(
            student.genotype,
            params,
            self.seeds[p],
            self.num_dead[p],
            curve,
            tuple(self.rungs[p]),
            failure,
        )


class _Team:
    """The workers of one layout."""

    def __init__(
        self, job: _Distillation, training: Sequence[int], *, start: int, updates: int
    ) -> None:
        self._job, self._training = job, training
        students = [job.students[p] for p in training]
        shapes = [{name: tuple(v.shape) for name, v in s.params.items()} for s in students]
        input_shape = tuple(job.data.inputs.shape[1:])
        batch_size = min(job.recipe.batch_size, len(job.data.inputs))
        shares = lay_out(
            [s.genotype for s in students],
            shapes,
            input_shape=input_shape,
            batch_size=batch_size,
            num_workers=job.num_workers,
        )
        self._workers: list[list[tuple[Share, TrainedBundle]]] = [
            [] for _ in range(max(s.worker for s in shares) + 1)
        ]
        for share in shares:
            own = [shapes[i] for i in share.members]
            bundle: Bundle
            if share.family == FUSED_FAMILY:
                round_to = GPU_ROUNDING if job.device.type == "cuda" else 1
                centres = [students[i].centres for i in share.members]
                bundle = FusedMlp(
                    own,
                    job.loss,
                    dtype=job.dtype,
                    device=job.device,
                    round_to=round_to,
                    centres=centres,
                )
            else:
                bundle = InTurn(
                    FAMILIES[share.family], own, job.loss, dtype=job.dtype, device=job.device
                )
            trained = TrainedBundle(
                bundle, [students[i] for i in share.members], job.recipe, updates=updates
            )
            self._workers[share.worker].append((share, trained))
        self._largest_product = max(
            largest_product(s.genotype.family, own, input_shape, batch_size)
            for s, own in zip(students, shapes, strict=True)
        )
        self._counted = self._on_device(start) if job.index_TB is not None else None

    def _on_device(self, start: int) -> Replay:
        """The graph of the one worker's steps from ``start`` on."""
        recipe, device = self._job.recipe, self._job.device
        lr_T = torch.tensor(
            [recipe.lr_at(step) for step in range(start, recipe.steps)], device=device
        )
        bundles = [trained for _, trained in self._workers[0]]
        assert self._job.index_TB is not None
        return Replay(CountedStep(bundles, self._job.data, self._job.index_TB[start:], lr_T))

    def run(self, steps: range) -> None:
        """Train all students for these steps of the recipe."""
        if self._counted is not None:
            self._train_counted(self._counted, steps)
            return
        feed = SharedFeed(self._job.feed, num_readers=len(self._workers))
        if len(self._workers) == 1:
            with devices.threads_for(self._largest_product):
                self._train(self._workers[0], feed, steps)
            return
        with devices.one_thread(), ThreadPoolExecutor(len(self._workers)) as pool:
            for done in [pool.submit(self._train, own, feed, steps) for own in self._workers]:
                done.result()

    def _train(
        self, bundles: Sequence[tuple[Share, TrainedBundle]], feed: SharedFeed, steps: range
    ) -> None:
        """What one worker does."""
        recipe = self._job.recipe
        for place, step in enumerate(steps):
            x, expectations = feed.batch(place)
            for share, trained in bundles:
                losses_P = trained.step(x, expectations, recipe.lr_at(step))
                self._follow(share, trained, losses_P, step)

    def _train_counted(self, advance: Callable[[], list[Tensor]], steps: range) -> None:
        """What the one worker of a GPU does where batches and step sizes are found on the device."""
        for step in steps:
            for (share, trained), losses_P in zip(self._workers[0], advance(), strict=True):
                self._follow(share, trained, losses_P, step)

    def _follow(self, share: Share, trained: TrainedBundle, losses_P: Tensor, step: int) -> None:
        """What comes after an update: shrinking or averaging, and now and then a point of the loss
        curves.
        """
        recipe = self._job.recipe
        if step >= recipe.prune_step:
            trained.add_to_average()
        elif recipe.shrinks_after(step):
            trained.shrink(recipe.lr_since_shrink(step))
        if step % LOG_EVERY == 0 or step + 1 == recipe.steps:
            for member, value in zip(share.members, losses_P.clone(), strict=True):
                self._job.curves[self._training[member]].append((step, value))

    def unload(self) -> None:
        """Write what has been learnt back into the students."""
        for bundles in self._workers:
            for _, trained in bundles:
                trained.unload()
