"""Workers that are actors of a Ray cluster: one that is there, or one of this machine for a run.

Ray places actors, carries what they are sent, and says which of them are lost. Who trains what,
what is tried again and what is written is ours: an actor is never restarted and no call repeated
by Ray.
"""

import contextlib
import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gped_nas import device
from gped_nas.api.engines.crew import Died, Message, Raised, Ready
from gped_nas.api.engines.placing import StreamFiles
from gped_nas.api.engines.ray_actor import Actor, Cargo, Here, Taught, import_ray
from gped_nas.api.engines.settings import TrainerSettings
from gped_nas.api.engines.workers import Workers
from gped_nas.errors import EnvironmentProblem
from gped_nas.io import make_dir, write_bytes
from gped_nas.search.ledger import Claim

_START_S = 300.0
"""How long an actor may wait for a node that has room."""
_STORE_BYTES = 2**28
"""Memory of this machine's own cluster for what travels."""


@contextlib.contextmanager
def ray_crew(settings: TrainerSettings, workers: Workers, useful: int) -> Iterator["RayCrew"]:
    """Actors that train; the connection, and a cluster of this run alone, end with the block.

    Args:
        settings: of the trainer.
        workers: what was asked for.
        useful: how many workers there is work for.

    Raises:
        EnvironmentProblem: no cluster answers, or it has no room for one worker.
    """
    ray = import_ray()

    is_ours = not ray.is_initialized()
    if is_ours:
        _connect(workers)
    try:
        gpus = workers.gpus
        if gpus is None:
            gpus = 1.0 if settings.device.startswith("cuda") else 0.0
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        num, cores = share_out(nodes, workers.num, useful, gpus)
        # an actor sees its own GPUs alone
        where = "cuda" if gpus else "cpu"
        yield RayCrew(replace(settings, device=where), num, cores, gpus)
    finally:
        if is_ours:
            ray.shutdown()


def _connect(workers: Workers) -> None:
    """Connect to the cluster, or start one here.

    Raises:
        EnvironmentProblem: none answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray = import_ray()

    quiet: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.CRITICAL,
        "configure_logging": True,
    }
    try:
        if workers.address is not None:
            _reach(workers.address)
            ray.init(address=workers.address, **quiet)
            return
        cores = max(device.usable_cores(), workers.num or 1)
        ray.init(
            address="local",
            num_cpus=cores,
            include_dashboard=False,
            object_store_memory=_STORE_BYTES,
            **quiet,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"--address {workers.address}" if workers.address else "--engine ray"
        reason = str(error).strip().partition("\n")[0]
        raise EnvironmentProblem(
            f"{where}: no Ray cluster answers ({reason}); start one with `ray start --head`, or "
            "leave --address out"
        ) from None


def _reach(address: str) -> None:
    """Look whether anybody listens there: Ray ends the program where nobody does.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():  # else it is auto, or another word of Ray's
        socket.create_connection((host, int(port)), timeout=10).close()


