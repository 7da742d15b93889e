"""Sweep files: which cells they hold, and what is refused before anything starts."""

from __future__ import annotations

import pytest
import yaml

from elastune import RunSpec
from elastune.experiments.spec.places import spec_file
from elastune.experiments.spec.yaml_file import read_mapping
from elastune.experiments.sweeps.grid import RangeSpec, SweepSpec
from elastune.sim.model.errors import InputError

BASE = {
    "job": {"trials": 6, "max_iterations": 9, "deadline_s": 900, "budget_usd": 5},
    "workload": {"bundle": "mnist5k-cnn", "scaling": "resnet50-v100", "iteration_s": 60},
    "cloud": {"instance_type": "p3.8xlarge", "startup": "fast", "rescale_s": 5},
    "policy": "sha-fixed",
    "seed": 3,
}


def sweep_of(**parts):
    return SweepSpec.of({"base": BASE, **parts})


def test_cells_are_the_product_of_axes_and_zipped_groups():
    sweep = sweep_of(
        axes={"policy": ["sha-fixed", "asha-fixed"], "job.deadline_s": [300, 600, 900]},
        zip={"workload.iteration_s": [60, 20], "job.budget_usd": [5, 2]},
        seeds=4,
    )
    cells = sweep.cells()
    found = [
        (c.spec.policy.label, c.spec.job.deadline_s, c.spec.workload.iteration_s, c.spec.job.budget_usd) for c in cells
    ]
    assert found == [
        (policy, deadline_s, iteration_s, budget_usd)
        for policy in ("sha-fixed", "asha-fixed")
        for deadline_s in (300, 600, 900)
        for iteration_s, budget_usd in ((60, 5), (20, 2))
    ]
    assert sweep.seeds == [3, 4, 5, 6]
    assert {cell.spec.seed for cell in cells} == {3}
    assert cells[0].label == "policy=sha-fixed job.deadline_s=300 workload.iteration_s=60 job.budget_usd=5"


def test_several_zipped_groups_are_several_axes():
    groups = [
        {"job.trials": [3, 6], "job.budget_usd": [2, 5]},
        {"cloud.sync_s": [0, 1, 2], "cloud.rescale_s": [5, 6, 7]},
    ]
    assert len(sweep_of(zip=groups).cells()) == 2 * 3


def test_a_sweep_without_axes_is_its_base():
    (cell,) = sweep_of().cells()
    assert cell.spec == RunSpec.of(**BASE)
    assert (cell.label, sweep_of().seeds) == ("base", [3])


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"from": 0.1, "to": 0.3, "step": 0.1}, [0.1, 0.2, 0.3]),
        ({"from": 0, "to": 10, "step": 4}, [0, 4, 8]),
        ({"from": 3, "to": 1, "step": -1}, [3, 2, 1]),
        ({"from": 1, "to": 100, "num": 3, "scale": "log"}, [1, 10, 100]),
        ({"from": 0, "to": 1, "num": 5}, [0, 0.25, 0.5, 0.75, 1]),
        ({"from": 7, "to": 7, "num": 1}, [7]),
    ],
)
def test_ranges_hold_both_ends_and_no_noise(given, values):
    found = RangeSpec.model_validate(given).values()
    assert found == values
    assert [type(number) for number in found] == [type(number) for number in values]


def test_ranges_are_written_out_and_read_back():
    sweep = sweep_of(axes={"job.trials": {"from": 3, "to": 6, "step": 1}}, seeds={"from": 0, "to": 8, "step": 4})
    told = sweep.to_dict()
    assert told["axes"] == {"job.trials": [3, 4, 5, 6]}
    assert told["seeds"] == [0, 4, 8]
    assert SweepSpec.of(yaml.safe_load(yaml.safe_dump(told))) == sweep


def test_a_section_is_put_in_before_the_keys_in_it():
    sweep = sweep_of(axes={"policy.gpus_per_trial": [1, 2], "policy": ["sha-elastic", {"name": "asha-elastic"}]})
    labels = [cell.spec.policy.label for cell in sweep.cells()]
    assert labels == [f"{name}:gpus_per_trial={gpus}" for gpus in (1, 2) for name in ("sha-elastic", "asha-elastic")]
    assert sweep.axes["policy"] == ["sha-elastic", {"name": "asha-elastic"}]


