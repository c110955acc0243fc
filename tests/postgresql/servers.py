"""A PostgreSQL server of a test's own, and a wire to it that can be cut."""

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PASSWORD = "hush-hush-secret"
_FOLDERS = "/usr/lib/postgresql/*/bin"


def program(name: str) -> str | None:
    """One of the server's programs; None where it is not installed."""
    newest_first = sorted(Path("/").glob(_FOLDERS[1:]), reverse=True)
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, newest_first)]))


@dataclass(frozen=True)
class Server:
    """A server on 127.0.0.1 with one user ``me`` and one database ``studies``.

    Attributes:
        folder: everything of it.
        port: where it listens.
    """

    folder: Path
    port: int

    @property
    def url(self) -> str:
        """Of its database, with the user's password."""
        return self.url_by(self.port)

    def url_by(self, port: int, password: str = PASSWORD) -> str:
        """Of its database, by way of another port or with another password."""
        return f"postgresql+psycopg://me:{password}@127.0.0.1:{port}/studies"

    @staticmethod
    def make(folder: Path) -> "Server":
        """A new server, which runs."""
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)  # the server is somebody else's where the tests are root's
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            server = Server(folder, free.getsockname()[1])

        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        login = ("-A", "scram-sha-256", "-U", "me", f"--pwfile={password}")
        server.call("initdb", "-D", folder / "data", *login, "--no-sync")
        server.start()
        where = ("-h", "127.0.0.1", "-p", server.port, "-U", "me")
        server.call("createdb", *where, "studies", PGPASSWORD=PASSWORD)
        return server

    def call(self, name: str, *args: object, **env: str) -> None:
        """One of its programs, which refuse to be run by root."""
        path = program(name)
        assert path is not None, name
        nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        command = [*(nobody if os.getuid() == 0 else ()), path, *map(str, args)]
        environment = {**os.environ, "HOME": str(self.folder), **env}
        subprocess.run(
            command, check=True, env=environment, cwd=self.folder, stdout=subprocess.DEVNULL
        )

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -F"
        log = self.folder / "log"
        self.call("pg_ctl", "-D", self.folder / "data", "-l", log, "-o", options, "-w", "start")

    def stop(self) -> None:
        """Stop it as a crash does: nothing is said to its clients."""
        self.call("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "stop")


@dataclass
class Wire:
    """Carries bytes to a server and back, and loses connections at chosen commits.

    Attributes:
        target: port of the server on this machine.
        loses: given the number of a commit, from 1, says whether its connection is lost
            ``"before"`` the server hears of it or ``"after"``, the answer with it; ``""`` for not.
        num_commits, num_lost: so far.
    """

    target: int
    loses: Callable[[int], str] = lambda number: ""
    num_commits: int = 0
    num_lost: int = 0
    _listener: socket.socket = field(default_factory=socket.socket)

    def __enter__(self) -> "Wire":
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def port(self) -> int:
        """Where clients connect to."""
        port: int = self._listener.getsockname()[1]
        return port

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                lost = threading.Event()
                for carry in (self._carry_there, self._carry_back):
                    threading.Thread(target=carry, args=(client, server, lost), daemon=True).start()

    def _carry_there(
        self, client: socket.socket, server: socket.socket, lost: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                if b"COMMIT" in data:
                    self.num_commits += 1
                    when = self.loses(self.num_commits)
                    self.num_lost += bool(when)
                    if when == "before":
                        break
                    if when == "after":
                        lost.set()
                server.sendall(data)
        _hang_up(client, server)

    def _carry_back(
        self, client: socket.socket, server: socket.socket, lost: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if lost.is_set():  # the server did it, and says so to nobody
                    break
                client.sendall(data)
        _hang_up(client, server)


def _hang_up(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
