"""What a job carries along: where to compute, where to keep things, whom to tell, when to stop."""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from platformdirs import user_cache_path

from gped_nas import device
from gped_nas.api.engines.workers import Workers, choose_workers
from gped_nas.api.standing import Standing
from gped_nas.errors import (
    ConfigError,
    EnvironmentWarning,
    Interrupted,
    in_words_of_the_caller,
)


def cache_root() -> Path:
    """``$GPED_CACHE``, or the platform's user cache."""
    folder = os.environ.get("GPED_CACHE") or user_cache_path("gped-nas")
    return Path(folder)


def _silent(what: str, done: int, total: int) -> None:
    pass


def _follow_nothing(standing: Standing) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Session:
    """How a job runs; never what it computes.

    Attributes:
        device: where to train and predict.
        streams: folder of all streams.
        progress: told ``(what, done, total)``.
        follow: told how far a whole run is, see ``api.standing``.
        should_stop: asked between steps; true ends the job, keeping all that is finished.
        processes: how many chains run side by side, each in a process of its own; None decides by
            the work.
        workers: who trains students, and how many of them.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    streams: Path = field(default_factory=lambda: cache_root() / "streams")
    progress: Callable[[str, int, int], None] = _silent
    follow: Callable[[Standing], None] = _follow_nothing
    should_stop: Callable[[], bool] = _never
    processes: int | None = None
    workers: Workers = field(default_factory=Workers)

    @property
    def accelerator(self) -> torch.device | None:
        """The device, unless it is the processor."""
        return None if self.device.type == "cpu" else self.device

    def processes_for(self, chains: int, macs: int) -> int:
        """How many processes run so many chains.

        On a CPU it is one a chain, as far as its cores go, if a step is long; else it is one.

        Args:
            chains: number of chains.
            macs: multiply-adds of the largest product of a step. A step that is too short to be
                shared out over threads ends a chain before a process has started, which takes
                seconds.
        """
        if self.processes is not None:
            return min(self.processes, chains)

        if self.device.type != "cpu" or macs < device.SHARED_MACS:
            return 1
        return min(chains, device.usable_cores())

    def raise_if_stopped(self) -> None:
        """End the job if the user asked for it.

        Raises:
            Interrupted: they did.
        """
        if self.should_stop():
            raise Interrupted("stopped between steps")


def new_session(
    device_name: str = "auto",
    *,
    progress: Callable[[str, int, int], None] = _silent,
    follow: Callable[[Standing], None] = _follow_nothing,
    should_stop: Callable[[], bool] = _never,
    processes: int | None = None,
    engine: str | None = None,
    workers: int | None = None,
    worker_gpus: float | None = None,
    address: str | None = None,
) -> Session:
    """A session on the device called ``device_name``, precision switches set.

    Args:
        device_name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        progress, follow, should_stop, processes: see ``Session``.
        engine: who trains students: ``local``, ``processes`` or ``ray``; ``processes`` by default
            where there are several GPUs, else ``local``.
        workers, worker_gpus, address: how many there are, how many GPUs or what share of one each
            of them has, and of which Ray cluster, see ``Workers``.

    A process has one thread, and hundreds of megabytes: there are no more of them than cores, and
    where more were asked for a warning says so.

    Raises:
        ConfigError: unknown device name, fewer processes than one, or workers that no engine has.
        EnvironmentProblem: the device is not there, the address space is too small, or Ray is not
            installed.
    """
    who = choose_workers(
        engine, num=workers, gpus=worker_gpus, address=address, device_name=device_name
    )
    if processes is not None and processes < 1:
        raise ConfigError(f"--processes: found {processes}, expected at least 1")
    cores = device.usable_cores()
    if processes is not None and processes > cores:
        told = (
            f"--processes: found {processes} for {cores} usable cores; {cores} are used, one each"
        )
        warnings.warn(in_words_of_the_caller(told), EnvironmentWarning, stacklevel=2)
        processes = cores

    device.check_address_space()
    device.set_precision()
    return Session(
        device.choose(device_name),
        progress=progress,
        follow=follow,
        should_stop=should_stop,
        processes=processes,
        workers=who,
    )
