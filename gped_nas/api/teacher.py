"""From a search space to a teacher: dataset, posterior samples, and predictions where needed."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gped_nas import device as devices
from gped_nas.api.asking import CREDIBLE, ask, ask_about_files, check_answers
from gped_nas.api.calibrating import calibrated
from gped_nas.api.chance import check_import, import_of
from gped_nas.api.imported import rows_at
from gped_nas.api.running import Running, places_of
from gped_nas.api.sampling import (
    PREDICT_BATCH,
    as_networks_see,
    existing_stream,
    predictor,
    sample,
)
from gped_nas.api.session import Session, new_session
from gped_nas.api.with_bounds import check_certified_training, check_radii
from gped_nas.data import base as data
from gped_nas.data import dials
from gped_nas.data.base import Dataset, Part
from gped_nas.data.rows import is_on_disk, sha256_tensors
from gped_nas.data.seen import carving_unseen
from gped_nas.data.views import View
from gped_nas.errors import ConfigError, DataWarning
from gped_nas.evaluate.conditions import try_out
from gped_nas.evaluate.predictions import AnyPredictions
from gped_nas.evaluate.teacher import averaged
from gped_nas.evaluate.teacher_calibration import CalibrationFit
from gped_nas.io import canonical_json, sha256_arrays, sha256_text
from gped_nas.models.base import Params
from gped_nas.models.costs import largest_product
from gped_nas.posterior.likelihoods import LIKELIHOODS
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import load_space
from gped_nas.stream.averages import AveragedStream
from gped_nas.stream.calibration import RAW
from gped_nas.stream.reader import Stream
from gped_nas.stream.writer import write_view


@dataclass(eq=False)
class Teacher:
    """A teacher ready to be imitated: its posterior samples, and what they predict where asked.

    Attributes:
        space: where it is described.
        dataset: its dataset.
        stream: its posterior samples.
        session: how to run.
        seconds: what making samples and predictions took in this run, so far.
        calibration: what its samples are read by; the stream applies it. None of a raw one.
    """

    space: SearchSpace
    dataset: Dataset
    stream: Stream
    session: Session
    seconds: float = 0.0
    calibration: CalibrationFit | None = None
    _views: tuple[View, ...] | None = field(default=None, init=False)
    _predicted: dict[Part, Tensor] = field(default_factory=dict, init=False)
    _averaged: dict[Part, AnyPredictions] = field(default_factory=dict, init=False)

    @cached_property
    def running(self) -> Running | None:
        """What was kept in place of samples; None where samples are stored."""
        if not isinstance(self.stream, AveragedStream):
            return None
        running = Running(self.space, self.dataset, places_of(self.space, self.dataset))
        running.restore(self.stream.arrays())
        return running

    @property
    def raw(self) -> "Teacher":
        """The same teacher as it was sampled: what diagnostics of the posterior are about."""
        if self.calibration is None:
            return self
        return replace(self, stream=self.stream.calibrated(RAW), calibration=None)

    def resolve_views(self) -> tuple[View, ...]:
        """The space's views, each with the digest of the posterior samples that its policy asks.

        Digests are taken once: they read the samples.

        Raises:
            ConfigError: a policy asks several samples and there is one.
        """
        if self._views is None:
            self._views = tuple(self._with_samples(view) for view in self.space.views)
        return self._views

    def inputs(self, view: View) -> Tensor:
        """Normalized inputs of a view, made anew.

        Nothing keeps them: with many views of a large dataset they would be most of a build's
        memory. Those that posterior samples were asked for lie with the stream.
        """
        if is_on_disk(self.dataset.raw(view.part)) and not view.is_untouched:
            return self._inputs_on_disk(view)
        if not view.num_samples:
            return view.inputs(self.dataset)

        # On the processor, whatever the session's device: another device's last bits would be
        # another view's inputs.
        with devices.threads_for(self._largest_product()):
            return self.stream.derived(
                f"inputs-{view.name}",
                sha256_text(canonical_json([view.key(), self.dataset.digest])),
                lambda: view.inputs(self.dataset, self._answer_by_samples(view)),
            )

    def _inputs_on_disk(self, view: View) -> Tensor:
        """Inputs of a view of data that are too large for memory, in a file of the stream."""
        x = self.dataset.inputs(view.part)
        answers = self._answer_by_samples(view) if view.num_samples else None
        with devices.threads_for(self._largest_product()):
            return self.stream.derived_rows(
                f"inputs-{view.name}",
                sha256_text(canonical_json([view.key(), self.dataset.digest, "blocks"])),
                tuple(x.shape),
                lambda: view.blocks(x, answers) if answers else view.blocks(x),
            )

    def ensure_view(self, view: View) -> Tensor:
        """Write what every posterior sample predicts where a view asks it, unless it lies there.

        Returns:
            The view's inputs (N, *input_shape), normalized.

        Raises:
            Interrupted: the session said stop; what is written is kept.
            StreamError: there are predictions of that name at other inputs, or only predictions.
        """
        if view.asked != view:
            self.ensure_view(view.asked)
            return self.inputs(view)

        started = time.monotonic()
        x = self.inputs(view)
        write_view(
            self.stream,
            view.name,
            {"view": view.key(), "inputs": sha256_tensors(x)},
            self.raw.predictor(x),  # a stream holds what was sampled, whoever reads it
            num_inputs=len(x),
            dtype=view.dtype,
            progress=self.session.progress,
            should_stop=self.session.should_stop,
        )
        self.seconds += time.monotonic() - started
        return x

    def predictor(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """A function of flat parameters (W,) that gives what they predict at ``x``, (N, G).

        Args:
            x: normalized inputs (N, *input_shape).
        """
        predict_raw = predictor(
            self.space,
            self.dataset,
            x,
            shapes=self.stream.key.shapes,
            device=self.session.device,
        )

        def predict(theta_W: Tensor) -> Tensor:
            return self.stream.temper(predict_raw(theta_W))

        return predict

    def forward(self, params: Params) -> Callable[[Tensor], Tensor]:
        """A function of raw inputs (B, *input_shape) that gives what parameters predict, (B, G).

        It can be differentiated.
        """
        family, device = self.space.family, self.session.device
        params = {name: value.to(device) for name, value in params.items()}

        def forward(raw: Tensor) -> Tensor:
            x = as_networks_see(self.space, self.dataset, self.dataset.normalization(raw))
            said = self.space.likelihood.predict(family.forward(params, x.to(device)))
            return self.stream.temper(said)

        return forward

    def predict(self, x: Tensor | NDArray[Any], *, credible: float = CREDIBLE) -> dict[str, Tensor]:
        """What the posterior says of any inputs: its average, its uncertainties, credible bounds.

        Args:
            x: raw inputs (N, *input_shape) in the dataset's own range, a tensor or a numpy array;
                (N, H, W) is taken for one channel.
            credible: the share of the posterior between the bounds.

        Returns:
            ``{name: (N, G)}`` in float64, see ``evaluate.answers.posterior_answers``. A name that
            ``Student.predict`` gives too means the same.

        Raises:
            ConfigError: the posterior samples are known by their predictions alone, or ``credible``
                is no share.
            DataError: the inputs have another shape, or are no numbers.
            Interrupted: the session said stop.
        """
        return ask(self, x, credible=credible)

    def predict_files(
        self, files: Sequence[str | Path], *, credible: float = CREDIBLE
    ) -> list[dict[str, Any]]:
        """What the posterior says of the inputs in files: the rows of ``predict_files``, and more.

        Args:
            files: arrays, images or tables, see ``gped_nas.data.inputs``.
            credible: the share of the posterior between the bounds.

        Returns:
            One row an input, as a student's. For classes there are also ``low`` and ``high`` by
            class name, for real labels the names of ``predict``.

        Raises:
            ConfigError, Interrupted: see ``predict``.
            DataError: a file cannot be used.
            EnvironmentProblem: a file cannot be read.
        """
        return ask_about_files(self, files, credible=credible)

    def predicted(self, part: Part) -> Tensor:
        """What every posterior sample predicts at a part's clean inputs, (S, N, G) float32.

        They are log-probabilities in nats, or means and variances; see ``likelihoods.Prediction``.
        They are read once.

        Raises:
            DataError: imported predictions do not cover the part.
            Interrupted: the session said stop.
        """
        if part not in self._predicted:
            self._predicted[part] = self._read_predicted(part)
        return self._predicted[part]

    def averaged(self, part: Part) -> AnyPredictions:
        """The predictions of the posterior average at a part's clean inputs, made once.

        Raises as ``predicted``.
        """
        if part not in self._averaged and self.running is not None:
            self._averaged[part] = self.running.at(part)
        if part not in self._averaged:
            self._averaged[part] = averaged(
                self.predicted(part),
                self.stream.weight_S,
                self.dataset.label_normalization,
                self.space.targets,
            )
        return self._averaged[part]

    def clean_view(self, part: Part) -> View:
        """The inputs of a part as they are."""
        return View("clean", {}, part, self.space.seed, self.space.stream.prediction_dtype)

    def _read_predicted(self, part: Part) -> Tensor:
        if not self.stream.is_stored:
            raise ConfigError(
                f"{self.space.source}: recipe.stream: found none, which keeps averages alone, "
                "expected stored where single posterior samples are asked; set it to stored"
            )
        if self.stream.has_weights:
            view = self.clean_view(part)
            self.ensure_view(view)
            return self.stream.predictions(view.name)

        inputs, log_prob_SMC = self.stream.imported()
        part_inputs = self.dataset.inputs(part).flatten(1).numpy()
        return log_prob_SMC[:, rows_at(np.array(inputs), part_inputs, "imported inputs", part)]

    def _with_samples(self, view: View) -> View:
        if not view.num_samples:
            return view
        params = (self.stream.theta(index).numpy() for index in self._choose_samples(view))
        return replace(view, samples=sha256_arrays(*params))

    def _choose_samples(self, view: View) -> list[int]:
        """Which posterior samples a policy asks: evenly spaced among those that the space uses.

        They follow from the space alone, not from the runs that the stream was grown in.

        Raises:
            ConfigError: the policy asks several and there is one.
        """
        num_samples = self.stream.num_samples
        num_asked = min(view.num_samples, num_samples)
        if num_asked == 1 < view.num_samples:
            raise ConfigError(
                f"{self.space.source}: views: policy '{view.policy}' asks {view.num_samples} "
                f"posterior samples, and the teacher ({self.space.method.name}) has one; remove "
                "the view or choose a method that samples"
            )
        # the middle of each of num_asked equal stretches
        return [(2 * i + 1) * num_samples // (2 * num_asked) for i in range(num_asked)]

    def _answer_by_samples(self, view: View) -> Callable[[Tensor], Tensor]:
        """What the posterior samples that a view's policy asks say of inputs, with gradients."""
        sampled_params = [self.stream.params(index) for index in self._choose_samples(view)]
        forward = self.space.family.forward

        def answer(x: Tensor) -> Tensor:
            x_seen = as_networks_see(self.space, self.dataset, x)
            outputs = []
            for params in sampled_params:
                params = {name: value.to(x) for name, value in params.items()}
                outputs.append(forward(params, x_seen))
            return self.space.likelihood.answer(torch.stack(outputs))

        return answer

    def _largest_product(self) -> int:
        key = self.stream.key
        return largest_product(self.space.family, key.shapes, key.input_shape, PREDICT_BATCH)


