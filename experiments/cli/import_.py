"""`elastune bundles import`: what other programs recorded, as bundles. Imports typer; the rest when needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elastune.experiments.cli.import_options import (
    Common,
    Direction,
    ElapsedColumn,
    IterationColumn,
    ScoreColumn,
    SecondsColumn,
    TrialColumn,
    column_option,
    completes,
    importer,
)
from elastune.experiments.cli.numbers import count_option
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from elastune.traces import Bundle

app = typer.Typer(
    help="Make a bundle of what another program recorded. Nothing is repaired unless an option asks for it, and what was done"
    " is noted in the bundle.",
    no_args_is_help=True,
)


_complete_objective = completes("blackbox", lambda read, folder: read.BlackboxFolder.open(folder).objectives)
_complete_task = completes("blackbox", lambda read, folder: read.BlackboxFolder.open(folder).tasks)
_complete_study = completes("storage", lambda read, storage: read.study_names(storage))

_STUDY_DIRECTION = Annotated[
    Direction | None, typer.Option(help="Checked against the study's own.", show_default=False)
]


@importer(app, "table")
def import_table(
    common: Common,
    table: Annotated[
        Path, typer.Argument(help="A CSV or parquet file, a row per trial and iteration.", show_default=False)
    ],
    trial_column: TrialColumn = "trial",
    iteration_column: IterationColumn = "iteration",
    score_column: ScoreColumn = "score",
    seconds_column: SecondsColumn = None,
    elapsed_column: ElapsedColumn = None,
    test_score_column: Annotated[
        str | None, column_option("--test-score-column", "Reported, never selected by.", "test_score, if there")
    ] = None,
    config_columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...", help="Hyperparameters.", show_default="all others that are constant in each trial"
        ),
    ] = None,
    replicate_column: Annotated[
        str | None, column_option("--replicate-column", "Numbers the trainings of a trial.", "replicate, if there")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Read only the rows that hold this value.", show_default="all rows"),
    ] = None,
    configs: Annotated[Path | None, typer.Option(help="A second table, a row of hyperparameters per trial.")] = None,
) -> Bundle:
    """A tidy table, a row per trial and iteration."""
    from elastune.experiments.spec.yaml_file import names_in
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
    return from_table(table, columns=columns, configurations=configs, untimed=common.untimed, **common.given())


@importer(app, "syne-tune")
def import_syne_tune(
    common: Common,
    blackbox: Annotated[
        str,
        typer.Argument(
            help="A folder that Syne Tune wrote, or a name in its repository (lcbench, pd1, ...).", show_default=False
        ),
    ],
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
) -> Bundle:
    """One task of a tabular blackbox of Syne Tune's (LCBench, NAS-Bench-201, FCNet, PD1, ...)."""
    from elastune.traces.importers import BlackboxChoice, blackbox_folder, from_blackbox_folder

    choice = BlackboxChoice(
        objective=objective,
        elapsed=elapsed,
        seconds=seconds,
        test_score=test_score,
        seed=None if all_training_seeds else training_seed,
        untimed=common.untimed,
    )
    return from_blackbox_folder(blackbox_folder(blackbox), task=task, choice=choice, **common.given())


@importer(app, "optuna", direction=_STUDY_DIRECTION)
def import_optuna(
    common: Common,
    storage: Annotated[
        str, typer.Argument(help="An SQLite or journal file, or a URL; it is only read.", show_default=False)
    ],
    study: Annotated[
        str | None, typer.Option(help="Which one, if there are several.", autocompletion=_complete_study)
    ] = None,
) -> Bundle:
    """A study of Optuna whose trials reported intermediate values."""
    from elastune.traces.importers import from_optuna

    return from_optuna(storage, study_name=study, untimed=common.untimed, **common.given())


@importer(app, "tensorboard")
def import_tensorboard(
    common: Common,
    runs: Annotated[
        Path, typer.Argument(help="The folder above the runs, each of which is a trial.", show_default=False)
    ],
    tag: Annotated[str, typer.Option(help="The scalar that is the score.", show_default=False)],
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
) -> Bundle:
    """A folder of TensorBoard runs."""
    from elastune.traces.importers import EventChoice, from_tensorboard

    return from_tensorboard(
        runs,
        choice=EventChoice(tag=tag, test_tag=test_tag, hyperparameters=hyperparameters, part=part),
        untimed=common.untimed,
        **common.given(),
        on_progress=common.on_progress,
    )


_Metric = Annotated[str, typer.Option(help="The metric that is the score.", show_default=False)]


@importer(app, "mlflow")
def import_mlflow(
    common: Common,
    store: Annotated[
        str,
        typer.Argument(help="A tracking folder (mlruns), or the URI of a database or server.", show_default=False),
    ],
    metric: _Metric,
    experiment: Annotated[str | None, typer.Option(help="Its name, if several have runs.", show_default=False)] = None,
) -> Bundle:
    """The runs of an experiment of MLflow."""
    from elastune.traces.importers import from_mlflow

    return from_mlflow(store, metric=metric, experiment=experiment, untimed=common.untimed, **common.given())


@importer(app, "wandb")
def import_wandb(
    common: Common,
    runs: Annotated[Path, typer.Argument(help="The folder above the offline runs.", show_default=False)],
    metric: _Metric,
    clock: Annotated[str, typer.Option(help="The metric that is the seconds since the run began.")] = "_runtime",
) -> Bundle:
    """Offline runs of Weights & Biases."""
    from elastune.traces.importers import from_wandb

    return from_wandb(runs, metric=metric, clock=clock, untimed=common.untimed, **common.given())


def _conditions(where: list[str]) -> dict[str, str]:
    """Values by column, of texts such as `on_grid=True`."""
    for condition in where:
        if "=" not in condition:
            raise InputError(f"--where {condition}: must be COLUMN=VALUE, as in --where on_grid=True")
    conditions = dict(condition.split("=", 1) for condition in where)
    if len(conditions) < len(where):
        raise InputError(f"--where {', '.join(where)}: a column is named twice, but rows hold one value of it")
    return conditions
