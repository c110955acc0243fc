"""Whether a teacher's posterior can be trusted, in one sentence, by criteria that can be looked up.

A posterior is *trusted* if none of these holds, *not to be trusted* if one holds in its strong
form:

| criterion | use with care | do not trust | why this bound | |---|---|---|---| | function-space
R-hat above 1.1, share | > 5 % | > 25 % | 1.1: Gelman & Rubin; the shares are ours | |
function-space bulk ESS, median | < 100 | < 10 | Monte Carlo error 10 %, 30 % of a posterior std: 1
/ sqrt(ESS) | | total variation between chains | > 0.1 | > 0.25 | ours; 0.1 moves a tenth of the
probability | | temperature, 95 % interval wholly outside | 0.9 T to 1.1 T | 0.5 T to 1.5 T | ours;
10 % is what a step size costs | | draws that are not finite, or that never change | | any, all | |
| one chain | always | | it cannot see what it did not visit | | T other than 1 | always | T = 0 | a
tempered posterior is another posterior | | samples fitted, optimized or imported | always | one
sample | R-hat and ESS cannot see their bias |

R-hat, ESS and total variation of *fitted* laws compare independent fits. Temperatures are judged
for chains only: an approximate law can have the right one. Weight space is not judged: see
``gped_nas.api.diagnosis``. Passing is necessary and not sufficient: no diagnostic sees a mode that
no chain visited.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gped_nas.api.diagnosis import RHAT_BOUND, Diagnosis
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

Finding = tuple[int, str]
"""How bad it is, as an index into ``LEVELS``, and what was found."""


@dataclass(frozen=True)
class Verdict:
    """One of the three levels, and one sentence that says why."""

    level: Level
    sentence: str


def judge(diagnosis: Diagnosis) -> Verdict:
    """The verdict on a diagnosis, by the criteria of the module docstring."""
    found = sorted((f for f in _findings(diagnosis) if f[0]), key=lambda f: -f[0])
    level = LEVELS[max((severity for severity, _ in found), default=0)]
    reasons = [text for _, text in found] or [_all_is_well(diagnosis)]
    return Verdict(level, f"{level.capitalize()}: {'; '.join(reasons)}.")


def _findings(found: Diagnosis) -> Iterator[Finding]:
    yield _of_origin(found)
    if found.num_samples > 1 and found.origin in ("chain", "fitted"):
        if "R-hat and ESS" in found.missing:
            yield 2, f"R-hat and effective samples are unknown: {found.missing['R-hat and ESS']}"
        yield from _of_mixing(found)
        if found.total_variation is not None:
            yield (
                _severity(found.total_variation, MAX_TOTAL_VARIATION),
                f"chains predict differently (total variation {found.total_variation:.2f}, "
                f"agreement {found.agreement:.1%})",
            )
    if found.origin == "chain":
        if found.chains == 1:
            yield 1, "one chain cannot see what it did not visit"
        yield from _of_temperature(found)


def _of_origin(found: Diagnosis) -> Finding:
    if found.num_samples == 1:
        return 2, "a single posterior sample has no uncertainty over parameters"
    text = {
        "chain": "",
        "fitted": f"the law that {found.method} fits has a bias that none of this sees; `teacher compare` measures it",
        "optimized": f"the members of {found.method} are trained points, whose spread is not the posterior's",
        "given": "nothing is known of how the imported samples were drawn",
    }[found.origin]
    return int(found.origin != "chain"), text


def _of_mixing(found: Diagnosis) -> Iterator[Finding]:
    who = "fits" if found.origin == "fitted" else "chains"
    for name, (one, words) in _FUNCTION_SPACE.items():
        if name not in found.mixing:
            continue
        mixing = found.mixing[name]
        if mixing.num_not_finite:
            yield 2, f"{mixing.num_not_finite} of {mixing.num} {words} are not finite in every draw"
        if mixing.ess is None:
            yield 2, f"none of the {words} changes from draw to draw"
            continue
        yield (
            _severity(mixing.above, MAX_SHARE_ABOVE),
            f"{who} disagree: {mixing.above:.0%} of the {words} have R-hat above {RHAT_BOUND}",
        )
        median = mixing.ess[0]
        yield (
            2 if median < MIN_ESS[1] else int(median < MIN_ESS[0]),
            f"the median {one} has {median:.0f} effective samples of {found.num_samples}",
        )


def _of_temperature(found: Diagnosis) -> Iterator[Finding]:
    target = found.target_temperature
    if target == 0:
        yield 2, "temperature 0 optimizes, it does not sample"
        return
    if target != 1:
        yield 1, f"it targets temperature {target:g}, not the Bayes posterior"
    for name, temperature in (
        ("kinetic", found.kinetic),
        ("configurational", found.configurational),
    ):
        if temperature is not None:
            yield (
                _severity(_off(temperature, target), TEMPERATURE_SLACK),
                f"the {name} temperature is {temperature.value:.2f} "
                f"[{temperature.low:.2f}, {temperature.high:.2f}], expected {target:g}",
            )


def _off(temperature: Temperature, target: float) -> float:
    """Relative distance of the nearest end of the interval from the target; 0 inside."""
    return max(temperature.low - target, target - temperature.high, 0.0) / target


def _severity(value: float, bounds: tuple[float, float]) -> int:
    """0, 1 or 2: how many of the rising bounds are exceeded. A number that is not finite exceeds
    all.
    """
    return sum(not value <= bound for bound in bounds)


def _all_is_well(found: Diagnosis) -> str:
    judged = [found.mixing[name] for name in _FUNCTION_SPACE if name in found.mixing]
    above = max(mixing.above for mixing in judged)
    ess = min(mixing.ess[0] for mixing in judged if mixing.ess)
    return (
        f"{found.chains} chains agree (R-hat above {RHAT_BOUND} for {above:.1%} of the "
        "predictions), with "
        f"{ess:.0f} effective samples in the median and temperatures as they should be"
    )
