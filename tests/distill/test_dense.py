"""A dense family of a third party, with names of its own: fused, centered, reduced by structure."""

from math import prod

import pytest
import torch
import torch.nn.functional as F

from gped_nas.distill import team
from gped_nas.distill.course import Course, begin
from gped_nas.distill.kernel import train
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import ConfigError
from gped_nas.models.base import FAMILIES, Family, Genotype, Group
from gped_nas.models.dense import dense_chain
from tests.distill.populations import CPU, make_data, relative_difference


class Ladder(Family):
    """Dense layers ``in``, ``rung2`` ... ``out``, all as wide."""

    monotone = frozenset({"width"})

    def canonical(self, values):
        return {"depth": values["depth"], "width": values["width"]}

    def names(self, num_layers):
        hidden = ["in", *(f"rung{i}" for i in range(2, num_layers))][: num_layers - 1]
        return [*hidden, "out"]

    def shapes(self, values, input_shape, num_outputs):
        sizes = [prod(input_shape), *[values["width"]] * values["depth"], num_outputs]
        names = self.names(len(sizes) - 1)
        shapes = {}
        for name, columns, rows in zip(names, sizes[:-1], sizes[1:], strict=True):
            shapes[f"{name}.weight"] = (rows, columns)
            shapes[f"{name}.bias"] = (rows,)
        return shapes

    def forward(self, params, x):
        x = x.flatten(1)
        *hidden, out = self.names(len(params) // 2)
        for name in hidden:
            x = F.linear(x, params[f"{name}.weight"], params[f"{name}.bias"]).relu()
        return F.linear(x, params[f"{out}.weight"], params[f"{out}.bias"])

    def groups(self, shapes):
        names = self.names(len(shapes) // 2)
        return [
            Group(
                layer=name,
                weights=(f"{name}.weight",),
                readers=(f"{reader}.weight",),
                followers=(f"{name}.bias",),
                constant=(f"{name}.bias", f"{reader}.bias"),
            )
            for name, reader in zip(names[:-1], names[1:], strict=True)
        ]

    def macs(self, shapes, input_shape):
        return {name: prod(shape) for name, shape in shapes.items() if name.endswith(".weight")}


class Wired(Ladder):
    """The same with a unit that two layers read."""

    def groups(self, shapes):
        group, *others = super().groups(shapes)
        readers = (*group.readers, "out.weight")
        return [
            Group(group.layer, group.weights, readers, group.followers, group.constant),
            *others,
        ]


@pytest.fixture
def ladder(monkeypatch):
    family = Ladder()
    monkeypatch.setitem(FAMILIES._items, "ladder", family)
    return family


RECIPE = Recipe(
    steps=40, batch_size=16, warmup=5, lr=0.02, weight_decay=0.05, precision="float32", average=0.5
)
SIZES = [(1, 5, 0.05), (2, 6, 0.1), (3, 4, 0.02)]


def students_of(family, recipe, **more):
    course = Course(make_data(), recipe, 0)
    genotypes = [
        Genotype(family, depth=depth, width=width, group_penalty=penalty)
        for depth, width, penalty in SIZES
    ]
    return course, begin(course, genotypes, device=CPU)


@pytest.mark.parametrize(
    "changes",
    [{}, {"centered": True}, {"components": 10}, {"optimizer": "muon", "lr_rest": 0.01}],
    ids=["plain", "centered", "components", "muon"],
)
def test_it_is_trained_as_mlp_is(changes, ladder):
    """With the numbers that students of mlp begin with, which are drawn from another seed."""
    course, students = students_of("ladder", RECIPE.model_copy(update=changes))
    _, twins = students_of("mlp", course.recipe)
    for student, twin in zip(students, twins, strict=True):
        assert [p.shape for p in student.params.values()] == [p.shape for p in twin.params.values()]
        student.params = dict(zip(student.params, twin.params.values(), strict=True))
        student.centers = twin.centers

    students = train(course, students, until=40, device=CPU)
    twins = train(course, twins, until=40, device=CPU)
    for student, twin in zip(students, twins, strict=True):
        ours, theirs = student.trained().params, twin.trained().params
        assert all(map(torch.equal, ours.values(), theirs.values()))
        assert student.num_dead == twin.num_dead
    assert students[-1].num_dead > 0


def test_its_products_are_fused(ladder, monkeypatch):
    made = []
    fused = team.FusedMlp

    def watched(*args, **more):
        made.append(fused(*args, **more))
        return made[-1]

    monkeypatch.setattr(team, "FusedMlp", watched)
    course, students = students_of("ladder", RECIPE)
    train(course, students, until=40, device=CPU)
    assert [len(bundle.shapes) for bundle in made] == [3, 3], "one for each of two layouts"


def test_who_is_no_chain_is_trained_in_turn_alike(ladder, monkeypatch):
    """Through autograd the same students come out, but for rounding."""
    course, students = students_of("ladder", RECIPE)
    expected = train(course, students, until=40, device=CPU)
    monkeypatch.setattr(team, "reads_rows", lambda chain, shapes, input_shape: False)
    for fused, in_turn in zip(expected, train(course, students, until=40, device=CPU), strict=True):
        assert relative_difference(in_turn.params, fused.params) < 1e-4


def test_what_two_layers_read_is_no_chain():
    shapes = Ladder().shapes({"depth": 2, "width": 3}, (4,), 2)
    assert dense_chain(Ladder(), shapes) == (
        ("in.weight", "in.bias"),
        ("rung2.weight", "rung2.bias"),
        ("out.weight", "out.bias"),
    )
    assert dense_chain(Wired(), shapes) == ()


@pytest.mark.parametrize(
    "genotype",
    [
        Genotype("cnn", depth=1, width=2, kernel=3),
        Genotype("resnet", stages=1, depth=1, width=2),
    ],
    ids=lambda genotype: genotype.family,
)
def test_pictures_are_no_chain(genotype):
    shapes = genotype.shapes((1, 8, 8), 3)
    assert dense_chain(FAMILIES[genotype.family], shapes) == ()


def test_a_linear_model_is_a_chain_of_one_layer():
    shapes = Genotype("mlp", depth=0).shapes((4,), 3)
    assert dense_chain(FAMILIES["mlp"], shapes) == (("layers.0.weight", "layers.0.bias"),)


@pytest.mark.parametrize(
    ("changes", "key"), [({"components": 4}, "components"), ({"centered": True}, "centered")]
)
def test_a_family_that_is_wired_otherwise_is_refused(changes, key, monkeypatch):
    monkeypatch.setitem(FAMILIES._items, "wired", Wired())
    with pytest.raises(
        ConfigError, match=f"recipe.{key}: found .* family wired, .* chains of dense"
    ):
        students_of("wired", RECIPE.model_copy(update=changes))
