"""The dashboard's answer about a study, put right on its way out.

* optuna-dashboard 0.21 ranks trials without looking at their constraints: its list of best trials
  becomes Optuna's, without those that are outside the study's region of interest.
* A trial's whole record is an attribute of it, one line of some kilobytes that makes the page as
  wide: attributes of this tool that are no numbers for people are left out.
* Three files of each student of the front are dozens of equal icons: those are left out. The notes
  on their trials link to them.
* Saved plots come in an order of their own at each start: here by name.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import optuna

from gped_nas.report.dashboard.guard import Application, Environ, StartResponse
from gped_nas.report.dashboard.storage import LegacyConstraintStorage
from gped_nas.search.document import read_document
from gped_nas.search.region import Region
from gped_nas.search.storage import TolerantStorage
from gped_nas.search.trials import FLAT

_DETAIL = re.compile(r"/api/studies/(\d+)/?")
_OWN_ATTRIBUTE = "gped:"
_OWN_FILE = re.compile(r"trial-\d+-")

Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class _Answer:
    """What an application answered, as a whole."""

    status: str
    headers: Headers
    body: bytes


def correct_detail(app: Application, storage: LegacyConstraintStorage) -> Application:
    """``app`` whose answers about a study are put right."""
    stored = storage.as_stored()
    studies: dict[int, optuna.Study] = {}  # each remembers its finished trials

    def answer(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        match = _DETAIL.fullmatch(environ.get("PATH_INFO", ""))
        if environ["REQUEST_METHOD"] != "GET" or match is None:
            return app(environ, start_response)

        original = _ask(app, environ)
        body = original.body
        if original.status.startswith("200"):
            detail = json.loads(body)
            best = _best(stored, studies, int(match[1]))
            _correct(detail, best, _trials(app, environ, detail, best))
            body = json.dumps(detail).encode()

        headers = _without(original.headers, "content-length")
        start_response(original.status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    return answer


def _correct(detail: dict[str, Any], best: list[int], trials: dict[int, Any]) -> None:
    """Put an answer right in place.

    Args:
        detail: the answer.
        best: numbers of Optuna's best trials.
        trials: by number, the best ones among them.
    """
    detail["best_trials"] = [trials[number] for number in best if number in trials]
    detail["artifacts"] = [
        artifact for artifact in detail["artifacts"] if not _OWN_FILE.match(artifact["filename"])
    ]
    detail["plotly_graph_objects"].sort(key=lambda plot: str(plot["id"]))
    detail["union_user_attrs"] = _for_people(detail["union_user_attrs"])
    for holder in (detail, *detail["trials"], *detail["best_trials"]):
        holder["user_attrs"] = _for_people(holder["user_attrs"])


def _trials(
    app: Application, environ: Environ, detail: dict[str, Any], best: list[int]
) -> dict[int, Any]:
    """Trials of an answer by number, with the best ones among them."""
    trials = {trial["number"]: trial for trial in (*detail["best_trials"], *detail["trials"])}
    if set(best) <= set(trials):
        return trials

    # an answer about news alone leaves older trials out: ask for all
    whole = json.loads(_ask(app, {**environ, "QUERY_STRING": ""}).body)
    return trials | {trial["number"]: trial for trial in whole["trials"]}


def _for_people(attributes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        attribute for attribute in attributes if not attribute["key"].startswith(_OWN_ATTRIBUTE)
    ]


def _without(headers: Headers, name: str) -> Headers:
    return [(key, value) for key, value in headers if key.lower() != name]


def _best(storage: TolerantStorage, studies: dict[int, optuna.Study], study_id: int) -> list[int]:
    """Numbers of Optuna's best trials; none of a study that was deleted meanwhile."""
    try:
        if study_id not in studies:
            name = storage.get_study_name_from_id(study_id)
            studies[study_id] = optuna.load_study(study_name=name, storage=storage)
        study = studies[study_id]
        best = study.best_trials
        region, names = _region(study)
        if region is None:
            return [trial.number for trial in best]
        inside = []
        for trial in best:
            values = dict(zip(names, trial.values, strict=True))
            flat = {name: trial.user_attrs.get(name) for name in FLAT}
            known = {name: value for name, value in flat.items() if value is not None}
            if region.holds(known | values):
                inside.append(trial.number)
        return inside
    except KeyError:
        studies.pop(study_id, None)
        return []


def _region(study: optuna.Study) -> tuple[Region | None, list[str]]:
    """The region of a study of ours, and the names of its objectives."""
    document = read_document(study.user_attrs, f"study '{study.study_name}'")
    if document is None:
        return None, []
    return document.region, [goal.name for goal in document.objectives]


def _ask(app: Application, environ: Environ) -> _Answer:
    started: dict[str, Any] = {}

    def start(status: str, headers: Headers, *rest: Any) -> None:
        started.update(status=status, headers=headers)

    parts = app(dict(environ), start)
    close = getattr(parts, "close", None)
    try:
        # the body first: an application may start its answer only when it is read
        body = b"".join(parts)
        return _Answer(started["status"], started["headers"], body)
    finally:
        if close is not None:
            close()
