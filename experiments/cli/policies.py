"""`elastune policies`, `elastune check-policy`: which policies there are, and which promises one keeps."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from elastune.experiments.cli.completion import complete_policy
from elastune.experiments.cli.options import FAILED, AsJson, print_json
from elastune.experiments.cli.table_views import with_view
from elastune.experiments.cli.tables import Table, key, print_pairs, say, text

if TYPE_CHECKING:
    from elastune.experiments.contracts.user_policy import Report
    from elastune.policies.registry import RegisteredPolicy

app = typer.Typer(help="The policies that are known.", no_args_is_help=True)


@app.command("list")
@with_view
def list_policies(as_json: AsJson = False) -> None:
    """What each policy is, and its parameters."""
    from elastune.experiments.known_policies import installed_policies
    from elastune.policies.registry import all_entries

    if as_json:
        print_json([_told(name, entry) for name, entry in all_entries().items()])
        return
    table = Table("", [*key("policy"), *text("parameters", "what it does")])
    for name, entry in all_entries().items():
        table.add(name, _parameters(entry), entry.summary)
    for name, place in installed_policies().items():  # not imported for a list
        table.add(name, "", f"of an installed package: {place}")
    table.print()


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Of a policy.", autocompletion=complete_policy, show_default=False)],
    as_json: AsJson = False,
) -> None:
    """One policy: what it does, and its parameters with their values and defaults."""
    from elastune.experiments.own_policy import policy_named

    entry, _ = policy_named(name)
    if as_json:
        print_json(_told(name, entry))
        return
    given = {
        f"parameter {parameter}": ". ".join(
            filter(None, (f"{_values(entry, parameter)} (default {_written(default)})", entry.meaning(parameter)))
        )
        for parameter, default in entry.parameters.items()
    }
    first = [f"{parameter}={_written(default)}" for parameter, default in entry.parameters.items()][:1]
    print_pairs(name, {"what it does": entry.summary, **given, "in a command": f"--policy {':'.join([name, *first])}"})


def _told(name: str, entry: RegisteredPolicy) -> dict[str, object]:
    choices = {parameter: list(values) for parameter, values in entry.choices.items()}
    return {"name": name, "summary": entry.summary, "parameters": entry.parameters, "choices": choices}


def _parameters(entry: RegisteredPolicy) -> str:
    return ", ".join(f"{parameter}={_written(default)}" for parameter, default in entry.parameters.items())


def _values(entry: RegisteredPolicy, parameter: str) -> str:
    """What a parameter may be set to, in words."""
    if parameter in entry.choices:
        *others, last = map(_written, entry.choices[parameter])
        return f"{', '.join(others)} or {last}"
    default = entry.parameters[parameter]
    return {int: "a whole number", float: "a number"}.get(type(default), "text")


def _written(value: object) -> str:
    """As a command line takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_policy(
    target: Annotated[
        str,
        typer.Argument(
            metavar="POLICY",
            help="Name, file.py:Class or module:Class, with parameters if any.",
            autocompletion=complete_policy,
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Play a policy in small worlds that fail, lose machines and cost money; name each promise it breaks, and how.

    Exit code 1 where a promise is broken.
    """
    from elastune.experiments.contracts.user_policy import check_target
    from elastune.experiments.spec.yaml_file import policy_mapping

    parameters = policy_mapping(target)
    report = check_target(parameters.pop("name"), parameters)
    if as_json:
        print_json(report.to_json())
    else:
        _print_report(report)
    if report.broken:
        raise typer.Exit(FAILED)


def _print_report(report: Report) -> None:
    worlds = Counter((finding.promise, finding.cause) for finding in report.broken)
    for (promise, cause), count in worlds.items():
        first = next(one for one in report.broken if (one.promise, one.cause) == (promise, cause))
        others = f" (and the same in {count - 1} more worlds)" if count > 1 else ""
        say(f"BROKEN {promise}: {first.problem}{others}")
    for world in report.infeasible:
        say(f"infeasible, as it may be: {world}")
    kept = sum(finding.status == "kept" for finding in report.findings)
    say(f"{report.target}: {kept} promises kept, {len(report.broken)} broken, in {report.worlds} worlds")
