"""Forms: students that are trained in other parameters than they are stored in.

A form is a second way to write a network, in which it learns better. Students enter it at the start
of each phase and leave it at its end, so that what is looked at, pruned, measured, stored and
exported is always the plain network.

* ``BatchNorm``: behind each convolution its units are brought to mean 0 and deviation 1 over the
  batch, then to a learnt ``gain`` and ``bias``. There are no running statistics: when a student
  leaves, they are taken of its own units over a sample of the inputs, with the weights that it then
  has. So they fit averaged weights too, and training carries no state beside its parameters.
* ``StandardWeights`` (scaled weight standardization): a filter's weights less their mean, brought
  to the length that initialization gives, times a learnt ``gain``. It looks at no batch.

Both take out the scale of a filter's weights: of the plain filter ``w' = gain * w / deviation``,
the length is ``|gain|`` times something that ``w`` alone cannot shrink. A group lasso on ``w``
would shrink it at no loss and say nothing about the unit. So the gain is penalized, with the weight
that the plain filter would have, and a gain of zero is a plain filter of zeros.

Source: Ioffe & Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2; statistics of the final weights:
Wu & Johnson 2021, arXiv:2105.07576, section 3; Brock, De & Smith 2021, arXiv:2101.08692, equation
1, without its gain of the nonlinearity, which the length that filters are drawn with is.
"""

from collections.abc import Sequence
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas.models.activations import SECOND_MOMENTS, activation_of
from gped_nas.models.base import Form, Params, gain_of
from gped_nas.models.layers import Layer, layers_of, run

EPS = 1e-5
"""Added to a variance, as in torch."""
_TINY = 1e-6


class BatchNorm(Form):
    """Batch normalization behind every convolution; see the module docstring."""

    least_batch = 2

    def begin(self, params: Params) -> tuple[Params, Params]:
        """See ``Form.begin``: gains of one."""
        gains = {gain_of(name): weight.new_ones(len(weight)) for name, weight in _filters(params)}
        return _with_gains(params, gains), {}

    def enter(self, params: Params, batches: Sequence[Tensor]) -> tuple[Params, Params]:
        """See ``Form.enter``: gain and bias are deviation and mean of the plain units."""
        moments = _Moments()

        def look(layer: Layer, units: Tensor) -> Tensor:
            moments.add(layer, units)
            return units + params[layer.bias][:, None, None]

        for x in batches:
            run(_without_biases(params), x, look)

        trained = dict(params)
        gains = {}
        for layer, (mean, variance) in moments.result().items():
            gains[f"{layer.name}.gain"] = (variance + EPS).sqrt().to(mean.dtype)
            trained[layer.bias] = params[layer.bias] + mean
        return _with_gains(trained, gains), {}

    def forward(self, params: Params, constants: Params, x: Tensor) -> Tensor:
        """See ``Form.forward``."""

        def normalize(layer: Layer, units: Tensor) -> Tensor:
            return _normalize(params, layer, units)

        return run(_without_biases(params), x, normalize)

    def settle(self, params: Params, constants: Params, batches: Sequence[Tensor]) -> Params:
        """See ``Form.settle``: mean and variance of every convolution's units.

        Each batch goes through the network as in training.
        """
        moments = _Moments()

        def look(layer: Layer, units: Tensor) -> Tensor:
            moments.add(layer, units)
            return _normalize(params, layer, units)

        for x in batches:
            run(_without_biases(params), x, look)

        settled = {}
        for layer, (mean, variance) in moments.result().items():
            settled[f"{layer.name}.mean"] = mean
            settled[f"{layer.name}.variance"] = variance
        return settled

    def leave(self, params: Params, constants: Params) -> Params:
        """See ``Form.leave``."""
        plain = _without_gains(params)
        for name, weight in _filters(plain):
            layer = name.removesuffix(".weight")
            gain = params[f"{layer}.gain"].double()
            mean = constants[f"{layer}.mean"].double()
            scale = gain / (constants[f"{layer}.variance"].double() + EPS).sqrt()

            bias = params[f"{layer}.bias"].double() - mean * scale
            plain[name] = (weight.double() * scale[:, None, None, None]).to(weight.dtype)
            plain[f"{layer}.bias"] = bias.to(weight.dtype)
        return plain


