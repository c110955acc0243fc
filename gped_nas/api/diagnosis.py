"""What can be measured of a teacher's posterior without knowing the truth.

Everything is measured on the validation part. Function space are the predicted probabilities
(means, where labels are real numbers) and the log-likelihood of every validation example; weight
space are single weights, which label switching and flat directions keep from mixing long after
predictions have: it is reported and not judged. Of many quantities a seeded subset is taken, and
parameters are read one posterior sample at a time, so that memory does not grow with the stream.
"""

import math
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.api.sampling import posterior
from gped_nas.api.teacher import Teacher
from gped_nas.device import threads_for
from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.predictions import Predictions
from gped_nas.evaluate.teacher import averaged, log_scores, samples_to_nll
from gped_nas.models.base import num_params
from gped_nas.models.costs import largest_product
from gped_nas.posterior.base import METHODS, ChainConfig, FlatParams, Origin
from gped_nas.posterior.diagnostics import (
    MIN_DRAWS,
    Temperature,
    agreement,
    bulk_ess,
    configurational_temperature,
    kinetic_temperature,
    rhat,
    total_variation,
)

RHAT_BOUND = 1.1
"""Gelman & Rubin's classical bound; Vehtari et al. 2021 ask for 1.01 of single numbers that will be
published.
"""
MAX_QUANTITIES, MAX_WEIGHTS, MAX_GRADIENTS, MAX_EXAMPLES = 10_000, 1000, 16, 10_000


@dataclass(frozen=True)
class Mixing:
    """How well many quantities mix.

    Attributes:
        num: quantities looked at.
        num_constant: of them, those that no draw changes; left out below.
        num_not_finite: of them, those with a draw that is no finite number; left out below.
        rhat: the R-hat that 50, 90 and 99 % of the quantities do not exceed; None where none is
            left.
        above: share of the quantities left with R-hat above 1.1.
        ess: the bulk effective sample size that 50, 90 and 99 % of the quantities reach, all chains
            together.
    """

    num: int
    num_constant: int
    num_not_finite: int
    rhat: tuple[float, float, float] | None
    above: float
    ess: tuple[float, float, float] | None


