"""`elastune scaling`, from the outside."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from elastune.experiments.cli.app import app
from elastune.experiments.figures import save, scaling_fit
from elastune.experiments.plans.scaling_fits import figure_tables, fit_json, gangs_of, with_kind
from elastune.sim.model.errors import InputError
from elastune.sim.model.node_scaling import PlacedTableScaling
from elastune.traces import (
    MeasuredTable,
    fit_scaling,
    measured_table,
    scaling_of,
)

MODELS = """\
model,gpus,nodes,kind,samples_per_s
a,1,1,strong,100
a,2,1,strong,180
a,4,1,strong,300
a,8,1,strong,450
a,16,2,strong,440
b,1,1,strong,10
b,2,1,strong,19
b,4,1,strong,34
b,8,1,strong,60
"""
STEPS = """\
workload,gpus,nodes,local_batch_size,step_time_s,sync_time_s,kind
toy,1,1,4,1.0,0.0,placements
toy,2,1,4,1.25,0.25,placements
toy,4,2,4,2.0,1.0,placements
toy,8,8,4,9.0,1.0,scalability
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "models.csv"
    path.write_text(MODELS)
    return path


def run(*arguments, code=0):
    done = CliRunner().invoke(app, ["scaling", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


def told(*arguments):
    return json.loads(run(*arguments, "--json").stdout)


def test_the_shipped_tables_are_listed_with_kind_and_source():
    listed = {one["name"]: one for one in told("list")}
    assert listed["bert-t4"]["knows_nodes"]
    assert listed["bert-a100"]["kind"] == "strong"
    assert "ElasticFlow" in listed["bert-a100"]["source"]
    assert "bert-t4" in run("list").stdout


def test_show_gives_every_gang_and_marks_where_more_gpus_are_slower(file):
    shown = told("show", f"{file}#model=a")
    assert [(one["gpus"], one["nodes"], one["speedup"]) for one in shown["gangs"][-2:]] == [(8, 1, 4.5), (16, 2, 4.4)]
    assert [one["is_slower_than_fewer"] for one in shown["gangs"]] == [False, False, False, False, True]
    assert shown["gangs"][3]["efficiency"] == pytest.approx(4.5 / 8)
    assert "slower than fewer GPUs" in run("show", f"{file}#model=a").stdout


def test_fit_prints_what_a_spec_holds(file):
    found = told("fit", f"{file}#model=a", "--family", "amdahl", "--on", "1,2,4", "--predict", "8,16")
    assert (found["family"], found["kind"], found["fitted_on"]) == ("amdahl", "strong", ["2", "4"])
    assert scaling_of(found["scaling"]).speedup(8) == found["gangs"][2]["predicted"]
    eight, sixteen = found["gangs"][2:]
    assert (eight["measured"], eight["is_used"]) == (4.5, False)
    assert eight["low"] < eight["predicted"] < eight["high"]
    assert eight["error"] == pytest.approx(eight["predicted"] / 4.5 - 1)
    assert (sixteen["gpus"], sixteen["nodes"]) == (16, 2)
    assert "16 GPUs are slower than the next smaller gang" in found["notes"][0]


def test_fit_says_everything_for_people_too(file):
    printed = run("fit", f"{file}#model=a", "--on", "1,2,4", "--predict", "8,16,32x4").stdout
    for words in (
        "amdahl *",
        "left-out error",
        "16x2 predicted",
        "32x4 predicted",
        "intervals are at least as wide as the usual error",
        "workload.scaling: {",
    ):
        assert words in printed


def test_a_held_out_gang_is_compared_in_every_table_of_a_file(file):
    found = told("fit", file, "--by", "model", "--on", "1,2,4", "--predict", "8,16")
    assert [(one["model"], one["gpus"]) for one in found["gangs"]] == [("a", 8), ("a", 16), ("b", 8)]
    for one in found["gangs"]:
        assert one["errors"][one["family"]] == pytest.approx(one["predicted"] / one["measured"] - 1)
        assert one["is_covered"] == (one["low"] <= one["measured"] <= one["high"])
    assert found["not_measured"] == [{"model": "b", "gpus": 16, "nodes": 1}]
    assert found["intervals"] == 3
    assert found["covered"] == sum(one["is_covered"] for one in found["gangs"])
    mean = sum(abs(one["errors"]["linear"]) for one in found["gangs"]) / 3
    assert found["mean_absolute_error"]["linear"] == pytest.approx(mean)
    printed = run("fit", file, "--by", "model", "--on", "1,2,4", "--predict", "8,16").stdout
    assert "mean absolute error over 3 gangs: linear" in printed
    assert "of 3 intervals of 90 % hold what was measured" in printed


def test_tables_that_do_not_say_how_the_batch_was_held_are_told(tmp_path):
    path = tmp_path / "plain.csv"
    path.write_text("model,gpus,speedup\na,1,1\na,2,1.8\na,4,3.1\na,8,4.9\n")
    held_out = ("fit", path, "--by", "model", "--on", "1,2,4", "--predict", "8")
    assert "allreduce" not in told(*held_out)["gangs"][0]["errors"]
    assert "allreduce" in told(*held_out, "--kind", "weak")["gangs"][0]["errors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "bert"), "there is no scaling 'bert'; did you mean 'bert-t4'?"),
        (("fit", "FILE"), "1 GPUs were already given in row 1; filter with #column=text"),
        (("fit", "FILE#model=a", "--on", "1,x"), "--on '1,x': give numbers of GPUs with commas between"),
        (("fit", "FILE#model=a", "--on", "1,3"), "3 GPUs were not measured"),
        (
            ("fit", "FILE#model=a", "--predict", "8y2"),
            "'8y2' is no gang: give GPUs, as in 8, or GPUs x nodes, as in 16x2",
        ),
        (("fit", "FILE#model=a", "--predict", "2x3"), "'2x3' is no gang: it has 1 to 100000 GPUs, and between 1 node"),
        (("fit", "FILE#model=a", "--kind", "weak"), "--kind weak: the table says itself that it is strong"),
        (
            ("fit", "FILE", "--by", "model", "--on", "1,2"),
            "--by compares many tables: give --on and --predict, or neither",
        ),
        (("fit", "FILE", "--by", "name", "--on", "1", "--predict", "8"), "column name: has no such column"),
        (("fit", "FILE", "--by", "model", "--on", "1,2,4", "--predict", "32"), "no table of FILE measured any of 32"),
        (("fit", "FILE#model=a", "--figure", "x.gif"), "cannot write x.gif: a figure is one of .png, .pdf, .svg"),
    ],
)
def test_wrong_input_ends_with_2_and_one_line(file, arguments, message):
    done = run(*(str(argument).replace("FILE", str(file)) for argument in arguments), code=2)
    assert message.replace("FILE", str(file)) in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_step_times_become_a_table_that_a_spec_takes(tmp_path):
    steps, out = tmp_path / "steps.csv", tmp_path / "made" / "toy.csv"
    steps.write_text(STEPS)
    done = run(
        *("import", steps, "--workload", "toy", "--kind", "weak", "--batch", 4),
        *("--where", "kind=placements", "-o", out),
    )
    assert done.stdout == f"{out}\n"
    made = scaling_of(str(out))
    assert made == PlacedTableScaling({(1, 1): 1.0, (2, 1): 1.6, (4, 2): 2.0}, "weak")
    assert "steps.csv: workload toy, weak scaling, batch 4" in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "toy.parquet"), "toy.parquet: a scaling is written to a .csv file"),
        (("-o", "toy.csv", "--where", "kind"), "'kind' is no list of filters; they are as in workload=bert"),
        (("-o", "toy.csv", "--where", "kind=x"), "has no row with workload=toy, kind=x"),
    ],
)
def test_an_import_that_cannot_be_is_refused_and_writes_nothing(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "steps.csv").write_text(STEPS)
    done = run("import", "steps.csv", "--workload", "toy", "--kind", "weak", "--batch", "4", *arguments, code=2)
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["steps.csv"]


