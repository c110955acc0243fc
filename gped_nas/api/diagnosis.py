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
from gped_nas.api.guess import BesideGuess, beside_guess
from gped_nas.api.mixing import (
    Mixing,
    between_averages,
    between_chains,
    by_chain,
    mixing_of,
)
from gped_nas.api.running import Running
from gped_nas.api.sampling import posterior
from gped_nas.api.teacher import Teacher
from gped_nas.device import threads_for
from gped_nas.evaluate.base import METRICS, Metric
from gped_nas.evaluate.teacher import averaged, log_scores, samples_to_nll
from gped_nas.models.base import num_params
from gped_nas.models.costs import largest_product
from gped_nas.posterior.base import METHODS, ChainConfig, FlatParams, Origin
from gped_nas.posterior.diagnostics import (
    MIN_DRAWS,
    Temperature,
    configurational_temperature,
    kinetic_temperature,
)

NOT_STORED = "chains were not diagnosed, because nothing was stored (recipe.stream: none)"

MAX_QUANTITIES = 10_000
MAX_WEIGHTS = 1000
MAX_GRADIENTS = 16
MAX_EXAMPLES = 10_000


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
        guess: the average beside a guess from the training labels.
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
    guess: BesideGuess | None = None

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
    """The battery on the teacher's validation part, of its raw posterior; nothing is sampled.

    Raises:
        StreamError: the stream is corrupt.
        Interrupted: the session said stop.
    """
    if teacher.running is not None:
        return _diagnose_averages(teacher, teacher.running)

    teacher = teacher.raw
    method = teacher.space.method
    origin = METHODS[method.name].origin
    chains = method.chains if isinstance(method, ChainConfig) else 1
    missing = _find_missing(teacher, origin, chains)

    predicted = teacher.predicted("validation")
    labels = teacher.dataset.labels("validation")
    weight_S = teacher.stream.weight_S
    label_normalization = teacher.dataset.label_normalization
    log_score_SN = log_scores(predicted, labels, label_normalization)

    average_prediction = averaged(predicted, weight_S, label_normalization)
    single = {"nll": float(-log_score_SN.mean())}
    average = {"nll": float(-average_prediction.log_score(labels).mean())}
    for name in ("accuracy", "rmse"):
        metric = METRICS[name]
        if metric.applies(average_prediction, None):
            single[name] = _mean_over_samples(metric, teacher)
            average[name] = metric.value(average_prediction, labels)

    mixing: dict[str, Mixing] = {}
    if "R-hat and ESS" not in missing:
        quantities = _choose_predictions(teacher, predicted)
        quantities["log_likelihood"] = log_score_SN
        quantities["weights"] = _choose_weights(teacher)
        for space, values_SQ in quantities.items():
            mixing[space] = mixing_of(by_chain(values_SQ, chains))

    chain_agreement = chain_distance = None
    if "agreement between chains" not in missing:
        chain_agreement, chain_distance = between_chains(predicted, weight_S, chains)

    kinetic = configurational = None
    if "kinetic temperature" not in missing:
        kinetic = _measure_kinetic(teacher)
    if "configurational temperature" not in missing:
        configurational = _measure_configurational(teacher)

    return Diagnosis(
        method=method.name,
        origin=origin,
        chains=chains,
        num_samples=teacher.stream.num_samples,
        target_temperature=float(getattr(method, "temperature", 1.0)),
        mixing=mixing,
        agreement=chain_agreement,
        total_variation=chain_distance,
        kinetic=kinetic,
        configurational=configurational,
        single=single,
        average=average,
        curve=samples_to_nll(predicted, weight_S, labels, label_normalization),
        missing=missing,
        guess=beside_guess(teacher),
    )


def _diagnose_averages(teacher: Teacher, running: Running) -> Diagnosis:
    """What averages that ran along with chains allow: no R-hat, and no curve over samples."""
    method = teacher.space.method
    chains = method.chains if isinstance(method, ChainConfig) else 1
    missing = _find_missing(teacher, METHODS[method.name].origin, chains)
    labels, average = teacher.dataset.labels("validation"), teacher.averaged("validation")

    values = {"nll": float(-average.log_score(labels).mean())}
    for name in running.single:
        if name != "nll":
            values[name] = METRICS[name].value(average, labels)

    chain_agreement = chain_distance = None
    if "agreement between chains" not in missing:
        chain_agreement, chain_distance = between_averages(running.chain_probs)
    kinetic = None
    if "kinetic temperature" not in missing:
        kinetic = _measure_kinetic(teacher)

    return Diagnosis(
        method=method.name,
        origin=METHODS[method.name].origin,
        chains=chains,
        num_samples=teacher.stream.num_samples,
        target_temperature=float(getattr(method, "temperature", 1.0)),
        mixing={},
        agreement=chain_agreement,
        total_variation=chain_distance,
        kinetic=kinetic,
        configurational=None,
        single=running.single,
        average=values,
        curve=[],
        missing=missing,
        guess=beside_guess(teacher),
    )


