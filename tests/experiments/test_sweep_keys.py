"""What a row is known by."""

from __future__ import annotations

import hashlib

import pytest
from test_sweep_spec import sweep_of

from elastune.experiments.sweeps import keys as sweep_keys


@pytest.mark.parametrize("policy", ["seer", "sha-elastic:gpus_per_trial=4"])
def test_keys_are_digests_of_spec_policy_data_and_version(policy):
    (cell,) = sweep_of(axes={"policy": [policy]}).cells()
    seeds = [0, 3, 50_000, 2**63 - 1]
    expected = [
        hashlib.sha256(f"{cell.spec.with_seed(seed).digest()} {policy} data 7".encode()).hexdigest() for seed in seeds
    ]
    assert list(sweep_keys.run_keys(cell.spec, seeds, "data", 7)) == expected
