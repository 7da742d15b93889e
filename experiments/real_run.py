"""Running a spec on real workers, and going on with a run whose driver died.

The same controller and policy as in `running`, on the other backend. A run has a folder: spec.yaml, real.json (how it is run),
journal.jsonl (each entry before its orders are performed), nodes.jsonl (the machines behind the instances), checkpoints/ and,
at the end, result.json. Ray and torch are imported by the bridge, inside functions.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from experiments.belief import most_gpus
from experiments.configurations import configuration_source, workload_of
from experiments.ledger import Ledger
from experiments.placements import PlacementAccount
from experiments.real_result import RealResult, real_answer
from experiments.real_state import open_end, resumption_of
from experiments.run_result import result_of
from experiments.running import World
from experiments.spec import RunSpec
from experiments.trainables import EmulatedTrainables, WorkloadTrainables
from sim.bridge.checkpoint import CheckpointStore
from sim.journal import JournalWriter, read_entries, read_header, replay
from sim.model.errors import InputError, ReplayError
from sim.runner import run
from sim.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from sim.bridge.backend import RayBackend
    from sim.bridge.nodes import Nodes
    from sim.bridge.resumption import Resumption
    from sim.bridge.worker import TrainableFactory, Workshop
    from sim.controller import Controller
    from sim.journal import Entry, Sink


@dataclass(frozen=True, kw_only=True)
class Means:
    """How a spec is run for real; written to real.json, so that a run can go on as it began.

    Attributes:
        device: what a slot is: a CPU slot, or a CUDA GPU.
        ray_address: of a running Ray cluster; None for one of our own on this machine.
        checkpoints: folder or fsspec URL that every node reaches; None for `checkpoints` in the run's folder.
        speed: of an emulated run, in seconds of the run per second of the host; None trains for real.
        injects: whether the spec's start-up delays and losses are added to what really happens.
        keep: checkpoints kept of each trial.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    ray_address: str | None = None
    checkpoints: str | None = None
    speed: float | None = None
    injects: bool = False
    keep: int = 2

    def __post_init__(self) -> None:
        if self.speed is not None and not self.speed > 0:
            raise InputError(f"--emulate {self.speed}: seconds of the run per second here, so above 0")
        if self.keep < 2:
            raise InputError(f"keep is {self.keep}, but must be at least 2: the newest checkpoint may be a broken one")


def execute_real(
    spec: RunSpec, folder: Path, means: Means, *, watch: Callable[[Controller], Sink | None] = lambda _: None
) -> RealResult:
    """Run a spec on real workers.

    Args:
        spec: the run.
        folder: of the run; must not hold one yet.
        means: how it is run.
        watch: called with the controller; entries also go to what it returns.

    Raises:
        InputError: the workload cannot be trained, there are fewer slots than the spec may use, no plan is feasible, or the
            folder holds a run already.
        WorkerError: the backend itself broke down. The folder is kept, and `resume_real` goes on.
    """
    world = World.of(spec)
    _require_slots(world, means)
    if (folder / "journal.jsonl").exists():
        raise InputError(f"{folder} holds a run already: go on with it (--resume {folder}), or choose another folder (-o)")
    _workshop(world, folder, means)  # a workload that cannot be trained is told before anything is written
    sinks = _Sinks()
    controller = world.controller(sinks)
    with _owned(folder):
        _write_means(folder, spec, means)
        return _drive(world, folder, means, controller, sinks, header=True, watch=watch)


def resume_real(folder: Path, *, watch: Callable[[Controller], Sink | None] = lambda _: None) -> RealResult:
    """Go on with a run whose driver died, from its journal and its checkpoints; a run that has ended is only told of.

    Raises:
        InputError: the folder holds no real run, or another driver is running it.
        ReplayError: the journal does not replay.
    """
    journal = folder / "journal.jsonl"
    if not journal.is_file() or not (folder / "real.json").is_file():
        raise InputError(f"--resume {folder}: there is no real run in this folder (journal.jsonl and real.json)")
    means = Means(**json.loads((folder / "real.json").read_text(encoding="utf-8")))
    with _owned(folder):
        cut_torn_line(journal)
        world = World.of(RunSpec.of(**read_header(journal).spec))
        entries = list(read_entries(journal))
        sinks, built = _Sinks(), []

        def fresh(sink: Sink) -> Controller:
            sinks.sinks.append(sink)
            built.append(world.controller(sinks))
            return built[0]

        try:
            replay(entries, fresh)
        except ReplayError as error:
            raise ReplayError(f"{journal}: this version decides otherwise than the one that ran it: {error}") from error
        sinks.sinks.clear()
        left = resumption_of(built[0], entries, folder) if entries else None
        return _drive(world, folder, means, built[0] if built else world.controller(sinks), sinks, entries=entries, left=left, watch=watch)


class _Sinks:
    """Several sinks as one, to which some come later."""

    def __init__(self) -> None:
        self.sinks: list[Sink] = []

    def write(self, entry: Entry) -> None:
        for sink in self.sinks:
            sink.write(entry)


