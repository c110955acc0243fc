"""What cards show of a student, against hand calculations on a few examples."""

import numpy as np
import pytest

from gped_nas.evaluate.evidence import NUM_FAR, NUM_PAIRS, NUM_UNCERTAIN, evidence
from gped_nas.evaluate.predictions import NormalPredictions, Predictions


def of(prob: list[list[float]]) -> Predictions:
    return Predictions(np.log(np.array(prob)))


def test_a_few_examples_by_hand() -> None:
    """Entropy of (1/2, 1/2) is log 2 = .6931 nats.

    That of (.9, .1) is .9 * .1054 + .1 * 2.3026 = .3251.
    """
    student = of([[0.5, 0.5], [0.9, 0.1], [0.1, 0.9]])
    teacher = of([[0.9, 0.1], [0.9, 0.1], [0.5, 0.5]])
    card = evidence(student, teacher, np.array([0, 1, 1]))
    assert card["spread"]["student"] == [0.6931, 0.3251, 0.3251]
    assert card["spread"]["teacher"] == [0.3251, 0.3251, 0.6931]
    assert card["confusion"] == [[0, 0, 1], [1, 0, 1], [1, 1, 1]]

    least_sure = card["examples"][0]
    assert (least_sure["index"], least_sure["why"], least_sure["label"]) == (0, "uncertain", 0)
    assert least_sure["classes"] == [[0, 0.9, 0.5], [1, 0.1, 0.5]]
    assert len(card["examples"]) == 3, "an example is shown once"


def test_the_least_sure_come_first_then_the_farthest_of_the_others() -> None:
    generator = np.random.default_rng(0)
    student, teacher = (of(generator.dirichlet(np.ones(5), 500).tolist()) for _ in range(2))
    examples = evidence(student, teacher, generator.integers(5, size=500))["examples"]

    entropy = -(np.exp(student.log_prob_NC) * student.log_prob_NC).sum(1)
    kl = (np.exp(teacher.log_prob_NC) * (teacher.log_prob_NC - student.log_prob_NC)).sum(1)
    unsure = sorted(range(500), key=lambda i: -entropy[i])[:NUM_UNCERTAIN]
    others = [i for i in range(500) if i not in unsure]
    far = sorted(others, key=lambda i: -kl[i])[:NUM_FAR]
    assert [example["index"] for example in examples] == unsure + far
    reasons = ["uncertain"] * NUM_UNCERTAIN + ["far"] * NUM_FAR
    assert [example["why"] for example in examples] == reasons

    for example in examples:
        tops = [max(teacher, student) for _, teacher, student in example["classes"]]
        assert tops == sorted(tops, reverse=True) and len(tops) == 4


def test_many_examples_are_thinned_evenly() -> None:
    predictions = Predictions(np.log(np.full((10_000, 2), 0.5)))
    spread = evidence(predictions, predictions, np.zeros(10_000, int))["spread"]
    assert len(spread["student"]) == len(spread["teacher"]) == NUM_PAIRS


def test_real_labels_have_a_standard_deviation_and_nothing_of_classes() -> None:
    student = NormalPredictions(np.zeros(3), np.array([1.0, 4.0, 9.0]))
    teacher = NormalPredictions(np.zeros(3), np.array([4.0, 4.0, 4.0]))
    card = evidence(student, teacher, np.array([0.1, 0.2, 0.3]))
    assert list(card) == ["spread"]
    assert card["spread"]["student"] == pytest.approx([1, 2, 3])
    assert card["spread"]["teacher"] == [2, 2, 2]
    assert "std" in card["spread"]["quantity"]
