"""From a claim's file to its figures and table: what is missing is run once, and what cannot be drawn says why."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from elastune.experiments.claims import drawing as claims_drawing
from elastune.experiments.claims import verdicts
from elastune.experiments.claims.drawing import needed, prepare, run_missing
from elastune.experiments.claims.entries import CATALOG, Endpoint, load_claims
from elastune.experiments.claims.plans import (
    gap_table,
    gaps_of,
    planner_table,
    planners_as_policies,
    plans_of,
    rows_of_job,
)
from elastune.experiments.claims.rows import reported_regret, rows_of
from elastune.experiments.claims.sweeps import LimitUnits
from elastune.experiments.claims.tables import claim_table, runs_table
from elastune.experiments.claims.writing import write_all
from elastune.experiments.cli.app import app
from elastune.experiments.cli.figures import complete_figure
from elastune.experiments.files import locked
from elastune.experiments.sweeps import run as sweep_module
from elastune.experiments.sweeps.store import Store
from elastune.sim.model.errors import InputError
from elastune.traces import tiny_bundle

CLAIM = {
    "id": "R1",
    "claim": "elastic is cheaper",
    "source": "ours",
    "flag": "ours",
    "question": "Is it?",
    "expected": "yes",
    "conditions": ["assumed"],
    "endpoint": {
        "measure": "cost_usd",
        "kind": "ratio",
        "also": ["regret"],
        "contrasts": [{"experiment": "small", "policies": ["rubberband"], "against": ["sha-fixed"]}],
    },
    "experiments": {
        "small": {
            "workloads": ["mnist5k-cnn", "taskset-gru64"],
            "base": {"job": {"trials": 8, "exact": True}},
            "deadlines": [0.6, 1.2],
            "axes": {"policy": ["sha-fixed", "rubberband"]},
            "journals": True,
            "smoke": {"seeds": 3},
            "full": {"seeds": 4},
        }
    },
    "plans": {
        "planned": {
            "base": {
                "job": {"stages": [[4, 1], [2, 2]]},
                "workload": {"iteration_s": 60, "scaling": "resnet50-v100"},
                "cloud": {"instance_type": "p3.2xlarge", "startup": {"queue_s": 5, "init_s": 60}, "max_instances": 4},
            },
            "random_jobs": True,
            "points": 4,
            "smoke": {"seeds": 3},
            "full": {"seeds": 3},
        }
    },
    "figures": {
        "one-cost": {"draw": "cost-over-deadline", "experiment": "small", "caption": "Cost by deadline."},
        "one-gpus": {
            "draw": "gpus-over-time",
            "experiment": "small",
            "where": "job.deadline_s == 972",
            "caption": "GPUs.",
        },
        "one-gantt": {"draw": "gantt", "experiment": "small", "where": "policy == 'rubberband'", "caption": "A run."},
        "one-ledger": {"draw": "ledger", "experiment": "small", "where": "job.deadline_s == 972", "caption": "Money."},
        "one-none": {"draw": "ledger", "experiment": "small", "where": "policy == 'seer'", "caption": "Nothing."},
        "one-gaps": {"draw": "gaps", "experiment": "planned", "caption": "Gaps."},
        "one-plans": {
            "draw": "plans",
            "experiment": "planned",
            "options": {"x": "seed", "measure": "instances"},
            "caption": "Machines.",
        },
        "one-differences": {
            "draw": "differences",
            "experiment": "small",
            "options": {"reference": "sha-fixed"},
            "caption": "Differences.",
        },
    },
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The claim, run once on what ships: the catalogue's folder, the results' and the figures', and what was written."""
    root = tmp_path_factory.mktemp("claims")
    catalog = root / "catalog"
    catalog.mkdir()
    shutil.copy(CATALOG / "workloads.yaml", catalog)
    (catalog / "R1.yaml").write_text(yaml.safe_dump(CLAIM))
    drawing = prepare([], "smoke", results=root / "results", data=[root / "none"], folder=catalog)
    told = []
    failures = run_missing(needed(drawing), jobs=1, on_progress=lambda *progress: told.append(progress))
    assert not failures.counts
    written = write_all(drawing, root / "figures", lambda name: f"elastune figures {name} --smoke")
    return drawing, root, told, {each.name: each for each in written}