def _drive(
    world: World,
    folder: Path,
    means: Means,
    controller: Controller,
    sinks: _Sinks,
    *,
    watch: Callable[[Controller], Sink | None],
    header: bool = False,
    entries: Sequence[Entry] = (),
    left: Resumption | None = None,
) -> RealResult:
    """The loop, with everything that listens to it."""
    ledger = Ledger(world.price_book)
    placements = PlacementAccount(world.truth.scaling, most_gpus(world.price_book))
    for entry in entries:
        ledger.write(entry)
        placements.write(entry)
    started_s = time.monotonic()
    control_s: Sequence[float] = ()
    if not controller.is_closed:
        with ExitStack() as stack:
            stream = stack.enter_context((folder / "journal.jsonl").open("ab"))
            writer = JournalWriter(stream, world.header() if header else None, flush_each=True)
            watcher = watch(controller)
            sinks.sinks += [writer, ledger, placements, *([] if watcher is None else [watcher])]
            backend = stack.enter_context(closing(_backend(world, folder, means, left)))
            run(controller, backend)
            control_s = backend.control_s
    workshop = _workshop(world, folder, means)
    answer = real_answer(world, controller, CheckpointStore(workshop.checkpoints, workshop.keep))
    result = result_of(world, controller, ledger, placements.sums(), answer)
    return RealResult(result, folder, tuple(control_s), time.monotonic() - started_s)


def _backend(world: World, folder: Path, means: Means, left: Resumption | None) -> RayBackend:
    from sim.bridge.backend import RayBackend
    from sim.bridge.clock import Clock
    from sim.bridge.injected import Weather

    spec = world.spec
    nodes = _nodes(folder, means)
    try:
        weather = Weather(spec.cloud.truth(world.bundle.data_bytes), Streams(spec.seed)) if means.injects else Weather()
        notebook = folder / "nodes.jsonl"
        source = configuration_source(spec, world.bundle, world.job)
        return RayBackend(
            nodes,
            _workshop(world, folder, means),
            gpus_of={one.name: one.gpus_per_instance for one in world.price_book.instance_types},
            configurations=source,
            clock=Clock(means.speed or 1.0, 0.0 if left is None else left.at_s),
            weather=weather,
            on_lease=lambda number, node: open_end(notebook, {"instance": number, **asdict(node)}),
            resumption=left,
        )
    except BaseException:
        nodes.close()
        raise


def _nodes(folder: Path, means: Means) -> Nodes:
    """The machines; what an embedded cluster of a driver that died has left running is ended first."""
    if means.ray_address is not None:
        from sim.bridge.attached import AttachedNodes

        return AttachedNodes(means.ray_address, means.device)
    from pathlib import Path

    from sim.bridge.embedded import EmbeddedNodes
    from sim.bridge.keeper import end_leftovers

    note = folder / "cluster.txt"
    if note.is_file():
        end_leftovers(Path(note.read_text(encoding="utf-8")))
    nodes = EmbeddedNodes(means.device)
    note.write_text(str(nodes.folder), encoding="utf-8")
    return nodes


def _workshop(world: World, folder: Path, means: Means) -> Workshop:
    from sim.bridge.worker import Workshop

    spec = world.spec
    build: TrainableFactory
    if means.speed is not None:
        build = EmulatedTrainables(world.truth, spec.seed, means.speed)
    elif spec.workload.configurations in (None, "bundle"):
        build = WorkloadTrainables.of_bundle(world.bundle, world.job.trials, spec.seed, spec.workload.batch or "global")
    else:
        workload = workload_of(f"workload.configurations is {spec.workload.configurations}", world.bundle)
        build = WorkloadTrainables(workload.name, spec.seed, batch=spec.workload.batch or "global")
    checkpoints = means.checkpoints or str((folder / "checkpoints").resolve())
    return Workshop(build=build, checkpoints=checkpoints, device=means.device, keep=means.keep)


def _require_slots(world: World, means: Means) -> None:
    """Real training on our own machine takes a core or a GPU for each slot: more would share them, and time nothing real.

    Raises:
        InputError: the spec may use more than there are.
    """
    if means.ray_address is not None or means.speed is not None:
        return
    wanted = world.price_book.max_instances * most_gpus(world.price_book)
    if means.device == "cuda":
        from sim.bridge.embedded import visible_gpus

        there, what = len(visible_gpus()), "CUDA devices"
    else:
        there, what = len(os.sched_getaffinity(0)), "CPU cores"
    if wanted > there:
        raise InputError(
            f"cloud.max_instances allows {wanted} slots, but this machine has {there} {what}: lower it with --set"
            f" cloud.max_instances={max(there // most_gpus(world.price_book), 1)} (and an instance type with few enough GPUs),"
            " name a cluster (--ray ADDRESS), or emulate the training (--emulate SPEED)"
        )


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """One driver at a time; the lock ends with its process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{folder}: another process is running this run") from error
        yield


def _write_means(folder: Path, spec: RunSpec, means: Means) -> None:
    spec.save(folder / "spec.yaml")
    (folder / "real.json").write_text(json.dumps(asdict(means), indent=2) + "\n", encoding="utf-8")


def cut_torn_line(journal: Path) -> None:
    """Cut what a driver that died had not written to its end: nothing of it was performed yet.

    Raises:
        InputError: not even the header was written.
    """
    text = journal.read_bytes()
    whole = text.rfind(b"\n") + 1
    if not whole:
        raise InputError(f"{journal}: the driver died before anything had happened; remove the folder and start anew")
    if whole < len(text):
        with journal.open("rb+") as stream:
            stream.truncate(whole)
