"""Labels among the targets: against the oracle, and what a share of them means."""

import dataclasses

import pytest
import torch

from gped_nas.distill.feed import DistillationSet, PosteriorPredictions
from gped_nas.distill.kernel import distill
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.replay import DeviceSchedule
from gped_nas.errors import ConfigError
from gped_nas.models.base import Genotype
from gped_nas.targets.layout import LABELS, HeadLayout
from tests.distill.populations import CPU, make_data, relative_difference
from tests.distill.reference import distill_one

RECIPE = Recipe(steps=40, batch_size=24, warmup=5, lr=0.02, label_weight=0.3)
POPULATION = [
    Genotype("mlp", depth=1, width=6, label_weight=0.0),
    Genotype("cnn", depth=1, width=4, kernel=3, label_weight=0.7),
    Genotype("mlp", depth=2, width=[4, 6], group_penalty=0.05, label_weight=1),
    Genotype("mlp", depth=1, width=5),
    Genotype("cnn", depth=1, width=3, kernel=3),
]
"""Two without a share of their own take the recipe's."""


def with_labels(data: DistillationSet, y: torch.Tensor) -> DistillationSet:
    """The data with labels, of which every third is not known."""
    labels = data.layout.labels(y)
    labels[::3] = torch.nan
    return dataclasses.replace(data, labels=labels)


def classes() -> DistillationSet:
    """A soft task whose labels are drawn by chance."""
    generator = torch.Generator().manual_seed(5)
    data = make_data()
    return with_labels(data, torch.randint(3, (len(data.inputs),), generator=generator))


def test_students_of_other_shares_together_equal_those_of_the_oracle():
    data = classes()
    students = distill(POPULATION, data, RECIPE, seed=0, device=CPU).students

    for genotype, student in zip(POPULATION, students, strict=True):
        expected = distill_one(genotype, data, RECIPE, seed=0)
        assert relative_difference(student.params, expected) < 1e-3, str(genotype)


def test_real_labels_equal_the_oracle():
    generator = torch.Generator().manual_seed(6)
    x = torch.randn((60, 4), generator=generator)
    mean = x[:, 0]
    moments = torch.stack([mean, mean.square() + 0.2], -1)
    layout = HeadLayout(("predictive_normal",), 1)
    data = DistillationSet(x, {"predictive_normal": moments}, layout)
    data = with_labels(data, mean + torch.randn(60, generator=generator))
    genotypes = [Genotype("mlp", depth=1, width=4, label_weight=w) for w in (0.2, 0.9)]

    students = distill(genotypes, data, RECIPE, seed=0, device=CPU).students
    for genotype, student in zip(genotypes, students, strict=True):
        expected = distill_one(genotype, data, RECIPE, seed=0)
        assert relative_difference(student.params, expected) < 1e-3, str(genotype)


def test_all_that_is_said_of_real_labels_equals_the_oracle():
    """Losses of one input each, the pinball loss of every possible label on a grid."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn((40, 4), generator=generator)
    mean = torch.stack([x[:, 0], x[:, 1]])
    samples = torch.stack([mean, 0.1 + mean.square()], -1)
    names = ("predictive_normal", "model_variance", "label_quantile", "exceedance")
    predictions = PosteriorPredictions([[samples.numpy()]], torch.tensor([0.3, 0.7]))
    data = DistillationSet(x, {}, HeadLayout(names, 1), predictions)
    data = with_labels(data, mean[0] + torch.randn(40, generator=generator))
    recipe = RECIPE.model_copy(update={"update": "newest", "steps": 20})
    genotypes = [Genotype("mlp", depth=1, width=4, label_weight=w) for w in (0.0, 0.5)]

    students = distill(genotypes, data, recipe, seed=0, device=CPU).students
    for genotype, student in zip(genotypes, students, strict=True):
        expected = distill_one(genotype, data, recipe, seed=0)
        assert relative_difference(student.params, expected) < 1e-3, str(genotype)


@pytest.mark.parametrize("update", ["newest", "running_mean"])
def test_labels_count_beside_single_samples_too(update):
    data = classes()
    log_prob = data.expectations["predictive"].log()
    samples = torch.stack([log_prob, log_prob.roll(1, 0)]).numpy()
    data = dataclasses.replace(
        data, expectations={}, samples=PosteriorPredictions([[samples]], torch.ones(2) / 2)
    )
    recipe = RECIPE.model_copy(update={"update": update})
    genotypes = POPULATION[:3]

    students = distill(genotypes, data, recipe, seed=0, device=CPU).students
    for genotype, student in zip(genotypes, students, strict=True):
        expected = distill_one(genotype, data, recipe, seed=0)
        assert relative_difference(student.params, expected) < 1e-3, str(genotype)


def test_without_a_share_no_bit_changes():
    """Also beside siblings that learn from labels."""
    recipe = RECIPE.model_copy(update={"label_weight": 0.0})
    genotypes = [Genotype("mlp", depth=1, width=6), Genotype("mlp", depth=1, width=6)]
    learning = [genotypes[0], genotypes[1].replace(label_weight=0.8)]

    plain = distill(genotypes, make_data(), recipe, seed=0, device=CPU).students
    beside = distill(learning, classes(), recipe, seed=0, device=CPU).students

    for name, p in plain[0].params.items():
        assert torch.equal(p, beside[0].params[name])


def test_the_labels_are_part_of_the_course():
    data = classes()
    assert data.digest != make_data().digest
    assert data.digest == classes().digest
    _, shown = data.batch(torch.tensor([3, 4]))
    assert shown[LABELS].isnan().all(1).tolist() == [True, False]


@pytest.mark.parametrize("share", [-0.1, 1.5, True, "half"])
def test_a_share_beyond_one_is_refused(share):
    with pytest.raises(ConfigError, match="label_weight: found .* expected a number from 0 to 1"):
        Genotype("mlp", depth=0, label_weight=share)


def test_a_genotype_says_its_share_only_where_it_has_one():
    genotype = Genotype("mlp", depth=0)
    assert "label_weight" not in genotype.to_json()
    assert RECIPE.label_weight_of(genotype) == 0.3
    of_its_own = genotype.replace(label_weight=0)
    assert of_its_own.to_json()["label_weight"] == 0.0
    assert Genotype.from_json(of_its_own.to_json()) == of_its_own
    assert RECIPE.label_weight_of(of_its_own) == 0.0


def test_a_device_finds_its_labels_too():
    data = classes()
    index_TB = torch.tensor([[5, 3, 9], [0, 1, 2]])
    schedule = DeviceSchedule(data, index_TB, torch.ones(2))
    for index_B in index_TB:
        x, shown = schedule.batch()
        expected_x, expected = data.batch(index_B)
        assert torch.equal(x, expected_x)
        assert shown.keys() == expected.keys()
        assert torch.equal(shown[LABELS].nan_to_num(-1), expected[LABELS].nan_to_num(-1))
        schedule.advance()


def test_shares_never_wait_for_the_device():
    """On ``meta`` whatever reads a value raises."""
    meta = torch.device("meta")
    layout = classes().layout
    shown = {
        "predictive": torch.empty((8, 3), device=meta),
        "expected_entropy": torch.empty((8, 1), device=meta),
        LABELS: torch.empty((8, 3), device=meta),
    }
    raw_PBU = torch.empty((2, 8, layout.num_outputs), device=meta)
    losses_P = layout.loss(raw_PBU, shown, {}, torch.empty(2, device=meta))
    assert losses_P.shape == (2,)
