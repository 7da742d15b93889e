"""What users ask of tables: `--sort`, `--top`, `--columns`, `--format`."""

import csv
import io
import json

import pytest
from typer.testing import CliRunner

from elastune.experiments.cli.app import app
from elastune.experiments.cli.table_views import as_latex, as_markdown, require_column, sorted_rows

AZURE = ("prices", "list", "--provider", "azure")


def rows_of(*options):
    done = CliRunner().invoke(app, [*AZURE, "--format", "csv", *options])
    assert done.exit_code == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout.strip())))


def test_rows_are_in_the_order_of_the_numbers_and_not_of_their_texts():
    prices = [float(row["on demand, USD/h"]) for row in rows_of("--sort", "on demand")]
    assert prices == sorted(prices)
    assert len(prices) > 10
    assert [float(row["on demand, USD/h"]) for row in rows_of("--sort", "-on demand")] == prices[::-1]
    assert [row["on demand, USD/h"] for row in rows_of("--sort", "on demand", "--top", "2")] == ["0.526", "0.752"]


@pytest.mark.parametrize(
    ("cells", "largest_first", "order"),
    [
        (["10 [9, 11]", "9 [1, 20]", "-", "1,800"], False, [1, 0, 3, 2]),
        (["10 [9, 11]", "9 [1, 20]", "-", "1,800"], True, [3, 0, 1, 2]),
        (["100 %", "9 %", ""], False, [1, 0, 2]),
        (["-1.5", "0.1", "1e-3"], False, [0, 2, 1]),
        (["seer", "asha", "-"], True, [0, 1, 2]),
        (["1 x A", "1 x B"], True, [0, 1]),
    ],
)
def test_a_cell_counts_by_its_first_number_and_an_empty_one_is_last(cells, largest_first, order):
    assert sorted_rows([(cell,) for cell in cells], 0, largest_first=largest_first) == order


def test_columns_that_name_a_row_stay():
    assert list(rows_of("--columns", "spot,GPUs")[0]) == ["machine", "GPUs", "spot"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sort", "price"), "--sort: there is no column 'price'"),
        (("--columns", "gpu,regiom"), "--columns: there is no column 'regiom'; did you mean 'region'?"),
        (("--columns", ","), "--columns ',' holds no name"),
        (("--top", "0"), "must be from 1"),
        (("--json", "--top", "2"), "--json prints none"),
    ],
)
def test_what_no_table_has_is_refused(options, message):
    done = CliRunner().invoke(app, [*AZURE, *options], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert message in done.stderr


@pytest.mark.many(fast=6)
@pytest.mark.parametrize(
    ("command", "work"),
    [
        (("compare", "tight"), "experiments.comparisons.comparison.compare"),
        (("ablate", "tight"), "experiments.comparisons.ablation.ablate"),
        (("plan", "tight"), "experiments.plans.planning.make_plans"),
        (("plan", "tight", "--deadlines", "900,1200"), "experiments.plans.planning.make_plans"),
        (
            ("recommend", "tight", "--set", "job.deadline_s=900", "--set", "job.budget_usd=10"),
            "experiments.comparisons.recommendation.recommend",
        ),
        (("audit", "digits-mlp", "--machine", "p3.2xlarge"), "experiments.comparisons.audit.audit"),
    ],
    ids=lambda given: " ".join(given[:1]) if isinstance(given, tuple) else "",
)
@pytest.mark.parametrize("options", [("--sort", "-nothing"), ("--columns", "runs,nothing"), ("--columns", "nothing")])
def test_an_unknown_column_is_refused_before_any_work(command, work, options, monkeypatch):
    def worked(*_, **__):
        raise AssertionError("the work was begun")

    monkeypatch.setattr(f"elastune.{work}", worked)
    done = CliRunner().invoke(app, [*command, *options])
    assert done.exit_code == 2, done.exception
    assert f"{options[0]}: there is no column" in done.stderr


def test_an_unknown_column_of_a_sweep_writes_no_table(tmp_path):
    (tmp_path / "s.yaml").write_text("base: tight\naxes: {policy: [random-fixed]}\nseeds: 1\n", encoding="utf-8")
    folder, file = tmp_path / "sweep", tmp_path / "t.csv"
    ran = CliRunner().invoke(app, ["sweep", str(tmp_path / "s.yaml"), "-o", str(folder), "--jobs", "1"])
    assert ran.exit_code == 0, ran.stderr
    done = CliRunner().invoke(app, ["results", "show", str(folder), "--sort", "nothing", "--csv", str(file)])
    assert (done.exit_code, file.exists()) == (2, False), done.stderr


def test_a_heading_of_several_tables_is_one_name():
    require_column("makespan", "--sort", ["planner", "makespan, s", "plan", "makespan, s"])


def test_an_empty_json_view_is_json():
    assert json.loads(CliRunner().invoke(app, [*AZURE, "--json"]).stdout)


def test_text_of_users_is_no_markup_of_a_table():
    assert as_markdown(["a|b"], [["x|y"]], [True]) == "| a\\|b |\n| ---: |\n| x\\|y |\n"
    body = as_latex(["50 %"], [[r"a_b & \c"]], [False]).splitlines()
    assert body[2] == r"50 \% \\"
    assert body[4] == r"a\_b \& \textbackslash{}c \\"
