"""``emnist``, ``omniglot`` and ``stl10``, read from small files in the true formats.

Torchvision's own classes are the oracle: what they read of the same files is what comes out.
"""

import gzip
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from gped_nas.data.base import Dataset, load
from gped_nas.data.emnist import CLASS_NAMES, Partition
from gped_nas.errors import ConfigError, DataError, EnvironmentProblem
from gped_nas.io import Array
from tests.data.vision_files import NUM_TEST, NUM_TRAIN, idx_file, random_pixels

pytestmark = pytest.mark.usefixtures("root")

ALL = ["emnist", "omniglot", "stl10"]
CHARACTERS = ["Greek/character01", "Greek/character02", "Latin/character01"]


def _write_emnist(root: Path, partition: str = "balanced", first: int = 0) -> None:
    folder = root / "EMNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for part, num in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        start = folder / f"emnist-{partition}-{part}"
        labels = (np.arange(num) % 10 + first).astype(np.uint8)
        Path(f"{start}-images-idx3-ubyte").write_bytes(idx_file(random_pixels(num, (28, 28), num)))
        Path(f"{start}-labels-idx1-ubyte").write_bytes(idx_file(labels))


def _write_omniglot(root: Path, half: str = "background") -> None:
    """The published archive, unpacked beside it as torchvision leaves it."""
    parent = root / "omniglot-py"
    for seed, character in enumerate(CHARACTERS):
        folder = parent / f"images_{half}" / character
        folder.mkdir(parents=True)
        for i, pixels in enumerate(random_pixels(10, (105, 105), seed)):
            Image.fromarray(pixels > 127).save(folder / f"{seed:04}_{i:02}.png")
    with zipfile.ZipFile(parent / f"images_{half}.zip", "w") as archive:
        for path in sorted(parent.rglob("*.png")):
            archive.write(path, path.relative_to(parent))


def _write_stl10(root: Path) -> None:
    folder = root / "stl10_binary"
    folder.mkdir()
    for part, num in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        (folder / f"{part}_X.bin").write_bytes(random_pixels(num, (3, 96, 96), num).tobytes())
        (folder / f"{part}_y.bin").write_bytes((np.arange(num) % 10 + 1).astype(np.uint8).tobytes())
    (folder / "unlabeled_X.bin").write_bytes(b"")  # torchvision asks for it, and we do not
    names = "airplane bird car cat deer dog horse monkey ship truck"
    (folder / "class_names.txt").write_text("\n".join(names.split()) + "\n")


def _write(root: Path, name: str) -> None:
    {"emnist": _write_emnist, "omniglot": _write_omniglot, "stl10": _write_stl10}[name](root)


def _rows(x: Array, y: Array) -> set[tuple[bytes, int]]:
    """Examples whose order says nothing."""
    return {(picture.tobytes(), int(label)) for picture, label in zip(x, y, strict=True)}


def _known(dataset: Dataset) -> set[tuple[bytes, int]]:
    """Training and validation examples."""
    parts = (dataset.train, dataset.validation)
    return set().union(*(_rows(part.x.numpy(), part.y.numpy()) for part in parts))


@pytest.mark.usefixtures("any_checksum")
def test_stl10_is_what_torchvision_reads(root: Path) -> None:
    _write_stl10(root)
    dataset = load({"name": "stl10"})
    test = datasets.STL10(str(root), "test")
    assert np.array_equal(dataset.test.x, test.data)
    assert np.array_equal(dataset.test.y, test.labels)
    train = datasets.STL10(str(root), "train")
    assert _known(dataset) == _rows(train.data, train.labels)
    assert dataset.input_shape == (3, 96, 96) and list(dataset.class_names) == train.classes


@pytest.mark.parametrize(("partition", "first"), [("balanced", 0), ("letters", 1), ("digits", 0)])
def test_emnist_is_what_torchvision_reads_turned_upright(
    root: Path, partition: str, first: int
) -> None:
    _write_emnist(root, partition, first)
    dataset = load({"name": "emnist", "partition": partition})
    test = datasets.EMNIST(str(root), partition, train=False)
    upright = test.data.transpose(1, 2)[:, None]
    assert torch.equal(dataset.test.x, upright)
    assert dataset.input_shape == (1, 28, 28)
    names = [dataset.class_names[label] for label in dataset.test.y]
    assert names == [test.classes[label] for label in test.targets]


