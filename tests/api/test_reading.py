"""Methods that read another method's posterior samples: ``teacher.method.of``."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gped_nas import rng
from gped_nas.api import load_dataset, load_space, run
from gped_nas.api.identity import identity
from gped_nas.api.sampling import existing_stream, posterior, sample, stream_key
from gped_nas.api.session import Session
from gped_nas.api.teacher import sample_teacher
from gped_nas.config import dump_yaml, read_yaml
from gped_nas.data.base import Dataset
from gped_nas.errors import ConfigError, Interrupted, RegistryError
from gped_nas.posterior.base import METHODS
from gped_nas.search.space import SearchSpace
from gped_nas.stream.key import StreamKey
from gped_nas.stream.reader import Stream
from gped_nas.stream.samples import StreamSamples
from gped_nas.testing import check_method
from tests.cli.harness import Home, accepted, call, refused
from tests.reading import READING, moments
from tests.scenarios import tree

SGLD = {
    "name": "sgld",
    "chains": 2,
    "num_samples": 8,
    "step_size": {"initial": 2e-4},
    "burn_in": 20,
    "thinning": 10,
}
EVERY = {"name": "every", "nth": 3, "of": SGLD}
FITTED = {"name": "fitted", "chains": 2, "num_samples": 6, "of": SGLD}


@pytest.fixture(autouse=True)
def _plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, method in READING.items():
        monkeypatch.setitem(METHODS._items, name, method)


def space_of(home: Home, method: dict[str, Any], **changes: Any) -> SearchSpace:
    return load_space(home.space, {"teacher.method": method, **changes})


@pytest.fixture
def dataset(home: Home) -> Dataset:
    return load_dataset(load_space(home.space))


def stream_of(home: Home, method: dict[str, Any], dataset: Dataset, **session: Any) -> Stream:
    return sample(space_of(home, method), dataset, Session(**session))


def stopped_after(steps: int) -> Callable[[], bool]:
    """A wish to stop that comes after so many questions."""
    asked = iter(range(steps))
    return lambda: next(asked, None) is None


def test_every_nth_sample_is_the_inner_streams_to_the_bit(home: Home, dataset: Dataset) -> None:
    outer, inner = stream_of(home, EVERY, dataset), stream_of(home, SGLD, dataset)
    assert outer.num_samples == 2
    assert torch.equal(outer.theta(0), inner.theta(2))
    assert torch.equal(outer.theta(1), inner.theta(5))


def test_draws_have_the_moments_of_the_samples_that_were_read(home: Home, dataset: Dataset) -> None:
    inner = stream_of(home, SGLD, dataset)
    outer = stream_of(home, {**FITTED, "num_samples": 400}, dataset)
    mean_W, variance_W = moments(StreamSamples(inner.folder, 8))
    mean_of_draws_W, variance_of_draws_W = moments(StreamSamples(outer.folder, 400))

    # five standard errors, of some 600 numbers
    assert ((mean_of_draws_W - mean_W).abs() <= 5 * (variance_W / 400).sqrt() + 1e-7).all()
    assert variance_of_draws_W.sum() == pytest.approx(float(variance_W.sum()), rel=0.1)


def test_weights_of_what_is_read_are_passed_on(home: Home, dataset: Dataset) -> None:
    shapes = stream_key(space_of(home, SGLD), dataset).shapes
    generator = rng.generator(0, "ensemble")
    tensors = {n: torch.randn(3, *shape, generator=generator) for n, shape in shapes.items()}
    save_file({**tensors, "weight": torch.tensor([1.0, 2.0, 5.0])}, "ensemble.safetensors")
    ensemble = {"name": "import", "path": "ensemble.safetensors", "at_chance": True}

    outer = stream_of(home, {"name": "every", "nth": 1, "of": ensemble}, dataset)

    assert outer.weight_S.tolist() == pytest.approx([0.125, 0.25, 0.625])
    name = next(iter(shapes))
    assert torch.equal(outer.params(2)[name], tensors[name][2])


def test_nesting_twice_is_doing_it_by_hand(home: Home, dataset: Dataset) -> None:
    outer = stream_of(home, {**FITTED, "of": EVERY}, dataset)
    assert len(list((home.cache / "streams").iterdir())) == 3
    assert stream_key(space_of(home, {**FITTED, "of": EVERY}), dataset).of.of.of is None  # type: ignore[union-attr]

    # two samples have mean (a + b) / 2 and variance ((a - b) / 2)^2
    inner = stream_of(home, EVERY, dataset)
    a, b = inner.theta(0).double(), inner.theta(1).double()
    standardized = (outer.theta(0).double() - (a + b) / 2) / ((a - b).abs() / 2)
    assert float(standardized[a != b].std()) == pytest.approx(1, abs=0.15)


def test_the_key_nests_the_inner_one_and_how_much_of_it_is_read(
    home: Home, dataset: Dataset
) -> None:
    def key_of(method: dict[str, Any]) -> StreamKey:
        return stream_key(space_of(home, method), dataset)

    inner, outer = key_of(SGLD), key_of(FITTED)
    assert inner.of is None
    assert outer.of == inner and outer.of.digest == inner.digest

    # how much is read is part of what a reader is; how much is made is not part of a stream
    more = {**SGLD, "num_samples": 10}
    assert key_of(more).digest == inner.digest
    assert key_of({**FITTED, "of": more}).digest != outer.digest
    assert key_of({**FITTED, "num_samples": 8}).digest == outer.digest

    # what was written is read back
    nested = Stream(stream_of(home, FITTED, dataset).folder).key.of
    assert nested is not None and nested.digest == inner.digest


def test_a_space_of_the_inner_method_alone_has_the_inner_stream(
    home: Home, dataset: Dataset
) -> None:
    stream_of(home, EVERY, dataset)
    inner = existing_stream(space_of(home, SGLD), dataset, Session())
    before = tree(inner.folder)
    assert stream_of(home, SGLD, dataset).digest == inner.digest
    assert tree(inner.folder) == before


def test_a_build_stopped_anywhere_goes_on_to_the_same_bytes(
    home: Home, dataset: Dataset, tmp_path: Path
) -> None:
    num_questions = 0

    def count_questions() -> bool:
        nonlocal num_questions
        num_questions += 1
        return False

    streams = tmp_path / "whole"
    whole = stream_of(home, FITTED, dataset, streams=streams, should_stop=count_questions)

    is_inner_sealed = []
    for stop in range(num_questions):
        streams = tmp_path / str(stop)
        with pytest.raises(Interrupted):
            stream_of(home, FITTED, dataset, streams=streams, should_stop=stopped_after(stop))
        inner = stream_key(space_of(home, SGLD), dataset).folder(streams) / "segments"
        before = tree(inner) if inner.exists() else {}
        is_inner_sealed.append(bool(before))

        resumed = stream_of(home, FITTED, dataset, streams=streams)
        assert resumed.digest == whole.digest
        assert tree(resumed.folder / "segments") == tree(whole.folder / "segments")
        assert not before or tree(inner) == before

    # some stops came while the inner method ran, some while the outer one did
    assert set(is_inner_sealed) == {False, True}


def test_growing_the_outer_stream_leaves_its_first_samples(home: Home, dataset: Dataset) -> None:
    short = stream_of(home, FITTED, dataset)
    thetas = [short.theta(i) for i in range(6)]

    long = stream_of(home, {**FITTED, "num_samples": 10}, dataset)

    assert long.folder == short.folder and long.num_samples == 10
    for i, theta in enumerate(thetas):
        assert torch.equal(long.theta(i), theta)


def test_a_sealed_stream_needs_the_inner_one_no_more(home: Home, dataset: Dataset) -> None:
    outer = stream_of(home, FITTED, dataset)
    shutil.rmtree(stream_key(space_of(home, SGLD), dataset).folder(Session().streams))
    assert stream_of(home, FITTED, dataset).digest == outer.digest
    assert len(list((home.cache / "streams").iterdir())) == 1


def test_chains_in_processes_of_their_own_read_the_same_samples(
    home: Home, dataset: Dataset, tmp_path: Path
) -> None:
    segments = []
    for processes in (1, 2):
        streams = tmp_path / str(processes)
        stream = stream_of(home, FITTED, dataset, streams=streams, processes=processes)
        segments.append(tree(stream.folder / "segments"))
    assert segments[0] and segments[0] == segments[1]


@pytest.mark.parametrize(
    ("name", "settings"), [("every", {"nth": 2, "of": SGLD}), ("fitted", {"of": SGLD})]
)
def test_a_third_party_can_try_a_method_that_reads(name: str, settings: dict[str, Any]) -> None:
    check_method(name, settings)


def test_samples_are_read_like_a_sequence(home: Home, dataset: Dataset) -> None:
    stream = stream_of(home, SGLD, dataset)
    samples = StreamSamples(stream.folder, 5)
    assert len(samples) == 5 and len(samples[1:4]) == 3
    assert torch.equal(samples[-1].theta_W, stream.theta(4))
    assert [s.weight for s in samples] == pytest.approx([0.2] * 5)
    with pytest.raises(IndexError):
        samples[5]


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        ({**SGLD, "of": SGLD}, ConfigError, "of: found settings of another method, but 'sgld'"),
        ({"name": "every"}, ConfigError, "of: missing; 'every' reads the posterior samples"),
        ({"name": "every", "of": 3}, ConfigError, "of: found 3, expected a mapping"),
        ({"name": "every", "of": {}}, ConfigError, "of.name: found None"),
        ({**EVERY, "of": {"name": "sgldd"}}, RegistryError, "of.name: unknown method 'sgldd'"),
        ({**EVERY, "of": {**SGLD, "burnin": 3}}, ConfigError, "of: burnin: unknown key; did you"),
        ({**EVERY, "of": {**SGLD, "num_samples": 7}}, ConfigError, "of.num_samples: found 7"),
        ({**FITTED, "of": {"name": "every"}}, ConfigError, "of.of: missing"),
        ({**FITTED, "num_samples": 7}, ConfigError, "num_samples: found 7, expected a multiple"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_at_its_place(
    home: Home, method: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        space_of(home, method)
    text = str(caught.value)
    assert text.startswith(f"{home.space}: teacher.method.{message}"), text


def test_predictions_have_no_parameters_to_read(home: Home, dataset: Dataset) -> None:
    raw = torch.cat([dataset.raw(part) for part in ("train", "validation", "test")]).numpy()
    prob = np.random.default_rng(0).dirichlet(np.ones(10), size=(3, len(raw)))
    np.savez("ensemble.npz", inputs=raw, prob=prob)
    ensemble = {"name": "import", "path": "ensemble.npz", "at_chance": True}
    with pytest.raises(ConfigError, match=r"teacher\.method\.of: found 'import' with predictions"):
        stream_of(home, {"name": "every", "nth": 1, "of": ensemble}, dataset)


def test_settings_survive_the_resolved_file(home: Home) -> None:
    space = space_of(home, {**FITTED, "of": EVERY})
    again = space_of(home, space.resolved["teacher"]["method"])
    assert again.method == space.method
    assert again.method.title() == "fitted of every of sgld"


def test_students_are_distilled_from_it_and_the_study_goes_on(home: Home) -> None:
    # of one chain that has left its beginning: the fit to two that have not is no teacher
    one_chain = {**SGLD, "chains": 1, "burn_in": 400, "thinning": 1}
    fitted_once = {**FITTED, "chains": 1, "of": one_chain}
    study = run(space_of(home, fitted_once), out=home.out)
    records = study.front_records()
    assert records and all(record.metrics["nll"] > 0 for record in records)
    more = space_of(home, fitted_once, **{"search.n_trials": 6})
    assert sum(record.is_counted for record in run(more, out=home.out).records()) == 6


def test_online_students_meet_draws_of_their_own(home: Home) -> None:
    online = {"recipe.mode": "online", "recipe.steps": 40}
    study = run(space_of(home, FITTED, **online), out=home.out)
    assert study.front_records()


def test_online_is_refused_where_there_are_no_more_samples(home: Home) -> None:
    with pytest.raises(ConfigError, match="method 'every' has no more posterior samples"):
        space_of(home, EVERY, **{"recipe.mode": "online"})


def write_space(home: Home, method: dict[str, Any]) -> Path:
    """The tiny space's file, with this method."""
    space = read_yaml(home.space)
    space["teacher"]["method"] = method
    home.space.write_text(dump_yaml(space))
    return home.space


