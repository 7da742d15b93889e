"""`elastune audit`, on logs that are made from a shipped bundle's curves."""

import json
import re

import numpy as np
import optuna
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from elastune import load_bundle
from elastune.experiments.cli.app import app
from elastune.traces.bundles.loading import bundle_folder

TRIALS, R, SECONDS, USD_PER_HOUR = 32, 9, 60.0, 12.24 / 4
CUT = tuple(range(1, TRIALS, 4))
"""Trials that the past search stopped after 3 iterations."""
CURVES = load_bundle(bundle_folder("digits-mlp", (), ())).scores[:TRIALS, :R]


def elastune(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})


def lengths(cut):
    return [3 if trial in cut else R for trial in range(TRIALS)]


@pytest.fixture
def log(tmp_path):
    """Writes a table of the search, in which these trials were cut short."""

    def write(cut=CUT):
        rows = [
            {
                "trial": f"run-{trial}",
                "iteration": k + 1,
                "score": CURVES[trial, k],
                "seconds": SECONDS,
                "lr": trial / 100,
            }
            for trial, length in enumerate(lengths(cut))
            for k in range(length)
        ]
        path = tmp_path / "log.csv"
        pd.DataFrame(rows).to_csv(path, index=False)
        return path

    return write


def audited(*arguments, machine="p3.8xlarge"):
    done = elastune("audit", *arguments, "--machine", machine, "--seeds", "8", "--jobs", "1", "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_what_the_search_cost_counts_the_trials_that_were_cut_short(log):
    told = audited(log(), "--direction", "minimize", "--policies", "sha-fixed,random-fixed")
    past = told["past"]
    gpu_s = SECONDS * sum(lengths(CUT))
    complete = [trial for trial in range(TRIALS) if trial not in CUT]
    assert (past["trials"], past["complete"], past["at_once"]) == (TRIALS, len(complete), 4)
    assert past["gpu_s"] == pytest.approx(gpu_s)
    assert past["complete_gpu_s"] == pytest.approx(SECONDS * R * len(complete))
    assert past["usd"] == pytest.approx(gpu_s / 3600 * USD_PER_HOUR)
    assert past["best_score"] == pytest.approx(CURVES[complete, -1].min())
    job = told["spec"]["job"]
    assert (job["deadline_s"], job["budget_usd"]) == (pytest.approx(gpu_s / 4), pytest.approx(past["usd"]))


def test_policies_choose_among_complete_trials_only_and_the_result_says_so(log):
    told = audited(log(), "--direction", "minimize", "--policies", "sha-fixed")
    assert any(
        f"{len(CUT)} of {TRIALS} trials were cut short and have no later curve" in one for one in told["assumed"]
    )
    finals = CURVES[[trial for trial in range(TRIALS) if trial not in CUT]]
    for run in told["runs"]:
        assert np.isclose(finals, run["score"]).any()
        assert run["budget_met"]


def test_a_back_test_sha_spends_less_than_a_search_that_trained_all_to_the_end_and_finds_about_as_good(log):
    told = audited(log(cut=()), "--direction", "minimize", "--policies", "sha-fixed")
    assert not any("cut short" in one for one in told["assumed"])
    for run in told["runs"]:
        assert run["cost_usd"] < told["past"]["usd"]
        assert run["score"] <= np.quantile(CURVES[:, -1], 0.25)
        # By hand: 32 x 1, 10 x 2 and 3 x 6 iterations, and not 32 x 9.
        assert run["iterations_trained"] == 32 + 20 + 18


def test_trials_that_were_cut_short_may_be_taken_as_diverged_which_is_said(log):
    told = audited(log(), "--direction", "minimize", "--policies", "sha-fixed", "--cut-short", "diverged")
    assert told["past"]["complete"] == TRIALS
    assert f"{len(CUT)} trials are taken to have diverged where their curves end" in told["assumed"]


@pytest.mark.slow
def test_a_study_says_its_direction_itself(tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=storage, direction="minimize")
    start = pd.Timestamp("2026-01-01").to_pydatetime()
    for trial, length in enumerate(lengths(CUT)):
        values = {k: float(CURVES[trial, k - 1]) for k in range(1, length + 1)}
        made = optuna.trial.create_trial(
            state=optuna.trial.TrialState.PRUNED if length < R else optuna.trial.TrialState.COMPLETE,
            value=values[length],
            params={"lr": 0.01 * (trial + 1)},
            distributions={"lr": optuna.distributions.FloatDistribution(0.0, 1.0)},
            intermediate_values=values,
        )
        made.datetime_start = start
        made.datetime_complete = start + pd.Timedelta(seconds=SECONDS * length).to_pytimedelta()
        study.add_trial(made)
    told = audited(tmp_path / "study.db", "--policies", "sha-fixed")
    assert told["past"]["gpu_s"] == pytest.approx(SECONDS * sum(lengths(CUT)))


@pytest.mark.slow
def test_the_table_says_what_was_assumed(log):
    asked = ("--direction", "minimize", "--machine", "p3.8xlarge", "--policies", "sha-fixed", "--seeds", "3")
    done = elastune("audit", log(), *asked)
    assert done.exit_code == 0, done.stderr
    assert "of the past" in done.stdout
    assert "Assumed, as the log does not tell:" in done.stdout
    assert "no trial gets more than one GPU" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("log.csv",), "give --direction"),
        (("log.xlsx", "--direction", "minimize"), "elastune bundles import"),
        (("log.csv", "--direction", "minimize", "--cut-short", "hold"), "not one of 'drop'"),
        (("no.csv", "--direction", "minimize"), "no.csv"),
    ],
)
def test_what_is_no_log_is_told(arguments, told):
    done = elastune("audit", *arguments, "--machine", "p3.8xlarge")
    assert done.exit_code == 2
    assert told in done.stderr


