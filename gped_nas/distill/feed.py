"""What students are shown step by step: a batch of inputs and what the teacher says there.

The update rule decides what that is. Let ``g_s`` be a target's value by posterior sample ``s`` at
an input.

* ``averaged`` shows the average of ``g_s`` over all samples, which is computed once. Its gradient
  is that of the other two on average, without the noise of single samples. It is the default.
* ``newest`` (U_s of the paper) shows ``g_s`` of one sample. From a stream, that sample is drawn
  anew for each input of each batch, by the samples' weights. Online, it is the newest state of the
  chain.
* ``running_mean`` (U_o of the paper) shows the mean of all ``g_s`` that were drawn for this very
  input so far. For example, the third time that an input comes, it shows the mean of three.

A rule that would make a loss learn something else than its target is refused, see ``check_update``.

Source: Vadera, Jalaian & Marlin 2020, arXiv:2005.08110, section 3.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.data.base import Normalization
from gped_nas.data.rows import sha256_tensors
from gped_nas.distill.fresh import FreshViews
from gped_nas.distill.recipe import Recipe, Update
from gped_nas.errors import ConfigError
from gped_nas.io import Array, canonical_json, sha256_text
from gped_nas.models.base import Genotype, Shapes
from gped_nas.posterior.likelihoods import Prediction
from gped_nas.targets.base import (
    Expectations,
    MeanTarget,
    QuantileTarget,
    StatisticTarget,
    Target,
    resolve,
)
from gped_nas.targets.expectations import sample_values
from gped_nas.targets.layout import LABELS, HeadLayout

Batch = tuple[Tensor, Expectations]
"""Normalized inputs (B, *input_shape) and ``{target: (B, G)}``, with ``LABELS`` where there are."""

Position = dict[str, Tensor]
"""Where a feed goes on, as named tensors: what a checkpoint keeps of it. Empty is the beginning.

    order.generator      uint8: the state of the batch order's generator before the present pass
    order.taken          int64 (): how many indices of that pass are taken
    samples.generator    uint8: that of the posterior samples' draws; newest and running_mean alone
    mean.counts          (M,): how often each input was shown; running_mean alone
    mean.sums.<target>   (M, G): the sum of what was drawn for it; running_mean alone
    fresh.step           int64 (): how many batches were drawn; where views are fresh alone
