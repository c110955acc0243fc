"""What a study shows in the dashboard: once, up to date, as text, never over a person's words."""

import json
from pathlib import Path

import optuna
import plotly.graph_objects as go
import pytest
from optuna.artifacts import get_all_artifact_meta
from optuna_dashboard import get_note, save_note

from gped_nas.api.dashboard import ARTIFACTS, furnish
from gped_nas.api.note import DATABASE
from gped_nas.api.study import Study
from gped_nas.errors import StudyError
from gped_nas.report.dashboard import Wall
from gped_nas.search.database import sqlite_url
from tests.report.example import make_snapshot
from tests.report.handmade import make_study
from tests.scenarios import tree

EVIL = "<img src=x onerror=alert(1)>\"'`|\n# [a](javascript:alert(1))\u202egnp." + "x" * 10_000
FEW = make_snapshot().records[:9]


def optuna_study(study: Study) -> optuna.Study:
    return optuna.load_study(study_name=study.name, storage=sqlite_url(study.path / DATABASE))


def notes_of(study: Study) -> dict[int, str]:
    loaded = optuna_study(study)
    attributes = loaded._storage.get_study_system_attrs(loaded._study_id)
    notes = {}
    for trial in loaded.trials:
        key = f"dashboard:{trial._trial_id}:note_str:"
        parts = {int(k.removeprefix(key)): v for k, v in attributes.items() if k.startswith(key)}
        notes[trial.number] = "".join(parts[i] for i in sorted(parts))
    return {number: text for number, text in notes.items() if text}


def plots_of(study: optuna.Study) -> dict[str, dict[str, object]]:
    attributes = study._storage.get_study_system_attrs(study._study_id)
    names = {key.split(":")[2] for key in attributes if key.startswith("dashboard:plot_data:")}
    plots = {}
    for name in names:
        key = f"dashboard:plot_data:{name}:"
        parts = {int(k.removeprefix(key)): v for k, v in attributes.items() if k.startswith(key)}
        plots[name] = json.loads("".join(parts[i] for i in sorted(parts)))
    return plots


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = make_study(tmp_path_factory.mktemp("wall"), make_snapshot(records=FEW, front=(1, 3, 7)))
    furnish(study)
    return study


def test_the_study_and_each_trial_of_the_front_have_a_note(furnished: Study) -> None:
    front = [record.trial for record in furnished.front_records()]
    notes = notes_of(furnished)
    assert sorted(notes) == sorted(front)
    whole = get_note(optuna_study(furnished))
    assert "on the front: trials " + ", ".join(map(str, front)) in whole
    assert "chosen: trial" in whole

    for record in furnished.front_records():
        text = notes[record.trial]
        low, high = record.measured("nll").interval
        assert text.startswith(f"# Trial {record.trial}: ")
        assert f"| nll | {record.metrics['nll']:.4g} | {low:.4g} to {high:.4g} |" in text
        assert f"storage\\_bytes {record.costs['storage_bytes']:,}" in text


def test_files_of_the_front_are_attached_and_linked(furnished: Study) -> None:
    metas = {meta.filename: meta for meta in get_all_artifact_meta(optuna_study(furnished))}
    expected = set()
    for record in furnished.front_records():
        for name in ("README.md", "spec.json", "weights.safetensors"):
            expected.add(f"trial-{record.trial}-{name}")
    assert set(metas) == expected

    notes = notes_of(furnished)
    for record in furnished.front_records():
        source = furnished.path / "students" / str(record.trial)
        meta = metas[f"trial-{record.trial}-weights.safetensors"]
        blob = furnished.path / ARTIFACTS / meta.artifact_id
        assert blob.read_bytes() == (source / "weights.safetensors").read_bytes()
        assert f"(/artifacts/1/{meta.artifact_id})" in notes[record.trial]
        readme = metas[f"trial-{record.trial}-README.md"]
        card = furnished.path / ARTIFACTS / readme.artifact_id
        assert card.read_text().startswith(f"# Trial {record.trial} of ")


def test_the_main_figures_are_saved_under_names_that_stay(furnished: Study) -> None:
    plots = plots_of(optuna_study(furnished))
    always = {
        "chart-front",
        "chart-hypervolume",
        "chart-hypervolume-time",
        "chart-training",
        "chart-teacher",
    }
    assert always <= set(plots) <= {*always, "chart-importances"}
    assert all(plot["layout"]["title"]["text"] and plot["data"] for plot in plots.values())  # type: ignore[index]


def test_a_second_start_changes_no_byte(furnished: Study) -> None:
    before = tree(furnished.path)
    furnish(furnished)
    assert tree(furnished.path) == before


def test_objectives_get_names_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=url, study_name="s", directions=["minimize", "minimize"])
    for names in (["nll", "flops"], ["other", "names"]):
        Wall(url, "s", tmp_path / "files").name_objectives(names)
        assert study._storage.get_study_system_attrs(1)["study:metric_names"] == ["nll", "flops"]
    with pytest.raises(StudyError, match="nobody: no study of this name"):
        Wall(url, "nobody", tmp_path / "files")