@pytest.mark.slow
def test_everything_missing_is_run_once_under_one_count(drawn):
    drawing, _, told, _ = drawn
    # 2 policies x 2 deadlines x 3 seeds, then 3 random jobs.
    assert [done for _, done, _ in told] == list(range(1, 16))
    assert {total for _, _, total in told} == {15}
    assert [part.missing for part in needed(drawing)] == [0, 0]
    again = []
    run_missing(needed(drawing), jobs=1, on_progress=lambda *progress: again.append(progress))
    assert not again


@pytest.mark.slow
def test_counting_says_what_looking_up_each_run_says(drawn, monkeypatch):
    drawing, root, _, _ = drawn
    again = prepare([], "smoke", results=root / "results", data=[root / "none"], folder=root / "catalog")
    fresh = prepare([], "smoke", results=root / "elsewhere", data=[root / "none"], folder=root / "catalog")
    for asked in (again, fresh):
        looked_up = [(part.label, part.total, part.missing) for part in needed(asked)]
        with monkeypatch.context() as patched:
            patched.setattr(claims_drawing, "plan", None)  # nothing is built
            assert [(part.label, part.total, part.missing) for part in needed(asked, is_counting=True)] == looked_up
    (sweep,) = drawing.sweeps
    copied = dataclasses.replace(sweep, folder=sweep.folder / "copy")
    rows = pq.read_table(sweep.folder / "runs").to_pylist()
    with (store := Store(copied.folder)).writing():
        store.write_part(store.next_part(), [row | {"status": "failed"} for row in rows[2:]])
    again = dataclasses.replace(again, sweeps=[copied], plans=[])
    count = functools.partial(needed, again, is_counting=True)
    assert [count()[0].missing, count(is_retrying=True)[0].missing] == [2, 12]
    monkeypatch.setattr(sweep_module, "RESULTS_VERSION", 7)
    with pytest.raises(InputError, match=r"R1 small, mnist5k-cnn: .* rows are of another version of results"):
        needed(again)


@pytest.mark.slow
def test_figures_lie_there_as_png_and_pdf_with_their_command(drawn):
    _, root, _, written = drawn
    for name in ("one-cost", "one-gpus", "one-gantt", "one-ledger", "one-gaps", "one-plans", "one-differences"):
        assert written[name].reason is None
        assert [path.suffix for path in written[name].files] == [".png", ".pdf", ".md"]
        assert all(path.stat().st_size > 100 for path in written[name].files)
    caption = (root / "figures" / "one-cost.md").read_text()
    assert "`elastune figures one-cost --smoke`" in caption
    assert "- small, mnist5k-cnn: 3 seeds from 45000; R tau is 1,620 s, c R tau 1.377 USD" in caption
    assert "- small, taskset-gru64: left out, " in caption
    index = (root / "figures" / "README.md").read_text()
    assert index.count("\n## ") == 7
    assert "Tables: [R1](R1.md), [R1-planned](R1-planned.md)." in index
    assert "one-none" not in index


@pytest.mark.slow
def test_a_figure_without_rows_is_left_out_with_the_reason_and_stops_no_other(drawn):
    assert drawn[3]["one-none"].files == ()
    assert drawn[3]["one-none"].reason == "no row of experiment small meets the figure's condition"


@pytest.mark.slow
def test_a_ratio_is_the_geometric_mean_over_the_pairs(drawn):
    drawing, root, _, _ = drawn
    rows = rows_of(drawing.sweeps)
    table = claim_table(drawing.tables[0], rows)
    pooled = table[(table["scope"] == "pooled") & (table["measure"] == "cost_usd")].iloc[0]
    # Both policies leave one job unfinished, of the same seed: what was cut is not compared.
    completed = rows[rows["completed"].astype(bool)]
    wide = completed.pivot_table(index=["job.deadline_s", "seed"], columns="policy", values="cost_usd")
    ratios = wide["sha-fixed"] / wide["rubberband"]
    told = tuple(pooled[name] for name in ("policy", "against", "kind", "pairs", "unfinished"))
    assert told == ("rubberband", "sha-fixed", "ratio", 5, 1)
    assert pooled["mean"] == pytest.approx(np.exp(np.log(ratios).mean()))
    assert pooled["better"] == pytest.approx((ratios > 1).mean())
    assert pooled["low"] <= pooled["mean"] <= pooled["high"]
    by_deadline = table[table["scope"] == "job.deadline_s"]
    for _, row in by_deadline.iterrows():
        assert row["mean"] == pytest.approx(np.exp(np.log(ratios[row["job.deadline_s"]]).mean()))
    # What is told besides is a difference, over everything.
    also = table[table["measure"] == "regret"]
    assert also["kind"].tolist() == ["difference"]
    assert "## small: cost_usd, pooled" in (root / "figures" / "R1.md").read_text()


