"""``digits``: 1797 handwritten digits of 8 x 8 pixels, which come with scikit-learn."""

from typing import Literal

import numpy as np
from pydantic import Field

from gped_nas.config import Config, parse
from gped_nas.data.base import DATASETS, Dataset, build, split_of


class DigitsSettings(Config):
    """Settings of ``digits``."""

    name: Literal["digits"]
    test: float = Field(
        0.2, gt=0, lt=1, description="fraction of all examples carved for the test part"
    )
    validation: float = Field(
        0.2, gt=0, lt=1, description="fraction of the rest carved for validation"
    )
    seed: int = Field(0, ge=0, description="seed of the splits")


@DATASETS.register("digits")
def load_digits(settings: dict[str, object], where: str) -> Dataset:
    """The digits: uint8 inputs (1, 8, 8) from 0 to 16, ten classes.

    Raises:
        ConfigError: settings it does not take.
    """
    cfg = parse(DigitsSettings, settings, where)
    from sklearn import datasets  # slow to import, and few runs need it

    source = datasets.load_digits()
    images = source.images[:, None].astype(np.uint8)
    names = tuple(str(name) for name in source.target_names)
    return build(
        cfg.name,
        split_of(images, source.target),
        class_names=names,
        test=cfg.test,
        validation=cfg.validation,
        seed=cfg.seed,
        where=where,
        value_range=(0, 16),
    )
