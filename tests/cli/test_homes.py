"""A folder and its study are one thing: it goes on, or is refused, and nothing of it is deleted."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

import gped_nas as gn
from gped_nas import device as devices
from gped_nas.api import sampling
from gped_nas.api.dashboard import furnish
from gped_nas.api.students import Trainer
from gped_nas.distill.kernel import TrainedStudent
from gped_nas.errors import StudyError
from gped_nas.models.base import Genotype
from gped_nas.search.record import FINISHED
from tests.cli.harness import (
    N_TRIALS,
    Home,
    Result,
    accepted,
    call,
    contents,
    installed,
    refused,
)

MOVED = pytest.mark.filterwarnings("always::gped_nas.errors.MovedWarning")
pytestmark = MOVED


def note(folder: Path) -> dict[str, str]:
    data: dict[str, str] = json.loads((folder / "study.json").read_text())
    return data


def num_finished(folder: Path, *args: object) -> int:
    """The trials that count, every one of them by its own number."""
    trials = json.loads(accepted("trials", folder, *args, "--format", "json").out)
    assert [trial["trial"] for trial in trials] == list(range(len(trials)))
    return sum(trial["state"] in FINISHED and "repeat_of" not in trial for trial in trials)


def bound(own: Home) -> Home:
    """A study in its own folder, bound to it."""
    own.run()
    return own


def external(own: Home, storage: str = "") -> str:
    """The study moved to a storage beside the folder; its URL."""
    bound(own)
    (own.study / "study.db").rename(own.root / "a.db")
    storage = storage or f"sqlite:///{own.root / 'a.db'}"
    result = own.run("--storage", storage)
    assert "lies in sqlite:///" in result.err and "study.db, and" in result.err
    assert note(own.study)["storage"] == "external"
    return storage


def kept(own: Home, command: Callable[[], Result]) -> None:
    """Whether a command leaves every file as it was, and makes none but locks."""
    before = contents(own.root)
    command()
    after = {name: data for name, data in contents(own.root).items() if not _is_lock(name)}
    assert after == {name: data for name, data in before.items() if not _is_lock(name)}


def _is_lock(name: str) -> bool:
    return name.endswith("/lock")


# -- five ways that began anew and deleted the front's students


def test_a_renamed_folder_goes_on_under_its_study(own: Home) -> None:
    bound(own)
    november = own.study.rename(own.out / "november")
    students = contents(november / "students")

    args = ("run", own.space, "--out", own.out, "--study-name", "november")
    result = installed(*args, "--n-trials", N_TRIALS + 1)
    assert result.code == 0, result.err
    line = f"study 'tiny': its folder was {own.study}, and is {november} now"
    assert result.err.count(line) == 1
    assert num_finished(november) == N_TRIALS + 1
    front = json.loads(accepted("front", november, "--format", "json").out)
    kept_students = contents(november / "students")
    for record in front:
        for name, data in students.items():
            if name.startswith(f"{record['trial']}/"):
                assert kept_students[name] == data

    assert line not in call(*args).err, "it is said once"
    assert note(november)["name"] == "tiny"


def test_a_storage_that_is_left_out_is_the_one_of_before(own: Home) -> None:
    storage = external(own)
    own.run("--n-trials", N_TRIALS + 1)
    assert not (own.study / "study.db").exists()
    assert num_finished(own.study, "--storage", storage) == N_TRIALS + 1
    assert num_finished(own.study) == N_TRIALS + 1


def test_a_storage_whose_url_was_not_written_down_has_to_be_given(own: Home) -> None:
    storage = external(own, f"sqlite:///{own.root / 'a.db'}?timeout=30")
    says = (str(own.study), "lies in sqlite:///", "a.db", "--storage")
    kept(own, lambda: refused(4, "run", own.space, "--out", own.out, says=says))
    kept(own, lambda: refused(4, "front", own.study, says=says))
    own.run("--storage", storage, "--n-trials", N_TRIALS + 1)


def test_another_storage_later_is_refused(own: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    bound(own)
    other = f"sqlite:///{own.root / 'other.db'}"
    args = ("run", own.space, "--out", own.out, "--n-trials", "6")
    says = (str(own.study), "study.db", "other.db", "leave it out", "--study-name")
    kept(own, lambda: refused(4, *args, "--storage", other, says=says))
    kept(own, lambda: refused(4, *args, "--storage", other, "--adopt", says=says))
    monkeypatch.setenv("OPTUNA_STORAGE", other)
    kept(own, lambda: refused(4, *args, says=says))
    monkeypatch.setenv("GPED_STORAGE", f"sqlite:///{own.study / 'study.db'}")
    accepted(*args)


def test_a_relative_storage_from_another_directory_is_refused(
    own: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own.root)
    external(own, "sqlite:///a.db")
    args = ("run", own.space, "--out", own.out, "--storage", "sqlite:///a.db")
    (own.root / "elsewhere").mkdir()
    monkeypatch.chdir(own.root / "elsewhere")
    says = (str(own.root / "a.db"), "elsewhere/a.db", "correct it")
    kept(own, lambda: refused(4, *args, says=says))
    assert not (own.root / "elsewhere" / "a.db").exists()
    own.run("--n-trials", N_TRIALS + 1)

    monkeypatch.chdir(own.root)
    accepted(*args, "--n-trials", N_TRIALS + 1)


def test_a_lost_database_is_not_begun_anew(own: Home) -> None:
    (own.study / "study.db").unlink()
    args = ("run", own.space, "--out", own.out)
    says = ("study.db", "missing", "restore", "--study-name")
    kept(own, lambda: refused(4, *args, says=says))
    kept(own, lambda: refused(4, *args, "--adopt", says=says))


@pytest.mark.parametrize("how", ["file", "study"])
def test_a_lost_study_in_another_storage_is_not_begun_anew(own: Home, how: str) -> None:
    storage = external(own)
    (own.root / "a.db").unlink()
    if how == "study":
        import optuna

        optuna.create_study(storage=storage, study_name="somebody else's")
    args = ("run", own.space, "--out", own.out, "--storage", storage)
    kept(own, lambda: refused(4, *args, says=("a.db", "restore", "students of study 'tiny'")))


# -- what lies in the folder is lost in part


def test_a_lost_note_is_written_anew(own: Home) -> None:
    storage = external(own)
    before = note(own.study)
    (own.study / "study.json").unlink()
    own.run("--storage", storage, "--n-trials", N_TRIALS + 1)
    assert note(own.study) == before
    assert num_finished(own.study) == N_TRIALS + 1

    (own.study / "study.json").write_text("{")
    says = ("students", "study.json", "--study-name")
    kept(own, lambda: refused(4, "run", own.space, "--out", own.out, says=says))


def test_students_without_their_study_are_kept(own: Home) -> None:
    for name in ("study.json", "study.db"):
        (own.study / name).unlink()
    says = (str(own.study), "students", "restore")
    kept(own, lambda: refused(4, "run", own.space, "--out", own.out, says=says))
    shutil.rmtree(own.study / "students")
    (own.study / "report.html").unlink()
    kept(own, lambda: refused(4, "run", own.space, "--out", own.out, says=says))


def test_a_folder_renamed_and_stripped_of_its_note_begins_nothing(own: Home) -> None:
    (own.study / "study.json").unlink()
    november = own.study.rename(own.out / "november")
    args = ("run", own.space, "--out", own.out, "--study-name", "november")
    kept(own, lambda: refused(4, *args, says=(str(november), "study.db")))


# -- two folders, one storage


def test_a_second_folder_is_refused_and_may_take_over(own: Home) -> None:
    storage = external(own)
    first = ("run", own.space, "--out", own.out, "--storage", storage)
    second = ("run", own.space, "--out", own.root / "other", "--storage", storage)
    says = ("study 'tiny'", "other/tiny", str(own.study), "--adopt")
    kept(own, lambda: refused(4, *second, "--n-trials", "6", says=says))

    result = accepted(*second, "--n-trials", N_TRIALS + 1, "--adopt")
    assert f"took it over from {own.study}" in result.err
    other = own.root / "other" / "tiny"
    says = ("study 'tiny'", str(own.study), str(other), "--adopt")
    kept(own, lambda: refused(4, *first, "--n-trials", "9", says=says))
    kept(own, lambda: refused(4, "report", own.study, says=says))
    with pytest.raises(StudyError, match="other/tiny"):
        furnish(gn.open_study(own.study))
    assert num_finished(own.study) == N_TRIALS + 1, "it can still be read"

    accepted(*first, "--n-trials", N_TRIALS + 2, "--adopt")
    accepted(*first, "--n-trials", N_TRIALS + 2)
    assert num_finished(own.study) == N_TRIALS + 2


def test_a_run_that_lost_its_study_ends_at_its_next_write(own: Home) -> None:
    storage = external(own)
    space = gn.load_space(own.space)

    def take_over(record: object, finished: int) -> None:
        gn.run(
            space,
            out=own.root / "other",
            storage=storage,
            n_trials=N_TRIALS + 3,
            adopt=True,
            told=lambda record, finished: None,
        )

    students = contents(own.study / "students")
    with pytest.raises(StudyError, match="other/tiny on .* took it over"):
        gn.run(space, out=own.out, storage=storage, n_trials=N_TRIALS + 3, told=take_over)
    other = own.root / "other" / "tiny"
    assert num_finished(other) == N_TRIALS + 3, "no trial of the earlier run is added"
    now = contents(own.study / "students")
    assert {name: now[name] for name in students} == students, "it deletes nothing"


def test_a_bound_folder_that_was_removed_gives_way(own: Home) -> None:
    storage = external(own)
    shutil.rmtree(own.study)
    other = own.root / "other" / "tiny"
    args = ("run", own.space, "--out", other.parent, "--storage", storage)
    result = accepted(*args, "--n-trials", N_TRIALS + 1)
    assert f"its folder was {own.study}, and is {other} now" in result.err
    assert num_finished(other) == N_TRIALS + 1


def test_a_folder_is_not_given_another_study_of_its_name(own: Home) -> None:
    storage = external(own)
    stranger = Home(own.root / "stranger")
    shutil.copytree(own.study, stranger.study)
    (stranger.study / "study.json").unlink()
    shutil.copy(own.root / "a.db", stranger.study / "study.db")
    accepted("run", own.space, "--out", stranger.out)
    assert note(stranger.study)["study"] != note(own.study)["study"]

    os.replace(stranger.study / "study.db", own.root / "a.db")
    says = (str(own.study), "holds another study", "--study-name")
    args = ("run", own.space, "--out", own.out, "--storage", storage)
    kept(own, lambda: refused(4, *args, says=says))
    kept(own, lambda: refused(4, *args, "--adopt", says=says))


EDITS = ("[]", "{}", '{"fence": 1}', "null")
NO_JSON = ("", "3" * 5000, "[" * 5000)


def test_a_binding_that_was_edited_is_told(own: Home) -> None:
    bound(own)
    for text in (*EDITS, *NO_JSON):
        with sqlite3.connect(own.study / "study.db") as database:
            edit = "UPDATE study_system_attributes SET value_json = ? WHERE key = 'gped:home'"
            database.execute(edit, [text])
        database.close()
        # Optuna reads these attributes too, and does not say which one is no JSON.
        says = ("restore", "study 'tiny'", "gped:home") if text in EDITS else ("restore",)
        before = contents(own.study)
        refused(4, "run", own.space, "--out", own.out, says=says)
        refused(4, "front", own.study, says=says)
        assert contents(own.study) == before


# -- copies


def test_a_copy_with_its_own_storage_is_a_study_of_its_own(own: Home) -> None:
    bound(own)
    copy = own.out / "copy"
    shutil.copytree(own.study, copy)
    args = ("run", own.space, "--out", own.out, "--study-name", "copy")
    result = accepted(*args, "--n-trials", N_TRIALS + 1)
    assert f"{copy} is a copy of {own.study}, and a study of its own now" in result.err
    assert not {note(copy)[key] for key in ("home", "study")} & set(note(own.study).values())

    own.run("--n-trials", N_TRIALS + 2)
    again = accepted(*args, "--n-trials", N_TRIALS + 1)
    assert "copy of" not in again.err
    assert (num_finished(copy), num_finished(own.study)) == (N_TRIALS + 1, N_TRIALS + 2)


def test_a_copy_of_a_folder_alone_is_a_second_folder(own: Home) -> None:
    storage = external(own)
    copy = own.out / "copy"
    shutil.copytree(own.study, copy)
    args = ("run", own.space, "--out", own.out, "--study-name", "copy", "--storage", storage)
    says = (str(copy), str(own.study), "--adopt")
    kept(own, lambda: refused(4, *args, says=says))
    accepted(*args, "--adopt")
    refused(4, "run", own.space, "--out", own.out, "--storage", storage, says=(str(copy),))


def test_a_copied_storage_is_refused_while_the_first_is_there(own: Home) -> None:
    external(own)
    shutil.copy(own.root / "a.db", own.root / "b.db")
    storage = f"sqlite:///{own.root / 'b.db'}"
    args = ("run", own.space, "--out", own.out, "--storage", storage)
    kept(own, lambda: refused(4, *args, says=("a.db", "b.db", "leave it out")))
    (own.root / "a.db").unlink()
    assert "lies in sqlite:///" in accepted(*args, "--n-trials", N_TRIALS + 1).err
    assert num_finished(own.study) == N_TRIALS + 1


# -- what a copy lacks


def fronts(folder: Path) -> dict[str, dict[str, bytes]]:
    """The files of each student of the front, by trial."""
    front = json.loads(accepted("front", folder, "--format", "json").out)
    return {str(row["trial"]): contents(folder / "students" / str(row["trial"])) for row in front}


def test_students_that_are_missing_are_trained_again_to_the_bit(
    own: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound(own)
    before, evidence = fronts(own.study), contents(own.study / "evidence")
    for name in ("students", "evidence", "references"):
        shutil.rmtree(own.study / name)
    trial = next(iter(before))
    says = (f"trial {trial} is on the front", f"students/{trial}", "trains it again")
    refused(4, "export", own.study, trial, says=says)

    trained = Trainer.distill
    together: list[list[object]] = []

    def distill(self: Trainer, genotypes: Sequence[Genotype]) -> tuple[TrainedStudent, ...]:
        together.append([genotype.to_json() for genotype in genotypes])
        return trained(self, genotypes)

    monkeypatch.setattr(Trainer, "distill", distill)
    own.run()
    # Those that were trained together are again: other company may round otherwise.
    records = gn.open_study(own.study).records()
    for number in before:
        company = records[int(number)].extra["trained_with"]
        assert int(number) in company
        assert [records[trial].genotype for trial in company] in together
    assert fronts(own.study) == before
    assert contents(own.study / "evidence") == evidence
    accepted("export", own.study, trial, "--into", own.root / "taken")


def test_students_that_come_out_otherwise_stay_missing_with_a_note(
    own: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound(own)
    before = json.loads(accepted("front", own.study, "--format", "json").out)
    evidence = contents(own.study / "evidence")
    shutil.rmtree(own.study / "students")

    # Another processor rounds otherwise: the same training with other last bits.
    trained = Trainer.distill
    num_trainings = []

    def distill(self: Trainer, genotypes: Sequence[Genotype]) -> tuple[TrainedStudent, ...]:
        num_trainings.append(len(genotypes))
        students = trained(self, genotypes)
        for student in students:
            for parameter in student.params.values():
                parameter.mul_(1 + 2**-20)
        return students

    monkeypatch.setattr(Trainer, "distill", distill)
    own.run()
    assert num_trainings
    assert json.loads(accepted("front", own.study, "--format", "json").out) == before
    assert contents(own.study / "evidence") == evidence, "what was measured of them stays"
    missing = [row["trial"] for row in before]
    (note,) = _notes_on_missing_students(own)
    assert f"trials {', '.join(map(str, missing))} are not in this study's folder" in note
    refused(4, "export", own.study, missing[0], says=("is on the front", "restore it"))

    num_trainings.clear()
    own.run()
    assert not num_trainings, "it is not tried again and again"
    own.run("--n-trials", N_TRIALS + 2)
    assert _notes_on_missing_students(own) == [note]


def _notes_on_missing_students(own: Home) -> list[str]:
    notes = gn.open_study(own.study).snapshot().notes
    return [note for note in notes if "are not in this study's folder" in note]


# -- the stream, and another processor


def moved_stream(own: Home, to: Path) -> None:
    """The only stream, moved to another folder of streams; the cache is empty then."""
    to.mkdir(parents=True, exist_ok=True)
    own.stream.rename(to / own.stream.name)


def remember(own: Home, stream: Path) -> None:
    """Let the study say that its stream lay in a folder when it began."""
    ledger = gn.open_study(own.study).ledger
    description = ledger.document.description
    assert description is not None and description.stream is not None
    place = description.stream.model_copy(update={"path": str(stream)})
    ledger.change(description=description.model_copy(update={"stream": place}))


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this is another processor."""
    here = devices.fingerprint

    def fingerprint(device: torch.device) -> dict[str, object]:
        return {**here(device), "name": "Another 9000"}

    monkeypatch.setattr(devices, "fingerprint", fingerprint)


