"""Read a posterior by torch, numpy, safetensors: ``python load_posterior.py FILE inputs.npy``."""

import json
import math
import sys
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Generator, Tensor

from gped_nas.export.loading.subset import decode

SAFE = frozenset(  # their overloads are all that a file can call
    "add addcmul avg_pool2d clamp conv2d div exp expand flatten gelu isnan linear log log_softmax "
    "matmul max_pool2d mean mul neg permute pow relu reshape rsqrt select sigmoid silu slice "
    "softplus sqrt stack sub sum sym_size tanh transpose unsqueeze where".split()
)


class Posterior:
    """A posterior in few bytes: networks, what each says alone, and their average."""

    def __init__(self, path: str) -> None:
        with safe_open(path, "pt") as file:
            self.about: dict[str, Any] = json.loads(file.metadata()["code"])
            self.tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}

    def networks(self, num: int = 100, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Flat parameters (S, W), weights (S,): all that are stored, or ``num`` draws of a law."""
        theta = decode(self.tensors, self.about, num, Generator().manual_seed(seed))
        weight = self.tensors.get("weight", torch.ones(len(theta))).double()
        return theta, weight / weight.sum()

    def single(self, theta: Tensor, x: Any) -> Tensor:
        """What networks say alone, (S, N, G): log-probabilities, or mean and variance."""
        inputs = torch.from_numpy(np.asarray(x, np.float32)).reshape(-1, *self.about["input_shape"])
        return torch.stack([self.run(each, inputs) for each in theta])

    def average(self, x: Any, num: int = 100, seed: int = 0) -> Tensor:
        """Probabilities (N, classes) of the average, or mean and variance (N, 2) of the label."""
        theta, weight = self.networks(num, seed)
        said, weight = self.single(theta, x).double(), weight[:, None, None]
        if self.about["task"] == "classification":
            return (weight * said.exp()).sum(0)
        mean = (weight * said[..., :1]).sum(0)
        spread = said[..., 1:] + (said[..., :1] - mean).square()
        return torch.cat([mean, (weight * spread).sum(0)], 1)

    def run(self, theta: Tensor, inputs: Tensor) -> Tensor:
        """One network at raw inputs: the steps of its graph, one after the other."""
        values: dict[str, Tensor] = {"inputs": inputs, **self.tensors}
        parts = torch.split(theta, [math.prod(shape) for _, shape in self.about["shapes"]])
        for (name, shape), part in zip(self.about["shapes"], parts, strict=True):
            values[f"param/{name}"] = part.view(shape)

        def fill(value: Any) -> Any:
            value = values[value["of"]] if isinstance(value, dict) else value
            return [fill(each) for each in value] if isinstance(value, list) else value

        for name, step, args, options in self.about["graph"]:
            kind, _, overload = step.partition(".")
            if kind not in SAFE or overload not in getattr(torch.ops.aten, kind).overloads():
                raise ValueError(f"{step}: no step of a network")
            call = getattr(getattr(torch.ops.aten, kind), overload)
            values[name] = call(*fill(args), **{key: fill(each) for key, each in options.items()})
        return values[name]


if __name__ == "__main__":
    print(Posterior(sys.argv[1]).average(np.load(sys.argv[2], allow_pickle=False)).numpy())
