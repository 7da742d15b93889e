"""`elastune compare`, `elastune ablate`: policies, or the mechanisms of one, on the same seeds."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from elastune.experiments.cli import INTERRUPTED, options
from elastune.experiments.cli.completion import complete_policies
from elastune.experiments.cli.table_views import require_asked, with_view
from elastune.experiments.cli.tables import NONE, Table, interval, key, number, numbers, percent, say, seconds
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from elastune.experiments.comparisons.ablation import Ablation
    from elastune.experiments.comparisons.comparison import Comparison
    from elastune.experiments.spec.run import RunSpec

_PARQUET, _CSV = ("results", "trajectories"), ("results", "summary", "paired", "ledger")
_FILES = (
    "spec.yaml",
    "kind.txt",
    *(f"{name}.parquet" for name in _PARQUET),
    *(f"{name}.csv" for name in _CSV),
    "comparison.png",
    "ledger.png",
    "trade_off.png",
)
_MEASURES_SHOWN = ("regret", "cost_usd")

_SUMMARY = [
    *key("policy"),
    *numbers("completed", "T met", "B met"),
    *numbers("runs", "score", "regret", "cost, USD", "makespan, s", "trials", "GPU use"),
]
_MEASURED = numbers("FLOPs", "bound kept")
_PAIRED = [*key("policy", "measure"), *numbers("difference", "better", "equal", "pairs", "cut")]
_ABLATION = [
    *key("switch"),
    *numbers("beyond T", "beyond B", "no answer", "runs", "changed", "regret", "better"),
]


@with_view
def compare(
    spec_file: options.SpecFile,
    settings: options.Settings = None,
    policies: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="As for run; every tuner where left out (the oracle only if named).",
            autocompletion=complete_policies,
        ),
    ] = None,
    seeds: options.Seeds = 20,
    jobs: options.Jobs = None,
    as_json: options.AsJson = False,
    out: Annotated[Path | None, options.out_option("Folder for tables and figures.")] = None,
) -> None:
    """Run several policies on the same seeds and compare them; differences are to the first."""
    from elastune.experiments.comparisons.comparison import compare as compare_policies
    from elastune.experiments.comparisons.comparison import compared
    from elastune.experiments.files import check_outputs

    spec, named = options.load_spec(spec_file, settings), () if policies is None else policies
    require_asked(_SUMMARY, _MEASURED if "flops" in spec.bundle().measures else [], _PAIRED)
    if out is not None:
        check_outputs(*(out / name for name in _FILES))
        _require_none_lost(out, spec, [one.policy.label for one in compared(spec, named)], seeds)
    with options.progress("Running") as on_progress:
        comparison, interrupted = options.what_is_finished(
            lambda: compare_policies(spec, named, seeds, jobs=options.cores(jobs), on_progress=on_progress)
        )
    notes = options.print_notes(spec.notes())
    if out is not None:
        _write(out, spec, comparison)
    if as_json:
        options.print_json(comparison.to_json() | notes)
    else:
        _print(comparison, out)
    if interrupted is not None:
        raise options.CommandError(interrupted, INTERRUPTED)
    if comparison.failed:
        raise typer.Exit(options.FAILED)


def _require_none_lost(folder: Path, spec: RunSpec, policies: Sequence[str], seeds: int) -> None:
    """Check that the folder is free, or that all runs of its comparison are among the new ones, which replace them.

    Raises:
        InputError: it is not.
    """
    import pandas as pd

    from elastune.experiments.runs.run_folder import require_no_other

    require_no_other(folder, "comparison", spec)
    if not (folder / "results.csv").is_file():
        return
    try:
        there = pd.read_csv(folder / "results.csv", usecols=["policy", "seed"], dtype={"seed": "int64"})
    except ValueError as error:
        raise InputError(
            f"{folder / 'results.csv'}: is no table of a comparison: {error}; choose another folder (-o)"
        ) from error
    is_kept = there["policy"].isin(policies) & there["seed"].between(spec.seed, spec.seed + seeds - 1)
    if not is_kept.all():
        lost = there[~is_kept].iloc[0]
        raise InputError(
            f"{folder} holds runs that this comparison would lose, such as {lost['policy']} on seed {lost['seed']}: compare at"
            " least the same policies and seeds, choose another folder (-o), or remove this one"
        )


def _write(folder: Path, spec: RunSpec, comparison: Comparison) -> None:
    from elastune.experiments.files import write_text, write_whole
    from elastune.experiments.runs.run_folder import claim_folder

    claim_folder(folder, "comparison")
    spec.save(folder / "spec.yaml")
    for name in _PARQUET:
        table = getattr(comparison, name)
        write_whole(folder / f"{name}.parquet", functools.partial(table.to_parquet, index=False))
    for name in _CSV:
        write_text(folder / f"{name}.csv", getattr(comparison, name).to_csv(index=False))
    done = comparison.results[comparison.results["status"] == "done"]
    if len(done):
        _draw(folder, spec, comparison, done)


def _draw(folder: Path, spec: RunSpec, comparison: Comparison, done: pd.DataFrame) -> None:
    from elastune.experiments import figures
    from elastune.experiments.figures.tables import few_policies

    shown = few_policies(done, str(comparison.results["policy"].iloc[0]))
    left_out = set(done["policy"]) - set(shown)
    done, trajectories, ledger = (
        table[table["policy"].isin(shown)] for table in (done, comparison.trajectories, comparison.ledger)
    )
    figures.save(figures.comparison(done, trajectories), folder / "comparison.png")
    figures.save(figures.ledger(ledger), folder / "ledger.png")
    if done["flops"].notna().any():
        from elastune.experiments.plans.bundle_summary import finals_table

        bundle = spec.bundle()
        figure = figures.trade_off(
            finals_table(bundle),
            done[["policy", "score", "flops"]],
            minimized=bundle.direction == "minimize",
            bound=spec.job.bounds.get("flops"),
            score_label=bundle.score,
        )
        figures.save(figure, folder / "trade_off.png")
    if left_out:
        others = f"the {len(shown) - 1} best of {len(shown) - 1 + len(left_out)} others"
        say(f"the pictures show {shown[0]} and {others} by regret", err=True)


def _print(comparison: Comparison, folder: Path | None) -> None:
    """The summary of all policies, and the differences to the first."""
    from elastune.experiments.sweeps.rows import LEFT_OUT, SEARCH_GAP

    _summary_table(comparison.summary).print()
    say_who_keeps_limits(comparison.summary)
    if len(comparison.paired):
        _paired_table(comparison.paired).print()
    for row in comparison.summary.to_dict("records"):
        if row["error"]:
            say(named_error(row["policy"], row["error"]))
        of_policy = comparison.results[comparison.results["policy"] == row["policy"]]
        if left_out := "; ".join(of_policy[LEFT_OUT].dropna().unique()):
            cheaper = f"; in the mean there may be one that is up to {percent(row[SEARCH_GAP])} cheaper"
            said = f"{row['policy']}: not all plans were searched: {left_out}"
            say(said + cheaper if row[SEARCH_GAP] > 0 else said)
    if folder is not None:
        say(f"written to {folder}")


def say_who_keeps_limits(summary: pd.DataFrame) -> None:
    """Where the least regret is that of a policy that misses T or B, say who has the least of those that never do."""
    shares = summary[["deadline_met", "budget_met"]]
    least = shares.min(axis=1)
    if not len(least) or not least.iloc[0] < 1:
        return
    first, kept = summary.iloc[0], summary.loc[least == 1, "policy"].tolist()
    missed = f"{first['policy']} met T in {percent(first['deadline_met'])} and B in {percent(first['budget_met'])} of its runs"
    say(
        f"{missed}; {f'{kept[0]} has the least regret of those that met' if kept else 'no policy met'} both in all runs.\n"
    )


def named_error(policy: str, error: str) -> str:
    """What went wrong with a policy; many errors begin with its name, which is not said twice."""
    name = policy.partition(":")[0]
    return f"{policy}: {error.removeprefix(f'{policy}: ').removeprefix(f'{name}: ')}"


def _summary_table(summary: pd.DataFrame) -> Table:
    is_measured = bool(summary["flops"].notna().any())
    title = "Means over the seeds, with 95 % intervals, least regret first"
    table = Table(title, [*_SUMMARY, *(_MEASURED if is_measured else [])])
    for row in _rows(summary.sort_values("regret", kind="stable", na_position="last")):
        table.add(
            row["policy"],
            percent(row["completed"]),
            percent(row["deadline_met"]),
            percent(row["budget_met"]),
            runs_told(row),
            _with_interval(row, "score", 4),
            _with_interval(row, "regret", 3),
            _with_interval(row, "cost_usd", 3),
            seconds(row["makespan_s"]),
            number(row["trials_started"], 3),
            percent(row["gpu_utilisation"]),
            *((number(row["flops"], 3), percent(row["constraint_met"])) if is_measured else ()),
        )
    return table


def runs_told(row: Mapping[str, Any]) -> str:
    """How many runs are done, and how many are not."""
    return ", ".join([str(row["runs"]), *(f"{row[kind]} {kind}" for kind in ("infeasible", "failed") if row[kind])])


def _with_interval(row: Mapping[str, Any], name: str, digits: int) -> str:
    return interval(row[name], row[f"{name}_low"], row[f"{name}_high"], digits)


def _paired_table(paired: pd.DataFrame) -> Table:
    title = f"Differences to {paired['against'].iloc[0]} on the same seeds"
    table = Table(title, _PAIRED)
    for row in _rows(paired[paired["measure"].isin(_MEASURES_SHOWN)]):
        difference = interval(row["mean"], row["low"], row["high"]) if row["pairs"] else NONE
        shares = percent(row["better"]), percent(row["ties"])
        table.add(row["policy"], row["measure"], difference, *shares, row["pairs"], row["unfinished"])
    return table


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", table.to_dict("records"))


@with_view
def ablate(
    spec_file: options.SpecFile,
    settings: options.Settings = None,
    policy: options.Policy = None,
    switches: Annotated[
        list[str] | None,
        typer.Option("--switch", metavar="PARAM=VALUE", help="A parameter to change; all known switches if left out."),
    ] = None,
    seeds: options.Seeds = 100,
    is_rough: Annotated[
        bool,
        typer.Option("--rough", help="Each seed in a world of its own, with wrong beliefs, stragglers and faults."),
    ] = False,
    jobs: options.Jobs = None,
    as_json: options.AsJson = False,
) -> None:
    """Run a policy as it is and with one mechanism switched at a time, on the same seeds."""
    from elastune.experiments.comparisons.ablation import ablate as ablate_policy

    require_asked(_ABLATION)
    spec = options.load_spec(spec_file, [*(settings or []), *([f"policy={policy}"] if policy is not None else [])])
    with options.progress("Running") as on_progress:
        ablation, interrupted = options.what_is_finished(
            lambda: ablate_policy(
                spec, switches or (), seeds, is_rough=is_rough, jobs=options.cores(jobs), on_progress=on_progress
            )
        )
    notes = options.print_notes(spec.notes())
    if as_json:
        options.print_json(ablation.to_json() | notes)
    else:
        _ablation_table(ablation).print()
    if interrupted is not None:
        raise options.CommandError(interrupted, INTERRUPTED)


def _ablation_table(ablation: Ablation) -> Table:
    """The policy as it is, and with one mechanism switched at a time."""
    title = f"{ablation.policy}, one mechanism switched at a time"
    table = Table(title, _ABLATION)
    for row in _rows(ablation.table):
        is_base = row["switch"] == "-"
        sign = "" if is_base else "+"
        regret, low, high = (f"{row[name]:{sign}.4f}" for name in ("regret", "regret_low", "regret_high"))
        table.add(
            "as it is" if is_base else row["switch"],
            *(percent(row[name]) for name in ("deadline_missed", "budget_missed", "unanswered")),
            runs_told(row),
            "" if is_base else percent(row["changed"]),
            f"{regret} [{low}, {high}]",
            percent(row["better"]),
        )
    return table
