"""``csv`` and ``parquet``: a dataset of the user's own, one table with a row an example.

The first line of a CSV file names the columns. One of them is the label; the others are inputs, as
``columns`` says. Rows whose label is missing become unlabeled inputs. Other files may be the test
and the validation part; they have the same columns.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from gped_nas.config import Config, parse
from gped_nas.data.base import DATASETS, Dataset, Split, Task, build
from gped_nas.data.columns import (
    CsvFormat,
    Table,
    TableColumns,
    as_numbers,
    as_text,
    choose_columns,
    describe_identifiers,
    is_numeric,
)
from gped_nas.data.groups import number_groups
from gped_nas.data.labels import number_classes
from gped_nas.data.normalization import Missing, Normalize
from gped_nas.data.splits import SplitRule
from gped_nas.data.table_files import column_of, read_table
from gped_nas.errors import DataError
from gped_nas.io import Array

Names = Annotated[tuple[str, ...], Field(strict=False)]
_LARGEST = 1e30


class TableSettings(Config):
    """Settings of every table."""

    path: str = Field(
        min_length=1, description="the file; a relative path starts at the current directory"
    )
    label: str = Field(min_length=1, description="the column that is predicted")
    task: Task = Field("classification", description="what labels are: classes or real numbers")
    drop: Names = Field((), description="columns that are no inputs, identifiers for example")
    groups: str | None = Field(
        None, description="the column that says which rows belong together, patients for example"
    )
    categories: Names = Field(
        (), description="columns of numbers that are categories, postal codes for example"
    )
    test_path: str | None = Field(None, description="a file with the test part")
    validation_path: str | None = Field(None, description="a file with the validation part")
    validation: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="fraction of the training part carved for validation if it has no file",
    )
    test: float = Field(
        0.2, gt=0, lt=1, description="fraction carved for the test part if it has no file"
    )
    seed: int = Field(0, ge=0, description="seed of the splits")
    split: SplitRule | None = Field(
        None,
        description="how parts are carved; stratified where labels are classes if nothing is said",
    )
    missing: Missing = Field(
        "refuse", description="what becomes of missing numbers: refused, or filled in and flagged"
    )
    normalize: Normalize = Field(
        "columns",
        description="what shares one mean and deviation: each of the columns, or the whole input",
    )

    @field_validator("label", mode="before")
    @classmethod
    def _label_is_one_column(cls, value: object) -> object:
        if isinstance(value, list | tuple):
            raise ValueError(
                f"found {list(value)}, labels of several columns, expected one column; make a "
                "study of each column"
            )
        return value


class ParquetSettings(TableSettings):
    """Settings of ``parquet``."""

    name: Literal["parquet"]


class CsvSettings(TableSettings, CsvFormat):
    """Settings of ``csv``."""

    name: Literal["csv"]


@DATASETS.register("csv")
def load_csv(settings: dict[str, object], where: str) -> Dataset:
    """The user's CSV files as a dataset.

    Raises:
        ConfigError: settings it does not take.
        DataError: a file or one of its columns cannot be used; names both and the way out.
        EnvironmentProblem: a file exists and cannot be opened.
    """
    cfg = parse(CsvSettings, settings, where)
    form = CsvFormat(separator=cfg.separator, decimal=cfg.decimal, encoding=cfg.encoding)
    return _load(cfg, cfg.name, form)


@DATASETS.register("parquet")
def load_parquet(settings: dict[str, object], where: str) -> Dataset:
    """The user's Parquet files as a dataset.

    Raises as ``load_csv``, and ``EnvironmentProblem`` where Parquet's reader is not installed.
    """
    cfg = parse(ParquetSettings, settings, where)
    return _load(cfg, cfg.name, CsvFormat())


def _load(cfg: TableSettings, name: str, form: CsvFormat) -> Dataset:
    paths = {"train": cfg.path, "val": cfg.validation_path, "test": cfg.test_path}
    tables = {part: read_table(Path(path), form) for part, path in paths.items() if path}
    is_labeled = {part: _is_labeled(table, cfg, part) for part, table in tables.items()}
    columns = _choose(tables["train"], cfg, form)

    labels, class_names = _labels(tables, is_labeled, cfg)
    groups = _groups(tables, is_labeled, cfg)
    inputs = {}
    for part, table in tables.items():
        inputs[part] = _inputs(columns, table, paths[part] or "", cfg.missing)

    def part_or(part: str, fraction: float) -> Split | float:
        if part not in inputs:
            return fraction
        return Split(inputs[part], labels[f"y_{part}"], groups.get(part))

    has_label = torch.from_numpy(is_labeled["train"])
    is_class = cfg.task == "classification"
    return build(
        name,
        Split(inputs["train"][has_label], labels["y_train"], groups.get("train")),
        class_names=class_names,
        test=part_or("test", cfg.test),
        validation=part_or("val", cfg.validation),
        seed=cfg.seed,
        where=cfg.path,
        unlabeled=inputs["train"][~has_label],
        normalize=cfg.normalize,
        rule=cfg.split or ("stratified" if is_class else "random"),
        preparation=columns,
        missing=cfg.missing,
        notes=describe_identifiers(tables["train"], columns),
    )


def _choose(table: Table, cfg: TableSettings, form: CsvFormat) -> TableColumns:
    """What the columns become that are inputs.

    Raises:
        DataError: a column that a setting names is not there, or none is left.
    """
    for key, names in (("drop", cfg.drop), ("categories", cfg.categories)):
        for name in names:
            column_of(table, name, f"dataset.{key}", cfg.path)

    inputs = {}
    for name, values in table.items():
        if name not in (cfg.label, cfg.groups, *cfg.drop):
            inputs[name] = values
    if not inputs:
        raise DataError(
            f"{cfg.path}: found no column besides the label '{cfg.label}', expected inputs; "
            "check dataset.drop and dataset.separator"
        )
    columns = choose_columns(inputs, categories=cfg.categories, where=cfg.path)
    return TableColumns(columns=columns, format=form)


def _groups(
    tables: Mapping[str, Table], is_labeled: Mapping[str, Array], cfg: TableSettings
) -> dict[str, Tensor]:
    """Group numbers (N,) of the rows of each part that have a label; none where none are said."""
    if cfg.groups is None:
        return {}

    columns = {}
    for part, table in tables.items():
        if cfg.groups in table or part == "train":
            values = column_of(table, cfg.groups, "dataset.groups", cfg.path)
            columns[part] = values[is_labeled[part]]
    return number_groups(columns, f"{cfg.path}: column '{cfg.groups}'")


def _inputs(columns: TableColumns, table: Table, path: str, missing: Missing) -> Tensor:
    """Inputs (N, D), float64.

    Raises:
        DataError: a number is missing, infinite or very large.
    """
    numbers = columns.numbers(table, path)
    is_missing = np.isnan(numbers)
    if is_missing.any() and missing == "refuse":
        _refuse_missing(is_missing, columns, path)

    is_large = np.abs(numbers) > _LARGEST
    if is_large.any():
        row, place = np.argwhere(is_large)[0].tolist()
        raise DataError(
            f"{path}: column '{columns.labels[place]}': found {numbers[row, place]:g} in row "
            f"{row}, expected numbers up to {_LARGEST:g}; remove those rows or fill them in"
        )
    return torch.from_numpy(np.ascontiguousarray(numbers))


def _refuse_missing(is_missing: Array, columns: TableColumns, path: str) -> None:
    counts = {}
    for label, count in zip(columns.labels, is_missing.sum(axis=0).tolist(), strict=True):
        if count:
            counts[label] = count
    listed = ", ".join(f"{count} in '{label}'" for label, count in list(counts.items())[:5])
    raise DataError(
        f"{path}: found missing numbers in {int(is_missing.any(axis=1).sum())} of "
        f"{len(is_missing)} rows ({listed}), expected a number in each; set dataset.missing: "
        "impute, fill them in, remove those rows, or leave the columns out with dataset.drop"
    )


def _is_labeled(table: Table, cfg: TableSettings, part: str) -> Array:
    """Mask (N,) of the rows that have a label.

    Raises:
        DataError: there is no such column, or a row of another part than training has none.
    """
    path = {"train": cfg.path, "val": cfg.validation_path, "test": cfg.test_path}[part]
    values = column_of(table, cfg.label, "dataset.label", path or "")
    is_there: Array = as_text(values) != np.array(None)
    if part != "train" and not is_there.all():
        raise DataError(
            f"{path}: column '{cfg.label}': found no label in {int((~is_there).sum())} rows, "
            "expected one in each; remove those rows"
        )
    if not is_there.any():
        raise DataError(
            f"{path}: column '{cfg.label}': found no label in {len(is_there)} rows, expected some; "
            "check dataset.label"
        )
    return is_there


def _labels(
    tables: dict[str, Table], is_labeled: dict[str, Array], cfg: TableSettings
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Labels (N,) by ``y_train``, ``y_val`` and ``y_test``, and the names of the classes.

    Raises:
        DataError: labels that are not of the task.
    """
    present = {}
    for part, table in tables.items():
        present[f"y_{part}"] = table[cfg.label][is_labeled[part]]

    if cfg.task == "regression":
        where = f"{cfg.path}: column '{cfg.label}'"
        real = {key: torch.from_numpy(as_numbers(y, where)) for key, y in present.items()}
        return real, ()

    # Numbers beside text are text: "1" in one file, "unknown" in another.
    is_text = not all(is_numeric(y) for y in present.values())
    arrays = {}
    for key, y in present.items():
        arrays[key] = as_text(y).astype(str) if is_text else y
    return number_classes(arrays, (), f"{cfg.path}: column '{cfg.label}'")
