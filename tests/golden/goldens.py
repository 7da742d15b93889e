"""The recorded journals, results and plans that guard RESULTS_VERSION; `python tests/golden/goldens.py` records them anew.

Floats are compared with a tolerance, because the last digits differ between versions of numpy and the C library. A journal is
a digest over all its events, actions and commands, with floats rounded to five digits for the same reason; a different decision
changes it, a different last digit does not.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import json
import math
from pathlib import Path

import elastune
from elastune import RunSpec, execute
from elastune.experiments.claims.plans import PlannedJob, rows_of_job
from elastune.experiments.contracts.policies import record, worlds
from elastune.experiments.results_version import RESULTS_VERSION
from elastune.experiments.spec.yaml_file import put
from elastune.experiments.sweeps.rows import SEARCH_GAP, measures, result_row
from elastune.policies.registry import POLICIES, factory
from elastune.sim.model.commands import StartSegment
from elastune.sim.model.errors import InfeasibleJobError

FILE = Path(__file__).with_name("goldens.json")
COMMAND = "python tests/golden/goldens.py"
HOW_TO = f"""
  If this is not meant, the change has a fault.
  If it is meant:
    1. raise RESULTS_VERSION in experiments/results_version.py and say in HISTORY what changed,
    2. run `{COMMAND}`,
    3. say why in CHANGELOG.md."""

CATALOG = Path(elastune.__file__).parent / "experiments" / "catalog"
SPECS = ("headline", "placement", "spot", "stragglers")
VARIANTS = (
    "seer:objective=largest_n",
    "seer:solver=greedy",
    "seer:makespan=p95",
    "seer:replan=false",
    "seer:reserve=false",
    "seer:elastic=false",
    "seer:parallelism=ranked",
    "rubberband:replan=true",
    "rubberband:makespan=p95",
    "sha-elastic:gpus_per_trial=4",
    "asha-elastic:gpus_per_trial=2",
)
TABLES = ("traces/data/instance_types.csv", "traces/data/scaling.csv", "policies/sizing/curve_priors.json")

_JOB = {
    "job": {"stages": [[32, 1], [10, 3], [3, 9], [1, 37]]},
    "workload": {"iteration_s": 60, "scaling": "resnet50-v100"},
    "cloud": {
        "instance_type": "p3.8xlarge",
        "billing": {"granularity_s": 1, "minimum_s": 60, "bills_startup": True},
        "startup": {"queue_s": 5, "init_s": 60},
        "sync_s": 2,
        "rescale_s": 5,
        "max_instances": 16,
    },
    "policy": "rubberband",
}
JOBS = {
    "SHA(32, 1, 50, 3)": {},
    "many short stages": {"job.stages": [[64, 4], [32, 8], [16, 16], [8, 32], [4, 64], [2, 128], [1, 256]]},
    "one GPU per machine": {"cloud.instance_type": "p3.2xlarge", "workload.scaling": "imagenet-resnet50-v100"},
    "hourly billing": {"cloud.billing": {"granularity_s": 3600, "minimum_s": 3600, "bills_startup": True}},
    "per-function billing": {"cloud.billing.model": "per-function"},
    "one stage": {"job.stages": [[8, 10]], "workload.scaling": "linear"},
}


def journals(policy):
    """By world of the contract: makespan, bill, winner, its iterations, segments and the digest of the journal."""
    return {world.name: _journal(policy, world) for world in worlds()}


def _journal(policy, world):
    try:
        recording = record(policy, factory(policy), world)
    except InfeasibleJobError:
        return None
    controller, winner = recording.controller, recording.controller.best
    makespan_s = controller.finished_at_s
    return [
        makespan_s,
        controller.state.bill.spent_usd(makespan_s),
        winner,
        None if winner is None else controller.state.trials[winner].checkpoint_iteration,
        sum(isinstance(command, StartSegment) for entry in recording.entries for command in entry.commands),
        digest(recording.journal),
    ]


def digest(journal):
    """Of the entries; the header names versions of packages."""
    sha256 = hashlib.sha256()
    for line in journal.splitlines():
        entry = json.loads(line, parse_float=lambda text: f"{round(float(text), 4):.5g}")
        if entry["type"] != "Header":
            sha256.update(json.dumps(entry, sort_keys=True).encode())
    return sha256.hexdigest()[:16]


def results(spec):
    """By policy: what a run of a catalogue's spec gives."""
    return {policy: _result(spec, policy) for policy in sorted([*POLICIES, *VARIANTS])}


