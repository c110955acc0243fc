"""Who trains students: the settings of a session, checked."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

import torch

from gped_nas.errors import ConfigError, EnvironmentProblem
from gped_nas.search.space import SearchSpace

EngineName = Literal["local", "processes", "ray"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)


@dataclass(frozen=True)
class Workers:
    """Who trains students.

    Attributes:
        engine: ``local``, this process; ``processes`` of this machine; or ``ray``, actors of a
            cluster.
        num: how many workers; None decides by cores or GPUs, and by how many there is work for.
        gpus: of each actor, may be a fraction; None is one where the session's device is a GPU.
        address: of the cluster; None starts one on this machine, for this run.
    """

    engine: EngineName = "local"
    num: int | None = None
    gpus: float | None = None
    address: str | None = None


def check_workers(space: SearchSpace, workers: Workers) -> None:
    """Refuse workers that a space's students would be disturbed by.

    Raises:
        ConfigError: they are timed.
    """
    if space.latency is not None and workers.engine != "local":
        raise ConfigError(
            f"{space.source}: latency: found --engine {workers.engine}, expected local: who is "
            "timed has the machine alone; leave latency or the engine out"
        )


def choose_workers(
    engine: str | None = None,
    *,
    num: int | None = None,
    gpus: float | None = None,
    address: str | None = None,
    device_name: str = "auto",
) -> Workers:
    """Who trains students, as a user said it.

    Args:
        engine: its name; by default ``processes`` where there are several GPUs and ``device_name``
            names none of them, else ``local``.
        num, gpus, address: see ``Workers``.
        device_name: as of ``new_session``.

    Raises:
        ConfigError: an unknown engine, or a setting that it does not have.
        EnvironmentProblem: Ray is not installed.
    """
    if engine is None:
        is_any_gpu = device_name in ("auto", "cuda")
        engine = "processes" if is_any_gpu and torch.cuda.device_count() > 1 else "local"
    if engine not in ENGINES:
        raise ConfigError(f"--engine: found '{engine}', expected {', '.join(ENGINES)}")

    if num is not None and num < 1:
        raise ConfigError(f"--workers: found {num}, expected at least 1")
    if num is not None and engine == "local" and num > 1:
        raise ConfigError(
            f"--workers: found {num} with --engine local, which is one process; use --engine "
            "processes or ray"
        )
    if gpus is not None and not 0 <= gpus <= 1 and gpus != int(gpus):
        raise ConfigError(
            f"--worker-gpus: found {gpus:g}, expected a share of one GPU, or a whole number of them"
        )
    if gpus is not None and gpus < 0:
        raise ConfigError(f"--worker-gpus: found {gpus:g}, expected 0 or more")
    for option, value in (("--worker-gpus", gpus), ("--address", address)):
        if value is not None and engine != "ray":
            raise ConfigError(
                f"{option}: found {value} with --engine {engine}, which has no such setting; use "
                "--engine ray, or leave it out"
            )

    if engine == "ray" and find_spec("ray") is None:
        raise EnvironmentProblem(
            "--engine ray: Ray is not installed; install it with: pip install 'gped-nas[ray]'"
        )
    return Workers(engine, num, gpus, address)
