"""The page: offline, safe with any text, the same bytes for the same study, whole for empty ones."""

import hashlib
import json
from html.parser import HTMLParser

import plotly.offline
import pytest

from gped_nas.errors import EnvironmentProblem
from gped_nas.report import write_report
from gped_nas.report.data import data_of
from gped_nas.report.page import CONTENT_SECURITY_POLICY, PLOTLY_JS_SHA256, PLOTLY_JS_VERSION, TEMPLATES, page
from gped_nas.search.record import TrialRecord
from gped_nas.search.snapshot import Comparison, Reference
from tests.report.example import make_snapshot

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&<!--"


class Page(HTMLParser):
    """Tags with their attributes, text outside scripts and styles, and the content of scripts."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.scripts, self._raw = [], "", [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._raw = tag if tag in ("script", "style") else None
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        self._raw = None

    def handle_data(self, data):
        if self._raw is None:
            self.text += data
        elif self._raw == "script":
            attributes, content = self.scripts[-1]
            self.scripts[-1] = (attributes, content + data)

    def attributes(self, name):
        return [attrs[name] for _, attrs in self.tags if name in attrs]

    def embedded(self, identifier):
        return json.loads(next(text for attrs, text in self.scripts if attrs.get("id") == identifier))


def render(**changes):
    return page(data_of(make_snapshot(**changes)))


def evil_snapshot():
    snapshot = make_snapshot()
    records = tuple(r.replace(genotype={"family": "mlp", EVIL: EVIL}, reason=EVIL) for r in snapshot.records)
    metrics = {"nll": 0.1, EVIL: 0.5}
    return make_snapshot(
        name=EVIL,
        records=records,
        rule=EVIL,
        notes=(EVIL,),
        split_text=EVIL,
        config={EVIL: [EVIL]},
        provenance={EVIL: EVIL},
        importances={"nll": {EVIL: 0.4}},
        references=(Reference("map", EVIL, metrics, note=EVIL, costs={"flops": 9, "storage_bytes": 9}),),
        comparisons=(Comparison(EVIL, EVIL, EVIL, EVIL, 0.1, (0.0, 0.2), 3),),
    )


@pytest.fixture(scope="module")
def text():
    return render()


def test_the_same_study_gives_the_same_bytes(text):
    assert render() == text


def test_a_study_of_48_trials_stays_small(text):
    assert len(text.encode()) <= 3_000_000


def test_nothing_is_loaded_from_anywhere(text):
    found = Page(text)
    assert found.attributes("src") == []
    assert [tag for tag, _ in found.tags if tag in ("link", "base", "iframe", "img", "object", "form")] == []
    assert all(link.startswith("#") for link in found.attributes("href"))
    assert "url(" not in (TEMPLATES / "style.css").read_text() + (TEMPLATES / "page.js").read_text()


def test_every_link_has_its_target(text):
    found = Page(text)
    ids = found.attributes("id")
    assert len(set(ids)) == len(ids)
    assert {link[1:] for link in found.attributes("href")} <= set(ids)


def test_the_policy_forbids_everything_that_is_not_inline(text):
    policies = [a["content"] for _, a in Page(text).tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == [CONTENT_SECURITY_POLICY]
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY


def test_texts_of_the_study_stay_text():
    plain, evil = Page(render()), Page(page(data_of(evil_snapshot())))
    assert len(evil.scripts) == len(plain.scripts) == 4
    assert {tag for tag, _ in evil.tags} <= {tag for tag, _ in plain.tags}
    handlers = {name for _, attrs in evil.tags for name in attrs if name.startswith("on")}
    assert handlers == set()
    assert evil.text.count(EVIL) > 60
    assert evil.embedded("numbers")["name"] == EVIL


def test_the_export_command_quotes_the_study():
    assert "gped-search export 'a b; rm -rf x'" in Page(render(name="a b; rm -rf x")).text


def test_cloud_and_logo_are_off(text):
    assert Page(text).embedded("charts")["config"] == {
        "showSendToCloud": False,
        "displaylogo": False,
        "responsive": True,
    }


def test_every_figure_has_its_place_and_a_text(text):
    found = Page(text)
    drawn = set(found.embedded("charts")["charts"])
    labelled = {a["id"] for _, a in found.tags if "chart" in a.get("class", "").split() and a["aria-label"]}
    assert drawn == labelled


def test_the_answer_comes_first_and_the_tables_need_no_script(text):
    snapshot = make_snapshot()
    words = Page(text).text
    assert words.index(f"Trial {snapshot.chosen} is the student to use") < words.index("Fronts")
    for said in (
        snapshot.rule,
        "teacher average",
        "best single sample",
        "unpruned student",
        *snapshot.notes,
        snapshot.split_text,
        "nll is not finite",
        f"{snapshot.num_test_evaluations} students had test predictions made",
        f"gped-search export digits_mlp {snapshot.front[0]}",
        "FLOPs = 180,000",
    ):
        assert said in words


@pytest.mark.parametrize(
    "records",
    [(), (TrialRecord(0, "failed", {"family": "mlp"}, reason="nll is not finite"),)],
    ids=["no trial", "only failures"],
)
def test_an_empty_front_still_makes_a_page(records):
    words = Page(
        render(
            records=records,
            front=(),
            chosen=None,
            rule="",
            references=(),
            comparisons=(),
            hypervolume=(0.0,) * len(records),
            importances={},
            teacher={},
            num_test_evaluations=0,
        )
    ).text
    assert "No student was chosen" in words
    assert "The front is empty" in words
    assert all(record.reason in words for record in records)


def test_a_study_without_references_has_a_page():
    assert "chosen student" in render(references=(), comparisons=())


def test_the_bundle_is_the_one_that_was_checked_in_whole():
    bundle = (TEMPLATES / "plotly-basic.min.js").read_bytes()
    assert hashlib.sha256(bundle).hexdigest() == PLOTLY_JS_SHA256
    assert f"plotly.js (basic - minified) v{PLOTLY_JS_VERSION}".encode() in bundle[:200]
    assert b"Licensed under the MIT license" in bundle[:300]
    assert b"</script" not in bundle.lower() and b"<!--" not in bundle


def test_the_bundle_fits_the_installed_plotly():
    """A patch of plotly may bundle a newer plotly.js; figures mean the same within a major version."""
    installed = plotly.offline.get_plotlyjs_version()
    assert installed.split(".")[0] == PLOTLY_JS_VERSION.split(".")[0]
    if plotly.__version__ == "7.1.0":
        assert installed == PLOTLY_JS_VERSION


def test_write_report_writes_the_page(tmp_path, text):
    path = tmp_path / "report.html"
    write_report(make_snapshot(), path)
    assert path.read_text(encoding="utf-8") == text
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_write_report_says_where_it_cannot_write(tmp_path):
    with pytest.raises(EnvironmentProblem, match="nowhere"):
        write_report(make_snapshot(), tmp_path / "nowhere" / "report.html")
