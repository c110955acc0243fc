"""The verb ``teacher predict``, and ``load_teacher(space).predict``: a posterior in use."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import gped_nas as gn
from gped_nas.api import asking
from gped_nas.errors import ConfigError, DataError, StreamError
from gped_nas.models.base import FAMILIES
from tests.api.test_regression import OVERRIDES
from tests.cli.harness import Home, accepted, refused

NUM = 5


@pytest.fixture
def array(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 17, (NUM, 1, 8, 8))
    np.save(tmp_path / "x.npy", pixels.astype(np.uint8))
    return tmp_path / "x.npy"


def probabilities_of_samples(home: Home, raw: NDArray[np.uint8]) -> torch.Tensor:
    """What each posterior sample says of each class, (S, N, C): one network after the other."""
    stream = gn.load_stream(home.stream)
    data = gn.load_dataset(gn.load_space(home.space))
    x = (torch.from_numpy(raw).double() - data.normalization.mean) / data.normalization.std
    prob = []
    for index in range(4):
        params = {name: value.double() for name, value in stream.params(index).items()}
        prob.append(FAMILIES["mlp"].forward(params, x).softmax(-1))
    return torch.stack(prob)


def test_rows_say_what_the_samples_say_one_by_one(finished: Home, array: Path) -> None:
    printed = accepted("teacher", "predict", finished.space, array, "--format", "json").out
    rows = json.loads(printed)
    prob = probabilities_of_samples(finished, np.load(array))
    mean = prob.mean(0)
    total, expected = (torch.special.entr(p).sum(-1) for p in (mean, prob))

    assert [row["input"] for row in rows] == [f"{array}[{i}]" for i in range(NUM)]
    for i, row in enumerate(rows):
        assert list(row["probabilities"].values()) == pytest.approx(mean[i].tolist(), abs=1e-6)
        assert row["class"] == str(int(mean[i].argmax()))
        assert row["entropy"] == pytest.approx(float(total[i]), abs=1e-5)
        assert row["expected_entropy"] == pytest.approx(float(expected[:, i].mean()), abs=1e-5)
        information = float(total[i] - expected[:, i].mean())
        assert row["mutual_information"] == pytest.approx(information, abs=1e-5)

        # of four samples of one weight, 5 % lie below the least, 95 % below the greatest
        low, high = prob[:, i].amin(0).tolist(), prob[:, i].amax(0).tolist()
        assert list(row["low"].values()) == pytest.approx(low, abs=1e-6)
        assert list(row["high"].values()) == pytest.approx(high, abs=1e-6)
        assert list(row["low"]) == list(row["probabilities"])

    for row in rows:
        assert row.pop("schema_version") == 1
    assert gn.load_teacher(finished.space).predict_files([array]) == rows


def test_it_agrees_with_the_average_that_students_learn_from(finished: Home) -> None:
    teacher = gn.load_teacher(gn.load_space(finished.space))
    answers = teacher.predict(teacher.dataset.raw("validation"))
    average = teacher.averaged("validation")
    for name in ("predictive", "expected_entropy", "mutual_information"):
        expected = average.expectations[name]
        assert answers[name].numpy() == pytest.approx(expected, abs=1e-5)


def test_few_inputs_at_a_time_give_the_same(
    finished: Home, array: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = gn.load_teacher(finished.space)
    raw = np.load(array)
    together = teacher.predict(raw)
    monkeypatch.setattr(asking, "_NUMBERS", 2 * 4 * 10)
    asked: list[tuple[int, int]] = []
    teacher.session = gn.new_session("cpu", progress=lambda what, *far: asked.append(far))
    by_twos = teacher.predict(raw[:, 0])  # one channel may be left out

    assert asked == [(i, 3 * 4) for i in range(1, 3 * 4 + 1)]
    for name, values in together.items():
        assert values.dtype == torch.float64 and len(values) == NUM
        assert by_twos[name].numpy() == pytest.approx(values.numpy(), abs=1e-6)
    assert all(len(values) == 0 for values in teacher.predict(raw[:0]).values())


def test_a_table_has_the_likeliest_class_alone_and_csv_all_bounds(
    finished: Home, array: Path
) -> None:
    words = ("teacher", "predict", finished.space, array, "--credible", "0.5")
    rows = json.loads(accepted(*words, "-f", "json").out)
    table = list(csv.DictReader(io.StringIO(accepted(*words, "-f", "csv").out)))
    for row, columns in zip(rows, table, strict=True):
        for name in row["probabilities"]:
            assert float(columns[f"p({name})"]) == row["probabilities"][name]
            assert float(columns[f"low({name})"]) == row["low"][name]
            assert float(columns[f"high({name})"]) == row["high"][name]

    lines = accepted(*words).out.splitlines()
    heads = ["input", "class", "low", "high", "entropy"]
    assert lines[0].split()[:5] == heads and len(lines) == NUM + 1
    first = rows[0]
    cells = lines[1].split()
    assert cells[2] == f"{first['low'][first['class']]:.4g}"
    assert cells[3] == f"{first['high'][first['class']]:.4g}"


def test_a_real_label_has_both_variances_and_bounds(home: Home, tmp_path: Path) -> None:
    space = gn.load_space("diabetes_mlp", OVERRIDES)
    teacher = gn.build_teacher(space, gn.new_session("cpu"))
    raw = teacher.dataset.raw("test")[:4]
    np.save(tmp_path / "x.npy", raw.numpy())
    (row, *_) = gn.load_teacher(space).predict_files([tmp_path / "x.npy"], credible=0.8)

    unit = teacher.dataset.label_normalization
    assert unit is not None
    x = teacher.dataset.normalization(raw)
    outputs = [
        FAMILIES["mlp"].forward(teacher.stream.params(index), x)[0, 0].item() for index in range(4)
    ]
    means = [output * unit.std + unit.mean for output in outputs]
    noise = space.likelihood.noise_std**2 * unit.std**2  # type: ignore[attr-defined]
    spread = sum((mean - sum(means) / 4) ** 2 for mean in means) / 4
    assert row["mean"] == pytest.approx(sum(means) / 4, rel=1e-5)
    assert row["noise_variance"] == pytest.approx(noise, rel=1e-5)
    assert row["model_variance"] == pytest.approx(spread, rel=1e-3)
    assert row["variance"] == pytest.approx(noise + spread, rel=1e-5)
    assert (row["mean_low"], row["mean_high"]) == pytest.approx((min(means), max(means)), rel=1e-5)
    assert row["label_low"] < row["mean_low"] < row["mean"] < row["mean_high"] < row["label_high"]


def test_what_cannot_be_asked_is_told(home: Home, array: Path) -> None:
    words = ("teacher", "predict")
    refused(4, *words, home.space, array, says=("no stream here", "gped-search teacher build"))
    with pytest.raises(StreamError, match="no stream here"):
        gn.load_teacher(home.space)

    np.savez(home.root / "given.npz", log_prob_train=np.full((2, 3, 10), np.log(0.1), np.float32))
    given = (home.space, "--set", "teacher={predictions: given.npz}", array)
    refused(2, *words, *given, says=("known by its predictions alone", "hint: ask a student"))


def test_inputs_and_shares_of_another_kind_are_told(
    finished: Home, array: Path, tmp_path: Path
) -> None:
    words = ("teacher", "predict", finished.space)
    refused(2, *words, array, "--credible", "1", says=("credible: found 1", "such as 0.9"))
    refused(2, *words, tmp_path / "no.npy", says=("no.npy", "no such file"))
    np.save(tmp_path / "long.npy", np.zeros((2, 7), np.float32))
    refused(2, *words, tmp_path / "long.npy", says=("found shape (2, 7)", "(N, 1, 8, 8)"))
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    refused(2, *words, tmp_path / "x.csv", says=("this teacher was not made from one",))

    with pytest.raises(DataError, match=r"found shape \(3, 4\), expected \(N, 1, 8, 8\)"):
        gn.load_teacher(finished.space).predict(np.zeros((3, 4)))
    with pytest.raises(ConfigError, match="credible: found 90"):
        gn.load_teacher(finished.space).predict(np.load(array), credible=90)
