"""The region of interest on the command line: who is inside, another share, and what is refused."""

import json
from typing import Any

import numpy as np
import pytest

from gped_nas.api import load_dataset, load_space, open_study
from tests.cli.harness import Home, accepted, call, contents, installed, refused, without_region

KEEP = 0.2
"""What some students of the tiny study keep and others do not: they learned for a moment."""


def asked(home: Home, keep: object, *more: object) -> tuple[object, ...]:
    return ("run", home.space, "--out", home.out, "--set", f"search.keep={keep}", *more)


@pytest.fixture
def own(home: Home) -> Home:
    """A study of four students, of which some have learned a little."""
    accepted(*asked(home, "{}", "--set", "search.sampler=tpe"))
    return home


@pytest.fixture
def parted(own: Home) -> Home:
    """A finished study with students inside and outside: gone on with, and asked for more."""
    accepted(*asked(own, KEEP))
    return own


def test_the_bound_is_a_share_of_the_lead_over_who_knows_nothing(parted: Home) -> None:
    """Both ends computed here: by class frequencies, and by the teacher's own reference."""
    study, dataset = open_study(parted.study), load_dataset(load_space(parted.space))
    share_C = np.bincount(dataset.labels("train"), minlength=10) / len(dataset.train)
    ignorant = -np.log(share_C)[dataset.labels("validation")].mean()
    teacher = study.reference("teacher").metrics["nll"]

    region = study.region
    assert region is not None and region.keep == KEEP
    (bound,) = region.bounds
    assert bound.value == pytest.approx(ignorant - KEEP * (ignorant - teacher), abs=1e-6)

    inside = {r.trial for r in study.records() if r.metrics["nll"] <= bound.value}
    outside = {r.trial for r in study.outside_records()}
    assert inside and outside and outside == {r.trial for r in study.records()} - inside
    assert {r.trial for r in study.front_records()} <= inside

    snapshot = study.snapshot()
    assert set(snapshot.outside) == outside and snapshot.region == region
    assert snapshot.reference_point["nll"] == bound.value
    (note,) = (note for note in snapshot.notes if "region of interest" in note)
    assert note.startswith(f"{len(outside)} of {len(study.records())} ")


def test_a_share_that_nobody_keeps_says_what_was_reached(own: Home) -> None:
    study = open_study(own.study)
    best = min(study.records(), key=lambda record: record.metrics["nll"])
    assert study.region is not None
    skill = study.region.skill(best)
    assert skill is not None and 0.1 < skill < 0.9
    reached = int(100 * skill)

    result = installed(*asked(own, 0.9))
    assert result.code == 3 and "Traceback" not in result.err
    for says in (
        "no student keeps 90 % of the teacher's skill (nll <= ",
        f"the most that one of the {len(study.records())} complete ones keeps is {reached} % "
        f"(trial {best.trial}, nll ",
        f"hint: train students longer (recipe.steps), or widen the space, or ask for less: with "
        f"--set search.keep={reached / 100:g}",
    ):
        assert says in result.err, result.err
    refused(3, "pick", own.study, says=("no student keeps 90 %",))
    front = call("front", own.study)
    assert front.code == 0 and "the front is empty: no student keeps 90 %" in front.err
    assert open_study(own.study).verdict().kind == "nothing_learned"

    # as it was advised: the same command with less, and the same trials
    records = [record.to_json() for record in open_study(own.study).records()]
    accepted(*asked(own, reached / 100))
    again = open_study(own.study)
    assert [record.to_json()["metrics"]["nll"] for record in again.records()] == [
        record["metrics"]["nll"] for record in records
    ]
    assert best.trial in [record.trial for record in again.front_records()]


