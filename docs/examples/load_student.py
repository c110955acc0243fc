"""Read a student without gped-nas; copy this file. ``python load_student.py STUDENT inputs.npy``

STUDENT is a folder with ``spec.json`` and ``weights.safetensors``; inputs are (N, ...) raw data.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file


def load(folder):
    """The student's spec and its float32 parameters by name, layer by layer."""
    spec = json.loads((Path(folder) / "spec.json").read_text())
    stored = load_file(Path(folder) / "weights.safetensors")
    params = {}
    for name in sorted(sorted(stored), key=lambda name: [*map(int, re.findall(r"\.(\d+)", name))]):
        if not name.endswith(".scale"):  # int8 weights have one an output unit
            scale = stored.get(f"{name}.scale", torch.ones(1))
            params[name] = stored[name].float() * scale.view(-1, *[1] * (stored[name].dim() - 1))
    return spec, params


def units_of(params):
    """What hidden units are: a ReLU, unless the names say something else."""
    return getattr(F, (re.findall("tanh|silu|gelu", " ".join(params)) or ["relu"])[0])


def layered(params, x):
    """Families mlp and cnn: convolutions, if any, then dense layers; their names say what else."""
    units, layers = units_of(params), list(dict.fromkeys(n.rpartition(".")[0] for n in params))
    for layer in layers:
        weight, bias = params[f"{layer}.weight"], params[f"{layer}.bias"]
        if weight.dim() == 4:
            says = dict(re.findall(r"\.([a-z]+)(\d*)", layer))  # layers.0.same.pool2: zeros, 2 x 2
            stride, padding = int(says.get("stride", 1)), weight.shape[2] // 2 * ("same" in says)
            groups = len(weight) if "depthwise" in says else 1
            x = F.conv2d(x, weight, bias, stride, padding, groups=groups)
            x = F.max_pool2d(x, int(says.get("pool", 1)))
        else:
            says, x = {}, F.linear(x.flatten(1), weight, bias)
        x = x if layer == layers[-1] else units(x)
        x = x.mean((2, 3)) if "average" in says else x
    return x


def resnet(params, x):
    """A convolution, residual blocks, and a dense layer on averages; a projection halves images."""

    def conv(name, norm, x, stride=1):
        x = F.conv2d(x, params[f"{name}.weight"], stride=stride, padding=1)
        x = x * (x.square().mean((2, 3), keepdim=True) + 1e-6).rsqrt()  # a channel on its own
        return x * params[f"{norm}.gain"][:, None, None] + params[f"{norm}.bias"][:, None, None]

    units, stem = units_of(params), next(iter(params)).rpartition(".conv.")[0]
    x = units(conv(f"{stem}.conv", f"{stem}.norm", x))
    for block in [name.removesuffix(".conv1.weight") for name in params if ".conv1.weight" in name]:
        projection = params.get(f"{block}.projection.weight")
        stride = 1 if projection is None else 2
        inner = units(conv(f"{block}.conv1", f"{block}.norm1", x, stride))
        x = x if projection is None else F.conv2d(x, projection, stride=stride)
        x = units(x + conv(f"{block}.conv2", f"{block}.norm2", inner))
    head = list(params)[-1].rpartition(".")[0]
    return F.linear(x.mean((2, 3)), params[f"{head}.weight"], params[f"{head}.bias"])


def split_heads(spec, raw):
    """Each target's raw outputs by name, in order; targets computed from others have none."""
    widths = dict.fromkeys(("predictive", "second_moment"), len(spec["class_names"]))
    widths |= {"expected_entropy": 1, "predictive_normal": 2}
    widths |= dict.fromkeys(("interval", "logit_variance"), 2 * widths["predictive"])
    sizes = {}
    for target in spec["targets"]:
        settings = target if isinstance(target, dict) else {"name": target}
        widths["quantile"] = widths["predictive"] * (len(settings.get("levels", ())) + 1)
        widths["factors"] = widths["predictive"] * (settings.get("rank", 0) + 2)
        sizes[settings["name"]] = widths.get(settings["name"], 0)
    return dict(zip(sizes, raw.split(list(sizes.values()), -1), strict=True))


def predict(spec, params, inputs):
    """What the student predicts for inputs (N, *input_shape): an array a name."""
    x = torch.from_numpy(np.asarray(inputs, np.float32)).reshape(-1, *spec["input_shape"])
    mean, std = (torch.tensor(spec["normalization"][key]) for key in ("mean", "std"))
    x = x.movedim(1, -1).sub(mean).div(std).movedim(-1, 1)  # for all, or each column or channel
    network = {"mlp": layered, "cnn": layered, "resnet": resnet}[spec["family"]]
    heads = split_heads(spec, network(params, x))
    if "predictive_normal" in heads:  # real labels: brought to the label's own unit
        mean, log_variance = heads["predictive_normal"].unbind(-1)
        unit = spec["label_normalization"]
        moments = [mean * unit["std"] + unit["mean"], log_variance.exp() * unit["std"] ** 2]
        return {"predictive_normal": torch.stack(moments, -1).numpy()}

    q = heads["predictive"].softmax(-1)
    values = {"predictive": q}
    if "expected_entropy" in heads:
        total = torch.special.entr(q).sum(-1, keepdim=True)
        values["expected_entropy"] = heads["expected_entropy"].sigmoid() * total
        values["mutual_information"] = (total - values["expected_entropy"]).clamp_min(0)
    if "second_moment" in heads:
        values["second_moment"] = q.square() + heads["second_moment"].sigmoid() * q * (1 - q)
        values["variance"] = (values["second_moment"] - q.square()).clamp_min(0)
    if "interval" in heads:  # ends in log-odds, a class's two side by side
        below, above = F.softplus(heads["interval"]).unflatten(-1, (-1, 2)).unbind(-1)
        ends = torch.stack([q.logit() - below, q.logit() + above], -1)
        values["interval"] = ends.sigmoid().flatten(1)
    if "logit_variance" in heads:
        values["logit_variance"] = heads["logit_variance"][:, q.shape[1] :].exp() + 1e-4
    if "factors" in heads:  # mean logits, loadings of each factor, variance of the rest
        z = q.clamp_min(1e-6).log()
        rows = heads["factors"].unflatten(-1, (-1, q.shape[1]))
        rows = [rows[:, 0] + z - z.mean(1, keepdim=True), *rows[:, 1:-1].unbind(1), rows[:, -1]]
        values["factors"] = torch.cat([*rows[:-1], rows[-1].exp() + 1e-4], 1)

    return {name: value.numpy() for name, value in values.items()}


if __name__ == "__main__":
    for name, array in predict(*load(sys.argv[1]), np.load(sys.argv[2])).items():
        print(name, array.shape, array[0])
