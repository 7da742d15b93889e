"""`elastune doctor`: can real runs work here? Imports typer; the rest when needed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from elastune.experiments.cli.options import (
    FAILED,
    AsJson,
    Device,
    checkpoints_option,
    device_option,
    print_json,
    ray_option,
)

if TYPE_CHECKING:
    from elastune.experiments.real.doctor import Check

_COLOURS = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "failed": typer.colors.RED}


def doctor(
    device: Annotated[Device | None, device_option()] = None,
    ray: Annotated[str | None, ray_option()] = None,
    checkpoints: Annotated[str | None, checkpoints_option("results/runs")] = None,
    as_json: AsJson = False,
) -> None:
    """Check what real runs need, and say what to do where it is missing. Exit code 1: they will fail."""
    from elastune.experiments.real.doctor import Patient, examine

    checks: list[Check] = []
    for check in examine(Patient((device or Device.CPU).value, ray, checkpoints)):
        checks.append(check)
        if not as_json:
            _say(check)
    has_failed = any(check.status == "failed" for check in checks)
    if as_json:
        print_json({"is_ready": not has_failed, "checks": [asdict(check) for check in checks]})
    if has_failed:
        raise typer.Exit(FAILED)


def _say(check: Check) -> None:
    status = typer.style(f"{check.status:8}", fg=_COLOURS[check.status])
    typer.echo(f"{status} {check.name:14} {check.found}" + (f": {check.advice}" if check.advice else ""))
