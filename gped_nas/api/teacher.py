"""From a search space to a teacher: dataset, posterior samples, stream, predictions where they are needed."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas import device as devices
from gped_nas import rng
from gped_nas.api.session import Session
from gped_nas.data import base as data
from gped_nas.data import dials
from gped_nas.data.base import Dataset, Part
from gped_nas.data.views import View
from gped_nas.distill.kernel import DistillationSet
from gped_nas.distill.targets import TARGETS, entropy, expect, stream_expectation
from gped_nas.errors import ConfigError, DataError
from gped_nas.evaluate.base import Predictions
from gped_nas.io import sha256_arrays
from gped_nas.models.base import FAMILIES, Params
from gped_nas.models.costs import largest_product
from gped_nas.posterior.base import METHODS, ChainConfig, classification, views
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
    _log_prob: dict[Part, Tensor] = field(default_factory=dict)

    @property
    def views(self) -> list[View]:
        """The space's views, each with the digest of the posterior samples that its policy asks.

        Raises:
            ConfigError: a policy asks several samples and there is one.
        """
        return [_with_samples(self, view) for view in self.space.views]

    def inputs(self, view: View) -> Tensor:
        """Normalised inputs of a view, made once; those that posterior samples were asked for lie with the stream."""
        if view.name not in self._inputs:
            self._inputs[view.name] = _inputs(self, view)
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
    """The space's dataset, its dials turned.

    Raises:
        ConfigError, DataError, EnvironmentProblem: it cannot be used as the space says, or is not there.
    """
    dataset = data.load(dict(space.dataset), f"{space.source}: dataset")
    dataset = dials.turn(dataset, space.data, f"{space.source}: data")
    for i, view in enumerate(space.views):
        view.check(dataset, f"{space.source}: views[{i}]")
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
    for view in [*teacher.views, _clean("validation", space)]:
        ensure_view(teacher, view, session)
    return replace(teacher, seconds=time.monotonic() - started)


def _stream(space: SearchSpace, dataset: Dataset, session: Session) -> Stream:
    key = stream_key(space, dataset)
    provenance = devices.fingerprint(session.device)
    if isinstance(space.method, ImportConfig) and is_predictions(path := Path(space.method.path)):
        return Stream(_import_predictions(space, path, dataset, key, session, provenance))
    chains, wanted = _wanted(space, key)
    method, problem = METHODS[space.method.name], None

    def run_chain(chain: int, state: Any) -> Any:
        nonlocal problem
        if problem is None:
            problem = classification(space.genotype, dataset, space.prior, device=session.device)
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
    return View("clean", {}, part, space.seed)


def _with_samples(teacher: Teacher, view: View) -> View:
    if not view.num_samples:
        return view
    params = (teacher.stream.theta(index) for index in _asked(teacher, view))
    return replace(view, samples=sha256_arrays(*params))


def _asked(teacher: Teacher, view: View) -> list[int]:
    """Which posterior samples a policy asks: evenly spaced among those that the space uses.

    They follow from the space alone, not from the runs that the stream was grown in.

    Raises:
        ConfigError: the policy asks several and there is one.
    """
    num = teacher.stream.num_samples
    wanted = min(view.num_samples, num)
    if wanted == 1 < view.num_samples:
        raise ConfigError(
            f"{teacher.space.source}: views: policy '{view.policy}' asks {view.num_samples} posterior samples, and the "
            f"teacher ({teacher.space.method.name}) has one; remove the view or choose a method that samples"
        )
    return [(2 * i + 1) * num // (2 * wanted) for i in range(wanted)]


def _inputs(teacher: Teacher, view: View) -> Tensor:
    if not view.num_samples:
        return view.inputs(teacher.dataset)
    params = [teacher.stream.params(index) for index in _asked(teacher, view)]

    def log_prob(x: Tensor) -> Tensor:
        seen = _as_ensemble_sees(teacher, x)
        return torch.stack([_log_prob(teacher, {n: p.to(x) for n, p in own.items()}, seen) for own in params])

    # On the processor, whatever the session's device: another device's last bits would be another view's inputs.
    with devices.threads_for(largest_product(teacher.stream.key.shapes, PREDICT_BATCH)):
        return teacher.stream.derived(f"inputs-{view.name}", lambda: view.inputs(teacher.dataset, log_prob))


def _log_prob(teacher: Teacher, params: Params, x: Tensor) -> Tensor:
    """Log-probabilities (N, C) of one posterior sample at inputs as it sees them, nats."""
    return F.log_softmax(FAMILIES[teacher.space.genotype.family].forward(params, x), -1)


def ensure_view(teacher: Teacher, view: View, session: Session) -> None:
    """Predictions of every posterior sample at a view's inputs, made once. Does nothing for imported predictions."""
    if not teacher.stream.has_weights:
        return
    x = teacher.inputs(view)
    about = {"view": view.key(), "inputs": sha256_arrays(x.numpy())}
    shapes = teacher.stream.key.shapes
    x = _as_ensemble_sees(teacher, x).to(session.device)

    @torch.no_grad()
    def predict(theta_P: Tensor) -> Tensor:
        params = views(theta_P.to(session.device), shapes)
        return torch.cat([_log_prob(teacher, params, part) for part in torch.split(x, PREDICT_BATCH)])

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
    seen = teacher.views
    inputs = torch.cat([teacher.inputs(view) for view in seen])
    expectations = {
        name: torch.cat([stream_expectation(stream, name, view.name) for view in seen]) for name in space.targets
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
