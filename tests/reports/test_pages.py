"""What a report says, what it refuses, and that text of users is text in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from report_folders import ODD_NAME, ODD_VALUE, elastune

from elastune import RunSpec, execute
from elastune.experiments.reports.decisions import decisions_of
from elastune.experiments.reports.of_comparison import RecordedComparison
from elastune.experiments.reports.of_run import RecordedRun
from elastune.experiments.reports.page import MOST_ROWS, Chart, Heading, Page, PageSection, PageTable, label, rendered
from elastune.experiments.reports.what_if import what_if
from elastune.sim.control.journal import Entry
from elastune.sim.model.actions import FinishRun, RunTrial, ScaleTo, SetTimer, StopTrial
from elastune.sim.model.errors import InputError
from elastune.sim.model.events import InstanceReady, Outcome, RunStarted, SegmentEnded

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


TELLING = """
from pathlib import Path


class Telling(MyPolicy):
    def __init__(self, *given):
        Path("ran.txt").touch()
        super().__init__(*given)
"""


def ended(trial, iteration, score, at_s):
    return SegmentEnded(at_s, trial, trial, iteration, iteration, score, Outcome.COMPLETED, 1.0, 2.0, 0.0)


def blocks_in(page):
    """The data of a page's tables and figures."""
    return json.loads(re.search(r'<script type="application/json" id="blocks">(.*?)</script>', page, re.DOTALL)[1])


def blocks_of(path):
    return {block["title"]: block for block in blocks_in(path.read_text(encoding="utf-8"))}


def test_a_decision_is_told_with_the_event_and_what_was_known_of_its_trials():
    entries = [
        Entry(RunStarted(0.0), [SetTimer("t", 9.0), ScaleTo(2)]),
        Entry(InstanceReady(5.0, 0), [RunTrial(0, 1, 3)]),
        Entry(ended(1, 3, 0.5, 20.0)),
        Entry(ended(2, 3, None, 21.0), [SetTimer("t", 30.0)]),
        Entry(ended(0, 3, 0.7, 25.0), [StopTrial(0), RunTrial(1, 4, 9)]),
        Entry(ended(1, 9, 0.4, 60.0), [FinishRun(1)]),
    ]
    told = [(one.at_s, one.kind, one.happened, one.decided, one.known) for one in decisions_of(entries, "minimize")]
    assert told == [
        (0.0, "machines", "The run started", ("hold 2 machines",), ()),
        (
            5.0,
            "trials",
            "Machine 0 can train",
            ("train trial 0 on 1 GPU to iteration 3",),
            ("trial 0: new, no score yet",),
        ),
        (
            25.0,
            "trials",
            "Trial 0 reached iteration 3, with a score of 0.7",
            ("stop trial 0", "train trial 1 on 4 GPUs to iteration 9"),
            (
                "trial 0: 0.7 after 3 iterations, 1 of 2 others better there",
                "trial 1: 0.5 after 3 iterations, 0 of 2 others better there",
            ),
        ),
        (
            60.0,
            "end",
            "Trial 1 reached iteration 9, with a score of 0.4",
            ("end the run, with trial 1",),
            ("trial 1: 0.4 after 9 iterations, 0 of 0 others better there",),
        ),
    ]
    higher = list(decisions_of(entries, "maximize"))[2]
    assert higher.known[1] == "trial 1: 0.5 after 3 iterations, 1 of 2 others better there"
    assert list(decisions_of(entries, None))[2].known[1] == "trial 1: 0.5 after 3 iterations"


def test_a_page_of_a_run_tells_its_result_its_trials_and_each_decision(made):
    run = RecordedRun.read(made.run)
    blocks = blocks_of(made.pages["run"])
    trials = blocks["Trials, by their last score"]["rows"]
    assert trials[0][0] == f"{run.name(run.result['best_trial'])} (answer)"
    assert len(trials) == run.result["trials_started"]
    assert sum(row[4] for row in trials) == pytest.approx(
        sum(run.result["ledger_gpu_s"][part] for part in ("training", "launch", "rescale", "checkpoint", "redone"))
    )
    decisions = list(decisions_of(run.entries, "minimize", run.name))
    assert len(blocks["Decisions"]["rows"]) == len(decisions)
    details = blocks["Machines, trials and decisions"]["details"]
    assert [one["because"] for one in details[: len(decisions)]] == [one.happened for one in decisions]
    money = sum(trace["x"][0] for trace in blocks["Dollars by part"]["traces"])
    assert money == pytest.approx(run.result["cost_usd"])
    assert blocks["Over time"]["traces"][0]["y"][-1] == pytest.approx(run.result["cost_usd"])


