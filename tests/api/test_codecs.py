"""Codecs from a space's file to a stream: built, stopped, asked, distilled, refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from gped_nas import rng
from gped_nas.api import load_dataset, load_space, run
from gped_nas.api.fresh_draws import fresh_params
from gped_nas.api.sampling import existing_stream, sample
from gped_nas.api.session import Session
from gped_nas.api.teacher import Teacher
from gped_nas.data.base import Dataset
from gped_nas.errors import ConfigError, Interrupted
from gped_nas.evaluate.certify.laws import runs_p_value
from gped_nas.posterior.base import flatten
from gped_nas.posterior.codecs.base import CodecConfig, code_of_state, codec_of, codecs
from gped_nas.stream.chunks import state_of
from gped_nas.stream.reader import Stream
from tests.cli.harness import Home, accepted, refused
from tests.scenarios import tree

SGLD = {
    "name": "sgld",
    "chains": 2,
    "num_samples": 8,
    "step_size": {"initial": 2e-4},
    "burn_in": 20,
    "thinning": 10,
}
CODECS: dict[str, dict[str, Any]] = {
    "subset": {"num_samples": 3, "probes": 16},
    "quantized": {"bits": 4, "around": "mean"},
    "low_rank": {"num_samples": 5, "rank": 2},
    "flow": {"num_samples": 5, "components": 2, "width": 4, "steps": 100},
    "gan": {"num_samples": 5, "components": 2, "width": 4, "iterations": 50, "batch_size": 4},
    "apd": {"num_samples": 5, "iterations": 50, "width": 4, "batch_size": 4, "critic_steps": 1},
}


def method_of(name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, **CODECS[name], "of": SGLD, **changes}


def stream_of(home: Home, method: dict[str, Any], dataset: Dataset, **session: Any) -> Stream:
    space = load_space(home.space, {"teacher.method": method})
    return sample(space, dataset, Session(**session))


@pytest.fixture
def dataset(home: Home) -> Dataset:
    return load_dataset(load_space(home.space))


def test_codecs_are_the_methods_that_have_a_code() -> None:
    assert set(CODECS) <= set(codecs())
    assert codec_of("sgld") is None


@pytest.mark.parametrize("name", CODECS)
def test_a_stream_holds_the_code_that_its_samples_are_drawn_from(
    home: Home, dataset: Dataset, name: str
) -> None:
    stream = stream_of(home, method_of(name), dataset)
    cfg = load_space(home.space, {"teacher.method": method_of(name)}).method
    assert isinstance(cfg, CodecConfig)
    code = code_of_state(cfg, state_of(stream.segments[-1], 0), stream.key.shapes)
    codec: Any = codec_of(name)

    assert code is not None
    assert stream.num_samples == {"subset": 3, "quantized": 8}.get(name, 5)
    if codec.is_law:
        generator = torch.Generator()
        generator.set_state(state_of(stream.segments[-1], 0)["rng"])
        more = stream_of(home, method_of(name, num_samples=6), dataset)
        (expected_W,) = codec.draws(code, 1, generator=generator)
        assert torch.equal(more.theta(5), expected_W)

        space = load_space(home.space, {"teacher.method": method_of(name)})
        (fresh,) = fresh_params(Teacher(space, dataset, stream, Session()), 1)
        seeded = rng.generator(rng.seed(space.seed, "law", 0), "fresh draws", 0)
        (expected_W,) = codec.draws(code, 1, generator=seeded)
        assert torch.equal(flatten(fresh), expected_W)
    else:
        for index in range(stream.num_samples):
            assert torch.equal(codec.theta(code, index), stream.theta(index))
        assert code.tensors["weight"].tolist() == pytest.approx(stream.weight_S.tolist())


@pytest.mark.parametrize("name", ["low_rank", "flow", "gan", "apd"])
def test_fresh_draws_of_a_law_pass_the_test_of_runs(
    home: Home, dataset: Dataset, name: str
) -> None:
    """Clopper and Pearson's interval needs draws that do not know of each other."""
    space = load_space(home.space, {"teacher.method": method_of(name)})
    teacher = Teacher(space, dataset, sample(space, dataset, Session()), Session())
    predict = teacher.predictor(dataset.normalization(dataset.raw("validation").float()))
    label_N = torch.as_tensor(dataset.labels("validation"))

    draws = [flatten(params) for params in fresh_params(teacher, 40)]
    is_right_SN = torch.stack([predict(theta_W).argmax(-1) == label_N for theta_W in draws])

    assert 0 < float(is_right_SN.double().mean()) < 1
    assert runs_p_value(is_right_SN, generator=rng.generator(0, "runs")) > 0.05


