"""Running sweeps: what is done is skipped, nothing is lost or doubled, and what goes wrong is a row or a clear message."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from test_sweep_spec import BASE, sweep_of

from elastune import execute
from elastune.experiments.files import StoreError
from elastune.experiments.results_version import RESULTS_VERSION
from elastune.experiments.sweeps import run as sweep
from elastune.experiments.sweeps import worker as sweep_worker
from elastune.experiments.sweeps.run import plan, run_sweep
from elastune.experiments.sweeps.store import Store, read_results
from elastune.policies.registry import POLICIES, RegisteredPolicy
from elastune.sim.model.actions import RunTrial
from elastune.sim.model.errors import InputError, WorkerError

AXES = {"policy": ["sha-fixed", "asha-fixed"], "job.deadline_s": [300, 900]}


def run(spec, folder, **options):
    return run_sweep(plan(spec, folder), folder, **{"jobs": 1, **options})


def test_each_row_holds_what_run_prints_and_the_keys_of_its_spec(tmp_path):
    outcome = run(sweep_of(axes=AXES, seeds=2), tmp_path)
    assert (outcome.ran, outcome.skipped) == (8, 0)
    rows = {(row["policy"], row["job.deadline_s"], row["seed"]): row for row in Store(tmp_path).read().to_pylist()}
    assert len(rows) == 8
    for cell in sweep_of(axes=AXES).cells():
        for seed in (3, 4):
            row = rows[cell.spec.policy.label, cell.spec.job.deadline_s, seed]
            if row["status"] == "infeasible":
                continue
            told = execute(cell.spec.with_seed(seed)).to_json()
            assert {
                name: row[name] for name in ("score", "regret", "cost_usd", "makespan_s", "deadline_met", "digest")
            } == {name: told[name] for name in ("score", "regret", "cost_usd", "makespan_s", "deadline_met", "digest")}
            assert json.loads(row["best_config"]) == told["best_config"]
            for table in ("ledger_usd", "ledger_gpu_s", "placement", "provenance"):
                assert {part: row[f"{table}.{part}"] for part in told[table]} == told[table]
            assert (row["workload.bundle"], row["cloud.instance_type.name"], row["job.trials"]) == (
                *("mnist5k-cnn", "p3.8xlarge"),
                6,
            )


def test_infeasible_cells_are_rows_and_stop_nothing(tmp_path):
    outcome = run(sweep_of(axes=AXES, seeds=2), tmp_path)
    # ASHA on one GPU per trial needs 9 x 60 s for one configuration alone.
    assert outcome.counts == {"done": 6, "infeasible": 2, "failed": 0}
    rows = read_results(tmp_path)
    found = rows[rows["status"] == "infeasible"]
    assert list(zip(found["policy"], found["job.deadline_s"], strict=True)) == [("asha-fixed", 300)] * 2
    assert found["error"].str.contains("within a deadline of 300 s").all()
    assert found["cost_usd"].isna().all()


def test_processes_do_not_change_the_rows_and_share_the_bundle(tmp_path):
    for jobs, folder in ((1, "one"), (2, "two")):
        run(sweep_of(axes=AXES, seeds=2), tmp_path / folder, jobs=jobs)
    assert Store(tmp_path / "one").read().equals(Store(tmp_path / "two").read())
    assert not (tmp_path / "two" / ".shared").exists()


def test_a_shared_bundle_is_mapped_and_the_same(tmp_path):
    bundles = plan(sweep_of(), tmp_path).bundles
    with sweep_worker.shared_bundles(tmp_path, bundles, is_needed=True) as shared:
        mapped = sweep_worker.bundle_of("mnist5k-cnn", shared["mnist5k-cnn"], bundles["mnist5k-cnn"].sha256)
    assert type(mapped.scores) is np.ndarray
    assert isinstance(mapped.scores.base, np.memmap)
    np.testing.assert_array_equal(mapped.scores, bundles["mnist5k-cnn"].scores)
    assert mapped.configurations == bundles["mnist5k-cnn"].configurations


def test_what_is_done_is_skipped_and_a_sweep_may_grow(tmp_path):
    run(sweep_of(axes={"policy": ["sha-fixed"]}, seeds=2), tmp_path)
    assert run(sweep_of(axes={"policy": ["sha-fixed"]}, seeds=2), tmp_path).ran == 0
    before = read_results(tmp_path)
    grown = run(sweep_of(axes={"policy": ["asha-fixed", "sha-fixed"]}, seeds=3), tmp_path)
    assert (grown.ran, grown.skipped) == (4, 2)
    after = read_results(tmp_path)
    assert len(after) == 6
    assert after[after["key"].isin(before["key"])].reset_index(drop=True).equals(before)
    assert yaml.safe_load((tmp_path / "sweep.yaml").read_text())["seeds"] == [3, 4, 5]


def test_the_folder_of_another_sweep_or_version_is_left_alone(tmp_path, monkeypatch):
    run(sweep_of(seeds=2), tmp_path)
    parts = {part: part.read_bytes() for part in Store(tmp_path).parts()}
    with pytest.raises(
        InputError, match=r"1 of its 2 rows are of another sweep or of data that changed; they are kept"
    ):
        plan(sweep_of(seeds=1), tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(sweep, "RESULTS_VERSION", 7)
        with pytest.raises(
            InputError,
            match=rf"2 of its 2 rows are of another version of results \({RESULTS_VERSION}\), and this elastune",
        ):
            plan(sweep_of(seeds=2), tmp_path)
    assert {part: part.read_bytes() for part in Store(tmp_path).parts()} == parts
    (part,) = parts
    (tmp_path / "parts.sha256").unlink()  # as in folders from before there were digests
    pq.write_table(pq.read_table(part).drop_columns(["regret"]), part)
    with pytest.raises(InputError, match=r"rows of another version of elastune: without regret; use another folder"):
        plan(sweep_of(seeds=2), tmp_path)
    part.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"part-000000.parquet: cannot be read as parquet"):
        plan(sweep_of(seeds=2), tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "edited", "without a row"])
def test_a_damaged_part_is_named_and_its_runs_are_run_again(tmp_path, damage):
    run(sweep_of(seeds=3), tmp_path)
    whole = read_results(tmp_path)
    (part,) = Store(tmp_path).parts()
    checked = subprocess.run(["sha256sum", "-c", "parts.sha256"], cwd=tmp_path, capture_output=True, check=False)
    assert checked.stdout == b"runs/part-000000.parquet: OK\n"
    table = pq.read_table(part)
    if damage == "truncated":
        part.write_bytes(part.read_bytes()[:-100])
    elif damage == "edited":
        at = table.schema.get_field_index("cost_usd")
        pq.write_table(table.set_column(at, table.schema.field(at), [[0.0] * 3]), part)
    else:
        pq.write_table(table.slice(1), part)
    for read in (lambda: read_results(tmp_path), lambda: plan(sweep_of(seeds=3), tmp_path)):
        with pytest.raises(
            InputError, match=r"part-000000.parquet: is damaged, as it is not what was written; remove it"
        ):
            read()
    part.unlink()
    with pytest.raises(InputError, match=r"part-000000.parquet: was written, but is not there; sweep again into this"):
        read_results(tmp_path)
    assert run(sweep_of(seeds=3), tmp_path).ran == 3
    assert read_results(tmp_path).equals(whole)


def test_data_that_a_spec_names_is_part_of_the_key(tmp_path):
    table = tmp_path / "scaling.csv"
    keys = []
    for speedup in (1.7, 1.8):
        table.write_text(f"gpus,speedup\n1,1\n2,{speedup}\n4,2.5\n")
        planned = plan(sweep_of(axes={"workload.scaling": [str(table)]}), tmp_path / "out")
        keys.append([one.key for one in planned.runs])
    assert keys[0] != keys[1]


class _Broken:
    """Actions for what is impossible, as a first draft of a policy may."""

    def __init__(self, *_):
        pass

    def on_event(self, _event, _view):
        return (RunTrial(0, 99, 1),)


def test_failed_cells_are_reported_and_run_again_on_request_only(tmp_path, monkeypatch):
    spec_axes = {"policy": ["sha-fixed", "broken", "wrong"]}

    def wrong(*_):
        raise ZeroDivisionError("by a first draft")

    monkeypatch.setitem(POLICIES, "broken", RegisteredPolicy(_Broken, "for tests"))
    monkeypatch.setitem(POLICIES, "wrong", RegisteredPolicy(wrong, "for tests"))
    first = run(sweep_of(axes=spec_axes, seeds=2), tmp_path)
    assert first.counts == {"done": 2, "infeasible": 0, "failed": 4}
    assert [(one["policy"], one["seed"]) for one in first.failures] == [
        (p, s) for p in ("broken", "wrong") for s in (3, 4)
    ]
    assert "broken: RunTrial(trial=0, gpus=99" in first.failures[0]["error"]
    assert first.failures[2]["error"].startswith("ZeroDivisionError: by a first draft (test_sweep.py, line ")
    assert first.failures[2]["settings"] == {"policy": "wrong"}
    assert run(sweep_of(axes=spec_axes, seeds=2), tmp_path).ran == 0
    for name in ("broken", "wrong"):
        monkeypatch.setitem(POLICIES, name, POLICIES["asha-fixed"])
    again = run(sweep_of(axes=spec_axes, seeds=2), tmp_path, is_retrying=True)
    assert (again.ran, again.skipped, again.failures) == (4, 2, [])
    assert again.counts == {"done": 6, "infeasible": 0, "failed": 0}
    rows = read_results(tmp_path)
    assert len(rows) == rows["key"].nunique() == 6


def test_a_run_that_gains_nothing_any_more_is_a_failed_row_and_stops_nothing(tmp_path):
    job = {name: value for name, value in BASE["job"].items() if name not in ("deadline_s", "budget_usd")}
    base = {**BASE, "job": job, "cloud": {**BASE["cloud"], "faults": {"segment_failure_per_hour": 1}}}
    found = run(sweep_of(base=base, axes={"workload.iteration_s": [60, 86_400]}, seeds=1), tmp_path)
    assert found.counts == {"done": 1, "infeasible": 0, "failed": 1}
    (failure,) = found.failures
    assert failure["settings"] == {"workload.iteration_s": 86_400}
    assert "no progress is possible" in failure["error"]


def test_a_cell_that_does_not_fit_its_bundle_stops_before_anything_starts(tmp_path):
    with pytest.raises(
        InputError, match=r"cell job\.max_iterations=82: job longer than its curves: .*, bundle mnist5k-cnn has 27$"
    ):
        plan(sweep_of(axes={"job.max_iterations": [9, 82]}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_a_clear_message_and_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "PART_ROWS", 2)
    calls, write = [], pq.write_table

    def full(table, path, **options):
        calls.append(path)
        path.write_bytes(b"half a part")
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(table, path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(pq, "write_table", full)
        with pytest.raises(StoreError, match=r"cannot be written: No space left on device; what was finished is kept"):
            run(sweep_of(axes=AXES, seeds=2), tmp_path)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["part-000000.parquet"]
    assert run(sweep_of(axes=AXES, seeds=2), tmp_path).skipped == 2
    assert len(read_results(tmp_path)) == 8


def test_an_interrupt_while_a_part_is_written_doubles_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "PART_ROWS", 2)
    write = Store.write_part

    def interrupted(store, part, rows):
        write(store, part, rows)
        monkeypatch.setattr(Store, "write_part", write)
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "write_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(sweep_of(seeds=3), tmp_path)
    assert len(Store(tmp_path).known()) == 2
    assert run(sweep_of(seeds=3), tmp_path).ran == 1
    assert read_results(tmp_path)["seed"].nunique() == len(read_results(tmp_path)) == 3


def test_what_a_kill_left_half_written_is_ignored_and_removed(tmp_path):
    run(sweep_of(), tmp_path)
    torn = tmp_path / "runs" / ".part-000001.parquet.partial"
    torn.write_bytes(b"torn")
    assert len(read_results(tmp_path)) == 1
    run(sweep_of(seeds=2), tmp_path)
    assert not torn.exists()
    assert len(read_results(tmp_path)) == 2


def test_only_one_sweep_writes_to_a_folder(tmp_path):
    planned = plan(sweep_of(), tmp_path)
    with Store(tmp_path).writing(), pytest.raises(InputError, match="another sweep is writing to this folder"):
        run_sweep(planned, tmp_path, jobs=1)
    run(sweep_of(), tmp_path)
    with pytest.raises(InputError, match="another sweep wrote to this folder meanwhile"):
        run_sweep(planned, tmp_path, jobs=1)


def test_journals_are_those_of_the_runs_and_come_later_too(tmp_path):
    spec = sweep_of(axes=AXES, seeds=1)
    run(spec, tmp_path)
    rows = Store(tmp_path).read()
    assert run(spec, tmp_path, with_journals=True).ran == 3  # of the infeasible cell there is none
    assert Store(tmp_path).read().equals(rows)
    assert run(spec, tmp_path, with_journals=True).ran == 0
    for row in rows.to_pylist():
        if row["status"] == "done":
            (cell,) = (cell for cell in spec.cells() if cell.spec.digest() == row["digest"])
            execute(cell.spec, journal=tmp_path / "journal")
            with pa.CompressedInputStream(str(tmp_path / "journals" / f"{row['digest']}.jsonl.zst"), "zstd") as stream:
                assert stream.read() == (tmp_path / "journal").read_bytes()
    assert len(list((tmp_path / "journals").iterdir())) == 3


class _Deadly(sweep_worker.SweepTask):
    """Ends its process on one of the seeds, as the kernel does when memory runs out."""

    def __call__(self, run):
        if run.spec.seed == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(run)


@pytest.mark.slow
def test_a_worker_that_dies_is_told_and_what_was_done_is_kept(tmp_path, monkeypatch):
    spec = sweep_of(seeds=20)
    with monkeypatch.context() as patched:
        patched.setattr(sweep, "SweepTask", _Deadly)
        with pytest.raises(WorkerError, match=r"a process died, as when memory runs out; what was finished is kept"):
            run(spec, tmp_path, jobs=2)
    kept = len(Store(tmp_path).known())
    assert 0 < kept < 20
    assert run(spec, tmp_path, jobs=2).ran == 20 - kept
    run(spec, tmp_path / "undisturbed")
    assert Store(tmp_path).read().equals(Store(tmp_path / "undisturbed").read())


def test_ray_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"--ray auto: ray is not installed: pip install 'elastune\[bridge\]'"):
        run(sweep_of(), tmp_path, ray_address="auto")


# Slow enough to be caught in the middle: seer and rubberband plan. Parts are written often, so that some are there by then.
SLOW = {"policy": ["seer", "sha-fixed", "rubberband"], "job.deadline_s": [600, 900]}
SEEDS = 10
# Whoever runs the tests in the background may have Ctrl-C ignored, and children inherit that.
LISTENING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
COMMAND = (
    (
        f"{LISTENING}; import elastune.experiments.sweeps.run as sweep; sweep.PART_S = 0.05;"
        " from elastune.experiments.cli.app import main; main()"
    ),
    *("sweep", "sweep.yaml", "-o", "out", "--jobs", "2"),
)


@pytest.fixture
def started(tmp_path):
    """Starts the sweep as a process of its own and waits until some more of it is written."""
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"base": BASE, "axes": SLOW, "seeds": SEEDS}))

    def start():
        seen = len(Store(tmp_path / "out").parts())
        with (tmp_path / "stderr").open("w") as stderr:
            process = subprocess.Popen([sys.executable, "-c", *COMMAND], cwd=tmp_path, stderr=stderr)
        while len(Store(tmp_path / "out").parts()) <= seen and process.poll() is None:
            time.sleep(0.005)
        return process

    return start


@pytest.mark.slow
def test_killed_three_times_a_sweep_ends_with_the_same_table(tmp_path, started):
    moments, counts = random.Random(5), []
    for _ in range(3):
        process = started()
        time.sleep(moments.uniform(0, 0.2))
        process.kill()
        process.wait(timeout=240)
        counts.append(len(Store(tmp_path / "out").known()))
    assert 0 < counts[0] < counts[2] <= 6 * SEEDS
    assert counts[0] < 6 * SEEDS  # the first kill came in the middle
    spec = sweep_of(axes=SLOW, seeds=SEEDS)
    assert run(spec, tmp_path / "out", jobs=2).skipped == counts[2]
    run(spec, tmp_path / "undisturbed", jobs=2)
    tables = [Store(tmp_path / folder).read() for folder in ("out", "undisturbed")]
    for name, table in zip("ab", tables, strict=True):
        assert table.num_rows == 6 * SEEDS
        pq.write_table(table, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.slow
def test_an_interrupt_keeps_what_was_done_and_is_code_130(tmp_path, started):
    process = started()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=240) == 130
    assert (tmp_path / "stderr").read_text().splitlines()[-2:] == [
        "what was finished is in out; the same command goes on from there",
        "error: interrupted",
    ]
    done = len(Store(tmp_path / "out").known())
    assert 0 < done < 6 * SEEDS
    planned = plan(sweep_of(axes=SLOW, seeds=SEEDS), tmp_path / "out")
    assert len(planned.missing()) == 6 * SEEDS - done
