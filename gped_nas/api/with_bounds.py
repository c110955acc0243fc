"""What certificates and certified training ask of a dataset and of the networks of a space."""

import torch

from gped_nas.data.base import Dataset
from gped_nas.data.normalization import ImputingNormalization
from gped_nas.distill.certified import check_intervals
from gped_nas.errors import ConfigError
from gped_nas.evaluate.certify.networks import certifiable_layers
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.search.space import SearchSpace


def check_radii(space: SearchSpace, dataset: Dataset) -> None:
    """Refuse a radius around missing numbers, and students that have no bounds, before any work.

    Raises:
        ConfigError: names the condition, or the student.
    """
    if not space.radii:
        return

    if isinstance(dataset.normalization, ImputingNormalization):
        raise ConfigError(
            f"{space.source}: conditions: found '{space.radii[0]}' and a table with missing "
            f"numbers ('{dataset.name}'), expected none: there is no radius around what is not "
            "known; remove the condition, or fill the table in before"
        )
    num_outputs = space.num_outputs(dataset.num_outputs)
    for i, student in enumerate(space.students):
        for genotype in student.corners():
            _check_bounds(genotype, dataset, num_outputs, f"{space.source}: students[{i}]")


def check_certified_training(space: SearchSpace, dataset: Dataset) -> None:
    """Refuse certified training where the unpruned reference cannot be trained so, before any work.

    Raises:
        ConfigError: the teacher's genotype, which that has, lets no intervals through.
    """
    if space.recipe.certify and space.genotype is not None and space.module is None:
        check_intervals(space.genotype, dataset.input_shape, f"{space.source}: recipe")


def _check_bounds(genotype: Genotype, dataset: Dataset, num_outputs: int, where: str) -> None:
    """Refuse a network whose layers have no bounds."""
    shapes = genotype.shapes(dataset.input_shape, num_outputs)
    params = {name: torch.zeros(shape) for name, shape in shapes.items()}
    try:
        certifiable_layers(FAMILIES[genotype.family], genotype.family, params)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error} (the ranges hold {genotype})") from None
