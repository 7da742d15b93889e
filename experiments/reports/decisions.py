"""What a policy decided in a run, on which event, and what it knew at that moment. Imports experiments.runs and sim.model.

A journal holds events and actions, and no reasons. The page gives what the policy was told, and for each trial that it chose
the last score, and how many others were better after as many iterations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from elastune.experiments.formats import number
from elastune.sim.model.actions import Action, CloneTrial, FinishRun, PauseTrial, RunTrial, ScaleTo, SetTimer, StopTrial
from elastune.sim.model.events import (
    Event,
    InstanceBooted,
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    InstanceRefused,
    Outcome,
    ProgressReported,
    ReclaimNoticed,
    RunStarted,
    SegmentEnded,
    TimerFired,
    TrialSampled,
)
from elastune.sim.model.job import Direction, loss_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from elastune.sim.control.journal import Entry

_MOST_LINES = 12
_ENDS = {
    Outcome.COMPLETED: "reached iteration {}",
    Outcome.ENDED: "ended as told at iteration {}",
    Outcome.FAILED: "broke at iteration {}, as a worker died",
    Outcome.INSTANCE_GONE: "broke at iteration {}, as its machine went away",
}


@dataclass(frozen=True)
class ToldDecision:
    """One decision.

    Attributes:
        at_s: when.
        kind: `machines`, `trials` or `end`, the first that applies.
        happened: the event that it answers, as a sentence.
        decided: a line per action.
        known: a line for each trial that it chose.
    """

    at_s: float
    kind: str
    happened: str
    decided: tuple[str, ...]
    known: tuple[str, ...]


@dataclass
class _Seen:
    """What has been reported so far.

    Attributes:
        direction: of scores; None where nobody says which way is better, and no ranks are told.
        name: what a trial is called.
        scores: by iteration, then trial.
        last: (iteration, score) by trial.
        machines: held at the last decision about them.
    """

    direction: Direction | None
    name: Callable[[int], str]
    scores: dict[int, dict[int, float | None]] = field(default_factory=dict)
    last: dict[int, tuple[int, float | None]] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """An event, before the policy answers it."""
        if isinstance(event, SegmentEnded | ProgressReported) and event.iteration > 0:
            self.scores.setdefault(event.iteration, {})[event.trial] = event.score
            self.last[event.trial] = event.iteration, event.score

    def told(self, trial: int) -> str:
        """What is known of a trial."""
        if trial not in self.last:
            return f"trial {self.name(trial)}: new, no score yet"
        iteration, score = self.last[trial]
        reached = number(score) if score is not None else "diverged"
        scored = f"trial {self.name(trial)}: {reached} after {_iterations(iteration)}"
        if self.direction is None:
            return scored
        losses = [loss_of(one, self.direction) for one in self.scores[iteration].values()]
        better = sum(loss < loss_of(score, self.direction) for loss in losses)
        return f"{scored}, {better} of {len(losses) - 1} others better there"


def decisions_of(
    entries: Iterable[Entry], direction: Direction | None, name: Callable[[int], str] = str
) -> Iterator[ToldDecision]:
    """The decisions of a journal, in order; those that only set timers are left out.

    Args:
        entries: of the journal.
        direction: of scores; None where it is not known.
        name: what a trial is called, by its number in the run.
    """
    seen = _Seen(direction, name)
    for entry in entries:
        if entry.status != "stale":
            seen.take(entry.event)
        actions = [action for action in entry.actions if not isinstance(action, SetTimer)]
        if actions:
            yield ToldDecision(
                entry.event.at_s,
                _kind(actions),
                happened(entry.event, name),
                _few([decided(action, name) for action in actions]),
                _few([seen.told(trial) for trial in dict.fromkeys(_trials(actions))]),
            )


def _few(lines: list[str]) -> tuple[str, ...]:
    left_out = len(lines) - _MOST_LINES
    return (*lines[:_MOST_LINES], *([f"and {left_out} more"] if left_out > 0 else []))


def _kind(actions: Sequence[Action]) -> str:
    for kind, types in (("end", FinishRun), ("machines", ScaleTo)):
        if any(isinstance(action, types) for action in actions):
            return kind
    return "trials"


def _trials(actions: Sequence[Action]) -> Iterator[int]:
    for action in actions:
        match action:
            case RunTrial(trial=trial) | PauseTrial(trial=trial) | StopTrial(trial=trial):
                yield trial
            case CloneTrial(source=source, target=target):
                yield from (source, target)
            case FinishRun(best=int() as best):
                yield best


def _iterations(count: int) -> str:
    return f"{count} iteration{'s' if count != 1 else ''}"


def happened(event: Event, name: Callable[[int], str]) -> str:  # noqa: C901, PLR0911  one sentence per kind of event
    """An event as a sentence."""
    match event:
        case RunStarted():
            return "The run started"
        case InstanceLaunched():
            return f"Machine {event.instance} began to boot"
        case InstanceBooted():
            return f"Machine {event.instance} has booted and is set up"
        case InstanceReady():
            return f"Machine {event.instance} can train"
        case InstanceRefused():
            return f"Machine {event.instance} was refused: {event.reason}"
        case ReclaimNoticed():
            return f"Machine {event.instance} will be taken back at {event.gone_at_s:,.0f} s"
        case InstanceGone():
            return f"Machine {event.instance} is gone ({event.cause})"
        case ProgressReported():
            return f"Trial {name(event.trial)} reports {number(event.score)} after {_iterations(event.iteration)}"
        case SegmentEnded():
            ended = _ENDS[event.outcome].format(event.iteration)
            return f"Trial {name(event.trial)} {ended}, with a score of {number(event.score)}"
        case TrialSampled():
            return f"Trial {name(event.trial)} was drawn"
        case TimerFired():
            return f"The timer {event.tag} ran out"


def decided(action: Action, name: Callable[[int], str]) -> str:  # one line per kind of action
    """An action as a line."""
    match action:
        case ScaleTo():
            of = " ".join(filter(None, (action.market, action.instance_type)))
            return f"hold {action.instances} machine{'s' if action.instances != 1 else ''}{f' of {of}' if of else ''}"
        case RunTrial():
            gpus = f"{action.gpus} GPU{'s' if action.gpus != 1 else ''}"
            return f"train trial {name(action.trial)} on {gpus} to iteration {action.until_iteration}"
        case PauseTrial():
            return f"pause trial {name(action.trial)}"
        case StopTrial():
            return f"stop trial {name(action.trial)}"
        case CloneTrial():
            return f"let trial {name(action.target)} go on from trial {name(action.source)}, changed"
        case FinishRun():
            return (
                "end the run, without an answer"
                if action.best is None
                else f"end the run, with trial {name(action.best)}"
            )
        case SetTimer():
            return f"ask to be woken at {action.at_s:,.0f} s ({action.tag})"
