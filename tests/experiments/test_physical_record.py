"""Placements of a made physical cluster, replayed in the simulated world."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from elastune.experiments.cli.app import app
from elastune.experiments.fidelity.physical_record import load_physical
from elastune.experiments.fidelity.physical_replay import learned_speeds, replay_physical
from elastune.experiments.fidelity.physical_report import physical_report
from elastune.sim.model.errors import InputError

ROUNDS = 40
FIRST_S, PERIOD_S = 50.0, 130.0
SPEED = 0.8  # of the real machines, over that of the profile
JOBS = {0: (0.0, 1, 6.5), 1: (0.0, 2, 12.25), 2: (400.0, 1, 20.5)}
"""(arrival, GPUs, rounds of 120 s that its training takes), each job on workers of its own, one lease a round."""


def begins(arrival_s):
    return next(number for number in range(ROUNDS) if FIRST_S + number * PERIOD_S >= arrival_s)


def record_in(folder, *, speed=SPEED):
    """A cluster where each job trains 120 s in each round, at this share of the profile's 10 steps of 4 samples a second."""
    folder.mkdir(exist_ok=True)
    jobs, placements, throughput = [], [], []
    for policy in ("fair", "fast"):
        for number, (arrival_s, gpus, rounds) in JOBS.items():
            first, whole = begins(arrival_s), int(rounds)
            end_s = FIRST_S + (first + whole) * PERIOD_S + (rounds - whole) * 120
            jobs.append({
                "run": policy, "kind": "physical", "job": number, "arrival_s": arrival_s, "gpus": gpus, "model": "net",
                "batch_size": 4, "total_steps": round(10 * gpus * speed * rounds * 120), "jct_s": end_s - arrival_s,
                "end_s": end_s, "service_s": rounds * 120,
            })  # fmt: skip
            for at in range(first, first + whole + 1):
                common = {"run": policy, "kind": "physical", "round": at, "job": number}
                placements += [{**common, "worker": 2 * number + worker} for worker in range(gpus)]
                measured = {**common, "round": at + 1, "steps_per_s": 10.0 * gpus * speed, "batch_size": 4}
                throughput.append(measured)
    rounds = [
        {"run": policy, "kind": "physical", "round": at, "round_s": FIRST_S + at * PERIOD_S}
        for policy in ("fair", "fast")
        for at in range(ROUNDS)
    ]
    last_s = max(job["end_s"] for job in jobs)
    runs = [{"run": policy, "kind": "physical", "makespan_s": last_s} for policy in ("fair", "fast")]
    profile = [{"model": "net", "batch_size": 4, "gpus": gpus, "steps_per_s": 10.0 * gpus} for gpus in (1, 2)]
    for name, rows in {"jobs": jobs, "placements": placements, "throughput": throughput}.items():
        pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet")
    for name, rows in {"rounds": rounds, "runs": runs, "profile": profile}.items():
        pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture
def record(tmp_path):
    return record_in(tmp_path / "record")


def test_with_measured_speeds_every_job_ends_when_it_did(record):
    [run, _], profile = load_physical(record)
    ours = replay_physical(run, profile, "measured", learned_speeds(run, profile))
    # A part of a job is at most 0.25 s long, and a round ends with one.
    assert ours.jct_s == pytest.approx(run.real.jct_s, abs=8)
    assert ours.service_s == pytest.approx(run.real.service_s, abs=8)
    assert ours.makespan_s == pytest.approx(run.real.makespan_s, abs=8)


def test_the_wait_before_the_first_round_is_in_no_completion_time(record):
    [run, _], _ = load_physical(record)
    assert run.real.jct_s[0] == pytest.approx(6 * PERIOD_S + 60)
    assert run.real.makespan_s == pytest.approx(pd.read_csv(record / "runs.csv")["makespan_s"][0] - FIRST_S)


def test_the_first_tenth_of_a_run_tells_its_speed_and_the_profile_alone_does_not(record):
    [run, _], profile = load_physical(record)
    speeds = learned_speeds(run, profile)
    assert speeds.overall == pytest.approx(SPEED, rel=0.02)
    assert speeds.period_s == pytest.approx(PERIOD_S)
    learned, told = (replay_physical(run, profile, mode, speeds) for mode in ("learned", "profile"))
    assert learned.jct_s == pytest.approx(run.real.jct_s, rel=0.03)
    assert told.jct_s[2] < 0.85 * run.real.jct_s[2]


def test_a_job_that_is_slower_here_goes_on_after_its_recorded_rounds(tmp_path):
    [run, _], profile = load_physical(record_in(tmp_path / "slow", speed=2.0))
    slow = replay_physical(run, profile, "profile", learned_speeds(run, profile))
    assert slow.service_s[2] == pytest.approx(2 * run.real.service_s[2], rel=0.02)


def test_the_report_has_each_run_by_each_speed(record):
    rows, orders = physical_report(record, draws=4)
    assert [(row.run, row.by) for row in rows] == [
        (run, by) for run in ("fair", "fast") for by in ("profile", "learned", "measured")
    ]
    assert 0 <= rows[1].coverage <= 1
    assert {one.by for one in orders} == {"profile", "learned", "measured"}
    said = CliRunner().invoke(app, ["fidelity", "--physical", str(record), "--json"])
    assert said.exit_code == 0, said.output
    assert len(json.loads(said.stdout)["runs"]) == 6
    assert "neither tuning nor bills" in CliRunner().invoke(app, ["fidelity", "--physical", str(record)]).output


def _change(record, name, change):
    path = record / name
    table = pd.read_parquet(path)
    change(table).to_parquet(path)


def test_a_job_that_never_ends_is_named(record):
    _change(record, "jobs.parquet", lambda jobs: jobs.assign(jct_s=jobs["jct_s"].where(jobs["job"] != 1)))
    with pytest.raises(InputError, match=r"jobs.parquet: job 1 of fair never ends: its jct_s is nan"):
        load_physical(record)


def test_what_a_record_lacks_is_named(record):
    _change(record, "placements.parquet", lambda rows: rows[rows["job"] != 2])
    with pytest.raises(InputError, match=r"job 2 of fair was never placed"):
        load_physical(record)
    _change(record, "placements.parquet", lambda rows: rows.drop(columns="worker"))
    with pytest.raises(InputError, match=r"placements.parquet: column worker is missing"):
        load_physical(record)
    (record / "jobs.parquet").unlink()
    with pytest.raises(InputError, match=r"jobs.parquet is missing: a physical record is"):
        load_physical(record)