@pytest.mark.parametrize("name", CODECS)
def test_a_build_stopped_anywhere_or_shared_out_has_the_same_bytes(
    home: Home, dataset: Dataset, tmp_path: Path, name: str
) -> None:
    whole = stream_of(home, method_of(name), dataset, processes=1)

    # stops once the first step was asked for: in the inner chains, then in the codec
    streams = tmp_path / "stopped"
    num_stops = 0
    while True:
        asked = iter(range(3))
        session = {"streams": streams, "should_stop": lambda a=asked: next(a, None) is None}
        try:
            resumed = stream_of(home, method_of(name), dataset, **session)
        except Interrupted:
            num_stops += 1
        else:
            break

    assert num_stops > 2
    assert tree(resumed.folder / "segments") == tree(whole.folder / "segments")


def test_the_verbs_about_the_teacher_know_a_codec(home: Home, dataset: Dataset) -> None:
    changed = ["--set", f"teacher.method={json.dumps(method_of('subset'))}"]
    accepted("teacher", "build", home.space, *changed)
    info = json.loads(accepted("teacher", "info", home.space, *changed, "--format", "json").out)
    text = accepted("teacher", "info", home.space, *changed).out

    inner = existing_stream(load_space(home.space, {"teacher.method": SGLD}), dataset, Session())
    assert info["samples of sgld"] == str(inner.folder)
    assert "another method: `teacher info` of that method says whether they mix" in text
    assert "whose teacher says whether they can be trusted" in text
    assert accepted("teacher", "verify", home.space, *changed).out.count("\n") == 2


def test_students_are_distilled_from_few_bits_of_few_samples(home: Home) -> None:
    # of chains that have left their beginning
    few = method_of("subset", of={**SGLD, "burn_in": 400, "thinning": 2})
    method = method_of("quantized", of=few)
    space = load_space(home.space, {"teacher.method": method, "search.n_trials": 2})
    study = run(space, out=home.out)
    assert all(record.metrics["nll"] > 0 for record in study.records())
    assert space.method.title() == "quantized of subset of sgld"


def test_stacking_is_refused_where_samples_are_copies(home: Home) -> None:
    changed = {"teacher.method": method_of("quantized"), "teacher.calibration": "stacking"}
    with pytest.raises(ConfigError, match="found stacking with one chain of 'quantized'"):
        load_space(home.space, changed)


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (method_of("subset", num_samples=9), "num_samples: found 9, expected at most 8"),
        (method_of("subset", num_samples=1), "num_samples: found 1, expected at least 2"),
        (method_of("low_rank", rank=4), "rank: found 4, expected at most 3"),
        (method_of("quantized", bits=5), "bits: found 5, expected 8 or 4"),
        (method_of("flow", components=4), "components: found 4, expected at most 3"),
        (method_of("apd", max_weights=9), "max_weights: found a network of"),
    ],
)
def test_what_cannot_be_coded_is_refused_when_a_space_is_read(
    home: Home, method: dict[str, Any], says: str
) -> None:
    changed = f"teacher.method={json.dumps(method)}"
    refused(2, "teacher", "build", home.space, "--set", changed, says=("teacher.method", says))


def test_too_few_networks_that_were_brought_are_refused_when_they_are_read(
    home: Home, dataset: Dataset
) -> None:
    stream = stream_of(home, SGLD, dataset)
    tensors = {name: torch.stack([p, p, p]) for name, p in stream.params(0).items()}
    safetensors.torch.save_file(tensors, "three.safetensors")
    of = {"name": "import", "path": "three.safetensors", "at_chance": True}
    with pytest.raises(ConfigError, match="num_samples: found 4, expected at most 3, the samples"):
        stream_of(home, method_of("subset", num_samples=4, of=of), dataset)
