"""Finalists as a table of the report: genotypes over fresh seeds."""

from typing import Any

from gped_nas.report.records import Data
from gped_nas.search.snapshot import StudySnapshot


def finalists_data(snapshot: StudySnapshot) -> Data | None:
    """A row a finalist, means with their 95 % intervals; None without any."""
    finalists = snapshot.finalists
    if finalists is None:
        return None

    front = set(snapshot.front)
    qualities = [goal.name for goal in snapshot.objectives if goal.kind == "metric"]
    costs = [goal.name for goal in snapshot.objectives if goal.kind == "cost"]
    rows: list[dict[str, Any]] = []
    for row in finalists.students:
        measured = {name: row.measured(name) for name in qualities}
        cells = []
        for name, mean in measured.items():
            value, interval = (None, None) if mean is None else (mean.value, mean.interval)
            cells.append({"metric": name, "value": value, "interval": interval})
        rows.append(
            {
                "trial": row.trial,
                "num_seeds": row.num_seeds,
                "is_on_front": row.trial in front,
                "is_on_front_by_means": row.is_on_front,
                "qualities": cells,
                "costs": [row.costs.get(name) for name in costs],
                "tied_with": list(row.tied_with),
            }
        )
    return {
        "seeds": finalists.seeds,
        "qualities": [goal.label for goal in snapshot.objectives if goal.kind == "metric"],
        "costs": [goal.label for goal in snapshot.objectives if goal.kind == "cost"],
        "rows": rows,
    }
