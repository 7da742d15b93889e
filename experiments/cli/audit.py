"""`elastune audit`: what a past search cost, and what policies would have cost and reached. Imports typer."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from elastune.experiments.cli.completion import complete_machine
from elastune.experiments.cli.import_options import (  # noqa: TC001  typer reads the annotations
    Direction,
    ElapsedColumn,
    IterationColumn,
    ScoreColumn,
    SecondsColumn,
    TrialColumn,
)
from elastune.experiments.cli.numbers import count_option
from elastune.experiments.cli.options import AsJson, Jobs, SomePolicies, cores, print_json, print_notes, progress
from elastune.experiments.cli.table_views import require_asked, with_view
from elastune.experiments.cli.tables import (
    NONE,
    PAIRS,
    Table,
    duration,
    interval,
    key,
    number,
    numbers,
    percent,
    print_pairs,
    say,
    seconds,
    usd,
)
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from elastune.experiments.comparisons.audit import Audit, PastSearch
    from elastune.experiments.comparisons.comparison import Comparison
    from elastune.traces import Bundle
    from elastune.traces.importers import CurveRules, TableColumns

_TABLES = (".csv", ".parquet", ".gz")
_STUDIES = (".db", ".sqlite", ".sqlite3", ".log", ".journal")
_POLICIES = [
    *key("policy"),
    *numbers("T met", "B met", "runs", "score", "cost, USD", "of the past", "makespan, s"),
]


@with_view
def audit(  # noqa: PLR0913, PLR0917  the options of a command
    log: Annotated[
        str,
        typer.Argument(
            help="A table (CSV or parquet), an Optuna study (file or URL), a folder of runs of TensorBoard (a results folder of"
            " Ray Tune too), MLflow or W&B (offline), a server of MLflow (http...), or a bundle.",
            show_default=False,
        ),
    ],
    machine: Annotated[str, typer.Option(help="It ran on, by its provider's name.", autocompletion=complete_machine)],
    direction: Annotated[
        Direction | None, typer.Option(help="Whether scores are minimised or maximised.", show_default="the log's")
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option(help="Of a folder of runs: the scalar or metric that is the score.", show_default=False),
    ] = None,
    at_once: Annotated[
        int | None, count_option(help="Trials that trained at a time.", show_default="the machine's GPUs")
    ] = None,
    cut_short: Annotated[
        Literal["drop", "diverged"],
        typer.Option(help="Trials that were cut short: drop them, or take them as diverged."),
    ] = "drop",
    iteration_zero: Annotated[
        Literal["error", "first", "drop"],
        typer.Option(help="An iteration 0: refuse it, take it for the first, or drop it as recorded before training."),
    ] = "error",
    trial_column: TrialColumn = "trial",
    iteration_column: IterationColumn = "iteration",
    score_column: ScoreColumn = "score",
    seconds_column: SecondsColumn = None,
    elapsed_column: ElapsedColumn = None,
    scaling: Annotated[
        str | None, typer.Option(help="Of a trial over GPUs, as in a spec.", show_default="one GPU per trial")
    ] = None,
    policies: SomePolicies = None,
    seeds: Annotated[int, count_option(help="Orders in which the trials are tried.")] = 20,
    jobs: Jobs = None,
    as_json: AsJson = False,
) -> None:
    """Say what a past search cost, and what each policy would have cost and reached on its trials, for the same money."""
    from elastune.experiments.comparisons.audit import audit as audit_search
    from elastune.traces import load_bundle
    from elastune.traces.importers import CurveRules, TableColumns

    require_asked(PAIRS, _POLICIES)
    rules = CurveRules(incomplete=cut_short, iteration_zero=iteration_zero)
    columns = TableColumns(
        trial=trial_column,
        iteration=iteration_column,
        score=score_column,
        seconds=seconds_column,
        elapsed=elapsed_column,
    )
    with tempfile.TemporaryDirectory(prefix="elastune-audit-") as folder:
        place = _bundle_of(log, Path(folder) / "search", direction, tag, rules, columns)
        bundle = load_bundle(place)
        with progress("Running") as tell:
            audited = audit_search(
                bundle,
                str(place),
                machine,
                at_once=at_once,
                scaling=scaling,
                policies=() if policies is None else policies,
                seeds=seeds,
                jobs=cores(jobs),
                on_progress=tell,
            )
        notes = print_notes(audited.spec.notes(of_draws=False))  # every order is of the same trials, by design
        if as_json:
            print_json({**audited.to_json(), **notes, "log": log})
        else:
            _print(audited, log, bundle)


def _bundle_of(
    log: str, out: Path, direction: Direction | None, tag: str | None, rules: CurveRules, columns: TableColumns
) -> Path:
    """The bundle itself, or the one that an importer makes of the log."""
    from elastune.experiments.spec.places import known_bundles, place_of_bundle
    from elastune.traces import importers

    path = Path(log)
    if (path / "bundle.yaml").is_file() or log in known_bundles():
        return place_of_bundle(log)
    described = importers.Description(name="search", source=log, licence="not stated", direction=direction)
    is_server = log.startswith(("http://", "https://"))
    is_study = ("://" in log and not is_server) or path.suffix in _STUDIES
    if not is_study and direction is None:
        raise InputError(f"{log} does not tell whether scores are minimised or maximised: give --direction")
    if is_study:
        importers.from_optuna(log, out, described, rules=rules)
    elif path.is_dir() or is_server:
        if tag is None:
            raise InputError(f"{log} holds runs: name the scalar that is the score by --tag, or give a bundle")
        if is_server or any(path.glob("*/meta.yaml")):
            importers.from_mlflow(log, out, described, metric=tag, rules=rules)
        elif any(path.rglob("run-*.wandb")):
            importers.from_wandb(path, out, described, metric=tag, rules=rules)
        else:
            importers.from_tensorboard(path, out, described, choice=importers.EventChoice(tag=tag), rules=rules)
    elif path.suffix in _TABLES:
        importers.from_table(path, out, described, columns=columns, rules=rules)
    else:
        raise InputError(
            f"{log} is no table ({', '.join(_TABLES)}), study ({', '.join(_STUDIES)}, or a URL) or folder; make a bundle of it"
            " with elastune bundles import, and audit that"
        )
    return out


def _print(audited: Audit, log: str, bundle: Bundle) -> None:
    past = audited.past
    rows = {
        "trials": f"{past.trials}, of which {past.complete} complete ({bundle.max_iterations} iterations)",
        "training": f"{seconds(past.gpu_s)} GPU-seconds ({duration(past.gpu_s)})",
        "time": f"at least {duration(past.makespan_s)} with {past.at_once} at once",
        "cost": f"at least {usd(past.usd)} USD on {audited.spec.cloud.instance_type.name}",
        "best score": f"{number(past.best_score)} ({bundle.score}, to {bundle.direction})",
    }
    print_pairs(f"What {log} cost", rows)
    if audited.comparison is None:
        say(
            f"What policies would have done is not known: in the search's own time and money, {audited.no_plan}. Each one's"
            " reason: --json"
        )
    else:
        _policies_table(audited.comparison, past, bundle).print()
    say("Assumed, as the log does not tell:")
    for sentence in audited.assumed:
        say(f"- {sentence}.")


def _policies_table(comparison: Comparison, past: PastSearch, bundle: Bundle) -> Table:
    """One line per policy: what it did."""
    title = "What policies do with the same trials, time and money; means over orders, with 95 % intervals, best score first"
    table = Table(title, _POLICIES)
    by = comparison.summary.sort_values(
        "score", ascending=bundle.direction == "minimize", kind="stable", na_position="last"
    )
    for row in by.to_dict("records"):
        table.add(
            row["policy"],
            percent(row["deadline_met"]),
            percent(row["budget_met"]),
            row["runs"] or NONE,
            interval(row["score"], row["score_low"], row["score_high"]),
            usd(row["cost_usd"]),
            percent(row["cost_usd"] / past.usd if past.usd else None),
            seconds(row["makespan_s"]),
        )
    return table
