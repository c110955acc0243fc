"""Datasets of torchvision, read from small files in the true formats, without the network."""

import copyreg
import gzip
import io
import pickle
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from torchvision import datasets

from gped_nas.data import idx
from gped_nas.data.base import Dataset, load
from gped_nas.data.vision import data_root
from gped_nas.errors import ConfigError, DataError, EnvironmentProblem
from gped_nas.io import Array
from tests.data.vision_files import NUM_TEST, NUM_TRAIN, idx_file, random_pixels

pytestmark = pytest.mark.usefixtures("root")

MNIST_FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
CIFAR_FILES = {
    "cifar10": (
        "cifar-10-batches-py",
        [f"data_batch_{i}" for i in range(1, 6)],
        "test_batch",
        "labels",
    ),
    "cifar100": ("cifar-100-python", ["train"], "test", "fine_labels"),
}
ALL = [*MNIST_FOLDERS, *CIFAR_FILES, "svhn"]


def _write_mnist(root: Path, name: str) -> tuple[Array, Array]:
    folder = root / MNIST_FOLDERS[name] / "raw"
    folder.mkdir(parents=True)
    x = random_pixels(NUM_TRAIN + NUM_TEST, (28, 28), 0)
    y = np.arange(NUM_TRAIN + NUM_TEST, dtype=np.uint8) % 10
    for part, rows in (("train", slice(NUM_TRAIN)), ("t10k", slice(NUM_TRAIN, None))):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx_file(x[rows]))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx_file(y[rows]))
    return x[:, None], y


class _OldPickler(pickle.Pickler):
    """Spells a dtype as the published files do: ``dtype('u1', 0, 1)``.

    It has integers where numpy has booleans today.
    """

    dispatch_table = copyreg.dispatch_table | {
        np.dtype("u1").__class__: lambda dtype: (np.dtype, (dtype.str[1:], 0, 1))
    }


def _old_pickle(value: object) -> bytes:
    buffer = io.BytesIO()
    _OldPickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def _write_cifar(root: Path, name: str) -> tuple[Array, Array]:
    base, batches, test, key = CIFAR_FILES[name]
    folder = root / base
    folder.mkdir()
    x = random_pixels(NUM_TRAIN + NUM_TEST, (3, 32, 32), 1)
    y = np.arange(NUM_TRAIN + NUM_TEST) % 10

    rows_of = dict(zip(batches, np.array_split(np.arange(NUM_TRAIN), len(batches)), strict=True))
    rows_of[test] = np.arange(NUM_TRAIN, NUM_TRAIN + NUM_TEST)
    for file, rows in rows_of.items():
        batch = {"data": x[rows].reshape(len(rows), -1), key: y[rows].tolist()}
        (folder / file).write_bytes(_old_pickle(batch))

    if name == "cifar10":
        meta_file, names_key, num_classes = "batches.meta", "label_names", 10
    else:
        meta_file, names_key, num_classes = "meta", "fine_label_names", 100
    meta = {names_key: [f"class {i}" for i in range(num_classes)]}
    (folder / meta_file).write_bytes(_old_pickle(meta))
    return x, y


def _write_svhn(root: Path) -> tuple[Array, Array]:
    """The .mat files hold X as (height, width, channel, N) and call the digit 0 class 10."""
    x = random_pixels(NUM_TRAIN + NUM_TEST, (3, 32, 32), 2)
    y = np.arange(NUM_TRAIN + NUM_TEST) % 10
    for part, rows in (("train", slice(NUM_TRAIN)), ("test", slice(NUM_TRAIN, None))):
        labels = np.where(y[rows] == 0, 10, y[rows]).astype(np.uint8)[:, None]
        arrays = {"X": x[rows].transpose(2, 3, 1, 0), "y": labels}
        scipy.io.savemat(root / f"{part}_32x32.mat", arrays)
    return x, y


def _write(root: Path, name: str) -> tuple[Array, Array]:
    if name in MNIST_FOLDERS:
        return _write_mnist(root, name)
    return _write_svhn(root) if name == "svhn" else _write_cifar(root, name)


def _in_order(dataset: Dataset) -> tuple[Array, Array]:
    """All training and validation examples in the order of ``_sort_by_pixels``."""
    x = torch.cat([dataset.train.x, dataset.validation.x]).numpy()
    y = torch.cat([dataset.train.y, dataset.validation.y]).numpy()
    return _sort_byrandom_pixels(x, y)


