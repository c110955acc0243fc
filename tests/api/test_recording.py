"""A live ensemble written down: what is asked of its members, and the file that comes of it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gped_nas as gn
from gped_nas.api import recording
from gped_nas.api.copies import Policies
from gped_nas.api.lessons import distillation_set
from gped_nas.api.session import Session
from gped_nas.api.teacher import build_teacher
from gped_nas.config import dump_yaml, read_yaml
from gped_nas.errors import ConfigError, DamageError, DataError, GpedError, Interrupted
from gped_nas.posterior.imported import read_predictions
from gped_nas.posterior.shards import Shards
from tests.cli.harness import Home, accepted, refused

CLASSES = 10


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "recorded"
    folder.mkdir()
    monkeypatch.chdir(folder)


class Linear(nn.Module):
    """A member that reads raw pictures of the digits, whatever their dtype."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(0.05 * torch.randn((CLASSES, 64), generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1).float() @ self.weight.mT).log_softmax(-1)


def members() -> list[Linear]:
    return [Linear(seed).eval() for seed in range(3)]


def pictures(num: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 17, size=(num, 8, 8), dtype=np.uint8)


def asked(models: list[Linear], inputs: np.ndarray) -> np.ndarray:
    """What a plain loop gets: (S, M, C)."""
    with torch.no_grad():
        return torch.stack([model(torch.from_numpy(inputs)) for model in models]).numpy()


def test_a_plain_loop_writes_the_same_arrays() -> None:
    models, inputs = members(), pictures()
    out = gn.record_predictions(models, inputs, out="three.npz", weights=[1, 2, 3], batch_size=7)
    with np.load(out) as arrays:
        assert arrays["inputs"].dtype == np.uint8
        np.testing.assert_array_equal(arrays["inputs"], inputs)
        np.testing.assert_allclose(arrays["log_prob"], asked(models, inputs), atol=1e-6)
        np.testing.assert_array_equal(arrays["weight"], [1, 2, 3])
        np.testing.assert_array_equal(arrays["origin"], np.arange(40))


