"""From a search space to a teacher: dataset, posterior samples, stream, predictions where they are needed."""

import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas import device as devices
from gped_nas.api.session import Session
from gped_nas.data import base as data
from gped_nas.data.base import Dataset, Part
from gped_nas.data.views import View
from gped_nas.distill.kernel import DistillationSet
from gped_nas.distill.targets import TARGETS, entropy, expect, stream_expectation
from gped_nas.errors import ConfigError, DataError
from gped_nas.evaluate.base import Predictions
from gped_nas.io import sha256_arrays
from gped_nas.models.base import FAMILIES
from gped_nas.models.costs import largest_product
from gped_nas.posterior.base import ChainConfig, Chains, classifier, views
from gped_nas.posterior.imported import (
    ImportConfig,
    content_digest,
    is_predictions,
    read_predictions,
    read_weights,
)
from gped_nas.search.space import SearchSpace
from gped_nas.stream.key import StreamKey
from gped_nas.stream.reader import Stream
from gped_nas.stream.writer import holds, write_predictions, write_view, write_weights

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
    _log_prob: dict[Part, Tensor] = field(default_factory=dict)

    def inputs(self, view: View) -> Tensor:
        """Normalised inputs of a view, made once."""
        if view.name not in self._inputs:
            self._inputs[view.name] = view.inputs(self.dataset)
        return self._inputs[view.name]

    def log_prob(self, part: Part, session: Session) -> Tensor:
        """Log-probabilities of every posterior sample at a part's clean inputs, (S, N, C) float32, nats; read once.

        Raises:
            DataError: imported predictions do not cover the part.
        """
        if part not in self._log_prob:
            self._log_prob[part] = _part_log_prob(self, part, session)
        return self._log_prob[part]


def load_dataset(space: SearchSpace) -> Dataset:
    """The space's dataset.

    Raises:
        DataError, EnvironmentProblem: it cannot be used, or is not there.
    """
    return data.load(dict(space.dataset), f"{space.source}: dataset")


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
    for view in [*space.views, _clean("validation", space)]:
        ensure_view(teacher, view, session)
    return replace(teacher, seconds=time.monotonic() - started)


def _stream(space: SearchSpace, dataset: Dataset, session: Session) -> Stream:
    key = stream_key(space, dataset)
    provenance = devices.fingerprint(session.device)
    if isinstance(space.method, ImportConfig) and is_predictions(path := Path(space.method.path)):
        return Stream(_import_predictions(space, path, dataset, key, session, provenance))
    chains, wanted = _wanted(space, key)
    if not holds(session.streams, key, wanted):
        macs = largest_product(key.shapes, int(getattr(space.method, "batch_size", len(dataset.train))))
        processes = session.processes_for(chains, macs)
        # one thread a chain, also where chains take turns: how many run side by side must not show in their bits
        with devices.threads_for(macs if chains == 1 else 0):
            write_weights(
                session.streams,
                key,
                _chains(space, dataset, session.device),
                chains=chains,
                num_samples=wanted,
                provenance={**provenance, "processes": processes},
                progress=session.progress,
                should_stop=session.should_stop,
                processes=processes,
            )
    return Stream(key.folder(session.streams), num_samples=wanted)


def _chains(space: SearchSpace, dataset: Dataset, device: torch.device) -> Chains:
    problem = partial(
        classifier,
        space.genotype,
        dataset.inputs("train"),
        dataset.train.y,
        num_classes=dataset.num_classes,
        prior=space.prior,
        device=device,
    )
    return Chains(problem, space.method, space.seed)


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
    return View("clean", {}, part, space.seed)


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
        return torch.cat([F.log_softmax(family.forward(params, part), -1) for part in torch.split(x, PREDICT_BATCH)])

    write_view(
        teacher.stream,
        view.name,
        about,
        predict,
        num_inputs=len(x),
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
    """What students learn from: the inputs of all views with the teacher's expectations there."""
    space, dataset, stream = teacher.space, teacher.dataset, teacher.stream
    if not stream.has_weights:
        return _imported_set(teacher)
    inputs = torch.cat([teacher.inputs(view) for view in space.views])
    expectations = {
        name: torch.cat([stream_expectation(stream, name, view.name) for view in space.views]) for name in space.targets
    }
    return DistillationSet(inputs, expectations, space.targets, dataset.num_classes)


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
    log_prob = log_prob_SMC[:, keep].double()
    weight = teacher.stream.weight_S
    return DistillationSet(
        torch.from_numpy(np.array(inputs[keep])).view(-1, *dataset.input_shape),
        {name: expect(TARGETS[name], log_prob, weight).float() for name in space.targets},
        space.targets,
        dataset.num_classes,
    )


def _part_log_prob(teacher: Teacher, part: Part, session: Session) -> Tensor:
    if teacher.stream.has_weights:
        view = _clean(part, teacher.space)
        ensure_view(teacher, view, session)
        return teacher.stream.log_prob(view.name)
    inputs, log_prob_SMC = teacher.stream.imported()
    wanted = teacher.dataset.inputs(part).flatten(1).numpy()
    return log_prob_SMC[:, _rows(np.array(inputs), wanted, "imported inputs", part)]


def averaged(log_prob_SNC: Tensor, weight_S: Tensor) -> Predictions:
    """The predictions of the weighted average of posterior samples."""
    log_prob, log_weight = log_prob_SNC.double(), weight_S.double().log()
    mean = torch.logsumexp(log_prob + log_weight[:, None, None], 0) - torch.logsumexp(log_weight, 0)
    normalised = weight_S.double() / weight_S.double().sum()
    expected = torch.einsum("s,sn->n", normalised, entropy(log_prob))
    return Predictions(mean.numpy(), expected.numpy())


def samples_to_nll(log_prob_SNC: Tensor, weight_S: Tensor, labels: Any) -> list[list[float]]:
    """``[number of samples, NLL of their average]`` for growing numbers of posterior samples, nats."""
    num, picked = len(log_prob_SNC), torch.as_tensor(labels)[None, :, None].expand(len(log_prob_SNC), -1, 1)
    log_weight_S = weight_S.double().log()
    joint_SN = log_prob_SNC.gather(2, picked).squeeze(2).double() + log_weight_S[:, None]
    nll_S = -(joint_SN.logcumsumexp(0) - log_weight_S.logcumsumexp(0)[:, None]).mean(1)
    sizes = sorted({num, *(2**i for i in range(num.bit_length())), *(num * i // 8 for i in range(1, 8))} - {0})
    return [[float(size), float(nll_S[size - 1])] for size in sizes]