def test_a_page_calls_trials_what_the_recording_and_the_command_line_call_them(made, monkeypatch):
    monkeypatch.chdir(made.root)
    run, spec = RecordedRun.read(made.run), RunSpec.load("s.yaml")
    bundle, best = spec.bundle(), run.result["best_trial"]
    names = [bundle.labels[row] for row in bundle.draw(6, spec.seed)]
    assert names[best] != str(best)
    blocks = blocks_of(made.pages["run"])
    page = made.pages["run"].read_text(encoding="utf-8")
    assert f"<dd>trial {names[best]}</dd>" in page
    assert f"Trial {names[best]} is the answer: " in page
    assert re.search(rf"best trial +{names[best]}: ", elastune("run", "s.yaml", "-o", "run<i>").stdout)
    assert {row[0].removesuffix(" (answer)") for row in blocks["Trials, by their last score"]["rows"]} <= set(names)
    [trains] = [one for one in blocks["Machines, trials and decisions"]["traces"] if one["name"] == "trains"]
    assert set(trains["text"]) <= set(names)
    assert f"end the run, with trial {names[best]}" in blocks["Decisions"]["rows"][-1][2]


def test_a_page_of_a_comparison_names_the_policy_of_least_regret_and_the_sum_of_its_bill(made):
    found = RecordedComparison.read(made.root / "comparison")
    summary = found.summary[found.summary["budget_met"] == found.summary["budget_met"].max()]
    page = made.pages["comparison"].read_text(encoding="utf-8")
    best = found.ranked[0]
    assert best["regret"] == summary[summary["deadline_met"] == summary["deadline_met"].max()]["regret"].min()
    assert f"<dt>best</dt><dd>{best['policy']}</dd>" in page
    bars = blocks_of(made.pages["comparison"])["Dollars by part"]["traces"]
    place = bars[0]["y"].index(best["policy"])
    assert sum(bar["x"][place] for bar in bars) == pytest.approx(best["cost_usd"])


@pytest.mark.slow
def test_a_page_of_a_comparison_whose_first_policy_has_no_plan_shows_the_others(tmp_path):
    folder, page = tmp_path / "comparison", tmp_path / "page.html"
    asked = ("--policies", "static,seer", "--set", "job.deadline_s=240", "--seeds", 1, "--jobs", 1)
    told = elastune("compare", "tight", *asked, "-o", folder)
    assert "static: no plan trains 1 configuration" in told.output
    elastune("report", folder, "-o", page, "--seeds", 1, "--jobs", 1)
    assert [trace["name"] for trace in blocks_of(page)["Best score so far"]["traces"]] == ["seer"]


def test_a_page_of_a_sweep_has_all_its_runs(made):
    runs = blocks_of(made.pages["sweep"])["Runs"]
    assert len(runs["rows"]) == 27
    names = [heading["name"] for heading in runs["headings"]]
    assert names[:4] == ["policy", "job.deadline_s", "seed", "status"]
    assert {row[1] for row in runs["rows"]} == {200.0, 300.0, 450.0}


def test_a_page_of_a_recommendation_has_its_choice_and_all_candidates(made):
    told = json.loads((made.root / "choice" / "recommendation.json").read_text())
    page = made.pages["choice"].read_text(encoding="utf-8")
    assert f"Recommendation: {told['standings'][0]['policy']} on m&lt;b&gt;" in page
    assert len(blocks_in(page)[0]["rows"]) == len(told["standings"])
    candidates = pd.read_csv(made.root / "choice" / "candidates.csv")
    assert len(blocks_of(made.pages["choice"])["Candidates"]["rows"]) == len(candidates) == told["candidates"]


def test_a_tenth_more_is_what_a_run_with_that_limit_gives(made, monkeypatch):
    monkeypatch.chdir(made.root)
    spec = RunSpec.load("s.yaml")
    table, sentences = what_if([spec], [0, 1], jobs=1, on_progress=lambda *_: None)
    more = spec.model_copy(update={"job": spec.job.model_copy(update={"budget_usd": 2.2})})
    costs = [execute(one.with_seed(seed)).cost_usd for one in (spec, more) for seed in (0, 1)]
    assert [row[1] for row in table.rows] == ["as it is", "T + 10 %", "B + 10 %"]
    assert table.rows[0][4][0] == pytest.approx(sum(costs[:2]) / 2)
    assert table.rows[2][4][0] == pytest.approx(sum(costs[2:]) / 2 - sum(costs[:2]) / 2)
    assert [sentence[:8] for sentence in sentences] == ["T + 10 %", "B + 10 %"]
    free = spec.model_copy(update={"job": spec.job.model_copy(update={"deadline_s": None})})
    assert [row[1] for row in what_if([free], [0], jobs=1, on_progress=lambda *_: None)[0].rows] == [
        "as it is",
        "B + 10 %",
    ]


@pytest.mark.parametrize("kind", ["run", "sweep", "comparison", "choice"])
def test_no_text_of_a_user_is_code_in_a_page(made, kind):
    page = made.pages[kind].read_text(encoding="utf-8")
    for code in (ODD_NAME, ODD_VALUE, "<img", "m<b>", "<i>"):
        assert code not in page.replace(_plotly_of(page), "")
    assert "http://" not in _head_of(page)
    assert '<link rel="stylesheet"' not in page
    assert " src=" not in page.replace(_plotly_of(page), "").split("<main>")[0]