def test_shards_and_npz_hold_the_same_and_are_written_in_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = members()
    np.save("inputs.npy", pictures())
    mapped = np.load("inputs.npy", mmap_mode="r")
    shard_rows = 6
    monkeypatch.setattr(recording, "SHARD_BYTES", shard_rows * (64 + 4 * 3 * 10))
    largest = 0
    real = recording.as_tensor

    def watched(rows: Tensor | np.ndarray) -> Tensor:
        nonlocal largest
        largest = max(largest, len(rows))
        return real(rows)

    monkeypatch.setattr(recording, "as_tensor", watched)

    gn.record_predictions(models, mapped, out="three.npz")
    gn.record_predictions(models, mapped, out="three")

    assert largest == shard_rows
    assert Shards(Path("three")).num_shards == 7  # 40 inputs, 6 a shard
    one, other = (read_predictions(Path(name), CLASSES) for name in ("three.npz", "three"))
    assert other.inputs.dtype == torch.uint8
    for name in ("inputs", "log_prob_SMC", "weight_S", "origin_M"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert sorted(path.name for path in Path().iterdir()) == ["inputs.npy", "three", "three.npz"]


def test_the_same_answers_make_the_same_bytes() -> None:
    first = gn.record_predictions(members(), pictures(), out="first.npz").read_bytes()
    assert gn.record_predictions(members(), pictures(), out="second.npz").read_bytes() == first


def given_space(home: Home, predictions: str) -> Path:
    data = read_yaml(home.space)
    del data["views"]
    data["teacher"] = {"predictions": predictions, "name": "three linear", "at_chance": True}
    home.space.write_text(dump_yaml(data))
    return home.space


@pytest.mark.parametrize("out", ["three.npz", "three"])
def test_a_dataset_is_recorded_and_its_students_learn_what_the_members_say(
    home: Home, out: str
) -> None:
    space = gn.load_space(given_space(home, out))
    dataset = gn.load_dataset(space)
    models = members()
    gn.record_predictions(models, dataset, out=out)

    data = distillation_set(build_teacher(space, Session(), dataset=dataset))

    assert torch.equal(data.inputs, dataset.inputs("train"))
    expected = np.exp(asked(models, dataset.raw("train").numpy())).mean(0)
    np.testing.assert_allclose(data.expectations["predictive"].numpy(), expected, atol=1e-6)
    planned = accepted("run", space.source, "--out", home.out, "--dry-run").out
    assert "three linear, known by its predictions, 3 members at 1,797 inputs" in planned


def test_a_damaged_shard_is_refused_and_a_moved_folder_is_the_same_teacher(home: Home) -> None:
    space = given_space(home, "three")
    gn.record_predictions(members(), gn.load_dataset(gn.load_space(space)), out="three")
    build = ("teacher", "build", space)
    folder = accepted(*build).out
    shutil.move("three", "moved")
    moved = ("--set", "teacher.predictions=moved")
    assert accepted(*build, *moved).out == folder

    shard = Path("moved/log_prob-000000.npy")
    data = bytearray(shard.read_bytes())
    data[-3] ^= 1
    shard.write_bytes(data)
    shutil.rmtree(home.cache)
    refused(4, *build, *moved, says=("log_prob-000000.npy: found SHA-256", "record the"))


def test_copies_of_inputs_that_students_are_measured_on_teach_nothing(home: Home) -> None:
    space = gn.load_space(given_space(home, "three.npz"))
    dataset = gn.load_dataset(space)
    raw = torch.cat([dataset.raw(part) for part in ("validation", "train", "test")]).numpy()
    mirrored = raw[:, :, :, ::-1].copy()
    log_prob = asked(members(), np.concatenate([raw, mirrored]))
    origin = np.tile(np.arange(len(raw)), 2)
    np.savez("three.npz", inputs=np.concatenate([raw, mirrored]), log_prob=log_prob, origin=origin)

    data = distillation_set(build_teacher(space, Session(), dataset=dataset))

    train = dataset.inputs("train")
    assert torch.equal(data.inputs, torch.cat([train, train.flip(-1)]))


@pytest.mark.parametrize("origin", [np.arange(1797) - 2, np.zeros(3, int), np.zeros(1797)])
def test_origins_that_are_no_rows_are_refused(origin: np.ndarray) -> None:
    inputs = np.zeros((1797, 64), np.float32)
    prob = np.full((1, 1797, CLASSES), 0.1)
    np.savez("three.npz", inputs=inputs, prob=prob, origin=origin)
    with pytest.raises(DataError, match="origin: found shape .*row numbers"):
        read_predictions(Path("three.npz"), CLASSES)


def color_pictures(num: int = 30) -> np.ndarray:
    """Random pictures of 3 colors, channels last, no row or column like another one."""
    return np.random.default_rng(1).integers(0, 256, size=(num, 6, 5, 3), dtype=np.uint8)


def first_three(x: Tensor) -> Tensor:
    return x.float().flatten(1)[:, :3].log_softmax(-1)


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_copies_of_pictures_stay_bytes_and_name_their_origin(layout: str) -> None:
    raw = color_pictures()
    width = 2
    if layout == "channels_first":
        raw, width = np.ascontiguousarray(raw.transpose(0, 3, 1, 2)), 3
    policy = {"policy": "flip", "draws": 2}
    gn.record_predictions(first_three, raw, out="flipped.npz", policy=policy)

    with np.load("flipped.npz") as arrays:
        inputs, origin, log_prob = arrays["inputs"], arrays["origin"], arrays["log_prob"]
    assert inputs.dtype == np.uint8 and inputs.shape == (90, *raw.shape[1:])
    np.testing.assert_array_equal(inputs[:30], raw)
    np.testing.assert_array_equal(origin, np.tile(np.arange(30), 3))
    mirrored = np.flip(raw, width)
    is_mirrored = np.array([not np.array_equal(inputs[i], raw[i % 30]) for i in range(90)])
    for i in np.flatnonzero(is_mirrored):
        np.testing.assert_array_equal(inputs[i], mirrored[i % 30])
    assert 5 < is_mirrored[30:60].sum() < 25
    assert (is_mirrored[30:60] != is_mirrored[60:]).any()
    np.testing.assert_allclose(
        log_prob[0], first_three(torch.from_numpy(inputs)).numpy(), atol=1e-6
    )


def test_both_layouts_are_moved_alike() -> None:
    policy = [{"policy": "shift", "pixels": 1}, {"policy": ["flip", "erase"]}]
    raw = color_pictures()
    written = {}
    for name, array in {"last": raw, "first": raw.transpose(0, 3, 1, 2).copy()}.items():
        gn.record_predictions(first_three, array, out=f"{name}.npz", policy=policy)
        with np.load(f"{name}.npz") as arrays:
            written[name] = arrays["inputs"]
    np.testing.assert_array_equal(written["last"], written["first"].transpose(0, 2, 3, 1))


def test_of_a_dataset_only_what_students_learn_from_is_moved(home: Home) -> None:
    space = gn.load_space(given_space(home, "moved"))
    dataset = gn.load_dataset(space)
    policy = [{"policy": "flip", "probability": 1.0}, {"policy": "mixup"}]
    gn.record_predictions(members(), dataset, out="moved", policy=policy)

    num_train = len(dataset.train)
    shards = Shards(Path("moved"))
    assert shards.shape("inputs")[0] == 3 * num_train + len(dataset.validation) + len(dataset.test)
    data = distillation_set(build_teacher(space, Session(), dataset=dataset))
    train = dataset.inputs("train")
    assert len(data.inputs) == 3 * num_train
    torch.testing.assert_close(data.inputs[num_train : 2 * num_train], train.flip(-1))
    origin = shards.joined("origin")
    assert (origin[2 * num_train : 3 * num_train] == -1).all() and (origin == -1).sum() == num_train


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"policy": "clean"}, r"policy\[0\]: found 'clean', which moves nothing"),
        ({"policy": "flip", "answers": "clean"}, r"answers: found clean, expected own"),
        ({"policy": "disagreement"}, "asks for gradients of posterior samples"),
        ([{"policy": "flip"}, {"policy": "mixup"}], r"policy\[1\]: .*give the dataset"),
        ({"policy": "shift", "pixels": 5}, "expected fewer than 5"),
    ],
)
def test_policies_that_are_none_for_the_inputs_are_refused(policy: Policies, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gn.record_predictions(first_three, color_pictures(), out="bad.npz", policy=policy)
    assert list(Path().iterdir()) == []


def answering(answer: Callable[[Tensor], object]) -> Callable[[Tensor], Tensor]:
    """A callable that gives what it likes for log-probabilities of three classes."""

    def model(x: Tensor) -> Tensor:
        logits = x.float().flatten(1)[:, :3]
        return answer(logits)  # type: ignore[return-value]

    return model


MISUSES: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "logits": (lambda z: z - 3, r"models\[0\]: found logits \(.*return model\(x\).log_softmax"),
    "probabilities": (lambda z: z.softmax(-1), "found probabilities, .*; return model"),
    "negative logits": (lambda z: z - 100, "not normalized: .* sum to"),
    "sigmoids": (lambda z: z.sigmoid(), "found logits"),
    "not finite": (lambda z: z / 0 * 0, "not finite"),
    "another shape": (lambda z: z.log_softmax(-1)[0], r"shape \(3,\) to 40 inputs"),
    "no tensor": (lambda z: {"logits": z}, "type dict, expected a tensor"),
    "an error of its own": (
        lambda z: z @ torch.eye(7),
        r"models\[0\]: RuntimeError: mat1 and .* at inputs of shape \(40, .*; give 'prepare'",
    ),
    "dropout": (lambda z: torch.rand_like(z).log_softmax(-1), "asked twice, .* differ by up to"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_answers_that_are_no_log_probabilities_are_named(misuse: str) -> None:
    answer, message = MISUSES[misuse]
    with torch.random.fork_rng(), pytest.raises(DataError, match=message):
        gn.record_predictions(answering(answer), pictures(), out="bad.npz")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda raw: raw.nope, "prepare: AttributeError: .* at inputs of shape"),
        (lambda raw: None, "prepare: found NoneType, expected a tensor"),
    ],
)
def test_what_prepares_wrongly_is_named(prepare: Callable[[Tensor], Tensor], message: str) -> None:
    model = answering(lambda z: z.log_softmax(-1))
    with pytest.raises(DataError, match=message):
        gn.record_predictions(model, pictures(), prepare=prepare, out="bad.npz")


