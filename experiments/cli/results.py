"""`elastune results`: what came out of sweeps."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, cast

import typer
from typer.core import TyperGroup

from elastune.experiments.cli.compare import runs_told
from elastune.experiments.cli.completion import complete_column, complete_drawable, complete_measure, complete_policies
from elastune.experiments.cli.options import OUTPUT, AsJson, out_option, print_json
from elastune.experiments.cli.sweep import value_told
from elastune.experiments.cli.table_views import require_asked, with_view
from elastune.experiments.cli.tables import NONE, Table, interval, key, numbers, say
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd


class _ShowByDefault(TyperGroup):
    """`elastune results DIR` is `elastune results show DIR`, and so is its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  typer's own types, which moved between versions
        """Put in the command that was left out."""
        if args and args[0] not in self.commands:
            args = ["show", *args]
        return super().parse_args(ctx, args)


results = typer.Typer(cls=_ShowByDefault, help="What came out of sweeps: `elastune results DIR`.", no_args_is_help=True)


_ERRORS_SHOWN = 5
_FEW_FAMILIES = 6
_TAUS_SHOWN = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_OVER_FAMILIES = "over families, their bundles and seeds"
_OVER_SEEDS = "over seeds: nothing is said of other workloads"


Over: TypeAlias = Literal["families", "seeds"]
"""What intervals speak of."""


@results.command()
@with_view
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
    ] = "families",
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the table there too.", rich_help_panel=OUTPUT)
    ] = None,
    figure: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Draw this figure of the catalogue instead; --group names its axes, --against its reference.",
            autocompletion=complete_drawable,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    policies: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Policies that are in the figure beside the reference and the best ones.",
            autocompletion=complete_policies,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    out: Annotated[Path | None, out_option("The figure: a .png, .pdf or .svg file.", "NAME.png")] = None,
    as_json: AsJson = False,
) -> None:
    """Means with 95 % intervals by group; or policies against one of them, or their profiles.

    `elastune results merge` puts folders together.
    """
    from elastune.experiments.files import check_outputs, write_text
    from elastune.experiments.sweeps.rows import STATUSES
    from elastune.experiments.sweeps.summary import json_records

    asked = _TableAsked.of(group, measure, against, over, is_profile=is_profile, is_iqm=is_iqm)
    if csv is not None:
        check_outputs(csv, reads=(path for path in folder.rglob("*") if path.suffix != ".csv"))
    if figure is None and (out is not None or policies is not None):
        raise InputError("-o and --policies are of a figure: give --figure NAME")
    if figure is not None and (csv is not None or is_profile or is_iqm):
        raise InputError("--csv, --profile and --iqm are of a table: leave out --figure")
    rows = _rows_where(folder, where)
    if figure is not None:
        _draw(folder, rows, asked, figure, out or Path(f"{figure}.png"), policies, as_json=as_json)
        return
    counts = {status: int((rows["status"] == status).sum()) for status in STATUSES}
    errors = rows.loc[rows["status"] != "done", ["status", "error"]].value_counts().reset_index().to_dict("records")
    name, table = _table(rows, asked)
    shown = {"groups": _groups_table, "paired": _paired_table, "profile": _profile_table}[name](table)
    require_asked(shown.columns)
    if csv is not None:
        write_text(csv, table.to_csv(index=False))
    if as_json:
        print_json({"folder": str(folder), "where": where, **counts, name: json_records(table), "errors": errors})
        return
    shown.print()
    _say_rests(table)
    _say_counts(counts, errors)


@dataclass(frozen=True)
class _TableAsked:
    """What a table or a figure is of.

    Attributes:
        group: columns; None where they are not given.
        measures: empty where none is given.
        against: the policy that others are compared with.
    """

    group: list[str] | None
    measures: list[str]
    against: str | None
    over: Over
    is_profile: bool
    is_iqm: bool

    @classmethod
    def of(
        cls, group: str | None, measure: str | None, against: str | None, over: Over, *, is_profile: bool, is_iqm: bool
    ) -> _TableAsked:
        """The options, read."""
        from elastune.experiments.spec.yaml_file import names_in

        if sum((against is not None, is_profile, is_iqm)) > 1:
            raise InputError("--against, --profile and --iqm are three different tables: give one of them")
        columns = None if group is None else names_in(group, "--group")
        return cls(columns, names_in(measure, "--measure"), against, over, is_profile, is_iqm)

    def one_measure(self, what: str) -> str | None:
        """The measure of what has only one; None where none is given."""
        if len(self.measures) > 1:
            raise InputError(f"{what} is of one measure, but --measure names {len(self.measures)}")
        return self.measures[0] if self.measures else None


