"""The order of tiles as data: no interleaving locks up, every parameter is written once a step."""

import importlib.util
import random

import pytest
import torch

from gped_nas.distill.phases import launch as launches
from gped_nas.distill.phases.bundle import PhasedMlp
from gped_nas.distill.phases.launch import Launch
from gped_nas.distill.phases.tiles import Kind, Sizes, walks_of
from gped_nas.models.base import Genotype, shapes_of
from gped_nas.models.dense import dense_chain
from gped_nas.models.mlp import Mlp
from tests.distill.populations import CPU, batch, fresh, value_of
from tests.distill.test_phases import drawn_population

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)
WAITS, WORKS = "waits", "works"


# -------------------------------------------------------------------------------------------------
# a model of the device: programs that are not interrupted for ever, in any order


class Device:
    """Counters, and what is done."""

    def __init__(self, tiles, num_slots):
        self.tiles = tiles
        self.slots = [0] * num_slots
        self.ticket = 0
        self.done = []

    def take(self):
        self.ticket += 1
        return self.ticket - 1

    def program(self):
        """What ``programs.walk`` does, interrupted wherever another program can be seen."""
        ticket = self.take()
        yield WORKS
        while ticket < len(self.tiles):
            next_ticket = self.take()
            yield WORKS
            tile = self.tiles[ticket]
            for slot in range(tile.first_slot, tile.first_slot + tile.num_slots):
                while self.slots[slot] < tile.count:
                    yield WAITS
            self.done.append(ticket)
            yield WORKS
            if tile.signal >= 0:
                self.slots[tile.signal] += 1
                yield WORKS
            ticket = next_ticket


def run_interleaved(device, draw, *, num_programs, num_resident):
    """Whether all programs end: a few at a time, the next ones when some have ended."""
    queued = [device.program() for _ in range(num_programs)]
    resident = []
    while queued or resident:
        while queued and len(resident) < num_resident:
            resident.append(queued.pop())

        # nothing but another program changes what one waits for
        is_stuck = True
        for program in draw.sample(resident, len(resident)):
            for _ in range(draw.choice([1, 1, 5, 40])):
                state = next(program, None)
                if state is None:
                    resident.remove(program)
                if state != WAITS:
                    is_stuck = False
                if state in (WAITS, None):
                    break
        if is_stuck:
            return False
    return True


def drawn_walks(draw):
    students, _, _ = drawn_population(draw)
    size = 16 * draw.randint(1, 9)
    return walks_of(students, size, Sizes(16 * draw.randint(1, 4), 16 * draw.randint(1, 4)))


@pytest.mark.parametrize("seed", range(50))
def test_no_interleaving_locks_up_however_many_programs_are_resident(seed):
    """More programs than fit are no harm either: those that run hold all tickets that are out."""
    draw = random.Random(seed)
    walks = drawn_walks(draw)
    for tiles in (walks.forward, walks.backward):
        device = Device(tiles, walks.num_slots)
        num_programs = draw.randint(1, 12)
        num_resident = draw.randint(1, num_programs)
        assert run_interleaved(device, draw, num_programs=num_programs, num_resident=num_resident)
        assert sorted(device.done) == list(range(len(tiles)))


def test_the_model_sees_a_table_that_locks_up():
    draw = random.Random(3)
    walks = drawn_walks(draw)
    reversed_tiles = walks.forward[::-1]
    assert any(tile.num_slots for tile in reversed_tiles)
    device = Device(reversed_tiles, walks.num_slots)
    assert not run_interleaved(device, draw, num_programs=2, num_resident=2)


@needs_triton
def test_a_tile_that_waits_in_vain_is_not_a_number(monkeypatch):
    """A fault that cannot be is told by numbers that nobody takes for right ones."""
    monkeypatch.setattr(launches, "MOST_POLLS", 3)
    students = fresh([Genotype("mlp", depth=1, width=6), Genotype("mlp", depth=2, width=[4, 9])])
    shapes = [shapes_of(student.params) for student in students]
    chains = [student.chain for student in students]
    small = Launch(Sizes(16, 16), depth=16)
    bundle = PhasedMlp(shapes, chains, value_of, dtype=torch.float32, device=CPU, launch=small)
    assert bool(bundle.compute(*batch(16)).isfinite().all())

    # the first layer of the second student is never done
    tiles = bundle._step.forward.tiles
    of_second = (tiles[:, 13] >= 0).nonzero().flatten()[-1]
    tiles[of_second, 13] = -1
    losses = bundle.compute(*batch(16))
    assert losses.isnan().tolist() == [False, True]


# -------------------------------------------------------------------------------------------------
# every parameter


def drawn_bundle(draw):
    """An empty bundle of a few students."""
    num_inputs = draw.randint(1, 70)
    genotypes = []
    for _ in range(draw.randint(1, 6)):
        depth = draw.randint(0, 3)
        widths = [draw.randint(1, 90) for _ in range(depth)]
        genotypes.append(Genotype("mlp", depth=depth, width=widths))
    genotypes.sort(key=lambda genotype: (genotype["depth"], genotype["width"]))

    shapes = [genotype.shapes((num_inputs,), 5) for genotype in genotypes]
    chains = [dense_chain(Mlp(), shape) for shape in shapes]
    sizes = Sizes(16 * draw.randint(1, 8), 16 * draw.randint(1, 8))
    return PhasedMlp(
        shapes, chains, value_of, dtype=torch.float32, device=CPU, launch=Launch(sizes)
    )


def count_writes(bundle, size):
    """How often a step writes each number of the gradient."""
    sizes = bundle._launch.sizes
    students, _ = bundle._layers()
    walks = walks_of(students, size, sizes)
    counts = torch.zeros(len(bundle.buffers.theta), dtype=torch.int64)
    for tile in walks.backward:
        if tile.kind != Kind.GRADIENT:
            continue
        layer = tile.layer
        stop = layer.weight + layer.rows * layer.columns
        weight = counts[layer.weight : stop].view(layer.rows, layer.columns)
        weight[tile.row : tile.row + sizes.rows, tile.column : tile.column + sizes.columns] += 1
        if tile.column == 0:
            bias = counts[layer.bias : layer.bias + layer.rows]
            bias[tile.row : tile.row + sizes.rows] += 1
    return counts


@pytest.mark.parametrize("seed", range(200))
def test_every_parameter_is_updated_exactly_once_a_step(seed):
    """Those that rounding added at most once; no number is of two parameters."""
    draw = random.Random(seed)
    bundle = drawn_bundle(draw)
    counts = count_writes(bundle, 16 * draw.randint(1, 6))
    assert int(counts.max()) == 1
    for views in bundle.views(counts):
        for name, value in views.items():
            assert (value == 1).all(), name

    # an update takes every number of the buffer once: no two parameters share any
    owners = torch.zeros_like(counts)
    for piece in bundle.pieces():
        owners[piece.cut] += 1
    assert int(owners.max()) == 1