def test_models_that_cannot_be_members_are_refused() -> None:
    fine = answering(lambda z: z.log_softmax(-1))
    cases: list[tuple[object, type[GpedError], str]] = [
        ([], ConfigError, "found none"),
        ([3], ConfigError, r"models\[0\]: found int"),
        (nn.ModuleList([nn.Sequential(nn.Dropout())]), ConfigError, r"models\[0\]: found Sequen"),
        ([fine, answering(lambda z: z[:, :2].log_softmax(-1))], DataError, "2 classes, expected 3"),
    ]
    for models, error, message in cases:
        with pytest.raises(error, match=message):
            gn.record_predictions(models, pictures(), out="bad.npz")
    with pytest.raises(ConfigError, match="call model.eval"):
        gn.record_predictions(nn.Sequential(nn.Flatten(), nn.Dropout()), pictures(), out="bad.npz")


def test_half_precision_is_taken_with_its_rounding() -> None:
    model = answering(lambda z: z.bfloat16().log_softmax(-1))
    gn.record_predictions(model, pictures(), out="half.npz")
    with np.load("half.npz") as arrays:
        np.testing.assert_allclose(np.exp(arrays["log_prob"]).sum(-1), 1, atol=1e-6)


def test_inputs_are_prepared_for_the_models_and_kept_as_they_are() -> None:
    seen: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        seen.append(x)
        return x.flatten(1)[:, :3].log_softmax(-1)

    gn.record_predictions(model, pictures(5), out="five.npz", prepare=lambda x: (x.float() - 8) / 4)
    assert torch.equal(seen[0], (torch.from_numpy(pictures(5)).float() - 8) / 4)
    with np.load("five.npz") as arrays:
        np.testing.assert_array_equal(arrays["inputs"], pictures(5))


