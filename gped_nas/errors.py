"""The errors a user can meet, and the exit code of each.

    GpedError
    ├── ConfigError(ValueError)           configuration or usage: an impossible or unknown setting
    ├── RegistryError(KeyError)           a name nobody registered
    ├── DataError                         a dataset that cannot be used as it is
    │   └── DamageError                   a student's file is not what was written
    ├── StreamError                       a stream is missing, corrupt or of another key
    ├── StudyError                        a study is missing, corrupt or of another space
    ├── GateError                         the work finished but what was asked for was not reached
    ├── EnvironmentProblem                an extra, driver, device, file or permission is missing
    ├── DivergenceError(ArithmeticError)  numbers stopped being finite
    └── Interrupted                       the user asked to stop; everything finished is kept

A message says what was found, what was expected, where, and what to do. It names options of the
command line, ``--n-trials``; whoever calls from Python reads the argument's name, ``n_trials``.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

names_options: ContextVar[bool] = ContextVar("names_options", default=False)
"""Whether messages are read by somebody who gave options: the command line sets it."""

_ARGUMENTS = {
    **{"--timeout": "timeout_s", "--device": "device_name", "--adopt": "adopt=True"},
    **{"--n-trials": "n_trials", "--study-name": "study_name", "--storage": "storage"},
    **{"--out": "out", "--within": "within", "--trial": "trial", "--processes": "processes"},
    **{"--to": "to", "--into": "into", "--inputs": "inputs", "--methods": "methods"},
    **{"--budget": "budget", "--teacher": "teacher", "--credible": "credible"},
    **{"--tasks": "tasks", "--part": "part", "--subjects": "subjects", "--limit": "limit"},
    **{"--space": "space", "--save-inputs": "save_inputs", "--metrics": "metrics"},
    **{"--box": "box", "--from-study": "from_study"},
    **{"--epsilon": "eps", "--time-limit": "time_limit", "--bounds": "bounds"},
    **{"--host": "host", "--port": "port", "--mask": "masks", "--subsample": "subsamples"},
}
"""Options, and what functions call them."""


def in_words_of_the_caller(message: str) -> str:
    """A message with the arguments' names in place of options, unless options were given.

    Commands, which stand between backticks, stay as they are.
    """
    if names_options.get():
        return message

    parts = message.split("`")
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(
            r"--[a-z][a-z-]*", lambda option: _ARGUMENTS.get(option[0], option[0]), parts[i]
        )
    return "`".join(parts)


class GpedError(Exception):
    """Base of every error raised on purpose."""

    def __str__(self) -> str:
        return in_words_of_the_caller(super().__str__())


class ConfigError(GpedError, ValueError):
    """A setting is unknown, of the wrong type or impossible."""


class RegistryError(GpedError, KeyError):
    """A name is not registered.

    Inherits ``KeyError``, so that ``in`` keeps working on registries.
    """

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return in_words_of_the_caller(str(self.args[0]))


class DataError(GpedError):
    """A dataset or file of arrays cannot be used as it is."""


class DamageError(DataError):
    """A file of a student is not what was written."""


class UndigestedWarning(UserWarning):
    """A file was made before files carried digests, so that nothing tells whether it is whole."""


class DataWarning(UserWarning):
    """Data that can be used, and that a reader of its results must know something of."""


class EnvironmentWarning(UserWarning):
    """Something outside the project is short or broken, and the job is done another way."""


class AttackWarning(UserWarning):
    """An attack is weaker than it looks, or was not made as it was asked for."""


class MovedWarning(UserWarning):
    """A study goes on in another place than before."""


class StreamError(GpedError):
    """A stream is missing, corrupt or belongs to another key."""


class StudyError(GpedError):
    """A study is missing, corrupt or belongs to another space."""


class GateError(GpedError):
    """The work finished, but what was asked for was not reached."""


class EnvironmentProblem(GpedError):
    """Something outside the project is missing: an extra, a device, data, disk, a permission."""


class DivergenceError(GpedError, ArithmeticError):
    """A computation left the finite numbers."""


class Interrupted(GpedError):
    """The user asked to stop and the running step was finished.

    Args:
        message: how to go on.
        exit_code: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP.
    """

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


_EXIT_CODES: dict[type[GpedError], int] = {
    ConfigError: 2,
    RegistryError: 2,
    DataError: 2,
    DamageError: 4,
    GateError: 3,
    StreamError: 4,
    StudyError: 4,
    EnvironmentProblem: 5,
}


def exit_code(error: GpedError) -> int:
    """The process exit code of an error: the nearest class in the table, else 1."""
    if isinstance(error, Interrupted):
        return error.exit_code
    for cls in type(error).__mro__:
        if cls in _EXIT_CODES:
            return _EXIT_CODES[cls]
    return 1


@contextmanager
def calling(piece: str, hint: str) -> Iterator[None]:
    """Name the piece whose function raised. It may be a plug-in's, and then it is no bug of ours.

    Args:
        piece: for people: ``metric 'euro'``.
        hint: what to do.

    Raises:
        RegistryError: what it raised was none of our errors, nor a full disk or memory.
    """
    try:
        yield
    except (GpedError, OSError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # a stranger's function may raise anything
        raise RegistryError(
            f"{piece}: its function raised {type(error).__name__}: {error}; {hint} "
            "(--verbose shows the line)"
        ) from error


MOST_LISTED = 24
"""Names that a message lists, at most: more of them would bury what it says."""


def nearest(name: object, valid: Iterable[object]) -> str:
    """The end of a message: ``; did you mean 'x'?``, or what is valid where nothing is near."""
    names = sorted(str(v) for v in valid)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; expected one of: {listed(names)}" if names else ""


def listed(names: Sequence[str]) -> str:
    """Names for a message: the first ``MOST_LISTED``, and how many others there are."""
    shown = ", ".join(names[:MOST_LISTED])
    num_others = len(names) - MOST_LISTED
    return f"{shown} and {num_others} others" if num_others > 0 else shown
