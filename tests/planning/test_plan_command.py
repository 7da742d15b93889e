from __future__ import annotations

import itertools
import json
import math
import re

import pytest
import typer
from typer.testing import CliRunner

from elastune.experiments.cli.app import Commands
from elastune.experiments.cli.plan import plan
from elastune.experiments.figures.frontier import frontier as draw_frontier
from elastune.experiments.plans.plan_spec import load_plan_spec
from elastune.experiments.plans.planning import frontier_table, make_plans
from elastune.policies.planning import aged
from elastune.policies.planning.spending import spending_usd
from elastune.sim.model.errors import InputError

SPEC = """
job: {stages: [[32, 1], [10, 3], [3, 9], [1, 37]], deadline_s: 1800}
workload: {scaling: {1: 1, 2: 1.7, 4: 2.55, 8: 3.1}, iteration_s: 60}
cloud: {instance_type: p3.8xlarge, startup: {queue_s: 5, init_s: 60}, sync_s: 2, rescale_s: 5, max_instances: 16}
"""


@pytest.fixture
def spec_file(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(SPEC)
    return path


def elastune(*arguments):
    app = typer.Typer(cls=Commands)
    app.command("plan")(plan)
    app.command("other")(lambda: None)
    return CliRunner().invoke(app, ["plan", *map(str, arguments)])


def test_json_holds_what_the_spec_of_commands_says(spec_file):
    result = elastune(spec_file, "--json")
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert list(printed) == ["static", "rubberband", "frontier", "naive", "notes"]
    assert list(printed["naive"]) == ["1", "2", "4", "8"]
    plans = [printed["static"], printed["rubberband"], *printed["frontier"], *printed["naive"].values()]
    for made in plans:
        assert list(made) == ["gpus_per_stage", "instances_per_stage", "makespan_s", "cost_usd", "gap_to_bound"]
        assert len(made["gpus_per_stage"]) == len(made["instances_per_stage"]) == 4
        assert made["gap_to_bound"] >= 0
    on_time = [made["cost_usd"] for made in printed["frontier"] if made["makespan_s"] <= 1800]
    assert min(on_time) <= min(printed["static"]["cost_usd"], printed["rubberband"]["cost_usd"])
    assert all(a["makespan_s"] < b["makespan_s"] for a, b in itertools.pairwise(printed["frontier"]))


def test_a_planner_that_finds_nothing_is_null_and_the_table_names_what_can_be_had(spec_file):
    asked = (spec_file, "--set", "job.deadline_s=60")
    printed = json.loads(elastune(*asked, "--json").stdout)
    assert printed["static"] is None
    assert printed["rubberband"] is None
    assert printed["frontier"]
    assert "The fastest of all takes" in elastune(*asked).stdout


def test_the_table_shows_every_planner_and_a_figure_is_drawn(spec_file, tmp_path):
    result = elastune(spec_file, "--figure", tmp_path / "frontier.png", "--space", "fair")
    assert result.exit_code == 0, result.output
    for name in ("static", "rubberband, next", "rubberband, all", "frontier, fair", "naive, 1 GPU a trial", "training"):
        assert name in result.stdout
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("planner", ["static", "rubberband", "frontier"])
def test_one_planner_can_be_asked_alone(spec_file, planner):
    printed = json.loads(elastune(spec_file, "--planner", planner, "--json").stdout)
    assert [name for name, made in printed.items() if made] == [planner, "notes"]


def test_a_spec_that_says_too_little_is_refused(spec_file):
    result = elastune(spec_file, "--set", "workload.iteration_s=null")
    assert result.exit_code == 2
    assert "workload.iteration_s is missing: without workload.bundle it must be given" in result.stderr


def test_a_spec_may_name_a_bundle_and_numbers_instead_of_stages(spec_file):
    spec = load_plan_spec(spec_file, ["workload.bundle=digits-mlp", "job={trials: 9, max_iterations: 9}"])
    plans = make_plans(spec)
    assert [stage.trials for stage in plans.planning.stages] == [9, 3, 1]
    assert plans.best is plans.frontier[-1]


@pytest.mark.parametrize("model", ["per-instance", "per-function"])
def test_the_parts_of_the_money_add_up_to_the_cost(spec_file, model):
    plans = make_plans(load_plan_spec(spec_file, [f"cloud.billing.model={model}"]))
    for made in (plans.within.static, *plans.frontier, *plans.naive.values()):
        parts = spending_usd(made, plans.planning.terms_of(made))
        assert math.fsum(parts.values()) == pytest.approx(made.cost_usd)
        assert min(parts.values()) > -1e-9


def test_the_figure_marks_every_kind_of_plan(spec_file):
    table = frontier_table(make_plans(load_plan_spec(spec_file)))
    kinds = set(table["planner"].str.partition(" ")[0])
    assert kinds == {"frontier", "bound", "static", "rubberband", "rubberband-next", "naive"}
    axes = draw_frontier(table).axes[0]
    assert axes.get_xlabel() == "makespan (min)"
    steps = next(line for line in axes.lines if line.get_label() == "frontier")
    assert len(steps.get_xdata()) == (table["planner"] == "frontier").sum()
    assert [text.get_text() for text in axes.texts if "deadline" in text.get_text()] == ["deadline 30 min"]
    with pytest.raises(InputError, match="unknown planner oracle"):
        draw_frontier(table.replace("static", "oracle"))


@pytest.mark.parametrize("setting", ["job={stages: [[8, 1], [2, 81]]}", "job={trials: 9, max_iterations: 82}"])
def test_a_job_longer_than_the_curves_is_refused_as_a_run_is(spec_file, setting):
    result = elastune(spec_file, "--set", "workload.bundle=digits-mlp", "--set", setting)
    assert result.exit_code == 2
    assert "job longer than its curves: job." in result.stderr
    assert "asks for 82 iterations, bundle digits-mlp has 81" in result.stderr


def test_several_deadlines_stand_side_by_side(spec_file):
    asked = (spec_file, "--deadlines", "1100,1500,60", "--space", "fair")
    shown = elastune(*asked).stdout
    planner, *others = (re.split(r"  +", line.strip()) for line in shown.splitlines()[1:] if "  " in line)
    assert planner == ["planner", "1,100 s", "1,500 s", "60 s"]
    rows = {name: cells for name, *cells in others}
    assert set(rows) == {
        "static", "rubberband, next", "rubberband, all", "frontier, fair",
        *(f"naive, {gpus} GPU{'s' * (gpus > 1)} a trial" for gpus in (1, 2, 4, 8)),
    }  # fmt: skip
    assert rows["frontier, fair"][2] == "-"
    assert "%)" in rows["static"][1]
    assert "The fastest of all takes" in shown
    printed = json.loads(elastune(*asked, "--json").stdout)
    assert list(printed) == ["static", "rubberband", "frontier", "naive", "by_deadline", "notes"]
    early, late, never = printed["by_deadline"]
    assert (early["deadline_s"], never["frontier"]) == (1100.0, None)
    for one in (early, late):
        plans = [one[name] for name in ("static", "rubberband_next", "rubberband", "frontier")]
        assert all(made["makespan_s"] <= one["deadline_s"] for made in plans if made)
        on_time = [made["cost_usd"] for made in printed["frontier"] if made["makespan_s"] <= one["deadline_s"]]
        assert one["frontier"]["cost_usd"] == min(on_time)


def test_percentiles_of_the_makespan_are_shown_and_kept(spec_file):
    spread = (
        "--set",
        "workload.straggler_cv={persistent: 0.3, per_iteration: 0.1}",
        "--set",
        "cloud.startup={init_s: {mean_s: 60, cv: 0.1}}",
    )
    asked = (spec_file, *spread, "--makespan", "p95")
    assert "95 % end by, s" in elastune(*asked).stdout
    printed = json.loads(elastune(*asked, "--json").stdout)
    for made in (printed["static"], printed["rubberband"]):
        assert made["makespan_s"] < made["makespan_p95_s"] <= 1800
    assert all(made["makespan_p95_s"] > made["makespan_s"] for made in printed["frontier"])
    cheapest = {
        name: min(made["cost_usd"] for made in plans["frontier"] if made[key] <= 1800)
        for name, key, plans in (
            ("p95", "makespan_p95_s", printed),
            ("mean", "makespan_s", json.loads(elastune(spec_file, *spread, "--json").stdout)),
        )
    }
    assert cheapest["p95"] > cheapest["mean"]


def test_without_randomness_percentiles_change_nothing(spec_file):
    mean, late = (json.loads(elastune(spec_file, "--json", "--makespan", name).stdout) for name in ("mean", "p95"))
    for made in late["frontier"]:
        assert made.pop("makespan_p95_s") == made["makespan_s"]
    assert late["frontier"] == mean["frontier"]


def test_planners_choose_among_kinds_of_machines(spec_file):
    free = "workload.scaling={1: 1, 2: 1.7, 2x2: 1.7, 4: 2.55, 4x4: 2.55, 8: 3.1, 8x8: 3.1}"  # a network that costs nothing
    asked = (
        spec_file,
        "--set",
        free,
        "--types",
        "p3.2xlarge,p3.8xlarge,g4dn.12xlarge:iteration_s=150:scaling=resnet50-v100",
    )
    shown = elastune(*asked).stdout
    assert "on p3.2xlarge or p3.8xlarge or g4dn.12xlarge" in " ".join(shown.split())
    printed = json.loads(elastune(*asked, "--json").stdout)
    together = printed["frontier"]
    assert {made["instance_type"] for made in together} > {"g4dn.12xlarge"}
    assert all(made["gap_to_bound"] >= 0 for made in together)
    for name in ("p3.2xlarge", "p3.8xlarge"):
        alone = json.loads(elastune(spec_file, "--set", free, "--set", f"cloud.instance_type={name}", "--json").stdout)
        assert printed["static"]["cost_usd"] <= alone["static"]["cost_usd"]
        for made in alone["frontier"]:
            assert (
                min(p["cost_usd"] for p in together if p["makespan_s"] <= made["makespan_s"]) <= made["cost_usd"] + 1e-9
            )


GANGS_OF_8 = """
job: {stages: [[8, 4], [1, 37]]}
workload: {scaling: {1: 1, 2: 1.9, 4: 3.6, 8: 6.8}, iteration_s: 60}
cloud: {instance_type: g5.xlarge, max_gpus: 32}
"""


def test_where_machines_are_chosen_no_gang_is_on_several_whose_network_nobody_stated(tmp_path):
    spec = tmp_path / "gangs.yaml"
    spec.write_text(GANGS_OF_8)
    result = elastune(spec, "--types", "g5.xlarge,g5.12xlarge", "--json")
    largest = {"g5.xlarge": 1, "g5.12xlarge": 4}
    for made in json.loads(result.stdout)["frontier"]:
        last_gpus = made["gpus_per_stage"][-1]  # one trial is left, so all GPUs of the stage are one gang
        assert last_gpus <= largest[made["instance_type"]]
    assert "g5.xlarge: gangs of more than 1 GPU are left out" in result.stderr
    assert "g5.12xlarge: gangs of more than 4 GPUs are left out" in result.stderr


def test_where_machines_are_chosen_a_stated_network_is_used(tmp_path):
    spec = tmp_path / "gangs.yaml"
    spec.write_text(GANGS_OF_8.replace("8: 6.8", "4x4: 3.0, 8: 6.8, 8x2: 6.0, 8x8: 5.0, 2x2: 1.6"))
    result = elastune(spec, "--types", "g5.xlarge,g5.12xlarge", "--json")
    assert max(made["gpus_per_stage"][-1] for made in json.loads(result.stdout)["frontier"]) == 8
    assert "left out" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--types", "p3.8xlarge,p3.8xlarge"), "two kinds of machines called p3.8xlarge"),
        (("--types", "p3.8xlarge:speed=3"), "must be a name, with scaling=... and iteration_s=..."),
        (("--types", "p3.8xlarge,"), "--types: a name is empty"),
        (("--types", "p9.8xlarge"), "p9.8xlarge"),
        (("--deadlines", "900,soon"), "'soon' must be a number, in seconds or with its unit, as 90s, 30min, 2h or 1d"),
        (("--deadlines", "900,-1"), "'-1' must be above 0 seconds"),
        (("--deadlines", "900,nan"), "'nan' must be a finite number, in seconds"),
        (("--planner", "oracle"), "oracle"),
        (("--space", "narrow"), "narrow"),
        (("--makespan", "p99"), "p99"),
    ],
)
def test_wrong_arguments_are_refused(spec_file, arguments, told):
    result = elastune(spec_file, *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_limits_that_only_together_cannot_be_kept_are_told_apart(spec_file):
    limits = ("--set", "job.deadline_s=1200", "--set", "job.budget_usd=9.5")
    shown = " ".join(elastune(spec_file, *limits).stdout.split())
    plans = make_plans(load_plan_spec(spec_file, limits[1::2]))
    assert plans.best is None
    by_deadline = min(made.cost_usd for made in plans.frontier if made.makespan_s <= 1200)
    in_budget = min(made.makespan_s for made in plans.frontier if made.cost_usd <= 9.5)
    assert f"By 1,200 s the least is {by_deadline:.2f} USD." in shown
    assert f"For 9.50 USD the soonest is {in_budget:,.0f} s." in shown
    side_by_side = " ".join(elastune(spec_file, *limits, "--deadlines", "1100,1200,9000").stdout.split())
    for deadline_s, named in ((1100, "1,100"), (1200, "1,200")):
        usd = min(made.cost_usd for made in plans.frontier if made.makespan_s <= deadline_s)
        assert f"By {named} s the least is {usd:.2f} USD." in side_by_side
    assert "By 9,000 s" not in side_by_side
    result = elastune(spec_file, *limits, "--json")
    assert "No plan keeps the limits." in result.stderr
    assert json.loads(result.stdout)["static"] is None


@pytest.mark.filterwarnings("ignore::elastune.policies.planning.aged.InexactFrontierWarning")
def test_a_search_that_was_cut_short_is_told_in_table_and_json(spec_file, monkeypatch):
    monkeypatch.setattr(aged, "MOST_STARTED", 1)
    asked = (spec_file, "--planner", "frontier", "--set", "cloud.billing.granularity_s=3600")
    printed = json.loads(elastune(*asked, "--json").stdout)
    most = max(made.get("search_gap", 0.0) for made in printed["frontier"])
    assert most > 0
    assert f"may be up to {100 * most:.1f} % cheaper" in elastune(*asked).stdout
