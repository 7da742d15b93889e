"""`elastune bundles import`: what other programs recorded, as bundles. Imports typer; the rest when needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from elastune.experiments.cli.numbers import count_option
from elastune.experiments.cli.options import AsJson, names_in, print_json, progress
from elastune.experiments.cli.tables import number, percent, print_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from elastune.traces import Bundle
    from elastune.traces.importers import CurveRules, Description

app = typer.Typer(
    help="Make a bundle of what another program recorded. Nothing is repaired unless an option asks for it, and what was done"
    " is noted in the bundle.",
    no_args_is_help=True,
)

_DIRECTIONS: TypeAlias = Literal["minimize", "maximize"]
_PROVENANCE = "provenance."
_OPTIONAL_KEYS = (
    *("family", "schedule", "scaling", "iteration_s", "launch_s", "checkpoint_s", "rescale_s", "checkpoint_bytes"),
    *("data_bytes", "straggler.persistent_cv", "straggler.per_iteration_cv", "provenance.curves"),
)


def _complete_key(incomplete: str) -> list[str]:
    """Keys of a bundle.yaml that begin so."""
    return [f"{key}=" for key in _OPTIONAL_KEYS if key.startswith(incomplete)]


def _offered(ctx: typer.Context, argument: str, known: Callable[[str], Iterable[str]], incomplete: str) -> list[str]:
    """Names that begin so in what is being imported; none where it cannot be read yet."""
    from elastune.sim.model.errors import InputError

    # An option that still lacks its value keeps the parser from assigning what stands before it.
    given = ctx.params.get(argument) or next(iter(ctx.args), None)
    try:
        return [name for name in (known(str(given)) if given else ()) if name.startswith(incomplete)]
    except InputError:
        return []


def _complete_column(ctx: typer.Context, incomplete: str) -> list[str]:
    """Columns of the table."""
    from elastune.traces.importers import table_columns

    return _offered(ctx, "table", lambda file: table_columns(Path(file)), incomplete)


def _complete_objective(ctx: typer.Context, incomplete: str) -> list[str]:
    """Objectives of the blackbox."""
    from elastune.traces.importers import BlackboxFolder

    return _offered(ctx, "blackbox", lambda folder: BlackboxFolder.open(folder).objectives, incomplete)


def _complete_task(ctx: typer.Context, incomplete: str) -> list[str]:
    """Tasks of the blackbox."""
    from elastune.traces.importers import BlackboxFolder

    return _offered(ctx, "blackbox", lambda folder: BlackboxFolder.open(folder).tasks, incomplete)


def _complete_study(ctx: typer.Context, incomplete: str) -> list[str]:
    """Studies in the storage."""
    from elastune.traces.importers import study_names

    return _offered(ctx, "storage", study_names, incomplete)


Name = Annotated[str, typer.Option(help="Of the bundle.", show_default=False)]
Source = Annotated[str, typer.Option(help="Who recorded it, and where it can be had.", show_default=False)]
Licence = Annotated[str, typer.Option(help="Of the recording.", show_default=False)]
Direction = Annotated[_DIRECTIONS, typer.Option(help="Whether scores are minimised or maximised.", show_default=False)]
StudyDirection = Annotated[
    _DIRECTIONS | None, typer.Option(help="Checked against the study's own.", show_default=False)
]
Out = Annotated[
    Path | None,
    typer.Option("-o", "--out", help="Folder of the bundle.", show_default="results/bundles/<name>"),
]
Score = Annotated[str | None, typer.Option(help="What the score is, in words.", show_default="its name there")]
Iteration = Annotated[str | None, typer.Option(help="What an iteration is, in words.", show_default="its name there")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set another key of bundle.yaml, as scaling=resnet50-v100 or family=mine; numbers so set are assumed.",
        autocompletion=_complete_key,
    ),
]
Incomplete = Annotated[
    Literal["error", "drop", "diverged"],
    typer.Option(
        help="Curves that are shorter than others, though their last score is a number: refuse them, leave them"
        " out, or say that they diverged there."
    ),
]
IterationZero = Annotated[
    Literal["error", "first", "drop"],
    typer.Option(
        help="An iteration 0: refuse it, say that it is the first (1 is added to all), or leave it out as recorded"
        " before training."
    ),
]
Iterations = Annotated[int | None, count_option(help="Keep only so many iterations of each curve.", show_default="all")]
Untimed = Annotated[bool, typer.Option("--untimed", help="Leave out the seconds.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is already there.")]


def _column(option: str, help_text: str, default: str | None = None) -> Any:  # noqa: ANN401  what typer takes
    return typer.Option(
        option, metavar="COLUMN", help=help_text, autocompletion=_complete_column, show_default=default or True
    )


@app.command("table")
def import_table(
    table: Annotated[
        Path, typer.Argument(help="A CSV or parquet file, a row per trial and iteration.", show_default=False)
    ],
    name: Name,
    source: Source,
    licence: Licence,
    direction: Direction,
    out: Out = None,
    trial_column: Annotated[str, _column("--trial-column", "Names the trial.")] = "trial",
    iteration_column: Annotated[str, _column("--iteration-column", "Counts within a trial.")] = "iteration",
    score_column: Annotated[str, _column("--score-column", "Empty or nan where the run diverged.")] = "score",
    seconds_column: Annotated[
        str | None, _column("--seconds-column", "Seconds of each iteration.", "seconds, if there")
    ] = None,
    elapsed_column: Annotated[str | None, _column("--elapsed-column", "Seconds since the trial's start.")] = None,
    test_score_column: Annotated[
        str | None, _column("--test-score-column", "Reported, never selected by.", "test_score, if there")
    ] = None,
    config_columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...", help="Hyperparameters.", show_default="all others that are constant in each trial"
        ),
    ] = None,
    replicate_column: Annotated[
        str | None, _column("--replicate-column", "Numbers the trainings of a trial.", "replicate, if there")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Read only the rows that hold this value.", show_default="all rows"),
    ] = None,
    configs: Annotated[Path | None, typer.Option(help="A second table, a row of hyperparameters per trial.")] = None,
    score: Score = None,
    iteration: Iteration = None,
    settings: Settings = None,
    incomplete: Incomplete = "error",
    iteration_zero: IterationZero = "error",
    iterations: Iterations = None,
    untimed: Untimed = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """A tidy table, a row per trial and iteration."""
    from elastune.traces.importers import TableColumns, from_table

    columns = TableColumns(
        trial=trial_column,
        iteration=iteration_column,
        score=score_column,
        seconds=seconds_column,
        elapsed=elapsed_column,
        test_score=test_score_column,
        configuration=names_in(config_columns, "--config-columns") or None,
        replicate=replicate_column,
        where=_conditions(where or []),
    )
    folder = _folder(out, name)
    with progress(f"Reading {table.name}"):
        bundle = from_table(
            table,
            folder,
            _description(name, source, licence, direction, score, iteration, settings),
            columns=columns,
            configurations=configs,
            rules=_rules(incomplete, iteration_zero, iterations),
            untimed=untimed,
            overwrite=overwrite,
        )
    _report(bundle, folder, as_json=as_json)


@app.command("syne-tune")
def import_syne_tune(
    blackbox: Annotated[
        str,
        typer.Argument(
            help="A folder that Syne Tune wrote, or a name in its repository (lcbench, pd1, ...).", show_default=False
        ),
    ],
    name: Name,
    source: Source,
    licence: Licence,
    direction: Direction,
    out: Out = None,
    task: Annotated[
        str | None, typer.Option(help="Which one, if there are several.", autocompletion=_complete_task)
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(help="The score.", show_default="the folder's own", autocompletion=_complete_objective),
    ] = None,
    elapsed: Annotated[
        str | None,
        typer.Option(
            help="The objective that is the seconds since the start.",
            show_default="the folder's own",
            autocompletion=_complete_objective,
        ),
    ] = None,
    seconds: Annotated[
        str | None,
        typer.Option(help="The objective that is the seconds of each iteration.", autocompletion=_complete_objective),
    ] = None,
    test_score: Annotated[
        str | None, typer.Option(help="Reported, never selected by.", autocompletion=_complete_objective)
    ] = None,
    training_seed: Annotated[int, count_option(least=0, help="Which of the recorded ones.")] = 0,
    all_training_seeds: Annotated[
        bool, typer.Option("--all-training-seeds", help="Take all of them, as replicates of each configuration.")
    ] = False,
    score: Score = None,
    iteration: Iteration = None,
    settings: Settings = None,
    incomplete: Incomplete = "error",
    iteration_zero: IterationZero = "error",
    iterations: Iterations = None,
    untimed: Untimed = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """One task of a tabular blackbox of Syne Tune's (LCBench, NAS-Bench-201, FCNet, PD1, ...)."""
    from elastune.traces.importers import BlackboxChoice, blackbox_folder, from_blackbox_folder

    choice = BlackboxChoice(
        objective=objective,
        elapsed=elapsed,
        seconds=seconds,
        test_score=test_score,
        seed=None if all_training_seeds else training_seed,
        untimed=untimed,
    )
    folder = _folder(out, name)
    with progress(f"Reading {blackbox}"):
        bundle = from_blackbox_folder(
            blackbox_folder(blackbox),
            folder,
            _description(name, source, licence, direction, score, iteration, settings),
            task=task,
            choice=choice,
            rules=_rules(incomplete, iteration_zero, iterations),
            overwrite=overwrite,
        )
    _report(bundle, folder, as_json=as_json)


