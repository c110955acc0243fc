"""The verdict on made diagnoses and made draws: each criterion alone, at both of its bounds."""

import dataclasses
import math

import pytest
import torch

from gped_nas import rng
from gped_nas.api.diagnosis import Diagnosis
from gped_nas.api.guess import BesideGuess
from gped_nas.api.mixing import Mixing, between_chains, by_chain, mixing_of
from gped_nas.api.verdict import judge
from gped_nas.posterior.diagnostics import Temperature

GOOD = Mixing(
    num=100,
    num_constant=0,
    num_not_finite=0,
    rhat=(1.0, 1.01, 1.02),
    above=0.0,
    ess=(400.0, 300.0, 200.0),
)
SOUND = Diagnosis(
    method="sgld",
    origin="chain",
    chains=4,
    num_samples=1000,
    target_temperature=1.0,
    mixing={
        "probabilities": GOOD,
        "log_likelihood": GOOD,
        "weights": dataclasses.replace(GOOD, above=1.0),
    },
    agreement=0.99,
    total_variation=0.02,
    kinetic=Temperature(1.01, 0.99, 1.03, 5000),
    configurational=Temperature(1.05, 0.95, 1.15, 16),
    single={"accuracy": 0.9, "nll": 0.5},
    average={"accuracy": 0.95, "nll": 0.2},
    curve=[[1.0, 0.5]],
)


def change_mixing(**changes: object) -> dict[str, object]:
    """The change of a diagnosis that changes the mixing of its probabilities."""
    return {"mixing": {**SOUND.mixing, "probabilities": dataclasses.replace(GOOD, **changes)}}


CASES = {
    "a few chains disagree": (
        change_mixing(above=0.06),
        "usable with care",
        "6% of the probabilities have R-hat above 1.1",
    ),
    "chains disagree": (
        change_mixing(above=0.3, disagree=0.26),
        "do not trust",
        "chains disagree: 30% of the probabilities",
    ),
    "short chains that may disagree by chance": (
        change_mixing(above=0.30, disagree=0.25),
        "usable with care",
        "30% of the probabilities have R-hat above 1.1, which chains as short as these may have",
    ),
    "few effective samples": (
        change_mixing(ess=(99.0, 9.0, 9.0)),
        "usable with care",
        "99 effective samples of 1000",
    ),
    "hardly any": (change_mixing(ess=(9.4, 9.0, 9.0)), "do not trust", "9 effective samples"),
    "not finite": (
        change_mixing(num_not_finite=1),
        "do not trust",
        "1 of 100 probabilities are not finite",
    ),
    "stuck": (
        change_mixing(num_constant=100, rhat=None, ess=None),
        "do not trust",
        "none of the probabilities changes",
    ),
    "predictions differ": (
        {"total_variation": 0.11},
        "usable with care",
        "total variation 0.11, agreement 99.0%",
    ),
    "predictions differ much": ({"total_variation": 0.26}, "do not trust", "total variation 0.26"),
    "warm": (
        {"kinetic": Temperature(1.2, 1.11, 1.3, 9)},
        "usable with care",
        "kinetic temperature is 1.20 [1.11",
    ),
    "hot": (
        {"kinetic": Temperature(1.8, 1.51, 2.0, 9)},
        "do not trust",
        "kinetic temperature is 1.80",
    ),
    "cold": (
        {"configurational": Temperature(0.3, 0.2, 0.49, 9)},
        "do not trust",
        "configurational temperature is 0.30",
    ),
    "tempered": ({"target_temperature": 0.98}, "usable with care", "targets temperature 0.98"),
    "an optimizer": ({"target_temperature": 0.0}, "do not trust", "temperature 0"),
    "one chain": (
        {"chains": 1, "agreement": None, "total_variation": None},
        "usable with care",
        "one chain",
    ),
    "fitted": ({"origin": "fitted", "method": "vi"}, "usable with care", "the law that vi fits"),
    "fits that disagree": (
        {"origin": "fitted", **change_mixing(above=0.3, disagree=0.26)},
        "do not trust",
        "fits disagree",
    ),
    "a fit's temperature": (
        {"origin": "fitted", "configurational": Temperature(9.0, 8.0, 10.0, 9)},
        "usable with care",
        "bias",
    ),
    "an ensemble": ({"origin": "optimized", "mixing": {}}, "usable with care", "trained points"),
    "an import": ({"origin": "given", "mixing": {}}, "usable with care", "imported"),
    "one point": (
        {"origin": "optimized", "num_samples": 1, "mixing": {}},
        "do not trust",
        "single posterior sample",
    ),
    "too few draws": (
        {"mixing": {}, "missing": {"R-hat and ESS": "2 draws a chain"}},
        "do not trust",
        "unknown: 2 draws a chain",
    ),
}


