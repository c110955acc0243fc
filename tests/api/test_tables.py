"""A study in a notebook and in a paper: tables, what it is compared with, and its parts."""

import pytest
import torch

import gped_nas as gn
from gped_nas.api.tables import Table, _number, as_html, as_latex, as_markdown, as_text
from gped_nas.errors import ConfigError
from gped_nas.evaluate.measured import Measured
from tests.cli.harness import Home

TABLE = Table(
    head=("model", "test_nll", "macs"),
    rows=(
        ("mlp 8 int8", "0.2000 [0.1000, 0.3000]", "1,024"),
        ("50% & <b>|x_1|", "", "2"),
    ),
    chosen=0,
    num_students=1,
)


def test_a_table_is_written_in_every_format() -> None:
    assert as_text(TABLE) == (
        "model                          test_nll   macs\n"
        "mlp 8 int8      0.2000 [0.1000, 0.3000]  1,024  <- chosen\n"
        "50% & <b>|x_1|                               2\n"
    )
    assert as_markdown(TABLE) == (
        "| model | test nll | macs |\n"
        "| --- | ---: | ---: |\n"
        "| **mlp 8 int8** | 0.2000 [0.1000, 0.3000] | 1,024 |\n"
        "| 50% & <b>\\|x_1\\| |  | 2 |\n"
    )
    assert as_latex(TABLE).splitlines() == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"model & test nll & macs \\",
        r"\midrule",
        r"\textbf{mlp 8 int8} & 0.2000 [0.1000, 0.3000] & 1,024 \\",
        r"\midrule",
        r"50\% \& <b>|x\_1| &  & 2 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    html = as_html(TABLE)
    assert "<b>mlp 8 int8</b>" in html and "50% &amp; &lt;b&gt;|x_1|" in html


def test_a_number_has_an_interval_where_one_is_honest() -> None:
    assert _number(Measured(0.072, 0.048, 0.10374)) == "0.0720 [0.0480, 0.1037]"
    assert _number(Measured(0.072, why="few examples")) == "0.0720"
    assert _number(Measured(None, why="it is infinite")) == _number(None) == ""


def test_latex_gets_no_character_that_it_obeys() -> None:
    table = Table(("model",), (("a\\b{c}~d^e#$\u2026",),), chosen=None, num_students=1)
    escaped = r"a\textbackslash{}b\{c\}\textasciitilde{}d\textasciicircum{}e\#\$\dots{} \\"
    assert escaped in as_latex(table).splitlines()


def test_where_nothing_was_tested_the_first_objective_is_shown(
    finished: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gped_nas.api.tables._QUALITY", ("test_rmse",))
    head = gn.open_study(finished.study).table().splitlines()[0]
    assert head.split() == ["model", "nll", "macs", "storage_bytes"]


def test_a_study_writes_its_front_and_references(
    finished: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = gn.open_study(finished.study)
    monkeypatch.setattr(gn.Study, "chosen", lambda study: study.front_records()[-1])
    front = study.front_records()
    lines = study.table("markdown").splitlines()
    assert len(lines) == 2 + len(front) + len(study.references())
    assert lines[0] == "| model | test nll | test accuracy | macs | storage bytes |"
    measured = front[0].measured("test_nll")
    assert measured is not None and measured.low is not None
    assert f"| {measured.value:.4f} [{measured.low:.4f}, " in lines[2]
    assert [i for i, line in enumerate(lines) if "**" in line] == [1 + len(front)]
    labels = [line.split(" | ")[0] for line in lines[2 + len(front) :]]
    assert labels == [f"| {reference.label}" for reference in study.references()]
    sizes = [record.costs["storage_bytes"] for record in front]
    assert max(sizes) >= 1000 and len(front) > 1
    for size, line in zip(sizes, lines[2:], strict=False):
        assert line.endswith(f" {size:,} |")
    assert not any("\u2026" in line for line in lines), "a genotype is told whole"

    wanted = study.table("text", metrics=["nll"], costs=["params"]).splitlines()
    assert wanted[0].split() == ["model", "nll", "params"]
    for arguments in ({"format": "word"}, {"metrics": ["nlll"]}, {"costs": ["price"]}):
        with pytest.raises(ConfigError, match="found|nobody"):
            study.table(**arguments)  # type: ignore[arg-type]


def test_a_notebook_shows_the_verdict_and_the_front(finished: Home) -> None:
    study = gn.open_study(finished.study)
    shown = study._repr_html_()
    assert "<b>tiny</b>: " in shown and "<table>" in shown
    assert study.verdict().sentence.split(":")[0] in shown


def test_frames_have_the_ends_of_intervals(finished: Home) -> None:
    study = gn.open_study(finished.study)
    front = study.front()
    for record in study.front_records():
        measured = record.measured("test_nll")
        assert measured is not None
        row = front.loc[record.trial]
        assert (row["test_nll_low"], row["test_nll_high"]) == measured.interval
    assert "ece_low" not in front.columns


def test_references_and_parts_of_a_study_are_at_hand(finished: Home) -> None:
    study = gn.open_study(finished.study)
    assert study.reference("teacher").metrics["nll"] > 0
    assert study.reference("map").costs["params"] == study.reference("unpruned").costs["params"] - 9
    with pytest.raises(ConfigError, match="no reference 'mapp'; did you mean 'map'"):
        study.reference("mapp")

    x = torch.full((2, 1, 8, 8), 3.0)
    best = gn.load_student(study.path / "students" / str(study.find("best").trial))
    asked = study.load_student("best").predict(x)["predictive"]
    assert torch.equal(asked, best.predict(x)["predictive"])
    num_params = sum(parameter.numel() for parameter in study.load_student("unpruned").parameters())
    assert num_params == study.reference("unpruned").costs["params"]
    assert study.load_teacher().log_prob.shape[0] == 4
