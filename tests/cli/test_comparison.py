"""``gped-search report A B``: one page for several studies, or a clear refusal."""

from pathlib import Path

from tests.cli.harness import Home, accepted, refused


def test_two_studies_make_one_page(own: Home) -> None:
    own.run("--study-name", "more", "--n-trials", "5", "--set", "search.sampler=random")
    page = Path(accepted("report", "tiny", "more", "--out", own.out).out.strip())
    assert page == own.out / "tiny-against-more.html"
    text = page.read_text()
    assert "search.sampler" in text and "search.n_trials" not in text.split('id="configuration"')[0]

    named = own.root / "new" / "named.html"
    assert accepted("report", "tiny", "more", "--out", own.out, "--to", named).out == f"{named}\n"
    assert named.read_text() == text


def test_one_study_is_written_where_it_is_asked(own: Home) -> None:
    named = own.root / "new" / "folder" / "alone.html"
    assert accepted("report", own.study, "--to", named).out == f"{named}\n"
    assert named.read_bytes() == (own.study / "report.html").read_bytes()


def test_studies_of_other_objectives_are_refused(own: Home) -> None:
    other = "objectives=[accuracy, params]"
    own.run("--study-name", "other", "--n-trials", "1", "--set", other)

    says = (
        "study 'other': its objectives are accuracy (maximize), params (minimize)",
        "those of 'tiny'",
        "--study-name",
    )
    refused(2, "report", "tiny", "other", "--out", own.out, says=says)
    refused(2, "report", "tiny", "tiny", "--out", own.out, says=("given twice",))
    refused(4, "report", "tiny", "nowhere", "--out", own.out, says=("nowhere: no such study",))
    assert not list(own.out.glob("*-against-*"))
