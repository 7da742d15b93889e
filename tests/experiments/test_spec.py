"""The run spec: what it accepts, what it refuses and in which words, and its digest."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import yaml

from elastune import RunSpec
from elastune.experiments.spec.yaml_file import policy_mapping, read_mapping, with_settings
from elastune.sim.model.errors import InputError
from elastune.sim.model.profile import Delay, Faults

MINIMAL = {
    "job": {"trials": 64, "max_iterations": 27, "deadline_s": 3600, "budget_usd": 30},
    "workload": {"bundle": "digits-mlp", "scaling": "resnet50-v100", "iteration_s": 60},
    "cloud": {"instance_type": "p3.8xlarge"},
    "policy": "seer",
}

# The example of the contract, every key of it.
EVERY_KEY = """
job:
  trials: 64
  exact: false
  min_iterations: 1
  max_iterations: 27
  reduction_factor: 3
  deadline_s: 3600
  budget_usd: 30
  levels: cumulative
workload:
  bundle: mnist5k-cnn
  scaling: {1: 1, 2: 1.7, 4: 2.55, 8: 3.1}
  iteration_s: 60
  straggler_cv: {persistent: 0.05, per_iteration: 0.08, tail: lognormal}
  profile: {iteration_s_error: 0.0, scaling_error: 0.0}
cloud:
  instance_type: p3.8xlarge
  market: on-demand
  billing: {granularity_s: 1, minimum_s: 60, bills_startup: true, model: per-instance}
  startup: {queue_s: 5, init_s: 60}
  sync_s: 2
  rescale_s: 5
  max_instances: 32
