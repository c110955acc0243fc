"""Whole sessions: one's own arrays, an ensemble one already has, and a study that grows."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from gped_nas.api import load_dataset, load_space, load_stream, open_study
from tests.cli.harness import N_TRIALS, Home, accepted, contents, installed, refused, snapshot_of

TINY_SETTINGS = (
    "teacher.genotype={depth: 1, width: 8}",
    "teacher.method.num_samples=4",
    "teacher.method.steps=100",
    "recipe={steps: 60, warmup: 5}",
    "baseline={steps: 100, precisions: [1.0]}",
    "twins={seeds: 1, students: 1}",
    "search={n_trials: 3, students_at_once: 3, keep: {}}",
)


def _sets(*settings: str) -> list[str]:
    words: list[str] = []
    for setting in settings:
        words += ["--set", setting]
    return words


def _rows(*command: object) -> Any:
    """What a command prints as JSON."""
    return json.loads(accepted(*command, "--format", "json").out)


# --- one's own arrays -------------------------------------------------------------------------

PREDICT = """\
import sys

import numpy as np
import torch

import gped_nas as gn

student = gn.load_student(sys.argv[1])
x = np.load(sys.argv[2], allow_pickle=False)["x_pool"]

answers = student.predict(torch.from_numpy(x))
total = answers["predictive"].sum(-1)
assert answers["predictive"].shape == (len(x), 2), answers["predictive"].shape
assert torch.allclose(total, torch.ones(len(x)), atol=1e-5), total
print(student.spec.class_names, sorted(answers))
"""


def test_from_ones_own_arrays_to_a_student_in_another_process(home: Home) -> None:
    from sklearn.datasets import load_breast_cancer

    source = load_breast_cancer()
    x = source.data.astype(np.float32)  # columns of .05 and of 900
    names = np.array([str(name) for name in source.target_names])
    y = source.target[:300].astype(np.int64)
    np.savez("my, data {1}.npz", x_train=x[:300], y_train=y, x_pool=x[300:400], class_names=names)

    facts = accepted("init", "mine.yaml", "--data", "my, data {1}.npz").out
    assert "30 numbers" in facts
    assert "train 216, validation 24, test 60, unlabeled 100" in facts
    assert "2; of train: malignant 105, benign 111" in facts
    space = load_space("mine.yaml")
    dataset = {"name": "npz", "path": "my, data {1}.npz"}
    rules = {"split": "stratified", "normalize": "columns"}
    assert space.name == "mine" and space.dataset == dataset | rules
    result = installed("run", "mine.yaml", *_sets(*TINY_SETTINGS))
    assert result.code == 0, result.err
    assert result.out.splitlines()[-2] == "report: reports/mine/report.html"

    front = _rows("front", "mine")
    assert front[0]["metrics"]["accuracy"] > 0.85

    # a loose budget picks the best of the front, a tight one its smallest
    assert front and all(row["n"]["nll"] == 24 and row["n"]["test_nll"] == 60 for row in front)
    largest = max(row["costs"]["params"] for row in front)
    picked = _rows("pick", "mine", "--within", f"params={largest}")
    assert picked == front[0]
    smallest = min(front, key=lambda row: row["costs"]["params"])
    assert _rows("pick", "mine", "--within", f"params={smallest['costs']['params']}") == smallest

    details = _rows("show", "mine", str(picked["trial"]))
    assert details["metrics"] == picked["metrics"]
    assert sum(layer["params"] for layer in details["layers"]) == picked["costs"]["params"]

    target = Path("taken home")
    assert accepted("export", "mine", str(picked["trial"]), "--into", target).out == f"{target}\n"
    files = sorted(path.name for path in target.iterdir())
    assert files == ["README.md", "spec.json", "weights.safetensors"]

    command = [sys.executable, "-c", PREDICT, str(target), "my, data {1}.npz"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = ["expected_entropy", "mutual_information", "predictive"]
    assert done.stdout == f"('malignant', 'benign') {names}\n"


def test_a_class_that_a_part_lacks_is_told(home: Home) -> None:
    draw = np.random.default_rng(0)
    y = np.array([0] * 40 + [1] * 40 + [2, 2, 2, 2, 3])
    np.savez("rare.npz", x_train=draw.normal(size=(85, 3)), y_train=y)
    accepted("init", "rare.yaml", "--data", "rare.npz")
    result = installed("space", "rare.yaml")
    assert "carved class by class" in result.out
    for part in ("validation", "test"):
        assert f"The {part} part has no example of 1 of 4 classes: 3." in result.err
    assert "train part has no" not in result.err


# --- an imported ensemble ---------------------------------------------------------------------

MEMBERS, WIDTH = 5, 8


def _ensemble() -> dict[str, Tensor]:
    """Stacked weights of five little networks, named as ``nn.Sequential`` names them."""
    generator = torch.Generator().manual_seed(5)
    shapes = {"0.weight": (WIDTH, 64), "0.bias": (WIDTH,), "2.weight": (10, WIDTH), "2.bias": (10,)}
    return {
        name: torch.randn((MEMBERS, *shape), generator=generator) * 0.4
        for name, shape in shapes.items()
    }


def _probabilities(weights: dict[str, Tensor], x: Tensor) -> NDArray[Any]:
    """Class probabilities (S, N, C) of every member at normalized inputs, by the user's code."""
    members = []
    for i in range(MEMBERS):
        hidden = F.relu(x.flatten(1) @ weights["0.weight"][i].T + weights["0.bias"][i])
        members.append(F.softmax(hidden @ weights["2.weight"][i].T + weights["2.bias"][i], -1))
    return torch.stack(members).double().numpy()


