"""What the folders of these tests are made of: names that would be code if a page did not escape them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml
from typer.testing import CliRunner

from elastune.experiments.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path

ODD_NAME = "<script>window.hacked=1</script>[red]"
ODD_VALUE = "<img src=x onerror=window.hacked=2>[/red]"
SPEC = {
    "job": {"trials": 6, "max_iterations": 4, "deadline_s": 300, "budget_usd": 2},
    "workload": {"bundle": "b", "scaling": "linear", "iteration_s": 30},
    "cloud": {
        "rescale_s": 1,
        "startup": {"queue_s": {"mean_s": 5}, "init_s": {"mean_s": 20}},
        "instance_type": {"name": "m<b>", "price_usd_per_hour": 12, "gpus_per_instance": 2},
        "max_instances": 4,
    },
    "policy": "seer",
}
SWEEP = {
    "base": SPEC,
    "axes": {"policy": ["seer", "sha-fixed", "asha-fixed-naive"], "job.deadline_s": [200, 300, 450]},
    "seeds": 3,
}


def elastune(*arguments, code=0):
    """Run the command line in this process."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done


def write_inputs(folder: Path) -> None:
    """The table of curves, the spec and the sweep."""
    rows = [
        f'{trial},{iteration},{0.9 - 0.05 * trial - 0.02 * iteration * trial:.4f},"{ODD_VALUE}",{trial / 10}'
        for trial in range(1, 9)
        for iteration in range(1, 5)
    ]
    (folder / "t.csv").write_text("\n".join([f'trial,iteration,score,"{ODD_NAME}",rate', *rows]) + "\n")
    (folder / "s.yaml").write_text(yaml.safe_dump(SPEC))
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
