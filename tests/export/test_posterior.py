"""An exported posterior answers without the package as the house does, in under 100 lines."""

import json
import re
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open

from gped_nas.errors import ConfigError
from gped_nas.export.posterior import loader_text, posterior_bytes, trace_network
from gped_nas.models.base import FAMILIES
from gped_nas.posterior.base import PosteriorSample, parse_method
from gped_nas.posterior.codecs.base import codec_of, codecs
from gped_nas.posterior.codecs.code import Code


def loader(codec: str) -> Any:
    module = ModuleType("load_posterior")
    exec(compile(loader_text(codec), "load_posterior.py", "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("codec", codecs())
def test_the_loader_of_each_codec_is_short_and_needs_no_package_of_ours(codec: str) -> None:
    text = loader_text(codec)
    assert len(text.splitlines()) < 100
    assert max(map(len, text.splitlines())) <= 100
    imported = re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)
    assert set(imported) == {*("json", "math", "sys", "typing"), "numpy", "safetensors", "torch"}
    assert text.count("def decode(") == 1


EXAMPLES = []
for name in ("mlp", "cnn", "resnet"):
    for number, example in enumerate(FAMILIES[name].examples):
        EXAMPLES.append(pytest.param(name, example, id=f"{name}-{number}"))


@pytest.mark.parametrize(("name", "example"), EXAMPLES[::7])
def test_a_graph_is_the_forward_of_its_family(name: str, example: Any, tmp_path: Any) -> None:
    family = FAMILIES[name]
    input_shape = family.example_inputs[-1]
    shapes = family.shapes(family.canonical(example), input_shape, 3)
    generator = torch.Generator().manual_seed(0)
    theta_2W = torch.randn(
        2, sum(torch.Size(s).numel() for s in shapes.values()), generator=generator
    )
    theta_2W *= 0.3

    def predict(params: Any, raw: torch.Tensor) -> torch.Tensor:
        return family.forward(params, (raw - 0.5) / 2).log_softmax(-1)

    code = Code("subset", {"theta": theta_2W, "weight": torch.tensor([3.0, 1.0])}, shapes)
    about = {"task": "classification", "input_shape": list(input_shape)}
    path = tmp_path / "posterior.safetensors"
    path.write_bytes(posterior_bytes(code, trace_network(predict, shapes, input_shape), about))

    posterior = loader("subset").Posterior(str(path))
    raw = torch.randn(5, *input_shape, generator=generator)
    theta, weight = posterior.networks()
    assert torch.equal(theta, theta_2W)
    assert weight.tolist() == [0.75, 0.25]

    single = []
    for theta_W in theta_2W:
        parts = theta_W.split([torch.Size(shape).numel() for shape in shapes.values()])
        params = {n: part.view(s) for (n, s), part in zip(shapes.items(), parts, strict=True)}
        single.append(predict(params, raw))
    expected = torch.stack(single)
    torch.testing.assert_close(posterior.single(theta, raw.numpy()), expected)
    average = (weight[:, None, None] * expected.double().exp()).sum(0)
    torch.testing.assert_close(posterior.average(raw.numpy()), average)


def test_a_mixture_of_normals_has_the_variance_of_means_in_it(tmp_path: Any) -> None:
    shapes = {"layers.0.weight": (2, 1), "layers.0.bias": (2,)}
    # the mean is w x + b; the variance is a number
    theta_2W = torch.tensor([[1.0, 0.0, 0.0, 2.0], [3.0, 0.0, 1.0, 4.0]])

    def predict(params: Any, raw: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(raw, *params.values())

    code = Code("subset", {"theta": theta_2W, "weight": torch.ones(2)}, shapes)
    path = tmp_path / "posterior.safetensors"
    graph = trace_network(predict, shapes, (1,))
    path.write_bytes(posterior_bytes(code, graph, {"task": "regression", "input_shape": [1]}))

    # at 2: normals with means 2 and 7, variances 2 and 4
    answer = loader("subset").Posterior(str(path)).average([[2.0]])
    assert answer[0].tolist() == pytest.approx([4.5, 3.0 + 2.5**2])


def test_a_step_that_the_loader_does_not_know_is_refused(tmp_path: Any) -> None:
    shapes = {"weight": (1, 1)}

    def predict(params: Any, raw: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(raw @ params["weight"], 1)

    with pytest.raises(ConfigError, match=r"the step aten\.cumsum"):
        trace_network(predict, shapes, (1,))
    with pytest.raises(ConfigError, match="cannot be written as steps"):
        trace_network(lambda params, raw: raw if raw.sum() > 0 else -raw, shapes, (1,))
    with pytest.raises(ConfigError, match="no loader"):
        loader_text("nothing")


@pytest.mark.parametrize(
    ("step", "args"),
    [
        ("from_file.default", ["/etc/hostname"]),
        # by attributes of an operator whoever writes a file comes to everything in Python
        ("add.__getattribute__", ["__init__"]),
        ("add.__setattr__", ["_op", "x"]),
        ("__class__.mro", []),
    ],
)
def test_a_file_that_asks_for_what_is_no_step_is_refused(
    step: str, args: list[str], tmp_path: Any
) -> None:
    shapes = {"weight": (1, 1)}
    code = Code("subset", {"theta": torch.ones(1, 1), "weight": torch.ones(1)}, shapes)
    graph = trace_network(lambda params, raw: raw @ params["weight"], shapes, (1,))
    graph.steps.append(["x", step, args, {}])
    path = tmp_path / "posterior.safetensors"
    path.write_bytes(posterior_bytes(code, graph, {"task": "classification", "input_shape": [1]}))

    with pytest.raises(ValueError, match="no step of a network"):
        loader("subset").Posterior(str(path)).average([[1.0]])
    assert "assert" not in loader_text("subset")  # python -O leaves these out


def test_the_file_says_what_it_is(tmp_path: Any) -> None:
    shapes = {"weight": (1, 1)}
    code = Code("subset", {"theta": torch.ones(1, 1), "weight": torch.ones(1)}, shapes, {"a": 1})
    graph = trace_network(lambda params, raw: raw @ params["weight"], shapes, (1,))
    path = tmp_path / "posterior.safetensors"
    path.write_bytes(posterior_bytes(code, graph, {"of": "mlp by sgld"}))

    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["code"])
    assert about["codec"] == "subset"
    assert about["settings"] == {"a": 1}
    assert about["of"] == "mlp by sgld"


def learned(network: int, *, with_network: bool) -> dict[str, torch.Tensor]:
    """Tensors of a law of two chains in two directions of six weights."""
    source = torch.Generator().manual_seed(1)
    tensors = {
        "share": torch.tensor([0.3, 0.7], dtype=torch.float64),
        "mean": torch.randn(2, 6, generator=source),
        "std": torch.rand(2, 6, generator=source),
        "factor": torch.randn(2, 2, 6, generator=source),
    }
    if with_network:
        tensors["network"] = torch.randn(2, network, generator=source)
    return tensors


LAWS = {
    # two layers of three units that read two places and a time, then two
    "flow": (learned(4 * 3 + 3 + 9 + 3 + 6 + 2, with_network=True), {"width": 3}),
    "flow, normal": (learned(0, with_network=False), {"width": 3}),
    "gan": (learned(6 + 3 + 2 * (9 + 3) + 6 + 2, with_network=True), {"width": 3}),
    "gan, normal": (learned(0, with_network=False), {"width": 3}),
    "low_rank": (learned(0, with_network=False), {}),
    "apd": (
        {"generator": torch.linspace(-1, 1, 2 * 3 + 3 + 2 * (9 + 3) + 3 * 6 + 6)},
        {"width": 3, "latent": 2},
    ),
}


@pytest.mark.parametrize("name", LAWS)
def test_the_loader_draws_what_each_law_draws(name: str, tmp_path: Any) -> None:
    tensors, settings = LAWS[name]
    shapes = {"layers.0.weight": (2, 2), "layers.0.bias": (2,)}
    code = Code(name.partition(",")[0], tensors, shapes, settings)
    path = tmp_path / "posterior.safetensors"
    path.write_bytes(code.to_bytes({"graph": []}))

    theta, weight = loader(code.codec).Posterior(str(path)).networks(40, seed=5)

    codec: Any = codec_of(code.codec)
    expected = codec.draws(code, 40, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(theta, expected, rtol=1e-5, atol=1e-5)
    assert weight.tolist() == [pytest.approx(1 / 40)] * 40


@pytest.mark.parametrize("settings", [{"bits": 8}, {"bits": 4}, {"bits": 4, "around": "mean"}])
@pytest.mark.parametrize("scales", ["row", "tensor"])
def test_the_loader_reads_what_is_rounded(settings: Any, scales: str, tmp_path: Any) -> None:
    codec: Any = codec_of("quantized")
    shapes = {"layers.0.weight": (3, 2), "layers.0.bias": (3,), "layers.1.weight": (1, 3)}
    problem = SimpleNamespace(
        shapes=shapes,
        samples=[
            PosteriorSample(torch.randn(12, generator=torch.Generator().manual_seed(s)), s + 1.0)
            for s in range(4)
        ],
    )
    of = {"name": "sgld", "chains": 2, "num_samples": 4}
    cfg = parse_method({"name": "quantized", **settings, "scales": scales, "of": of}, "test")
    tensors = codec.fit(problem, cfg, generator=torch.Generator())
    code = Code("quantized", tensors, shapes, codec.settings(cfg))
    path = tmp_path / "posterior.safetensors"
    path.write_bytes(code.to_bytes({"graph": []}))

    theta, weight = loader("quantized").Posterior(str(path)).networks()

    assert torch.equal(theta, torch.stack([codec.theta(code, index) for index in range(4)]))
    assert weight.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
