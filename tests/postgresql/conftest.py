"""The PostgreSQL server that the tests of this folder share, or why they are skipped."""

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgresql.servers import Server, program


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A running server; it is stopped at the end."""
    if program("initdb") is None:
        pytest.skip("PostgreSQL's programs are not installed (Debian: postgresql)")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("PostgreSQL's driver is not installed (gped-nas[postgresql])")

    # its socket's path must be short, and its user must reach it
    root = Path(tempfile.mkdtemp(prefix="gped-", dir="/tmp"))
    root.chmod(0o755)
    made = Server.make(root / "server")
    yield made
    made.stop()
    shutil.rmtree(root)
