"""The trace of a run is one that a viewer of traces can read: slices nest, in microseconds, on threads that are named."""

from __future__ import annotations

import json

import pytest
from report_folders import elastune

from elastune.experiments.reports.of_run import RecordedRun
from elastune.experiments.reports.perfetto import trace_of


@pytest.fixture(scope="module")
def trace(made):
    path = made.root / "trace.json"
    elastune("report", made.run, "-o", made.root / "again.html", "--seeds", 0, "--perfetto", path)
    return json.loads(path.read_text())


def lanes(trace):
    """The slices of each thread, longest first where they begin together."""
    found = {}
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            found.setdefault((event["pid"], event["tid"]), []).append(event)
    return {lane: sorted(slices, key=lambda one: (one["ts"], -one["dur"])) for lane, slices in found.items()}


def test_slices_nest(trace):
    for slices in lanes(trace).values():
        open_until = []
        for one in slices:
            assert isinstance(one["ts"], int)
            assert isinstance(one["dur"], int)
            assert one["dur"] >= 0
            while open_until and open_until[-1] <= one["ts"]:
                open_until.pop()
            assert not open_until or one["ts"] + one["dur"] <= open_until[-1]
            open_until.append(one["ts"] + one["dur"])


def test_every_process_and_thread_is_named_and_within_the_run(trace, made):
    run = RecordedRun.read(made.run)
    named = {(one["pid"], one["tid"]) for one in trace["traceEvents"] if one["name"] == "thread_name"}
    used = {(one["pid"], one["tid"]) for one in trace["traceEvents"] if one["ph"] in "Xi"}
    assert used <= named
    machines = [one["args"]["name"] for one in trace["traceEvents"] if one["name"] == "process_name"]
    assert machines[0] == "policy seer"
    assert machines[1] == "machine 0: m<b>, on-demand"
    assert len(machines) == 1 + len(run.timeline.leases)
    last_us = max(one["ts"] + one.get("dur", 0) for one in trace["traceEvents"] if "ts" in one)
    assert last_us == round(1e6 * run.result["makespan_s"])


def test_slices_of_segments_hold_the_gpu_seconds_of_the_ledger(trace, made):
    run = RecordedRun.read(made.run)
    slices = [one for one in trace["traceEvents"] if one.get("cat") == "segment"]
    held_gpu_s = sum(
        run.result["ledger_gpu_s"][part] for part in ("training", "launch", "rescale", "checkpoint", "redone")
    )
    assert sum(one["dur"] for one in slices) / 1e6 == pytest.approx(held_gpu_s, abs=1e-3)
    instants = [one for one in trace["traceEvents"] if one["ph"] == "i"]
    assert [one["args"]["because"] for one in instants] == [one.happened for one in run.decisions]


def test_the_trace_of_only_a_run_is_asked_for(made):
    refused = elastune("report", made.root / "choice", "-o", made.root / "x.html", "--perfetto", "t.json", code=2)
    assert "holds a recommendation, but what it writes is of one run" in refused.stderr


def test_a_segment_that_never_told_has_a_slice_without_parts(made):
    run = RecordedRun.read(made.run)
    run.timeline.segments.loc[:, ["launch_s", "train_s", "checkpoint_s"]] = float("nan")
    assert not [one for one in trace_of(run.timeline, [])["traceEvents"] if one.get("cat") == "part"]
