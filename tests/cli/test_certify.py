"""``gped-search certify`` and its task: what rows claim, what is kept, what is refused."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import gped_nas as gn
from gped_nas.api import evaluating
from gped_nas.api.certify_names import CertifyName, parse_names
from gped_nas.api.certifying import network_of_draw, stored_params
from gped_nas.api.tasks import certify, certify_teacher
from gped_nas.errors import ConfigError
from gped_nas.evaluate.certify.box import linf_box
from gped_nas.evaluate.certify.networks import margins
from gped_nas.evaluate.certify.verdict import VERDICTS
from gped_nas.models.base import Family
from gped_nas.models.mlp import Mlp
from tests.cli.harness import Home, accepted, refused

FEW = ("--limit", 40)


@pytest.fixture
def without_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks take most of the time, and most tests are of other things."""
    monkeypatch.setattr(certify, "ATTACK", "none")
    monkeypatch.setattr(certify_teacher, "ATTACK", "none")


def certified(home: Home, *args: object) -> list[dict[str, Any]]:
    """The rows of the tiny study."""
    result = accepted("certify", home.study, *args, "--out", home.out, "-f", "json")
    rows: list[dict[str, Any]] = json.loads(result.out)
    return rows


@pytest.mark.usefixtures("without_attacks")
def test_shares_are_those_of_the_inputs_and_sum_to_one(own: Home) -> None:
    rows = certified(own, "--epsilon", "0.01..0.05", *FEW)
    study = gn.open_study(own.study)
    assert {row["predictor"] for row in rows} == {f"trial {study.find('chosen').trial}"}
    assert {row["metric"] for row in rows} == {"certified", "broken", "unknown"}
    assert {row["n"] for row in rows} == {40} and {row["part"] for row in rows} == {"test"}
    assert {row["radius"] for row in rows if row["epsilon"] == 0.05} == {
        "epsilon 0.05 (of 0..16: 0.8)"
    }

    inputs = certified(own, "--epsilon", "0.01..0.05", "--each", *FEW)
    for epsilon in (0.01, 0.02, 0.05):
        for bounds in ("ibp", "crown"):
            condition = f"linf-{epsilon}-{bounds}"
            shares = {row["metric"]: row for row in rows if row["condition"] == condition}
            verdicts = [row["metric"] for row in inputs if row["condition"] == condition]
            assert len(verdicts) == 40
            for metric, row in shares.items():
                assert row["value"] == verdicts.count(metric) / 40
                assert row["low"] < row["value"] < row["high"] or row["value"] == 0
                assert row["seconds"] >= 0 and row["bounds"] == bounds
            assert sum(row["value"] for row in shares.values()) == pytest.approx(1)


def test_no_input_of_a_box_changes_a_certified_answer(own: Home) -> None:
    trial = gn.open_study(own.study).best().trial
    path = own.root / "broken.npz"
    accepted(
        *("evaluate", own.study, "--trial", trial, "--tasks", "certify:linf-0.05-crown"),
        *("--subjects", "student", "--out", own.out, "--save-inputs", path, "--limit", 120),
    )
    rows = certified(own, trial, "--epsilon", 0.05, "--each", "--bounds", "crown", "--limit", 120)
    verdicts = np.array([row["metric"] for row in rows])
    student = gn.load_student(own.study / "students" / str(trial))
    with np.load(path) as saved:
        x, y = torch.from_numpy(saved["x"]).float(), torch.from_numpy(saved["y"])
        found = torch.from_numpy(saved[f"trial {trial}@linf-0.05-crown"])

    def is_right(inputs: Tensor) -> NDArray[np.bool_]:
        return (student.predict(inputs)["predictive"].argmax(1) == y).numpy()

    assert [row["label"] for row in rows] == y.tolist()
    is_certified, is_broken = verdicts == "certified", verdicts == "broken"
    assert 10 < is_certified.sum() and 10 < is_broken.sum()
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        corner = 0.8 * (2 * torch.randint(2, x.shape, generator=generator) - 1)
        assert is_right((x + corner).clamp(0, 16))[is_certified].all()

    # whoever is broken has an input of its box that is answered wrongly
    assert (found - x).abs().max() <= 0.8 + 1e-5 and found.min() >= 0 and found.max() <= 16
    assert not is_right(found)[is_broken].any() and is_right(x)[is_broken].any()


