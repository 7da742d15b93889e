"""elastune: decide how to spend a deadline and a cloud budget on hyperparameter tuning, before you pay for it.

This file is what `import elastune` gives. Names are imported when they are first used, so that the import is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elastune.experiments.comparisons.comparison import Comparison, compare
    from elastune.experiments.comparisons.recommendation import recommend
    from elastune.experiments.huggingface_callback import HuggingFaceCallback as HuggingFaceCallback  # noqa: PLC0414  not in __all__
    from elastune.experiments.lightning_callback import LightningCallback
    from elastune.experiments.plans.planning import make_plans as plan
    from elastune.experiments.real.ray_tune import tune_scheduler
    from elastune.experiments.reporting import checkpoint_folder, report
    from elastune.experiments.runs.replay import replay_journal
    from elastune.experiments.runs.result import RunResult
    from elastune.experiments.runs.simulate import execute
    from elastune.experiments.spec.cloud import CloudSpec as Cloud
    from elastune.experiments.spec.job import JobSpec as Job
    from elastune.experiments.spec.policy import PolicySpec as Policy
    from elastune.experiments.spec.run import RunSpec
    from elastune.experiments.spec.workload import WorkloadSpec as Workload
    from elastune.experiments.sweeps.run import sweep
    from elastune.traces.bundles.bundle import Bundle
    from elastune.traces.bundles.loading import load_bundle

__all__ = [
    "Bundle",
    "Cloud",
    "Comparison",
    "Job",
    "LightningCallback",
    "Policy",
    "RunResult",
    "RunSpec",
    "Workload",
    "checkpoint_folder",
    "compare",
    "execute",
    "load_bundle",
    "plan",
    "recommend",
    "replay_journal",
    "report",
    "sweep",
    "tune_scheduler",
]

_HOMES = {
    "Bundle": "elastune.traces.bundles.bundle",
    "Cloud": "elastune.experiments.spec.cloud:CloudSpec",
    "Comparison": "elastune.experiments.comparisons.comparison",
    "HuggingFaceCallback": "elastune.experiments.huggingface_callback",
    "Job": "elastune.experiments.spec.job:JobSpec",
    "LightningCallback": "elastune.experiments.lightning_callback",
    "Policy": "elastune.experiments.spec.policy:PolicySpec",
    "RunResult": "elastune.experiments.runs.result",
    "RunSpec": "elastune.experiments.spec.run",
    "Workload": "elastune.experiments.spec.workload:WorkloadSpec",
    "checkpoint_folder": "elastune.experiments.reporting",
    "compare": "elastune.experiments.comparisons.comparison",
    "execute": "elastune.experiments.runs.simulate",
    "load_bundle": "elastune.traces.bundles.loading",
    "plan": "elastune.experiments.plans.planning:make_plans",
    "recommend": "elastune.experiments.comparisons.recommendation",
    "replay_journal": "elastune.experiments.runs.replay",
    "report": "elastune.experiments.reporting",
    "sweep": "elastune.experiments.sweeps.run",
    "tune_scheduler": "elastune.experiments.real.ray_tune",
}
_EXTRAS = {"HuggingFaceCallback": "huggingface"}
"""Names that need an extra, by it. They are not in `__all__`, so that a star import works without."""
_PACKAGES = ("experiments", "policies", "sim", "traces")


def __getattr__(name: str) -> object:
    if name in _PACKAGES:
        return importlib.import_module(f"elastune.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    try:
        return getattr(importlib.import_module(module), attribute or name)
    except ModuleNotFoundError as error:
        if name not in _EXTRAS:
            raise
        problem = f"elastune.{name} needs {error.name}: pip install 'elastune[{_EXTRAS[name]}]'"
        raise ModuleNotFoundError(problem, name=error.name) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_PACKAGES})
