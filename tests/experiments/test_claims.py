"""Claims are decided by the bounds in their entries: the gain, its interval, the cells, the words, the page."""

from __future__ import annotations

import json
import math
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from elastune.experiments.claims import load_claims, verdicts
from elastune.experiments.claims.drawing import Failures, needed, prepare
from elastune.experiments.claims.entries import CATALOG, Contrast, Endpoint
from elastune.experiments.claims.evidence import MeanGain, NeededGain, evidence_of
from elastune.experiments.claims.page import page, write_page
from elastune.experiments.cli.app import app
from elastune.experiments.statistics.differences import HIGHER_IS_BETTER
from elastune.sim.model.errors import InputError

SEEDS = 12
DOCS = CATALOG.resolve().parents[1] / "docs"


def runs(values, *, measure="regret", family="a", direction="minimize", **settings):
    """Rows of `SEEDS` seeds by policy: a number for each, or one for all of them."""
    told = {"bundle_family": family, "bundle_sha256": family, "direction": direction, **settings}
    return [
        {"policy": policy, "seed": seed, measure: float(value), **told}
        for policy, of_policy in values.items()
        for seed, value in enumerate(np.broadcast_to(of_policy, SEEDS))
    ]


def evidence(rows, cells=(), *, measure="regret", kind="difference", effect=0.05, **contrast):
    against = contrast.pop("against", ("fixed",))
    endpoint = Endpoint(measure=measure, kind=kind, least_effect=effect)
    asked = Contrast(experiment="e", policies=("seer",), against=against, **contrast)
    return evidence_of(endpoint, asked, pd.DataFrame(rows), list(cells))


def noise(scale, seed=0):
    return scale * np.random.default_rng(seed).uniform(-1, 1, SEEDS)


def test_a_gain_is_by_how_much_the_policy_is_better_and_families_weigh_equally():
    rows = runs({"seer": 0.1, "fixed": 0.4}) + runs({"seer": 0.1, "fixed": 0.2}, family="b")
    rows += runs({"seer": 0.1, "fixed": 0.2}, family="b", cell=2)
    (one,) = evidence(rows, ["cell"], above=0)
    assert one.pooled.value == pytest.approx((0.3 + 0.1) / 2)
    assert (one.pooled.pairs, one.pooled.families, one.one_sided) == (36, 2, 0)
    assert one.name == "regret, fixed minus seer"


def test_a_run_that_was_cut_has_no_cost():
    rows = runs({"seer": 1.0, "fixed": [4.0] * 6 + [0.1] * 6}, measure="cost_usd")
    for row in rows:
        row["completed"] = row["cost_usd"] >= 1.0
    (one,) = evidence(rows, measure="cost_usd", kind="ratio", above=1)
    assert one.pooled.value == pytest.approx(4.0)
    assert (one.pooled.pairs, one.one_sided, one.unfinished) == (6, 6, 6)


def test_pairs_of_which_both_were_cut_are_unfinished_and_those_without_a_plan_are_not():
    rows = runs({"seer": [1.0] * 8 + [math.nan] * 4, "fixed": 2.0}, measure="cost_usd")
    for row in rows:
        row["completed"] = None if math.isnan(row["cost_usd"]) else row["seed"] >= 3
    (one,) = evidence(rows, measure="cost_usd", kind="ratio", above=1)
    assert (one.pooled.pairs, one.unfinished, one.one_sided) == (5, 3, 4)
    (alone,) = evidence(rows, measure="cost_usd", against=(), least=1)
    assert (alone.pooled.pairs, alone.unfinished) == (5, 3)


def test_a_ratio_is_a_geometric_mean_and_of_what_should_be_high_the_policy_is_above():
    cost = runs({"seer": [1.0, 4.0] * 6, "fixed": 4.0}, measure="cost_usd")
    (one,) = evidence(cost, measure="cost_usd", kind="ratio", above=1)
    assert one.pooled.value == pytest.approx(2.0)
    assert one.name == "cost_usd, fixed over seer"
    started = runs({"seer": 30.0, "fixed": 20.0}, measure="trials_started")
    (one,) = evidence(started, measure="trials_started", kind="ratio", above=1)
    assert one.pooled.value == pytest.approx(1.5)
    assert one.name == "trials_started, seer over fixed"