def _nll_of_average(prob: NDArray[Any], labels: NDArray[Any], weight: NDArray[Any]) -> float:
    """The NLL of the members' weighted average probability, in nats."""
    average = np.tensordot(weight / weight.sum(), prob, 1)
    return float(np.mean([-math.log(average[n, label]) for n, label in enumerate(labels)]))


def _teachers_nll(home: Home, *command: str) -> tuple[float, float]:
    """The teacher's validation NLL, as ``teacher info`` tells it and as the study's report does."""
    sets = _sets(*command)
    # the ensemble is one of random networks, and so are its students
    accepted("run", home.space, "--out", home.out, *sets)
    info = _rows("teacher", "info", home.space, *sets)
    assert info["posterior samples"] == MEMBERS
    (teacher,) = (r for r in snapshot_of(home).references if r.name == "teacher")
    return info["validation metrics"]["nll"]["value"], teacher.metrics["nll"]


@pytest.mark.parametrize("naming", ["sequential", "ours", "files"])
def test_an_ensemble_known_by_its_weights_is_the_teacher(home: Home, naming: str) -> None:
    weights = _ensemble()
    weight = np.ones(MEMBERS)
    path = "ensemble.safetensors"
    if naming == "sequential":
        weight = np.array([1.0, 2.0, 3.0, 4.0, 0.0])
        save_file({**weights, "weight": torch.from_numpy(weight)}, path)
    elif naming == "ours":
        save_file({f"layers.{int(k[0]) // 2}{k[1:]}": w for k, w in weights.items()}, path)
    else:
        path = "ensemble"
        Path(path).mkdir()
        for i in range(MEMBERS):
            member = {name: stacked[i].clone() for name, stacked in weights.items()}
            save_file(member, f"{path}/member-{i}.safetensors")

    dataset = load_dataset(load_space(home.space))
    prob = _probabilities(weights, dataset.inputs("validation"))
    expected = _nll_of_average(prob, dataset.labels("validation"), weight)
    method = f"teacher.method={{name: import, path: {path}, at_chance: true}}"
    nlls = _teachers_nll(home, method, "search.n_trials=2")
    assert nlls == pytest.approx((expected, expected), abs=1e-5)


def test_an_ensemble_known_by_its_predictions_is_the_teacher(home: Home) -> None:
    dataset = load_dataset(load_space(home.space))
    raw = torch.cat([dataset.raw("train"), dataset.raw("validation"), dataset.raw("test")])
    prob = _probabilities(_ensemble(), dataset.normalization(raw))
    weight = np.array([3.0, 1.0, 1.0, 0.5, 2.0])
    np.savez("ensemble.npz", inputs=raw.numpy(), prob=prob, weight=weight)

    labels = dataset.labels("validation")
    start = len(dataset.train)
    end = start + len(labels)
    expected = _nll_of_average(prob[:, start:end], labels, weight)
    method = "teacher.method={name: import, path: ensemble.npz, at_chance: true}"
    nlls = _teachers_nll(home, method, "search.n_trials=2")
    assert nlls == pytest.approx((expected, expected), abs=1e-5)

    opened = load_stream(open_study(home.study).stream_path)
    assert opened.log_prob.shape == (MEMBERS, len(raw), 10)
    average = torch.from_numpy(np.tensordot(weight / weight.sum(), prob, 1)).float()
    assert torch.allclose(opened.expectation("predictive"), average, atol=1e-6)


