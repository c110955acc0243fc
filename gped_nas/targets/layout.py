"""The heads of a student: which of its raw outputs belong to which target.

A layout is made once, of the targets and the number of classes, and handed to whatever reads raw
outputs: training, evaluation and export.
"""

from collections.abc import Mapping

from torch import Tensor

from gped_nas.errors import ConfigError
from gped_nas.targets.base import (
    DerivedTarget,
    Expectations,
    LearnedTarget,
    RawHeads,
    Targets,
    resolve,
)


class HeadLayout:
    """The heads of a student side by side in its last layer, in the order of its targets.

    Args:
        targets: the student's targets; a name stands for the registered target. Each comes after
            those that it requires.
        num_classes: C; 1 where labels are real numbers, as a dataset's ``num_outputs`` has it.

    Attributes:
        targets: the targets themselves.
        num_classes: C.
        learned: those of them that have a loss.
        slices: which raw outputs are whose head, by name; a derived target has none.
        num_outputs: raw outputs of all heads together, U.

    Raises:
        RegistryError: an unknown name.
        ConfigError: a target's settings are for another number of classes.
    """

    def __init__(self, targets: Targets, num_classes: int) -> None:
        self.targets = resolve(targets)
        self.num_classes = num_classes
        self.learned = tuple(t for t in self.targets if isinstance(t, LearnedTarget))

        self.slices: dict[str, slice] = {}
        start = 0
        for target in self.learned:
            if target.num_classes not in (None, num_classes):
                raise ConfigError(
                    f"target '{target.name}': its settings are for {target.num_classes} classes, "
                    f"expected {num_classes}"
                )
            stop = start + target.num_outputs(num_classes)
            self.slices[target.name] = slice(start, stop)
            start = stop
        self.num_outputs = start

    def split(self, raw: Tensor) -> dict[str, Tensor]:
        """Raw outputs (..., B, U) cut into those of each head."""
        return {name: raw[..., columns] for name, columns in self.slices.items()}

    def predict(self, raw: Tensor) -> dict[str, Tensor]:
        """Everything a student predicts: raw outputs (..., B, U) to ``{target: (..., B, G)}``."""
        return self.predict_heads(self.split(raw))

    def predict_heads(self, heads: RawHeads) -> dict[str, Tensor]:
        """``predict`` of raw outputs that were split already."""
        predicted: dict[str, Tensor] = {}

        for target in self.targets:
            if isinstance(target, LearnedTarget):
                predicted[target.name] = target.predict(heads[target.name], heads)
            elif isinstance(target, DerivedTarget) and target.from_heads:
                predicted[target.name] = target.from_heads(heads)
            elif isinstance(target, DerivedTarget):
                predicted[target.name] = target.derive(predicted)

        return predicted

    def loss(self, raw: Tensor, expectations: Expectations, weights: Mapping[str, float]) -> Tensor:
        """The distillation loss: the weighted sum of the targets' losses, averaged over the batch.

        Args:
            raw: raw outputs (..., B, U).
            expectations: what the teacher says, on average or by one posterior sample an input:
                ``{target: (B, G)}``.
            weights: weight of each target; 1 where not given.

        Returns:
            One scalar for each leading index.
        """
        heads = self.split(raw)
        total = raw.new_zeros(raw.shape[:-2])

        for target in self.learned:
            losses_B = target.loss(heads[target.name], heads, expectations[target.name])
            total = total + weights.get(target.name, 1.0) * losses_B.mean(-1)

        return total
