"""What to do about predictions that are none: usual mistakes, told from shapes and numbers."""

import torch
from torch import Tensor

_SLACK = 0.05


def hint_of_shape(shape: tuple[int, ...], num_inputs: int, num_classes: int) -> str:
    """What to do about predictions of a wrong shape.

    Args:
        shape: found.
        num_inputs: of the same file.
        num_classes: of the dataset.
    """
    if shape == (num_inputs, num_classes):
        return "give those of one member as array[None]"
    if len(shape) == 3 and shape[:2] == (num_inputs, num_classes):
        return "bring the axis of members to the front with numpy.moveaxis(array, -1, 0)"
    if len(shape) == 3 and shape[2] != num_classes:
        return "give one number for each class of the data, in the order of its labels"
    return "give what every member says at every input, in the order of 'inputs'"


def hint_of_numbers(values_SMC: Tensor, *, is_log: bool) -> str:
    """What to do about numbers that are no distribution over classes.

    Args:
        values_SMC: as they are in the file.
        is_log: whether they are meant to be log-probabilities.
    """
    values_SMC = values_SMC.double()
    if not bool(values_SMC.isfinite().all()) and not is_log:
        return "look for inputs or weights of the ensemble that are not finite"

    is_prob = bool((values_SMC >= 0).all()) and _is_one(values_SMC.sum(-1))
    is_log_prob = bool((values_SMC <= 0).all()) and _is_one(values_SMC.exp().sum(-1))
    if is_log and is_prob:
        return "these are probabilities: call the array 'prob'"
    if not is_log and is_log_prob:
        return "these are log-probabilities: call the array 'log_prob'"
    if is_log:
        return "give log-probabilities, as log_softmax of the logits makes them"
    return "give probabilities after the softmax"


def _is_one(sums: Tensor) -> bool:
    return bool(torch.all((sums - 1).abs() < _SLACK))
