"""The Ray Tune adapter on a real cluster of two CPU slots, each run in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from elastune.experiments.runs.journals import header_of
from elastune.experiments.runs.replay import ledger_of, replay_journal
from elastune.sim.control.journal import read_entries
from elastune.sim.model.events import SegmentEnded

pytest.importorskip("ray", reason="Ray Tune needs the tune extra")

ROOT = Path(__file__).parents[2]
OWN = f"{ROOT / 'docs' / 'examples' / 'median_stopping.py'}:MedianStopping"
LATE_S = 30.0


def last_line(script, *arguments):
    """What a script prints at last."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / ".links"), str(ROOT)])}
    ended = subprocess.run(  # noqa: PLW1510  looked at below
        [sys.executable, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=900,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def asha():
    # Ray keeps sockets in there, whose paths must be short: pytest's own folders are too deep.
    with tempfile.TemporaryDirectory(prefix="et-") as folder:
        yield last_line(Path(__file__).with_name("tune_on_a_cluster.py"), folder), Path(folder, "journal.jsonl")


@pytest.mark.slow
def test_asha_finds_the_best_configuration_though_its_worker_dies(asha):
    answer, _ = asha
    assert answer["config"]["rank"] == 0
    assert (answer["metrics"]["epoch"], answer["metrics"]["loss"]) == (4, 0.25)


@pytest.mark.slow
def test_the_journal_of_a_run_under_tune_replays_and_its_ledger_adds_up(asha):
    answer, journal = asha
    assert replay_journal(journal)[1]
    assert sum(ledger_of(journal).usd.values()) == pytest.approx(answer["cost_usd"])


@pytest.mark.slow
def test_a_trial_whose_worker_died_went_on_from_its_checkpoint(asha):
    ends = [entry.event for entry in read_entries(asha[1]) if isinstance(entry.event, SegmentEnded)]
    failed = next(end for end in ends if end.outcome == "failed")
    assert (failed.trial, failed.iteration, failed.checkpoint_iteration) == (1, 1, 1)
    assert [end.checkpoint_iteration for end in ends if end.trial == 1] == [1, 1, 2, 4]


@pytest.mark.slow
def test_a_function_that_saves_nothing_is_refused_with_what_to_do(asha):
    assert "has no checkpoint: policies pause trials" in asha[0]["refusal"]
    assert "tune.report(metrics, checkpoint=...)" in asha[0]["refusal"]


@pytest.mark.slow
def test_a_gang_of_two_has_two_cpus_and_knows_it(asha):
    assert asha[0]["seen"]["CPU"] == 2.0


@pytest.mark.slow
def test_a_policy_of_ones_own_stops_trials_under_tune_as_its_rule_says(asha):
    answer, journal = asha[0]["own"], asha[1].with_name("own.jsonl")
    assert answer["rank"] == 0
    ends = {entry.event.trial: entry.event for entry in read_entries(journal) if isinstance(entry.event, SegmentEnded)}
    # The worse two begin when the better two have ended, and are behind the median of these after one epoch.
    assert [(ends[trial].outcome, ends[trial].iteration) for trial in (0, 1)] == [("completed", 4)] * 2
    assert all(ends[trial].outcome == "ended" and ends[trial].iteration < 4 for trial in (2, 3))
    assert header_of(journal).spec["policy"]["name"] == OWN
    assert replay_journal(journal, policy=OWN)[1]
    assert sum(ledger_of(journal).usd.values()) == pytest.approx(answer["cost_usd"])


@pytest.mark.slow
def test_the_example_ends_with_its_best_configuration_within_its_limits():
    answer = last_line(ROOT / "docs" / "examples" / "ray_tune_seer.py")
    journal = Path(answer["journal"])
    assert answer["lr"] == 0.3
    # Tune looks at timers once per step of its loop, and a busy machine takes long for a step.
    assert answer["makespan_s"] <= 120.0 + LATE_S
    assert answer["cost_usd"] <= 0.30 + LATE_S * 2 * 3.6 / 3600
    assert replay_journal(journal)[1]
