from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest

from elastune import RunSpec, execute
from elastune.experiments.runs.replay import replay_journal
from elastune.sim.model.capacity import Steps
from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.sim.model.profile import Delay
from elastune.sim.model.reclaim import Lifetimes

BASE = {
    "job": {"trials": 9, "max_iterations": 9, "deadline_s": 3600, "budget_usd": 4},
    "workload": {"bundle": "digits-mlp", "scaling": "linear", "iteration_s": 60},
    "cloud": {"instance_type": "p3.8xlarge", "startup": {"queue_s": 5, "init_s": 30}},
    "policy": "sha-fixed",
}


def of(**cloud):
    spec = copy.deepcopy(BASE)
    spec["cloud"].update(cloud)
    return RunSpec.of(**spec)


@pytest.fixture
def trace(tmp_path):
    """A recorded market of four nodes, one of which goes every five minutes and comes back a minute later."""
    path = tmp_path / "nodes.csv"
    lines = [f"0,add,{node}" for node in range(4)]
    for minute in range(5, 60, 5):
        node = (minute // 5 - 1) % 4
        lines += [f"{minute * 60},remove,{node}", f"{minute * 60 + 60},add,{node}"]
    path.write_text("\n".join(["t_s,op,node", *lines]) + "\n", encoding="utf-8")
    return path


def test_a_spot_market_is_drawn_or_recorded(trace):
    drawn = of(market="spot", spot={"lifetime": {"mean_s": 600, "shape": 0.8}, "bulk": {"per_hour": 1, "zones": 2}})
    truth = drawn.cloud.truth()
    assert truth.spot.reclaims == Lifetimes(600.0, 0.8, 1.0, 1.0, 2)
    assert truth.spot.notice_s == 120.0
    assert drawn.cloud.believed_mtbf_s() == pytest.approx(1 / (1 / 600 + 1 / 3600))
    recorded = of(market="spot", spot={"trace": str(trace), "start_s": 90, "notice_s": "gcp"}).cloud.truth().spot
    assert (recorded.reclaims.start_s, recorded.notice_s) == (90.0, 30.0)
    assert (
        of(market="spot", spot={"trace": str(trace), "start_s": "random"}).cloud.truth().spot.reclaims.start_s is None
    )
    believed = of(market="spot", spot={"trace": str(trace), "mtbf_s": 777})
    assert believed.cloud.believed_mtbf_s() == pytest.approx(777)


def test_the_market_of_the_job_is_the_one_that_prices_and_actions_mean():
    spot = {"lifetime": {"mean_s": 600}}
    book = of(market="spot", spot=spot).price_book()
    assert (book.usd_per_hour(), book.pool()) == (1.4594, ("p3.8xlarge", "spot"))
    mixed = of(market="mixed", spot=spot, on_demand_rungs=2).price_book()
    # Plans are made at the dearer price; what is asked for without a market is spot.
    assert (mixed.usd_per_hour(), mixed.pool(), mixed.on_demand_rungs) == (12.24, ("p3.8xlarge", "spot"), 2)
    assert of().price_book().pool() == ("p3.8xlarge", "on-demand")
    inline = of(
        instance_type={"price_usd_per_hour": 8, "spot_price_usd_per_hour": 2, "gpus_per_instance": 4},
        market="spot",
        spot=spot,
    )
    assert inline.price_book().usd_per_hour() == 2.0


def test_checkpoints_follow_from_the_loss_rate_on_spot_only_and_unless_they_are_given():
    assert of().job.checkpoint_every == 0
    spot = of(market="spot", spot={"lifetime": {"mean_s": 600}})
    assert spot.job.checkpoint_every == "auto"
    assert RunSpec.of(**spot.to_dict()) == spot
    given = spot.to_dict()
    given["job"]["checkpoint_every"] = 3
    assert RunSpec.of(**given).job.checkpoint_every == 3
    losses = copy.deepcopy(BASE)
    losses["job"]["checkpoint_every"] = "auto"
    with pytest.raises(
        InputError, match=r"^job\.checkpoint_every is auto, but nothing says how often machines are lost"
    ):
        RunSpec.of(**losses)
    losses["cloud"]["faults"] = {"instance_loss_per_hour": 2}
    assert RunSpec.of(**losses).cloud.believed_mtbf_s() == 1800.0


def test_capacity_and_quota_are_numbers_or_steps_and_may_be_of_other_machines():
    cloud = of(
        capacity={"p3.8xlarge": 2, "p3.8xlarge/on-demand": [[0, 1], [60, 3]], "g4dn.12xlarge": 0},
        quota_ramp=[[0, 4], [600, 16]],
        fail_over=["g4dn.12xlarge"],
    ).cloud
    truth = cloud.truth()
    assert truth.capacity == {
        ("p3.8xlarge", "on-demand"): Steps((0.0, 60.0), (1, 3)),
        ("g4dn.12xlarge", "on-demand"): Steps.constant(0),
    }
    assert truth.quota == Steps((0.0, 600.0), (4, 16))
    assert not truth.waits
    book = cloud.price_book()
    assert (book.max_instances, book.fail_over) == (16, (("g4dn.12xlarge", "on-demand"),))
    assert [one.name for one in book.instance_types] == ["p3.8xlarge", "g4dn.12xlarge"]
    assert of(capacity=3, when_refused="wait").cloud.truth().waits
    assert of(capacity=3).cloud.truth().capacity == {("p3.8xlarge", "on-demand"): Steps.constant(3)}


def test_a_new_machine_loads_the_data_in_its_set_up():
    # 150 GB at 0.5 GB/s take 300 s; the spread of the rest stays what it was in seconds.
    startup = of(
        startup={"init_s": 30, "setup_s": {"mean_s": 100, "cv": 0.2}}, data={"gb": 150, "download_gb_per_s": 0.5}
    ).cloud.startup_delays()
    assert (startup.init, startup.setup) == (Delay(30.0), Delay(400.0, 0.05))
    assert of(data={"gb": 150}).cloud.startup_delays().setup.mean_s == 0.0
    of_bundle = of(data={"download_gb_per_s": 0.5}).cloud
    assert of_bundle.startup_delays(data_bytes=5e9).setup.mean_s == 10.0
    with pytest.raises(InputError, match=r"^cloud\.data\.gb is missing"):
        of_bundle.startup_delays()
    with pytest.raises(InputError, match=r"^cloud\.data\.download_gb_per_s is 0"):
        of(data={"gb": 1, "download_gb_per_s": 0})
    recorded = Delay.recorded([2.0, 4.0, 9.0]).plus(10.0)
    assert recorded.quantiles_s == (12.0, 14.0, 19.0)
    assert recorded.mean_s == pytest.approx(Delay.recorded([12.0, 14.0, 19.0]).mean_s)
    assert recorded.cv == pytest.approx(Delay.recorded([12.0, 14.0, 19.0]).cv)


def test_waits_may_be_recorded():
    startup = of(startup={"queue_s": {"recorded_s": [2, 40, 5]}, "init_s": 30}).cloud.startup_delays()
    assert startup.queue == Delay.recorded([2, 5, 40])
    assert math.isclose(startup.mean_s, 30 + (3.5 + 22.5) / 2)


@pytest.mark.parametrize(
    ("cloud", "message"),
    [
        ({"market": "spot"}, r"^cloud\.spot is missing: say how spot machines are taken back"),
        ({"market": "spot", "spot": {}}, r"^cloud\.spot must say how machines are taken back: either trace"),
        (
            {"market": "spot", "spot": {"lifetime": {"mean_s": 9}, "trace": "x.csv"}},
            r"either trace \(a file\), or lifetime",
        ),
        (
            {"market": "spot", "spot": {"lifetime": {"mean_s": 9}, "start_s": 5}},
            r"are about a trace, and there is none",
        ),
        ({"market": "spot", "spot": {"lifetime": {"mean_s": 0}}}, r"^cloud\.spot\.lifetime\.mean_s is 0"),
        ({"market": "spot", "spot": {"bulk": {"per_hour": 1, "share": 2}}}, r"^cloud\.spot\.bulk\.share is 2"),
        (
            {"market": "spot", "spot": {"lifetime": {"mean_s": 9}, "notice_s": "ibm"}},
            r"must be a number, in seconds or with its unit, as .*, or one of aws, gcp",
        ),
        ({"market": "spot", "spot": {"trace": "no.csv"}}, r"no\.csv: cannot be read"),
        ({"market": "spot", "spot": {"trace": "no.csv", "start_s": "anywhere"}}, r"with its unit, as .*, or random"),
        ({"market": "spot", "spot": {"mean_s": 7}}, r"unknown key cloud\.spot\.mean_s; did you mean"),
        ({"market": "spott"}, r"^cloud\.market is 'spott', but must be"),
        ({"on_demand_rungs": 1}, r"^cloud\.on_demand_rungs is about cloud\.market: mixed only"),
        ({"market": "mixed", "on_demand_rungs": 0, "spot": {"bulk": {"per_hour": 1}}}, r"^cloud\.on_demand_rungs is 0"),
        ({"when_refused": "fail-over"}, r"^cloud\.fail_over is missing"),
        ({"when_refused": "wait", "fail_over": ["g4dn.12xlarge"]}, r"cloud\.when_refused is wait"),
        ({"when_refused": "sulk"}, r"^cloud\.when_refused is 'sulk', but must be"),
        ({"fail_over": ["p3.16xlarge"]}, r"fail_over names p3\.16xlarge with 8 GPUs, but p3\.8xlarge has 4"),
        ({"fail_over": ["p3.9xlarge"]}, r"there is no instance type 'p3\.9xlarge'"),
        (
            {"fail_over": ["p3.8xlarge/sport"]},
            r"^cloud\.fail_over is 'p3\.8xlarge/sport', but the market after the slash",
        ),
        ({"fail_over": ["spot"]}, r"^cloud\.spot is missing"),
        (
            {
                "instance_type": {"gpus_per_instance": 4, "price_usd_per_hour": 9},
                "market": "spot",
                "spot": {"lifetime": {"mean_s": 3600}},
            },
            r"^cloud\.market is spot, but inline has no spot price: give price_usd_per_hour and spot_price_usd_per_hour inline",
        ),
        ({"capacity": -1}, r"^cloud\.capacity is -1, but must be a whole number from 0 up to 10,000$"),
        ({"capacity": [[5, 1]]}, r"^cloud\.capacity begins at 5 s"),
        ({"capacity": [[0, 1], [9, 2], [7, 3]]}, r"^cloud\.capacity goes from 9 s to 7 s, but its times must rise"),
        ({"capacity": [1, 2]}, r"^cloud\.capacity is \[1, 2\], but must be a number of instances, or a list of pairs"),
        (
            {"capacity": {"g4dn.12xlarge": 1}},
            r"^cloud\.capacity\.g4dn\.12xlarge: this run asks for p3\.8xlarge only; name",
        ),
        (
            {"quota_ramp": [[0, 4], [60, 8]], "max_instances": 16},
            r"^cloud\.quota_ramp rises to 8 .*quota is 16",
        ),
        ({"startup": {"queue_s": {"recorded_s": [1]}}}, r"queue_s\.recorded_s names fewer than two waiting times"),
        (
            {"startup": {"queue_s": {"recorded_s": [1, -2]}}},
            r"queue_s\.recorded_s is -2, but must be a number of at least 0",
        ),
        ({"startup": {"queue_s": {"recorded_s": 7}}}, r"queue_s\.recorded_s is 7, but must be a list of seconds"),
    ],
)
def test_a_bad_key_is_one_sentence_that_names_it(cloud, message):
    with pytest.raises(InputError, match=message) as caught:
        of(**cloud)
    assert "\n" not in str(caught.value)


def test_a_trace_in_which_time_goes_back_is_refused_before_anything_starts(tmp_path):
    path = tmp_path / "back.csv"
    path.write_text("t_s,op,node\n0,add,a\n60,add,b\n30,remove,a\n", encoding="utf-8")
    with pytest.raises(
        InvalidTraceError, match=r"back\.csv, row 3, column t_s: goes back from 60 s to 30 s; sort the events"
    ):
        of(market="spot", spot={"trace": str(path)})


def test_a_run_on_a_recorded_market_replays_and_says_when_its_trace_was_changed(tmp_path, trace):
    spec = of(market="spot", when_refused="wait", spot={"trace": str(trace)})
    journal = tmp_path / "run.jsonl"
    first, second = execute(spec, journal=journal), execute(spec)
    assert first == second
    assert first.score is not None
    assert first.deadline_met
    assert "ReclaimNoticed" in journal.read_text(encoding="utf-8")
    assert replay_journal(journal)[1]
    with trace.open("a", encoding="utf-8") as file:
        file.write("4000,add,9\n")
    with pytest.raises(InputError, match=r"spot trace .*nodes\.csv is not the one that the journal was recorded with"):
        replay_journal(journal)


@pytest.mark.parametrize(("market", "interval"), [("spot", "auto"), ("mixed", "auto"), ("on-demand", 0)])
def test_the_catalog_entry_differs_by_its_market_alone(market, interval):
    catalog = Path(__file__).parents[2] / "experiments" / "catalog" / "spot.yaml"
    spec = RunSpec.load(catalog, [f"cloud.market={market}"])
    assert spec.job.checkpoint_every == interval
    # 3,600 / 5,888 losses an hour, alone and in waves together.
    losses = spec.cloud.believed_mtbf_s()
    assert losses == pytest.approx(math.inf if market == "on-demand" else 5888, rel=1e-3)
