"""Twins of students: against the oracle of the kernel, and what becomes of them in a study."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

import gped_nas as gn
from gped_nas import rng
from gped_nas.api import twin_measures
from gped_nas.api.lessons import distillation_set, label_set
from gped_nas.api.session import Session
from gped_nas.api.subjects import label_twin_subject
from gped_nas.api.teacher import Teacher, build_teacher
from gped_nas.api.twin_measures import LATER, having_twins
from gped_nas.api.twins import Twins
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.kernel import TrainedStudent
from gped_nas.errors import DamageError, Interrupted
from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.measured import Key
from gped_nas.evaluate.student import student_predictions
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.models.storage import read_weights
from gped_nas.search.run import TimeLimit
from tests.cli.harness import Home, contents, new_home
from tests.distill.reference import distill_one

TWINS = {
    "twins": {"seeds": 2, "students": 2},
    "baseline": {"steps": 100, "precisions": [1.0, 1000.0]},
    "views": [{"policy": "clean"}, {"policy": "noise", "std": 0.5}, {"policy": "mixup"}],
    "targets": ["predictive", "expected_entropy"],
    "constraints": {"aurc_total": 1.0},
    "students": [
        {
            "family": "mlp",
            "genotype": {
                "depth": 1,
                "width": {"choices": [6, 8]},
                "storage_dtype": {"choices": ["float32", "float16"]},
            },
        }
    ],
}
KINDS = ("student", "label_twin", "map_twin")


def space_of(home: Home, changes: Mapping[str, object] = TWINS) -> gn.SearchSpace:
    return gn.load_space(home.space, dict(changes))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, gn.Study]]:
    """A study with twins; never write to it."""
    home = new_home(tmp_path_factory.mktemp("twins"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPED_CACHE", str(home.cache))
        yield home, gn.run(space_of(home), out=home.out)


@functools.cache
def teacher_of(home: Home) -> tuple[Teacher, DistillationSet]:
    """The teacher of the shared study, and what its students learn from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPED_CACHE", str(home.cache))
        teacher = build_teacher(space_of(home), Session(streams=home.cache / "streams"))
        return teacher, distillation_set(teacher)


def folders_of(study: gn.Study, genotype: Genotype) -> dict[str, Path]:
    """Where the twins of a genotype lie, by their names."""
    folders = {}
    for folder in (study.path / "references" / "twins").glob("*/*"):
        if gn.load_student(folder).spec.genotype == genotype.to_json():
            folders[folder.name] = folder
    return folders


def test_a_metric_that_is_asked_for_is_measured_of_twins(shared: tuple[Home, gn.Study]) -> None:
    _, study = shared
    (twins, *_) = study.twins()
    for reference in twins.references:
        keys = [key for key in reference.measures if not METRICS[key.metric].always]
        assert keys == [Key("aurc_total", "clean", part) for part in ("validation", "test")]
    rows = [row for row in twins.comparisons if row.metric == "aurc_total"]
    assert [row.first for row in rows] == ["student", "student", "map_twin"]
    assert all(row.interval for row in rows)


def test_every_network_is_the_one_of_the_oracle(shared: tuple[Home, gn.Study]) -> None:
    home, study = shared
    teacher, data = teacher_of(home)
    space, dataset = teacher.space, teacher.dataset
    genotype = Genotype.from_json(study.record(study.twins()[0].trial).genotype)
    folders = folders_of(study, genotype)
    names = [
        f"{kind}-{seed}{prior}"
        for kind, prior in (
            ("student", ""),
            ("map_twin", ""),
            ("label_twin", "-1"),
            ("label_twin", "-1000"),
        )
        for seed in (1, 2)
    ]
    assert sorted(folders) == sorted(names)

    # labels are known at the first two views: mixed inputs have none
    num = len(dataset.train)
    layout = label_set(teacher, data).layout
    classes = torch.from_numpy(dataset.labels("train"))
    hot = torch.nn.functional.one_hot(classes, 10).float()
    labels = DistillationSet(data.inputs[: 2 * num], {"predictive": torch.cat([hot, hot])}, layout)

    (path,) = (study.path / "references" / "map").rglob(f"precision-{map_precision(study)}.*")
    logits = FAMILIES["mlp"].forward(read_weights(path), data.inputs)
    prob = logits.softmax(-1)
    answers = {"predictive": prob, "expected_entropy": -(prob * prob.log()).sum(-1, keepdim=True)}
    by_map = dataclasses.replace(data, expectations=answers)

    expected = {
        "student-1": (data, 1, 0.0),
        "student-2": (data, 2, 0.0),
        "map_twin-2": (by_map, 2, 0.0),
        "label_twin-1-1": (labels, 1, 1.0),
        "label_twin-2-1000": (labels, 2, 1000.0),
    }
    for name, (lessons, seed, precision) in expected.items():
        root = rng.seed(space.seed, "twins", seed)
        ridge = precision / num
        params = distill_one(genotype, lessons, space.recipe, seed=root, ridge=ridge)
        written = gn.load_student(folders[name]).params
        for key, value in params.items():
            torch.testing.assert_close(written[key], value, rtol=2e-3, atol=2e-3)


