"""Who is certainly gone, and of whom nothing is known."""

import os
import subprocess
import sys

import pytest

from gped_nas.search.owners import Owner


def seen_from(here: Owner, **changes: object) -> bool:
    return here.model_copy(update={"name": "other", **changes}).is_gone(here)


def test_whoever_opens_a_ledger_is_not_gone_for_itself() -> None:
    here = Owner.here("a folder")
    assert here.pid == os.getpid() and here.name != Owner.here("a folder").name
    assert not here.is_gone(here)


def test_who_held_the_lock_that_is_held_now_is_gone() -> None:
    here = Owner.here("a folder")
    assert seen_from(here)  # the same process even: it opened the study before
    assert seen_from(here, machine="another one")
    assert not seen_from(here, home="another folder")


@pytest.mark.skipif(not Owner.here().machine, reason="reads who is alive in /proc")
def test_a_process_of_this_machine_is_gone_once_it_ended() -> None:
    here = Owner.here()
    code = (
        "from gped_nas.search.owners import Owner; print(Owner.here().model_dump_json()); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    other = Owner.model_validate_json(process.stdout.readline())
    assert not other.is_gone(here)
    process.communicate("\n")
    assert other.is_gone(here)


@pytest.mark.skipif(not Owner.here().machine, reason="reads who is alive in /proc")
def test_a_number_that_another_process_has_now_is_not_its_owner() -> None:
    here = Owner.here()
    assert not seen_from(here)
    assert seen_from(here, started="1")


def test_nothing_is_known_of_a_process_elsewhere() -> None:
    here = Owner.here()
    assert not seen_from(here, machine="another one", pid=2**30)
    assert not seen_from(here.model_copy(update={"machine": ""}), pid=2**30)


def test_a_process_of_another_user_that_is_hidden_is_not_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = Owner(name="here", machine="this one")

    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr("gped_nas.search.owners._started", lambda pid: "")
    monkeypatch.setattr(os, "kill", refuse)

    assert not seen_from(here, pid=4711, started="123")
