"""Where the `elastune` command begins: Ctrl-C ends it without a traceback, also while Python still imports.

Imports nothing before it can catch.
"""

from elastune.experiments.cli import INTERRUPTED

_NEW_OBJECTS = 10_000
"""Python looks for garbage after every 700. Imports make many objects, none of which is garbage, and a run leaves no cycles."""


def main() -> None:
    """Import the commands and run the one that was asked for."""
    try:
        import gc

        gc.set_threshold(_NEW_OBJECTS)
        from elastune.experiments.cli.app import main as run

        run()
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