def _result(spec, policy):
    journal = io.BytesIO()
    try:
        result = execute(RunSpec.load(CATALOG / f"{spec}.yaml").with_policy(policy).with_seed(3), journal=journal)
    except InfeasibleJobError:
        return None
    row = result_row(result)
    return {name: row[name] for name in measures() if name in row and name != SEARCH_GAP} | {
        "journal": digest(journal.getvalue())
    }


def plans(job):
    """By planner and deadline: cost, makespan and instances of the plan."""
    rows = rows_of_job(PlannedJob("", _spec(job), {}, points=4))
    return {
        f"{row['planner']} by {row['deadline_s']:.0f} s": [row["cost_usd"], row["makespan_s"], row["instances"]]
        for row in rows
    }


def _spec(job):
    document = copy.deepcopy(_JOB)
    for key, value in JOBS[job].items():
        put(document, key.split("."), value, key)
    return RunSpec.of(**document)


def tables(path):
    """By name: a digest of what a shipped table says of it, without its sources and their dates."""
    text = (Path(elastune.__file__).parent / path).read_text(encoding="utf-8")
    if path.endswith(".json"):
        return {name: _short(told) for name, told in json.loads(text).items()}
    rows = {}
    for row in csv.DictReader(io.StringIO(text)):
        rows.setdefault(row["name"], []).append(
            {key: told for key, told in row.items() if key not in ("source", "date")}
        )
    return {name: _short(told) for name, told in rows.items()}


def _short(told):
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


SECTIONS = {
    "journals": (journals, tuple(POLICIES)),
    "results": (results, SPECS),
    "plans": (plans, tuple(JOBS)),
    "tables": (tables, TABLES),
}
CASES = [(section, name) for section, (_, names) in SECTIONS.items() for name in names]


def measured(section, name):
    """What this code gives, as JSON holds it: nine digits, null for NaN."""
    text = json.dumps(SECTIONS[section][0](name))
    return json.loads(text, parse_float=lambda number: float(f"{float(number):.9g}"), parse_constant=lambda _nan: None)


def recorded():
    """What is in the file: the version that it was recorded under, and by section, name and key what came out."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {"results_version": 0}


def is_same(now, then):
    """Equal, floats within the tolerance."""
    if isinstance(now, dict) and isinstance(then, dict):
        return now.keys() == then.keys() and all(is_same(now[key], then[key]) for key in then)
    if isinstance(now, list) and isinstance(then, list):
        return len(now) == len(then) and all(map(is_same, now, then))
    if isinstance(now, float) and isinstance(then, float):
        return math.isclose(now, then, rel_tol=1e-6, abs_tol=1e-9)
    return now == then


def changed(section, name, now, then):
    """A line for each key that was recorded and is another now."""
    known = then.get(section, {}).get(name, {})
    return [
        f"{section}, {name}, {key}: {known[key]} was recorded, {value} came out"
        for key, value in now.items()
        if key in known and not is_same(value, known[key])
    ]


def main():
    """Record everything anew, unless something changed under the same version.

    Raises:
        SystemExit: something did.
    """
    then, now = recorded(), {"results_version": RESULTS_VERSION}
    differing = []
    for section, name in CASES:
        found = measured(section, name)
        differing += changed(section, name, found, then)
        now.setdefault(section, {})[name] = found
    if differing and then["results_version"] == RESULTS_VERSION:
        told = "\n".join(differing[:20])
        raise SystemExit(
            f"{told}\n{len(differing)} recorded numbers change under results version {RESULTS_VERSION}.{HOW_TO}"
        )
    FILE.write_text(_written(now), encoding="utf-8")


def _written(goldens):
    """JSON with a line for each key, so that differences can be read."""

    def lines(below, depth):
        if not isinstance(below, dict) or depth > 3:
            return json.dumps(below)
        indent = "  " * depth
        items = ",\n".join(f"{indent}{json.dumps(key)}: {lines(value, depth + 1)}" for key, value in below.items())
        return f"{{\n{items}\n{'  ' * (depth - 1)}}}"

    return lines(goldens, 1) + "\n"


if __name__ == "__main__":
    main()
