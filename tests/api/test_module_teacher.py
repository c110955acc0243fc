"""A teacher of one's own network, from Python to a front, and what the command line does of it."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

import gped_nas as gn
from gped_nas.api.diagnosis import diagnose
from gped_nas.api.handing import check_sendable, processes_that_can_build
from gped_nas.api.identity import identity
from gped_nas.api.sampling import stream_key
from gped_nas.api.session import Session
from gped_nas.api.tuned import with_teacher
from gped_nas.api.tuning import _methods
from gped_nas.errors import ConfigError, StudyError
from gped_nas.io import sha256_plain
from gped_nas.models.module import ModuleFamily
from gped_nas.posterior.base import METHODS, Problem, parse_method, posterior_of
from gped_nas.posterior.likelihoods import CategoricalLikelihood
from gped_nas.posterior.priors import FanInGaussianPrior
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import parse_space
from tests.cli.harness import accepted, refused

CLASSES, SIDE = 3, 8


class Eyes(nn.Module):
    """A small network of pictures with names of its own; ``sharpness`` changes what it computes."""

    sharpness = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.eye = nn.Conv2d(3, 8, 3, padding=1)
        self.calm = nn.GroupNorm(2, 8)
        self.mouth = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.calm(self.eye(x)).relu().mean((2, 3))
        outputs: Tensor = self.mouth(self.sharpness * seen)
        return outputs


class SharpEyes(Eyes):
    sharpness = 2.0


def pictures() -> dict[str, np.ndarray]:
    """120 noisy pictures, one of whose three channels is brighter."""
    draw = np.random.default_rng(0)
    label = np.arange(120) % CLASSES
    x = draw.integers(0, 200, size=(120, SIDE, SIDE, 3))
    x[np.arange(120), :, :, label] += 40
    parts = {"train": slice(0, 60), "val": slice(60, 90), "test": slice(90, 120)}
    arrays = {}
    for part, rows in parts.items():
        arrays |= {f"x_{part}": x[rows].astype(np.uint8), f"y_{part}": label[rows]}
    return arrays


def settings(root: Path, **teacher: Any) -> dict[str, Any]:
    data = root / "pictures.npz"
    if not data.exists():
        np.savez(data, **pictures())
    method = {"name": "deep_ensemble", "num_samples": 2, "steps": 100, "batch_size": 20, "lr": 0.01}
    family = {"family": "module", "genotype": {"name": "eyes"}, "method": method, **teacher}
    kernel = {"depth": 1, "width": {"choices": [2, 3, 4]}, "kernel": 3, "head": "global_average"}
    return {
        "name": "eyes",
        "dataset": {"name": "npz", "path": str(data)},
        "teacher": family,
        "views": [{"policy": "clean"}],
        "students": [{"family": "cnn", "genotype": kernel}],
        "objectives": ["nll", "macs"],
        "conditions": ["clean", "permuted"],
        "search": {"n_trials": 2, "students_at_once": 2, "keep": {}, "every_dtype": False},
        "recipe": {"steps": 40, "warmup": 5, "lr": 0.02},
        "baseline": {"steps": 100, "precisions": [1.0]},
        "twins": {"seeds": 1, "students": 1},
    }


def space_of(root: Path, modules: Mapping[str, Any] | None, **teacher: Any) -> SearchSpace:
    return parse_space(settings(root, **teacher), str(root / "eyes.yaml"), modules)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_module_is_searched_from_python_and_read_from_the_command_line(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    space = space_of(tmp_path, None)
    session = gn.new_session("cpu")
    study = gn.run(space, modules={"eyes": Eyes}, session=session)
    assert torch.equal(torch.get_rng_state(), before)

    references = {reference.name: reference for reference in study.snapshot().references}
    assert "unpruned" not in references  # a module is no student
    # 3 x 8 filters of 3 x 3 at 64 pixels, and a dense layer of 8 x 3: two members
    assert references["teacher"].costs["macs"] == 2 * (64 * 27 * 8 + 24)
    assert references["map"].costs["macs"] == 64 * 27 * 8 + 24
    assert "nll@permuted" in references["teacher"].metrics
    summary = study.snapshot().teacher
    assert summary["genotype"] == "module(name=eyes, storage_dtype=float32)"

    # what needs the stream and the students alone
    files = {path: sha256_plain(path) for path in _files(session.streams)}
    known = study.path / "config.yaml"
    refused(2, "teacher", "tune", known, "--n-trials", "1", says=("Python alone can build",))
    accepted("front", "eyes")
    accepted("report", "eyes")
    accepted("show", "eyes", "chosen")
    accepted("export", "eyes", "chosen", "--to", "safetensors", "--into", "served")
    np.save("new.npy", pictures()["x_test"][:4])
    accepted("predict", "eyes", "new.npy")
    told = accepted("teacher", "info", known).out
    assert "its module is built in Python alone" in told
    accepted("teacher", "verify", known)
    accepted("teacher", "build", known)  # all of it is there
    assert {path: sha256_plain(path) for path in files} == files

    # evaluations ask what is known of it, and in Python the module itself
    tasks = ["prediction", "shift:permuted"]
    known_alone = study.evaluate(tasks, subjects=["teacher", "map"], session=session)
    assert {row["task"] for row in known_alone.rows} == {"prediction"}
    assert "built in Python alone" in known_alone.notes[-1]
    built = study.evaluate(
        tasks, subjects=["teacher", "map"], modules={"eyes": Eyes}, session=session
    )
    assert {(row["task"], row["predictor"]) for row in built.rows} == {
        (task, name) for task in tasks for name in ("teacher", "map")
    }

    # what has to build it
    says = ("modules={'eyes': build}", "in Python")
    (tmp_path / "eyes.yaml").write_text(_yaml(settings(tmp_path)))
    refused(2, "run", known, says=says)
    refused(2, "run", known, "--dry-run", says=says)
    refused(2, "teacher", "info", "eyes.yaml", says=says)
    refused(2, "teacher", "compare", known, says=says)
    refused(2, "teacher", "predict", known, "new.npy", says=says)
    refused(2, "teacher", "build", known, "--seed", "5", says=says)

    teacher = gn.load_teacher(gn.load_space(known, modules={"eyes": Eyes}), session)
    answers = teacher.predict(np.load("new.npy").transpose(0, 3, 1, 2))
    assert answers["predictive"].shape == (4, CLASSES)

    # in Python the file goes on, with the same module alone
    again = gn.run(known, modules={"eyes": Eyes}, n_trials=3, session=session)
    assert sum(record.is_counted for record in again.records()) == 3
    with pytest.raises(StudyError, match="teacher and dataset"):
        gn.run(known, modules={"eyes": SharpEyes}, session=session)
    with pytest.raises(ConfigError, match="in Python"):
        gn.run(known, session=session)


def _files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*.npy")]


def _yaml(data: Mapping[str, Any]) -> str:
    from gped_nas.config import dump_yaml

    return dump_yaml(data)


def module_problem() -> Problem:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(24, 3, SIDE, SIDE, generator=generator)
    return posterior_of(
        gn.Genotype("module"),
        x,
        torch.arange(24) % CLASSES,
        num_outputs=CLASSES,
        prior=FanInGaussianPrior(scale=1.0),
        likelihood=CategoricalLikelihood(),
        device=torch.device("cpu"),
        family=ModuleFamily("eyes", Eyes),
    )


@pytest.mark.parametrize(
    "name", [n for n, m in METHODS.items() if not m.looks_inside and not m.reads_samples]
)
def test_every_method_that_needs_a_gradient_alone_samples_it(name: str) -> None:
    if name == "import":
        return
    example = dict(METHODS[name].example)
    if "steps" in example:
        example["steps"] = 100
    cfg = parse_method({"name": name, **example}, "method")

    problem = module_problem()
    generator = torch.Generator().manual_seed(1)
    for step in METHODS[name](problem, cfg, generator=generator):
        if step.sample is not None:
            theta_W = step.sample.theta_W
            break
    assert theta_W.isfinite().all() and theta_W.std() > 0
    assert len(theta_W) == sum(p.numel() for p in _built().parameters())


def _built() -> nn.Module:
    with torch.random.fork_rng():
        return Eyes()


def test_a_method_that_looks_inside_is_refused(tmp_path: Path) -> None:
    for name in ("laplace", "mc_dropout"):
        with pytest.raises(ConfigError, match=f"found {name}, which acts on layers"):
            space_of(tmp_path, {"eyes": Eyes}, method={"name": name})
    assert [name for name, method in METHODS.items() if method.looks_inside] == [
        "laplace",
        "mc_dropout",
    ]


def test_imported_weights_go_by_the_modules_own_names(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = tmp_path / "members"
    folder.mkdir()
    nets = [_built() for _ in range(2)]
    for i, net in enumerate(nets):
        save_file(net.state_dict(), folder / f"{i}.safetensors")
    space = space_of(
        tmp_path, {"eyes": Eyes}, method={"name": "import", "path": str(folder), "at_chance": True}
    )
    teacher = gn.build_teacher(space, gn.new_session("cpu"))
    x = teacher.dataset.inputs("validation")
    for i, net in enumerate(nets):
        expected = net(x).log_softmax(-1)
        assert torch.allclose(teacher.predicted("validation")[i], expected, atol=1e-6)
    assert diagnose(teacher).configurational is not None


def test_the_key_has_what_the_module_computes(tmp_path: Path) -> None:
    spaces = [space_of(tmp_path, {"eyes": source}) for source in (Eyes, SharpEyes)]
    dataset = gn.load_dataset(spaces[0])
    keys = [stream_key(space, dataset) for space in spaces]
    assert keys[0].digest != keys[1].digest
    assert keys[0].shapes["eye.weight"] == (8, 3, 3, 3)

    # what is said of it in the file is in the stream's digest already
    facts_known = spaces[0].with_facts(dataset.input_shape, dataset.num_outputs)
    assert "module" in facts_known.resolved["teacher"]
    assert identity(facts_known, "digest") == identity(spaces[0], "digest")

    dense = {"family": "mlp", "genotype": {"depth": 0}, "method": {"name": "map"}}
    of_ours = parse_space({**settings(tmp_path), "teacher": dense}, "eyes.yaml")
    assert "module" not in stream_key(of_ours, dataset).to_json()


def test_what_another_process_cannot_build_is_refused_where_it_was_asked_for(
    tmp_path: Path,
) -> None:
    fine = space_of(tmp_path, {"eyes": Eyes})
    of_a_lambda = space_of(tmp_path, {"eyes": lambda: Eyes()})
    check_sendable(fine, "--processes")
    asked, by_itself = Session(processes=2), Session()
    assert processes_that_can_build(fine, asked, 2) == 2
    assert processes_that_can_build(of_a_lambda, by_itself, 2) == 1
    with pytest.raises(ConfigError, match="(?s)[^-]processes: found the module 'eyes'.*no lambda"):
        processes_that_can_build(of_a_lambda, asked, 2)

    limited = {**settings(tmp_path), "search": {"n_trials": 2, "student_timeout": 60, "keep": {}}}
    with pytest.raises(ConfigError, match="(?s)search.student_timeout: found the module 'eyes'"):
        gn.run(
            parse_space(limited, "eyes.yaml", {"eyes": lambda: Eyes()}),
            session=gn.new_session("cpu"),
        )


def test_a_student_is_no_module(tmp_path: Path) -> None:
    data = settings(tmp_path)
    data["students"] = [{"family": "module", "genotype": {"name": "eyes"}}]
    with pytest.raises(ConfigError, match=r"students\[0\].family: found 'module'"):
        parse_space(data, "eyes.yaml", {"eyes": Eyes})


def build_resnet18() -> nn.Module:
    """Torchvision's, its batch norms replaced; it draws its weights from the global generator."""
    return resnet18(num_classes=CLASSES, norm_layer=partial(nn.GroupNorm, 8))


