"""Students and posterior samples as boxes are asked about them."""

from collections.abc import Iterator

import torch
from torch import Tensor

from gped_nas.api.certifying import network_of_draw, stored_params
from gped_nas.api.teacher import Teacher
from gped_nas.distill.student import Student
from gped_nas.evaluate.certify.asked import AskedNetwork, Noise, noise_of_student
from gped_nas.evaluate.certify.networks import network_of_student
from gped_nas.evaluate.student import StudentPredictor
from gped_nas.models.base import Params
from gped_nas.posterior.noise import NOISE


def asked_student(student: Student) -> AskedNetwork:
    """A student as its file holds it.

    Raises:
        ConfigError: its family has no bounds.
    """
    ((_, forward),) = StudentPredictor(student).networks()
    unit = student.spec.label_normalization
    noise = None if unit is None else noise_of_student(unit)
    return AskedNetwork(network_of_student(student), forward, unit, noise)


def asked_samples(teacher: Teacher) -> Iterator[tuple[float, AskedNetwork]]:
    """Weight and network of each posterior sample; one of them is in memory at a time.

    Raises:
        ConfigError: the samples are not stored or have no networks, or their family has no bounds.
        Interrupted: the session said stop.
    """
    unit = teacher.dataset.label_normalization
    for weight, params in stored_params(teacher):
        network = network_of_draw(teacher, params)
        noise = None if unit is None else _noise(teacher, params, unit.std)
        yield weight, AskedNetwork(network, teacher.forward(params), unit, noise)


def _noise(teacher: Teacher, params: Params, unit_std: float) -> Noise:
    """How a sample says the standard deviation of a label, as its calibration reads it."""
    likelihood, stream = teacher.space.likelihood, teacher.stream

    def std(raw: Tensor) -> Tensor:
        outputs = raw[:, None]
        if likelihood.num_network_outputs(1) == 2 or NOISE in params:
            outputs = torch.stack([torch.zeros_like(raw), raw], -1)
        variance = stream.temper(likelihood.predict(outputs))[:, 1]
        return variance.sqrt() * unit_std

    if NOISE in params:
        return Noise(std, float(params[NOISE]))
    is_output = likelihood.num_network_outputs(1) == 2
    return Noise(std, None if is_output else 0.0)
