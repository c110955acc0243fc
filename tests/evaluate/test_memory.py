"""Bytes of tensors that live at once, counted by hand beside."""

import torch

from gped_nas.evaluate.memory import PeakMemory


def test_bytes_are_those_of_what_lives():
    before = torch.zeros(1000)
    with PeakMemory() as memory:
        copy = before.clone()
        assert memory.bytes == 4_000
        view, turned = copy.view(10, 100), copy.view(10, 100).t()
        assert memory.bytes == 4_000, "a view has no numbers of its own"

        result = (copy + 1).exp()  # the sum is gone once its exponential is there
        assert (memory.bytes, memory.peak) == (8_000, 12_000)
        del copy
        assert memory.bytes == 8_000, "its views live"
        del view, turned
        assert memory.bytes == 4_000

        result.add_(1)
        before.add_(1)
        outside = before.view(10, 100)
        assert memory.bytes == 4_000, "nothing was made"
        parts = result.chunk(4)
        del result
        assert memory.bytes == 4_000
        del parts, outside
        assert memory.bytes == 0
    assert memory.peak == 12_000


def test_what_is_made_elsewhere_is_not_counted():
    with PeakMemory() as memory:
        pass
    torch.zeros(10).clone()
    assert (memory.bytes, memory.peak) == (0, 0)


def test_a_larger_batch_takes_more():
    weight = torch.zeros(7, 50)
    peaks = []
    for batch in (1, 10):
        x = torch.zeros(batch, 50)
        with PeakMemory() as memory:
            torch.nn.functional.linear(x, weight).relu()
        peaks.append(memory.peak)
    assert peaks == [2 * 7 * 4, 2 * 70 * 4]
