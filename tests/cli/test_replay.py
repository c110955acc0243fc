"""``gped-search replay``: samplers compared on a recorded study, and what it refuses."""

import json
from collections.abc import Iterator

import pytest

import gped_nas as gn
from tests.cli.harness import Home, accepted, new_home, refused

SEARCH = "{n_trials: 16, students_at_once: 8, sampler: random, keep: {}}"
FAST = ("--repeats", 3, "--target", 4, "--at-once", 2)


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, list[str]]]:
    """Two studies of the same genotypes, trained with two seeds; nothing writes to them."""
    home = new_home(tmp_path_factory.mktemp("replay"), search=SEARCH)
    text = home.space.read_text().replace("{choices: [2, 4, 8]}", "{int: [2, 40]}")
    home.space.write_text(text.replace("steps: 40, warmup: 5", "steps: 10, warmup: 2"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPED_CACHE", str(home.cache))
        for name in ("GPED_STORAGE", "OPTUNA_STORAGE"):
            patch.delenv(name, raising=False)
        studies = []
        for seed in (0, 1):
            name = f"pool{seed}"
            home.run("--seed", seed, "--study-name", name, "--set", "search.seed=0")
            studies.append(str(home.out / name))
        yield home, studies


def test_samplers_are_compared_without_training(pools: tuple[Home, list[str]]) -> None:
    home, studies = pools
    result = accepted("replay", *studies, *FAST, "--format", "json")
    replayed = json.loads(result.out)
    names = ["random every_dtype=false", "random", "tpe", "auto"]
    assert [row["proposer"] for row in replayed["rows"]] == names
    assert replayed["num_members"] >= 12 and replayed["studies"] == ["pool0", "pool1"]
    baseline = replayed["rows"][0]
    assert baseline["factors"]["steps"]["value"] == 1.0 and baseline["num_runs"] == 3
    for row in replayed["rows"]:
        for unit in ("steps", "macs", "seconds"):
            for counted in ("factors", "whole"):
                factor = row[counted][unit]
                assert 0 < factor["low"] <= factor["value"] <= factor["high"]
    assert "trained" not in result.err

    again = accepted("replay", *studies, *FAST, "--format", "json")
    assert json.loads(again.out) == replayed


def test_a_table_says_what_it_holds_for(pools: tuple[Home, list[str]]) -> None:
    _, studies = pools
    result = accepted("replay", studies[0], *FAST, "--proposer", "random")
    assert "random every_dtype=false" in " ".join(result.out.split())
    assert "1.00 [1.00, 1.00]" in result.out
    assert "the intervals hold for this pool alone" in result.err
    assert "one seed: a front is judged by the values that it was chosen by" in result.err


def test_replay_in_python(pools: tuple[Home, list[str]]) -> None:
    _, studies = pools
    replayed = gn.replay(studies, proposers=["tpe students_at_once=3"], repeats=2, target=4)
    assert [row.proposer for row in replayed.rows][1:] == ["tpe students_at_once=3"]
    assert 0 < replayed.target < 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--proposer", "grid"), ("sampler 'grid'", "one that draws")),
        (("--proposer", "tpo"), ("--proposer tpo", "sampler")),
        (("--proposer", "tpe fast"), ("found 'fast'", "KEY=VALUE")),
        (("--proposer", "tpe start=3"), ("--proposer tpe start=3", "start")),
        (("--target", 1000), ("--target", "half of the")),
        (("--repeats", 1), ("--repeats", "at least 2")),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    pools: tuple[Home, list[str]], options: tuple[object, ...], says: tuple[str, ...]
) -> None:
    _, studies = pools
    target = () if "--target" in options else ("--target", 4)
    refused(2, "replay", studies[0], *target, *options, says=says)


def test_studies_of_other_spaces_or_of_one_seed_are_no_pool(pools: tuple[Home, list[str]]) -> None:
    home, studies = pools
    home.run("--study-name", "other", "--set", "recipe.steps=11", "--n-trials", 2)
    refused(4, "replay", studies[0], home.out / "other", says=("recipe", "whose seeds differ"))
    refused(4, "replay", studies[0], studies[0], says=("twice",))
