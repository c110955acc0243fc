"""The verb ``codec``: a posterior in few bytes, and what it loses."""

from typing import Annotated

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
from gped_nas.cli.output import Format, print_rows
from gped_nas.cli.progress import progress, say
from gped_nas.cli.signals import stoppable
from gped_nas.cli.verbs import TEACHER, Verb

app = typer.Typer()

_SHOWN = (
    *(
        "energy",
        "energy_p",
        "energy_to_read",
        "average_kl",
        "information_ratio",
        "information_spearman",
    ),
    *("ood_auroc_model", "draw_nll_difference", "nearest_ratio"),
)
"""Measures of the narrow table; all are in the wide one, and in JSON."""


@app.command(cls=Verb, rich_help_panel=TEACHER)
def codec(
    what: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|SPACE",
            help="A study or a space, whose teacher's posterior is coded.",
            autocompletion=complete_study,
        ),
    ],
    codecs: Annotated[
        str,
        typer.Option(
            "--codecs",
            metavar="A,B,...",
            help="Which codecs, with settings of their own: subset,quantized:bits=4 of subset; all "
            "but apd by default.",
        ),
    ] = "",
    sizes: Annotated[
        str,
        typer.Option(
            "--sizes",
            metavar="NUMBERS",
            help="Networks whose bytes a codec may take: 4,8,16,32.",
        ),
    ] = "",
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", help="Seeds, each with a teacher of its own.")
    ] = 1,
    ood: Annotated[
        str,
        typer.Option("--ood", metavar="SET", help="Inputs from outside, as a space lists them."),
    ] = "permuted",
    draws: Annotated[
        int, typer.Option("--draws", metavar="N", help="Draws of each code that is a law.")
    ] = 100,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", help="Examples of validation that are asked.")
    ] = 1000,
    set_: Set = None,
    seed: Seed = None,
    device: Device = "auto",
    storage: Storage = None,
    out: Out = REPORTS,
    format: FormatOption = Format.table,
    wide: Wide = False,
) -> None:
    """Keep a posterior in few bytes, and see what it loses.

    Codecs read all chains of the teacher but the last one, and are compared with that. What is
    measured is kept: the same command goes on from there.
    """
    from gped_nas.api import new_session
    from gped_nas.api.coding import codec as measure
    from gped_nas.api.coding_choices import split_choices
    from gped_nas.api.coding_rows import in_columns
    from gped_nas.evaluate.codecs.measure import MEASURES

    with stoppable() as should_stop, progress() as teller:
        front = measure(
            what,
            split_choices(codecs),
            sizes=_numbers(sizes),
            seeds=seeds,
            ood=ood,
            draws=draws,
            limit=limit,
            overrides=overrides(set_, seed),
            storage=storage,
            out=out,
            session=new_session(device, progress=teller.report, should_stop=should_stop),
            told=lambda name, done, total: say(f"code {done} of {total}: {name}"),
        )

    if format is Format.json:
        print_rows(front.rows, format)
    else:
        columns = in_columns(front.data["means"], MEASURES if wide else _SHOWN)
        title = f"Codes on {front.data['part']}, beside a chain that they have not read"
        print_rows(columns, format, title=title)
    for note in front.notes:
        say(note)
    say(f"rows: {front.folder / 'rows.jsonl'}")
    say(f"report: {front.page}")


def _numbers(text: str) -> list[int]:
    """``"4,8"`` as numbers.

    Raises:
        ConfigError: something else.
    """
    from gped_nas.errors import ConfigError

    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ConfigError(
            f"--sizes: found '{text}', expected whole numbers apart by commas: 4,8,16"
        ) from None
