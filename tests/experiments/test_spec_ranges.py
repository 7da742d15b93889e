"""Every number of a spec has a range, which is stated on the page and checked before anything starts."""

from __future__ import annotations

import math
import signal
import warnings
from contextlib import contextmanager, suppress

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from elastune import RunSpec, execute
from elastune.experiments.spec.machine import InstanceTypeSpec
from elastune.experiments.spec.page import keys
from elastune.experiments.spec.spot import SpotSpec
from elastune.experiments.spec.yaml_file import with_settings
from elastune.sim.model.errors import InputError, TuningError

SPEC = {
    "job": {"trials": 4, "max_iterations": 9, "deadline_s": 3600, "budget_usd": 20},
    "workload": {"bundle": "digits-mlp", "scaling": "linear", "iteration_s": 10},
    "cloud": {
        "instance_type": {
            "name": "m",
            "price_usd_per_hour": 3.6,
            "spot_price_usd_per_hour": 1.0,
            "gpus_per_instance": 1,
        },
        "rescale_s": 1,
        "max_instances": 4,
    },
    "policy": "asha-elastic",
}
KEYS = {key.name: key for key in keys() if not key.name.startswith("policy.")}
WITHOUT_NUMBERS = {
    "cloud.instance_type",
    "job.exact", "job.levels", "job.direction", "workload.bundle", "workload.configurations", "workload.batch",
    "workload.scaling", "workload.straggler_cv", "workload.straggler_cv.tail", "workload.straggler_cv.per",
    "workload.profile.scaling", "cloud.instance_type.name", "cloud.prices", "cloud.region", "cloud.market", "cloud.spot",
    "cloud.spot.trace", "cloud.spot.recording", "cloud.billing", "cloud.billing.bills_startup", "cloud.billing.model",
    "cloud.billing.bills_queue", "cloud.billing.bills_setup", "cloud.startup", "cloud.when_refused", "cloud.fail_over",
    "cloud.placement", "cloud.head_node", "cloud.data", "cloud.slow_nodes", "workload.trainable", "workload.space",
}  # fmt: skip
LISTED = {
    "job.stages": "[[{}, 1]]",
    "cloud.quota_ramp": "[[0, 1], [{}, 4]]",
    **{f"cloud.startup.{phase}.recorded_s": "[1, {}]" for phase in ("queue_s", "init_s", "setup_s")},
}
ODD = [
    *("0", "-1", "1", "0.5", "1e-300", "1e12", "1e300", "9223372036854775808", "-9223372036854775809", "9" * 401),
    *(
        ".inf",
        "-.inf",
        ".nan",
        "null",
        "true",
        "''",
        "text",
        "[]",
        "[1]",
        "{}",
        "{a: 1}",
        "1_0",
        "010",
        "1:30",
        "[red]",
    ),
]
LIMIT_S = 20
"""Processor seconds, because other work on the machine must not fail a test."""


def with_value(name, text):
    """The spec with this value at this key, and with what the key needs beside it."""
    needs = []
    if name.startswith("cloud.spot."):
        needs = ["cloud.market=spot", "cloud.spot.lifetime.mean_s=600"]
        needs += ["cloud.spot.bulk.per_hour=2"] if "bulk" in name else []
    needs += (
        [f"{name.removesuffix('cv')}mean_s=1"] if name.startswith("cloud.startup.") and name.endswith(".cv") else []
    )
    spec = {**SPEC, "job": {"direction": "minimize"}} if name == "job.stages" else SPEC
    return with_settings(spec, [*needs, f"{name}={LISTED.get(name, '{}').format(text)}"])


@contextmanager
def at_most(seconds):
    def stop(*_):
        raise TimeoutError(f"no end within {seconds} s of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def is_run_or_told(mapping):
    """The run ends in time, or one of the project's errors says why not."""
    with at_most(LIMIT_S), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(TuningError):
            assert math.isfinite(execute(RunSpec.model_validate(mapping)).cost_usd)


def test_every_key_that_holds_numbers_has_a_range():
    assert {name for name, key in KEYS.items() if key.range is None} == WITHOUT_NUMBERS


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.range is not None])
def test_a_number_beyond_the_range_is_refused_by_name(name):
    allowed = KEYS[name].range
    below = allowed.least if allowed.is_open else allowed.least - 1
    for number in (below, allowed.most * 2 if isinstance(allowed.most, int) else allowed.most * 1.5):
        with pytest.raises(InputError) as caught:
            RunSpec.model_validate(with_value(name, number))
        assert str(caught.value).startswith(name), caught.value


