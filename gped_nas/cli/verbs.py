"""What all verbs share: the sections of the help, ``-h``, ``-q``, ``-v`` and ``--log-format``.

A verb is declared with ``@app.command(cls=Verb, rich_help_panel=SEARCH)``, so that its module says
in which section of ``gped-search --help`` it is listed.
"""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from gped_nas.cli.logs import OPTION, LogFormat
from gped_nas.cli.progress import loudness

SEARCH, TEACHER, STUDENT, HOUSEKEEPING = "Search", "Teacher", "Student", "Housekeeping"
HELP = {"help_option_names": ["-h", "--help"]}
"""Settings of the outermost group; those below inherit them."""


class Verb(TyperCommand):
    """A verb that takes the options of every verb beside its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _shared_options()


class VerbGroup(TyperGroup):
    """Verbs, listed by section. Without a verb it shows its help."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.params += _shared_options()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments that are left for a verb."""
        if not args:
            print(ctx.get_help(), file=sys.stderr)
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the sections in the order in which they first occur."""
        width = max(len(name) for name in self.commands)

        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            line = command.get_short_help_str(formatter.width - width - 6)
            title = command.rich_help_panel or "Commands"
            sections.setdefault(title, []).append((name.ljust(width), line))

        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)


def _set_loudness(ctx: typer.Context, param: typer.CallbackParam, is_given: bool) -> None:
    if is_given:
        loudness.set("quiet" if param.name == "quiet" else "verbose")


def _loudness(
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="Print data and errors alone: no progress, no remarks.",
            callback=_set_loudness,
            expose_value=False,
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Also tell how long each stage took, and where an error arose.",
            callback=_set_loudness,
            expose_value=False,
        ),
    ] = False,
    log_format: Annotated[
        LogFormat,
        typer.Option(
            OPTION,
            help="How to tell what is done, on stderr: text, or a JSON object a line.",
            expose_value=False,
        ),
    ] = LogFormat.text,
) -> None:
    """Carries the options above; no verb sees their values.

    A callback does the work of the first two, and ``cli.main`` that of the third.
    """


def _shared_options() -> list[Any]:
    carrier = typer.Typer(add_completion=False)
    carrier.command()(_loudness)
    return list(typer.main.get_command(carrier).params)
