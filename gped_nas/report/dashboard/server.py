"""Optuna's dashboard on this machine's loopback only, guarded, with constraints it can read."""

import socketserver
import warnings
from collections.abc import Callable
from pathlib import Path
from socket import AF_INET6
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.exceptions import ExperimentalWarning

from gped_nas.errors import ConfigError, EnvironmentProblem
from gped_nas.report.dashboard.detail import correct_detail
from gped_nas.report.dashboard.guard import Application, guard_requests
from gped_nas.report.dashboard.storage import open_for_dashboard

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    storage_url: str,
    *,
    port: int,
    host: str = "127.0.0.1",
    artifacts: Path | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve the dashboard until the process is interrupted.

    Args:
        storage_url: the study's database.
        port: 1 to 65535.
        host: one of ``LOOPBACK``.
        artifacts: folder of Optuna's file-system artifact store, if there is one.
        ready: called once the port answers.

    Raises:
        ConfigError: the host is not a loopback address, or the port is impossible.
        EnvironmentProblem: optuna-dashboard is not installed, or the port cannot be had.
        StudyError: there is no such database.
    """
    if host not in LOOPBACK:
        raise ConfigError(
            f"--host: found {host!r}, expected one of {', '.join(LOOPBACK)}: the dashboard has no "
            "log-in and can delete studies; to see it from elsewhere forward the port, for example "
            "with `ssh -L`"
        )

    app = application(storage_url, port=port, artifacts=artifacts)
    with listen(host, port, app) as server:
        ready()
        server.serve_forever()


def application(storage_url: str, *, port: int, artifacts: Path | None = None) -> Application:
    """The guarded dashboard as a WSGI application.

    Args:
        storage_url: the study's database.
        port: the port of the loopback addresses that it answers on.
        artifacts: folder of Optuna's file-system artifact store, if there is one.

    Raises:
        ConfigError: the port is impossible.
        EnvironmentProblem: optuna-dashboard is not installed.
        StudyError: there is no such database.
    """
    if not 1 <= port <= 65535:
        raise ConfigError(f"--port: found {port}, expected 1 to 65535")

    dashboard = dashboard_package()
    storage = open_for_dashboard(storage_url)
    store = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if artifacts is not None:
            store = optuna.artifacts.FileSystemArtifactStore(artifacts)
        app = dashboard.wsgi(storage, artifact_store=store)
    return guard_requests(correct_detail(app, storage), port)


def dashboard_package() -> Any:
    """optuna-dashboard.

    Raises:
        EnvironmentProblem: it is not installed.
    """
    try:
        import optuna_dashboard
    except ImportError:
        raise EnvironmentProblem(
            "optuna-dashboard is not installed; run `pip install 'gped-nas[dashboard]'`"
        ) from None
    return optuna_dashboard


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """One thread a request, since browsers hold idle connections open."""

    daemon_threads = True


class _ServerV6(_Server):
    address_family = AF_INET6


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests are not news."""


def listen(host: str, port: int, app: Application) -> WSGIServer:
    """A server that listens and does not answer yet.

    Raises:
        EnvironmentProblem: the port cannot be had.
    """
    server_class = _ServerV6 if host == "::1" else _Server
    try:
        return make_server(host, port, app, server_class=server_class, handler_class=_QuietHandler)
    except OSError as error:
        raise EnvironmentProblem(
            f"{host}:{port}: cannot listen: {error.strerror or error}; choose another with --port"
        ) from None