def share_out(
    nodes: Sequence[Mapping[str, float]], num: int | None, useful: int, gpus: float
) -> tuple[int, int]:
    """How many actors there are, and how many cores each of them has.

    Args:
        nodes: what each node of the cluster has.
        num: how many were asked for; None takes what the cluster has room for.
        useful: how many there is work for.
        gpus: that each of them has.

    Raises:
        EnvironmentProblem: not one fits, or not as many as were asked for.
    """

    def num_fitting(cores: int) -> int:
        total = 0
        for node in nodes:
            fitting = int(node.get("CPU", 0) // cores)
            if gpus:
                fitting = min(fitting, int(node.get("GPU", 0) / gpus + 1e-6))
            total += fitting
        return total

    most = num_fitting(1)
    if most < (num or 1):
        cpus = sum(node.get("CPU", 0) for node in nodes)
        all_gpus = sum(node.get("GPU", 0) for node in nodes)
        raise EnvironmentProblem(
            f"--engine ray: found a cluster of {len(nodes)} nodes with {cpus:g} cores and "
            f"{all_gpus:g} GPUs, expected room for {num or 1} workers of one core and {gpus:g} "
            "GPUs; lower --workers or --worker-gpus, or add nodes"
        )
    num = num or min(most, useful)
    cores = 1
    while num_fitting(cores + 1) >= num:
        cores += 1
    return num, cores


class RayCrew:
    """Actors of a cluster that this process is connected to; see ``Crew``.

    Args:
        settings: of the trainer, as on this node.
        num: how many actors.
        cores, gpus: that each of them has.
    """

    def __init__(self, settings: TrainerSettings, num: int, cores: int, gpus: float) -> None:
        self._ray = ray = import_ray()
        self._settings, self._num, self._cores = settings, num, cores
        self._make = ray.remote(Actor).options(
            num_cpus=cores,
            num_gpus=gpus,
            scheduling_strategy="SPREAD",
            max_restarts=0,
            max_task_retries=0,
        )
        self._here = Here.now()
        self._actors: dict[int, Any] = {}
        self._asked: dict[int, Any] = {}
        self._since: dict[int, float] = {}
        self._cargo: Any = None

    @property
    def num_workers(self) -> int:
        """See ``Crew``."""
        return self._num

    def start(self, worker: int) -> None:
        """See ``Crew``."""
        actor = self._make.remote()
        self._actors[worker] = actor
        self._asked[worker] = actor.greet.remote()
        self._since[worker] = time.monotonic()

    def send(self, worker: int, claims: Sequence[Claim]) -> None:
        """See ``Crew``."""
        self._asked[worker] = self._actors[worker].train.remote(tuple(claims))

    def messages(self, timeout_s: float) -> list[tuple[int, Message]]:
        """See ``Crew``."""
        by_answer = {answer: worker for worker, answer in self._asked.items()}
        if not by_answer:
            time.sleep(timeout_s)
            return []

        num = len(by_answer)
        ready, _ = self._ray.wait(list(by_answer), num_returns=1, timeout=timeout_s)
        if ready:
            ready, _ = self._ray.wait(list(by_answer), num_returns=num, timeout=0)

        heard: list[tuple[int, Message]] = []
        for answer in ready:
            worker = by_answer[answer]
            del self._asked[worker]
            message = self._hear(worker, answer)
            if message is not None:
                heard.append((worker, message))
        return heard + self._without_node()

    def end(self, worker: int) -> None:
        """See ``Crew``."""
        self._asked.pop(worker, None)
        self._since.pop(worker, None)
        actor = self._actors.pop(worker, None)
        if actor is not None:
            self._ray.kill(actor, no_restart=True)

    def _hear(self, worker: int, answer: Any) -> Message | None:
        """What an answer says; None where the actor is asked the next thing."""
        try:
            said = self._ray.get(answer)
        except self._ray.exceptions.RayError as error:
            self.end(worker)
            return _loss(error)

        if isinstance(said, Here):
            self._since.pop(worker, None)
            return self._prepare(worker, said)
        if isinstance(said, Taught):
            self._keep(said.files)
            return said.outcome
        assert isinstance(said, Ready | Raised)
        return said

    def _prepare(self, worker: int, there: Here) -> Message | None:
        """Let an actor make its trainer, with the stream where it has none."""
        for name, expected in self._here.versions.items():
            found = there.versions[name]
            if found != expected:
                return Raised(
                    EnvironmentProblem(
                        f"node {there.address}: found {name} {found}, expected {expected} as where "
                        "the search was started; install the same version there"
                    )
                )

        if there.node != self._here.node and self._cargo is None:
            self._cargo = self._load()
        cargo = None if there.node == self._here.node else self._cargo
        actor = self._actors[worker]
        self._asked[worker] = actor.prepare.remote(worker, self._settings, cargo, self._cores)
        return None

    def _load(self) -> Any:
        """The stream where Ray finds it, once for all nodes."""
        folder = self._settings.streams / self._settings.stream
        files = StreamFiles.of(folder)
        pieces: dict[str, list[Any]] = {}
        for name in files.digests:
            pieces[name] = []
            with open(folder / name, "rb") as file:
                for piece in files.pieces(name):
                    pieces[name].append(self._ray.put(file.read(piece.stop - piece.start)))
        return Cargo(files, pieces)

    def _keep(self, files: Mapping[str, bytes]) -> None:
        """Write students that came from a node, in place of what an earlier run may have left."""
        folder = self._settings.folder
        for student in {name.partition("/")[0] for name in files}:
            shutil.rmtree(folder / student, ignore_errors=True)
        for name, data in files.items():
            make_dir((folder / name).parent)
            write_bytes(folder / name, data)

    def _without_node(self) -> list[tuple[int, Message]]:
        """What is said of actors that found no node for too long."""
        late: list[tuple[int, Message]] = []
        for worker, since in list(self._since.items()):
            if time.monotonic() - since > _START_S:
                del self._since[worker]
                problem = f"no node of the cluster had room for it in {_START_S:g} s"
                late.append((worker, Raised(EnvironmentProblem(f"{problem}; add nodes"))))
        return late


def _loss(error: Exception) -> Message:
    """What is said of an actor that is lost."""
    text = str(error)
    if "ModuleNotFoundError" in text or "failed to import" in text:
        missing = "a node cannot import gped_nas as it is where the search was started"
        return Raised(EnvironmentProblem(f"{missing}; install the same version there"))

    name = type(error).__name__
    if name == "OutOfMemoryError":
        return Died("was ended by Ray, for the memory of its node ran out")
    return Died(f"was lost ({name}: {text.strip().splitlines()[0]})")
