"""What the project says of itself: architecture, citation and version agree with the code."""

import ast
import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

import gped_nas as gn
from gped_nas.config import load_yaml
from tests.docs.pages import PAGES, ROOT

ARCHITECTURE = PAGES["docs/architecture.md"].read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
MARKDOWN = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("reports/notes/*.md")])
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _rows(heading: str) -> list[list[str]]:
    """Cells of the table under a heading of the architecture page, without its head."""
    section = ARCHITECTURE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table[2:]]


def test_the_floors_are_those_of_the_contract() -> None:
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    (floors,) = [contract["layers"] for contract in contracts if contract["name"] == "floors"]

    listed = [re.findall(r"`(\w+)`", floor) for floor, *_ in _rows("Floors")]
    expected = [re.findall(r"gped_nas\.(\w+)", floor) for floor in reversed(floors)]
    assert listed == expected


def test_every_file_and_folder_that_is_named_exists() -> None:
    homes = (ROOT, ROOT / "gped_nas", ROOT / "gped_nas/distill")
    text = ARCHITECTURE + CONTRIBUTING + (ROOT / "SECURITY.md").read_text()

    named = re.findall(r"`([\w./-]+(?:\.py|\.md|\.toml|/))`", text)
    missing = [name for name in named if not any((home / name).exists() for home in homes)]
    assert len(named) > 30 and missing == []


@pytest.mark.parametrize("page", PAGES)
def test_every_source_file_that_a_page_names_exists(page: str) -> None:
    sources = {f"/{path.relative_to(ROOT)}" for path in ROOT.glob("*/**/*.py")}
    named = re.findall(r"`([\w./-]+\.py)`", PAGES[page].read_text())
    missing = [name for name in named if not any(source.endswith(f"/{name}") for source in sources)]
    assert missing == []


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_section(path: Path) -> None:
    missing = []
    for link in re.findall(r"\]\(([^)\s]+)\)", _without_code(path.read_text())):
        if re.match(r"\w+:", link):  # of the network, which tests do not ask
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in _anchors(target.read_text())):
            missing.append(link)
    assert missing == []


def _without_code(text: str) -> str:
    """A page without its fenced blocks, whose comments look like headings."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def _anchors(text: str) -> set[str]:
    """What GitHub calls the headings of a page in links."""
    headings = re.findall(r"^#+ (.+)$", _without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_make_target_that_is_named_exists() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"^make ([a-z-]+)", CONTRIBUTING, re.MULTILINE)
    assert len(named) >= 6 and set(named) <= set(targets)


def test_every_letter_of_a_shape_has_a_meaning() -> None:
    rows = _rows("Letters")
    meanings = [letter for row in rows for letter in row[::2] if letter]
    assert len(meanings) == len(set(meanings))

    used: set[str] = set()
    for path in sorted((ROOT / "gped_nas").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "id", None) or getattr(node, "arg", None) or ""
            shape = re.fullmatch(r"[a-z]\w*_([A-Z]{1,4}\d?)", name)
            used |= set(re.sub(r"\d", "", shape[1])) if shape else set()
    assert used == set(meanings)


def test_the_version_is_one() -> None:
    citation = load_yaml((ROOT / "CITATION.cff").read_text(), "CITATION.cff")
    assert citation["version"] == gn.__version__
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert citation["authors"] == PYPROJECT["project"]["authors"]
    assert citation["license"] == PYPROJECT["project"]["license"]


def test_the_package_tells_type_checkers_that_it_is_typed() -> None:
    assert files("gped_nas").joinpath("py.typed").is_file()
