"""The grids that come with the package, as files."""

from pathlib import Path


def shipped_grids() -> dict[str, Path]:
    """Name to file of the grids that come with the package."""
    folder = Path(__file__).parent / "grids"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
