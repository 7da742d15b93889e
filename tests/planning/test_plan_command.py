from __future__ import annotations

import itertools
import json
import math

import pytest
import typer
from typer.testing import CliRunner

from experiments.cli import Commands
from experiments.cli_plan import plan
from experiments.figures.frontier import frontier as draw_frontier
from experiments.planning import frontier_table, load_plan_spec, make_plans
from policies.planning.spending import spending_usd
from sim.model.errors import InputError

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
    assert list(printed) == ["static", "rubberband", "frontier", "naive"]
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
    assert [name for name, made in printed.items() if made] == [planner]


def test_a_spec_that_says_too_little_is_refused(spec_file):
    result = elastune(spec_file, "--set", "workload.iteration_s=null")
    assert result.exit_code == 2
    assert "workload.iteration_s is missing: without workload.bundle it must be given" in result.stderr


def test_a_spec_may_name_a_bundle_and_numbers_instead_of_stages(spec_file):
    spec = load_plan_spec(spec_file, ["workload.bundle=digits-mlp", "job={trials: 9, max_iterations: 9}"])
    plans = make_plans(spec)
    assert [stage.trials for stage in plans.stages] == [9, 3, 1]
    assert plans.best is plans.frontier[-1]


@pytest.mark.parametrize("model", ["per-instance", "per-function"])
def test_the_parts_of_the_money_add_up_to_the_cost(spec_file, model):
    plans = make_plans(load_plan_spec(spec_file, [f"cloud.billing.model={model}"]))
    for made in (plans.static, *plans.frontier, *plans.naive.values()):
        parts = spending_usd(made, plans.terms)
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
