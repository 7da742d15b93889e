"""`elastune results`: what came out of sweeps. Imports typer; the rest when needed."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from elastune.experiments.cli.options import AsJson, print_json
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def complete_column(incomplete: str) -> list[str]:
    """The columns of results whose names begin so, for the last of several with commas between."""
    from elastune.experiments.sweeps.rows import columns

    return _completed(incomplete, columns())


def complete_measure(incomplete: str) -> list[str]:
    """The same for measures."""
    from elastune.experiments.sweeps.rows import measures

    return _completed(incomplete, measures())


def _completed(incomplete: str, names: Any) -> list[str]:  # noqa: ANN401  any iterable of names
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]


class _ShowByDefault(TyperGroup):
    """`elastune results DIR` is `elastune results show DIR`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  typer's own types, which moved between versions
        """Put in the command that was left out."""
        if args and args[0] not in (*self.commands, "--help"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


results = typer.Typer(cls=_ShowByDefault, help="What came out of sweeps: `elastune results DIR`.", no_args_is_help=True)


class Over(StrEnum):
    """What intervals speak of."""

    FAMILIES = "families"
    SEEDS = "seeds"


@results.command()
def show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a sweep.", show_default=False)],
    where: Annotated[
        str | None, typer.Option(metavar="CONDITION", help="Such as \"policy == 'seer' and job.deadline_s > 1800\".")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...", help="Columns; the keys that vary where left out.", autocompletion=complete_column
        ),
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Such as regret,ledger_usd.idle.", autocompletion=complete_measure),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="POLICY", help="Paired differences of every other policy to this one (of regret)."),
    ] = None,
    is_profile: Annotated[
        bool, typer.Option("--profile", help="The share of runs at least as good as tau, by policy (of regret).")
    ] = False,
    is_iqm: Annotated[bool, typer.Option("--iqm", help="Interquartile means instead of means.")] = False,
    over: Annotated[
        Over, typer.Option(help="Intervals for workloads like these, or for these with other seeds.")
    ] = Over.FAMILIES,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table there too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Means with 95 % intervals by group; or policies against one of them, or their profiles."""
    from elastune.experiments.results_version import RESULTS_VERSION
    from elastune.experiments.statistics.summary import condition, json_records
    from elastune.experiments.sweeps.rows import STATUSES
    from elastune.experiments.sweeps.store import Store

    if sum((against is not None, is_profile, is_iqm)) > 1:
        raise InputError("--against, --profile and --iqm are three different tables: give one of them")
    rows = Store(folder).read(None if where is None else condition(where)).to_pandas()
    if not len(rows):
        raise InputError(f"{folder}: no row meets --where {where!r}")
    others = sorted(set(rows["results_version"]) - {str(RESULTS_VERSION)})
    if others:
        typer.echo(f"note: rows of another version of results: {', '.join(others)}; now is {RESULTS_VERSION}", err=True)
    counts = {status: int((rows["status"] == status).sum()) for status in STATUSES}
    errors = rows.loc[rows["status"] != "done", ["status", "error"]].value_counts().reset_index().to_dict("records")
    name, table = _table(rows, group, measure, against, over, is_profile=is_profile, is_iqm=is_iqm)
    if csv is not None:
        csv.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(csv, index=False)
    if as_json:
        print_json({"folder": str(folder), "where": where, **counts, name: json_records(table), "errors": errors})
        return
    from elastune.experiments.cli import results_tables as tables

    {"groups": tables.print_results, "paired": tables.print_paired, "profile": tables.print_profile}[name](table)
    tables.print_counts(counts, errors)


def _table(
    rows: pd.DataFrame,
    group: str | None,
    measure: str | None,
    against: str | None,
    over: Over,
    *,
    is_profile: bool,
    is_iqm: bool,
) -> tuple[str, pd.DataFrame]:
    """Which table was asked for, and the table."""
    import pandas as pd

    from elastune.experiments.statistics.paired import paired_table, profile_table
    from elastune.experiments.statistics.summary import summarise

    columns, names = _names(group), _names(measure)
    if against is not None:
        by = None if group is None else columns
        found = [paired_table(rows, against, measure=name, group=by, over=over.value) for name in names or ["regret"]]
        return "paired", pd.concat(found, ignore_index=True)
    if is_profile:
        if len(names) > 1:
            raise InputError(f"--profile is of one measure, but --measure names {len(names)}")
        return "profile", profile_table(rows, measure=(names or ["regret"])[0], group=columns, over=over.value)
    return "groups", summarise(rows, columns, names, over=over.value, statistic="iqm" if is_iqm else "mean")


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


@results.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of sweeps.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="A new folder.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Put the rows of several folders into a new one, each run once."""
    from elastune.experiments.sweeps.store import merge as merge_folders

    merged = merge_folders(folders, out)
    if len(merged.versions) > 1:
        counts = ", ".join(f"{version} ({count} rows)" for version, count in merged.versions.items())
        journals = f"; {merged.journals_left_out} journals left out" if merged.journals_left_out else ""
        typer.echo(
            f"warning: rows of {len(merged.versions)} versions of results, which no table pools: {counts}{journals}",
            err=True,
        )
    if as_json:
        print_json({"folder": str(out), **asdict(merged)})
    else:
        typer.echo(f"{merged.rows} rows, {merged.doubles} doubles left out; written to {out}")
