"""A run beside claims of somebody else: the living are left alone, the dead are cleared away."""

from gped_nas.api import load_space, open_study
from gped_nas.search.database import open_database
from gped_nas.search.ledger import Ledger
from gped_nas.search.owners import Owner
from gped_nas.search.rows import LEASE_S, Row
from gped_nas.search.trials import INTERRUPTED
from tests.cli.harness import N_TRIALS, Home


def test_the_student_of_a_live_claim_is_kept_until_the_claim_is_dead(own: Home) -> None:
    study = open_study(own.study)
    database = open_database(study.storage_url)
    worker = Ledger(database, study.name, owner=Owner(name="w", machine="elsewhere"))
    (claim,) = worker.claim(load_space(own.space), 1, 0)
    begun = own.study / "students" / str(claim.number)
    begun.mkdir()

    own.run("--n-trials", str(N_TRIALS + 1))
    assert begun.is_dir()
    records = open_study(own.study).records()
    assert records[claim.number].state == "running"
    assert sum(record.state not in ("running", "failed") for record in records) == N_TRIALS + 1

    row = worker.rows()[claim.number]
    assert isinstance(row, Row)
    worker._write_row(claim.number, row.model_copy(update={"renewed": row.renewed - LEASE_S - 60}))
    own.run("--n-trials", str(N_TRIALS + 1))
    assert not begun.exists()
    record = open_study(own.study).record(claim.number)
    assert (record.state, record.reason) == ("failed", INTERRUPTED)