def map_precision(study: gn.Study) -> str:
    """The one that the MAP network was chosen with."""
    note = study.reference("map").note
    return note.partition("prior precision ")[2].partition(" ")[0]


def test_the_label_twin_that_others_ask_is_the_first_of_the_best_precision(
    shared: tuple[Home, gn.Study],
) -> None:
    home, study = shared
    teacher, _ = teacher_of(home)
    first = study.twins()[0]
    genotype = Genotype.from_json(study.record(first.trial).genotype)
    twin = label_twin_subject(study, teacher, first.trial)
    assert twin is not None and twin.predictor is not None

    (note,) = [row.note for row in first.references if row.name == "label_twin"]
    precision = note.partition("; prior precision ")[2].partition(" ")[0]
    expected = gn.load_student(folders_of(study, genotype)[f"label_twin-1-{precision}"])
    assert twin.digest == expected.spec_sha256
    answers = twin.predictor.predict(teacher.dataset.raw("test")[:9])
    assert np.allclose(
        answers.expectations["predictive"],
        expected.predict(teacher.dataset.raw("test")[:9])["predictive"],
        atol=1e-6,
    )
    assert answers.is_point


def test_figures_are_means_over_the_seeds(shared: tuple[Home, gn.Study]) -> None:
    home, study = shared
    dataset = teacher_of(home)[0].dataset
    raw, labels = dataset.raw("test"), dataset.labels("test")
    (first, second) = study.twins()
    assert first.trial == study.chosen().trial and second.trial in study.snapshot().front
    assert [reference.name for reference in first.references] == [*KINDS]

    folders = folders_of(study, Genotype.from_json(study.record(first.trial).genotype))
    (label_twin,) = [r for r in first.references if r.name == "label_twin"]
    chosen = label_twin.note.partition("prior precision ")[2].partition(" ")[0]
    nll = {}
    for kind, prior in (("student", ""), ("map_twin", ""), ("label_twin", f"-{chosen}")):
        students = [gn.load_student(folders[f"{kind}-{seed}{prior}"]) for seed in (1, 2)]
        scores = [-student_predictions(s, raw).log_score(labels).mean() for s in students]
        nll[kind] = sum(scores) / 2
    for reference in first.references:
        assert reference.metrics["test_nll"] == pytest.approx(nll[reference.name])
        assert reference.is_control == (reference.name == "label_twin")

    other = {"1": "1000", "1000": "1"}[chosen]
    assert nll_on_validation(folders, chosen, dataset) < nll_on_validation(folders, other, dataset)

    row = next(
        row
        for row in first.comparisons
        if (row.first, row.second, row.metric) == ("student", "label_twin", "nll")
    )
    assert (row.seeds, row.n, row.part) == (2, len(labels), "test")
    assert row.difference == pytest.approx(nll["student"] - nll["label_twin"])
    assert row.interval is not None and row.interval[0] < row.difference < row.interval[1]
    of_label_twin = {r.metric for r in first.comparisons if r.second == "label_twin"}
    assert {"nll", "accuracy", "ece", "brier", "entropy_error", "kl_to_teacher"} <= of_label_twin


def nll_on_validation(folders: Mapping[str, Path], precision: str, dataset: gn.Dataset) -> float:
    raw, labels = dataset.raw("validation"), dataset.labels("validation")
    total = 0.0
    for seed in (1, 2):
        student = gn.load_student(folders[f"label_twin-{seed}-{precision}"])
        total -= float(student_predictions(student, raw).log_score(labels).mean())
    return total


def test_everybody_who_speaks_of_a_study_tells_of_them(shared: tuple[Home, gn.Study]) -> None:
    _, study = shared
    snapshot = study.snapshot()
    names = [reference.name for reference in snapshot.references]
    assert names[-2:] == ["label_twin", "map_twin"]
    assert study.reference("map_twin") == snapshot.references[-1]

    verdict = study.verdict()
    assert "What the teacher bought at this size (test, 2 trainings of each): " in verdict.text
    assert "The plain network beside it (label twin)" in verdict.text
    html = (study.path / "report.html").read_text()
    assert html.count("and its twins on test") == 2
    assert "student minus MAP twin" in html

    # each is judged by its own, and one without twins not by those of another
    other = study.twins()[1]
    (label_twin,) = [reference for reference in other.others if reference.is_control]
    text = study.verdict(other.trial).text
    assert text.count("beside it (label twin)") == 1
    assert f"NLL {label_twin.metrics['test_nll']:.4f}" in text

    # a student without twins is not judged by those of another one
    trials = {row.trial for row in study.twins()}
    without = next(record.trial for record in study.records() if record.trial not in trials)
    assert "twin" not in study.verdict(without).text


