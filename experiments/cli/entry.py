"""Where the `elastune` command begins: Ctrl-C ends it without a traceback, also while Python still imports.

Imports nothing before it can catch.
"""

from elastune.experiments.cli import INTERRUPTED


def main() -> None:
    """Import the commands and run the one that was asked for."""
    try:
        from elastune.experiments.cli.app import main as run

        run()
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