def folder_of(home: Home, method: dict[str, Any], dataset: Dataset) -> Path:
    """Where the method's stream lies."""
    return stream_key(space_of(home, method), dataset).folder(home.cache / "streams")


def test_verbs_about_the_teacher_name_both_streams(home: Home, dataset: Dataset) -> None:
    space = write_space(home, FITTED)
    plan = accepted("run", space, "--dry-run").out
    num_weights = 8 * 64 + 8 + 10 * 8 + 10
    assert "fitted of sgld, 6 posterior samples" in plan and "samples of sgld" in plan
    assert plan.count("to be sampled") == 2
    assert f"{(6 + 8) * num_weights * 4:,}" in plan

    accepted("teacher", "build", space)
    outer, inner = folder_of(home, FITTED, dataset), folder_of(home, SGLD, dataset)
    assert accepted("run", space, "--dry-run").out.count("(there)") == 2
    info = json.loads(accepted("teacher", "info", space, "--format", "json").out)
    assert info["folder"] == str(outer) and info["samples of sgld"] == str(inner)
    verified = accepted("teacher", "verify", space).out
    assert verified.splitlines()[0].startswith(str(outer)) and str(inner) in verified


def test_verify_looks_at_the_inner_stream_too(home: Home, dataset: Dataset) -> None:
    space = write_space(home, FITTED)
    accepted("teacher", "build", space)
    inner = folder_of(home, SGLD, dataset)
    shard = next(inner.glob("segments/*/params-*"))

    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    refused(4, "teacher", "verify", space, says=(str(shard), "corrupt"))

    shutil.rmtree(inner)
    assert str(inner) not in accepted("teacher", "verify", space).out