@pytest.mark.parametrize("partition", CLASS_NAMES)
def test_classes_of_emnist_are_called_as_in_torchvision(partition: Partition) -> None:
    names = [name for name in datasets.EMNIST.classes_split_dict[partition] if name != "N/A"]
    assert list(CLASS_NAMES[partition]) == names


@pytest.mark.usefixtures("any_checksum")
@pytest.mark.parametrize("half", ["background", "evaluation"])
def test_omniglot_is_what_torchvision_reads(root: Path, half: str) -> None:
    _write_omniglot(root, half)
    dataset = load({"name": "omniglot", "half": half})
    source = datasets.Omniglot(str(root), background=half == "background")
    # torchvision numbers characters in the order of the file system, we by their names
    number = {name: i for i, name in enumerate(CHARACTERS)}
    pixels = np.stack([np.asarray(picture)[None] for picture, _ in source])
    labels = np.array([number[source._characters[label]] for _, label in source])
    test = _rows(dataset.test.x.numpy(), dataset.test.y.numpy())
    assert _known(dataset) | test == _rows(pixels, labels)
    assert list(dataset.class_names) == CHARACTERS
    # a fifth of ten drawings of each character
    assert dataset.test.y.bincount().tolist() == [2, 2, 2]


def test_omniglot_is_the_same_packed_and_its_ink_may_be_white(root: Path) -> None:
    _write_omniglot(root)
    unpacked = load({"name": "omniglot"})
    white = load({"name": "omniglot", "ink": "white"})
    shutil.rmtree(root / "omniglot-py" / "images_background")
    assert load({"name": "omniglot"}).digest == unpacked.digest
    assert torch.equal(white.train.x, 255 - unpacked.train.x)


def test_emnist_may_stay_packed(root: Path) -> None:
    _write_emnist(root)
    unpacked = load({"name": "emnist"})
    for file in (root / "EMNIST" / "raw").iterdir():
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert load({"name": "emnist"}).digest == unpacked.digest


@pytest.mark.parametrize("name", ALL)
def test_missing_files_say_where_and_what_to_do(root: Path, name: str) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        load({"name": name})
    message = str(caught.value)
    for part in (f"dataset '{name}'", str(root), "--set dataset.download=true", "GPED_DATA"):
        assert part in message


@pytest.mark.parametrize("name", ALL)
def test_failed_download_gives_the_reason(name: str) -> None:
    message = "download to .* failed: .*no route to host"
    with pytest.raises(EnvironmentProblem, match=message) as caught:
        load({"name": name, "download": True})
    assert f"dataset '{name}'" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 5, 30])
@pytest.mark.parametrize(
    ("name", "file", "blamed"),
    [
        ("emnist", "EMNIST/raw/emnist-balanced-train-images-idx3-ubyte", "EMNIST/raw"),
        ("omniglot", "omniglot-py/images_background/Greek/character02/0001_03.png", None),
        ("stl10", "stl10_binary/test_X.bin", "stl10_binary"),
    ],
)
def test_truncated_files_are_refused(
    root: Path, name: str, file: str, blamed: str | None, keep: int
) -> None:
    _write(root, name)
    path = root / file
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="the files are not what .* should hold") as caught:
        load({"name": name})
    expected = root / (blamed or "omniglot-py/images_background")
    assert str(caught.value).startswith(f"{expected}: ")


def test_an_empty_archive_is_refused(root: Path) -> None:
    (root / "omniglot-py").mkdir()
    with zipfile.ZipFile(root / "omniglot-py" / "images_background.zip", "w"):
        pass
    with pytest.raises(DataError, match="no drawing lies there"):
        load({"name": "omniglot"})


def test_an_unknown_partition_is_refused() -> None:
    with pytest.raises(ConfigError, match="partition: found 'leters'"):
        load({"name": "emnist", "partition": "leters"})


def test_stl10_and_omniglot_are_read_without_torchvision(root: Path) -> None:
    _write_stl10(root)
    _write_omniglot(root)
    code = (
        "import sys; from gped_nas.data.base import load; load({'name': 'stl10'}); "
        "load({'name': 'omniglot'}); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" in done.stdout.split() and "torchvision" not in done.stdout.split()