@pytest.fixture
def wall(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Opens the wall of a study with two trials, as each start of the dashboard does."""
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=url, study_name="s")
    for _ in range(2):
        study.tell(study.ask(), 1.0)
    return study, lambda: Wall(url, "s", tmp_path / "files")


def note_of(study: optuna.Study, trial: int) -> str:
    attributes = study._storage.get_study_system_attrs(1)
    return str(attributes.get(f"dashboard:{trial + 1}:note_str:0", ""))


def test_what_left_the_front_is_taken_down(wall) -> None:  # type: ignore[no-untyped-def]
    study, start = wall
    for trial in (0, 1, 1):
        started = start()
        started.draw({f"plot-{trial}": go.Figure(layout={"title": {"text": f"plot {trial}"}})})
        started.write("whole", {trial: f"note {trial}"})
        started.remember()
        assert (note_of(study, trial), note_of(study, 1 - trial)) == (f"note {trial}", "")
        plots = plots_of(study)
        assert plots[f"plot-{trial}"]["layout"]["title"]["text"] == f"plot {trial}"  # type: ignore[index]
    assert plots["plot-0"]["layout"]["title"]["text"] == "no longer on the front"  # type: ignore[index]


def test_what_a_person_wrote_stays(wall) -> None:  # type: ignore[no-untyped-def]
    study, start = wall
    before = start()
    before.write("first", {0: "first"})
    before.remember()
    save_note(study, "mine")

    again = start()
    again.write("second", {0: "second"})
    again.remember()
    assert (get_note(study), note_of(study, 0)) == ("mine", "second")

    last = start()
    last.write("third", {0: "third", 1: "a <b>"})
    assert (get_note(study), note_of(study, 0), note_of(study, 1)) == ("mine", "third", "a &lt;b>")


def test_a_file_that_changed_is_replaced_and_one_that_was_deleted_comes_back(
    wall, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    study, start = wall
    addresses = []
    for data in (b"one", b"two", b"two"):
        started = start()
        addresses.append(started.put_files({"a.bin": data})["a.bin"])
        started.remember()
        (blob,) = (tmp_path / "files").iterdir()
        assert blob.read_bytes() == data and addresses[-1] == f"/artifacts/1/{blob.name}"
    assert len(set(addresses)) == 1 and len(get_all_artifact_meta(study)) == 1

    blob.unlink()
    start().put_files({"a.bin": b"two"})
    assert blob.read_bytes() == b"two"

    # the dashboard deletes a file by a null
    study._storage.set_study_system_attr(1, f"artifacts:{blob.name}", "null")
    assert start().put_files({"a.bin": b"two"})["a.bin"] not in addresses


def test_a_place_outside_its_folder_is_never_written(wall, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    study, start = wall
    away = "../away"
    meta = {"artifact_id": away, "filename": "a", "mimetype": "", "encoding": None}
    study._storage.set_study_system_attr(1, f"artifacts:{away}", json.dumps(meta))
    study.set_user_attr("gped:dashboard", {"files": {"a.bin": [away, "0"]}})
    start().put_files({"a.bin": b"data"})
    assert not (tmp_path / "away").exists() and len(list((tmp_path / "files").iterdir())) == 1


def test_hostile_names_are_text_in_notes_and_plots(tmp_path: Path) -> None:
    snapshot = make_snapshot(
        name=EVIL,
        records=FEW[:4],
        front=(1, 3),
        config={"dataset": {"name": EVIL}, "name": EVIL},
        teacher={**make_snapshot().teacher, "genotype": EVIL, "method": EVIL},
        provenance={EVIL: EVIL},
        split_text=EVIL,
    )
    study = make_study(tmp_path, snapshot, class_names=(EVIL, "b", "c"))
    furnish(study)

    notes = [get_note(optuna_study(study)), *notes_of(study).values()]
    files = [path.read_bytes() for path in (study.path / ARTIFACTS).iterdir()]
    cards = [data.decode() for data in files if data.startswith(b"# ")]
    assert len(notes) == len(cards) + 1 == 1 + len(study.front_records()) > 1
    for text in (*notes, *cards):
        assert not any(part in text for part in ("<", "\u202e", "](javascript"))
        assert len(text) < 30_000
    assert "&lt;img src=x onerror=alert\\(1\\)&gt;" in notes[0]

    plots = json.dumps(plots_of(optuna_study(study)))
    assert "<img" not in plots and "\\u202e" not in plots


def test_a_study_without_trials_has_a_note(tmp_path: Path) -> None:
    study = make_study(tmp_path, make_snapshot(records=(), front=(), references=()))
    furnish(study)
    note = get_note(optuna_study(study))
    assert "on the front: trials none" in note and "chosen: none" in note
    assert not (study.path / ARTIFACTS).exists()


def test_a_damaged_student_is_told_in_its_note(tmp_path: Path) -> None:
    study = make_study(tmp_path, make_snapshot(records=FEW[:4], front=(1, 3)))
    trial = study.front_records()[0].trial
    (study.path / "students" / str(trial) / "weights.safetensors").write_bytes(b"")
    furnish(study)
    assert "Its files are damaged" in notes_of(study)[trial]
