"""A run as a trace in the JSON format that ui.perfetto.dev and chrome://tracing open.

Machines are processes, their GPUs threads, segments slices with launch, training and checkpoints nested in them. The policy
is a process of its own with an instant for each decision. Times are microseconds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from elastune.experiments.reports.decisions import ToldDecision
    from elastune.experiments.runs.timeline import Timeline

_US = 1e6
_POLICY = 1
"""Number of the process of the policy; machines follow."""


def trace_of(timeline: Timeline, decisions: Sequence[ToldDecision], name: Callable[[int], str] = str) -> dict[str, Any]:
    """The trace, as JSON takes it.

    Args:
        timeline: of the run.
        decisions: in order of time.
        name: what a trial is called, by its number in the run.
    """
    events = [*_policy(timeline, decisions), *_machines(timeline), *_segments(timeline, name)]
    return {"displayTimeUnit": "ms", "traceEvents": events, "otherData": {"policy": timeline.policy}}


def _process(instance: int) -> int:
    return _POLICY + 1 + instance


def _named(what: str, name: str, pid: int, tid: int = 0) -> dict[str, Any]:
    return {"ph": "M", "name": f"{what}_name", "pid": pid, "tid": tid, "args": {"name": name}}


def _slice(
    name: str, kind: str, pid: int, tid: int, span_s: tuple[float, float], args: dict[str, Any]
) -> dict[str, Any]:
    """A slice; both ends are rounded alike, so that neighbours and nested slices share their edges."""
    start_us, end_us = (round(at_s * _US) for at_s in span_s)
    return {
        "ph": "X",
        "name": name,
        "cat": kind,
        "pid": pid,
        "tid": tid,
        "ts": start_us,
        "dur": end_us - start_us,
        "args": args,
    }


def _policy(timeline: Timeline, decisions: Sequence[ToldDecision]) -> Iterator[dict[str, Any]]:
    yield _named("process", f"policy {timeline.policy}", _POLICY)
    yield _named("thread", "decisions", _POLICY)
    for one in decisions:
        told = {"because": one.happened, "decided": "; ".join(one.decided), "known": "; ".join(one.known)}
        yield {
            "ph": "i",
            "s": "p",
            "name": one.decided[0],
            "cat": one.kind,
            "pid": _POLICY,
            "tid": 0,
            "ts": round(one.at_s * _US),
            "args": told,
        }


def _machines(timeline: Timeline) -> Iterator[dict[str, Any]]:
    for row in timeline.leases.to_dict("records"):
        pid = _process(int(row["instance"]))
        yield _named("process", f"machine {row['instance']}: {row['instance_type']}, {row['market']}", pid)
        yield _named("thread", "machine", pid)
        for lane in range(int(row["gpus"])):
            yield _named("thread", f"GPU {lane}", pid, lane + 1)
        ready_s = row["end_s"] if math.isnan(row["ready_s"]) else min(row["ready_s"], row["end_s"])
        yield _slice("boots", "machine", pid, 0, (row["launched_s"], ready_s), {"requested_s": row["requested_s"]})
        if ready_s < row["end_s"]:
            yield _slice("ready", "machine", pid, 0, (ready_s, row["end_s"]), {"gone": row["cause"]})


def _segments(timeline: Timeline, name: Callable[[int], str]) -> Iterator[dict[str, Any]]:
    for row in timeline.segments.to_dict("records"):
        pid, tid = _process(int(row["instance"])), int(row["lane"]) + 1
        span_s = (row["start_s"], row["end_s"])
        told = {part: row[part] for part in ("segment", "from_iteration", "until_iteration", "iteration", "outcome")}
        yield _slice(f"trial {name(int(row['trial']))}", "segment", pid, tid, span_s, told)
        at_s = span_s[0]
        for part in ("launch", "train", "checkpoint"):
            spent_s = row[f"{part}_s"]
            if not math.isnan(spent_s) and spent_s > 0 and at_s < span_s[1]:
                # What a worker did after the end of its segment, as the run ended, is not in the picture.
                until_s = min(at_s + spent_s, span_s[1])
                yield _slice(part, "part", pid, tid, (at_s, until_s), {})
                at_s = until_s
