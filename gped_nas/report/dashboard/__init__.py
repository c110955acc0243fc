"""The Optuna dashboard of a study: ``Wall`` puts things on it, ``serve`` shows it."""

from gped_nas.report.dashboard.server import application, serve
from gped_nas.report.dashboard.wall import Wall

__all__ = ["Wall", "application", "serve"]