@pytest.mark.parametrize("place", ["in the cache", "in the study", "where it was"])
def test_a_stream_at_hand_is_used_on_another_processor_too(
    own: Home, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    own.run("--n-trials", N_TRIALS + 1)
    stream = own.stream.name
    if place == "in the study":
        moved_stream(own, own.study / "streams")
    if place == "where it was":
        monkeypatch.setenv("GPED_CACHE", str(own.root / "new cache"))
        remember(own, own.stream)

    elsewhere(monkeypatch)
    monkeypatch.setattr(sampling, "write_weights", None)  # nothing is sampled
    own.run("--n-trials", N_TRIALS + 2)
    study = gn.open_study(own.study)
    assert study.stream_path.name == stream and study.stream_path.is_dir()
    gn.load_stream(study.stream_path)


def test_another_processor_is_refused_before_it_samples_the_teacher_again(
    own: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound(own)
    remember(own, own.stream)
    shutil.rmtree(own.cache / "streams")
    elsewhere(monkeypatch)
    says = ("name", "Another 9000", "sampling it again", str(own.study / "streams"))
    kept(own, lambda: refused(4, "run", own.space, "--out", own.out, says=says))

    monkeypatch.undo()
    monkeypatch.setenv("GPED_CACHE", str(own.cache))
    own.run("--n-trials", N_TRIALS + 1)
