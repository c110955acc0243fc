"""The page: offline, safe with any text, the same for the same study, whole for empty ones."""

import base64
import hashlib
import json
import os
import re
import time
from html.parser import HTMLParser

import numpy as np
import plotly.offline
import pytest
import torch

from gped_nas.data.picture import png
from gped_nas.errors import EnvironmentProblem
from gped_nas.evaluate.measured import Key, Measured, from_public
from gped_nas.report import write_report
from gped_nas.report.beside import evidence_of
from gped_nas.report.data import data_of
from gped_nas.report.page import (
    CONTENT_SECURITY_POLICY,
    MAX_CARDS,
    PLOTLY_JS_SHA256,
    PLOTLY_JS_VERSION,
    REPORT_SCRIPTS,
    TEMPLATES,
    cards_within,
    page,
)
from gped_nas.report.verdict import judge_study
from gped_nas.search.goals import Objective
from gped_nas.search.record import TrialRecord
from gped_nas.search.snapshot import PairedDifference, Reference
from tests.report.example import make_evidence, make_single, make_snapshot

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&<!--"


class Page(HTMLParser):
    """Tags with their attributes, text outside scripts and styles, and the content of scripts."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags = []
        self.text = ""
        self.scripts = []
        self._raw = None
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
        (text,) = [text for attrs, text in self.scripts if attrs.get("id") == identifier]
        return json.loads(text)


def render(**changes):
    return page(data_of(make_snapshot(**changes)))


MARKUP = "<b>bold</b><br><a href='https://x.y'>link</a>"
"""What Plotly would read as markup."""
LONG = "x" * 10_000
TURNED = "\u202egro.live\u202c \u05d0\u05d1\u05d2"
"""An override that would turn what follows it, and letters that are written from right to left."""


def evil_snapshot():
    """A study all of whose texts are hostile."""
    snapshot = make_snapshot()
    genotype = {"family": TURNED, EVIL: EVIL, "long": LONG}
    records = []
    for record in snapshot.records:
        evil = Measured(0.5, why=EVIL)
        measures = {**record.measures, Key(EVIL): evil} if record.measures else {}
        reason = f"{EVIL} {LONG}"
        records.append(record.replace(genotype=genotype, reason=reason, measures=measures))

    objective = Objective(EVIL, "minimize", "metric", f"{EVIL} {TURNED} {LONG}")
    measures = from_public({"nll": 0.1, EVIL: 0.5})
    costs = {"flops": 9, "storage_bytes": 9}
    reference = Reference("map", MARKUP + EVIL, measures, note=EVIL, costs=costs)
    return make_snapshot(
        name=f"{EVIL}\n{TURNED} {LONG}",
        class_names=(EVIL, LONG, TURNED),
        objectives=(*snapshot.objectives, objective),
        records=tuple(records),
        rule=EVIL,
        notes=(EVIL,),
        split_text=EVIL,
        config={EVIL: [EVIL], TURNED: LONG},
        provenance={EVIL: EVIL},
        importances={"nll": {EVIL: 0.4}},
        references=(reference,),
        paired_differences=(
            PairedDifference(EVIL, EVIL, EVIL, EVIL, 0.1, (0.0, 0.2), 3),
            PairedDifference(EVIL, EVIL, EVIL, EVIL, 0.1, None, 3, why=EVIL),
        ),
    )


@pytest.fixture(scope="module")
def text():
    return render()


def test_the_same_study_gives_the_same_bytes(text):
    assert render() == text


@pytest.mark.parametrize(
    "snapshot", [make_single(), make_snapshot(), make_snapshot(1000)], ids=["1", "48", "1000"]
)
def test_a_report_stays_small_is_made_fast_and_again_the_same(snapshot, tmp_path):
    path = tmp_path / "report.html"
    started = time.process_time()
    write_report(snapshot, path)
    assert time.process_time() - started < 5

    written = path.read_bytes()
    num_cards = min(MAX_CARDS, len(snapshot.front))
    assert len(written) <= 2_500_000 + 2000 * len(snapshot.records) + 40_000 * num_cards

    write_report(snapshot, path)
    assert path.read_bytes() == written


def test_cards_beyond_the_limit_are_in_the_file_beside_it(tmp_path):
    snapshot = make_snapshot(400)
    chosen = snapshot.front[MAX_CARDS + 3]
    write_report(make_snapshot(400, chosen=chosen), tmp_path / "study.html")
    page = Page((tmp_path / "study.html").read_text())
    (cards_file,) = tmp_path.glob("study-cards-*.html")
    beside = Page(cards_file.read_text())

    def cards(page):
        matches = [re.fullmatch(r"student-(\d+)", value) for value in page.attributes("id")]
        return [int(match[1]) for match in matches if match]

    assert len(cards(page)) == MAX_CARDS and chosen in cards(page)
    assert sorted(cards(page) + cards(beside)) == sorted(snapshot.front)
    links = [link for link in page.attributes("href") if link.find("#") > 0]
    assert set(links) == {f"{cards_file.name}#student-{trial}" for trial in cards(beside)}
    assert beside.scripts == [] and "study.html" in beside.attributes("href")

    write_report(make_snapshot(), tmp_path / "study.html")
    assert [p.name for p in tmp_path.iterdir()] == ["study.html"]


def test_a_report_killed_beside_an_older_one_changes_none_of_its_cards(tmp_path, monkeypatch):
    path = tmp_path / "study.html"
    write_report(make_snapshot(400), path)
    (tmp_path / "study-cards.html").write_text("of a version without digests in names")
    mine = tmp_path / "study-cards-of-mine.html"
    mine.write_text("mine")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    newer = make_snapshot(400, split_text="other", name="other")
    replace, done = os.replace, []

    def killed(source, target):
        if done:
            raise KeyboardInterrupt
        done.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_report(newer, path)
    monkeypatch.undo()
    assert "-cards-" in done[0].name and done[0].name not in before
    assert {name: (tmp_path / name).read_bytes() for name in before} == before

    (tmp_path / f".study-cards-{'0' * 8}.html.{2**40}.tmp").write_text("half of some")
    write_report(newer, path)
    assert {file.name for file in tmp_path.iterdir()} == {path.name, done[0].name, mine.name}


def test_as_many_cards_are_in_the_page_where_no_student_was_chosen():
    data = data_of(make_snapshot(400, chosen=None))
    assert len(data["cards"]) > MAX_CARDS
    assert cards_within(data) == data["cards"][:MAX_CARDS]


def test_a_card_stays_small():
    """The dearest pictures, noise of 32 by 32 colors, on a card of ten classes."""
    snapshot = make_snapshot()
    trial = snapshot.front[0]
    noise = np.random.default_rng(0).random((3, 32, 32))
    picture = base64.b64encode(png(torch.from_numpy(noise), 0.0, 1.0)).decode()
    evidence = make_evidence(trial)
    evidence["examples"] = [example | {"picture": picture} for example in evidence["examples"]]
    assert len(evidence["examples"]) == 6

    with_card = render(evidence={trial: evidence})
    without = render(evidence={trial: {}})
    assert len(with_card) - len(without) < 43_000


def test_nothing_is_loaded_from_anywhere(text):
    page = Page(text)
    assert all(source.startswith("data:image/png;base64,") for source in page.attributes("src"))
    assert [tag for tag, _ in page.tags if tag in ("link", "base", "iframe", "object")] == []
    assert all(link.startswith("#") for link in page.attributes("href"))
    assert page.attributes("action") == []
    for name in ("style.css", *REPORT_SCRIPTS):
        assert "url(" not in (TEMPLATES / name).read_text()


def test_every_link_has_its_target(text):
    page = Page(text)
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    assert {link[1:] for link in page.attributes("href")} <= set(ids)


def test_the_policy_forbids_everything_that_is_not_inline(text):
    policies = [
        a["content"] for _, a in Page(text).tags if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == [CONTENT_SECURITY_POLICY]
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY


def test_texts_of_the_study_stay_text():
    plain, evil = Page(render()), Page(page(data_of(evil_snapshot())))
    assert len(evil.scripts) == len(plain.scripts) == 4
    assert {tag for tag, _ in evil.tags} <= {tag for tag, _ in plain.tags}
    handlers = {name for _, attrs in evil.tags for name in attrs if name.startswith("on")}
    assert handlers == set()
    assert evil.text.count(EVIL) > 60
    assert evil.embedded("numbers")["name"].startswith(EVIL)


def test_long_names_do_not_swell_the_page():
    """The provenance, the export commands and the JSON hold the whole name.

    Reasons are whole in the JSON only.
    """
    assert len(page(data_of(evil_snapshot()))) < 3_500_000


def test_the_export_command_quotes_the_study():
    assert "gped-search export 'a b; rm -rf x'" in Page(render(name="a b; rm -rf x")).text


def test_cloud_and_logo_are_off(text):
    assert Page(text).embedded("charts")["config"] == {
        "showSendToCloud": False,
        "displaylogo": False,
        "responsive": True,
    }


def test_every_figure_has_its_place_and_a_text(text):
    page = Page(text)
    charts = [attrs for _, attrs in page.tags if "chart" in attrs.get("class", "").split()]
    labeled = {attrs["id"] for attrs in charts if attrs["aria-label"]}
    assert labeled == set(page.embedded("charts")["charts"])


def test_what_has_no_interval_says_why():
    why = "calibrated models with these confidences have 0.0211 to 0.0689"
    snapshot = make_snapshot()
    records = []
    for record in snapshot.records:
        measures = dict(record.measures)
        if record.trial == snapshot.chosen:
            measures[Key("ece")] = Measured(0.05, n=180, why=why)
        records.append(record.replace(measures=measures))
    paired = PairedDifference("student", "teacher", "brier", "test", 0.0, None, 360, "all alike")

    text = render(records=tuple(records), paired_differences=(paired,))
    words = Page(text).text
    assert f"ECE (15 bins, L1), chosen student: {why}" in words
    assert "0.0500 no interval" in " ".join(words.split())
    assert "no interval: all alike" in words
    assert f'title="{why}"' in text


def test_the_answer_comes_first_and_the_tables_need_no_script(text):
    snapshot = make_snapshot()
    words = Page(text).text
    verdict = judge_study(evidence_of(snapshot))
    assert verdict.sentence.startswith(f"Trial {snapshot.chosen} loses ")
    assert words.index(verdict.sentence) < words.index("The front")

    for sentence in (
        snapshot.rule,
        "teacher average",
        "best single sample",
        "unpruned student",
        *snapshot.notes,
        snapshot.split_text,
        "nll is not finite",
        f"{snapshot.num_test_evaluations} students had test predictions made",
        f"gped-search export digits_mlp {snapshot.front[0]}",
        f"students/{snapshot.front[0]}/weights.safetensors",
        "Usable with care: chains disagree.",
        "sgld keeps no momenta",
        "least sure",
        "farthest from the teacher",
        "Label (down) and class found (across)",
        "Sampling the teacher took 84.2",
        "FLOPs = 180,000",
    ):
        assert sentence in words


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
            paired_differences=(),
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
    assert "chosen student" in render(references=(), paired_differences=())


def test_the_bundle_is_the_one_that_was_checked_in_whole():
    bundle = (TEMPLATES / "plotly-basic.min.js").read_bytes()
    assert hashlib.sha256(bundle).hexdigest() == PLOTLY_JS_SHA256
    assert f"plotly.js (basic - minified) v{PLOTLY_JS_VERSION}".encode() in bundle[:200]
    assert b"Licensed under the MIT license" in bundle[:300]
    assert b"</script" not in bundle.lower() and b"<!--" not in bundle


def test_the_bundle_fits_the_installed_plotly():
    """A patch of plotly may bundle a newer plotly.js: the major version is what figures need."""
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
    (tmp_path / "nowhere").write_text("a file, so no folder can be made here")
    with pytest.raises(EnvironmentProblem, match="nowhere"):
        write_report(make_snapshot(), tmp_path / "nowhere" / "report.html")


@pytest.mark.parametrize(
    ("level", "predictions", "is_doubted"),
    [
        ("usable with care", "better", False),
        ("usable with care", "no better", True),
        ("usable with care", None, True),
        ("do not trust", "better", True),
        ("trusted", "no better", False),
    ],
)
def test_what_predicts_better_is_not_doubted_for_ever(level, predictions, is_doubted):
    snapshot = make_snapshot()
    teacher = {**snapshot.teacher, "verdict": {"level": level, "sentence": "Of the posterior."}}
    if predictions is not None:
        teacher["prediction_verdict"] = {"level": predictions, "sentence": "Of predictions <b>."}
    text = Page(render(teacher=teacher)).text
    assert ("The teacher as a posterior:" in text) == is_doubted
    assert text.count("Of predictions <b>.") == (0 if predictions is None else 2)
    assert text.count("Of the posterior.") == 1
