"""What ``status`` says of a study: of a run at work, of one that stopped, of one elsewhere."""

import time
from collections import Counter
from pathlib import Path
from typing import Any


def number_of(record: Any) -> int | None:
    """The trial of a record, where there is one."""
    return None if record is None else int(record.trial)


def describe_running(standing: Any, folder: Path) -> dict[str, Any]:
    """What a run that is at work says of itself."""
    return {
        "study": standing.study,
        "state": "running",
        **_describe_progress(standing, time.time() - standing.updated),
        "finished": standing.num_finished,
        **dict(sorted(standing.states.items())),
        "report": str(folder / "report.html"),
    }


def _describe_progress(standing: Any, age_s: float) -> dict[str, Any]:
    """Phase, rate and expected end of a run that said so some seconds ago."""
    rate, end = standing.per_second, standing.end
    left = None if end is None else max(0.0, end - standing.updated - age_s)
    idle = standing.idle_share
    workers = {} if idle is None else {"workers": standing.workers, "idle share": round(idle, 3)}
    return {
        "phase": standing.place,
        "done": standing.words or None,
        "per second": None if rate is None else float(f"{rate:.3g}"),
        "seconds left": None if left is None else round(left),
        "phase ends": None if left is None else _clock_time(time.time() + left),
        **workers,
    }


def _clock_time(moment: float) -> str:
    """An hour of today, or of another day with its date."""
    local, today = time.localtime(moment), time.localtime()
    is_today = local[:3] == today[:3]
    return time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S", local)


def describe_far(sighting: Any) -> dict[str, Any]:
    """What a storage says of a study whose folder, or whose run, is elsewhere."""
    records = sighting.ledger.records()
    counts = Counter(state_of(record, sighting.is_at_work) for record in records)
    standing = sighting.standing
    if not sighting.is_at_work:
        run = {"state": "nobody is at work"}
    elif standing is None:
        run = {"state": "running"}
    else:
        heard = {"heard of": f"{sighting.age_s:.0f} s ago"}
        run = {"state": "running", **heard, **_describe_progress(standing, sighting.age_s)}
    return {
        "study": sighting.ledger.name,
        "folder": sighting.place or None,
        **run,
        "finished": sum(record.is_counted for record in records),
        **{state: counts[state] for state in sorted(counts)},
    }


def describe_stopped(standing: Any) -> dict[str, Any]:
    """Where a run was that is not there any more."""
    stopped = {"state": "stopped; the same `gped-search run` goes on", "phase": standing.place}
    # what was done of students is below, trial by trial
    return stopped if standing.phase == "students" else {**stopped, "done": standing.words or None}


def state_of(record: Any, is_at_work: bool) -> str:
    """A trial's state; none runs where nobody is at work."""
    is_left = record.state == "running" and not is_at_work
    return "interrupted" if is_left else str(record.state)


def count_trials(study: Any) -> dict[str, Any]:
    """What the trials of a study came to; none runs where nobody is at work."""
    from gped_nas.search.region_words import describe_region

    records, chosen = study.records(), study.chosen()
    is_at_work = study.is_at_work()
    references = study.ledger.document.references
    predictions = None if references is None else references.prediction_verdict
    counts = Counter(state_of(record, is_at_work) for record in records)

    return {
        "finished": sum(record.is_counted for record in records),
        **{state: counts[state] for state in sorted(counts)},
        "on the front": len(study.front_records()),
        "outside": len(study.outside_records()),
        "region": describe_region(study.region),
        "chosen": number_of(chosen),
        "student seconds": round(sum(record.seconds for record in records), 1),
        **({"ended": study.end.reason, "why": study.end.sentence} if study.end else {}),
        "report": str(study.path / "report.html"),
        "verdict": study.verdict().sentence,
        **({"prediction_verdict": predictions["sentence"]} if predictions else {}),
    }