def test_they_are_made_when_they_are_asked_for_and_not_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = gn.run(space_of(home, TWINS | {"twins": {"seeds": 0}}), out=home.out)
    assert study.twins() == ()
    before = contents(study.path / "references")
    assert not any(name.startswith("twins") for name in before)

    # no population begins after the time limit
    class Over(TimeLimit):
        is_over = True

    compare = twin_measures.compare_twins
    monkeypatch.setattr(
        "gped_nas.api.job.compare_twins", lambda *args, limit: compare(*args, limit=Over(1.0))
    )
    gn.run(space_of(home), out=home.out)
    assert study.twins() == () and LATER in study.snapshot().notes
    monkeypatch.setattr("gped_nas.api.job.compare_twins", compare)

    gn.run(space_of(home), out=home.out)
    twins, files = study.twins(), contents(study.path / "references")
    assert [row.num_seeds for row in twins] == [2, 2]
    assert before.items() <= files.items()
    assert LATER not in study.snapshot().notes

    gn.run(space_of(home), out=home.out)
    assert study.twins() == twins and contents(study.path / "references") == files

    # a network that is not what was written is refused
    folder = next((study.path / "references" / "twins").glob("*/student-1"))
    weights = folder / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 0x10
    weights.write_bytes(bytes(data))
    gn.open_study(study.path).ledger.change(twins=())
    with pytest.raises(DamageError, match="delete .*student-1, and"):
        gn.run(space_of(home), out=home.out)


def test_a_run_that_was_stopped_goes_on(
    home: Home, shared: tuple[Home, gn.Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = shared
    populations = []
    train = Twins.train

    def stopped(self: Twins, population: list[object]) -> None:
        populations.append(len(population))
        if len(populations) in (3, 5):
            raise Interrupted("stopped")
        train(self, population)  # type: ignore[arg-type]

    monkeypatch.setattr(Twins, "train", stopped)
    for _ in range(2):
        with pytest.raises(Interrupted):
            gn.run(space_of(home), out=home.out)
    study = gn.run(space_of(home), out=home.out)

    # a seed has 2 students, 2 by 2 label twins (3 and 1 at once) and 2 MAP twins
    assert populations == [2, 3, 1, 1, 2, 2, 2, 3, 1, 2]
    assert contents(study.path / "references") == contents(whole.path / "references")
    assert study.twins() == whole.twins()


def test_a_prior_that_fails_is_left_out_and_so_is_a_seed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    distill = gn.api.students.Trainer.distill
    failing = {"ridges": 1.0, "seed": rng.seed(0, "twins", 2)}

    def fail(self: object, genotypes: object, **more: object) -> list[TrainedStudent]:
        students = list(distill(self, genotypes, **more))  # type: ignore[arg-type, call-arg]
        ridges = more.get("ridges", [0.0] * len(students))
        for i, ridge in enumerate(ridges):  # type: ignore[arg-type]
            is_of_seed = more.get("seed") == failing["seed"] and not ridge
            if ridge * 1150 > 999 or is_of_seed:
                students[i] = dataclasses.replace(students[i], failure="diverged", params={})
        return students

    monkeypatch.setattr("gped_nas.api.students.Trainer.distill", fail)
    study = gn.run(space_of(home), out=home.out)
    (row, _) = study.twins()
    assert row.num_seeds == 1
    (label_twin,) = [r for r in row.references if r.name == "label_twin"]
    assert "prior precision 1 of 1, 1000" in label_twin.note
    assert "test, one training of each" in study.verdict().text


def test_views_that_keep_no_label_leave_the_training_inputs(home: Home) -> None:
    views = {"views": [{"policy": "mixup"}]}
    teacher = build_teacher(space_of(home, TWINS | views), Session())
    lessons = label_set(teacher, distillation_set(teacher))
    assert torch.equal(lessons.inputs, teacher.dataset.inputs("train"))
    labels = torch.from_numpy(teacher.dataset.labels("train"))
    assert torch.equal(lessons.expectations["predictive"].argmax(1), labels)
    assert [target.name for target in lessons.layout.targets] == ["predictive"]


def test_twins_lie_along_the_front(shared: tuple[Home, gn.Study]) -> None:
    records = shared[1].records()
    record = records[0]
    front = [dataclasses.replace(record, trial=trial) for trial in range(9)]
    for chosen, num, trials in (
        (4, 1, [4]),
        (4, 2, [4, 0]),
        (4, 3, [4, 0, 8]),
        (0, 4, [0, 1, 5, 8]),
        (8, 99, [8, *range(8)]),
    ):
        assert [r.trial for r in having_twins(front, front[chosen], num)] == trials
