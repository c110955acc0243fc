"""The distillation kernel: one shared batch stream, many students, few large operations.

No operation mixes two students: one that diverges changes no bit of its siblings', and siblings or
places change a student by rounding alone. Nothing in a step waits for the device.

Training has two phases. The first has the group penalty and ends at the pruning step. Then dead
units are removed, the population is laid out anew around what is left, and the remaining steps
fine-tune it. Validation is looked at on rungs. A student that has stopped improving can leave
there, and only there, since that is when buffers are laid out anew.

Training can stop after any step and go on later, in another process and in other company:

    course = Course(data, recipe, seed)
    students = begin(course, genotypes, device=device)
    students = train(course, students, until=1000, device=device)
    save_trainee(path, students[0], course)
    best = load_trainee(path, course)
    best, = train(course, [best], until=recipe.steps, device=device)

The numbers are those of training without a stop: to the bit where students are laid out alike, but
for rounding elsewhere. ``distill`` is all of it in one call.

``tests/distill/reference.py`` does the same one student at a time in the plainest way, and tests
hold the two together.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gped_nas.distill.components import Components, inside, is_same_frame
from gped_nas.distill.course import Course, begin, begin_phase, settling_batches, student_seed
from gped_nas.distill.feed import Batch, BatchOrder, CachedFeed, DistillationSet
from gped_nas.distill.layout import num_workers
from gped_nas.distill.loss import loss_of
from gped_nas.distill.phases import check_kernel
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.replay import DeviceSchedule
from gped_nas.distill.resident import leave_devices, moved
from gped_nas.distill.team import LOG_EVERY, Classroom, Curve, Team
from gped_nas.distill.trainee import Points, TrainedStudent, Trainee
from gped_nas.errors import ConfigError, EnvironmentProblem, Interrupted
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.models.compact import compact, num_dead_units

__all__ = [
    "LOG_EVERY",
    "Course",
    "Population",
    "TrainedStudent",
    "Trainee",
    "begin",
    "distill",
    "student_seed",
    "train",
]

EVALUATED_AT_ONCE = 512
"""Inputs of validation at a time."""


@dataclass(frozen=True, eq=False)
class Population:
    """Students trained together, in the order they were asked for."""

    students: tuple[TrainedStudent, ...]


Progress = Callable[[str, int, int], None]
"""Told ``(what, steps done, steps in all)``."""


def distill(
    genotypes: Sequence[Genotype],
    data: DistillationSet,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    validation: DistillationSet | None = None,
    ridges: Sequence[float] = (),
    feed: Iterator[Batch] | None = None,
    workers: int | None = None,
    progress: Progress = lambda what, done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Population:
    """Train one student for each genotype on one shared batch stream, from beginning to end.

    Args:
        genotypes: what to train; equal ones give equal students up to rounding.
        data, recipe, seed, validation: see ``Course``.
        ridges: of each student, see ``Trainee``; none by default.
        device, feed, workers, progress, should_stop: see ``train``.

    Returns:
        The students in the order of ``genotypes``; one whose numbers stopped being finite, or that
        fits into no memory, says so.

    Raises:
        As ``begin`` and ``train``.
    """
    course = Course(data, recipe, seed, validation)
    begun = begin(course, genotypes, device=device)
    if ridges:
        begun = tuple(replace(s, ridge=ridge) for s, ridge in zip(begun, ridges, strict=True))
    students = train(
        course,
        begun,
        until=recipe.steps,
        device=device,
        feed=feed,
        workers=workers,
        progress=progress,
        should_stop=should_stop,
    )
    where = None if device.type == "cpu" else device
    return Population(tuple(student.trained(where) for student in students))


def train(
    course: Course,
    students: Sequence[Trainee],
    *,
    until: int,
    device: torch.device,
    feed: Iterator[Batch] | None = None,
    workers: int | None = None,
    progress: Progress = lambda what, done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Trainee, ...]:
    """Students trained on, on one shared batch stream, up to a step of their course.

    Students may have been trained for different numbers of steps: who is behind catches up first.
    A population that does not fit into memory is trained in halves.

    Args:
        course: that of the students.
        students: who to train; they are not changed.
        until: the step to stop after, counted from the beginning of the recipe. Who is there
            already, or has left, comes back as he is.
        device: where to train.
        feed: what the students are shown, a batch a step, on ``device``; drawn from the course's
            data by default. A feed of one's own cannot stop in the middle.
        workers: at most so many threads train; one a core by default.
        progress: told ``(what, steps done, steps in all)``.
        should_stop: asked now and then.

    Returns:
        The students in the same order, on the CPU. One that fits into no memory comes back as he
        is, with a ``failure``.

    Raises:
        ConfigError: ``until`` is no step of the recipe, a ``feed`` would be stopped or gone on
            with in the middle, or the recipe's kernel cannot run on the device.
        EnvironmentProblem: the memory does not suffice for a population with a ``feed`` of its own.
        Interrupted: ``should_stop`` said so.
    """
    _check(course.recipe, students, until, feed)
    check_kernel(course.recipe.kernel, device, "recipe")
    job = _Job(course, until, device, feed, workers, progress, should_stop)
    trained = [replace(student, failure="") for student in students]

    while True:
        going = [i for i, student in enumerate(trained) if _is_going(student, until)]
        if not going:
            return tuple(trained)

        # Who is behind is trained up to the next of the others; then they go on together.
        steps = sorted({trained[i].step for i in going} | {until})
        behind = [i for i in going if trained[i].step == steps[0]]
        for group in _group_alike(trained, behind):
            outcome = job.train([trained[i] for i in group], until=steps[1])
            for i, student in zip(group, outcome, strict=True):
                trained[i] = student


def _check(
    recipe: Recipe, students: Sequence[Trainee], until: int, feed: Iterator[Batch] | None
) -> None:
    if not 0 <= until <= recipe.steps:
        raise ConfigError(
            f"until: found {until}, expected a step of the recipe, from 0 to {recipe.steps}"
        )
    is_whole = until == recipe.steps and all(student.step == 0 for student in students)
    if feed is not None and not is_whole:
        raise ConfigError(
            f"recipe.mode: students of an online chain are trained from step 0 to {recipe.steps} "
            f"in one call (found from {max(student.step for student in students)} to {until}): the "
            "chain's place is not part of a student; use mode cached to stop and go on"
        )


def _is_going(student: Trainee, until: int) -> bool:
    return student.step < until and not student.has_left and not student.failure


def _group_alike(students: Sequence[Trainee], members: Sequence[int]) -> list[list[int]]:
    """Groups of students with one precision and one frame: they can share batches and buffers.

    All are alike unless they were begun on different machines.
    """
    groups: list[list[int]] = []
    for i in members:
        student = students[i]
        for group in groups:
            other = students[group[0]]
            is_same_precision = student.precision == other.precision
            if is_same_precision and is_same_frame(student.frame, other.frame):
                group.append(i)
                break
        else:
            groups.append([i])
    return groups


@dataclass(frozen=True, eq=False)
class _Job:
    """What a call of ``train`` was asked for."""

    course: Course
    until: int
    device: torch.device
    feed: Iterator[Batch] | None
    workers: int | None
    progress: Progress
    should_stop: Callable[[], bool]

    def train(self, students: Sequence[Trainee], *, until: int) -> list[Trainee]:
        """Train students of one step together where memory suffices, otherwise in halves."""
        try:
            return _Training(self, students, until).run()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            message = str(error).partition("\n")[0] or "no more said"
            leave_devices()

        if self.feed is not None:
            raise EnvironmentProblem(
                f"students: {len(students)} at once do not fit into memory ({message}); lower "
                "search.students_at_once"
            )
        if len(students) == 1:
            return [replace(students[0], failure=f"out of memory: {message}")]

        middle = len(students) // 2
        first_half = self.train(students[:middle], until=until)
        second_half = self.train(students[middle:], until=until)
        return first_half + second_half


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # the CPU's allocator and CUDA's libraries raise a bare RuntimeError
    message = str(error).lower()
    phrases = ("allocate memory", "out of memory", "status_alloc_failed")
    return any(phrase in message for phrase in phrases)


def finds_its_batches(device: torch.device) -> bool:
    """Whether a device finds the batches of averages by itself.

    Those of other update rules and of chains are always fed to it.
    """
    return device.type == "cuda"


class _Training:
    """Students of one step, computed alike, on their way to another step."""

    def __init__(self, job: _Job, students: Sequence[Trainee], until: int) -> None:
        self._job, self._until = job, until
        self.recipe = recipe = job.course.recipe
        self._start = students[0].step
        self._frame = None if students[0].frame is None else students[0].frame.to(job.device)
        # copies, so that those which came in are there for another try
        self.students = [student.to(job.device) for student in students]
        self._curves: list[Curve] = [[] for _ in students]

        course, device = job.course, job.device
        dtype = students[0].dtype
        data = course.data if students[0].frame is None else inside(course.data, students[0].frame)
        data = moved(data, device, dtype)
        self._validation = self._to_frame(course.validation)

        position = students[0].position
        is_averaged = recipe.update == "averaged" and job.feed is None
        is_on_device = is_averaged and data.fresh is None and finds_its_batches(device)
        self._source: BatchOrder | CachedFeed | None = None
        feed: Iterator[Batch] = iter(())
        schedule = None
        if is_on_device:
            self._source = order = BatchOrder(len(data.inputs), recipe, course.seed, position)
            schedule = self._schedule(data, order.take(until - self._start))
        elif job.feed is None and data.fresh is None:
            self._source = feed = CachedFeed(data, recipe, course.seed, position)
        elif job.feed is None:
            # inputs are moved as they are, and brought into the frame then
            plain = moved(course.data, device, course.data.inputs.dtype)
            self._source = source = CachedFeed(plain, recipe, course.seed, position)
            feed = self._in_frame(source)
        else:
            feed = self._in_frame(job.feed)

        self._room = Classroom(
            data=data,
            recipe=recipe,
            dtype=dtype,
            device=device,
            num_workers=1 if is_on_device else job.workers or num_workers(device),
            feed=feed,
            schedule=schedule,
            input_shape=tuple(course.data.inputs.shape[1:]),
        )

    def _in_frame(self, feed: Iterator[Batch]) -> Iterator[Batch]:
        return feed if self._frame is None else _project(feed, self._frame)

    def _schedule(self, data: DistillationSet, index_TB: Tensor) -> DeviceSchedule:
        """Batches and step sizes of the steps to come, on the device."""
        steps = range(self._start, self._until)
        lr_T = torch.tensor([self.recipe.lr_at(step) for step in steps], device=self._job.device)
        return DeviceSchedule(data, index_TB.to(self._job.device), lr_T)

    def _to_frame(self, validation: DistillationSet | None) -> DistillationSet | None:
        """Validation on the device, in the frame that students are trained in."""
        if validation is None:
            return None
        moved = validation.to(self._job.device)
        if self._frame is None:
            return moved
        return replace(moved, inputs=self._frame.project(moved.inputs))

    def run(self) -> list[Trainee]:
        """Train up to the step; students in their order, on the CPU."""
        recipe, until = self.recipe, self._until
        prune_steps = {recipe.prune_step_of(student.genotype) for student in self.students}
        events = sorted({until, *prune_steps, *recipe.rung_steps})
        start = self._start
        training = list(range(len(self.students)))
        team = self._make_team(training, start)

        for stop in events:
            if not start < stop <= until:
                continue
            self._advance(team, range(start, stop))
            team.unload()
            self._settle(training)
            staying = self._arrive(training, stop)
            if stop == until or not staying:
                break

            if stop in prune_steps or staying != training:
                del team  # two layouts at once might not fit into memory
                team = self._make_team(staying, stop)
            start, training = stop, staying

        return self._outcome()

    def _make_team(self, training: Sequence[int], start: int) -> Team:
        students = [self.students[p] for p in training]
        return Team(self._room, students, [self._curves[p] for p in training], start=start)

    def _advance(self, team: Team, steps: range) -> None:
        for start in range(steps.start, steps.stop, LOG_EVERY):
            stop = min(start + LOG_EVERY, steps.stop)
            team.run(range(start, stop))
            self._job.progress("students", stop, self._job.until)
            if self._job.should_stop():
                raise Interrupted("stopped while distilling; run the same command again to go on")

    def _arrive(self, training: Sequence[int], step: int) -> list[int]:
        """All that happens at a step; returns those who go on."""
        recipe = self.recipe
        for p in training:
            self.students[p].step = step

        # before pruning, so that the rung at that step is of the unpruned student
        is_rung = step in recipe.rung_steps
        if is_rung:
            self._look(training, step)

        for p in training:
            student = self.students[p]
            prune_step = recipe.prune_step_of(student.genotype)
            if step == prune_step:
                self._prune(student)
            elif is_rung and step < recipe.steps:
                student.has_left = is_out_of_patience(student.rungs, recipe, prune_step)
        return [p for p in training if not self.students[p].has_left]

    @torch.no_grad()
    def _settle(self, training: Sequence[int]) -> None:
        """Fit what students keep beside their parameters to those that they have now."""
        students = [self.students[p] for p in training]
        if any(student.genotype.form is not None for student in students):
            batches = settling_batches(self._room.data, self.recipe)
            for student in students:
                student.settle(batches)

    @torch.no_grad()
    def _prune(self, student: Trainee) -> None:
        """Remove dead units and begin the second phase, in which averages are kept."""
        family = student.genotype.family
        outcome = student.outcome
        student.num_dead = num_dead_units(family, outcome)
        student.params = compact(family, outcome)
        begin_phase(student, self._room.data, self.recipe)
        student.average = dict(student.params) if self.recipe.average else {}

    @torch.no_grad()
    def _look(self, training: Sequence[int], step: int) -> None:
        """The loss of each student on validation, at a rung."""
        assert self._validation is not None
        size = len(self._validation.inputs)

        for p in training:
            student = self.students[p]
            family = FAMILIES[student.genotype.family]
            layout = self._validation.layout
            loss = loss_of([student], layout, self.recipe, self._job.device)
            outcome = student.outcome
            total = 0.0
            for start in range(0, size, EVALUATED_AT_ONCE):
                stop = min(start + EVALUATED_AT_ONCE, size)
                index = torch.arange(start, stop, device=self._job.device)
                x, expectations = self._validation.batch(index)
                raw = family.forward(outcome, x)
                total += float(loss(raw[None], expectations)) * len(index)
            student.rungs = (*student.rungs, (step, total / size))

    def _outcome(self) -> list[Trainee]:
        position = {} if self._source is None else self._source.position()
        for student, curve in zip(self.students, self._curves, strict=True):
            goes_on = student.step < self.recipe.steps and not student.has_left
            student.position = position if goes_on else {}
            if curve:
                # all of them are waited for at once
                values = torch.stack([value for _, value in curve]).tolist()
                steps = [step for step, _ in curve]
                student.losses += tuple(zip(steps, values, strict=True))
        return [student.to(torch.device("cpu")) for student in self.students]


def is_out_of_patience(rungs: Points, recipe: Recipe, prune_step: int) -> bool:
    """Whether a student has not improved on validation for as many rungs as there is patience.

    Rungs before pruning do not count: their losses are those of students under the penalty.

    Args:
        rungs: its losses on validation.
        recipe: how it is trained.
        prune_step: when it was pruned.
    """
    losses = [value for step, value in rungs if step > prune_step]
    patience = recipe.patience
    if patience == 0 or len(losses) <= patience:
        return False

    best_of_recent = min(losses[-patience:])
    best_before = min(losses[:-patience])
    # ``not <``, not ``>=``: a loss that is not a number is no improvement
    return not best_of_recent < best_before


def _project(feed: Iterator[Batch], frame: Components) -> Iterator[Batch]:
    for x, expectations in feed:
        yield frame.project(x), expectations
