"""Trains sampled configurations of a workload and writes their curves as a bundle. Only the workers import torch.

Each worker process has one CPU slot and takes the next trial until none is left. A record is on disk when its iteration ends:
`kill -9` loses only the current iteration of each worker. Training continues from the last checkpoint: iterations after it are
trained again, which must give the recorded scores. Their first measurement stays.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from elastune.experiments.profiling.curve_bundle import (
    TWICE,
    ProfileArguments,
    assemble_bundle,
    is_complete,
    read_trial,
    trial_part,
)
from elastune.experiments.profiling.records import CheckpointCost, IterationRecord, Probe
from elastune.experiments.profiling.work_folder import WorkFolder
from elastune.sim.bridge.machines.isolation import isolate_children
from elastune.sim.model.errors import InputError, WorkerError
from elastune.traces.workloads import ScoredTrainable, Workload, training_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.context import SpawnProcess
    from multiprocessing.sharedctypes import Synchronized
    from pathlib import Path


_log = logging.getLogger(__name__)
_SPAWN = multiprocessing.get_context("spawn")

_POLL_S = 0.25


@dataclass(frozen=True)
class Effort:
    """Work beside the training itself; it changes no score.

    Attributes:
        checkpoint_every_s: seconds of work between checkpoints.
        probes: fresh processes, which measure start-up and the spread between processes.
        probe_training_s: training in each of them; at least three iterations.
    """

    checkpoint_every_s: float = 1.0
    probes: int = 5
    probe_training_s: float = 1.0

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise InputError(f"profile: probes is {self.probes}, but must be at least 1")


@dataclass(frozen=True)
class _Job:
    """Everything a worker process needs to know."""

    workload: Workload
    arguments: ProfileArguments
    out_dir: Path
    effort: Effort

    def build(self, trial: int) -> ScoredTrainable:
        """A training before its first iteration."""
        configuration, replicate = self.arguments.trial_of(trial)
        return self.workload.build(
            self.workload.configuration_of(self.arguments.seed, configuration),
            training_seed(self.arguments.seed, configuration, replicate),
        )


def profile_workload(  # noqa: PLR0913  what decides a profile, each by its name
    workload: Workload,
    trials: int,
    iterations: int,
    jobs: int,
    out_dir: Path,
    seed: int = 0,
    *,
    again: int = 0,
    replicates: int = TWICE,
    effort: Effort = Effort(),
    on_progress: Callable[[str, int, int], None] = lambda _phase, _done, _total: None,
) -> Path:
    """Train `trials` configurations for `iterations` iterations each and write the bundle; a second call continues.

    Args:
        workload: what is trained.
        trials: configurations drawn from its search space.
        iterations: iterations of each.
        jobs: worker processes, with one CPU slot each.
        out_dir: folder of the bundle; `.partial` in it keeps the work until the bundle is complete.
        seed: decides configurations, weights and data order.
        again: how many of them, the first ones, are trained again with other weights and another order of the data.
        replicates: trainings of each of these, the first one counted.
        effort: beside the training itself.
        on_progress: called with the phase and the numbers of its done and of all steps.

    Returns:
        The folder of the bundle.

    Raises:
        InputError: an argument is out of range, or the folder holds a profile with other arguments.
        WorkerError: a worker failed; the same call continues.
    """
    for name, value in (("trials", trials), ("iterations", iterations), ("jobs", jobs)):
        if value < 1:
            raise InputError(f"profile: {name} is {value}, but must be at least 1")
    if not 0 <= again <= trials:
        raise InputError(f"profile: again is {again}, but must be from 0 to {trials}, the trials")
    if replicates < TWICE:
        raise InputError(f"profile: replicates is {replicates}, but must be at least {TWICE}")
    arguments = ProfileArguments(workload.name, trials, iterations, seed, again, replicates)
    folder, asked = WorkFolder(out_dir), arguments.asked(workload)
    if is_complete(out_dir, arguments, workload):
        _log.info("%s is already complete", out_dir)
        if folder.asked() == asked:
            folder.remove()
        return out_dir
    folder.open(asked)
    job = _Job(workload, arguments, out_dir, effort)
    try:
        _train_all(job, jobs, on_progress)
    except WorkerError:
        if not any(trial_part(folder, trial).lines() for trial in range(arguments.trainings)):
            folder.remove()  # else mended code would be refused for the sake of nothing
        raise
    assemble_bundle(
        workload, arguments, folder, jobs, lambda trial, mean_s: _probe_all(job, trial, mean_s, on_progress)
    )
    return out_dir


def _train_all(job: _Job, jobs: int, on_progress: Callable[[str, int, int], None]) -> None:
    """Run workers until every trial is complete; all have ended when this returns."""
    folder, arguments = WorkFolder(job.out_dir), job.arguments
    parts = [trial_part(folder, trial) for trial in range(arguments.trainings)]
    total = arguments.trainings * arguments.iterations
    complete: set[int] = set()

    def report() -> None:
        lines = [arguments.iterations if trial in complete else part.lines() for trial, part in enumerate(parts)]
        complete.update(trial for trial, count in enumerate(lines) if count > arguments.iterations)
        on_progress("training", sum(min(count, arguments.iterations) for count in lines), total)

    report()
    if len(complete) == arguments.trainings:
        return
    _prepare_children()
    counter = _SPAWN.Value("q", 0)
    channels = [_SPAWN.Pipe(duplex=False) for _ in range(min(jobs, arguments.trainings))]
    workers = [
        _SPAWN.Process(target=_work, args=(job, counter, sender), name=f"profile-{number}", daemon=True)
        for number, (_, sender) in enumerate(channels)
    ]
    try:
        for worker in workers:
            worker.start()
        while running := [worker.sentinel for worker in workers if worker.is_alive()]:
            wait(running, timeout=_POLL_S)
            report()
            _require_healthy(job, workers, [receiver for receiver, _ in channels])
        _require_healthy(job, workers, [receiver for receiver, _ in channels])
    finally:
        _end(workers)
        for pair in channels:
            for end in pair:
                end.close()


def _require_healthy(job: _Job, workers: Sequence[SpawnProcess], receivers: Sequence[Connection]) -> None:
    for worker, receiver in zip(workers, receivers, strict=True):
        if worker.exitcode:
            why = receiver.recv() if receiver.poll() else f"exit code {worker.exitcode}"
            raise WorkerError(
                f"{worker.name} of {job.workload.name} failed: {why}; the same command continues from what is done"
            )


def _end(workers: Sequence[SpawnProcess]) -> None:
    for worker in workers:
        if worker.pid is not None:
            worker.terminate()
            worker.join()


def _work(job: _Job, counter: Synchronized[int], sender: Connection[Any, Any]) -> None:
    """In a worker process: take the next trial until there is none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _warm_up(job)
        while (trial := _claim(counter)) < job.arguments.trainings:
            _train_trial(job, trial)
    except Exception as error:
        own = isinstance(error, InputError | WorkerError)  # these say themselves what is wrong
        sender.send(str(error) if own else f"{type(error).__name__}: {error}")
        raise SystemExit(1) from error


