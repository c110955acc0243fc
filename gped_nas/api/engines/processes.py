"""Workers that are processes of this machine: each makes the same trainer for itself.

A worker is a spawned process that talks to its parent over one pipe. It writes students where the
parent would, never hears Ctrl-C, and ends with its parent, however that ended.
"""

import multiprocessing
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait

from gped_nas import device
from gped_nas.api.engines.crew import Died, Message, Progress, Raised, Ready, Records
from gped_nas.api.engines.settings import TrainerSettings
from gped_nas.api.students import Trainer
from gped_nas.errors import GpedError
from gped_nas.models.base import Genotype
from gped_nas.models.costs import count_macs
from gped_nas.search.ledger import Claim
from gped_nas.stream.processes import deaf, end_with_parent, without_script

_CONTEXT = multiprocessing.get_context("spawn")


class Processes:
    """Processes that train; see ``Crew``.

    Args:
        settings: of the trainer that each of them makes.
        devices: where each of them trains.
        cores: how many each of them may use.
    """

    def __init__(self, settings: TrainerSettings, devices: Sequence[str], cores: int) -> None:
        self._settings = [replace(settings, device=device) for device in devices]
        self._cores = cores
        self._workers: dict[int, tuple[multiprocessing.process.BaseProcess, Connection]] = {}

    @property
    def num_workers(self) -> int:
        """See ``Crew``."""
        return len(self._settings)

    def start(self, worker: int) -> None:
        """See ``Crew``."""
        ours, theirs = _CONTEXT.Pipe()
        arguments = (worker, self._settings[worker], self._cores, theirs)
        process = _CONTEXT.Process(target=_work, args=arguments)
        with theirs, deaf(), without_script():
            process.start()
        self._workers[worker] = (process, ours)

    def send(self, worker: int, claims: Sequence[Claim]) -> None:
        """See ``Crew``."""
        try:
            self._workers[worker][1].send(tuple(claims))
        except OSError:
            pass  # it has ended meanwhile: its end is heard below

    def messages(self, timeout_s: float) -> list[tuple[int, Message]]:
        """See ``Crew``."""
        by_connection = {connection: i for i, (_, connection) in self._workers.items()}
        heard: list[tuple[int, Message]] = []
        for connection in wait(list(by_connection), timeout_s):
            assert isinstance(connection, Connection)
            worker = by_connection[connection]
            try:
                heard.append((worker, connection.recv()))
            except (EOFError, OSError):
                # killed, perhaps in the middle of a message
                heard.append((worker, Died(self._how_it_ended(worker))))
        return heard

    def end(self, worker: int) -> None:
        """See ``Crew``."""
        process, connection = self._workers.pop(worker, (None, None))
        if process is not None and connection is not None:
            process.kill()
            process.join()
            process.close()
            connection.close()

    def _how_it_ended(self, worker: int) -> str:
        process, _ = self._workers[worker]
        process.join(timeout=10)
        code = process.exitcode or 0
        self.end(worker)
        if code == -signal.SIGKILL:
            return "was killed by SIGKILL, perhaps because memory ran out"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


def _work(worker: int, settings: TrainerSettings, cores: int, connection: Connection) -> None:
    """What a process does: train each population that it is sent."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    device.set_precision()
    device.use_cores(cores)
    warnings.simplefilter("ignore")  # the parent has told it

    def tell(what: str, done: int, total: int) -> None:
        connection.send(Progress(what, done, total))

    try:
        trainer = settings.trainer(tell)
        import_what_measuring_needs()
    except Exception as error:
        connection.send(Raised(portable(error)))
        return

    connection.send(Ready(f"process {worker + 1}"))
    while True:
        try:
            claims = connection.recv()
        except (EOFError, OSError):
            return  # the parent is gone
        connection.send(train(trainer, claims))


def train(trainer: Trainer, claims: Sequence[Claim]) -> Records | Raised:
    """What comes of a population: its records, or an error."""
    began = time.monotonic()
    try:
        records = tuple(trainer.records(claims))
    except Exception as error:
        return Raised(portable(error))
    return Records(records, time.monotonic() - began)


def import_what_measuring_needs() -> None:
    """Import what counts operators, a thousand modules: that is no student's time."""
    genotype = Genotype("mlp", depth=0)
    count_macs("mlp", genotype.shapes((1,), 1), (1,))


def portable(error: Exception) -> Exception:
    """An error that survives the way to the parent."""
    if isinstance(error, (GpedError, OSError, MemoryError)):
        return error
    unexpected = RuntimeError(f"{type(error).__name__}: {error}")
    unexpected.add_note(traceback.format_exc())
    return unexpected
