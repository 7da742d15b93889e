"""What all of `elastune bundles import` share: options, where the bundle goes, and what is told of it. Imports typer."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_type_hints

import typer

from elastune.experiments.cli.numbers import count_option
from elastune.experiments.cli.options import AsJson, out_option, print_json, progress
from elastune.experiments.cli.tables import number, percent, print_pairs
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from elastune.traces import Bundle

Direction: TypeAlias = Literal["minimize", "maximize"]
_PROVENANCE = "provenance."
_OPTIONAL_KEYS = (
    *("family", "schedule", "scaling", "iteration_s", "launch_s", "checkpoint_s", "rescale_s", "checkpoint_bytes"),
    *("data_bytes", "straggler.persistent_cv", "straggler.per_iteration_cv", "provenance.curves"),
)


def _complete_key(incomplete: str) -> list[str]:
    """Keys of a bundle.yaml that begin so."""
    return [f"{key}=" for key in _OPTIONAL_KEYS if key.startswith(incomplete)]


def completes(arguments: str, known: Callable[[Any, str], Iterable[str]]) -> Callable[[typer.Context, str], list[str]]:
    """What completes names in the recording that is being imported; none where it cannot be read yet.

    Args:
        arguments: of which one names the recording, with blanks between.
        known: from the importers and the recording to the names.
    """

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        from elastune.traces import importers

        # An option that still lacks its value keeps the parser from assigning what stands before it.
        given = next(filter(None, map(ctx.params.get, arguments.split())), None) or next(iter(ctx.args), None)
        try:
            return [name for name in (known(importers, str(given)) if given else ()) if name.startswith(incomplete)]
        except InputError:
            return []

    return complete


_complete_column = completes("table log", lambda read, file: read.table_columns(Path(file)))


def column_option(option: str, help_text: str, default: str | None = None) -> Any:  # noqa: ANN401  what typer takes
    """An option that names a column of a table."""
    return typer.Option(
        option, metavar="COLUMN", help=help_text, autocompletion=_complete_column, show_default=default or True
    )


TrialColumn: TypeAlias = Annotated[str, column_option("--trial-column", "Names the trial.")]
IterationColumn: TypeAlias = Annotated[str, column_option("--iteration-column", "Counts within a trial.")]
ScoreColumn: TypeAlias = Annotated[str, column_option("--score-column", "Empty or nan where the run diverged.")]
SecondsColumn: TypeAlias = Annotated[
    str | None, column_option("--seconds-column", "Seconds of each iteration.", "seconds, if there")
]
ElapsedColumn: TypeAlias = Annotated[str | None, column_option("--elapsed-column", "Seconds since the trial's start.")]


@dataclass(kw_only=True)
class Common:
    """The options of every import, in the order of the help pages."""

    name: Annotated[str, typer.Option(help="Of the bundle.", show_default=False)]
    source: Annotated[str, typer.Option(help="Who recorded it, and where it can be had.", show_default=False)]
    licence: Annotated[str, typer.Option(help="Of the recording.", show_default=False)]
    direction: Annotated[Direction, typer.Option(help="Whether scores are minimised or maximised.", show_default=False)]
    out: Annotated[Path | None, out_option("Folder of the bundle.", "results/bundles/<name>")] = None
    score: Annotated[str | None, typer.Option(help="What the score is, in words.", show_default="its name there")] = (
        None
    )
    iteration: Annotated[
        str | None, typer.Option(help="What an iteration is, in words.", show_default="its name there")
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set another key of bundle.yaml, as scaling=resnet50-v100 or family=mine; numbers so set are assumed.",
            autocompletion=_complete_key,
        ),
    ] = None
    incomplete: Annotated[
        Literal["error", "drop", "diverged"],
        typer.Option(
            help="Curves that are shorter than others, though their last score is a number: refuse them, leave them"
            " out, or say that they diverged there."
        ),
    ] = "error"
    iteration_zero: Annotated[
        Literal["error", "first", "drop"],
        typer.Option(
            help="An iteration 0: refuse it, say that it is the first (1 is added to all), or leave it out as recorded"
            " before training."
        ),
    ] = "error"
    iterations: Annotated[
        int | None, count_option(help="Keep only so many iterations of each curve.", show_default="all")
    ] = None
    untimed: Annotated[bool, typer.Option("--untimed", help="Leave out the seconds.")] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is already there.")] = False
    as_json: AsJson = False
    on_progress: Any = field(init=False)  # no option: told how far the reading is, while it goes on

    def folder(self) -> Path:
        """The folder of the bundle; the bundle's name is always checked."""
        from elastune.experiments.files import folder_name
        from elastune.experiments.spec.places import OWN_BUNDLES

        checked = folder_name(self.name, "--name")
        return self.out or OWN_BUNDLES / checked

    def given(self) -> dict[str, Any]:
        """What every importer is told."""
        from elastune.traces.importers import CurveRules, Description

        description = Description(
            name=self.name,
            source=self.source,
            licence=self.licence,
            direction=self.direction,
            score=self.score,
            iteration=self.iteration,
            others=_others(self.settings or []),
        )
        rules = CurveRules(incomplete=self.incomplete, iteration_zero=self.iteration_zero, iterations=self.iterations)
        return {"out": self.folder(), "description": description, "rules": rules, "overwrite": self.overwrite}


