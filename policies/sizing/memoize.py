"""Plans made before a run, found once for all runs of a process that differ in their seed only. Pure [ours]."""

from __future__ import annotations

import functools
import pickle
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
ResultT = TypeVar("ResultT")

MOST_REMEMBERED = 32
"""Results that a planner keeps: sweeps go through the seeds of one cell after the other, so few are needed at a time."""


def remembered(planner: Callable[P, ResultT]) -> Callable[P, ResultT]:
    """The planner, which keeps its last results: no difference but in the time it takes.

    Only for pure functions whose results nobody changes. Calls are the same where all their arguments pickle to the same bytes:
    profiles and price books hold tables, and so have no hash. What cannot be pickled is planned anew each time. Errors are not
    kept.
    """

    @functools.lru_cache(MOST_REMEMBERED)
    def found(call: _Call[ResultT]) -> ResultT:
        return call.result()

    @functools.wraps(planner)
    def plan(*args: P.args, **kwargs: P.kwargs) -> ResultT:
        try:
            key = pickle.dumps((args, kwargs))
        except (pickle.PicklingError, AttributeError, TypeError):
            return planner(*args, **kwargs)
        return found(_Call(key, lambda: planner(*args, **kwargs)))

    return plan


class _Call(Generic[ResultT]):
    """A call, told from others by its key."""

    def __init__(self, key: bytes, result: Callable[[], ResultT]) -> None:
        self.key = key
        self.result = result

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Call) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)
