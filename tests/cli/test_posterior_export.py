"""``gped-search export --posterior``: one file, and a loader that runs away from the package."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

import gped_nas as gn
from tests.cli.harness import Home, accepted, refused

AWAY = """
import sys
import numpy as np

sys.path.insert(0, sys.argv[1])
from load_posterior import Posterior

posterior = Posterior(sys.argv[1] + "/posterior.safetensors")
theta, weight = posterior.networks(5, seed=3)
x = np.load(sys.argv[2])
single, average = posterior.single(theta, x), posterior.average(x)
np.savez(sys.argv[3], theta=theta, weight=weight, single=single, average=average)
assert "gped_nas" not in sys.modules
"""


def away(folder: Path, x: np.ndarray, root: Path) -> dict[str, np.ndarray]:
    """What the loader answers in a process that has no package of ours."""
    np.save(root / "x.npy", x)
    script = root / "away.py"
    script.write_text(AWAY)
    result = subprocess.run(
        [sys.executable, "-I", script, folder, root / "x.npy", root / "answers.npz"],
        capture_output=True,
        text=True,
        cwd=root,
    )
    assert result.returncode == 0, result.stderr
    return dict(np.load(root / "answers.npz"))


def loaded(folder: Path) -> Any:
    """The posterior that the loader reads, here in this process."""
    loader = runpy.run_path(str(folder / "load_posterior.py"))
    return loader["Posterior"](str(folder / "posterior.safetensors"))


def test_a_law_is_drawn_away_from_the_package_as_at_home(home: Home) -> None:
    settings = ("--set", "teacher.method.num_samples=8")
    folder = home.root / "taken"
    result = accepted(
        *("export", home.space, "--posterior", "low_rank:rank=2", "--into", folder, *settings)
    )
    assert result.out.strip() == str(folder)
    assert {path.name for path in folder.iterdir()} == {
        *("posterior.safetensors", "load_posterior.py"),
    }
    size = (folder / "posterior.safetensors").stat().st_size
    assert f"{size:,} bytes by low_rank rank=2, of 19,520 " in result.err  # 8 of 610 weights

    dataset = gn.load_dataset(gn.load_space(home.space))
    raw = dataset.raw("validation")[:7]
    answers = away(folder, raw.numpy(), home.root)

    # the codec's own draws from the tensors in the file, and the house's forward of them
    from gped_nas.models.base import FAMILIES
    from gped_nas.posterior.base import unflatten
    from gped_nas.posterior.codecs.base import codec_of
    from gped_nas.posterior.codecs.code import Code

    with safe_open(folder / "posterior.safetensors", "pt") as file:
        about = json.loads(file.metadata()["code"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    shapes = {name: tuple(shape) for name, shape in about["shapes"]}
    code = Code("low_rank", tensors, shapes, about["settings"])
    codec = codec_of("low_rank")
    assert codec is not None
    drawn = codec.draws(code, 5, generator=torch.Generator().manual_seed(3))
    np.testing.assert_array_equal(answers["theta"], drawn.numpy())
    x = dataset.normalization(raw)
    expected = [FAMILIES["mlp"].forward(unflatten(w, shapes), x).log_softmax(-1) for w in drawn]
    np.testing.assert_allclose(answers["single"], torch.stack(expected).numpy(), atol=1e-5)
    np.testing.assert_allclose(answers["average"].sum(1), 1, atol=1e-6)
    assert answers["average"].shape == (7, 10)


def test_stored_networks_of_a_study_are_those_of_its_teacher(own: Home) -> None:
    folder = own.root / "taken"
    accepted("export", own.study, "--posterior", "quantized:bits=8", "--into", folder)

    teacher = gn.load_teacher(own.space)
    dataset = gn.load_dataset(gn.load_space(own.space))
    raw = dataset.raw("validation")
    posterior = loaded(folder)
    theta, _ = posterior.networks()
    assert len(theta) == teacher.stream.num_samples
    for index in range(teacher.stream.num_samples):
        stored = teacher.stream.params(index)
        flat = torch.cat([value.flatten() for value in stored.values()])
        assert (theta[index] - flat).abs().max() < flat.abs().max() / 127

    # a code of 8 bits is nearly the teacher
    expected = teacher.averaged("validation").expectations["predictive"]
    assert np.abs(posterior.average(raw).numpy() - expected).max() < 0.02


def test_few_networks_in_few_bits_are_taken_home(home: Home) -> None:
    codec = "quantized:bits=8 of subset:num_samples=3"
    export = gn.export_posterior(home.space, codec, overrides={"teacher.method.num_samples": 8})

    assert export.folder.name == "tiny-quantized-of-subset"
    theta, weight = loaded(export.folder).networks()
    assert theta.shape == (3, 610)
    assert float(weight.sum()) == pytest.approx(1)
    assert export.networks_bytes == 8 * 610 * 4


def test_a_space_of_a_codec_is_taken_home_as_it_is(home: Home) -> None:
    of = {"name": "sgld", "chains": 2, "num_samples": 8, "burn_in": 20, "thinning": 10}
    method = {"name": "low_rank", "rank": 2, "num_samples": 5, "of": of}
    export = gn.export_posterior(home.space, "low_rank", overrides={"teacher.method": method})

    assert export.codec == "low_rank"
    assert export.networks_bytes == 8 * 610 * 4  # of what was coded, and not of five draws


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--posterior", "sgld"), ("--posterior: found 'sgld'", "keeps no posterior")),
        (
            ("--posterior", "nothing"),
            ("found 'nothing'", "expected one of: apd, flow, gan, low_rank, quantized, subset"),
        ),
        (("--posterior", "subset:num_samples=99"), ("--posterior", "found 99")),
        (("--posterior", "subset", "--to", "onnx"), ("--to: found with --posterior",)),
        (("3", "--posterior", "subset"), ("TRIAL: found with --posterior",)),
        (("--set", "seed=1"), ("--set: found without --posterior",)),
    ],
)
def test_what_cannot_be_taken_home_is_refused(
    home: Home, arguments: tuple[str, ...], says: tuple[str, ...]
) -> None:
    refused(2, "export", home.space, *arguments, says=says)
