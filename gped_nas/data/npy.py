"""``npy``: a dataset of the user's own, an ``.npy`` file an array, as ``numpy.save`` writes them.

They are those of ``npz``, see ``own``: ``x_train.npy`` and ``y_train.npy`` in a folder, or files
that settings name. Large inputs stay in their file, and are read where they are used.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from gped_nas.config import parse
from gped_nas.data.archives import UNREADABLE
from gped_nas.data.base import DATASETS, Dataset
from gped_nas.data.named_arrays import ARRAYS, check_names, check_not_empty
from gped_nas.data.normalization import Normalize
from gped_nas.data.own import ArraySettings, dataset_of
from gped_nas.data.splits import SplitRule
from gped_nas.data.stored import AnyArray, load_npy
from gped_nas.errors import DataError
from gped_nas.io import environment


class NpySettings(ArraySettings):
    """Settings of ``npy``."""

    name: Literal["npy"]
    path: str | None = Field(
        None, description="folder of x_train.npy and so on; starts at the current directory"
    )
    x_train: str | None = Field(None, description="file of this array; by default in the folder")
    y_train: str | None = Field(None, description="likewise")
    x_val: str | None = Field(None, description="likewise")
    y_val: str | None = Field(None, description="likewise")
    x_test: str | None = Field(None, description="likewise")
    y_test: str | None = Field(None, description="likewise")
    x_pool: str | None = Field(None, description="likewise")
    groups_train: str | None = Field(None, description="likewise")
    groups_val: str | None = Field(None, description="likewise")
    groups_test: str | None = Field(None, description="likewise")
    class_names: str | None = Field(None, description="likewise")
    split: SplitRule | None = Field(
        None,
        description="how parts are carved; stratified where labels are classes if nothing is said",
    )
    normalize: Normalize | None = Field(
        None,
        description="what shares one mean and deviation; columns or channels, as the inputs are, "
        "if nothing is said",
    )

    @model_validator(mode="after")
    def _has_files(self) -> "NpySettings":
        if self.path is None and self.x_train is None:
            raise ValueError("found neither path nor x_train, expected one of them")
        return self


@DATASETS.register("npy")
def load_npy_files(settings: dict[str, object], where: str) -> Dataset:
    """The user's arrays as a dataset; its inputs are ``Rows`` where they are large.

    Raises:
        ConfigError: settings it does not take.
        DataError: a file or its array cannot be used; names the file and the way out.
        EnvironmentProblem: a file exists and cannot be opened.
    """
    cfg = parse(NpySettings, settings, where)
    arrays, source = read_files(cfg)
    is_table = arrays["x_train"].ndim == 2
    return dataset_of(
        cfg,
        arrays,
        name=cfg.name,
        path=source,
        normalize=cfg.normalize or ("columns" if is_table else "channels"),
        rule=cfg.split or ("stratified" if cfg.task == "classification" else "random"),
    )


def read_files(cfg: NpySettings) -> tuple[dict[str, AnyArray], str]:
    """The arrays by name, of which large ones stay in their files; and the folder, for messages.

    Raises:
        DataError, EnvironmentProblem: see ``load_npy_files``.
    """
    files = _files(cfg)
    source = cfg.path or str(files["x_train"].parent)
    check_names(list(files), source)

    arrays: dict[str, AnyArray] = {}
    for name, path in files.items():
        arrays[name] = _load(path)
        check_not_empty(arrays[name].shape, name, source)
    return arrays, source


def _files(cfg: NpySettings) -> dict[str, Path]:
    """The files of the arrays that are there, by name.

    Raises:
        DataError: the folder is not there.
    """
    files = {}
    if cfg.path is not None:
        folder = Path(cfg.path)
        with environment("read", folder):
            if not folder.is_dir():
                raise DataError(
                    f"{folder}: no such folder (looked from {Path.cwd()}), expected one with "
                    "x_train.npy and y_train.npy; check 'path' in the dataset's settings"
                )
            files = {path.stem: path for path in sorted(folder.glob("*.npy"))}

    for name in ARRAYS:
        named = getattr(cfg, name)
        if named is not None:
            files[name] = Path(named)
    return files


def _load(path: Path) -> AnyArray:
    with environment("read", path):
        if not path.is_file():
            raise DataError(f"{path}: no such file (looked from {Path.cwd()}); check the settings")
        path.open("rb").close()
    try:
        return load_npy(path)
    except UNREADABLE as error:
        raise DataError(
            f"{path}: not a readable .npy ({error}); write it again with numpy.save, a plain array"
        ) from None
