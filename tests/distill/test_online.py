"""The published algorithm: students in step with a chain."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from gped_nas import rng
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.kernel import distill
from gped_nas.distill.online import online_batches
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import ConfigError
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.posterior.base import METHODS, unflatten
from gped_nas.targets.base import resolve
from gped_nas.targets.layout import HeadLayout
from tests.scenarios import TEACHER, classifier, sgld_config

CPU = torch.device("cpu")
NAMES = resolve(("predictive", "expected_entropy"))
PROBLEM = classifier()


def thetas(num=None):
    steps = METHODS["sgld"](PROBLEM, sgld_config(), generator=rng.generator(0, "posterior", 0))
    return itertools.islice((s.sample.theta_W for s in steps if s.sample), num)


def predict(theta_W, x):
    params = unflatten(theta_W, PROBLEM.shapes)
    return F.log_softmax(FAMILIES[TEACHER.family].forward(params, x), -1)


def noisy(number):
    generator = rng.generator(0, "noise", number)
    return PROBLEM.x + 0.1 * torch.randn(PROBLEM.x.shape, generator=generator)


def feed(update="newest", num=None, root=0):
    recipe = Recipe(mode="online", update=update, batch_size=8, steps=30)
    return online_batches(thetas(num), predict, noisy, NAMES, recipe, root=root, device=CPU)


def test_each_batch_is_what_the_newest_state_says():
    for (x, expectations), theta in zip(itertools.islice(feed(), 7), thetas(7), strict=True):
        torch.testing.assert_close(expectations["predictive"], predict(theta, x).exp())
        assert expectations["expected_entropy"].shape == (8, 1)


def test_inputs_are_drawn_anew_in_each_pass_and_seen_once_in_it():
    """24 inputs, 8 a batch: three batches a pass."""
    inputs = [x for x, _ in itertools.islice(feed(), 6)]
    for number in (0, 1):
        rows = torch.cat(inputs[3 * number : 3 * number + 3]).tolist()
        expected = noisy(number).tolist()
        assert sorted(rows) == sorted(expected)
    assert not torch.equal(noisy(0), noisy(1))


def test_the_running_mean_keeps_its_inputs():
    """In the second pass each mean is of two states at the very same input."""
    batches = list(itertools.islice(feed("running_mean"), 6))
    states = list(thetas(6))
    row_numbers = {tuple(row.tolist()): i for i, row in enumerate(noisy(0))}
    earlier = {}
    for i, (x, expectations) in enumerate(batches):
        for row, mean in zip(x, expectations["predictive"], strict=True):
            key = row_numbers[tuple(row.tolist())]
            newest = predict(states[i], row[None]).exp()[0]
            expected = newest if i < 3 else (earlier[key] + newest) / 2
            assert (mean - expected).abs().max() < 1e-6
            earlier.setdefault(key, newest)


def test_a_student_is_the_same_alone_and_among_siblings():
    recipe = Recipe(mode="online", batch_size=8, steps=30, warmup=0)
    data = DistillationSet(noisy(0), {}, HeadLayout(NAMES, 3))
    genotypes = [
        Genotype("mlp", depth=1, width=5),
        Genotype("mlp", depth=2, width=3, group_penalty=0.01),
    ]
    both = distill(genotypes, data, recipe, seed=0, device=CPU, feed=feed()).students
    for genotype, student in zip(genotypes, both, strict=True):
        (alone,) = distill([genotype], data, recipe, seed=0, device=CPU, feed=feed()).students
        # other shapes: equal but for rounding
        for name, p in student.params.items():
            torch.testing.assert_close(alone.params[name], p, rtol=1e-4, atol=1e-5)
        assert not student.failure


def test_a_method_that_ends_too_soon_is_told():
    recipe = Recipe(mode="online", batch_size=8, steps=30)
    data = DistillationSet(noisy(0), {}, HeadLayout(NAMES, 3))
    with pytest.raises(
        ConfigError, match="ended after 4 posterior samples, expected one for each of 30 steps"
    ):
        distill([Genotype("mlp", depth=0)], data, recipe, seed=0, device=CPU, feed=feed(num=4))
