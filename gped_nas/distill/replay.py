"""Steps of a whole worker recorded once as a CUDA graph: a step is one launch, not hundreds.

What changes from step to step lies on the device: a counter picks the row of batch indices and of
the step-size schedule, gathers the batch, and counts itself up. Every address stays the same, which
a graph demands, and nothing is read back. A graph holds until the layout changes; then its worker
is made anew, and so is the graph.

The recorded step runs anywhere. Without a graph it is the plain loop, which is how it is tested.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gped_nas.distill.feed import Batch, DistillationSet
from gped_nas.distill.training import TrainedBundle

WARM_UP = 3
"""Steps taken plainly before recording, while libraries set themselves up; they train as well."""


class DeviceSchedule:
    """What a step needs that changes from step to step, found on the device by a counter there."""

    def __init__(self, data: DistillationSet, index_TB: Tensor, lr_T: Tensor) -> None:
        """Begin before the first of T steps.

        Args:
            data: on the device; averages alone.
            index_TB: batch indices of each step, int64, on the device.
            lr_T: step sizes, float32, on the device.
        """
        self._data = data
        self._index_TB, self._lr_T = index_TB, lr_T
        self.device = index_TB.device
        self._counter = torch.zeros(1, dtype=torch.int64, device=self.device)

    def batch(self) -> Batch:
        """The batch of the present step."""
        data = self._data
        index_B = self._index_TB.index_select(0, self._counter).squeeze(0)
        expectations = {name: value.index_select(0, index_B) for name, value in data.shown.items()}
        return data.inputs.index_select(0, index_B), expectations

    def lr(self) -> Tensor:
        """The step size of the present step, a scalar."""
        return self._lr_T.index_select(0, self._counter).squeeze(0)

    def advance(self) -> None:
        """Go on to the next step."""
        self._counter.add_(1)


class ScheduledStep:
    """A step of a worker's bundles by a schedule on their device."""

    def __init__(self, bundles: Sequence[TrainedBundle], schedule: DeviceSchedule) -> None:
        self.bundles, self.schedule = bundles, schedule

    def __call__(self) -> list[Tensor]:
        """One step; the losses (P,) of each bundle."""
        x, expectations = self.schedule.batch()
        lr = self.schedule.lr()
        losses = [trained.step(x, expectations, lr) for trained in self.bundles]
        self.schedule.advance()
        return losses


class Replay:
    """``ScheduledStep`` as a CUDA graph after ``WARM_UP`` plain steps."""

    def __init__(self, step: ScheduledStep) -> None:
        self._step = step
        self._num_plain = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._device = step.schedule.device
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._losses: list[Tensor] = []

    def __call__(self) -> list[Tensor]:
        """One step; the losses are overwritten by the next."""
        if self._num_plain < WARM_UP:
            self._num_plain += 1
            # recorded work must not have run on the default stream before
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._stream):
                losses = self._step()
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
            return losses

        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            # records the step without running it
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._losses = self._step()
        self._graph.replay()
        return self._losses
