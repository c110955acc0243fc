"""The step that a GPU replays, on the CPU: equal to the plain loop, and fit to be recorded.

A recorded step repeats the operations of one step on the addresses of that step. That is right if
any two steps are the same list of operations, with the same arguments that are no tensors, and if
each tensor an operation touches either lives across steps at one address or was made earlier in the
same step, by the operation of the same number.
"""

from collections.abc import Iterable

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from gped_nas.distill import kernel, team
from gped_nas.distill.centering import unit_means
from gped_nas.distill.feed import BatchOrder
from gped_nas.distill.kernel import distill
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.replay import DeviceSchedule, ScheduledStep
from gped_nas.targets.base import TARGETS as REGISTERED
from gped_nas.targets.base import StatisticTarget
from gped_nas.targets.layout import HeadLayout
from gped_nas.targets.mean import UtilitySettings, utility
from gped_nas.targets.statistics import of_one_sample
from tests.distill.populations import (
    CPU,
    FAMILIES_OF,
    MIXED,
    fresh,
    make_data,
    relative_difference,
    training_of,
)

WAITS = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "item",
    "equal",
    "unique",
    "lift_fresh",
)
"""Operations whose result the host must wait for, or that bring a number of the host to the device.
"""


class Recorder(TorchDispatchMode):
    """Writes down every operation as a replay would repeat it."""

    def __init__(self, living: Iterable[torch.Tensor]):
        super().__init__()
        self.origin = {address(tensor): ("lives", address(tensor)) for tensor in living}
        self.operations = []
        self.waits = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        inputs, _ = tree_flatten((args, kwargs or {}))
        described = [self._describe(value) for value in inputs]
        out = func(*args, **(kwargs or {}))

        # what is written in place, or a view, is no new tensor
        input_addresses = {address(value) for value in inputs if isinstance(value, torch.Tensor)}
        outputs = [value for value in tree_flatten(out)[0] if isinstance(value, torch.Tensor)]
        for number, value in enumerate(outputs):
            if address(value) not in input_addresses:
                self.origin[address(value)] = ("made", len(self.operations), number)
        results = [self._describe(value) for value in outputs]
        self.operations.append((str(func), described, results))

        name = func.overloadpacket.__name__
        dtypes = {getattr(value, "dtype", None) for value in inputs}
        is_mask = name.startswith("index") and bool(dtypes & {torch.bool, torch.uint8})
        if name in WAITS or is_mask:
            self.waits.append(name)
        return out

    def _describe(self, value):
        if not isinstance(value, torch.Tensor):
            return repr(value)
        origin = self.origin.get(address(value), ("from outside", address(value)))
        return (tuple(value.shape), value.stride(), value.dtype, origin, value.storage_offset())


def address(tensor):
    return tensor.untyped_storage().data_ptr()


def tensors_in(thing, seen):
    """Every tensor that an object holds, however deep."""
    if id(thing) in seen:
        return
    seen[id(thing)] = thing
    if isinstance(thing, torch.Tensor):
        yield thing
    elif isinstance(thing, dict):
        yield from (t for part in thing.values() for t in tensors_in(part, seen))
    elif isinstance(thing, list | tuple):
        yield from (t for part in thing for t in tensors_in(part, seen))
    elif hasattr(thing, "__dict__") and type(thing).__module__.startswith("gped_nas"):
        yield from tensors_in(vars(thing), seen)


def indices_of(data, recipe):
    return BatchOrder(len(data.inputs), recipe, 0).take(recipe.steps)


def step_of(families, recipe, dtype=torch.float32, *, centered=False):
    """A step of one bundle of each of these families."""
    data = make_data(40)
    lr_T = torch.tensor([recipe.lr_at(step) for step in range(recipe.steps)])
    bundles = []
    for family in families:
        factors = [1.0, 0.5, *[1.0] * len(FAMILIES_OF[family])]
        students = fresh(FAMILIES_OF[family], factors=factors)
        if centered:
            for student in students:
                student.centers = unit_means(student.params, student.chain, data.inputs, dtype)
        more = {"round_to": 8} if family == "mlp" else {}
        bundles.append(training_of(students, recipe, dtype=dtype, **more))
    return ScheduledStep(bundles, DeviceSchedule(data, indices_of(data, recipe), lr_T))


def record_two(step, between=lambda step: None):
    """Two consecutive steps as a replay would see them, after a step that sets plans up."""
    step()
    recorders = []
    for _ in range(2):
        with Recorder(list(tensors_in(step, {}))) as recorder:
            losses = step()
        assert all(bool(value.isfinite().all()) for value in losses)
        recorders.append(recorder)
        between(step)
    return recorders


def operations_from_outside(recorder):
    return [operation for operation in recorder.operations if "from outside" in repr(operation)]


def is_recordable(recorders):
    before, after = recorders
    return before.operations == after.operations and not before.waits and not after.waits


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize(
    ("families", "dtype"),
    [
        (["mlp"], torch.float32),
        (["cnn"], torch.float32),
        (["resnet"], torch.float32),
        (["mlp", "cnn", "resnet"], torch.bfloat16),
    ],
    ids=["mlp", "cnn", "resnet", "all-bfloat16"],
)
def test_a_step_can_be_recorded(families, dtype, optimizer):
    recipe = Recipe(steps=6, batch_size=8, warmup=4, optimizer=optimizer)
    before, after = record_two(step_of(families, recipe, dtype))
    for operation, repeated in zip(before.operations, after.operations, strict=True):
        assert operation == repeated, operation[0]
    assert is_recordable([before, after])
    assert len(before.operations) > 20
    # what a step reads is its own or lives across steps
    assert not operations_from_outside(before)


