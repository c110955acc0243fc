"""What a student loses and costs, in words; the sentences of verdicts are made of them.

They are plain ASCII: terminals print them too.
"""

from collections.abc import Sequence

from gped_nas.report import words
from gped_nas.report.beside import Evidence, Loss, losses
from gped_nas.search.record import TrialRecord
from gped_nas.search.snapshot import Reference

LEAST_KEPT = 0.75
"""Of the teacher's lead over a guess: with less, a student is no stand-in for it."""
LARGEST_UNSEEN = 0.05
"""Of the same lead: what may be lost without being seen, by the far end of the interval."""
PRICES = (("macs", "MACs", ""), ("storage_bytes", "", "B"), ("latency_ms", "a call", "ms"))
NAMES = {"nll": "NLL", "rmse": "RMSE", "ece": "ECE"}


def may_hide(row: Loss) -> bool:
    """Whether more could be lost, unseen, than a student to use may lose."""
    if row.high is None or row.skill is None or row.skill <= 0:
        return False
    return row.high > LARGEST_UNSEEN * row.skill


def describe_loss(lost: Sequence[Loss]) -> str:
    """What a student loses: the worst first, relative to what the teacher knows."""
    if not lost:
        return "was not compared with its teacher"

    rows = [row for row in lost if row.is_lost]
    if rows:
        rows.sort(key=lambda row: 0.0 if row.kept is None else row.kept)
        worst = rows[0]
        text = f"loses {_amount(worst)} against its teacher ({_both(worst)})"
        kept = worst.kept
        if kept is not None and kept < LEAST_KEPT:
            text += f" and keeps {100 * max(kept, 0.0):.0f} % of its lead over a guess"
        return text
    if not any(row.is_known for row in lost):
        return "cannot be compared with its teacher (no interval is known of any difference)"
    if all(row.is_gained for row in lost if row.is_known):
        return "is better than its teacher"
    return f"cannot be told from its teacher ({_name(lost[0])} {_both(lost[0])})"


def describe_doubt(lost: Sequence[Loss]) -> str:
    """Why it is not known whether a student keeps its teacher."""
    known = [row for row in lost if row.is_known and may_hide(row)]
    if not known:
        return describe_loss(lost)

    widest = max(known, key=lambda row: (row.high or 0.0) / (row.skill or 1.0))
    number = size_of(widest.high or 0.0, widest.metric)
    return (
        f"cannot be told from its teacher, on too few examples to say that it keeps up: it may "
        f"lose {number} of {_name(widest)} (n = {words.count(widest.n)})"
    )


def describe_quality(lost: Sequence[Loss]) -> str:
    """Every metric of the student beside its teacher's."""
    if not lost:
        return ""
    parts = [f"{_name(row)} {_both(row)}, {_outcome(row)}" for row in lost]
    n = {row.n for row in lost if row.n is not None}
    size = f", n = {words.count(max(n))}" if n else ""
    return f"Measured on {lost[0].part}{size}: {'; '.join(parts)}."


def describe_controls(evidence: Evidence, student: TrialRecord) -> str:
    """How plain networks do beside the student."""
    parts = []
    for reference in evidence.references:
        rows = losses(evidence, reference) if reference.is_control else []
        if not rows:
            continue
        what = _compare([row for row in rows if row.is_known])
        both = ", ".join(f"{_name(row)} {words.metric(row.other, row.metric)}" for row in rows)
        parts.append(
            f"The plain network beside it ({reference.label}) is {what}: {both}; the student "
            f"{describe_price(student, reference)}."
        )
    return " ".join(parts)


def _compare(known: Sequence[Loss]) -> str:
    """How a reference is beside the student, by what the student loses and gains."""
    lost = [_name(row) for row in known if row.is_lost]
    gained = [_name(row) for row in known if row.is_gained]
    if lost and gained:
        return f"better in {' and '.join(lost)} and worse in {' and '.join(gained)}"
    if lost or gained:
        return "better" if lost else "worse"
    return "not told apart from it"


def describe_price(student: TrialRecord, reference: Reference | None) -> str:
    """What a student costs, and how many times less than a reference that is."""
    prices = []
    for name, noun, unit in PRICES:
        cost = student.costs.get(name)
        if not cost:
            continue
        price = f"{words.short(cost, unit)} {noun}".strip()
        theirs = None if reference is None else reference.costs.get(name)
        if theirs:
            price += f" ({words.factor(cost, theirs).removesuffix(' than')})"
        prices.append(price)
    if not prices:
        return "its costs were not measured"
    listed = " and ".join([", ".join(prices[:-1]), prices[-1]] if prices[1:] else prices)
    return f"costs {listed}".replace("×", " times").replace("\u00a0", " ")


def _amount(row: Loss) -> str:
    """What is lost or gained: ``26.25 pp of accuracy``."""
    return f"{size_of(abs(row.value), row.metric)} of {_name(row)}"


def _outcome(row: Loss) -> str:
    """What is lost or gained with its interval: ``26.25 pp lost [22.40, 29.90]``."""
    sign = -1 if row.value < 0 else 1
    text = f"{size_of(abs(row.value), row.metric)} {'lost' if sign > 0 else 'gained'}"
    if row.low is None or row.high is None:
        return f"{text}, no interval"
    ends = sorted([sign * row.low, sign * row.high])
    low, high = (size_of(end, row.metric).split()[0] for end in ends)
    return f"{text} [{low}, {high}]"


def _both(row: Loss) -> str:
    mine, theirs = (words.metric(value, row.metric) for value in (row.mine, row.other))
    return f"{mine} against {theirs}"


def size_of(value: float, metric: str) -> str:
    """A difference of two metrics without a plus: ``0.28 pp``, ``-0.0020 nats``."""
    text = words.difference(value, metric).replace("−", "-").removeprefix("+")
    if not any(digit in text for digit in "123456789"):
        text = text.removeprefix("-")
    return f"{text} nats" if metric == "nll" else text


def _name(row: Loss) -> str:
    return NAMES.get(row.metric, words.spaced(row.metric))


def first_reason(sentence: str) -> str:
    """The gravest reason of a teacher's verdict, without its level."""
    reason = sentence.removesuffix(".").partition(": ")[2] or sentence
    return reason.partition("; ")[0]
