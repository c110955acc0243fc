"""Tables as files: CSV and Parquet, read by pandas into columns."""

import csv
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from gped_nas.config import is_number_text
from gped_nas.data.columns import CsvFormat, Table
from gped_nas.errors import DataError, EnvironmentProblem, nearest
from gped_nas.io import environment

PARQUET = (".parquet", ".pq")
CSV = (".csv", ".tsv")
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}


def read_table(path: Path, form: CsvFormat | None = None) -> Table:
    """The columns of a file, by name and in order.

    Args:
        path: a Parquet file by its ending, else CSV with names in the first line.
        form: how a CSV file is written; as most are by default.

    Raises:
        DataError: the file cannot be used.
        EnvironmentProblem: it exists and cannot be opened, or Parquet's reader is not installed.
    """
    _check_is_there(path)
    if path.suffix.lower() in PARQUET:
        frame = _read_parquet(path)
    else:
        frame = _read_csv(path, form or CsvFormat())

    if not len(frame):
        raise DataError(f"{path}: found no rows, expected one an example; fill it")
    return {str(name): _plain(frame[name], f"{path}: column '{name}'") for name in frame}


def column_of(table: Table, name: str, key: str, path: Path | str) -> Any:
    """A column that a setting names.

    Raises:
        DataError: it is not there.
    """
    if name not in table:
        raise DataError(f"{path}: {key}: found no column '{name}'{nearest(name, table)}")
    return table[name]


def _check_is_there(path: Path) -> None:
    with environment("read", path):
        if not path.is_file():
            raise DataError(
                f"{path}: no such file (looked from {Path.cwd()}); check 'path' in the dataset's "
                "settings"
            )
        path.open("rb").close()


def _read_csv(path: Path, form: CsvFormat) -> Any:
    import pandas as pd

    # A byte order mark is no part of the first name.
    encoding = "utf-8-sig" if form.encoding.lower() in ("utf-8", "utf8") else form.encoding
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _check_header(path, form, encoding)
            frame = pd.read_csv(
                path,
                sep=form.separator,
                decimal=form.decimal,
                encoding=encoding,
                low_memory=False,
                skipinitialspace=True,
            )
    except UnicodeError as error:
        raise DataError(
            f"{path}: found bytes that are not {form.encoding} ({error}); set dataset.encoding, "
            "latin-1 or cp1252 for example"
        ) from None
    except LookupError:
        raise DataError(
            f"{path}: encoding: found '{form.encoding}', which Python does not know; set "
            "dataset.encoding: utf-8, or latin-1"
        ) from None
    except (ValueError, OSError, EOFError, Warning) as error:  # pandas' own are ValueErrors
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a readable CSV file ({reason}); mend that line") from None

    if not isinstance(frame.index, pd.RangeIndex):
        raise DataError(
            f"{path}: found rows with more values than the first line has names; expected as many; "
            "name every column, or remove what ends each row"
        )
    return frame


def _check_header(path: Path, form: CsvFormat, encoding: str) -> None:
    """Refuse a first line that is no list of names.

    Raises:
        DataError: it holds one name, numbers, or a name twice.
    """
    import pandas as pd

    first = pd.read_csv(
        path, sep=form.separator, encoding=encoding, header=None, nrows=1, dtype=str,
        keep_default_na=False, skipinitialspace=True, quoting=csv.QUOTE_MINIMAL,
    )  # fmt: skip
    names = [str(name) for name in first.iloc[0]]

    if len(names) == 1:
        for mark, word in _SEPARATORS.items():
            if mark in names[0]:
                shown = "\\t" if mark == "\t" else mark
                raise DataError(
                    f"{path}: found one column, {names[0]!r:.60}, expected several; its values are "
                    f'separated by {word}: set dataset.separator: "{shown}"'
                )
    if all(is_number_text(name) for name in names):
        raise DataError(
            f"{path}: found numbers in the first line, expected the names of the columns; put a "
            "line of names before it"
        )
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path}: found two columns '{name}', expected one; rename one of them")


def _read_parquet(path: Path) -> Any:
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except ImportError:
        raise EnvironmentProblem(
            f"{path}: pyarrow is not installed; run `pip install 'gped-nas[parquet]'`"
        ) from None
    except Exception as error:  # Arrow's errors share no class
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path}: not a readable Parquet file ({reason:.200}); write it again with to_parquet"
        ) from None


def _plain(series: Any, where: str) -> Any:
    """A column without pandas: numbers, truth values, or objects that are text or None.

    Raises:
        DataError: it holds dates, lists or something else.
    """
    import pandas as pd

    kinds = pd.api.types
    if kinds.is_datetime64_any_dtype(series) or kinds.is_timedelta64_dtype(series):
        name = series.name
        raise DataError(
            f"{where}: found dates, expected numbers or categories; turn them into numbers (days "
            f"since the first, month, weekday), or leave it out with dataset.drop: [{name}]"
        )
    if kinds.is_bool_dtype(series) or kinds.is_numeric_dtype(series):
        if series.isna().any():
            return series.to_numpy(dtype=np.float64, na_value=np.nan)
        return series.to_numpy()
    return _text_of(series, where)


def _text_of(series: Any, where: str) -> Any:
    """Objects (N,): text without blanks around it, or None."""
    text = np.empty(len(series), dtype=object)
    is_missing = series.isna().to_numpy()
    for row, value in enumerate(series.tolist()):
        if is_missing[row]:
            continue
        if not isinstance(value, str | bool | int | float | np.generic):
            raise DataError(
                f"{where}: found {type(value).__name__} in row {row}, expected numbers or text; "
                f"leave it out with dataset.drop: [{series.name}]"
            )
        text[row] = str(value).strip()
    return text
