"""The teacher in words and numbers: what its diagnosis says of convergence, in plain rows."""

from collections.abc import Callable, Mapping
from typing import Any

from gped_nas.report import words
from gped_nas.report.cards import bins
from gped_nas.report.records import Data, plain
from gped_nas.search.teacher_words import calibration_text, given_costs, teacher_text

_SPACES = {
    "probabilities": "predicted probabilities",
    "means": "predicted means",
    "log_likelihood": "log-likelihoods",
    "weights": "single weights (not judged)",
}


def teacher_data(teacher: Mapping[str, Any], label_of: Callable[[str], str]) -> Data:
    """What the page shows of the teacher: its facts as they are, its diagnosis as readable rows.

    Args:
        teacher: the snapshot's summary of it.
        label_of: gives a metric's label.
    """
    facts: Data = plain(teacher)
    diagnosis = facts.pop("diagnosis", None) or {}
    fit = teacher.get("calibration")
    read = calibration_text(fit) if fit else None
    facts["reliability"] = bins(facts.get("reliability") or [])
    return facts | {
        "text": teacher_text(teacher) if teacher.get("num_samples") else "",
        "costs": given_costs(teacher),
        "diagnosis": _diagnosis_rows(diagnosis, read, label_of),
        "mixing": _mixing(diagnosis),
        "missing": diagnosis.get("missing", {}),
    }


def _diagnosis_rows(
    diagnosis: Data, calibration: str | None, label_of: Callable[[str], str]
) -> list[Data]:
    """Rows ``what, value`` of everything that is one number, and how the samples are read."""
    rows: list[tuple[str, Any]] = [
        ("chains", diagnosis.get("chains")),
        ("temperature it targets", diagnosis.get("target_temperature")),
    ]
    for name in ("kinetic", "configurational"):
        temperature = diagnosis.get(name)
        if temperature:
            rows.append((f"{name} temperature found", _temperature_text(temperature)))
    rows.append(("agreement between chains", _percent(diagnosis.get("agreement"))))
    rows.append(("total variation between chains", diagnosis.get("total_variation")))
    for kind, text in (("single", "of a single sample, mean"), ("average", "of their average")):
        for name, value in (diagnosis.get(kind) or {}).items():
            rows.append((f"validation {label_of(name)} {text}", words.metric(value, name)))

    rows.append(("calibration, fitted on held-out labels", calibration))

    beside = diagnosis.get("guess") or {}
    rows.append(("validation NLL of a guess from the training labels", beside.get("nll")))

    return [
        {"what": what, "value": words.compact(value)} for what, value in rows if value is not None
    ]


def _temperature_text(temperature: Mapping[str, Any]) -> str:
    value, low, high = (temperature[name] for name in ("value", "low", "high"))
    if value is None:
        return words.NONE
    if low is None or high is None:
        why = temperature.get("why")
        return f"{value:.3g}, no interval: {why}" if why else words.NONE
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.1f} %"


def _mixing(diagnosis: Data) -> list[Data]:
    """One row a kind of quantity: its R-hat and effective sample sizes."""
    return [
        {
            "what": _SPACES.get(name, name),
            "num": mixing["num"],
            "rhat": _join_quantiles(mixing["rhat"], "{:.2f}"),
            "above": _percent(mixing["above"]),
            "ess": _join_quantiles(mixing["ess"], "{:.0f}"),
        }
        for name, mixing in (diagnosis.get("mixing") or {}).items()
    ]


def _join_quantiles(values: list[float | None] | None, form: str) -> str:
    """What 50, 90 and 99 % of the quantities reach."""
    if not values:
        return words.NONE
    return " / ".join(words.NONE if value is None else form.format(value) for value in values)
