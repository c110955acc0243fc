"""From a search space to a teacher: dataset, posterior samples, stream, predictions where they are needed."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gped_nas import device as devices
from gped_nas import rng
from gped_nas.api.session import Session
from gped_nas.data import base as data
from gped_nas.data.base import Dataset, Part
from gped_nas.data.views import View
from gped_nas.distill.feed import DistillationSet, PosteriorPredictions
from gped_nas.distill.targets import expect, stream_expectation
from gped_nas.errors import ConfigError, DataError
from gped_nas.evaluate.predictions import AnyPredictions
from gped_nas.evaluate.teacher import averaged
from gped_nas.io import sha256_arrays
from gped_nas.models.base import FAMILIES
from gped_nas.models.costs import largest_product
from gped_nas.posterior.base import METHODS, ChainConfig, supervised, views
from gped_nas.posterior.imported import (
    ImportConfig,
    content_digest,
    is_predictions,
    read_predictions,
    read_weights,
)
from gped_nas.posterior.likelihoods import LIKELIHOODS
from gped_nas.search.space import SearchSpace
from gped_nas.stream.key import StreamKey
from gped_nas.stream.reader import Stream
from gped_nas.stream.writer import write_predictions, write_view, write_weights

PREDICT_BATCH = 8192


@dataclass(frozen=True, eq=False)
class Teacher:
    """A teacher ready to be imitated.

    Attributes:
        space: where it is described.
        dataset: its dataset.
        stream: its posterior samples.
        seconds: what making them and their predictions took in this run.
    """

    space: SearchSpace
    dataset: Dataset
    stream: Stream
    seconds: float = 0.0
    _inputs: dict[str, Tensor] = field(default_factory=dict)
    _predicted: dict[Part, Tensor] = field(default_factory=dict)

    def inputs(self, view: View) -> Tensor:
        """Normalised inputs of a view, made once."""
        if view.name not in self._inputs:
            self._inputs[view.name] = view.inputs(self.dataset)
        return self._inputs[view.name]

    def predicted(self, part: Part, session: Session) -> Tensor:
        """What every posterior sample predicts at a part's clean inputs, (S, N, G) float32; read once.

        Log-probabilities in nats, or means and variances; see ``likelihoods.Prediction``.

        Raises:
            DataError: imported predictions do not cover the part.
        """
        if part not in self._predicted:
            self._predicted[part] = _part_predicted(self, part, session)
        return self._predicted[part]

    def averaged(self, part: Part, session: Session) -> AnyPredictions:
        """The predictions of the posterior average at a part's clean inputs. Raises as ``predicted``."""
        return averaged(self.predicted(part, session), self.stream.weight_S, self.dataset.label_normalization)


def load_dataset(space: SearchSpace) -> Dataset:
    """The space's dataset.

    Raises:
        ConfigError: its labels are not of the kind that the teacher's likelihood is for.
        DataError, EnvironmentProblem: it cannot be used, or is not there.
    """
    dataset = data.load(dict(space.dataset), f"{space.source}: dataset")
    if dataset.task != space.likelihood.task:
        fitting = [name for name, likelihood in LIKELIHOODS.items() if likelihood.task == dataset.task]
        raise ConfigError(
            f"{space.source}: teacher.likelihood.name: found '{space.likelihood.name}', which is for "
            f"{space.likelihood.task}, but dataset '{dataset.name}' is for {dataset.task}; "
            f"expected {' or '.join(fitting)}"
        )
    return dataset


def stream_key(space: SearchSpace, dataset: Dataset) -> StreamKey:
    """The key of the space's stream: everything that fixes its posterior samples."""
    method = space.method.model_dump(mode="json")
    if isinstance(space.method, ImportConfig):
        method = {**method, "path": None, "content": content_digest(Path(space.method.path))}
    if isinstance(space.method, ChainConfig):
        del method["num_samples"]
    return StreamKey(
        dataset=dataset.digest,
        input_shape=dataset.input_shape,
        num_outputs=dataset.num_classes,
        genotype={"family": space.genotype.family, **space.genotype.architecture()},
        prior=space.prior.to_json(),
        method=method,
        seed=space.seed,
        likelihood=space.likelihood.to_json(),
    )


