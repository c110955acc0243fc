"""Chains that can be handed to another process: of every method, and such as go wrong."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import DivergenceError
from gped_nas.posterior.base import METHODS, Chains, State, Step
from tests.scenarios import METHOD_SETTINGS, classifier, sgld_config

NAMES = tuple(sorted(METHOD_SETTINGS))
IDLERS = (2 * NAMES.index("hmc") + 1, 2 * NAMES.index("sghmc"))
"""One chain of each of two processes, neither of them the first that its process runs."""


def _standing(step: Step, gate: Path) -> Iterator[Step]:
    while not gate.exists():
        time.sleep(0.01)
        yield Step(None, step.state)


@dataclass(frozen=True)
class Menu:
    """Two chains of every method; ``IDLERS`` stand still after a step until the gate is open.

    Attributes:
        folder: where the samples to import are, and the file that opens the gate.
    """

    folder: Path

    def prepare(self) -> None:
        """Write the samples to import."""
        generator = rng.generator(0, "to import")
        tensors = {}
        for name, shape in classifier().shapes.items():
            tensors[name] = torch.randn(4, *shape, generator=generator)

        self.folder.mkdir()
        (self.folder / "samples.safetensors").write_bytes(safetensors.torch.save(tensors))

    @property
    def gate(self) -> Path:
        """The idlers go on when this file is there."""
        return self.folder / "open"

    def __call__(self, chain: int, state: State | None) -> Iterator[Step]:
        name = NAMES[chain // 2]
        settings = {"name": name, **METHOD_SETTINGS[name]}
        if "path" in settings:
            settings["path"] = str(self.folder / str(settings["path"]))
        if METHODS[name].reads_samples:  # those that the problem has
            settings["of"] = {"name": "sgld", **METHOD_SETTINGS["sgld"]}

        cfg = parse(METHODS[name].config, settings, name)
        for step in Chains(classifier, cfg, 0)(chain, state):
            yield step
            if chain in IDLERS:
                yield from _standing(step, self.gate)


@dataclass(frozen=True)
class Patient:
    """Chains of ``sgld`` that stand still after a step, chain 1 inside it, until the gate is open.

    Attributes:
        gate: a file.
    """

    gate: Path

    def __call__(self, chain: int, state: State | None) -> Iterator[Step]:
        for step in Chains(classifier, sgld_config(), 0)(chain, state):
            yield step
            while chain == 1 and not self.gate.exists():
                time.sleep(0.01)
            yield from _standing(step, self.gate)


@dataclass(frozen=True)
class Signed:
    """Chains of ``sgld``, each of which writes the number of its process.

    Attributes:
        folder: where, under the chain's number.
    """

    folder: Path

    def __call__(self, chain: int, state: State | None) -> Iterator[Step]:
        (self.folder / str(chain)).write_text(str(os.getpid()))
        return Chains(classifier, sgld_config(), 0)(chain, state)


@dataclass(frozen=True)
class Unlucky:
    """Two chains of ``sgld``; the second goes wrong at its third step unless ``spared`` is there.

    Attributes:
        how: ``diverges``, ``fails`` as no method should, or is ``killed`` with its process.
        spared: a file.
    """

    how: str
    spared: Path

    def __call__(self, chain: int, state: State | None) -> Iterator[Step]:
        for i, step in enumerate(Chains(classifier, sgld_config(), 0)(chain, state)):
            if (chain, i) == (1, 2) and not self.spared.exists():
                self._go_wrong()
            yield step

    def _go_wrong(self) -> None:
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        error = {"diverges": DivergenceError, "fails": LookupError}[self.how]
        raise error("not finite after 3 steps")
