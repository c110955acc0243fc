"""When a search ends before it has all its trials, and what is told of that."""

from dataclasses import replace
from typing import TYPE_CHECKING

from gped_nas.errors import ConfigError
from gped_nas.search.document import SearchEnd
from gped_nas.search.flatness import FrontWatch
from gped_nas.search.record import TrialRecord
from gped_nas.search.region import inside
from gped_nas.search.run import FLAT, FRUITLESS, FRUITLESS_DRAWS, TIMEOUT
from gped_nas.search.snapshot import EXHAUSTED
from gped_nas.search.space import SearchSpace
from gped_nas.search.volume import reference_box

if TYPE_CHECKING:
    from gped_nas.api.study import Study


def with_patience(space: SearchSpace, stop_when_flat: int) -> SearchSpace:
    """The space whose search ends after so many trials without a gain.

    Raises:
        ConfigError: the number is negative.
    """
    if stop_when_flat < 0:
        raise ConfigError(f"--stop-when-flat: found {stop_when_flat}, expected at least 0")
    search = space.search.model_copy(update={"stop_when_flat": stop_when_flat})
    settings = {**space.resolved["search"], "stop_when_flat": stop_when_flat}
    return replace(space, search=search, resolved={**space.resolved, "search": settings})


def watch_front(study: "Study", space: SearchSpace) -> FrontWatch | None:
    """What looks whether the front of a study is flat; None where nobody asks."""
    description = study.ledger.document.description
    patience = space.search.stop_when_flat
    if not patience or description is None or description.box is None:
        return None

    region = study.region

    def counts(record: TrialRecord) -> bool:
        return bool(inside([record], space.objectives, region))

    box = reference_box(space.objectives, description.box, region)
    return FrontWatch(patience, space.objectives, box.best, box.worst, counts)


def end_of_search(reason: str, watch: FrontWatch | None) -> SearchEnd:
    """Why a search ended, as it is stored."""
    flatness = None if watch is None else watch.look()
    sentence = ""
    if reason == TIMEOUT:
        sentence = "The search ended at its time limit."
    elif reason == "exhausted":
        sentence = f"{EXHAUSTED}."
    elif reason == FRUITLESS:
        sentence = (
            f"{EXHAUSTED}, or nearly: the last {FRUITLESS_DRAWS} that were drawn had been tried "
            "before."
        )
    elif reason == FLAT and flatness is not None:
        sentence = flatness.sentence
    return SearchEnd(
        reason=reason,
        sentence=sentence,
        flatness=None if flatness is None else flatness.to_json(),
    )
