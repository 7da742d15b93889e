"""The main tables as they look at four widths of the screen. `python tests/experiments/test_screens.py` records them anew."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from elastune.experiments.cli.app import app

SCREENS = Path(__file__).parent / "screens"
FIDELITY = Path(__file__).parents[1] / "golden" / "fidelity"
WIDTHS = (80, 100, 120, 200)
SPEC = {
    "job": {"trials": 16, "max_iterations": 9, "deadline_s": 1800, "budget_usd": 20},
    "workload": {"bundle": "digits-mlp", "scaling": "resnet50-v100", "iteration_s": 60},
    "cloud": {"instance_type": "p3.8xlarge", "startup": "fast", "rescale_s": 5},
    "policy": "sha-elastic",
    "seed": 1,
}
BASE = {key: value for key, value in SPEC.items() if key != "policy"}
SWEEP = {"base": BASE, "axes": {"policy": ["sha-fixed", "asha-fixed"], "job.deadline_s": [900, 1800]}, "seeds": 3}
COMMANDS = {
    "run": ["run", "spec.yaml", "-o", "run"],
    "ledger": ["ledger", "run/journal.jsonl"],
    "compare": ["compare", "spec.yaml", "--policies", "sha-elastic,sha-fixed,asha-fixed-naive", "--seeds", "3", "--jobs", "1"],
    "plan": ["plan", "spec.yaml"],
    "plan-deadlines": ["plan", "spec.yaml", "--deadlines", "900,1200,1800"],
    "policies": ["policies", "list"],
    "prices": ["prices", "list", "--provider", "aws"],
    "results": ["results", "sweep", "--measure", "regret,cost_usd,makespan_s,ledger_usd.idle"],
    "results-against": ["results", "sweep", "--against", "sha-fixed"],
    "ablate": ["ablate", "spec.yaml", "--policy", "seer", "--switch", "replan=false", "--seeds", "3", "--jobs", "1"],
    "bundles": ["bundles", "list"],
    "scaling": ["scaling", "list"],
    "audit": [
        "audit", "past.csv", "--machine", "p3.8xlarge", "--direction", "minimize", "--policies", "sha-fixed,sha-elastic",
        "--seeds", "3", "--jobs", "1",
    ],
    "recommend": [
        "recommend", "spec.yaml", "--policies", "sha-fixed,sha-elastic", "--types", "p3.8xlarge,g4dn.12xlarge",
        "--seeds", "20", "--jobs", "1", "-o", "recommended",
    ],
    "claims": ["claims", "R6", "--smoke", "--jobs", "1"],
    "fidelity": ["fidelity", "--from", "sitting"],
    "calibrate": ["calibrate", "sitting", "-o", "calibrated"],
    "dry-run": ["sweep", "sweep.yaml", "-o", "sweep", "--dry-run"],
}  # fmt: skip


def prepare(folder):
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC, sort_keys=False))
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP, sort_keys=False))
    (folder / "past.csv").write_text(
        "trial,iteration,score,lr,seconds\n"
        + "".join(
            f"{trial},{epoch},{(1 + trial % 5) / epoch:.4f},{0.01 * trial:.2f},30\n"
            for trial in range(1, 13)
            for epoch in range(1, (4 if trial == 7 else 10))
        )
    )
    shutil.copytree(FIDELITY / "sklearn", folder / "sitting")
    for run in (folder / "sitting" / "runs").glob("*-[1-9]"):  # the first repeat is enough for a screen
        shutil.rmtree(run)
    os.chdir(folder)
    shown(["run", "spec.yaml", "-o", "run"], 80)
    shown(["sweep", "sweep.yaml", "-o", "sweep", "--jobs", "1"], 80)


def shown(command, width):
    for written in ("recommended", "calibrated"):  # by an earlier width
        shutil.rmtree(written, ignore_errors=True)
    done = CliRunner().invoke(app, command, env={"COLUMNS": str(width)})
    assert done.exit_code == 0, done.stderr
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    before, folder = Path.cwd(), tmp_path_factory.mktemp("screens")
    prepare(folder)
    yield folder
    os.chdir(before)


@pytest.mark.many(fast=18)
@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in ("recommend", "claims") else ()) for name in COMMANDS]
)
def test_a_screen_is_as_it_was_recorded(name, width):
    recorded = (SCREENS / f"{name}-{width}.txt").read_text(encoding="utf-8")
    assert shown(COMMANDS[name], width) == recorded


@pytest.mark.parametrize("path", sorted(SCREENS.glob("*.txt")), ids=lambda path: path.stem)
def test_no_line_of_a_table_is_wider_than_the_screen_and_no_key_is_cut(path):
    width = int(path.stem.rpartition("-")[2])
    lines = path.read_text(encoding="utf-8").splitlines()
    rules = [number for number, line in enumerate(lines) if line and set(line) == {"\u2500"}]
    assert rules
    for number in rules:
        table = lines[number - 1 : lines.index("", number)] if "" in lines[number:] else lines[number - 1 :]
        assert max(map(len, table)) <= width
        assert all("\u2026" not in line for line in table)


def record():
    """Write every screen anew."""
    SCREENS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for name, command in COMMANDS.items():
            for width in WIDTHS:
                (SCREENS / f"{name}-{width}.txt").write_text(shown(command, width), encoding="utf-8")
    os.chdir(SCREENS)


if __name__ == "__main__":
    record()
