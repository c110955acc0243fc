"""``init`` looks at the data and writes a space that suits them."""

from pathlib import Path

import numpy as np
import pytest

from gped_nas.api import load_dataset, load_space, suggestion
from gped_nas.search.space import SearchSpace
from tests.cli.harness import Home, accepted, refused


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suggestion, "_TRIED_STEPS", 100)


def _policies(space: SearchSpace) -> list[str]:
    return [view["policy"] for view in space.resolved["views"]]


def _write_pictures(side: int, channels: int, *, is_one_sided: bool = False) -> None:
    """Dark and bright pictures; one-sided ones are bright on the left or on the right."""
    draw = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = draw.normal(100, 20, (60, side, side, channels)) + 40 * y[:, None, None, None]
    if is_one_sided:
        x = draw.normal(100, 20, (60, side, side, channels))
        x[y == 0, :, : side // 2] += 80
        x[y == 1, :, side // 2 :] += 80
    np.savez("mine.npz", x_train=x.clip(0, 255).astype(np.uint8), y_train=y)


def test_pictures_get_convolutions_and_views_of_pictures(home: Home) -> None:
    _write_pictures(12, 3)
    out = accepted("init", "mine.yaml", "--data", "mine.npz").out
    assert "pictures of 12 x 12 pixels, 3 channels" in out
    # 60 * 432 bytes, and 44 of 60 pictures as float32
    memory = "memory for inputs  25.3 KiB as they are, up to 74.2 KiB a view as float32"
    assert memory in out and memory in accepted("space", "mine.yaml").out

    space = load_space("mine.yaml")
    assert space.genotype.family == "cnn"
    assert {student.family for student in space.students} == {"cnn"}
    assert _policies(space) == ["flip"] and space.recipe.draw_views == "fresh"
    assert [target.name for target in space.targets] == ["predictive"]
    assert (space.recipe.lr, space.recipe.label_weight) == (0.032, 0.5)
    assert all(genotype["norm"] == "batch" for genotype in space.corners())
    assert space.genotype["norm"] == "none"
    assert space.recipe.warmup == space.recipe.steps / 10
    assert space.recipe.lr == 0.032
    assert space.baseline.seeds == 3
    assert {corner["norm"] for corner in space.corners()} == {"batch"}
    space.check_buildable((3, 12, 12))


def test_one_sided_pictures_are_not_mirrored_and_tiny_ones_not_convolved(home: Home) -> None:
    _write_pictures(8, 1, is_one_sided=True)
    accepted("init", "mine.yaml", "--data", "mine.npz")
    space = load_space("mine.yaml")
    assert space.genotype.family == "mlp"
    assert "flip" not in _policies(space) and space.recipe.draw_views == "once"
    assert [target.name for target in space.targets] == ["predictive", "expected_entropy"]
    assert (space.recipe.lr, space.recipe.label_weight) == (0.016, 0.0)


def test_real_labels_get_a_likelihood(home: Home) -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(100, 2))
    np.savez("mine.npz", x_train=x, y_train=x[:, 0] + 0.1 * draw.normal(size=100))
    out = accepted("init", "mine.yaml", "--data", "mine.npz").out
    assert "labels             real numbers from" in out

    space = load_space("mine.yaml")
    assert space.dataset["task"] == "regression"
    assert space.likelihood.name == "gaussian"
    assert [target.name for target in space.targets] == ["predictive_normal"]
    assert load_dataset(space).task == "regression"


def test_a_table_needs_its_label(home: Home) -> None:
    draw = np.random.default_rng(0)
    rows = [f"{draw.normal(3 * (i % 2)):.2f},{'ab'[i % 2]},{i}" for i in range(80)]
    Path("mine.csv").write_text("\n".join(["length,kind,id", *rows]) + "\n")
    refused(2, "init", "mine.yaml", "--data", "mine.csv", says=("length, kind, id", "--label"))

    words = ("--data", "mine.csv", "--label", "kind", "--set", "dataset.drop=[id]")
    out = accepted("init", "mine.yaml", *words).out
    assert "1 number\n" in out and "2; of train: a 29, b 29" in out
    dataset = load_dataset(load_space("mine.yaml"))
    assert dataset.class_names == ("a", "b") and dataset.input_shape == (1,)


def test_an_ensemble_is_the_teacher(home: Home) -> None:
    _write_pictures(8, 3)
    out = accepted("init", "mine.yaml", "--data", "mine.npz", "--ensemble", "five.npz").out
    assert "known by its predictions" in out
    text = Path("mine.yaml").read_text()
    assert "baseline" not in text, "no network of its size can be trained"
    assert "predictions: five.npz" in text and "policy: flip, answers: clean" in text


def test_only_settings_of_the_dataset_can_be_set(home: Home) -> None:
    refused(2, "init", "mine.yaml", "--set", "recipe.steps=3", says=("recipe.steps", "dataset."))
    assert not Path("mine.yaml").exists()


def test_data_with_nothing_to_learn_are_told(home: Home) -> None:
    draw = np.random.default_rng(0)
    np.savez("mine.npz", x_train=draw.normal(size=(200, 5)), y_train=draw.integers(0, 2, 200))
    assert "nothing was learned" in accepted("init", "mine.yaml", "--data", "mine.npz").out


def test_classes_far_apart_in_size_are_told(home: Home) -> None:
    draw = np.random.default_rng(0)
    y = np.array([0] * 180 + [1] * 20)
    np.savez("mine.npz", x_train=draw.normal(size=(200, 3)) + y[:, None], y_train=y)
    out = accepted("init", "mine.yaml", "--data", "mine.npz").out
    assert "the largest class has 90.3% of the training examples, the smallest 9.7%" in out
