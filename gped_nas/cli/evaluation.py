"""The verb ``evaluate``: what a posterior is for, asked of teacher, references and students."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from gped_nas.cli.completion import complete_study
from gped_nas.cli.options import (
    REPORTS,
    Device,
    FormatOption,
    Out,
    Seed,
    Set,
    Storage,
    Wide,
    overrides,
)
from gped_nas.cli.output import Format, print_json, print_rows, print_text
from gped_nas.cli.progress import progress, say
from gped_nas.cli.signals import stoppable
from gped_nas.cli.verbs import STUDENT, Verb

app = typer.Typer()

_COLUMNS = ("predictor", "metric", "condition", "value", "low", "high", "n")
_MORE = ("note", "why")


@app.command(cls=Verb, rich_help_panel=STUDENT)
def evaluate(
    what: Annotated[
        str,
        typer.Argument(
            metavar="STUDENT|STUDY|SPACE",
            help="A student's folder, a study, or a space, whose teacher is asked.",
            autocompletion=complete_study,
        ),
    ],
    tasks: Annotated[
        list[str],
        typer.Option(
            "--tasks",
            metavar="A,B,...",
            help="What they are asked to do: prediction, misclassification, selective, ranking, "
            "decision, ood:SET, shift:CONDITION, attack:ATTACK-RADIUS, ...",
        ),
    ],
    part: Annotated[
        str | None,
        typer.Option(
            "--part",
            metavar="PART",
            help="validation or test; test for the front of a study that ended, else validation.",
        ),
    ] = None,
    trial: Annotated[
        list[str] | None,
        typer.Option(
            "--trial",
            metavar="TRIAL",
            help="Which students of a study: numbers, chosen (the default), best, or front.",
        ),
    ] = None,
    subjects: Annotated[
        str,
        typer.Option("--subjects", metavar="A,B,...", help="Who is asked; everybody by default."),
    ] = "",
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics",
            metavar="A,B,...",
            help="What prediction, shift, attack, transfer and active measure.",
        ),
    ] = "",
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="Ask about N examples of the part.")
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            "--space", metavar="SPACE", help="Whose data, for a student without its study."
        ),
    ] = None,
    save_inputs: Annotated[
        Path | None,
        typer.Option("--save-inputs", metavar="FILE.npz", help="Keep the inputs that were made."),
    ] = None,
    set_: Set = None,
    seed: Seed = None,
    device: Device = "auto",
    storage: Storage = None,
    out: Out = REPORTS,
    format: FormatOption = Format.table,
    wide: Wide = False,
) -> None:
    """Ask teacher and students to do tasks.

    Rows are kept with the study, and are not measured again.
    """
    from gped_nas.api import evaluate_tasks, new_session
    from gped_nas.api.tasks.base import split
    from gped_nas.errors import GateError

    with stoppable() as should_stop, progress() as teller:
        evaluation = evaluate_tasks(
            what,
            tasks,
            part=part,  # type: ignore[arg-type]  # checked there
            trials=split(trial or []),
            subjects=split([subjects]),
            metrics=split([metrics]),
            limit=limit,
            seed=seed,
            space=space,
            overrides=overrides(set_),
            storage=storage,
            out=out,
            session=new_session(device, progress=teller.report, should_stop=should_stop),
            save_inputs=save_inputs,
        )

    if not evaluation.rows:
        why = ", ".join(evaluation.notes)
        raise GateError(f"{what}: nothing was measured: {why}; ask others, or other tasks")
    for note in evaluation.notes:
        say(note)
    if format is Format.json:
        print_json(evaluation.rows)
    elif format is Format.csv:
        print_rows([_flat(row) for row in evaluation.rows], format)
    else:
        _print_tables(evaluation.rows, wide=wide)
        if not wide:
            say("--wide shows 95 % intervals")


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what is no single value: JSON alone has curves."""
    return {key: value for key, value in row.items() if not isinstance(value, list | dict)}


def _print_tables(rows: list[dict[str, Any]], *, wide: bool) -> None:
    """A table a task, and below it what must be said of its numbers."""
    for task in dict.fromkeys(row["task"] for row in rows):
        of_task = [row for row in rows if row["task"] == task]
        has_conditions = any(row["condition"] != "clean" for row in of_task)
        # what was fitted on other examples has an n of its own
        ((usual_n, _),) = Counter(row["n"] for row in of_task).most_common(1)
        facts = [f"{task}, on {of_task[0]['part']}", f"n {usual_n}"]
        facts += dict.fromkeys(row["radius"] for row in of_task if "radius" in row)
        if wide:
            print_rows(_wide(of_task, has_conditions), Format.table, title=", ".join(facts))
            continue
        print_rows(_matrix(of_task, has_conditions), Format.table, title=", ".join(facts))
        for note in _notes(of_task):
            print_text(note)


def _wide(rows: list[dict[str, Any]], has_conditions: bool) -> list[dict[str, Any]]:
    """A row a measure, with its interval and what must be said of it."""
    columns = [name for name in _COLUMNS if has_conditions or name != "condition"]
    shown = []
    for row in rows:
        more = {key: row[key] for key in _MORE if row.get(key)}
        shown.append({key: row[key] for key in columns} | more)
    return shown


def _matrix(rows: list[dict[str, Any]], has_conditions: bool) -> list[dict[str, Any]]:
    """A row a metric and condition, and a column a predictor; conditions one after the other."""
    by_measure: dict[tuple[str, str], dict[str, Any]] = {}
    places = {name: i for i, name in enumerate(dict.fromkeys(row["condition"] for row in rows))}
    for row in rows:
        measure = (row["metric"], row["condition"])
        name = {"metric": row["metric"]}
        if has_conditions:
            name["condition"] = row["condition"]
        by_measure.setdefault(measure, name)[row["predictor"]] = row["value"]

    # those whose rows were kept may have other metrics than the first one
    names = dict.fromkeys(row["predictor"] for row in rows)
    head = ["metric", "condition"] if has_conditions else ["metric"]
    in_order = sorted(by_measure, key=lambda measure: places[measure[1]])
    return [{key: by_measure[each].get(key) for key in (*head, *names)} for each in in_order]


def _notes(rows: list[dict[str, Any]]) -> list[str]:
    """What must be said of some predictors' numbers, each once, with whom it is of."""
    by_note: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.get("note"):
            by_note.setdefault(row["note"], {})[row["predictor"]] = None

    num_predictors = len({row["predictor"] for row in rows})
    notes = []
    for note, predictors in by_note.items():
        is_of_all = len(predictors) == num_predictors
        notes.append(note if is_of_all else f"{', '.join(predictors)}: {note}")
    return notes
