"""The Optuna dashboard of a study: ``Wall`` puts on it what can be seen there, ``serve`` shows it."""

from gped_nas.report.dashboard.server import application, serve
from gped_nas.report.dashboard.wall import Wall

__all__ = ["Wall", "application", "serve"]
