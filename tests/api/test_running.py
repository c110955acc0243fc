"""Teachers of which averages alone are kept: beside stored ones, killed, and asked for samples."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gped_nas as gn
from gped_nas import rng
from gped_nas.api import timing
from gped_nas.api.diagnosis import diagnose
from gped_nas.api.measuring import average_predictor
from gped_nas.api.running import places_of
from gped_nas.api.sampling import sample
from gped_nas.api.session import Session
from gped_nas.api.teacher import Teacher, load_dataset, sample_teacher
from gped_nas.api.verdict import judge
from gped_nas.errors import ConfigError, Interrupted, StreamError
from gped_nas.evaluate.conditions import CONDITIONS, Condition
from gped_nas.evaluate.latency import Latency
from gped_nas.evaluate.predictions import AnyPredictions, Predictions
from gped_nas.evaluate.running import RunningAverage
from gped_nas.evaluate.teacher import averaged
from gped_nas.search.space import SearchSpace
from gped_nas.stream import averages
from tests.cli.harness import Home, accepted, contents, refused

MEANS = ["predictive", "expected_entropy", "second_moment", "variance", "mutual_information"]
METHOD = {
    "name": "sghmc",
    "chains": 2,
    "num_samples": 10,
    "step_size": {"initial": 2.0e-4},
    "burn_in": 4,
    "thinning": 2,
}
REAL = ["predictive_normal", "model_variance", "exceedance"]


def unstored(stream: str = "none", **changes: Any) -> SearchSpace:
    """A small space of chains on digits, of which nothing is stored, unless told otherwise."""
    return gn.load_space(
        "digits_sgld",
        {
            "teacher.genotype": {"depth": 1, "width": 8},
            "teacher.method": METHOD,
            "views": [{"policy": "clean"}],
            "conditions": ["clean", "permuted"],
            "targets": MEANS,
            "recipe": {"mode": "online", "stream": stream, "steps": 5, "warmup": 1},
            **changes,
        },
    )


def real(stream: str = "none") -> SearchSpace:
    """The same of real labels."""
    targets = [*REAL[:2], {"name": "exceedance", "thresholds": [100.0, 150.0]}]
    recipe = {"mode": "online", "stream": stream, "steps": 5, "warmup": 1}
    method = {**METHOD, "step_size": {"initial": 1.0e-4}}
    changes = {
        "teacher.genotype": {"depth": 1, "width": 4},
        "teacher.method": method,
        "views": [{"policy": "clean"}],
        "conditions": ["clean", "permuted"],
        "targets": targets,
        "recipe": recipe,
    }
    return gn.load_space("diabetes_mlp", changes)


def assert_same(kept: AnyPredictions, stored: AnyPredictions) -> None:
    """Whether two predictions agree within rounding."""
    assert kept.expectations.keys() == stored.expectations.keys()
    for name, values in stored.expectations.items():
        np.testing.assert_allclose(kept.expectations[name], values, rtol=1e-9, atol=1e-11)
    if isinstance(kept, Predictions) and isinstance(stored, Predictions):
        np.testing.assert_allclose(kept.log_prob_NC, stored.log_prob_NC, rtol=1e-9, atol=1e-11)
    assert kept.is_point == stored.is_point


@pytest.mark.parametrize("make", [unstored, real])
def test_averages_are_those_of_stored_samples(
    home: Home, make: Callable[[str], SearchSpace]
) -> None:
    session = gn.new_session("cpu")
    kept, stored = (sample_teacher(make(stream), session) for stream in ("none", "stored"))
    assert kept.stream.num_samples == stored.stream.num_samples == 10

    for part in ("validation", "test"):
        assert_same(kept.averaged(part), stored.averaged(part))
        labels = kept.dataset.labels(part)
        nll = [-teacher.averaged(part).log_score(labels).mean() for teacher in (kept, stored)]
        assert nll[0] == pytest.approx(nll[1], rel=1e-9)

    asked = [average_predictor(teacher) for teacher in (kept, stored)]
    (condition,) = (c for c in kept.space.conditions if c.name == "permuted")
    for part in ("validation", "test"):
        raw = condition.apply(
            kept.dataset.raw(part),
            predictor=asked[0],
            labels=kept.dataset.labels(part),
            generator=rng.generator(kept.space.seed, "condition", "permuted", part),
            scale=kept.dataset.scale,
        )
        assert_same(asked[0].predict(raw), asked[1].predict(raw))
        untouched = kept.dataset.raw(part)
        assert_same(asked[0].predict(untouched), asked[1].predict(untouched))


@pytest.mark.parametrize("make", [unstored, real])
def test_a_diagnosis_has_what_averages_allow(
    home: Home, make: Callable[[str], SearchSpace]
) -> None:
    session = gn.new_session("cpu")
    kept, stored = (diagnose(sample_teacher(make(s), session)) for s in ("none", "stored"))
    assert kept.single == pytest.approx(stored.single)
    assert kept.average == pytest.approx(stored.average)
    assert kept.agreement == pytest.approx(stored.agreement)
    assert kept.total_variation == pytest.approx(stored.total_variation)
    assert kept.kinetic is not None and kept.kinetic == stored.kinetic

    assert kept.mixing == {} and kept.curve == [] and kept.configurational is None
    verdict = judge(kept)
    assert verdict.level == "do not trust"
    assert "chains were not diagnosed, because nothing was stored" in verdict.sentence


def test_weights_count_as_in_the_average_of_all_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    log_prob_SNC = torch.randn(5, 7, 3, generator=generator).log_softmax(-1)
    log_prob_SNC[2, 0, 0] = -2000.0  # vanishes as a probability, in every sample but none
    weights = [0.5, 2.0, 0.0, 3.0, 1e-9]

    running = RunningAverage()
    for predicted, weight in zip(log_prob_SNC, weights, strict=True):
        running.take(predicted, weight)
    expected = averaged(log_prob_SNC, torch.tensor(weights, dtype=torch.float64))
    assert_same(running.predictions(is_point=False), expected)


def _size(folder: Path) -> int:
    return sum(len(data) for data in contents(folder).values())


def test_what_is_kept_does_not_grow_with_samples(home: Home) -> None:
    sizes = []
    for num_samples in (10, 40):
        session = Session(streams=home.root / f"streams-{num_samples}")
        space = unstored(**{"teacher.method.num_samples": num_samples})
        teacher = sample_teacher(space, session)
        assert teacher.stream.num_samples == num_samples
        sizes.append(_size(teacher.stream.folder))
    assert sizes[0] == sizes[1] > 0


class _KilledError(BaseException):
    """Stands for the end of the process."""


def _sealed(teacher_folder: Path) -> dict[str, bytes]:
    files = contents(teacher_folder / "averages")
    return {name: data for name, data in files.items() if not name.endswith("-seconds.npy")}


def test_a_killed_run_ends_with_the_bytes_of_one_never_killed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = unstored()
    dataset = load_dataset(space)
    whole = sample(space, dataset, Session(streams=home.root / "whole"))
    killed_streams = home.root / "killed"

    # checkpoints after every step, every second sample in the end none
    for kill_at, seconds in ((1, 0.0), (3, 0.0), (4, 9e9), (5, 0.0), (8, 9e9), (9, 0.0)):
        monkeypatch.setattr(averages, "CHECKPOINT_SECONDS", seconds)

        def die(what: str, done: int, total: int, kill_at: int = kill_at) -> None:
            if done == kill_at:
                raise _KilledError

        with pytest.raises(_KilledError):
            sample(space, dataset, Session(streams=killed_streams, progress=die))

    counts: list[int] = []
    session = Session(streams=killed_streams, progress=lambda _, done, total: counts.append(done))
    killed = sample(space, dataset, session)
    assert counts == [9, 10]  # it went on from the last checkpoint
    assert _sealed(killed.folder) == _sealed(whole.folder) != {}
    assert not any((killed.folder / "building").glob("*"))


def test_a_stop_and_a_torn_checkpoint_lose_no_number(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = unstored()
    dataset = load_dataset(space)
    whole = sample(space, dataset, Session(streams=home.root / "whole"))
    streams = home.root / "stopped"
    asked = iter(range(10**6))

    stopping = Session(streams=streams, should_stop=lambda: next(asked) == 5)
    with pytest.raises(Interrupted, match="run the same command again to go on"):
        sample(space, dataset, stopping)
    (checkpoint,) = streams.glob("*/building/*/checkpoint-*")

    # the newest checkpoint is torn: the run begins anew
    (checkpoint / "sum-000001.npy").write_bytes(b"")
    assert _sealed(sample(space, dataset, Session(streams=streams)).folder) == _sealed(whole.folder)


def test_a_whole_search_keeps_no_sample(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "time_calls", lambda calls, **kw: [Latency(1, 1, 30)] * len(calls))
    settings = ("--set", "recipe={mode: online, stream: none, steps: 40, lr: 0.02}", "--seed", "0")
    conditions = ("--set", "conditions=[clean, permuted]", "--set", "twins.seeds=1")
    timed = ("--set", "latency.runtime=torch")
    accepted("run", home.space, "--n-trials", 2, *settings, *conditions, *timed)
    assert not any(home.cache.glob("streams/*/segments"))
    assert not any(home.cache.glob("streams/*/views"))

    study = gn.open_study(home.study)
    references = study.snapshot().references
    assert {"teacher", "map", "unpruned", "guess"} <= {r.name for r in references}
    assert "single_sample" not in {r.name for r in references}
    # nobody could serve the average of samples that are gone
    assert [r.name for r in references if "latency_ms" in r.costs] == ["unpruned"]
    with pytest.raises(StreamError, match="averages alone.*recipe.stream=stored"):
        study.load_teacher()

    asked = (home.space, *settings, *conditions)
    info = accepted("teacher", "info", *asked, "--no-map")
    assert "nothing was stored (recipe.stream: none)" in info.out
    accepted("teacher", "verify", *asked)
    assert "0" in accepted("gc", "--format", "json").out


@pytest.mark.parametrize(
    ("verb", "needed"),
    [
        (("predict",), "asked about other inputs"),
        (("compare",), "a comparison of methods"),
        (("tune",), "a tuning"),
    ],
)
def test_verbs_that_need_samples_say_how_to_have_them(
    home: Home, verb: tuple[str, ...], needed: str
) -> None:
    np.save(home.root / "x.npy", np.zeros((1, 1, 8, 8), np.float32))
    inputs = ("x.npy",) if verb == ("predict",) else ()
    says = ("recipe.stream: found none", needed, "--set recipe.stream=stored")
    online = ("--set", "recipe={mode: online, stream: none}")
    refused(2, "teacher", *verb, home.space, *inputs, *online, says=says)


def test_a_teacher_that_is_not_there_and_samples_of_one_that_is(home: Home) -> None:
    session = gn.new_session("cpu")
    with pytest.raises(ConfigError, match="recipe.stream: found none"):
        gn.load_teacher(unstored(), session)

    teacher: Teacher = gn.build_teacher(unstored(), session)
    with pytest.raises(ConfigError, match="single posterior samples are asked"):
        teacher.predicted("validation")
    with pytest.raises(StreamError, match="averages alone"):
        teacher.stream.theta(0)
    predictor = average_predictor(teacher)
    assert predictor is not None
    with pytest.raises(ConfigError, match="expected stored to ask it at others"):
        predictor.predict(torch.zeros(3, 1, 8, 8))


def test_conditions_that_ask_the_predictor_are_refused(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attack(raw: Tensor, *, predictor: Any, **_: Any) -> Tensor:
        networks: Iterator[Any] = predictor.networks()
        next(networks)
        return raw

    monkeypatch.setitem(CONDITIONS._items, "attack", Condition("attack", "an attack", attack))
    space = unstored(conditions=["clean", "attack"])
    with pytest.raises(ConfigError, match="conditions: found 'attack', which asks the predictor"):
        places_of(space, load_dataset(space))
