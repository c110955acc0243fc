"""Parts of a bench as processes that run side by side, each on one thread."""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence

GRACE_S = 30
"""How long a part may take to end after its time is over."""


def run_side_by_side(module: str, parts: Iterable[Sequence[str]], time_limit: float) -> None:
    """Run every part, and kill those that do not end in time; what they wrote is left.

    Args:
        module: of the bench, as ``python -m`` takes it.
        parts: the arguments of each process.
        time_limit: seconds for all of them.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = []
    for arguments in parts:
        command = [sys.executable, "-m", module, *arguments]
        processes.append(subprocess.Popen(command, env=environment))

    deadline = time.monotonic() + time_limit + GRACE_S
    for process in processes:
        try:
            process.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