class StandardWeights(Form):
    """Scaled weight standardization of every convolution; see the module docstring.

    A filter of a single number has no deviation and stays as it is. When pruning has removed what a
    filter read, the mean of the rest is not zero: it is kept, as a constant, beside the filter.
    """

    def begin(self, params: Params) -> tuple[Params, Params]:
        """See ``Form.begin``: gains of one, and no means."""
        gains = {}
        constants = {}
        for name, weight in _standard_filters(params):
            gains[gain_of(name)] = weight.new_ones(len(weight))
            constants[f"{name}.mean"] = weight.new_zeros(len(weight))
        return _with_gains(params, gains), constants

    def enter(self, params: Params, batches: Sequence[Tensor]) -> tuple[Params, Params]:
        """See ``Form.enter``."""
        gains = {}
        constants = {}
        for name, weight in _standard_filters(params):
            mean = weight.flatten(1).mean(1)
            length = (weight - mean[:, None, None, None]).flatten(1).norm(dim=1)
            gains[gain_of(name)] = length / _fresh_length(name)
            constants[f"{name}.mean"] = mean
        return _with_gains(params, gains), constants

    def forward(self, params: Params, constants: Params, x: Tensor) -> Tensor:
        """See ``Form.forward``: the plain network's."""
        return run(self.leave(params, constants), x)

    def settle(self, params: Params, constants: Params, batches: Sequence[Tensor]) -> Params:
        """See ``Form.settle``: they are what they were."""
        return constants

    def leave(self, params: Params, constants: Params) -> Params:
        """See ``Form.leave``."""
        plain = _without_gains(params)
        for name, weight in _standard_filters(plain):
            # in float32 at least: lengths of many numbers of bfloat16 are coarse
            dtype = torch.promote_types(weight.dtype, torch.float32)
            rows = weight.to(dtype).flatten(1)
            rows = rows - rows.mean(1, keepdim=True)
            length = rows.norm(dim=1, keepdim=True).clamp_min(_TINY)

            gain = params[gain_of(name)].to(dtype)
            standard = rows * (_fresh_length(name) * gain[:, None] / length)
            mean = constants[f"{name}.mean"].to(dtype)
            plain[name] = (standard + mean[:, None]).view_as(weight).to(weight.dtype)
        return plain


FORMS: dict[str, Form] = {"batch": BatchNorm(), "weight": StandardWeights()}
"""By the word of ``norm``."""


def _normalize(params: Params, layer: Layer, units: Tensor) -> Tensor:
    """Units (B, channels, height, width) normalized over their batch."""
    gain, bias = params[f"{layer.name}.gain"], params[layer.bias]
    return F.batch_norm(units, None, None, gain, bias, training=True, eps=EPS)


class _Moments:
    """Mean and variance of the units of each convolution, over batches of as many inputs."""

    def __init__(self) -> None:
        self._parts: dict[Layer, list[tuple[Tensor, Tensor]]] = {}

    def add(self, layer: Layer, units: Tensor) -> None:
        """Take the units of a batch (B, channels, height, width) into account."""
        variance, mean = torch.var_mean(units, (0, 2, 3), correction=0)
        self._parts.setdefault(layer, []).append((mean, variance))

    def result(self) -> dict[Layer, tuple[Tensor, Tensor]]:
        """Mean and variance (channels,) of each layer: within batches and between them."""
        moments = {}
        for layer, parts in self._parts.items():
            dtype = parts[0][0].dtype
            means = torch.stack([mean for mean, _ in parts]).double()
            variances = torch.stack([variance for _, variance in parts]).double()
            between = means.var(0, correction=0)
            variance = variances.mean(0) + between
            moments[layer] = (means.mean(0).to(dtype), variance.to(dtype))
        return moments


def _fresh_length(name: str) -> float:
    """The length that a filter is drawn with on average; see ``initialize``."""
    return sqrt(1 / SECOND_MOMENTS[activation_of(name)])


def _filters(params: Params) -> list[tuple[str, Tensor]]:
    """The weights of convolutions, by name."""
    return [(name, value) for name, value in params.items() if value.dim() == 4]


def _standard_filters(params: Params) -> list[tuple[str, Tensor]]:
    """The weights of convolutions whose filters have more than one number."""
    return [(name, weight) for name, weight in _filters(params) if weight[0].numel() > 1]


def _with_gains(params: Params, gains: Params) -> Params:
    """The parameters, each gain behind its weight."""
    trained = {}
    for name, value in params.items():
        trained[name] = value
        if gain_of(name) in gains:
            trained[gain_of(name)] = gains[gain_of(name)]
    return trained


def _without_gains(params: Params) -> Params:
    return {name: value for name, value in params.items() if not name.endswith(".gain")}


def _without_biases(params: Params) -> Params:
    """Parameters whose convolutions have no bias: a norm has it in their place."""
    filters = {layer.bias for layer in layers_of(params) if params[layer.weight].dim() == 4}
    return {name: value for name, value in params.items() if name not in filters}