# --- a study that grows -----------------------------------------------------------------------


def _times(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file below a folder."""
    times = {}
    for path in folder.rglob("*"):
        if path.is_file():
            times[str(path)] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return times


def test_a_longer_run_adds_trials_to_the_same_teacher_and_a_repeated_one_nothing(own: Home) -> None:
    stream = {**_times(own.stream / "segments"), **_times(own.stream / "views")}
    before = _rows("trials", own.study)
    grown = own.run("--n-trials", str(N_TRIALS + 2))
    assert {**_times(own.stream / "segments"), **_times(own.stream / "views")} == stream

    after = _rows("trials", own.study)
    added = after[N_TRIALS:]
    assert after[:N_TRIALS] == before
    # a genotype that is drawn again is told, and is none of the two that were asked for
    assert [row["state"] for row in added if row["state"] != "duplicate"] == ["complete"] * 2
    *trials, last = [line.split(":")[0] for line in grown.err.splitlines() if "phase" not in line]
    assert sorted(trials) == [f"trial {row['trial']}" for row in added]
    assert last == "students tested so far"

    front = _rows("front", own.study)
    stored = {path.name for path in (own.study / "students").iterdir()}
    assert stored == {str(row["trial"]) for row in front}

    page = (own.study / "report.html").read_bytes()
    students = contents(own.study / "students")
    again = own.run("--n-trials", str(N_TRIALS + 2))
    *lines, last = [line for line in again.err.splitlines() if "phase" not in line]
    assert lines == grown.err.splitlines()[-1:] and again.out == grown.out
    assert last.startswith(f"no trial was added: {N_TRIALS + 2} are finished, and ")
    assert _rows("front", own.study) == front
    assert _rows("trials", own.study) == after
    assert contents(own.study / "students") == students
    assert (own.study / "report.html").read_bytes() == page


def test_only_front_members_are_tested_and_each_only_once(own: Home) -> None:
    before = snapshot_of(own)
    tested = set()
    for record in before.records:
        if any(name.startswith("test_") for name in record.metrics):
            tested.add(record.trial)
    assert tested == set(before.front) and before.num_test_evaluations == len(before.front)

    ledger = open_study(own.study).ledger
    for trial, test in ledger.tests().items():
        # whoever tests it again overwrites this
        marked = test.model_copy(update={"metrics": {**test.metrics, "test_nll": 1234.5}})
        ledger.write_test(trial, marked)
    own.run("--n-trials", str(N_TRIALS + 4))

    after = snapshot_of(own)
    complete = [r for r in after.records if r.state == "complete"]
    assert {r.trial for r in complete if r.metrics.get("test_nll") == 1234.5} == tested
    assert after.num_test_evaluations == len(tested | set(after.front))


def test_the_report_is_the_same_bytes_each_time(own: Home) -> None:
    written = (own.study / "report.html").read_bytes()
    path = accepted("report", own.study).out
    assert path == f"{own.study / 'report.html'}\n"
    assert (own.study / "report.html").read_bytes() == written
    (own.study / "report.html").unlink()
    accepted("report", own.study)
    assert (own.study / "report.html").read_bytes() == written


def test_more_posterior_samples_go_on_with_the_same_chains(own: Home) -> None:
    sealed = _times(own.stream / "segments")
    built = accepted("teacher", "build", own.space, "--set", "teacher.method.num_samples=8")
    assert built.out == f"{own.stream}\n" and "8 posterior samples" in built.err
    assert sealed.items() <= _times(own.stream / "segments").items()
    verified = accepted("teacher", "verify", own.space)
    assert verified.out == f"{own.stream}: every byte is as it was sealed\n"


def test_verbs_that_read_a_teacher_sample_nothing(own: Home) -> None:
    before = _times(own.stream)
    accepted("teacher", "info", own.space)
    kept = _times(own.stream)
    added = {Path(path).name for path in set(kept) - set(before)}
    # what the network beside it says is kept, if nobody had asked before
    assert before.items() <= kept.items()
    assert added <= {"map-validation.json", "map-validation.npy"}

    accepted("teacher", "info", own.space, "--format", "json")
    accepted("teacher", "verify", own.space)
    more = refused(4, "teacher", "info", own.space, "--set", "teacher.method.num_samples=400")
    assert "expected at least 400" in more.err and "teacher build" in more.err

    assert _times(own.stream) == kept
