"""Convolutional students of one kernel size padded to the widest: grouped convolutions, one graph.

What could stand in for students in turn, see ``docs/kernel.md``. The networks are those of
``populations.cnns``: two blocks of convolution, ReLU and pooling by 2, a dense layer, the outputs.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas.models.base import Genotype
from tests.bench.card_sides import Layers, Setting, parameters
from tests.bench.populations import NUM_CLASSES

_BLOCKS = 2


class PaddedConvolutions:
    """Students of one kernel size as groups of one convolution, one Adam over all stacks."""

    def __init__(self, setting: Setting) -> None:
        self._batch = setting.batches()
        self._image = tuple(setting.data.inputs.shape[1:])
        by_kernel: dict[int, list[Genotype]] = {}
        for genotype in setting.genotypes:
            by_kernel.setdefault(genotype["kernel"][0], []).append(genotype)

        self._stacks = [self._stack(setting, members) for members in by_kernel.values()]
        self._params = [p for layers in self._stacks for p in parameters(layers)]
        self._optimizer = setting.adam(self._params)

    def _stack(self, setting: Setting, members: Sequence[Genotype]) -> Layers:
        """Convolutions (P * out, in, k, k), then dense layers (P, in, out), with their biases."""
        device, num = setting.device, len(members)
        kernel = members[0]["kernel"][0]
        channels, side, _ = self._image
        layers = []
        for block in range(_BLOCKS):
            width = max(genotype["width"][block] for genotype in members)
            weight = torch.randn((num * width, channels, kernel, kernel), device=device)
            bias = torch.zeros(num * width, device=device)
            layers.append((weight / (channels * kernel**2) ** 0.5, bias))
            channels, side = width, (side - kernel + 1) // 2

        inputs = channels * side**2
        for outputs in (max(genotype["head_width"][0] for genotype in members), NUM_CLASSES):
            weight = torch.randn((num, inputs, outputs), device=device) / inputs**0.5
            layers.append((weight, torch.zeros((num, 1, outputs), device=device)))
            inputs = outputs
        return [(weight.requires_grad_(), bias.requires_grad_()) for weight, bias in layers]

    def __call__(self) -> None:
        """One step of every student."""
        x, soft_BC = self._batch()
        total = torch.zeros((), device=x.device)
        for layers in self._stacks:
            log_prob = self._raw(layers, x).float().log_softmax(-1)
            total = total - (soft_BC * log_prob).sum(-1).mean(-1).sum()

        grads = torch.autograd.grad(total, self._params)
        for param, grad in zip(self._params, grads, strict=True):
            param.grad = grad
        self._optimizer.step()

    def _raw(self, layers: Layers, x: Tensor) -> Tensor:
        """Raw outputs (P, B, C) of the students of a stack."""
        num = len(layers[-1][0])
        hidden = x.view(-1, *self._image)
        for block, (weight, bias) in enumerate(layers[:_BLOCKS]):
            # all of them read the image, and then each its own channels
            groups = num if block else 1
            hidden = F.conv2d(hidden, weight.to(x.dtype), bias.to(x.dtype), groups=groups)
            hidden = F.max_pool2d(hidden.relu(), 2)

        hidden = hidden.unflatten(1, (num, -1)).flatten(2).transpose(0, 1)
        for i, (weight, bias) in enumerate(layers[_BLOCKS:]):
            hidden = torch.baddbmm(bias.to(x.dtype), hidden, weight.to(x.dtype))
            hidden = hidden if i else hidden.relu()
        return hidden
