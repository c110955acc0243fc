"""Networks that can be certified: from raw inputs to raw outputs, as elementary layers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gped_nas.data.normalization import AnyNormalization, ImputingNormalization
from gped_nas.distill.student import Student
from gped_nas.errors import ConfigError
from gped_nas.evaluate.certify.bounds import Bounds, check_layers, lower_bound
from gped_nas.evaluate.certify.rounding import FLOAT32, RunTime
from gped_nas.models.base import FAMILIES, Family, Params
from gped_nas.models.elementary import Elementary, Scaling, ZeroFlags
from gped_nas.models.module import FAMILY as MODULE


@dataclass(frozen=True, eq=False)
class CertifiableNetwork:
    """A network as layers that bounds can be carried through.

    Attributes:
        layers: from raw inputs to raw outputs, float64; the first ones normalize.
        rows: which raw outputs say what the label is: a logit a class, or the first one the mean of
            a real label in its normalized unit.
        num_outputs: raw outputs of all heads together, U.
        input_shape: of one raw input.
    """

    layers: tuple[Elementary, ...]
    rows: slice
    num_outputs: int
    input_shape: tuple[int, ...]

    @property
    def num_classes(self) -> int:
        """Rows of the head that says what the label is."""
        return len(range(self.num_outputs)[self.rows])


def network_of_student(student: Student) -> CertifiableNetwork:
    """The network of a student as its file holds it.

    Raises:
        ConfigError: its family has no bounds.
    """
    spec = student.spec
    layers = certifiable_layers(FAMILIES[spec.family], spec.family, student.params)
    return CertifiableNetwork(
        (*normalizing_layers(spec.normalization, spec.input_shape), *layers),
        spec.layout.slices[spec.layout.main.name],
        spec.layout.num_outputs,
        spec.input_shape,
    )


def certifiable_layers(family: Family, name: str, params: Params) -> list[Elementary]:
    """Layers from normalized inputs to raw outputs, float64.

    Args:
        family: of the network.
        name: the family's.
        params: as they are in the file.

    Raises:
        ConfigError: the family has no bounds.
    """
    exact = {key: value.detach().cpu().double() for key, value in params.items()}
    layers = family.layers(exact)
    if layers is None:
        raise ConfigError(
            f"found a network of the family '{name}', expected one of a family that has bounds "
            f"({', '.join(families_with_bounds())}): {family.why_no_layers}; certify networks of "
            "these"
        )
    check_layers(layers)
    return layers


def families_with_bounds() -> list[str]:
    """Names of the registered families that say what their layers are."""
    names = []
    for name, family in FAMILIES.items():
        # what a module is, its user alone can say
        if name != MODULE and type(family).layers is not Family.layers:
            names.append(name)
    return names


def normalizing_layers(
    normalization: AnyNormalization, input_shape: tuple[int, ...]
) -> list[Elementary]:
    """How raw inputs of a shape become a network's, where no number is missing."""
    layers: list[Elementary] = [scaling_of(normalization.mean, normalization.std, input_shape)]
    if isinstance(normalization, ImputingNormalization):
        layers.append(ZeroFlags(len(normalization.flagged)))
    return layers


def scaling_of(
    mean: float | tuple[float, ...], std: float | tuple[float, ...], input_shape: tuple[int, ...]
) -> Scaling:
    """``(x - mean) / std`` of inputs of a shape, with one number for all, or one along an axis."""
    along = (-1, *[1] * (len(input_shape) - 1)) if isinstance(mean, tuple) else ()
    means = torch.tensor(mean, dtype=torch.float64).view(along)
    stds = torch.tensor(std, dtype=torch.float64).view(along)
    return Scaling(1 / stds, -means / stds)


def margins(
    network: CertifiableNetwork,
    low: Tensor,
    high: Tensor,
    label_N: Tensor,
    *,
    bounds: Bounds = "crown",
    run_time: RunTime = FLOAT32,
) -> Tensor:
    """Lower bounds (N, C) of how far the label's logit is above each class's; 0 at the label.

    Above 0 the label leads after a softmax, too.

    Args:
        network: of a classifier.
        low, high: boxes (N, *input_shape) in the data's own unit.
        label_N: classes.
        bounds: how they are made, see ``bounds.py``.
        run_time: what the network is run in.
    """
    num = network.num_classes
    differences = -torch.eye(num, dtype=torch.float64).repeat(len(label_N), 1, 1)
    differences[torch.arange(len(label_N)), :, label_N] += 1
    forms = torch.zeros((len(label_N), num, network.num_outputs), dtype=torch.float64)
    forms[:, :, network.rows] = differences

    lower = lower_bound(network.layers, low, high, forms, bounds=bounds, run_time=run_time)
    lead = lower - run_time.least_lead(num)
    return lead.scatter(1, label_N[:, None], 0.0)