"""
_SUMS = "mean.sums."


@dataclass(frozen=True, eq=False)
class PosteriorPredictions:
    """What every posterior sample says at every distillation input, read where it is asked for.

    Attributes:
        parts: for each stretch of the inputs its blocks of predictions (rows, M_part, C), which
            follow the samples' order: log-probabilities in nats, or means and variances; memory
            maps will do.
        weight_S: weights of the samples, summing to 1.
    """

    parts: Sequence[Sequence[Array]]
    weight_S: Tensor

    def at(self, sample_B: Tensor, index_B: Tensor) -> Tensor:
        """Predictions (B, C) by sample ``sample_B[i]`` at input ``index_B[i]``, float32."""
        sample, index = sample_B.numpy(), index_B.numpy()
        out = np.empty((len(index), self.parts[0][0].shape[2]), np.float32)

        input_start = 0
        for blocks in self.parts:
            num_inputs = blocks[0].shape[1]
            is_in_part = (index >= input_start) & (index < input_start + num_inputs)

            sample_start = 0
            for block in blocks:
                is_in_block = (sample >= sample_start) & (sample < sample_start + len(block))
                mask = is_in_part & is_in_block
                out[mask] = block[sample[mask] - sample_start, index[mask] - input_start]
                sample_start += len(block)
            input_start += num_inputs

        return torch.from_numpy(out)


@dataclass(frozen=True, eq=False)
class DistillationSet:
    """What students learn from: inputs and what the teacher says there.

    Attributes:
        inputs: normalized inputs (M, *input_shape).
        expectations: ``{target: (M, G)}`` of the targets of kind ``mean``; read by the rule
            ``averaged`` alone.
        layout: the heads of every student.
        samples: what single posterior samples say at the inputs; None where the rule reads none.
        labels: what the labels say of the main target, (M, G), see ``HeadLayout.labels``; NaN at
            inputs whose label is not known. None where students learn from no label.
        fresh: how inputs are moved in each step; None where they are shown as they are here.
        reach: how far each number of an input (*input_shape) moves within a radius of 1, for
            certified training; None where nobody asks for it.
    """

    inputs: Tensor
    expectations: Expectations
    layout: HeadLayout
    samples: PosteriorPredictions | None = None
    labels: Tensor | None = None
    fresh: FreshViews | None = None
    reach: Tensor | None = None

    @property
    def shown(self) -> Expectations:
        """All that the inputs are shown with: expectations, and labels where there are any."""
        if self.labels is None:
            return self.expectations
        return {**self.expectations, LABELS: self.labels}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what students learn from, hexadecimal; computed once.

        Of single posterior samples it covers weights and shapes alone: they lie in a sealed stream
        with digests of its own, and are too many to be read for this.
        """
        names = sorted(self.expectations)
        arrays = [self.inputs, *(self.expectations[name] for name in names)]
        if self.labels is not None:
            arrays.append(self.labels)
        block_shapes: list[list[list[int]]] = []
        if self.samples is not None:
            arrays.append(self.samples.weight_S)
            for blocks in self.samples.parts:
                block_shapes.append([list(block.shape) for block in blocks])

        description = {
            "targets": [target.to_json() for target in self.layout.targets],
            "num_classes": self.layout.num_classes,
            "expectations": names,
            "samples": block_shapes,
            "arrays": sha256_tensors(*arrays),
        }
        if self.fresh is not None:
            description["fresh"] = self.fresh.to_json()
        if self.reach is not None:
            description["reach"] = sha256_tensors(self.reach)
        return sha256_text(canonical_json(description))

    def to(self, device: torch.device) -> "DistillationSet":
        """The same data on a device; posterior samples stay where they are."""
        moved = {name: e.to(device) for name, e in self.expectations.items()}
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, inputs=self.inputs.to(device), expectations=moved, labels=labels)

    def batch(self, index_B: Tensor) -> Batch:
        """Inputs and what they are shown with at ``index_B``."""
        return self.inputs[index_B], {name: e[index_B] for name, e in self.shown.items()}

    def shapes(self, genotype: Genotype) -> Shapes:
        """Parameter shapes of a student of this genotype with these heads."""
        return genotype.shapes(tuple(self.inputs.shape[1:]), self.layout.num_outputs)


class RunningMean:
    """The mean of all values seen so far of each input, with a counter an input (U_o)."""

    def __init__(self, num_inputs: int) -> None:
        self.counts_M = torch.zeros(num_inputs)
        self.sums: dict[str, Tensor] = {}

    def __call__(self, index_B: Tensor, values: Expectations) -> dict[str, Tensor]:
        """Take in new values (B, G) of the inputs at ``index_B`` and return the means there."""
        self.counts_M.index_add_(0, index_B, torch.ones(len(index_B)))

        means = {}
        for name, value_BG in values.items():
            if name not in self.sums:
                self.sums[name] = value_BG.new_zeros((len(self.counts_M), value_BG.shape[-1]))
            # an input may be there twice in a batch
            self.sums[name].index_add_(0, index_B, value_BG)
            means[name] = self.sums[name][index_B] / self.counts_M[index_B, None]
        return means


