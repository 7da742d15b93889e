"""Run by the tests in a process of its own: ASHA over a class that fails once, and a gang that saves nothing."""

import json
import os
import sys
import time
from pathlib import Path

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

import ray
from ray import tune

from elastune.experiments.real.ray_tune import tune_scheduler
from elastune.sim.model.errors import InputError

OPTIONS = {
    "job": {"max_iterations": 4, "reduction_factor": 2, "checkpoint_every": 1},
    "workload": {"iteration_s": 0.1, "scaling": "linear"},
    "cloud": {"price_usd_per_hour": 3.6, "gpus_per_instance": 1, "rescale_s": 2, "billing": {"minimum_s": 0}},
    "time_attr": "epoch",
}


OWN = f"{Path(__file__).parents[2] / 'docs' / 'examples' / 'median_stopping.py'}:MedianStopping"


class Curve(tune.Trainable):
    """Loss is rank + 1 / epoch. The one of rank 0 dies once, in the epoch after its first checkpoint."""

    def setup(self, config):
        self.rank, self.scar = config["rank"], Path(config["scar"])
        self.epoch = 0

    def step(self):
        time.sleep(0.1)
        self.epoch += 1
        if self.rank == 0 and self.epoch == 2 and not self.scar.exists():
            self.scar.touch()
            raise RuntimeError("a worker dies")
        return {"loss": self.rank + 1 / self.epoch, "epoch": self.epoch}

    def save_checkpoint(self, checkpoint_dir):
        Path(checkpoint_dir, "epoch").write_text(str(self.epoch))

    def load_checkpoint(self, checkpoint_dir):
        self.epoch = int(Path(checkpoint_dir, "epoch").read_text())


def forgetful(config):
    """Notes how many CPUs it has, reports, and saves nothing."""
    resources = tune.get_context().get_trial_resources().required_resources
    Path(config["seen"]).write_text(json.dumps(resources))
    for epoch in range(1, 5):
        tune.report({"loss": 1 / epoch, "epoch": epoch})


def fit(trainable, space, scheduler, folder):
    """Run it as any user of Tune would."""
    tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(metric="loss", mode="min", scheduler=scheduler),
        run_config=tune.RunConfig(
            storage_path=str(folder), verbose=0, failure_config=tune.FailureConfig(max_failures=1)
        ),
    ).fit()


def main(folder):
    """Print what came of it as one line of JSON."""
    ray.init(
        "local", num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, _node_ip_address="127.0.0.1",
        _temp_dir=str(folder / "ray"), logging_level="ERROR", log_to_driver=False,
    )  # fmt: skip
    scheduler = tune_scheduler("asha-fixed", journal=folder / "journal.jsonl", **OPTIONS)
    fit(Curve, {"rank": tune.grid_search([2, 0, 1, 3]), "scar": str(folder / "scar")}, scheduler, folder)
    refusal = ""
    try:
        fit(
            forgetful,
            {"seen": str(folder / "seen")},
            tune_scheduler("random-elastic:gpus_per_trial=2", **OPTIONS),
            folder,
        )
    except InputError as error:
        refusal = str(error)
    own = tune_scheduler(f"{OWN}(least=2)", journal=folder / "own.jsonl", **OPTIONS)
    fit(Curve, {"rank": tune.grid_search([0, 1, 2, 3]), "scar": str(folder / "scar")}, own, folder)
    best = scheduler.best
    ray.shutdown()
    answer = {"config": best.config, "metrics": best.metrics, "cost_usd": scheduler.run.cost_usd, "refusal": refusal}
    answer["own"] = {"rank": own.best.config["rank"], "cost_usd": own.run.cost_usd}
    answer["seen"] = json.loads((folder / "seen").read_text())
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
