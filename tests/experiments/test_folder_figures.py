"""`elastune results DIR --figure NAME`: the figures of the catalogue from any sweep."""

from __future__ import annotations

import json

import pytest
from test_sweep_spec import BASE
from typer.testing import CliRunner

from elastune import sweep
from elastune.experiments.claims.folder_figures import DRAWABLE, FROM_PLANS, draw_rows
from elastune.experiments.cli.app import app
from elastune.experiments.figures.tables import MOST_POLICIES
from elastune.experiments.sweeps.grid import SweepSpec
from elastune.experiments.sweeps.store import Store
from elastune.experiments.sweeps.summary import condition
from elastune.sim.model.errors import InputError

POLICIES = ["seer", "sha-fixed", "asha-fixed"]
ONE_CELL = "job.deadline_s == 900 and cloud.rescale_s == 10"
AXES = {"policy": POLICIES, "job.deadline_s": [600, 900], "cloud.rescale_s": [5, 10]}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept") / "out"
    sweep(SweepSpec.of({"base": BASE, "axes": AXES, "seeds": 2}), folder, jobs=1, with_journals=True)
    return folder


def rows_of(folder, where=None):
    return Store(folder).read(None if where is None else condition(where)).to_pandas()


@pytest.fixture
def results(tmp_path, monkeypatch, swept):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["results", str(swept), *map(str, arguments)])


@pytest.mark.many(fast=3)
@pytest.mark.parametrize("name", DRAWABLE)
def test_each_figure_is_drawn_from_a_sweep(results, tmp_path, name):
    done = results("--figure", name, "--where", ONE_CELL, *(["--group", "job.trials"] if name == "sensitivity" else []),
                   *(["--group", "job.trials,job.deadline_s"] if name == "score-grid" else []))  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.many(fast=5)
@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        (
            "ledger",
            (),
            r"there vary job.deadline_s (2 values) and cloud.rescale_s (2 values); draw a part of the table",
        ),
        ("score-over-time", ("--where", "cloud.rescale_s == 5"), "there vary job.deadline_s (2 values);"),
        ("cost-over-deadline", (), "there vary cloud.rescale_s (2 values);"),
        ("sensitivity", (), "in these rows job.deadline_s (2 values) and cloud.rescale_s (2 values) vary: name it by"),
        ("sensitivity", ("--where", ONE_CELL), "in these rows no column but the policy varies"),
        ("sensitivity", ("--group", "job.deadline_s,job.trials"), "drawn over 1 of the columns, but --group names 2"),
        ("score-grid", ("--where", ONE_CELL), "no column but the policy varies: name them by --group"),
        ("sensitivity", ("--group", "job.deadlines"), "did you mean 'job.deadline_s'"),
        ("ledger", ("--group", "job.trials"), "ledger has axes of its own"),
        ("ledger", ("--measure", "regret"), "ledger shows measures of its own"),
        ("gantt", ("--against", "seer"), "gantt compares with no policy"),
        ("differences", ("--against", "sear"), "no policy sear in the table, which has asha-fixed, seer, sha-fixed"),
        ("differences", ("--policies", "rubberband"), "no policy rubberband in the table"),
        ("frontier", (), "frontier is drawn from plans, not from runs"),
        ("networks", (), "networks is drawn from trained networks, not from runs"),
        ("score-overtime", (), "there is no figure 'score-overtime'; did you mean 'score-over-time'"),
        ("ledger", ("--profile",), "--csv, --profile and --iqm are of a table"),
        ("ledger", ("--measure", "regret,score"), "a figure is of one measure, but --measure names 2"),
        ("ledger", ("-o", "ledger.gif"), "cannot write ledger.gif: a figure is one of .png, .pdf, .svg"),
    ],
)
def test_what_it_refuses_names_what_varies_or_would_do(results, tmp_path, name, arguments, told):
    done = results("--figure", name, *arguments)
    assert done.exit_code == 2
    assert told in done.stderr
    assert not list(tmp_path.glob("*.png"))


def test_options_of_a_figure_without_one_are_refused(results):
    done = results("--policies", "seer")
    assert (done.exit_code, done.stderr.count("give --figure NAME")) == (2, 1)


def test_the_column_that_varies_is_the_axis(swept):
    figure, shown = draw_rows(swept, rows_of(swept, "job.deadline_s == 900"), "sensitivity", measure="cost_usd")
    assert figure.axes[0].get_xlabel() == "rescale (s)"
    assert figure.axes[0].get_ylabel() == "cost (USD)"
    assert set(shown) == set(POLICIES)
    grid, _ = draw_rows(swept, rows_of(swept), "score-grid", reference="sha-fixed")
    assert grid.axes[0].get_ylabel() == "rescale (s)"
    assert {axes.get_title(loc="left") for axes in grid.axes[:2]} == {"seer − sha-fixed", "asha-fixed − sha-fixed"}  # noqa: RUF001  as it is drawn


@pytest.mark.slow
def test_there_are_at_most_eight_policies_and_those_that_were_named(swept, results):
    rows = rows_of(swept, ONE_CELL)
    policies = [f"p{place}" for place in range(12)]
    table = rows[rows["policy"] == "seer"].head(1)
    many = table.loc[table.index.repeat(12)].assign(policy=policies, regret=[place / 12 for place in range(12)])
    figure, shown = draw_rows(swept, many, "ledger", named=["p11"])
    assert shown == ["p0", "p11", *(f"p{place}" for place in range(1, 7))]
    assert len(shown) == MOST_POLICIES == len(figure.axes[0].get_yticklabels())
    _, all_named = draw_rows(swept, many, "ledger", named=policies)
    assert len(all_named) == 12
    done = results("--figure", "ledger", "--where", ONE_CELL, "--json", "-o", "l.svg")
    assert json.loads(done.stdout) == {
        "folder": str(swept),
        "figure": "l.svg",
        "policies": shown_of(rows),
        "left_out": [],
    }


def shown_of(rows):
    """The reference, then the others by their regret."""
    means = rows.groupby("policy")["regret"].mean().drop("sha-fixed").sort_values()
    return ["sha-fixed", *means.index]


@pytest.mark.parametrize("name", FROM_PLANS)
def test_figures_of_plans_say_where_they_come_from(swept, name):
    with pytest.raises(InputError, match="drawn from plans, not from runs"):
        draw_rows(swept, rows_of(swept), name)
