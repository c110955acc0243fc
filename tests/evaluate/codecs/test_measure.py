"""Averages, spread, detection, draws and copies of a code beside a chain that it has not seen."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from gped_nas.evaluate.codecs.answers import rank_correlation, ratio_of_means
from gped_nas.evaluate.codecs.measure import MEASURES, Asked, drawn_from, measure_code
from gped_nas.evaluate.codecs.nearest import nearness
from gped_nas.evaluate.codecs.networks import Networks
from gped_nas.evaluate.resamples import draw_resamples
from tests.evaluate.codecs import oracles

N, M, C = 120, 20, 3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def some_logits(num, seed, spread=1.0):
    """Networks around one function, at N + M inputs, of which the last M are uncertain."""
    base = torch.randn(N + M, C, generator=generator(99), dtype=torch.float64) * 2
    noise = torch.randn(num, N + M, C, generator=generator(seed), dtype=torch.float64)
    scale = torch.ones(N + M, 1, dtype=torch.float64) * 0.5
    scale[N:] = 2.0
    return base + spread * scale * noise


def asked(logits, is_drawn=True, weights=None):
    log_prob = logits.log_softmax(-1)
    weights = torch.ones(len(logits)) if weights is None else weights
    inside, outside = (
        Networks(part, weights, is_drawn=is_drawn) for part in (log_prob[:, :N], log_prob[:, N:])
    )
    return Asked(probe=outside, inside=inside, outside=outside)


def labels():
    base = some_logits(1, 5, spread=0.3)[0, :N]
    return base.argmax(-1).numpy()


def measured(code, held_out, seen):
    return measure_code(
        code,
        held_out,
        seen,
        labels(),
        resamples=draw_resamples(N, root=0, part="validation"),
        bandwidth=2.0,
        generator=generator(),
    )


def test_every_measure_is_there_in_order_with_its_size():
    seen, held_out = asked(some_logits(20, 1)), asked(some_logits(15, 2))

    measures = measured(asked(some_logits(10, 3)), held_out, seen)

    assert tuple(measures) == MEASURES
    assert measures["average_kl"].n == N
    assert measures["energy"].n == 10
    assert measures["ood_auroc_model"].n == N + M
    assert "other seeds" in measures["energy"].why


def test_the_held_out_chain_itself_loses_nothing():
    seen, held_out = asked(some_logits(20, 1)), asked(some_logits(15, 2))

    measures = measured(held_out, held_out, seen)

    for name in ("average_kl", "average_tv", "average_nll_difference", "draw_nll_difference"):
        assert measures[name].value == pytest.approx(0, abs=1e-12)
    for name in ("entropy_ratio", "information_ratio", "information_spearman", "nearest_ratio"):
        assert measures[name].value == pytest.approx(1)
    assert measures["energy_p"].value == 1.0
    assert measures["copied_share"].value == 0.0


def test_averages_are_those_of_plain_probabilities():
    code, held_out = asked(some_logits(4, 3)), asked(some_logits(5, 2))

    measures = measured(code, held_out, held_out)

    mine, theirs = (each.inside.log_prob_SMC.exp().mean(0) for each in (code, held_out))
    kl = (theirs * (theirs / mine).log()).sum(-1).mean()
    variation = (theirs - mine).abs().sum(-1).mean() / 2
    right = (torch.arange(N), torch.as_tensor(labels()))
    nll = -mine[right].log().mean()
    assert measures["average_kl"].value == pytest.approx(float(kl))
    assert measures["average_tv"].value == pytest.approx(float(variation))
    assert measures["average_nll"].value == pytest.approx(float(nll))
    difference = float(nll + theirs[right].log().mean())
    assert measures["average_nll_difference"].value == pytest.approx(difference)
    assert measures["average_nll_difference"].interval is not None


def test_what_was_read_is_at_no_distance_from_itself_and_its_atoms_near_it():
    seen, held_out = asked(some_logits(20, 1)), asked(some_logits(15, 2))
    half = asked(some_logits(20, 1)[:10], is_drawn=False)

    itself, of_half = (measured(code, held_out, seen) for code in (seen, half))

    assert itself["energy_to_read"].value == pytest.approx(0, abs=1e-12)
    assert itself["average_kl_to_read"].value == pytest.approx(0, abs=1e-12)
    mine, theirs = (each.inside.log_prob_SMC.exp().mean(0) for each in (half, seen))
    kl = (theirs * (theirs / mine).log()).sum(-1).mean()
    assert of_half["average_kl_to_read"].value == pytest.approx(float(kl))
    # as laws of atoms, each compared with itself, too
    # the test takes draws of the atoms, as many as the held-out chain has networks
    assert (of_half["energy"].n, of_half["energy_p"].n) == (10, 15)
    sets = [(list(each.probe.log_prob_SMC), each.probe.weight_S.tolist()) for each in (half, seen)]
    number = oracles.number(oracles.minus_distance, *sets[0], *sets[1], (False, False))
    assert of_half["energy_to_read"].value == pytest.approx(number)


def test_ratios_are_of_weighted_sets():
    weights = torch.tensor([0.5, 0.25, 0.25])
    code = asked(some_logits(3, 3), weights=weights, is_drawn=False)
    held_out = asked(some_logits(5, 2))

    measures = measured(code, held_out, held_out)

    entropies, informations = [], []
    for each in (code, held_out):
        prob = each.inside.log_prob_SMC.exp()
        weight = each.inside.weight_S
        single = -(prob * prob.log()).sum(-1)
        expected = (weight[:, None] * single).sum(0)
        mean = (weight[:, None, None] * prob).sum(0)
        entropies.append(expected.mean())
        informations.append(-(mean * mean.log()).sum(-1) - expected)
    assert measures["entropy_ratio"].value == pytest.approx(float(entropies[0] / entropies[1]))
    ratio = float(informations[0].mean() / informations[1].mean())
    assert measures["information_ratio"].value == pytest.approx(ratio)
    order = spearmanr(informations[0].numpy(), informations[1].numpy()).statistic
    assert measures["information_spearman"].value == pytest.approx(order)


def test_single_draws_are_judged_alone():
    code, held_out = asked(some_logits(4, 3, spread=2.0)), asked(some_logits(5, 2))

    measures = measured(code, held_out, held_out)

    right = (slice(None), torch.arange(N), torch.as_tensor(labels()))
    mine, theirs = (-each.inside.log_prob_SMC[right].mean() for each in (code, held_out))
    assert measures["draw_nll"].value == pytest.approx(float(mine))
    assert measures["draw_nll_difference"].value == pytest.approx(float(mine - theirs))
    assert measures["draw_nll_difference"].low > 0


def test_a_network_without_weight_changes_nothing():
    logits = some_logits(4, 3)
    with_none = torch.cat([logits, torch.full_like(logits[:1], -torch.inf)])
    with_none[-1, :, 0] = 0.0  # it gives most labels no probability
    weights = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])
    held_out = asked(some_logits(5, 2))

    plain = measured(asked(logits, is_drawn=False), held_out, held_out)
    other = measured(asked(with_none, is_drawn=False, weights=weights), held_out, held_out)

    for name in ("energy", "average_kl", "information_ratio", "draw_nll", "ood_auroc_model"):
        assert other[name].value == pytest.approx(plain[name].value), name


def test_copies_are_told_from_new_networks():
    seen = asked(some_logits(30, 1)).probe
    held_out = asked(some_logits(30, 2)).probe
    copies = Networks(seen.log_prob_SMC[:6] + 1e-3, torch.ones(6), is_drawn=True)
    new = asked(some_logits(6, 3)).probe

    of_copies, of_new = nearness(copies, seen, held_out), nearness(new, seen, held_out)

    assert of_copies.copied_share == pytest.approx(1)
    assert of_copies.ratio < 0.01
    assert of_new.copied_share < 0.5
    assert 0.8 < of_new.ratio < 1.2


def test_a_codec_of_no_spread_is_told_by_everything_but_its_average():
    seen, held_out = asked(some_logits(30, 1)), asked(some_logits(30, 2))
    mean = held_out.inside.log_prob_SMC.exp().mean(0).log()
    everywhere = torch.cat([mean, held_out.outside.log_prob_SMC.exp().mean(0).log()])
    point = asked(everywhere[None], is_drawn=False)

    measures = measured(point, held_out, seen)

    assert measures["average_kl"].value == pytest.approx(0, abs=1e-9)
    assert measures["information_ratio"].value == pytest.approx(0, abs=1e-9)
    assert measures["energy_p"].value < 0.01
    assert measures["energy"].value > 0.5


def test_draws_of_a_weighted_set_follow_its_weights():
    code = Networks(
        torch.arange(3.0).view(3, 1, 1).log_softmax(0), torch.tensor([6.0, 3, 1]), False
    )

    draws = drawn_from(code, 4000, generator=generator())

    counts = [(draws.log_prob_SMC == value).sum().item() for value in code.log_prob_SMC.flatten()]
    # four standard errors of .6 of 4,000 are .031
    assert np.abs(np.array(counts) / 4000 - [0.6, 0.3, 0.1]).max() < 0.031
    assert draws.is_drawn


def test_the_interval_of_a_ratio_holds_the_truth():
    hits, widths = 0, []
    for seed in range(100):
        source = np.random.default_rng(seed)
        second = source.gamma(2.0, size=100)
        first = 0.8 * second + source.normal(0, 0.3, size=100)
        found = ratio_of_means(
            first, second, draw_resamples(100, root=seed, part="x", num_resamples=200)
        )
        hits += found.low < 0.8 < found.high
        widths.append(found.high - found.low)
    # 100 at .95: four standard errors are .087
    assert hits / 100 > 0.86
    # the noise of both cancels but for .3: 2 x 1.98 x .3 / 2 / sqrt(100) is .06
    assert np.mean(widths) < 0.08


def test_the_interval_of_a_rank_correlation_holds_the_truth():
    # of a bivariate normal with correlation rho it is 6 / pi arcsin(rho / 2)
    truth = 6 / np.pi * np.arcsin(0.7 / 2)
    hits = 0
    for seed in range(300):
        source = np.random.default_rng(seed)
        first = source.normal(size=150)
        second = 0.7 * first + np.sqrt(1 - 0.49) * source.normal(size=150)
        found = rank_correlation(first, second)
        hits += found.low < truth < found.high
    assert hits / 300 > 0.9


def test_what_has_no_ratio_or_order_says_why():
    resamples = draw_resamples(40, root=0, part="x")
    assert "no ratio" in ratio_of_means(np.ones(40), np.zeros(40), resamples).why
    assert "no order" in rank_correlation(np.ones(40), np.arange(40.0)).why
    assert rank_correlation(np.arange(5.0), np.arange(5.0)).value == pytest.approx(1)


def test_draws_in_the_order_of_a_walk_fail_the_runs_test_and_stored_networks_have_none():
    """A walk answers an example rightly for some time, then wrongly."""
    seen, held_out = asked(some_logits(20, 1)), asked(some_logits(15, 2))
    steps = torch.randn(40, N + M, C, generator=generator(7), dtype=torch.float64)
    walk = some_logits(1, 3) + steps.cumsum(0)

    independent = measured(asked(some_logits(40, 3)), held_out, seen)["runs_p"]
    ordered = measured(asked(walk), held_out, seen)["runs_p"]
    stored = measured(asked(walk, is_drawn=False), held_out, seen)["runs_p"]

    assert independent.value > 0.05
    assert ordered.value == pytest.approx(2 / 1000)
    assert stored.value is None and "no draws" in stored.why