def test_a_log_without_seconds_is_refused(tmp_path):
    rows = [{"trial": t, "iteration": k + 1, "score": CURVES[t, k]} for t in range(8) for k in range(R)]
    pd.DataFrame(rows).to_csv(tmp_path / "log.csv", index=False)
    done = elastune("audit", tmp_path / "log.csv", "--direction", "minimize", "--machine", "p3.8xlarge")
    assert done.exit_code == 2
    assert "has no seconds" in done.stderr


def few(tmp_path, seconds=(3600, 7200), score="0.5"):
    """A log of two trials of one iteration."""
    rows = [f"{trial},1,{score},{taken_s}" for trial, taken_s in enumerate(seconds)]
    (tmp_path / "few.csv").write_text("\n".join(["trial,iteration,score,seconds", *rows]), encoding="utf-8")
    return tmp_path / "few.csv"


@pytest.mark.parametrize(
    ("at_once", "together", "least_s"),
    [((), 1, 10800), (("--at-once", 2), 2, 7200), (("--at-once", 1000), 2, 7200), (("--at-once", 1), 1, 10800)],
)
def test_no_more_trials_train_at_once_than_there_are_and_none_is_split(tmp_path, at_once, together, least_s):
    told = audited(
        few(tmp_path), "--direction", "minimize", "--policies", "random-fixed", *at_once, machine="p3.2xlarge"
    )
    assert (told["past"]["at_once"], told["past"]["makespan_s"]) == (together, least_s)
    assert told["spec"]["job"]["deadline_s"] == least_s


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("score", ["nan", "-inf", ""])
def test_a_search_in_which_all_diverged_has_no_best_score(tmp_path, score):
    log = few(tmp_path, score=score, seconds=(36000, 72000))
    assert (
        audited(log, "--direction", "minimize", "--policies", "random-fixed", machine="p3.2xlarge")["past"][
            "best_score"
        ]
        is None
    )


