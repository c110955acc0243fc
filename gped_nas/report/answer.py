"""The answer in words: the chosen student, what it costs, what it keeps of the teacher, what is
lost.
"""

from gped_nas.evaluate.measured import TEST, VALIDATION, Key, parse_name, public_name
from gped_nas.report import words
from gped_nas.report.records import Data, find


def answer(data: Data) -> Data:
    """``headline``, ``detail`` and ``tiles`` of the student to use; empty but for the headline if
    there is none.
    """
    if data["chosen"] is None:
        return {"headline": _no_answer(data), "detail": "", "tiles": []}
    student = find(data, data["chosen"])
    teacher = next((dict(r) for r in data["references"] if r["name"] == "teacher"), None)
    part = _part(student, teacher)
    return {
        "headline": f"Trial {student['trial']} is the student to use: {_price(student, teacher)}.",
        "detail": _kept(student, teacher, part),
        "tiles": _tiles(student, teacher, part),
    }


def _no_answer(data: Data) -> str:
    complete = data["states"].get("complete", 0)
    total, front = len(data["records"]), len(data["front"])
    return (
        f"No student was chosen: {complete} of {total} trials are complete, {front} on the front."
    )


def _part(student: Data, teacher: Data | None) -> str:
    """The test part if everybody was measured there, else validation."""
    for side in (student, teacher):
        if side and not any(parse_name(name).part == TEST for name in side["metrics"]):
            return VALIDATION
    return TEST


def _price(student: Data, teacher: Data | None) -> str:
    units = (("macs", "MACs", ""), ("storage_bytes", "", "B"))
    parts = []
    for name, noun, unit in units:
        cost, reference = student["costs"].get(name), (teacher or {"costs": {}})["costs"].get(name)
        if not cost:
            continue
        text = f"{words.short(cost, unit)} {noun}".strip()
        parts.append(f"{text} ({words.factor(cost, reference)} the teacher)" if reference else text)
    return "it costs " + " and ".join(parts) if parts else "its costs were not measured"


def _kept(student: Data, teacher: Data | None, part: str) -> str:
    accuracy, nll = (public_name(Key(name, part=part)) for name in ("accuracy", "nll"))
    mine, theirs = student["metrics"], (teacher or {"metrics": {}})["metrics"]
    parts = []
    if mine.get(accuracy) is not None and theirs.get(accuracy):
        kept = 100 * mine[accuracy] / theirs[accuracy]
        values = (words.metric(side[accuracy], "accuracy") for side in (mine, theirs))
        parts.append(f"keeps {kept:.1f} % of the teacher's accuracy ({' against '.join(values)})")
    if mine.get(nll) is not None and theirs.get(nll) is not None:
        values = (words.metric(side[nll], "nll") for side in (mine, theirs))
        parts.append(f"has an NLL of {' against '.join(values)} nats")
    if not parts:
        return ""
    n = student["n"].get(accuracy) or student["n"].get(nll)
    size = f", n = {words.count(n)}" if n else ""
    return f"It {' and '.join(parts)}, measured on {part}{size}.{_lost(student, part)}"


def _lost(student: Data, part: str) -> str:
    """What is given up against the teacher on the same examples, and whether it can be told from
    nothing.
    """
    name = public_name(Key("nll_above_teacher", part=part))
    lost, (low, high) = student["metrics"].get(name), student["intervals"].get(name) or (None, None)
    if lost is None or low is None or high is None:
        return ""
    size = f"{words.difference(lost, name)} nats a prediction [{low:.4f}, {high:.4f}]".replace(
        "-", "−"
    )
    if low <= 0 <= high:
        return f" What is lost of the likelihood cannot be told from nothing: {size}."
    return (
        f" What is lost is likelihood: {size}."
        if lost > 0
        else f" Nothing is lost, its likelihood is better: {size}."
    )


def _tiles(student: Data, teacher: Data | None, part: str) -> list[dict[str, str]]:
    other = teacher or {"metrics": {}, "costs": {}}
    tiles = []
    for name, title, unit in (("macs", "MACs", ""), ("storage_bytes", "storage", "B")):
        if student["costs"].get(name) is not None:
            reference = other["costs"].get(name)
            note = f"teacher {words.short(reference, unit)}" if reference else ""
            tiles.append(
                {"title": title, "value": words.short(student["costs"][name], unit), "note": note}
            )
    for name, title in (
        ("accuracy", f"{part} accuracy"),
        ("nll", f"{part} NLL, nats"),
        ("rmse", f"{part} RMSE"),
    ):
        measured = public_name(Key(name, part=part))
        if student["metrics"].get(measured) is not None:
            reference = other["metrics"].get(measured)
            note = f"teacher {words.metric(reference, name)}" if reference is not None else ""
            tiles.append(
                {
                    "title": title,
                    "value": words.metric(student["metrics"][measured], name),
                    "note": note,
                }
            )
    return tiles
