"""The search spaces that come with the package, as files."""

from importlib import resources
from pathlib import Path


def shipped_spaces() -> dict[str, Path]:
    """Name to file of the spaces that come with the package."""
    installed = Path(str(resources.files("gped_nas"))) / "search_spaces"
    for folder in (installed, _checkout_spaces()):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def _checkout_spaces() -> Path:
    return Path(__file__).resolve().parents[2] / "search_spaces"