def test_bounds_by_objective_are_in_their_units(own: Home) -> None:
    sizes = sorted(record.costs["storage_bytes"] for record in open_study(own.study).records())
    bound = sizes[len(sizes) // 2]
    accepted(*asked(own, f"{{storage_bytes: {bound}}}"))
    study = open_study(own.study)
    assert all(record.costs["storage_bytes"] <= bound for record in study.front_records())
    assert len(study.outside_records()) == sum(size > bound for size in sizes)
    snapshot = study.snapshot()
    assert snapshot.reference_point["storage_bytes"] == bound
    # who knows nothing ends the axis of a quality without a bound
    (guess,) = (r for r in study.references() if r.name == "guess")
    assert snapshot.reference_point["nll"] == guess.metrics["nll"]

    message = ("no student is in the region of interest (nll <= 0.01)", "trial", "search.keep")
    refused(3, *asked(own, "{nll: 0.01}"), says=message)


def test_a_study_of_before_keeps_its_rule(own: Home) -> None:
    """Whoever could not be told from a guess was on no front, whatever is asked for now."""
    without_region(own)
    # a study of before ended with the files of its own front, which no guess was on
    accepted(*asked(own, "{}"))
    before = contents(own.study / "students")

    accepted(*asked(own, 0.9))
    study = open_study(own.study)
    assert study.region is None
    told = {r.trial for r in study.records() if (r.above_guess["nll"] or (0, 0, 0))[2] < 0}
    everybody = {record.trial for record in study.records()}
    assert told and told != everybody
    assert {record.trial for record in study.outside_records()} == everybody - told
    assert {record.trial for record in study.front_records()} <= told
    assert contents(own.study / "students") == before
    assert study.snapshot().reference_point["nll"] == pytest.approx(np.log(10))


BAD: dict[str, tuple[object, tuple[str, ...]]] = {
    "nothing": (0, ("search.keep", "found 0", "above 0", "{} asks for nothing")),
    "negative": (-0.5, ("search.keep", "found -0.5", "above 0")),
    "per cent": (90, ("search.keep", "found 90", "at most 2", "such as 0.9")),
    "words": ("most", ("search.keep", "'most'", "a share of the teacher's skill such as 0.9")),
    "no number": (".nan", ("search.keep", "nan", "a share of the teacher's skill")),
    "no objective": ("{acuracy: 0.9}", ("search.keep.acuracy", "not among the objectives")),
    "a metric beside": ("{accuracy: 0.9}", ("search.keep.accuracy", "belong to constraints")),
    "beyond the best": ("{nll: -1}", ("search.keep.nll", "the best value there is is 0")),
    "below the smallest": ("{flops: 3}", ("search.keep.flops", "found 3", "smallest network")),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_kept_is_refused(case: str, home: Home) -> None:
    keep, says = BAD[case]
    refused(2, *asked(home, keep), says=says)
    assert not home.study.joinpath("report.html").exists()


def test_what_would_take_a_negative_nll_is_refused(home: Home) -> None:
    """The teacher has an NLL of about .3, so that even 0 keeps less than 1.2 of its skill."""
    method = "teacher.method={name: deep_ensemble, num_samples: 2, steps: 400, lr: 0.01}"
    says = ("search.keep", "found 2", "the best value there is is 0", "expected at most 1.")
    refused(2, *asked(home, 2, "--set", method), says=says)
    assert not home.study.joinpath("report.html").exists()


def test_better_than_the_teacher_may_be_asked_for(own: Home) -> None:
    """A student may be better than a poor teacher; that here none is, is no bad setting."""
    refused(3, *asked(own, 1.2), says=("no student keeps 120 % of the teacher's skill",))


def test_real_labels_have_a_region_too(home: Home) -> None:
    """Of a density differences alone mean anything: its NLL may be negative."""
    settings: dict[str, Any] = {
        "dataset": "{name: linear_gaussian, num_examples: 200}",
        "teacher.likelihood": "{name: gaussian, noise_std: 0.7}",
        "targets": "[predictive_normal]",
        "recipe.steps": 300,
        "search.keep": 0.2,
    }
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    result = call("run", home.space, "--out", home.out, *sets)
    study = open_study(home.study)
    assert result.code in (0, 3) and study.region is not None
    made, records = study.region, study.records()
    lead = made.know_nothing["nll"] - made.teacher["nll"]
    assert lead > 0
    (bound,) = made.bounds
    assert bound.value == pytest.approx(made.know_nothing["nll"] - 0.2 * lead)
    for record in records:
        is_inside = record.trial not in {r.trial for r in study.outside_records()}
        assert is_inside == (record.metrics["nll"] <= bound.value)


def test_objectives_without_nll_have_the_region_of_nll(home: Home) -> None:
    accepted(*asked(home, KEEP, "--set", "objectives=[accuracy, params]"))
    study = open_study(home.study)
    assert study.region is not None
    (bound,) = study.region.bounds
    outside = {record.trial for record in study.outside_records()}
    for record in study.records():
        assert (record.trial in outside) == (record.metrics["nll"] > bound.value)
    # the accuracy of who knows nothing, which its own worst value, 0, is below
    corner = study.snapshot().reference_point["accuracy"]
    assert corner == study.region.know_nothing["accuracy"] > 0
    assert json.loads(accepted("trials", home.study, "-f", "json").out)


def test_verbs_show_who_is_outside_apart(parted: Home) -> None:
    study = open_study(parted.study)
    apart = [record.trial for record in study.outside_records()]
    assert apart and study.region is not None
    note = f"{len(apart)} of {len(study.records())} complete students"

    front = call("front", parted.study)
    assert note in front.err and "outside the region of interest, nll <= " in front.err
    rows = json.loads(accepted("trials", parted.study, "-f", "json").out)
    assert [row["trial"] for row in rows if row["outside"]] == apart
    lines = accepted("trials", parted.study).out.splitlines()
    marked = [line for line in lines if line.endswith("outside the region")]
    assert [int(line.split()[0]) for line in marked] == apart

    shown = json.loads(accepted("show", parted.study, apart[0], "-f", "json").out)
    skill = study.region.skill(study.record(apart[0]))
    assert shown["outside"] is True and shown["skill_kept"] == pytest.approx(skill, abs=1e-4)
    best = json.loads(accepted("show", parted.study, "best", "-f", "json").out)
    assert best["outside"] is False and best["skill_kept"] > KEEP
    status = json.loads(accepted("status", parted.study, "-f", "json").out)
    assert status["outside"] == len(apart)
    assert status["region"].endswith("(20 % of the teacher's skill)")


def test_a_run_says_of_each_trial_whether_it_is_outside(home: Home) -> None:
    result = accepted(*asked(home, KEEP))
    lines = [line for line in result.err.splitlines() if line.startswith("trial ")]
    marked = [line for line in lines if "parameters, outside the region (" in line]
    apart = [record.trial for record in open_study(home.study).outside_records()]
    assert len(lines) >= 4 and apart
    assert [int(line.split()[1].rstrip(":")) for line in marked] == apart


def test_a_study_of_before_says_so(own: Home) -> None:
    without_region(own)
    status = json.loads(accepted("status", own.study, "-f", "json").out)
    assert status["region"].startswith("none: the study was begun before there was a region")
