"""``tune_teacher``: what is compared, on which data, and that a kill changes nothing."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gped_nas as gn
from gped_nas.api import held_out as held_out_module
from gped_nas.api import job, tuning_answer, tuning_clock, tuning_starts
from gped_nas.api import tuning as tuning_module
from gped_nas.api.held_out import hold_out
from gped_nas.api.tuning_answer import NO_TEACHER
from gped_nas.api.tuning_clock import Clock, effort_within
from gped_nas.api.tuning_record import Record, Tried, read_record, record_folder
from gped_nas.api.tuning_starts import map_start, teacher_start
from gped_nas.errors import ConfigError, GateError, Interrupted
from gped_nas.evaluate.measured import Measured
from gped_nas.posterior.base import METHODS as METHOD_REGISTRY
from gped_nas.posterior.base import parse_method
from gped_nas.posterior.priors import GaussianPrior, LayeredGaussianPrior, Prior
from gped_nas.posterior.tunable import Effort
from gped_nas.search.proposals import Ended, TrialDraw, UsualDraw, propose
from gped_nas.search.space import SearchSpace

METHODS = ["deep_ensemble", "sghmc"]
NUM_TRIALS = 3


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchSpace:
    """Two clouds of points, and a network of six units; one fold, and fewer MAP networks."""
    monkeypatch.setattr(held_out_module, "MAX_FOLDS", 1)
    monkeypatch.setattr(tuning_answer, "FINAL_SEEDS", 2)
    monkeypatch.setattr(tuning_starts, "_changes", lambda best: iter(()))
    generator = np.random.default_rng(0)
    y = generator.integers(2, size=200)
    x = generator.normal(size=(200, 3)) + y[:, None]
    np.savez(tmp_path / "clouds.npz", x_train=x.astype(np.float32), y_train=y)
    return gn.load_space(
        "digits_sgld",
        {
            "name": "clouds",
            "dataset": {"name": "npz", "path": str(tmp_path / "clouds.npz")},
            "teacher.genotype": {"depth": 1, "width": 6},
            "teacher.method.num_samples": 4,
            "teacher.method.burn_in": 80,
            "baseline": {"steps": 100, "precisions": [1.0]},
        },
    )


def of_map(label: str, precision: float, value: float) -> Tried:
    """A MAP candidate that came to its end."""
    return Tried(
        label=label,
        method={"name": "map"},
        prior={"name": "gaussian", "precision": precision},
        state="complete",
        values=(value,),
        seconds=1.0,
        single=value,
    )


def walk_grid(losses: dict[float, float], grid: Sequence[float]) -> list[float]:
    """The precisions of a grid that is moved on, given the loss at each."""
    record = Record(Path("nowhere"), {})
    precisions: list[float] = []
    while (start := map_start(record, grid)) is not None and start.label.startswith("map at"):
        precision = start.drawn["precision"]
        precisions.append(precision)
        record.tried.append(of_map(start.label, precision, losses.get(precision, 9.0)))
    return precisions


def test_the_grid_of_map_moves_on_where_its_edge_is_best() -> None:
    inside = {0.1: 3.0, 1.0: 1.0, 10.0: 2.0}
    assert walk_grid(inside, (0.1, 1.0, 10.0)) == [0.1, 1.0, 10.0]
    falling = {0.1: 3.0, 1.0: 2.0, 10.0: 1.0, 100.0: 0.5, 1000.0: 0.7}
    assert walk_grid(falling, (0.1, 1.0, 10.0)) == [0.1, 1.0, 10.0, 100.0, 1000.0]
    rising = {0.1: 1.0, 1.0: 2.0, 0.01: 0.5}
    assert walk_grid(rising, (0.1, 1.0)) == [0.1, 1.0, 0.01, 0.001]


def test_ensembles_start_from_the_best_map_networks() -> None:
    record = Record(Path("nowhere"), {})
    record.tried.append(of_map("map at precision 3", 3.0, 0.5))
    best = replace(of_map("map, longer", 7.0, 0.4), drawn={"length": 2.0, "lr": 3e-3})
    record.tried.append(best)
    start = teacher_start(record, METHODS)
    assert start is not None and start.method == "deep_ensemble"
    assert start.drawn == {"precision": 7.0, "length": 2.0, "lr": 3e-3}


def test_what_is_held_out_is_of_the_training_part_alone() -> None:
    dataset = gn.load_dataset(gn.load_space("digits_mlp"))
    held_out = hold_out(dataset, 0, "digits")
    assert held_out.n >= 600 and len(held_out.folds) == 3

    def rows(part: torch.Tensor) -> set[bytes]:
        return {row.numpy().tobytes() for row in part}

    seen: set[bytes] = set()
    train = rows(dataset.train.x)
    for fold in held_out.folds:
        held = rows(fold.validation.x)
        assert held <= train and not held & seen
        assert not held & rows(fold.train.x)
        assert len(fold.train) + len(fold.validation) == len(dataset.train)
        seen |= held

    digests = {fold.digest for fold in held_out.folds}
    assert len(digests) == 3 and dataset.digest not in digests


def test_groups_are_held_out_whole(tmp_path: Path) -> None:
    group = np.repeat(np.arange(40), 5)
    np.savez(
        tmp_path / "groups.npz",
        x_train=np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32),
        y_train=np.tile([0, 1], 100),
        groups_train=group,
    )
    path = str(tmp_path / "groups.npz")
    overrides = {"dataset": {"name": "npz", "path": path}, "teacher.genotype.width": 4}
    dataset = gn.load_dataset(gn.load_space("digits_mlp", overrides))
    for fold in hold_out(dataset, 0, "groups").folds:
        assert fold.train.group is not None and fold.validation.group is not None
        assert not set(fold.train.group.tolist()) & set(fold.validation.group.tolist())


def draw_two(draw: TrialDraw, method: str) -> None:
    draw.scale("precision", 0.01, 100, usual=1)
    if method == "sghmc":
        draw.whole("chains", 2, 8, usual=5)


def ended_of(seed: int, num: int) -> list[Ended]:
    ended: list[Ended] = []
    for i in range(num):
        proposal = propose(ended, methods=METHODS, draw=draw_two, start=None, seed=seed)
        ended.append(Ended(proposal, "pruned" if i % 3 == 0 else "complete", (1.0 / (i + 1),)))
    return ended


def test_a_proposal_follows_from_seed_and_history_alone() -> None:
    ended = ended_of(0, 12)
    assert [trial.proposal.params for trial in ended_of(0, 12)] == [
        trial.proposal.params for trial in ended
    ]
    assert ended_of(1, 12)[0].proposal.params != ended[0].proposal.params
    reread = [
        replace(trial, proposal=type(trial.proposal).from_json(trial.proposal.to_json()))
        for trial in ended
    ]
    here = propose(ended, methods=METHODS, draw=draw_two, start=None, seed=0)
    there = propose(reread, methods=METHODS, draw=draw_two, start=None, seed=0)
    assert here.params == there.params

    start = {"method": "sghmc", "sghmc.precision": 3.0, "sghmc.chains": 4}
    proposal = propose(ended, methods=METHODS, draw=draw_two, start=start, seed=0)
    assert proposal.params == start


def test_a_network_of_several_kinds_of_layers_has_a_precision_for_each(tmp_path: Path) -> None:
    space = gn.load_space(
        "fashion_cnn",
        {
            "dataset": {"name": "digits"},
            "teacher.genotype": {"depth": 1, "width": 4, "kernel": 3},
            "students.0.genotype": {"depth": 1, "width": 4, "kernel": 3},
        },
    )
    held_out = hold_out(gn.load_dataset(space), 0, "digits")
    tuning = tuning_module._Tuning(
        space,
        held_out,
        Record(tmp_path, {}),
        Effort(920, 100, 100),
        METHODS,
        Clock(None),
        gn.new_session("cpu"),
        lambda tried, number: None,
    )

    def prior(**given: float) -> Prior:
        return tuning._candidate(UsualDraw(given), "deep_ensemble").prior

    assert prior(precision=2.0) == GaussianPrior(precision=2.0)
    layered = prior(precision=2.0, precision_of_convolution=10.0)
    assert layered == LayeredGaussianPrior(dense=2.0, convolution=20.0)


class Ends(UsualDraw):
    """Draws an end of every range, and the given option."""

    def __init__(self, is_high: bool) -> None:
        super().__init__({})
        self.is_high = is_high

    def scale(self, name: str, low: float, high: float, *, usual: float) -> float:
        return super().scale(name, low, high, usual=high if self.is_high else low)

    def whole(self, name: str, low: int, high: int, *, usual: int) -> int:
        return super().whole(name, low, high, usual=high if self.is_high else low)

    def choice(self, name: str, options: Sequence[str], *, usual: str) -> str:
        return super().choice(name, options, usual=options[-1 if self.is_high else 0])


@pytest.mark.parametrize("draw", [UsualDraw({}), Ends(False), Ends(True)], ids=lambda d: "draw")
@pytest.mark.parametrize("steps", [100, 800, 6000])
def test_what_is_drawn_of_a_method_is_settings_of_it(draw: UsualDraw, steps: int) -> None:
    tuned = {name: method.tuned for name, method in METHOD_REGISTRY.items() if method.tuned}
    assert {"map", "deep_ensemble", "swag", "sgld", "sghmc", "csghmc", "laplace"} <= set(tuned)
    for name, how in tuned.items():
        for num_examples in (20, 60_000):
            settings = how.settings(draw, Effort(num_examples, 20, steps))
            assert parse_method({"name": name, **settings}, name).name == name


class Killer:
    """Says stop from the given call on."""

    def __init__(self, at: int) -> None:
        self.calls, self.at = 0, at

    def __call__(self) -> bool:
        self.calls += 1
        return self.calls >= self.at


def without_times(data: dict[str, Any]) -> dict[str, Any]:
    """An answer without what a clock says."""
    answer = {**data, "costs": {**data["costs"]}}
    for key in ("sampling_seconds", "tuning_seconds"):
        del answer["costs"][key]
    del answer["sentence"], answer["prediction_verdict"]
    candidates = []
    for candidate in answer["candidates"]:
        candidates.append({k: v for k, v in candidate.items() if k != "seconds"})
    return {**answer, "candidates": candidates}


def test_a_killed_tuning_ends_with_the_same_answer(
    space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # one start, so that two candidates are drawn
    monkeypatch.setattr(tuning_starts, "_STARTS", tuning_starts._STARTS[-1:])
    methods = ["laplace"]
    whole = gn.tune_teacher(space, n_trials=NUM_TRIALS, methods=methods)
    assert sum(tried.label == "" for tried in whole.tried) == NUM_TRIALS - 1
    num_teachers = sum(not tried.is_map for tried in whole.tried)
    assert num_teachers == NUM_TRIALS
    assert whole.space.method.name in ("laplace", space.method.name)

    monkeypatch.setenv("GPED_CACHE", str(tmp_path / "other"))
    for at in (12, 60):
        session = replace(gn.new_session("cpu"), should_stop=Killer(at))
        with pytest.raises(Interrupted):
            gn.tune_teacher(space, n_trials=NUM_TRIALS, methods=methods, session=session)
    resumed = gn.tune_teacher(space, n_trials=NUM_TRIALS, methods=methods)
    assert without_times(resumed.to_json()) == without_times(whole.to_json())

    # the same call again tries nothing, and more trials are added to those
    record = read_record(record_folder(space))
    assert record is not None and len(record.tried) == len(resumed.tried)
    assert record.answer is not None and not record.streams.exists()
    by_evidence = [tried for tried in record.tried if tried.label == "map by evidence"]
    assert [tried.prior["precision"] for tried in by_evidence] == [record.evidence]

    teacher = gn.build_teacher(replace(resumed.space, views=()), gn.new_session("cpu"))
    assert teacher.stream.num_samples == resumed.answer["costs"]["num_samples"]
    nll = -teacher.averaged("validation").log_score(teacher.dataset.labels("validation")).mean()
    assert resumed.answer["validation"]["nll"] == pytest.approx(float(nll))


def test_a_budget_of_seconds_goes_on_and_ends_with_an_answer(
    space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[bool] = []

    def has_time(clock: Clock, record: Record) -> bool:
        return bool(left) and left.pop()

    monkeypatch.setattr(Clock, "has_time", has_time)
    with pytest.raises(GateError, match="no candidate came to its end.*give budget more"):
        gn.tune_teacher(space, budget=1e6, methods=METHODS)

    left += [True] * 200
    first = gn.tune_teacher(space, budget=1e6, methods=METHODS)
    assert not left and first.answer["validation"]["n"] == 16
    left += [True] * 400
    second = gn.tune_teacher(space, budget=1e6, methods=METHODS)
    assert len(second.tried) > len(first.tried)
    assert second.tried[: len(first.tried)] == first.tried


def test_half_of_a_short_budget_is_left_for_teachers(
    space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = replace(space, baseline=space.baseline.model_copy(update={"precisions": (0.1, 1.0)}))
    monkeypatch.setattr(Clock, "has_time", lambda clock, record: len(record.tried) < 2)
    monkeypatch.setattr(Clock, "is_half_over", lambda clock: True)
    tuning = gn.tune_teacher(wide, budget=1e6, methods=METHODS)
    assert [tried.is_map for tried in tuning.tried] == [True, False]
    assert tuning.space.method.name == "deep_ensemble"


def test_a_budget_that_is_too_short_says_how_many_seconds_are_needed(
    space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning_clock, "_measure_step", lambda *args: 0.01)
    with pytest.raises(ConfigError, match="found 5 s, expected at least 64 s: one chain of 100"):
        gn.tune_teacher(space, budget=5)

    held_out = hold_out(gn.load_dataset(space), 0, "clouds")
    long = replace(space, baseline=space.baseline.model_copy(update={"steps": 1000}))
    steps = {}
    for seconds in (64.0, 200.0, 6e4, None):
        effort = effort_within(long, held_out, gn.new_session("cpu"), Clock(seconds))
        steps[seconds] = effort.steps
    assert steps == {64.0: 100, 200.0: 300, 6e4: 1000, None: 1000}


def test_validation_alone_says_whether_a_teacher_beats_map(
    space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was held out chose the best of the candidates, so it has no say."""
    compare = tuning_answer.beside_seeds

    def told_apart_by(low: float, high: float) -> str:
        difference = Measured((low + high) / 2, low, high, 100)
        monkeypatch.setattr(
            tuning_answer, "beside_seeds", lambda *args: (difference, *compare(*args)[1:])
        )
        tuning = gn.tune_teacher(space, n_trials=1, methods=["deep_ensemble"])
        assert tuning.answer["beats_map"] == (high < 0)
        return tuning.sentence

    assert NO_TEACHER in told_apart_by(-0.01, 0.01)
    assert NO_TEACHER in told_apart_by(0.01, 0.02)
    assert "distilling it makes sense" in told_apart_by(-0.02, -0.01)