@pytest.mark.slow
def test_what_is_told_beside_the_endpoint_is_compared_alike_and_decides_nothing(drawn):
    drawing, *_ = drawn
    rows = rows_of(drawing.sweeps)
    np.testing.assert_array_equal(rows["regret_at_most_1"], np.minimum(rows["regret"], 1.0))
    own = drawing.sweeps[0].claim
    contrast = {"experiment": "small", "policies": ["rubberband"], "against": ["sha-fixed"], "above": 0}
    by_cost = {**contrast, "measure": "cost_usd"}
    alone, beside = (
        verdicts.record_of(drawing, own.model_copy(update={"endpoint": Endpoint.model_validate(endpoint)}), "full")
        for endpoint in (
            {"measure": "regret", "contrasts": [contrast, by_cost]},
            {"measure": "regret", "contrasts": [contrast, by_cost], "beside": ["regret_at_most_1"]},
        )
    )
    assert alone == {**beside, "beside": []}
    (capped,) = beside["beside"]
    assert (capped["measure"], capped["against"], capped["pairs"]) == ("regret_at_most_1", "sha-fixed", len(rows) // 2)
    by_family = rows.groupby(["policy", "bundle_family"])["regret_at_most_1"].mean().groupby("policy").mean()
    assert capped["value"] == pytest.approx(by_family["sha-fixed"] - by_family["rubberband"], rel=1e-3, abs=1e-9)


def test_runs_are_counted_by_policy(drawn):
    runs = runs_table(rows_of(drawn[0].sweeps)).set_index("policy")
    assert runs["done"].to_dict() == {"rubberband": 6, "sha-fixed": 6}
    assert (runs["infeasible"] == 0).all()
    assert runs["completed"].tolist() == runs["deadline_met"].tolist() == [5 / 6, 5 / 6]


@pytest.mark.slow
def test_plans_of_random_jobs_lie_above_the_frontier_and_this_above_the_bound(drawn):
    rows = drawn[0].plans[0].read()
    assert len(rows) == 3 * 4 * 8
    assert rows["job"].nunique() == 3
    gaps = gaps_of(rows, "job")
    assert (gaps["gap"] > -1e-9).all()
    greedy = {"greedy, next level, fair", "greedy, fair", "greedy, wide"}
    assert set(gaps["comparison"]) == {"static, fair", "static, wide", *greedy, "fair frontier", "wide frontier"}


def planned(*costs_usd, **settings):
    """Rows of one job at the deadlines 10, 20, ...: of each planner its costs and as many machines."""
    told = {"key": str(settings), "seed": 0, "job": "a", **settings}
    return [
        {
            **told,
            "deadline_s": 10.0 * (place + 1),
            "planner": planner,
            "cost_usd": cost,
            "makespan_s": 9.0,
            "instances": cost,
        }
        for planner, *of_planner in costs_usd
        for place, cost in enumerate(of_planner)
    ]


def test_tables_of_plans_say_what_planners_find_and_how_much_dearer_it_is():
    cheap = planned(("wide", 2.0, 1.0), ("fair", 3.0, 1.0), ("bound", 1.0, 1.0), price=0.0)
    dear = planned(("wide", 4.0, 2.0), ("fair", np.nan, 3.0), ("bound", 4.0, 2.0), price=0.5)
    rows = pd.DataFrame(cheap + dear)
    planners = planner_table(rows).set_index(["price", "planner"])
    assert planners.loc[(0.5, "fair"), ["jobs", "deadlines", "plans", "cost_usd"]].tolist() == [1, 2, 1, 3.0]
    gaps = gap_table(rows).set_index(["price", "comparison"])
    # 3 / 2 - 1 and 1 / 1 - 1; of one job there is no interval.
    assert gaps.loc[(0.0, "fair frontier"), ["jobs", "plans", "none", "mean", "most"]].tolist() == [
        1,
        2,
        0.5,
        0.25,
        0.5,
    ]
    assert np.isnan(gaps.loc[(0.0, "fair frontier"), "low"])
    assert gaps.loc[(0.5, "fair frontier"), "mean"] == pytest.approx(0.5)
    figure = planners_as_policies(rows).set_index(["price", "policy"])
    assert figure["status"].to_dict() == {
        (0.0, "wide"): "done", (0.0, "fair"): "done", (0.5, "wide"): "done", (0.5, "fair"): "infeasible",
    }  # fmt: skip
    assert figure.loc[(0.0, "fair"), "instances"] == 2.0
    assert planners_as_policies(rows, {"price": 0.5})["price"].unique().tolist() == [0.5]
    with pytest.raises(InputError, match="there is no plan with price 2"):
        planners_as_policies(rows, {"price": 2})
    with pytest.raises(InputError, match="no column of plans 'prise'; did you mean 'price'"):
        planners_as_policies(rows, {"prise": 2})


def test_the_interval_of_a_mean_gap_is_over_jobs():
    jobs = [planned(("wide", 1.0, 1.0), ("fair", 1.0 + gap, 1.0 + gap), price=gap) for gap in (0.0, 0.2)]
    rows = pd.DataFrame([row | {"price": 1.0} for job in jobs for row in job])
    (row,) = gap_table(rows).to_dict("records")
    assert (row["jobs"], row["plans"], row["none"]) == (2, 4, 0.5)
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((0.1, 0.0, 0.2))


def test_deadlines_of_plans_are_multiples_of_what_one_configuration_takes(tmp_path):
    claim = load_claims()["R8"]
    jobs = plans_of(claim, "machines", "smoke", results=tmp_path).jobs
    # 50 iterations of 32.4 s.
    assert {job.deadlines_s for job in jobs} == {(648.0, 810.0, 1053.0, 1377.0, 1944.0)}
    assert {row["deadline_s"] for row in rows_of_job(jobs[0])} == set(jobs[0].deadlines_s)


@pytest.mark.slow
def test_plans_are_made_by_one_process_at_a_time_and_a_part_that_is_gone_is_made_again(drawn, tmp_path):
    plans = dataclasses.replace(drawn[0].plans[0], folder=tmp_path / "plans")
    for job in plans.jobs:
        dataclasses.replace(plans, jobs=[job]).run(1, lambda _done: None)
    parts = sorted(plans.folder.glob("plans-*.parquet"))
    assert (len(parts), plans.missing()) == (3, [])
    before = plans.read()
    parts[0].unlink()
    plans.run(1, lambda _done: None)
    assert plans.missing() == []
    assert plans.read().equals(before), "whatever was planned last"
    assert len(plans.read()) == 3 * 4 * 8
    with locked(plans.folder), pytest.raises(InputError, match="another sweep is writing to this folder"):
        plans.run(1, lambda _done: None)


def test_a_cluster_that_is_not_there_is_told_before_anything_is_drawn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    failed = CliRunner().invoke(app, ["figures", "r5-per-instance", "--smoke", "--ray", "auto"])
    assert failed.exit_code == 2
    assert "--ray auto: ray is not installed" in failed.stderr
    assert not (tmp_path / "results" / "figures").exists()


@pytest.mark.slow
def test_equal_seeds_draw_equal_jobs(drawn, tmp_path):
    claim = drawn[0].plans[0].claim
    again = plans_of(claim, "planned", "smoke", results=tmp_path)
    assert [job.key for job in again.jobs] == [job.key for job in drawn[0].plans[0].jobs]
    first = pd.DataFrame(rows_of_job(again.jobs[0]))
    kept = drawn[0].plans[0].read()
    pd.testing.assert_frame_equal(first, kept[kept["key"] == again.jobs[0].key].reset_index(drop=True))


def test_reported_regret_is_by_the_test_score_of_what_was_selected():
    # Test errors at the end: .1 .2 .3 .5; the median is .25, so the scale is .15. Reported at .2, and the best drawn has .1.
    scores = np.array([[0.5, 0.1], [0.5, 0.2], [0.5, 0.3], [0.5, 0.5]])
    bundle = dataclasses.replace(tiny_bundle(scores + 0.1), test_scores=scores)
    row = {"status": "done", "best_trial": 1.0, "test_score": 0.2, "seed": 0, "job.trials": 4, "job.max_iterations": 2}
    rows = pd.DataFrame([row, {**row, "status": "infeasible", "best_trial": np.nan}]).assign(
        **{"job.stages": None, "regret": 9.0}
    )
    found = reported_regret(rows, bundle)
    assert found[0] == pytest.approx((0.2 - 0.1) / 0.15)
    assert np.isnan(found[1])
    np.testing.assert_array_equal(reported_regret(rows, tiny_bundle(scores)), [9.0, 9.0])


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="no figure or claim 's1-profile'; did you mean 's1-profiles'"):
        prepare(["s1-profile"], "smoke", results=CATALOG / "none")
    result = CliRunner().invoke(app, ["figures", "s1-profile", "--smoke"])
    assert result.exit_code == 2


