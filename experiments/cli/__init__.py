"""The command line: one module per command, and what they share. Numbers arrive computed.

May import everything, inside the commands, so that `elastune --help` starts at once.
"""

INTERRUPTED = 130
"""Exit code, as of any command that Ctrl-C ended."""
