from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from elastune import traces
from elastune.sim.model.errors import InvalidTraceError
from elastune.sim.model.reclaim import NodeChange
from elastune.sim.model.streams import Streams

SHARED = Path(os.environ.get("ELASTUNE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
BAMBOO = SHARED / "cloud" / "spot_events_bamboo.csv"
recorded = pytest.mark.skipif(
    not BAMBOO.exists(), reason="the shared data folder is absent; ELASTUNE_SHARED_DATA can name it"
)


@pytest.fixture
def write(tmp_path):
    """Writes a CSV file, the header first."""

    def write(*lines):
        path = tmp_path / "spot.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def test_events_are_read_as_they_are(write):
    trace = traces.load_spot_trace(write("t_s,op,node", "0,add,a", "0,add,b", "60.5,remove,a", "90,add,a"))
    assert trace.changes == (
        NodeChange(0.0, True, "a"),
        NodeChange(0.0, True, "b"),
        NodeChange(60.5, False, "a"),
        NodeChange(90.0, True, "a"),
    )
    assert (trace.length_s, trace.start_s) == (90.0, 0.0)


def test_availability_becomes_nodes_of_which_the_highest_numbered_come_and_go(write):
    trace = traces.load_spot_trace(
        write("start_s,duration_s,available_nodes", "0,60,2", "60,30,0", "90,10,1"), start_s=None
    )
    assert trace.changes == (
        NodeChange(0.0, True, "0"),
        NodeChange(0.0, True, "1"),
        NodeChange(60.0, False, "1"),
        NodeChange(60.0, False, "0"),
        NodeChange(90.0, True, "0"),
    )
    assert (trace.length_s, trace.start_s) == (100.0, None)
    assert trace.mtbf_s == (2 * 60 + 10) / 2


def test_one_of_several_recordings_is_named_by_its_file_or_the_stem_of_it(write):
    path = write("file,t_s,op,node", "runs/one.csv,0,add,a", "runs/one.csv,9,remove,a", "runs/two.csv,5,add,b")
    assert traces.load_spot_trace(path, "one").length_s == 9.0
    assert traces.load_spot_trace(path, "runs/two.csv").length_s == 5.0


@pytest.mark.parametrize(
    ("lines", "name", "message"),
    [
        (
            ["t_s,op,node", "0,add,a", "60,add,b", "50,remove,a"],
            None,
            r"spot\.csv, row 3, column t_s: goes back from 60 s to 50 s; sort the events by time, or name their recordings",
        ),
        (
            ["start_s,duration_s,available_nodes", "0,60,2", "30,60,2"],
            None,
            r"spot\.csv, row 2, column start_s: goes back to 30 s, but the row before ends at 60 s; begin there",
        ),
        (
            ["start_s,duration_s,available_nodes", "0,60,2", "90,60,2"],
            None,
            r"row 2, column start_s: is 90 s, but the row before ends at 60 s",
        ),
        (["start_s,duration_s,available_nodes", "5,60,2"], None, r"row 1, column start_s: is 5 s, but .* ends at 0 s"),
        (
            ["start_s,duration_s,available_nodes", "0,0,2"],
            None,
            r"row 1, column duration_s: is 0, but must be positive",
        ),
        (["start_s,duration_s,available_nodes", "0,5,-2"], None, r"row 1, column available_nodes: is -2"),
        (
            ["start_s,duration_s,available_nodes", "0,5,2.5"],
            None,
            r"available_nodes: is 2.5, but must be a whole number",
        ),
        (["t_s,op,node", "0,add,a", "7,gone,a"], None, r"row 2, column op: is 'gone', but must be add or remove"),
        (["t_s,op,node", "0,add,a", "7,add,a"], None, r"row 2, column node: is a, which is there already"),
        (["t_s,op,node", "0,remove,a"], None, r"row 1, column node: is a, which is not there; add it first"),
        (["t_s,op,node", "-1,add,a"], None, r"row 1, column t_s: is -1, but must be at least 0"),
        (["t_s,op,node", "0,add,a"], None, r"row 1, column t_s: is 0 at the last row, so the recording has no length"),
        (["t_s,op", "0,add"], None, r"has the columns t_s, op, but a spot trace has t_s, op, node, or start_s"),
        (
            ["t_s,op,node", "0,add,a", "9,add,b"],
            "one",
            r"column file: has no such column, so there is no recording 'one'",
        ),
        (["file,t_s,op,node", "one.csv,0,add,a", "two.csv,5,add,a"], None, r"several recordings, name one: one, two"),
        (["file,t_s,op,node", "one.csv,0,add,a", "two.csv,5,add,a"], "ten", r"no recording 'ten'; known: one, two"),
    ],
)
def test_a_bad_trace_is_an_error_that_names_file_row_and_column(write, lines, name, message):
    with pytest.raises(InvalidTraceError, match=message):
        traces.load_spot_trace(write(*lines), name)


@recorded
@pytest.mark.parametrize(
    ("name", "changes", "hours", "mtbf_s"), [("p3-trace", 344, 11.37, 5888), ("g4dn-trace", 153, 10.77, 6601)]
)
def test_the_recordings_of_bamboo_are_read(name, changes, hours, mtbf_s):
    trace = traces.load_spot_trace(BAMBOO, name)
    assert len(trace.changes) == changes
    assert trace.length_s / 3600 == pytest.approx(hours, abs=0.01)
    assert trace.mtbf_s == pytest.approx(mtbf_s, abs=1)


@recorded
def test_on_the_p3_trace_there_are_as_many_machines_as_were_recorded_and_they_go_when_nodes_did():
    # At 3,000 s 32 nodes are there; six of them go at 3,060 s.
    pool = traces.load_spot_trace(BAMBOO, "p3-trace").begin(Streams(0), 30.0)
    ends = []
    while (end_s := pool.place(len(ends), 3000.0)) is not None:
        ends.append(end_s)
    assert len(ends) == 32
    assert sorted(ends).count(3060.0) == 6
    assert math.isfinite(max(ends))
