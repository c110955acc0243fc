"""The verb about the cache: ``gc``."""

from datetime import datetime
from typing import Annotated, Any

import typer

from gped_nas.cli.options import FormatOption
from gped_nas.cli.output import Format, print_rows
from gped_nas.cli.progress import say
from gped_nas.cli.verbs import HOUSEKEEPING, Verb

app = typer.Typer()


@app.command(cls=Verb, rich_help_panel=HOUSEKEEPING)
def gc(
    digests: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DIGEST]...",
            help="Whole streams, by the start of their digest; or whose parts go.",
        ),
    ] = None,
    building: Annotated[
        bool, typer.Option("--building", help="What builds that did not finish have left.")
    ] = False,
    derived: Annotated[
        bool, typer.Option("--derived", help="Averages; made again in seconds.")
    ] = False,
    views: Annotated[
        bool, typer.Option("--views", help="Predictions; made again from the samples.")
    ] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove it. Without this nothing is touched.")
    ] = False,
    format: FormatOption = Format.table,
) -> None:
    """List the cached streams, or remove what is chosen.

    Nothing is removed without --delete. Without a choice every stream is listed. A stream that a
    process is writing stays, and so does one whose posterior samples another stream is made of,
    unless that one goes too. Links are not followed.

    Nothing tells which studies use a stream, because their folders can lie anywhere. A study whose
    stream is gone keeps its front, students and report, but has to sample the teacher again before
    it can go on. The list has the time when a stream was last written, not when it was last read.
    """
    from gped_nas.api.cache import cached_streams, described, remove, select
    from gped_nas.errors import ConfigError
    from gped_nas.stream.inventory import PARTS

    streams = cached_streams()
    is_chosen = dict(zip(PARTS, (building, derived, views), strict=True))
    parts = [part for part in PARTS if is_chosen[part]]

    rows: list[dict[str, Any]]
    if not digests and not parts:
        if delete:
            raise ConfigError(
                "--delete: nothing was chosen; expected --building, --derived, --views or digests"
            )
        rows = [
            {
                "stream": stream.name if format is Format.json else stream.name[:12],
                "samples": stream.num_samples,
                "bytes": stream.num_bytes,
                **stream.part_bytes,
                "written": datetime.fromtimestamp(stream.written).isoformat(" ", "minutes"),
                "in use": stream.is_busy or bool(stream.readers),
                "teacher": described(stream),
            }
            for stream in streams
        ]
        _print(rows, format, ("bytes", *PARTS))
        say(f"{len(rows)} streams, {_size(sum(s.num_bytes for s in streams))}")
        return

    garbage = select(streams, digests or (), parts)
    rows = [
        {
            "stream": item.folder.name,
            "what": item.what,
            "bytes": item.num_bytes,
            "in use": item.is_in_use,
        }
        for item in garbage
    ]
    _print(rows, format, ("bytes",))

    if delete:
        say(f"removed {_size(remove(garbage))}")
    else:
        size = _size(sum(item.num_bytes for item in garbage))
        say(f"{size} would go; give --delete to remove it")


def _print(rows: list[dict[str, Any]], format: Format, sizes: tuple[str, ...]) -> None:
    """Rows with sizes in bytes for machines, in units for people."""
    if format is Format.table:
        for row in rows:
            row |= {key: _size(row[key]) for key in sizes if key in row}
    if rows or format is not Format.table:
        print_rows(rows, format)


def _size(num_bytes: int) -> str:
    """``0 B``, ``12.3 MiB``."""
    size, unit = float(num_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
