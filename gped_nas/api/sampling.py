"""From a search space to posterior samples: the problem, the stream's key, the stream.

A method that reads another one's posterior samples has that stream built first, by the same
functions: the inner stream is the one that a space with the inner method alone would have.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gped_nas import device as devices
from gped_nas.api.handing import processes_that_can_build
from gped_nas.api.imported import import_predictions
from gped_nas.api.running import Place, Running, name_of, places_of
from gped_nas.api.session import Session
from gped_nas.data.base import Dataset
from gped_nas.distill.phases import has_phases
from gped_nas.distill.phases.chains import ChainsTogether, walks_chains
from gped_nas.distill.phases.fits import MembersTogether, walks_members
from gped_nas.errors import ConfigError
from gped_nas.models.base import Genotype, Shapes
from gped_nas.models.costs import largest_product
from gped_nas.posterior.base import (
    ChainConfig,
    Chains,
    MethodConfig,
    PosteriorSample,
    Problem,
    ReadingConfig,
    posterior_of,
    unflatten,
)
from gped_nas.posterior.deep_ensemble import DeepEnsembleConfig
from gped_nas.posterior.map import MapConfig
from gped_nas.posterior.priors import Prior
from gped_nas.search.space import SearchSpace
from gped_nas.stream.averages import AveragedStream, holds_averages, write_averages
from gped_nas.stream.chunks import RunTogether
from gped_nas.stream.key import StreamKey
from gped_nas.stream.reader import Stream
from gped_nas.stream.samples import StreamSamples
from gped_nas.stream.writer import holds, write_weights

PREDICT_BATCH = 512
"""Inputs a forward pass.

With more, the activations of convolutions leave the cache, and it takes twice as long.
"""


def posterior(
    space: SearchSpace,
    dataset: Dataset,
    *,
    device: torch.device,
    prior: Prior | None = None,
    samples: Sequence[PosteriorSample] | None = None,
) -> Problem:
    """The posterior of the space's teacher over the dataset's training part.

    Args:
        space: has network, prior and likelihood, and the method whose networks see the inputs.
        dataset: the space's dataset.
        device: where to work.
        prior: in place of the space's.
        samples: those of another method; see ``samples_read``.
    """
    return _later(space, dataset, device=device, prior=prior, samples=samples)()


def as_networks_see(space: SearchSpace, dataset: Dataset, x: Tensor) -> Tensor:
    """Normalized inputs (N, *input_shape) as the method's networks normalize them."""
    theirs = space.method.normalization()
    if theirs is None:
        return x

    mean, std = theirs
    raw = dataset.normalization.invert(x)
    if isinstance(mean, tuple) or isinstance(std, tuple):
        return (raw - _along(mean, raw, space)) / _along(std, raw, space)
    return (raw - mean) / std


def _along(numbers: float | tuple[float, ...], raw: Tensor, space: SearchSpace) -> Tensor:
    """Numbers of the channels or columns, of a shape that meets the second axis of raw inputs.

    Raises:
        ConfigError: there are others than channels or columns.
    """
    numbers_C = raw.new_tensor(numbers).reshape(-1)
    if len(numbers_C) != raw.shape[1]:
        raise ConfigError(
            f"{space.source}: teacher.method.input_mean: found {len(numbers_C)} numbers, expected "
            f"one, or {raw.shape[1]}: one for each channel or column of inputs of shape "
            f"{tuple(raw.shape[1:])}"
        )
    return numbers_C.view(-1, *[1] * (raw.dim() - 2))


def _later(
    space: SearchSpace,
    dataset: Dataset,
    *,
    device: torch.device,
    prior: Prior | None = None,
    samples: Sequence[PosteriorSample] | None = None,
) -> Callable[[], Problem]:
    """What makes the problem where it is needed; can be handed to another process."""
    return partial(
        posterior_of,
        space.network,
        as_networks_see(space, dataset, dataset.inputs("train")),
        dataset.normalized_labels("train"),
        num_outputs=dataset.num_outputs,
        prior=prior or space.prior,
        likelihood=space.likelihood,
        device=device,
        samples=samples,
        family=space.module,  # any other is found by its name in another process, too
    )


