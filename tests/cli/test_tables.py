"""Tables on terminals of any width: nothing is lost, and no number is cut."""

import json
import re

import pytest

from gped_nas.cli.output import Format, print_rows
from gped_nas.cli.tables import Column, lay_out
from tests.cli.harness import Home, accepted, call

BOLD = re.compile(r"\x1b\[[01]m")
GENOTYPE = "mlp(depth=3, group_penalty=3.35e-05, width=113-84-82)"
COLUMNS = [
    Column("trial", ["3", "12"], True),
    Column("genotype", [GENOTYPE, "\u6df1(depth=1)"], False),
    Column("test_nll_above_teacher", ["0.004531", ""], True),
    Column("storage_bytes", ["27,606", "2,476"], True),
]


def test_wide_enough_a_row_is_a_line() -> None:
    lines = lay_out(COLUMNS, None)
    assert lines.head == [f"trial  {'genotype':53}  test_nll_above_teacher  storage_bytes"]
    assert lines.body == [
        f"    3  {GENOTYPE}  {'0.004531':>22}  {'27,606':>13}",
        # A wide character takes two columns.
        f"   12  \u6df1(depth=1){' ' * 44}{'':22}  {'2,476':>13}",
    ]
    assert lay_out(COLUMNS, 99) == lines


def test_narrower_headings_are_broken_and_long_texts_stand_below() -> None:
    lines = lay_out(COLUMNS, 56)
    assert lines.head == [
        "          test_",
        "           nll_",
        "         above_  storage_",
        "trial   teacher     bytes",
    ]
    assert lines.body == [
        "    3  0.004531    27,606",
        f"  {GENOTYPE}",
        "   12               2,476",
        "  \u6df1(depth=1)",
    ]


def test_a_long_text_that_says_what_a_row_is_about_stands_above_it() -> None:
    columns = [
        Column("metric", ["test_information_error", "nll"], False),
        Column("value", ["0.07835", "0.2"], True),
        Column("why", ["its n is small, so small", ""], False),
    ]
    lines = lay_out(columns, 34)
    assert lines.head == ["metric                    value"]
    lines = lay_out(columns, 28)
    assert lines.head == ["  value"]
    assert lines.body == [
        "test_information_error",
        "0.07835",
        "  its n is small, so small",
        "nll",
        "    0.2",
    ]


def test_broken_headings_alone_may_be_enough() -> None:
    lines = lay_out(COLUMNS, 88)
    assert lines.head[-1].split() == ["trial", "genotype", "teacher", "bytes"]
    assert len(lines.head) == 4 and len(lines.body) == 2


def test_narrower_still_a_row_is_a_paragraph() -> None:
    lines = lay_out(COLUMNS, 24)
    assert lines.head == []
    assert lines.body == [
        "trial 3",
        "  genotype mlp(depth=3,",
        "    group_penalty=3.35e-05,",  # a word, like a path, stays whole
        "    width=113-84-82)",
        "  test_nll_above_teacher",
        "    0.004531",
        "  storage_bytes 27,606",
        "trial 12",
        "  genotype \u6df1(depth=1)",
        "  storage_bytes 2,476",
    ]


@pytest.mark.parametrize("width", [100, 80, 60, 40])
@pytest.mark.parametrize("verb", ["front", "trials", "show"])
def test_a_narrow_terminal_is_readable(
    verb: str, width: int, finished: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    words = [verb, finished.study, *(["0"] if verb == "show" else [])]
    printed = call(*words, terminal=True)
    assert printed.code == 0

    lines = BOLD.sub("", printed.out).splitlines()
    longest_word = max(map(len, "\n".join(lines).split()))
    room = 24 + longest_word if verb == "show" else 0  # a key and the first word of its value
    assert max(map(len, lines)) <= max(width, room)
    numbers = re.findall(r"\d[\d,.]*", accepted(*words).out)
    assert set(numbers) <= set(re.findall(r"\d[\d,.]*", " ".join(lines)))


def test_sentences_and_long_words_are_whole_on_a_terminal(
    finished: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    printed = call("teacher", "info", finished.space, terminal=True)
    assert printed.code == 0, printed.err
    lines = BOLD.sub("", printed.out).splitlines()
    assert max(len(line) for line in lines if "/" not in line) <= 80  # the path is a word

    # the first letters of a digest tell streams apart; data have it whole
    (digest,) = [line.split()[1] for line in lines if line.startswith("digest ")]
    whole = json.loads(accepted("teacher", "info", finished.space, "--format", "json").out)
    assert len(digest.strip("…")) == 16 and whole["digest"].startswith(digest.strip("…"))

    verdict = accepted("teacher", "info", finished.space).out.splitlines()[-1]
    assert verdict.split() == " ".join(lines).split()[-len(verdict.split()) :]


def test_what_a_trial_lacks_has_no_line(finished: Home) -> None:
    assert "reason" not in accepted("show", finished.study, "0").out
    assert "reason" in accepted("show", finished.study, "0", "--format", "csv").out


def test_a_zero_has_no_sign(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"entropy": -0.0}], Format.table)
    assert capsys.readouterr().out.split() == ["entropy", "0"]
