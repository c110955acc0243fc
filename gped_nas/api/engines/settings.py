"""What a trainer is made of in another process, or on another machine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gped_nas.api.calibrating import calibrated
from gped_nas.api.guess import guess_predictor
from gped_nas.api.lessons import distillation_set, rung_set
from gped_nas.api.sampling import existing_stream, stream_key
from gped_nas.api.session import Session
from gped_nas.api.students import Trainer
from gped_nas.api.teacher import Teacher, load_dataset
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import StreamError
from gped_nas.evaluate.resamples import draw_resamples
from gped_nas.evaluate.teacher_calibration import CalibrationFit
from gped_nas.models.module import ModuleFamily
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import parse_space


@dataclass(frozen=True)
class TrainerSettings:
    """Plain data that a trainer follows from, with the stream that it names.

    Attributes:
        space, source, module: the search space, as it is read again.
        recipe: nothing left to be decided.
        device: where students are trained.
        streams: folder of all streams, there.
        stream: name of the stream's folder in it.
        digest: of the stream.
        folder: where students are written, there.
        about: what each student's spec says of where it comes from.
        calibration: of the teacher.
        has_guess: whether students are compared with the guess.
        layout_workers: threads that a population is shared out over; who has fewer cores takes
            several shares in turn, so that this alone decides how sums are rounded.
    """

    space: Mapping[str, Any]
    source: str
    module: ModuleFamily | None
    recipe: Recipe
    device: str
    streams: Path
    stream: str
    digest: str
    folder: Path
    about: Mapping[str, str]
    calibration: CalibrationFit | None
    has_guess: bool
    layout_workers: int | None

    @classmethod
    def of(cls, trainer: Trainer) -> "TrainerSettings":
        """Those of a trainer."""
        teacher = trainer.teacher
        space, session = teacher.space, trainer.session
        return cls(
            space=space.resolved,
            source=space.source,
            module=space.module,
            recipe=trainer.recipe,
            device=str(session.device),
            streams=session.streams,
            stream=teacher.stream.folder.name,
            digest=teacher.stream.digest,
            folder=trainer.folder,
            about=dict(trainer.about),
            calibration=teacher.calibration,
            has_guess=trainer.guess is not None,
            layout_workers=trainer.layout_workers,
        )

    def trainer(self, progress: Callable[[str, int, int], None]) -> Trainer:
        """The same trainer, from the same stream; nothing is sampled.

        Args:
            progress: told how far a population is.

        Raises:
            StreamError: the data or the stream are others here, or not there.
            DataError, EnvironmentProblem: the data cannot be used, or are not there.
        """
        space = replace(parse_space(self.space, self.source), module=self.module)
        session = Session(torch.device(self.device), self.streams, processes=1)
        teacher = self._teacher(space, session)
        data = distillation_set(teacher)
        validation = teacher.averaged("validation")
        guess = None
        if self.has_guess:
            guess = guess_predictor(teacher).predict(teacher.dataset.raw("validation"))

        teacher.session = replace(session, progress=progress)
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
            guess=guess,
            layout_workers=self.layout_workers,
        )

    def _teacher(self, space: SearchSpace, session: Session) -> Teacher:
        dataset = load_dataset(space)
        name = stream_key(space, dataset).folder(self.streams).name
        if name != self.stream:
            raise StreamError(
                f"{space.source}: dataset: found data of another digest on this worker: its "
                f"teacher would be the stream {name}, expected {self.stream}; bring the same files "
                "to every node"
            )

        stream = existing_stream(space, dataset, session)
        if stream.digest != self.digest:
            raise StreamError(
                f"{stream.folder}: found a stream of the digest {stream.digest[:16]} on this "
                f"worker, expected {self.digest[:16]}; delete it there, and it is brought again"
            )
        return calibrated(Teacher(space, dataset, stream, session), self.calibration)