def test_a_change_along_a_setting_is_paired_by_cell_and_seed():
    rows = [
        row
        for scaling, lead in (("linear", 0.02), ("bert", 0.12))
        for cell in (1, 2)
        for row in runs({"seer": 0.1, "fixed": 0.1 + lead * cell}, scaling=scaling, cell=cell)
    ]
    (one,) = evidence(rows, ["cell", "scaling"], along="scaling", values=("linear", "bert"), above=0)
    assert one.pooled.value == pytest.approx(0.15)
    assert one.name == "regret, fixed minus seer, change along scaling from linear to bert"
    assert [(cell.settings, round(cell.found.value, 9)) for cell in one.cells] == [
        ({"cell": 1, "scaling": "linear to bert"}, 0.1),
        ({"cell": 2, "scaling": "linear to bert"}, 0.2),
    ]


def test_a_setting_that_moves_with_the_one_of_the_change_tells_no_cells_apart():
    rows = [
        row
        for quantum, minimum, lead in ((1, 0, 0.3), (60, 60, 0.1))
        for cell in (1, 2)
        for row in runs({"seer": 0.1, "fixed": 0.1 + lead}, quantum=quantum, minimum=minimum, cell=cell)
    ]
    (one,) = evidence(rows, ["quantum", "minimum", "cell"], along="quantum", below=0)
    assert one.pooled.value == pytest.approx(-0.2)
    assert [cell.settings for cell in one.cells] == [{"cell": cell, "quantum": "1 to 60"} for cell in (1, 2)]


def test_without_values_a_change_goes_from_each_setting_to_the_next():
    rows = [row for deadline in (3.0, 1.0, 2.0) for row in runs({"seer": 0.1 * deadline}, deadline=deadline)]
    (one,) = evidence(rows, ["deadline"], against=(), along="deadline", most=0.02)
    assert [cell.settings["deadline"] for cell in one.cells] == ["1.0 to 2.0", "2.0 to 3.0"]
    assert one.pooled.value == pytest.approx(0.1)


def test_runs_without_a_plan_are_counted_and_make_no_pair():
    rows = runs({"seer": 0.1, "fixed": [0.2] * 9 + [math.nan] * 3})
    (one,) = evidence(rows, above=0)
    assert (one.pooled.pairs, one.one_sided) == (9, 3)
    assert one.pooled.value == pytest.approx(0.1)


def test_p_values_are_corrected_over_the_baselines():
    rows = runs({"seer": 0.1, "fixed": 0.2 + noise(0.05), "other": 0.3 + noise(0.05, 1)})
    two = evidence(rows, against=("fixed", "other"), above=0)
    # All 12 differences have one sign: 2 / 2^12 each, times 2.
    assert [one.pooled.p for one in two] == [pytest.approx(2 / 2**12)] * 2
    assert [one.pooled.p_holm for one in two] == [pytest.approx(4 / 2**12)] * 2


def found(value, low, high, p=0.001):
    return MeanGain(value, low, high, p, p, 12, 1, 1, 12)


@pytest.mark.parametrize(
    ("bound", "finding", "side"),
    [
        (NeededGain(0, is_strict=True), found(0.1, 0.05, 0.2), "right"),
        (NeededGain(0, is_strict=True), found(0.1, 0.05, 0.2, p=0.2), "open"),
        (NeededGain(0, is_strict=True), found(0.1, 0.0, 0.2), "open"),
        (NeededGain(0, is_strict=True), found(-0.1, -0.2, -0.05), "wrong"),
        (NeededGain(0, is_strict=True), found(-0.01, -0.02, -0.005), "open"),
        (NeededGain(most=1, is_strict=True), found(0.5, 0.4, 0.6), "right"),
        (NeededGain(1), found(1.0, 1.0, 1.0, p=1.0), "right"),
        (NeededGain(1), found(0.9, 0.85, 0.99, p=1.0), "wrong"),
        (NeededGain(0.95, 1.05), found(1.0, 0.96, 1.04, p=1.0), "right"),
        (NeededGain(0.95, 1.05), found(1.0, 0.96, 1.06, p=1.0), "open"),
        (NeededGain(0, is_strict=True), found(math.nan, math.nan, math.nan, p=math.nan), "open"),
    ],
)
def test_an_interval_is_on_the_claim_s_side_on_the_other_or_on_both(bound, finding, side):
    assert bound.side(finding, effect=0.05) == side


