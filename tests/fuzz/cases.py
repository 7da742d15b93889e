"""The kinds of cases, by name. Each takes a seed and an empty folder, and raises where something is wrong."""

from __future__ import annotations

import math
import random
import warnings

from elastune import RunSpec, execute, load_bundle
from elastune.experiments.runs.replay import ledger_of, replay_journal
from elastune.experiments.runs.timeline import timeline_of
from elastune.sim.model.errors import InputError, InvalidActionError, ReplayError, TuningError
from tests.fuzz.journals import edited_lines
from tests.fuzz.specs import (
    ordinary_spec,
    random_policy,
    spec_at_the_ends,
    spec_with_extremes,
    with_durations_as_text,
)
from tests.fuzz.tables import edited_table, import_table, table

_SAME = 1e-9


def run_and_check(spec, folder, bundle=None):
    """Execute a spec: limits kept, a ledger that adds up, a journal that replays and gives the same bill.

    Refusing the spec, finding no plan and stalling are answers, too. A shipped policy never asks for the impossible.
    """
    path = folder / "journal.jsonl"
    try:
        result = execute(spec, journal=path, bundle=bundle)
    except InvalidActionError as error:
        raise AssertionError(f"a shipped policy asked for the impossible: {error}") from error
    except TuningError:
        return
    deadline_s, budget_usd = spec.job.deadline_s, spec.job.budget_usd
    if spec.policy.params.get("hard_stop") is False:  # which gives the promise up
        deadline_s = budget_usd = None
    assert deadline_s is None or result.makespan_s <= deadline_s * (1 + _SAME), (result.makespan_s, deadline_s)
    assert budget_usd is None or result.cost_usd <= budget_usd * (1 + _SAME), (result.cost_usd, budget_usd)
    assert result.plan_search_gap is None or 0 <= result.plan_search_gap <= 1, result.plan_search_gap
    parts_usd = ledger_of(path).usd
    total_usd = math.fsum(parts_usd.values())
    assert math.isclose(total_usd, result.cost_usd, rel_tol=1e-6, abs_tol=1e-9), (total_usd, result.cost_usd)
    assert min(usd for part, usd in parts_usd.items() if part != "rounding") >= -1e-9 * (1 + result.cost_usd), parts_usd
    entries, is_complete = replay_journal(path, bundle=bundle)
    assert is_complete, entries


def _of_spec(make):
    def case(seed, folder):
        rng = random.Random(seed)
        try:
            spec = RunSpec.of(**make(rng))
        except InputError:
            return
        run_and_check(spec, folder)

    return case


def durations_as_text(seed, folder):
    """Seconds with their unit are the same spec."""
    rng = random.Random(seed)
    raw = ordinary_spec(rng)
    try:
        spec = RunSpec.of(**raw)
    except InputError:
        return
    assert RunSpec.of(**with_durations_as_text(rng, raw)) == spec
    run_and_check(spec, folder)


def own_policy(seed, folder):
    """Whatever a policy of the user's own answers, its run ends with an error of ours, or in a journal that adds up."""
    rng, path = random.Random(seed), folder / "journal.jsonl"
    (folder / "p.py").write_text(random_policy(rng), encoding="utf-8")
    name = f"{folder / 'p.py'}:Mine"
    try:
        result = execute(RunSpec.of(**ordinary_spec(rng) | {"policy": name}), journal=path)
    except TuningError:
        return
    except RuntimeError as error:
        if not str(error).startswith("SystemExit: 1"):
            raise
        return
    total_usd = math.fsum(ledger_of(path).usd.values())
    assert math.isclose(total_usd, result.cost_usd, rel_tol=1e-6, abs_tol=1e-9), (total_usd, result.cost_usd)
    entries, is_complete = replay_journal(path, policy=name)
    assert is_complete, entries


def own_bundle(seed, folder):
    """A small table of curves, imported, trained on by a random run."""
    rng = random.Random(seed)
    (folder / "t.csv").write_text(table(rng), encoding="utf-8")
    assert import_table(folder / "t.csv", folder / "bundle") == 0
    raw = ordinary_spec(rng)
    raw["workload"] |= {"bundle": str(folder / "bundle"), "scaling": "linear", "iteration_s": rng.choice([1, 60])}
    raw["job"] |= {"trials": rng.randint(1, 6), "max_iterations": rng.randint(1, 4)}
    try:
        spec = RunSpec.of(**raw)
    except InputError:
        return
    run_and_check(spec, folder)


def damaged_table(seed, folder):
    """A table with edits is imported or refused; what was imported can be read."""
    rng = random.Random(seed)
    (folder / "t.csv").write_bytes(edited_table(rng))
    code = import_table(folder / "t.csv", folder / "bundle")
    assert code in (0, 2), f"exit code {code}"
    if code == 0:
        load_bundle(str(folder / "bundle"))


def damaged_bundle(seed, folder):
    """A bundle with an edited file is read or refused."""
    rng = random.Random(seed)
    (folder / "t.csv").write_text(table(rng), encoding="utf-8")
    assert import_table(folder / "t.csv", folder / "bundle") == 0
    file = rng.choice(sorted(path for path in (folder / "bundle").rglob("*") if path.is_file()))
    lines = edited_lines(rng, file.read_bytes().splitlines(keepends=True))
    file.write_bytes(b"".join(lines))
    try:
        bundle = load_bundle(str(folder / "bundle"))
        job = {"trials": 2, "max_iterations": 1, "deadline_s": 1000}
        machine = {"price_usd_per_hour": 1, "gpus_per_instance": 1}
        spec = RunSpec.of(
            job=job,
            workload={"bundle": str(folder / "bundle"), "scaling": "linear", "iteration_s": 1},
            cloud={"instance_type": machine, "rescale_s": 1},
            policy="sha-fixed",
        )
        run_and_check(spec, folder, bundle)
    except InputError:
        return


def damaged_journal(seed, folder):
    """A journal with edits is refused, or its ledger adds up to numbers that make sense."""
    rng = random.Random(seed)
    path = folder / "journal.jsonl"
    try:
        execute(RunSpec.of(**ordinary_spec(rng)), journal=path)
    except TuningError:
        if not path.is_file():
            return
    path.write_bytes(b"".join(edited_lines(rng, path.read_bytes().splitlines(keepends=True))))
    for read in (replay_journal, timeline_of):
        try:
            read(path)
        except (InputError, ReplayError):
            continue
    try:
        parts_usd = ledger_of(path).usd
    except InputError:
        return
    assert all(math.isfinite(usd) for usd in parts_usd.values())
    assert min(usd for part, usd in parts_usd.items() if part != "rounding") >= -1e-6, parts_usd


def _quiet(case):
    def quiet(seed, folder):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case(seed, folder)

    return quiet


CASES = {
    "bundle": _quiet(damaged_bundle),
    "ends": _quiet(_of_spec(spec_at_the_ends)),
    "extreme-spec": _quiet(_of_spec(spec_with_extremes)),
    "journal": _quiet(damaged_journal),
    "durations": _quiet(durations_as_text),
    "own-bundle": _quiet(own_bundle),
    "own-policy": _quiet(own_policy),
    "spec": _quiet(_of_spec(ordinary_spec)),
    "table": _quiet(damaged_table),
}
