"""``gn.attack``: whatever answers, and inputs like those that were given."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gped_nas as gn
from gped_nas.data.base import Normalization
from gped_nas.data.scale import ColumnSpread, ValueRange
from gped_nas.distill.student import Student, StudentSpec
from gped_nas.errors import ConfigError, DataError, RegistryError
from gped_nas.models.base import Genotype, initialize

DIGITS = ValueRange(0, 16)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def images() -> torch.Tensor:
    return 16 * torch.rand((6, 1, 3, 3), generator=torch.Generator().manual_seed(0))


def student(scale: Any = DIGITS) -> Student:
    spec = StudentSpec(
        family="mlp",
        input_shape=(1, 3, 3),
        class_names=("a", "b", "c", "d"),
        targets=("predictive", "expected_entropy"),  # type: ignore[arg-type]
        normalization=Normalization(8, 4),
        storage_dtype="float32",
        scale=scale,
    )
    shapes = Genotype("mlp", depth=1, width=8).shapes((1, 3, 3), 5)
    return Student(spec, initialize(shapes, generator=torch.Generator().manual_seed(1))).eval()


def module(seed: int) -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.utils.skip_init(nn.Linear, 9, 4))
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        nn.init.normal_(parameter, generator=generator)
    return net.eval()


def nll(probability: torch.Tensor) -> float:
    return float(-probability[np.arange(6), LABELS].log().mean())


def test_a_students_inputs_come_back_as_they_were_given() -> None:
    x = images()
    found = gn.attack(student(), x, LABELS, "pgd", eps=0.1)
    assert isinstance(found, torch.Tensor) and found.dtype == torch.float32
    assert found.shape == x.shape
    assert 1.5 < float((found - x).abs().max()) <= 1.6 * (1 + 1e-5)
    assert nll(student().predict(found)["predictive"]) > nll(student().predict(x)["predictive"])

    again = gn.attack(student(), x.numpy()[:, 0], LABELS.tolist(), "pgd", eps=0.1)
    assert isinstance(again, np.ndarray)  # (N, height, width) is one channel
    assert np.array_equal(again, found.numpy())
    assert not np.array_equal(again, gn.attack(student(), x, LABELS, "pgd", eps=0.1, seed=1))


def test_what_a_student_says_of_its_own_uncertainty_is_raised() -> None:
    x = images()
    found = gn.attack(student(), x, LABELS, "raise_model", eps=0.1)
    before, after = (student().predict(raw)["mutual_information"] for raw in (x, found))
    assert (after > before).all()


def test_bytes_are_attacked_as_numbers() -> None:
    x = images().to(torch.uint8)
    found = gn.attack(student(), x, LABELS, "fgsm-0.1")
    assert float((found - x).abs().max()) == pytest.approx(1.6)
    assert torch.equal(x, images().to(torch.uint8))


def test_modules_are_attacked_alone_and_on_average() -> None:
    x = images() / 16
    members = [module(0), module(1)]

    def average(raw: torch.Tensor) -> torch.Tensor:
        return torch.stack([member(raw).softmax(1) for member in members]).mean(0).detach()

    one = gn.attack(members[0], x, LABELS, "apgd", eps=0.1, scale=(0, 1), steps=10)
    both = gn.attack(members, x, LABELS, "apgd", eps=0.1, scale=(0, 1), steps=10)
    assert nll(average(both)) > nll(average(x)) + 0.05
    assert nll(average(both)) >= nll(average(one))  # another threat is another input
    assert nll(members[0](one).softmax(1).detach()) > nll(members[0](x).softmax(1).detach())


def test_an_ensembles_log_probabilities_are_taken_as_they_are() -> None:
    members = gn.load_ensemble(lambda: module(0), [module(0).state_dict()])
    x = images() / 16
    first = gn.attack(members, x, LABELS, "fgsm", eps=0.1, scale=(0, 1))
    assert torch.equal(first, gn.attack(module(0), x, LABELS, "fgsm", eps=0.1, scale=(0, 1)))


def test_a_tables_scale_is_given_too() -> None:
    x = images().flatten(1)
    scale = ColumnSpread(tuple([0.0, *[2.0] * 8]))
    moved = gn.attack(module(0), x, LABELS, "fgsm", eps=0.5, scale=scale) - x
    assert torch.equal(moved[:, 0], torch.zeros(6))
    assert moved[:, 1:].abs().allclose(torch.ones(6, 8), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"name": "permuted"}, ConfigError, "found 'permuted', expected one of: apgd, fgsm"),
        ({"name": "pgdd"}, RegistryError, "did you mean 'pgd'"),
        ({"eps": None}, ConfigError, "expected a number after 'pgd-'"),
        ({"eps": None, "name": "pgd-0.1", "steps": 3}, ConfigError, "give eps"),
        ({"epsilon": 0.3}, ConfigError, "found epsilon, expected the radius as eps; rename it"),
        ({"stepps": 3}, ConfigError, "did you mean 'steps'"),
        ({"x": images()[:0], "y": LABELS[:0]}, DataError, "found no inputs, expected at least 1"),
        ({"x": images() * torch.nan}, DataError, "found inputs that are not finite"),
        ({"eps": -0.1}, ConfigError, "attack.settings: epsilon"),
        ({"y": LABELS[:3]}, DataError, r"found labels of shape \(3,\) for 6 inputs"),
        ({"y": LABELS + 5}, DataError, "found labels from 5 to 7, expected 0 to 3"),
        ({"y": LABELS + 0.5}, ConfigError, "found real labels"),
        ({"x": images()[:, :, :2]}, DataError, "shape"),
        ({"predictor": student(None)}, ConfigError, "does not say what values its inputs can have"),
        ({"predictor": module(0)}, ConfigError, r"for example scale=\(0, 255\)"),
        ({"scale": (1, 0)}, ConfigError, "expected the smaller value first"),
        ({"predictor": module(0).train(), "scale": (0, 16)}, ConfigError, "call .eval"),
        ({"predictor": [], "scale": (0, 16)}, ConfigError, "found no torch module"),
        (
            {"predictor": nn.Sequential(module(0), nn.Softmax(1)).eval(), "scale": (0, 16)},
            DataError,
            "found probabilities, expected raw outputs",
        ),
    ],
)
def test_what_cannot_be_attacked_is_refused(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    call: dict[str, Any] = {"predictor": student(), "x": images(), "y": LABELS, "name": "pgd"}
    with pytest.raises(error, match=message):
        gn.attack(**{**call, "eps": 0.1, **change})
