"""Lines of log on stderr: text for people or, with ``--log-format json``, JSON for programs.

A line of JSON is one object. Each has ``schema_version``, ``time`` (UTC, ISO 8601), ``event`` and
``text``, the line that people read; what else it has depends on the event:

============  ======================================================================
``started``   ``version``, ``command``
``phase``     ``study``, ``phase``, ``number``, ``total``: a run entered a phase
``progress``  ``what``, ``done``, ``total``: how far a stage is, every ten seconds
``stage``     ``what``, ``total``, ``seconds``: a stage ended; with ``--verbose``
``trial``     ``trial``, ``state``, ``reason``, ``genotype``, ``metrics``, ``costs``,
              ``outside``, ``finished``, ``wanted``: a trial ended
``message``   a remark
``warning``   ``category``
``signal``    ``signal``: it was received
``error``     ``hint``, ``exit_code``, with ``--verbose`` ``traceback``
``ended``     ``exit_code``, ``seconds``
============  ======================================================================
"""

import json
import time
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from gped_nas.cli.streams import tell, tell_at_once, write_line

SCHEMA_VERSION = 1
OPTION = "--log-format"


class LogFormat(StrEnum):
    """How a command tells what it does."""

    text = "text"
    json = "json"


log_format: ContextVar[LogFormat] = ContextVar("log_format", default=LogFormat.text)
"""How the running command tells."""

_began = time.monotonic()


def asked_format(words: Sequence[str]) -> LogFormat:
    """What a command line asks for: known before it is parsed, since parsing may fail."""
    for i, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option == OPTION:
            chosen = value if equals else "".join(words[i + 1 : i + 2])
            return LogFormat.json if chosen == LogFormat.json else LogFormat.text
    return LogFormat.text


def is_json() -> bool:
    """Whether lines are JSON."""
    return log_format.get() is LogFormat.json


def log(event: str, text: str, **fields: Any) -> None:
    """One line of log: the text alone, or an object with the fields, too."""
    if is_json():
        write_line(_line(event, text, fields))
    else:
        tell(text)


def log_if_json(event: str, text: str, **fields: Any) -> None:
    """A line that people do not need."""
    if is_json():
        log(event, text, **fields)


def log_at_once(event: str, text: str, **fields: Any) -> None:
    """As ``log``, past all buffers: for what is said inside a signal handler."""
    shown = _line(event, text.strip(), fields) if is_json() else text
    tell_at_once(f"{shown}\n")


def seconds_so_far() -> float:
    """Seconds since the program began."""
    return round(time.monotonic() - _began, 3)


def _line(event: str, text: str, fields: dict[str, Any]) -> str:
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = {"schema_version": SCHEMA_VERSION, "time": moment, "event": event, "text": text}
    # ASCII: no letter is lost, and nothing that a terminal would obey is in it
    return json.dumps({**head, **fields}, default=str)