def test_names_are_completed():
    assert complete_figure("r1-cost-l") == ["r1-cost-large"]
    assert complete_figure("S") == [f"S{number}" for number in range(1, 9)]


def test_the_list_says_what_would_run_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["figures", "r5-per-instance", "--list", "--smoke", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [figure["name"] for figure in told["figures"]] == ["r5-per-instance"]
    assert told["parts"] == [{"part": "R5 spread, mnist5k-cnn", "total": 32, "missing": 32}]
    assert not list(tmp_path.iterdir())
    # Of a formula's bundle neither.
    assert CliRunner().invoke(app, ["figures", "h1-toy", "--list"]).exit_code == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_a_name_figures_are_listed_and_nothing_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = CliRunner().invoke(app, ["figures"])
    assert listed.exit_code == 0
    assert listed.stderr.startswith("Ask by name, as `elastune figures S1`")
    assert "s1-profiles" in listed.stdout
    told = json.loads(CliRunner().invoke(app, ["figures", "--json"]).stdout)
    assert (len(told["figures"]), told["parts"]) == (len(figures_named()), [])
    assert not list(tmp_path.iterdir())
    terminal = SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("elastune.experiments.cli.figures.sys", terminal)
    assert CliRunner().invoke(app, ["figures", "--json"]).exit_code == 0, "nobody is asked where a program reads"
    every = CliRunner().invoke(app, ["figures", "all", "--list", "--smoke", "--json"])
    assert [figure["name"] for figure in json.loads(every.stdout)["figures"]] == figures_named()


def figures_named():
    return [name for claim in load_claims().values() for name in claim.figures]


@pytest.mark.slow
def test_a_claim_is_run_and_drawn_by_one_command(tmp_path):
    command = [
        "figures",
        "r3-cost",
        "--smoke",
        "-o",
        str(tmp_path / "figures"),
        "--results",
        str(tmp_path / "results"),
        "--jobs",
        "1",
    ]
    result = CliRunner().invoke(app, [*command, "--data", str(tmp_path / "none"), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["ran"], told["of"]) == (24, 24)
    assert told["written"][0]["left_out"] is None
    assert (tmp_path / "figures" / "r3-cost.pdf").is_file()
    again = json.loads(CliRunner().invoke(app, [*command, "--data", str(tmp_path / "none"), "--json"]).stdout)
    assert again["ran"] == 0
    assert load_claims()["R3"].figures.keys() == {"r3-cost"}


def test_rows_of_sweeps_with_and_without_gaps_keep_what_they_say(tmp_path):
    done = {
        "status": "done",
        "policy": "a",
        "best_trial": 0,
        "test_score": None,
        "deadline_met": True,
        "trials_started": 3,
    }
    none = {"status": "infeasible", "policy": "a", "error": "no plan within T"}
    seeds = {"whole": [done, done], "gaps": [done, none], "nothing": [none, none]}
    sweeps = []
    for name, rows in seeds.items():
        keyed = [
            row
            | {"key": f"{name} {seed}", "seed": seed, "job.trials": 4, "job.max_iterations": 27, "job.deadline_s": 40.0}
            for seed, row in enumerate(rows)
        ]
        store = Store(tmp_path / name)
        with store.writing():
            store.write_part(store.next_part(), keyed)
        sweep = SimpleNamespace(seeds=[0, 1], base={"workload": {"bundle": "mnist5k-cnn"}})
        units = LimitUnits(deadline_s=100.0, budget_usd=2.0)
        told = {"experiment": "e", "workload": name, "sweep": sweep, "units": units}
        sweeps.append(SimpleNamespace(folder=tmp_path / name, **told))
    for order in (sweeps, sweeps[::-1]):
        rows = rows_of(order).set_index(["workload", "seed"])
        assert rows.loc[("whole", 0), ["best_trial", "deadline_met"]].tolist() == [0, True]
        gap = rows.loc[("gaps", 1), ["best_trial", "deadline_met", "regret", "trials_started"]]
        assert rows.loc[("whole", 0), "deadline_r_tau"] == 0.4
        assert np.isnan(rows.loc[("whole", 0), "budget_c_r_tau"]), "there is no budget"
        assert gap.isna().all(), "a run without a plan has met no deadline and missed none"
        assert len(rows) == 6
