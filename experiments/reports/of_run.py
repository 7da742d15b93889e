"""The page of one run, simulated or real, from its folder. Imports experiments.runs, and the other parts of a page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from elastune.experiments.figures.style import looks_of
from elastune.experiments.figures.tables import SECONDS, time_unit
from elastune.experiments.formats import NONE, configuration, kept, number, percent, seconds, usd
from elastune.experiments.reports.charts import ledger_chart, limited
from elastune.experiments.reports.decisions import ToldDecision, decisions_of
from elastune.experiments.reports.page import Chart, Page, PageSection, PageTable, numbers, texts
from elastune.experiments.reports.timeline import timeline_chart
from elastune.experiments.runs.fold import Tables
from elastune.experiments.runs.journals import entries_of, spec_of
from elastune.experiments.runs.ledger import Ledger
from elastune.experiments.runs.timeline import Timeline, timeline_in
from elastune.experiments.runs.trajectory import Recording, trajectory_table
from elastune.sim.model.errors import InputError
from elastune.sim.model.events import ProgressReported, SegmentEnded, TrialSampled
from elastune.sim.model.job import Direction, loss_of
from elastune.sim.model.prices import SECONDS_PER_HOUR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from elastune.experiments.spec.run import RunSpec
    from elastune.sim.control.journal import Entry

_MOST_DECISIONS = 4_000


@dataclass(frozen=True, eq=False)
class RecordedRun:
    """A run as its folder holds it.

    Attributes:
        folder: where it lies.
        spec: of the run.
        result: what `run --json` prints.
        entries: of its journal.
    """

    folder: Path
    spec: RunSpec
    result: Mapping[str, Any]
    entries: Sequence[Entry]

    @classmethod
    def read(cls, folder: Path) -> RecordedRun:
        """Read a folder of `elastune run`.

        Raises:
            InputError: a file is missing or damaged, or the run has not ended.
        """
        journal, result = folder / "journal.jsonl", folder / "result.json"
        for path in (journal, result):
            if not path.is_file():
                raise InputError(
                    f"{path}: is not there; a report needs a run that has ended, with its journal in its folder"
                )
        entries = list(entries_of(journal, is_whole=True))
        try:
            told = json.loads(result.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{result}: is damaged: {error}; run the spec again") from error
        if not isinstance(told, dict) or "policy" not in told:
            raise InputError(f"{result}: is no result of a run")
        return cls(folder, spec_of(journal), told, entries)

    @cached_property
    def tables(self) -> Tables:
        """Its leases and segments."""
        return Tables.of(self.entries, self.spec.price_book())

    @cached_property
    def timeline(self) -> Timeline:
        """Its machines and segments, to draw."""
        return timeline_in(self.tables, self.spec)

    @cached_property
    def direction(self) -> Direction | None:
        """Which way scores are better; None where the bundle that says so is not here."""
        try:
            return self.spec.bundle().direction
        except InputError:
            return None

    @cached_property
    def decisions(self) -> list[ToldDecision]:
        """What the policy decided."""
        return list(decisions_of(self.entries, self.direction, self.name))

    def name(self, trial: int) -> str:
        """What the command line calls a trial, too."""
        return self._names[trial] if trial < len(self._names) else str(trial)

    @cached_property
    def _names(self) -> Sequence[str]:
        try:
            return self.spec.trial_names()
        except InputError:  # the bundle is not here
            return ()

    @cached_property
    def hyperparameters(self) -> dict[int, Mapping[str, object]]:
        """Hyperparameters of its trials: as sampled, or else as drawn from the bundle."""
        sampled: dict[int, Mapping[str, object]] = {
            one.event.trial: one.event.configuration for one in self.entries if isinstance(one.event, TrialSampled)
        }
        try:
            drawn = self.spec.bundle().drawn_configurations(self.spec.job.tuning_job("minimize").trials, self.spec.seed)
        except InputError:
            drawn = []
        return {**dict(enumerate(drawn)), **sampled}

    @cached_property
    def configurations(self) -> dict[int, str]:
        """Configurations of its trials, in words."""
        return {trial: configuration(one) for trial, one in self.hyperparameters.items()}

    @cached_property
    def reported(self) -> dict[int, list[tuple[int, float, float]]]:
        """By trial: iteration, score, and when in seconds of the run, of each score that was reported."""
        found: dict[int, list[tuple[int, float, float]]] = {}
        for entry in self.entries:
            event = entry.event
            if isinstance(event, SegmentEnded | ProgressReported) and event.score is not None and event.iteration > 0:
                found.setdefault(event.trial, []).append((event.iteration, event.score, event.at_s))
        return found

    @cached_property
    def scores(self) -> np.ndarray:
        """(trials, iterations) as reported; NaN where nobody reported one."""
        job = self.spec.job.tuning_job("minimize")
        scores = np.full((job.trials, job.max_iterations), np.nan)
        for trial, points in self.reported.items():
            for iteration, score, _ in points:
                scores[trial, iteration - 1] = score
        return scores


def run_page(run: RecordedRun, sections: Sequence[PageSection] = (), notes: Sequence[str] = ()) -> Page:
    """The page of a run.

    Args:
        run: as its folder holds it.
        sections: that follow what the folder holds.
        notes: to stand with those of the spec.
    """
    result, job = run.result, run.spec.job
    facts = {
        "answer": NONE if result["best_trial"] is None else f"trial {run.name(result['best_trial'])}",
        "score": number(result["score"]),
        "regret": number(result["regret"]),
        "cost": f"{usd(result['cost_usd'])} USD, {kept(result['budget_met'], f'{usd(job.budget_usd)} USD')}",
        "makespan": f"{seconds(result['makespan_s'])} s, {kept(result['deadline_met'], f'{seconds(job.deadline_s)} s')}",
        "job": "completed" if result["completed"] else "cut before it was completed",
        "GPUs in training": percent(result["gpu_utilisation"]),
    }
    ledger = Ledger.of(run.tables)
    parts = [
        PageSection("Who won, and why", _why(run), [_trials_table(run)]),
        PageSection("Machines, trials and decisions", (), [_timeline(run), _decisions_table(run.decisions)]),
        PageSection(
            "Where the money went, and what idled", _money(ledger), [_ledger_chart(run, ledger), _spent_chart(run)]
        ),
    ]
    title = f"{result['policy']}, seed {result['seed']}"
    subtitle = f"One run of {_job(run)}; digest {str(result['digest'])[:12]}."
    return Page(title, subtitle, facts, [*parts, *sections], [*notes, *_provenance(result)])


def _job(run: RecordedRun) -> str:
    job = run.spec.job.tuning_job("minimize")
    machine = run.spec.cloud.price_book(data_bytes=0.0).default_type.name
    of = run.spec.workload.bundle or "a workload without recorded curves"
    return f"{of}: {job.trials} trials of up to {job.max_iterations} iterations on {machine}"


def _provenance(result: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {told}" for name, told in result["provenance"].items()]


def _why(run: RecordedRun) -> list[str]:
    """The answer against its rivals, and what separates it from the best there was."""
    result, best = run.result, run.result["best_trial"]
    if best is None:
        return ["No configuration was ever saved, so that the run has no answer. The decisions below show why."]
    sentences = [
        f"Trial {run.name(best)} is the answer: {run.configurations.get(best, 'its configuration is not recorded')}."
    ]
    rivals = [one for one in _finals(run) if one[0] != best]
    job = run.spec.job.tuning_job("minimize")
    told = f"It reached iteration {result['best_iteration']} of {job.max_iterations} with a score of {number(result['score'])}."
    direction = run.direction
    if rivals and direction is not None:
        trial, iteration, score = min(rivals, key=lambda one: (loss_of(one[2], direction), -one[1]))
        told += f" The best of the {len(rivals)} others that were scored is trial {run.name(trial)}:"
        told += f" {number(score)} after {iteration}."
    sentences.append(told)
    if result["regret"] is not None:
        parts = {
            "better configurations were not started": result["regret_sampling"],
            "another was chosen than the best of those started": result["regret_selection"],
            "the choice was not trained to the end": result["regret_truncation"],
        }
        split = "; ".join(f"{value:+.3g} as {what}" for what, value in parts.items())
        sentences.append(f"Its regret is {number(result['regret'])}, and 0 would be the best configuration: {split}.")
    return sentences


def _finals(run: RecordedRun) -> list[tuple[int, int, float | None]]:
    """(trial, iteration, score) of each trial that was scored, at its last iteration."""
    last: dict[int, tuple[int, int, float | None]] = {}
    for entry in run.entries:
        event = entry.event
        if isinstance(event, SegmentEnded | ProgressReported) and event.iteration > 0 and entry.status != "stale":
            last[event.trial] = (event.trial, event.iteration, event.score)
    return list(last.values())


def _trials_table(run: RecordedRun) -> PageTable:
    gpu_s: dict[int, float] = {}
    segments: dict[int, int] = {}
    for row in run.tables.segments:
        ended_s = row.ended.at_s if row.ended is not None else run.tables.finished_s
        spent_s = max(min(ended_s, run.tables.finished_s) - row.started_s, 0.0)
        gpu_s[row.trial] = gpu_s.get(row.trial, 0.0) + row.gpus * spent_s
        segments[row.trial] = segments.get(row.trial, 0) + 1
    finals = {trial: (iteration, score) for trial, iteration, score in _finals(run)}
    rows = []
    for trial, spent in gpu_s.items():
        iteration, score = finals.get(trial, (0, None))
        name = f"{run.name(trial)}{' (answer)' if trial == run.result['best_trial'] else ''}"
        rows.append((name, score, iteration, segments[trial], spent, run.configurations.get(trial, NONE)))
    sign = -1 if run.direction == "maximize" else 1
    rows.sort(key=lambda row: (row[1] is None, sign * (row[1] or 0.0), -row[2]))
    headings = [*texts("trial"), *numbers("score", "iterations", "segments", "GPU-seconds"), *texts("configuration")]
    note = "Scores are the last reported, after as many iterations."
    return PageTable("Trials, by their last score", headings, rows, note, shown=10)


def _timeline(run: RecordedRun) -> Chart:
    return timeline_chart(run.timeline, run.decisions[:_MOST_DECISIONS], run.configurations, run.name)


def _decisions_table(decisions: Sequence[ToldDecision]) -> PageTable:
    rows = [(one.at_s, one.kind, "; ".join(one.decided), one.happened, "; ".join(one.known)) for one in decisions]
    headings = [*numbers("at, s"), *texts("about", "decided", "because", "known then")]
    note = (
        "A journal holds what a policy was told and what it did. The reasons are what it was told then, and what was known of"
        " the trials it chose; decisions that only set timers are left out."
    )
    return PageTable("Decisions", headings, rows, note, shown=10)


def _money(ledger: Ledger) -> list[str]:
    total_usd, total_gpu_s = sum(ledger.usd.values()), sum(ledger.gpu_s.values())
    if not total_usd or not total_gpu_s:
        return ["No machine was billed."]
    idle = ("idle_at_barriers", "idle")
    useful = ledger.usd["training"] / total_usd
    idle_usd, idle_gpu_s = (sum(table[part] for part in idle) for table in (ledger.usd, ledger.gpu_s))
    wasted = max((part for part in ledger.usd if part != "training"), key=lambda part: ledger.usd[part])
    return [
        (
            f"{percent(useful)} of {usd(total_usd)} USD paid for training. The largest other part is"
            f" {wasted.replace('_', ' ')}: {usd(ledger.usd[wasted])} USD."
        ),
        (
            f"GPUs idled for {idle_gpu_s / SECONDS_PER_HOUR:.3g} of {total_gpu_s / SECONDS_PER_HOUR:.3g} GPU-hours, which cost"
            f" {usd(idle_usd)} USD: {usd(ledger.usd['idle_at_barriers'])} USD of it while others were still training."
        ),
    ]


def _ledger_chart(run: RecordedRun, ledger: Ledger) -> Chart:
    import pandas as pd

    table = pd.DataFrame({"part": list(ledger.usd), "usd": list(ledger.usd.values())}).assign(
        policy=run.result["policy"],
        gpu_hours=[ledger.gpu_s[part] / SECONDS_PER_HOUR for part in ledger.usd],
        budget_usd=run.spec.job.budget_usd,
    )
    return ledger_chart(table)


def _spent_chart(run: RecordedRun) -> Chart:
    """Money, GPUs and the best reported score over time, one below the other on one axis."""
    table = trajectory_table(Recording(run.tables, run.scores, run.direction or "minimize"))
    unit = time_unit(float(table["at_s"].max()))
    x = table["at_s"] / SECONDS[unit]
    color = next(iter(looks_of([run.result["policy"]]).values())).color
    rows = [
        ("spent_usd", "spent (USD)", "y", color),
        ("gpus_ready", "GPUs ready", "y2", "#BBBBBB"),
        ("gpus_held", "GPUs training", "y2", "#0072B2"),
        ("best_score", "best score", "y3", color),
    ]
    lines = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": x,
            "y": table[column],
            "yaxis": axis,
            "line": {"color": line, "width": 2, "shape": "hv"},
            "hovertemplate": f"%{{y:.4g}} after %{{x:.3g}} {unit}<extra>{name}</extra>",
        }
        for column, name, axis, line in rows
        if run.direction is not None or column != "best_score"
    ]
    layout = {
        "height": 620,
        "xaxis": {"title": {"text": f"time ({unit})"}, "anchor": "y3" if run.direction is not None else "y2"},
        "yaxis": {"title": {"text": "USD"}, "domain": [0.7, 1]},
        "yaxis2": {"title": {"text": "GPUs"}, "domain": [0.36, 0.64]},
        "yaxis3": {"title": {"text": "score"}, "domain": [0, 0.3]},
        "legend": {"orientation": "h", "y": -0.1, "x": 0},
    }
    deadline_s = run.spec.job.deadline_s
    shown = [deadline_s / SECONDS[unit]] if deadline_s is not None and deadline_s <= 2 * run.timeline.end_s else []
    return Chart(
        "Over time", lines, limited(layout, shown, "deadline", unit), note="Scores are those that were reported."
    )
