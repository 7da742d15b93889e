"""Why a run left a part of its budget."""

from __future__ import annotations

import pytest

from elastune import RunSpec, execute
from elastune.traces import synthetic_bundle


def because(policy, *, deadline_s, budget_usd, trials=4, **job):
    spec = RunSpec.of(
        job={"trials": trials, "max_iterations": 9, "deadline_s": deadline_s, "budget_usd": budget_usd, **job},
        workload={"scaling": {1: 1, 2: 1.5}, "iteration_s": 60},
        cloud={"instance_type": "p3.8xlarge", "startup": {"queue_s": 0, "init_s": 30}, "max_instances": 8},
        policy=policy,
    )
    result = execute(spec, bundle=synthetic_bundle(60, 9, seed=2))
    assert (result.unspent_because is None) == (result.cost_usd >= 0.95 * budget_usd)
    assert result.to_json()["unspent_because"] == result.unspent_because
    return result.unspent_because


@pytest.mark.parametrize(
    ("policy", "limits", "reason"),
    [
        ("random-fixed", {"deadline_s": 3600, "budget_usd": 50}, "all configurations were trained to R"),
        ("sha-fixed", {"deadline_s": 3600, "budget_usd": 50}, "the configuration that it reports was trained to R"),
        ("rubberband", {"deadline_s": 3600, "budget_usd": 50}, "the job was fixed before the run"),
        (
            "asha-fixed:truncate=always",
            {"deadline_s": 300, "budget_usd": 50},
            "no time was left for one more iteration",
        ),
        (
            "sha-fixed:truncate=always",
            {"deadline_s": 340, "budget_usd": 50},
            "all that the policy had planned was done",
        ),
    ],
)
def test_a_run_says_why_money_is_left(policy, limits, reason):
    assert because(policy, **limits).startswith(reason)