@pytest.mark.parametrize(
    ("note", "value"), [("trials_recorded", "many"), ("trials_recorded", 1), ("seconds_of_all_recorded_trials", -1)]
)
def test_a_note_of_the_import_that_makes_no_sense_is_named(tmp_path, note, value):
    bundle = tmp_path / "b"
    made = ("bundles", "import", "table", few(tmp_path), "--name", "b", "--direction", "minimize", "--source", "s")
    assert elastune(*made, "--licence", "l", "-o", bundle).exit_code == 0
    header = yaml.safe_load((bundle / "bundle.yaml").read_text(encoding="utf-8"))
    assert "trials_recorded" in header["imported"]
    header["imported"][note] = value
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(header), encoding="utf-8")
    done = elastune("audit", bundle, "--machine", "p3.8xlarge", "--policies", "random-fixed")
    assert done.exit_code == 2
    assert f"imported.{note} is {value!r}, but must be a number from" in done.stderr


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_gangs_over_several_machines_are_told(log, form):
    done = elastune(
        *(
            "audit",
            log(),
            "--direction",
            "minimize",
            "--machine",
            "p3.2xlarge",
            "--at-once",
            4,
            "--policies",
            "random-fixed",
        ),
        *("--scaling", "resnet50-v100", "--seeds", 1, "--jobs", 1, *form),
    )
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("nothing says what the network between machines of 1 GPU costs") == 1


def test_seconds_since_the_start_cost_as_much_as_those_of_each_iteration(log, tmp_path):
    table = pd.read_csv(log())
    table["elapsed"] = table.groupby("trial")["seconds"].cumsum()
    table.drop(columns="seconds").to_csv(tmp_path / "elapsed.csv", index=False)
    options = ("--direction", "minimize", "--policies", "sha-fixed")
    by_iteration, elapsed = (
        audited(log(), *options),
        audited(tmp_path / "elapsed.csv", *options, "--elapsed-column", "elapsed"),
    )
    assert elapsed["past"] == pytest.approx(by_iteration["past"])
    assert elapsed["summary"] == by_iteration["summary"]
    missing = elastune(
        "audit", tmp_path / "elapsed.csv", "--machine", "p3.8xlarge", *options, "--elapsed-column", "clock"
    )
    assert missing.exit_code == 2
    assert "--elapsed-column" in missing.stderr


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_search_too_short_for_every_policy_is_told_in_a_sentence_with_what_would_do(tmp_path, form):
    asked = (
        "--machine",
        "p3.8xlarge",
        "--direction",
        "minimize",
        "--policies",
        "seer,portfolio,sha-fixed",
        "--jobs",
        1,
    )
    done = elastune("audit", few(tmp_path, seconds=(30, 20)), *asked, "--seeds", 2, *form)
    assert done.exit_code == 0, done.stderr
    assert "elastune-audit" not in done.stderr
    told = json.loads(done.stdout)["no_plan"] if form else done.stdout
    assert re.search(
        r"no policy finds a plan; the least that would do is a budget of [.\d]+ USD with a deadline of \d+ s", told
    )
    assert "no plan trains" not in told
    if form:
        reasons = json.loads(done.stdout)["reasons"]
        assert list(reasons) == ["seer", "portfolio", "sha-fixed"]
        assert all("the cheapest costs" in reason for reason in reasons.values())


def test_that_orders_are_of_the_same_trials_is_no_note(log):
    done = elastune(
        "audit", log(), "--direction", "minimize", "--machine", "p3.8xlarge", "--policies", "sha-fixed", "--seeds", 2
    )
    assert "repeat each other" not in done.stderr


def test_columns_of_other_names_are_named_by_the_options_that_the_refusal_tells(log, tmp_path):
    names = {"trial": "run", "iteration": "epoch", "score": "loss", "seconds": "took"}
    pd.read_csv(log()).rename(columns=names).to_csv(tmp_path / "other.csv", index=False)
    options = ("--direction", "minimize", "--policies", "sha-fixed")
    refused = elastune("audit", tmp_path / "other.csv", "--machine", "p3.8xlarge", *options)
    assert "name another with --trial-column (and with --iteration-column, --score-column)" in refused.stderr
    given = [f"--{key}-column={name}" for key, name in names.items()]
    assert audited(tmp_path / "other.csv", *options, *given)["summary"] == audited(log(), *options)["summary"]
