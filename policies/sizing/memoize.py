"""A cache for planners: runs that differ in their seed only are planned once per process. Pure [ours]."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
ResultT = TypeVar("ResultT")

MAX_CACHED = 256
"""Results that the cache keeps per planner: a search over candidates comes back to each of them with more seeds."""


def memoized(planner: Callable[P, ResultT]) -> Callable[P, ResultT]:
    """The same planner with a cache of its last results.

    Use it only for pure functions whose results nobody changes. Two calls are the same if all their arguments pickle to the
    same bytes; profiles and price books hold tables and have no hash. Arguments that cannot be pickled are planned each time.
    Errors are not cached.
    """

    @functools.lru_cache(MAX_CACHED)
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
    """A call; two are equal if their keys are."""

    def __init__(self, key: bytes, result: Callable[[], ResultT]) -> None:
        self.key = key
        self.result = result

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Call) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)
