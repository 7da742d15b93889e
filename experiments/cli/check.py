"""`elastune check-policy`: which promises a policy keeps. Imports typer; the rest when needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from elastune.experiments.cli.options import AsJson, print_json

if TYPE_CHECKING:
    from elastune.experiments.contracts.user_policy import Report


def check_policy(
    target: Annotated[
        str, typer.Argument(help="module:Class, file.py:Class, or a name of the registry.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Play a policy in small worlds that fail, lose machines and cost money; name each promise it breaks, and how.

    Exit code 1 where a promise is broken.
    """
    from elastune.experiments.contracts.user_policy import check_target

    report = check_target(target)
    if as_json:
        print_json(report.to_json())
    else:
        _print_report(report)
    if report.broken:
        raise typer.Exit(1)


def _print_report(report: Report) -> None:
    for finding in report.broken:
        typer.echo(f"BROKEN {finding.promise}: {finding.problem}")
    for world in report.infeasible:
        typer.echo(f"infeasible, as it may be: {world}")
    kept = sum(finding.status == "kept" for finding in report.findings)
    typer.echo(f"{report.target}: {kept} promises kept, {len(report.broken)} broken, in {report.worlds} worlds")
