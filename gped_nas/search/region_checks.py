"""What a space may ask of its region of interest, before anything is known of its teacher."""

from gped_nas.errors import ConfigError, nearest
from gped_nas.search.objectives import check_possible, task_of
from gped_nas.search.space import SearchSpace

MOST_SKILL = 2.0
"""Share of the teacher's skill beyond which a figure is a mistake: 90 for 90 %."""


def region_can_be_met(space: SearchSpace) -> None:
    """Refuse a region that no student can be in, whatever the teacher is.

    Raises:
        ConfigError: a share that is none, or a bound of what is no objective, or one beyond
            what a metric can be.
    """
    keep, where = space.search.keep, f"{space.source}: search.keep"
    if isinstance(keep, float):
        if not 0 < keep <= MOST_SKILL:
            raise ConfigError(
                f"{where}: found {keep:g}, expected a share of the teacher's skill above 0 and at "
                f"most {MOST_SKILL:g}, such as 0.9; {{}} asks for nothing"
            )
        return

    names = [goal.name for goal in space.objectives]
    for name in keep:
        if name not in names:
            raise ConfigError(
                f"{where}.{name}: not among the objectives{nearest(name, names)}; bounds on "
                "anything else belong to constraints"
            )
    check_possible(keep, task_of(space.targets), where)
