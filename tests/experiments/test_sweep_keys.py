"""Which code makes the rows of a sweep old: all that a run imports, and nothing else."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import pytest
from test_sweep_spec import sweep_of

from elastune.experiments.sweeps import keys as sweep_keys

ROOT = Path(__file__).parents[2]
PACKAGES = ("sim", "policies", "traces", "experiments")
# Not in a row: how a run went, which is recorded on request; what reads journals; what policies change on real workers.
NOT_IN_ROWS = (
    "elastune.experiments.runs.trajectory",
    "elastune.experiments.runs.journals",
    "elastune.experiments.runs.configurations",
)


def imported(node):
    """Modules that are imported anywhere below, and names that may be modules; not those for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield child.module
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        yield from imported(child)


def file_of(module):
    path = ROOT.joinpath(*module.split("."))
    found = path.with_suffix(".py"), path / "__init__.py"
    return next((file for file in found if file.is_file()), None)


def needed_by(*modules):
    """Files of the project that these modules import, directly or through others."""
    files, todo = set(), list(modules)
    while todo:
        module = todo.pop()
        file = file_of(module)
        if module.split(".")[0] not in PACKAGES or module in NOT_IN_ROWS or file is None or file in files:
            continue
        files.add(file)
        todo += imported(ast.parse(file.read_text(encoding="utf-8")))
        package = module.rpartition(".")[0]
        # The root package of experiments only hands out names.
        todo += [package] if package and package != "experiments" else []
    return {file.relative_to(ROOT).as_posix() for file in files}


def test_the_code_that_counts_is_what_a_run_imports():
    counted = {path.relative_to(ROOT).as_posix() for path in sweep_keys.sources()}
    needed = needed_by("elastune.experiments.runs.simulate", "elastune.experiments.sweeps.rows")
    assert {name for name in counted if name.endswith(".py")} == needed
    tables = {name for name in counted if not name.endswith(".py")}
    assert tables == {
        "policies/curve_priors.json",
        "traces/data/instance_types.csv",
        "traces/data/scaling.csv",
    }


@pytest.mark.parametrize("policy", ["seer", "sha-elastic:gpus_per_trial=4"])
def test_keys_are_digests_of_spec_policy_data_and_code(policy):
    (cell,) = sweep_of(axes={"policy": [policy]}).cells()
    seeds = [0, 3, 50_000, 2**63 - 1]
    expected = [
        hashlib.sha256(f"{cell.spec.with_seed(seed).digest()} {policy} data code".encode()).hexdigest()
        for seed in seeds
    ]
    assert list(sweep_keys.run_keys(cell.spec, seeds, "data", "code")) == expected


@pytest.mark.parametrize(
    "name", ["policies/planning/bound.py", "experiments/plans/planning.py", "sim/model/streams.py"]
)
def test_plans_are_old_when_any_planner_or_the_bound_changes(digest, name):
    for file in (
        "sim/model/streams.py",
        "policies/planning/bound.py",
        "experiments/plans/planning.py",
        "experiments/claims/plans.py",
    ):
        digest(file, "one")
    sweep_keys.code_sha256.cache_clear()
    before = sweep_keys.planning_sha256.__wrapped__()
    digest(name, "other")
    sweep_keys.code_sha256.cache_clear()
    assert sweep_keys.planning_sha256.__wrapped__() != before


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """The digest of a small tree, after a file of it has been written."""
    monkeypatch.setattr(sweep_keys, "_ROOT", tmp_path)

    def written(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return sweep_keys.code_sha256.__wrapped__()

    yield written
    sweep_keys.code_sha256.cache_clear()


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("sim/control/controller.py", True),
        ("sim/simulated/cloud.py", True),
        ("policies/seer/seer.py", True),
        ("policies/curve_priors.json", True),
        ("traces/data/scaling.csv", True),
        ("experiments/spec/cloud.py", True),
        ("experiments/runs/regret.py", True),
        ("sim/bridge/machines/nodes.py", False),
        ("sim/DESIGN.md", False),
        ("traces/importers/tables.py", False),
        ("traces/workloads/digits.py", False),
        ("traces/data/bundles/mine/configs.csv", False),
        ("policies/planning/sampling.py", False),
        ("experiments/statistics/differences.py", False),
        ("experiments/sweeps/run.py", False),
        ("experiments/figures/headline.py", False),
    ],
)
def test_changed_code_makes_results_old_only_if_it_makes_results(digest, name, counts):
    before = digest("sim/model/streams.py", "one")
    assert digest("sim/model/streams.py", "one") == before
    assert (digest(name, "other") != before) == counts