policy: {name: seer, replan: false}
seed: 0
"""


def with_set(*settings):
    return RunSpec.model_validate(with_settings(MINIMAL, settings))


def test_every_key_of_the_contract_is_understood():
    spec = RunSpec.of(**yaml.safe_load(EVERY_KEY))
    assert spec.policy.params == {"replan": False}
    assert spec.workload.straggler_cv.persistent == 0.05
    assert spec.cloud.startup_delays().init == Delay(60.0)
    assert spec.workload.overrides(None).scaling.speedup(3) == pytest.approx((1.7 + 2.55) / 2)


def test_a_spec_read_back_is_the_same_spec():
    spec = RunSpec.of(**yaml.safe_load(EVERY_KEY))
    again = RunSpec.of(**yaml.safe_load(yaml.safe_dump(spec.to_dict())))
    assert again == spec
    assert again.digest() == spec.digest()


@pytest.mark.parametrize(
    "setting",
    [
        "seed=0",
        "job.min_iterations=1",
        "job.reduction_factor=3",
        "job.deadline_s=3600.0",
        "job.levels=cumulative",
        "cloud.startup={queue_s: 0, init_s: 0}",
        "cloud.init_s=0",
        "cloud.billing.minimum_s=60",
        "policy={name: seer, replan: true}",
        "policy.replan=true",
        "workload.profile.scaling_error=0",
    ],
)
def test_saying_a_default_aloud_does_not_change_the_digest(setting):
    assert with_set(setting).digest() == RunSpec.of(**MINIMAL).digest()


@pytest.mark.parametrize(
    "setting", ["seed=1", "policy=sha-fixed", "policy.replan=false", "job.budget_usd=31", "cloud.sync_s=1"]
)
def test_another_run_has_another_digest(setting):
    assert with_set(setting).digest() != RunSpec.of(**MINIMAL).digest()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("job.deadlin_s=3", r"unknown key job\.deadlin_s; did you mean job\.deadline_s\? known: trials, "),
        ("deadline_s=3", r"unknown key deadline_s; did you mean job\.deadline_s\?"),
        ("foo=1", r"unknown key foo; did you mean "),
        (
            "cloud.billing.granularity=1",
            r"unknown key cloud\.billing\.granularity; did you mean cloud\.billing\.granularity_s\?",
        ),
        ("cloud.faults.instance_loss=1", r"did you mean cloud\.faults\.instance_loss_per_hour\?"),
        ("workload.straggler_cv={persist: 1}", r"did you mean workload\.straggler_cv\.persistent\?"),
        ("workload.profile.scaling=1", r"^workload\.profile\.scaling is 1, but must be a name"),
        ("workload.profile.scalings=1", r"did you mean workload\.profile\.scaling\?"),
        ("workload.profile.scaling=linera", r"there is no scaling 'linera'"),
        (
            "workload.profile={scaling: linear, scaling_error: 0.2}",
            r"^workload\.profile\.scaling says what is believed, and so does workload\.profile\.scaling_error 0\.2 ",
        ),
        ("cloud.startup.init=3", r"cloud\.startup: unknown key 'init'; did you mean 'init_s'\?"),
        ("job.trials=true", r"^job\.trials is True, but must be a number$"),
        ("job.trials=many", r"^job\.trials is 'many', but must be a whole number$"),
        ("seed=010", r"^seed is '010', but must be a whole number without leading zeros$"),
        ("job.trials=012", r"^job\.trials is '012', but must be a whole number without leading zeros$"),
        ("job.trials=1_0", r"^job\.trials is '1_0', but must be a whole number without underscores$"),
        (
            "job.deadline_s=1:30",
            r"^job\.deadline_s is '1:30', but must be a number, in seconds or with its unit, as 90s, ",
        ),
        (
            "cloud.rescale_s=0x10",
            r"^cloud\.rescale_s is '0x10', but must be a number, in seconds or with its unit, as 90s, ",
        ),
        ("job.trials=64.5", r"^job\.trials is 64\.5, but must be a whole number$"),
        ("job.trials=null", r"^job\.trials is missing$"),
        ("job.trials=0", r"^job\.trials is 0, but must be a whole number from 1 up to 1,000,000$"),
        ("job.min_iterations=28", r"^job\.min_iterations is 28, but must be between 1 and job\.max_iterations \(27\)$"),
        ("job.reduction_factor=1", r"^job\.reduction_factor is 1, but must be a whole number from 2 up to 1,000,000$"),
        ("job.deadline_s=-1", r"^job\.deadline_s is -1, but must be a number above 0 up to 1e9$"),
        ("job.budget_usd=.inf", r"^job\.budget_usd is inf, but must be a finite number$"),
        ("job.levels=rising", r"^job\.levels is 'rising', but must be 'cumulative' or 'further'$"),
        ("job.exact=perhaps", r"^job\.exact is 'perhaps', but must be true or false$"),
        ("job=3", r"^job is 3, but must hold keys and values$"),
        ("job.stages=[[8, 1], [2, 3]]", r"says the same as job\.trials, job\.max_iterations: leave one of them out$"),
        ("workload.scaling=resnet50", r"there is no scaling 'resnet50'; did you mean 'resnet50-v100'\?"),
        ("workload.scaling=[1, 2]", r"^workload\.scaling is \[1, 2\], but must be a name"),
        ("workload.scaling={2: 1.5}", r"a table of speed-ups starts with 1 GPU at 1\.0"),
        ("workload.iteration_s=0", r"^workload\.iteration_s is 0, but must be a number from 1e-6 up to 1e9$"),
        (
            "workload.straggler_cv=-0.1",
            r"^workload\.straggler_cv\.per_iteration is -0\.1, but must be a number from 0 up to 100$",
        ),
        (
            "workload.straggler_cv={tail: cauchy}",
            r"^workload\.straggler_cv: there is no tail 'cauchy'; known: lognormal, pareto; ",
        ),
        (
            "workload.profile.scaling_error=-1",
            r"^workload\.profile\.scaling_error is -1, but must be a number above -1 up to 1e6$",
        ),
        ("cloud.instance_type=p3.8xlarg", r"there is no instance type 'p3\.8xlarg'; did you mean 'p3\.8xlarge'\?"),
        ("cloud.instance_type={gpus_per_instance: 4}", r"^cloud\.instance_type\.price_usd_per_hour is missing$"),
        ("cloud.instance_type={price_usd_per_hour: 3}", r"^cloud\.instance_type\.gpus_per_instance is missing$"),
        (
            "cloud.instance_type={price_usd_per_hour: -3, gpus_per_instance: 4}",
            r"^cloud\.instance_type\.price_usd_per_hour is -3, but must be a number from 0 up to 1e6$",
        ),
        ("cloud.instance_type={price_usd_per_hour: free, gpus_per_instance: 4}", r"'free', but must be a number$"),
        ("cloud.price_usd_per_hour=3", r"^cloud\.price_usd_per_hour and cloud\.instance_type are both given"),
        ("cloud.billing.model=hourly", r"must be 'per-instance' or 'per-function'$"),
        (
            "cloud.billing.granularity_s=-1",
            r"^cloud\.billing\.granularity_s is -1, but must be a number from 0 up to 1e9$",
        ),
        ("cloud.startup=quick", r"^there is no start-up 'quick'; "),
        ("cloud.startup.init_s=-3", r"^cloud\.startup\.init_s is -3, but must be a number of at least 0$"),
        ("cloud.slow_nodes={share: 2}", r"^cloud\.slow_nodes\.share is 2, but must be a number from 0 up to 1$"),
        (
            "cloud.slow_nodes={share: 0.1, slowdown: 0.5}",
            r"^cloud\.slow_nodes\.slowdown is 0\.5, but must be a number from 1 up to 1,000$",
        ),
        ("cloud.interference=-1", r"^cloud\.interference is -1, but must be a number from 0 up to 100$"),
        ("cloud.store_writers=0", r"^cloud\.store_writers is 0, but must be a number from 0\.001 up to 1e6$"),
        ("workload.evaluate_s=-1", r"^workload\.evaluate_s is -1, but must be a number from 0 up to 1e9$"),
        ("workload.min_gpus=0", r"^workload\.min_gpus is 0, but must be a whole number from 1 up to 100,000$"),
        ("cloud.rescale_s=-1", r"^cloud\.rescale_s is -1, but must be a number from 0 up to 1e9$"),
        (
            "job.checkpoint_every=-1",
            r"^job\.checkpoint_every is -1, but must be a whole number from 0 up to 1,000,000$",
        ),
        ("cloud.capacity=1.5", r"^cloud\.capacity is 1\.5, but must be a whole number$"),
        (
            "cloud.spot={trace: spot.csv, start_s: -5}",
            r"^cloud\.spot\.start_s is -5, but must be a number from 0 up to 1e9$",
        ),
        (
            "cloud.instance_type={price_usd_per_hour: .inf, gpus_per_instance: 4}",
            r"^cloud\.instance_type\.price_usd_per_hour is inf, but must be a finite number$",
        ),
        ("cloud.max_gpus=2", r"^cloud\.max_gpus is 2, but one instance has 4 GPUs already$"),
        ("cloud.max_instances=0", r"^cloud\.max_instances is 0, but must be a whole number from 1 up to 10,000$"),
        ("policy=seeer", r"there is no policy 'seeer'; did you mean 'seer'"),
        ("policy=[1]", r"^policy is \[1\], but must be a name, or a mapping with name and parameters$"),
        ("policy={replan: true}", r"^policy\.name is missing$"),
        (
            "policy=sha-elastic:gpu_per_trial=4",
            r"sha-elastic parameter 'gpu_per_trial'; did you mean 'gpus_per_trial'\?",
        ),
        ("policy=sha-elastic:gpus_per_trial=four", r"gpus_per_trial is 'four', but must be a whole number$"),
        ("policy.replan=1", r"^policy seer: replan is 1, but must be true or false$"),
        ("policy=seer:replan", r"'replan' must be param=value"),
        ("policy=seer:replan=true:replan=false", r"'replan' is given twice$"),
        ("seed=-1", r"^seed is -1, but must be a whole number from 0 up to 9,223,372,036,854,775,807$"),
        ("job.trials", r"^--set job\.trials: must be key=value"),
        ("job.trials=[", r"^--set job\.trials=\[, line 1: malformed YAML"),
        ("seed.a=1", r"^--set seed\.a=1: seed is 0, which holds no keys$"),
    ],
)
def test_a_bad_key_or_value_is_one_sentence_that_names_it(setting, message):
    with pytest.raises(InputError, match=message) as caught:
        RunSpec.model_validate(with_settings({**MINIMAL, "seed": 0}, [setting]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("section", ["job", "workload", "cloud", "policy"])
def test_a_missing_section_is_named(section):
    with pytest.raises(InputError, match=f"^{section} is missing$"):
        RunSpec.of(**{key: value for key, value in MINIMAL.items() if key != section})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("job: {trials: 3", r"spec\.yaml, line \d+: malformed YAML: "),
        ("job:\n\ttrials: 3", r"spec\.yaml, line 2: is indented by a tab; YAML wants spaces$"),
        ("job:\n  trials: 3\n  trials: 4", r"spec\.yaml, line 3: the key 'trials' is given twice$"),
        ("a: 1\n1: 2\ntrue: 3", r"spec\.yaml, line 3: the key 'true' is given twice$"),
        ("- job", r"spec\.yaml: holds a list, but must hold keys and values$"),
        ("", r"spec\.yaml: holds nothing, but must hold keys and values$"),
        ("a: b\x01", r"spec\.yaml: malformed YAML: "),
    ],
)
def test_malformed_yaml_names_file_and_line(tmp_path, text, message):
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        RunSpec.load(tmp_path / "spec.yaml")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no\.yaml: cannot be read: No such file"):
        read_mapping(tmp_path / "no.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary: is not UTF-8 text"):
        read_mapping(tmp_path / "binary")


def test_a_file_without_end_is_no_spec():
    with pytest.raises(
        InputError, match=r"/dev/zero: holds more than 10 MB, but must be a YAML file of keys and values"
    ):
        read_mapping(Path("/dev/zero"))


@pytest.mark.parametrize("key", ["[red]", "[/x]", "job[0]", "list[int]", "\x1b[31m", "a.b", ""])
def test_an_unknown_key_is_named_whatever_is_in_it(key):
    with pytest.raises(InputError, match=rf"^unknown key {re.escape(key)}; did you mean .* known: job, workload"):
        RunSpec.of(**MINIMAL, **{key: 1})
    with pytest.raises(InputError, match=rf"^unknown key job\.{re.escape(key)}; did you mean"):
        RunSpec.of(**{**MINIMAL, "job": {**MINIMAL["job"], key: 1}})


@pytest.mark.parametrize("setting", ["job.deadline_s=", "job.deadline_s= "])
def test_a_setting_without_a_value_is_refused_and_null_leaves_the_key_out(setting):
    with pytest.raises(InputError, match=r"the value is missing; job.deadline_s=null leaves the key out$"):
        with_set(setting)
    assert with_set("job.deadline_s=null").job.deadline_s is None


def test_settings_leave_what_they_were_given_alone():
    before = copy.deepcopy(MINIMAL)
    spec = with_set("job.deadline_s=1800", "cloud.billing.minimum_s=0", "cloud.faults.instance_loss_per_hour=0.1")
    assert before == MINIMAL
    assert spec.job.deadline_s == 1800.0
    assert spec.cloud.billing.minimum_s == 0.0
    assert spec.cloud.fault_rates() == Faults(0.1, 0.0)


def test_a_plain_straggler_number_is_the_spread_of_each_iteration():
    spread = with_set("workload.straggler_cv=0.1").workload.overrides(None).stragglers
    assert (spread.persistent_cv, spread.per_iteration_cv) == (0.0, 0.1)


@pytest.mark.parametrize("setting", ["cloud.startup={queue_s: 5, init_s: {mean_s: 60, cv: 0.1}}"])
def test_start_up_may_be_distributions(setting):
    startup = with_set(setting).cloud.startup_delays()
    assert (startup.queue, startup.init) == (Delay(5.0), Delay(60.0, 0.1))


def test_start_up_may_be_flat_or_a_preset():
    assert with_set("cloud.queue_s=5", "cloud.init_s=60").cloud.startup_delays().mean_s == 65.0
    assert with_set("cloud.startup=typical").cloud.startup_delays().mean_s == pytest.approx(5.0 + 124.0)


@pytest.mark.parametrize(
    "settings",
    [
        ["cloud.instance_type={price_usd_per_hour: 8, gpus_per_instance: 2}"],
        ["cloud={price_usd_per_hour: 8, gpus_per_instance: 2}"],
        ["cloud={instance_type: {name: mine, price_usd_per_hour: 8, gpus_per_instance: 2}}"],
    ],
)
def test_a_machine_may_be_given_inline(settings):
    book = with_set(*settings).price_book()
    assert (book.usd_per_hour(), book.default_type.gpus_per_instance, book.max_instances) == (8.0, 2, 32)


def test_a_quota_of_gpus_is_one_of_whole_machines():
    assert with_set("cloud.max_gpus=11").price_book().max_instances == 2
    with pytest.raises(InputError, match="leave one of them out"):
        with_set("cloud.max_gpus=11", "cloud.max_instances=2")


def test_stages_replace_the_four_numbers():
    spec = with_set("job={stages: [[32, 1], [10, 3], [3, 9], [1, 37]], deadline_s: 60}")
    job = spec.job.tuning_job("maximize")
    assert (job.trials, job.min_iterations, job.max_iterations) == (32, 1, 50)
    assert job.stages == ((32, 1), (10, 3), (3, 9), (1, 37))
    assert RunSpec.of(**spec.to_dict()) == spec


@pytest.mark.parametrize("stages", ["[]", "[[0, 1]]", "[[2, 1], [3, 1]]", "[[2]]", "7"])
def test_stages_that_make_no_sense_are_refused(stages):
    with pytest.raises(InputError, match=r"^job\.stages"):
        with_set(f"job={{stages: {stages}}}")


def test_a_policy_may_carry_its_parameters():
    assert policy_mapping("sha-elastic:gpus_per_trial=4") == {"name": "sha-elastic", "gpus_per_trial": 4}
    assert policy_mapping("rubberband:steps=next") == {"name": "rubberband", "steps": "next"}
    spec = RunSpec.of(**MINIMAL).with_policy("sha-elastic", gpus_per_trial=4)
    assert spec.policy.label == "sha-elastic:gpus_per_trial=4"
    assert spec == RunSpec.of(**MINIMAL).with_policy("sha-elastic:gpus_per_trial=4")
    assert with_set("policy=rubberband:steps=next").policy.label == "rubberband:steps=next"


def test_seed_and_policy_change_nothing_else():
    spec = RunSpec.of(**MINIMAL)
    assert spec.with_seed(3).with_policy("sha-fixed").with_seed(0).with_policy("seer") == spec
    assert spec.with_seed(3).seed == 3


def test_a_run_needs_a_bundle():
    spec = with_set("workload={scaling: linear}")
    with pytest.raises(InputError, match=r"^workload\.bundle is missing"):
        spec.bundle()


def with_workload(**workload):
    return RunSpec.of(
        job={"trials": 4, "max_iterations": 9},
        workload={"bundle": "digits-mlp", **workload},
        cloud={"price_usd_per_hour": 1.0, "gpus_per_instance": 2},
        policy="sha-fixed",
    )


@pytest.mark.parametrize(("key", "default"), [("configurations", "bundle"), ("batch", "global")])
def test_saying_what_is_meant_anyway_changes_no_digest(key, default):
    said, unsaid = with_workload(**{key: default}), with_workload()
    assert said == unsaid
    assert said.digest() == unsaid.digest()
    assert key not in said.to_dict()["workload"]


@pytest.mark.parametrize(("key", "value"), [("configurations", "tpe"), ("batch", "per-worker")])
def test_what_only_real_runs_know_is_kept_in_the_spec_and_refused_in_simulation(key, value):
    spec = with_workload(**{key: value})
    assert RunSpec.of(**spec.to_dict()) == spec
    assert spec.digest() != with_workload().digest()
    with pytest.raises(
        InputError, match=rf"^workload\.{key} is {value}, but curves are recorded .* --on ray, or leave it out"
    ):
        spec.require_simulable()


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        (
            "configurations",
            "tpee",
            r"workload\.configurations is 'tpee', but must be one of bundle, search-space, .*gp; did you mean tpe\?$",
        ),
        ("configurations", 3, r"workload\.configurations is 3, but must be one of bundle"),
        ("batch", "per-wroker", r"workload\.batch is 'per-wroker', but must be one of global, per-worker; did you"),
    ],
)
def test_an_unknown_word_is_an_error_that_names_the_nearest(key, value, problem):
    with pytest.raises(InputError, match=problem):
        with_workload(**{key: value})


def test_a_key_can_be_set_beside_a_providers_name():
    spec = with_set("cloud.billing=azure", "cloud.billing.model=per-function")
    assert (spec.cloud.billing.minimum_s, spec.cloud.billing.model) == (300.0, "per-function")