@app.command("optuna")
def import_optuna(
    storage: Annotated[
        str, typer.Argument(help="An SQLite or journal file, or a URL; it is only read.", show_default=False)
    ],
    name: Name,
    source: Source,
    licence: Licence,
    direction: StudyDirection = None,
    out: Out = None,
    study: Annotated[
        str | None, typer.Option(help="Which one, if there are several.", autocompletion=_complete_study)
    ] = None,
    score: Score = None,
    iteration: Iteration = None,
    settings: Settings = None,
    incomplete: Incomplete = "error",
    iteration_zero: IterationZero = "error",
    iterations: Iterations = None,
    untimed: Untimed = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """A study of Optuna whose trials reported intermediate values."""
    from elastune.traces.importers import from_optuna

    folder = _folder(out, name)
    with progress(f"Reading {storage}"):
        bundle = from_optuna(
            storage,
            folder,
            _description(name, source, licence, direction, score, iteration, settings),
            study_name=study,
            rules=_rules(incomplete, iteration_zero, iterations),
            untimed=untimed,
            overwrite=overwrite,
        )
    _report(bundle, folder, as_json=as_json)


@app.command("tensorboard")
def import_tensorboard(
    runs: Annotated[
        Path, typer.Argument(help="The folder above the runs, each of which is a trial.", show_default=False)
    ],
    tag: Annotated[str, typer.Option(help="The scalar that is the score.", show_default=False)],
    name: Name,
    source: Source,
    licence: Licence,
    direction: Direction,
    out: Out = None,
    test_tag: Annotated[str | None, typer.Option(help="A scalar that is reported, never selected by.")] = None,
    hyperparameters: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Name of the YAML or JSON file in each run's folder that holds them.",
            show_default="the hparams plugin's, else hparams.yaml, hparams.json or params.json",
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder in each run that holds the score, as validation beside train; each: every folder is a run.",
        ),
    ] = None,
    score: Score = None,
    iteration: Iteration = None,
    settings: Settings = None,
    incomplete: Incomplete = "error",
    iteration_zero: IterationZero = "error",
    iterations: Iterations = None,
    untimed: Untimed = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """A folder of TensorBoard runs."""
    from elastune.traces.importers import EventChoice, from_tensorboard

    folder = _folder(out, name)
    with progress("Reading event files") as on_progress:
        bundle = from_tensorboard(
            runs,
            folder,
            _description(name, source, licence, direction, score, iteration, settings),
            choice=EventChoice(tag=tag, test_tag=test_tag, hyperparameters=hyperparameters, part=part),
            rules=_rules(incomplete, iteration_zero, iterations),
            untimed=untimed,
            overwrite=overwrite,
            on_progress=on_progress,
        )
    _report(bundle, folder, as_json=as_json)


