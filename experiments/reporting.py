"""`elastune.report` and `elastune.checkpoint_folder`: how a plain training function takes part in a run.

The function runs in a thread of its own and waits in `report` until the run wants the next iteration. While it waits, its
checkpoint is written, if one is due. Called outside of a run, as by a script on its own, both do nothing.

Imports the standard library and sim.model.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from elastune.sim.model.errors import WorkerError
from elastune.sim.model.numbers import as_float

_here = threading.local()
_ENDS_WITHIN_S = 5.0
"""Seconds that a stopped function has for its own `finally` and for what it frees. One that hangs there is left behind."""


def report(score: float, *, save: Callable[[Path], object] | None = None, test_score: float | None = None) -> None:
    """Tell the score after an iteration; returns when the next one is wanted.

    Args:
        score: on validation data; NaN where training has diverged.
        save: writes all that is needed to go on into the folder it is given. It is called only when a checkpoint is due.
        test_score: on data that no decision may look at.
    """
    trial: _Talk | None = getattr(_here, "trial", None)
    if trial is not None:
        trial.take(_number("score", score), save, math.nan if test_score is None else _number("test_score", test_score))


def _number(name: str, value: object) -> float:
    try:
        return as_float(value)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error


def checkpoint_folder() -> Path | None:
    """The folder with what `save` wrote, from which the function has to go on; None for a new trial."""
    trial: _Talk | None = getattr(_here, "trial", None)
    return None if trial is None else trial.restored


class _StoppedError(BaseException):
    """Unwinds the function when nobody wants a further iteration; code of the user's own must not catch it as an error."""


class _Talk:
    """What the function's thread and the one that asks for iterations have in common.

    Attributes:
        restored: what the function goes on from; None for a new trial.
    """

    def __init__(self, train: Callable[[], object]) -> None:
        self.restored: Path | None = None
        self.save: Callable[[Path], object] | None = None
        self.score = self.test_score = math.nan
        self.reports, self.is_over = 0, False
        self.error: Exception | None = None
        self._train, self._is_closed = train, False
        self._wanted, self._told = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name="training", daemon=True)
        self._thread.start()

    def take(self, score: float, save: Callable[[Path], object] | None, test_score: float) -> None:
        """In the function's thread: note a report, and wait until the next one is wanted."""
        self.score, self.save, self.test_score = score, save, test_score
        self.reports += 1
        self._told.release()
        self._wanted.acquire()
        if self._is_closed:
            raise _StoppedError

    def next_report(self) -> None:
        """Let the function go on, and wait for its next report or its end."""
        self._wanted.release()
        self._told.acquire()

    def close(self) -> None:
        """End the function, and wait until it has: a process that ends while a thread still frees what torch made is aborted.

        Garbage collection may call this in the function's own thread.
        """
        self._is_closed = True
        self._wanted.release()
        if threading.current_thread() is not self._thread:
            self._thread.join(_ENDS_WITHIN_S)

    def _run(self) -> None:
        """The function's thread."""
        _here.trial = self
        self._wanted.acquire()
        try:
            if not self._is_closed:
                self._train()
        except _StoppedError:
            return
        except Exception as error:  # goes on in the thread that asked
            self.error = error
        except BaseException as error:  # such as sys.exit, which would leave that thread waiting for ever
            self.error = RuntimeError(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__)
        self.is_over = True
        self._told.release()


class FunctionTrial:
    """A training function as a trainable; its thread ends when nobody has the trial any more.

    Args:
        train: runs the function, from its beginning to its end.
    """

    def __init__(self, train: Callable[[], object]) -> None:
        self._talk = _Talk(train)
        weakref.finalize(self, self._talk.close)

    def train_iteration(self) -> None:
        """Let the function train to its next report.

        Raises:
            WorkerError: it ended before.
        """
        self._talk.next_report()
        if self._talk.error is not None:
            raise self._talk.error
        if self._talk.is_over and not self._talk.reports:
            raise WorkerError(
                "the training function never called elastune.report(score, save=...): call it after each iteration"
            )
        if self._talk.is_over:
            raise WorkerError(
                f"the training function ended after {self._talk.reports} reports, but another iteration is wanted: let it train"
                " as long as it is asked, at least job.max_iterations in all"
            )

    def evaluate(self) -> float:
        """The score that was told last."""
        return self._talk.score

    def test_score(self) -> float:
        """The test score that was told last; NaN without one."""
        return self._talk.test_score

    def save(self, folder: Path) -> None:
        """Let the function write what it needs to go on.

        Raises:
            WorkerError: its last report gave nothing that does.
        """
        if self._talk.save is None:
            raise WorkerError("elastune.report(score) was given no save=..., so that the trial could never go on")
        self._talk.save(folder)

    def load(self, folder: Path) -> None:
        """Go on from a copy of this folder, which the function reads when it begins."""
        copied = tempfile.mkdtemp(prefix="elastune-")
        weakref.finalize(self, shutil.rmtree, copied, ignore_errors=True)
        self._talk.restored = shutil.copytree(folder, Path(copied) / "checkpoint")
