"""What sweeps and results print, which rows a condition keeps, and how folders merge."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from test_sweep_spec import BASE
from typer.testing import CliRunner

from elastune.experiments.cli import results as cli_results
from elastune.experiments.cli.app import app
from elastune.experiments.results_version import RESULTS_VERSION
from elastune.experiments.statistics.differences import mean_interval, paired_difference
from elastune.experiments.sweeps.store import Store, read_results

NOW = str(RESULTS_VERSION)
SWEEP = {"base": BASE, "axes": {"policy": ["sha-fixed", "asha-fixed"], "job.deadline_s": [300, 900]}, "seeds": 3}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP, sort_keys=False))
    done = CliRunner().invoke(app, ["sweep", str(folder / "sweep.yaml"), "-o", str(folder / "out"), "--jobs", "1"])
    assert done.exit_code == 0, done.stderr
    assert "12 run now, 0 were there" in done.stdout
    assert "in all 9 done, 3 infeasible, 0 failed" in done.stdout
    return folder


@pytest.fixture
def elastune(tmp_path, monkeypatch, swept):
    monkeypatch.chdir(tmp_path)
    shutil.copy(swept / "sweep.yaml", tmp_path / "sweep.yaml")
    shutil.copytree(swept / "out", tmp_path / "out")

    def call(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return call


def told(done):
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_a_dry_run_says_what_would_run_and_writes_nothing(elastune, tmp_path):
    fresh = told(elastune("sweep", "sweep.yaml", "-o", "new", "--dry-run", "--json"))
    assert (fresh["runs"], fresh["seeds"], [cell["to_run"] for cell in fresh["cells"]]) == (12, [3, 4, 5], [3, 3, 3, 3])
    assert not (tmp_path / "new").exists()
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({**SWEEP, "seeds": 4}, sort_keys=False))
    more = told(elastune("sweep", "more.yaml", "-o", "out", "--dry-run", "--json"))
    assert more["cells"][2] == {
        "settings": {"policy": "asha-fixed", "job.deadline_s": 300},
        "done": 0,
        "infeasible": 3,
        "failed": 0,
        "to_run": 1,
    }
    shown = elastune("sweep", "more.yaml", "-o", "out", "--dry-run").stdout
    assert "4 cells on 4 seeds each" in shown
    assert not (tmp_path / "results").exists()


def test_the_json_of_a_sweep_is_all_there_is_on_standard_output(elastune):
    found = told(elastune("sweep", "sweep.yaml", "-o", "out", "--json"))
    assert [note.partition(":")[0] for note in found.pop("notes")] == ["workload.scaling resnet50-v100"]
    assert found == {
        "folder": "out",
        "skipped": 12,
        "ran": 0,
        "done": 9,
        "infeasible": 3,
        "failed": 0,
        "failures": [],
    }


def test_the_sweep_that_a_folder_holds_goes_on_in_it(elastune):
    assert told(elastune("sweep", "out/sweep.yaml", "-o", "out", "--json"))["skipped"] == 12


def test_results_are_means_by_group_with_intervals(elastune, tmp_path):
    found = told(elastune("results", "out", "--json"))
    assert (found["done"], found["infeasible"], found["failed"]) == (9, 3, 0)
    assert [(row["policy"], row["job.deadline_s"], row["runs"], row["infeasible"]) for row in found["groups"]] == [
        ("asha-fixed", 300, 0, 3),
        ("asha-fixed", 900, 3, 0),
        ("sha-fixed", 300, 3, 0),
        ("sha-fixed", 900, 3, 0),
    ]
    assert found["groups"][0]["regret"] is None
    rows = read_results(tmp_path / "out")
    of_group = rows[(rows["policy"] == "sha-fixed") & (rows["job.deadline_s"] == 900)]
    expected = mean_interval(of_group["cost_usd"].tolist())
    last = found["groups"][3]
    assert (last["cost_usd"], last["cost_usd_low"], last["cost_usd_high"]) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert found["errors"][0]["count"] == 3
    shown = elastune("results", "out").stdout
    assert "0, 3 infeasible" in shown
    assert "9 done, 3 infeasible, 0 failed" in shown


def test_groups_and_measures_are_those_asked_for(elastune):
    found = told(elastune("results", "out", "--group", "policy", "--measure", "deadline_met,ledger_usd.idle", "--json"))
    assert [row["runs"] for row in found["groups"]] == [3, 6]
    assert set(found["groups"][0]) == {
        *("policy", "runs", "infeasible", "failed", "families", "bundles", "seeds", "over"),
        *(f"{name}{end}" for name in ("deadline_met", "ledger_usd.idle") for end in ("", "_low", "_high")),
    }
    assert found["groups"][1]["deadline_met"] == 1


def test_a_group_that_pools_cells_holds_each_seed_once(elastune, tmp_path):
    rows = read_results(tmp_path / "out")
    done = rows[(rows["policy"] == "sha-fixed")]
    found = told(elastune("results", "out", "--group", "policy", "--measure", "cost_usd", "--json"))["groups"][1]
    # Three seeds in two cells each: as three means of a seed, not as six runs.
    expected = mean_interval(done.groupby("seed")["cost_usd"].mean().tolist())
    assert (found["runs"], found["seeds"], found["over"]) == (6, 3, "seeds")
    assert (found["cost_usd"], found["cost_usd_low"], found["cost_usd_high"]) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )


def test_policies_are_compared_pair_by_pair(elastune, tmp_path):
    rows = read_results(tmp_path / "out")
    loose = rows[(rows["job.deadline_s"] == 900) & (rows["completed"] == True)]  # noqa: E712  empty without a result
    loose = loose.pivot_table(index="seed", columns="policy", values="cost_usd").dropna()
    expected = paired_difference(loose["asha-fixed"].tolist(), loose["sha-fixed"].tolist())
    found = told(
        elastune(
            "results", "out", "--against", "sha-fixed", "--measure", "cost_usd,regret", "--json", "--csv", "t/a.csv"
        )
    )["paired"]
    assert [(row["measure"], row["scope"], row["job.deadline_s"], row["pairs"]) for row in found] == [
        (measure, scope, deadline_s, pairs)
        for measure, of_900 in (("cost_usd", 2), ("regret", 3))
        for scope, deadline_s, pairs in (("group", 300, 0), ("group", 900, of_900), ("all", None, of_900))
    ]
    # T cuts one of ASHA's runs before its answer is at R: no cost is compared there.
    assert [row["unfinished"] for row in found] == [0, 1, 1, 0, 0, 0]
    assert [row["only_against"] for row in found[:3]] == [3, 0, 3]
    for row in found[1:3]:
        assert (row["mean"], row["low"], row["high"]) == pytest.approx((expected.mean, expected.low, expected.high))
        assert (row["better"], row["ties"]) == (expected.better, expected.ties)
    assert found[0]["mean"] is None
    written = pd.read_csv(tmp_path / "t" / "a.csv")
    assert written["mean"].tolist() == pytest.approx([row["mean"] or math.nan for row in found], nan_ok=True)
    shown = elastune("results", "out", "--against", "sha-fixed").stdout
    assert "regret: differences to sha-fixed, with 95 % intervals" in shown
    assert "0, 3 lacking" in shown
    assert "intervals over seeds: nothing is said of other workloads" in shown


def test_profiles_are_shares_of_runs(elastune):
    found = told(elastune("results", "out", "--profile", "--json"))["profile"]
    last = {row["policy"]: row["share"] for row in found if row["tau"] == 1.0}
    # Where asha-fixed has no plan and sha-fixed has one, it counts as never good enough.
    assert last == {"asha-fixed": 0.5, "sha-fixed": 1.0}
    shown = elastune("results", "out", "--profile").stdout
    assert "Share of runs at least as good as tau, with 95 % bands" in shown
    assert "1.00 [1.00, 1.00]" in shown


def test_interquartile_means_are_told_on_request(elastune):
    mean, middle = (
        told(elastune("results", "out", "--group", "policy", "--measure", "cost_usd", "--json", *extra))["groups"][1]
        for extra in ((), ("--iqm",))
    )
    assert middle["cost_usd"] != mean["cost_usd"]
    assert middle["cost_usd_low"] <= middle["cost_usd"] <= middle["cost_usd_high"]


def test_few_families_are_pointed_at(elastune):
    two = {**SWEEP, "axes": {"policy": ["sha-fixed"], "workload.bundle": ["mnist5k-cnn", "digits-mlp"]}}
    Path("two.yaml").write_text(yaml.safe_dump(two, sort_keys=False), encoding="utf-8")
    told(elastune("sweep", "two.yaml", "-o", "two", "--jobs", 1, "--json"))
    shown = elastune("results", "two", "--group", "policy").stdout
    assert "intervals over families, their bundles and seeds; 2 families say little of others" in shown
    assert "over seeds" in elastune("results", "two", "--group", "policy", "--over", "seeds").stdout


CONDITIONS = [
    ("policy == 'sha-fixed' and job.deadline_s > 400", 3),
    ("`job.deadline_s` > 400", 6),
    ("400 < job.deadline_s <= 900", 6),
    ("policy in ['sha-fixed', 'none'] or status == 'infeasible'", 9),
    ("policy not in ['sha-fixed']", 6),
    ("not policy == 'sha-fixed'", 6),
    ("deadline_met", 9),
    ("deadline_met == True and seed != 3", 6),
    ("error != None", 3),
    ("error is None", 9),
    ("cost_usd < 0", None),
    ("cost_usd > -1", 9),
    ("job.trials == 6", 12),
]


@pytest.mark.parametrize(("where", "rows"), CONDITIONS)
def test_conditions_keep_rows(elastune, where, rows):
    done = elastune("results", "out", "--where", where, "--group", "job.trials", "--json")
    if rows is None:
        assert (done.exit_code, json.loads(done.stderr)["error"]) == (2, f"out: no row meets --where {where!r}")
    else:
        found = told(done)
        assert sum(found[status] for status in ("done", "infeasible", "failed")) == rows


REFUSED = [
    ("job.deadlin_s > 3", "there is no column 'job.deadlin_s'; did you mean 'job.deadline_s'?"),
    ("policy > 3", "policy is compared with 3, but holds text, written in quotes"),
    ("job.deadline_s == 'a'", "job.deadline_s is compared with 'a', but holds a number"),
    ("deadline_met == 1", "deadline_met is compared with 1, but holds True or False"),
    ("policy", "policy is neither true nor false"),
    ("__import__('os').system('true')", "cannot be asked for"),
    ("policy.__class__ == 'a'", "there is no column 'policy.__class__'"),
    ("policy == open('x').read()", "cannot be asked for"),
    ("(lambda: 1)() > seed", "cannot be asked for"),
    ("policy ==", "is malformed"),
    ("policy in 'sha'", "give a list"),
    ("policy not in []", "give a list"),
    ("seed == 9223372036854775808", "beyond all that a column holds"),
    ("seed == -'a'", "cannot be asked for"),
    ("seed == [1]", "cannot be asked for"),
    ("policy == -'a'", "cannot be asked for"),
    ("3 in seed", "cannot be asked for"),
    ("3 < 4", "cannot be asked for"),
]


@pytest.mark.many(fast=5)
@pytest.mark.parametrize(("where", "message"), REFUSED)
def test_a_condition_that_is_none_is_refused_and_never_run(elastune, where, message):
    failed = elastune("results", "out", "--where", where)
    assert failed.exit_code == 2
    assert failed.stderr.startswith("error: --where ")
    assert message in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("results", "nowhere"), "nowhere: holds no results; `elastune sweep FILE -o nowhere` makes some"),
        (("results", "out", "--measure", "regrets"), "there is no measure 'regrets'; did you mean 'regret'?"),
        (("results", "out", "--group", "polici"), "there is no column 'polici'; did you mean 'policy'?"),
        (("results", "out", "--against", "sha-fxed"), "there is no policy 'sha-fxed'; did you mean 'sha-fixed'?"),
        (("results", "out", "--profile", "--iqm"), "--against, --profile and --iqm are three different tables"),
        (
            ("results", "out", "--profile", "--measure", "regret,score"),
            "--profile is of one measure, but --measure names 2",
        ),
        (("results", "merge", "out", "-o", "out"), "out: is there already; merge into a new folder"),
        (("sweep", "sweep.yaml", "--set", "policy=seer"), "policy is swept: change its axis instead"),
        (("sweep", "sweep.yaml", "--set", "job.trails=3"), "unknown key job.trails; did you mean job.trials?"),
        (("sweep", "sweep.yaml", "-o", "sweep.yaml"), "sweep.yaml: the results go to a folder, but this is a file"),
    ],
)
def test_bad_input_is_code_2(elastune, arguments, message):
    failed = elastune(*arguments)
    *notes, error = failed.stderr.splitlines()
    assert failed.exit_code == 2
    assert message in error
    assert all(note.startswith("note: ") for note in notes)


def test_folders_of_two_machines_merge_into_the_whole(elastune, tmp_path):
    for name, seeds in (("a", [3, 4]), ("b", [4, 5])):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**SWEEP, "seeds": seeds}, sort_keys=False))
        elastune("sweep", f"{name}.yaml", "-o", name, "--jobs", 1, "--journals")
    assert told(elastune("results", "merge", "a", "b", "-o", "c", "--json")) == {
        "folder": "c",
        "rows": 12,
        "doubles": 4,
        "versions": {NOW: 12},
        "journals_left_out": 0,
    }
    assert Store(tmp_path / "c").read().equals(Store(tmp_path / "out").read())
    assert told(elastune("sweep", "c/sweep.yaml", "-o", "c", "--json"))["skipped"] == 12
    assert len(list((tmp_path / "c" / "journals").iterdir())) == 9


def test_rows_that_contradict_each_other_do_not_merge(elastune, tmp_path):
    shutil.copytree(tmp_path / "out", tmp_path / "other")
    (part,) = Store(tmp_path / "other").parts()
    (tmp_path / "other" / "parts.sha256").unlink()
    table = pq.read_table(part)
    changed = table["cost_usd"].to_pylist()
    changed[0] = 99.0
    at = table.schema.get_field_index("cost_usd")
    pq.write_table(table.set_column(at, table.schema.field(at), [changed]), part)
    failed = elastune("results", "merge", "out", "other", "-o", "new")
    assert failed.exit_code == 2
    assert "is there twice and differs in cost_usd: cost_usd is " in failed.stderr
    assert " and 99.0; versions" in failed.stderr
    assert not (tmp_path / "new").exists()


def before_versions(folder):
    """The rows of a folder as an elastune from before results had versions would have made them, a dollar dearer each."""
    (part,) = Store(folder).parts()
    (folder / "parts.sha256").unlink()
    table = pq.read_table(part).drop_columns(["plan_search_gap", "plan_left_out", "unspent_because"])
    for name, change in (("results_version", lambda _: "f" * 64), ("key", lambda key: key[::-1]), ("cost_usd", dearer)):
        at = table.schema.get_field_index(name)
        changed = [change(value) for value in table[name].to_pylist()]
        table = table.set_column(at, table.schema.field(at), [changed])
    old = [{"results_version": "code_sha256"}.get(name, name) for name in table.column_names]
    pq.write_table(table.rename_columns(old), part)


BEFORE = "before results versions (code ffffffffffff)"


def dearer(cost_usd):
    return None if cost_usd is None else cost_usd + 1


@pytest.mark.slow
def test_rows_of_two_versions_of_results_merge_with_a_warning_and_are_never_pooled(elastune, tmp_path):
    elastune("sweep", "sweep.yaml", "-o", "out", "--journals")
    shutil.copytree(tmp_path / "out", tmp_path / "other")
    before_versions(tmp_path / "other")
    merged = elastune("results", "merge", "out", "other", "-o", "both")
    assert merged.stderr == (
        f"warning: rows of 2 versions of results, which no table pools: {NOW} (12 rows), {BEFORE} (12 rows);"
        " 9 journals left out\n"
    )
    assert "24 rows, 0 doubles left out" in merged.stdout
    assert not (tmp_path / "both" / "journals").exists()
    alone = told(elastune("results", "out", "--group", "policy", "--measure", "cost_usd", "--json"))["groups"]
    groups = told(elastune("results", "both", "--group", "policy", "--measure", "cost_usd", "--json"))["groups"]
    assert [(row["policy"], row["results_version"], row["runs"]) for row in groups] == [
        (policy, version, runs) for policy, runs in (("asha-fixed", 3), ("sha-fixed", 6)) for version in (NOW, BEFORE)
    ]
    old, new = ([row["cost_usd"] for row in groups if row["results_version"] == version] for version in (NOW, BEFORE))
    assert old == [row["cost_usd"] for row in alone]
    assert new == pytest.approx([cost_usd + 1 for cost_usd in old])
    by_hand = told(elastune("results", "both", "--group", "policy,results_version", "--json"))["groups"]
    assert [row["runs"] for row in by_hand] == [3, 3, 6, 6]
    # Pairs are of one version: what both are dearer by does not show.
    paired = told(elastune("results", "both", "--against", "sha-fixed", "--measure", "cost_usd", "--json"))["paired"]
    by_code = {(row["scope"], row["job.deadline_s"], row["results_version"]): row for row in paired}
    for scope, deadline_s in (("group", 900), ("all", None)):
        ours, theirs = (by_code[scope, deadline_s, version] for version in (NOW, BEFORE))
        assert (ours["pairs"], theirs["pairs"]) == (2, 2)
        assert ours["mean"] == pytest.approx(theirs["mean"])
    profile = told(elastune("results", "both", "--profile", "--json"))["profile"]
    assert {row["results_version"] for row in profile} == {NOW, BEFORE}
    failed = elastune("sweep", "sweep.yaml", "-o", "both")
    assert failed.exit_code == 2
    assert "12 of its 24 rows are of another version of results (before results versions (code" in failed.stderr


def test_a_folder_from_before_results_had_versions_is_shown_and_not_continued(elastune, tmp_path):
    before_versions(tmp_path / "out")
    shown = elastune("results", "out", "--where", f"results_version == '{BEFORE}'")
    assert shown.exit_code == 0
    assert shown.stderr == f"note: rows of another version of results: {BEFORE}; now is {NOW}\n"
    assert "9 done, 3 infeasible" in shown.stdout
    failed = elastune("sweep", "sweep.yaml", "-o", "out")
    assert failed.exit_code == 2
    assert failed.stderr == (
        f"error: out: 12 of its 12 rows are of another version of results ({BEFORE}), and this elastune makes version {NOW};"
        " they are kept and can be shown: sweep into another folder (-o)\n"
    )
    again = elastune("sweep", "sweep.yaml", "-o", "new", "--jobs", 1)
    assert again.exit_code == 0
    assert set(read_results(tmp_path / "new")["results_version"]) == {NOW}


@pytest.mark.usefixtures("elastune")
@pytest.mark.parametrize(
    "newest",
    [
        ["unspent_because"],
        ["plan_left_out", "unspent_because"],
        ["plan_search_gap", "plan_left_out", "unspent_because"],
    ],
)
def test_rows_from_before_they_said_what_a_plan_may_lose_are_read_without_it(tmp_path, newest):
    now = read_results(tmp_path / "out")
    (part,) = Store(tmp_path / "out").parts()
    (part.parents[1] / "parts.sha256").unlink()
    pq.write_table(pq.read_table(part).drop_columns(newest), part)
    before = read_results(tmp_path / "out")
    assert list(before) == list(now)
    assert before[newest].isna().all(axis=None)
    assert before.drop(columns=newest).equals(now.drop(columns=newest))


def test_a_run_that_is_in_a_folder_twice_is_told(elastune, tmp_path):
    (part,) = Store(tmp_path / "out").parts()
    shutil.copy(part, part.with_name("part-000001.parquet"))
    failed = elastune("sweep", "sweep.yaml", "-o", "out")
    assert failed.exit_code == 2
    assert "is there twice; `elastune results merge out -o NEW` leaves out doubles" in failed.stderr
    assert told(elastune("results", "merge", "out", "-o", "new", "--json")) == {
        "folder": "new",
        "rows": 12,
        "doubles": 12,
        "versions": {NOW: 12},
        "journals_left_out": 0,
    }


def test_results_of_a_run_that_is_there_twice_are_not_shown(elastune, tmp_path):
    (part,) = Store(tmp_path / "out").parts()
    shutil.copy(part, part.with_name("part-000001.parquet"))
    failed = elastune("results", "out")
    assert (failed.exit_code, failed.stdout) == (2, "")
    assert "is there twice; `elastune results merge out -o NEW` leaves out doubles" in failed.stderr


@pytest.mark.parametrize("content", [b"\xff\xfe\0", b"abc  runs/part-000000.parquet\n", b"\n"])
def test_damaged_digests_are_told(elastune, tmp_path, content):
    (tmp_path / "out" / "parts.sha256").write_bytes(content)
    for command in (("results", "out"), ("sweep", "sweep.yaml", "-o", "out")):
        failed = elastune(*command)
        assert failed.exit_code == 2
        assert "out/parts.sha256: line 1 is damaged; remove the file to trust the parts as they are" in failed.stderr


@pytest.mark.parametrize("name", [".lock", "runs/part-000007.parquet", "journals"])
def test_links_that_lead_out_of_the_folder_are_not_followed(elastune, tmp_path, name):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "out" / ".lock").unlink()
    (tmp_path / "out" / name).symlink_to(tmp_path / "mine")
    failed = elastune("sweep", "sweep.yaml", "-o", "out")
    assert failed.exit_code == 2
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("number", ["1_0", "0x10", "1e999", "1j"])
def test_conditions_read_numbers_as_everything_else_does(elastune, number):
    failed = elastune("results", "out", "--where", f"cost_usd < {number}")
    assert failed.exit_code == 2
    assert f"{number} must be a number" in failed.stderr


@pytest.mark.parametrize("option", ["--group", "--measure"])
def test_an_option_for_names_that_holds_none_is_refused(elastune, option):
    failed = elastune("results", "out", option, " ,")
    assert (failed.exit_code, failed.stdout) == (2, "")
    assert f"{option} ' ,' holds no name: give names with commas between" in failed.stderr


def test_names_that_are_given_twice_count_once(elastune):
    once = elastune("results", "out", "--group", "policy", "--measure", "regret", "--json")
    twice = elastune("results", "out", "--group", "policy,policy", "--measure", "regret,regret", "--json")
    assert (once.stdout, once.stderr) == (twice.stdout, twice.stderr)


def test_a_measure_that_groups_is_not_averaged(elastune):
    shown = told(elastune("results", "out", "--group", "regret", "--json"))
    assert all("regret_low" not in row and "score_low" in row for row in shown["groups"])
    failed = elastune("results", "out", "--group", "regret", "--measure", "regret")
    assert "regret is a column of the groups and a measure" in failed.stderr


def test_pandas_reads_the_folder_directly(elastune, tmp_path):  # noqa: ARG001  makes the folder
    direct = pd.read_parquet(tmp_path / "out" / "runs").sort_values("key", ignore_index=True)
    pd.testing.assert_frame_equal(direct, read_results(tmp_path / "out"))


def test_names_are_completed_after_commas():
    assert cli_results.complete_column("policy,job.dead") == ["policy,job.deadline_s"]
    assert cli_results.complete_measure("ledger_usd.id") == ["ledger_usd.idle_at_barriers", "ledger_usd.idle"]


def test_settings_of_a_sweep_are_completed_by_the_shell(monkeypatch):
    for name, value in (
        ("_ELASTUNE_COMPLETE", "complete_bash"),
        ("COMP_WORDS", "elastune sweep a.yaml --set job.b"),
        ("COMP_CWORD", "4"),
    ):
        monkeypatch.setenv(name, value)
    shown = subprocess.run(
        [sys.executable, "-c", "from elastune.experiments.cli.app import main; main()"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.stdout.split() == ["job.budget_usd="]