def build_teacher(space: SearchSpace, session: Session, *, dataset: Dataset | None = None) -> Teacher:
    """The space's teacher, from its stream where that exists, with predictions at all its views.

    Args:
        space: where it is described.
        session: how to run.
        dataset: the space's dataset where it is loaded already.

    Raises:
        Interrupted: the session said stop; the next call goes on from there.
        DataError, StreamError, EnvironmentProblem, DivergenceError: see the parts.
    """
    dataset = dataset or load_dataset(space)
    started = time.monotonic()
    teacher = Teacher(space, dataset, _stream(space, dataset, session))
    pool = [] if space.recipe.mode == "online" else space.views  # there, students meet a chain of their own
    for view in [*pool, _clean("validation", space)]:
        ensure_view(teacher, view, session)
    return replace(teacher, seconds=time.monotonic() - started)


def _stream(space: SearchSpace, dataset: Dataset, session: Session) -> Stream:
    key = stream_key(space, dataset)
    provenance = {**devices.fingerprint(session.device), "dataset": dataset.name}
    if isinstance(space.method, ImportConfig) and is_predictions(path := Path(space.method.path)):
        return Stream(_import_predictions(space, path, dataset, key, session, provenance))
    chains, wanted = _wanted(space, key)
    method, problem = METHODS[space.method.name], None

    def run_chain(chain: int, state: Any) -> Any:
        nonlocal problem
        if problem is None:
            problem = supervised(space.genotype, dataset, space.prior, space.likelihood, device=session.device)
        generator = rng.generator(space.seed, "posterior", chain)
        return method(problem, space.method, generator=generator, state=state)

    batch_size = int(getattr(space.method, "batch_size", len(dataset.train)))
    with devices.threads_for(largest_product(key.shapes, batch_size)):
        folder = write_weights(
            session.streams,
            key,
            run_chain,
            chains=chains,
            num_samples=wanted,
            provenance=provenance,
            progress=session.progress,
            should_stop=session.should_stop,
        )
    return Stream(folder, num_samples=wanted)


def existing_stream(space: SearchSpace, dataset: Dataset, session: Session) -> Stream:
    """The space's stream as it lies there: nothing is sampled.

    Raises:
        StreamError: it was not built yet, holds too few samples, or is corrupt.
    """
    key = stream_key(space, dataset)
    wanted = space.method.num_samples if isinstance(space.method, ChainConfig) else None
    return Stream(key.folder(session.streams), num_samples=wanted)


def _wanted(space: SearchSpace, key: StreamKey) -> tuple[int, int]:
    """Number of chains and of posterior samples."""
    if isinstance(space.method, ChainConfig):
        return space.method.chains, space.method.num_samples
    if isinstance(space.method, ImportConfig):
        return 1, len(read_weights(Path(space.method.path), key.shapes)[0])
    return 1, 1


def _import_predictions(
    space: SearchSpace, path: Path, dataset: Dataset, key: StreamKey, session: Session, provenance: dict[str, Any]
) -> Path:
    for view in space.views:
        if view.policy != "clean":
            raise ConfigError(
                f"{space.source}: views: found policy '{view.policy}', but {path} holds predictions at fixed inputs; "
                "expected views: [{policy: clean}]"
            )
    found = read_predictions(path, dataset.num_classes)
    raw = found.inputs
    if tuple(raw.shape[1:]) != dataset.input_shape:
        raw = _channels_first(raw, dataset.input_shape, path)
    inputs = dataset.normalization(raw).flatten(1).numpy()
    _rows(inputs, dataset.inputs("validation").flatten(1).numpy(), f"{path}: inputs", "validation")
    return write_predictions(
        session.streams,
        key,
        inputs_MD=inputs,
        log_prob_SMC=found.log_prob_SMC.numpy(),
        weight_S=found.weight_S.numpy(),
        provenance=provenance,
    )


def _channels_first(raw: Tensor, input_shape: tuple[int, ...], path: Path) -> Tensor:
    if raw.dim() == 3:
        raw = raw.unsqueeze(1)
    elif raw.dim() == 4:
        raw = raw.movedim(-1, 1)
    if tuple(raw.shape[1:]) != input_shape:
        raise DataError(
            f"{path}: inputs have shape {tuple(raw.shape)}, expected (M, {', '.join(map(str, input_shape))})"
        )
    return raw


