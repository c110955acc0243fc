"""A PostgreSQL server that is restarted in the middle of runs, absent, or mute.

``make soak`` alone runs this: it needs the server's programs (Debian: ``postgresql``) and the
driver (the extra ``postgresql``).
"""

import json
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.harness import TINY, assert_one_message, finish, installed, start, wait_for

NUM_RUNS, NUM_TRIALS = 9, 60
"""About six restarts land in a run. Of 50 that did no harm, the share that does is below 6 %."""


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server of one's own.

    Attributes:
        folder: everything of it.
        port: on 127.0.0.1.
    """

    folder: Path
    port: int

    @property
    def url(self) -> str:
        """Of its only database."""
        return f"postgresql://me@127.0.0.1:{self.port}/studies"

    def call(self, program: str, *args: object) -> None:
        """One of its programs, which refuse to be run by root."""
        found = shutil.which(program) or f"/usr/lib/postgresql/15/bin/{program}"
        user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        command = [*(user if os.getuid() == 0 else ()), found, *map(str, args)]
        env = {**os.environ, "HOME": str(self.folder)}
        subprocess.run(command, check=True, env=env, cwd=self.folder, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        log = self.folder / "log"
        self.call("pg_ctl", "-D", self.folder / "data", "-l", log, "-o", options, "-w", "start")

    def stop(self) -> None:
        """Stop it as a crash does: nothing is said to its clients."""
        self.call("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server with one empty database."""
    folder = Path("/tmp") / f"gped-postgresql-{os.getpid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        made = Server(folder, free.getsockname()[1])

    made.call("initdb", "-D", folder / "data", "-A", "trust", "-U", "me")
    made.start()
    made.call("createdb", "-h", "127.0.0.1", "-p", made.port, "-U", "me", "studies")
    yield made
    made.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a space of many genotypes, and with a cache."""
    folder = tmp_path_factory.mktemp("postgresql")
    text = TINY.replace("n_trials: 4", "sampler: random, n_trials: 4")
    (folder / "tiny.yaml").write_text(text.replace("{choices: [2, 4, 8]}", "{int: [2, 30]}"))
    return folder


@pytest.mark.parametrize("seed", range(NUM_RUNS))
def test_a_run_outlives_restarts_and_tells_each_trial_once(
    server: Server, root: Path, seed: int
) -> None:
    name = f"restarted-{seed}"
    command = ("run", "tiny.yaml", "--storage", server.url, "--study-name", name)
    process = start(*command, "--n-trials", NUM_TRIALS, cwd=root, GPED_CACHE=str(root / "cache"))
    # a server that is not there at the start is not waited for
    told = root / "reports" / name / "config.yaml"
    wait_for(told.exists, process)

    draw = random.Random(seed)
    num_restarts = 0
    while process.poll() is None:
        time.sleep(draw.uniform(0.3, 2))
        server.stop()
        time.sleep(draw.uniform(0.1, 1))
        server.start()
        num_restarts += 1
    result = finish(process)

    assert result.code == 0, result.err
    assert num_restarts > 1
    trials = installed("trials", name, "--storage", server.url, "--format", "json", cwd=root)
    records = json.loads(trials.out)
    assert sorted(record["trial"] for record in records) == list(range(NUM_TRIALS))
    assert {record["state"] for record in records} <= {"complete", "duplicate"}


def test_a_server_that_is_not_there_ends_in_one_message(server: Server, root: Path) -> None:
    server.stop()
    url = server.url
    result = installed("run", "tiny.yaml", "--storage", url, "--study-name", "none", cwd=root)
    server.start()
    assert result.code == 5
    assert_one_message(result.err, ("cannot be opened", "refused", "check path, server"))


def test_a_server_that_never_answers_ends_in_one_message(root: Path) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(5)
        url = f"postgresql://me@127.0.0.1:{mute.getsockname()[1]}/studies"
        started = time.monotonic()
        result = installed("run", "tiny.yaml", "--storage", url, "--study-name", "mute", cwd=root)
    assert result.code == 5
    assert time.monotonic() - started < 40, "ten seconds, and the command's own"
    assert_one_message(result.err, ("cannot be opened", "timeout"))
