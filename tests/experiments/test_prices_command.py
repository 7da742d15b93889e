"""`elastune prices` and `elastune ledger`, and the keys of a spec that say what a run is billed."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from elastune import RunSpec, execute
from elastune.experiments.cli.app import app
from elastune.experiments.runs.replay import ledger_of
from elastune.sim.model.errors import InputError
from elastune.sim.model.price_series import PriceSeries
from elastune.sim.model.prices import BillingRule
from elastune.traces import shipped_offers

MINIMAL = {
    "job": {"trials": 8, "max_iterations": 9, "deadline_s": 3600, "budget_usd": 20},
    "workload": {"bundle": "digits-mlp", "scaling": "resnet50-v100", "iteration_s": 60},
    "cloud": {"instance_type": "p3.8xlarge", "startup": "fast", "rescale_s": 5},
    "policy": "sha-elastic",
}
OWN = "name,gpus_per_instance,on_demand_usd_per_hour,spot_usd_per_hour,region\np3.8xlarge,4,10,2,here\np3.8xlarge,4,11,,there\n"


def spec_with(**cloud):
    return RunSpec.of(**{**MINIMAL, "cloud": {**MINIMAL["cloud"], **cloud}})


@pytest.fixture
def elastune(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.csv").write_text(OWN)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_prices_are_listed_by_provider_accelerator_and_market(elastune):
    listed = json.loads(elastune("prices", "list", "--provider", "aws", "--gpu", "v100", "--json").stdout)
    assert [one["name"] for one in listed] == ["p3.16xlarge", "p3.2xlarge", "p3.8xlarge", "p3dn.24xlarge"]
    assert all(
        one["region"] == "us-east-1" and one["date"] == "2026-07" and "spot" in one["usd_per_hour"] for one in listed
    )
    assert len(json.loads(elastune("prices", "list", "--json").stdout)) == len(shipped_offers())
    spot = json.loads(elastune("prices", "list", "--market", "spot", "--json").stdout)
    assert {one["provider"] for one in spot} == {"aws", "gcp"}
    assert "p4d.24xlarge" in elastune("prices", "list").stdout


def test_one_machine_is_shown_with_its_source(elastune):
    shown = elastune("prices", "show", "p3.8xlarge").stdout
    assert "12.24 USD/h" in shown
    assert "skypilot-catalog" in shown
    told = json.loads(
        elastune("prices", "show", "p3.8xlarge", "--prices", "own.csv", "--region", "there", "--json").stdout
    )
    assert told["usd_per_hour"] == {"on-demand": 11.0}


def test_machines_are_found_by_accelerator_number_and_region(elastune):
    asked = ("prices", "list", "--provider", "aws", "--gpus", "4", "--region", "us-east-1", "--json")
    found = json.loads(elastune(*asked, "--gpu", "a10g").stdout)
    assert [(one["name"], one["gpu_memory_gb"]) for one in found] == [("g5.12xlarge", 24), ("g5.24xlarge", 24)]
    assert {one["gpus_per_instance"] for one in json.loads(elastune(*asked).stdout)} == {4}


def test_the_catalogue_has_what_aws_rents(elastune):
    names = {one["name"] for one in json.loads(elastune("prices", "list", "--provider", "aws", "--json").stdout)}
    families = {name.partition(".")[0] for name in names}
    assert families >= {"g4dn", "g5", "g6", "g6e", "p3", "p4d", "p4de", "p5", "p5en"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["prices", "list", "--gpu", "A100", "--gpus", "3"],
            "or a table of prices with elastune prices import FILE.csv",
        ),
        (["prices", "show", "p3.8xlrge"], "did you mean 'p3.8xlarge'?"),
        (["prices", "show", "a100x8"], "known: Standard_NC24ads_A100_v4, Standard_NC48ads_A100_v4, "),
        (["prices", "show", "a100x8"], "p4de.24xlarge; these have that accelerator"),
        (["prices", "show", "p3.8xlarge", "--region", "mars"], "has no price in region 'mars', only in us-east-1"),
        (["prices", "show", "p3.8xlarge", "--prices", "own.csv"], "own.csv: p3.8xlarge has prices in several regions"),
        (["prices", "list", "--provider", "asw"], "there is no provider 'asw'; did you mean 'aws'?"),
        (["prices", "list", "--region", "mars"], "or a table of prices with elastune prices import FILE.csv"),
        (["prices", "list", "--market", "future"], "--market is 'future', but must be on-demand or spot"),
        (["prices", "list", "--gpu", "K80"], "no machine of the catalogue is all of that; its accelerators: A100-40GB"),
        (["prices", "import", "no.csv"], "cannot be read"),
        (
            ["prices", "import", "bad.csv"],
            "bad.csv, row 1, column on_demand_usd_per_hour: is -1, but must be at least 0",
        ),
        (["ledger", "own.csv"], "not the header of a journal"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(elastune, tmp_path, arguments, message):
    (tmp_path / "bad.csv").write_text("name,gpus_per_instance,on_demand_usd_per_hour,spot_usd_per_hour\nbox,1,-1,\n")
    before = sorted(tmp_path.iterdir())
    done = elastune(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert sorted(tmp_path.iterdir()) == before


def test_an_imported_catalogue_is_one_that_a_spec_takes(elastune, tmp_path):
    (tmp_path / "theirs.csv").write_text(
        "cloud,instance_type,n_gpus,ondemand_usd_per_h,region\nmine,gpubox,4,8.5,here\nmine,head,1,0.25,here\n"
    )
    done = elastune("prices", "import", "theirs.csv")
    assert done.exit_code == 0
    assert "2 machines in 1 region written; use them with cloud.prices: results/prices/theirs.csv" in done.stdout
    spec = spec_with(instance_type="gpubox", prices="results/prices/theirs.csv", head_node="head")
    assert spec.price_book().usd_per_hour() == 8.5
    assert spec.price_book().head_node_usd_per_hour == 0.25
    with pytest.raises(InputError, match=r"^there is no instance type 'p3\.8xlarge'; known: gpubox, head"):
        spec_with(prices="results/prices/theirs.csv")


def test_the_ledger_of_a_run_is_printed_and_read_back_from_its_journal(elastune, tmp_path):
    spec = RunSpec.of(**MINIMAL)
    result = execute(spec, journal=tmp_path / "journal.jsonl")
    told = json.loads(elastune("ledger", "journal.jsonl", "--json").stdout)
    assert (told["ledger_usd"], told["ledger_gpu_s"]) == (result.ledger_usd, result.ledger_gpu_s)
    printed = elastune("ledger", "journal.jsonl").stdout
    assert "training" in printed
    assert f"{result.cost_usd:.2f}" in printed
    assert "head_node" not in printed


@pytest.mark.parametrize(
    ("billing", "rule"),
    [
        ("aws", BillingRule(1, 60, free_if_reclaimed_within_s=3600)),
        ("gcp", BillingRule(1, 60)),
        ("azure", BillingRule(1, 300)),
        ({"provider": "aws", "minimum_s": 0}, BillingRule(1, 0, free_if_reclaimed_within_s=3600)),
        ({"bills_startup": False, "bills_setup": True}, BillingRule(bills_startup=False, bills_setup=True)),
        ({"bills_queue": True}, BillingRule(bills_queue=True)),
        (
            {"granularity_s": 1, "minimum_s": 60, "bills_startup": True, "model": "per-function"},
            BillingRule(model="per-function"),
        ),
    ],
)
def test_a_billing_rule_is_a_provider_or_its_numbers(billing, rule):
    spec = spec_with(billing=billing)
    assert spec.price_book().billing == rule
    assert RunSpec.of(**spec.to_dict()) == spec


def test_a_provider_stands_for_its_numbers():
    numbers = {"granularity_s": 1, "minimum_s": 60, "bills_startup": True, "free_if_reclaimed_within_s": 3600}
    assert spec_with(billing="aws").digest() == spec_with(billing=numbers).digest()


def test_a_parameter_at_its_default_is_as_if_it_were_not_given():
    plain = RunSpec.of(**MINIMAL).with_policy("sha-elastic")
    one, two = (RunSpec.of(**MINIMAL).with_policy("sha-elastic", gpus_per_trial=gpus) for gpus in (1, 2))
    assert plain.digest() == one.digest() != two.digest()


def test_new_keys_that_are_not_given_leave_the_digest_as_it_was():
    assert RunSpec.of(**MINIMAL).digest() == "8a778b5612a881fa330faa4b86860bed3ae6e5f2a21a7e92c620084066507ce6"


def test_a_price_may_be_a_series():
    machine = {"gpus_per_instance": 4, "price_usd_per_hour": [[0, 12], ["1.8e3", 6.5]]}
    spec = spec_with(instance_type=machine)
    assert spec.price_book().price() == PriceSeries((0.0, 1800.0), (12.0, 6.5))
    assert RunSpec.of(**spec.to_dict()).digest() == spec.digest()


def test_data_is_what_the_spec_or_the_bundle_says():
    costs = {"ingress_usd_per_gb": 0.02, "storage_usd_per_gb_month": 0.1}
    book = spec_with(data={"gb": 50, **costs}).price_book()
    assert (book.data_gb, book.ingress_usd, book.storage_usd_per_hour) == (50, 1.0, pytest.approx(5 / 730))
    bundle = RunSpec.of(**MINIMAL).bundle()
    assert bundle.data_bytes > 0
    assert spec_with(data=costs).price_book().data_gb == bundle.data_bytes / 1e9
    without = {**MINIMAL, "workload": {"scaling": "linear"}, "cloud": {**MINIMAL["cloud"], "data": costs}}
    with pytest.raises(InputError, match=r"^cloud\.data\.gb is missing: no bundle says how large its data is"):
        RunSpec.of(**without).price_book()


def test_head_node_and_data_are_on_the_bill_and_in_the_ledger():
    plain = execute(spec_with())
    result = execute(spec_with(head_node_usd_per_hour=0.6, data={"gb": 10, "ingress_usd_per_gb": 0.01}))
    assert result.makespan_s == plain.makespan_s
    assert result.ledger_usd["head_node"] == pytest.approx(0.6 * result.makespan_s / 3600)
    assert result.ledger_usd["data"] == pytest.approx(0.1 * round(result.ledger_usd["data"] / 0.1))
    extra_usd = result.ledger_usd["head_node"] + result.ledger_usd["data"]
    assert result.cost_usd == pytest.approx(plain.cost_usd + extra_usd)


@pytest.mark.parametrize(
    ("cloud", "message"),
    [
        (
            {"billing": "awz"},
            r"there is no billing rule 'awz'; did you mean 'aws'\? known: aws, azure, gcp; or give granularity_s",
        ),
        ({"billing": {"bills_setup": False}}, r"billing.bills_startup is true and billing.bills_setup is false"),
        (
            {"billing": {"free_if_reclaimed_within_s": -1}},
            r"cloud.billing.free_if_reclaimed_within_s is -1, but must be a number from 0",
        ),
        (
            {"head_node": "p3.2xlarge", "head_node_usd_per_hour": 1},
            r"head_node and cloud.head_node_usd_per_hour are both given",
        ),
        ({"head_node_usd_per_hour": -1}, r"cloud.head_node_usd_per_hour is -1, but must be a number from 0 up to 1e6"),
        ({"data": {"gb": -1}}, r"cloud.data.gb is -1, but must be"),
        ({"data": {"size": 1}}, r"unknown key cloud.data.size; did you mean"),
        ({"region": "mars"}, r"p3.8xlarge has no price in region 'mars', only in us-east-1"),
        ({"prices": "missing.csv"}, r"missing.csv: cannot be read"),
        (
            {"instance_type": {"gpus_per_instance": 1, "price_usd_per_hour": [[0, 1], [60, -1]]}},
            r"price_usd_per_hour\[1\]\[1\] is -1\.0, but must be a number from 0",
        ),
        (
            {"instance_type": {"gpus_per_instance": 1, "price_usd_per_hour": [[0, 1], [0, 2]]}},
            r"^cloud\.instance_type\.price_usd_per_hour: .* must go forward in time",
        ),
        (
            {"instance_type": {"gpus_per_instance": 1, "price_usd_per_hour": [[0, 1, 2]]}},
            r"must be a number, or a list of pairs",
        ),
    ],
)
def test_a_bad_price_or_rule_is_refused_with_its_key(cloud, message):
    with pytest.raises(InputError, match=message):
        spec_with(**cloud)


def test_a_budget_is_kept_though_prices_rise_in_the_run(tmp_path):
    machine = {"gpus_per_instance": 4, "price_usd_per_hour": [[0, 6], [900, 40]]}
    cloud = {**MINIMAL["cloud"], "instance_type": machine, "head_node_usd_per_hour": 0.5}
    base = RunSpec.of(**{**MINIMAL, "cloud": cloud, "job": {**MINIMAL["job"], "budget_usd": 12}})
    for policy in ("sha-elastic", "asha-elastic", "seer", "rubberband"):
        result = execute(base.with_policy(policy), journal=tmp_path / "journal.jsonl")
        assert result.budget_met
        assert sum(ledger_of(tmp_path / "journal.jsonl").usd.values()) == pytest.approx(result.cost_usd)


def test_a_journal_is_not_read_with_other_prices(elastune, tmp_path):
    spec = spec_with(prices="own.csv", region="here")
    execute(spec, journal=tmp_path / "journal.jsonl")
    assert elastune("replay", "journal.jsonl").exit_code == 0
    assert elastune("ledger", "journal.jsonl").exit_code == 0
    (tmp_path / "own.csv").write_text(OWN.replace(",10,", ",9,"))
    for command in ("replay", "ledger"):
        done = elastune(command, "journal.jsonl")
        assert done.exit_code == 2
        assert (
            "price catalogue own.csv is not the one that the journal was recorded with: its sha256 was" in done.stderr
        )
        assert "bring the old one back, or run the spec of the journal again" in done.stderr
    (tmp_path / "own.csv").unlink()
    for command in ("replay", "ledger"):
        done = elastune(command, "journal.jsonl")
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert (
            "own.csv that it was recorded with cannot be read: No such file or directory; bring it back" in done.stderr
        )
