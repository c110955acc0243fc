"""A teacher's samples as layers: they answer what the teacher's own networks answer."""

from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from gped_nas.api import load_dataset
from gped_nas.api.certifying import network_of_draw, stored_params
from gped_nas.api.session import Session
from gped_nas.api.teacher import Teacher, build_teacher
from gped_nas.models.elementary import run_layers
from gped_nas.search.space_file import load_space, parse_space
from tests.cli.harness import Home


def check_samples(teacher: Teacher) -> None:
    """Weights sum to 1, and each network answers as the sample does at raw inputs."""
    raw = teacher.dataset.raw("validation")[:20]
    total, num_samples = 0.0, 0
    for weight, params in stored_params(teacher):
        network = network_of_draw(teacher, params)
        outputs = run_layers(network.layers, raw.double())[:, network.rows]
        expected = teacher.forward(params)(raw)
        is_real = teacher.dataset.label_normalization is not None
        said = outputs if is_real else outputs.log_softmax(-1)
        torch.testing.assert_close(said.float(), expected[:, : said.shape[1]], rtol=0, atol=1e-4)
        total += weight
        num_samples += 1
    assert num_samples == teacher.stream.num_samples
    assert total == pytest.approx(1)


def test_samples_are_read_as_calibrated(own: Home) -> None:
    space = load_space(own.space, {"teacher.calibration": "temperature"})
    teacher = build_teacher(space, Session())
    assert teacher.stream.calibration.temperature != 1
    check_samples(teacher)


def test_members_normalize_as_they_were_trained(home: Home) -> None:
    generator = torch.Generator().manual_seed(0)
    num = len(load_dataset(load_space(home.space)).class_names)
    weight = torch.randn((3, num, 64), generator=generator)
    bias = torch.randn((3, num), generator=generator)
    save_file({"0.weight": weight, "0.bias": bias}, "ensemble.safetensors")
    method = {"name": "import", "path": "ensemble.safetensors", "input_mean": 3.0}
    method |= {"input_std": 7.0, "at_chance": True}
    space = load_space(home.space, {"teacher.genotype": {"depth": 0}, "teacher.method": method})
    check_samples(build_teacher(space, Session()))


@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian_learned", "heteroscedastic"])
def test_of_a_real_label_the_mean_is_told(likelihood: str, home: Home) -> None:
    method: dict[str, Any] = {"name": "sgld", "chains": 1, "num_samples": 2, "burn_in": 4}
    method |= {"thinning": 2, "batch_size": 20, "step_size": {"initial": 1e-5}}
    space = {
        "name": "real",
        "dataset": {"name": "linear_gaussian", "num_inputs": 2, "num_examples": 60},
        "teacher": {
            "family": "mlp",
            "genotype": {"depth": 1, "width": 4},
            "likelihood": {"name": likelihood},
            "method": method,
        },
        "views": [{"policy": "clean"}],
        "students": [{"family": "mlp", "genotype": {"depth": 1, "width": 8}}],
    }
    check_samples(build_teacher(parse_space(space, "here"), Session()))
