"""What a job carries from arrow to arrow: where to compute, where to keep things, whom to tell, when to stop."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from platformdirs import user_cache_path

from gped_nas import device
from gped_nas.errors import Interrupted


def cache_root() -> Path:
    """``$GPED_CACHE``, or the platform's user cache."""
    given = os.environ.get("GPED_CACHE")
    return Path(given) if given else Path(user_cache_path("gped-nas"))


def _silent(what: str, done: int, total: int) -> None:
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
        should_stop: asked between steps; true ends the job, keeping all that is finished.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    streams: Path = field(default_factory=lambda: cache_root() / "streams")
    progress: Callable[[str, int, int], None] = _silent
    should_stop: Callable[[], bool] = _never

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
    should_stop: Callable[[], bool] = _never,
) -> Session:
    """A session on the device called ``device_name``, precision switches set.

    Raises:
        ConfigError: unknown device name.
        EnvironmentProblem: the device is not there.
    """
    device.set_precision()
    return Session(device.choose(device_name), progress=progress, should_stop=should_stop)