def grid(*leads):
    """Leads of `seer` in cells T = 1, 2, ... of scaling `b`, and none in scaling `a`."""
    return [
        row
        for place, lead in enumerate(leads, start=1)
        for scaling, gain in (("a", 0.0), ("b", lead))
        for row in runs(
            {"seer": 0.5 + noise(0.01), "fixed": 0.5 + gain + noise(0.01, 1)}, deadline_r_tau=place, scaling=scaling
        )
    ]


@pytest.mark.parametrize(
    ("rows", "word", "where"),
    [
        (runs({"seer": 0.1, "fixed": 0.2 + noise(0.05)}), "holds", ""),
        (runs({"seer": 0.1, "fixed": 0.1 + noise(0.05)}), "not shown", ""),
        (runs({"seer": 0.2, "fixed": 0.1 + noise(0.05)}), "does not hold", ""),
        (runs({"seer": 0.1, "fixed": math.nan}), "not testable here", ""),
        (grid(0.2, 0.2, 0.2), "holds", ""),
        (grid(0.2, -0.2, 0.0), "partly", "in 1 of 6 cells"),
    ],
)
def test_the_word_follows_from_the_whole_and_the_cells(rows, word, where):
    cells = [name for name in ("deadline_r_tau", "scaling") if name in rows[0]]
    (one,) = evidence(rows, cells, above=0)
    told = verdicts._test(one)
    assert (told["verdict"], told["where"]) == (word, where)


def test_where_names_the_settings_in_which_most_cells_are():
    (one,) = evidence(grid(0.2, 0.2, -0.2), ["deadline_r_tau", "scaling"], above=0)
    told = verdicts._test(one)
    assert told["verdict"] == "partly"
    assert told["where"] == "in 2 of 6 cells, most of scaling b"
    assert told["where_not"] == "in 1 of 6 cells"


def test_a_claim_holds_where_all_its_tests_do_and_smoke_decides_nothing():
    claim = SimpleNamespace(trainings={})
    test = {"gain": "gain", "policy": "a", "against": "b"}
    holds, not_so = (test | {"verdict": word, "experiment": word} for word in ("holds", "does not hold"))
    holds |= {"where": "", "where_not": ""}
    not_so |= {"where": "", "where_not": "in 2 of 3 cells"}
    assert verdicts._verdict(claim, [holds], is_smoke=False) == ("holds", "holds, gain: holds")
    assert verdicts._verdict(claim, [not_so], is_smoke=False)[0] == "does not hold"
    word, where = verdicts._verdict(claim, [holds, not_so], is_smoke=False)
    assert word == "partly"
    assert where == "holds, gain: holds; does not hold, gain: does not hold, the opposite in 2 of 3 cells"
    assert verdicts._verdict(claim, [holds], is_smoke=True)[0] == "smoke"
    assert verdicts._verdict(claim, [], is_smoke=False)[0] == "not testable here"


def test_policies_whose_own_measures_came_out_the_same_are_told_together():
    told = {"experiment": "real", "against": None, "where": "", "where_not": "", "verdict": "holds"}
    tests = [told | {"policy": name, "gain": f"error of {name}, where x"} for name in ("seer", "sha")]
    tests.append(told | {"policy": "asha", "gain": "error of asha, where x", "verdict": "not shown"})
    _, where = verdicts._verdict(SimpleNamespace(trainings={}), tests, is_smoke=False)
    assert where == "real, error of seer, sha, where x: holds; real, error of asha, where x: not shown"


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["holds", "holds"], "holds"),
        (["holds", "not testable here"], "partly"),
        (["partly", "does not hold"], "partly"),
        (["not shown", "does not hold"], "does not hold"),
        (["not shown", "not testable here"], "not shown"),
        (["not testable here"], "not testable here"),
    ],
)
def test_the_word_for_a_claim_follows_from_those_for_its_tests(words, word):
    assert verdicts.word_of_all(words) == word


def test_every_claim_has_a_bound():
    for claim in load_claims().values():
        assert any(contrast.decides for contrast in claim.endpoint.contrasts), claim.id


