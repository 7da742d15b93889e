"""Claims about real runs are decided on the committed rows, which are those of the recorded sittings."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from elastune.experiments.claims import load_claims
from elastune.experiments.claims.drawing import prepare
from elastune.experiments.claims.entries import CATALOG
from elastune.experiments.claims.real_runs import ClaimRealRuns
from elastune.experiments.claims.verdicts import verdicts
from elastune.experiments.fidelity.analysis import checked_runs
from elastune.experiments.fidelity.rows import RealRunRow, rows_of_runs
from elastune.sim.model.errors import InputError

ROWS = CATALOG / "real-runs.csv"
SITTINGS = Path(__file__).parents[1] / "golden" / "fidelity"
DOCS = CATALOG.resolve().parents[1] / "docs"
RECORDS = {record["id"]: record for record in json.loads((DOCS / "claims.json").read_text())}


def row(policy, seed, *, job="a", **changed):
    told = dict.fromkeys(RealRunRow._fields, 0.0)
    told |= {"job": job, "workload": "w", "policy": policy, "seed": seed, "direction": "maximize", "covered": 0.9}
    return {**told, "in_common": 1.0, **changed}


def decided(monkeypatch, tmp_path, claim, rows):
    drawing = prepare([claim], "full", results=tmp_path)
    monkeypatch.setattr(ClaimRealRuns, "rows", lambda _: pd.DataFrame(rows))
    (record,) = verdicts(drawing, "full")
    return record


def test_the_committed_rows_are_those_of_the_recorded_sittings(tmp_path):
    rows_of_runs(checked_runs(sorted(SITTINGS.iterdir()))).to_csv(tmp_path / "rows.csv", index=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "rows.csv"), pd.read_csv(ROWS), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("error", "verdict"), [(0.02, "holds"), (0.2, "does not hold")])
def test_r4_is_decided_by_the_error_beyond_the_drift(monkeypatch, tmp_path, error, verdict):
    rows = [
        row("rubberband", seed, makespan_beyond_drift=error + seed / 1000, cost_beyond_drift=error + seed / 1000)
        for seed in range(6)
    ]
    record = decided(monkeypatch, tmp_path, "R4", rows)
    assert record["measured"] == pytest.approx(error + 0.0025)
    assert [test["verdict"] for test in record["tests"]] == [verdict, verdict, "holds"]


@pytest.mark.parametrize(("gap", "verdict"), [(0.001, "holds"), (0.05, "does not hold")])
def test_r11_pairs_runs_of_one_job_and_seed(monkeypatch, tmp_path, gap, verdict):
    rows = [row("sha-fixed", seed, score=0.8 + seed / 100) for seed in range(6)]
    rows += [row("rubberband", seed, score=0.8 + seed / 100 - gap) for seed in range(6)]
    record = decided(monkeypatch, tmp_path, "R11", rows)
    (test,) = record["tests"]
    assert (test["value"], test["pairs"], record["verdict"]) == (pytest.approx(-gap), 6, verdict)


def test_v1_is_partly_so_where_the_prediction_is_off_and_structure_is_not(monkeypatch, tmp_path):
    policies = ("seer", "rubberband", "sha-fixed", "asha-fixed")
    rows = [row(policy, seed, makespan_error=0.3 + seed / 100) for policy in policies for seed in range(6)]
    record = decided(monkeypatch, tmp_path, "V1", rows)
    assert record["verdict"] == "partly"
    wrong = {(test["measure"], test["verdict"]) for test in record["tests"] if test["verdict"] != "holds"}
    assert wrong == {("makespan_error", "does not hold")}


def test_the_page_has_the_verdicts_of_the_committed_rows(tmp_path):
    for claim in ("V1", "R4", "R11"):
        (record,) = verdicts(prepare([claim], "full", results=tmp_path), "full")
        told = RECORDS[claim]
        assert (told["verdict"], told["measured"], told["tests"]) == (
            *(record["verdict"], record["measured"]),
            json.loads(json.dumps(record["tests"])),
        )


def test_a_table_of_something_else_or_without_the_policy_is_refused(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    claim = load_claims()["V1"]
    with pytest.raises(InputError, match="is no table of real runs: `elastune fidelity --rows FILE` writes one"):
        ClaimRealRuns(claim, "real", tmp_path / "other.csv").rows()
    pd.DataFrame([row("seer", 0)]).to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(InputError, match="V1 real: there is no policy 'rubberband'"):
        ClaimRealRuns(claim, "real", tmp_path / "few.csv").evidence_rows(claim.endpoint.contrasts[0])