def _rows(inputs: Any, wanted: Any, where: str, part: str) -> list[int]:
    """The row of ``inputs`` that equals each row of ``wanted``, bit for bit.

    Raises:
        DataError: some are not there.
    """
    known = {row.tobytes(): i for i, row in enumerate(np.ascontiguousarray(inputs, np.float32))}
    rows = [known.get(row.tobytes(), -1) for row in np.ascontiguousarray(wanted, np.float32)]
    missing = sum(r < 0 for r in rows)
    if missing:
        raise DataError(
            f"{where}: hold no predictions for {missing} of the {len(rows)} {part} inputs; "
            "add the ensemble's predictions there, so that students can be compared with it"
        )
    return rows


def _clean(part: Part, space: SearchSpace) -> View:
    return View("clean", {}, part, space.seed, space.stream.prediction_dtype)


def ensure_view(teacher: Teacher, view: View, session: Session) -> None:
    """Predictions of every posterior sample at a view's inputs, made once. Does nothing for imported predictions."""
    if not teacher.stream.has_weights:
        return
    x = teacher.inputs(view)
    about = {"view": view.key(), "inputs": sha256_arrays(x.numpy())}
    family = FAMILIES[teacher.space.genotype.family]
    shapes = teacher.stream.key.shapes
    x = _as_ensemble_sees(teacher, x).to(session.device)

    @torch.no_grad()
    def predict(theta_P: Tensor) -> Tensor:
        params = views(theta_P.to(session.device), shapes)
        parts = torch.split(x, PREDICT_BATCH)
        return torch.cat([teacher.space.likelihood.predict(family.forward(params, part)) for part in parts])

    write_view(
        teacher.stream,
        view.name,
        about,
        predict,
        num_inputs=len(x),
        dtype=view.dtype,
        progress=session.progress,
        should_stop=session.should_stop,
    )


def _as_ensemble_sees(teacher: Teacher, x: Tensor) -> Tensor:
    """Inputs normalised as an imported ensemble normalises them."""
    method, ours = teacher.space.method, teacher.dataset.normalization
    if isinstance(method, ImportConfig) and method.input_mean is not None and method.input_std is not None:
        return (x * ours.std + ours.mean - method.input_mean) / method.input_std
    return x


def distillation_set(teacher: Teacher) -> DistillationSet:
    """What students learn from: the inputs of all views with what the teacher says there, as the recipe reads it."""
    space, dataset, stream = teacher.space, teacher.dataset, teacher.stream
    if not stream.has_weights:
        return _imported_set(teacher)
    inputs = torch.cat([teacher.inputs(view) for view in space.views])
    expectations, samples = {}, None
    if space.recipe.update == "averaged":
        expectations = {
            target.name: torch.cat([stream_expectation(stream, target, view.name) for view in space.views])
            for target in space.targets
            if target.kind == "mean"
        }
    elif space.recipe.mode == "cached":
        parts = [list(stream.prediction_maps(view.name)) for view in space.views]
        samples = PosteriorPredictions(parts, stream.weight_S)
    return DistillationSet(inputs, expectations, space.targets, dataset.num_classes, samples)


def _imported_set(teacher: Teacher) -> DistillationSet:
    """The imported inputs that are neither validation nor test inputs."""
    space, dataset = teacher.space, teacher.dataset
    inputs, log_prob_SMC = teacher.stream.imported()
    held_out = {row.tobytes() for part in ("validation", "test") for row in dataset.inputs(part).flatten(1).numpy()}
    keep = [i for i, row in enumerate(np.array(inputs)) if row.tobytes() not in held_out]
    if not keep:
        raise DataError(
            "the imported predictions are all at validation or test inputs; "
            "add the ensemble's predictions at training or other inputs to distil on"
        )
    log_prob = log_prob_SMC[:, keep]
    weight = teacher.stream.weight_S
    return DistillationSet(
        torch.from_numpy(np.array(inputs[keep])).view(-1, *dataset.input_shape),
        {t.name: expect(t, log_prob.double(), weight).float() for t in space.targets if t.kind == "mean"},
        space.targets,
        dataset.num_classes,
        PosteriorPredictions([[log_prob.numpy()]], weight),
    )


def _part_predicted(teacher: Teacher, part: Part, session: Session) -> Tensor:
    if teacher.stream.has_weights:
        view = _clean(part, teacher.space)
        ensure_view(teacher, view, session)
        return teacher.stream.predictions(view.name)
    inputs, log_prob_SMC = teacher.stream.imported()
    wanted = teacher.dataset.inputs(part).flatten(1).numpy()
    return log_prob_SMC[:, _rows(np.array(inputs), wanted, "imported inputs", part)]