def _rows_where(folder: Path, where: str | None) -> pd.DataFrame:
    """The rows of a folder that meet a condition, with a note where their version is not the one of now."""
    from elastune.experiments.results_version import RESULTS_VERSION
    from elastune.experiments.sweeps.store import Store
    from elastune.experiments.sweeps.summary import condition

    rows: pd.DataFrame = Store(folder).read(None if where is None else condition(where)).to_pandas()
    if not len(rows):
        raise InputError(f"{folder}: no row meets --where {where!r}")
    others = sorted(set(rows["results_version"]) - {str(RESULTS_VERSION)})
    if others:
        say(f"note: rows of another version of results: {', '.join(others)}; now is {RESULTS_VERSION}", err=True)
    return rows


def _draw(
    folder: Path, rows: pd.DataFrame, asked: _TableAsked, figure: str, out: Path, policies: str | None, *, as_json: bool
) -> None:
    """Write the figure, and say which policies are not in it."""
    from elastune.experiments.claims.folder_figures import draw_rows
    from elastune.experiments.figures.style import require_format, save
    from elastune.experiments.files import check_outputs
    from elastune.experiments.spec.yaml_file import names_in

    require_format(out)
    check_outputs(out)
    drawn, shown = draw_rows(
        folder,
        rows,
        figure,
        axes=asked.group or [],
        measure=asked.one_measure("a figure"),
        reference=asked.against,
        named=names_in(policies, "--policies"),
    )
    save(drawn, out)
    left_out = sorted(set(rows["policy"]) - set(shown))
    if as_json:
        print_json({"folder": str(folder), "figure": str(out), "policies": shown, "left_out": left_out})
        return
    say(f"written to {out}")
    if left_out:
        say(f"left out, so that the others can be told apart: {', '.join(left_out)}; --policies puts some in")


def _table(rows: pd.DataFrame, asked: _TableAsked) -> tuple[str, pd.DataFrame]:
    """Which table was asked for, and the table."""
    import pandas as pd

    from elastune.experiments.sweeps.paired import paired_table, profile_table
    from elastune.experiments.sweeps.summary import summarise

    group = asked.group or []
    if asked.against is not None:
        measures = asked.measures or ["regret"]
        found = [
            paired_table(rows, asked.against, measure=name, group=asked.group, over=asked.over) for name in measures
        ]
        return "paired", pd.concat(found, ignore_index=True)
    if asked.is_profile:
        measure = asked.one_measure("--profile") or "regret"
        return "profile", profile_table(rows, measure=measure, group=group, over=asked.over)
    return "groups", summarise(
        rows, group, asked.measures, over=asked.over, statistic="iqm" if asked.is_iqm else "mean"
    )


def _groups_table(summary: pd.DataFrame) -> Table:
    """One line per group: its columns, runs, and each measure with its interval."""
    names = list(summary.columns)
    group, measured = names[: names.index("runs")], names[names.index("over") + 1 :: 3]
    table = Table("Over the runs that are done, with 95 % intervals", [*key(*group), *numbers("runs", *measured)])
    for row in _rows(summary):
        intervals = [interval(*(row[f"{name}{end}"] for end in ("", "_low", "_high"))) for name in measured]
        table.add(*(value_told(row[name]) for name in group), runs_told(row), *intervals)
    return table


