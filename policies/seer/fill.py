"""What SEER does with time and money that its plan leaves: it keeps more survivors. Pure [ours]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.policies.rules.halving import Stage
from elastune.policies.sizing.list_scheduling import largest_number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elastune.policies.planning.plan import Plan


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
    stages: Sequence[Stage], most: int, plan_for: Callable[[tuple[Stage, ...]], Plan | None]
) -> Plan | None:
    """The plan of these rungs begun by the most trials, up to `most`; None where there is none with more than now.

    Found by bisection: more survivors are taken to cost more and to take longer.

    Args:
        stages: the rungs as planned.
        most: trials that there are.
        plan_for: the plan for widened rungs, None where it is late or too dear.
    """
    found: dict[int, Plan] = {}

    def is_kept(added: int) -> bool:
        plan = plan_for(widened(stages, stages[0].trials + added))
        if plan is not None:
            found[added] = plan
        return plan is not None

    return found.get(largest_number(most - stages[0].trials, is_kept)) if most > stages[0].trials else None


def open_to_all(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The rungs as an executor sees them that drops nobody at a barrier: how many go on is decided when the rung begins."""
    before = (stages[0], *stages[:-1])
    return tuple(
        Stage(earlier.trials, stage.iterations, stage.until_iteration)
        for earlier, stage in zip(before, stages, strict=True)
    )
