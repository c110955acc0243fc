"""A posterior: data, likelihood and prior over named parameters, and parameters as one flat buffer.

``U(theta) = -log p(D | theta) - log p(theta)`` is over the full data, everywhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Generator, Tensor
from torch.utils.checkpoint import checkpoint

from gped_nas.data.rows import Rows
from gped_nas.models.base import FAMILIES, Family, Genotype, Group, Params, Shapes
from gped_nas.models.dense import dense_chain
from gped_nas.posterior.likelihoods import Likelihood
from gped_nas.posterior.noise import family_with_noise, prior_with_noise
from gped_nas.posterior.priors import Prior

_BATCH = 2048
"""Examples of large data whose log-likelihood is computed together."""


@dataclass(frozen=True, eq=False)
class PosteriorSample:
    """Teacher parameters, flat in the order of the problem's ``shapes``, and their weight."""

    theta_W: Tensor
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Network:
    """The log-likelihood of a problem, for methods that act on outputs or hidden units.

    Called with ``(params, x_B, y_B)`` it gives log-likelihoods (B,), nats.

    Attributes:
        forward: ``(params, x_B)`` to raw outputs (B, C), for any widths of the layers.
        log_likelihood: ``(outputs_BC, y_B)`` to log-likelihoods (B,), nats.
        last_layer: weight (C, H) and bias (C,) of the dense layer that gives the outputs; None if
            there is none.
        hidden: the hidden units that one layer alone reads; not a residual stream, which goes on
            beside its readers.
        dense: weight and bias of every layer, from input to output, where the network is a chain of
            dense layers with ReLU between them; empty where it is anything else.
        is_concave: whether the log-likelihood is concave in the raw outputs.
        predict: raw outputs (B, C) to what is predicted (B, G), see ``likelihoods.Prediction``;
            None where that is not known.
    """

    forward: Callable[[Params, Tensor], Tensor]
    log_likelihood: Callable[[Tensor, Tensor], Tensor]
    last_layer: tuple[str, str] | None
    hidden: tuple[Group, ...] = ()
    dense: tuple[tuple[str, str], ...] = ()
    is_concave: bool = True
    predict: Callable[[Tensor], Tensor] | None = None

    def __call__(self, params: Params, x_B: Tensor, y_B: Tensor) -> Tensor:
        return self.log_likelihood(self.forward(params, x_B), y_B)


@dataclass(frozen=True, eq=False)
class Problem:
    """A posterior: data, likelihood and prior over named parameters.

    Attributes:
        shapes: parameter shapes by name.
        log_likelihood: ``(params, x_B, y_B)`` to log-likelihoods (B,), nats; a ``Network`` where
            methods may look inside.
        log_prior: ``params`` to a scalar, nats, up to a constant; a ``Prior`` where methods may
            average over it or draw from it.
        initialize: fresh parameters from a generator.
        x, y: all N training inputs and labels (as the likelihood reads them), on the device to work
            on.
        samples: those of another method, for a method that reads them; each is read when it is
            asked for.
    """

    shapes: Shapes
    log_likelihood: Callable[[Params, Tensor, Tensor], Tensor]
    log_prior: Callable[[Params], Tensor]
    initialize: Callable[[Generator], Params]
    x: Tensor
    y: Tensor
    samples: Sequence[PosteriorSample] | None = None

    @property
    def num_examples(self) -> int:
        return len(self.x)

    @property
    def network(self) -> Network | None:
        """The log-likelihood, where it can be looked into."""
        return self.log_likelihood if isinstance(self.log_likelihood, Network) else None

    @property
    def prior(self) -> Prior | None:
        """The log-prior, where it can be averaged and drawn from."""
        return self.log_prior if isinstance(self.log_prior, Prior) else None

    def potential(self, params: Params, index_B: Tensor) -> Tensor:
        """Unbiased estimate of U from the examples at ``index_B``: a scalar, nats."""
        return self._minus_log_likelihood(params, index_B) - self.log_prior(params)

    def gradient(self, flat: "FlatParams", index_B: Tensor) -> Tensor:
        """The flat gradient of ``potential`` at ``flat``, to the bit; overwritten by the next call.

        A known prior adds its score itself: a graph of squares would cost a third of a small
        network's gradient.
        """
        if self.prior is None:
            return flat.gradient(lambda params: self.potential(params, index_B))

        grad_W = flat.gradient(lambda params: self._minus_log_likelihood(params, index_B))
        score = self.prior.score(flat.params)
        for name, part in unflatten(grad_W, self.shapes).items():
            part.sub_(score[name])
        return grad_W

    def _minus_log_likelihood(self, params: Params, index_B: Tensor) -> Tensor:
        scale = self.num_examples / len(index_B)
        x_B = self.x[index_B]
        if isinstance(x_B, Rows):  # too many to be there at once
            return -scale * self._sum_in_batches(params, index_B)
        return -scale * self.log_likelihood(params, x_B, self.y[index_B]).sum()

    def _sum_in_batches(self, params: Params, index_B: Tensor) -> Tensor:
        """The log-likelihood of many examples, of which a batch is in memory at a time.

        A batch is forgotten after its turn, and read again where a gradient is taken.
        """

        def of_batch(indices: Tensor, *values: Tensor) -> Tensor:
            named = dict(zip(params, values, strict=True))
            return self.log_likelihood(named, self.x[indices], self.y[indices]).sum()

        sums = []
        for indices in torch.split(index_B, _BATCH):
            of_this: Tensor = checkpoint(
                of_batch,
                indices,
                *params.values(),
                use_reentrant=False,
                preserve_rng_state=False,
            )
            sums.append(of_this)
        return torch.stack(sums).sum()


