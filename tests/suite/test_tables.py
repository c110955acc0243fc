"""Rows and means as JSON lines, CSV and LaTeX."""

import csv
import json

from gped_nas.suite.tables import LEADING, to_csv, to_json_lines, to_latex
from tests.suite.example import make_data, make_rows


def test_json_lines_hold_every_row_whole() -> None:
    rows = make_rows()
    assert [json.loads(line) for line in to_json_lines(rows).splitlines()] == rows


def test_a_csv_file_has_the_same_rows_without_lists_and_formulas() -> None:
    table = list(csv.DictReader(to_csv(make_rows()).splitlines()))
    assert len(table) == 36
    assert list(table[0]) == [*LEADING, "schema_version"]
    assert [float(row["value"]) for row in table] == [row["value"] for row in make_rows()]
    assert {row["method"] for row in table} == {"swag", "'=sgld", "map"}


def test_latex_has_means_ranks_and_distances_with_its_marks_escaped() -> None:
    text = to_latex(make_data())
    assert r"<script>alert(1)</script> \& \_50\%\_" in text
    # .2 + .01 * 2.5; six seeds in one order: ranks 1, 2, 3 and CD 2.344 sqrt(3 * 4 / 36)
    assert r"prediction, on test, n 100, seeds 6}" in text
    assert r" & swag & teacher & $0.225 [" in text
    assert r"average rank & swag & teacher & 1.00 & 1.00 \\" in text
    assert r"critical difference &  & teacher & 1.35 ($p < 0.001$)" in text
    header = next(line for line in text.splitlines() if line.startswith("teacher &"))
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") - line.count(r"\&") for line in body} == {header.count("&")}