class BatchOrder:
    """Batch indices, one tensor (B,) a step: seeded permutations of the data, one after the other.

    A batch larger than the data is the whole data in a fresh order.
    """

    def __init__(
        self, num_inputs: int, recipe: Recipe, root: int, position: Position | None = None
    ) -> None:
        """Begin at the first batch, or at a ``position``.

        Args:
            num_inputs: M.
            recipe: its batch size.
            root: root seed of the order.
            position: where an earlier order of the same data, batch size and seed stopped.
        """
        self._num_inputs = num_inputs
        self._size = min(recipe.batch_size, num_inputs)
        self._generator = rng.generator(root, "batches")

        if position:
            self._generator.set_state(position["order.generator"])
        self._order = self._next_pass()
        if position:
            self._order = self._order[int(position["order.taken"]) :]

    def _next_pass(self) -> Tensor:
        self._before_pass = self._generator.get_state()
        return torch.randperm(self._num_inputs, generator=self._generator)

    def __iter__(self) -> "BatchOrder":
        return self

    def __next__(self) -> Tensor:
        """The next step's indices (B,)."""
        if len(self._order) < self._size:
            self._order = torch.cat([self._order, self._next_pass()])
        batch = self._order[: self._size]
        self._order = self._order[self._size :]
        return batch

    def take(self, num_steps: int) -> Tensor:
        """The indices (T, B) of the next steps."""
        return torch.stack([next(self) for _ in range(num_steps)])

    def position(self) -> Position:
        """Where it goes on.

        This is the generator before the present pass, and how many indices of the pass are taken: a
        batch is never larger than a pass, so that what is left is always the end of one pass.
        """
        taken = self._num_inputs - len(self._order)
        return {"order.generator": self._before_pass, "order.taken": torch.tensor(taken)}


class CachedFeed:
    """Batches of a sealed stream, by the recipe's update rule, without end.

    They are on the device of the data.
    """

    def __init__(
        self, data: DistillationSet, recipe: Recipe, root: int, position: Position | None = None
    ) -> None:
        """Begin at the first batch, or at a ``position``.

        Args:
            data: what is shown.
            recipe: batch size and update rule.
            root: root seed of all draws.
            position: where an earlier feed of the same data, recipe and seed stopped.
        """
        self._data, self._recipe = data, recipe
        self._order = BatchOrder(len(data.inputs), recipe, root, position)
        self._generator = rng.generator(root, "posterior samples of batches")
        self._means = RunningMean(len(data.inputs))
        self._root = root
        self._step = 0

        if position and data.fresh is not None:
            self._step = int(position["fresh.step"])
        if position and recipe.update != "averaged":
            self._generator.set_state(position["samples.generator"])
        if position and recipe.update == "running_mean":
            self._means.counts_M = position["mean.counts"].clone()
            for name, sums in position.items():
                if name.startswith(_SUMS):
                    self._means.sums[name.removeprefix(_SUMS)] = sums.clone()

    def __iter__(self) -> "CachedFeed":
        return self

    def __next__(self) -> Batch:
        """The next step's batch."""
        index_B = next(self._order)
        x, expectations = self._stored(index_B)
        fresh = self._data.fresh
        if fresh is None:
            return x, expectations

        batch = fresh.show(x, expectations, index_B, root=self._root, step=self._step)
        self._step += 1
        return batch

    def _stored(self, index_B: Tensor) -> Batch:
        """What the data hold at ``index_B``, by the update rule."""
        data = self._data
        device = data.inputs.device
        if self._recipe.update == "averaged":
            return data.batch(index_B.to(device))

        assert data.samples is not None, "the rule reads single posterior samples"
        sample_B = torch.multinomial(
            data.samples.weight_S, len(index_B), replacement=True, generator=self._generator
        )
        values = sample_values(data.layout.targets, data.samples.at(sample_B, index_B))
        if self._recipe.update == "running_mean":
            values = self._means(index_B, values)

        expectations = {name: value.to(device) for name, value in values.items()}
        index_B = index_B.to(device)
        if data.labels is not None:
            expectations[LABELS] = data.labels[index_B]
        return data.inputs[index_B], expectations

    def position(self) -> Position:
        """Where it goes on: the batch order's position, and what the update rule has drawn."""
        position = self._order.position()
        if self._recipe.update != "averaged":
            position["samples.generator"] = self._generator.get_state()
        if self._recipe.update == "running_mean":
            position["mean.counts"] = self._means.counts_M.clone()
            for name, sums in self._means.sums.items():
                position[_SUMS + name] = sums.clone()
        if self._data.fresh is not None:
            position["fresh.step"] = torch.tensor(self._step)
        return position