def test_a_sound_posterior_is_trusted_whatever_its_weights_do() -> None:
    verdict = judge(SOUND)
    assert verdict.level == "trusted"
    assert verdict.sentence == (
        "Trusted: 4 chains agree (R-hat above 1.1 for 0.0% of the predictions), with 400 effective "
        "samples in the median and temperatures as they should be."
    )


@pytest.mark.parametrize("case", CASES)
def test_each_criterion_alone(case: str) -> None:
    changes, level, says = CASES[case]
    verdict = judge(dataclasses.replace(SOUND, **changes))
    assert verdict.level == level
    assert says in verdict.sentence
    assert verdict.sentence.count(".") > verdict.sentence.count("1.1")
    assert "\n" not in verdict.sentence


@pytest.mark.parametrize(
    "changes",
    [
        change_mixing(above=0.05),
        change_mixing(ess=(100.0, 9.0, 9.0)),
        {"total_variation": 0.1},
        {"kinetic": Temperature(1.2, 1.09, 1.3, 9)},
        {"kinetic": None, "configurational": None},
        {"configurational": Temperature(9.0, None, None, 16, "one chain")},
    ],
)
def test_what_is_just_within_bounds_is_trusted(changes: dict[str, object]) -> None:
    assert judge(dataclasses.replace(SOUND, **changes)).level == "trusted"


def test_the_worst_reason_comes_first() -> None:
    verdict = judge(dataclasses.replace(SOUND, chains=1, target_temperature=0.0))
    assert verdict.sentence.startswith("Do not trust: temperature 0")
    assert "one chain" in verdict.sentence


@pytest.mark.parametrize(("shift", "level"), [(0.0, "trusted"), (3.0, "do not trust")])
def test_made_streams_are_told_apart(shift: float, level: str) -> None:
    """Two chains draw from one law, or sit in modes of their own, ``shift`` apart."""
    logits = torch.randn(400, 20, 3, generator=rng.generator(0, "made"))
    logits[::2, :, 0] += shift
    log_prob = logits.log_softmax(-1)

    prob = log_prob.flatten(1).double().exp()
    agreement, distance = between_chains(log_prob, torch.full((400,), 1 / 400), 2)
    diagnosis = dataclasses.replace(
        SOUND,
        chains=2,
        num_samples=400,
        mixing={
            "probabilities": mixing_of(by_chain(prob, 2)),
            "log_likelihood": mixing_of(by_chain(log_prob[..., 0], 2)),
        },
        agreement=agreement,
        total_variation=distance,
    )

    assert judge(diagnosis).level == level
    assert (distance > 0.25) == (shift > 0)


