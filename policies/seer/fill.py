"""What SEER does with time and money that its plan leaves: it keeps more survivors. Pure [ours]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.policies.rules.halving import Stage
from elastune.policies.sizing.list_scheduling import largest_number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def widened(stages: Sequence[Stage], trials: int) -> tuple[Stage, ...]:
    """The same rungs begun by so many trials, at least as many as now; later rungs grow in proportion."""
    first = stages[0].trials
    found: list[Stage] = []
    for stage in stages:
        most = found[-1].trials if found else trials
        size = min(stage.trials * trials // first, most)
        found.append(Stage(size, stage.iterations, stage.until_iteration))
    return tuple(found)


def most_survivors(
    stages: Sequence[Stage], most: int, is_kept: Callable[[tuple[Stage, ...]], bool]
) -> tuple[Stage, ...] | None:
    """These rungs begun by the most trials, up to `most`; None where there are no more than now.

    Found by bisection: more survivors are taken to cost more and to take longer.

    Args:
        stages: the rungs as planned.
        most: trials that there are.
        is_kept: whether there is a plan for widened rungs, on time and paid.
    """
    now = stages[0].trials
    added = largest_number(most - now, lambda added: is_kept(widened(stages, now + added))) if most > now else 0
    return widened(stages, now + added) if added else None


def open_to_all(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The rungs as an executor sees them that drops nobody at a barrier: how many go on is decided when the rung begins."""
    before = (stages[0], *stages[:-1])
    return tuple(
        Stage(earlier.trials, stage.iterations, stage.until_iteration)
        for earlier, stage in zip(before, stages, strict=True)
    )
