"""What an actor of a Ray cluster does: bring the stream to its node, and train populations."""

import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from gped_nas import __version__, device
from gped_nas.api.engines.crew import Raised, Ready, Records
from gped_nas.api.engines.placing import PLACED, StreamFiles, place
from gped_nas.api.engines.processes import import_what_measuring_needs, portable, train
from gped_nas.api.engines.settings import TrainerSettings
from gped_nas.api.session import cache_root
from gped_nas.api.students import Trainer
from gped_nas.io import is_left_by, make_dir
from gped_nas.search.ledger import Claim


@dataclass(frozen=True)
class Here:
    """Where an actor runs, and what is installed there.

    Attributes:
        node: Ray's identifier of its node.
        address: of the node.
        versions: of what a student's bits depend on.
    """

    node: str
    address: str
    versions: Mapping[str, str]

    @classmethod
    def now(cls) -> "Here":
        """Of this process."""
        ray = import_ray()

        return cls(
            node=ray.get_runtime_context().get_node_id(),
            address=ray.util.get_node_ip_address(),
            versions={"gped-nas": __version__, "torch": str(torch.__version__)},
        )


@dataclass(frozen=True)
class Cargo:
    """A stream that travels.

    Attributes:
        files: what it holds.
        pieces: where Ray keeps each piece of each file.
    """

    files: StreamFiles
    pieces: Mapping[str, Sequence[Any]]

    def bring(self, name: str, number: int) -> bytes:
        """A piece of a file."""
        ray = import_ray()

        piece: bytes = ray.get(self.pieces[name][number])
        return piece


@dataclass(frozen=True)
class Taught:
    """What came of a population, with the files of its students by their path."""

    outcome: Records | Raised
    files: Mapping[str, bytes]


class Actor:
    """A worker on some node; its students travel with its records."""

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self._folder = Path()

    def greet(self) -> Here:
        """Where it runs."""
        return Here.now()

    def prepare(
        self, worker: int, settings: TrainerSettings, cargo: Cargo | None, cores: int
    ) -> Ready | Raised:
        """Make the trainer.

        Args:
            worker: its place in the crew.
            settings: of the trainer.
            cargo: the stream; None on the asker's own node, where it lies.
            cores: that it may use.
        """
        device.set_precision()
        device.use_cores(cores)
        warnings.simplefilter("ignore")  # the asker has told it
        try:
            cache = make_dir(cache_root())
            notes: tuple[str, ...] = ()
            if cargo is not None:
                streams, num_replaced = place(cargo.files, cache, cargo.bring)
                settings = replace(settings, streams=streams)
                if num_replaced:
                    notes = (f"{num_replaced} files of the stream were others, and are replaced",)

            self._folder = _own_folder(cache)
            self._trainer = replace(settings, folder=self._folder).trainer(_silent)
            import_what_measuring_needs()
        except Exception as error:
            return Raised(portable(error))
        return Ready(f"worker {worker + 1} on {platform.node()}", notes)

    def train(self, claims: Sequence[Claim]) -> Taught:
        """Train a population."""
        assert self._trainer is not None, "it was prepared"
        outcome = train(self._trainer, claims)
        files = {}
        if isinstance(outcome, Records):
            for path in sorted(self._folder.rglob("*")):
                if path.is_file():
                    files[str(path.relative_to(self._folder))] = path.read_bytes()
        for path in self._folder.glob("*"):
            shutil.rmtree(path, ignore_errors=True)
        return Taught(outcome, files)


def import_ray() -> Any:
    """Ray, whose own types are not asked for: it may not be installed where this is checked."""
    return import_module("ray")


def _silent(what: str, done: int, total: int) -> None:
    pass


def _own_folder(cache: Path) -> Path:
    """A folder for the students of this process; those of processes that are gone are removed."""
    placed = make_dir(cache / PLACED)
    for path in placed.glob("students-*"):
        if is_left_by(path.name.split("-")[1]):
            shutil.rmtree(path, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"students-{os.getpid()}-", dir=placed))