def test_the_full_size_takes_six_hours_of_two_cores_at_most(tmp_path, shared_data):
    parts = needed(prepare([], "full", results=tmp_path, data=[shared_data]), is_counting=True)
    assert sum(part.core_s for part in parts) <= 6 * 3600 * 2


def test_the_page_is_what_its_records_say():
    records = json.loads((DOCS / "claims.json").read_text())
    assert (DOCS / "claims.md").read_text() == page(records)
    claims = load_claims()
    assert [record["id"] for record in records] == list(claims)
    for record in records:
        claim = claims[record["id"]]
        assert (record["claim"], record["expected"]) == (claim.claim, claim.expected)
        assert all((DOCS / "figures" / f"{name}.png").is_file() for name in record["figures"])


def test_what_decides_nothing_has_a_table_of_its_own():
    (record,) = (one for one in json.loads((DOCS / "claims.json").read_text()) if one["id"] == "R3")
    beside = [{**test, "gain": test["gain"].replace("cost_usd", "makespan_s")} for test in record["tests"]]
    before, after = page([record]), page([{**record, "beside": beside}])
    head, _, rest = after.partition("Beside it, deciding nothing:\n\n")
    assert before.startswith(head)
    assert rest.count("| makespan_s, ") == len(beside) == before.count("| cost_usd, ") - 1


def test_every_picture_of_the_docs_is_of_a_claim_or_stands_on_a_page():
    drawn = {name for claim in load_claims().values() for name in claim.figures}
    pages = "".join(page.read_text() for page in (*DOCS.glob("*.md"), DOCS.parent / "README.md"))
    left = [file.name for file in (DOCS / "figures").glob("*.png") if f"figures/{file.name}" not in pages]
    assert [name for name in left if name.removesuffix(".png") not in drawn] == []


@cache
def bounds():
    """The bound of each claim, by its words."""
    return {str(bound): bound for claim in load_claims().values() for bound in bounds_of(claim)}


def bounds_of(claim):
    return [NeededGain.of(contrast) for contrast in claim.endpoint.contrasts if contrast.decides]


RECORDS = [record for record in json.loads((DOCS / "claims.json").read_text()) if record["tests"]]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["id"])
def test_the_verdicts_on_the_page_follow_from_its_numbers(record):
    for test in record["tests"]:
        numbers = [math.nan if test[name] is None else test[name] for name in ("value", "low", "high", "p_holm")]
        side = bounds()[test["needed"]].side(MeanGain(*numbers, numbers[-1], test["pairs"], 1, 1, test["seeds"]))
        counts = {"cells": test["cells"], "right": test["cells_right"], "wrong": test["cells_wrong"]}
        assert test["verdict"] == verdicts.word_of(side, test["pairs"], **counts), test["gain"]
    words = [test["verdict"] for test in record["tests"]]
    assert record["verdict"] == ("smoke" if record["size"] == "smoke" else verdicts.word_of_all(words))
    first = record["tests"][0]
    assert [record["measured"], *record["interval"]] == [first["value"], first["low"], first["high"]]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["id"])
def test_the_numbers_on_the_page_are_those_of_the_tables_beside_it(record):
    table = DOCS / "figures" / f"{record['id']}.csv"
    pooled = pd.read_csv(table).query("scope == 'pooled'") if table.is_file() else pd.DataFrame()
    keys = ["experiment", "policy", "against", "measure", "kind"]
    known = pooled.drop_duplicates(keys).set_index(keys) if len(pooled) else pooled
    for test in record["tests"]:
        told = test if test["against"] else {**test, "against": "-", "kind": "mean"}
        key = tuple(told[name] for name in keys)
        if test["along"] is None and ", where " not in test["gain"] and key in known.index:
            row = known.loc[key]
            told = [row["mean"], row["low"], row["high"]]
            if (
                test["against"] and test["measure"] in HIGHER_IS_BETTER
            ):  # tables put the other first, gains what is better
                mean, low, high = (1 / value if test["kind"] == "ratio" else -value for value in told)
                told = [mean, high, low]
            assert told == pytest.approx([test["value"], test["low"], test["high"]], rel=1e-3, abs=1e-6), test["gain"]