class SharedFeed:
    """Batches that several workers read, each at its own pace.

    A batch is drawn once and dropped after its last reader.
    """

    def __init__(self, feed: Iterator[Batch], *, num_readers: int) -> None:
        """Share out the batches of ``feed`` from its next one on."""
        self._feed, self._num_readers = feed, num_readers
        self._lock = threading.Lock()
        self._pending: dict[int, tuple[Batch, int]] = {}  # number to batch and readers to come
        self._num_drawn = 0
        self._failure: BaseException | None = None

    def batch(self, number: int) -> Batch:
        """The batch of a number, from 0; each reader asks once for each number, in order.

        Raises:
            Whatever the feed raised, to every reader that asks from then on.
        """
        with self._lock:
            if self._failure is not None:
                raise self._failure
            while self._num_drawn <= number:
                self._pending[self._num_drawn] = (self._draw(), self._num_readers)
                self._num_drawn += 1

            batch, num_readers = self._pending.pop(number)
            if num_readers > 1:
                self._pending[number] = (batch, num_readers - 1)
            return batch

    def _draw(self) -> Batch:
        try:
            return next(self._feed)
        except BaseException as error:
            # a generator that raised is at its end: it would tell other readers that alone
            self._failure = error
            raise


def check_update(targets: Sequence[Target], update: Update, where: str) -> None:
    """Refuse an update rule under which a target's loss would learn something else.

    Args:
        targets: the students' targets.
        update: the rule.
        where: file and key of the rule, for messages.

    Raises:
        ConfigError: an average for a loss that needs single samples, or single samples for one that
            is biased by them or needs all of them.
    """
    for target in targets:
        if isinstance(target, QuantileTarget) and update != "newest":
            raise ConfigError(
                f"{where}: found {update}, expected newest for the target '{target.name}': its "
                "pinball loss on averages of posterior samples would learn their mean, not their "
                "quantiles"
            )
        if isinstance(target, StatisticTarget) and update != "averaged":
            raise ConfigError(
                f"{where}: found {update}, expected averaged for the target '{target.name}': it is "
                "a statistic of all stored posterior samples, which no single one says; set "
                "update: averaged and mode: cached, or remove the target"
            )
        if isinstance(target, MeanTarget) and update == "newest" and not _is_affine(target):
            raise ConfigError(
                f"{where}: found newest, expected averaged or running_mean for the target "
                f"'{target.name}': its loss is not affine in the averaged quantity, so that on "
                "single posterior samples it would learn something else than their mean (an "
                "absolute error learns the median)"
            )


_PROBES: dict[Prediction, Callable[[Tensor], Tensor]] = {
    "log_prob": lambda noise: noise.log_softmax(-1),
    "normal": lambda noise: torch.stack([noise[..., 0], noise[..., 1].exp()], -1),
}
"""Normal numbers (..., C) to what a posterior sample may predict."""


def _is_affine(target: MeanTarget, *, num_samples: int = 5, num_inputs: int = 32) -> bool:
    """Whether the gradient at an average of samples is the average of their gradients.

    It is asked on a fixed probe.
    """
    num_classes = target.num_classes or 3
    if target.of_labels is not None:
        of_unit = target.of_labels(Normalization(0.0, 1.0))
        assert isinstance(of_unit, MeanTarget), "a unit changes no kind"
        target = of_unit
    layout = HeadLayout((*resolve(target.requires), target), num_classes)

    generator = rng.generator(0, "probe of a loss")
    size = (num_inputs, layout.num_outputs)
    raw = torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_()
    shape_SNC = (num_samples, num_inputs, max(2, num_classes))
    noise = 2 * torch.randn(shape_SNC, generator=generator, dtype=torch.float64)
    values_SBG = target.values(_PROBES[target.prediction](noise))

    def gradient(value_BG: Tensor) -> Tensor:
        heads = layout.split(raw)
        losses_B = target.loss(heads[target.name], heads, value_BG)
        return torch.autograd.grad(losses_B.sum(), raw)[0]

    averaged = gradient(values_SBG.mean(0))
    streamed = torch.stack([gradient(value) for value in values_SBG]).mean(0)
    return bool(torch.allclose(averaged, streamed, rtol=1e-6, atol=1e-9))
