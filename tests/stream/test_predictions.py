"""What float16 costs: the bounds that ``stream.format`` states, on rows of every shape."""

import json
import math

import pytest
import torch

from gped_nas.errors import StreamError
from gped_nas.io import map_array, write_json
from gped_nas.stream.predictions import decode, encode
from gped_nas.stream.reader import Stream
from gped_nas.stream.writer import write_view
from tests.scenarios import NUM_EXAMPLES, predict, tree
from tests.stream.test_writer import ABOUT, build

UNIT = 2.0**-11
SAMPLES, ROWS = 5, 1000


def rows(num_classes: int) -> torch.Tensor:
    """Log-probabilities float32 (SAMPLES, ROWS, C), from nearly uniform to nearly one class."""
    generator = torch.Generator().manual_seed(num_classes)
    logits = torch.randn((SAMPLES, ROWS, num_classes), generator=generator, dtype=torch.float64)
    scale = torch.logspace(-2, 2.3, ROWS, dtype=torch.float64)[:, None]
    return (logits * scale).log_softmax(-1).float()


def stored(log_prob: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(decode(encode(log_prob.numpy(), "float16")))


def entropy(log_prob: torch.Tensor) -> torch.Tensor:
    return -(log_prob.exp() * log_prob).sum(-1)


def largest(num_classes: int) -> float:
    """The largest sum of p log^2 p: at the uniform distribution, but for two classes."""
    if num_classes > 2:
        return math.log(num_classes) ** 2

    p = torch.linspace(1e-6, 1 - 1e-6, 100_001, dtype=torch.float64)
    q = 1 - p
    return float((p * p.log() ** 2 + q * q.log() ** 2).max())


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100])
def test_the_stated_bounds_hold_and_are_not_far(num_classes: int) -> None:
    before = rows(num_classes).double()
    after = stored(rows(num_classes)).double()
    unit = 1.01 * UNIT
    log_classes = math.log(num_classes)

    moved = (after.exp() - before.exp()).abs()
    moved_average = (after.exp().mean(0) - before.exp().mean(0)).abs()
    moved_log = (after - before).abs()
    moved_entropy = (entropy(after) - entropy(before)).abs()
    shares = {
        "probability": moved / (unit * log_classes),
        "half the sum": moved.sum(-1) / 2 / (unit * log_classes),
        "average": moved_average / (unit * log_classes),
        "log-probability": moved_log / (unit * (before.abs() + log_classes)),
        "entropy": moved_entropy / (unit * largest(num_classes)),
    }
    worst = {name: float(share.max()) for name, share in shares.items()}
    assert max(worst.values()) <= 1, worst
    assert float((after.exp().sum(-1) - 1).abs().max()) < 1e-5  # and they are distributions

    # bfloat16, whose steps are 8 times as long, would be seen
    assert worst["half the sum"] > 1 / 8, worst
    assert worst["log-probability"] > 1 / 8, worst


def test_the_stated_constants() -> None:
    assert abs(largest(2) - 0.563) < 0.001
    assert 1.01 * UNIT * math.log(10) < 0.00114
    assert 1.01 * UNIT * largest(10) < 0.00262


def test_nothing_becomes_infinite() -> None:
    low = torch.tensor(
        [[0.0, -math.inf, -1e30], [-1e-9, -65504.0, -65520.0], [math.log(0.5), math.log(0.5), -1e5]]
    )
    read = stored(low)
    assert bool(read.isfinite().all())
    assert torch.equal(read.exp(), torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0.5, 0.5, 0]]))


def test_divergence_is_not_hidden() -> None:
    assert bool(stored(torch.tensor([[math.nan, -0.1]])).isnan().all())


def test_float32_is_kept_bit_for_bit() -> None:
    log_prob = rows(3)
    assert decode(encode(log_prob.numpy(), "float32")).tobytes() == log_prob.numpy().tobytes()


def test_a_view_takes_half_the_bytes_and_says_so(tmp_path) -> None:
    folder = build(tmp_path)
    stream = Stream(folder)
    write(stream, "wide", "float32")
    write(stream, "narrow", "float16")

    header = 128
    wide_shard = folder / "views/wide/000000/log_prob-000000.npy"
    narrow_shard = folder / "views/narrow/000000/log_prob-000000.npy"
    assert wide_shard.stat().st_size == header + 8 * NUM_EXAMPLES * 3 * 4
    assert narrow_shard.stat().st_size == header + 8 * NUM_EXAMPLES * 3 * 2
    map_array(narrow_shard, dtype="<f2", shape=(8, NUM_EXAMPLES, 3))

    manifest = Stream(folder)._view("narrow")[0].manifest
    assert manifest.about == {**ABOUT, "name": "narrow", "dtype": "float16"}

    wide = stream.predictions("wide")
    narrow = stream.predictions("narrow")
    assert torch.equal(narrow, stored(wide))
    assert not torch.equal(narrow, wide)


def write(stream: Stream, name: str, dtype: str) -> None:
    write_view(
        stream,
        name,
        ABOUT,
        predict,
        num_inputs=NUM_EXAMPLES,
        dtype=dtype,
        progress=lambda what, done, total: None,
        should_stop=lambda: False,
    )


def test_one_name_is_never_two_dtypes(tmp_path) -> None:
    folder = build(tmp_path)
    write(Stream(folder), "wide", "float32")
    before = tree(folder / "views")
    message = "wide/000000: was made for other inputs or stored otherwise"
    with pytest.raises(StreamError, match=message):
        write(Stream(folder), "wide", "float16")
    assert tree(folder / "views") == before


def test_a_view_from_before_there_was_a_choice_is_read(tmp_path) -> None:
    folder = build(tmp_path)
    write(Stream(folder), "wide", "float32")
    expected = Stream(folder).predictions("wide")
    path = folder / "views/wide/000000/manifest.json"
    write_json(path, {**json.loads(path.read_text()), "about": ABOUT})
    assert Stream(folder).has_view("wide", ABOUT)
    assert torch.equal(Stream(folder).predictions("wide"), expected)
