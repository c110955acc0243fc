"""Optuna's dashboard on this machine's loopback only, behind a guard, with constraints it can read.

optuna-dashboard has no log-in, and some of its addresses delete or rename studies. A page on another site
could send requests to them from the user's own browser, so every request must name this server as its host,
and whatever names an origin must name this server too.

Optuna 5 stores a constraint as ``constraints:<name>``; optuna-dashboard 0.21 reads only the older list
``constraints``. The storage below adds that list to what it returns and never to what is stored, where Optuna
would count each constraint twice. The dashboard's own list of best trials still ignores constraints; its
plots do not.
"""

import copy
import socketserver
import warnings
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from socket import AF_INET6
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from gped_nas.errors import ConfigError, EnvironmentProblem, StudyError

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CONSTRAINT = "constraints:"
_READ_ONLY_VERBS = frozenset({"GET", "HEAD"})
_SQLITE = "sqlite:///"
_MARKDOWN = frozenset("\\`*_{}[]()#+-.!|~:")


def serve(storage_url: str, *, port: int, host: str = "127.0.0.1", artifacts: Path | None = None) -> None:
    """Serve the dashboard until the process is interrupted.

    Args:
        storage_url: the study's database.
        port: 1 to 65535.
        host: one of ``LOOPBACK``.
        artifacts: folder of Optuna's file-system artifact store, if there is one.

    Raises:
        ConfigError: the host is not a loopback address, or the port is impossible.
        EnvironmentProblem: optuna-dashboard is not installed, or the port cannot be had.
        StudyError: there is no such database.
    """
    if host not in LOOPBACK:
        raise ConfigError(
            f"--host: found {host!r}, expected one of {', '.join(LOOPBACK)}: the dashboard has no log-in "
            "and can delete studies; to see it from elsewhere forward the port, for example with `ssh -L`"
        )
    app = application(storage_url, port=port, artifacts=artifacts)
    with _listen(host, port, app) as server:
        server.serve_forever()


def application(storage_url: str, *, port: int, artifacts: Path | None = None) -> Application:
    """The guarded dashboard as a WSGI application that answers on ``port`` of the loopback addresses.

    Raises:
        ConfigError: the port is impossible.
        EnvironmentProblem: optuna-dashboard is not installed.
        StudyError: there is no such database.
    """
    if not 1 <= port <= 65535:
        raise ConfigError(f"--port: found {port}, expected 1 to 65535")
    dashboard = _dashboard()
    storage = _open(storage_url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        store = optuna.artifacts.FileSystemArtifactStore(artifacts) if artifacts is not None else None
        return _guarded(dashboard.wsgi(storage, artifact_store=store), port)


def annotate(storage_url: str, study_name: str, markdown: str, *, metric_names: Sequence[str] = ()) -> None:
    """Put a note on a study, and names on its objectives if they have none.

    Args:
        storage_url: the study's database.
        study_name: the study's name.
        markdown: the note; HTML in it is shown, never obeyed. Pass texts from users through
            ``as_markdown_text`` first.
        metric_names: one name for each objective.

    Raises:
        EnvironmentProblem: optuna-dashboard is not installed.
        StudyError: there is no such study.
    """
    dashboard = _dashboard()
    try:
        study = optuna.load_study(study_name=study_name, storage=_open(storage_url))
    except KeyError:
        raise StudyError(f"{study_name}: no study of this name in the database") from None
    dashboard.save_note(study, _without_html(markdown))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if metric_names and study.metric_names is None:
            study.set_metric_names(list(metric_names))


def as_markdown_text(text: str) -> str:
    """A user's text as Markdown that reads the same: one line, no links, no images, no formatting."""
    line = " ".join(text.split())
    return "".join(f"\\{character}" if character in _MARKDOWN else character for character in line)


def _without_html(markdown: str) -> str:
    return markdown.replace("&", "&amp;").replace("<", "&lt;")


def _dashboard() -> Any:
    try:
        import optuna_dashboard
    except ImportError:
        raise EnvironmentProblem("optuna-dashboard is not installed; run `pip install 'gped-nas[dashboard]'`") from None
    return optuna_dashboard


# --------------------------------------------------------------------------------------------------- storage


class LegacyConstraintStorage(RDBStorage):
    """A database whose trials, as returned, also carry their constraints as the older list."""

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A trial by its identifier."""
        return _with_legacy_constraints(super().get_trial(trial_id))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """All trials of a study."""
        return [_with_legacy_constraints(trial) for trial in super().get_all_trials(study_id, deepcopy, states)]


def _with_legacy_constraints(trial: FrozenTrial) -> FrozenTrial:
    attributes: Mapping[str, Any] = trial.system_attrs
    values = [attributes[key] for key in sorted(attributes) if key.startswith(_CONSTRAINT)]
    if not values or "constraints" in attributes:
        return trial
    shown = copy.copy(trial)
    shown.system_attrs = {**attributes, "constraints": values}
    return shown


def _open(storage_url: str) -> LegacyConstraintStorage:
    path = storage_url.removeprefix(_SQLITE)
    if storage_url.startswith(_SQLITE) and not Path(path).is_file():
        raise StudyError(f"{path}: no study database here; name the study's folder or its storage")
    try:
        return LegacyConstraintStorage(storage_url, skip_compatibility_check=True, skip_table_creation=True)
    except (ImportError, ValueError) as error:
        raise StudyError(f"the storage cannot be opened: {error}") from None


# ----------------------------------------------------------------------------------------------------- guard


def _guarded(app: Application, port: int) -> Application:
    suffix = "" if port == 80 else f":{port}"
    hosts = frozenset(f"{name}{suffix}" for name in ("127.0.0.1", "localhost", "[::1]"))

    def guarded(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if not _is_own(environ, hosts):
            start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8"), _NO_FRAMES])
            return [b"Refused: this request does not come from the dashboard itself.\n"]

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            kept = [pair for pair in headers if pair[0].lower() != "x-frame-options"]
            return start_response(status, [*kept, _NO_FRAMES], *rest)

        return app(environ, start)

    return guarded


_NO_FRAMES = ("X-Frame-Options", "DENY")


def _is_own(environ: Environ, hosts: frozenset[str]) -> bool:
    """Whether a request names this server as its host and, where it names one, as its origin."""
    host = environ.get("HTTP_HOST", "")
    own = f"http://{host}"
    if host not in hosts or environ.get("HTTP_ORIGIN", own) != own:
        return False
    if environ["REQUEST_METHOD"] in _READ_ONLY_VERBS:
        return True
    is_same_site = environ.get("HTTP_SEC_FETCH_SITE", "same-origin") in ("same-origin", "none")
    return is_same_site and str(environ.get("HTTP_REFERER", f"{own}/")).startswith(f"{own}/")


# ---------------------------------------------------------------------------------------------------- server


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """One thread a request, since browsers hold idle connections open."""

    daemon_threads = True


class _ServerV6(_Server):
    address_family = AF_INET6


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests are not news."""


def _listen(host: str, port: int, app: Application) -> WSGIServer:
    server_class = _ServerV6 if host == "::1" else _Server
    try:
        return make_server(host, port, app, server_class=server_class, handler_class=_QuietHandler)
    except OSError as error:
        raise EnvironmentProblem(
            f"{host}:{port}: cannot listen: {error.strerror or error}; choose another with --port"
        ) from None