def importer(
    app: typer.Typer,
    name: str,
    *,
    direction: Any = None,  # noqa: ANN401  an annotation
) -> Callable[[Callable[..., Bundle]], Callable[..., Bundle]]:
    """Make a command of a function that reads a recording; it takes the common options besides its own.

    Args:
        app: which the command is added to.
        name: of the command.
        direction: the annotation of `--direction`, where the recording itself may say it.
    """

    def make(read: Callable[..., Bundle]) -> Callable[..., Bundle]:
        def command(**given: Any) -> None:  # noqa: ANN401  typer checked them
            common = Common(**{one.name: given.pop(one.name) for one in fields(Common) if one.init})
            folder, source = common.folder(), next(iter(given.values()))
            with progress(f"Reading {source}") as common.on_progress:
                bundle = read(common, **given)
            _report(bundle, folder, as_json=common.as_json)

        own, shared = _parameters(read)[1:], _parameters(Common)
        if direction is not None:
            shared = [
                one.replace(annotation=direction, default=None) if one.name == "direction" else one for one in shared
            ]
        command.__signature__ = Signature([*own, *shared])  # type: ignore[attr-defined]
        command.__doc__ = read.__doc__
        app.command(name)(command)
        return read

    return make


def _parameters(function: Callable[..., Any]) -> list[Parameter]:
    """By keyword, with their annotations resolved; typer reads no strings from a signature that was put together."""
    types = get_type_hints(function, localns={"Bundle": object}, include_extras=True)
    found = signature(function).parameters.values()
    return [one.replace(kind=one.KEYWORD_ONLY, annotation=types[one.name]) for one in found]


def _others(settings: list[str]) -> dict[str, Any]:
    """Further keys of bundle.yaml; a provenance is a sentence, colons included, and is not read as YAML."""
    from elastune.experiments.spec.yaml_file import with_settings

    sentences = [setting for setting in settings if setting.startswith(_PROVENANCE) and "=" in setting]
    others = with_settings({}, [setting for setting in settings if setting not in sentences])
    stated = dict(setting.removeprefix(_PROVENANCE).split("=", 1) for setting in sentences)
    return others | ({"provenance": stated} if stated else {})


def _report(bundle: Bundle, folder: Path, *, as_json: bool) -> None:
    from elastune.experiments.plans.bundle_summary import describe, describe_import
    from elastune.experiments.spec.places import name_in_specs

    called = {"folder": str(folder), "in_a_spec": name_in_specs(folder)}
    described = {**called, **describe(bundle), **describe_import(bundle)}
    if as_json:
        print_json(described)
        return
    _print_import(described)


def _print_import(described: Mapping[str, Any]) -> None:
    """What was made of a recording: its size, what was done to it, and what a run must add."""
    low, high = described["relative_cost_range"]
    seconds = described["iteration_s"]
    cost = f"{number(seconds)} s on 1 GPU, times {number(low)} to {number(high)}" if seconds else "not recorded"
    rows = {
        "score": f"{described['score']}, to {described['direction']}",
        "iteration": described["iteration"],
        "size": f"{described['trials']} trials x {described['max_iterations']} iterations",
        "points without a score": percent(described["without_score_share"]),
        "test scores": "recorded" if described["has_test_scores"] else "not recorded",
        "cost of an iteration": cost,
        "seconds of each iteration": "recorded" if described["has_seconds"] else "not recorded",
        "hyperparameters": ", ".join(described["hyperparameters"]) or "NONE",
        **{key.replace("_", " "): _listed(value) for key, value in described["imported"].items()},
        **{f"lacking: {what}": f"set {key} in a run" for what, key in described["lacking"].items()},
        "written to": described["folder"],
        "in a spec": f"workload.bundle: {described['in_a_spec']}",
    }
    print_pairs(f"{described['name']}, imported", rows)


def _listed(value: object) -> str:
    """A note of an import: a number, a text, some names, or counts by name."""
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items())
    if isinstance(value, list):
        shown = ", ".join(map(str, value[:10]))
        return f"{len(value)}: {shown}" + (", ..." if value[10:] else "")
    return str(value)