@pytest.mark.usefixtures("without_attacks")
def test_a_programme_decides_what_bounds_leave_open(own: Home) -> None:
    rows = certified(own, "--epsilon", 0.03, "--exact", "--time-limit", 60, *FEW)
    shares = {(row["bounds"], row["metric"]): row["value"] for row in rows}
    for verdict in ("certified", "broken"):
        assert shares["ibp", verdict] <= shares["crown", verdict] <= shares["exact", verdict]
    assert shares["crown", "unknown"] > 0 and shares["exact", "unknown"] == 0
    assert {row["condition"] for row in rows if row["bounds"] == "exact"} == {"linf-0.03-exact-60s"}


def test_a_family_without_bounds_is_named(own: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mlp, "layers", Family.layers)
    says = ("family 'mlp'", "expected one of a family that has bounds", "cnn")
    refused(2, "certify", own.study, "--epsilon", 0.1, "--out", own.out, says=says)


@pytest.mark.usefixtures("without_attacks")
def test_everybody_with_layers_is_certified_by_the_task(own: Home) -> None:
    result = accepted(
        *("evaluate", own.study, "--tasks", "certify:linf-0.02", "--out", own.out, "-f", "json"),
        *FEW,
    )
    rows = json.loads(result.out)
    names = list(dict.fromkeys(row["predictor"] for row in rows))
    assert names[-4:-1] == ["single_sample", "map", "unpruned"]
    for row in rows:
        if row["metric"] == "certified" and row["of"] == "network":
            assert row["each"]["index"] == sorted(row["each"]["index"])


@pytest.mark.usefixtures("without_attacks")
def test_certificates_are_kept(own: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    first = certified(own, "--epsilon", 0.02, *FEW)
    measured: list[str] = []
    write = evaluating.write_place
    monkeypatch.setattr(
        evaluating,
        "write_place",
        lambda folder, kept: (measured.append(kept.place["task"]), write(folder, kept)),
    )
    assert certified(own, "--epsilon", 0.02, *FEW) == first
    assert measured == []
    kept = gn.open_study(own.study).evaluations()
    assert {row["metric"] for row in kept} == {"certified", "broken", "unknown"}

    certified(own, "--epsilon", 0.02, "--bounds", "crown", *FEW)
    assert measured == ["certify:linf-0.02-crown"]


@pytest.mark.usefixtures("without_attacks")
def test_a_table_has_a_line_for_each_kind_of_bounds(own: Home) -> None:
    result = accepted("certify", own.study, "--epsilon", 0.02, *FEW, "--out", own.out)
    title, head, *lines = result.out.splitlines()
    assert title == "certified on test, epsilon 0.02 (of 0..16: 0.32)"
    assert head.split() == [
        *("predictor", "of", "epsilon", "bounds"),
        *("certified", "broken", "unknown", "n", "seconds"),
    ]
    assert [line.split()[4] for line in lines[:2]] == ["ibp", "crown"]
    csv = accepted(
        "certify", own.study, "--epsilon", 0.02, *FEW, "--out", own.out, "-f", "csv"
    ).out.splitlines()
    assert "epsilon" in csv[0].split(",") and len(csv) == 1 + 6


@pytest.mark.usefixtures("without_attacks")
def test_of_a_teacher_the_average_and_the_samples_are_certified(own: Home) -> None:
    args = ("--epsilon", 0.02, "--limit", 20, "--bounds", "crown")
    result = accepted("certify", own.study, "teacher", *args, "--out", own.out, "-f", "json")
    assert "no row of a law: study 'tiny': found method 'sgld'" in result.err
    rows = json.loads(result.out)
    shares = {(row["of"], row["metric"]): row["value"] for row in rows}
    assert {of for of, _ in shares} == {"average", "samples"}
    for of in ("average", "samples"):
        assert sum(shares[of, verdict] for verdict in VERDICTS) == pytest.approx(1)
    assert {row["samples"] for row in rows if row["of"] == "samples"} == {4}

    # a share of samples is that of their own certificates, one sample after the other
    inputs = certified(own, "teacher", *args, "--each")
    teacher = gn.load_teacher(own.space)
    places = sorted({row["input"] for row in inputs})
    raw = teacher.dataset.raw("test")[places]
    label_N = torch.as_tensor(teacher.dataset.labels("test")[places])
    box = linf_box(raw, teacher.dataset.scale, 0.02)
    expected_N = torch.zeros(20, dtype=torch.float64)
    for weight, params in stored_params(teacher):
        network = network_of_draw(teacher, params)
        margin_NC = margins(network, box.low, box.high, label_N)
        others_NC = margin_NC.scatter(1, label_N[:, None], torch.inf)
        expected_N += weight * (others_NC.amin(1) > 0)
    assert shares["samples", "certified"] == pytest.approx(float(expected_N.mean()))
    of_samples = [row for row in inputs if row["of"] == "samples"]
    by_input = {row["input"]: row["value"] for row in of_samples if row["metric"] == "certified"}
    for place, expected in zip(places, expected_N.tolist(), strict=True):
        assert by_input.get(place, 0.0) == pytest.approx(expected)


@pytest.mark.usefixtures("without_attacks")
def test_of_a_law_fresh_draws_are_certified(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certify_teacher, "DRAWS", 12)
    method = "teacher.method={name: vi, num_samples: 3, steps: 200}"
    args = ("--epsilon", 0.01, "--limit", 10, "--set", method)
    rows = json.loads(accepted("certify", home.space, *args, "-f", "json").out)
    by_metric = {row["metric"]: row for row in rows if row["of"] == "law"}
    assert set(by_metric) == set(VERDICTS)
    assert sum(row["value"] for row in by_metric.values()) == pytest.approx(1)
    of_law = by_metric["certified"]
    assert of_law["condition"] == "linf-0.01-crown law" and of_law["draws"] == 12
    assert "confidence 0.95" in of_law["why"] and of_law["low"] is None
    # with 12 draws of 10 inputs no share is proven above .0025 ^ (1 / 12)
    assert 0 < of_law["value"] <= 0.0025 ** (1 / 12)


@pytest.mark.usefixtures("without_attacks")
def test_of_a_gaussian_over_the_last_layer_weights_are_certified(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certify_teacher, "DRAWS", 12)
    settings = ("teacher.method={name: laplace, num_samples: 3, steps: 200}",)
    args = ("--epsilon", 0.002, "--limit", 10, "--set", *settings, "--bounds", "crown")
    prior = ("--set", "teacher.prior.precision=100")
    rows = json.loads(accepted("certify", home.space, *args, *prior, "-f", "json").out)
    by_metric = {row["metric"]: row for row in rows if row["of"] == "weights"}
    certified = by_metric["certified"]
    assert 0 < certified["value"] == pytest.approx(10 ** certified["log10_mass"])
    assert by_metric["broken"]["value"] == 0 and "no estimate" in certified["why"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), ("no radius and no --box", "write --epsilon 0.03")),
        (("--epsilon", "-0.1"), ("--epsilon", "-0.1", "at least 0")),
        (("--epsilon", "0.1..0.01"), ("--epsilon", "smaller radius first")),
        (("--epsilon", "nan"), ("--epsilon", "nan")),
        (("--epsilon", "0.1", "--exact", "--time-limit", "0"), ("--time-limit", "0")),
        (("--epsilon", "0.1", "--bounds", "crow"), ("--bounds", "crown")),
        (("999", "--epsilon", "0.1"), ("999",)),
        (("--epsilon", "0.1", "--limit", "0"), ("--limit", "0")),
    ],
)
def test_what_cannot_be_certified_is_refused(
    finished: Home, args: tuple[str, ...], says: tuple[str, ...]
) -> None:
    refused(2, "certify", finished.study, *args, "--out", finished.out, says=says)


