"""The step size that a short probe chooses."""

from math import inf

import pytest

from gped_nas.distill.kernel import distill
from gped_nas.distill.probe import Probe, probe, shortened
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import Interrupted
from gped_nas.models.base import Genotype
from tests.distill.populations import CPU, make_data

GENOTYPES = [
    Genotype("mlp", depth=1, width=6, group_penalty=5.0),
    Genotype("cnn", depth=1, width=4, kernel=3),
]
RECIPE = Recipe(steps=500, warmup=50, batch_size=24, lr=0.02, lr_probe=(1e-5, 0.03, 1e30))
TRAINING, VALIDATION = make_data(60), make_data(40, seed=1)


def probed(recipe: Recipe = RECIPE, should_stop=lambda: False) -> Probe:
    return probe(
        recipe,
        GENOTYPES,
        TRAINING,
        VALIDATION,
        seed=0,
        device=CPU,
        progress=lambda what, done, total: None,
        should_stop=should_stop,
    )


def test_the_step_size_of_the_lowest_loss_is_chosen():
    outcome = probed()
    assert outcome.lr == 0.03
    losses = dict(outcome.losses)
    assert losses[0.03] < losses[1e-5]
    assert losses[1e30] == inf
    assert probed() == outcome


def test_losses_are_those_of_students_trained_with_that_step_size_alone():
    """At another base step size, so that the factor of each student matters."""
    recipe = shortened(RECIPE).model_copy(update={"lr": 0.03, "lr_probe": ()})
    genotypes = [genotype.replace(group_penalty=0.0) for genotype in GENOTYPES]
    students = distill(
        genotypes, TRAINING, recipe, seed=0, device=CPU, validation=VALIDATION
    ).students

    expected = sum(student.rungs[-1][1] for student in students) / len(students)
    assert dict(probed().losses)[0.03] == pytest.approx(expected, rel=1e-4)


def test_the_probe_is_the_schedule_in_a_fifth_of_the_steps():
    long = RECIPE.model_copy(update={"steps": 2000, "warmup": 200, "halve_every": 500})
    assert shortened(long).steps == 400
    assert shortened(long).warmup == 40
    assert shortened(long).halve_every == 100
    assert shortened(RECIPE).steps == 100
    # of few steps none is left out
    assert shortened(RECIPE.model_copy(update={"steps": 60})).steps == 60


def test_where_all_diverge_the_recipe_keeps_its_own():
    outcome = probed(RECIPE.model_copy(update={"lr_probe": (1e30, 1e31)}))
    assert outcome.lr == RECIPE.lr
    assert [loss for _, loss in outcome.losses] == [inf, inf]


def test_a_probe_stops_when_it_is_asked_to():
    with pytest.raises(Interrupted):
        probed(should_stop=lambda: True)


def test_a_probe_is_refused_where_there_are_no_averages():
    with pytest.raises(ValueError, match="lr_probe: found it with update newest"):
        Recipe(update="newest", lr_probe=(0.1,))
