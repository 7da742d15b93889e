"""`tune_scheduler`: a policy of the registry for `ray.tune.Tuner`. Imports ray only inside the function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastune.experiments.runs.world import Belief, new_header
from elastune.experiments.spec.run import RunSpec
from elastune.sim.bridge.tune.values import plain
from elastune.sim.control.journal import Entry, Header, JournalWriter
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from typing import BinaryIO

    from elastune.sim.bridge.tune.scheduler import TuneExperiment, TuneScheduler
    from elastune.sim.control.controller import Controller
    from elastune.sim.model.commands import Command
    from elastune.sim.model.events import Event
    from elastune.sim.model.ids import TrialId

FREE_MACHINES = {"price_usd_per_hour": 0.0, "gpus_per_instance": 1}
"""The cloud if none is given: machines of one GPU that cost nothing."""
CLOUD_KEYS = (
    "instance_type",
    "price_usd_per_hour",
    "gpus_per_instance",
    "prices",
    "region",
    "billing",
    "head_node",
    "head_node_usd_per_hour",
    "max_instances",
    "sync_s",
    "rescale_s",
    "placement",
)
"""Keys for machines that exist already; all other keys say how machines start and end."""


class JournalFile:
    """A journal on disk. The first entry creates the file; each entry is written before its commands are performed."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self._header = header
        self._stream: BinaryIO | None = None
        self._writer: JournalWriter | None = None

    def write(self, entry: Entry) -> None:
        """Append one entry."""
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("xb")
            self._writer = JournalWriter(self._stream, self._header, flush_each=True)
        self._writer.write(entry)

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()


@dataclass(eq=False)
class TuneRun:
    """The run of a policy under Tune; see `sim.bridge.tune.scheduler.SteeredRun`.

    Attributes:
        spec: of the run, with Tune's trials and machines.
    """

    spec: RunSpec
    controller: Controller
    journal: JournalFile | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the policy has finished the run."""
        return self.controller.is_finished

    @property
    def best(self) -> TrialId | None:
        """Number of the trial that the policy named, in the order in which Tune added them."""
        return self.controller.best

    @property
    def makespan_s(self) -> float:
        """Seconds from Tune's first question to FinishRun; 0 before."""
        return self.controller.finished_at_s

    @property
    def cost_usd(self) -> float:
        """The bill of the machines held, at the spec's prices."""
        state = self.controller.state
        return state.bill.spent_usd(self.controller.finished_at_s if self.is_finished else state.now_s)

    def handle(self, event: Event) -> Sequence[Command]:
        """Handle an event; it is in the journal before its commands are returned."""
        return self.controller.handle(event)

    def story(self) -> str:
        """The state of the run, for errors."""
        return self.controller.story()

    def status(self) -> str:
        """The state of the run, for a progress line."""
        state = self.controller.state
        return (
            f"{self.controller.name} at {state.now_s:.0f} s: {state.running_trials} trials running,"
            f" {len(state.waiting)} waiting for GPUs, {len(state.started)} started, {self.cost_usd:.2f} USD"
        )

    def close(self) -> None:
        """Close the journal."""
        if self.journal is not None:
            self.journal.close()


