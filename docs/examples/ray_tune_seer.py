"""SEER under Ray Tune: the Tuner that you have, and one object handed to it. Runs on two CPUs.

What is "trained" is a curve that is computed, so that the example is over in half a minute; a trial on two CPUs is 1.8 times as
fast. Everything else is as for a network: the trainable goes on from its checkpoint, and asks how many CPUs it has.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

# Ray reads these when it is imported: a cluster of our own on loopback, and nothing reported to anybody.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

import ray
from ray import tune

from elastune.experiments.real.ray_tune import tune_scheduler

EPOCH_S = 0.4
SPEEDUP = {1: 1.0, 2: 1.8}


def train(config: dict[str, float]) -> None:
    """Train from the last checkpoint on, and report each epoch with a checkpoint of its own."""
    epoch = 0
    if checkpoint := tune.get_checkpoint():
        with checkpoint.as_directory() as folder:
            epoch = json.loads(Path(folder, "state.json").read_text())["epoch"]
    cpus = round(tune.get_context().get_trial_resources().required_resources["CPU"])
    while True:
        time.sleep(EPOCH_S / SPEEDUP[cpus])
        epoch += 1
        loss = abs(config["lr"] - 0.3) + 1.0 / epoch
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "state.json").write_text(json.dumps({"epoch": epoch}))
            tune.report({"loss": loss, "epoch": epoch}, checkpoint=tune.Checkpoint.from_directory(folder))


def main() -> None:
    """Search, and print the answer."""
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, _node_ip_address="127.0.0.1")
    journal = Path(tempfile.mkdtemp(), "journal.jsonl")
    scheduler = tune_scheduler(
        "seer",
        job={"max_iterations": 4, "reduction_factor": 2, "deadline_s": 120, "budget_usd": 0.30},
        workload={"iteration_s": EPOCH_S, "scaling": SPEEDUP},
        cloud={"price_usd_per_hour": 3.6, "gpus_per_instance": 1, "rescale_s": 3, "billing": {"minimum_s": 0}},
        resources_per_gpu={"cpu": 1},
        time_attr="epoch",
        journal=journal,
    )
    tuner = tune.Tuner(
        train,
        param_space={"lr": tune.grid_search([0.1, 0.3, 0.5, 0.9])},
        tune_config=tune.TuneConfig(metric="loss", mode="min", num_samples=1, scheduler=scheduler),
        run_config=tune.RunConfig(storage_path=tempfile.mkdtemp(), verbose=0),
    )
    tuner.fit()
    best, run = scheduler.best, scheduler.run
    assert best is not None
    assert run is not None
    answer = {"lr": best.config["lr"], "loss": best.metrics["loss"], "epochs": best.metrics["epoch"]}
    bill = {"makespan_s": run.makespan_s, "cost_usd": run.cost_usd, "journal": str(journal)}
    sys.stdout.write(json.dumps(answer | bill) + "\n")
    ray.shutdown()


if __name__ == "__main__":
    main()
