"""``gped-search``: parse, call, print.

Nothing here computes; ``--help`` imports neither torch nor Optuna.
"""

__all__ = ["main"]


def main() -> None:
    """Run ``gped-search`` and exit.

    Codes: 0 ok, 1 failure, 2 usage, 3 gate, 4 integrity, 5 environment, 129/130/143 signals.
    """
    # first of all, and with few imports: Ctrl-C may come while the others are made
    import sys

    from gped_nas.cli.logs import asked_format, log_format
    from gped_nas.cli.signals import end_imports_at_once
    from gped_nas.cli.streams import mend_streams

    mend_streams()
    log_format.set(asked_format(sys.argv[1:]))
    with end_imports_at_once():
        from gped_nas.cli.program import run

        run()