def _sort_byrandom_pixels(x: Array, y: Array) -> tuple[Array, Array]:
    """Examples in the order of their first three pixels."""
    order = np.lexsort(x.reshape(len(x), -1).T[:3])
    return x[order], y[order]


@pytest.mark.usefixtures("any_checksum")
@pytest.mark.parametrize("name", ALL)
def test_true_format_is_read_whole(root: Path, name: str) -> None:
    x, y = _write(root, name)
    dataset = load({"name": name})
    assert dataset.test.x.dtype == torch.uint8
    assert np.array_equal(dataset.test.x.numpy(), x[NUM_TRAIN:])
    assert np.array_equal(dataset.test.y.numpy(), y[NUM_TRAIN:])

    read_x, read_y = _in_order(dataset)
    expected_x, expected_y = _sort_byrandom_pixels(x[:NUM_TRAIN], y[:NUM_TRAIN])
    assert np.array_equal(read_x, expected_x) and np.array_equal(read_y, expected_y)
    # a tenth of 20 training examples
    assert (len(dataset.train), len(dataset.validation)) == (18, 2)


@pytest.mark.usefixtures("any_checksum")
@pytest.mark.parametrize(
    ("name", "shape", "num_classes", "first_class"),
    [
        ("mnist", (1, 28, 28), 10, "0 - zero"),
        ("fashion_mnist", (1, 28, 28), 10, "T-shirt/top"),
        ("kmnist", (1, 28, 28), 10, "o"),
        ("cifar10", (3, 32, 32), 10, "class 0"),
        ("cifar100", (3, 32, 32), 100, "class 0"),
        ("svhn", (3, 32, 32), 10, "0"),
    ],
)
def test_shapes_and_classes(
    root: Path, name: str, shape: tuple[int, ...], num_classes: int, first_class: str
) -> None:
    _write(root, name)
    dataset = load({"name": name})
    assert dataset.name == name
    assert (dataset.input_shape, dataset.num_classes) == (shape, num_classes)
    assert dataset.class_names[0] == first_class


@pytest.mark.parametrize("name", idx.CLASS_NAMES)
def test_idx_files_and_their_classes_are_called_as_in_torchvision(name: str) -> None:
    source = getattr(datasets, name)
    assert [file for file, _ in source.resources] == [f"{file}.gz" for file in idx.FILES]
    assert list(idx.CLASS_NAMES[name]) == source.classes


def test_idx_files_are_read_without_torchvision(root: Path) -> None:
    """It would be a tenth of the memory of a build."""
    _write(root, "fashion_mnist")
    code = (
        "import sys; from gped_nas.data.base import load; load({'name': 'fashion_mnist'}); "
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" in done.stdout.split() and "torchvision" not in done.stdout.split()


@pytest.mark.parametrize("name", ALL)
def test_missing_files_say_where_and_what_to_do(root: Path, name: str) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        load({"name": name})
    message = str(caught.value)
    for part in (f"dataset '{name}'", str(root), "--set dataset.download=true", "GPED_DATA"):
        assert part in message


@pytest.mark.parametrize("name", ALL)
def test_failed_download_gives_the_reason(root: Path, name: str) -> None:
    message = "download to .* failed: .*no route to host"
    with pytest.raises(EnvironmentProblem, match=message) as caught:
        load({"name": name, "download": True})
    assert f"dataset '{name}'" in str(caught.value) and "\n" not in str(caught.value)


class _Response(io.BytesIO):
    """What ``urlopen`` gives for a file."""

    url = None

    @property
    def length(self) -> int:
        return len(self.getvalue())


@pytest.mark.usefixtures("any_checksum")
def test_download_puts_the_files_where_they_are_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, _ = _write_svhn(root)
    served = {file.name: file.read_bytes() for file in root.iterdir()}
    for name in served:
        (root / name).unlink()
    asked = []

    def urlopen(request: urllib.request.Request) -> _Response:
        asked.append(request.full_url)
        return _Response(served[request.full_url.rsplit("/", 1)[1]])

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    downloaded = load({"name": "svhn", "download": True})
    assert np.array_equal(downloaded.test.x.numpy(), x[NUM_TRAIN:])

    asked.clear()
    assert load({"name": "svhn", "download": True}).digest == downloaded.digest
    assert asked == []


def _pack(file: Path) -> Path:
    packed = file.with_name(f"{file.name}.gz")
    packed.write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    return packed


@pytest.mark.parametrize("num_packed", [1, 4])
@pytest.mark.parametrize("name", MNIST_FOLDERS)
def test_published_gz_files_are_read_and_left_alone(root: Path, name: str, num_packed: int) -> None:
    _write_mnist(root, name)
    unpacked = load({"name": name})
    for file in sorted((root / MNIST_FOLDERS[name] / "raw").iterdir())[:num_packed]:
        _pack(file)
    before = sorted(root.rglob("*"))
    assert load({"name": name}).digest == unpacked.digest
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("keep", [0, 5, 40])
def test_truncated_gz_files_are_refused(root: Path, keep: int) -> None:
    _write_mnist(root, "mnist")
    packed = _pack(root / "MNIST" / "raw" / "train-images-idx3-ubyte")
    packed.write_bytes(packed.read_bytes()[:keep])
    with pytest.raises(DataError, match="the files are not what MNIST should hold"):
        load({"name": "mnist"})


@pytest.mark.usefixtures("any_checksum")
@pytest.mark.parametrize("keep", [0, 2, 10, 400])
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "MNIST/raw/train-images-idx3-ubyte"),
        ("cifar10", "cifar-10-batches-py/data_batch_3"),
        ("svhn", "train_32x32.mat"),
    ],
)
def test_truncated_files_are_refused(root: Path, name: str, file: str, keep: int) -> None:
    _write(root, name)
    path = root / file
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="the files are not what .* should hold") as caught:
        load({"name": name})
    assert str(caught.value).startswith(f"{path.parent}: ")


