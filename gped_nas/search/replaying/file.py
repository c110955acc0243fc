"""A pool as one JSON file, for those who have the numbers and not the studies.

::

    {
      "version": 1,
      "config": the resolved space, as in a study's config.yaml,
      "input_shape": of one input, "num_classes": outputs of the dataset,
      "axes": {"best": [...], "worst": [...]}, of the objectives as they are declared,
      "region": what a study's document says of its region, or null,
      "studies": [
        {
          "name": for messages,
          "records": trial records, variants among them, as ``gped-search trials`` prints them,
          "params": {"0": what was drawn for trial 0, Optuna's parameters, ...},
          "drawn_macs": {"0": multiply-adds before pruning, ...}
        },
        ... one a seed
      ]
    }
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from gped_nas.errors import DataError
from gped_nas.io import write_json
from gped_nas.search.document import Box
from gped_nas.search.record import TrialRecord
from gped_nas.search.region import Region
from gped_nas.search.replaying.pool import Recorded

VERSION: Literal[1] = 1


class PoolFile(BaseModel):
    """See the module."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    version: Literal[1] = VERSION
    config: dict[str, Any]
    input_shape: tuple[int, ...]
    num_classes: int
    axes: Box
    region: Region | None = None
    studies: tuple[Recorded, ...]


def _slim(record: TrialRecord) -> TrialRecord:
    """A record without what no replay reads."""
    return record.replace(layers=(), layers_drawn=(), extra={})


_REGION: TypeAdapter[Region | None] = TypeAdapter(Region | None)


def write_pool(path: Path, pool: PoolFile) -> None:
    """Write a pool.

    Raises:
        EnvironmentProblem: the file cannot be written.
    """
    studies = []
    for study in pool.studies:
        studies.append(
            {
                "name": study.name,
                "records": [_slim(record).to_json() for record in study.records],
                "params": {str(trial): dict(drawn) for trial, drawn in study.params.items()},
                "drawn_macs": {str(trial): macs for trial, macs in study.drawn_macs.items()},
            }
        )
    data = {
        "version": VERSION,
        "config": pool.config,
        "input_shape": list(pool.input_shape),
        "num_classes": pool.num_classes,
        "axes": pool.axes.to_json(),
        "region": _REGION.dump_python(pool.region, mode="json"),
        "studies": studies,
    }
    write_json(path, data)


def read_pool(path: Path) -> PoolFile:
    """The pool of a file.

    Raises:
        DataError: there is none, or it is of another form.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a pool, or name a study")
    try:
        data = json.loads(path.read_text())
        studies = []
        for study in data["studies"]:
            records = [TrialRecord.loads(json.dumps(record)) for record in study["records"]]
            studies.append(
                Recorded(
                    name=str(study["name"]),
                    records=records,
                    params={int(trial): drawn for trial, drawn in study["params"].items()},
                    drawn_macs={int(trial): float(n) for trial, n in study["drawn_macs"].items()},
                )
            )
        text = json.dumps({key: value for key, value in data.items() if key != "studies"})
        known = {**json.loads(text), "studies": tuple(studies)}
        known["axes"] = Box.model_validate_json(json.dumps(data["axes"]))
        known["region"] = _REGION.validate_json(json.dumps(data["region"]))
        return PoolFile.model_validate(known)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        problem = str(error).partition("\n")[0][:200]
        raise DataError(
            f"{path}: found {type(error).__name__} {problem}, expected a pool of version "
            f"{VERSION}; write it anew"
        ) from None
