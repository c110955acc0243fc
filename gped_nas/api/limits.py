"""Students that may take so long and no longer: ``search.student_timeout``.

A function that hangs can be ended only with its process. With a limit, students are trained and
measured in a process of their own, which makes its own trainer of the same settings, stream and
folder, and sends each record up as soon as there is one. The limit of a population is that of a
student times its students, since they are trained together. A population that takes longer is
killed, and those of it without a record are trained again alone: who takes too long then fails. So
does who ends the process in another way, such as by taking all memory.
"""

import contextlib
import multiprocessing
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from gped_nas import device
from gped_nas.api.handing import check_sendable
from gped_nas.api.lessons import distillation_set, rung_set
from gped_nas.api.session import Session
from gped_nas.api.students import Trainer
from gped_nas.api.teacher import sample_teacher
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import EnvironmentProblem, GpedError, Interrupted
from gped_nas.evaluate.resamples import draw_resamples
from gped_nas.evaluate.teacher_calibration import CalibrationFit
from gped_nas.models.base import Genotype
from gped_nas.models.costs import count_macs
from gped_nas.models.module import ModuleFamily
from gped_nas.search.engine import DistilAndEvaluate
from gped_nas.search.ledger import Claim
from gped_nas.search.record import TrialRecord
from gped_nas.search.space_file import parse_space
from gped_nas.stream.processes import POLL_S, deaf, end_with_parent, without_script

_CONTEXT = multiprocessing.get_context("spawn")


@contextlib.contextmanager
def limited(trainer: Trainer, limit_s: float | None) -> Iterator[DistilAndEvaluate]:
    """What trains and measures students as ``trainer`` does, each within so many seconds.

    Its process ends with the block. Without a limit it is the trainer itself.
    """
    if limit_s is None:
        yield trainer
        return

    watched = _Watched(trainer, limit_s)
    try:
        yield watched
    finally:
        watched.end()


@dataclass(frozen=True)
class _Settings:
    """What a trainer is made of in another process; it can be handed there."""

    space: Mapping[str, Any]
    source: str
    module: ModuleFamily | None
    recipe: Recipe
    device: str
    streams: Path
    folder: Path
    about: Mapping[str, str]
    calibration: CalibrationFit | None

    @classmethod
    def of(cls, trainer: Trainer) -> "_Settings":
        space, session = trainer.teacher.space, trainer.session
        return cls(
            space=space.resolved,
            source=space.source,
            module=space.module,
            recipe=trainer.recipe,
            device=str(session.device),
            streams=session.streams,
            folder=trainer.folder,
            about=trainer.about,
            calibration=trainer.teacher.calibration,
        )

    def trainer(self, progress: Callable[[str, int, int], None]) -> Trainer:
        """The same trainer, from the same stream."""
        space = replace(parse_space(self.space, self.source), module=self.module)
        session = Session(torch.device(self.device), self.streams, processes=1)
        teacher = sample_teacher(space, session, calibration=self.calibration)
        data = distillation_set(teacher)
        validation = teacher.averaged("validation")

        teacher.session = Session(session.device, session.streams, progress, processes=1)
        return Trainer(
            teacher=teacher,
            data=data,
            recipe=self.recipe,
            rung_set=rung_set(teacher, data.layout),
            validation=validation,
            resamples=draw_resamples(
                len(validation), root=space.seed, part="validation", device=session.accelerator
            ),
            folder=self.folder,
            about=dict(self.about),
        )


