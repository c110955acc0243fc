"""Every example of the documentation works.

The blocks of each page are executed in order, in a folder of its own.

What is different from a user's machine, so that all pages together take less than a minute:

* Every search space that is read is cut down (``_cut``): fewer posterior samples, steps and
  students at once. Settings that an example gives with ``--set`` come after that and hold.
* Methods that suit a space's budget get a small one.
* A tuning has one fold, and fewer MAP networks.
* A grid of evaluations has one seed and one task.
* Evaluations ask about 20 examples, and attacks are of one step; certificates are made without.
* No study goes beyond ``NUM_TRIALS`` trials, whatever ``--n-trials`` says; lists of settings of the
  dials are cut to their first. ``dashboard`` is not started, since it would not end.
* The studies ``digits_mlp`` and ``mine`` are there already, as are files that pages take for
  granted (``_prepare``). The trial that a command names is replaced by the one that the study has
  chosen here.

A block that cannot be run stands under ``<!-- not run: reason -->``. Those, and the blocks that are
no program, are listed in ``NOT_RUN``, so that none slips in.
"""

import re
import runpy
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gped_nas as gn
from gped_nas.api import held_out, job, tuning_answer, tuning_starts
from gped_nas.api import settings as api_settings
from gped_nas.api.suite import read_grid
from gped_nas.api.tasks import certify, certify_teacher
from gped_nas.config import dump_yaml, load_yaml, read_yaml
from gped_nas.data.base import Dataset
from gped_nas.posterior.budget import Budget
from gped_nas.registry import Registry
from gped_nas.search import space_file as spaces
from gped_nas.search.space import SearchSpace
from tests.cli.harness import TINY, accepted, call
from tests.docs.pages import PAGES, Block, blocks_of
from tests.test_architecture import all_registries

NUM_TRIALS = 4
NOT_RUN: dict[str, list[str]] = {
    "README.md": [
        "make search    # sets up .venv, installs, searches students for the digits dataset, "
        "writes a report",
        "@inproceedings{vadera2020gped,",
    ],
    "docs/architecture.md": [
        "dataset --> posterior samples --> stream --> expectations --> kernel --> evaluation --> "
        "trial record --> front --> report"
    ],
    "docs/boxes.md": ["inputs:"],
    "docs/commands.md": [
        "gped-search: error: digits.yaml: teacher.famly: unknown key",
        "inputs             13 numbers",
        "$ gped-search replay digits_mlp --proposer costs_known --proposer tpe",
    ],
    "docs/codec.md": ["from load_posterior import Posterior"],
    "docs/concepts.md": [
        "   dataset ------------> posterior samples ---> stream ------------> expectations"
    ],
    "docs/data.md": ["$ GPED_DATA=/data/torchvision gped-search run fashion_mlp --dry-run"],
    "docs/evaluate.md": [
        "misclassification, on test, n 359",
        "costs: [[0, 1], [20, 2]]  # a row a class, a column an action",
        "$ gped-search evaluate digits_mlp --tasks active --subjects teacher,student",
    ],
    "docs/export.md": ["$ gped-search export digits_mlp 19 --to onnx --compute int8 --into fast"],
    "docs/extending.md": ['[project.entry-points."gped_nas.plugins"]'],
    "docs/kernel.md": [
        "            one batch of inputs x (B, D) and averages of the teacher, gathered once for "
        "all"
    ],
    "docs/quickstart.md": [
        "$ python3 -m venv .venv",
        "$ pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu",
    ],
    "docs/replace.md": ["$ python3 -m venv bare"],
    "docs/search.md": [
        "$ srun --nodes=4 --ntasks-per-node=1 --gpus-per-node=2 bash -c 'ray symmetric-run "
        '--address "$(scontrol show hostnames | head -n 1):6379" --min-nodes 4 -- \\',
        "$ kubectl ray job submit --name digits --image registry.example/gped-nas:latest "
        "--worker-replicas 4 --worker-gpu 1 --working-dir . -- \\",
        "$ gped-search replay fashion_mlp --proposer costs_known --proposer "
        '"costs_known every_dtype=false" --proposer tpe',
        "$ gped-search run digits_mlp --set search.sampler=random --set search.seed=0 --n-trials "
        "300 --seed 0 --study-name pool0",
    ],
    "docs/science.md": [
        "theta <- theta - (eta / 2) grad U(theta) + N(0, eta T)",
        "argmin over z of   sum_i (z_i - w_i)^2 / (2 lr D_i) + lambda sqrt(n) ||z||",
    ],
}
"""By page, the first lines of blocks that are not run: drawings, and programs with a reason."""
SMALL = {"num_samples": 8, "burn_in": 20, "thinning": 10, "steps": 100, "leapfrog_steps": 2}


