"""A process that forks ``gped-search`` and lets the fork die at a chosen instant.

Or stop there, run out of disk, meet a disk that fails, or lose its power.

Run as a program it imports everything once, then reads one JSON request a line from standard input:
each forks a child that is warm, so that hundreds of kills cost seconds. ``Forks`` is the test's end
of it.

An *instant* is just before one of these calls: flushing, renaming, linking, making or removing a
file (``fsync``, ``rename``, ``link``, ``mkdir``, ``remove``), a statement that writes to the
database (``sql``), finishing trials (``tell``), training a population (``train``, ``trained`` for
just after) and an update of the teacher (``step``). At ``fsync`` the child first throws away half
of the file: bytes that were not flushed need not be there after the whole machine went down.
"""

import errno
import fcntl
import gc
import importlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.faults.disk import Disk  # noqa: E402

KILLED = 137
PRELOADED = (
    "alembic.command",
    "alembic.config",
    "alembic.migration",
    "fvcore.nn",
    "gped_nas.api.export",
    "gped_nas.api.job",
    "gped_nas.api.suite",
    "gped_nas.cli.program",
    "gped_nas.cli.tables",
    "gped_nas.report.suite",
    "gped_nas.search.asking",
    "plotly.graph_objects",
    "plotly.offline",
    "sklearn.datasets",
    "sqlalchemy.dialects.sqlite",
)
"""What every command would import by itself, once."""


@dataclass(frozen=True)
class Ended:
    """How a forked command ended: exit code, standard error, the instants it passed.

    An instant is ``[kind, what]``.
    """

    code: int
    stderr: str
    instants: list[list[str]]
    steps: int


def is_written(fd: int) -> bool:
    """Whether a file is open to be written; what is only read was flushed by who wrote it."""
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


