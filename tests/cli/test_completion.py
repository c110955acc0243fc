"""What the shell proposes: spaces, studies and trials, from names of files alone."""

import pytest

import gped_nas as gn
from tests.cli.harness import Home, installed


def _proposed(home: Home, *words: str) -> list[str]:
    """What bash is given for the last of these words."""
    line = ["gped-search", *words]
    result = installed(
        cwd=home.root,
        _GPED_SEARCH_COMPLETE="complete_bash",
        COMP_WORDS=" ".join(line),
        COMP_CWORD=str(len(line) - 1),
        PYTHONPROFILEIMPORTTIME="1",
    )
    loaded = {text.rpartition("|")[2].strip() for text in result.err.splitlines()}
    assert "gped_nas.cli.completion" in loaded and not loaded & {"torch", "optuna", "numpy"}
    return result.out.split()


def test_tab_completes_spaces_studies_and_trials(finished: Home) -> None:
    assert _proposed(finished, "run", "") >= ["cifar_cnn"]
    assert _proposed(finished, "space", "ti") == ["tiny.yaml"]
    assert _proposed(finished, "front", "t") == ["tiny"]

    front = [str(record.trial) for record in gn.open_study(finished.study).front_records()]
    assert _proposed(finished, "show", "tiny", "") == [*sorted(front), "best", "chosen"]
    assert _proposed(finished, "export", "tiny", "ch") == ["chosen"]


@pytest.mark.parametrize("name", ["zsh", "fish"])
def test_other_shells_are_served(finished: Home, name: str) -> None:
    shown = installed("--show-completion", name, cwd=finished.root)
    assert shown.code == 0 and "gped-search" in shown.out
