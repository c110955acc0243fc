"""Cost matrices: both forms of a file by hand, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from gped_nas.errors import ConfigError
from gped_nas.evaluate.cost_matrix import CostMatrix, read_costs, ursabench_costs

NAMES = ("cat", "dog", "eel")
WHERE = "--tasks: decision:costs.yaml"


def matrix(folder: Path, text: str) -> CostMatrix:
    path = folder / "costs.yaml"
    path.write_text(text)
    return read_costs(path, NAMES, WHERE)


def test_entries_are_read_as_they_stand(tmp_path: Path) -> None:
    read = matrix(tmp_path, "costs: [[0, 1], [20, 2.5], [3, 4]]\nactions: [wait, act]")
    assert read.costs_CA.tolist() == [[0, 1], [20, 2.5], [3, 4]]
    assert read.actions == ("wait", "act")
    assert matrix(tmp_path, "costs: [[0, 1], [1, 0], [1, 1]]").actions == ("action 0", "action 1")
    assert matrix(tmp_path, "costs: [[0, 1, 1], [1, 0, 1], [1, 1, 0]]").actions == NAMES


def test_the_short_form_by_hand(tmp_path: Path) -> None:
    """A wrong answer costs 9 where a dog (class 1) is true, else .5; a right one pays back 1."""
    text = "right: -1\nwrong: 0.5\ndear: {classes: [dog], cost: 9}"
    expected = [[-1, 0.5, 0.5], [9, -1, 9], [0.5, 0.5, -1]]
    assert matrix(tmp_path, text).costs_CA.tolist() == expected
    by_number = text.replace("[dog]", "[1]")
    assert matrix(tmp_path, by_number).costs_CA.tolist() == expected
    assert matrix(tmp_path, "wrong: 2").costs_CA.tolist() == (2 - 2 * np.eye(3)).tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("costs: [[0, 1], [1, 0]]", "costs: found 2 rows of 2 entries, expected a row for each of"),
        ("costs: [[0, 1], [1, 0], [1]]", "costs: found 3 rows of 1 or 2 entries"),
        ("costs: [[], [], []]", "costs: found 3 rows of 0 entries"),
        ("costs: []", "costs: found 0 rows of 0 entries"),
        ("costs: [[0, 1], [1, 0], [1, .nan]]", "costs"),
        ("costs: [[0, 1], [1, 0], [1, 1]]\nactions: [wait]", "actions: found 1 names, expected 2"),
        ("costs: [[0, 1], [1, 0], [1, 1]]\nwrong: 2", "found costs beside wrong"),
        ("actions: [wait]", "found actions without costs"),
        ("{}", "found nothing, expected costs, or right, wrong and dear"),
        ("dear: {classes: [dgo], cost: 9}", "dear.classes: found 'dgo'; did you mean 'dog'"),
        ("dear: {classes: [3], cost: 9}", "dear.classes: found 3, expected 0 to 2"),
        ("dear: {classes: [], cost: 9}", "dear.classes"),
        ("rihgt: 0", "rihgt: unknown key; did you mean 'right'"),
    ],
)
def test_what_is_no_matrix_of_these_classes_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        matrix(tmp_path, text)
    assert "costs.yaml" in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="decision:costs.yaml: .*no such file; .*ursabench"):
        read_costs(tmp_path / "none.yaml", NAMES, WHERE)


def test_ursabench_says_what_it_costs() -> None:
    digits = ursabench_costs("mnist", tuple("0123456789"), WHERE).costs_CA
    expected = np.full((10, 10), 0.1)
    expected[[3, 7]] = 100
    np.fill_diagonal(expected, 0)
    assert digits.tolist() == expected.tolist()

    vehicles = ursabench_costs("cifar10", tuple("abcdefghij"), WHERE).costs_CA
    assert vehicles.max(axis=1).tolist() == [1, 1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 1, 1]
    with pytest.raises(ConfigError, match="whose class 7 is dear, and 3 classes"):
        ursabench_costs("mnist", NAMES, WHERE)