@pytest.mark.soak
@pytest.mark.parametrize(
    "method",
    [
        {"name": "deep_ensemble", "num_samples": 2, "steps": 100, "batch_size": 20},
        {
            "name": "sgld",
            "num_samples": 5,
            "burn_in": 20,
            "thinning": 10,
            "batch_size": 20,
            "step_size": {"initial": 1e-5},
        },
    ],
    ids=lambda method: method["name"],
)
def test_a_resnet18_of_torchvision_teaches(tmp_path: Path, method: dict[str, Any]) -> None:
    draw = np.random.default_rng(0)
    x, label = draw.integers(0, 256, size=(200, 32, 32, 3)), np.arange(200) % CLASSES
    x[np.arange(200), :, :, label] //= 2
    np.savez(tmp_path / "pictures.npz", x_train=x.astype(np.uint8), y_train=label)

    data = settings(tmp_path, method=method)
    data["dataset"]["normalize"] = "channels"
    data["conditions"] = ["clean"]
    study = gn.run(
        parse_space(data, "resnet.yaml", {"eyes": build_resnet18}),
        session=gn.new_session("cpu"),
    )
    num_members = method["num_samples"]
    assert study.snapshot().teacher["num_samples"] == num_members
    teacher = study.reference("teacher")
    assert 37e6 * num_members < teacher.costs["macs"] < 38e6 * num_members
    assert study.chosen() is not None
    assert len(study.front()) >= 1