def test_a_stream_that_another_is_made_of_goes_with_it_alone(home: Home, dataset: Dataset) -> None:
    accepted("teacher", "build", write_space(home, FITTED))
    outer, inner = folder_of(home, FITTED, dataset), folder_of(home, SGLD, dataset)
    rows = {row["stream"]: row for row in json.loads(accepted("gc", "--format", "json").out)}
    assert rows[inner.name]["in use"] is True and rows[outer.name]["in use"] is False
    assert rows[outer.name]["teacher"].startswith("mlp(depth=1, width=8) by fitted of sgld on")

    result = call("gc", inner.name, "--delete")
    assert result.code == 5 and outer.name[:12] in result.err and inner.exists()

    accepted("gc", inner.name, outer.name, "--delete")
    assert not list((home.cache / "streams").iterdir())


@pytest.fixture
def shifted(home: Home, dataset: Dataset) -> dict[str, Any]:
    """Imported networks that normalize inputs in a way of their own."""
    shapes = stream_key(space_of(home, SGLD), dataset).shapes
    generator = rng.generator(0, "ensemble")
    tensors = {n: torch.randn(3, *shape, generator=generator) for n, shape in shapes.items()}
    save_file(tensors, "ensemble.safetensors")
    return {
        "name": "import",
        "path": "ensemble.safetensors",
        "input_mean": 3.0,
        "input_std": 7.0,
        "at_chance": True,
    }


def test_networks_that_are_read_see_inputs_as_they_did(
    home: Home, dataset: Dataset, shifted: dict[str, Any]
) -> None:
    predicted = []
    for method in (shifted, {"name": "every", "nth": 1, "of": shifted}):
        space = space_of(home, method)
        teacher = sample_teacher(space, Session(), dataset=dataset)
        predicted.append(teacher.predicted("validation"))

        x = posterior(space, dataset, device=torch.device("cpu")).x
        ours = dataset.normalization
        expected = (dataset.inputs("train") * ours.std + ours.mean - 3) / 7
        torch.testing.assert_close(x, expected, rtol=0, atol=1e-5)

    assert torch.equal(*predicted)


def test_a_study_goes_on_after_imported_networks_were_moved(
    home: Home, dataset: Dataset, shifted: dict[str, Any]
) -> None:
    digests = []
    for path in ("ensemble.safetensors", "moved.safetensors"):
        if not Path(path).exists():
            shutil.move("ensemble.safetensors", path)
        space = space_of(home, {"name": "every", "nth": 1, "of": {**shifted, "path": path}})
        digests.append(identity(space, stream_key(space, dataset).digest))

    assert digests[0] == digests[1]