def test_nodes_that_are_not_given_are_the_fewest_that_were_measured():
    table = MeasuredTable({(1, 1): 1.0, (4, 1): 3.0, (4, 2): 2.0, (8, 3): 4.0}, "weak", knows_nodes=True)
    # 16 GPUs were not measured; machines hold at least the 4 that were measured on one.
    assert gangs_of("4,8,16,16x8", table) == ((4, 1), (8, 3), (16, 4), (16, 8))
    plain = MeasuredTable({(1, 1): 1.0, (4, 1): 3.0}, "weak", knows_nodes=False)
    assert gangs_of("16", plain) == ((16, 1),)


def test_a_table_is_told_its_kind_where_it_does_not_say():
    plain = MeasuredTable({(1, 1): 1.0, (2, 1): 1.8, (4, 1): 3.0}, "unstated", knows_nodes=False)
    assert "allreduce" in fit_scaling(with_kind(plain, "weak")).families
    assert with_kind(plain, None) == plain
    with pytest.raises(InputError, match="the table says itself that it is weak"):
        with_kind(with_kind(plain, "weak"), "strong")


def test_an_infinite_bound_is_null_in_json():
    # Two links, five points: the latency of a link that is not paid for is not bounded by them.
    table = MeasuredTable({(1, 1): 1.0, (2, 1): 1.8, (4, 1): 3.0, (8, 2): 3.1}, "strong", knows_nodes=True)
    json.dumps(fit_json("t", fit_scaling(table), ()), allow_nan=False)


