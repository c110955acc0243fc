"""The engine that a session asks for, with its workers started."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from gped_nas import device
from gped_nas.api.engines.crew import Crew
from gped_nas.api.engines.pool import Pool
from gped_nas.api.engines.processes import Processes
from gped_nas.api.engines.settings import TrainerSettings
from gped_nas.api.handing import check_sendable
from gped_nas.api.students import Trainer
from gped_nas.distill.layout import num_workers
from gped_nas.search.engine import Engine, Local


@contextlib.contextmanager
def opened(trainer: Trainer, num_trials: int) -> Iterator[Engine]:
    """Whoever trains and measures students as ``trainer`` does; workers end with the block.

    Args:
        trainer: of this process.
        num_trials: how many are still wanted: there are no more workers than populations.

    Raises:
        ConfigError: the teacher's module cannot be built elsewhere.
        EnvironmentProblem: there is no cluster, or it is too small.
    """
    space, session = trainer.teacher.space, trainer.session
    limit_s = space.search.student_timeout
    if session.workers.engine == "local" and limit_s is None:
        yield Local(trainer)
        return

    is_local = session.workers.engine == "local"
    setting = "search.student_timeout" if is_local else f"--engine {session.workers.engine}"
    check_sendable(space, setting)
    settings = TrainerSettings.of(trainer)
    if settings.layout_workers is None:
        settings = replace(settings, layout_workers=num_workers(session.device))

    useful = max(1, math.ceil(num_trials / space.search.students_at_once))
    with contextlib.ExitStack() as stack:
        crew: Crew
        if session.workers.engine == "ray":
            from gped_nas.api.engines.on_ray import ray_crew

            crew = stack.enter_context(ray_crew(settings, session.workers, useful))
        else:
            crew = _processes(settings, 1 if is_local else session.workers.num, useful)
        pool = Pool(
            crew,
            limit_s=limit_s,
            progress=session.progress,
            alive=trainer.alive,
            should_stop=session.should_stop,
        )
        stack.callback(pool.close)
        yield pool


def _processes(settings: TrainerSettings, num: int | None, useful: int) -> Processes:
    """Processes of this machine: one a GPU, or sharing out its cores.

    Args:
        settings: of the trainer.
        num: how many; None for one a GPU or core.
        useful: how many there is work for.
    """
    cores = device.usable_cores()
    where = torch.device(settings.device)
    gpus = [str(where)]
    if where.type == "cuda" and where.index is None:
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]

    num = num or min(useful, len(gpus) if where.type == "cuda" else cores)
    devices = [gpus[i % len(gpus)] for i in range(num)]
    return Processes(settings, devices, max(1, cores // num))
