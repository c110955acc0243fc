"""``gped-search``: parse, call, print.

Nothing here computes; ``--help`` imports neither torch nor Optuna.
"""

from gped_nas.cli.program import main

__all__ = ["main"]
