"""``gped-search certify --box`` and the task ``box``, on the tiny study."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gped_nas as gn
from tests.cli.harness import Home, accepted, refused


def write_box(folder: Path, text: str) -> Path:
    """A box file."""
    (folder / "box.yaml").write_text(text)
    return folder / "box.yaml"


def certified(home: Home, *args: object) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of ``certify`` by ``of`` and metric."""
    result = accepted("certify", home.study, *args, "--out", home.out, "-f", "json")
    return {(row["of"], row["metric"]): row for row in json.loads(result.out)}


def around(home: Home, reach: float, number: int = 0) -> tuple[Path, Any, Any]:
    """A file of arrays around a test example."""
    dataset = gn.load_dataset(gn.load_space(home.space))
    middle = dataset.raw("test")[number].double().numpy()
    low, high = np.clip(middle - reach, 0, 16), np.clip(middle + reach, 0, 16)
    np.savez(home.root / "ends.npz", low=low, high=high)
    return write_box(home.root, "inputs: ends.npz\nparts: 8\n"), low, high


def test_a_student_keeps_its_answer_in_a_small_box_and_not_in_a_large_one(own: Home) -> None:
    box, _, _ = around(own, 0.01)
    small = certified(own, "--box", box)
    assert small["network", "certified"]["value"] == 1
    assert small["network", "certified"]["volume"] == 1
    study = gn.open_study(own.study)
    trial = study.chosen().trial
    student = gn.load_student(own.study / "students" / str(trial))
    raw = gn.load_dataset(gn.load_space(own.space)).raw("test")[:1]
    answer = student.spec.class_names[int(student.predict(raw)["predictive"].argmax())]
    assert small["network", "certified"]["safe"] == f"class is {answer}"

    # the same name with other content is asked anew
    box, low, high = around(own, 16.0)
    large = certified(own, "--box", box)
    assert large["network", "broken"]["value"] == 1
    witness = torch.tensor(large["network", "broken"]["witness"], dtype=torch.float64)
    assert bool(((torch.from_numpy(low) <= witness) & (witness <= torch.from_numpy(high))).all())
    middle = torch.from_numpy(low + (high - low) / 2)[None]
    kept = int(student.predict(middle)["predictive"].argmax())
    assert int(student.predict(witness[None])["predictive"].argmax()) != kept


def test_a_teacher_has_an_average_and_samples(own: Home) -> None:
    box, _, _ = around(own, 0.01)
    rows = certified(own, "teacher", "--box", box)
    assert rows["average", "certified"]["value"] == 1
    shares = [rows["samples", name]["value"] for name in ("certified", "broken", "unknown")]
    assert sum(shares) == pytest.approx(1)
    assert rows["samples", "p_safe_low"]["value"] == shares[0]
    assert rows["samples", "p_safe_high"]["value"] == pytest.approx(1 - shares[1])
    assert rows["samples", "certified"]["condition"] == f"{box}-samples"
    assert rows["samples", "certified"]["n"] == len(
        gn.load_stream(gn.open_study(own.study).stream_path).weight
    )


def test_a_table_says_what_is_asked_and_kept_rows_are_read_again(own: Home) -> None:
    box = write_box(own.root, "inputs: [0, 0.1]\nsafe: class is never 3 or 8\nparts: 4\n")
    table = accepted("certify", own.study, "--box", box, "--out", own.out).out
    assert "box.yaml: class is never 3 or 8" in table
    assert "network" in table and "certified" in table
    again = accepted("certify", own.study, "--box", box, "--out", own.out).out
    assert again == table

    task = accepted("evaluate", own.study, "--tasks", f"box:{box}", "--out", own.out)
    assert {"teacher", "map"} <= set(task.out.split())

    accepted("report", own.study)
    page = (own.study / "report.html").read_text()
    assert "box.yaml" in page and "p_safe_low".replace("_", " ") in page


@pytest.mark.parametrize(
    ("text", "args", "words"),
    [
        ("inputs: [9, 3]", (), "found the bounds 9 and 3, expected the lower one first"),
        ("inputs: [0, 99]", (), "but inputs have values from 0 to 16 hint: keep the box inside"),
        ("inputs: [0, .nan]", (), "found nan, expected a finite number"),
        ("inputs: [0, 1]\nsafe: class is 12", (), "found the class '12'"),
        ("inputs: [0, 1]\nsafe: mean <= 3", (), "expected 'class is NAME'"),
        ("inputs: {age: [0, 1]}", (), "expected bounds of pictures of shape (1, 8, 8)"),
        ("inptus: [0, 1]", (), "inptus: unknown key hint: did you mean 'inputs'?"),
        ("inputs: [0, 1]\nparts: 0", (), "parts: found 0, expected greater than or equal to 1"),
        ("inputs: [0, 1]", ("--epsilon", 0.1), "--box: found beside --epsilon"),
        ("inputs: [0, 1]", ("--each",), "--each: found with --box, which has no examples"),
        ("inputs: [0, 1]", ("--exact",), "--box: found beside --epsilon, --bounds, --exact"),
        ("inputs: [0, 1]", ("--time-limit", 5), "--time-limit or --limit, which are of a radius"),
    ],
)
def test_boxes_that_say_nothing_are_refused(
    finished: Home, tmp_path: Path, text: str, args: tuple[object, ...], words: str
) -> None:
    box = write_box(tmp_path, text)
    result = refused(2, "certify", finished.study, "--box", box, *args, "--out", finished.out)
    assert words in " ".join(result.err.split())
