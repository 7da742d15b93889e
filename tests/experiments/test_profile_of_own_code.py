"""Where a profile of the user's own code is written, what follows from it, and what happens when the code has changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from elastune import RunSpec
from elastune.experiments.cli.app import app
from elastune.experiments.cli.recommend import _to_train
from elastune.experiments.own_code import find
from elastune.experiments.profiling.curve_bundle import ProfileArguments
from elastune.experiments.profiling.curves import profile_workload
from elastune.experiments.profiling.timed_bundle import _base
from elastune.experiments.profiling.work_folder import WorkFolder
from elastune.experiments.runs.configurations import own_workload_of
from elastune.sim.model.errors import InputError
from elastune.traces import bundle_folder

PLACE = "results/bundles/spirals"
OTHER = f"mine.py:train, sha256 {'0' * 64}"
SPEC = """
job: {trials: 3, max_iterations: 6, deadline_s: 900, direction: minimize}
workload:
  bundle: results/bundles/spirals
  trainable: mine.py:train
  space: {rate: {uniform: [0.5, 0.9]}}
  scaling: {1: 1}
cloud: {price_usd_per_hour: 3.06, gpus_per_instance: 1}
policy: sha-fixed
"""


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def train(config):\n    pass\n")
    Path("job.yaml").write_text(SPEC)
    return RunSpec.load("job.yaml")


def recorded(folder, source):
    """A bundle as if it had been recorded with this code."""
    shutil.copytree(bundle_folder("digits-mlp"), folder)
    manifest = yaml.safe_load((Path(folder) / "bundle.yaml").read_text())
    manifest |= {"name": "train", "family": "train", "source": source, "seed": 0, "again": 0, "replicates": 2}
    (Path(folder) / "bundle.yaml").write_text(yaml.safe_dump(manifest))
    return manifest["trials"], manifest["max_iterations"]


def elastune(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_profile_of_code_that_has_changed_is_refused(spec):
    numbers = recorded(PLACE, OTHER)
    refused = elastune("profile", "job.yaml", "--trials", numbers[0], "--iterations", numbers[1], "--jobs", 1)
    assert refused.exit_code == 2
    assert f"training code is {OTHER} there, asked was mine.py:train, sha256" in refused.stderr
    assert "Choose another folder (-o), or delete this one" in refused.stderr
    own = own_workload_of(spec, "minimize")
    with pytest.raises(InputError, match=r"the curves in .*spirals are of other training code"):
        _base(own, Path(PLACE), None)

    WorkFolder(Path("begun")).open(ProfileArguments("train", 2, 3, 0).asked(own))
    Path("mine.py").write_text("def train(config):\n    return 1\n")
    changed = own_workload_of(RunSpec.load("job.yaml"), "minimize")
    with pytest.raises(InputError, match=r"begun holds another profile: training code is mine\.py:train, sha256"):
        profile_workload(changed, 2, 3, 1, Path("begun"))


@pytest.mark.usefixtures("spec")
def test_a_profile_whose_code_fails_at_once_leaves_nothing_that_mended_code_would_meet():
    asked = ("profile", "job.yaml", "--trials", 1, "--iterations", 1, "--jobs", 1)
    failed = elastune(*asked)
    assert "the training function never called elastune.report" in failed.stderr
    assert not Path(PLACE).exists()


def test_a_spec_whose_code_has_changed_since_the_profile_tells_a_note(spec):
    recorded(PLACE, OTHER)
    [note] = [note for note in spec.notes() if "trainable" in note]
    assert f"{PLACE} was recorded with {OTHER[:-52]}, but workload.trainable is mine.py:train, sha256" in note
    assert "elastune profile with another -o" in note
    planned = elastune("plan", "job.yaml", "--set", "workload.iteration_s=60")
    assert note.partition(" but ")[0] in planned.stderr.replace("\n", " ")

    for source in (find("mine.py:train").cited, "LCBench, 2019"):
        shutil.rmtree(PLACE)
        recorded(PLACE, source)
        assert not [note for note in spec.notes() if "trainable" in note]


@pytest.mark.usefixtures("spec")
def test_a_profile_is_written_where_the_spec_looks_for_it_and_names_the_next_command():
    missing = elastune("run", "job.yaml", "--on", "ray")
    assert missing.exit_code == 2
    assert "there is no bundle 'results/bundles/spirals'" in missing.stderr
    assert "elastune profile, with the file of this spec, records one" in missing.stderr

    numbers = recorded(PLACE, find("mine.py:train").cited)
    asked = ("profile", "job.yaml", "--trials", numbers[0], "--iterations", numbers[1], "--jobs", 1)
    done = elastune(*asked)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[0] == PLACE
    assert f"{numbers[0]} configurations, {numbers[1]} iterations each, " in done.stdout
    assert done.stdout.endswith("\nnext: elastune plan job.yaml; elastune compare job.yaml\n")
    shutil.move(PLACE, "mine")
    moved = elastune(*asked, "-o", "mine")
    assert "next: elastune plan job.yaml --set workload.bundle=mine; elastune compare" in moved.stdout


def test_real_workers_are_offered_only_for_what_they_can_train(spec):
    recorded("imported", "LCBench, 2019")
    imported = {"job": {"trials": 3, "max_iterations": 6, "deadline_s": 900}, "policy": "sha-fixed"}
    imported["cloud"] = {"price_usd_per_hour": 3.06, "gpus_per_instance": 1}
    for bundle, is_offered in (("./imported", False), ("digits-mlp", True)):
        told = _to_train(RunSpec.of(**imported, workload={"bundle": bundle}), Path("best.yaml"))
        assert ("elastune run best.yaml --on ray" in told) == is_offered
        assert ("workload.trainable" in told) != is_offered
    assert "--on ray" in _to_train(spec, Path("best.yaml"))