def test_a_trial_is_of_a_study(finished: Home) -> None:
    refused(2, "certify", finished.space, "3", "--epsilon", "0.1", says=("TRIAL", "no study"))


@pytest.mark.parametrize(
    ("argument", "texts"),
    [
        ("linf-0.03", ["linf-0.03"]),
        ("linf-0.01..0.05-crown", ["linf-0.01-crown", "linf-0.02-crown", "linf-0.05-crown"]),
        ("linf-1e-3-exact", ["linf-0.001-exact"]),
        ("linf-0.03137254901960784-exact-2.5s", ["linf-0.03137254901960784-exact-2.5s"]),
    ],
)
def test_a_task_is_read_as_it_is_written(argument: str, texts: list[str]) -> None:
    names = parse_names(argument, "--tasks")
    assert [name.text for name in names] == texts
    assert [parse_names(text, "--tasks") for text in texts] == [[name] for name in names]


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("l2-0.1", "expected linf"),
        ("linf--1", "at least 0"),
        ("linf-0.1-crow", "did you mean 'crown'"),
        ("linf-0.1-ibp-5s", "time limit"),
        ("linf-0.1-exact-0s", "more than 0"),
        ("linf-0.1-exact-xs", "more than 0"),
    ],
)
def test_a_task_that_says_nothing_is_refused(argument: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_names(argument, "--tasks")
    assert CertifyName(0.1).under("crown") == "linf-0.1-crown"