class _Watched:
    """The trainer's process, seen from its parent; see the module.

    Args:
        trainer: what it does as.
        limit_s: seconds a student.
    """

    def __init__(self, trainer: Trainer, limit_s: float) -> None:
        self._trainer = trainer
        self._limit_s = limit_s
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None

    def __call__(self, claims: Sequence[Claim]) -> list[TrialRecord]:
        """See ``search.engine.DistilAndEvaluate``.

        Raises:
            Interrupted: the session said stop.
            EnvironmentProblem: the process does not start.
            GpedError: whatever training raised.
        """
        records: dict[int, TrialRecord] = {}
        reason = self._attempt(claims, records)

        # Who of several was the cause shows when each is alone.
        for claim in claims:
            if claim.number not in records and len(claims) > 1:
                reason = self._attempt([claim], records)
            if claim.number not in records:
                genotype = claim.genotype.to_json()
                failed = TrialRecord(claim.number, "failed", genotype, reason=reason)
                records[claim.number] = failed
        return [records[claim.number] for claim in claims]

    def end(self) -> None:
        """Kill the process, if there is one, and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None

    def _attempt(self, claims: Sequence[Claim], records: dict[int, TrialRecord]) -> str:
        """Train students together, and note the records that there are; why there are not all."""
        if self._process is None:
            self._start()
        assert self._connection is not None

        deadline = time.monotonic() + self._limit_s * len(claims)
        with contextlib.suppress(OSError):  # it has ended meanwhile: no message says so below
            self._connection.send(list(claims))
        try:
            for message in self._messages(deadline):
                if isinstance(message, TrialRecord):
                    records[message.trial] = message
                if len(records.keys() & {claim.number for claim in claims}) == len(claims):
                    return ""
        except TimeoutError:
            self.end()
            return f"took longer than search.student_timeout={self._limit_s:g} seconds; was ended"
        return f"its process {self._how_it_ended()}"

    def _start(self) -> None:
        """Start the process, and wait until it can train.

        Raises:
            ConfigError: the teacher's module cannot be built there.
            EnvironmentProblem: it cannot be started, or was killed before.
        """
        check_sendable(self._trainer.teacher.space, "search.student_timeout")
        self._connection, theirs = _CONTEXT.Pipe()
        settings = _Settings.of(self._trainer)
        process = _CONTEXT.Process(target=_work, args=(settings, theirs))
        with theirs, deaf(), without_script():
            process.start()
        self._process = process

        for _ in self._messages(deadline=None):
            return
        raise EnvironmentProblem(
            f"the process that trains students {self._how_it_ended()} before it began; free "
            "memory, or leave search.student_timeout out"
        )

    def _messages(self, deadline: float | None) -> Iterator[object]:
        """What the process sends besides progress, until it has ended.

        Raises:
            TimeoutError: the deadline passed.
            Interrupted: the session said stop; the process is killed.
            GpedError: whatever the process raised.
        """
        assert self._connection is not None
        session = self._trainer.session
        while True:
            self._trainer.alive()
            if session.should_stop():
                self.end()
                raise Interrupted("stopped while distilling; run the same command again to go on")
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError
            if not self._connection.poll(POLL_S):
                continue

            try:
                message = self._connection.recv()
            except (EOFError, ConnectionResetError):
                return
            if isinstance(message, BaseException):
                raise message
            if isinstance(message, tuple):
                session.progress(*message)
            else:
                yield message

    def _how_it_ended(self) -> str:
        assert self._process is not None
        self._process.join()
        code = self._process.exitcode or 0
        self.end()
        if code == -signal.SIGKILL:
            return "was killed by SIGKILL, perhaps because memory ran out"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


_READY = "ready"


def _import_what_measuring_needs() -> None:
    """Counting operators imports a thousand modules, which is no student's time."""
    genotype = Genotype("mlp", depth=0)
    count_macs("mlp", genotype.shapes((1,), 1), (1,))


def _work(settings: _Settings, connection: Connection) -> None:
    """What the process does: train each population that it is sent."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    device.set_precision()
    warnings.simplefilter("ignore")  # the parent has told it

    def tell(what: str, done: int, total: int) -> None:
        connection.send((what, done, total))

    try:
        trainer = settings.trainer(tell)
        _import_what_measuring_needs()
        connection.send(_READY)
        while True:
            for record in trainer.records(connection.recv()):
                connection.send(record)
    except (GpedError, OSError, MemoryError) as error:
        connection.send(error)
    except Exception as error:
        # An error of another class may not survive the pipe.
        unexpected = RuntimeError(f"{type(error).__name__}: {error}")
        unexpected.add_note(traceback.format_exc())
        connection.send(unexpected)
