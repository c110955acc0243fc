"""Regions: what words mean of an answer, and what is refused."""

import math

import pytest
import torch

from gped_nas.data.normalization import Normalization
from gped_nas.errors import ConfigError
from gped_nas.evaluate.certify.region import Region, parse_region, values_of_answers

CLASSES = ("low", "mid", "high", "do or die", "never mind")
REAL: tuple[str, ...] = ()
UNIT = Normalization(mean=10.0, std=2.0)


def holds(region: Region, answers: list[list[float]], unit: Normalization | None = None) -> list:
    """Whether each answer is inside, by the atoms."""
    values = values_of_answers(region, torch.tensor(answers), unit)
    return (region.clearance(values) > 0).tolist()


def answer(number: int) -> list[float]:
    """Log-probabilities whose largest one is this class's."""
    return [math.log(0.6 if number == place else 0.1) for place in range(len(CLASSES))]


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("class is low", {0}),
        ("class is low or high", {0, 2}),
        ("class is never mid", {0, 2, 3, 4}),
        ("class is never low or high", {1, 3, 4}),
        ("class is do or die", {3}),
        ("class is never do or die", {0, 1, 2, 4}),
        ("class is never mind", {4}),
        ("class is never never mind", {0, 1, 2, 3}),
    ],
)
def test_classes_are_inside_as_the_words_say(text: str, safe: set[int]) -> None:
    region = parse_region([text], CLASSES, "box.yaml: safe")
    inside = holds(region, [answer(number) for number in range(len(CLASSES))])
    assert {number for number, is_inside in enumerate(inside) if is_inside} == safe


def test_lines_must_hold_together() -> None:
    region = parse_region(["class is never low", "class is never mid"], CLASSES, "here")
    assert holds(region, [answer(number) for number in range(5)]) == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert region.text == "class is never low and class is never mid"


@pytest.mark.parametrize(
    ("text", "inside"),
    [  # of the means 2, 4, 6, 8
        ("mean <= 5", [True, True, False, False]),
        ("5 >= mean", [True, True, False, False]),
        ("mean >= 5", [False, False, True, True]),
        ("5 <= mean", [False, False, True, True]),
        ("3 <= mean <= 7", [False, True, True, False]),
        ("7 >= mean >= 3", [False, True, True, False]),
        ("mean <= 3 or mean >= 7", [True, False, False, True]),
        ("mean <= 3 or 5 <= mean <= 7", [True, False, True, False]),
        ("std <= 4.5", [True, True, True, False]),
        ("mean >= -1e3", [True, True, True, True]),
    ],
)
def test_limits_are_in_the_labels_own_unit(text: str, inside: list[bool]) -> None:
    region = parse_region([text], REAL, "here")
    # mean = 2 m + 10 and std = 2 s: m = -4 is 2, and a variance of 9 is a deviation of 6
    answers = [[-4.0, 1.0], [-3.0, 1.0], [-2.0, 4.0], [-1.0, 9.0]]
    assert holds(region, answers, UNIT) == inside


def test_clearance_is_how_far_the_worst_clause_is() -> None:
    region = parse_region(["3 <= mean <= 8"], REAL, "here")
    values = values_of_answers(region, torch.tensor([[-3.0, 1.0]]), UNIT)
    # the mean is 4: 1 above 3, and 4 below 8
    assert sorted(values[0].tolist()) == [1.0, 4.0]
    assert region.clearance(values).tolist() == [1.0]


@pytest.mark.parametrize(
    ("texts", "names", "words"),
    [
        (["class is lwo"], CLASSES, "found the class 'lwo'; did you mean 'low'?"),
        (["mean <= 5"], CLASSES, "expected 'class is NAME'"),
        (["class is never low or mid or high"], CLASSES[:3], "which no answer is"),
        (["class is low or mid or high"], CLASSES[:3], "which every answer is"),
        (["class is low"], REAL, "expected a bound of mean or std"),
        (["mean"], REAL, "expected a bound of mean or std"),
        (["mean < 5"], REAL, "expected <= or >="),
        (["3 <= 4"], REAL, "expected a bound of mean or std"),
        (["3 <= mean >= 2"], REAL, "expected a bound of mean or std"),
        (["mean <= std"], REAL, "expected a bound of mean or std"),
        (["mean <= inf"], REAL, "expected finite numbers"),
        (["7 <= mean <= 3"], REAL, "found mean above 7 and below 3, which no number is"),
        (["mean >= 7", "mean <= 3"], REAL, "found mean above 7 and below 3, which no number is"),
    ],
)
def test_words_that_say_nothing_are_refused(
    texts: list[str], names: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_region(texts, names, "box.yaml: safe")
    assert str(caught.value).startswith("box.yaml: safe: found ")
    assert words in str(caught.value)
