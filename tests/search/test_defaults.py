"""What a new space says of its students' training."""

import pytest

from gped_nas.distill.recipe import Recipe
from gped_nas.search.defaults import default_label_weight, default_penalties, default_recipe
from gped_nas.search.ranges import parse_dimensions

UNCERTAIN = ("predictive", "expected_entropy")


@pytest.mark.parametrize(
    ("family", "num", "steps"),
    # 60 and 30 for each square root of the examples, from 500 to 6000, in hundreds
    [
        ("mlp", 50, 500),
        ("mlp", 1257, 2100),
        ("mlp", 60_000, 6000),
        ("cnn", 5400, 2200),
        ("resnet", 40_000, 6000),
    ],
)
def test_steps_grow_with_the_data_and_the_warm_up_with_them(family, num, steps):
    recipe = default_recipe(family, num, targets=UNCERTAIN)
    assert recipe["steps"] == steps
    assert recipe["warmup"] == steps / 10


def test_step_sizes_are_measured_or_probed():
    of_table = default_recipe("mlp", 1000, targets=UNCERTAIN)
    normed = default_recipe("cnn", 1000, targets=UNCERTAIN, norm="batch")
    plain = default_recipe("cnn", 1000, targets=UNCERTAIN)
    assert (of_table["lr"], normed["lr"], plain["lr"]) == (0.016, 0.032, 0.004)
    assert "lr_probe" not in of_table
    assert "lr_probe" not in normed
    assert plain["lr_probe"] == [0.002, 0.004, 0.008]
    for recipe in (of_table, normed, plain):
        assert Recipe(**recipe).halve_every == 0


def test_labels_count_for_the_classes_of_pictures_alone():
    assert default_label_weight("cnn", ["predictive"]) == 0.5
    assert default_label_weight("cnn", UNCERTAIN) == 0.0
    assert default_label_weight("mlp", ["predictive"]) == 0.0
    assert default_label_weight("cnn", ["predictive_normal"]) == 0.0
    assert default_recipe("cnn", 1000, targets=["predictive"])["label_weight"] == 0.5


def test_penalties_are_a_range_that_a_space_takes():
    for family, norm in (("mlp", "none"), ("cnn", "batch"), ("resnet", "none")):
        written = {"depth": 1, "width": 4, "group_penalty": default_penalties(family, norm)}
        if family == "cnn":
            written["kernel"] = 3
        if family == "resnet":
            written["stages"] = 1
        space = parse_dimensions(family, written, "f", "")
        (penalty,) = (d for d in space.dimensions if d.key == "group_penalty")
        assert penalty.log
        assert penalty.high <= 0.01
