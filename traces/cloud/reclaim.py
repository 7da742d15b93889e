"""Recorded spot markets: what a provider gave and took back.

Two formats, told apart by their columns: events (`t_s, op, node`, as in Bamboo's recordings) and availability (`start_s,
duration_s, available_nodes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from elastune.sim.model.errors import InvalidTraceError
from elastune.sim.model.reclaim import NodeChange, RecordedNodes
from elastune.traces.formats.csv_rows import Row, read_rows

_EVENT_COLUMNS = ("t_s", "op", "node")
_AVAILABILITY_COLUMNS = ("start_s", "duration_s", "available_nodes")
_MOST_NODES = 100_000
_LATEST_START_S, _LATEST_START = 86_400.0, 10.0
"""A market may be empty at first for a day, or for 10 times as long as the rest: beyond that, the clock began before it."""
_TOLERANCE_S = 1e-6  # between the end of one row and the beginning of the next, both written in decimals


def load_spot_trace(path: Path, name: str | None = None, start_s: float | None = 0.0) -> RecordedNodes:
    """The recording in a CSV file.

    Args:
        path: the file. Events: `t_s` (seconds, not falling), `op` (add or remove) and `node`; the recording ends with its last
            event. Availability: `start_s` (each where the row before ends, the first at 0), `duration_s` (positive) and
            `available_nodes`; nodes that come and go are the highest-numbered ones. A column `file` may say which of several
            recordings a row belongs to.
        name: which of them; the text in column `file`, or the last part of it without what follows the dot.
        start_s: where in the recording a run begins; None where its seed says.

    Raises:
        InvalidTraceError: the file is malformed, or time goes back in it; names row and column.
        InputError: the file holds several recordings and none is named, or there is none of this name.
    """
    rows = _recording(path, read_rows(path), name)
    columns = rows[0].cells.keys()
    for wanted, read in ((_EVENT_COLUMNS, _events), (_AVAILABILITY_COLUMNS, _availability)):
        if all(column in columns for column in wanted):
            changes, length_s = read(rows)
            if not length_s > 0:
                raise rows[-1].wrong(wanted[0], "is 0 at the last row, so the recording has no length")
            return RecordedNodes(f"{path}{f' ({name})' if name else ''}", tuple(changes), length_s, start_s)
    known = f"{', '.join(_EVENT_COLUMNS)}, or {', '.join(_AVAILABILITY_COLUMNS)}"
    raise InvalidTraceError(path, f"has the columns {', '.join(columns)}, but a spot trace has {known}")


def _recording(path: Path, rows: list[Row], name: str | None) -> list[Row]:
    """The rows of the chosen recording."""
    if "file" not in rows[0].cells:
        if name is not None:
            raise InvalidTraceError(path, f"has no such column, so there is no recording {name!r} in it", column="file")
        return rows
    known = list(dict.fromkeys(row.text("file") for row in rows))
    listed = ", ".join(Path(one).stem for one in known)
    if name is None:
        if len(known) > 1:
            raise InvalidTraceError(path, f"holds several recordings, name one: {listed}", column="file")
        return rows
    meant = [one for one in known if name in (one, Path(one).stem)]
    if len(meant) != 1:
        raise InvalidTraceError(path, f"holds no recording {name!r}; known: {listed}", column="file")
    return [row for row in rows if row.cells["file"] == meant[0]]


def _events(rows: Sequence[Row]) -> tuple[list[NodeChange], float]:
    changes: list[NodeChange] = []
    there: set[str] = set()
    before_s = 0.0
    for row in rows:
        at_s, op, node = row.seconds("t_s"), row.text("op"), row.text("node")
        if at_s < before_s:
            raise row.wrong(
                "t_s", f"goes back from {before_s:g} s to {at_s:g} s; sort the events by time, or name their recordings"
            )
        if op not in ("add", "remove"):
            raise row.wrong("op", f"is {op!r}, but must be add or remove")
        if (op == "add") == (node in there):
            state = "there already; remove it first" if op == "add" else "not there; add it first"
            raise row.wrong("node", f"is {node}, which is {state}")
        (there.add if op == "add" else there.remove)(node)
        changes.append(NodeChange(at_s, op == "add", node))
        before_s = at_s
    first_s = changes[0].at_s
    if first_s > _LATEST_START_S and first_s > _LATEST_START * (before_s - first_s):
        problem = f"begins at {first_s:g} s, and lasts {before_s - first_s:g} s from there: count from the first event"
        raise rows[0].wrong("t_s", problem)
    return changes, before_s


def _availability(rows: Sequence[Row]) -> tuple[list[NodeChange], float]:
    changes: list[NodeChange] = []
    there, end_s = 0, 0.0
    for row in rows:
        start_s, lasts_s = row.seconds("start_s"), row.seconds("duration_s")
        if not lasts_s:
            raise row.wrong("duration_s", "is 0, but must be positive")
        if abs(start_s - end_s) > _TOLERANCE_S:
            how = "goes back to" if start_s < end_s else "is"
            raise row.wrong("start_s", f"{how} {start_s:g} s, but the row before ends at {end_s:g} s; begin there")
        available = row.whole_number("available_nodes", most=_MOST_NODES)
        changes += [NodeChange(end_s, True, str(node)) for node in range(there, available)]
        changes += [NodeChange(end_s, False, str(node)) for node in reversed(range(available, there))]
        there, end_s = available, end_s + lasts_s
    return changes, end_s
