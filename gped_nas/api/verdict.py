"""Whether a teacher's posterior can be trusted, in one sentence, by criteria that can be looked up.

A posterior is *trusted* if none of these holds, *not to be trusted* if one holds in its strong
form:

| criterion                                      | use with care  | do not trust   | why        |
|------------------------------------------------|----------------|----------------|------------|
| function-space R-hat above 1.1, share          | > 5 %          |                | (a)        |
| the same, and above chance, share              |                | > 25 %         | (a)        |
| function-space bulk ESS, median                | < 100          | < 10           | (b)        |
| total variation between chains                 | > 0.1          | > 0.25         | (c)        |
| temperature, 95 % interval wholly outside      | 0.9 T to 1.1 T | 0.5 T to 1.5 T | (d)        |
| draws that are not finite, or that never change|                | any, all       |            |
| one chain                                      | always         |                | (e)        |
| T other than 1                                 | always         | T = 0          | (f)        |
| samples fitted, optimized or imported          | always         | one sample     | (g)        |
| NLL not below that of a guess                  |                | always         | (h)        |

* (a) 1.1 is Gelman & Rubin's bound; the shares are ours. Short chains of one law exceed it by
  chance, all the more if their draws are correlated: that is a matter of effective samples, (b).
  What chance explains ends at 1.3 at the latest: see ``posterior.diagnostics.chance_rhat``.
* (b) The Monte Carlo error is 10 % and 30 % of a posterior std: 1 / sqrt(ESS).
* (c) Ours; 0.1 moves a tenth of the probability.
* (d) Ours; 10 % is what a step size costs.
* (e) One chain cannot see what it did not visit.
* (f) A tempered posterior is another posterior.
* (g) R-hat and ESS cannot see their bias.
* (h) The guess knows the training labels alone. The 95 % interval of the paired difference on
  validation must lie below 0. Chains agree best where networks see nothing of the input.

R-hat, ESS and total variation of *fitted* laws compare independent fits. Temperatures are judged
for chains only: an approximate law can have the right one. Weight space is not judged: see
``gped_nas.api.diagnosis``. Passing is necessary and not sufficient: no diagnostic sees a mode that
no chain visited.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gped_nas.api.diagnosis import Diagnosis
from gped_nas.api.mixing import RHAT_BOUND, Mixing
from gped_nas.posterior.diagnostics import Temperature

Level = Literal["trusted", "usable with care", "do not trust"]
LEVELS: tuple[Level, Level, Level] = ("trusted", "usable with care", "do not trust")

MAX_SHARE_ABOVE = (0.05, 0.25)
MIN_ESS = (100.0, 10.0)
MAX_TOTAL_VARIATION = (0.1, 0.25)
TEMPERATURE_SLACK = (0.1, 0.5)
_FUNCTION_SPACE = {
    "probabilities": ("probability", "probabilities"),
    "means": ("predicted mean", "predicted means"),
    "log_likelihood": ("log-likelihood", "log-likelihoods"),
}


class Finding(NamedTuple):
    """What one criterion says: how bad it is, as an index into ``LEVELS``, and the words for it."""

    severity: int
    text: str


@dataclass(frozen=True)
class Verdict:
    """One of the three levels, and one sentence that says why."""

    level: Level
    sentence: str


def judge(diagnosis: Diagnosis) -> Verdict:
    """The verdict on a diagnosis, by the criteria of the module docstring."""
    findings = [finding for finding in _judge_criteria(diagnosis) if finding.severity]
    findings.sort(key=lambda finding: -finding.severity)  # stable: criteria keep their order

    level = LEVELS[findings[0].severity] if findings else LEVELS[0]
    reasons = [finding.text for finding in findings] or [_confirm(diagnosis)]
    return Verdict(level, f"{level.capitalize()}: {'; '.join(reasons)}.")


def _judge_criteria(diagnosis: Diagnosis) -> Iterator[Finding]:
    yield from _judge_beside_guess(diagnosis)
    yield _judge_origin(diagnosis)

    if diagnosis.num_samples > 1 and diagnosis.origin in ("chain", "fitted"):
        if "R-hat and ESS" in diagnosis.missing:
            reason = diagnosis.missing["R-hat and ESS"]
            yield Finding(2, f"R-hat and effective samples are unknown: {reason}")
        yield from _judge_mixing(diagnosis)
        if diagnosis.total_variation is not None:
            yield Finding(
                _count_exceeded(diagnosis.total_variation, MAX_TOTAL_VARIATION),
                f"chains predict differently (total variation {diagnosis.total_variation:.2f}, "
                f"agreement {diagnosis.agreement:.1%})",
            )

    if diagnosis.origin == "chain":
        if diagnosis.chains == 1:
            yield Finding(1, "one chain cannot see what it did not visit")
        yield from _judge_temperature(diagnosis)


def _judge_beside_guess(diagnosis: Diagnosis) -> Iterator[Finding]:
    beside = diagnosis.guess
    if beside is None or beside.is_better:
        return

    text = (
        "it is not better than a guess from the training labels: on validation its NLL is "
        f"{diagnosis.average['nll']:.4g}, the guess's {beside.nll:.4g}"
    )
    if beside.above is not None:
        difference, low, high = beside.above
        text += f" (paired difference {difference:+.3g} [{low:.3g}, {high:.3g}], n = {beside.n:,})"
    yield Finding(2, text)


def _judge_origin(diagnosis: Diagnosis) -> Finding:
    method = diagnosis.method
    if diagnosis.num_samples == 1:
        return Finding(2, "a single posterior sample has no uncertainty over parameters")
    if diagnosis.origin == "fitted":
        return Finding(
            1,
            f"the law that {method} fits has a bias that none of this sees; "
            "`teacher compare` measures it",
        )
    if diagnosis.origin == "optimized":
        return Finding(
            1, f"the members of {method} are trained points, whose spread is not the posterior's"
        )
    if diagnosis.origin == "copied":
        return Finding(
            1,
            f"the samples of {method} are copies of those of another method, whose teacher says "
            "whether they can be trusted",
        )
    if diagnosis.origin == "given":
        return Finding(1, "nothing is known of how the imported samples were drawn")
    return Finding(0, "")


def _judge_mixing(diagnosis: Diagnosis) -> Iterator[Finding]:
    runs = "fits" if diagnosis.origin == "fitted" else "chains"
    for name, (quantity, quantities) in _FUNCTION_SPACE.items():
        mixing = diagnosis.mixing.get(name)
        if mixing is None:
            continue

        if mixing.num_not_finite:
            counts = f"{mixing.num_not_finite} of {mixing.num}"
            yield Finding(2, f"{counts} {quantities} are not finite in every draw")
        if mixing.ess is None:
            yield Finding(2, f"none of the {quantities} changes from draw to draw")
            continue

        yield _judge_disagreement(mixing, runs, quantities)
        median = mixing.ess[0]
        yield Finding(
            sum(median < bound for bound in MIN_ESS),
            f"the median {quantity} has {median:.0f} effective samples of {diagnosis.num_samples}",
        )


def _judge_disagreement(mixing: Mixing, runs: str, quantities: str) -> Finding:
    care, strong = MAX_SHARE_ABOVE
    shares = f"{mixing.above:.0%} of the {quantities} have R-hat above {RHAT_BOUND}"
    # not "share > bound": a NaN must exceed all of them
    if not mixing.disagree <= strong:
        return Finding(2, f"{runs} disagree: {shares}")
    if not mixing.above <= strong:
        return Finding(1, f"{shares}, which {runs} as short as these may have by chance")
    return Finding(int(not mixing.above <= care), f"{runs} disagree: {shares}")


def _judge_temperature(diagnosis: Diagnosis) -> Iterator[Finding]:
    target = diagnosis.target_temperature
    if target == 0:
        yield Finding(2, "temperature 0 optimizes, it does not sample")
        return

    if target != 1:
        yield Finding(1, f"it targets temperature {target:g}, not the Bayes posterior")

    temperatures = {"kinetic": diagnosis.kinetic, "configurational": diagnosis.configurational}
    for name, temperature in temperatures.items():
        # without an interval nothing speaks against a temperature
        if temperature is not None and temperature.low is not None:
            yield Finding(
                _count_exceeded(_miss(temperature, target), TEMPERATURE_SLACK),
                f"the {name} temperature is {temperature.value:.2f} "
                f"[{temperature.low:.2f}, {temperature.high:.2f}], expected {target:g}",
            )


def _miss(temperature: Temperature, target: float) -> float:
    """Relative distance of the nearest end of the interval from the target; 0 inside."""
    assert temperature.low is not None and temperature.high is not None
    return max(temperature.low - target, target - temperature.high, 0.0) / target


def _count_exceeded(value: float, bounds: tuple[float, float]) -> int:
    """0, 1 or 2: how many of the rising bounds are exceeded."""
    # not "value > bound": a NaN must exceed all of them
    return sum(not value <= bound for bound in bounds)


def _confirm(diagnosis: Diagnosis) -> str:
    """What is said of a posterior that no criterion speaks against."""
    mixings = [diagnosis.mixing[name] for name in _FUNCTION_SPACE if name in diagnosis.mixing]
    above = max(mixing.above for mixing in mixings)
    ess = min(mixing.ess[0] for mixing in mixings if mixing.ess)
    return (
        f"{diagnosis.chains} chains agree (R-hat above {RHAT_BOUND} for {above:.1%} of the "
        f"predictions), with {ess:.0f} effective samples in the median and temperatures as they "
        "should be"
    )
