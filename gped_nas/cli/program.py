"""The program: its verbs gathered, its errors turned into one message and an exit code."""

import errno
import os
import sys
import traceback
from typing import Annotated, Any

import typer

from gped_nas import __version__
from gped_nas.cli import (
    cache,
    certification,
    coding,
    dials,
    doctor,
    evaluation,
    replaying,
    running,
    spaces,
    students,
    studies,
    suite,
    tuning,
)
from gped_nas.cli.logs import is_json, log, log_if_json, seconds_so_far
from gped_nas.cli.progress import loudness, plain_warnings
from gped_nas.cli.signals import as_given
from gped_nas.cli.streams import silence
from gped_nas.cli.verbs import HELP, TEACHER, VerbGroup
from gped_nas.errors import EnvironmentProblem, GpedError, Interrupted, exit_code, names_options

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""What Typer raises for every wrong use; of this family it exports ``BadParameter`` alone."""

_FACTS = ("expected ", "found ", "it was ", "the last one ")
"""How the end of a message begins that says what is, not what to do."""

_NO_MEMORY = ("failed to map segment", "cannot allocate memory", "Cannot allocate memory")
"""What a library that found no room says when it is imported."""

app = typer.Typer(
    name="gped-search",
    help="Find the small network that replaces a Bayesian ensemble, and see what it gives up.",
    cls=VerbGroup,
    context_settings=HELP,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verbs in (spaces.app, running.app, studies.app, replaying.app, dials.app, suite.app):
    app.add_typer(verbs)
app.add_typer(tuning.app, name="teacher", rich_help_panel=TEACHER)
app.add_typer(coding.app)
for verbs in (students.app, evaluation.app, certification.app, cache.app, doctor.app):
    app.add_typer(verbs)


def _print_version(is_given: bool) -> None:
    if is_given:
        print(f"gped-search {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Options of the program itself; ``version`` has done its work before this is called."""
    _check_names()


def _check_names() -> None:
    """Refuse what is no UTF-8 before any work: no database, page or JSON could hold it.

    Raises:
        EnvironmentProblem: an argument, a setting of the environment or the current folder.
    """
    names = {f"argument {i}": argument for i, argument in enumerate(sys.argv[1:], 1)}
    for variable, value in os.environ.items():
        if variable.startswith(("GPED_", "OPTUNA_")):
            names[variable] = value
    try:
        names["the current folder"] = os.getcwd()
    except FileNotFoundError:
        pass  # It was deleted; whoever needs it says so.

    for place, name in names.items():
        try:
            name.encode()
        except UnicodeEncodeError:
            raise EnvironmentProblem(
                f"{place}: found '{name}', which is not UTF-8; rename the file or folder, or go to "
                "another one"
            ) from None


def run() -> None:
    """Parse, call, print; exit with the code that ``gped_nas.cli.main`` tells of."""
    loudness.set("normal")
    caller = names_options.set(True)
    command = as_given()
    log_if_json("started", command, version=__version__, command=command)
    try:
        with plain_warnings():
            code = app(prog_name="gped-search", standalone_mode=False)
        sys.stdout.flush()  # a full disk behind it is told, and not at the interpreter's end
    except (Exception, KeyboardInterrupt) as error:
        code = _explain(error)
        _drop_unwritten()
    finally:
        names_options.reset(caller)
    code = code if isinstance(code, int) else 0
    seconds = seconds_so_far()
    log_if_json("ended", f"ended with exit code {code}", exit_code=code, seconds=seconds)
    sys.exit(code)


def _drop_unwritten() -> None:
    """Give up what stdout does not take: the interpreter would try again, and end with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        silence(1)


def _explain(error: BaseException) -> int:
    """Print what went wrong as one message; the exit code."""
    if isinstance(error, BrokenPipeError):
        # The reader of our output left, so there is nothing more to say.
        silence(1)
        return 1
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        text = "gped-search: interrupted; run the same command again"
        log("error", text, hint="", exit_code=130)
        return 130

    is_verbose = loudness.get() == "verbose" or bool(os.environ.get("GPED_DEBUG"))
    is_traced = is_verbose and not isinstance(error, Interrupted | _UsageError)
    message, hint, code = _message(error)
    if is_json():
        trace = {"traceback": "".join(traceback.format_exception(error))} if is_traced else {}
        log("error", message, hint=hint, exit_code=code, **trace)
        return code

    if is_traced:
        traceback.print_exception(error)
    log("error", f"gped-search: error: {message}")
    if hint:
        log("error", f"hint: {hint}")
    return code


def _is_of_storage(error: BaseException) -> bool:
    """Whether it is Optuna's error of a storage; without loading Optuna to ask."""
    exceptions = sys.modules.get("optuna.exceptions")
    return exceptions is not None and isinstance(error, exceptions.StorageInternalError)


def _message(error: BaseException) -> tuple[str, str, int]:
    """What went wrong, what to do about it (empty where there is nothing), and the exit code."""
    if isinstance(error, _UsageError):
        return *_usage(error), 2
    if isinstance(error, GpedError):
        return *_split(str(error)), exit_code(error)
    if isinstance(error, OSError):
        what = f"{error.filename or 'system'}: {error.strerror or error}"
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return what, "raise the limit of open files (`ulimit -n`)", 5
        return what, "check the path, permissions and disk space", 5
    if _is_of_storage(error):
        reason = getattr(error.__cause__, "orig", None) or error
        what = f"the study's storage cannot be read: {reason}"
        return what, "check the disk, the permissions and the server", 5
    if isinstance(error, MemoryError):
        hint = "lower search.students_at_once or teacher.method.num_samples"
        return "out of memory", hint, 5
    if isinstance(error, ImportError) and any(words in str(error) for words in _NO_MEMORY):
        return f"out of memory: {error}", "raise the limit of memory (`ulimit -v`)", 5

    what = f"internal error: {type(error).__name__}: {error}"
    return what, "this is a bug: please report it with the traceback that --verbose shows", 1


def _split(message: str) -> tuple[str, str]:
    """Our own messages end with what to do, after their last semicolon; few end with a fact."""
    what, semicolon, hint = message.rpartition("; ")
    if not semicolon or hint.startswith(_FACTS):
        return message, ""
    return what, hint


def _usage(error: Any) -> tuple[str, str]:
    """Typer's messages in the style of ours: no capital, no full stop, the way on as the hint."""
    text = error.format_message().replace("Value error, ", "")
    what, _, suggestion = text.partition(". Did you mean ")
    command = error.ctx.command_path if error.ctx else "gped-search"

    hint = f"did you mean {suggestion}" if suggestion else f"see `{command} --help`"
    return what[:1].lower() + what[1:].removesuffix("."), hint