def test_names_are_in_the_page_as_they_are(made):
    rows = blocks_of(made.pages["run"])["Trials, by their last score"]["rows"]
    assert f"{ODD_NAME}={ODD_VALUE}" in rows[0][5]


def _plotly_of(page):
    return max(re.findall(r"<script>(.*?)</script>", page, re.DOTALL), key=len)


def _head_of(page):
    return page.split("<main>")[0]


def test_a_script_cannot_end_early_and_titles_are_escaped():
    table = PageTable("</script><b>", [Heading("x")], [["</script><b>"]])
    chart = Chart("c", [{"name": label("<b>&"), "x": [float("nan"), 1.0]}])
    page = rendered(Page("</title><b>", "<b>", {"<b>": "<b>"}, [PageSection("<b>", ["<b>"], [table, chart])], ["<b>"]))
    assert "<b>" not in page.replace(_plotly_of(page), "")
    assert page.split("<style>")[0].count("</title>") == 1
    blocks = blocks_in(page)
    assert blocks[0]["rows"] == [["</script><b>"]]
    assert blocks[1]["traces"] == [{"name": "&lt;b&gt;&amp;", "x": [None, 1.0]}]


def test_a_table_that_is_too_long_says_so():
    table = PageTable("t", [Heading("x", "number")], [[number] for number in range(MOST_ROWS + 1)]).to_json()
    assert len(table["rows"]) == MOST_ROWS
    assert table["note"] == "The first 5,000 of 5,001 rows. "


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("nothing", "nothing: is not there; a report is of a folder that elastune run, sweep"),
        ("s.yaml", "s.yaml: is a file; a report is of"),
        ("b", "b: holds a bundle; a report is of"),
        ("empty", "empty: holds no results; a report is of"),
    ],
)
def test_other_folders_are_refused(made, monkeypatch, folder, told):
    monkeypatch.chdir(made.root)
    (made.root / "empty").mkdir(exist_ok=True)
    refused = elastune("report", folder, "-o", "refused.html", code=2)
    assert refused.stderr.startswith(f"error: {told}")
    assert not (made.root / "refused.html").exists()


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("result.json", "{", "result.json: is damaged: Expecting property name"),
        ("result.json", "[]", "result.json: is no result of a run"),
        ("result.json", None, "result.json: is not there; a report needs a run that has ended"),
        ("journal.jsonl", "", "journal.jsonl, line 1: is empty"),
    ],
)
def test_a_damaged_run_is_refused_by_file(made, tmp_path, monkeypatch, file, text, told):
    monkeypatch.chdir(made.root)
    for name in ("kind.txt", "journal.jsonl", "result.json", "spec.yaml"):
        (tmp_path / name).write_bytes((made.run / name).read_bytes())
    (tmp_path / file).unlink()
    if text is not None:
        (tmp_path / file).write_text(text)
    refused = elastune("report", tmp_path, "-o", tmp_path / "page.html", code=2)
    assert f"{tmp_path}/{told}" in refused.stderr


def test_a_policy_of_somebodys_own_is_run_only_where_it_is_named(made, monkeypatch):
    monkeypatch.chdir(made.root)
    mine = (EXAMPLES / "my_policy.py").read_text(encoding="utf-8")
    (made.root / "own.py").write_text(f"{mine}\n{TELLING}")
    elastune("run", "s.yaml", "--policy", "own.py:Telling", "-o", "own")
    (made.root / "ran.txt").unlink()
    elastune("report", "own", "-o", "own.html", "--seeds", 1, "--jobs", 1)
    assert "It cannot be simulated: own is of policy own.py:Telling" in (made.root / "own.html").read_text(
        encoding="utf-8"
    )
    assert not (made.root / "ran.txt").exists()
    elastune("report", "own", "-o", "own.html", "--seeds", 1, "--jobs", 1, "--policy", "own.py:Telling")
    assert "T + 10 %: own.py:Telling" in (made.root / "own.html").read_text(encoding="utf-8")
    assert (made.root / "ran.txt").exists()


def test_a_report_without_its_bundle_says_what_it_cannot_simulate(made, tmp_path, monkeypatch):
    def lost(_self):
        raise InputError("the bundle b is lost")

    monkeypatch.chdir(made.root)
    monkeypatch.setattr(RunSpec, "bundle", lost)
    elastune("report", made.run, "-o", tmp_path / "page.html", "--jobs", 1)
    page = tmp_path / "page.html"
    assert "It cannot be simulated: the bundle b is lost." in page.read_text(encoding="utf-8")
    assert "others better" not in page.read_text(encoding="utf-8")
    assert (
        len(blocks_of(page)["Trials, by their last score"]["rows"])
        == RecordedRun.read(made.run).result["trials_started"]
    )
