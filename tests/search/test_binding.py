"""Which folder a study belongs to: every row of the table, and what a fence refuses."""

import contextlib
import multiprocessing
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from gped_nas.errors import StudyError
from gped_nas.search.binding import Binding, Folder, Sight, decide
from gped_nas.search.document import StudentTest
from gped_nas.search.ledger import Answer, Ledger
from gped_nas.search.owners import Owner
from gped_nas.search.rows import LEASE_S, Refusal
from tests.search.fakes import make_record, make_space, open_store, run

BOUND = Binding(study="s", name="tiny", folder="f", path="/old", host="here", fence=3)
OURS, OTHER = Folder("f", "s"), Folder("g", "s")
NEW = Folder()
INSIDE = Folder("f", "s", has_storage=True)


@pytest.mark.parametrize(
    ("folder", "sight", "expected", "adopting"),
    [
        (OURS, "here", "same", "same"),
        (OURS, "gone", "moved", "adopted"),
        (OURS, "unseen", "moved", "adopted"),
        (OURS, "there", "", "adopted"),
        (OTHER, "gone", "moved", "adopted"),
        (OTHER, "unseen", "", "adopted"),
        (OTHER, "there", "", "adopted"),
        (NEW, "here", "moved", "adopted"),
        (NEW, "gone", "moved", "adopted"),
        (NEW, "unseen", "", "adopted"),
        (NEW, "there", "", "adopted"),
        (INSIDE, "here", "same", "same"),
        (INSIDE, "there", "copied", "copied"),
        (INSIDE, "gone", "moved", "moved"),
        (INSIDE, "unseen", "moved", "moved"),
        (Folder("g", "", has_storage=True), "there", "copied", "copied"),
        (Folder("f", "another"), "here", "", ""),
        (Folder("g", "another", has_storage=True), "gone", "", ""),
    ],
)
def test_what_becomes_of_a_study(
    folder: Folder, sight: Sight, expected: str, adopting: str
) -> None:
    for adopts, wanted in ((False, expected), (True, adopting)):
        decision = decide(BOUND, folder, sight, adopts=adopts)
        assert isinstance(decision, Refusal) if not wanted else decision == wanted


def test_a_study_that_was_never_bound_is_taken_by_a_folder_that_holds_no_other() -> None:
    assert decide(None, Folder("f"), "gone") == "new"
    assert isinstance(decide(None, OURS, "gone", adopts=True), Refusal)


@pytest.mark.parametrize("sight", ["gone", "unseen"])
def test_a_study_that_somebody_works_on_moves_only_if_it_is_adopted(sight: Sight) -> None:
    refusal = decide(BOUND, OURS, sight, is_held=True)
    assert isinstance(refusal, Refusal) and "/old on here" in refusal.reason
    assert decide(BOUND, OURS, sight, is_held=True, adopts=True) == "adopted"
    # Whoever held the lock of this folder, which is ours now, works no more.
    assert decide(BOUND, OURS, "here", is_held=True) == "same"


def test_a_lease_ends_with_its_process_or_by_the_clock() -> None:
    here, elsewhere = Owner.here(), Owner(name="w", machine="elsewhere")
    assert not BOUND.is_held(here, 0.0)
    held = BOUND.model_copy(update={"holder": elsewhere, "renewed": 100.0})
    assert held.is_held(here, 100.0 + LEASE_S)
    assert not held.is_held(here, 101.0 + LEASE_S)
    gone = Owner(name="w", machine=here.machine, pid=here.pid, started="before")
    assert not BOUND.model_copy(update={"holder": gone, "renewed": 100.0}).is_held(here, 100.0)


def take(ledger: Ledger, folder: str) -> bool:
    """Take a study over; whether nobody else did between reading and writing."""
    binding = ledger.fence.read()
    number = 1 if binding is None else binding.fence + 1
    taken = BOUND.model_copy(update={"folder": folder, "fence": number, "holder": ledger.owner})
    if not ledger.fence.swap(taken):
        return False
    ledger.fence.hold(number)
    return True


@pytest.mark.parametrize("is_bound", [False, True])
def test_of_two_that_take_a_study_at_once_one_gets_it(tmp_path: Path, is_bound: bool) -> None:
    first, second = (open_store(make_space(), tmp_path / "study.db") for _ in range(2))
    if is_bound:
        assert take(open_store(make_space(), tmp_path / "study.db"), "earlier")

    assert first.fence.read() == second.fence.read()
    before = second.fence.read()
    assert take(first, "a")
    number = 1 if before is None else before.fence + 1
    assert not second.fence.swap(BOUND.model_copy(update={"fence": number}))
    binding = second.fence.read()
    assert binding is not None and (binding.folder, binding.fence) == ("a", number)