def short_chains(num: int, **law: float) -> list[str]:
    """Levels of teachers of 4 chains x 25 draws of three correlated factors a quantity."""
    generator = rng.generator(0, "short", str(law))
    levels = []
    for _ in range(num):
        correlation, apart = law.get("correlation", 0.0), law.get("apart", 0.0)
        noise = torch.randn(4, 25, 3, generator=generator).double()
        draws = [torch.randn(4, 3, generator=generator).double()]
        for t in range(1, 25):
            moved = (1 - correlation**2 + law.get("walk", 0.0)) ** 0.5 * noise[:, t]
            draws.append(correlation * draws[-1] + moved)
        factors = torch.stack(draws, 1) + apart * torch.randn(4, 1, 3, generator=generator)
        mixing = mixing_of(factors @ torch.randn(3, 60, generator=generator).double())
        made = dataclasses.replace(
            SOUND, num_samples=100, mixing={"probabilities": mixing, "log_likelihood": mixing}
        )
        levels.append(judge(made).level)
    return levels


def test_short_chains_that_have_converged_are_judged_by_their_effective_samples() -> None:
    # about 38 effective samples of 100: between the bounds 10 and 100
    levels = short_chains(100, correlation=0.5)
    assert levels.count("usable with care") >= 90
    assert "trusted" not in levels


@pytest.mark.parametrize(
    "law", [{"correlation": 1.0, "walk": 1.0}, {"apart": 2.0}, {"apart": 2.0, "correlation": 0.5}]
)
def test_short_chains_that_walk_or_sit_apart_are_not_trusted(law: dict[str, float]) -> None:
    assert short_chains(50, **law).count("do not trust") >= 49


def test_draws_of_interleaved_chains_are_put_apart() -> None:
    samples = torch.arange(6.0)[:, None]  # sample s is draw s // 2 of chain s % 2
    assert by_chain(samples, 2)[..., 0].tolist() == [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]


def test_constants_and_numbers_that_are_not_finite_are_counted_and_left_out() -> None:
    draws = torch.randn(2, 10, 4, generator=rng.generator(0, "edges"))
    draws[..., 0] = 1.0
    draws[0, 0, 1] = torch.nan
    # each chain is constant, at a place of its own
    draws[0, :, 2] = 0.0
    draws[1, :, 2] = 1.0

    mixing = mixing_of(draws)
    assert (mixing.num, mixing.num_constant, mixing.num_not_finite, mixing.above) == (4, 1, 1, 0.5)
    assert mixing.rhat is not None and mixing.rhat[2] == math.inf and mixing.rhat[0] < 2
    assert mixing_of(torch.ones(2, 10, 4)).ess is None

    plain = dataclasses.replace(SOUND, mixing={"probabilities": mixing}).to_json()
    assert plain["mixing"]["probabilities"]["rhat"][2] is None


def test_quantiles_are_what_so_many_reach() -> None:
    draws = torch.randn(2, 50, 100, generator=rng.generator(0, "quantiles"))
    mixing = mixing_of(draws)
    assert mixing.rhat is not None and mixing.ess is not None
    assert mixing.rhat[0] < mixing.rhat[1] < mixing.rhat[2]
    assert mixing.ess[0] > mixing.ess[1] > mixing.ess[2]


def test_a_teacher_that_is_not_better_than_a_guess_is_not_trusted() -> None:
    better = BesideGuess(nll=2.3, above=(-2.1, -2.2, -2.0), is_better=True, n=300)
    assert judge(dataclasses.replace(SOUND, guess=better)).level == "trusted"

    alike = BesideGuess(nll=0.201, above=(-0.001, -0.01, 0.01), is_better=False, n=300)
    verdict = judge(dataclasses.replace(SOUND, guess=alike))
    assert verdict.level == "do not trust"
    assert "NLL is 0.2, the guess's 0.201 (paired difference -0.001 [-0.01, 0.01], n = 300)" in (
        verdict.sentence
    )

    infinite = BesideGuess(nll=2.3, above=None, is_better=False, n=300)
    changes = {"guess": infinite, "average": {"nll": math.inf, "accuracy": 0.9}}
    assert "NLL is inf, the guess's 2.3." in judge(dataclasses.replace(SOUND, **changes)).sentence
