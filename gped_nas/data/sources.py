"""Which settings of a dataset suit what a user has: arrays, a table, or a folder of images."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gped_nas.config import parse
from gped_nas.data.columns import CsvFormat, Table, is_numeric
from gped_nas.data.labels import look_real
from gped_nas.data.named_arrays import read_arrays
from gped_nas.data.npy import NpySettings, read_files
from gped_nas.data.stored import AnyArray
from gped_nas.data.suggested import suggest_for
from gped_nas.data.table_files import CSV, PARQUET, column_of, read_table
from gped_nas.errors import DataError

_FORMATS = (
    {"separator": ",", "decimal": "."},
    {"separator": ";", "decimal": ","},
    {"separator": ";", "decimal": "."},
    {"separator": "\t", "decimal": "."},
)
_USUAL_LABELS = ("label", "target", "class", "y")


def suggest_settings(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the dataset at a path, those that are given among them.

    A folder holds ``.npy`` files or images, a file of another ending than CSV's and Parquet's is an
    npz.

    Args:
        path: what the user has.
        given: settings that the user said; ``label`` where a table does not say it.

    Raises:
        DataError, EnvironmentProblem: it cannot be read, or the label is missing.
    """
    suffix = path.suffix.lower()
    if "name" in given:
        return {"path": str(path), **given}
    if (path / "x_train.npy").is_file() or (path.is_dir() and "x_train" in given):
        settings = {"name": "npy", "path": str(path), **given}
        return settings | suggest_for(arrays_of(settings), given)
    if path.is_dir():
        return {"name": "images", "path": str(path), **given}
    if suffix in CSV or suffix == ".txt":
        return _csv_settings(path, given)
    if suffix in PARQUET:
        settings = {"name": "parquet", "path": str(path), **given}
        return settings | _label_settings(read_table(path), path, given)
    settings = {"name": "npz", "path": str(path)}
    return settings | suggest_for(arrays_of(settings), given)


def arrays_of(settings: Mapping[str, Any]) -> dict[str, AnyArray]:
    """The arrays by name of an ``npz`` or ``npy`` dataset; large inputs stay in their file.

    Raises:
        GpedError: see ``load_npz`` and ``load_npy_files``.
    """
    if settings["name"] == "npz":
        return read_arrays(Path(settings["path"]), stays_stored=True)
    arrays, _ = read_files(parse(NpySettings, dict(settings), "dataset"))
    return arrays


def restore_layout(settings: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """What brings raw inputs (B, *raw_shape) of a dataset into the layout of the user's arrays.

    Args:
        settings: of the dataset.

    Raises as ``arrays_of``.
    """
    num_axes = 0
    if settings["name"] in ("npz", "npy"):
        num_axes = arrays_of(settings)["x_train"].ndim

    if num_axes == 4 and settings.get("layout") != "channels_first":
        return lambda raw: raw.movedim(1, -1)
    if num_axes == 3:
        return lambda raw: raw.squeeze(1)
    return lambda raw: raw  # tables, and images as torch has them


def _csv_settings(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the way of writing a CSV file by which most columns are numbers."""
    said = {key: given[key] for key in CsvFormat.model_fields if key in given}
    tables: list[tuple[dict[str, str], Table]] = []
    refusals: list[DataError] = []
    for usual in _FORMATS:
        form = {**usual, **said}
        try:
            tables.append((form, read_table(path, CsvFormat(**form))))
        except DataError as error:
            refusals.append(error)
    if not tables:
        raise refusals[0]

    form, table = max(tables, key=lambda item: (len(item[1]), _num_numeric(item[1])))
    defaults = CsvFormat().model_dump()
    unusual = {key: value for key, value in form.items() if value != defaults[key]}
    settings = {"name": "csv", "path": str(path), **unusual, **given}
    return settings | _label_settings(table, path, given)


def _num_numeric(table: Table) -> int:
    return sum(is_numeric(values) for values in table.values())


def _label_settings(table: Table, path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The label's column, and what it holds.

    Raises:
        DataError: it is not given, and no column has one of the usual names.
    """
    usual = [name for name in table if name.lower() in _USUAL_LABELS]
    label = given.get("label", usual[0] if len(usual) == 1 else None)
    if label is None:
        columns = ", ".join(list(table)[:10]) + (", ..." if len(table) > 10 else "")
        raise DataError(
            f"{path}: found the columns {columns}, expected to know which one is the label; give "
            "--label COLUMN"
        )

    settings: dict[str, Any] = {"label": label}
    values = column_of(table, label, "--label", path)
    if "task" not in given and is_numeric(values) and look_real(values[values == values]):
        settings["task"] = "regression"
    others = {name: values for name, values in table.items() if name != label}
    if any(is_numeric(values) and (values != values).any() for values in others.values()):
        settings["missing"] = given.get("missing", "impute")
    return settings
