"""What is computed of all posterior samples at once: targets of kind ``statistic``.

An average needs one sample at a time. A range needs all of them at an input, and factor loadings
those at all inputs. All is in the dtype of the predictions.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from gped_nas.errors import RegistryError, calling
from gped_nas.targets.base import StatisticTarget, try_values


def fitted_to(target: StatisticTarget, parts: Iterable[Tensor], weight_S: Tensor) -> Tensor | None:
    """What ``target.fit`` finds at some inputs; None where it has none.

    Args:
        target: the statistic.
        parts: what all posterior samples predict, some inputs at a time (S, n, C).
        weight_S: their weights, summing to 1.
    """
    if target.fit is None:
        return None
    values = (try_values(target.name, target.values, part) for part in parts)
    with calling(f"target '{target.name}'", "mend fit="):
        return target.fit(values, weight_S)


def statistic(
    target: StatisticTarget,
    predictions_SNC: Tensor,
    weight_S: Tensor,
    fitted: Tensor | None = None,
) -> Tensor:
    """What posterior samples together say of a statistic, (N, G).

    Args:
        target: the statistic.
        predictions_SNC: what each sample predicts; see ``likelihoods.Prediction``.
        weight_S: their weights, summing to 1.
        fitted: what ``fitted_to`` gave; where None, it is of these inputs.

    Raises:
        RegistryError: a function of the target raised something, or gave another shape.
    """
    weight_S = weight_S.to(predictions_SNC.dtype)
    if fitted is None:
        fitted = fitted_to(target, [predictions_SNC], weight_S)
    else:
        fitted = fitted.to(predictions_SNC)

    values = try_values(target.name, target.values, predictions_SNC)
    with calling(f"target '{target.name}'", "mend of_samples="):
        result = target.of_samples(values, weight_S, fitted)

    if result.dim() != 2 or len(result) != predictions_SNC.shape[1]:
        raise RegistryError(
            f"target '{target.name}': found a statistic {tuple(result.shape)} of predictions "
            f"{tuple(predictions_SNC.shape)}, expected a row an input; return (N, G)"
        )
    return result


def of_one_sample(target: StatisticTarget, predictions_NC: Tensor) -> Tensor:
    """The statistic of a posterior that is one sample, (N, G)."""
    return statistic(target, predictions_NC[None], torch.ones(1))