@pytest.mark.parametrize(
    ("likelihood", "num_outputs"),
    [("gaussian", 1), ("gaussian_learned", 1), ("heteroscedastic", 2)],
)
def test_real_labels_have_module_teachers(likelihood: str, num_outputs: int) -> None:
    data = {
        "name": "real",
        "dataset": {"name": "linear_gaussian"},
        "teacher": {
            "family": "module",
            "genotype": {},
            "method": {"name": "map", "steps": 100},
            "likelihood": {"name": likelihood},
        },
        "students": [{"family": "mlp", "genotype": {"depth": 0}}],
        "objectives": ["nll"],
    }
    space = parse_space(data, "real.yaml", {"teacher": partial(nn.Linear, 2, num_outputs)})
    teacher = gn.build_teacher(space, gn.new_session("cpu"))
    mean_and_variance = teacher.predicted("validation")
    assert mean_and_variance.shape[2] == 2
    assert bool((mean_and_variance[..., 1] > 0).all())

    wrong = parse_space(data, "real.yaml", {"teacher": partial(nn.Linear, 2, 5)})
    with pytest.raises(ConfigError, match=rf"expected \(4, {num_outputs}\)"):
        gn.load_dataset(wrong)


def test_a_tuned_teacher_keeps_its_module(tmp_path: Path) -> None:
    space = space_of(tmp_path, {"eyes": Eyes})
    block = {**space.resolved["teacher"], "method": {"name": "map"}}
    tuned = with_teacher(space, block)
    assert tuned.method.name == "map"
    assert tuned.module is space.module

    assert "laplace" in _methods(["laplace"], replace(space, module=None))
    with pytest.raises(ConfigError, match="found 'laplace', which acts on layers"):
        _methods(["laplace"], space)
    assert not {"laplace", "mc_dropout"} & set(_methods(None, space))


