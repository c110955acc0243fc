"""One teacher's codecs measured: each code fitted, asked and compared with the held-out chain."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gped_nas import __version__, rng
from gped_nas.api.coding_chains import (
    Chains,
    fit_code,
    networks_of,
    split_chains,
    stored_bytes,
)
from gped_nas.api.coding_choices import Choice, settings_of
from gped_nas.api.coding_inputs import NUM_PROBES, Places
from gped_nas.api.coding_rows import STREAM, STUDENT, Row, code_rows
from gped_nas.api.tasks.bench import Examples
from gped_nas.api.teacher import Teacher
from gped_nas.data.base import Part
from gped_nas.distill.student import Student
from gped_nas.errors import DivergenceError
from gped_nas.evaluate.codecs.measure import Asked, measure_code
from gped_nas.evaluate.codecs.two_sample import median_distance
from gped_nas.evaluate.outside import Outside
from gped_nas.io import canonical_json, sha256_text
from gped_nas.suite.cells import CellStore

PART: Part = "validation"
"""Where codes are compared; the test part is left to studies."""


@dataclass(frozen=True)
class Asking:
    """What is asked of every code.

    Attributes:
        outside: the set of inputs from outside.
        limit: number of examples; None for all of the part.
        num_draws: draws of a code that is a law.
    """

    outside: Outside
    limit: int | None
    num_draws: int


@dataclass(eq=False)
class Measuring:
    """Measures the codes of one teacher, and reads those that were measured before.

    Attributes:
        teacher: whose posterior is coded.
        asking: what is asked.
        store: where records are kept.
        notes: what was left out and why, filled on the way.
    """

    teacher: Teacher
    asking: Asking
    store: CellStore
    notes: list[str]

    @cached_property
    def chains(self) -> Chains:
        """The teacher's samples, its last chain held out."""
        return split_chains(self.teacher)

    @cached_property
    def places(self) -> Places:
        """Where networks are asked."""
        examples = Examples(self.teacher.dataset, PART, self.teacher.space.seed, self.asking.limit)
        return Places(self.teacher, examples, self.asking.outside)

    @cached_property
    def held_out(self) -> Asked:
        """What the chain says that codecs have not read."""
        return self.places.asked(self.chains.held_out)

    @cached_property
    def read(self) -> Asked:
        """What the samples say that codecs read."""
        return self.places.asked(self.chains.read)

    @cached_property
    def bandwidth(self) -> float:
        """Of MMD, nats: of the samples that are read alone, so that it is fixed beforehand."""
        return median_distance(self.read.probe)

    def stream(self) -> list[Row]:
        """Rows of the samples that are read, as they are: how far two real chains are apart."""
        num_bytes = stored_bytes(self.chains.read)
        return self._kept(
            STREAM, [], lambda: self._record(STREAM, self.read, bytes=num_bytes, is_law=False)
        )

    def student(self, student: Student, digest: str, num_bytes: int, name: str) -> list[Row]:
        """Rows of a student; it has seen all chains, the held-out one too."""

        def measure() -> dict[str, Any]:
            asked = self.places.asked_student(student)
            return self._record(STUDENT, asked, bytes=num_bytes, is_law=False, note=_SEEN_ALL)

        return self._kept(name, [digest], measure)

    def code(self, choice: Choice) -> list[Row]:
        """Rows of a codec; none, and a note, where what it learns diverges.

        Raises:
            ConfigError: the samples are not such that it can have these settings.
            Interrupted: the session said stop.
        """

        def measure() -> dict[str, Any]:
            started = time.monotonic()
            code = fit_code(self.chains, choice)
            seconds = time.monotonic() - started
            networks = networks_of(code, self.asking.num_draws, seed=self.teacher.space.seed)
            asked = self.places.asked(networks)
            return self._record(
                choice.title,
                asked,
                bytes=code.bytes,
                is_law=networks.is_drawn,
                seconds=round(seconds, 2),
            )

        identity = settings_of(choice, self.chains.method).identity()
        try:
            return self._kept(str(choice), [identity], measure)
        except DivergenceError as error:
            self.notes.append(f"{choice}, seed {self.teacher.space.seed}: left out: {error}")
            return []

    def _record(self, codec: str, asked: Asked, **about: Any) -> dict[str, Any]:
        """Measures and what else a row says, as plain data."""
        examples = self.places.examples
        measures = measure_code(
            asked,
            self.held_out,
            self.read,
            examples.labels,
            resamples=examples.resamples,
            bandwidth=self.bandwidth,
            generator=rng.generator(self.teacher.space.seed, "codec test", codec),
        )
        table = code_rows(
            measures,
            part=PART,
            outside=self.asking.outside.name,
            predictor=codec,
            codec=codec,
            **{"seconds": 0.0, **about},
        )
        return {"rows": table}

    def _kept(
        self, name: str, of: Sequence[Any], measure: Callable[[], Mapping[str, Any]]
    ) -> list[Row]:
        """Rows by their name, measured unless they are kept."""
        self.teacher.session.raise_if_stopped()
        identity = self._identity(name, of)
        record = self.store.read(identity)
        if record is None:
            record = self.store.write(identity, measure())

        table = []
        for row in record["rows"]:
            table.append({**row, "predictor": name, "seed": self.teacher.space.seed})
        return table

    def _identity(self, name: str, of: Sequence[Any]) -> str:
        """Digest of everything that a code's rows follow from."""
        asking = self.asking
        return sha256_text(
            canonical_json(
                {
                    "name": name,
                    "of": of,
                    "stream": self.teacher.raw.stream.digest,
                    "dataset": self.teacher.dataset.digest,
                    "asked": [asking.outside.key(), asking.limit, asking.num_draws, NUM_PROBES],
                    "part": PART,
                    "seed": self.teacher.space.seed,
                    "version": __version__,
                }
            )
        )


_SEEN_ALL = "it was distilled from all chains, the held-out one too"
