"""Students that are measured on a device, against the processor's measures of the same files."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gped_nas.api.lessons import distillation_set
from gped_nas.api.session import Session
from gped_nas.api.students import Trainer
from gped_nas.api.teacher import load_dataset, sample_teacher
from gped_nas.distill.student import load_student
from gped_nas.errors import EnvironmentProblem
from gped_nas.evaluate.intervals import around
from gped_nas.evaluate.resamples import draw_resamples
from gped_nas.evaluate.student import StudentPredictor, population_predictions, student_predictions
from gped_nas.models.base import Genotype
from gped_nas.search.ledger import Claim
from gped_nas.search.record import TrialRecord
from gped_nas.search.space_file import load_space
from gped_nas.targets.layout import HeadLayout
from tests.gpu.place import DEVICE, IS_CARD

TINY = {
    "teacher.genotype": {"depth": 1, "width": 8},
    "teacher.method.num_samples": 4,
    "teacher.method.burn_in": 20,
    "teacher.method.thinning": 10,
    "views": [{"policy": "clean"}],
    "recipe": {"steps": 20, "warmup": 5, "lr": 0.02},
}
GENOTYPES = [
    Genotype("mlp", depth=1, width=7),
    Genotype("mlp", depth=2, width=[9, 4], storage_dtype="int8"),
    Genotype("mlp", depth=0),
]


@pytest.fixture(params=["digits_sgld", "diabetes_mlp"])
def trainer(request, tmp_path, monkeypatch) -> Trainer:
    """Of a study whose device is no processor: one that stands for it where there is no card."""
    monkeypatch.setattr(Session, "accelerator", DEVICE)
    space = load_space(request.param, TINY)
    dataset = load_dataset(space)
    session = Session(DEVICE, streams=tmp_path / "streams")
    teacher = sample_teacher(space, session, dataset=dataset)
    validation = teacher.averaged("validation")
    resamples = draw_resamples(len(validation), root=0, part="validation", device=DEVICE)
    return Trainer(
        teacher=teacher,
        data=distillation_set(teacher),
        recipe=space.recipe.model_copy(update={"precision": "float32"}),
        validation=validation,
        resamples=resamples,
        folder=tmp_path / "students",
        about={},
        guess=validation,
    )


def plain(record: TrialRecord) -> TrialRecord:
    """A record without what differs from run to run."""
    return record.replace(seconds=0.0, measures={}, above_guess={}, extra={})


def test_records_are_those_of_the_processor(trainer, monkeypatch):
    """One genotype diverges: it fails alone, and the others are measured."""
    distill = Trainer.distill

    def one_failed(self, genotypes):
        students = list(distill(self, genotypes))
        students[1] = replace(students[1], failure="it diverged")
        return tuple(students)

    monkeypatch.setattr(Trainer, "distill", one_failed)
    claims = [Claim(number, genotype) for number, genotype in enumerate([*GENOTYPES, GENOTYPES[0]])]
    records = trainer(claims)
    assert [record.state for record in records] == ["complete", "failed", "complete", "complete"]
    assert records[1].reason == "it diverged"

    students = [load_student(trainer.folder / name) for name in ("0", "2")]
    monkeypatch.setattr(Session, "accelerator", None)
    on_processor = replace(trainer, resamples=replace(trainer.resamples, device=None))
    expected = on_processor(claims)
    for record, other in zip(records, expected, strict=True):
        assert plain(record) == (plain(other) if not IS_CARD else plain(record))
        assert record.measures.keys() == other.measures.keys()
        assert_near(record, other)
    assert [student.spec.about["trial"] for student in students] == ["0", "2"]


def assert_near(record: TrialRecord, other: TrialRecord) -> None:
    """Two records have the same measures, but for rounding."""
    tolerance = 1e-3 if IS_CARD else 1e-6
    for key, measured in record.measures.items():
        theirs = other.measures[key]
        assert measured.value == pytest.approx(theirs.value, rel=tolerance, abs=tolerance), key
        assert (measured.low is None) == (theirs.low is None), key
        assert bool(measured.why) == bool(theirs.why), key
        if measured.low is not None:
            ends, other_ends = (measured.low, measured.high), (theirs.low, theirs.high)
            assert ends == pytest.approx(other_ends, rel=tolerance, abs=tolerance), key
    for name, above in record.above_guess.items():
        assert above == pytest.approx(other.above_guess[name], rel=tolerance, abs=tolerance)


def test_a_population_predicts_as_each_of_its_students(trainer, monkeypatch):
    """Also where raw outputs of all of them are too many to be looked at together."""
    claims = [Claim(number, genotype) for number, genotype in enumerate(GENOTYPES)]
    trainer(claims)
    raw = trainer.teacher.dataset.raw("validation")
    folders = [trainer.folder / str(claim.number) for claim in claims]
    expected = [student_predictions(load_student(folder), raw) for folder in folders]
    labels = trainer.teacher.dataset.labels("validation")

    for limit in (2**26, 1):
        monkeypatch.setattr("gped_nas.evaluate.student._NUMBERS", limit)
        students = [load_student(folder) for folder in folders]
        together = population_predictions(students, raw, DEVICE)
        for predictions, alone in zip(together, expected, strict=True):
            assert predictions.expectations.keys() == alone.expectations.keys()
            assert np.allclose(predictions.log_score(labels), alone.log_score(labels), atol=1e-4)

    # a condition asks it on the processor, whatever device it was on
    predictor = StudentPredictor(students[0], DEVICE)
    ((_, forward),) = predictor.networks()
    said = forward(raw.float())
    assert said.device.type == "cpu" and bool(said.isfinite().all())
    assert np.allclose(
        predictor.predict(raw).log_score(labels), expected[0].log_score(labels), atol=1e-4
    )


@pytest.mark.parametrize("trainer", ["digits_sgld"], indirect=True)
def test_a_target_that_a_device_cannot_compute_is_computed_here(trainer, monkeypatch):
    trainer([Claim(0, GENOTYPES[0])])
    folder, raw = trainer.folder / "0", trainer.teacher.dataset.raw("validation")
    labels = trainer.teacher.dataset.labels("validation")
    expected = student_predictions(load_student(folder), raw).log_score(labels)
    asked, moved = [], []
    to_processor = torch.Tensor.cpu

    def refuse(self, raw):
        asked.append(raw.shape)
        raise RuntimeError("Expected all tensors to be on the same device")

    def noted(self):
        moved.append(self.shape)
        return to_processor(self)

    monkeypatch.setattr(HeadLayout, "predict", refuse)
    monkeypatch.setattr(torch.Tensor, "cpu", noted)
    (predictions,) = population_predictions([load_student(folder)], raw, DEVICE)
    assert asked == [(1, 1, 11)] and moved[0] == (1, len(raw), 11)
    assert np.allclose(predictions.log_score(labels), expected, atol=1e-4)


def test_resamples_on_a_device_are_those_of_the_processor():
    """Means of many kinds: skewed, of both signs, constant, and of values that hardly differ."""
    generator = np.random.default_rng(0)
    n = 400
    values_NQ = np.stack(
        [
            generator.exponential(size=n) ** 3,
            generator.choice([-1.0, 1.0], n),
            np.full(n, 0.25),
            np.eye(n)[0],
            1e6 + generator.normal(size=n),
        ],
        axis=1,
    )
    here = draw_resamples(n, root=1, part="validation")
    there = draw_resamples(n, root=1, part="validation", device=DEVICE)
    assert np.array_equal(here.counts_RN, there.counts_RN)
    assert np.allclose(here.sums(values_NQ), there.sums(values_NQ), rtol=1e-12)

    center_Q = values_NQ.mean(axis=0)
    for bounds, other in zip(
        around(center_Q, values_NQ, there), around(center_Q, values_NQ, here), strict=True
    ):
        assert bounds.why == other.why
        if bounds.low is not None:
            assert (bounds.low, bounds.high) == pytest.approx((other.low, other.high), rel=1e-9)


@pytest.mark.parametrize("trainer", ["digits_sgld"], indirect=True)
def test_the_teacher_is_averaged_on_a_device_as_on_the_processor(trainer, monkeypatch):
    monkeypatch.setattr(Session, "accelerator", None)
    teacher = trainer.teacher
    for path in teacher.stream.folder.glob("derived/*"):
        path.unlink()
    for name, value in distillation_set(teacher).expectations.items():
        assert torch.allclose(value, trainer.data.expectations[name], rtol=1e-6, atol=1e-7), name


def test_a_folder_that_cannot_be_written_ends_the_population(trainer):
    trainer.folder.write_text("a file in its place")
    with pytest.raises(EnvironmentProblem, match="students/0: cannot create the directory"):
        trainer([Claim(0, GENOTYPES[0])])
