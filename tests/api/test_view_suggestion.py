"""Views are suggested by what the data are, and by what the pictures say of their mirrors."""

from dataclasses import replace

import pytest
import torch

from gped_nas.api.view_suggestion import kind_of_inputs, suggest_views
from gped_nas.data.base import Dataset, Split, build, load
from gped_nas.data.views import parse_views


def pictures_of(sides: tuple[int, ...]) -> Dataset:
    """Two classes of noisy pictures 6x6: a bright row, or a bright column at one of these places.

    Mirrored, column c is column 5 - c.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((400, 1, 6, 6), generator=generator) / 2
    label = torch.arange(400) % 2
    place = torch.tensor(sides)[torch.arange(400) // 2 % len(sides)]
    for i in range(400):
        if label[i]:
            x[i, 0, :, place[i]] += 3
        else:
            x[i, 0, :, 0] += 3
    return build(
        "columns",
        Split(x, label),
        class_names=("first", "other"),
        test=0.2,
        validation=0.2,
        seed=0,
        where="test",
    )


@pytest.mark.parametrize(
    ("sides", "kind"), [((5,), "one-sided pictures"), ((2, 3), "one-sided pictures")]
)
def test_pictures_whose_mirror_is_of_another_class_are_one_sided(
    sides: tuple[int, ...], kind: str
) -> None:
    """The first class is bright at the left: mirrored, it is like the second, or like none."""
    dataset = pictures_of(sides)
    assert kind_of_inputs(dataset) == kind
    assert all("flip" not in str(view) for view in suggest_views(dataset).views)


def test_pictures_that_may_be_mirrored_are_flipped() -> None:
    dataset = pictures_of((2, 3))
    x = dataset.train.x.clone()
    some = torch.arange(len(x)) % 4 < 2
    x[some] = x[some].flip(3)
    suggested = suggest_views(replace(dataset, train=Split(x, dataset.train.y)))
    assert suggested.kind == "pictures"
    assert suggested.views == ({"policy": "flip", "answers": "clean"},)
    assert suggested.draw_views == "fresh"


def test_digits_are_not_mirrored() -> None:
    digits = load({"name": "digits"})
    suggested = suggest_views(digits)
    assert suggested.kind == "one-sided pictures"
    assert [view["policy"] for view in suggested.views] == ["clean", "noise"]


def test_tables_are_no_pictures() -> None:
    diabetes = load({"name": "diabetes"})
    suggested = suggest_views(diabetes)
    assert suggested.kind == "table" and suggested.draw_views == "once"
    assert [view["policy"] for view in suggested.views] == ["clean", "noise", "mixup"]


@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_of_predictions_alone_nothing_is_asked(name: str) -> None:
    suggested = suggest_views(load({"name": name}), can_be_asked=False)
    for settings in suggested.views:
        (view,) = parse_views(settings, "test", 0)
        assert view.answers == "clean"


def test_a_few_pictures_are_left_as_they_are() -> None:
    dataset = pictures_of((5,))
    few = replace(dataset, train=Split(dataset.train.x[:5], dataset.train.y[:5]))
    assert suggest_views(few).kind == "one-sided pictures"