def _measure_kinetic(teacher: Teacher) -> Temperature:
    """From the momenta of the chains' last states."""
    momenta = [torch.from_numpy(momentum) for momentum in teacher.stream.states("momentum")]
    mass = float(getattr(teacher.space.method, "mass", 1.0))
    return kinetic_temperature(torch.stack(momenta), mass)


def _mean_over_samples(metric: Metric, teacher: Teacher) -> float:
    """A metric of every posterior sample alone, averaged over them."""
    labels = teacher.dataset.labels("validation")
    values = []
    for predicted_NG in teacher.predicted("validation"):
        alone = averaged(predicted_NG[None], torch.ones(1), teacher.dataset.label_normalization)
        values.append(metric.value(alone, labels))
    return sum(values) / len(values)


def _find_missing(teacher: Teacher, origin: Origin, chains: int) -> dict[str, str]:
    """What this teacher cannot have, and why."""
    stream = teacher.stream
    name = teacher.space.method.name
    draws = stream.num_samples // chains
    missing = {}

    if origin == "given":
        missing["R-hat and ESS"] = (
            "nothing is known of which chain an imported sample is from, or of their order"
        )
    elif origin == "optimized":
        missing["R-hat and ESS"] = (
            f"the samples of {name} are trained points, not draws: they cannot mix"
        )
    elif origin == "copied":
        missing["R-hat and ESS"] = (
            f"the samples of {name} are copies of those of another method: `teacher info` of that "
            "method says whether they mix"
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
    elif teacher.space.module is not None and not teacher.space.module.is_bound:
        missing["configurational temperature"] = "its module is built in Python alone"
    elif stream.num_samples < 2:
        missing["configurational temperature"] = "there is one sample"
    if not stream.is_stored:
        missing["R-hat and ESS"] = NOT_STORED
        missing["configurational temperature"] = NOT_STORED
    return missing


def _choose_indices(num: int, most: int, teacher: Teacher, what: str) -> Tensor:
    """At most ``most`` of ``num`` indices, in rising order, always the same ones."""
    if num <= most:
        return torch.arange(num)

    generator = rng.generator(teacher.space.seed, "diagnosis", what)
    return torch.randperm(num, generator=generator)[:most].sort().values


def _choose_predictions(teacher: Teacher, predicted_SNG: Tensor) -> dict[str, Tensor]:
    """A subset of the probabilities of classes, or of the means of real labels, each (S, Q).

    Means are in the label's normalized unit.
    """
    if teacher.dataset.task == "regression":
        means = predicted_SNG[..., 0]
        index = _choose_indices(means.shape[1], MAX_QUANTITIES, teacher, "means")
        return {"means": means[:, index].double()}

    log_prob = predicted_SNG.flatten(1)
    index = _choose_indices(log_prob.shape[1], MAX_QUANTITIES, teacher, "probabilities")
    return {"probabilities": log_prob[:, index].double().exp()}


def _choose_weights(teacher: Teacher) -> Tensor:
    """A subset of the parameters of every posterior sample, (S, Q)."""
    stream = teacher.stream
    index = _choose_indices(num_params(stream.key.shapes), MAX_WEIGHTS, teacher, "weights")

    rows = []
    for sample in range(stream.num_samples):
        teacher.session.raise_if_stopped()
        rows.append(stream.theta(sample)[index])
    return torch.stack(rows)


def _measure_configurational(teacher: Teacher) -> Temperature:
    """From full gradients at a few posterior samples, spread over stream and chains; c is zero.

    Beyond ``MAX_EXAMPLES`` training examples the gradient is that of a fresh random subset of them,
    unbiased.
    """
    stream, session, method = teacher.stream, teacher.session, teacher.space.method
    key = stream.key
    problem = posterior(teacher.space, teacher.dataset, device=session.device)
    examples = _choose_indices(problem.num_examples, MAX_EXAMPLES, teacher, "examples")
    examples = examples.to(session.device)

    num = min(stream.num_samples, MAX_GRADIENTS)
    macs = largest_product(teacher.space.family, key.shapes, key.input_shape, len(examples))
    chains = method.chains if isinstance(method, ChainConfig) else 1
    virial: list[Tensor] = []
    chain: list[int] = []
    with threads_for(macs):
        for i in range(num):
            session.raise_if_stopped()
            # from the first sample to the last one, so that all chains and times have their share
            sample = round(i * (stream.num_samples - 1) / (num - 1))
            flat = FlatParams(key.shapes, stream.theta(sample).to(session.device))
            gradient = flat.gradient(partial(problem.potential, index_B=examples))
            virial.append(flat.theta_W.double() @ gradient.double())
            chain.append(sample % chains)
            session.progress("gradients", i + 1, num)

    return configurational_temperature(
        torch.stack(virial).cpu(), num_params(key.shapes), torch.tensor(chain)
    )