def test_the_figure_shows_points_curves_and_the_chosen_interval(tmp_path):
    table = measured_table("vgg16-a100")
    fit = fit_scaling(table, on=(1, 2, 4))
    points, curves = figure_tables(fit, ((8, 1),))
    assert points["use"].tolist() == ["fitted"] * 3 + ["held out"] * 4
    figure = scaling_fit(points, curves)
    (axes,) = figure.axes
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        *("ideal (linear)", "amdahl (chosen)", "power", "allreduce"),
        *("measured, fitted", "measured, not fitted"),
    ]
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert lines["_held out"].get_xydata().tolist() == [[g, table.speedups[g, 1]] for g in (8, 16, 32, 64)]
    assert lines["_amdahl"].get_ydata()[7] == pytest.approx(fit.predict(8).value)
    assert [band.get_label() for band in axes.collections] == ["_interval"]
    first = save(figure, tmp_path / "a.png").read_bytes()
    assert save(scaling_fit(points, curves), tmp_path / "b.png").read_bytes() == first


def test_the_figure_tells_gangs_on_more_nodes_apart_and_has_no_band_without_an_interval():
    points, _ = figure_tables(fit_scaling(measured_table("bert-t4")), ())
    assert (points["use"] == "on more nodes").sum() == 18
    table = MeasuredTable({(1, 1): 1.0, (2, 1): 1.8}, "strong", knows_nodes=False)
    figure = scaling_fit(*figure_tables(fit_scaling(table, "amdahl"), ((8, 1),)))
    assert "no band: as many parameters as fitted points" in figure.legends[0].get_title().get_text()
    with pytest.raises(InputError, match="scaling fit: no column use"):
        scaling_fit(pd.DataFrame({"gpus": [1], "speedup": [1.0]}), pd.DataFrame())


def test_the_held_out_gangs_of_the_shared_tables(shared_data):
    file = shared_data / "scaling" / "strong_a100_elasticflow.csv"
    found = told("fit", file, "--by", "workload,global_batch", "--on", "1,2,4", "--predict", "8,16")
    assert len(found["gangs"]) == 31
    means = found["mean_absolute_error"]
    assert means["amdahl"] < means["power"] < means["linear"]
    assert means["amdahl"] == pytest.approx(0.13, abs=0.01)
    assert 0.85 <= found["covered"] / found["intervals"] <= 0.95


def test_every_size_is_predicted_from_the_others(file):
    found = told("fit", file, "--by", "model")
    # Table a has 2, 4, 8 and 16 GPUs beyond 1, table b has 2, 4 and 8; each is left out once.
    assert [(one["model"], one["gpus"]) for one in found["gangs"]] == [
        *(("a", gpus) for gpus in (2, 4, 8, 16)),
        *(("b", gpus) for gpus in (2, 4, 8)),
    ]
    of_four = next(one for one in found["gangs"] if (one["model"], one["gpus"]) == ("a", 4))
    alone = told("fit", f"{file}#model=a", "--on", "1,2,8,16", "--predict", "4")
    assert of_four["predicted"] == next(one["predicted"] for one in alone["gangs"] if one["gpus"] == 4)
    assert "each size predicted from the others" in run("fit", file, "--by", "model").stdout


def test_tables_with_too_few_sizes_to_leave_one_out_are_told(tmp_path):
    path = tmp_path / "few.csv"
    rows = ["a,1,1", "a,2,1.8", "a,4,3.1", "a,8,5", "b,1,1", "b,2,1.9"]
    path.write_text("\n".join(["model,gpus,speedup", *rows]) + "\n")
    found = told("fit", path, "--by", "model")
    assert {one["model"] for one in found["gangs"]} == {"a"}
    assert found["not_measured"] == [{"model": "b", "gpus": 2, "nodes": 1}]


@pytest.mark.many(fast=1)
@pytest.mark.parametrize("command", [("run",), ("plan",), ("compare", "--seeds", "2")])
def test_commands_say_once_that_a_table_falls(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(
        "{job: {trials: 2, max_iterations: 3}, workload: {bundle: digits-mlp, scaling: bert-t4, iteration_s: 10},"
        " policy: sha-fixed, cloud: {instance_type: {name: m, price_usd_per_hour: 3.6, gpus_per_instance: 1}, rescale_s: 1}}"
    )
    done = CliRunner().invoke(app, [command[0], "s.yaml", *command[1:], "--json"])
    assert done.exit_code == 0, done.output
    assert done.stderr.count("note: workload.scaling bert-t4: 5 GPUs are slower than the next smaller gang") == 1
    assert json.loads(done.stdout)