def stream_key(space: SearchSpace, dataset: Dataset) -> StreamKey:
    """The key of the space's stream: everything that fixes its posterior samples."""
    return StreamKey(
        dataset=dataset.digest,
        input_shape=dataset.input_shape,
        num_outputs=dataset.num_outputs,
        genotype=_architecture(space.genotype),
        prior=space.prior.to_json(),
        method=space.method.identity(),
        seed=space.seed,
        likelihood=space.likelihood.to_json(),
        module=_module(space, dataset),
    )


def _module(space: SearchSpace, dataset: Dataset) -> dict[str, Any] | None:
    """What a stream's key says of a user's module; None of any other family."""
    if space.module is None:
        return None
    num_outputs = space.likelihood.num_network_outputs(dataset.num_outputs)
    return space.module.identity(dataset.input_shape, num_outputs)


def _architecture(genotype: Genotype | None) -> dict[str, Any]:
    """What a stream's key says of the teacher's network; nothing where there is none."""
    return {} if genotype is None else {"family": genotype.family, **genotype.architecture()}


def sampled_spaces(space: SearchSpace) -> list[SearchSpace]:
    """The space, then one a method whose posterior samples are read on the way to its own.

    Each has the method alone in place of the one that reads it.
    """
    spaces = [space]
    while isinstance(spaces[-1].method, ReadingConfig):
        spaces.append(_with_inner(space, spaces[-1].method.of))
    return spaces


def _with_inner(space: SearchSpace, method: MethodConfig) -> SearchSpace:
    """The space with the method whose samples its own reads: these are always stored."""
    recipe = space.recipe.model_copy(update={"stream": "stored"})
    return replace(space, method=method, recipe=recipe)


def existing_stream(space: SearchSpace, dataset: Dataset, session: Session) -> Stream:
    """The space's stream as it lies there: nothing is sampled.

    Raises:
        StreamError: it was not built yet, holds too few samples, or is corrupt.
    """
    key = stream_key(space, dataset)
    if space.recipe.stream == "none":
        places = places_of(space, dataset)
        name = name_of(space, dataset, places, space.method.count(key.shapes))
        return AveragedStream(key.folder(session.streams), name)

    num_samples = space.method.num_samples if isinstance(space.method, ChainConfig) else None
    return Stream(key.folder(session.streams), num_samples=num_samples)


def sample(space: SearchSpace, dataset: Dataset, session: Session) -> Stream:
    """The space's stream, its posterior samples sealed; those that are there are not made again.

    Args:
        space: where the teacher is described.
        dataset: the space's dataset.
        session: how to run.

    Raises:
        Interrupted: the session said stop; the next call goes on from there.
        ConfigError: the method reads samples of which there are predictions alone.
        DataError, StreamError, EnvironmentProblem, DivergenceError: see the parts.
    """
    key = stream_key(space, dataset)
    provenance = {**devices.fingerprint(session.device), "dataset": dataset.name}

    read_predictions = space.method.predictions()
    if read_predictions is not None:
        ensemble = read_predictions(dataset.num_classes)
        return Stream(import_predictions(space, ensemble, dataset, key, session, provenance))

    if space.recipe.stream == "none":
        return _run_along(space, dataset, key, session)

    num_samples = space.method.count(key.shapes)
    if not holds(session.streams, key, num_samples):
        _run_chains(space, dataset, key, num_samples, session, provenance)
    return Stream(key.folder(session.streams), num_samples=num_samples)


def samples_read(
    space: SearchSpace, dataset: Dataset, session: Session
) -> Sequence[PosteriorSample] | None:
    """The posterior samples that the space's method reads, sampled first; None if it reads none.

    Raises as ``sample``.
    """
    if not isinstance(space.method, ReadingConfig):
        return None

    inner = sample(_with_inner(space, space.method.of), dataset, session)
    if not inner.has_weights:
        raise ConfigError(
            f"{space.source}: teacher.method.of: found '{space.method.of.title()}' with "
            f"predictions alone, but '{space.method.name}' reads parameters; give it a method that "
            "has them"
        )
    return StreamSamples(inner.folder, inner.num_samples)


