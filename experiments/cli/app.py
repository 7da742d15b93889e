"""The command line: `elastune`. Imports typer; everything else inside the commands, so that `--help` is instant.

Tables and JSON go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 a run failed, 2 the input
is wrong (nothing was started or written), 130 interrupted.
"""

from __future__ import annotations

import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from elastune.experiments.cli import (
    bundles,
    claims,
    compare,
    figures,
    plan,
    policies,
    prices,
    profile,
    results,
    run,
    scaling,
    sweep,
)
from elastune.experiments.cli.options import FAILED, INTERRUPTED, WRONG_INPUT, failure
from elastune.experiments.cli.tables import say
from elastune.sim.bridge.machines.isolation import isolate_children
from elastune.sim.model.errors import InputError, TuningError


class Commands(TyperGroup):
    """Turns the project's errors into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  typer's own types, which moved between its versions
        """Run the command that was asked for."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                return super().invoke(ctx)
        except InputError as error:
            raise failure(str(error), WRONG_INPUT) from error
        except TuningError as error:
            raise failure(str(error), FAILED) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            told = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            raise failure(told, WRONG_INPUT) from error
        except KeyboardInterrupt as error:
            raise failure("interrupted", INTERRUPTED) from error


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(f"warning: {message}", err=True)


app = typer.Typer(
    cls=Commands,
    help="Tune hyperparameters under a deadline and a budget, on clouds with prices: simulate the policies, compare them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_RUNS, _PLANS, _DATA = "Run and compare", "Plan", "Data"
app.command("run", rich_help_panel=_RUNS)(run.run)
app.command("compare", rich_help_panel=_RUNS)(compare.compare)
app.command("ablate", rich_help_panel=_RUNS)(compare.ablate)
app.command("sweep", rich_help_panel=_RUNS)(sweep.sweep)
app.add_typer(results.results, name="results", rich_help_panel=_RUNS)
app.command("claims", rich_help_panel=_RUNS)(claims.claims)
app.command("figures", rich_help_panel=_RUNS)(figures.figures)
app.command("ledger", rich_help_panel=_RUNS)(run.ledger)
app.command("replay", rich_help_panel=_RUNS)(run.replay)
app.command("doctor", rich_help_panel=_RUNS)(run.doctor)
app.command("plan", rich_help_panel=_PLANS)(plan.plan)
app.add_typer(policies.app, name="policies", rich_help_panel=_PLANS)
app.command("check-policy", rich_help_panel=_PLANS)(policies.check_policy)
app.add_typer(bundles.app, name="bundles", rich_help_panel=_DATA)
app.add_typer(scaling.app, name="scaling", rich_help_panel=_DATA)
app.add_typer(prices.app, name="prices", rich_help_panel=_DATA)
app.command("profile", rich_help_panel=_DATA)(profile.profile)


def main() -> None:
    """Entry point of the `elastune` command."""
    isolate_children()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a name may hold what a terminal cannot show
    try:
        app(prog_name="elastune")
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"elastune {version('elastune')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
