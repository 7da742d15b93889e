"""From a journal to the tables of a Gantt chart and of trajectories, and the chart itself."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from test_execute import NOISY, noisy_spec
from test_sweep_spec import sweep_of

from elastune import execute
from elastune.experiments.figures import best_so_far, gantt, save
from elastune.experiments.figures.gantt import LEASE_COLUMNS, SEGMENT_COLUMNS, Slot, blocks_of, slots_of
from elastune.experiments.runs.timeline import timeline_of, trajectories_of
from elastune.experiments.runs.world import World
from elastune.experiments.sweeps.run import plan, run_sweep
from elastune.experiments.sweeps.store import Store, read_results
from elastune.sim.control.journal import Entry, JournalWriter
from elastune.sim.model.actions import FinishRun, ScaleTo
from elastune.sim.model.commands import ProvisionInstance, ReleaseInstance, StartSegment, StartTimer
from elastune.sim.model.errors import InputError
from elastune.sim.model.events import (
    GoneCause,
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    InstanceRefused,
    Outcome,
    RunStarted,
    SegmentEnded,
    TimerFired,
)


def ended(at_s, trial, segment, outcome=Outcome.COMPLETED, iteration=1, start_s=30.0):
    return SegmentEnded(
        at_s, trial=trial, segment=segment, iteration=iteration, checkpoint_iteration=iteration, score=0.5,
        outcome=outcome, launch_s=2.0, train_s=at_s - start_s - 3.0, checkpoint_s=1.0, lost_s=0.0,
    )  # fmt: skip


def started(segment, trial, *placement, until=1):
    return StartSegment(segment, trial, tuple(placement), from_iteration=0, until_iteration=until)


def machine(instance):
    return ProvisionInstance(instance, "inline", "on-demand")


TIMERS = [StartTimer("hurry", 60.0), StartTimer("end", 45.0)]
BY_HAND = [
    Entry(RunStarted(0.0), actions=[ScaleTo(4)], commands=[*map(machine, range(4)), *TIMERS]),
    Entry(InstanceRefused(1.0, 3, "quota")),
    Entry(InstanceLaunched(2.0, 0)),
    Entry(InstanceLaunched(3.0, 1)),
    Entry(InstanceReady(30.0, 0), commands=[started(0, 5, (0, 1)), started(1, 6, (0, 2))]),
    Entry(InstanceReady(32.0, 1), commands=[started(2, 7, (1, 4), (0, 1), until=3)]),
    # Lane 0 is free again and goes to the next gang.
    Entry(ended(40.0, 5, 0), commands=[started(3, 8, (0, 1))]),
    Entry(InstanceLaunched(41.0, 2)),
    Entry(ended(50.0, 7, 2, Outcome.INSTANCE_GONE, start_s=32.0)),
    Entry(InstanceGone(50.0, 1, GoneCause.LOST)),
    # Given back before it was ready; and with a gang on it, which is cut.
    Entry(TimerFired(60.0, "hurry"), commands=[ReleaseInstance(2), ReleaseInstance(0)]),
    Entry(ended(60.0, 6, 1, Outcome.ENDED)),
    Entry(ended(60.0, 8, 3, Outcome.ENDED, start_s=40.0)),
    Entry(InstanceGone(60.0, 2, GoneCause.RELEASED)),
    Entry(InstanceGone(62.0, 0, GoneCause.RELEASED)),
    Entry(TimerFired(70.0, "end"), actions=[FinishRun(5)]),
]


@pytest.fixture
def by_hand(tmp_path):
    path = tmp_path / "journal.jsonl"
    write(path, BY_HAND)
    return path


def write(path, entries):
    with path.open("wb") as stream:
        writer = JournalWriter(stream, World.of(noisy_spec(), NOISY).header())
        for entry in entries:
            writer.write(entry)


def test_segments_lie_on_the_lowest_free_gpus_of_their_machines(by_hand):
    found = timeline_of(by_hand).segments
    assert list(found.columns[:6]) == ["trial", "segment", "instance", "lane", "start_s", "end_s"]
    assert found[["segment", "instance", "lane"]].to_numpy().tolist() == [
        *([0, 0, 0], [1, 0, 1], [1, 0, 2]),
        *([2, 1, 0], [2, 1, 1], [2, 1, 2], [2, 1, 3], [2, 0, 3]),
        [3, 0, 0],
    ]
    by_segment = found.drop_duplicates("segment").set_index("segment")
    assert by_segment["start_s"].tolist() == [30.0, 30.0, 32.0, 40.0]
    assert by_segment["end_s"].tolist() == [40.0, 60.0, 50.0, 60.0]
    assert by_segment["outcome"].tolist() == ["completed", "ended", "instance_gone", "ended"]
    assert by_segment["until_iteration"].tolist() == [1, 1, 3, 1]
    assert by_segment["launch_s"].tolist() == [2.0, 2.0, 2.0, 2.0]


def test_leases_are_the_machines_that_were_launched(by_hand):
    found = timeline_of(by_hand)
    leases = found.leases
    assert leases["instance"].tolist() == [0, 1, 2]
    assert leases["gpus"].tolist() == [4, 4, 4]
    assert leases["launched_s"].tolist() == [2.0, 3.0, 41.0]
    assert leases["ready_s"].tolist()[:2] == [30.0, 32.0]
    assert math.isnan(leases["ready_s"][2])
    assert leases["end_s"].tolist() == [62.0, 50.0, 60.0]
    assert leases["cause"].tolist() == ["released", "lost", "released"]
    assert (found.best_trial, found.end_s, found.deadline_s, found.policy) == (5, 70.0, 4000.0, "seer")


def test_what_the_end_of_the_run_cuts_ends_with_it(tmp_path):
    path = tmp_path / "journal.jsonl"
    finish = Entry(TimerFired(45.0, "end"), actions=[FinishRun(None)], commands=[ReleaseInstance(n) for n in range(3)])
    late = [
        Entry(ended(48.0, 6, 1), status="drained"),
        Entry(ended(48.0, 7, 2, Outcome.ENDED, start_s=32.0), status="drained"),
        Entry(ended(48.0, 8, 3, start_s=40.0), status="drained"),
        *(Entry(InstanceGone(49.0, n, GoneCause.RELEASED), status="drained") for n in range(3)),
    ]
    write(path, [*BY_HAND[:7], finish, *late])
    found = timeline_of(path)
    assert found.segments.drop_duplicates("segment")["end_s"].tolist() == [40.0, 45.0, 45.0, 45.0]
    assert found.leases[["end_s", "cause"]].to_numpy().tolist() == [[45.0, "finished"]] * 2
    assert found.best_trial is None


def test_a_journal_without_an_end_is_refused(tmp_path, by_hand):
    path = tmp_path / "short.jsonl"
    write(path, BY_HAND[:-1])
    with pytest.raises(InputError, match=r"short\.jsonl, line 16: the journal ends before its run did"):
        timeline_of(path)
    with pytest.raises(InputError, match=r"absent\.jsonl: cannot be read: No such file"):
        timeline_of(tmp_path / "absent.jsonl")
    path.write_bytes(by_hand.read_bytes() + b"{}\n")
    with pytest.raises(InputError, match="line 18: not an entry of a journal"):
        timeline_of(path)


def test_no_gpu_is_held_twice_and_no_gang_without_its_machine(tmp_path):
    path = tmp_path / "journal.jsonl"
    result = execute(noisy_spec(), journal=path, bundle=NOISY, record_trajectory=True)
    found = timeline_of(path)
    segments, leases = found.segments, found.leases.set_index("instance")
    for _, lane in segments.groupby(["instance", "lane"]):
        ordered = lane.sort_values("start_s")
        assert (ordered["end_s"].to_numpy()[:-1] <= ordered["start_s"].to_numpy()[1:] + 1e-9).all()
    assert (segments["lane"] < leases.loc[segments["instance"], "gpus"].to_numpy()).all()
    assert (segments["start_s"] >= leases.loc[segments["instance"], "ready_s"].to_numpy()).all()
    assert (segments["end_s"] <= leases.loc[segments["instance"], "end_s"].to_numpy() + 1e-9).all()
    told = result.segments().set_index("segment")
    rows = segments.groupby("segment").size()
    assert rows.to_dict() == told.loc[rows.index, "gpus"].to_dict()
    assert found.best_trial == result.best_trial


def test_a_sweeps_journals_give_the_trajectories_of_its_runs(tmp_path):
    document = {"policy": ["sha-fixed", "asha-fixed"], "job.deadline_s": [300, 900]}
    sweep = sweep_of(axes=document, seeds=1)
    run_sweep(plan(sweep, tmp_path), tmp_path, jobs=1, with_journals=True)
    results = read_results(tmp_path)
    table = trajectories_of(tmp_path, results, keep=["job.deadline_s"])
    assert table.groupby(["policy", "job.deadline_s"]).ngroups == 3  # one of the four finds no plan
    for cell in sweep.cells():
        spec = cell.spec.with_seed(3)
        mine = table[(table["policy"] == spec.policy.label) & (table["deadline_s"] == spec.job.deadline_s)]
        if mine.empty:
            continue
        expected = execute(spec, record_trajectory=True).trajectory()
        pd.testing.assert_frame_equal(mine[list(expected.columns)].reset_index(drop=True), expected)
        assert set(mine["direction"]) == {"maximize"}
    assert best_so_far(table[table["deadline_s"] == 900]).axes[0].get_xlabel() == "time (min)"
    path = next(iter(sorted(Store(tmp_path).journals.glob("*.zst"))))
    assert timeline_of(path).policy in ("sha-fixed", "asha-fixed")  # as it is, compressed
    path.unlink()
    with pytest.raises(InputError, match=r"is not there; `elastune sweep FILE -o .* --journals` keeps journals"):
        trajectories_of(tmp_path, results, keep=["job.deadline_s"])
    with pytest.raises(InputError, match="several runs of sha-fixed, seed 3: ask for a part of the rows"):
        trajectories_of(tmp_path, results)
    with pytest.raises(InputError, match="none of the 1 rows asked for is a run that is done"):
        trajectories_of(tmp_path, results[results["status"] == "infeasible"])


def tables(by_hand):
    found = timeline_of(by_hand)
    return found.segments, found.leases


def labelled(artists, label):
    return [artist for artist in artists if artist.get_label() == label]


def boxes(axes, label):
    """(left, right, top, bottom) of each rectangle."""
    (collection,) = labelled(axes.collections, label)
    corners = [path.vertices for path in collection.get_paths()]
    return [(*(box[:, 0].min(), box[:, 0].max()), *(box[:, 1].min(), box[:, 1].max())) for box in corners]


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_machines_one_after_the_other_share_their_rows(by_hand):
    _, leases = tables(by_hand)
    assert slots_of(leases, "gantt") == {0: Slot(0, 4), 1: Slot(4, 4), 2: Slot(8, 4)}
    later = leases.assign(launched_s=[2.0, 3.0, 51.0])
    assert slots_of(later, "gantt") == {0: Slot(0, 4), 1: Slot(4, 4), 2: Slot(4, 4)}
    smaller = later.assign(gpus=[4, 4, 2])
    assert slots_of(smaller, "gantt")[2] == Slot(8, 2)


def test_a_segment_is_a_block_per_stretch_of_neighbouring_gpus(by_hand):
    segments, leases = tables(by_hand)
    blocks = blocks_of(segments, slots_of(leases, "gantt"))
    assert [(block.trial, block.first, block.gpus) for block in blocks] == [
        *((5, 0, 1), (6, 1, 2), (7, 4, 4), (7, 3, 1), (8, 0, 1)),
    ]
    apart = segments[(segments["segment"] == 2) & (segments["instance"] == 1) & (segments["lane"] != 1)]
    assert [(block.first, block.gpus) for block in blocks_of(apart, slots_of(leases, "gantt"))] == [(4, 1), (6, 2)]
    assert [block.is_lost for block in blocks] == [False, False, True, True, False]
    assert [block.trains_from_s for block in blocks] == [32.0, 32.0, 34.0, 34.0, 42.0]


def test_the_chart_shows_booting_idle_and_training_with_the_answer_framed(by_hand):
    segments, leases = tables(by_hand)
    figure = gantt(segments, leases, deadline_s=100.0, best_trial=5)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "time (s)"
    assert axes.get_ylabel() == "machines\n(4 GPUs)"
    assert axes.get_ylim() == (12, 0)
    assert axes.get_xlim() == pytest.approx((0, 101))
    assert boxes(axes, "_booting") == [(2, 30, 0, 4), (3, 32, 4, 8), (41, 60, 8, 12)]
    assert boxes(axes, "_idle")[:2] == [(30, 62, 0, 4), (32, 50, 4, 8)]
    assert boxes(axes, "_segments") == [(30, 40, 0, 1), (30, 60, 1, 3), (32, 50, 4, 8), (32, 50, 3, 4), (40, 60, 0, 1)]
    assert boxes(axes, "_starting") == [
        *((30, 32, 0, 1), (30, 32, 1, 3), (32, 34, 4, 8), (32, 34, 3, 4), (40, 42, 0, 1)),
    ]
    assert boxes(axes, "_lost") == [(32, 50, 4, 8), (32, 50, 3, 4)]
    assert boxes(axes, "_best") == [(30, 40, 0, 1)]
    assert [line.get_xdata()[0] for line in labelled(axes.lines, "_limit")] == [100.0]
    assert sorted(text.get_text() for text in axes.texts) == ["5", "6", "7", "7", "8", "deadline 100 s"]
    assert legend_texts(figure) == [
        *("booting", "idle", "starting workers", "saving", "broken", "the answer, trial 5"),
        *("to iteration 1", "to iteration 3"),
    ]


def test_colours_are_rungs_or_trials(by_hand):
    segments, leases = tables(by_hand)
    (by_rung,) = labelled(gantt(segments, leases).axes[0].collections, "_segments")
    shades = by_rung.get_facecolor().tolist()
    assert shades[0] == shades[1] == shades[4] != shades[2]
    figure = gantt(segments, leases, color="trial")
    (by_trial,) = labelled(figure.axes[0].collections, "_segments")
    assert len({tuple(color) for color in by_trial.get_facecolor().tolist()}) == 4
    assert legend_texts(figure) == ["booting", "idle", "starting workers", "saving", "broken"]
    with pytest.raises(InputError, match="gantt: color is 'gpu', but must be rung or trial"):
        gantt(segments, leases, color="gpu")


def test_many_rungs_have_a_scale_and_many_machines_fit_on_a_page():
    numbers = range(512)
    leases = pd.DataFrame({"instance": range(64), "gpus": 8, "launched_s": 1.0, "ready_s": 50.0, "end_s": 700.0})
    segments = pd.DataFrame(
        {
            "trial": numbers,
            "segment": numbers,
            "instance": [number // 8 for number in numbers],
            "lane": [number % 8 for number in numbers],
            "start_s": 60.0,
            "end_s": 300.0,
            "launch_s": 10.0,
            "checkpoint_s": 0.0,
            "until_iteration": [number % 20 + 1 for number in numbers],
            "outcome": "completed",
        }
    )
    figure = gantt(segments, leases, deadline_s=5000.0)
    axes, bar = figure.axes
    assert figure.get_figheight() < 9.5
    assert bar.get_ylabel() == "trains to iteration"
    assert [text.get_text() for text in bar.get_yticklabels()] == ["1", "4", "7", "10", "13", "16", "19"]
    assert [text.get_text() for text in axes.texts] == ["deadline 83.33 min →"]
    assert legend_texts(figure) == ["booting", "idle", "starting workers"]


def test_a_run_that_never_trained_is_drawn(by_hand):
    segments, leases = tables(by_hand)
    figure = gantt(segments.head(0), leases)
    assert boxes(figure.axes[0], "_booting")
    with pytest.raises(InputError, match="gantt: the table has no rows"):
        gantt(segments, leases.head(0))
    for column in SEGMENT_COLUMNS:
        with pytest.raises(InputError, match=f"^gantt: no column {column} in the table"):
            gantt(segments.drop(columns=column), leases)
    for column in LEASE_COLUMNS:
        with pytest.raises(InputError, match=f"^gantt: no column {column} in the table"):
            gantt(segments, leases.drop(columns=column))


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_equal_timelines_give_equal_bytes(tmp_path, by_hand, suffix):
    first, again = (
        save(gantt(*tables(by_hand), deadline_s=100.0, best_trial=5), tmp_path / f"{name}{suffix}") for name in "ab"
    )
    assert first.read_bytes() == again.read_bytes()