def test_a_stop_and_a_failure_leave_what_was_there() -> None:
    gn.record_predictions(members(), pictures(), out="three.npz")
    before = Path("three.npz").read_bytes()
    stops = iter([False, True])
    session = Session(should_stop=lambda: next(stops))
    with pytest.raises(Interrupted):
        gn.record_predictions(
            members()[:1], pictures(), out="three.npz", batch_size=3, session=session
        )
    assert Path("three.npz").read_bytes() == before
    assert [path.name for path in Path().iterdir()] == ["three.npz"]

    gn.record_predictions(members(), pictures(), out="three")
    with pytest.raises(ConfigError, match="three: is there already"):
        gn.record_predictions(members(), pictures(), out="three")
    Path("three/manifest.json").write_text("{}")
    with pytest.raises(DamageError, match="record the predictions again"):
        read_predictions(Path("three"), CLASSES)


@pytest.mark.parametrize("inputs", [[1, 2], np.zeros(3), np.array([["a", "b"]])])
def test_inputs_that_are_no_array_are_refused(inputs: object) -> None:
    with pytest.raises(DataError, match="inputs: found"):
        gn.record_predictions(members(), inputs, out="bad.npz")  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", [[1, 2], [0, 0, 0], [1, 1, -1], [1, 1, float("nan")]])
def test_weights_that_are_none_are_refused(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="weights: found"):
        gn.record_predictions(members(), pictures(), out="bad.npz", weights=weights)


def test_what_a_killed_call_left_is_removed_and_what_a_running_one_writes_stays() -> None:
    gone, mine = Path(".three.npz.999999999.building"), Path(f".other.npz.{os.getpid()}.building")
    running = Path(f".three.npz.{os.getppid()}.building")
    for folder in (gone, mine, running):
        folder.mkdir()
        (folder / "inputs-000000.npy").write_bytes(b"half")
    gn.record_predictions(members(), pictures(), out="three.npz")
    assert sorted(Path().iterdir()) == sorted([mine, running, Path("three.npz")])
