"""Whether the front still gets better: its gain of hypervolume beside the noise of that gain.

Trials are taken in the order of their numbers, and a student in another storage type with the trial
that it was trained for, which alone counts. A front has gained once its hypervolume is larger
than that of the front at the last gain by more than the noise of the difference: the standard
deviation over bootstrap draws of the validation examples, the same draws for both fronts. The front
is flat when so many trials came after the last gain. An empty front is not flat.

All of it follows from the records: a search that was killed decides the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from gped_nas.errors import StudyError
from gped_nas.search.drawn_volume import drawn_volumes
from gped_nas.search.draws import NUM_DRAWS, unpack_draws
from gped_nas.search.goals import Objective
from gped_nas.search.pareto import Floats, hypervolume, pareto_front, to_box
from gped_nas.search.record import FINISHED, TrialRecord


@dataclass(frozen=True)
class Flatness:
    """How long ago a front got better.

    Attributes:
        patience: trials without a gain after which it is flat.
        num_trials: finished trials so far.
        trial: number of the trial of the last gain; None before there was one.
        num_since: trials after it.
        hypervolume: of the front as it is now.
        gain: by which that is larger than at the last gain.
        noise: standard deviation of that gain.
    """

    patience: int
    num_trials: int
    trial: int | None
    num_since: int
    hypervolume: float
    gain: float
    noise: float

    @property
    def is_flat(self) -> bool:
        """Whether the search is to end."""
        return self.trial is not None and self.num_since >= self.patience

    @property
    def room(self) -> int:
        """Trials that may be begun before the front has to be looked at again."""
        return self.patience if self.trial is None else max(1, self.patience - self.num_since)

    @property
    def sentence(self) -> str:
        """What to tell of a front that is flat."""
        trials = "1 trial" if self.num_since == 1 else f"{self.num_since} trials"
        return (
            f"The front is flat: in {trials} after trial {self.trial} its "
            f"hypervolume grew by {self.gain:.2g} to {self.hypervolume:.4g}, and the noise of that "
            f"is {self.noise:.2g} (standard deviation over {NUM_DRAWS} draws of the validation "
            "examples)."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data: keys as the attributes."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class _Point:
    """A student that counts: its objectives, and the qualities among them on each draw, (R, Q)."""

    values: Floats
    drawn_RQ: Floats


@dataclass(eq=False)
class FrontWatch:
    """Looks whether a study's front is flat.

    Attributes:
        patience: trials without a gain after which it is.
        objectives: in order.
        best, worst: the ends of the box that its hypervolume is of.
        counts: whether a complete record may be on the front.
    """

    patience: int
    objectives: Sequence[Objective]
    best: Sequence[float]
    worst: Sequence[float]
    counts: Callable[[TrialRecord], bool] = lambda record: True
    _points: dict[int, _Point | None] = field(default_factory=dict)
    _places: dict[int, tuple[int, int]] = field(default_factory=dict)
    _counted: set[int] = field(default_factory=set)
    _volumes: dict[tuple[int, ...], tuple[float, Floats]] = field(default_factory=dict)
    _looked: Flatness | None = None

    def add(self, record: TrialRecord) -> None:
        """Take a record into account.

        Raises:
            StudyError: it was measured before draws were kept, or they are damaged.
        """
        if record.state not in FINISHED:
            return
        self._looked = None
        self._places[record.trial] = record.trained_in, record.trial
        if record.is_counted:
            self._counted.add(record.trial)
        is_student = record.state == "complete" and self.counts(record)
        self._points[record.trial] = self._point_of(record) if is_student else None

    def _point_of(self, record: TrialRecord) -> _Point:
        values = np.array([record.value(goal.name) for goal in self.objectives])
        columns = []
        for goal in self.objectives:
            if goal.kind != "metric":
                continue
            if goal.name not in record.draws:
                raise StudyError(
                    f"trial {record.trial}: found no draws of {goal.name}, expected them for "
                    "--stop-when-flat, since it was measured by an earlier version; leave the "
                    "option out, or choose another --study-name"
                )
            where = f"trial {record.trial}: draws.{goal.name}"
            columns.append(unpack_draws(record.draws[goal.name], where))
        drawn_RQ = np.stack(columns, axis=1) if columns else np.empty((NUM_DRAWS, 0))
        return _Point(values, drawn_RQ)

    def look(self) -> Flatness:
        """Whether the front is flat by now."""
        if self._looked is None:
            self._looked = self._look()
        return self._looked

    def _look(self) -> Flatness:
        front: list[int] = []
        front_at_gain: list[int] = []
        last_gain, num, num_at_gain = None, 0, 0
        gain = noise = 0.0

        for trial in sorted(self._points, key=self._places.__getitem__):
            num += trial in self._counted
            after = self._with(front, trial)
            if after == front:
                continue
            front = after
            gain, noise = self._difference(front, front_at_gain)
            if gain > noise:
                front_at_gain, last_gain, num_at_gain = front, trial, num
                gain = noise = 0.0

        return Flatness(
            patience=self.patience,
            num_trials=num,
            trial=last_gain,
            num_since=num - num_at_gain,
            hypervolume=self._volume(front)[0],
            gain=gain,
            noise=noise,
        )

    def _with(self, front: list[int], trial: int) -> list[int]:
        """The front after one more trial."""
        point = self._points[trial]
        if point is None:
            return front
        members = [*front, trial]
        values = np.array([self._point(member).values for member in members])
        is_on_front = pareto_front(values, [goal.direction for goal in self.objectives])
        return [members[i] for i in np.flatnonzero(is_on_front)]

    def _difference(self, now: list[int], before: list[int]) -> tuple[float, float]:
        """The gain of one front over another, and its standard deviation over the draws."""
        (volume, volume_R), (volume_before, before_R) = self._volume(now), self._volume(before)
        difference_R = volume_R - before_R
        known = difference_R[np.isfinite(difference_R)]
        noise = float(known.std(ddof=1)) if len(known) > 1 else 0.0
        return volume - volume_before, noise

    def _volume(self, front: list[int]) -> tuple[float, Floats]:
        """The hypervolume of a front, and that on each draw, (R,)."""
        key = tuple(front)
        if key not in self._volumes:
            self._volumes[key] = self._compute_volume(key)
        return self._volumes[key]

    def _compute_volume(self, front: tuple[int, ...]) -> tuple[float, Floats]:
        if not front:
            return 0.0, np.zeros(NUM_DRAWS)

        points = [self._point(trial) for trial in front]
        values_NM = np.array([point.values for point in points])
        qualities = [i for i, goal in enumerate(self.objectives) if goal.kind == "metric"]

        values_RNM = np.repeat(values_NM[None], NUM_DRAWS, axis=0)
        values_RNM[:, :, qualities] = np.stack([point.drawn_RQ for point in points], axis=1)
        volume = hypervolume(self._losses(values_NM), np.ones(len(self.objectives)))
        losses_RNM = self._losses(values_RNM.reshape(-1, values_RNM.shape[2]))
        return volume, drawn_volumes(losses_RNM.reshape(values_RNM.shape), qualities)

    def _losses(self, values: Floats) -> Floats:
        scales = [goal.scale for goal in self.objectives]
        return to_box(values, self.best, self.worst, scales=scales)

    def _point(self, trial: int) -> _Point:
        point = self._points[trial]
        assert point is not None, "a member of a front counts"
        return point
