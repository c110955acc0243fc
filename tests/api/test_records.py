"""A study's records carry test metrics; the ledger that the search reads never does."""

from pathlib import Path

from gped_nas.api.study import Study
from gped_nas.evaluate.measured import from_public
from gped_nas.search.document import StudentTest
from gped_nas.search.record import TrialRecord

STORED = StudentTest(
    metrics={"test_nll": 0.3}, intervals={"test_nll": (0.2, 0.4)}, n={"test_nll": 9}
)


class FakeLedger:
    """Two complete trials, the second of them tested."""

    def tests(self):
        return {1: STORED}

    def records(self):
        genotype = {"family": "mlp", "depth": 0}
        return [
            TrialRecord(trial, "complete", genotype, measures=from_public({"nll": 0.1}))
            for trial in (0, 1)
        ]


def test_test_metrics_are_shown_with_the_record_they_belong_to():
    untested, tested = Study(Path("nowhere"), "fake", FakeLedger(), "").records()
    assert "test_nll" not in untested.metrics
    assert tested.metrics == {"nll": 0.1, "test_nll": 0.3}
    assert tested.measured("test_nll").interval == (0.2, 0.4)
    assert tested.measured("test_nll").n == 9
