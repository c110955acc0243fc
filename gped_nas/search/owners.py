"""Who holds a claim, and whether it can still be at work.

A claim is taken back when its lease is over. Two kinds of owner need not be waited for:

* one that held the lock of a study's folder which this process holds now;
* a process of this machine that is not there any more.

Of any other owner nothing is known, so its lease decides.
"""

import functools
import os
import uuid
from pathlib import Path

from gped_nas.search.document import Stored


class Owner(Stored):
    """A process that holds claims.

    Attributes:
        name: different for everybody who ever opened a ledger.
        machine: where ``pid`` means something: this start of the machine and this container.
            Empty where that cannot be told.
        pid: of the process.
        started: when it started, in clock ticks; another process may have its number later.
        home: the study's folder whose lock it holds, as a name that the folder keeps when it is
            moved; empty if it holds none.
        asker: its number among those who ask at the same time; 0 for the first and only one.
    """

    name: str
    machine: str = ""
    pid: int = 0
    started: str = ""
    home: str = ""
    asker: int = 0

    @staticmethod
    def here(home: str = "") -> "Owner":
        """This process, as the owner of what one ledger claims."""
        pid = os.getpid()
        return Owner(
            name=uuid.uuid4().hex,
            machine=_machine(),
            pid=pid,
            started=_started(pid),
            home=home,
        )

    def is_gone(self, here: "Owner") -> bool:
        """Whether it certainly works no more, as ``here`` sees it."""
        if self.name == here.name:
            return False
        if self.home and self.home == here.home:
            return True

        if not self.machine or self.machine != here.machine:
            return False
        started = _started(self.pid)
        return started != self.started and not (started == "" and _is_hidden(self.pid))


@functools.cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process of this machine started; empty if there is none of this number."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # The second field is the command in brackets, which may hold spaces and brackets itself. The
    # start is field 22 of proc(5), the 20th after it.
    fields = text.rpartition(")")[2].split()
    return fields[19]


def _is_hidden(pid: int) -> bool:
    """Whether a process is there that /proc does not show: some machines hide those of others."""
    try:
        os.kill(pid, 0)  # no signal: it only asks
    except PermissionError:
        return True
    except OSError:
        return False
    return True
