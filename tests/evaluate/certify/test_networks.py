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
    with pytest.raises(ConfigError, match="found a network of the family 'resnet', expected .*mlp"):
        network_of_student(student)
    silu = Genotype("mlp", depth=1, width=3, activation="silu")
    student = load_student(make_student(tmp_path, silu))
    with pytest.raises(ConfigError, match="found the activation 'silu', expected .*: relu, tanh"):
        network_of_student(student)
