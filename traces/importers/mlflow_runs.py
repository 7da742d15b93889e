"""Runs of MLflow, each a trial, as bundles. Imports its neighbours; mlflow when runs are read."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from elastune.sim.model.errors import InputError, unknown
from elastune.traces.importers.assemble import write_recording
from elastune.traces.importers.logged_runs import LoggedRun, recording_of_runs
from elastune.traces.importers.recording import CurveRules, Description

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient
    from mlflow.entities import Run

    from elastune.traces.bundles.bundle import Bundle

INSTALL = "pip install 'elastune[mlflow]'"
_PAGE = 1000
_SQLITE = "sqlite:///"


def from_mlflow(
    store: str | Path,
    out: str | Path,
    description: Description,
    *,
    metric: str,
    experiment: str | None = None,
    rules: CurveRules | None = None,
    untimed: bool = False,
    overwrite: bool = False,
) -> Bundle:
    """Write the runs of an experiment that logged a metric as a bundle; the step is the iteration.

    Args:
        store: a tracking folder (`mlruns`), or the URI of a database or server; it is only read.
        out: folder of the bundle.
        description: what the runs do not say.
        metric: the score.
        experiment: its name, where the store has several with runs.
        rules: how irregular curves become regular.
        untimed: leave the seconds out.
        overwrite: whether a bundle that is already there makes way.

    Raises:
        InvalidTraceError: no run logged the metric, or the runs are not what a bundle needs.
        InputError: mlflow is not installed or cannot read the store, or there are several experiments and none is named.
    """
    with _copied(str(store)) as copy, opened(copy, told=str(store)) as client:
        try:
            logged = [_logged(client, run) for run in _runs(client, str(store), experiment)]
        except (InputError, _mlflow_error()):
            raise
        except Exception as error:  # of a damaged store: of the standard library, of YAML, or no class of its own
            problem = " ".join(str(error).split())
            raise InputError(f"{store}: MLflow cannot read it: {type(error).__name__}: {problem}") from error
    recording = recording_of_runs(logged, metric, str(store), "MLflow", untimed=untimed)
    return write_recording(recording, description, rules or CurveRules(), Path(out), overwrite=overwrite)


@contextmanager
def _copied(store: str) -> Iterator[str]:
    """What MLflow may open: it writes where it only reads, a bin into a folder and tables into any database.

    Raises:
        InputError: there is no such folder or file.
    """
    is_database = store.startswith(_SQLITE)
    if "://" in store and not is_database:
        yield store
        return
    place = Path(store.removeprefix(_SQLITE).partition("?")[0])
    if not (place.is_file() if is_database else place.is_dir()):
        kind = "file" if is_database else "folder"
        raise InputError(f"{store}: there is no such {kind}; give a tracking folder (mlruns) or a URI")
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / "copy"
        if not is_database:
            # The folders of artifacts must be there, but nothing in them is needed.
            shutil.copytree(
                place, copy, symlinks=True, ignore=lambda at, names: names if at.endswith("artifacts") else []
            )
            yield str(copy)
            return
        for ending in ("-wal", "-journal", ""):
            if (part := Path(f"{place}{ending}")).is_file():
                shutil.copyfile(part, f"{copy}{ending}")
        yield f"{_SQLITE}{copy}"


def _mlflow_error() -> type[Exception]:
    from mlflow.exceptions import MlflowException

    found: type[Exception] = MlflowException
    return found


@contextmanager
def opened(store: str | Path, *, told: str | None = None) -> Iterator[MlflowClient]:
    """A client of a tracking folder or URI; folders are allowed and nothing is reported home while the block runs.

    Args:
        store: the folder or URI.
        told: what errors call it.

    Raises:
        InputError: mlflow is not installed, or refuses what it is asked for.
    """
    set_before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise InputError(f"runs of MLflow take mlflow: {INSTALL} ({error})") from error
        uri = str(store) if "://" in str(store) else Path(store).resolve().as_uri()
        try:
            yield MlflowClient(tracking_uri=uri, registry_uri=uri if uri.startswith("http") else None)
        except MlflowException as error:
            raise InputError(f"{told or store}: MLflow says: {' '.join(str(error).split())}") from error
    finally:
        for name, value in set_before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_ENVIRONMENT = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}


def _runs(client: MlflowClient, store: str, name: str | None) -> list[Run]:
    """The runs of the experiment of this name, or of the only one that has any."""
    experiments = {one.name: one.experiment_id for one in client.search_experiments()}
    if name is not None and name not in experiments:
        raise unknown("experiment", name, experiments)
    wanted = experiments if name is None else {name: experiments[name]}
    runs = {one: client.search_runs([number], max_results=_PAGE) for one, number in wanted.items()}
    having = {one: found for one, found in runs.items() if found}
    if len(having) != 1:
        told = f"name one with --experiment: {', '.join(having)}" if having else "there is nothing to import"
        raise InputError(f"{store} has {len(having)} experiments with runs; {told}")
    (found,) = having.values()
    everything = list(found)
    while found.token:
        found = client.search_runs([everything[0].info.experiment_id], max_results=_PAGE, page_token=found.token)
        everything += found
    return everything


def _logged(client: MlflowClient, run: Run) -> LoggedRun:
    began_ms = run.info.start_time
    metrics = {
        name: [
            (one.step, one.value, (one.timestamp - began_ms) / 1000)
            for one in client.get_metric_history(run.info.run_id, name)
        ]
        for name in run.data.metrics
    }
    return LoggedRun(
        name=run.info.run_name,
        key=run.info.run_id,
        began_s=began_ms / 1000,
        parameters=run.data.params,
        metrics=metrics,
    )
