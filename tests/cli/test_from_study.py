"""``run --from-study``: a study that begins with what another one found, or is refused."""

import json
import shutil

import gped_nas as gn
from tests.cli.harness import Home, accepted, refused

TPE = ("--set", "search.sampler=tpe")


def test_a_study_begins_with_what_another_one_found(own: Home) -> None:
    out, name = ("--out", own.out), ("--study-name", "warm")
    source = ("--from-study", own.study.name)
    words = ("run", own.space, *out, *name, "--seed", 3, *TPE)
    accepted(*words, *source, "--n-trials", 2)

    study = gn.open_study(own.out / "warm")
    earlier = study.ledger.earlier
    assert earlier is not None and earlier.study == "tiny" and len(earlier.students) > 2
    records = json.loads(accepted("trials", "warm", *out, "-f", "json").out)
    of_others = ("variant_of", "repeat_of")
    counted = [record for record in records if not any(key in record for key in of_others)]
    assert len(counted) == 2
    front = json.loads(accepted("front", "warm", *out, "-f", "json").out)
    assert {each["trial"] for each in front} <= {each["trial"] for each in records}
    assert "began with what" in (own.out / "warm" / "report.html").read_text()

    # it goes on without the other one, and with it wherever that lies, but not with a third one
    shutil.move(own.out / "tiny", own.out / "renamed")
    accepted(*words, "--n-trials", 3)
    accepted(*words, "--from-study", "renamed", "--n-trials", 3)
    says = ("--from-study", "'warm' began with what study 'tiny' found")
    refused(2, *words, "--from-study", "warm", says=says)


def test_what_says_nothing_to_the_sampler_is_refused(own: Home) -> None:
    out = ("--out", own.out)
    new = ("run", own.space, *out, "--study-name", "new", *TPE)
    source = ("--from-study", "tiny")
    says = ("--from-study", "has the objectives nll", "expected nll, storage_bytes")
    refused(2, *new, *source, "--set", "objectives=[nll, storage_bytes]", says=says)
    ranges = "students=[{family: mlp, genotype: {depth: 1, width: {int: [2, 9]}}}]"
    refused(2, *new, *source, "--set", ranges, says=("has other students than this space",))
    random = ("--set", "search.sampler=random")
    refused(2, *new, *source, *random, says=("'random' does not learn",))

    refused(4, *new, "--from-study", "nothing", says=("nothing: no such study",))
    (own.study / "study.json").write_text("{")
    refused(4, *new, *source, says=("study.json: damaged",))
    assert not (own.out / "new").exists()


def test_a_study_that_has_trials_is_told_of_no_other(own: Home) -> None:
    says = ("study 'tiny' has", "expected a study without")
    refused(2, "run", own.space, "--out", own.out, "--from-study", "tiny", *TPE, says=says)


def test_a_damaged_study_is_refused(own: Home) -> None:
    (own.study / "study.db").write_bytes(b"no database")
    words = ("run", own.space, "--out", own.out, "--study-name", "new", *TPE)
    refused(4, *words, "--from-study", "tiny", says=("not a readable study",))
