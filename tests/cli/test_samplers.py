"""Who proposes genotypes, as the user hears of it."""

import json

import pytest

from gped_nas.api import open_study
from tests.cli.harness import Home, accepted, call, snapshot_of

AUTO = ("--set", "search.sampler=auto")


@pytest.mark.parametrize(
    ("n_trials", "sampler"),
    [("4", "costs_known: the space has 12 "), ("12", "brute_force: with 12 ")],
)
def test_a_dry_run_says_which_sampler_was_chosen_and_why(
    home: Home, n_trials: str, sampler: str
) -> None:
    command = ("run", home.space, *AUTO, "--dry-run", "--n-trials", n_trials)
    plan = accepted(*command).out
    (line,) = [line for line in plan.splitlines() if line.startswith("sampler ")]
    assert line.split(maxsplit=1)[1].startswith(sampler)


def test_run_show_and_report_say_which_sampler_was_chosen_and_why(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start-up is three random trainings, so that the fourth one is a proposal."""
    sentence = (
        "Genotypes were proposed by costs_known: the space has 12 trainings, 4 are wanted, and "
        "what they cost is known before."
    )
    result = home.run(*AUTO)
    assert sentence in " ".join(result.err.split())
    assert sentence in accepted("show", home.study, "0").out.splitlines()

    monkeypatch.setenv("COLUMNS", "80")
    on_terminal = call("show", home.study, "0", terminal=True).out
    assert max(map(len, on_terminal.splitlines())) <= 80
    assert sentence in " ".join(on_terminal.split())
    assert sentence in snapshot_of(home).notes

    genotypes = [json.dumps(record.genotype) for record in open_study(home.study).records()]
    assert len(genotypes) == len(set(genotypes)) == 4


def test_a_sampler_that_is_named_is_not_explained(home: Home) -> None:
    result = home.run("--set", "search.sampler=random", "--n-trials", "1")
    assert "Genotypes were proposed" not in str(result)
