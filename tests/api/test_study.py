"""The student that a study recommends, and whose files its dashboard offers."""

import shutil
from pathlib import Path
from typing import Any

from gped_nas.api.dashboard import ARTIFACTS, furnish
from gped_nas.api.note import STUDENTS
from gped_nas.api.opening import open_study
from gped_nas.api.study import Study
from gped_nas.evaluate.measured import Key, Measured
from gped_nas.search.document import Box, Description, StudyDocument
from gped_nas.search.goals import Objective
from gped_nas.search.record import TrialRecord
from tests.cli.harness import Home

OBJECTIVES = (
    Objective("nll", "minimize", "metric", "NLL (nats)"),
    Objective("params", "minimize", "cost", "parameters"),
)
BOX = Box(best=(0.0, 1), worst=(1.0, 100_000))
# (nll, params): the knee is trial 1; one standard error (0.1 / 1.96) above the best reaches trial 2
POINTS = [(0.50, 10_000), (0.51, 100), (0.54, 60), (0.90, 1)]


class FakeLedger:
    """Four complete trials on one front, the best one's NLL known to 0.1."""

    document = StudyDocument(identity={}, objectives=OBJECTIVES, description=Description(box=BOX))

    def tests(self) -> dict[int, Any]:
        return {}

    def records(self) -> list[TrialRecord]:
        records = []
        for trial, (nll, params) in enumerate(POINTS):
            genotype = {"family": "mlp", "depth": 0}
            measures = {Key("nll"): Measured(nll, nll - 0.1, nll + 0.1)}
            costs = {"params": params}
            records.append(TrialRecord(trial, "complete", genotype, measures=measures, costs=costs))
        return records

    def importances(self, objectives: Any) -> dict[str, Any]:
        return {}


def test_the_cheapest_student_that_validation_cannot_tell_from_the_best_is_chosen() -> None:
    study = Study(Path("nowhere"), "fake", FakeLedger(), "")  # type: ignore[arg-type]
    assert [record.trial for record in study.front_records()] == [0, 1, 2, 3]

    chosen = study.chosen()
    assert chosen is not None and chosen.trial == 2

    snapshot = study.snapshot()
    assert snapshot.chosen == 2 and "one standard error" in snapshot.rule


def test_the_dashboard_offers_no_other_student_than_the_trial_s(own: Home) -> None:
    """Another student, whole in itself, lies where that of the front was."""
    study = open_study(own.study)
    trial = study.front_records()[0].trial
    student = study.path / STUDENTS / str(trial)
    shutil.rmtree(student)
    shutil.copytree(study.path / "references" / "unpruned", student)
    weights = (student / "weights.safetensors").read_bytes()

    furnish(study)

    assert weights not in [path.read_bytes() for path in (study.path / ARTIFACTS).glob("*")]
