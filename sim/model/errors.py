"""Everything the project raises on purpose. Message: who, what was asked, what was allowed, when."""

from __future__ import annotations


class TuningError(Exception):
    """Root of the project's errors."""


class InputError(TuningError):
    """What the user gave is wrong; nothing was started or written."""


class InvalidTraceError(InputError):
    """A file of a bundle or table is malformed.

    Attributes:
        file: the file that was read.
        problem: what is wrong there.
        row: the offending row (counted from 1 below the header), or None.
        column: the offending column, or None.
    """

    def __init__(self, file: object, problem: str, *, row: int | None = None, column: str | None = None) -> None:
        self.file, self.problem, self.row, self.column = str(file), problem, row, column
        where = self.file + (f", row {row}" if row is not None else "") + (f", column {column}" if column else "")
        super().__init__(f"{where}: {problem}")


class InfeasibleJobError(InputError):
    """No plan meets the deadline and the budget; the message names the best achievable one."""


class InvalidActionError(TuningError):
    """A policy asked for something impossible."""

    def __init__(self, policy: str, action: object, at_s: float, problem: str) -> None:
        super().__init__(f"{policy}: {action} at {at_s:.1f} s: {problem}")


class RefusedCommandError(TuningError):
    """A backend cannot carry out what a policy asked for; the loop makes an `InvalidActionError` of it that names the policy.

    Attributes:
        action: the action that the order came from.
        at_s: when it was refused.
        problem: why.
    """

    def __init__(self, action: object, at_s: float, problem: str) -> None:
        self.action, self.at_s, self.problem = action, at_s, problem
        super().__init__(f"{action} at {at_s:.1f} s: {problem}")


class StalledRunError(TuningError):
    """Nothing can happen any more and the policy has not finished the run."""


class ReplayError(TuningError):
    """A journal does not replay: the controller decided something else, or the file is not a journal."""


class WorkerError(TuningError):
    """A real worker failed in a way that is not an event of the run."""
