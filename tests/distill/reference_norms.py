"""The oracle of norms: each formula written out, in float64 wherever no gradient is asked for."""

from math import prod, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas.models.base import FAMILIES, Genotype, Params, Shapes
from gped_nas.models.layers import layers_of


class Norm:
    """None: a student is trained in the parameters that it is stored in."""

    def __init__(self, genotype: Genotype) -> None:
        self.family = FAMILIES[genotype.family]

    def begin(self, params: Params) -> Params:
        """Fresh plain parameters, as they are trained."""
        return params

    def enter(self, params: Params, batches: list[Tensor]) -> Params:
        """Plain parameters that were trained before, as they are trained on."""
        return params

    def forward(self, params: Params, x: Tensor) -> Tensor:
        """Raw outputs in training."""
        return self.family.forward(params, x)

    def leave(self, params: Params, batches: list[Tensor]) -> Params:
        """Plain parameters of trained ones."""
        return params

    def penalized(self, names: tuple[str, ...], shapes: Shapes) -> tuple[list[str], float]:
        """What a unit's penalty is on, and by what it is multiplied."""
        return list(names), 1.0


class _Gains(Norm):
    """What has a gain a filter: the penalty is on gains, as large as on all of a filter."""

    def penalized(self, names: tuple[str, ...], shapes: Shapes) -> tuple[list[str], float]:
        trained = []
        num_plain = 0
        for name in names:
            num_plain += prod(shapes[name][1:])
            gain = name.replace(".weight", ".gain")
            trained.append(gain if gain in shapes else name)
        num_trained = sum(prod(shapes[name][1:]) for name in trained)
        return trained, sqrt(num_plain) / sqrt(num_trained)


class Batch(_Gains):
    """Batch normalization."""

    def begin(self, params: Params) -> Params:
        gains = {name: torch.ones(len(p)) for name, p in params.items() if p.dim() == 4}
        return _with_gains(params, gains)

    def enter(self, params: Params, batches: list[Tensor]) -> Params:
        exact = {name: p.double() for name, p in params.items()}
        # of a plain network the units of all batches together are normalized by nothing
        _, seen = self._walk(exact, torch.cat(batches).double(), normalized=False)

        changed = dict(params)
        gains = {}
        for weight, units in seen.items():
            bias = weight.replace(".weight", ".bias")
            gains[weight] = (units.var((0, 2, 3), correction=0) + 1e-5).sqrt().float()
            changed[bias] = (exact[bias] + units.mean((0, 2, 3))).float()
        return _with_gains(changed, gains)

    def forward(self, params: Params, x: Tensor) -> Tensor:
        raw, _ = self._walk(params, x, normalized=True)
        return raw

    def leave(self, params: Params, batches: list[Tensor]) -> Params:
        exact = {name: p.double() for name, p in params.items()}
        seen = [self._walk(exact, x.double(), normalized=True)[1] for x in batches]

        plain = {name: p for name, p in params.items() if not name.endswith(".gain")}
        for weight in seen[0]:
            units = torch.cat([units_of_batch[weight] for units_of_batch in seen])
            deviation = (units.var((0, 2, 3), correction=0) + 1e-5).sqrt()
            mean = units.mean((0, 2, 3))

            gain = exact[weight.replace(".weight", ".gain")]
            bias = weight.replace(".weight", ".bias")
            for i in range(len(gain)):
                plain[weight][i] = exact[weight][i] * gain[i] / deviation[i]
                plain[bias][i] = exact[bias][i] - mean[i] * gain[i] / deviation[i]
        return plain

    @staticmethod
    def _walk(params: Params, x: Tensor, *, normalized: bool) -> tuple[Tensor, Params]:
        """Raw outputs, and the units of each convolution before its norm and bias."""
        seen = {}
        for layer in layers_of(params):
            bias = params[layer.bias]
            if params[layer.weight].dim() == 2:
                x = F.linear(x.flatten(1), params[layer.weight], bias)
                is_last = layer == layers_of(params)[-1]
                x = x if is_last else x.relu()
                continue

            x = seen[layer.weight] = layer.convolve(x, params[layer.weight], None)
            if normalized:
                x = x - x.mean((0, 2, 3), keepdim=True)
                x = x / (x.square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
                x = x * params[f"{layer.name}.gain"].view(1, -1, 1, 1)
            x = F.max_pool2d((x + bias.view(1, -1, 1, 1)).relu(), layer.pool)
            x = x.mean((2, 3)) if layer.is_averaged else x
        return x, seen


class Weight(_Gains):
    """Scaled weight standardization; ``means`` are what pruning has left of the filters' means.

    A filter of one number has no deviation: it is as it is.
    """

    def begin(self, params: Params) -> Params:
        filters = self._filters(params)
        self.means = {name: torch.zeros(len(p)) for name, p in filters.items()}
        gains = {name: torch.ones(len(p)) for name, p in filters.items()}
        return _with_gains(params, gains)

    def enter(self, params: Params, batches: list[Tensor]) -> Params:
        filters = self._filters(params)
        self.means = {name: p.mean((1, 2, 3)) for name, p in filters.items()}
        gains = {}
        for name, p in filters.items():
            gains[name] = (p.var((1, 2, 3), correction=0) * p[0].numel() / 2).sqrt()
        return _with_gains(params, gains)

    def forward(self, params: Params, x: Tensor) -> Tensor:
        return self.family.forward(self.leave(params, []), x)

    def leave(self, params: Params, batches: list[Tensor]) -> Params:
        plain = {name: p for name, p in params.items() if not name.endswith(".gain")}
        for name, p in self._filters(params).items():
            rows = []
            for i, row in enumerate(p):
                centered = row - row.mean()
                unit = centered / centered.norm().clamp_min(1e-6)
                gain = params[name.replace(".weight", ".gain")][i]
                rows.append(sqrt(2) * gain * unit + self.means[name][i])
            plain[name] = torch.stack(rows)
        return plain

    @staticmethod
    def _filters(params: Params) -> Params:
        return {name: p for name, p in params.items() if p.dim() == 4 and p[0].numel() > 1}


def _with_gains(params: Params, gains: Params) -> Params:
    """The parameters, the gain of each filter behind it."""
    trained = {}
    for name, p in params.items():
        trained[name] = p
        if name in gains:
            trained[name.replace(".weight", ".gain")] = gains[name]
    return trained


def of(genotype: Genotype) -> Norm:
    """The oracle of a genotype's norm."""
    norms = {"none": Norm, "batch": Batch, "weight": Weight}
    return norms[dict(genotype.values).get("norm", "none")](genotype)
