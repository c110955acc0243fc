"""The record of a tuning: its candidates and its answer, in one file that is written whole.

It lies in the cache, in a folder that is named after whatever the candidates depend on. Beside it
are the losses of each candidate by rung, with which later ones are compared, and the streams of
those that are at work.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gped_nas.api.session import cache_root
from gped_nas.errors import StudyError
from gped_nas.evaluate.predictions import Floats
from gped_nas.io import (
    canonical_json,
    map_array,
    read_sealed,
    sha256_text,
    write_array,
    write_sealed,
)
from gped_nas.search.proposals import Ended, Proposal, State
from gped_nas.search.space import SearchSpace

_FORMAT = 1
FILE, LOCK = "tuning.json", "lock"


@dataclass(frozen=True)
class Tried:
    """A candidate that ended.

    Attributes:
        label: which starting point it is; empty where TPE drew it.
        method, prior: its settings, as plain data.
        state: how it ended.
        values: mean loss over the examples held out so far, after each rung, nats.
        seconds: that it took.
        reason: why it failed, or was given up.
        proposal: what was drawn; None of a starting point that is not in the space of draws.
        drawn: of a network by MAP, the values of its settings' draws.
        single: mean loss of one of its networks, where these are networks by MAP.
        sampling_s: seconds of sampling all of it on one fold.
        verdict: whether it is the posterior, see ``api.verdict``; empty where nobody asked.
    """

    label: str
    method: Mapping[str, Any]
    prior: Mapping[str, Any]
    state: State
    values: tuple[float, ...]
    seconds: float
    reason: str = ""
    proposal: Mapping[str, Any] | None = None
    drawn: Mapping[str, Any] | None = None
    single: float | None = None
    sampling_s: float = 0.0
    verdict: str = ""

    @property
    def name(self) -> str:
        """The method's name."""
        return str(self.method["name"])

    @property
    def is_map(self) -> bool:
        """Whether it is one network."""
        return self.name == "map"

    @property
    def value(self) -> float:
        """Its loss, of a complete one."""
        return self.values[-1]

    def ended(self) -> Ended | None:
        """It as the sampler knows it; None where nothing was drawn."""
        if self.proposal is None:
            return None
        return Ended(Proposal.from_json(self.proposal), self.state, self.values)


@dataclass(eq=False)
class Record:
    """A tuning on disk.

    Attributes:
        folder: where it lies.
        about: of what it is, as plain data: the same for every call.
        tried: candidates in the order in which they ended.
        evidence: the prior precision that the marginal likelihood of a MAP network asks for; None
            before there is one.
        answer: see ``api.tuning_answer``; None before there is one.
    """

    folder: Path
    about: Mapping[str, Any]
    tried: list[Tried] = field(default_factory=list)
    evidence: float | None = None
    answer: dict[str, Any] | None = None

    @property
    def streams(self) -> Path:
        """Folder of the streams of candidates."""
        return self.folder / "streams"

    def complete(self, *, is_map: bool) -> list[tuple[int, Tried]]:
        """The candidates that climbed all rungs, with their numbers."""
        numbered = enumerate(self.tried)
        return [(i, t) for i, t in numbered if t.state == "complete" and t.is_map == is_map]

    def best(self, *, is_map: bool) -> tuple[int, Tried] | None:
        """The best of these; None where there is none."""
        return min(self.complete(is_map=is_map), key=lambda pair: pair[1].value, default=None)

    def add(self, tried: Tried, losses: Sequence[Floats]) -> None:
        """Note a candidate, and its losses by rung."""
        number = len(self.tried)
        (self.folder / "losses").mkdir(exist_ok=True)
        for rung, losses_N in enumerate(losses):
            write_array(self._losses_path(number, rung), losses_N.astype(np.float64))
        self.tried.append(tried)
        self.write()

    def losses(self, number: int, rung: int, n: int) -> Floats:
        """Losses of a candidate on the examples of a rung (n,), nats."""
        path = self._losses_path(number, rung)
        losses_N: Floats = map_array(path, dtype="<f8", shape=(n,))
        return losses_N

    def _losses_path(self, number: int, rung: int) -> Path:
        return self.folder / "losses" / f"{number:06d}-rung-{rung}.npy"

    def write(self) -> None:
        """Write it whole."""
        tried = [asdict(candidate) for candidate in self.tried]
        data = {
            "format": _FORMAT,
            "about": self.about,
            "tried": tried,
            "evidence": self.evidence,
            "answer": self.answer,
        }
        write_sealed(self.folder / FILE, data)

    def drop_streams(self) -> None:
        """Remove all streams of candidates."""
        shutil.rmtree(self.streams, ignore_errors=True)


def record_folder(space: SearchSpace) -> Path:
    """Where the tuning of a space lies: in the cache, by whatever its candidates depend on."""
    about = [
        dict(space.dataset),
        space.data.to_json(),
        space.network.to_json(),
        space.likelihood.to_json(),
        space.prior.to_json(),
        space.method.model_dump(mode="json"),
        space.baseline.model_dump(mode="json", exclude={"seeds"}),  # MAP has seeds of its own here
        space.seed,
    ]
    return cache_root() / "tunings" / sha256_text(canonical_json(about))[:32]


def read_record(folder: Path) -> Record | None:
    """The record in a folder; None where there is none.

    Raises:
        StudyError: it is of another format.
        StreamError: it is not what was written.
    """
    path = folder / FILE
    if not path.exists():
        return None

    remedy = f"delete {folder} to tune anew"
    data, _ = read_sealed(path, remedy)
    if data.get("format") != _FORMAT:
        raise StudyError(f"{path}: found format {data.get('format')}, expected {_FORMAT}; {remedy}")
    tried = []
    for candidate in data["tried"]:
        tried.append(Tried(**{**candidate, "values": tuple(candidate["values"])}))
    return Record(folder, data["about"], tried, data["evidence"], data["answer"])