def load_dataset(space: SearchSpace) -> Dataset:
    """The space's dataset, its dials turned.

    Raises:
        ConfigError: its labels are not of the kind that the teacher's likelihood is for, its inputs
            are not of the shape that the networks are for, or it cannot be used as the space says.
        DataError, EnvironmentProblem: it cannot be used, or is not there.
    """
    where = f"{space.source}: teacher.trained_on"
    with carving_unseen(space.trained_on, where) as seen:
        dataset = data.load(dict(space.dataset), f"{space.source}: dataset")
    if seen is not None and not seen.is_used:
        raise ConfigError(
            f"{where}: found with dataset '{dataset.name}', which carves its parts by itself; "
            "remove it"
        )

    if dataset.task != space.likelihood.task:
        fitting = [
            name for name, likelihood in LIKELIHOODS.items() if likelihood.task == dataset.task
        ]
        raise ConfigError(
            f"{space.source}: teacher.likelihood.name: found '{space.likelihood.name}', which is "
            f"for {space.likelihood.task}, but dataset '{dataset.name}' is for {dataset.task}; "
            f"expected {' or '.join(fitting)}"
        )

    space.check_buildable(dataset.input_shape)
    if space.module is not None:
        num_outputs = space.likelihood.num_network_outputs(dataset.num_outputs)
        space.module.facts(dataset.input_shape, num_outputs)
    dataset = dials.turn(dataset, space.data, f"{space.source}: data")

    for i, view in enumerate(space.views):
        view.check(dataset, f"{space.source}: views[{i}]")
    targets = [target.name for target in space.targets]
    check_radii(space, dataset)
    check_certified_training(space, dataset)
    for condition in space.conditions:
        condition.check_targets(targets, f"{space.source}: conditions")
        try_out(condition, dataset, f"{space.source}: conditions")
    for outside in space.outside:
        outside.check(dataset, space.seed, f"{space.source}: ood")

    for note in dataset.notes:
        warnings.warn(f"dataset '{dataset.name}': {note}", DataWarning, stacklevel=2)
    return dataset