@dataclass(frozen=True)
class Diagnosis:
    """The whole battery. What a method cannot have is None, and ``missing`` says why.

    Attributes:
        method, origin: the method, and what its samples are.
        chains, num_samples: K, and posterior samples of all of them.
        target_temperature: T of the density exp(-U / T) that the method is meant to draw from.
        mixing: by space: ``probabilities`` (``means`` where labels are real numbers),
            ``log_likelihood``, ``weights``; empty where R-hat means nothing.
        agreement, total_variation: of the averages of two chains, mean over pairs of chains; of
            classes only.
        kinetic, configurational: temperatures that were found.
        single: NLL, and accuracy or RMSE, of one posterior sample, mean over them.
        average: the same of their average.
        curve: ``[number of samples, NLL of their average]``, nats.
        missing: what could not be measured, and why.
    """

    method: str
    origin: Origin
    chains: int
    num_samples: int
    target_temperature: float
    mixing: dict[str, Mixing]
    agreement: float | None
    total_variation: float | None
    kinetic: Temperature | None
    configurational: Temperature | None
    single: dict[str, float]
    average: dict[str, float]
    curve: list[list[float]]
    missing: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data; numbers that are not finite are null."""
        plain: dict[str, Any] = _finite(asdict(self))
        return plain


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def diagnose(teacher: Teacher) -> Diagnosis:
    """The battery on the teacher's validation part; nothing is sampled.

    Raises:
        StreamError: the stream is corrupt.
        Interrupted: the session said stop.
    """
    stream, method = teacher.stream, teacher.space.method
    origin = METHODS[method.name].origin
    chains = method.chains if isinstance(method, ChainConfig) else 1
    predicted, labels = teacher.predicted("validation"), teacher.dataset.labels("validation")
    own_unit, weight_S = teacher.dataset.label_normalization, stream.weight_S
    log_score_SN = log_scores(predicted, labels, own_unit)
    one = torch.ones(1)
    alone, together = (
        [averaged(p[None], one, own_unit) for p in predicted],
        averaged(predicted, weight_S, own_unit),
    )
    quality = [
        METRICS[name] for name in ("accuracy", "rmse") if METRICS[name].applies(together, None)
    ]
    missing = _missing(teacher, origin, chains)
    mixing: dict[str, Mixing] = {}
    if "R-hat and ESS" not in missing:
        spaces = {**_predictions(teacher, predicted), "log_likelihood": log_score_SN}
        spaces["weights"] = _some_weights(teacher)
        mixing = {
            name: mixing_of(by_chain(values_SQ, chains)) for name, values_SQ in spaces.items()
        }
    between = (
        None
        if "agreement between chains" in missing
        else between_chains(predicted, weight_S, chains)
    )
    momenta = stream.states("momentum") if stream.has_weights else []
    mass = float(getattr(method, "mass", 1.0))
    return Diagnosis(
        method=method.name,
        origin=origin,
        chains=chains,
        num_samples=stream.num_samples,
        target_temperature=float(getattr(method, "temperature", 1.0)),
        mixing=mixing,
        agreement=between[0] if between else None,
        total_variation=between[1] if between else None,
        kinetic=kinetic_temperature(torch.stack([torch.from_numpy(m) for m in momenta]), mass)
        if momenta
        else None,
        configurational=None
        if "configurational temperature" in missing
        else _configurational(teacher),
        single={
            "nll": float(-log_score_SN.mean()),
            **{m.name: sum(m.value(p, labels) for p in alone) / len(alone) for m in quality},
        },
        average={
            "nll": float(-together.log_score(labels).mean()),
            **{m.name: m.value(together, labels) for m in quality},
        },
        curve=samples_to_nll(predicted, weight_S, labels, own_unit),
        missing=missing,
    )


def _missing(teacher: Teacher, origin: Origin, chains: int) -> dict[str, str]:
    """What this teacher cannot have, and why."""
    stream, missing = teacher.stream, {}
    name, draws = teacher.space.method.name, stream.num_samples // chains
    if origin == "given":
        missing["R-hat and ESS"] = (
            "nothing is known of which chain an imported sample is from, or of their order"
        )
    elif origin == "optimized":
        missing["R-hat and ESS"] = (
            f"the samples of {name} are trained points, not draws: they cannot mix"
        )
    elif draws < MIN_DRAWS:
        missing["R-hat and ESS"] = (
            f"{draws} draws a chain; at least {MIN_DRAWS} are needed (raise num_samples)"
        )
    if chains == 1:
        missing["agreement between chains"] = "there is one chain"
    elif teacher.dataset.task != "classification":
        missing["agreement between chains"] = "it is of classes, and labels here are real numbers"
    if not stream.has_weights or not stream.states("momentum"):
        missing["kinetic temperature"] = f"{name} keeps no momenta"
    if not stream.has_weights:
        missing["configurational temperature"] = "the samples are known by their predictions alone"
    elif stream.num_samples < 2:
        missing["configurational temperature"] = "there is one sample"
    return missing


def by_chain(values_SQ: Tensor, chains: int) -> Tensor:
    """Draws (K, S / K, Q) from posterior samples whose chains are interleaved: sample s is of chain
    s % K.
    """
    return values_SQ.view(-1, chains, values_SQ.shape[-1]).transpose(0, 1)


def mixing_of(draws_KSQ: Tensor) -> Mixing:
    """R-hat and effective sample sizes of many quantities.

    Raises:
        DataError: fewer than 4 draws a chain.
    """
    finite = draws_KSQ.isfinite().all(0).all(0)
    rhat_Q, ess_Q = rhat(draws_KSQ)[finite], bulk_ess(draws_KSQ)[finite]
    moves = ~rhat_Q.isnan()
    rhat_Q, ess_Q = rhat_Q[moves].sort().values, ess_Q[moves].sort(descending=True).values
    return Mixing(
        num=draws_KSQ.shape[2],
        num_constant=int((~moves).sum()),
        num_not_finite=int((~finite).sum()),
        rhat=_reached(rhat_Q),
        above=float((rhat_Q > RHAT_BOUND).double().mean()) if len(rhat_Q) else 0.0,
        ess=_reached(ess_Q),
    )


def _reached(ordered_Q: Tensor) -> tuple[float, float, float] | None:
    """What 50, 90 and 99 % of the numbers reach: order statistics, which infinite numbers do not
    spoil.
    """
    if not len(ordered_Q):
        return None
    half, most, nearly_all = (
        float(ordered_Q[-(-len(ordered_Q) * percent // 100) - 1]) for percent in (50, 90, 99)
    )
    return half, most, nearly_all


def between_chains(log_prob_SNC: Tensor, weight_S: Tensor, chains: int) -> tuple[float, float]:
    """Agreement and total variation of the averages of two chains, mean over all pairs."""
    means = [
        averaged(log_prob_SNC[chain::chains], weight_S[chain::chains]) for chain in range(chains)
    ]
    prob = [
        torch.from_numpy(mean.log_prob_NC).exp() for mean in means if isinstance(mean, Predictions)
    ]
    pairs = [(a, b) for i, a in enumerate(prob) for b in prob[:i]]
    return (
        sum(agreement(a, b) for a, b in pairs) / len(pairs),
        sum(total_variation(a, b) for a, b in pairs) / len(pairs),
    )


def _subset(num: int, most: int, teacher: Teacher, what: str) -> Tensor:
    """At most ``most`` of ``num`` indices, always the same ones."""
    if num <= most:
        return torch.arange(num)
    return (
        torch.randperm(num, generator=rng.generator(teacher.space.seed, "diagnosis", what))[:most]
        .sort()
        .values
    )


def _predictions(teacher: Teacher, predicted_SNG: Tensor) -> dict[str, Tensor]:
    """Of classes their probabilities, of real labels their means, in the label's normalized unit;
    each (S, Q).
    """
    if teacher.dataset.task == "regression":
        means = predicted_SNG[..., 0]
        return {
            "means": means[:, _subset(means.shape[1], MAX_QUANTITIES, teacher, "means")].double()
        }
    flat = predicted_SNG.flatten(1)
    index = _subset(flat.shape[1], MAX_QUANTITIES, teacher, "probabilities")
    return {"probabilities": flat[:, index].double().exp()}


def _some_weights(teacher: Teacher) -> Tensor:
    """A subset of the parameters of every posterior sample, (S, Q)."""
    stream, session = teacher.stream, teacher.session
    index = _subset(num_params(stream.key.shapes), MAX_WEIGHTS, teacher, "weights")
    rows = []
    for sample in range(stream.num_samples):
        session.raise_if_stopped()
        rows.append(stream.theta(sample)[index])
    return torch.stack(rows)


def _configurational(teacher: Teacher) -> Temperature:
    """From full gradients at a few posterior samples, spread over stream and chains; c is zero.

    Beyond ``MAX_EXAMPLES`` training examples the gradient is that of a fresh random subset of them,
    unbiased.
    """
    stream, space, session = teacher.stream, teacher.space, teacher.session
    problem = posterior(space, teacher.dataset, device=session.device)
    index = _subset(problem.num_examples, MAX_EXAMPLES, teacher, "examples").to(session.device)
    num = min(stream.num_samples, MAX_GRADIENTS)
    virial: list[Tensor] = []
    macs = largest_product(
        space.genotype.family, stream.key.shapes, stream.key.input_shape, len(index)
    )
    with threads_for(macs):
        for i in range(num):
            session.raise_if_stopped()
            theta = stream.theta(round(i * (stream.num_samples - 1) / (num - 1)))
            flat = FlatParams(stream.key.shapes, theta.to(session.device))
            gradient = flat.gradient(partial(problem.potential, index_B=index))
            virial.append(flat.theta_W.double() @ gradient.double())
            session.progress("gradients", i + 1, num)
    return configurational_temperature(torch.stack(virial).cpu(), num_params(stream.key.shapes))
