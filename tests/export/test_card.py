"""The model card: texts that users chose stay texts."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from gped_nas.distill.student import load_student
from gped_nas.export.card import card
from gped_nas.export.text import LIMIT, as_markdown, visible
from gped_nas.models.base import Genotype
from tests.export.students import make_student
from tests.report.example import make_snapshot

EVIL = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](http://evil.example/y)",
    "a | b | c",
    "`` ` ``",
    "# heading\n\n* item",
    "\u202egnp.exe",
    "'\"; --",
    "&lt;b&gt;",
    "x" * 10_000,
)


def card_of(tmp_path: Path, text: str) -> str:
    folder = make_student(tmp_path / "s", Genotype("mlp", depth=0), class_names=(text, "b", "c"))
    spec = load_student(folder).spec
    spec = dataclasses.replace(spec, about={text: text}, genotype={"family": text, text: text})
    snapshot = make_snapshot(
        name=text,
        config={"dataset": {"name": text}},
        teacher={"genotype": text, "method": text, "num_samples": 3},
        provenance={text: text},
        split_text=text,
    )
    return card(spec, snapshot.record(snapshot.front[0]), snapshot)


@pytest.mark.parametrize("text", EVIL)
def test_hostile_texts_are_shown_and_never_obeyed(tmp_path: Path, text: str) -> None:
    hostile = card_of(tmp_path, text)
    plain = card_of(tmp_path / "plain", "plain")
    assert "<" not in hostile.replace("&lt;", "") and "\u202e" not in hostile
    for opening in ("](", "![", "`` "):
        assert opening not in hostile

    # neither a line nor a cell of a table more
    num_bars = hostile.count("|") - hostile.count("\\|")
    assert hostile.count("\n") == plain.count("\n")
    assert num_bars == plain.count("|")

    assert as_markdown(text) in hostile
    assert len(hostile) < len(plain) + 20 * 2 * (LIMIT + 30)


def test_a_text_reads_the_same() -> None:
    assert visible("a  b\nc\u202ed\x1b") == "a b c<U+202E>d<U+001B>"
    assert visible("é 日本 👩‍🔬") == "é 日本 👩‍🔬"
    assert visible("x" * (LIMIT + 1)) == "x" * LIMIT + "…"
    assert as_markdown("a*b <i>&amp;") == "a\\*b &lt;i&gt;&amp;amp;"


def test_a_student_without_a_measured_teacher_has_a_card(tmp_path: Path) -> None:
    spec = load_student(make_student(tmp_path / "s", Genotype("mlp", depth=0))).spec
    snapshot = make_snapshot(references=())
    text = card(spec, snapshot.record(snapshot.front[0]), snapshot)
    assert "The teacher was not measured" in text


def test_the_verdict_is_in_the_card_whole(tmp_path: Path) -> None:
    spec = load_student(make_student(tmp_path / "s", Genotype("mlp", depth=0))).spec
    snapshot = make_snapshot()
    verdict = "It loses " + 40 * "a lot, " + "<i>."
    text = card(spec, snapshot.record(snapshot.front[0]), snapshot, verdict=verdict)
    assert as_markdown(verdict, limit=len(verdict)) in text.splitlines()


def _with_file(folder: Path, facts: dict[str, str]) -> str:
    """The card of an export with an ONNX file of which these facts are known."""
    parity = {"difference": {"predictive": 0.0}, "inputs": 1}
    file = {"bytes": 2, "weights_bytes": 1, "overhead_bytes": 1, "sha256": "0", "parity": parity}
    spec = load_student(make_student(folder, Genotype("mlp", depth=0))).spec
    spec = dataclasses.replace(spec, about={"files": {"student.onnx": {**file, **facts}}})
    snapshot = make_snapshot()
    return card(spec, snapshot.record(snapshot.front[0]), snapshot)


def test_pictures_are_told_with_an_example_and_tables_without(tmp_path: Path) -> None:
    text = card_of(tmp_path / "pictures", "plain")
    (code,) = re.findall(r"```python\n(pictures = .*?)```", text, re.DOTALL)
    names = {"pictures": np.arange(128, dtype=np.uint8).reshape(2, 8, 8, 1)}
    exec(code, names)
    assert names["inputs"].shape == (2, 1, 8, 8) and names["inputs"].dtype == np.float32
    assert names["inputs"][1, 0, 2, 3] == 64 + 8 * 2 + 3

    assert "`inputs` is a float32 numpy array; `found`" in _with_file(tmp_path / "a", {})
    note = (
        "is a uint8 numpy array of shape (N, 8, 8, 1), pictures with their channels last; `found`"
    )
    assert note in _with_file(tmp_path / "b", {"inputs": "bytes"})

    folder = make_student(tmp_path / "table", Genotype("mlp", depth=0), shape=(5,))
    snapshot = make_snapshot()
    spec = load_student(folder).spec
    assert "channels" not in card(spec, snapshot.record(snapshot.front[0]), snapshot)
