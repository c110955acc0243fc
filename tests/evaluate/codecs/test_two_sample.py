"""Energy distance, MMD and their test against slow loops, closed forms and the test's own level."""

import math

import pytest
import torch

from gped_nas.errors import ConfigError, DataError
from gped_nas.evaluate.codecs.networks import LEAST_LOG_PROB, Networks, distances
from gped_nas.evaluate.codecs.two_sample import (
    _by_energy,
    _by_gauss,
    _orders,
    law_distance,
    median_distance,
    permutation_test,
    two_sample_tests,
)
from tests.evaluate.codecs import oracles


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def networks(num, *, seed=0, shift=0.0, inputs=3, classes=4, weighted=False, is_drawn=True):
    source = generator(seed)
    logits = torch.randn(num, inputs, classes, generator=source, dtype=torch.float64)
    logits[..., 0] += shift
    weights = torch.rand(num, generator=source) if weighted else torch.ones(num)
    return Networks(logits.log_softmax(-1), weights, is_drawn=is_drawn)


def test_a_distance_is_the_root_mean_square_over_inputs_of_floored_log_probabilities():
    first, second = networks(3), networks(2, seed=1)
    first.log_prob_SMC[0, 0, 0] = -math.inf

    found = distances(first, second)

    for i in range(3):
        for j in range(2):
            expected = oracles.distance(first.log_prob_SMC[i], second.log_prob_SMC[j])
            assert float(found[i, j]) == pytest.approx(expected, rel=1e-12)
    assert first.floored_SMC[0, 0, 0] == LEAST_LOG_PROB


@pytest.mark.parametrize("drawn", [(True, True), (False, True), (False, False)])
def test_energy_and_mmd_are_those_of_a_loop_over_pairs(drawn):
    first = networks(5, weighted=True, is_drawn=drawn[0])
    second = networks(4, seed=1, shift=1.0, weighted=True, is_drawn=drawn[1])

    found = law_distance(first, second, bandwidth=1.3)

    sets = [(list(each.log_prob_SMC), each.weight_S.tolist()) for each in (first, second)]
    for value, likeness in (
        (found.energy, oracles.minus_distance),
        (found.mmd, oracles.gauss(1.3)),
    ):
        expected = oracles.number(likeness, *sets[0], *sets[1], drawn)
        assert value == pytest.approx(expected, rel=1e-10)


def test_the_energy_distance_of_two_single_networks_is_twice_their_distance():
    first, second = (networks(1, seed=seed, is_drawn=False) for seed in (0, 1))

    found = law_distance(first, second, bandwidth=1.0)

    apart = float(distances(first, second)[0, 0])
    assert found.energy == pytest.approx(2 * apart)
    assert found.mmd == pytest.approx(2 - 2 * math.exp(-(apart**2) / 2))


def test_a_set_that_is_the_law_itself_is_at_no_distance_from_itself():
    code = networks(6, weighted=True, is_drawn=False)

    found = law_distance(code, code, bandwidth=1.0)

    assert found.energy == pytest.approx(0, abs=1e-12)
    assert found.mmd == pytest.approx(0, abs=1e-12)


def test_draws_of_one_law_are_at_no_distance_on_average():
    # biased means would add E|x - x'| / 5 of each set, about .6
    values = []
    for seed in range(200):
        first, second = networks(5, seed=2 * seed), networks(5, seed=2 * seed + 1)
        values.append(law_distance(first, second, bandwidth=1.0).energy)
    values = torch.tensor(values)
    error = float(values.std() / len(values) ** 0.5)
    assert abs(float(values.mean())) < 4 * error
    assert error < 0.02


@pytest.mark.parametrize("sizes", [(4, 4), (3, 6)])
def test_the_permutation_test_is_that_of_a_loop_over_permutations(sizes):
    first, second = networks(sizes[0], shift=0.7), networks(sizes[1], seed=1)
    pooled = torch.cat([first.log_prob_SMC, second.log_prob_SMC])
    both = Networks(pooled, torch.ones(len(pooled)), is_drawn=True)
    orders = _orders(len(pooled), 60, generator())
    distance = distances(both, both)

    for likeness, slow in (
        (_by_energy(distance), oracles.minus_distance),
        (_by_gauss(distance, 0.8), oracles.gauss(0.8)),
    ):
        found = permutation_test(likeness, sizes[0], orders)
        assert found.p_value == oracles.p_value(slow, list(pooled), sizes[0], orders.tolist())