def test_every_verb_of_a_ledger_that_lost_its_study_is_refused(tmp_path: Path) -> None:
    space = make_space()
    first = open_store(space, tmp_path / "study.db")
    assert take(first, "a")
    mine, paused = first.claim(space, 2, 0)
    row = first.rows()[paused.number].model_copy(update={"until": 1})
    first._write_row(paused.number, row)
    first.report(paused.number, budget=1, metrics={}, checkpoint="c")
    first._clock = lambda: 1e12  # every lease is over

    second = open_store(space, tmp_path / "study.db")
    assert take(second, "b")
    before = second.records(), second.rows(), second.document
    verbs: list[Callable[[], object]] = [
        lambda: first.claim(space, 1, 0),
        lambda: first.report(mine.number, budget=1, metrics={}),
        lambda: first.promote(paused.number, 10),
        lambda: first.finish(Answer(make_record(mine))),
        lambda: first.change(notes=("Too late.",)),
        lambda: first.write_test(0, StudentTest.of({})),
        first.reap,
        first.fence.check,
        lambda: first.fence.renew(0.0),
    ]
    for verb in verbs:
        with pytest.raises(StudyError, match="study 'fake': a run in the folder /old on here"):
            verb()
    assert (second.records(), second.rows(), second.document) == before

    second.change(notes=("In time.",))
    first.fence.release()
    binding = second.fence.read()
    assert binding is not None and binding.holder == second.owner


@pytest.mark.parametrize("text", ["", "[" * 5000, "3" * 5000, "{}"])
def test_a_binding_that_is_edited_meanwhile_stops_every_write(tmp_path: Path, text: str) -> None:
    ledger = open_store(make_space(), tmp_path / "study.db")
    assert take(ledger, "a")
    with sqlite3.connect(tmp_path / "study.db") as database:
        edit = "UPDATE study_system_attributes SET value_json = ? WHERE key = 'gped:home'"
        database.execute(edit, [text])
    database.close()
    with pytest.raises(StudyError, match="study 'fake': gped:home: .*restore"):
        ledger.change(notes=("Too late.",))
    assert ledger.document.notes == ()


def test_what_the_earlier_folder_had_claimed_is_taken_back(tmp_path: Path) -> None:
    space = make_space()
    first = open_store(space, tmp_path / "study.db")
    first.owner = Owner(name="elsewhere", machine="elsewhere", home="a")
    assert take(first, "a")
    first.claim(space, 2, 0)

    second = open_store(space, tmp_path / "study.db")
    assert second.reap() == 0, "its lease is not over"
    assert take(second, "b")
    assert second.reap() == 2


def run_in_processes(work: Callable[..., None], path: Path, folders: str) -> None:
    """A process for each folder, all of them begun at once."""
    context = multiprocessing.get_context("fork")
    start = context.Event()
    workers = [context.Process(target=work, args=(path, folder, start)) for folder in folders]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0


def _append(path: Path, folder: str, start: "multiprocessing.synchronize.Event") -> None:
    """Take a study over, and write until it is taken away."""
    ledger = open_store(make_space(), path)
    start.wait()
    while not take(ledger, folder):
        pass
    for number in range(200):
        try:
            ledger.change(notes=(folder, str(number)))
        except StudyError:
            return


def test_a_write_and_a_takeover_never_overlap(tmp_path: Path) -> None:
    """After a takeover was written, no write of the earlier holder is seen."""
    path = tmp_path / "study.db"
    watcher = open_store(make_space(), path)
    run_in_processes(_append, path, "abc")

    binding = watcher.fence.read()
    assert binding is not None and binding.fence == 3
    assert watcher.document.notes == (binding.folder, "199")


NUM_WANTED = 30
WIDE = {"depth": 1, "width": {"int": [1, 60_000]}}


def _race(path: Path, folder: str, start: "multiprocessing.synchronize.Event") -> None:
    """Search for a folder that takes the study over whenever it lost it."""
    start.wait()
    for _ in range(6):
        ledger = open_store(make_space(WIDE), path)
        if not take(ledger, folder):
            continue
        with contextlib.suppress(StudyError):
            run(make_space(WIDE), ledger, n_trials=NUM_WANTED)


def test_folders_that_race_for_a_study_never_overshoot(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    open_store(make_space(WIDE), path)
    run_in_processes(_race, path, "abc")

    ledger = open_store(make_space(WIDE), path)
    assert take(ledger, "last")
    run(make_space(WIDE), ledger, n_trials=NUM_WANTED)
    assert sum(record.is_counted for record in ledger.records()) == NUM_WANTED
