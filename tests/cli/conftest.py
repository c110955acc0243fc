"""The homes of ``tests.cli``."""

from tests.cli.fixtures import finished, home, own

__all__ = ["finished", "home", "own"]