def test_a_method_that_is_not_tuned_is_refused(space: SearchSpace) -> None:
    with pytest.raises(ConfigError, match="hmc.*nothing of how it is tuned"):
        gn.tune_teacher(space, n_trials=1, methods=["hmc"])
    with pytest.raises(ConfigError, match="map.*always tried"):
        gn.tune_teacher(space, n_trials=1, methods=["map"])
    with pytest.raises(ConfigError, match="found 0, expected at least 1"):
        gn.tune_teacher(space, n_trials=0)


def test_run_takes_the_tuned_teacher(space: SearchSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="'tunde', expected 'tuned'"):
        gn.run(space, teacher="tunde")
    with pytest.raises(ConfigError, match="found none of this space.*teacher tune"):
        gn.run(space, teacher="tuned")

    tuning = gn.tune_teacher(space, n_trials=1, methods=["deep_ensemble"])
    started: list[SearchSpace] = []
    monkeypatch.setattr(job, "_start", lambda space, **rest: started.append(space))
    gn.run(space, teacher="tuned")
    gn.run(space)
    assert [run.method for run in started] == [tuning.space.method, space.method]
    assert started[0].method != space.method


def test_a_method_with_a_closed_form_is_not_tried_with_a_learned_noise() -> None:
    noisy = gn.load_space("diabetes_mlp", {"teacher.likelihood": {"name": "heteroscedastic"}})
    with pytest.raises(ConfigError, match="'laplace', which has no closed form under the likeli"):
        gn.tune_teacher(noisy, n_trials=1, methods=["laplace"])
    tried = tuning_module._methods(None, noisy)
    assert "deep_ensemble" in tried and "laplace" not in tried
