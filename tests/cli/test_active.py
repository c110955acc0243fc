"""The task ``active``: who buys which labels, from where, and what is measured of them."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gped_nas as gn
from gped_nas.api.tasks import active
from gped_nas.api.tasks.active import Plan, _Course
from gped_nas.api.tasks.bench import Bench, Examples, Subject
from gped_nas.api.teacher import load_dataset
from gped_nas.data.base import Dataset
from gped_nas.data.dials import keep_labels
from gped_nas.data.splits import Split
from gped_nas.evaluate.predictions import Predictions
from gped_nas.evaluate.teacher import averaged
from gped_nas.search.space_file import load_space
from tests.cli.harness import Home, accepted, refused


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seeds, and labels are bought once."""
    monkeypatch.setattr(active, "SEEDS", 2)
    monkeypatch.setattr(active, "ROUNDS", 1)


def rows_of(home: Home, *args: object) -> list[dict[str, Any]]:
    result = accepted("evaluate", home.study, "--out", home.out, "-f", "json", *args)
    rows: list[dict[str, Any]] = json.loads(result.out)
    return rows


def test_teacher_and_student_buy_labels_and_are_trained_anew(
    own: Home, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(active, "SEEDS", 1)
    subjects = ("--subjects", "teacher,map,student")
    rows = rows_of(own, "--tasks", "active:random-30,active:bald-30", *subjects)
    study = gn.open_study(own.study)
    chosen = study.chosen()
    assert chosen is not None
    student = f"trial {chosen.trial}"
    assert {row["predictor"] for row in rows} == {"teacher", student}

    values = {}
    for row in rows:
        assert row["seeds"] == 1 and row["low"] < row["value"] < row["high"]
        assert row["condition"] == f"{row['num_labels']}-labels" and row["part"] == "test"
        place = (row["task"], row["predictor"], row["num_labels"], row["metric"])
        values[place] = row["value"]
    assert {place[2] for place in values} == {20, 30}

    for predictor in ("teacher", student):
        # all begin alike, and end at other labels
        first, last = (
            [
                values[(task, predictor, num, "nll")]
                for task in ("active:random-30", "active:bald-30")
            ]
            for num in (20, 30)
        )
        assert first[0] == first[1]
        assert last[0] != last[1]

    # the student could not know what a student of all labels knows
    full = study.reference("teacher").metrics["test_nll"]
    assert values[("active:random-30", "teacher", 20, "nll")] > full


def test_the_first_teacher_is_that_of_two_labels_a_class(
    own: Home, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sampled here, of the labels that were known first."""
    known: list[Tensor] = []
    begin = _Course._begin

    def noted(course: _Course) -> tuple[Tensor, Tensor]:
        pool, first = begin(course)
        known.append(first)
        return pool, first

    labeled: list[set[int]] = []

    def kept(dataset: Dataset, places: Tensor, how: str) -> Dataset:
        labeled.append(set(places.tolist()))
        return keep_labels(dataset, places, how)

    monkeypatch.setattr(_Course, "_begin", noted)
    monkeypatch.setattr(active, "keep_labels", kept)
    asked = ("--tasks", "active:random-30", "--subjects", "teacher", "--out", own.out)
    metrics = ("--metrics", "nll,kl_to_teacher")
    result = accepted("evaluate", own.study, "-f", "json", *asked, *metrics)
    assert "kl_to_teacher is not measured: each round has another teacher" in result.err
    rows = json.loads(result.out)
    assert {row["metric"] for row in rows} == {"nll"}
    assert [len(places) for places in labeled] == [20, 30, 20, 30]
    assert labeled[0] < labeled[1] and labeled[2] < labeled[3] and labeled[0] != labeled[2]
    space = load_space(own.space)
    dataset = load_dataset(space)

    nll = []
    for number, first in enumerate(known):
        assert dataset.train.y[first].bincount().tolist() == [2] * 10
        of_first = keep_labels(dataset, first.sort().values, "here")
        assert (len(of_first.train), len(of_first.unlabeled)) == (20, len(dataset.train) - 20)
        seed = gn.rng.seed(space.seed, "active", number)
        changed = replace(space, seed=seed)
        teacher = gn.api.teacher.sample_teacher(changed, gn.new_session("cpu"), dataset=of_first)
        average = teacher.averaged("test")
        nll.append(-float(average.log_score(dataset.labels("test")).mean()))
    (value,) = (r["value"] for r in rows if r["metric"] == "nll" and r["num_labels"] == 20)
    assert value == pytest.approx(np.mean(nll), rel=1e-6)


class _Known:
    """A predictor of known answers: ten examples at a time of more and more entropy."""

    def __init__(self, samples_SNC: Tensor) -> None:
        self.samples_SNC = samples_SNC

    def networks(self) -> Any:
        raise AssertionError("nobody asks for networks")

    def predict(self, raw: Tensor) -> Any:
        places = raw.flatten(1)[:, 0].long()
        return averaged(self.samples_SNC[:, places], torch.ones(len(self.samples_SNC)))


def course(acquisition: str) -> tuple[_Course, Tensor]:
    """Twenty examples whose only number is their place."""
    dataset = load_dataset(load_space("digits_mlp"))
    places = torch.arange(20.0).view(20, 1, 1, 1).expand(20, *dataset.input_shape)
    train = Split(places.clone(), torch.arange(20) % 10)
    dataset = replace(dataset, train=train, normalization=replace_unit(dataset.normalization))
    bench = Bench(Examples(dataset, "validation", 0), None, (), gn.new_session("cpu"))
    subject = Subject("teacher", "teacher", "", None)
    return _Course(bench, subject, Plan(acquisition, (2, 5)), 0), torch.arange(20)


def replace_unit(normalization: Any) -> Any:
    return replace(normalization, mean=0.0, std=1.0)


def test_entropy_and_bald_take_the_highest_of_their_scores() -> None:
    """Samples agree on 15 to 19, unsure; on 0 to 4 they are sure of different classes."""
    sure = torch.eye(10).double()
    samples = torch.stack([sure[[1] * 20], sure[[1] * 20]])
    samples[1, :5] = sure[[2] * 5]
    samples[:, 15:] = 0.1
    predictor = _Known((samples + 1e-12).log())

    for acquisition, expected in (("entropy", {15, 16, 17, 18, 19}), ("bald", {0, 1, 2, 3, 4})):
        buyer, pool = course(acquisition)
        assert set(buyer._best(predictor, pool, 5).tolist()) == expected
        assert set(buyer._best(predictor, pool[10:], 5).tolist()) <= set(range(10, 20))


def test_who_does_not_say_what_ranks_the_pool_is_left_out() -> None:
    class _Bare(_Known):
        def predict(self, raw: Tensor) -> Any:
            return Predictions(super().predict(raw).log_prob_NC)

    buyer, pool = course("bald")
    predictor = _Bare(torch.zeros((2, 20, 10)).log_softmax(-1))
    with pytest.raises(active.LeftOut, match="does not say its model uncertainty"):
        buyer._best(predictor, pool, 5)
    assert len(course("entropy")[0]._best(predictor, pool, 5)) == 5


def test_others_stand_in_for_a_class_of_few() -> None:
    buyer, _ = course("random")
    labels = torch.tensor([0] * 15 + [1] * 4 + [2])
    dataset = replace(buyer.bench.dataset, train=replace(buyer.bench.dataset.train, y=labels))
    buyer = replace(
        buyer,
        bench=replace(buyer.bench, examples=replace(buyer.bench.examples, dataset=dataset)),
        plan=Plan("random", (6, 8)),
    )
    pool, known = buyer._begin()
    counts = labels[known].bincount()
    assert int(counts.sum()) == 6 and int(counts[2]) == 1
    assert sorted([*pool.tolist(), *known.tolist()]) == list(range(20))


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("bold", "expected one of random, entropy, bald"),
        ("bald-", "expected one of random, entropy, bald"),
        ("bald-27", "27 labels, expected 28 to 1,149"),
        ("bald-5000", "5000 labels, expected 28 to 1,149"),
    ],
)
def test_what_cannot_be_bought_is_refused(finished: Home, argument: str, says: str) -> None:
    refused(
        *(2, "evaluate", finished.study, "--tasks", f"active:{argument}"),
        says=(f"active:{argument}", says),
    )
