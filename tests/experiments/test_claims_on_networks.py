"""Claims about networks are decided on the committed trainings: the gain at equal FLOPs, the steps of lambda, the page."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from elastune.experiments.claims import load_claims, trainings
from elastune.experiments.claims.drawing import prepare
from elastune.experiments.claims.entries import CATALOG
from elastune.experiments.claims.tables import markdown
from elastune.experiments.claims.trainings import ClaimTrainings, training_table, with_gain_over_standard
from elastune.experiments.claims.verdicts import verdicts
from elastune.experiments.cli.app import app
from elastune.experiments.profiling import trade_off
from elastune.sim.model.errors import InputError
from elastune.traces.workloads.deepmoe.compared import (
    FEW_NETWORKS,
    NETWORKS,
    RATE_DROPPED,
    STANDARD,
    ComparedNetwork,
    TrainedNetwork,
)

TABLE = CATALOG / "deepmoe-trainings.csv"
DOCS = CATALOG.resolve().parents[1] / "docs"
RECORDS = {record["id"]: record for record in json.loads((DOCS / "claims.json").read_text())}


def row(network, flops, test, *, seed=0, sparsity=0.0, data="a", body="vgg"):
    told = dict.fromkeys(TrainedNetwork._fields, 0.0)
    told |= {"data": data, "body": body, "network": network, "width": flops, "sparsity": sparsity, "seed": seed}
    return {
        **told,
        "epochs": 2,
        "flops": flops,
        "test": test,
        "active": "" if network in (STANDARD, RATE_DROPPED) else "0.5",
    }


def standards(**options):
    known = ((100.0, 0.8), (400.0, 0.9))
    dropped = [row(RATE_DROPPED, flops, test, **options) for flops, test in known]
    return [*dropped, *(row(STANDARD, flops, test - 0.1, **options) for flops, test in known)]


def test_the_gain_is_over_standard_networks_of_equal_flops_and_the_same_seed_and_data():
    rows = [
        *standards(seed=0),
        row("wide DeepMoE", 200.0, 0.87, seed=0),  # half-way in the logarithm: 0.85
        row("wide DeepMoE", 99.0, 0.9, seed=0),  # narrower than any standard network
        row("wide DeepMoE", 401.0, 0.9, seed=0),
        row("wide DeepMoE", 400.0, 0.8, seed=1),  # no standard network of this seed
        *standards(seed=1, data="b"),
        row("wide DeepMoE", 400.0, 0.8, seed=1, data="b"),
    ]
    gains = with_gain_over_standard(pd.DataFrame(rows, index=range(7, 7 + len(rows))))
    none = [np.nan] * 4
    for name, higher in (("accuracy_over_standard", 0.0), ("accuracy_over_constant_rate", 0.1)):
        expected = [*none, 0.02 + higher, np.nan, np.nan, np.nan, *none, -0.1 + higher]
        np.testing.assert_allclose(gains[name], expected, atol=1e-12)


def trained(tmp_path, rows, claim="D1"):
    pd.DataFrame(rows).to_csv(tmp_path / "rows.csv", index=False)
    return ClaimTrainings(load_claims()[claim], "networks", tmp_path / "rows.csv")


def decided(monkeypatch, tmp_path, rows, claim="D1"):
    drawing = prepare([claim], "full", results=tmp_path)
    monkeypatch.setattr(ClaimTrainings, "rows", lambda _: pd.DataFrame(rows))
    (record,) = verdicts(drawing, "full")
    return record


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [([0.01, 0.02, 0.03], "holds"), ([-0.01, -0.02, -0.03], "does not hold"), ([-0.02, 0.02, 0.03], "not shown")],
)
def test_d1_is_decided_by_the_interval_of_the_gain_over_seeds(monkeypatch, tmp_path, gains, verdict):
    rows = []
    for seed, gain in enumerate(gains):
        rows += [*standards(seed=seed), row("wide DeepMoE", 200.0, 0.85 + gain, seed=seed, sparsity=0.001)]
        rows += [row("wide DeepMoE", 200.0, 0.1, seed=seed, sparsity=0.002)]  # beyond the claim's condition
    record = decided(monkeypatch, tmp_path, rows)
    assert (record["verdict"], record["measured"]) == (verdict, pytest.approx(np.mean(gains)))
    (test,) = record["tests"]
    assert (test["needed"], test["pairs"], test["seeds"]) == ("at least 0", 3, 3)


def test_d2_holds_partly_where_flops_rise_at_one_step(monkeypatch, tmp_path):
    flops = {0.0: 400.0, 0.0002: 500.0, 0.0005: 300.0, 0.001: 200.0, 0.002: 100.0, 0.005: 50.0}
    rows = [row("wide DeepMoE", needs, 0.9, seed=seed, sparsity=at) for seed in range(3) for at, needs in flops.items()]
    record = decided(monkeypatch, tmp_path, rows, "D2")
    assert record["verdict"] == "partly"
    assert [test["verdict"] for test in record["tests"]] == ["does not hold", *["holds"] * 4]
    assert [test["value"] for test in record["tests"]] == pytest.approx([1.25, 0.6, 2 / 3, 0.5, 0.5], rel=1e-3)


def committed():
    return pd.read_csv(TABLE)


def test_the_numbers_of_d1_are_those_of_the_committed_table():
    rows, by_bundle = committed(), {}
    for (data, body, _), part in rows.groupby(["data", "body", "seed"]):
        standard = part[part["network"] == RATE_DROPPED].sort_values("flops")
        for _, one in part[(part["network"] == "wide DeepMoE") & (part["sparsity"] <= 0.001)].iterrows():
            if standard["flops"].min() <= one["flops"] <= standard["flops"].max():
                line = np.interp(np.log(one["flops"]), np.log(standard["flops"]), standard["test"])
                by_bundle.setdefault((data, body), []).append(one["test"] - line)
    (test,) = RECORDS["D1"]["tests"]
    assert test["value"] == pytest.approx(np.mean([np.mean(gains) for gains in by_bundle.values()]), rel=1e-3)
    assert test["pairs"] == sum(map(len, by_bundle.values()))
    assert RECORDS["D1"]["verdict"] == test["verdict"]


def test_the_numbers_of_d2_are_those_of_the_committed_table():
    wide = committed().query("network == 'wide DeepMoE'")
    for test, (before, after) in zip(
        RECORDS["D2"]["tests"],
        [(0, 2e-4), (2e-4, 5e-4), (5e-4, 1e-3), (1e-3, 2e-3), (2e-3, 5e-3)],
        strict=True,
    ):
        flops = wide.pivot_table(index=["data", "body", "seed"], columns="sparsity", values="flops")
        ratios = np.log((flops[after] / flops[before]).dropna())
        mean = np.exp(ratios.groupby(["data", "body"]).mean().mean())
        assert test["value"] == pytest.approx(mean, rel=1e-3), test["gain"]
        assert test["pairs"] == len(ratios)


def test_the_committed_table_is_what_the_command_makes():
    """Each pair of data and body has all networks or the few, on the same seeds and as many epochs."""
    for (data, body), part in committed().groupby(["data", "body"]):
        networks = set(part[["network", "width", "sparsity"]].itertuples(index=False, name=None))
        known = [{(one.name, one.width, one.sparsity) for one in some} for some in (NETWORKS, FEW_NETWORKS)]
        assert networks in known, (data, body)
        assert set(part["seed"]) == set(range(5))
        assert len(part) == 5 * len(networks)
        told = [text for text in RECORDS["D1"]["conditions"] if text.startswith(f"{data}, {body}:")]
        few = " --few" if networks == known[1] else ""
        assert f"trade_off FILE --data {data} --body {body}{few} --seeds 5 --epochs 12`" in told[0]


def test_the_tables_of_the_page_are_those_of_the_committed_rows():
    page = (DOCS / "deepmoe.md").read_text()
    for _, part in training_table(committed()).groupby(["data", "body"], sort=False):
        assert markdown(part.drop(columns=["data", "body"])) in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[0].pop("flops"), "rows.csv is no table of trainings: its columns must be data, network"),
        (lambda rows: rows.pop(), "D1 networks: there is no network 'wide DeepMoE'; known: standard"),
    ],
)
def test_a_table_that_does_not_fit_is_told_by_name(tmp_path, change, message):
    rows = [row("standard", 100.0, 0.8), row("wide DeepMoE", 100.0, 0.8)]
    change(rows)
    rows = [{name: one[name] for name in rows[0]} for one in rows]
    made = trained(tmp_path, rows)
    with pytest.raises(InputError, match=message):
        made.evidence_rows(made.claim.endpoint.contrasts[0])


def test_a_condition_that_is_none_is_told(tmp_path):
    made = trained(tmp_path, [row("standard", 100.0, 0.8), row("wide DeepMoE", 100.0, 0.8)])
    contrast = made.claim.endpoint.contrasts[0].model_copy(update={"where": "lambda_ <= 1"})
    with pytest.raises(InputError, match="D1 networks: where 'lambda_ <= 1': name 'lambda_' is not defined"):
        made.evidence_rows(contrast)


def test_without_torch_the_smoke_size_says_why_it_trains_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    result = CliRunner().invoke(app, ["claims", "D1", "--smoke", "--json"])
    assert result.exit_code == 0, result.output
    (record,) = json.loads(result.stdout)
    assert (record["verdict"], record["where"]) == ("not testable here", "nothing is trained")
    assert "the smoke size trains, which needs torch: pip install 'elastune[bridge]'" in record["conditions"][-1]


@pytest.mark.slow
def test_the_smoke_size_trains_once_and_decides_nothing(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="the bridge extra is not installed")
    pytest.importorskip("mlxtend", reason="the bridge extra is not installed")
    few = (
        *(ComparedNetwork(RATE_DROPPED, "none", width) for width in (0.125, 0.5)),
        *(ComparedNetwork("wide DeepMoE", "mixture", 0.25, sparsity) for sparsity in (2e-4, 5e-4)),
    )
    monkeypatch.setattr(trainings, "FEW_NETWORKS", few)
    monkeypatch.chdir(tmp_path)
    first = CliRunner().invoke(app, ["claims", "D2", "--smoke", "--json"])
    assert first.exit_code == 0, first.output
    assert "4 runs and plans are missing" in first.stderr
    (record,) = json.loads(first.stdout)
    assert (record["verdict"], record["size"]) == ("smoke", "smoke")
    assert record["tests"][1]["pairs"] == 1
    again = CliRunner().invoke(app, ["claims", "D2", "--smoke", "--json"])
    assert "missing" not in again.stderr
    assert json.loads(again.stdout) == [record]


def test_both_bodies_and_the_few_networks_are_options_of_the_command(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="the bridge extra is not installed")
    from elastune.traces.workloads.deepmoe import trade_off as measured

    asked = {}
    monkeypatch.setattr(trade_off, "splits_of", lambda data, folder: (data, folder))
    monkeypatch.setattr(measured, "measure", lambda *at, **options: asked.update(options, at=at) or ())
    out = tmp_path / "rows.csv"
    assert trade_off.main([str(out), "--data", "fashion-mnist", "--body", "resnet", "--few", "--seeds", "2"]) == 0
    assert (asked["at"], asked["body"], asked["seeds"]) == (
        (out, ("fashion-mnist", None), "fashion-mnist"),
        "resnet",
        2,
    )
    assert asked["networks"] == FEW_NETWORKS


def test_the_command_reads_the_table_and_says_how_to_train_it_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["claims", "D1", "--json"])
    assert result.exit_code == 0, result.output
    (record,) = json.loads(result.stdout)
    assert record == RECORDS["D1"]
    shown = CliRunner().invoke(app, ["claims", "D1"], env={"COLUMNS": "400"}).stdout
    for data, body, few in (("mnist5k", "vgg", ""), ("fashion-mnist", "resnet", " --few")):
        assert f"profiling.trade_off FILE --data {data} --body {body}{few} --seeds 5 --epochs 12" in shown
    assert not list(tmp_path.iterdir())