@pytest.mark.soak
def test_a_module_is_tuned(tmp_path: Path) -> None:
    tuned = {}
    for source in (Eyes, SharpEyes):
        space = space_of(tmp_path, {"eyes": source})
        tuned[source] = gn.tune_teacher(space, n_trials=2, session=gn.new_session("cpu"))
    assert tuned[Eyes].answer["teacher"]["family"] == "module"
    # another forward pass is another teacher, of which nothing is known yet
    values = [[candidate.values for candidate in one.tried] for one in tuned.values()]
    assert values[0] != values[1]


@pytest.mark.soak
def test_students_with_a_time_limit_are_measured_beside_it(tmp_path: Path) -> None:
    """In a process of their own, where the module is asked about permuted inputs."""
    data = settings(tmp_path)
    data["search"]["student_timeout"] = 300
    space = parse_space(data, "eyes.yaml", {"eyes": Eyes})
    study = gn.run(space, session=gn.new_session("cpu"))
    assert all("kl_to_teacher@permuted" in record.metrics for record in study.records())


@pytest.mark.soak
def test_chains_have_the_same_bits_in_other_processes(tmp_path: Path) -> None:
    method = {
        "name": "sgld",
        "chains": 2,
        "num_samples": 4,
        "burn_in": 4,
        "thinning": 2,
        "step_size": {"initial": 1e-4},
    }
    digests = set()
    for processes in (1, 2):
        space = space_of(tmp_path, {"eyes": Eyes}, method=method)
        session = Session(streams=tmp_path / str(processes), processes=processes)
        digests.add(gn.build_teacher(space, session).stream.digest)
    assert len(digests) == 1