def test_a_centered_step_can_be_recorded():
    """It takes one pass more for each of three hidden levels."""
    recipe = Recipe(steps=6, batch_size=8, warmup=4)
    plain = record_two(step_of(["mlp"], recipe))
    centered = record_two(step_of(["mlp"], recipe, centered=True))
    assert is_recordable(centered)
    assert not operations_from_outside(centered[0])
    assert len(centered[0].operations) == len(plain[0].operations) + 3


def test_a_wait_is_seen():
    step = step_of(["mlp"], Recipe(steps=6, batch_size=8))
    plain = step.bundles[0].step
    step.bundles[0].step = lambda *args: plain(*args) * float(plain(*args).sum())
    assert "_local_scalar_dense" in record_two(step)[0].waits


def test_a_choice_by_value_is_seen():
    step = step_of(["mlp"], Recipe(steps=6, batch_size=8))
    plain = step.bundles[0].step

    def choose(x, expectations, lr):
        losses = plain(x, expectations, lr)
        return losses[losses > -1]

    step.bundles[0].step = choose
    assert "index" in record_two(step)[0].waits


def test_a_number_of_the_host_is_seen():
    """A step size that the host computes would be repeated for ever."""
    step = step_of(["mlp"], Recipe(steps=6, batch_size=8, warmup=4))
    plain = step.bundles[0].step
    sizes = iter([0.1, 0.2, 0.3])
    step.bundles[0].step = lambda x, expectations, lr: plain(x, expectations, next(sizes))
    recorders = record_two(step)
    assert not is_recordable(recorders) and not recorders[0].waits


def test_a_moved_buffer_is_seen():
    def move(step):
        step.schedule._lr_T = step.schedule._lr_T.clone()

    step = step_of(["mlp"], Recipe(steps=6, batch_size=8))
    before = step.schedule._lr_T
    recorders = record_two(step, between=move)
    assert address(before) != address(step.schedule._lr_T)
    assert not is_recordable(recorders)


def test_a_batch_of_another_size_is_seen():
    def shorten(step):
        step.schedule._index_TB = step.schedule._index_TB[:, :5]

    step = step_of(["mlp"], Recipe(steps=6, batch_size=8))
    assert not is_recordable(record_two(step, between=shorten))


@pytest.mark.parametrize("name", sorted(REGISTERED))
def test_no_loss_waits_for_the_device(name):
    """Of each registered target, and of one whose settings are numbers."""
    target = REGISTERED[name]
    required = [REGISTERED[source] for source in target.requires]
    if name == "utility":
        target = utility(UtilitySettings(costs=((0.0, 1.0), (2.0, 0.0), (1.0, 1.0))))
    targets = [*required, target]
    layout = HeadLayout(targets, 3)

    raw_generator = torch.Generator().manual_seed(0)
    raw = torch.randn((2, 5, layout.num_outputs), generator=raw_generator).requires_grad_()
    predictions = torch.randn((5, 3), generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    if targets[0].prediction != "log_prob":
        predictions = torch.stack([predictions[:, 0], -predictions[:, 1]], -1)
    expectations = {}
    for learned in layout.learned:
        is_statistic = isinstance(learned, StatisticTarget)
        values = (
            of_one_sample(learned, predictions) if is_statistic else learned.values(predictions)
        )
        expectations[learned.name] = values

    layout.loss(raw, expectations, {})  # constants are made once
    with Recorder([raw, *expectations.values()]) as recorder:
        value = layout.loss(raw, expectations, {})
        value.sum().backward()
    assert recorder.waits == [] and len(recorder.operations) > 5
    assert bool(raw.grad.isfinite().all())


# -- the same training


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_counted_steps_are_those_of_the_plain_loop(optimizer):
    recipe = Recipe(
        steps=12, batch_size=8, warmup=4, lr=0.02, optimizer=optimizer, weight_decay=0.1
    )
    counted = step_of(["mlp", "resnet"], recipe)
    plain = step_of(["mlp", "resnet"], recipe)
    data = plain.schedule._data
    indices = indices_of(data, recipe)

    for number in range(recipe.steps):
        batch = data.batch(indices[number])
        for trained, losses in zip(plain.bundles, counted(), strict=True):
            assert torch.allclose(losses, trained.step(*batch, recipe.lr_at(number)), rtol=1e-5)
    assert int(counted.schedule._counter) == recipe.steps

    for trained, expected in zip(counted.bundles, plain.bundles, strict=True):
        for i, params in enumerate(trained._params):
            assert relative_difference(params, expected._params[i]) < 1e-5


def test_a_whole_training_by_counted_steps(monkeypatch):
    """Through pruning, rungs and leaving, with a new counter for each layout."""
    recipe = Recipe(
        steps=40,
        batch_size=16,
        warmup=5,
        lr=0.05,
        halve_every=99,
        prune_at=0.5,
        rungs=20,
        patience=1,
        average=0.5,
    )
    validation = make_data(30, seed=1)

    def train():
        return distill(
            MIXED, make_data(), recipe, seed=0, device=CPU, validation=validation
        ).students

    plain = train()
    counted_steps = []

    def count(step):
        counted_steps.append(step)
        return step

    monkeypatch.setattr(kernel, "finds_its_batches", lambda device: True)
    monkeypatch.setattr(team, "Replay", count)
    for student, twin in zip(plain, train(), strict=True):
        assert relative_difference(twin.params, student.params) < 1e-4
        assert dict(twin.losses) == pytest.approx(dict(student.losses), rel=1e-4)
        assert [step for step, _ in twin.rungs] == [step for step, _ in student.rungs]
    assert len(counted_steps) > 2
    assert len({len(student.rungs) for student in plain}) > 1, "some left before others"
