"""A teacher's networks in the form that certificates read."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from gped_nas.api.asking import check_networks, check_stored
from gped_nas.evaluate.certify.networks import (
    CertifiableNetwork,
    certifiable_layers,
    normalizing_layers,
    scaling_of,
)
from gped_nas.models.base import FAMILIES, Params
from gped_nas.models.elementary import Elementary, Scaling
from gped_nas.posterior.noise import without_noise

if TYPE_CHECKING:
    from gped_nas.api.teacher import Teacher


def check_certifiable(teacher: "Teacher") -> None:
    """Refuse a teacher whose samples cannot be certified one by one.

    Raises:
        ConfigError: they are not stored, or have no networks.
    """
    check_stored(teacher.space, "a certificate")
    check_networks(teacher.space, "which can be certified")


def stored_params(teacher: "Teacher") -> Iterator[tuple[float, Params]]:
    """Weight and parameters of each posterior sample; one of them is in memory at a time.

    The weights sum to 1.

    Raises:
        ConfigError: as ``check_certifiable``.
        Interrupted: the session said stop.
    """
    check_certifiable(teacher)
    for index, weight in enumerate(teacher.stream.weight_S.tolist()):
        teacher.session.raise_if_stopped()
        yield weight, teacher.stream.params(index)


def network_of_sample(teacher: "Teacher", index: int) -> CertifiableNetwork:
    """The network of one posterior sample. Raises as ``network_of_draw``."""
    return network_of_draw(teacher, teacher.stream.params(index))


def network_of_draw(teacher: "Teacher", named: Params) -> CertifiableNetwork:
    """The network of parameters that are like a posterior sample's, or one's.

    What a calibration does to predictions is done to the network's outputs.

    Raises:
        ConfigError: their family has no bounds.
    """
    params = {name: named[name] for name in without_noise(teacher.stream.key.shapes)}
    return _network(teacher, _from_raw(teacher), params, _tempered(teacher))


def network_of_params(teacher: "Teacher", params: Params) -> CertifiableNetwork:
    """A network of the teacher's genotype that reads what students read: a MAP network.

    Raises:
        ConfigError: its family has no bounds.
    """
    dataset = teacher.dataset
    return _network(teacher, normalizing_layers(dataset.normalization, dataset.raw_shape), params)


def _network(
    teacher: "Teacher",
    before: Sequence[Elementary],
    params: Params,
    behind: Sequence[Elementary] = (),
) -> CertifiableNetwork:
    """Layers of the teacher's family with what stands before and behind them."""
    space, dataset = teacher.space, teacher.dataset
    num_outputs = space.likelihood.num_network_outputs(dataset.num_outputs)
    layers = certifiable_layers(
        space.module or FAMILIES[space.network.family], space.network.family, params
    )
    return CertifiableNetwork(
        (*before, *layers, *behind), slice(0, dataset.num_outputs), num_outputs, dataset.raw_shape
    )


def _from_raw(teacher: "Teacher") -> list[Elementary]:
    """From raw inputs to what the method's networks read."""
    normalization, shape = teacher.dataset.normalization, teacher.dataset.raw_shape
    layers = normalizing_layers(normalization, shape)
    theirs = teacher.space.method.normalization()
    if theirs is None:
        return layers

    # they are asked at inputs that are normalized, brought back, and normalized as theirs are
    forward = scaling_of(normalization.mean, normalization.std, shape)
    back = Scaling(1 / forward.gain, -forward.shift / forward.gain)
    return [*layers, back, scaling_of(*theirs, shape)]


def _tempered(teacher: "Teacher") -> list[Elementary]:
    """A temperature divides logits; of a real label it leaves the mean as it is."""
    temperature = teacher.stream.calibration.temperature
    if temperature == 1 or teacher.dataset.label_normalization:
        return []
    gain = torch.tensor(1 / temperature, dtype=torch.float64)
    return [Scaling(gain, torch.zeros_like(gain))]
