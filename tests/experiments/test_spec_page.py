"""The page on the run spec names every key there is, and every field of a result."""

import re
from pathlib import Path

import pytest

from elastune import RunSpec
from elastune.experiments.runs.result import RunResult
from elastune.experiments.spec.page import table, written
from elastune.experiments.sweeps.rows import spec_columns
from elastune.sim.model.errors import InputError

PAGE = (Path(__file__).parents[2] / "docs" / "spec.md").read_text(encoding="utf-8")
WORDS = {word for code in re.findall(r"`([^`]+)`", PAGE) for word in re.findall(r"[a-z_]+", code)}


def test_the_tables_of_the_page_are_those_of_the_spec():
    told = "docs/spec.md is out of date: python -m elastune.experiments.spec.page docs/spec.md"
    assert written(PAGE) == PAGE, told


@pytest.mark.parametrize("key", [*spec_columns(), "seed"])
def test_every_key_is_on_the_page(key):
    missing = set(key.split(".")) - WORDS
    assert not missing, f"docs/spec.md does not say what {key} is"


def test_every_field_of_a_result_is_on_the_page():
    shown = set(RunResult.__dataclass_fields__) - {"direction", "recording"}
    assert shown <= WORDS, f"docs/spec.md does not name {sorted(shown - WORDS)}"


def test_defaults_on_the_page_are_the_defaults():
    spec = RunSpec.of(
        job={"trials": 3, "max_iterations": 3}, workload={}, cloud={"instance_type": "p3.8xlarge"}, policy="seer"
    )
    job, cloud = spec.job, spec.cloud
    assert (job.exact, job.min_iterations, job.reduction_factor, job.levels, job.checkpoint_every) == (
        False,
        1,
        3,
        "cumulative",
        0,
    )
    assert (cloud.billing.granularity_s, cloud.billing.minimum_s, cloud.billing.bills_startup) == (1, 60, True)
    assert (cloud.price_book().max_instances, cloud.market, spec.seed) == (32, "on-demand", 0)


@pytest.mark.parametrize(
    ("section", "key", "told"),
    [
        ("job", "trials", "*needed* unless `stages` is given"),
        ("job", "max_iterations", "*needed* unless `stages` is given"),
        ("cloud", "instance_type", "*needed*"),
    ],
)
def test_what_a_spec_cannot_do_without_is_marked_needed(section, key, told):
    assert f"| `{key}` | {told} |" in table(section)
    whole = {"job": {"trials": 3, "max_iterations": 3}, "cloud": {"instance_type": "p3.8xlarge"}}
    whole[section] = {name: value for name, value in whole[section].items() if name != key}
    with pytest.raises(InputError, match=rf"{section}\.{key}"):
        RunSpec.of(**whole, workload={}, policy="seer")
