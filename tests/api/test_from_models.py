"""Live models in, a study of students out, in one call."""

import contextlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

import gped_nas as gn
from gped_nas.api import from_models
from gped_nas.data.base import load
from gped_nas.data.sources import restore_layout
from gped_nas.errors import ConfigError, DataError, GpedError, StudyError
from gped_nas.models.module_costs import module_bytes, module_macs
from tests.cli.harness import accepted, contents

SIDE, CLASSES = 12, 3
SMALL = {
    "students": [{"family": "mlp", "genotype": {"depth": 1, "width": {"choices": [2, 3, 4, 8]}}}],
    "recipe": {"steps": 60, "warmup": 5, "lr": 0.02},
    "objectives": ["nll", "macs"],
    "search.students_at_once": 2,
    "search.keep": {},
    "twins": {"seeds": 1, "students": 1},
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPED_CACHE", str(tmp_path / "cache"))


def pictures(num: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """Noisy pictures of bytes, channels last, one of whose three channels is brighter."""
    draw = np.random.default_rng(0)
    label = np.arange(num) % CLASSES
    x = draw.integers(0, 200, size=(num, SIDE, SIDE, 3))
    x[np.arange(num), :, :, label] += 40
    return x.astype(np.uint8), label


def as_models_take(raw: Tensor) -> Tensor:
    """Bytes with channels last to numbers near 0, channels first."""
    return raw.permute(0, 3, 1, 2).float() / 128 - 1


class Brightest(nn.Module):
    """A member that compares the means of the channels."""

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.read = nn.Linear(3, CLASSES, bias=False)
        self.read.weight.data = sharpness * torch.eye(CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(x.mean((2, 3))).log_softmax(-1)


def members() -> list[nn.Module]:
    with torch.random.fork_rng():  # layers draw their first weights globally
        return [Brightest(sharpness).eval() for sharpness in (20.0, 30.0)]


def test_one_call_makes_a_study_that_its_file_goes_on_with() -> None:
    told: list[str] = []
    session = gn.new_session("cpu", progress=lambda what, done, total: told.append(what))
    study = gn.distill_from(
        members(),
        pictures(),
        within="8kB,macs=4000",
        name="bright",
        prepare=as_models_take,
        n_trials=2,
        settings=SMALL,
        session=session,
    )

    chosen = study.chosen()
    assert chosen is not None and chosen.costs["storage_bytes"] <= 8000
    assert chosen.metrics["test_accuracy"] > 0.8
    teacher = next(r for r in study.snapshot().references if r.name == "teacher")
    assert "2 members of 2 x Brightest" in teacher.note
    assert teacher.costs == {"macs": 18, "flops": 36, "storage_bytes": 72}
    assert "predictions of the ensemble" in told and "students" in " ".join(told)

    given = study.path / "given"
    (arrays,) = [path for path in given.iterdir() if path.is_dir()]
    names = {path.name for path in given.iterdir()}
    assert names == {arrays.name, "predictions.npz", "space.yaml"}
    assert {path.name for path in arrays.iterdir()} == {"x_train.npy", "y_train.npy"}
    written = (arrays / "x_train.npy").stat()
    space = gn.load_space(given / "space.yaml")
    assert space.constraints == {"storage_bytes": 8000, "macs": 4000}
    accepted("run", given / "space.yaml", "--out", "reports", "--n-trials", 3)
    again = gn.distill_from(
        members(),
        pictures(),
        within="8kB,macs=4000",
        name="bright",
        prepare=as_models_take,
        n_trials=4,
        settings=SMALL,
    )
    assert sum(record.is_counted for record in again.records()) == 4
    kept = (arrays / "x_train.npy").stat()
    assert (kept.st_ino, kept.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


def test_a_resnet18_is_brought_with_its_true_costs() -> None:
    """Of two that were trained for a moment, macs and bytes are those of the tables."""
    x, y = pictures(120)
    inputs, labels = as_models_take(torch.from_numpy(x)), torch.from_numpy(y)
    with torch.random.fork_rng():
        networks = [resnet18(num_classes=CLASSES) for _ in range(2)]
        for network in networks:
            optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
            for _ in range(6):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(inputs), labels).backward()
                optimizer.step()
            network.eval()

    def log_probabilities(network: nn.Module) -> nn.Module:
        return nn.Sequential(network, nn.LogSoftmax(-1)).eval()

    study = gn.distill_from(
        [log_probabilities(network) for network in networks],
        (x, y),
        ensemble="2 x resnet18",
        prepare=as_models_take,
        n_trials=1,
        # they know little after six steps, so that students learn from labels
        settings={**SMALL, "teacher.at_chance": True, "recipe.label_weight": 1.0},
    )
    teacher = next(r for r in study.snapshot().references if r.name == "teacher")
    # 11,178,051 parameters, 9,600 running statistics, and 20 counters of 8 bytes
    assert teacher.costs["storage_bytes"] == 2 * (4 * (11_178_051 + 9_600) + 8 * 20)
    page = (study.path / "report.html").read_text()
    assert "2 x resnet18, 2 members known by predictions" in page

    # of one picture of 224 x 224 pixels and 1,000 classes: as torchvision and fvcore state it
    with torch.random.fork_rng():
        network = resnet18().eval()
    assert module_macs([network], torch.zeros(1, 3, 224, 224)) == 1_814_073_344


def test_costs_of_what_cannot_be_counted_are_not_known() -> None:
    with torch.random.fork_rng():
        attention = nn.TransformerEncoderLayer(8, 2, batch_first=True).eval()
    assert module_macs([attention], torch.zeros(1, 4, 8)) is None
    assert module_macs([len], torch.zeros(1, 4)) is None and module_bytes([len]) is None
    member = members()[0]
    assert module_bytes([member, member]) == 36  # weights that members share lie there once


def test_models_are_asked_in_the_layout_that_the_user_has() -> None:
    x, y = pictures(60)
    flat = x.reshape(60, -1).astype(np.float32)
    gray = x[..., 0]
    first = x.transpose(0, 3, 1, 2)
    np.savez("mine.npz", x_train=x, y_train=y)
    kinds: dict[str, tuple[object, np.ndarray]] = {
        "last": ((x, y), x),
        "first": ([torch.from_numpy(first.copy()), torch.from_numpy(y)], first),
        "gray": ({"x_train": gray, "y_train": y}, gray),
        "table": ((flat, [f"class {label}" for label in y]), flat),
        "file": ("mine.npz", x),
        "settings without a layout": ({"name": "npz", "path": "mine.npz"}, x),
    }
    for name, (data, as_given) in kinds.items():
        settings = gn.as_dataset(data)
        returned = restore_layout(settings)(load(settings).raw("train")).numpy()
        rows = {row.tobytes() for row in np.ascontiguousarray(as_given)}
        assert returned.shape[1:] == as_given.shape[1:] and returned.dtype == as_given.dtype
        assert {row.tobytes() for row in np.ascontiguousarray(returned)} <= rows, name


def test_misuse_is_named_before_anything_is_searched() -> None:
    cases: list[tuple[dict[str, Any], type[GpedError], str]] = [
        ({"within": "100 apples"}, ConfigError, "within: found '100 apples'"),
        ({"models": [nn.Dropout()]}, ConfigError, "training mode"),
        ({"models": lambda x: torch.zeros(len(x), 4).log_softmax(-1)}, DataError, "4 classes, exp"),
        ({"models": lambda x: x.flatten(1).float()[:, :3]}, DataError, "found logits"),
        ({"within": "1B"}, ConfigError, "no genotype of this space can meet"),
        ({"name": "../up"}, ConfigError, "name: found '../up', expected a name that can be"),
        ({"data": (np.ones((9, 2)), np.arange(9) + 0.5)}, DataError, "labels that are not whole"),
        ({"settings": {**SMALL, "recipe.stepps": 3}}, ConfigError, "did you mean 'steps'"),
    ]
    for changes, error, message in cases:
        arguments = {
            "models": members(),
            "data": pictures(60),
            "prepare": as_models_take if "models" not in changes else None,
            "settings": SMALL,
            **changes,
        }
        with pytest.raises(error, match=message):
            gn.distill_from(**arguments)
    assert not list(Path().rglob("study.db"))


def test_a_refused_call_leaves_what_the_study_was_given() -> None:
    """As a killed one does, once the next call begins."""
    arguments = {"prepare": as_models_take, "settings": SMALL, "n_trials": 1}
    study = gn.distill_from(members(), pictures(60), **arguments)
    given, before = study.path / "given", study.path / "given.before"
    kept = contents(given)
    assert kept

    refusals: list[tuple[dict[str, Any], type[GpedError], str]] = [
        ({"models": members()[:1]}, StudyError, "made with other settings"),
        ({"data": pictures(90)}, StudyError, "made with other settings"),
        ({"within": "1B"}, ConfigError, "no genotype of this space can meet"),
    ]
    for changes, error, message in refusals:
        with pytest.raises(error, match=message):
            gn.distill_from(**{"models": members(), "data": pictures(60), **arguments, **changes})
        assert contents(given) == kept and not before.exists()

    shutil.copytree(given, before)
    (given / "space.yaml").write_text("half")
    with pytest.raises(ConfigError, match="no genotype"):
        gn.distill_from(members(), pictures(60), within="1B", **arguments)
    assert contents(given) == kept and not before.exists()


def test_a_bar_is_drawn_where_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, int]] = []

    class Drawn:
        def report(self, what: str, done: int, total: int) -> None:
            told.append((what, done, total))

    monkeypatch.setattr(from_models, "bars", lambda: contextlib.nullcontext(Drawn()))
    monkeypatch.setattr(from_models, "is_watched", lambda: True)
    monkeypatch.setattr(from_models, "run", lambda space, **settings: settings["session"])
    session = gn.distill_from(members(), pictures(60), prepare=as_models_take, settings=SMALL)
    assert session is None  # the run draws its own
    assert told[-1] == ("predictions of the ensemble", 60, 60)
