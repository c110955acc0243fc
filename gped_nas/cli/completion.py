"""What the shell proposes when Tab is pressed: spaces, studies, and trials of a study.

It answers from names of folders and files alone, since every press waits for it.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import typer


def complete_space(incomplete: str) -> Iterator[str]:
    """Shipped search spaces, and YAML files."""
    from gped_nas.search.shipped import shipped_spaces

    yield from _with_yaml_files(shipped_spaces(), incomplete)


def complete_grid(incomplete: str) -> Iterator[str]:
    """Shipped grids, and YAML files."""
    from gped_nas.suite.shipped import shipped_grids

    yield from _with_yaml_files(shipped_grids(), incomplete)


def _with_yaml_files(names: Iterable[str], incomplete: str) -> Iterator[str]:
    yield from _beginning(names, incomplete)
    folder = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    files = [str(path) for pattern in ("*.yaml", "*.yml") for path in folder.glob(pattern)]
    yield from _beginning(files, incomplete)


def complete_study(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Names of the studies in ``--out``."""
    out = Path(ctx.params.get("out") or "reports")
    names = [path.parent.name for path in out.glob("*/study.json")]
    yield from _beginning(names, incomplete)


def complete_trial(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """``chosen``, ``best``, and the trials whose students were kept."""
    study = ctx.params.get("study") or ctx.params.get("student") or ""
    out = Path(ctx.params.get("out") or "reports")
    names = {"chosen", "best"}
    for folder in (Path(study), out / study):
        names |= {path.name for path in folder.glob("students/[0-9]*")}
    yield from _beginning(names, incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> Iterator[str]:
    """Those of some names that begin so, in order."""
    for name in sorted(names):
        if name.startswith(incomplete):
            yield name
