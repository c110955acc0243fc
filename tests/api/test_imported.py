"""An ensemble that one already has: what students may learn from, and the inputs that it sees."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gped_nas.api import SearchSpace, load_dataset, load_space, run
from gped_nas.api.lessons import distillation_set
from gped_nas.api.plan import plan
from gped_nas.api.sampling import as_networks_see
from gped_nas.api.session import Session
from gped_nas.api.teacher import build_teacher
from gped_nas.data.base import Dataset
from gped_nas.errors import ConfigError, DataError
from gped_nas.stream.reader import Stream
from tests.cli.harness import Home

MEMBERS, CLASSES = 3, 10


def write_predictions(dataset: Dataset, parts: tuple[str, ...]) -> np.ndarray:
    """Random class probabilities at the raw inputs of some parts, (S, M, C), written to a file."""
    raw = torch.cat([dataset.raw(part) for part in parts]).numpy()  # type: ignore[arg-type]
    prob = np.random.default_rng(0).dirichlet(np.ones(CLASSES), size=(MEMBERS, len(raw)))
    np.savez("ensemble.npz", inputs=raw, prob=prob, weight=np.array([3.0, 1.0, 1.0]))
    return prob


@pytest.mark.parametrize(
    "parts", [("train", "validation", "test"), ("test", "validation", "train")]
)
def test_students_learn_from_no_validation_and_no_test_input(
    home: Home, parts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    space = load_space(
        home.space,
        {"teacher.method": {"name": "import", "path": "ensemble.npz", "at_chance": True}},
    )
    dataset = load_dataset(space)
    prob_SMC = write_predictions(dataset, parts)

    teacher = build_teacher(space, Session(), dataset=dataset)
    reads = []
    imported = Stream.imported
    monkeypatch.setattr(Stream, "imported", lambda self: reads.append(1) or imported(self))
    data = distillation_set(teacher)
    assert len(reads) == 1, "an import may be large"

    held_out = torch.cat([dataset.inputs("validation"), dataset.inputs("test")])
    held_out_bytes = {row.numpy().tobytes() for row in held_out}
    assert not held_out_bytes & {row.numpy().tobytes() for row in data.inputs}
    assert torch.equal(data.inputs, dataset.inputs("train"))

    start = sum(len(dataset.raw(part)) for part in parts[: parts.index("train")])  # type: ignore[arg-type]
    train_rows = slice(start, start + len(dataset.train))
    expected = np.tensordot([0.6, 0.2, 0.2], prob_SMC[:, train_rows], 1)
    np.testing.assert_allclose(data.expectations["predictive"].numpy(), expected, atol=1e-6)


def test_pictures_are_moved_under_the_answers_at_the_untouched_ones(home: Home) -> None:
    """Views of an ensemble that is known by its predictions alone."""
    flip = {"policy": ["flip", {"name": "shift", "pixels": 1}], "draws": 2, "answers": "clean"}
    space = load_space(
        home.space,
        {
            "teacher.method": {"name": "import", "path": "ensemble.npz", "at_chance": True},
            "views": [{"policy": "clean"}, flip],
        },
    )
    dataset = load_dataset(space)
    prob_SMC = write_predictions(dataset, ("validation", "train"))

    data = distillation_set(build_teacher(space, Session(), dataset=dataset))

    train = dataset.inputs("train")
    assert torch.equal(data.inputs, torch.cat([view.move(train) for view in space.views]))
    assert not torch.equal(data.inputs[len(train) : 2 * len(train)], train)
    answers = np.tensordot([0.6, 0.2, 0.2], prob_SMC[:, len(dataset.validation) :], 1)
    expected = np.concatenate([answers] * 3)
    np.testing.assert_allclose(data.expectations["predictive"].numpy(), expected, atol=1e-6)

    assert data.samples is not None
    index = torch.tensor([5, 5 + len(train), 5 + 2 * len(train)])
    log_prob = data.samples.at(torch.tensor([1, 1, 1]), index)
    assert torch.equal(log_prob[0], log_prob[1]) and torch.equal(log_prob[0], log_prob[2])


def test_steps_can_move_imported_pictures(home: Home) -> None:
    space = load_space(
        home.space,
        {
            "teacher.method": {"name": "import", "path": "ensemble.npz", "at_chance": True},
            "views": [{"policy": "flip", "answers": "clean"}],
            "recipe.draw_views": "fresh",
        },
    )
    dataset = load_dataset(space)
    write_predictions(dataset, ("validation", "train", "test"))

    data = distillation_set(build_teacher(space, Session(), dataset=dataset))
    assert torch.equal(data.inputs, dataset.inputs("train"))
    assert data.fresh is not None and data.fresh.ask is None


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ({"policy": "flip"}, "policy 'flip' .*; set answers: clean in this view"),
        (
            {"policy": ["flip", "mixup"]},
            "policy 'flip.mixup' .*; bring its predictions at such inputs in the file",
        ),
        ({"policy": "pool"}, "policy 'pool' .* at the pool alone"),
    ],
)
def test_views_without_answers_in_the_file_are_refused(
    home: Home, view: dict[str, object], message: str
) -> None:
    space = load_space(
        home.space,
        {
            "teacher.method": {"name": "import", "path": "ensemble.npz", "at_chance": True},
            "views": [view],
        },
    )
    dataset = load_dataset(space) if view["policy"] != "pool" else None
    with_pool = dataset or replace(
        load_dataset(replace(space, views=())), unlabeled=torch.zeros((3, 1, 8, 8))
    )
    write_predictions(with_pool, ("train", "validation"))
    with pytest.raises(ConfigError, match=message):
        build_teacher(space, Session(), dataset=with_pool)


def test_predictions_at_held_out_inputs_alone_teach_nothing_and_leave_no_study(home: Home) -> None:
    space = load_space(
        home.space,
        {"teacher.method": {"name": "import", "path": "ensemble.npz", "at_chance": True}},
    )
    dataset = load_dataset(space)
    write_predictions(dataset, ("validation", "test"))
    with pytest.raises(DataError, match="all at validation or test inputs"):
        run(space, out=home.out)
    assert home.study.is_dir() and not (home.study / "study.db").exists()


def test_an_ensemble_sees_inputs_as_it_was_trained_on_them(home: Home) -> None:
    """Linear members see (raw - 3) / 7, whatever the dataset's own normalization is."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn((MEMBERS, CLASSES, 64), generator=generator)
    bias = torch.randn((MEMBERS, CLASSES), generator=generator)
    save_file({"0.weight": weight, "0.bias": bias}, "ensemble.safetensors")
    method = {
        "name": "import",
        "path": "ensemble.safetensors",
        "input_mean": 3.0,
        "input_std": 7.0,
        "at_chance": True,
    }
    space = load_space(home.space, {"teacher.genotype": {"depth": 0}, "teacher.method": method})
    dataset = load_dataset(space)
    assert (dataset.normalization.mean, dataset.normalization.std) != (3.0, 7.0)

    teacher = build_teacher(space, Session(), dataset=dataset)
    predicted = teacher.predicted("validation")

    x = (dataset.raw("validation").flatten(1).double() - 3) / 7
    expected = (x @ weight.double().mT + bias.double()[:, None]).log_softmax(-1)
    torch.testing.assert_close(predicted.double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "asked",
    [
        {"objectives": ["kl_to_teacher@permuted", "params"]},
        {"constraints": {"kl_to_teacher@permuted": 5.0}},
    ],
)
def test_nobody_is_compared_under_a_condition_with_predictions_alone(
    home: Home, asked: dict[str, object]
) -> None:
    method = {"name": "import", "path": "ensemble.npz", "at_chance": True}
    changes = {"teacher.method": method, "conditions": ["clean", "permuted"], **asked}
    space = load_space(home.space, changes)
    write_predictions(load_dataset(space), ("train", "validation"))

    with pytest.raises(ConfigError, match="known by its predictions alone"):
        run(space, out=home.out)

    assert not (home.study / "study.db").exists()