def _end_with_parent() -> None:
    """End this process when its parent has ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _warm_up(job: _Job) -> None:
    """Do outside the measurements what a process does once: imports and allocations."""
    trainable = job.build(0)
    trainable.train_iteration()
    trainable.evaluate()


def _claim(counter: Synchronized[int]) -> int:
    with counter.get_lock():
        counter.value += 1
        return counter.value - 1


def _train_trial(job: _Job, trial: int) -> None:
    """Train a trial to its last iteration, from what is on disk."""
    folder = WorkFolder(job.out_dir)
    part = trial_part(folder, trial)
    records, cost = read_trial(folder, trial)
    if cost is not None:
        return
    trainable, done = _restored(job, trial, len(records))
    unsaved_s = 0.0
    for iteration in range(done + 1, job.arguments.iterations + 1):
        record = _measured_iteration(trainable, iteration)
        if iteration > len(records):
            part.append(record)
        elif job.workload.repeats_itself and not record.same_scores(records[iteration - 1]):
            raise WorkerError(
                f"trial {trial}: iteration {iteration} was recorded as {records[iteration - 1]}, but is {record} now:"
                " this machine does not reproduce what the profile began with"
            )
        unsaved_s += record.seconds
        if unsaved_s >= job.effort.checkpoint_every_s and iteration < job.arguments.iterations:
            _save(trainable, folder, trial, iteration)
            unsaved_s = 0.0
    part.append(_save(trainable, folder, trial, job.arguments.iterations))
    for _, path in folder.checkpoints(trial):
        path.unlink()


def _restored(job: _Job, trial: int, recorded: int) -> tuple[ScoredTrainable, int]:
    """The trial at its last readable checkpoint that is not ahead of its records, with its iteration."""
    for iteration, path in WorkFolder(job.out_dir).checkpoints(trial):
        trainable = job.build(trial)
        if iteration <= recorded:
            try:
                trainable.load(path)
            except WorkerError as error:
                _log.warning("trial %d: %s", trial, error)
            else:
                return trainable, iteration
        path.unlink()
    return job.build(trial), 0


def _measured_iteration(trainable: ScoredTrainable, iteration: int) -> IterationRecord:
    began_s, cpu_began_s = time.perf_counter(), time.process_time()
    trainable.train_iteration()
    score = trainable.evaluate()
    seconds, cpu_seconds = time.perf_counter() - began_s, time.process_time() - cpu_began_s
    return IterationRecord.of(
        iteration,
        score,
        trainable.test_score(),
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        measures=trainable.measures(),
    )


def _save(trainable: ScoredTrainable, folder: WorkFolder, trial: int, iteration: int) -> CheckpointCost:
    """Write a checkpoint, then delete the earlier ones."""
    path = folder.file(trial, f"-{iteration:06d}.ckpt")
    began_s = time.perf_counter()
    trainable.save(path)
    seconds = time.perf_counter() - began_s
    for earlier, old in folder.checkpoints(trial):
        if earlier < iteration:
            old.unlink()
    return CheckpointCost(round(seconds, 7), path.stat().st_size)


def _probe_all(
    job: _Job, trial: int, mean_iteration_s: float, on_progress: Callable[[str, int, int], None]
) -> list[Probe]:
    """Train one configuration briefly in several fresh processes, one after another."""
    count, probes = max(3, round(job.effort.probe_training_s / mean_iteration_s)), job.effort.probes
    if not job.workload.repeats_itself:  # code of the user's own need not train for longer than it was asked to
        count = max(2, min(count, job.arguments.iterations - 1))
    found: list[Probe] = []
    for number in range(probes):
        on_progress("start-up", number, probes)
        found.append(probe(job.workload, job.arguments.seed, trial, count))
    on_progress("start-up", probes, probes)
    return found


def _prepare_children() -> None:
    """Processes that train load nothing of the working folder, and have one thread each, as the workers of a run."""
    isolate_children()
    # numpy and its kin read it when they are loaded; threads that share cores wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def probe(workload: Workload, seed: int, trial: int, iterations: int) -> Probe:
    """Train one configuration in a fresh process, after an iteration that does not count.

    Args:
        workload: what is trained.
        seed: of the profile that numbers the configurations.
        trial: number of the configuration.
        iterations: that are timed.

    Raises:
        WorkerError: the process ended early.
    """
    _prepare_children()
    receiver, sender = _SPAWN.Pipe(duplex=False)
    worker = _SPAWN.Process(
        target=_work_as_probe, args=(workload, seed, trial, iterations, sender), name="probe", daemon=True
    )
    with closing(receiver):
        began_s = time.perf_counter()
        worker.start()
        sender.close()  # the worker has the other copy: if it dies, recv() raises instead of waiting
        try:
            receiver.recv()
            launch_s = time.perf_counter() - began_s
            return Probe(launch_s, tuple(receiver.recv()))
        except EOFError as error:
            raise WorkerError(f"a start-up probe of {workload.name} ended early; the same command continues") from error
        finally:
            _end([worker])


def _work_as_probe(workload: Workload, seed: int, trial: int, iterations: int, sender: Connection[Any, Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    trainable = workload.build(workload.configuration_of(seed, trial), training_seed(seed, trial))
    sender.send("ready")
    records = [_measured_iteration(trainable, iteration) for iteration in range(iterations + 1)]
    sender.send([record.seconds for record in records[1:]])