def _paired_table(paired: pd.DataFrame) -> Table:
    """One line per policy and group: how it differs from the one that all are compared with."""
    from elastune.experiments.sweeps.paired import PAIRED_COLUMNS, POOLED

    group = [name for name in paired.columns if name not in ("against", "measure", "scope", *PAIRED_COLUMNS)]
    group = [*group, *(["measure"] if len(paired["measure"].unique()) > 1 else [])]
    shown = ("difference", "P(better)", "ties", "pairs", "cells better, worse", "p (Holm)", "seeds for 80 %")
    title = f"{', '.join(paired['measure'].unique())}: differences to {paired['against'].iloc[0]}, with 95 % intervals"
    table = Table(title, [*key(*group), *numbers(*shown)])
    for row in _rows(paired):
        is_pooled = row["scope"] == POOLED
        unpaired = [
            f"{row[kind]} {words}"
            for kind, words in (("unfinished", "unfinished"), ("only", "alone"), ("only_against", "lacking"))
            if row[kind]
        ]
        table.add(
            *(POOLED if is_pooled and told == NONE else told for told in (value_told(row[name]) for name in group)),
            interval(row["mean"], row["low"], row["high"]),
            _share(row["better"]),
            _share(row["ties"]),
            ", ".join([str(row["pairs"]), *unpaired]),
            f"{row['cells_better']}, {row['cells_worse']} of {row['cells']}",
            value_told(float(f"{row['p_holm']:.2g}")),
            NONE if math.isnan(row["seeds_needed"]) else f"{row['seeds_needed']:.0f}",
            is_strong=is_pooled,
        )
    return table


def _profile_table(profile: pd.DataFrame) -> Table:
    """One line per group and policy: the share of runs at least as good as some of the taus."""
    names = list(profile.columns)
    group = names[: names.index("tau")]
    taus = sorted(profile["tau"].unique())
    shown = [tau for tau in taus if tau in _TAUS_SHOWN] or taus[:: -(-len(taus) // len(_TAUS_SHOWN))]
    title = "Share of runs at least as good as tau, with 95 % bands"
    table = Table(title, [*key(*group), *numbers(*(f"{tau:.3g}" for tau in shown))])
    for labels, part in profile.groupby(group, dropna=False, sort=False):
        points = {row["tau"]: f"{row['share']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" for row in _rows(part)}
        table.add(*map(value_told, labels), *(points[tau] for tau in shown))
    return table


def _say_counts(counts: Mapping[str, int], errors: Sequence[Mapping[Any, Any]]) -> None:
    """How many runs are done, and why others are not."""
    say(", ".join(f"{count} {status}" for status, count in counts.items()))
    for error in errors[:_ERRORS_SHOWN]:
        say(f"{error['status']}, {error['count']} times: {error['error']}")


def _say_rests(table: pd.DataFrame) -> None:
    """What the intervals are over, and a word where they rest on few families."""
    told: list[str] = []
    for over, words in (("families", _OVER_FAMILIES), ("seeds", _OVER_SEEDS)):
        part = table[(table["over"] == over) & (table["seeds"] > 0)]
        if len(part):
            told.append(f"{'intervals' if not told else 'others'} {words}")
    few = table.loc[table["over"] == "families", "families"]
    if len(few) and few.min() < _FEW_FAMILIES:
        told.append(
            f"{few.min()} families say little of others: --over seeds is about these, --group bundle_family shows each"
        )
    if told:
        say("; ".join(told))


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", table.astype(object).to_dict("records"))


def _share(value: float) -> str:
    return NONE if math.isnan(value) else f"{value:.2f}"


@results.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of sweeps.", show_default=False)],
    out: Annotated[Path, out_option("A new folder.")],
    as_json: AsJson = False,
) -> None:
    """Put the rows of several folders into a new one, each run once."""
    from elastune.experiments.sweeps.merge import merge as merge_folders

    merged = merge_folders(folders, out)
    if len(merged.versions) > 1:
        counts = ", ".join(f"{version} ({count} rows)" for version, count in merged.versions.items())
        journals = f"; {merged.journals_left_out} journals left out" if merged.journals_left_out else ""
        say(
            f"warning: rows of {len(merged.versions)} versions of results, which no table pools: {counts}{journals}",
            err=True,
        )
    if as_json:
        print_json({"folder": str(out), **asdict(merged)})
    else:
        say(f"{merged.rows} rows, {merged.doubles} doubles left out; written to {out}")
