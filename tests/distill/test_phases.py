"""Walks over tiles: their tables as data, and their numbers in Triton's interpreter."""

import importlib.util
import json
import os
import random
import subprocess
import sys
from collections import defaultdict

import pytest
import torch

from gped_nas.distill.fused_mlp import FusedMlp
from gped_nas.distill.phases.bundle import FULL, LARGE, PhasedMlp
from gped_nas.distill.phases.bundle import SMALL as SHIPPED_SMALL
from gped_nas.distill.phases.chain_walk import CHAINS
from gped_nas.distill.phases.launch import Launch
from gped_nas.distill.phases.tiles import DenseLayer, Kind, Sizes, walks_of
from gped_nas.models.base import Genotype, shapes_of
from tests.distill.populations import CPU, MLP, batch, fresh, relative_difference, value_of

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)
SMALL = Launch(Sizes(16, 16), depth=16)
MIXED = [
    MLP[0],
    MLP[2],
    Genotype("mlp", depth=1, width=20),
    Genotype("mlp", depth=2, width=[9, 40]),
    Genotype("mlp", depth=3, width=[3, 33, 4]),
]


# -------------------------------------------------------------------------------------------------
# tables


def drawn_population(draw):
    """Layers of a few students, one number after the other in each buffer."""
    num_inputs = 16 * draw.randint(1, 6)
    students, end, row = [], 0, num_inputs
    for _ in range(draw.randint(1, 5)):
        widths = [num_inputs, *(16 * draw.randint(1, 6) for _ in range(draw.randint(0, 3))), 16]
        layers, first_input = [], 0
        for columns, rows in zip(widths[:-1], widths[1:], strict=True):
            bias = end + rows * columns
            layers.append(DenseLayer(rows, columns, end, bias, first_input, row))
            first_input, row, end = row, row + rows, bias + rows
        students.append(layers)
    return students, row, end


def cells(first_row, num_rows, last_row, first_column, num_columns, last_column):
    """Of a block that is cut at the end of its matrix."""
    return {
        (r, c)
        for r in range(first_row, min(first_row + num_rows, last_row), 16)
        for c in range(first_column, min(first_column + num_columns, last_column), 16)
    }


def written_rows(tile, sizes, size):
    """Blocks of 16 by 16 activations, or of their gradients, that a tile writes."""
    layer = tile.layer
    is_forward = tile.kind == Kind.FORWARD
    start = layer.first_output if is_forward else layer.first_input
    end = start + (layer.rows if is_forward else layer.columns)
    return cells(start + tile.row, sizes.rows, end, tile.column, sizes.columns, size)


def read_rows(tile, sizes, size):
    """Blocks that it needs of what other tiles of its walk write."""
    layer = tile.layer
    if tile.kind == Kind.FORWARD:
        stop = layer.first_input + layer.columns
        rows, columns = (layer.first_input, layer.columns, stop), (tile.column, sizes.columns, size)
    elif tile.kind == Kind.BACK:
        stop = layer.first_output + layer.rows
        rows, columns = (layer.first_output, layer.rows, stop), (tile.column, sizes.columns, size)
    else:
        stop = layer.first_output + layer.rows
        rows, columns = (layer.first_output + tile.row, sizes.rows, stop), (0, size, size)
    return cells(*rows, *columns)


@pytest.mark.parametrize("seed", range(200))
def test_a_tile_waits_for_exactly_what_it_reads(seed):
    """Whatever it reads that is written in its walk is written by tiles that its slots count."""
    draw = random.Random(seed)
    students, _, _ = drawn_population(draw)
    size = 16 * draw.randint(1, 9)
    sizes = Sizes(16 * draw.randint(1, 4), 16 * draw.randint(1, 4))
    walks = walks_of(students, size, sizes)

    for walk in (walks.forward, walks.backward):
        signals = defaultdict(list)
        writer = {}
        for place, tile in enumerate(walk):
            if tile.signal >= 0:
                signals[tile.signal].append(place)
            if tile.kind != Kind.GRADIENT:
                for cell in written_rows(tile, sizes, size):
                    assert cell not in writer, "no two tiles write the same"
                    writer[cell] = place

        for place, tile in enumerate(walk):
            awaited = set()
            for slot in range(tile.first_slot, tile.first_slot + tile.num_slots):
                assert len(signals[slot]) == tile.count, "it waits for all of them"
                awaited.update(signals[slot])
            needed = {writer[cell] for cell in read_rows(tile, sizes, size) if cell in writer}
            assert needed <= awaited
            # the earliest tile that is not done can always be done
            assert all(earlier < place for earlier in awaited)