def sample_teacher(
    space: SearchSpace,
    session: Session,
    *,
    dataset: Dataset | None = None,
    calibration: CalibrationFit | None = None,
) -> Teacher:
    """The space's teacher, its posterior samples sealed.

    What they predict is computed when it is asked for.

    Args:
        space: where it is described.
        session: how to run.
        dataset: the space's dataset where it is loaded already.
        calibration: the one that the space's study remembers; fitted by default.

    Raises:
        Interrupted: the session said stop; the next call goes on from there.
        DataError: among others, an imported ensemble is at chance.
        StreamError, EnvironmentProblem, DivergenceError: see the parts.
    """
    dataset = dataset or load_dataset(space)
    started = time.monotonic()
    stream = sample(space, dataset, session)
    teacher = Teacher(space, dataset, stream, session, seconds=time.monotonic() - started)
    if import_of(space) is not None:
        check_import(space, dataset, teacher.averaged("validation"))
    return calibrated(teacher, calibration)


def load_teacher(space: SearchSpace | str | Path, session: Session | None = None) -> Teacher:
    """The teacher of a space as it lies there, to be asked with ``predict``; nothing is sampled.

    Args:
        space: a search space, its file or its shipped name.
        session: how to run.

    Raises:
        ConfigError: its posterior samples are known by their predictions alone.
        StreamError: its posterior was not sampled yet, or its stream is corrupt.
        DataError, EnvironmentProblem: the dataset cannot be used, or is not there.
    """
    space = space if isinstance(space, SearchSpace) else load_space(space)
    check_answers(space)
    session = session or new_session()
    dataset = load_dataset(space)
    return calibrated(Teacher(space, dataset, existing_stream(space, dataset, session), session))


def build_teacher(
    space: SearchSpace, session: Session, *, dataset: Dataset | None = None
) -> Teacher:
    """The space's teacher with predictions at all its views and at the validation inputs.

    Args and errors are those of ``sample_teacher``.
    """
    teacher = sample_teacher(space, session, dataset=dataset)
    if not teacher.stream.has_weights or not teacher.stream.is_stored:
        return teacher  # imported predictions, and averages, are where they are

    # in mode online, students meet a chain of their own
    if space.recipe.mode != "online":
        for view in teacher.resolve_views():
            teacher.ensure_view(space.stored_view(view))
    teacher.ensure_view(teacher.clean_view("validation"))
    return teacher
