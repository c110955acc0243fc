"""What a storage says of the run that works on a study, for who does not see its folder."""

from dataclasses import dataclass

from gped_nas.api.standing import Standing, parse_standing
from gped_nas.search.database import storage_errors
from gped_nas.search.ledger import Ledger
from gped_nas.search.study import load


@dataclass(frozen=True)
class Sighting:
    """A study as its storage shows it.

    Attributes:
        ledger: its trials.
        place: its folder and the machine of that; empty where no folder was ever bound.
        is_at_work: whether a run gave a sign of life during the last lease.
        standing: how far that run is; None where it did not say.
        age_s: seconds since it said so.
    """

    ledger: Ledger
    place: str
    is_at_work: bool
    standing: Standing | None = None
    age_s: float = 0.0


def sight(storage: str, name: str) -> Sighting:
    """The study called ``name``.

    Raises as ``search.study.load``.
    """
    with storage_errors(storage):
        return look(load(storage, name))


def look(ledger: Ledger) -> Sighting:
    """What the storage of a ledger says of the run at work.

    Raises:
        StudyError: its binding is damaged.
    """
    binding = ledger.fence.read()
    if binding is None:
        return Sighting(ledger, "", is_at_work=False)

    is_at_work = binding.is_held(ledger.owner, ledger.now())
    written = ledger.read_standing() if is_at_work else None
    data, age_s = written or (None, 0.0)
    return Sighting(ledger, binding.place, is_at_work, parse_standing(data), max(0.0, age_s))
