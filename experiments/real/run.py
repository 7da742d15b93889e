"""Runs a spec on real workers, and resumes a run whose driver died.

Uses the controller and policy of a simulated run. The folder of a run holds spec.yaml, real.json (its options), journal.jsonl
(each entry is written before its commands are performed), nodes.jsonl (Ray's nodes by instance), checkpoints/ and, at the end,
result.json.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from elastune.experiments.files import locked, write_atomically, write_text
from elastune.experiments.real.options import RealRunOptions, absolute, options_of, require_named
from elastune.experiments.real.result import RealResult, real_answer, winner_checkpoint
from elastune.experiments.real.resume import NODES_FILE, cut_torn_note, note_lease, resumption_of
from elastune.experiments.real.slots import SLOTS, require_installed, slots_here
from elastune.experiments.real.trainables import EmulatedTrainables, WorkloadTrainables
from elastune.experiments.runs.accounts import Accounts
from elastune.experiments.runs.configurations import configuration_source, own_workload_of, workload_of
from elastune.experiments.runs.fold import Tables
from elastune.experiments.runs.journals import entries_of, header_of, with_named_policy, with_named_training
from elastune.experiments.runs.replay import require_same_data, require_same_prices, require_same_training
from elastune.experiments.runs.result import result_of
from elastune.experiments.runs.run_folder import (
    KIND_FILE,
    claim_folder,
    require_inside,
    require_kind,
    require_same_spec,
)
from elastune.experiments.runs.world import World, most_gpus
from elastune.experiments.spec.run import RunSpec
from elastune.sim.bridge.machines.cluster_folder import ClusterFolder
from elastune.sim.bridge.workers.checkpoint import CheckpointStore
from elastune.sim.control.journal import Entry, JournalWriter, Sink, Sinks, replay
from elastune.sim.control.runner import run
from elastune.sim.model.errors import InputError, ReplayError
from elastune.sim.model.streams import Streams
from elastune.traces.bundles.constraints import constraint_on

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from elastune.sim.bridge.backend import RayBackend
    from elastune.sim.bridge.machines.nodes import Nodes
    from elastune.sim.bridge.workers.resumption import Resumption
    from elastune.sim.bridge.workers.worker import TrainableFactory, WorkerSettings
    from elastune.sim.control.controller import Controller
    from elastune.traces.workloads import BatchMode, Workload

CLUSTER_FILE = "cluster.json"
"""Names the folder of the embedded cluster."""
_FILES = ("spec.yaml", "real.json", "journal.jsonl", NODES_FILE, CLUSTER_FILE, "result.json", KIND_FILE)
_TAKEN = "another process is running this run"


def execute_real(
    spec: RunSpec, folder: Path, options: RealRunOptions, *, watch: Callable[[Controller], Sink | None] = lambda _: None
) -> RealResult:
    """Run a spec on real workers.

    Args:
        spec: the run.
        folder: of the run; must not hold a run yet.
        options: of the run.
        watch: called with the controller; entries also go to what it returns.

    Raises:
        InputError: the workload cannot be trained, the spec wants noisy scores, there are fewer slots than the spec may use, no
            plan is feasible, or the folder holds a run already.
        WorkerError: the backend broke down. `resume_real` continues the run.
    """
    _require_packages(options, spec)
    if options.checkpoints is not None:
        options = replace(options, checkpoints=absolute(options.checkpoints))
    if spec.workload.score_noise is not None:
        raise InputError(
            f"workload.score_noise is {spec.workload.score_noise:g}, but workers report what they measure: leave it out"
        )
    real = _RealRun(World.of(spec), folder, options)
    real.require_slots()
    _require_new(folder)
    _require_usable(folder)
    # Problems of the workload or the plan are found before anything is written.
    settings = real.settings()
    if not CheckpointStore(settings.checkpoints, settings.keep).is_empty():
        raise InputError(
            f"{settings.checkpoints} holds checkpoints of another run, whose trials have the same numbers: choose another"
            " place (--checkpoints)"
        )
    sinks = Sinks()
    controller = real.world.controller(sinks)
    with locked(folder, _TAKEN):
        _require_new(folder)  # another driver may have begun meanwhile
        claim_folder(folder, "real run")
        spec.save(folder / "spec.yaml")
        write_text(folder / "real.json", json.dumps(asdict(options), indent=2) + "\n")
        return real.drive(controller, sinks, watch)


def _require_usable(folder: Path) -> None:
    """Check that the files of the run can be written, and lie in the folder.

    Raises:
        InputError: one of them is no regular file, or a link leads out of the folder.
    """
    require_kind(folder, "real run")
    require_inside(folder)
    for name in _FILES:
        path = folder / name
        if path.exists() and not path.is_file():
            raise InputError(f"{path} must be a file, but is something else: remove it, or choose another folder (-o)")


def _require_new(folder: Path) -> None:
    if (folder / "journal.jsonl").exists():
        raise InputError(f"{folder} holds a run already: resume it (--resume {folder}), or choose another folder (-o)")


def resume_real(
    folder: Path,
    *,
    ray_address: str | None = None,
    checkpoints: str | None = None,
    policy: str | None = None,
    trainable: str | None = None,
    watch: Callable[[Controller], Sink | None] = lambda _: None,
) -> RealResult:
    """Resume a run whose driver died, from its journal and checkpoints; of a run that has ended, only return the result.

    Somebody else may have made the folder, so nothing outside of it is used unless the caller names it as well.

    Args:
        folder: of the run.
        ray_address: of the cluster that the run used; None for an embedded one.
        checkpoints: where the run kept its checkpoints; None for its folder.
        policy: names the code, where the run's policy is somebody's own.
        trainable: names the code, where the run trains somebody's own.
        watch: called with the controller; entries also go to what it returns.

    Raises:
        InputError: the folder holds no real run, another driver runs it, its inputs have changed, or it uses a place
            outside that the caller does not name.
        ReplayError: the journal does not replay.
    """
    journal = folder / "journal.jsonl"
    if not journal.is_file() or not (folder / "real.json").is_file():
        raise InputError(f"--resume {folder}: there is no real run in this folder (journal.jsonl and real.json)")
    _require_usable(folder)
    options = options_of(folder / "real.json")
    require_named(options, ray_address, checkpoints)
    with locked(folder, _TAKEN):
        cut_torn_line(journal)
        cut_torn_note(folder / NODES_FILE)
        header = header_of(journal)
        require_same_prices(journal, header)
        spec = with_named_policy(RunSpec.recorded(header.spec), policy, folder)
        if options.speed is None:
            spec = with_named_training(spec, trainable, folder)
            require_same_training(journal, header, spec)
        _require_packages(options, spec)
        world = World.of(spec)
        require_same_data(journal, header, world)
        require_same_spec(folder, world.spec)
        entries = list(entries_of(journal))
        sinks = Sinks()
        controller = _replayed(world, journal, entries, sinks)
        left = resumption_of(controller, entries, folder) if entries else None
        return _RealRun(world, folder, options).drive(controller, sinks, watch, entries, left)


def _require_packages(options: RealRunOptions, spec: RunSpec) -> None:
    trains = () if options.speed is not None or spec.workload.trainable is not None else ("torch",)
    require_installed("a run on real workers", "ray", "psutil", "fsspec", *trains)


def _replayed(world: World, journal: Path, entries: Sequence[Entry], sinks: Sinks) -> Controller:
    """A controller in the state of the dead driver's, without sinks."""
    built: list[Controller] = []

    def fresh(sink: Sink) -> Controller:
        sinks.sinks.append(sink)
        built.append(world.controller(sinks))
        return built[0]

    try:
        replay(entries, fresh)
    except ReplayError as error:
        raise ReplayError(f"{journal}: this version decides differently from the one that ran it: {error}") from error
    sinks.sinks.clear()
    return built[0]


