"""The command line: `elastune`. Imports typer; everything else inside the commands, so that `--help` is instant.

Tables and JSON go to standard output, progress and errors to standard error. An error is one line; with `--json` it is a JSON
object. Exit codes: 0 done, 1 a run failed, 2 the input is wrong (nothing was started or written), 130 interrupted.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from elastune.experiments.cli import (
    INTERRUPTED,
    audit,
    bundles,
    claims,
    compare,
    fidelity,
    figures,
    init,
    plan,
    policies,
    prices,
    profile,
    recommend,
    report,
    results,
    run,
    scaling,
    sweep,
)
from elastune.experiments.cli.options import FAILED, WRONG_INPUT, CommandError
from elastune.experiments.cli.table_views import with_view
from elastune.experiments.cli.tables import say
from elastune.sim.bridge.machines.isolation import isolate_children
from elastune.sim.model.errors import InputError, TuningError

_USAGE_ERROR: Any = typer.BadParameter.__base__  # typer's own type, whose home differs between its versions


class Commands(TyperGroup):
    """Turns errors into one line, or JSON if that was asked for, and an exit code."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  typer's own types, which moved between its versions
        """Run the command that was asked for."""
        is_json = "--json" in ctx.args
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (CommandError, TuningError, OSError, KeyboardInterrupt) as error:
            raise _ended(*_message_and_code(error), is_json=is_json) from error
        except _USAGE_ERROR as error:
            raise _ended_by_usage(error, is_json=is_json) from error
        except Exception as error:
            from elastune.experiments.own_code import raised_in_own_code

            if not (place := raised_in_own_code(error)):  # a mistake of ours, with its traceback
                raise
            raise _ended(f"{type(error).__name__}: {error}{place}", FAILED, is_json=is_json) from error

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  as above
        """Read the options before the command, where errors are as those of commands."""
        try:
            rest: list[str] = super().parse_args(ctx, args)
        except _USAGE_ERROR as error:
            raise _ended_by_usage(error, is_json="--json" in args) from error
        return rest


def _ended_by_usage(error: Any, *, is_json: bool) -> Exception:  # noqa: ANN401  typer's own type
    """What ends a command that was called in a wrong way; where nothing but help was asked for, the error that prints it."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return cast("Exception", error)
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    asked = f" ({error.ctx.command_path} --help)" if error.ctx is not None else ""
    return _ended(" ".join(f"{message}{asked}".split()), WRONG_INPUT, is_json=is_json)


def _message_and_code(error: BaseException) -> tuple[str, int]:
    match error:
        case CommandError():
            return str(error), error.code
        case InputError():
            return str(error), WRONG_INPUT
        case OSError(filename=str() as filename):
            return f"{filename}: {error.strerror}", WRONG_INPUT
        case OSError():
            return str(error), WRONG_INPUT
        case KeyboardInterrupt():
            return "interrupted", INTERRUPTED
    return str(error), FAILED


def _ended(message: str, code: int, *, is_json: bool) -> typer.Exit:
    """Say what is wrong on standard error; returns what ends the command with this code."""
    if is_json:
        typer.echo(json.dumps({"error": message, "exit_code": code}), err=True)
    else:
        say(f"error: {message}", err=True)
    return typer.Exit(code)


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
app.command("compare", rich_help_panel=_RUNS)(with_view(compare.compare))
app.command("ablate", rich_help_panel=_RUNS)(with_view(compare.ablate))
app.command("sweep", rich_help_panel=_RUNS)(sweep.sweep)
app.add_typer(results.results, name="results", rich_help_panel=_RUNS)
app.command("claims", rich_help_panel=_RUNS)(claims.claims)
app.command("figures", rich_help_panel=_RUNS)(figures.figures)
app.command("report", rich_help_panel=_RUNS)(report.report)
app.command("ledger", rich_help_panel=_RUNS)(run.ledger)
app.command("replay", rich_help_panel=_RUNS)(run.replay)
app.command("fidelity", rich_help_panel=_RUNS)(fidelity.fidelity)
app.command("checkpoint", rich_help_panel=_RUNS)(run.checkpoint)
app.command("doctor", rich_help_panel=_RUNS)(run.doctor)
app.command("audit", rich_help_panel=_PLANS)(with_view(audit.audit))
app.command("init", rich_help_panel=_PLANS)(init.init)
app.command("recommend", rich_help_panel=_PLANS)(with_view(recommend.recommend))
app.command("plan", rich_help_panel=_PLANS)(with_view(plan.plan))
app.add_typer(policies.app, name="policies", rich_help_panel=_PLANS)
app.command("check-policy", rich_help_panel=_PLANS)(policies.check_policy)
app.add_typer(bundles.app, name="bundles", rich_help_panel=_DATA)
app.command("calibrate", rich_help_panel=_DATA)(fidelity.calibrate)
app.add_typer(scaling.app, name="scaling", rich_help_panel=_DATA)
app.add_typer(prices.app, name="prices", rich_help_panel=_DATA)
app.command("profile", rich_help_panel=_DATA)(profile.profile)


def main() -> None:
    """Entry point of the `elastune` command."""
    isolate_children()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a name may hold what a terminal cannot show
        stream.close = stream.flush  # type: ignore[method-assign]  # code of the user's own may not end our printing
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
