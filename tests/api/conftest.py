"""The homes of ``tests.cli``."""

from tests.cli.fixtures import finished, home, home_of_module, own, sampled

__all__ = ["finished", "home", "home_of_module", "own", "sampled"]
