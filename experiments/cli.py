"""The command line: `elastune`. Imports typer; everything else inside the commands, so that `--help` is instant.

Tables and JSON go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 a run failed, 2 the input
is wrong (nothing was started or written), 130 interrupted.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from experiments import cli_ablate, cli_bundles, cli_check, cli_plan, cli_prices, cli_results, cli_scaling, cli_sweep
from experiments.cli_options import AsJson, complete_policies, complete_policy, print_json, progress
from sim.model.errors import InputError, TuningError

if TYPE_CHECKING:
    from experiments.comparing import Comparison
    from experiments.run_result import RunResult
    from experiments.spec import RunSpec

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


class Commands(TyperGroup):
    """Turns the project's errors into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  typer's own types, which moved between its versions
        """Run the command that was asked for."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                return super().invoke(ctx)
        except InputError as error:
            raise _exit(str(error), WRONG_INPUT) from error
        except TuningError as error:
            raise _exit(str(error), FAILED) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _exit(f"{error.filename}: {error.strerror}", WRONG_INPUT) from error
        except KeyboardInterrupt as error:
            raise _exit("interrupted", INTERRUPTED) from error


def _exit(message: str, code: int) -> typer.Exit:
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(code)


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
app.command("profile")(cli_bundles.profile)
app.command("plan")(cli_plan.plan)
app.command("ablate")(cli_ablate.ablate)
app.command("sweep")(cli_sweep.sweep)
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
def run(
    spec_file: SpecFile,
    settings: Settings = None,
    policy: Annotated[
        str | None, typer.Option(help="name[:param=value...], instead of the spec's.", autocompletion=complete_policy)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the spec's.")] = None,
    as_json: AsJson = False,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of the results.", show_default="results/runs/<digest>")
    ] = None,
    journal: Annotated[Path | None, typer.Option(help="Put the journal elsewhere.")] = None,
) -> None:
    """Run one policy once, in simulation; writes spec.yaml, journal.jsonl and result.json."""
    from experiments.running import execute

    overriding = [f"policy={policy}"] if policy is not None else []
    overriding += [f"seed={seed}"] if seed is not None else []
    spec = _load(spec_file, [*(settings or []), *overriding])
    folder = out or Path("results/runs") / spec.digest()
    journal = journal or folder / "journal.jsonl"
    result = execute(spec, journal=journal)
    _write_run(folder, spec, result)
    if as_json:
        print_json(result.to_json())
    else:
        from experiments.cli_tables import print_run

        print_run(spec, result, folder, journal)
    if result.best_trial is None:
        raise _exit(f"{result.policy} has no answer: no configuration was ever saved; {journal} shows why", FAILED)


def _load(spec_file: Path, settings: list[str]) -> RunSpec:
    from experiments.spec import RunSpec

    return RunSpec.load(spec_file, settings)


def _write_run(folder: Path, spec: RunSpec, result: RunResult) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_spec(folder, spec)
    text = json.dumps(result.to_json(), indent=2, allow_nan=False)
    (folder / "result.json").write_text(text + "\n", encoding="utf-8")


def _write_spec(folder: Path, spec: RunSpec) -> None:
    import yaml

    (folder / "spec.yaml").write_text(yaml.safe_dump(spec.to_dict(), sort_keys=False), encoding="utf-8")


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
    seeds: Annotated[int, typer.Option(min=1, help="How many, counted from the spec's.")] = 20,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for tables and figures.")] = None,
) -> None:
    """Run several policies on the same seeds and compare them; differences are to the first."""
    from experiments.comparing import compare as compare_policies

    spec = _load(spec_file, settings or [])
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
        from experiments.cli_tables import print_comparison

        print_comparison(comparison, out)
    if comparison.failed:
        raise typer.Exit(FAILED)


def _write_comparison(folder: Path, spec: RunSpec, comparison: Comparison) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_spec(folder, spec)
    comparison.results.to_parquet(folder / "results.parquet", index=False)
    comparison.trajectories.to_parquet(folder / "trajectories.parquet", index=False)
    for name in ("results", "summary", "paired", "ledger"):
        getattr(comparison, name).to_csv(folder / f"{name}.csv", index=False)
    done = comparison.results[comparison.results["status"] == "done"]
    if len(done):
        from experiments import figures

        figures.save(figures.comparison(done, comparison.trajectories), folder / "comparison.png")
        figures.save(figures.ledger(comparison.ledger), folder / "ledger.png")


@policies_app.command("list")
def list_policies(as_json: AsJson = False) -> None:
    """What each policy is, and its parameters."""
    from policies.registry import all_entries

    if as_json:
        listed = [{"name": n, "summary": e.summary, "parameters": e.parameters} for n, e in all_entries().items()]
        print_json(listed)
        return
    from experiments.cli_tables import print_policies

    print_policies(all_entries())


@app.command()
def replay(
    journal: Annotated[Path, typer.Argument(help="The journal of a run.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Feed a journal's facts to a fresh controller, which must wish for and order the same."""
    from experiments.running import replay_journal

    entries, is_complete = replay_journal(journal)
    if as_json:
        print_json({"journal": str(journal), "entries": entries, "is_complete": is_complete, "replay_equal": True})
    else:
        typer.echo(f"{entries} entries reproduced" + ("" if is_complete else "; the journal ends before its run did"))
