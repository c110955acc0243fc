"""The verb ``dials``: how far students stay behind their teacher as data get more uncertain."""

from typing import Annotated, Any

import typer

from gped_nas.cli.options import REPORTS, Device, Out, Seed, Set, Space, overrides
from gped_nas.cli.output import Format, print_rows
from gped_nas.cli.progress import progress, say
from gped_nas.cli.signals import stoppable
from gped_nas.cli.verbs import SEARCH, Verb

app = typer.Typer()


@app.command(cls=Verb, rich_help_panel=SEARCH)
def dials(
    space: Space,
    mask: Annotated[
        str, typer.Option("--mask", metavar="SIDES", help="Sides of a zeroed patch, pixels: 2,4,6.")
    ] = "",
    subsample: Annotated[
        str, typer.Option("--subsample", metavar="NUMBERS", help="Numbers of labels kept: 200,500.")
    ] = "",
    set_: Set = None,
    seed: Seed = None,
    device: Device = "auto",
    out: Out = REPORTS,
) -> None:
    """Measure the gap to the teacher as data get harder.

    One dial masks a part of each input, the other drops labels. A teacher and its students are
    made at each setting, and the gap between them is one page with its numbers.
    """
    masks, subsamples = _numbers(mask, "--mask"), _numbers(subsample, "--subsample")

    from gped_nas.api import new_session
    from gped_nas.api.dials import turn_dials
    from gped_nas.io import read_json

    with stoppable() as should_stop, progress() as teller:
        page = turn_dials(
            space,
            masks=masks,
            subsamples=subsamples,
            overrides=overrides(set_, seed),
            out=out,
            session=new_session(device, progress=teller.report, should_stop=should_stop),
        )

    data = read_json(page.with_suffix(".json"))
    rows = []
    for point in data["points"]:
        for student in point["students"]:
            rows.append(_row(point, student))

    print_rows(rows, Format.table, title=f"NLL on {data['part']}, 95 % paired interval of the gap")
    say(f"numbers: {page.with_suffix('.json')}")
    print(f"report: {page}")


def _row(point: dict[str, Any], student: dict[str, Any]) -> dict[str, Any]:
    """A student's gap to its teacher at one setting of the dials."""
    low, high = student["intervals"].get("nll_above_teacher") or (None, None)
    return {
        "dial": point["dial"] or "data as it is",
        "value": point["value"] if point["dial"] else None,
        "student": student["name"],
        "teacher nll": point["teacher"]["metrics"]["nll"],
        "student nll": student["metrics"]["nll"],
        "gap": student["metrics"]["nll_above_teacher"],
        "low": low,
        "high": high,
        "n": point["n"],
    }


def _numbers(text: str, option: str) -> list[int]:
    """``"2,4"`` as numbers.

    Raises:
        ConfigError: something else.
    """
    from gped_nas.errors import ConfigError

    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ConfigError(
            f"{option}: found '{text}', expected whole numbers apart by commas: 2,4,6"
        ) from None
