"""The teacher in words and numbers: what its diagnosis says of convergence, in plain rows."""

from collections.abc import Callable, Mapping
from typing import Any

from gped_nas.report import words
from gped_nas.report.cards import bins
from gped_nas.report.records import Data, plain

_SPACES = {
    "probabilities": "predicted probabilities",
    "means": "predicted means",
    "log_likelihood": "log-likelihoods",
    "weights": "single weights (not judged)",
}


def teacher_data(teacher: Mapping[str, Any], label_of: Callable[[str], str]) -> Data:
    """What the page shows of the teacher: its facts as they are, ``verdict`` and ``diagnosis`` as
    readable rows.

    ``label_of`` gives a metric's label.
    """
    found: Data = plain(teacher)
    diagnosis = found.pop("diagnosis", None) or {}
    found["reliability"] = bins(found.get("reliability") or [])
    return found | {
        "diagnosis": _rows(diagnosis, label_of),
        "mixing": _mixing(diagnosis),
        "missing": diagnosis.get("missing", {}),
    }


def _rows(diagnosis: Data, label_of: Callable[[str], str]) -> list[Data]:
    """Rows ``what, value`` of everything that is one number."""
    rows = [
        ("chains", diagnosis.get("chains")),
        ("temperature it targets", diagnosis.get("target_temperature")),
    ]
    for name in ("kinetic", "configurational"):
        one = diagnosis.get(name)
        if one:
            text = (
                f"{one['value']:.3g} [{one['low']:.3g}, {one['high']:.3g}]"
                if None not in one.values()
                else words.NONE
            )
            rows.append((f"{name} temperature found", text))
    rows.append(("agreement between chains", _percent(diagnosis.get("agreement"))))
    rows.append(("total variation between chains", diagnosis.get("total_variation")))
    for kind, text in (("single", "of a single sample, mean"), ("average", "of their average")):
        for name, value in (diagnosis.get(kind) or {}).items():
            rows.append((f"validation {label_of(name)} {text}", words.metric(value, name)))
    return [
        {"what": what, "value": words.compact(value)} for what, value in rows if value is not None
    ]


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.1f} %"


def _mixing(diagnosis: Data) -> list[Data]:
    """One row a kind of quantity: its R-hat and effective sample sizes."""
    return [
        {
            "what": _SPACES.get(name, name),
            "num": one["num"],
            "rhat": _reached(one["rhat"], "{:.2f}"),
            "above": _percent(one["above"]),
            "ess": _reached(one["ess"], "{:.0f}"),
        }
        for name, one in (diagnosis.get("mixing") or {}).items()
    ]


def _reached(values: list[float | None] | None, how: str) -> str:
    """What 50, 90 and 99 % of the quantities reach."""
    return (
        " / ".join(words.NONE if v is None else how.format(v) for v in values)
        if values
        else words.NONE
    )
