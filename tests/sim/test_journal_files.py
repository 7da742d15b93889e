from __future__ import annotations

import io
import typing

import msgspec
import pytest

from elastune.sim.control.controller import Controller
from elastune.sim.control.journal import Entry, Header, JournalWriter, read_entries, read_header, replay
from elastune.sim.model import actions, commands, events
from elastune.sim.model.actions import FinishRun, PauseTrial, RunTrial, ScaleTo, SetTimer, StopTrial
from elastune.sim.model.errors import InvalidJournalError, ReplayError

HEADER = Header(spec={"policy": "script"}, digest="d", versions={"elastune": "0"}, data_sha256={"tiny": "s"})
EVENTS = [
    events.RunStarted(0.0),
    events.InstanceLaunched(1.0, 0),
    events.InstanceBooted(1.5, 0),
    events.InstanceReady(2.0, 0),
    events.InstanceRefused(3.0, 1, "no capacity"),
    events.ReclaimNoticed(4.0, 0, 124.0),
    events.InstanceGone(5.0, 0, events.GoneCause.RECLAIMED),
    events.ProgressReported(6.1, 3, 2, 9, None),
    events.SegmentEnded(0.1 + 0.2, 3, 2, 9, 8, 1 / 3, events.Outcome.INSTANCE_GONE, 1.0, 2.0, 3.0),
    events.TrialSampled(8.0, 4, {"lr": 1e-3, "layers": 3, "optimizer": "sgd", "nesterov": True, "decay": None}),
    events.TimerFired(9.0, "barrier"),
]
ACTIONS = [
    actions.ScaleTo(3),
    actions.ScaleTo(3, "m", "spot"),
    actions.RunTrial(1, 4, 27, 3),
    actions.PauseTrial(1),
    actions.StopTrial(1),
    actions.CloneTrial(1, 2, {"lr": 0.1}),
    actions.SetTimer("barrier", 12.5),
    actions.FinishRun(None),
    actions.FinishRun(4),
]
COMMANDS = [
    commands.ProvisionInstance(0, "m", "on-demand"),
    commands.ReleaseInstance(0),
    commands.StartSegment(5, 1, ((0, 4), (2, 1)), 3, 27, 1, 9, 1, {"lr": 0.1}),
    commands.StartSegment(5, 1, ((0, 4),), 0, 27),
    commands.EndSegment(5),
    commands.StartTimer("barrier", 12.5),
]


def test_the_lists_above_name_every_event_action_and_order():
    for known, union in ((EVENTS, events.Event), (ACTIONS, actions.Action), (COMMANDS, commands.Command)):
        assert {type(one) for one in known} == set(typing.get_args(union))


def written(tmp_path, entries, header=HEADER):
    path = tmp_path / "journal.jsonl"
    with path.open("wb") as stream:
        writer = JournalWriter(stream, header)
        for entry in entries:
            writer.write(entry)
    return path


def test_every_event_action_and_order_comes_back_as_it_was_written(tmp_path):
    entries = [Entry(event, ACTIONS, COMMANDS) for event in EVENTS] + [
        Entry(EVENTS[0], status="stale"),
        Entry(EVENTS[1], status="drained"),
    ]
    path = written(tmp_path, entries)
    assert read_header(path) == HEADER
    assert list(read_entries(path)) == entries


def test_a_line_is_compact_and_leaves_out_what_is_empty():
    stream = io.BytesIO()
    JournalWriter(stream).write(Entry(events.TimerFired(9.0, "barrier")))
    assert stream.getvalue() == b'{"type":"Entry","event":{"type":"TimerFired","at_s":9.0,"tag":"barrier"}}\n'