def test_a_base_by_path_is_beside_the_sweep_and_settings_change_it(tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    (tmp_path / "sweep.yaml").write_text("base: base.yaml\naxes: {job.trials: [3, 6]}\nseeds: 2\n")
    sweep = SweepSpec.load(tmp_path / "sweep.yaml", ["job.deadline_s=1200", "seed=10"])
    assert {cell.spec.job.deadline_s for cell in sweep.cells()} == {1200}
    assert sweep.seeds == [10, 11]
    with pytest.raises(InputError, match=r"--set job.trials=9: job.trials is swept"):
        SweepSpec.load(tmp_path / "sweep.yaml", ["job.trials=9"])


def test_a_base_may_be_the_name_of_a_shipped_spec(tmp_path):
    (tmp_path / "sweep.yaml").write_text("base: headline\nseeds: 1e1\n")
    sweep = SweepSpec.load(tmp_path / "sweep.yaml")
    assert sweep.base == read_mapping(spec_file("headline"))
    assert sweep.seeds == list(range(10))


WRONG = [
    (
        {"axes": {"job.deadlin_s": [3]}},
        r"cell job.deadlin_s=3: unknown key job.deadlin_s; did you mean job.deadline_s\?",
    ),
    ({"axes": {"deadline_s": [3]}}, r"unknown key deadline_s; did you mean job.deadline_s\?"),
    ({"axes": {"policy": ["sha-fixd"]}}, r"there is no policy 'sha-fixd'; did you mean 'sha-fixed'\?"),
    ({"axes": {"job.trials.more": [3]}}, r"job.trials.more=3: job.trials is 6, which holds no keys"),
    ({"axes": {"job.trials": [3, -1]}}, r"cell job.trials=-1: job.trials is -1"),
    ({"axs": {}}, r"unknown key axs; did you mean axes\?"),
    ({"axes": {"job.trials": []}}, r"job.trials is swept, but there are no values"),
    ({"axes": {"job.trials": 3}}, r"job.trials is 3, but must be a list, or a range"),
    (
        {"axes": {"workload": {"bundle": ["digits-mlp"]}}},
        r"workload is .*, but must be a list, .*; keys of a section are dotted, as workload.bundle",
    ),
    ({"axes": [3]}, r"axes is \[3\], but must hold keys and values"),
    ({"axes": {"job.trials": [3, 3]}}, r"two cells are the same run: job.trials=3; and job.trials=3"),
    (
        {"axes": {"policy": ["seer", "seer:replan=true"]}},
        r"two cells are the same run: policy=seer; and policy=seer:re",
    ),
    ({"axes": {"seed": [1, 2]}}, r"seed is swept: give `seeds`"),
    ({"axes": {"job.trials": [3]}, "zip": {"job.trials": [4]}}, r"job.trials is swept twice"),
    ({"zip": {"job.trials": [3, 6], "job.budget_usd": [2]}}, r"zip: job.trials has 2, job.budget_usd has 1 values"),
    ({"axes": {"job.trials": {"from": 1, "to": 3}}}, r"job.trials: a range has either a step or a num"),
    ({"axes": {"job.trials": {"from": 1, "to": 3, "step": -1}}}, r"cannot go by steps of -1"),
    ({"axes": {"job.trials": {"from": 1, "til": 3}}}, r"job.trials: unknown key til"),
    ({"axes": {"job.budget_usd": {"from": 0, "to": 3, "num": 2, "scale": "log"}}}, r"both ends above 0"),
    ({"seeds": 0}, r"seeds is 0, but must be a whole number from 1 up to 1,000,000"),
    ({"seeds": -1}, r"seeds is -1, but must be a whole number from 1"),
    ({"seeds": []}, r"seeds: 0 are given, but at least one is needed"),
    ({"seeds": 1_000_000_000}, r"seeds is 1000000000, but must be a whole number from 1 up to 1,000,000"),
    ({"seeds": "010"}, r"seeds is '010', but must be a whole number without leading zeros, a list"),
    ({"seeds": True}, r"seeds is True, but must be a whole number, a list"),
    ({"seeds": [2**63]}, r"seeds\[0\] is 9223372036854775808, but must be a whole number from 0"),
    ({"seeds": [1, 1]}, r"none twice"),
    ({"seeds": [-1]}, r"seeds\[0\] is -1"),
    ({"seeds": 2.5}, r"seeds is 2.5, but must be a whole number, a list, or a range"),
    ({"base": {**BASE, "seed": "x"}}, r"seed is 'x', but must be a whole number"),
    ({"zip": [{}]}, r"zip: a group holds no keys"),
    ({"axes": {"job.deadline_s": {"from": 1, "to": 1e9, "step": 1e-9}}}, r"has over 1,000,000 numbers"),
    (
        {"axes": {"job.deadline_s": {"from": 1, "to": 9, "num": 10**9}}},
        r"job.deadline_s: num is 1000000000, but must be",
    ),
    (
        {"axes": {"job.deadline_s": {"from": 1, "to": 9, "num": 20_001}}},
        r"make 20,001 cells and 20,001 runs, but at most",
    ),
    ({"axes": {"job.deadline_s": {"start": 1, "to": 9, "num": 2}}}, r"unknown key start; .*known: from, to, step"),
    ({"base": {**BASE, "cls": 1}}, r"cell base: unknown key cls; did you mean"),
    ({"axes": {"[red]": [1]}}, r"cell \[red\]=1: unknown key \[red\]; did you mean"),
    ({"axes": {"job.trials[0]": [1]}}, r"unknown key job.trials\[0\]; did you mean job.trials\?"),
    ({"base": None}, r"base is missing"),
]


@pytest.mark.parametrize(("parts", "message"), WRONG)
def test_what_makes_no_sweep_is_refused_with_its_reason(parts, message):
    with pytest.raises(InputError, match=message):
        sweep_of(**parts).cells()


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("base: {}\naxs: {}\n")
    with pytest.raises(InputError, match=r"sweep.yaml: unknown key axs"):
        SweepSpec.load(path)
    path.write_text("base: nowhere.yaml\n")
    with pytest.raises(InputError, match=r"nowhere.yaml: cannot be read"):
        SweepSpec.load(path)
