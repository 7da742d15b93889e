"""What `elastune figures` prints for people. Imports rich; everything arrives as plain records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from elastune.experiments.cli.options import console

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def print_list(
    listed: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]], left_out: Sequence[Mapping[str, str]]
) -> None:
    """Figures with their claims, and how much of what they take is there."""
    table = Table(title="Figures", title_justify="left")
    for name in ("figure", "claim", "drawn from"):
        table.add_column(name, no_wrap=True)
    table.add_column("what it shows")
    for row in listed:
        table.add_row(row["name"], row["claim"], row["experiment"], row["caption"])
    console().print(table)
    total = Table(title="Runs and plans", title_justify="left", show_footer=True)
    total.add_column("part", footer="sum")
    for name in ("total", "missing"):
        total.add_column(name, justify="right", footer=f"{sum(row[name] for row in runs):,}")
    for row in runs:
        total.add_row(row["part"], f"{row['total']:,}", f"{row['missing']:,}")
    console().print(total)
    _print_left_out(left_out)


def print_written(
    written: Sequence[Mapping[str, Any]],
    left_out: Sequence[Mapping[str, str]],
    failed: Sequence[Mapping[str, Any]],
    folder: str,
) -> None:
    """What was drawn, what was left out and why, and which runs failed."""
    table = Table(title=f"Written to {folder}", title_justify="left")
    for name in ("name", "claim"):
        table.add_column(name, no_wrap=True)
    table.add_column("rows", justify="right")
    table.add_column("drawn")
    for row in written:
        reason = row["left_out"]
        kinds = " ".join(path.rpartition(".")[2] for path in row["files"])
        table.add_row(row["name"], row["claim"], f"{row['rows']:,}", kinds if reason is None else f"left out: {reason}")
    console().print(table)
    _print_left_out(left_out)
    for row in failed:
        text = f"failed, {row['failed']} runs of {row['part']}: {row['error']}; `--retry-failed` runs them again"
        console().print(text, markup=False, highlight=False)


def _print_left_out(left_out: Sequence[Mapping[str, str]]) -> None:
    for row in left_out:
        console().print(f"left out: {row['part']}: {row['reason']}", markup=False, highlight=False)
