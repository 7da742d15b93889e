"""Runs cases in a process of their own, under limits of processor time and memory, and says what broke."""

from __future__ import annotations

import multiprocessing
import resource
import signal
import tempfile
import traceback
from contextlib import contextmanager
from pathlib import Path

from tests.fuzz.cases import CASES

HANG_S = 20
"""Processor seconds that a case may take."""
SILENT_S = 300
"""Seconds after which a case that does not even use its processor time is given up."""
MEMORY_BYTES = 2 << 30


class HangError(BaseException):
    """Raised in the case itself, so that the traceback shows where it hangs; no handler of errors catches it."""


def _raise_hang(*_):
    raise HangError(f"no end after {HANG_S} s of processor time")


@contextmanager
def _limited():
    """Limits of the process: what it has now and 2 GiB more."""
    held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES, resource.RLIM_INFINITY))
    signal.signal(signal.SIGPROF, _raise_hang)
    signal.setitimer(signal.ITIMER_PROF, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def failure_of(kind, seed):
    """What is wrong with one case, as a traceback; None where nothing is."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        try:
            with _limited():
                CASES[kind](seed, Path(folder))
        except BaseException:
            return traceback.format_exc(limit=-12)
    return None


def _serve(pipe):
    while (asked := pipe.recv()) is not None:
        pipe.send(failure_of(*asked))


class Worker:
    """A process that runs one case after the other, and is replaced when it dies."""

    def __init__(self):
        self._start()

    def _start(self):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def failure_of(self, kind, seed):
        """See `failure_of`; a process that dies or never answers is a failure, too."""
        self._pipe.send((kind, seed))
        try:
            if self._pipe.poll(SILENT_S):
                return self._pipe.recv()
            problem = f"no answer within {SILENT_S} s"
        except EOFError:
            problem = "the process died"
        self.close()
        self._start()
        return problem

    def close(self):
        """End the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()
