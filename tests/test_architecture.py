"""What no test of one module sees.

Nothing is unpickled or evaluated, nothing is drawn globally, registries are full, and public names
are documented.
"""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import gped_nas
from gped_nas.registry import Registry

ROOT = Path(gped_nas.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "__import__",
    "torch.load",
    "torch.save",
    "yaml.full_load",
    "yaml.unsafe_load",
}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
ARRAY_READERS = {"np.load", "numpy.load", "np.lib.format.read_array", "npy_format.read_array"}
SAFE_NUMPY_DRAWS = {"default_rng", "Generator", "SeedSequence", "PCG64", "Philox", "get_state"}
GLOBAL_TORCH_DRAWS = {
    "torch.manual_seed",
    "torch.seed",
    "torch.set_rng_state",
    "random.seed",
    "random.random",
}


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _offenses(source: str) -> Iterator[str]:
    """What must not be in the package, as ``line: what``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from _import_offenses(node.lineno, [alias.name for alias in node.names])
        elif isinstance(node, ast.ImportFrom):
            yield from _import_offenses(node.lineno, [node.module or ""])
        elif isinstance(node, ast.Call):
            yield from _call_offenses(node)


def _import_offenses(line: int, names: list[str]) -> Iterator[str]:
    if any(name.split(".")[0] in FORBIDDEN_MODULES for name in names):
        yield f"{line}: imports {names}"


def _call_offenses(node: ast.Call) -> Iterator[str]:
    name = _dotted(node.func)
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}

    if name in FORBIDDEN_CALLS | GLOBAL_TORCH_DRAWS:
        yield f"{node.lineno}: {name}"
    if isinstance(node.func, ast.Attribute) and node.func.attr == "cuda":
        yield f"{node.lineno}: .cuda("

    if name in ARRAY_READERS:
        allowed = keywords.get("allow_pickle")
        if not (isinstance(allowed, ast.Constant) and allowed.value is False):
            yield f"{node.lineno}: {name} without allow_pickle=False"
    if name == "yaml.load" and "Loader" not in keywords:
        yield f"{node.lineno}: yaml.load without a loader"

    head, _, draw = name.rpartition(".")
    if head in ("np.random", "numpy.random") and draw not in SAFE_NUMPY_DRAWS:
        yield f"{node.lineno}: {name} draws from a global generator"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_evaluated_or_drawn_globally(path: Path) -> None:
    assert list(_offenses(path.read_text())) == []


def test_programs_are_opened_where_they_were_just_written_alone() -> None:
    """``torch.export.load`` evaluates expressions of its file and calls what it names."""
    opening = []
    for path in FILES:
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        if any(_dotted(call.func) == "torch.export.load" for call in calls):
            opening.append(path.name)
    assert opening == ["pt2.py"]


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load('x')",
        "eval('1')",
        "np.load('x')",
        "np.load('x', allow_pickle=True)",
        "np.random.normal()",
        "model.cuda()",
        "torch.manual_seed(0)",
        "yaml.load(text)",
    ],
)
def test_the_search_for_offenses_finds_them(source: str) -> None:
    assert len(list(_offenses(source))) == 1


READING_A_SPACE = ("data", "models", "posterior", "stream", "targets", "distill", "search")
"""Rooms that are loaded whole where a space is read, which nearly every command does."""


@pytest.mark.parametrize("room", READING_A_SPACE)
def test_where_a_space_is_read_nothing_slow_is_loaded(room: str) -> None:
    slow = []
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if {name.split(".")[0] for name in names} & {"scipy", "sklearn", "pandas", "plotly"}:
                slow.append(str(path.relative_to(ROOT)))
    assert slow == []


def all_registries() -> list[Registry[object]]:
    """Every registry of the package, by what it holds."""
    registries = {}
    for module in pkgutil.walk_packages(gped_nas.__path__, "gped_nas."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Registry):
                registries[id(value)] = value  # modules import one another's registries
    return sorted(registries.values(), key=lambda registry: registry.kind)


def test_every_registry_holds_something() -> None:
    registries = all_registries()
    kinds = [registry.kind for registry in registries]
    assert len(set(kinds)) == len(kinds)
    assert {"dataset", "family", "method", "metric", "policy", "target"} <= set(kinds)

    for registry in registries:
        assert len(registry) >= 1, registry.kind
        assert all(name in registry for name in registry), registry.kind
        assert "no such thing" not in registry


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_public_name_is_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if tree.body:
        assert ast.get_docstring(tree), f"{path}: the module"

    definitions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    public = [node for node in definitions if not node.name.startswith("_")]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


def test_exported_functions_do_not_bear_the_name_of_a_submodule() -> None:
    """``from gped_nas.api import teacher`` must never mean two things."""
    for module in pkgutil.walk_packages(gped_nas.__path__, "gped_nas."):
        if module.ispkg:
            package = importlib.import_module(module.name)
            submodules = {submodule.name for submodule in pkgutil.iter_modules(package.__path__)}
            assert not submodules & set(getattr(package, "__all__", ())), module.name
