"""Whole real runs, from the command line to their journals."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from elastune.experiments.real.options import RealRunOptions
from elastune.experiments.real.run import cut_torn_line, execute_real, resume_real
from elastune.experiments.runs.replay import replay_journal
from elastune.experiments.spec.run import RunSpec
from elastune.sim.control.journal import read_entries
from elastune.sim.model.commands import StartSegment
from elastune.sim.model.errors import InfeasibleJobError, InputError
from elastune.sim.model.events import InstanceGone, Outcome, SegmentEnded, TrialSampled
from tests.bridge.chaos import ELASTUNE
from tests.bridge.record import JOURNALS, job

RECORDED = sorted(JOURNALS.glob("*.jsonl"))


def small(**sections):
    """Four configurations for three iterations, on two machines of one slot; emulated, the limits allow for a slow host."""
    spec = job("sha-fixed", "digits-mlp", 40_000)
    spec["job"] |= {"trials": 4, "max_iterations": 3, "budget_usd": 100}
    for section, keys in sections.items():
        spec[section] = keys if section == "policy" else spec[section] | keys
    return RunSpec.of(**spec)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_what_was_recorded_on_real_workers_is_decided_again(path):
    entries, is_complete = replay_journal(path)
    assert entries > 20
    assert is_complete


def test_recorded_are_both_planners_on_both_workloads_gangs_of_two_a_killed_node_and_a_resumed_driver():
    names = {path.stem for path in RECORDED}
    for policy in ("seer", "rubberband"):
        for workload in ("digits-mlp", "mnist5k-cnn"):
            assert any(name.startswith(f"{policy}-{workload}") for name in names)
    sizes, lost, cut = set(), 0, 0
    for path in RECORDED:
        for entry in read_entries(path):
            sizes |= {sum(n for _, n in one.placement) for one in entry.commands if isinstance(one, StartSegment)}
            lost += isinstance(entry.event, InstanceGone) and entry.event.cause == "lost"
            cut += isinstance(entry.event, SegmentEnded) and entry.event.outcome is Outcome.INSTANCE_GONE
    assert sizes >= {1, 2}
    assert lost >= 2
    assert cut >= 2


@pytest.mark.usefixtures("runs_share")
def test_population_based_training_clones_on_real_workers(tmp_path):
    spec = small(policy={"name": "pbt", "interval": 1, "quantile": 0.25}, job={"trials": 4, "max_iterations": 2})
    result = execute_real(spec, tmp_path / "run", RealRunOptions(speed=20.0))
    entries = list(read_entries(tmp_path / "run" / "journal.jsonl"))
    clones = [one for entry in entries for one in entry.actions if type(one).__name__ == "CloneTrial"]
    started = [one for entry in entries for one in entry.commands if isinstance(one, StartSegment)]
    restored = [one for one in started if one.restore_from not in (None, one.trial)]
    assert clones
    assert restored
    assert restored[0].configuration == clones[0].configuration
    assert result.run.best_config is not None
    assert replay_journal(tmp_path / "run" / "journal.jsonl") == (len(entries), True)


@pytest.mark.usefixtures("runs_share")
def test_a_sampler_proposes_and_a_replay_needs_none(tmp_path):
    spec = small(workload={"configurations": "tpe"})
    result = execute_real(spec, tmp_path / "run", RealRunOptions(speed=20.0))
    entries = list(read_entries(tmp_path / "run" / "journal.jsonl"))
    sampled = [entry.event for entry in entries if isinstance(entry.event, TrialSampled)]
    assert [one.trial for one in sampled] == [0, 1, 2, 3]
    assert result.run.best_config == sampled[result.run.best_trial].configuration
    assert result.run.regret is None, "the bundle does not know these configurations"
    assert replay_journal(tmp_path / "run" / "journal.jsonl")[1]


@pytest.mark.usefixtures("runs_share")
def test_an_injected_start_up_is_waited_for_and_a_finished_run_is_only_told_of_again(tmp_path):
    spec = small(cloud={"startup": {"queue_s": 20, "init_s": 30}})
    result = execute_real(spec, tmp_path / "run", RealRunOptions(speed=20.0, injects=True))
    assert result.run.makespan_s > 50
    assert result.run.ledger_gpu_s["startup"] >= 30
    before, told = (tmp_path / "run" / "journal.jsonl").read_bytes(), result.write().read_bytes()
    again = resume_real(tmp_path / "run")
    assert again.write().read_bytes() == told, "what controlling the run took is known to the driver that ran it alone"
    assert (again.run.cost_usd, again.run.score) == (result.run.cost_usd, result.run.score)
    assert (tmp_path / "run" / "journal.jsonl").read_bytes() == before


def test_what_cannot_run_for_real_is_told_before_anything_is_written(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(InputError, match=r"allows 64 x 1 slots, but this machine has \d+ CPU cores"):
        execute_real(small(cloud={"max_instances": 64}), folder, RealRunOptions())
    with pytest.raises(InputError, match=r"no CUDA device|but this machine has"):
        execute_real(small(cloud={"max_instances": 64}), folder, RealRunOptions(device="cuda"))
    with pytest.raises(InfeasibleJobError, match="sha-fixed"):
        execute_real(small(job={"deadline_s": 2, "exact": True}), folder, RealRunOptions(speed=1.0))
    with pytest.raises(InputError, match="above 0"):
        RealRunOptions(speed=0.0)
    assert not folder.exists()


def test_a_folder_that_holds_a_run_is_gone_on_with_or_left_alone(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copyfile(RECORDED[0], folder / "journal.jsonl")
    (folder / "kind.txt").write_text("real run\n")
    with pytest.raises(InputError, match="holds a run already: resume it"):
        execute_real(small(), folder, RealRunOptions(speed=1.0))
    with pytest.raises(InputError, match="there is no real run in this folder"):
        resume_real(tmp_path)


def test_a_line_that_was_not_written_to_its_end_is_cut(tmp_path):
    journal = tmp_path / "journal.jsonl"
    whole = RECORDED[0].read_bytes()
    journal.write_bytes(whole + b'{"type":"Entry","event":{"type":"Tim')
    cut_torn_line(journal)
    assert journal.read_bytes() == whole
    journal.write_bytes(b'{"type":"Hea')
    with pytest.raises(InputError, match="died before the first event"):
        cut_torn_line(journal)


def test_options_that_do_not_go_together_are_refused(tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(small().to_dict()))

    def said(*arguments):
        done = subprocess.run([*ELASTUNE, "run", *map(str, arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        return done.stderr

    assert "--emulate: not here, as this run is simulated" in said(spec, "--emulate", 5)
    assert "--seed: not here" in said("--on", "ray", "--resume", tmp_path, "--seed", 0)
    assert "--device: not here" in said("--resume", tmp_path, "--device", "cpu")
    assert "SPEC: not here" in said(spec, "--on", "ray", "--resume", tmp_path)
    assert "--journal: not here" in said(spec, "--on", "ray", "--journal", "x")
    assert "name the YAML file" in said("--on", "ray")


def test_the_command_line_shows_a_real_run(tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(small().to_dict()))
    command = [*ELASTUNE, "run", str(spec), "--on", "ray", "--emulate", "20", "-o", str(tmp_path / "out"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["real"]["events"] > 5
    assert result["deadline_met"]
    assert "machines" in done.stderr
    kept = {path.name for path in Path(tmp_path / "out").iterdir()}
    assert {"spec.yaml", "real.json", "journal.jsonl", "result.json", "checkpoints"} <= kept
