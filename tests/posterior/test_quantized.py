"""``quantized``: rounding, packing and their bounds, against loops over single weights."""

import numpy as np
import pytest
import torch

from gped_nas import rng
from gped_nas.models.base import FAMILIES, Genotype, Shapes
from gped_nas.models.storage import encode
from gped_nas.posterior.base import METHODS, PosteriorSample, parse_method, unflatten
from gped_nas.posterior.codecs.base import num_chains
from gped_nas.posterior.codecs.quantized import pack, unpack
from tests.posterior.codes import (
    SGLD,
    all_samples,
    code_of,
    problem_weighing,
    problem_with,
    settings_of,
)

CNN = Genotype("cnn", **FAMILIES["cnn"].examples[0])


def decode_slowly(
    samples: list[PosteriorSample], shapes: Shapes, *, bits: int, scales: str, around: str
) -> list[np.ndarray]:
    """What is read back of each sample, weight by weight in float64."""
    levels = 2 ** (bits - 1) - 1
    thetas = [sample.theta_W.double().numpy() for sample in samples]
    decoded = []
    for s, theta_W in enumerate(thetas):
        chain = [i for i in range(len(samples)) if i % 2 == s % 2]
        total = sum(samples[i].weight for i in chain)
        mean_W = sum(samples[i].weight / total * thetas[i] for i in chain)
        center_W = mean_W if around == "mean" else np.zeros_like(theta_W)

        parts, start = [], 0
        for shape in shapes.values():
            size = int(np.prod(shape))
            part = theta_W[start : start + size].reshape(shape).copy()
            center = center_W[start : start + size].reshape(shape)
            start += size
            if len(shape) > 1:
                rows = range(shape[0]) if scales == "row" else [slice(None)]
                for row in rows:
                    scale = np.abs(part[row] - center[row]).max() / levels
                    steps = np.round((part[row] - center[row]) / scale)
                    part[row] = center[row] + steps * scale
            parts.append(part.reshape(-1))
        decoded.append(np.concatenate(parts))
    return decoded


@pytest.mark.parametrize("genotype", [Genotype("mlp", depth=1, width=5), CNN], ids=str)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("scales", ["row", "tensor"])
@pytest.mark.parametrize("around", ["zero", "mean"])
def test_samples_are_read_back_as_weight_by_weight(
    genotype: Genotype, bits: int, scales: str, around: str
) -> None:
    problem = problem_with(6, genotype)
    cfg = settings_of("quantized", 6, bits=bits, scales=scales, around=around)
    samples, _ = all_samples(problem, cfg)

    assert problem.samples is not None and num_chains(cfg) == 2
    expected = decode_slowly(
        list(problem.samples), problem.shapes, bits=bits, scales=scales, around=around
    )
    assert len(samples) == len(expected)
    for sample, theta_W, read in zip(samples, expected, problem.samples, strict=True):
        np.testing.assert_allclose(sample.theta_W.numpy(), theta_W, rtol=1e-4, atol=1e-5)
        assert sample.weight == pytest.approx(read.weight / 12)
        assert not torch.equal(sample.theta_W, read.theta_W)


def test_eight_bits_a_row_are_those_of_students_files() -> None:
    problem = problem_with(4)
    code = code_of(problem, settings_of("quantized", 4))
    assert problem.samples is not None
    stored = encode(unflatten(problem.samples[2].theta_W, problem.shapes), "int8")

    matrices = [name for name, shape in problem.shapes.items() if len(shape) > 1]
    steps = torch.cat([stored[name].flatten() for name in matrices])
    scales = torch.cat([stored[name + ".scale"] for name in matrices])
    assert torch.equal(code.tensors["steps"][2], steps)
    assert torch.equal(code.tensors["scale"][2], scales)


def test_differences_of_a_chain_are_rounded_more_finely() -> None:
    problem = problem_with(12)
    assert problem.samples is not None
    errors = {}
    for around in ("zero", "mean"):
        samples, _ = all_samples(problem, settings_of("quantized", 12, bits=4, around=around))
        misses = [
            float((sample.theta_W - read.theta_W).square().mean())
            for sample, read in zip(samples, problem.samples, strict=True)
        ]
        errors[around] = sum(misses)
    # chains are around 0 and around 3: steps from 0 are much wider in the second one
    assert errors["mean"] < 0.5 * errors["zero"]


@pytest.mark.parametrize("name", ["quantized", "subset"])
def test_a_chain_that_weighs_nothing_stays(name: str) -> None:
    problem = problem_weighing([1.0, 0.0] * 3)
    settings = {"quantized": {"around": "mean"}, "subset": {"num_samples": 4, "probes": 8}}
    samples, _ = all_samples(problem, settings_of(name, 6, **settings[name]))
    thetas = torch.stack([sample.theta_W for sample in problem.samples])
    for s, sample in enumerate(samples):
        miss = (thetas[s % 2 :: 2] - sample.theta_W).abs().max(1).values
        assert float(miss.min()) < 0.05


@pytest.mark.parametrize("num", [1, 2, 3])
def test_numbers_of_four_bits_are_packed_two_a_byte(num: int) -> None:
    levels = torch.arange(-7, 8, dtype=torch.int8)
    steps_SW = torch.cartesian_prod(*[levels] * num).view(-1, num)
    packed = pack(steps_SW)
    assert packed.dtype == torch.uint8 and packed.shape == (15**num, (num + 1) // 2)
    assert torch.equal(unpack(packed, num), steps_SW)


@pytest.mark.parametrize(("bits", "a_weight"), [(8, 1), (4, 0.5)])
def test_its_file_takes_what_its_code_says(tmp_path, bits: int, a_weight: float) -> None:
    problem = problem_with(6, Genotype("mlp", depth=2, width=40))
    code = code_of(problem, settings_of("quantized", 6, bits=bits))
    path = tmp_path / "code.safetensors"
    path.write_bytes(code.to_bytes())
    assert code.bytes == path.stat().st_size

    shapes = problem.shapes.values()
    num_steps = sum(shape[0] * shape[1] for shape in shapes if len(shape) == 2)
    num_floats = sum(2 * shape[0] for shape in shapes if len(shape) == 2)  # biases and scales
    tensors = 6 * (num_steps * a_weight + 4 * num_floats + 8)
    assert 0 < code.bytes - tensors < 800  # header and metadata


def test_a_subset_is_stored_in_few_bits() -> None:
    of = {**SGLD, "chains": 2, "num_samples": 8}
    settings = {"name": "subset", "num_samples": 3, "probes": 8, "of": of}
    cfg = parse_method({"name": "quantized", "of": settings}, "method")
    problem = problem_with(8)
    inner, _ = all_samples(problem, cfg.of)  # type: ignore[attr-defined]
    problem.__dict__["samples"] = inner

    samples = [
        step.sample
        for step in METHODS["quantized"](problem, cfg, generator=rng.generator(1, "chain"))
    ]
    assert [s.weight for s in samples] == pytest.approx([s.weight for s in inner])
    for sample, read in zip(samples, inner, strict=True):
        torch.testing.assert_close(sample.theta_W, read.theta_W, rtol=0, atol=0.05)
