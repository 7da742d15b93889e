"""`elastune init`, and paths of a spec that are relative to its file."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from elastune import RunSpec, load_bundle
from elastune.experiments.cli.app import app
from elastune.experiments.sweeps.grid import SweepSpec
from elastune.sim.model.errors import InputError
from elastune.traces.bundles.loading import bundle_folder


def elastune(*arguments):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own_bundle(here):
    """A copy of a shipped bundle with a scaling of its own, in a folder beside a spec."""
    folder = here / "data" / "mine"
    shutil.copytree(bundle_folder("digits-mlp", (), ()), folder)
    header = yaml.safe_load((folder / "bundle.yaml").read_text()) | {"name": "mine", "scaling": {1: 1, 2: 1.5, 4: 2.0}}
    (folder / "bundle.yaml").write_text(yaml.safe_dump(header))
    return folder


@pytest.mark.parametrize("machine", ["p3.8xlarge", "n1-standard-32+4xV100", "Standard_ND96isr_H100_v5"])
def test_a_spec_is_written_that_runs_as_it_is(here, machine):
    made = elastune("init", "digits-mlp", "--machine", machine, "--scaling", "resnet50-v100", "--iteration-s", "1min")
    assert made.exit_code == 0, made.stderr
    text = (here / "digits-mlp.yaml").read_text()
    assert text.count("#") >= 10
    starts = {"p3": "typical", "n1": "gcp", "St": "azure"}
    assert f"  startup: {starts[machine[:2]]}  #" in text
    spec = RunSpec.load("digits-mlp.yaml")
    assert (spec.workload.iteration_s, spec.cloud.instance_type.name) == (60, machine)
    done = elastune("run", "digits-mlp.yaml", "--json", "-o", "run")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["deadline_met"], told["budget_met"]) == (True, True)
    assert told["trials_started"] >= 16


def test_limits_take_units_and_a_file_that_is_there_stays(here):
    options = ("init", "mnist5k-cnn", "--scaling", "bert-a100", "--deadline", "2h", "--budget", "12.5", "-o", "a.yaml")
    assert elastune(*options).exit_code == 0
    job = RunSpec.load("a.yaml").job
    assert (job.deadline_s, job.budget_usd, job.max_iterations) == (7200, 12.5, 27)
    before = (here / "a.yaml").read_text()
    again = elastune(*options)
    assert again.exit_code == 2
    assert "a.yaml: is there already" in again.stderr
    assert (here / "a.yaml").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("digits-mlp",), "bundle digits-mlp has no scaling"),
        (("digits-mpl", "--scaling", "linear"), "did you mean 'digits-mlp'"),
        (("digits-mlp", "--scaling", "linear", "--machine", "p3.9xlarge"), "did you mean 'p3.8xlarge'"),
        (("digits-mlp", "--scaling", "no.csv"), "no.csv"),
        (("digits-mlp", "--scaling", "linear", "--trials", "999"), "256"),
        (("digits-mlp", "--scaling", "linear", "--deadline", "0"), "job.deadline_s is 0"),
        (("digits-mlp", "--scaling", "linear", "--budget", "0"), "job.budget_usd is 0"),
        (("digits-mlp", "--scaling", "linear", "--iteration-s", "0"), "workload.iteration_s is 0"),
    ],
)
def test_what_cannot_be_written_is_told_and_nothing_is_written(here, arguments, told):
    done = elastune("init", *arguments)
    assert done.exit_code == 2
    assert told in done.stderr
    assert list(here.iterdir()) == []


@pytest.mark.usefixtures("own_bundle")
def test_gangs_over_machines_that_only_a_bundles_own_scaling_speaks_of_are_told():
    assert elastune("init", "data/mine", "-o", "mine.yaml", "--machine", "p3.2xlarge").exit_code == 0
    for command in (("run", "mine.yaml"), ("run", "mine.yaml", "--json"), ("plan", "mine.yaml", "--json")):
        done = elastune(*command)
        assert done.exit_code == 0, done.stderr
        (note,) = (line for line in done.stderr.splitlines() if "nothing says what the network" in line)
        assert note.startswith("note: the scaling of bundle ")
        assert "between machines of 1 GPU costs, so gangs of 2, 3, 4 GPUs are believed" in note


@pytest.mark.usefixtures("own_bundle")
def test_a_bundle_carries_its_scaling_and_is_named_from_the_file_on(here):
    assert elastune("init", "data/mine", "-o", "specs/mine.yaml").exit_code == 0
    assert yaml.safe_load((here / "specs/mine.yaml").read_text())["workload"] == {"bundle": "../data/mine"}
    spec = RunSpec.load("specs/mine.yaml")
    assert spec.bundle().scaling.speedup(4) == 2.0
    assert spec.bundle().sha256 == load_bundle("data/mine").sha256


@pytest.mark.usefixtures("own_bundle")
def test_paths_are_relative_to_the_file_from_wherever_it_is_read(here, monkeypatch):
    (here / "data" / "prices.csv").write_text(
        "name,gpus_per_instance,on_demand_usd_per_hour,spot_usd_per_hour\nbox,4,2.5,\n"
    )
    (here / "data" / "scaling.csv").write_text(
        "name,kind,gpus,speedup,source\nmine,strong,1,1,us\nmine,strong,2,1.8,us\n"
    )
    spec = {
        "job": {"trials": 8, "max_iterations": 9, "deadline_s": "1h", "budget_usd": 20},
        "workload": {"bundle": "mine", "scaling": "scaling.csv", "iteration_s": 60},
        "cloud": {"instance_type": "box", "prices": "prices.csv", "rescale_s": 1},
        "policy": "sha-elastic",
    }
    (here / "data" / "spec.yaml").write_text(yaml.safe_dump(spec))
    (here / "data" / "sweep.yaml").write_text(
        yaml.safe_dump({"base": spec, "axes": {"job.deadline_s": ["30min", "1h"]}, "seeds": 1})
    )
    for folder, path in (
        (here, "data/spec.yaml"),
        (here / "data", "spec.yaml"),
        (Path("/"), str(here / "data/spec.yaml")),
    ):
        monkeypatch.chdir(folder)
        read = RunSpec.load(path)
        assert read.price_book().default_type.gpus_per_instance == 4
        assert read.bundle().name == "mine"
    monkeypatch.chdir("/")
    assert SweepSpec.load(here / "data" / "sweep.yaml").size() == 2
    with pytest.raises(InputError):  # what the command line sets is relative to the current folder
        RunSpec.load(here / "data" / "spec.yaml", ["cloud.prices=prices.csv"])
