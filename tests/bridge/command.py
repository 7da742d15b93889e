"""The command line in a process of its own, as Ray connects a process to one cluster only, and what it leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from tests.bridge.chaos import wait_for


@dataclass
class Terminal:
    """Where commands are given.

    Attributes:
        folder: they are given in, and their clusters lie in.
    """

    folder: str

    def elastune(self, *arguments):
        """What came of the command."""
        program = [sys.executable, "-c", "from elastune.experiments.cli.app import main; main()", *map(str, arguments)]
        environment = os.environ | {"TMPDIR": self.folder}
        return subprocess.run(program, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    def is_clean(self):
        """Whether no process of its clusters lives."""
        return wait_for(lambda: not self._processes())

    def _processes(self):
        found = psutil.process_iter(["cmdline", "status"])
        living = [process for process in found if process.info["status"] != psutil.STATUS_ZOMBIE]
        return [one for one in living if any(self.folder in part for part in one.info["cmdline"] or ())]


@contextmanager
def terminal():
    """One in a folder whose path is short enough for Ray's sockets, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="et-", ignore_cleanup_errors=True) as folder:
        yield Terminal(folder)
