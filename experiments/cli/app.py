"""The command line: `elastune`. Imports typer; everything else inside the commands, so that `--help` is instant.

Tables and JSON go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 a run failed, 2 the input
is wrong (nothing was started or written), 130 interrupted.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from elastune.experiments.cli import (
    ablate as cli_ablate,
)
from elastune.experiments.cli import (
    bundles as cli_bundles,
)
from elastune.experiments.cli import (
    check as cli_check,
)
from elastune.experiments.cli import (
    doctor as cli_doctor,
)
from elastune.experiments.cli import (
    figures as cli_figures,
)
from elastune.experiments.cli import (
    plan as cli_plan,
)
from elastune.experiments.cli import (
    prices as cli_prices,
)
from elastune.experiments.cli import (
    profile as cli_profile,
)
from elastune.experiments.cli import (
    results as cli_results,
)
from elastune.experiments.cli import (
    run as cli_run,
)
from elastune.experiments.cli import (
    scaling as cli_scaling,
)
from elastune.experiments.cli import (
    sweep as cli_sweep,
)
from elastune.experiments.cli.numbers import count_option
from elastune.experiments.cli.options import (
    FAILED,
    INTERRUPTED,
    WRONG_INPUT,
    AsJson,
    complete_policies,
    failure,
    load_spec,
    print_json,
    progress,
)
from elastune.sim.model.errors import InputError, TuningError

if TYPE_CHECKING:
    from elastune.experiments.comparisons.comparison import Comparison
    from elastune.experiments.spec.run import RunSpec


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
    typer.echo(f"warning: {message}", err=True)


app = typer.Typer(
    cls=Commands,
    help="Tune hyperparameters under a deadline and a budget, on clouds with prices: simulate the policies, compare them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_bundles.app, name="bundles")
app.add_typer(cli_scaling.app, name="scaling")
app.add_typer(cli_prices.app, name="prices")
app.add_typer(cli_results.results, name="results")
app.command("run")(cli_run.run)
app.command("profile")(cli_profile.profile)
app.command("doctor")(cli_doctor.doctor)
app.command("plan")(cli_plan.plan)
app.command("ablate")(cli_ablate.ablate)
app.command("sweep")(cli_sweep.sweep)
app.command("figures")(cli_figures.figures)
app.command("ledger")(cli_prices.ledger)
app.command("check-policy")(cli_check.check_policy)
policies_app = typer.Typer(help="The policies that are known.", no_args_is_help=True)
app.add_typer(policies_app, name="policies")


def main() -> None:
    """Entry point of the `elastune` command."""
    app(prog_name="elastune")


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


SpecFile = Annotated[
    Path, typer.Argument(metavar="SPEC", help="A YAML file that describes the run.", show_default=False)
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set any key of the spec, as job.deadline_s=1800."),
]


@app.command()
def compare(
    spec_file: SpecFile,
    settings: Settings = None,
    policies: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="As for run; every tuner where left out (the oracle only if named).",
            autocompletion=complete_policies,
        ),
    ] = None,
    seeds: Annotated[int, count_option(help="How many, counted from the spec's.")] = 20,
    jobs: Annotated[int, count_option(help="Processes.")] = 2,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for tables and figures.")] = None,
) -> None:
    """Run several policies on the same seeds and compare them; differences are to the first."""
    from elastune.experiments.comparisons.comparison import compare as compare_policies

    spec = load_spec(spec_file, settings or [])
    names = [name.strip() for name in (policies or "").split(",") if name.strip()]
    if policies is not None and not names:
        raise InputError(f"--policies {policies!r} names no policy; leave it out for all")
    with progress("Running") as on_progress:
        comparison = compare_policies(spec, names, seeds, jobs=jobs, on_progress=on_progress)
    if out is not None:
        _write_comparison(out, spec, comparison)
    if as_json:
        print_json(comparison.to_json())
    else:
        from elastune.experiments.cli.tables import print_comparison

        print_comparison(comparison, out)
    if comparison.failed:
        raise typer.Exit(FAILED)


def _write_comparison(folder: Path, spec: RunSpec, comparison: Comparison) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(folder / "spec.yaml")
    comparison.results.to_parquet(folder / "results.parquet", index=False)
    comparison.trajectories.to_parquet(folder / "trajectories.parquet", index=False)
    for name in ("results", "summary", "paired", "ledger"):
        getattr(comparison, name).to_csv(folder / f"{name}.csv", index=False)
    done = comparison.results[comparison.results["status"] == "done"]
    if len(done):
        from elastune.experiments import figures

        figures.save(figures.comparison(done, comparison.trajectories), folder / "comparison.png")
        figures.save(figures.ledger(comparison.ledger), folder / "ledger.png")


@policies_app.command("list")
def list_policies(as_json: AsJson = False) -> None:
    """What each policy is, and its parameters."""
    from elastune.policies.registry import all_entries

    if as_json:
        listed = [{"name": n, "summary": e.summary, "parameters": e.parameters} for n, e in all_entries().items()]
        print_json(listed)
        return
    from elastune.experiments.cli.tables import print_policies

    print_policies(all_entries())


@app.command()
def replay(
    journal: Annotated[Path, typer.Argument(help="The journal of a run.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Feed a journal's events to a fresh controller, which must ask for and order the same."""
    from elastune.experiments.runs.simulate import replay_journal

    entries, is_complete = replay_journal(journal)
    if as_json:
        print_json({"journal": str(journal), "entries": entries, "is_complete": is_complete, "replay_equal": True})
    else:
        typer.echo(f"{entries} entries reproduced" + ("" if is_complete else "; the journal ends before its run did"))
