"""Read a student of gped-nas with torch, numpy and safetensors alone; copy this file to wherever it is served.

    python load_student.py STUDENT inputs.npy

STUDENT is a folder with ``spec.json`` and ``weights.safetensors``; the inputs are (N, ...) in the data's own range.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file


def load(folder):
    """The student's spec and its float32 parameters by name."""
    spec = json.loads((Path(folder) / "spec.json").read_text())
    stored, params = load_file(Path(folder) / "weights.safetensors"), {}
    for name, tensor in stored.items():
        if name.endswith(".scale"):
            continue
        scale = stored.get(f"{name}.scale")  # int8 weights have one scale an output unit
        scale = 1.0 if scale is None else scale.view(-1, *[1] * (tensor.dim() - 1))
        params[name] = tensor.float() * scale
    return spec, params


def mlp(params, x):
    """Dense layers with ReLU between them."""
    x, depth = x.flatten(1), len(params) // 2
    for i in range(depth):
        x = F.linear(x, params[f"layers.{i}.weight"], params[f"layers.{i}.bias"])
        x = F.relu(x) if i < depth - 1 else x
    return x


FAMILIES = {"mlp": mlp}


def head_sizes(spec):
    """Raw outputs of each target's head, in order; those that are computed from others have none."""
    classes, sizes = len(spec["class_names"]), {}
    for target in spec["targets"]:
        settings = target if isinstance(target, dict) else {"name": target}
        quantiles = classes * (len(settings.get("levels", (0.05, 0.5, 0.95))) + 1)
        known = {"predictive": classes, "second_moment": classes, "expected_entropy": 1, "predictive_normal": 2}
        sizes[settings["name"]] = {**known, "quantile": quantiles}.get(settings["name"], 0)
    return sizes


def predict(spec, params, inputs):
    """What the student predicts for inputs (N, *input_shape): an array a name."""
    x = torch.from_numpy(np.asarray(inputs, np.float32)).reshape(-1, *spec["input_shape"])
    x = (x - spec["normalization"]["mean"]) / spec["normalization"]["std"]
    sizes = head_sizes(spec)
    with torch.no_grad():
        raw = FAMILIES[spec["family"]](params, x).split(list(sizes.values()), -1)
    heads = dict(zip(sizes, raw, strict=True))
    if "predictive_normal" in heads:  # real labels: mean and variance, brought to the label's own unit
        labels, (mean, log_variance) = spec["label_normalization"], heads["predictive_normal"].unbind(-1)
        mean, variance = mean * labels["std"] + labels["mean"], log_variance.exp() * labels["std"] ** 2
        return {"predictive_normal": torch.stack([mean, variance], -1).numpy()}
    q = heads["predictive"].softmax(-1)
    found = {"predictive": q}
    if "expected_entropy" in heads:
        total = torch.special.entr(q).sum(-1, keepdim=True)
        found["expected_entropy"] = heads["expected_entropy"].sigmoid() * total
        found["mutual_information"] = (total - found["expected_entropy"]).clamp_min(0)
    if "second_moment" in heads:
        found["second_moment"] = q.square() + heads["second_moment"].sigmoid() * q * (1 - q)
        found["variance"] = (found["second_moment"] - q.square()).clamp_min(0)
    return {name: tensor.numpy() for name, tensor in found.items()}


if __name__ == "__main__":
    spec, params = load(sys.argv[1])
    for name, array in predict(spec, params, np.load(sys.argv[2], allow_pickle=False)).items():
        print(name, array.shape, array[0])