SECONDS_KEYS = [
    name for name, key in KEYS.items() if name.endswith("_s") and not name.endswith("_per_s") and key.range is not None
]


@pytest.mark.parametrize("name", SECONDS_KEYS)
def test_every_key_of_seconds_takes_a_unit_and_means_the_number(name):
    if name == "cloud.spot.start_s":
        pytest.skip("needs a recording; its form is tested below")
    for written, meant_s in (("90s", 90), ("1.5min", 90.0), ("2h", 7200), ("1d", 86400), ("90", 90)):
        spec, plain = (RunSpec.model_validate(with_value(name, value)) for value in (written, meant_s))
        assert (spec, spec.digest()) == (plain, plain.digest())


def test_the_start_within_a_recording_and_pairs_take_a_unit():
    assert SpotSpec(trace="spot.csv", start_s="2h").start_s == 7200
    cloud = RunSpec.model_validate(with_settings(SPEC, ["cloud.quota_ramp=[[0, 1], [10min, 4]]"])).cloud
    assert cloud.quota_ramp == [(0, 1), (600, 4)]
    inline = {"price_usd_per_hour": [[0, 3.1], ["1h", 2.8]], "gpus_per_instance": 4}
    assert InstanceTypeSpec.model_validate(inline).price_usd_per_hour == ((0, 3.1), (3600, 2.8))


@pytest.mark.parametrize("name", SECONDS_KEYS)
@pytest.mark.parametrize("written", ["2 weeks", "1:30", "h", "007min", "1h30min"])
def test_a_duration_of_another_form_is_refused_by_key_value_and_forms(name, written):
    with pytest.raises(InputError) as caught:
        RunSpec.model_validate(with_value(name, written))
    message = str(caught.value)
    assert message.startswith(name), message
    assert repr(written) in message
    assert "in seconds or with its unit, as 90s, 30min, 2h or 1d" in message


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.range is not None])
def test_a_run_at_either_end_of_the_range_ends(name):
    allowed = KEYS[name].range
    is_run_or_told(with_value(name, math.nextafter(allowed.least, 1) if allowed.is_open else allowed.least))
    is_run_or_told(with_value(name, allowed.most))


@settings(max_examples=examples(60), deadline=None)
@given(st.sampled_from([*KEYS, "seed"]), st.sampled_from(ODD))
def test_whatever_a_key_holds_the_run_ends_or_says_why_not(name, text):
    try:
        mapping = with_value(name, text)
    except InputError:
        return
    is_run_or_told(mapping)


@pytest.mark.parametrize(
    "setting",
    [
        "job.checkpoint_every=9223372036854775808",
        "workload.straggler_cv=1.0e+300",
        "cloud.slow_nodes.cv=1.0e+300",
        "cloud.instance_type.gpus_per_instance=1000000000000",
        "cloud.faults.segment_failure_per_hour=1.0e+12",
    ],
)
def test_numbers_that_had_no_end_or_no_words_are_refused(setting):
    with pytest.raises(InputError, match=setting.partition("=")[0].replace(".", r"\.")):
        RunSpec.model_validate(with_settings(SPEC, [setting]))


@pytest.mark.parametrize("points", ["{1: 1, 1000000000: 5}", "{1x1: 1, 1000000000x2: 5}"])
def test_a_table_for_a_gang_that_nobody_has_is_refused(points):
    with pytest.raises(InputError, match="is no gang: it has 1 to 100000 GPUs"):
        RunSpec.model_validate(with_settings(SPEC, [f"workload.scaling={points}"]))


def test_a_machine_of_a_catalogue_is_held_to_the_same_range(tmp_path):
    prices = tmp_path / "prices.csv"
    prices.write_text(
        "name,gpus_per_instance,on_demand_usd_per_hour,spot_usd_per_hour,source,date\nhuge,1000000,1,,here,2026-01-01\n"
    )
    cloud = {"instance_type": "huge", "prices": str(prices)}
    with pytest.raises(InputError, match="gpus_per_instance is 1000000, but must be between 1 and 1000"):
        RunSpec.model_validate({**SPEC, "cloud": cloud})
