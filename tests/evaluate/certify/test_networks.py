"""Students and samples as layers: what they compute is what their forward computes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.data.normalization import (
    AnyNormalization,
    AxisNormalization,
    ImputingNormalization,
    Normalization,
)
from gped_nas.distill.student import load_student
from gped_nas.errors import ConfigError
from gped_nas.evaluate.certify.networks import margins, network_of_student
from gped_nas.models.base import Genotype
from gped_nas.models.elementary import run_layers
from tests.evaluate.certify.networks import points_in
from tests.export.students import make_student

COLUMNS = AxisNormalization((90.0, 1e3, -5.0, 0.0), (70.0, 2.0, 30.0, 1e-2))
NORMALIZATIONS: dict[str, tuple[AnyNormalization, tuple[int, ...]]] = {
    "whole": (Normalization(90.0, 70.0), (1, 3, 4)),
    "channels": (AxisNormalization((90.0, 20.0), (70.0, 3.0)), (2, 3, 2)),
    "columns": (COLUMNS, (4,)),
    "imputing": (ImputingNormalization(COLUMNS, (1.0, 2.0, 3.0, 4.0), (1, 3)), (4,)),
}


def raw_inputs(normalization: AnyNormalization, shape: tuple[int, ...]) -> Tensor:
    """Inputs as raw ones of the training data are."""
    generator = rng.generator(0, "raw inputs")
    normal = torch.randn(5, *shape, generator=generator)
    return normalization.invert(normal)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_the_layers_of_a_student_compute_what_its_file_does(
    kind: str, dtype: str, tmp_path: Path
) -> None:
    normalization, shape = NORMALIZATIONS[kind]
    genotype = Genotype("mlp", depth=2, width=[7, 5])
    folder = make_student(tmp_path, genotype, dtype=dtype, shape=shape, normalization=normalization)
    student = load_student(folder)
    network = network_of_student(student)

    x = raw_inputs(normalization, student.spec.input_shape)
    raw = run_layers(network.layers, x.double())
    assert torch.allclose(raw.float(), student(x), rtol=1e-4, atol=1e-4)
    assert network.rows == slice(0, 3)


def test_margins_of_a_point_are_those_of_its_answer(tmp_path: Path) -> None:
    student = load_student(make_student(tmp_path, Genotype("mlp", depth=1, width=9)))
    network = network_of_student(student)
    x = raw_inputs(student.spec.normalization, (1, 8, 8))
    label = torch.tensor([0, 1, 2, 1, 0])

    lower = margins(network, x, x, label)

    logits = run_layers(network.layers, x.double())[:, network.rows]
    exact = logits.gather(1, label[:, None]) - logits
    assert (lower <= exact).all()
    assert torch.allclose(lower, exact, atol=5e-4)
    assert (lower.gather(1, label[:, None]) == 0).all()


def test_a_family_without_bounds_is_named(tmp_path: Path) -> None:
    student = load_student(make_student(tmp_path, Genotype("resnet", depth=1, width=[2])))
    with pytest.raises(ConfigError, match=r"'resnet', expected .*\(cnn, mlp\): its norm"):
        network_of_student(student)
    silu = Genotype("mlp", depth=1, width=3, activation="silu")
    student = load_student(make_student(tmp_path, silu))
    with pytest.raises(ConfigError, match="found the activation 'silu', expected .*: relu, tanh"):
        network_of_student(student)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_file_is_certified_as_what_it_holds(dtype: str, tmp_path: Path) -> None:
    """Its own answers keep to its bounds; those of the network before it was rounded do not."""
    genotype = Genotype("mlp", depth=2, width=[40, 30])
    stored, whole = (
        load_student(make_student(tmp_path / kind, genotype, dtype=kind))
        for kind in (dtype, "float32")
    )
    x = raw_inputs(stored.spec.normalization, (1, 8, 8))
    label = torch.tensor([0, 1, 2, 1, 0])

    of_stored, of_whole = (
        margins(network_of_student(student), x, x, label) for student in (stored, whole)
    )

    answers = stored(x)[:, :3].double()
    exact = answers.gather(1, label[:, None]) - answers
    assert (of_stored <= exact + 1e-12).all()
    assert not (of_whole <= exact + 1e-12).all()


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_no_raw_input_of_a_box_is_answered_below_its_margins(kind: str, tmp_path: Path) -> None:
    """From the file to the answers, in float32, on corners and random points."""
    normalization, shape = NORMALIZATIONS[kind]
    genotype = Genotype("mlp", depth=2, width=[9, 7])
    folder = make_student(tmp_path, genotype, shape=shape, normalization=normalization)
    student = load_student(folder)
    x = raw_inputs(normalization, shape)
    unit = (normalization.invert(torch.ones(1, *shape)) - normalization.invert(x[:1] * 0)).abs()
    low, high = (x - 0.1 * unit).double(), (x + 0.1 * unit).double()
    label = torch.tensor([0, 1, 2, 1, 0])

    lower = margins(network_of_student(student), low, high, label)

    points = points_in(low, high, 500, rng.generator(0, "points")).flatten(0, 1)
    inside = torch.minimum(
        torch.maximum(points.float(), low.float().repeat_interleave(1000, 0)),
        high.float().repeat_interleave(1000, 0),
    )
    answers = student(inside)[:, :3].double().view(5, 1000, 3)
    leads = answers.gather(2, label[:, None, None].expand(-1, 1000, 1)) - answers
    assert (lower <= leads.amin(1)).all()
    assert (lower > leads.amin(1) - 2).all()


def test_real_labels_are_told_by_the_first_output(tmp_path: Path) -> None:
    folder = make_student(
        tmp_path, Genotype("mlp", depth=1, width=5), class_names=(), targets=("predictive_normal",)
    )
    network = network_of_student(load_student(folder))
    assert network.rows == slice(0, 2)
    assert network.num_outputs == 2