@pytest.mark.parametrize("seed", range(20))
def test_everything_is_computed_once(seed):
    draw = random.Random(seed)
    students, num_rows, _ = drawn_population(draw)
    size = 16 * draw.randint(1, 9)
    sizes = Sizes(16 * draw.randint(1, 4), 16 * draw.randint(1, 4))
    walks = walks_of(students, size, sizes)

    outputs = [cell for tile in walks.forward for cell in written_rows(tile, sizes, size)]
    num_inputs = students[0][0].columns
    assert len(outputs) == len(set(outputs)) == (num_rows - num_inputs) // 16 * (size // 16)

    updates = []
    for tile in walks.backward:
        if tile.kind == Kind.GRADIENT:
            layer = tile.layer
            blocks = cells(
                tile.row, sizes.rows, layer.rows, tile.column, sizes.columns, layer.columns
            )
            updates += [(layer.weight, *block) for block in blocks]
    num_blocks = sum(layer.rows * layer.columns // 256 for layers in students for layer in layers)
    assert len(updates) == len(set(updates)) == num_blocks


# -------------------------------------------------------------------------------------------------
# numbers


def gradients(kind, students, *, size=24, centers=(), **more):
    """Losses, and the gradients of each student."""
    shapes = [shapes_of(s.params) for s in students]
    chains = [s.chain for s in students]
    bundle = kind(
        shapes, chains, value_of, dtype=torch.float32, device=CPU, centers=centers, **more
    )
    for views, student in zip(bundle.views(bundle.buffers.theta), students, strict=True):
        for name, value in student.params.items():
            views[name].copy_(value)
    bundle.buffers.refresh()

    losses_P = bundle.compute(*batch(size))
    views = bundle.views(bundle.buffers.work_grad)
    return losses_P, [{name: g.clone() for name, g in grads.items()} for grads in views]


def drawn_centers(students):
    """Something to take off each hidden unit."""
    generator = torch.Generator().manual_seed(3)
    centers = []
    for student in students:
        widths = [student.params[bias].numel() for _, bias in student.chain[:-1]]
        centers.append(tuple(torch.rand(width, generator=generator) for width in widths))
    return centers


@needs_triton
@pytest.mark.parametrize("size", [24, 17], ids=["whole blocks", "with padding"])
@pytest.mark.parametrize("is_centered", [False, True], ids=["plain", "centered"])
def test_gradients_are_those_of_products(is_centered, size):
    students = fresh(MIXED)
    centers = drawn_centers(students) if is_centered else ()
    losses, ours = gradients(PhasedMlp, students, size=size, centers=centers, launch=SMALL)
    expected, theirs = gradients(FusedMlp, students, size=size, centers=centers)
    assert torch.allclose(losses, expected, rtol=1e-6)
    for mine, other in zip(ours, theirs, strict=True):
        assert relative_difference(mine, other) < 1e-5


@needs_triton
def test_siblings_change_no_bit_of_a_student():
    """Not even one whose numbers are not finite."""
    students = fresh(MIXED)
    students[3].params["layers.0.weight"].fill_(float("nan"))
    losses, together = gradients(PhasedMlp, students, launch=SMALL)
    assert losses.isnan().tolist() == [False, False, False, True, False]
    for i in (0, 2, 4):
        loss, alone = gradients(PhasedMlp, students[i : i + 1], launch=SMALL)
        assert torch.equal(loss[0], losses[i])
        for name, gradient in alone[0].items():
            assert torch.equal(gradient, together[i][name])


@needs_triton
def test_compiled_programs_fit_the_processors_of_a_gpu():
    """Nothing is spilled, and as many programs as walk fit on a processor at once."""
    environment = {name: v for name, v in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.distill.compile_phases"]
    told = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment, timeout=300
    )
    table = json.loads(told.stdout)
    assert len({row["program"] for row in table}) == 13
    launches = {"walk small": SHIPPED_SMALL, "walk large": LARGE, "walk full": FULL}
    launches["walk of chains"] = CHAINS
    for row in table:
        assert row["spilled"] == 0, row
        if row["program"].startswith("walk"):
            launch = launches[row["program"]]
            programs = launch.programs_a_processor
            assert programs * row["registers"] * 32 * row["warps"] <= 65536, row
            assert programs * row["shared"] <= 160 * 1024, row
