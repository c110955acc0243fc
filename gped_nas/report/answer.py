"""The answer in words: the chosen student, its costs, what it keeps and what it loses."""

from gped_nas.evaluate.measured import TEST, VALIDATION, Key, parse_name, public_name
from gped_nas.report import words
from gped_nas.report.records import Data, find

_NOTHING: Data = {"metrics": {}, "costs": {}}
"""What is known of a teacher that was not measured."""


def answer(data: Data) -> Data:
    """The student to use as ``headline``, ``detail`` and ``tiles``.

    Where no student was chosen, or the teacher is no better than a guess, the headline says so and
    there are no tiles.
    """
    if data["teacher"].get("guess"):
        return {
            "headline": "No student is to be used: the teacher is not better than a guess.",
            "detail": f"{data['teacher']['guess']} Mend the teacher, then search anew.",
            "tiles": [],
        }
    if data["chosen"] is None:
        headline = _headline_without_student(data)
        return {"headline": headline, "detail": data["rule"], "tiles": []}

    student = find(data, data["chosen"])
    teachers = [reference for reference in data["references"] if reference["name"] == "teacher"]
    teacher = dict(teachers[0]) if teachers else None
    part = _common_part(student, teacher)
    price = _describe_price(student, teacher or _NOTHING)
    return {
        "headline": f"Trial {student['trial']} is the student to use: {price}.",
        "detail": _describe_quality(student, teacher or _NOTHING, part),
        "tiles": [
            *_cost_tiles(student, teacher or _NOTHING),
            *_quality_tiles(student, teacher or _NOTHING, part),
        ],
    }


def _headline_without_student(data: Data) -> str:
    num_complete = data["states"].get("complete", 0)
    num_trials = len(data["records"])
    return (
        f"No student was chosen: {num_complete} of {num_trials} trials are complete, "
        f"{len(data['front'])} on the front."
    )


def _common_part(student: Data, teacher: Data | None) -> str:
    """The test part if everybody was measured there, else validation."""
    for side in (student, teacher):
        if side and not any(parse_name(name).part == TEST for name in side["metrics"]):
            return VALIDATION
    return TEST


def _describe_price(student: Data, teacher: Data) -> str:
    prices = []
    for name, noun, unit in (("macs", "MACs", ""), ("storage_bytes", "", "B")):
        cost = student["costs"].get(name)
        if not cost:
            continue

        price = f"{words.short(cost, unit)} {noun}".strip()
        reference = teacher["costs"].get(name)
        if reference:
            price += f" ({words.factor(cost, reference)} the teacher)"
        prices.append(price)
    return "it costs " + " and ".join(prices) if prices else "its costs were not measured"


def _describe_quality(student: Data, teacher: Data, part: str) -> str:
    accuracy = public_name(Key("accuracy", part=part))
    nll = public_name(Key("nll", part=part))
    mine, theirs = student["metrics"], teacher["metrics"]

    facts = []
    # a teacher that is never right leaves nothing to keep a share of
    if mine.get(accuracy) is not None and theirs.get(accuracy):
        share = 100 * mine[accuracy] / theirs[accuracy]
        values = " against ".join(
            words.metric(side[accuracy], "accuracy") for side in (mine, theirs)
        )
        facts.append(f"keeps {share:.1f} % of the teacher's accuracy ({values})")
    if mine.get(nll) is not None and theirs.get(nll) is not None:
        values = " against ".join(words.metric(side[nll], "nll") for side in (mine, theirs))
        facts.append(f"has an NLL of {values} nats")
    if not facts:
        return ""

    n = student["n"].get(accuracy) or student["n"].get(nll)
    size = f", n = {words.count(n)}" if n else ""
    return f"It {' and '.join(facts)}, measured on {part}{size}.{_describe_loss(student, part)}"


def _describe_loss(student: Data, part: str) -> str:
    """The likelihood given up against the teacher, and whether it can be told from nothing.

    Both are measured on the same examples.
    """
    name = public_name(Key("nll_above_teacher", part=part))
    loss = student["metrics"].get(name)
    low, high = student["intervals"].get(name) or (None, None)
    if loss is None or low is None or high is None:
        return ""

    size = f"{words.difference(loss, name)} nats a prediction [{low:.4f}, {high:.4f}]"
    size = size.replace("-", "−")
    if low <= 0 <= high:
        return f" What is lost of the likelihood cannot be told from nothing: {size}."
    if loss > 0:
        return f" What is lost is likelihood: {size}."
    return f" Nothing is lost, its likelihood is better: {size}."


def _cost_tiles(student: Data, teacher: Data) -> list[dict[str, str]]:
    tiles = []
    for name, title, unit in (("macs", "MACs", ""), ("storage_bytes", "storage", "B")):
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
