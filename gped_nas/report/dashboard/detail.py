"""The dashboard's answer about a study, put right on its way out.

* optuna-dashboard 0.21 ranks trials without looking at their constraints: its list of best trials
  becomes Optuna's.
* A trial's whole record is an attribute of it, one line of some kilobytes that makes the page as
  wide: attributes of this tool that are no numbers for people are left out.
* Saved plots come in an order of their own at each start: here by name.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

import optuna

from gped_nas.report.dashboard.guard import Application, Environ, StartResponse
from gped_nas.report.dashboard.storage import LegacyConstraintStorage

_DETAIL = re.compile(r"/api/studies/(\d+)/?")
_OWN = "gped:"


def with_own_detail(app: Application, storage: LegacyConstraintStorage) -> Application:
    """``app`` whose answers about a study are put right."""
    studies: dict[int, optuna.Study] = {}  # each remembers its finished trials

    def answer(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        match = _DETAIL.fullmatch(environ.get("PATH_INFO", ""))
        if environ["REQUEST_METHOD"] != "GET" or match is None:
            return app(environ, start_response)
        status, headers, body = _ask(app, environ)
        if status.startswith("200"):
            numbers = _best(storage, studies, int(match[1]))
            found = json.loads(body)
            known = {trial["number"]: trial for trial in (*found["best_trials"], *found["trials"])}
            if not set(numbers) <= set(
                known
            ):  # older trials are left out where only news was asked for
                known |= {
                    t["number"]: t
                    for t in json.loads(_ask(app, {**environ, "QUERY_STRING": ""})[2])["trials"]
                }
            found["best_trials"] = [known[number] for number in numbers if number in known]
            found["plotly_graph_objects"].sort(key=lambda plot: str(plot["id"]))
            found["union_user_attrs"] = _shown(found["union_user_attrs"])
            for one in (found, *found["trials"], *found["best_trials"]):
                one["user_attrs"] = _shown(one["user_attrs"])
            body = json.dumps(found).encode()
        kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status, [*kept, ("Content-Length", str(len(body)))])
        return [body]

    return answer


def _shown(attributes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in attributes if not one["key"].startswith(_OWN)]


def _best(
    storage: LegacyConstraintStorage, studies: dict[int, optuna.Study], study_id: int
) -> list[int]:
    """Numbers of Optuna's best trials; none of a study that was deleted meanwhile."""
    try:
        if study_id not in studies:
            studies[study_id] = optuna.load_study(
                study_name=storage.get_study_name_from_id(study_id), storage=storage
            )
        return [trial.number for trial in studies[study_id].best_trials]
    except KeyError:
        studies.pop(study_id, None)
        return []


def _ask(app: Application, environ: Environ) -> tuple[str, list[tuple[str, str]], bytes]:
    """What the application answers, as a whole."""
    told: dict[str, Any] = {}

    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> None:
        told.update(status=status, headers=headers)

    parts = app(dict(environ), start)
    close = getattr(parts, "close", None)
    try:
        return told["status"], told["headers"], b"".join(parts)
    finally:
        if close is not None:
            close()
