"""A journal that was edited is refused at the line of the edit, or it gives the answer that it gave before."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from pathlib import Path

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from elastune import RunSpec, execute
from elastune.experiments.runs.replay import ledger_of, replay_journal
from elastune.experiments.runs.timeline import timeline_of
from elastune.sim.model.errors import InputError, InvalidJournalError, ReplayError

SPECS = {
    "plain": {"policy": "sha-fixed"},
    "failing": {
        "policy": "asha-elastic",
        "cloud.faults": {"segment_failure_per_hour": 30, "instance_loss_per_hour": 20},
    },
    "spot": {
        "policy": "hyperband-fixed",
        "cloud.instance_type": {
            "name": "m",
            "price_usd_per_hour": 3,
            "spot_price_usd_per_hour": 1,
            "gpus_per_instance": 2,
        },
        "cloud.market": "spot",
        "cloud.spot": {"lifetime": {"mean_s": 300}, "notice_s": 30},
    },
    "functions": {"policy": "pasha-fixed", "cloud.billing": {"model": "per-function"}},
}
BASE = {
    "job": {"trials": 4, "max_iterations": 9, "deadline_s": 3600, "budget_usd": 20},
    "workload": {"bundle": "digits-mlp", "scaling": "linear", "iteration_s": 10},
    "cloud": {"instance_type": {"name": "m", "price_usd_per_hour": 3.6, "gpus_per_instance": 2}, "rescale_s": 1},
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """For each spec the lines of its journal, and what its ledger adds up to."""
    folder = tmp_path_factory.mktemp("recorded")
    journals = {}
    for name, changes in SPECS.items():
        path = folder / f"{name}.jsonl"
        cloud = BASE["cloud"] | {key[6:]: value for key, value in changes.items() if key.startswith("cloud.")}
        execute(RunSpec.of(**{**BASE, "cloud": cloud, "policy": changes["policy"]}), journal=path)
        journals[name] = path.read_bytes().splitlines(keepends=True), math.fsum(ledger_of(path).usd.values())
    return journals


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "journal.jsonl"


def verdict(path, lines):
    """The total of the ledger, or the error; nothing else may come out of any reader."""
    path.write_bytes(b"".join(lines))
    for read in (timeline_of, replay_journal):
        with suppress(InputError, ReplayError):
            read(path)
    try:
        ledger = ledger_of(path)
    except InputError as error:
        return error
    parts = {**ledger.usd, **{f"{part} gpu_s": seconds for part, seconds in ledger.gpu_s.items()}}
    assert all(math.isfinite(amount) for amount in parts.values())
    assert min(amount for part, amount in parts.items() if part != "rounding") >= -1e-9, parts
    return math.fsum(ledger.usd.values())


def edited(lines, kind, at, other):
    """The lines after an edit, and the first line (from 1) at which they differ."""
    lines = list(lines)
    if kind == "missing":
        del lines[at]
    elif kind == "doubled":
        lines.insert(at, lines[at])
        at += 1
    elif kind == "swapped":
        at, other = min(at, other), max(at, other)
        lines[at], lines[other] = lines[other], lines[at]
    else:
        lines[-1] = lines[-1][: -1 - at]
        at = len(lines) - 1
    return lines, at + 1


@settings(max_examples=examples(250))
@given(
    st.sampled_from(sorted(SPECS)),
    st.sampled_from(["missing", "doubled", "swapped", "torn"]),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1, exclude_max=True),
)
def test_a_line_that_is_missing_doubled_swapped_or_torn_is_named_or_changes_no_bill(
    recorded, damaged, name, kind, at, other
):
    lines, usd = recorded[name]
    changed, first = edited(lines, kind, int(at * len(lines)), int(other * len(lines)))
    answer = verdict(damaged, changed)
    if isinstance(answer, float):
        assert answer == pytest.approx(usd)
    else:
        assert isinstance(answer, InvalidJournalError)
        # Removed lines may only show later, at the next line that cannot follow.
        assert first <= answer.line + (kind == "missing"), str(answer)


@settings(max_examples=examples(250))
@given(
    st.sampled_from(sorted(SPECS)),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([b"0", b"1", b"-1", b"0.5", b"99", b"1e300", b"-0.0", b"9223372036854775808", b"12.25"]),
)
def test_an_edited_number_is_named_or_the_ledger_still_adds_up(recorded, damaged, name, line, place, number):
    lines = list(recorded[name][0])
    at = int(line * len(lines))
    found = list(re.finditer(rb"(?<=[:\[,])-?\d+(\.\d+)?(e[+-]?\d+)?", lines[at]))
    if found:
        match = found[int(place * len(found))]
        lines[at] = lines[at][: match.start()] + number + lines[at][match.end() :]
    verdict(damaged, lines)


def test_every_missing_line_of_a_plain_journal_that_carries_a_decision_is_named(recorded, damaged):
    lines, _ = recorded["plain"]
    for at in range(1, len(lines)):
        entry = json.loads(lines[at])
        if "commands" in entry or entry["event"]["type"] in ("InstanceGone", "SegmentEnded", "InstanceLaunched"):
            answer = verdict(damaged, lines[:at] + lines[at + 1 :])
            assert isinstance(answer, InvalidJournalError), (at + 1, entry)


def test_the_header_of_another_run_is_refused(recorded, damaged):
    lines, foreign = recorded["plain"][0], recorded["spot"][0]
    answer = verdict(damaged, [foreign[0], *lines[1:]])
    assert str(answer).endswith("line 2: no ScaleTo asks for machine 0, m on-demand, under this header")
    header = json.loads(lines[0])
    header["spec"]["seed"] = 99
    answer = verdict(damaged, [json.dumps(header).encode() + b"\n", *lines[1:]])
    assert "line 1: its header was changed" in str(answer)


def test_a_message_says_what_cannot_follow(recorded, damaged):
    lines, _ = recorded["plain"]
    answer = verdict(damaged, [*lines, lines[-1]])
    assert str(answer) == f"{damaged}, line {len(lines) + 1}: machine 0 is gone"
    assert Path(answer.file) == damaged
