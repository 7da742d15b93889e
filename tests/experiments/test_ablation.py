"""Taking a policy apart: what is counted, and worlds drawn around a spec."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from elastune import RunSpec
from elastune.experiments.cli.app import app
from elastune.experiments.comparisons.ablation import ablate, rough
from elastune.sim.model.errors import InputError


def spec(policy="rubberband", **job):
    return RunSpec.of(
        job={"trials": 9, "max_iterations": 9, "deadline_s": 900, "budget_usd": 3, **job},
        workload={"bundle": "mnist5k-cnn", "scaling": "resnet50-v100", "iteration_s": 30},
        cloud={"instance_type": "p3.8xlarge", "startup": {"queue_s": 5, "init_s": 60}, "rescale_s": 5},
        policy=policy,
    )


def test_a_switch_that_changes_nothing_changes_no_order():
    table = ablate(spec(), ["steps=all"], seeds=3, jobs=1).table.set_index("switch")
    assert list(table.index) == ["-", "steps=all"]
    assert table.loc["steps=all", ["changed", "regret", "better", "runs"]].tolist() == [0.0, 0.0, 0.0, 3]
    assert table.loc["-", "regret"] >= 0


def test_without_hard_stop_the_runs_that_miss_t_are_counted():
    document = spec("seer:replan=false:reserve=false", deadline_s=300, budget_usd=1.2).to_dict()
    document["workload"]["profile"] = {"iteration_s_error": -0.6, "scaling_error": 0.0}
    table = ablate(RunSpec.of(**document), ["hard_stop=false"], seeds=4, jobs=1).table.set_index("switch")
    assert table.loc["-", ["deadline_missed", "budget_missed"]].tolist() == [0.0, 0.0]
    missed = table.loc["hard_stop=false", ["deadline_missed", "budget_missed"]]
    assert missed.max() > 0
    assert table.loc["hard_stop=false", "changed"] >= missed.max()


def test_a_rough_world_is_drawn_by_the_seed_alone_and_keeps_the_job():
    worlds = [rough(spec().with_seed(seed)) for seed in (1, 1, 2)]
    assert worlds[0] == worlds[1] != worlds[2]
    for world in worlds:
        believed, spread = world.workload.profile, world.workload.straggler_cv
        assert min(believed.iteration_s_error, believed.scaling_error) >= -0.5
        assert max(believed.iteration_s_error, believed.scaling_error) <= 0.5
        assert 0 <= min(spread.persistent, spread.per_iteration) <= max(spread.persistent, spread.per_iteration) <= 1
        assert 0.7 * 900 <= world.job.deadline_s <= 1.5 * 900
        assert 0.7 * 3 <= world.job.budget_usd <= 1.5 * 3
        assert world.job.trials == 9


def test_what_cannot_be_taken_apart_is_refused():
    with pytest.raises(
        InputError, match=r"policy asha-fixed has no switches of its own; .* \(its parameters: truncate\)$"
    ):
        ablate(spec("asha-fixed"))
    with pytest.raises(InputError, match=r"--switch replan=false is given twice"):
        ablate(spec("seer"), ["replan=false", "reserve=false", "replan=false"])
    with pytest.raises(InputError, match=r"no seer parameter 'reserves'; did you mean 'reserve'\?"):
        ablate(spec("seer"), ["reserves=false"])
    with pytest.raises(InputError, match=r"rough worlds scale their failures by job.deadline_s, which is missing"):
        rough(RunSpec.of(**{**spec().to_dict(), "job": {"trials": 4, "max_iterations": 9, "budget_usd": 3}}))


def test_the_command_prints_a_table_or_json(tmp_path):
    import yaml

    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(spec().to_dict()))
    shown = CliRunner().invoke(app, ["ablate", str(file), "--switch", "steps=next", "--seeds", "2", "--jobs", "1"])
    assert shown.exit_code == 0
    assert "steps=next" in shown.stdout
    told = CliRunner().invoke(app, ["ablate", str(file), "--seeds", "2", "--jobs", "1", "--json", "--rough"])
    document = json.loads(told.stdout)
    assert document["policy"] == "rubberband"
    assert [row["switch"] for row in document["rows"]] == [
        "-",
        "space=wide",
        "steps=next",
        "makespan=p95",
        "replan=true",
    ]