def test_a_real_run_flushes_each_line():
    class Counting(io.BytesIO):
        flushes = 0

        def flush(self):
            self.flushes += 1

    for flush_each, expected in ((True, 2), (False, 0)):
        stream = Counting()
        writer = JournalWriter(stream, flush_each=flush_each)
        writer.write(Entry(EVENTS[0]))
        writer.write(Entry(EVENTS[1]))
        assert stream.flushes == expected


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        (b"", "is empty, but must hold the header of a journal"),
        (b"{}\n", "not the header of a journal"),
        (b"not json\n", "not the header of a journal"),
        (b'{"type":"Entry"}\n', "not the header of a journal"),
    ],
)
def test_a_file_without_a_header_is_not_a_journal(tmp_path, first, problem):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(first)
    with pytest.raises(InvalidJournalError, match=rf"journal\.jsonl, line 1: {problem}"):
        read_header(path)
    with pytest.raises(InvalidJournalError, match="line 1"):
        list(read_entries(path))


def test_a_journal_of_another_format_is_refused(tmp_path):
    path = written(tmp_path, [], msgspec.structs.replace(HEADER, format=99))
    with pytest.raises(
        InvalidJournalError, match=r"journal\.jsonl, line 1: journal format 99; this version reads format 1"
    ):
        read_header(path)


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b'{"type":"Entry","event":{"type":"TimerFired","at_s":1.0,"tag":"\xe0"}}',
        b"\n",
        b'{"type":"Entry","event":{"type":"SomethingElse","at_s":1.0}}',
        b'{"type":"Entry","event":{"type":"TimerFired","at_s":"soon","tag":"a"}}',
        b'{"type":"Entry","event":{"type":"TimerFired","at_s":1.0,"tag":"a"},"status":"odd"}',
    ],
)
def test_a_malformed_line_is_named_by_its_number(tmp_path, line):
    path = written(tmp_path, [Entry(EVENTS[0])])
    with path.open("ab") as stream:
        stream.write(line)
    with pytest.raises(InvalidJournalError, match=r"journal\.jsonl, line 3: not an entry of a journal"):
        list(read_entries(path))


ANSWERS = {
    "start": [ScaleTo(1), RunTrial(0, 1, 3), RunTrial(1, 1, 3), SetTimer("p", 12)],
    "timer p": [PauseTrial(1), StopTrial(0)],
    "ended 1": [FinishRun(1)],
}


@pytest.fixture
def replayed(script, simulate, world):
    """Records the run of ANSWERS, and replays it through a controller with other answers."""

    def build(answers, entries=None):
        tiny = world()
        recorded = simulate(ANSWERS).entries if entries is None else entries
        return replay(recorded, lambda sink: Controller(script(answers), tiny.job, tiny.book, name="script", sink=sink))

    return build


def test_a_recorded_journal_replays_entry_by_entry(replayed, simulate):
    assert replayed(ANSWERS) == len(simulate(ANSWERS).entries) == 7


def test_part_of_a_journal_replays_too(replayed, simulate):
    assert replayed(ANSWERS, simulate(ANSWERS).entries[:4]) == 4


def test_a_journal_read_back_from_its_file_replays(tmp_path, replayed, simulate):
    path = written(tmp_path, simulate(ANSWERS).entries)
    assert replayed(ANSWERS, read_entries(path)) == 7


def test_replay_names_the_first_entry_that_differs_with_both_versions(replayed):
    with pytest.raises(ReplayError) as error:
        replayed({**ANSWERS, "timer p": [PauseTrial(1)]})
    assert error.match(r"^entry 4 at 12\.000 s does not replay:\n  recorded Entry\(.*StopTrial\(trial=0\)")
    assert error.match(r"\n  replayed Entry\(event=TimerFired\(at_s=12, tag='p'\), actions=\[PauseTrial\(trial=1\)\]")


def test_replay_notices_other_orders_on_equal_actions(replayed, simulate):
    entries = simulate(ANSWERS).entries
    entries[0] = msgspec.structs.replace(entries[0], commands=entries[0].commands[:1])
    with pytest.raises(ReplayError, match=r"^entry 1 at 0\.000 s does not replay"):
        replayed(ANSWERS, entries)
