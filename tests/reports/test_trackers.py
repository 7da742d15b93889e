"""A run as MLflow and W&B keep it, read back by these and by the importers; and searches that they logged themselves."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from elastune import RunSpec, load_bundle
from elastune.experiments.cli.app import app

SPEC = {
    "job": {"trials": 12, "max_iterations": 6, "deadline_s": 3600, "budget_usd": 20},
    "workload": {"bundle": "digits-mlp", "scaling": {1: 1}, "iteration_s": 30},
    "cloud": {"instance_type": "p3.8xlarge", "startup": "fast", "rescale_s": 5},
    "policy": "random-fixed",
}
TRIALS, R = 8, 4
DESCRIBED = ["--name", "mine", "--source", "here", "--licence", "none", "--direction", "minimize"]


def elastune(*arguments, code=0):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert done.exit_code == code, done.stderr or done.exception
    return done


def loss(trial, step):
    return (1 + trial % 5) / (step + 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tracked")
    (folder / "spec.yaml").write_text(json.dumps(SPEC))
    elastune("run", folder / "spec.yaml", "-o", folder / "run")
    return folder / "run"


def reported(run):
    """Trial, iteration and score of the ends of segments, as the journal has them."""
    lines = map(json.loads, (run / "journal.jsonl").read_text().splitlines())
    events = [line["event"] for line in lines if line.get("event", {}).get("type") == "SegmentEnded"]
    return {(one["trial"], one["iteration"]): one["score"] for one in events if one.get("score") is not None}


def audited(folder, *options):
    told = elastune(
        *("audit", folder, "--machine", "p3.8xlarge", "--direction", "minimize", "--policies", "sha-fixed"),
        *("--seeds", "2", "--jobs", "1", "--json", *options),
    )
    return json.loads(told.stdout)["past"]


def test_a_run_is_in_mlflow_with_a_run_for_each_trial(run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the mlflow extra is not installed")
    elastune("report", run, "-o", tmp_path / "page.html", "--seeds", 0, "--mlflow", tmp_path / "mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    search, *trials = sorted(
        client.search_runs([client.get_experiment_by_name("elastune").experiment_id]),
        key=lambda one: "mlflow.parentRunId" in one.data.tags,
    )
    result = json.loads((run / "result.json").read_text())
    assert search.data.metrics["result/cost_usd"] == result["cost_usd"]
    assert search.data.params["cloud.instance_type.name"] == "p3.8xlarge"
    lasts_s = (search.info.end_time - search.info.start_time) / 1000
    assert lasts_s == pytest.approx(result["makespan_s"], abs=0.01)
    assert {one.data.tags["mlflow.parentRunId"] for one in trials} == {search.info.run_id}
    names = RunSpec.load(run / "spec.yaml").trial_names()
    found = {
        (names.index(one.info.run_name.removeprefix("trial ")), point.step): point.value
        for one in trials
        for point in client.get_metric_history(one.info.run_id, "score")
    }
    assert found == reported(run)
    assert len(trials) == 12
    assert all("learning_rate" in one.data.params or one.data.params for one in trials)


def test_a_run_is_in_w_and_b_as_one_group_of_offline_runs(run, tmp_path):
    pytest.importorskip("wandb", reason="the wandb extra is not installed")
    elastune("report", run, "-o", tmp_path / "page.html", "--seeds", 0, "--wandb", tmp_path / "logs")
    # Curves of one point each: random-fixed trains every trial in one go.
    elastune(
        *("bundles", "import", "wandb", tmp_path / "logs", "--metric", "score", "--clock", "elapsed_s", *DESCRIBED),
        *("-o", tmp_path / "bundle", "--untimed"),
    )
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.scores[:, -1].tolist() == [score for _, score in sorted(reported(run).items())]
    assert bundle.configurations[0]


def test_searches_that_mlflow_logged_itself_are_audited_and_imported(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the mlflow extra is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    experiment = client.create_experiment("search")
    for trial in range(TRIALS):
        run_id = client.create_run(experiment, start_time=1_700_000_000_000, run_name=f"t{trial}").info.run_id
        client.log_param(run_id, "lr", 0.1 * trial)
        for step in range(1, R + 1):
            client.log_metric(run_id, "loss", loss(trial, step), 1_700_000_000_000 + 60_000 * step, step)
    past = audited(tmp_path / "mlruns", "--tag", "loss")
    assert (past["trials"], past["complete"]) == (TRIALS, TRIALS)
    assert past["gpu_s"] == pytest.approx(TRIALS * R * 60)
    elastune("bundles", "import", "mlflow", tmp_path / "mlruns", "--metric", "loss", *DESCRIBED, "-o", tmp_path / "b")
    bundle = load_bundle(tmp_path / "b")
    assert bundle.scores.tolist() == [[loss(trial, step) for step in range(1, R + 1)] for trial in range(TRIALS)]
    wrong = elastune(
        "audit", tmp_path / "mlruns", "--machine", "p3.8xlarge", "--direction", "minimize", "--tag", "los", code=2
    )
    assert "no run logged this metric; did you mean 'loss'?" in wrong.stderr
    client.create_run(client.create_experiment("another"))
    both = elastune("bundles", "import", "mlflow", tmp_path / "mlruns", "--metric", "loss", *DESCRIBED, code=2)
    assert "has 2 experiments with runs; name one with --experiment: " in both.stderr


def test_searches_that_w_and_b_logged_itself_are_audited_also_where_a_run_was_killed(tmp_path):
    wandb = pytest.importorskip("wandb", reason="the wandb extra is not installed")
    quiet = wandb.Settings(console="off", silent=True, x_disable_meta=True, x_disable_stats=True)
    for trial in range(3):
        logged = wandb.init(
            mode="offline", dir=tmp_path, name=f"t{trial}", config={"lr": trial, "net": {"width": 8}}, settings=quiet
        )
        for step in range(R):
            logged.log({"val": {"loss": loss(trial, step + 1)}, "clock": 30.0 * (step + 1), "text": "x" * 20_000})
        logged.finish()
    elastune(
        *(
            "bundles",
            "import",
            "wandb",
            tmp_path,
            "--metric",
            "val.loss",
            "--clock",
            "clock",
            "--iteration-zero",
            "first",
        ),
        *(*DESCRIBED, "-o", tmp_path / "b"),
    )
    bundle = load_bundle(tmp_path / "b")
    assert bundle.scores.tolist() == [[loss(trial, step) for step in range(1, R + 1)] for trial in range(3)]
    assert bundle.iteration_s == pytest.approx(30.0)
    assert audited(tmp_path, "--tag", "val.loss", "--iteration-zero", "first")["trials"] == 3
    killed = next(tmp_path.rglob("run-*.wandb"))
    killed.write_bytes(killed.read_bytes()[: -killed.stat().st_size // 3])
    past = audited(tmp_path, "--tag", "val.loss", "--iteration-zero", "first")
    assert (past["trials"], past["complete"]) == (3, 2)
    killed.write_bytes(b"something else")
    wrong = elastune(
        "audit", tmp_path, "--machine", "p3.8xlarge", "--direction", "minimize", "--tag", "val.loss", code=2
    )
    assert "is no log of W&B" in wrong.stderr


def test_only_a_run_is_exported_and_what_is_missing_is_said(run, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    for tracker in ("mlflow", "wandb"):
        lacks = elastune("report", run, "-o", tmp_path / "p.html", "--seeds", 0, f"--{tracker}", tmp_path / "x", code=2)
        assert f"--{tracker} needs {tracker}: pip install 'elastune[{tracker}]'" in lacks.stderr
    assert not (tmp_path / "p.html").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "kind.txt").write_text("comparison\n")
    refused = elastune("report", tmp_path / "other", "--mlflow", tmp_path / "x", code=2)
    assert "--mlflow" in refused.stderr
