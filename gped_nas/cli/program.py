"""The program: its verbs gathered, its errors turned into one message and an exit code."""

import os
import sys

import typer

from gped_nas.cli import cache, dials, doctor, spaces, students, studies, teachers
from gped_nas.errors import GpedError, exit_code

app = typer.Typer(
    name="gped-search",
    help="Find the small network that replaces a Bayesian ensemble, and see what it gives up.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(teachers.app, name="teacher")
for verbs in (spaces.app, studies.app, students.app, dials.app, cache.app, doctor.app):
    app.registered_commands += verbs.registered_commands


def main() -> None:
    """Run ``gped-search`` and exit: 0 ok, 1 failure, 2 usage, 3 gate, 4 integrity, 5 environment,
    130/143 signals.
    """
    try:
        app(prog_name="gped-search")
    except GpedError as error:
        _say(str(error))
        sys.exit(exit_code(error))
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # the reader left; nothing more to say
        sys.exit(1)
    except OSError as error:
        _say(
            f"{error.filename or 'system'}: {error.strerror or error}; check the path, permissions "
            "and disk space"
        )
        sys.exit(5)
    except MemoryError:
        _say("out of memory; lower search.students_at_once or teacher.method.num_samples")
        sys.exit(5)
    except Exception as error:
        if os.environ.get("GPED_DEBUG"):
            raise
        _say(
            f"internal error: {type(error).__name__}: {error}; this is a bug: please report it "
            "with the traceback that "
            "GPED_DEBUG=1 shows"
        )
        sys.exit(1)


def _say(message: str) -> None:
    print(f"gped-search: error: {message}", file=sys.stderr)
