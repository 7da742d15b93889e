"""Importers: what other programs recorded, as bundles.

One module per source turns it into `RecordedCurves`; `regular` checks them and `assemble` writes the bundle. They import the
pure core, numpy and their neighbours; pandas, pyarrow, mlflow, optuna, tensorboard and wandb inside the functions that need
them. What is only read is never opened for writing.
"""

from elastune.traces.importers.blackbox import BlackboxChoice, from_blackbox
from elastune.traces.importers.blackbox_folder import BlackboxFolder, blackbox_folder, from_blackbox_folder
from elastune.traces.importers.mlflow_runs import from_mlflow
from elastune.traces.importers.optuna_study import from_optuna, study_names
from elastune.traces.importers.read_table import table_columns
from elastune.traces.importers.recording import CurveRules, Description
from elastune.traces.importers.table import TableColumns, from_table
from elastune.traces.importers.tensorboard_runs import EventChoice, from_tensorboard
from elastune.traces.importers.wandb_runs import from_wandb

__all__ = [
    "BlackboxChoice",
    "BlackboxFolder",
    "CurveRules",
    "Description",
    "EventChoice",
    "TableColumns",
    "blackbox_folder",
    "from_blackbox",
    "from_blackbox_folder",
    "from_mlflow",
    "from_optuna",
    "from_table",
    "from_tensorboard",
    "from_wandb",
    "study_names",
    "table_columns",
]
