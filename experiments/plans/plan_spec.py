"""The spec of a job that is planned, and what planners believe of it.

A planner needs no curves: a spec without a bundle will do, as long as it says how long an iteration takes and how it scales. It
may leave out the policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.experiments.runs.world import terms_of
from elastune.experiments.spec.places import read_run_spec, spec_file
from elastune.experiments.spec.run import RunSpec
from elastune.experiments.spec.yaml_file import with_settings
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from elastune.sim.model.profile import Profile


def load_plan_spec(path: str | Path, settings: Sequence[str] = ()) -> RunSpec:
    """The spec of a YAML file, or the shipped one of this name; its policy may be missing.

    Raises:
        InputError: as `RunSpec.load`.
    """
    mapping = with_settings(read_run_spec(spec_file(path)), settings)
    return RunSpec.of(**{"policy": "rubberband", **mapping})


def bundles_of(path: str | Path) -> list[str]:
    """The bundles of a spec that names several, as `workload: {bundle: [a, b]}`; none where it names one.

    Raises:
        InputError: as `RunSpec.load`; or the list is empty, or holds something else.
    """
    workload = read_run_spec(spec_file(path)).get("workload")
    given = workload.get("bundle") if isinstance(workload, dict) else None
    if not isinstance(given, list):
        return []
    if not given or not all(isinstance(name, str) for name in given):
        raise InputError(f"{path}: workload.bundle is {given!r}, but must be a name, a path, or a list of these")
    return given


def planning_profile(spec: RunSpec) -> Profile:
    """What planners believe about workload and cloud.

    Raises:
        InputError: neither the spec nor a bundle says how long an iteration takes, or how it scales; or the bundle's curves do
            not cover the job.
    """
    errors, cloud = spec.workload.profile.errors(), spec.cloud
    if spec.workload.bundle is None:
        return terms_of(spec, None).profile(cloud.startup_delays(), errors)
    bundle = spec.bundle()
    if not spec.draws_anew:
        bundle.require_covers(spec.job.tuning_job(bundle.direction))
    return bundle.profile_of(terms_of(spec, bundle), cloud.startup_delays(bundle.data_bytes), errors)
