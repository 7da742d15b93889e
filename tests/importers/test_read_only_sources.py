"""What is only read is never written to, nor mistaken for another file, whatever its name."""

from __future__ import annotations

import shutil
import sqlite3

import pandas as pd
import pytest
from tidy_tables import TIDY

from elastune import traces
from elastune.sim.model.errors import InputError
from elastune.traces.importers import CurveRules, EventChoice, from_optuna, from_table, from_tensorboard
from elastune.traces.importers.optuna_study import _read_only

NAMES = ("plain", "study#1", "runs?lr=1", "a%20b", "a b", "file:x", "100%", "x&mode=rwc", "sqlite:y", "ünï")


@pytest.fixture
def source(tmp_path):
    """A folder that holds nothing but what is read."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def new_study(path, number):
    optuna = pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[optuna]'")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": lambda: sqlite3.connect(path)})
    study = optuna.create_study(study_name=f"study {number}", storage=storage)
    trial = study.ask()
    trial.report(float(number), 1)
    study.tell(trial, float(number))
    storage.engine.dispose()


@pytest.mark.slow
@pytest.mark.parametrize("given", ["path", "url"])
def test_a_database_of_any_name_is_the_one_that_is_read(source, out, described, given):
    # Cut off at a # or a ?, or decoded, each name would be that of another database.
    for number, name in enumerate(NAMES):
        new_study(source / name, number)
    for number, name in enumerate(("study", "runs", "x")):
        new_study(source / name, 100 + number)
    before = contents(source)
    for number, name in enumerate(NAMES):
        origin = source / name if given == "path" else f"sqlite:///{source / name}"
        bundle = from_optuna(origin, out, described, untimed=True, overwrite=True)
        assert bundle.scores.tolist() == [[float(number)]], name
    assert contents(source) == before


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///absent.db",
        "sqlite+pysqlite:///absent.db",
        "sqlite:///absent.db?timeout=9",
        "sqlite:///file:absent.db?mode=rwc&uri=true",
        "absent?x=1.db",
    ],
)
def test_the_url_of_a_database_that_is_not_there_makes_none(tmp_path, monkeypatch, described, url):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[optuna]'")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is no such file"):
        from_optuna(url, tmp_path / "out", described)
    assert not list(tmp_path.iterdir())


def test_a_database_in_memory_is_no_source(described, out):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[optuna]'")
    with pytest.raises(InputError, match="a database in memory holds no study of another program"):
        from_optuna("sqlite://", out, described)


@pytest.mark.parametrize("is_checkpointed", [True, False])
def test_a_database_with_a_write_ahead_log_is_read_with_its_log_and_left_alone(source, out, described, is_checkpointed):
    new_study(source / "live.db", 7)
    writer = sqlite3.connect(source / "live.db")
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("UPDATE trial_intermediate_values SET intermediate_value = 8.0")
    writer.commit()
    copied = source.with_name("copied")
    if is_checkpointed:
        writer.close()
        shutil.copytree(source, copied)
    else:
        shutil.copytree(source, copied)  # as a program leaves it that was killed
        writer.close()
        assert (copied / "live.db-wal").stat().st_size
    before = contents(copied)
    assert from_optuna(copied / "live.db", out, described, untimed=True).scores.tolist() == [[8.0]]
    assert contents(copied) == before


def test_servers_are_asked_to_refuse_writing():
    assert _read_only("postgresql+psycopg2://host/db") == {"execution_options": {"postgresql_readonly": True}}
    for url in ("mysql+pymysql://host/db", "mariadb://host/db"):
        assert _read_only(url) == {"connect_args": {"init_command": "SET SESSION TRANSACTION READ ONLY"}}


@pytest.mark.parametrize("name", NAMES)
def test_tables_and_bundles_of_any_name_are_read_and_left_alone(source, out, described, name):
    (source / f"{name}.csv").write_text(TIDY)
    with (source / f"{name}.parquet").open("wb") as file:
        pd.read_csv(source / f"{name}.csv").to_parquet(file)
    before = contents(source)
    for ending in ("csv", "parquet"):
        bundle = from_table(source / f"{name}.{ending}", out.with_name(name), described, overwrite=True)
        assert bundle.scores.tolist() == [[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]]
    assert contents(source) == before
    written = contents(out.with_name(name))
    assert traces.load_bundle(out.with_name(name)).scores.shape == (2, 3)
    assert contents(out.with_name(name)) == written


@pytest.mark.parametrize("name", NAMES)
def test_event_files_below_a_folder_of_any_name_are_read_and_left_alone(source, fixtures, out, described, name):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install -e '.[tensorboard]'")
    shutil.copytree(fixtures / "tensorboard", source / name)
    before = contents(source)
    rules = CurveRules(incomplete="drop")
    assert from_tensorboard(source / name, out, described, choice=EventChoice(tag="val/loss"), rules=rules).trials == 3
    assert contents(source) == before


@pytest.mark.parametrize("table", ["trial_params", "trial_intermediate_values", "studies", "trials"])
def test_a_database_that_lacks_a_table_or_holds_nonsense_is_an_error(source, out, described, table):
    new_study(source / "study.db", 1)
    broken = sqlite3.connect(source / "study.db")
    broken.execute(f"DROP TABLE {table}")
    broken.commit()
    broken.close()
    with pytest.raises(InputError, match=r"study.db.*: Optuna cannot read it: "):
        from_optuna(source / "study.db", out, described)


def test_a_trial_that_optuna_cannot_read_is_an_error(source, out, described):
    new_study(source / "study.db", 1)
    broken = sqlite3.connect(source / "study.db")
    broken.execute("UPDATE trials SET datetime_start = 'noon'")
    broken.commit()
    broken.close()
    with pytest.raises(InputError, match=r"study.db.*: Optuna cannot read it: .*noon"):
        from_optuna(source / "study.db", out, described)