def posterior_of(
    genotype: Genotype,
    x: Tensor,
    y: Tensor,
    *,
    num_outputs: int,
    prior: Prior,
    likelihood: Likelihood,
    device: torch.device,
    samples: Sequence[PosteriorSample] | None = None,
    family: Family | None = None,
) -> Problem:
    """The posterior of a network.

    Args:
        genotype: the network.
        x: normalized inputs (N, ...).
        y: labels (N,), as the likelihood reads them.
        num_outputs: raw outputs of the network, without those of its noise.
        prior: of its parameters, without that of its noise.
        likelihood: of a label given its outputs.
        device: where to work.
        samples: see ``Problem``.
        family: that of the genotype, where it is not the registered one.
    """
    family = family_with_noise(family or FAMILIES[genotype.family], likelihood)
    prior = prior_with_noise(prior, likelihood)
    shapes = family.shapes(dict(genotype.values), tuple(x.shape[1:]), num_outputs)
    start = family.initialize if family.has_own_start(dict(genotype.values)) else prior.sample

    return Problem(
        shapes=shapes,
        log_likelihood=supervised_network(family, shapes, likelihood),
        log_prior=prior,
        initialize=lambda generator: start(shapes, generator=generator),
        x=x.to(device),
        y=y.to(device),
        samples=samples,
    )


def supervised_network(family: Family, shapes: Shapes, likelihood: Likelihood) -> Network:
    """The network of these parameter shapes, with the likelihood of its raw outputs."""
    hidden = [group for group in family.groups(shapes) if len(group.readers) == 1]
    return Network(
        forward=family.forward,
        log_likelihood=likelihood.log_density,
        last_layer=family.head(shapes),
        hidden=tuple(hidden),
        dense=dense_chain(family, shapes),
        is_concave=likelihood.is_concave,
        predict=likelihood.predict,
    )


class FlatParams:
    """Parameters and gradients as one flat buffer each, with named leaves that are views into them.

    Autograd accumulates into the flat gradient; an update of the flat buffer is an update of every
    leaf.
    """

    def __init__(self, shapes: Shapes, theta_W: Tensor) -> None:
        self.theta_W = theta_W
        self.grad_W = torch.zeros_like(theta_W)
        self.params: Params = {}
        for name, view in unflatten(theta_W, shapes).items():
            self.params[name] = view.detach().requires_grad_()
        for name, view in unflatten(self.grad_W, shapes).items():
            self.params[name].grad = view

    def gradient(self, potential: Callable[[Params], Tensor]) -> Tensor:
        """The flat gradient of ``potential`` here; overwritten by the next call."""
        return self.value_and_gradient(potential)[1]

    def value_and_gradient(self, potential: Callable[[Params], Tensor]) -> tuple[Tensor, Tensor]:
        """``potential`` here and its flat gradient, which the next call overwrites."""
        self.grad_W.zero_()
        value = potential(self.params)
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach(), self.grad_W


def unflatten(flat: Tensor, shapes: Shapes) -> Params:
    """Named views into the last axis of a flat tensor (..., W), each of shape (..., *shape)."""
    sizes = [prod(shape) for shape in shapes.values()]
    parts = torch.split(flat, sizes, dim=-1)
    leading_axes = flat.shape[:-1]

    params = {}
    for (name, shape), part in zip(shapes.items(), parts, strict=True):
        params[name] = part.view((*leading_axes, *shape))
    return params


def flatten(params: Params) -> Tensor:
    """One flat copy (W,) of named parameters in their order."""
    return torch.cat([p.detach().reshape(-1) for p in params.values()])
