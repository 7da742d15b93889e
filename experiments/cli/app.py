"""The command line: `elastune`. Imports typer; a command's module when it is asked for, and all else inside the commands.

Tables and JSON go to standard output, progress and errors to standard error. An error is one line; with `--json` it is a JSON
object. Exit codes: 0 done, 1 a run failed, 2 the input is wrong (nothing was started or written), 130 interrupted.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from copy import copy
from importlib import import_module
from typing import Annotated, Any, cast

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

from elastune.experiments.cli import INTERRUPTED
from elastune.experiments.cli.options import FAILED, WRONG_INPUT, CommandError
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


_RUNS, _PLANS, _DATA = "Run and compare", "Plan", "Data"
_COMMANDS = {
    "run": (_RUNS, "run:run"),
    "compare": (_RUNS, "compare:compare"),
    "ablate": (_RUNS, "compare:ablate"),
    "sweep": (_RUNS, "sweep:sweep"),
    "claims": (_RUNS, "claims:claims"),
    "figures": (_RUNS, "figures:figures"),
    "report": (_RUNS, "report:report"),
    "ledger": (_RUNS, "run:ledger"),
    "replay": (_RUNS, "run:replay"),
    "fidelity": (_RUNS, "fidelity:fidelity"),
    "checkpoint": (_RUNS, "run:checkpoint"),
    "doctor": (_RUNS, "run:doctor"),
    "audit": (_PLANS, "audit:audit"),
    "init": (_PLANS, "init:init"),
    "recommend": (_PLANS, "recommend:recommend"),
    "plan": (_PLANS, "plan:plan"),
    "check-policy": (_PLANS, "policies:check_policy"),
    "calibrate": (_DATA, "fidelity:calibrate"),
    "profile": (_DATA, "profile:profile"),
    "results": (_RUNS, "results:results"),
    "policies": (_PLANS, "policies:app"),
    "bundles": (_DATA, "bundles:app"),
    "scaling": (_DATA, "scaling:app"),
    "prices": (_DATA, "prices:app"),
}
"""In the order of the help page: the panel, and the module beside this one with what it is called there."""


def _found(name: str) -> Any:  # noqa: ANN401  a function, or a Typer with commands below it
    module, _, attribute = _COMMANDS[name][1].partition(":")
    return getattr(import_module(f"elastune.experiments.cli.{module}"), attribute)


def _built(name: str, what: Any) -> Any:  # noqa: ANN401  typer's own type
    alone, panel = typer.Typer(), _COMMANDS[name][0]
    if isinstance(what, typer.Typer):
        alone.add_typer(what, name=name, rich_help_panel=panel)
    else:
        alone.command(name, rich_help_panel=panel)(what)
    return typer.main.get_group(alone).commands[name]


def _said_of(what: Any) -> Any:  # noqa: ANN401  as `_found`
    """The same without parameters and commands: what a list of commands says."""
    if isinstance(what, typer.Typer):
        return typer.Typer(help=what.info.help)

    def command() -> None:
        pass

    command.__doc__ = what.__doc__
    return command


class _WhenAskedFor(Mapping[str, Any]):
    """The commands by name. One is imported and built when it is asked for, because all of them take longer than typer."""

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401  typer's own type
        return _built(name, _found(name))

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401  as above
        """The command, or the default; `Mapping` would take a KeyError of an import for a name that is not there."""
        return self[name] if name in _COMMANDS else default

    def __contains__(self, name: object) -> bool:
        return name in _COMMANDS

    def __iter__(self) -> Iterator[str]:
        return iter(_COMMANDS)

    def __len__(self) -> int:
        return len(_COMMANDS)


class _Elastune(Commands):
    """All commands."""

    def __init__(self, **given: Any) -> None:  # noqa: ANN401  as typer's own
        super().__init__(**given)
        self.commands = cast("Any", _WhenAskedFor())

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002  as above
        """Their names; typer would build them all."""
        return list(self.commands)

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401  as above
        """Write the page that lists them."""
        listed = copy(self)
        listed.commands = {name: _built(name, _said_of(_found(name))) for name in _COMMANDS}
        super(_Elastune, listed).format_help(ctx, formatter)


app = typer.Typer(
    cls=_Elastune,
    help="Tune hyperparameters under a deadline and a budget, on clouds with prices: simulate the policies, compare them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the `elastune` command."""
    if "_ELASTUNE_COMPLETE" in os.environ:
        _leave_values_unread()
    isolate_children()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a name may hold what a terminal cannot show
        stream.close = stream.flush  # type: ignore[method-assign]  # code of the user's own may not end our printing
    try:
        app(prog_name="elastune")
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    finally:
        _end_without_a_last_collection()


def _end_without_a_last_collection() -> None:
    """Python would look through all that was imported, twice, for files to close and the like. Ours are closed by now."""
    own_code = sys.modules.get("elastune.experiments.own_code")
    if own_code is None or not own_code.has_run():
        gc.freeze()


def _leave_values_unread() -> None:
    """A shell asks what may follow: typer need not load pydantic to read what was typed before."""
    kinds: tuple[Any, ...] = (TyperArgument, TyperOption)
    for kind in kinds:
        kind.process_value = lambda _self, _ctx, value: value


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
