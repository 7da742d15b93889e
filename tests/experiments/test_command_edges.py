"""The edges of the command line: what happens before it has begun, pipes, and what is empty."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading

import pytest
import yaml
from typer.testing import CliRunner

from elastune.experiments.cli.app import app
from elastune.experiments.runs.journals import open_journal
from elastune.experiments.spec.yaml_file import read_mapping
from elastune.experiments.statistics.bootstrap import Pooled
from elastune.experiments.statistics.differences import mean_interval, paired_difference
from elastune.experiments.sweeps.grid import SweepSpec
from elastune.policies.registry import POLICIES, entry_named
from elastune.sim.model.errors import InputError

STOPPED_EARLY = """
import sys

class Stop:
    def find_spec(self, name, path, target=None):
        if name == "typer":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Stop())
from elastune.experiments.cli.entry import main
main()
"""


def test_ctrl_c_while_python_imports_ends_quietly():
    done = subprocess.run([sys.executable, "-c", STOPPED_EARLY], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.parametrize("command", [("run", "tight"), ("compare", "tight"), ("recommend", "tight")])
def test_an_empty_output_is_not_the_working_folder(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [*command, "-o", ""])
    assert (done.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert "-o is empty" in done.output


def test_a_spec_from_a_pipe_says_what_it_waits_for(tmp_path):
    os.mkfifo(tmp_path / "spec.yaml")
    writer = threading.Thread(target=(tmp_path / "spec.yaml").write_text, args=("policy: seer\n",))
    writer.start()
    with pytest.warns(UserWarning, match="another program has written to it"):
        assert read_mapping(tmp_path / "spec.yaml") == {"policy": "seer"}
    writer.join()


def test_a_journal_is_no_pipe(tmp_path):
    os.mkfifo(tmp_path / "journal.jsonl")
    with pytest.raises(InputError, match="save it to a file"):
        open_journal(tmp_path / "journal.jsonl")


@pytest.mark.parametrize("name", POLICIES)
def test_each_parameter_of_a_policy_is_explained(name):
    entry = entry_named(name)
    assert [parameter for parameter in entry.parameters if not entry.meaning(parameter)] == []


def test_what_rounding_leaves_is_zero():
    assert paired_difference([0.1 + 0.2, 0.7], [0.3, 0.7]).ties == 1.0
    assert paired_difference([math.inf, 1.0], [1.0, 2.0]).mean == -1.0
    ends = Pooled([0.05], [5.7e-18], [0.1], 1, 1, 2, "seeds").interval()
    assert (ends.value, ends.low, ends.high) == (0.05, 0.0, 0.1)
    assert mean_interval([1e-18, 1e-18]).low == pytest.approx(1e-18)  # a small number is one


@pytest.fixture
def believing(tmp_path, monkeypatch):
    """A folder with a spec and a sweep whose gangs of 8 lie on two machines, of which nobody says what that costs."""
    monkeypatch.chdir(tmp_path)
    spec = {
        "job": {"trials": 4, "max_iterations": 3, "deadline_s": 4000, "budget_usd": 30},
        "workload": {"bundle": "digits-mlp", "scaling": {1: 1, 4: 2.6, 8: 5.0}, "iteration_s": 60},
        "cloud": {"instance_type": {"price_usd_per_hour": 12, "gpus_per_instance": 4}, "rescale_s": 5},
        "policy": "sha-fixed",
    }
    axes = {"policy": ["sha-fixed", "asha-fixed"], "workload.scaling": [spec["workload"]["scaling"], "linear"]}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"base": spec, "axes": axes, "seeds": [0]}))
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ("run", "spec.yaml", "-o", "run"),
        ("plan", "spec.yaml"),
        ("compare", "spec.yaml", "--policies", "sha-fixed", "--seeds", 1, "--jobs", 1),
        ("ablate", "spec.yaml", "--policy", "seer", "--switch", "elastic=false", "--seeds", 1, "--jobs", 1),
        ("sweep", "sweep.yaml", "--dry-run"),
        ("sweep", "sweep.yaml", "--jobs", 1),
    ],
)
@pytest.mark.usefixtures("believing")
def test_json_tells_the_notes_that_standard_error_tells(command):
    done = CliRunner().invoke(app, [*map(str, command), "--json"])
    (note,) = (note for note in json.loads(done.stdout)["notes"] if "network between machines" in note)
    assert f"note: {note}\n" in done.stderr


def test_the_page_of_a_sweep_tells_the_notes_of_its_cells(believing):
    for command in (("sweep", "sweep.yaml", "-o", "out", "--jobs", 1), ("report", "out", "-o", "page.html")):
        assert CliRunner().invoke(app, list(map(str, command))).exit_code == 0
    page = (believing / "page.html").read_text()
    assert "so gangs of 8 GPUs are believed as fast as on one machine" in page
    (plain,) = SweepSpec.load("sweep.yaml").cells()[1:2]
    assert not [note for note in plain.spec.notes() if "network" in note]