def test_wrong_checksum_is_refused(root: Path) -> None:
    _write(root, "cifar10")
    with pytest.raises(DataError, match="cifar-10-batches-py: the files .*corrupted"):
        load({"name": "cifar10"})


def test_label_beyond_the_classes_is_refused(root: Path) -> None:
    _write(root, "mnist")
    path = root / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\xc8")
    with pytest.raises(DataError, match="y_train: found the label 200"):
        load({"name": "mnist"})


def test_parts_of_different_shapes_are_refused(root: Path) -> None:
    _write(root, "mnist")
    images = idx_file(random_pixels(NUM_TEST, (14, 56), 0))
    (root / "MNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(images)
    message = r"x_test: found inputs \(1, 14, 56\) of uint8, expected \(1, 28, 28\)"
    with pytest.raises(DataError, match=message):
        load({"name": "mnist"})


def test_unreadable_folder_is_a_problem_of_the_environment(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(EnvironmentProblem, match="cannot read: Permission denied"):
        load({"name": "mnist"})


def test_unreadable_files_are_a_problem_of_the_environment(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(root, "mnist")

    def refuse(path: Path, num_axes: int) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("gped_nas.data.idx.read", refuse)
    with pytest.raises(EnvironmentProblem, match="cannot be read: Permission denied"):
        load({"name": "mnist"})


@pytest.mark.parametrize(
    ("data", "cache", "expected"),
    [("/d", "/c", "/d"), ("", "/c", "/c/data"), ("", "", "/platform/data")],
)
def test_data_root(monkeypatch: pytest.MonkeyPatch, data: str, cache: str, expected: str) -> None:
    monkeypatch.setenv("GPED_DATA", data)
    monkeypatch.setenv("GPED_CACHE", cache)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: "/platform")
    assert data_root() == Path(expected)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="dowload: unknown key; did you mean 'download'"):
        load({"name": "mnist", "dowload": True})


def test_loading_draws_from_no_global_generator(root: Path) -> None:
    _write(root, "mnist")
    state = torch.get_rng_state()
    load({"name": "mnist"})
    assert torch.equal(torch.get_rng_state(), state)


def test_channels_and_classes_are_settings_with_the_old_rule_by_default(
    root: Path, any_checksum: None
) -> None:
    _write(root, "cifar10")
    whole = load({"name": "cifar10"})
    spelled = load({"name": "cifar10", "normalize": "whole", "split": "random"})
    channels = load({"name": "cifar10", "normalize": "channels"})
    assert whole.digest == spelled.digest != channels.digest
    x = channels.train.x.double()
    assert channels.normalization.mean == pytest.approx(x.mean((0, 2, 3)).tolist())
    stratified = load({"name": "cifar10", "split": "stratified"})
    assert "carved class by class" in stratified.split_text