def posterior_chains(space: SearchSpace, dataset: Dataset, session: Session) -> Chains:
    """The chains of the space's teacher, as a function that yields the steps of any of them.

    Raises as ``samples_read``.
    """
    samples = samples_read(space, dataset, session)
    problem = _later(space, dataset, device=session.device, samples=samples)
    return Chains(problem, space.method, space.seed)


def _run_chains(
    space: SearchSpace,
    dataset: Dataset,
    key: StreamKey,
    num_samples: int,
    session: Session,
    provenance: dict[str, object],
) -> None:
    run_chain = posterior_chains(space, dataset, session)

    chains = space.method.chains if isinstance(space.method, ChainConfig) else 1
    batch_size = int(getattr(space.method, "batch_size", len(dataset.train)))
    macs = largest_product(space.family, key.shapes, key.input_shape, batch_size)
    run_together = _all_at_once(space, run_chain.problem, session, chains)
    processes = 1 if run_together else session.processes_for(chains, macs)
    if processes > 1:
        processes = processes_that_can_build(space, session, processes)

    # One thread a chain, also where chains take turns: how many run side by side must not show in
    # their bits.
    with devices.threads_for(macs if chains == 1 else 0):
        write_weights(
            session.streams,
            key,
            run_chain,
            chains=chains,
            num_samples=num_samples,
            provenance={**provenance, "processes": processes},
            progress=session.progress,
            should_stop=session.should_stop,
            processes=processes,
            run_together=run_together,
        )


def predictor(
    space: SearchSpace, dataset: Dataset, x: Tensor, *, shapes: Shapes, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """A function of flat parameters (W,) that gives what they predict at ``x``, (N, G), raw.

    Args:
        space, dataset: of the teacher.
        x: normalized inputs (N, *input_shape).
        shapes: of the parameters.
        device: where to work.
    """
    family, likelihood = space.family, space.likelihood
    x = as_networks_see(space, dataset, x).to(device)

    @torch.no_grad()
    def predict(theta_W: Tensor) -> Tensor:
        params = unflatten(theta_W.to(device), shapes)
        parts = torch.split(x, PREDICT_BATCH)
        return torch.cat([likelihood.predict(family.forward(params, part)) for part in parts])

    return predict


def _run_along(
    space: SearchSpace, dataset: Dataset, key: StreamKey, session: Session
) -> AveragedStream:
    """The stream of which averages alone are kept, made unless they are there."""
    places = places_of(space, dataset)
    num_samples = space.method.count(key.shapes)
    name = name_of(space, dataset, places, num_samples)
    if not holds_averages(session.streams, key, name):
        _keep_averages(space, dataset, key, session, places, name)
    return AveragedStream(key.folder(session.streams), name)


def _keep_averages(
    space: SearchSpace,
    dataset: Dataset,
    key: StreamKey,
    session: Session,
    places: list[Place],
    name: str,
) -> None:
    run_chain = posterior_chains(space, dataset, session)
    running = Running(space, dataset, places).asking(
        partial(predictor, space, dataset, shapes=key.shapes, device=session.device)
    )
    chains = space.method.chains if isinstance(space.method, ChainConfig) else 1
    batch_size = int(getattr(space.method, "batch_size", len(dataset.train)))
    macs = largest_product(space.family, key.shapes, key.input_shape, batch_size)

    # as in ``_run_chains``: the same threads, so that chains have the same bits
    with devices.threads_for(macs if chains == 1 else 0):
        write_averages(
            session.streams,
            key,
            name,
            run_chain,
            running,
            chains=chains,
            num_samples=space.method.count(key.shapes),
            progress=session.progress,
            should_stop=session.should_stop,
        )


def _all_at_once(
    space: SearchSpace, problem: Callable[[], Problem], session: Session, chains: int
) -> RunTogether | None:
    """What runs all chains on a device at once; None where they run one by one."""
    if not has_phases(session.device):
        return None

    method, likelihood = space.method, space.likelihood
    posterior = problem()
    if isinstance(method, MapConfig | DeepEnsembleConfig):
        if walks_members(method, posterior, likelihood):
            return MembersTogether(posterior, method, likelihood, space.seed)
    elif walks_chains(method, posterior, likelihood, chains):
        return ChainsTogether(posterior, method, likelihood, space.seed)
    return None