def test_the_seen_order_counts_itself_so_that_no_p_value_is_zero():
    first, second = networks(12, shift=30.0), networks(12, seed=1)

    tests = two_sample_tests(first, second, 1.0, generator=generator(), num_permutations=99)

    assert tests.energy.p_value == pytest.approx(0.01)
    assert tests.mmd.p_value == pytest.approx(0.01)


def test_copies_of_one_network_are_not_told_apart():
    log_prob = networks(1).log_prob_SMC.expand(8, -1, -1)
    same = Networks(log_prob, torch.ones(8), is_drawn=True)

    tests = two_sample_tests(same, same, 1.0, generator=generator(), num_permutations=50)

    assert tests.energy.p_value == 1.0
    assert tests.mmd.p_value == 1.0


def rejected_share(num_tests, *, shift, level):
    """Share of tests of both kinds whose p-value is at most the level."""
    hits = torch.zeros(2)
    for seed in range(num_tests):
        first = networks(12, seed=2 * seed, shift=shift)
        second = networks(9, seed=2 * seed + 1)
        tests = two_sample_tests(first, second, 1.0, generator=generator(seed), num_permutations=99)
        hits += torch.tensor([tests.energy.p_value <= level, tests.mmd.p_value <= level])
    return (hits / num_tests).tolist()


def test_the_test_keeps_its_level_and_finds_a_shift():
    # 150 tests at .1: four standard errors are .098
    assert max(rejected_share(150, shift=0.0, level=0.1)) < 0.198
    assert min(rejected_share(40, shift=2.5, level=0.1)) > 0.9


@pytest.mark.soak
@pytest.mark.parametrize("level", [0.01, 0.05, 0.2, 0.5])
def test_the_test_is_calibrated(level):
    # 4,000 tests: four standard errors of .05 are .014; with 99 permutations levels are exact
    error = math.sqrt(level * (1 - level) / 4000)
    for share in rejected_share(4000, shift=0.0, level=level + 1e-12):
        assert abs(share - level) < 4 * error


def test_the_bandwidth_is_the_median_of_pairs():
    code = networks(4)
    pairs = [
        oracles.distance(code.log_prob_SMC[i], code.log_prob_SMC[j])
        for i in range(4)
        for j in range(i)
    ]
    assert median_distance(code) == pytest.approx(sorted(pairs)[2])


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: networks(2).check_like(networks(2, inputs=5)), DataError, "the same of both"),
        (lambda: law_distance(networks(2), networks(1), 1.0), DataError, "one draw of a law"),
        (lambda: law_distance(networks(2), networks(2), 0.0), ConfigError, "more than 0"),
        (lambda: median_distance(networks(1)), DataError, "at least two"),
        (
            lambda: two_sample_tests(networks(1), networks(3), 1.0, generator=generator()),
            DataError,
            "sets of 1 and 3",
        ),
        (
            lambda: two_sample_tests(
                networks(2), networks(3), 1.0, generator=generator(), num_permutations=0
            ),
            ConfigError,
            "found 0",
        ),
        (lambda: Networks(torch.zeros(2, 3, 4), torch.ones(3), True), DataError, "weights"),
        (lambda: Networks(torch.zeros(2, 3, 4), -torch.ones(2), True), DataError, "not negative"),
    ],
)
def test_what_is_no_two_sets_is_refused(act, error, message):
    with pytest.raises(error, match=message):
        act()


def test_most_networks_alike_have_no_bandwidth():
    log_prob = networks(1).log_prob_SMC.expand(5, -1, -1)
    with pytest.raises(DataError, match="no distance"):
        median_distance(Networks(log_prob, torch.ones(5), is_drawn=True))
