"""Evidence on real studies, recorded: small texts in ``recorded.json``.

``python -m tests.report.recorded STUDY...`` records the studies of these folders, each under the
name of its folder.
"""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gped_nas.api import open_study
from gped_nas.evaluate.measured import CLEAN
from gped_nas.report.beside import Evidence, evidence_of
from gped_nas.search.goals import MetricWords, Objective
from gped_nas.search.record import TrialRecord
from gped_nas.search.snapshot import PairedDifference, Reference

FILE = Path(__file__).with_name("recorded.json")
_KEPT = ("nll", "accuracy", "rmse", "nll_above_teacher")
"""Metrics that are recorded."""


def evidence(name: str) -> Evidence:
    """The evidence on a recorded study."""
    data = json.loads(FILE.read_text())[name]
    student = data["student"]
    return Evidence(
        student=None if student is None else TrialRecord.loads(json.dumps(student)),
        objectives=tuple(Objective(**row) for row in data["objectives"]),
        references=tuple(map(Reference.from_json, data["references"])),
        differences=tuple(_difference(row) for row in data["differences"]),
        metrics={name: MetricWords(**words) for name, words in data["metrics"].items()},
        **{name: data[name] for name in _PLAIN},
    )


_PLAIN = (
    "num_finished",
    "num_complete",
    "constraints",
    "within",
    "num_on_front",
    "is_exhausted",
    "diagnosis",
    "trust",
)


def _difference(row: dict[str, Any]) -> PairedDifference:
    interval = row["interval"]
    return PairedDifference(**{**row, "interval": None if interval is None else tuple(interval)})


def _record(folder: str) -> dict[str, Any]:
    """A study's evidence as plain data, without what no verdict reads."""
    made = evidence_of(open_study(folder).snapshot())
    student = made.student
    if student is not None:
        student = replace(
            student, measures=_thin(student.measures), extra={}, layers=(), layers_drawn=()
        )

    references = [replace(r, measures=_thin(r.measures)).to_json() for r in made.references]
    return {
        "student": None if student is None else student.to_json(),
        "objectives": [asdict(objective) for objective in made.objectives],
        "references": references,
        "differences": [asdict(row) for row in made.differences],
        "metrics": {name: asdict(made.metrics[name]) for name in _KEPT},
        **{name: getattr(made, name) for name in _PLAIN},
        "diagnosis": {
            name: value for name, value in made.diagnosis.items() if name in ("guess", "average")
        },
    }


def _thin(measures: Any) -> dict[Any, Any]:
    return {
        key: measured
        for key, measured in measures.items()
        if key.metric in _KEPT and key.condition == CLEAN
    }


if __name__ == "__main__":
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    for study in sys.argv[1:]:
        known[Path(study).name] = _record(study)
    lines = [f"{json.dumps(name)}: {json.dumps(known[name])}" for name in sorted(known)]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