def _cut(data: dict[str, Any]) -> dict[str, Any]:
    """A search space as plain data, made small."""
    method = data["teacher"].get("method")
    if method and method["name"] != "import":
        method |= {key: value for key, value in SMALL.items() if key in method}
    data["recipe"] = {**data.get("recipe", {}), "steps": 40, "warmup": 5}
    data["baseline"] = {"steps": 100, "precisions": [1.0]}
    data["twins"] = {"seeds": 1, "students": 1}
    data["search"] = {**data.get("search", {}), "students_at_once": NUM_TRIALS, "keep": {}}
    return data


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """Cut budgets, see the module."""

    def search(*args: Any, n_trials: int, **kwargs: Any) -> str:
        return run_search(*args, n_trials=min(n_trials, NUM_TRIALS), **kwargs)

    def small_budget(space: SearchSpace, dataset: Dataset) -> Budget:
        return replace(budget_of(space, dataset), num_samples=8, burn_in=20, thinning=20)

    budget_of = api_settings.budget_of
    run_search: Callable[..., str] = job.search
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spaces, "read_yaml", lambda path: _cut(read_yaml(path)))
        patch.setattr(job, "search", search)
        patch.setattr(api_settings, "budget_of", small_budget)
        patch.setattr(held_out, "MAX_FOLDS", 1)
        patch.setattr(certify, "ATTACK", "none")
        patch.setattr(certify_teacher, "ATTACK", "none")
        patch.setattr(tuning_answer, "FINAL_SEEDS", 2)
        patch.setattr(tuning_starts, "_changes", lambda best: iter(()))
        yield


@pytest.fixture(autouse=True)
def _own_registries() -> Iterator[None]:
    """What examples register is gone after them."""
    before: list[tuple[Registry[object], dict[str, object]]] = []
    for registry in all_registries():
        if len(registry):
            before.append((registry, dict(registry._items)))
    yield
    for registry, items in before:
        registry._items.clear()
        registry._items.update(items)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study ``digits_mlp``, its cache and the files that pages expect."""
    root = tmp_path_factory.mktemp("documentation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPED_CACHE", str(root / "cache"))
        patch.chdir(root)
        _prepare(root)
    return root


def _prepare(root: Path) -> None:
    gn.run("digits_mlp")
    dataset = gn.load_dataset(gn.load_space("digits_mlp"))
    images = dataset.raw("test").numpy()
    np.save(root / "digits.npy", images[:3])
    np.savez(root / "mine.npz", x_train=images[:, 0], y_train=dataset.labels("test"))
    accepted("init", "mine.yaml", "--data", "mine.npz")
    accepted("run", "mine.yaml")
    (root / "mine.yaml").unlink()


def _commands(block: Block, chosen: int) -> Iterator[list[str]]:
    """The words of each command, as they are run here."""
    trial = re.compile(r"\b(digits_mlp(?:[ -]|/students/))\d+\b")
    for command in block.commands:
        words = shlex.split(trial.sub(rf"\g<1>{chosen}", command), comments=True)
        if "dials" in words:
            words = [word.split(",")[0] for word in words]
        if words[:2] == ["gped-search", "evaluate"]:
            words = [word.replace("apgd-", "fgsm-") for word in words]
            words += [] if "--limit" in words else ["--limit", "20"]
        yield words


def _run_console(block: Block, chosen: int) -> None:
    for words in _commands(block, chosen):
        if words[:2] == ["gped-search", "dashboard"]:
            assert len(words) > 2, "a study"  # it serves until it is stopped, so it is not run
        elif words[0] == "gped-search":
            file_name = None
            if words[-2] == "2>":
                *words, _, file_name = words
            result = call(*words[1:])
            assert result.code == 0, (words, result.err)
            if file_name:
                Path(file_name).write_text(result.err)
        elif words[0] == "python":
            runpy.run_path(words[1])
        else:
            pytest.fail(
                f"{block.page}:{block.line}: {words[0]}: a test runs gped-search and python; mark "
                "the block"
            )


def _run_yaml(block: Block) -> None:
    """Read a whole space or grid, or a part of a space that must fit into the tiny one.

    A whole one starts with its file's name and is written there.
    """
    data = load_yaml(block.text, block.page)
    file_name = re.match(r"# (\S+\.yaml)", block.text)
    if "teachers" in data:
        assert file_name, "a grid begins with its file's name"
        read_grid(data)
        Path(file_name[1]).write_text(dump_yaml({**data, "seeds": 1, "tasks": data["tasks"][:1]}))
        return
    if file_name:
        Path(file_name[1]).write_text(block.text)
    else:
        data = {**load_yaml(TINY, "tiny"), **data}
    spaces.parse_space(data, f"{block.page}:{block.line}")


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(
    page: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "page"
    shutil.copytree(prepared, folder, ignore=shutil.ignore_patterns("cache"))
    monkeypatch.setenv("GPED_CACHE", str(prepared / "cache"))
    monkeypatch.chdir(folder)

    student = gn.open_study("digits_mlp").chosen()
    assert student is not None
    images = gn.load_dataset(gn.load_space("digits_mlp")).raw("test")[:3].float()

    # the Python blocks of a page share their names
    names: dict[str, Any] = {"__name__": page}
    for block in blocks_of(page):
        if block.mark or block.kind == "drawing":
            continue
        if block.kind == "console":
            _run_console(block, student.trial)
        elif block.kind == "yaml":
            _run_yaml(block)
        else:
            names["inputs"] = images if "import torch" in block.text else images.numpy()
            # errors tell the line of the page
            source = "\n" * (block.line - 1) + block.text
            exec(compile(source, str(PAGES[page]), "exec"), names)


def test_what_is_not_run_is_known() -> None:
    not_run: dict[str, list[str]] = {}
    for page in PAGES:
        for block in blocks_of(page):
            if block.mark or block.kind == "drawing":
                not_run.setdefault(page, []).append(block.text.splitlines()[0])
    assert not_run == NOT_RUN


def test_every_page_is_in_the_index() -> None:
    index = PAGES["docs/README.md"].read_text()
    pages = [page for page in PAGES if page.startswith("docs/")]
    missing = [page for page in pages if f"({Path(page).name})" not in index]
    assert missing == ["docs/README.md"]
