"""Certificates of a study, of a space's teacher or of a student, and their rows as tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gped_nas.api.certify_names import TIME_LIMIT, USUAL, task_texts
from gped_nas.api.note import is_study
from gped_nas.api.picking import CHOSEN
from gped_nas.api.session import Session
from gped_nas.errors import ConfigError

if TYPE_CHECKING:
    from gped_nas.api.evaluating import Evaluation, MeasuredPart

TEACHER, STUDENT = "teacher", "student"
UNKNOWN = "unknown"
EACH = "each"
"""The key of a row that says what is known of every input."""
Row = dict[str, Any]


def certify_what(
    what: str | Path,
    trial: int | str | None = None,
    *,
    epsilon: str = "",
    box: str | Path | None = None,
    bounds: Sequence[str] = USUAL,
    exact: bool = False,
    time_limit: float = TIME_LIMIT,
    part: "MeasuredPart | None" = None,
    limit: int | None = None,
    space: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    seed: int | None = None,
    storage: str | None = None,
    out: str | Path = "reports",
    session: Session | None = None,
) -> "Evaluation":
    """The rows of the task ``certify`` or ``box``, see there, of one student or of one teacher.

    Args:
        what: a study, a space, whose teacher is certified, or a student's folder.
        trial: of a study: which student, the chosen one by default, or ``"teacher"``.
        epsilon: the radius, ``"0.03"``, a share of the data's range; or a curve, ``"0.01..0.1"``.
        box: a box file in place of a radius.
        bounds: ``"ibp"``, ``"crown"``, or both; of a radius, as is what follows up to ``limit``.
        exact: whether what bounds leave open is decided by a mixed-integer programme.
        time_limit: seconds an input of it.
        part, limit, space, overrides, seed, storage, out, session: as of ``evaluate_tasks``.

    Raises:
        ConfigError: an option is impossible, or there is nobody whose outputs can be bounded.
        GpedError: see ``evaluate_tasks``.
    """
    from gped_nas.api.evaluating import evaluate_tasks
    from gped_nas.distill.student import SPEC_FILE

    if box is None and not epsilon:
        raise ConfigError(
            "--epsilon: found no radius and no --box, expected one of both; write --epsilon 0.03, "
            "for example, or --box FILE.yaml"
        )
    if box is None:
        texts = task_texts(epsilon, bounds=bounds, exact=exact, time_limit=time_limit)
    else:
        is_exact = exact or time_limit != TIME_LIMIT
        is_plain = tuple(bounds) == USUAL and not is_exact and limit is None
        texts = [_box_text(str(box), epsilon, is_plain=is_plain)]
    is_student = (Path(what) / SPEC_FILE).is_file()
    is_of_study = not is_student and is_study(what, out)
    if trial not in (None, TEACHER) and not is_of_study:
        raise ConfigError(f"TRIAL: found {trial}, but {what} is no study; leave it out")

    is_teacher = trial == TEACHER or not (is_student or is_of_study)
    evaluation = evaluate_tasks(
        what,
        texts,
        part=part,
        trials=() if is_teacher or is_student else [trial or CHOSEN],
        subjects=[TEACHER if is_teacher else STUDENT],
        limit=limit,
        space=space,
        overrides=overrides,
        seed=seed,
        storage=storage,
        out=out,
        session=session,
    )
    if not evaluation.rows:
        raise ConfigError(f"{what}: nothing was certified: {', '.join(evaluation.notes)}")
    return evaluation


def _box_text(box: str, epsilon: str, *, is_plain: bool) -> str:
    """The task of a box file.

    Raises:
        ConfigError: a radius is asked for too, or its options; or no task can have such a name.
    """
    if epsilon or not is_plain:
        raise ConfigError(
            "--box: found beside --epsilon, --bounds, --exact, --time-limit or --limit, which are "
            "of a radius around examples, expected one of both; ask twice"
        )
    if "," in box:
        raise ConfigError(f"--box: found '{box}', expected a path without commas; rename the file")
    return f"box:{box}"


def without_each(rows: Sequence[Row]) -> list[Row]:
    """The rows without what they know of every input."""
    return [{key: value for key, value in row.items() if key != EACH} for row in rows]


def each_input(rows: Sequence[Row]) -> list[Row]:
    """A row an input and verdict in place of a share: ``value`` is 1, or a share of samples.

    Beside what the share's row says it has ``input``, the place in the part, ``label`` and
    ``lead``, a lower bound of how far the label's logit is above each other one.
    """
    table = []
    for row in rows:
        columns = row.get(EACH)
        if not columns:
            continue
        shared = {key: value for key, value in row.items() if key not in (EACH, "why", "seconds")}
        shared |= {"low": None, "high": None, "n": 1, "why": "it is of one input"}
        for place in range(len(columns["index"])):
            known = {name: values[place] for name, values in columns.items()}
            about = {"input": known.pop("index"), "label": known.pop("label")}
            if "lead" in known:
                about["lead"] = known.pop("lead")
            shares = {known["verdict"]: 1.0} if "verdict" in known else known
            for verdict, share in shares.items():
                if share:
                    table.append({**shared, "metric": verdict, "value": share, **about})
    return table


def side_by_side(rows: Sequence[Row]) -> list[Row]:
    """A line a radius, kind of bounds and what they are of: the three shares, n and seconds."""
    lines: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        about = {name: row[name] for name in ("predictor", "of", "epsilon", "bounds")}
        line = lines.setdefault(tuple(about.values()), {**about})
        line[row["metric"]] = row["value"]
        line["n"] = row["n"]
        line["seconds"] = line.get("seconds", 0.0)
        if row["metric"] == UNKNOWN:  # bounds and attack together
            line["seconds"] = row["seconds"]
    return [_ordered(line) for line in lines.values()]


def _ordered(line: Row) -> Row:
    """A line with its numbers behind what they are of."""
    last = ("certified", "broken", "unknown", "n", "seconds")
    first = {key: value for key, value in line.items() if key not in last}
    return first | {key: line[key] for key in last if key in line}
