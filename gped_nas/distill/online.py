"""Online distillation: the algorithm as published, one teacher chain and its students in step.

Nothing is kept.

    for each step of the students:
        theta <- the chain's next state after burn-in, ``thinning`` steps on
        draw a batch of distillation inputs
        ghat  <- g(theta) there (``newest``, U_s),
                 or the running mean of g at these inputs (``running_mean``, U_o)
        one optimizer step of every student on the loss to ghat

It is the baseline that learning from a stream is compared with. A population shares the chain,
whose draws are its own, so that a student has the same bits alone; but each population pays a whole
chain, of ``burn_in + steps * thinning`` steps, where students of a stream share one for all.

The paper's student is trained by ``recipe: {mode: online, lr: 1.0e-3, warmup: 0, halve_every: ...,
beta2: 0.999}`` (Adam, its step size halved now and then). What differs from the paper and its
released code on purpose:

* The teacher's predictions are taken at temperature 1, as students are evaluated (the code softens
  them by 5).
* The entropy loss is squared: an absolute error on the newest sample learns the posterior median.
  Its head is one output bounded by H[q], where the paper's predicts the logarithm.
* With ``newest`` the input policy draws anew in each pass over the inputs. With ``running_mean``
  the inputs stay what they are: a mean over differently perturbed inputs would be the expectation
  at none of them.
* Inputs come in seeded permutations, not with replacement. Students have no dropout, and pruned
  units are removed.
* Chain 0 of the teacher's method is run, whatever ``chains`` says, from the stream's own seed: its
  states begin as the stream's first chain does. The stream is still built, for evaluation alone.

Source: Vadera, Jalaian & Marlin 2020, arXiv:2005.08110, algorithm 1; Balan et al. 2015,
arXiv:1506.04416, algorithm 1.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from gped_nas.distill.feed import Batch, BatchOrder, RunningMean
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import ConfigError
from gped_nas.targets.base import Target
from gped_nas.targets.expectations import sample_values
from gped_nas.targets.layout import LABELS


def online_batches(
    thetas: Iterable[Tensor],
    predict: Callable[[Tensor, Tensor], Tensor],
    draw_inputs: Callable[[int], Tensor],
    targets: Sequence[Target],
    recipe: Recipe,
    *,
    root: int,
    device: torch.device,
    labels: Tensor | None = None,
) -> Iterator[Batch]:
    """Batches of a chain that runs as they are asked for: one posterior sample a batch.

    Args:
        thetas: flat parameters (W,) of posterior samples, in the order of the chain.
        predict: flat parameters and normalized inputs (B, *input_shape) to what the likelihood
            predicts, (B, C).
        draw_inputs: number of the pass, from 0, to the normalized inputs (M, *input_shape) of that
            pass.
        targets: the students' targets.
        recipe: batch size and update rule.
        root: root seed of the batch order.
        device: where the students are.
        labels: what the labels say at the inputs of each pass; see ``DistillationSet.labels``.

    Raises:
        ConfigError: the chain ended before the students were done.
    """
    pass_number = 0
    inputs = draw_inputs(pass_number)
    order = BatchOrder(len(inputs), recipe, root)
    means = RunningMean(len(inputs))
    num_seen = 0
    num_samples = 0

    for theta_W in thetas:
        index_B = next(order)
        # a mean is of the very same inputs, so that only ``newest`` draws them anew
        if recipe.update == "newest" and num_seen // len(inputs) > pass_number:
            pass_number = num_seen // len(inputs)
            inputs = draw_inputs(pass_number)

        x = inputs[index_B].to(device)
        with torch.no_grad():
            values = sample_values(targets, predict(theta_W.to(device), x).cpu())
        if recipe.update == "running_mean":
            values = means(index_B, values)
        if labels is not None:
            values = {**values, LABELS: labels[index_B]}
        yield x, {name: value.to(device) for name, value in values.items()}

        num_seen += len(index_B)
        num_samples += 1

    raise ConfigError(
        f"recipe.mode: the teacher's method ended after {num_samples} posterior samples, expected "
        f"one for each of {recipe.steps} steps; lower recipe.steps or use mode cached"
    )