def test_claims_that_were_not_asked_for_stay_on_the_page_in_the_catalogue_s_order(tmp_path):
    told = {name: name for name in ("claim", "source", "flag", "expected", "verdict", "where")}
    told |= {"tests": [], "conditions": [], "size": None, "figures": []}
    write_page([{**told, "id": "S2"}, {**told, "id": "R1"}], tmp_path, ["S1", "S2"])
    records, _ = write_page([{**told, "id": "S1"}, {**told, "id": "S2", "claim": "new"}], tmp_path, ["S1", "S2"])
    assert [(record["id"], record["claim"]) for record in json.loads(records.read_text())] == [
        ("S1", "claim"),
        ("S2", "new"),
    ]


def test_fewer_seeds_are_the_first_ones_of_the_size(tmp_path):
    few = prepare(["H1"], "full", results=tmp_path, data=[tmp_path], most_seeds=2)
    all_of_them = prepare(["H1"], "full", results=tmp_path, data=[tmp_path])
    assert [sweep.sweep.seeds for sweep in few.sweeps] == [sweep.sweep.seeds[:2] for sweep in all_of_them.sweeps]
    assert [sweep.folder for sweep in few.sweeps] == [sweep.folder for sweep in all_of_them.sweeps]


def test_an_unknown_claim_or_size_is_refused_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(app, ["claims", "S11"])
    assert refused.exit_code == 2
    assert "no claim 'S11'; did you mean 'S1'?" in refused.stderr
    refused = CliRunner().invoke(app, ["claims", "S1", "--smoke", "--seeds", "2"])
    assert (refused.exit_code, refused.stderr) == (
        2,
        "error: --seeds: not here, as the smoke size has seeds of its own\n",
    )
    assert not list(tmp_path.iterdir())


def test_a_record_has_what_the_spec_promises(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["claims", "V1", "R4", "--json"])
    assert result.exit_code == 0, result.output
    for record in json.loads(result.stdout):
        assert {
            *("id", "claim", "source", "flag", "expected", "measured", "interval", "verdict", "conditions")
        } <= record.keys()


def test_an_entry_without_evidence_is_refused():
    from elastune.experiments.claims.entries import Claim

    with pytest.raises(InputError, match="give experiments, plans, trainings or real_runs"):
        Claim(id="S1", claim="a", source="a", flag="a", question="a", expected="a")


def test_a_condition_on_rows_is_refused_of_plans():
    claim = load_claims()["F1"]
    contrast = claim.endpoint.contrasts[0].model_copy(update={"where": "seed == 1"})
    with pytest.raises(InputError, match="a contrast's where is about rows of runs, but random has plans"):
        claim._check_contrast(contrast)


@pytest.mark.many(fast=1)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_runs_that_failed_are_told_in_every_form(tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    failures = Failures({"H1 toy": 2}, {"H1 toy": "it broke"})
    monkeypatch.setattr("elastune.experiments.cli.claims.run_parts", lambda *_, **__: ([], failures))
    result = CliRunner().invoke(app, ["claims", "V1", *form])
    assert result.exit_code == 1
    assert "failed, 2 runs of H1 toy: it broke" in (result.stderr if form else result.stdout)
    if form:
        assert [record["id"] for record in json.loads(result.stdout)] == ["V1"]


@pytest.mark.slow
def test_a_claim_is_run_and_decided_by_one_command_and_not_run_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["claims", "R5", "--smoke", "--jobs", "1", "--json", "-o", str(tmp_path / "docs")]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    assert "32 runs and plans are missing: about " in first.stderr
    (record,) = json.loads(first.stdout)
    assert (record["verdict"], record["size"]) == ("smoke", "smoke")
    assert [test["needed"] for test in record["tests"]] == ["above 1", "at least 0.95 and at most 1.05"]
    assert record["measured"] > 1
    again = CliRunner().invoke(app, command)
    assert "missing" not in again.stderr
    assert json.loads(again.stdout) == [record]
    (written,) = json.loads((tmp_path / "docs" / "claims.json").read_text())
    assert written["figures"] == ["r5-per-instance", "r5-per-function"]
    assert (tmp_path / "docs" / "claims.md").read_text() == page(
        json.loads((tmp_path / "docs" / "claims.json").read_text())
    )