class Forks:
    """Runs commands in forks of one warm process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
        )

    def run(self, *words: str, cache: Path, **request: Any) -> Ended:
        """Run ``gped-search`` with these words.

        Args:
            words: the command line.
            cache: its ``GPED_CACHE``.
            request: ``die`` or ``stop`` and ``at``: the kind of instant (``any`` but ``step``) and
                which one, from 1; ``limit``: the largest file it may write, in bytes; ``step_s``:
                what its clock says an update of the teacher takes, in seconds; ``cwd``: the folder
                that it works in; ``fail``: in the place of ``die``, ``fsync`` or ``commit``, that
                reports an input/output error; ``power``: folders, and ``kept``: where to write what
                is left of them when it dies, see ``disk``, as ``names`` and ``strict``.
        """
        assert self._server.stdin is not None and self._server.stdout is not None
        request |= {"words": words, "cache": str(cache), "folder": str(self._folder)}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        ended = json.loads(self._server.stdout.readline())
        log = json.loads((self._folder / "instants.json").read_text())
        return Ended(ended["code"], ended["stderr"], log["instants"], log["steps"])

    def close(self) -> None:
        """End the warm process."""
        self._server.communicate()


class _Watch:
    """Counts instants, and acts at the chosen one."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.instants: list[tuple[str, str]] = []
        self.steps = 0
        self.seen = 0
        self.is_over = False
        self.disk: Disk | None = None
        if "power" in request:
            vault = Path(request["kept"]) / "vault"
            vault.mkdir(parents=True)
            self.disk = Disk([Path(root) for root in request["power"]], vault)

    def instant(self, kind: str, what: object, fd: int | None = None) -> None:
        if self.is_over:
            return
        if kind == "step":
            self.steps += 1
        else:
            self.instants.append((kind, str(what)))

        how = next((how for how in ("die", "stop", "fail") if how in self.request), "")
        chosen_kind = self.request.get(how)
        is_chosen = kind == chosen_kind or (chosen_kind == "any" and kind != "step")
        if not is_chosen:
            return
        self.seen += 1
        if self.seen != self.request["at"]:
            return

        if "stop" in self.request:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if "fail" in self.request:
            error = OSError(errno.EIO, os.strerror(errno.EIO))
            raise sqlite3.OperationalError("disk I/O error") if kind == "commit" else error
        if self.disk is not None:
            self.is_over = True
            for name in ("strict", "names"):
                kept = Path(self.request["kept"]) / name
                self.disk.lose_power(kept, all_names=name == "names")
            self.end(KILLED)
        if fd is not None and os.path.isfile(f"/proc/self/fd/{fd}") and is_written(fd):
            os.ftruncate(fd, os.fstat(fd).st_size // 2)
        self.end(KILLED)

    def end(self, code: int) -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, resource.getrlimit(resource.RLIMIT_FSIZE)[1:] * 2)
        log = {"instants": self.instants, "steps": self.steps}
        (Path(self.request["folder"]) / "instants.json").write_text(json.dumps(log))
        os._exit(code)

    def before(self, owner: Any, name: str, kind: str, *, after: str = "") -> None:
        """Call ``instant`` before each call of ``owner.name``, and after it with kind ``after``."""
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.instant(kind, args[0], args[0] if kind == "fsync" else None)
            result = original(*args, **kwargs)
            if self.disk is not None and not self.is_over:
                if kind == "fsync":
                    self.disk.flushed(args[0])
                elif kind == "mkdir":
                    self.disk.made(args[0])
            if after:
                self.instant(after, args[0])
            return result

        setattr(owner, name, call)

    def install(self) -> None:
        """Put an instant everywhere something on disk changes."""
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        from gped_nas import io
        from gped_nas.api.students import Trainer
        from gped_nas.posterior.base import FlatParams
        from gped_nas.search.ledger import Ledger
        from gped_nas.stream import chunks, writer

        self.before(os, "fsync", "fsync")
        self.before(os, "mkdir", "mkdir")
        for name in ("replace", "rename"):
            self.before(os, name, "rename")
        self.before(io, "exchange", "rename")
        self.before(os, "link", "link")
        for name in ("unlink", "remove", "rmdir"):
            self.before(os, name, "remove")

        if self.request.get("fail") == "commit":
            from sqlalchemy.engine.default import DefaultDialect

            self.before(DefaultDialect, "do_commit", "commit")
        self.before(Ledger, "finish_all", "tell")
        self.before(Trainer, "__call__", "train", after="trained")
        self.before(FlatParams, "gradient", "step")

        def statement(_: Any, __: Any, sql: str, *rest: Any) -> None:
            if sql.split(None, 1)[0].upper() not in ("SELECT", "PRAGMA"):
                self.instant("sql", sql[:60])

        event.listen(Engine, "before_cursor_execute", statement)

        watch = self
        step_s = self.request.get("step_s", 0.0)

        class Clock:
            """A clock that only the teacher's updates move: no machine decides on chunks."""

            monotonic = staticmethod(lambda: watch.steps * step_s)
            time = staticmethod(lambda: 0.0)

        chunks.time = writer.time = Clock  # type: ignore[assignment]


def _child(request: dict[str, Any], stderr: int) -> None:
    os.environ["GPED_CACHE"] = request["cache"]
    os.chdir(request.get("cwd", "."))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(stderr, 2)
    # Python's own were made of other files, which perhaps could be sought in
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115

    watch = _Watch(request)
    watch.install()
    if "limit" in request:
        import resource

        _, hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit"], hard_limit))

    from gped_nas.cli import main

    sys.argv = ["gped-search", *request["words"]]
    code: Any = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    watch.end(code)


def _serve() -> None:
    warnings.simplefilter("ignore")
    for name in PRELOADED:
        importlib.import_module(name)
    from gped_nas.models.base import Genotype
    from gped_nas.models.costs import count_macs
    from gped_nas.registry import _REGISTRIES

    for registry in _REGISTRIES:
        len(registry)  # imports every component

    # Tracing imports a thousand modules more.
    genotype = Genotype("mlp", depth=1, width=2)
    count_macs("mlp", genotype.shapes((1, 8, 8), 10), (1, 8, 8))
    warnings.resetwarnings()
    gc.freeze()  # collecting in a fork would copy every page of what was imported

    for line in sys.stdin:
        read, write = os.pipe()  # what the commands say is far less than a pipe holds
        pid = os.fork()
        if pid == 0:
            try:
                _child(json.loads(line), write)
            finally:
                os._exit(99)

        os.close(write)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with os.fdopen(read) as stderr:
            print(json.dumps({"code": code, "stderr": stderr.read()}), flush=True)


if __name__ == "__main__":
    _serve()