def _folder(out: Path | None, name: str) -> Path:
    """Where the bundle goes; its name is checked in any case."""
    from elastune.experiments.files import folder_name
    from elastune.experiments.spec.places import OWN_BUNDLES

    checked = folder_name(name, "--name")
    return out or OWN_BUNDLES / checked


def _rules(incomplete: Any, iteration_zero: Any, iterations: int | None) -> CurveRules:  # noqa: ANN401  typer checked them
    from elastune.traces.importers import CurveRules

    return CurveRules(incomplete=incomplete, iteration_zero=iteration_zero, iterations=iterations)


def _description(
    name: str,
    source: str,
    licence: str,
    direction: Any,  # noqa: ANN401  typer checked it
    score: str | None,
    iteration: str | None,
    settings: list[str] | None,
) -> Description:
    from elastune.traces.importers import Description

    return Description(
        name=name,
        source=source,
        licence=licence,
        direction=direction,
        score=score,
        iteration=iteration,
        others=_others(settings or []),
    )


def _conditions(where: list[str]) -> dict[str, str]:
    """Values by column, of texts such as `on_grid=True`."""
    from elastune.sim.model.errors import InputError

    for condition in where:
        if "=" not in condition:
            raise InputError(f"--where {condition}: must be COLUMN=VALUE, as in --where on_grid=True")
    return dict(condition.split("=", 1) for condition in where)


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
