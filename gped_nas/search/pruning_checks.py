"""What a space's ranges of pruning ask of the networks that its data give."""

from collections.abc import Sequence

from gped_nas.errors import ConfigError, nearest
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.models.costs import check_budget
from gped_nas.models.pruning import ENDS, exempt_words, is_named


def check_pruning(
    genotypes: Sequence[Genotype], input_shape: tuple[int, ...], num_outputs: int, where: str
) -> None:
    """Refuse a budget that some network cannot meet, and a layer that no network has.

    Args:
        genotypes: the corners of one family's ranges.
        input_shape: shape of one input.
        num_outputs: raw outputs of every student.
        where: file and key of their ranges, for messages.

    Raises:
        ConfigError: see ``check_budget``; or ``prune_exempt`` names a layer that is in none.
    """
    for genotype in genotypes:
        check_budget(genotype, input_shape, num_outputs, where)

    layers: dict[str, None] = {}
    words: dict[str, None] = {}
    for genotype in genotypes:
        shapes = genotype.shapes(input_shape, num_outputs)
        groups = FAMILIES[genotype.family].groups(shapes)
        layers |= dict.fromkeys(group.layer for group in groups)
        words |= dict.fromkeys(exempt_words(dict(genotype.values)))

    for word in words:
        if word not in ENDS and not any(is_named(layer, word) for layer in layers):
            raise ConfigError(
                f"{where}.prune_exempt: found '{word}', which no student "
                f"has{nearest(word, (*ENDS, *layers))}"
            )
