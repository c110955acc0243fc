"""The heads of a student: which of its raw outputs belong to which target.

A layout is made once, of the targets and the number of classes, and handed to whatever reads raw
outputs: training, evaluation and export.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from gped_nas.errors import ConfigError
from gped_nas.targets.base import (
    MAIN_TARGET,
    DerivedTarget,
    Expectations,
    LearnedTarget,
    RawHeads,
    Targets,
    resolve,
)

LABELS = "the labels"
"""Beside the expectations of a batch: what its labels say of the main target, (B, G).

Where the label of an input is not known, its row is NaN. No target has a name like this.
"""


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
            elif isinstance(target, DerivedTarget):
                predicted[target.name] = target.of_student(heads, predicted)

        return predicted

    @property
    def main(self) -> LearnedTarget:
        """The target that says what the label is."""
        name = MAIN_TARGET[self.learned[0].prediction]
        (target,) = (target for target in self.learned if target.name == name)
        return target

    def labels(self, y: Tensor) -> Tensor:
        """What labels say of the main target, as if a posterior sample were certain of them.

        Args:
            y: classes (N,), or real labels (N,) in their normalized unit.

        Returns:
            (N, G), float32: a one for the class, or the label and its square.
        """
        if self.main.prediction == "log_prob":
            return torch.nn.functional.one_hot(y, self.num_classes).float()
        certain = torch.stack([y, torch.zeros_like(y)], -1)
        return self.main.values(certain).float()

    def loss(
        self,
        raw: Tensor,
        expectations: Expectations,
        weights: Mapping[str, float],
        label_weight: Tensor | float = 0.0,
    ) -> Tensor:
        """The distillation loss: the weighted sum of the targets' losses, averaged over the batch.

        At inputs whose label is known, the loss of the main target is ``(1 - w)`` of it plus ``w``
        of the same loss to the label. That loss is affine in what it is given, so that both
        together are the loss to the mean of the two.

        Args:
            raw: raw outputs (..., B, U).
            expectations: what the teacher says, on average or by one posterior sample an input:
                ``{target: (B, G)}``; under ``LABELS`` what the labels say, if anything.
            weights: weight of each target; 1 where not given.
            label_weight: w in [0, 1]: one for all, or one for each leading index.

        Returns:
            One scalar for each leading index.
        """
        heads = self.split(raw)
        total = raw.new_zeros(raw.shape[:-2])
        if LABELS in expectations:
            expectations = self._with_labels(expectations, label_weight)

        for target in self.learned:
            losses_B = target.loss(heads[target.name], heads, expectations[target.name])
            total = total + weights.get(target.name, 1.0) * losses_B.mean(-1)

        return total

    def _with_labels(
        self, expectations: Expectations, label_weight: Tensor | float
    ) -> Expectations:
        """The expectations, that of the main target moved to the labels where these are known."""
        if not isinstance(label_weight, Tensor):
            if label_weight == 0:
                return expectations
        else:
            label_weight = label_weight[..., None, None]

        name = self.main.name
        taught, labels = expectations[name], expectations[LABELS]
        mixed = taught + label_weight * (labels - taught)
        return {**expectations, name: torch.where(labels.isnan(), taught, mixed)}
