"""The state of a real run whose driver died, read from the controller after a replay of the journal."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, TypedDict

import msgspec

from elastune.sim.bridge.machines.nodes import Node
from elastune.sim.bridge.workers.resumption import OpenInstance, OpenSegment, Resumption
from elastune.sim.control.state import NO_SEGMENT
from elastune.sim.model.actions import CloneTrial
from elastune.sim.model.commands import StartSegment, StartTimer
from elastune.sim.model.errors import InputError
from elastune.sim.model.events import ProgressReported, SegmentEnded, TimerFired, TrialSampled
from elastune.sim.model.ids import InstanceId, TrialId

NODES_FILE = "nodes.jsonl"
"""Ray's nodes by instance."""

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from elastune.sim.control.controller import Controller
    from elastune.sim.control.journal import Entry
    from elastune.sim.model.protocols import Configuration


def resumption_of(controller: Controller, entries: Sequence[Entry], folder: Path) -> Resumption:
    """What the dead driver left behind.

    Args:
        controller: after the replay of the entries.
        entries: of the journal, at least one.
        folder: of the run.
    """
    state = controller.state
    started = {
        command.segment: (entry.event.at_s, command.until_iteration)
        for entry in entries
        for command in entry.commands
        if isinstance(command, StartSegment)
    }
    return Resumption(
        at_s=entries[-1].event.at_s,
        segments=[
            OpenSegment(
                TrialId(number),
                trial.segment,
                trial.placement,
                started[trial.segment][0],
                trial.from_iteration,
                started[trial.segment][1],
                trial.iteration,
                trial.score,
                is_clone=trial.cloned_from is not None,
            )
            for number, trial in enumerate(state.trials)
            if trial.segment != NO_SEGMENT
        ],
        instances=[
            OpenInstance(number, one.instance_type, one.market, one.status) for number, one in state.instances.items()
        ],
        timers=_timers(entries),
        configurations={
            TrialId(number): trial.configuration
            for number, trial in enumerate(state.trials)
            if trial.configuration is not None
        },
        leased=leased_in(folder / NODES_FILE),
        **_taught(entries),
    )


class _Taught(TypedDict):
    sampled: dict[TrialId, Configuration]
    clones: set[TrialId]
    results: list[tuple[TrialId, int, float | None]]


def _taught(entries: Sequence[Entry]) -> _Taught:
    """What the source of configurations was told, and which trials are clones."""
    taught = _Taught(sampled={}, clones=set(), results=[])
    for entry in entries:
        match entry.event:
            case TrialSampled(trial=trial, configuration=configuration):
                taught["sampled"][trial] = configuration
            case (
                SegmentEnded(trial=trial, iteration=iteration, score=score)
                | ProgressReported(trial=trial, iteration=iteration, score=score)
            ) if iteration and trial not in taught["clones"]:
                taught["results"].append((trial, iteration, score))
        taught["clones"].update(action.target for action in entry.actions if isinstance(action, CloneTrial))
    return taught


def _timers(entries: Sequence[Entry]) -> Mapping[str, float]:
    """Timers that have not fired, by tag."""
    timers: dict[str, float] = {}
    for entry in entries:
        if isinstance(entry.event, TimerFired):
            timers.pop(entry.event.tag, None)
        timers |= {command.tag: command.at_s for command in entry.commands if isinstance(command, StartTimer)}
    return timers


def note_lease(nodes_file: Path, instance: InstanceId, node: Node) -> None:
    """Note the node of an instance, so that another driver can take it over."""
    with nodes_file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"instance": instance, **asdict(node)}) + "\n")


def cut_torn_note(path: Path) -> int:
    """Cut an unfinished last line, which a dead driver may have left; return the bytes that remain."""
    text = path.read_bytes() if path.is_file() else b""
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        with path.open("rb+") as stream:
            stream.truncate(whole)
    return whole


def leased_in(nodes_file: Path) -> Mapping[InstanceId, Node]:
    """The noted nodes by instance; `cut_torn_note` comes first.

    Raises:
        InputError: a line is damaged.
    """
    if not nodes_file.is_file():
        return {}
    leased = {}
    for number, line in enumerate(nodes_file.read_bytes().splitlines(), start=1):
        try:
            note = msgspec.json.decode(line, type=_Lease)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{nodes_file}:{number} does not say which node was leased: {error}") from error
        leased[note.instance] = Node(note.node_id, note.host, note.gpus)
    return leased


class _Lease(msgspec.Struct):
    """A line of the list of nodes."""

    instance: InstanceId
    node_id: str
    host: str
    gpus: int
