"""What is compared between a real run and its simulation: times, dollars, stages and decisions, read from its tables.

Imports experiments.runs and sim.model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from elastune.experiments.runs.ledger import Ledger
from elastune.sim.model.commands import EndSegment, ProvisionInstance, ReleaseInstance, StartSegment
from elastune.sim.model.events import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from elastune.experiments.runs.fold import Tables
    from elastune.sim.model.ids import SegmentId, TrialId

HEADS = ("makespan_s", "cost_usd", "score")
"""The three numbers of a run; the others are `usd:PART`, `gpu_s:PART`, `stage:ITERATION` and `trial:NUMBER`, in seconds."""


class Decision(NamedTuple):
    """A command without the numbers of machines and segments, which follow from the order of simultaneous events.

    Attributes:
        what: its kind.
        trial: that it is about; -1 for none.
        gpus: of the gang, or 0.
        until: iteration of the trial at which it ends, or 0.
    """

    what: str
    trial: int = -1
    gpus: int = 0
    until: int = 0

    def __str__(self) -> str:
        if self.what == "start":
            return f"trial {self.trial} on {self.gpus} GPUs to iteration {self.until}"
        return self.what if self.trial < 0 else f"{self.what} trial {self.trial}"


@dataclass(frozen=True)
class RunNumbers:
    """One run as numbers, real or simulated.

    Attributes:
        quantities: by name; see `HEADS`. A part of the ledger that is zero is in it.
        decisions: (seconds, decision) in the order of the commands, timers left out.
        rungs: by the iteration that segments aimed at, the trials that began one.
    """

    quantities: Mapping[str, float]
    decisions: tuple[tuple[float, Decision], ...]
    rungs: Mapping[int, frozenset[TrialId]]

    @classmethod
    def of(cls, tables: Tables) -> RunNumbers:
        """The numbers of a run that has ended."""
        ledger = Ledger.of(tables)
        quantities = {
            "makespan_s": tables.finished_s,
            "cost_usd": math.fsum(ledger.usd.values()),
            "score": _score(tables),
            **{f"usd:{part}": usd for part, usd in ledger.usd.items()},
            **{f"gpu_s:{part}": gpu_s for part, gpu_s in ledger.gpu_s.items()},
            **_ends(tables),
        }
        return cls(quantities, tuple(_decisions(tables)), _rungs(tables))


def _score(tables: Tables) -> float:
    """The score at the last durable iteration of the trial that the run named; NaN where it is not known."""
    best, score = -1, math.nan
    for segment in tables.ended():
        ended = segment.ended
        assert ended is not None
        if segment.trial == tables.best and ended.iteration == ended.checkpoint_iteration > best:
            best, score = ended.iteration, math.nan if ended.score is None else ended.score
    return score


def _ends(tables: Tables) -> dict[str, float]:
    """When each stage and each trial ended last; what the end of the run cut short ended then."""
    found: dict[str, float] = {}
    for segment in tables.segments:
        ended = segment.ended
        at_s = tables.finished_s if ended is None else min(ended.at_s, tables.finished_s)
        names = [f"trial:{segment.trial}"]
        if ended is not None and ended.outcome is Outcome.COMPLETED and ended.at_s <= tables.finished_s:
            names.append(f"stage:{segment.command.until_iteration}")
        for name in names:
            found[name] = max(found.get(name, 0.0), at_s)
    return found


def _decisions(tables: Tables) -> list[tuple[float, Decision]]:
    found: list[tuple[float, Decision]] = []
    trials: dict[SegmentId, int] = {}
    for _, at_s, what, _ in tables.changes:
        match what:
            case StartSegment():
                trials[what.segment] = what.trial
                gpus = sum(count for _, count in what.placement)
                found.append((at_s, Decision("start", what.trial, gpus, what.until_iteration)))
            case EndSegment():
                found.append((at_s, Decision("end", trials[what.segment])))
            case ProvisionInstance():
                found.append((at_s, Decision("provision")))
            case ReleaseInstance():
                found.append((at_s, Decision("release")))
            case _:
                pass
    return found


def _rungs(tables: Tables) -> dict[int, frozenset[TrialId]]:
    found: dict[int, set[TrialId]] = {}
    for segment in tables.segments:
        found.setdefault(segment.command.until_iteration, set()).add(segment.trial)
    return {level: frozenset(trials) for level, trials in sorted(found.items())}


class Difference(NamedTuple):
    """The first decision that differs between two runs.

    Attributes:
        number: of the decision, counted from 1; 0 where none differs.
        at_s: when the real run decided it; NaN where it decided nothing more.
        real: what it decided.
        simulated: what the simulation decided.
    """

    number: int
    at_s: float = math.nan
    real: str = ""
    simulated: str = ""


def first_difference(real: RunNumbers, simulated: RunNumbers) -> Difference:
    """The first decision in which two runs differ."""
    ours, theirs = list(real.decisions), [decision for _, decision in simulated.decisions]
    for number in range(1, max(len(ours), len(theirs)) + 1):
        at_s, here = ours[number - 1] if number <= len(ours) else (math.nan, None)
        there = theirs[number - 1] if number <= len(theirs) else None
        if here != there:
            return Difference(number, at_s, str(here or "nothing more"), str(there or "nothing more"))
    return Difference(0)


def in_common(real: RunNumbers, simulated: RunNumbers) -> dict[int, float]:
    """By rung, the trials that both runs sent there, as a share of the larger number."""
    shares = {}
    for level in sorted({*real.rungs, *simulated.rungs}):
        ours, theirs = real.rungs.get(level, frozenset()), simulated.rungs.get(level, frozenset())
        shares[level] = len(ours & theirs) / max(len(ours), len(theirs))
    return shares
