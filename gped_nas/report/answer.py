"""The answer at the top of the page: the verdict, and the chosen student in a few numbers."""

from gped_nas.evaluate.measured import TEST, VALIDATION, Key, parse_name, public_name
from gped_nas.report import words
from gped_nas.report.records import Data, find
from gped_nas.report.verdict import StudyVerdict

_TILES = (("macs", "MACs", ""), ("storage_bytes", "storage", "B"), ("latency_ms", "latency", "ms"))
_NOTHING: Data = {"metrics": {}, "costs": {}}
"""What is known of a teacher that was not measured."""


def answer(data: Data, verdict: StudyVerdict) -> Data:
    """The verdict as ``headline``, ``detail`` and ``tiles``; no tiles where there is no student."""
    text = {"headline": verdict.sentence, "detail": " ".join(verdict.details)}
    if verdict.trial is None:
        return {**text, "tiles": []}

    student = find(data, verdict.trial)
    teachers = [reference for reference in data["references"] if reference["name"] == "teacher"]
    teacher = dict(teachers[0]) if teachers else None
    part = _common_part(student, teacher)
    tiles = [
        *_cost_tiles(student, teacher or _NOTHING),
        *_quality_tiles(student, teacher or _NOTHING, part),
    ]
    return {**text, "tiles": tiles}


def _common_part(student: Data, teacher: Data | None) -> str:
    """The test part if everybody was measured there, else validation."""
    for side in (student, teacher):
        if side and not any(parse_name(name).part == TEST for name in side["metrics"]):
            return VALIDATION
    return TEST


def _cost_tiles(student: Data, teacher: Data) -> list[dict[str, str]]:
    tiles = []
    for name, title, unit in _TILES:
        cost = student["costs"].get(name)
        if cost is None:
            continue
        reference = teacher["costs"].get(name)
        note = f"teacher {words.short(reference, unit)}" if reference else ""
        tiles.append({"title": title, "value": words.short(cost, unit), "note": note})
    return tiles


def _quality_tiles(student: Data, teacher: Data, part: str) -> list[dict[str, str]]:
    titles = {
        "accuracy": f"{part} accuracy",
        "nll": f"{part} NLL, nats",
        "rmse": f"{part} RMSE",
    }
    tiles = []
    for metric, title in titles.items():
        name = public_name(Key(metric, part=part))
        value = student["metrics"].get(name)
        if value is None:
            continue
        reference = teacher["metrics"].get(name)
        note = "" if reference is None else f"teacher {words.metric(reference, metric)}"
        tiles.append({"title": title, "value": words.metric(value, metric), "note": note})
    return tiles