def color_space(home: Home, mean: object, std: object) -> SearchSpace:
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, size=(60, 8, 9, 3)).astype(np.uint8)
    np.savez("color.npz", x_train=x, y_train=np.arange(60) % 2)
    method = {"name": "import", "path": "e.safetensors", "input_mean": mean, "input_std": std}
    dataset = {"name": "npz", "path": "color.npz", "normalize": "channels"}
    return load_space(home.space, {"dataset": dataset, "teacher.method": method})


def test_each_channel_is_seen_by_its_own_mean_and_deviation(home: Home) -> None:
    mean, std = [123.7, 116.3, 103.5], [58.4, 57.1, 57.4]
    space = color_space(home, mean, std)
    dataset = load_dataset(space)

    seen = as_networks_see(space, dataset, dataset.inputs("train"))

    raw = dataset.raw("train").double()
    expected = (raw - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(seen.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([1.0, 2.0], [1.0, 1.0], "found 2 numbers, expected one, or 3"),
        ([1.0, 2.0, 3.0], 1.0, "expected as many numbers in both"),
        ([1.0, 2.0, 3.0], [1.0, 0.0, 1.0], "input_std"),
    ],
)
def test_means_that_are_not_those_of_the_channels_are_refused(
    home: Home, mean: object, std: object, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        space = color_space(home, mean, std)
        dataset = load_dataset(space)
        as_networks_see(space, dataset, dataset.inputs("train"))


@pytest.mark.parametrize("layout", ["last", "first"])
def test_predictions_come_in_either_layout_and_a_plan_says_which(home: Home, layout: str) -> None:
    color_space(home, 0.0, 1.0)
    with np.load("color.npz") as arrays:
        x = arrays["x_train"]
    inputs = x if layout == "last" else x.transpose(0, 3, 1, 2)
    np.savez("ensemble.npz", inputs=inputs, prob=np.full((2, 60, 2), 0.5))
    teacher = {"predictions": "ensemble.npz", "at_chance": True}
    dataset = {"name": "npz", "path": "color.npz", "normalize": "channels"}
    space = load_space(home.space, {"dataset": dataset, "teacher": teacher})
    planned = plan(space, Session())
    assert "2 members at 60 inputs" in planned["teacher"]
    assert planned["inputs of the file"].endswith(f"3 channels, which come {layout}")