def tune_scheduler(  # noqa: PLR0913  all but the policy by keyword, each a choice of the user
    policy: str | Mapping[str, Any] = "seer",
    *,
    job: Mapping[str, Any],
    workload: Mapping[str, Any],
    cloud: Mapping[str, Any] | None = None,
    resources_per_gpu: Mapping[str, float] | None = None,
    metric: str | None = None,
    mode: str | None = None,
    time_attr: str = "training_iteration",
    journal: str | Path | None = None,
    seed: int = 0,
) -> TuneScheduler:
    """The scheduler for `tune.TuneConfig(scheduler=..., num_samples=...)`.

    Sections are those of a run spec. The job's trials are those that Tune adds (`num_samples`), `time_attr` counts its
    iterations, and its limits count from the first time that Tune asks for a trial.

    Args:
        policy: name, or name and parameters, as in a spec.
        job: without trials and direction; `max_iterations` at least.
        workload: `bundle`, or `iteration_s` (seconds of an iteration on one GPU) and `scaling`.
        cloud: price and size of the machines in Tune's cluster, and `rescale_s` (seconds to launch a trial); None for free
            machines of one GPU.
        resources_per_gpu: Ray's resources of one GPU; by default `{"cpu": 1}`.
        metric: key of the score in results; None if `TuneConfig` has it.
        mode: `min` or `max`; None if `TuneConfig` has it.
        time_attr: key of the iterations completed in results.
        journal: a file that does not exist yet.
        seed: of the policy's random draws.

    Raises:
        InputError: a section is wrong, or ray[tune] is not installed. Problems that depend on the number of trials or on the
            cluster are raised by `Tuner.fit`, before anything is trained.
    """
    given = {"job": job, "workload": workload, "cloud": FREE_MACHINES if cloud is None else cloud}
    for name, section in given.items():
        if not isinstance(section, Mapping):
            raise InputError(f"{name} is {section!r}, but must be a mapping of keys to values")
    sections = plain({**given, "policy": policy, "seed": seed})
    _check(sections, is_priced=cloud is not None)
    path = None if journal is None else Path(journal)
    if path is not None and path.exists():
        raise InputError(f"{path}: there is a journal already, of a run that was paid for: name another file")
    try:
        from elastune.sim.bridge.tune.scheduler import TuneScheduler
    except ImportError as error:
        raise InputError(f"Ray Tune cannot be imported ({error}): pip install 'elastune[tune]'") from error
    return TuneScheduler(
        partial(_begin, sections, path),
        time_attr=time_attr,
        metric=metric,
        mode=mode,
        resources_per_gpu=resources_per_gpu,
    )


def _check(sections: Mapping[str, Any], *, is_priced: bool) -> None:
    """Check what is known before Tune begins."""
    job, cloud = sections["job"], sections["cloud"]
    for key, instead in (
        ("trials", "num_samples of tune.TuneConfig"),
        ("direction", "mode"),
        ("stages", "the other keys"),
    ):
        if key in job:
            raise InputError(f"job.{key} is given, but under Ray Tune {instead} says it: leave it out")
    if job.get("budget_usd") is not None and not is_priced:
        raise InputError("job.budget_usd is given, but cloud is not, so that machines cost nothing: give their price")
    for key in cloud:
        if key not in CLOUD_KEYS:
            raise InputError(
                f"cloud.{key} is given, but under Ray Tune machines are there already; what can be said of them:"
                f" {', '.join(CLOUD_KEYS)}"
            )
    job = job | {"trials": 1}
    spec = RunSpec.of(**{**sections, "job": job})
    Belief.of(spec)
    entry = spec.policy.entry
    if entry.needs_truth:
        raise InputError(f"policy {spec.policy.name} is told the true curves, which Ray Tune does not know")
    if entry.needs_real_workers:
        raise InputError(
            f"policy {spec.policy.name} changes configurations, and trials continue from each other's checkpoints, which this"
            " scheduler cannot do: Ray Tune has a PopulationBasedTraining of its own"
        )


def _spec_of(sections: Mapping[str, Any], found: TuneExperiment, *, instances: int) -> RunSpec:
    job = sections["job"] | {"trials": found.trials, "direction": found.direction}
    return RunSpec.of(**{**sections, "job": job, "cloud": sections["cloud"] | {"max_instances": instances}})


def _begin(sections: Mapping[str, Any], journal: Path | None, found: TuneExperiment) -> TuneRun:
    """Begin the run in the cluster that Tune has.

    Raises:
        InputError: the cluster is smaller than one machine, or the policy finds no plan within deadline and budget.
    """
    spec = _spec_of(sections, found, instances=1)
    size = spec.price_book().default_type.gpus_per_instance
    instances = found.gpus // size
    if not instances:
        raise InputError(
            f"cloud.gpus_per_instance is {size}, but Ray's cluster has {found.gpus} GPUs in all (resources_per_gpu)"
        )
    most = sections["cloud"].get("max_instances", instances)
    belief = Belief.of(_spec_of(sections, found, instances=min(instances, most)))
    file = None if journal is None else JournalFile(journal, new_header(belief.spec, belief.bundle))
    return TuneRun(belief.spec, belief.controller(file), file)
