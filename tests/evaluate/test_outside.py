"""Out-of-distribution sets: which inputs they give, what is no set, and how a space calls them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.data.base import Dataset, Part, Split, build, load
from gped_nas.errors import ConfigError, DataError, GpedError
from gped_nas.evaluate.condition_names import parse_conditions
from gped_nas.evaluate.outside import Inside, Outside, detection_labels
from gped_nas.evaluate.outside_names import parse_outside, parse_outsides
from gped_nas.evaluate.predictions import NormalPredictions, PosteriorSamples, Predictions, joined
from gped_nas.evaluate.uncertainty import auroc

PARTS: tuple[Part, Part] = ("validation", "test")


def dataset_of(raw: Tensor) -> Dataset:
    labels = torch.arange(len(raw)) % 2
    return build(
        "mine",
        Split(raw, labels),
        class_names=("a", "b"),
        test=0.25,
        validation=1 / 3,
        seed=0,
        where="mine",
    )


def pictures(num: int = 80, side: int = 6, seed: int = 0) -> Tensor:
    raw = torch.rand((num, 1, side, side), generator=rng.generator(seed, "pictures"))
    return (255 * raw).to(torch.uint8)


MINE = dataset_of(pictures())
TABLE = dataset_of(
    torch.rand((80, 3), generator=rng.generator(0, "rows")) * torch.tensor([1, 5, 0])
)


def outside_of(entry: Any) -> Outside:
    (outside,) = parse_outsides([entry], "f")
    return outside


def inputs(entry: Any, dataset: Dataset = MINE, part: Part = "validation", seed: int = 0) -> Tensor:
    nobody: Any = None
    inside = Inside(dataset, part, dataset.raw(part), dataset.labels(part), seed)
    return outside_of(entry).inputs(inside, nobody)


def write_npz(folder: Path, **arrays: Any) -> dict[str, Any]:
    """A set of the arrays of an npz."""
    np.savez(folder / "other.npz", **arrays)
    return {"other": {"path": str(folder / "other.npz")}}


def rows_of(raw: Tensor) -> set[bytes]:
    return {row.tobytes() for row in raw.float().numpy()}


def test_noise_is_uniform_over_the_range_of_the_data() -> None:
    noise = inputs("noise")
    assert noise.shape == MINE.raw("validation").shape and noise.dtype == torch.float32
    assert 0 <= float(noise.min()) < 3 and 252 < float(noise.max()) <= 255
    assert float(noise.mean()) == pytest.approx(127.5, abs=10)
    assert torch.equal(noise, inputs("noise")) and not torch.equal(noise, inputs("noise", seed=1))

    rows, train = inputs("noise", TABLE), TABLE.train.x
    assert bool((rows >= train.amin(0)).all()) and bool((rows <= train.amax(0)).all())
    assert rows.amax(0).tolist() == pytest.approx(train.amax(0).tolist(), rel=0.3)
    assert rows.amin(0).tolist() == pytest.approx(train.amin(0).tolist(), abs=0.5)


def test_rotated_pictures_are_turned_by_quarters() -> None:
    raw, turned = MINE.raw("validation").float(), inputs("rotated")
    quarters = []
    for before, after in zip(raw, turned, strict=True):
        fits = [k for k in range(4) if torch.equal(before.rot90(k, (1, 2)), after)]
        quarters += fits
    assert set(quarters) == {1, 2, 3} and len(quarters) == len(raw)

    wide = dataset_of(pictures()[:, :, :4])
    assert torch.equal(inputs("rotated", wide), wide.raw("validation").float().flip((2, 3)))


def test_a_condition_gives_the_inputs_that_it_gives_otherwise() -> None:
    """By its text, by its settings, or by the name that the space has for it."""
    conditions = parse_conditions({"shaky": {"name": "noise", "std": 0.2}}, "f")
    nobody: Any = None
    for entry, condition in (
        ("noise-0.2", parse_conditions(["clean", "noise-0.2"], "f")[1]),
        ("shaky", conditions[1]),
    ):
        expected = condition.apply(
            MINE.raw("test"),
            predictor=nobody,
            labels=MINE.labels("test"),
            generator=rng.generator(3, "condition", condition.name, "test"),
            scale=MINE.scale,
        )
        inside = Inside(MINE, "test", MINE.raw("test"), MINE.labels("test"), 3)
        given = parse_outside(entry, "f", conditions).inputs(inside, nobody)
        assert torch.equal(given, expected)

    by_settings = inputs({"mine": {"condition": {"name": "noise", "std": 0.2}}})
    assert float((by_settings - MINE.raw("validation")).abs().max()) > 60
    assert outside_of({"mine": {"condition": "blur-1"}}).condition is not None


class _Network:
    """Two random layers, asked as a predictor of three classes."""

    def networks(self) -> Iterator[Any]:
        yield 1.0, self.log_prob

    def predict(self, raw: Tensor) -> Predictions:
        return Predictions(self.log_prob(raw).double().numpy())

    def log_prob(self, raw: Tensor) -> Tensor:
        generator = rng.generator(0, "network")
        first = torch.randn((36, 30), generator=generator) / 6
        second = torch.randn((30, 3), generator=generator)
        return ((raw.flatten(1) / 64 - 2) @ first).tanh().matmul(second).log_softmax(-1)


def test_an_adversary_who_knows_the_detector_is_noticed_less() -> None:
    raw, network = MINE.raw("validation"), _Network()
    inside = network.predict(raw)
    found = {}
    for name in ("pgd", "sly"):
        condition = {"name": name, "epsilon": 0.05, "steps": 20}
        outside = outside_of({"attacked": {"condition": condition}})
        attacked = outside.inputs(Inside(MINE, "validation", raw, inside.answer_N, 0), network)
        assert float((attacked - raw.float()).abs().max()) <= 0.05 * 255 + 1e-3

        at_set = network.predict(attacked)
        assert (at_set.answer_N != inside.answer_N).mean() > 0.5
        found[name] = auroc(inside.entropy_N, at_set.entropy_N)
    assert found["sly"] < found["pgd"] - 0.01


def test_a_dataset_gives_its_part_of_the_same_name(tmp_path: Path) -> None:
    other = pictures(60, seed=1)
    np.savez(tmp_path / "set.npz", x_train=other.numpy(), y_train=np.arange(60) % 2)
    path = str(tmp_path / "set.npz")
    settings = {"name": "npz", "path": path, "layout": "channels_first", "validation": 0.5}
    theirs = load(dict(settings))

    for part in PARTS:
        given = inputs({"theirs": {"dataset": settings}}, part=part)
        num = min(len(theirs.split(part)), len(MINE.split(part)))
        assert len(given) == num
        assert rows_of(given) <= rows_of(theirs.raw(part))


def test_a_file_gives_one_half_to_each_part_by_the_seed(tmp_path: Path) -> None:
    other = pictures(30, seed=1)
    entry = write_npz(tmp_path, x=other.numpy())

    halves = [inputs(entry, part=part) for part in PARTS]
    assert [len(half) for half in halves] == [15, 15]
    assert rows_of(halves[0]) | rows_of(halves[1]) == rows_of(other)
    assert torch.equal(halves[0], inputs(entry))
    assert rows_of(inputs(entry, seed=1)) != rows_of(halves[0])

    many = write_npz(tmp_path, x=pictures(200, seed=2).numpy())
    assert len(inputs(many)) == len(MINE.validation)


def test_files_come_to_the_range_that_is_said(tmp_path: Path) -> None:
    (other,) = write_npz(tmp_path, x=pictures(30, seed=1).numpy() / np.float32(510)).items()
    name, settings = other
    assert float(inputs({name: settings}).max()) > 250
    told = {**settings, "value_range": [0, 1], "resize": "stretch"}
    assert float(inputs({name: told}).max()) == pytest.approx(127, abs=2)


def test_inputs_of_the_dataset_itself_are_left_out(tmp_path: Path) -> None:
    own = [MINE.raw(part)[:3] for part in ("train", "validation", "test")]
    mixed = torch.cat([*own, pictures(31, seed=1)])
    entry = write_npz(tmp_path, x=mixed.numpy())
    kept = rows_of(inputs(entry)) | rows_of(inputs(entry, part="test"))
    assert kept == rows_of(mixed[9:])


def test_the_data_itself_is_known_in_another_range_too(tmp_path: Path) -> None:
    """Rounded, and in shares of a range that is not quite the whole one."""
    shares = (MINE.train.x / np.float32(260)).numpy().round(3)
    with pytest.raises(DataError, match="inputs that dataset 'mine' holds itself"):
        inputs(write_npz(tmp_path, x=shares))

    # a picture that is near one of them is another one
    shifted = MINE.train.x.float().roll(1, 3) + pictures(len(MINE.train), seed=3) / 10
    assert len(inputs(write_npz(tmp_path, x=shifted.numpy()))) == len(MINE.validation)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_set_that_is_the_data_itself_is_refused(tmp_path: Path, part: Part) -> None:
    outside = outside_of(write_npz(tmp_path, x=MINE.raw(part).float().numpy()))
    with pytest.raises(DataError) as refused:
        outside.check(MINE, 0, "f: ood")
    num = len(MINE.split(part)) // 2
    assert str(refused.value) == (
        f"f: ood: ood 'other': found {num} of {num} inputs that dataset 'mine' holds itself, "
        "expected inputs from outside; take another set"
    )


@pytest.mark.parametrize(
    ("entry", "dataset", "message"),
    [
        ("clean", MINE, "ood 'clean': found the data itself, expected inputs from outside"),
        ("rotated", TABLE, "ood 'rotated': found inputs of shape (3,), expected pictures"),
        (
            "blur-1",
            TABLE,
            "ood 'blur-1': condition 'blur-1': found inputs of shape (3,), expected pictures",
        ),
        (
            "mask-9",
            MINE,
            "ood 'mask-9': condition 'mask-9': found size 9, expected at most 6 pixels",
        ),
        ("diabetes", MINE, "ood 'diabetes': found inputs of shape (10,), expected (1, 6, 6)"),
        ("digits", TABLE, "ood 'digits': found inputs of shape (1, 8, 8), expected (3,)"),
        ("npz", MINE, "ood: npz: path: missing; give it a value"),
        ({"mine": {"path": "nowhere.npz"}}, MINE, "nowhere.npz: no such file"),
    ],
)
def test_what_is_no_set_beside_the_data_is_told_before_any_work(
    entry: Any, dataset: Dataset, message: str
) -> None:
    outside = outside_of(entry)
    with pytest.raises(GpedError) as checked:
        outside.check(dataset, 0, "f: ood")
    assert str(checked.value).startswith(f"f: ood: {message}")
    with pytest.raises(GpedError) as asked:
        inputs(entry, dataset)
    condition_says = message.removeprefix(f"ood '{entry}': ") if "condition" in message else message
    assert str(asked.value).startswith(condition_says)


def test_a_space_gets_back_what_it_lists(tmp_path: Path) -> None:
    path = {"mine": {"path": "other.npz", "resize": "stretch"}}
    entries = ["noise", "permuted", "blur-2", "fashion_mnist", path]
    sets = parse_outsides(entries, "f")
    assert [outside.name for outside in sets] == [*entries[:4], "mine"]
    written = [outside.to_json() for outside in sets]
    assert written == entries
    assert parse_outsides(written, "f") == sets

    (by_mapping,) = parse_outsides(path, "f")
    assert by_mapping == sets[-1]


def test_what_goals_name_is_added_and_is_not_listed() -> None:
    asked = [("permuted", "f: objectives: x"), ("rotated", "f: constraints: y")]
    sets = parse_outsides(["permuted"], "f", asked=asked)
    assert [(outside.name, outside.is_listed) for outside in sets] == [
        ("permuted", True),
        ("rotated", False),
    ]
    with pytest.raises(GpedError, match="^f: constraints: y: unknown set 'rotatd'; did you mean"):
        parse_outsides([], "f", asked=[("rotatd", "f: constraints: y")])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (3, "f: found 3, expected a list of sets"),
        (None, "f: found None, expected a list of sets"),
        ("permuted", "f: found 'permuted', expected a list of sets"),
        (["noise", "noise"], "f: found ['noise', 'noise'], expected none twice"),
        ([3], "f[0]: found 3, expected the name of a set"),
        (["fashion_mnst"], "f[0]: unknown set 'fashion_mnst'; did you mean 'fashion_mnist'"),
        (["blur-wide"], "f[0]: found 'blur-wide', expected a number after 'blur-'"),
        (["rotated-30"], "f[0]: unknown set 'rotated-30'"),
        ([{}], "f[0]: found {}, expected one name with its settings"),
        ([{"a": {}, "b": {}}], "f[0]: found {'a': {}, 'b': {}}, expected one name"),
        ({"mine": None}, "f.mine: found None, expected a mapping of settings"),
        ({"mine": {}}, "f.mine: found none of them, expected one of path, dataset and condition"),
        (
            {"mine": {"path": "a.npz", "condition": "blur-1"}},
            "f.mine: found path and condition, expected one of path, dataset and condition",
        ),
        ({"mine": {"pth": "a.npz"}}, "f.mine: pth: unknown key; did you mean 'path'"),
        ({"mine": {"path": 3}}, "f.mine: path: found 3, expected a valid string"),
        ({"mine": {"dataset": {"nme": "x"}}}, "f.mine: dataset: name: found None, expected the"),
        (
            {"mine": {"dataset": {"name": "digts"}}},
            "f.mine: dataset: name: unknown dataset 'digts'",
        ),
        ({"mine": {"dataset": "digits"}}, "f.mine: dataset: found 'digits', expected a valid dict"),
        ({"mine": {"condition": "blr-1"}}, "f.mine: condition: unknown condition 'blr'"),
        ({"mine": {"condition": {"std": 1}}}, "f.mine: condition.mine: name: found None"),
        ({"mine": {"path": "a.npz", "resize": "cut"}}, "f.mine: resize: found 'cut'"),
        (
            {"mine": {"path": "a.npz", "value_range": [1, 0]}},
            "f.mine: value_range: expected the smallest value first",
        ),
        ({"noise": {"path": "a.npz"}}, "f: found the name 'noise', which means a set by itself"),
        ({"blur-9": {"path": "a.npz"}}, "f: found the name 'blur-9', which means a set by itself"),
        ({"digits": {"path": "a.npz"}}, "f: found the name 'digits', which means a set by itself"),
        ({"a@b": {"path": "a.npz"}}, "f: found the name 'a@b', expected a letter"),
    ],
)
def test_wrong_lists_are_told(entries: Any, message: str) -> None:
    with pytest.raises(GpedError) as refused:
        parse_outsides(entries, "f")
    assert str(refused.value).startswith(message)


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    keys = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / folder).mkdir()
        entry = write_npz(tmp_path / folder, x=pictures(30, seed=seed).numpy())
        keys.append(outside_of(entry).key())
    assert keys[0] == keys[1] != keys[2]
    assert outside_of("noise").key() == ["noise"]
    with pytest.raises(ConfigError):
        parse_outsides("noise", "f")


def test_predictions_inside_and_outside_are_joined() -> None:
    def of(rows: list[list[float]]) -> Predictions:
        log_prob = np.log(np.array(rows))
        samples = PosteriorSamples(torch.from_numpy(log_prob)[None], torch.ones(1))
        return Predictions(log_prob, {"expected_entropy": np.full(len(rows), 0.1)}, (), samples)

    both = joined(of([[0.9, 0.1], [0.5, 0.5]]), of([[0.2, 0.8]]))
    assert isinstance(both, Predictions) and both.samples is not None
    assert np.exp(both.log_prob_NC[:, 0]).tolist() == pytest.approx([0.9, 0.5, 0.2])
    assert both.mutual_information_N == pytest.approx(both.entropy_N - 0.1)
    assert both.samples.predicted_SNG.shape == (1, 3, 2)

    real = joined(NormalPredictions(np.ones(2), np.ones(2)), NormalPredictions([0.0], [3.0]))
    assert isinstance(real, NormalPredictions)
    assert real.variance_N.tolist() == [1, 1, 3]

    for is_real, kind in ((False, "i"), (True, "f")):
        labels = detection_labels(2, 1, is_real=is_real)
        assert labels.tolist() == [0, 0, 1] and labels.dtype.kind == kind
