"""``diabetes``: ten measurements of each of 442 patients; the label is a real number.

It comes with scikit-learn.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from gped_nas.config import Config, parse
from gped_nas.data.base import DATASETS, Dataset, build, split_of


class DiabetesSettings(Config):
    """Settings of ``diabetes``."""

    name: Literal["diabetes"]
    test: float = Field(
        0.2, gt=0, lt=1, description="fraction of all examples carved for the test part"
    )
    validation: float = Field(
        0.2, gt=0, lt=1, description="fraction of the rest carved for validation"
    )
    seed: int = Field(0, ge=0, description="seed of the splits")


@DATASETS.register("diabetes")
def load_diabetes(settings: dict[str, object], where: str) -> Dataset:
    """Disease progression after a year, 25 to 346, from ten measurements.

    scikit-learn centers each measurement and scales all of them alike.

    Raises:
        ConfigError: settings it does not take.

    Source: Efron, Hastie, Johnstone & Tibshirani 2004, Annals of Statistics 32(2).
    """
    cfg = parse(DiabetesSettings, settings, where)
    from sklearn import datasets  # slow to import, and few runs need it

    source = datasets.load_diabetes()
    return build(
        cfg.name,
        split_of(source.data.astype(np.float32), source.target.astype(np.float64)),
        class_names=(),
        test=cfg.test,
        validation=cfg.validation,
        seed=cfg.seed,
        where=where,
    )