class _Decisions:
    """Measures the seconds of each decision. It is the first sink, so that writing does not count."""

    def __init__(self, backend: RayBackend) -> None:
        self.seconds: list[float] = []
        self._backend = backend

    def write(self, entry: Entry) -> None:  # noqa: ARG002  only its time counts
        self.seconds.append(time.perf_counter() - self._backend.handed_over_s)


@dataclass(frozen=True, eq=False)
class _RealRun:
    """A run with its folder and options."""

    world: World
    folder: Path
    options: RealRunOptions

    def drive(
        self,
        controller: Controller,
        sinks: Sinks,
        watch: Callable[[Controller], Sink | None],
        entries: Sequence[Entry] = (),
        left: Resumption | None = None,
    ) -> RealResult:
        """Run the loop, with the journal and all other sinks.

        Args:
            controller: of the run; writes to `sinks`.
            sinks: empty so far.
            watch: called with the controller; entries also go to what it returns.
            entries: written by an earlier driver.
            left: what that driver left behind; None for a new run.
        """
        world, started_s = self.world, time.monotonic()
        tables = Tables.of(entries, world.price_book)
        control_s: Sequence[float] = ()
        decision_s: Sequence[float] = ()
        if not controller.is_closed:
            with ExitStack() as stack:
                # First of all: if the cluster does not answer, there must be no journal, as the run has not begun.
                backend = stack.enter_context(closing(self.backend(left)))
                journal = self.folder / "journal.jsonl"
                header = None if journal.exists() else world.header(is_real=self.options.speed is None)
                writer = JournalWriter(stack.enter_context(journal.open("ab")), header, flush_each=True)
                watcher, decisions = watch(controller), _Decisions(backend)
                sinks.sinks += [decisions, writer, tables, *([] if watcher is None else [watcher])]
                run(controller, backend)
                control_s, decision_s = backend.control_s, decisions.seconds
        settings = self.settings()
        store = CheckpointStore(settings.checkpoints, settings.keep)
        answer = real_answer(world, controller, store)
        accounts = Accounts(world)
        accounts.read(tables.changes)
        result = result_of(world, controller, accounts, answer)
        saved = winner_checkpoint(controller, store)
        return RealResult(result, self.folder, tuple(control_s), tuple(decision_s), time.monotonic() - started_s, saved)

    def backend(self, left: Resumption | None) -> RayBackend:
        """Start the backend; if this fails, nothing of it is left."""
        from elastune.sim.bridge.backend import RayBackend
        from elastune.sim.bridge.machines.clock import Clock
        from elastune.sim.bridge.machines.fault_injector import FaultInjector

        world, spec, nodes_file = self.world, self.world.spec, self.folder / NODES_FILE
        source = configuration_source(spec, world.bundle, world.job)
        cloud = spec.cloud.truth(world.bundle.data_bytes) if self.options.injects else None
        nodes = self.nodes()
        try:
            return RayBackend(
                nodes,
                self.settings(),
                gpus_of={one.name: one.gpus_per_instance for one in world.price_book.instance_types},
                configurations=source,
                clock=Clock(self.options.speed or 1.0, 0.0 if left is None else left.at_s),
                fault_injector=FaultInjector(cloud, Streams(spec.seed)),
                on_lease=lambda number, node: note_lease(nodes_file, number, node),
                resumption=left,
            )
        except BaseException:
            nodes.close()
            raise

    def nodes(self) -> Nodes:
        """Connect to the cluster, or start one after ending what is left of a dead driver's."""
        if self.options.ray_address is not None:
            from elastune.sim.bridge.machines.attached import AttachedNodes

            return AttachedNodes(self.options.ray_address, self.options.device)
        from elastune.sim.bridge.machines.embedded import EmbeddedNodes

        note = self.folder / CLUSTER_FILE
        if note.is_file():
            left = ClusterFolder.of_note(note.read_text(encoding="utf-8"))
            left.require_no_driver()
            left.end_leftovers()
        nodes = EmbeddedNodes(self.options.device)
        try:
            write_atomically(note, nodes.folder.note().encode())
        except BaseException:
            nodes.close()
            raise
        return nodes

    def settings(self) -> WorkerSettings:
        """Settings of all workers.

        Raises:
            InputError: the workload cannot be trained.
        """
        from elastune.sim.bridge.workers.worker import WorkerSettings

        checkpoints = self.options.checkpoints or str((self.folder / "checkpoints").resolve())
        return WorkerSettings(self._trainables(), checkpoints, self.options.device, self.options.keep)

    def _trainables(self) -> TrainableFactory:
        world, spec, workload = self.world, self.world.spec, self.world.spec.workload
        if self.options.speed is not None:
            return EmulatedTrainables(world.truth, spec.seed, self.options.speed)
        if (own := own_workload_of(spec, world.job.direction)) is not None:
            return self._own_trainables(own)
        batch: BatchMode = "per-worker" if workload.batch == "per-worker" else "global"
        if workload.configurations in (None, "bundle"):
            trainables = WorkloadTrainables.of_bundle(world.bundle, world.job.trials, spec.seed, batch)
        else:
            known = workload_of(f"workload.configurations is {workload.configurations}", world.bundle)
            trainables = WorkloadTrainables(known.name, spec.seed, batch=batch)
        bounds = spec.job.bounds
        return replace(trainables, constraint=constraint_on(world.bundle, bounds)) if bounds else trainables

    def _own_trainables(self, own: Workload) -> TrainableFactory:
        world, spec = self.world, self.world.spec
        largest = min(world.profile.scaling.max_gpus, most_gpus(world.price_book) * world.price_book.max_instances)
        if not own.trains_in_gangs and largest > 1:
            raise InputError(
                f"trainable {own.name} trains on one GPU, but policies may use gangs of {largest}: say workload.scaling"
                " {1: 1}, or let it train by torch.distributed and say `distributed = True` in its class"
            )
        if spec.draws_anew:
            return WorkloadTrainables(own, spec.seed)
        return WorkloadTrainables.of_own(own, world.bundle, world.job.trials, spec.seed)

    def require_slots(self) -> None:
        """Check that this machine has a core or a GPU for each slot, because shared ones give wrong timings.

        Raises:
            InputError: the spec may use more slots.
        """
        if self.options.ray_address is not None or self.options.speed is not None:
            return
        gpus, quota = most_gpus(self.world.price_book), self.world.price_book.max_instances
        device, there = self.options.device, slots_here(self.options.device)
        if gpus * quota <= there:
            return
        less = f"an instance type with at most {there} GPUs" if there else "--device cpu"
        if there >= gpus:
            less = f"--set cloud.max_instances={there // gpus}"
        raise InputError(
            f"cloud.max_instances allows {quota} x {gpus} slots, but this machine has {there} {SLOTS[device]}: use {less}, name"
            " a cluster (--ray ADDRESS), or emulate the training (--emulate SPEED)"
        )


def cut_torn_line(journal: Path) -> None:
    """Cut an unfinished last line; its commands were not performed.

    Raises:
        InputError: not even the header is whole.
    """
    if not cut_torn_note(journal):
        raise InputError(f"{journal}: the driver died before the first event; remove the folder and start anew")
