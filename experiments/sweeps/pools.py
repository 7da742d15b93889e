"""The one runner of many runs: this process, a pool of processes on this machine, or a Ray cluster.

Imports sim.model.errors; joblib inside the functions that need it, ray in `_ray_cluster` only.
"""

from __future__ import annotations

import functools
import gc
import itertools
import logging
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

from elastune.sim.bridge.machines.isolation import isolate_children
from elastune.sim.model.errors import InputError, WorkerError

Runner: TypeAlias = Callable[[Callable[[Any], Any], Sequence[Any]], Generator[Any, None, None]]
"""Applies a task to items and yields the results as they are finished, in any order."""
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

BATCH_S = 4.0
"""Seconds that a batch on Ray takes. A longer one loses more when interrupted; a shorter one waits more often for its end."""
CHUNK_S = 0.2
"""Seconds of work that a Ray worker gets at a time. More leaves workers idle at the end of a batch; less costs overhead."""
_ANSWER_S = 5.0
_ORPHAN_S = 1.0
_FIRST_CHUNKS = 8
_CHUNKS_PER_SLOT = 4


def run_all(
    task: Callable[[ItemT], ResultT], items: Sequence[ItemT], jobs: int | None
) -> Generator[ResultT, None, None]:
    """Apply a task to items and yield the results as they are finished, in any order; see `workers`."""
    with workers(jobs) as run:
        yield from run(task, items)


@contextmanager
def workers(jobs: int | None, ray_address: str | None = None) -> Iterator[Runner]:
    """Give a runner, whose processes live while the block runs.

    Args:
        jobs: processes; 1 runs everything in this one. Left out, 2, or all CPUs of a Ray cluster.
        ray_address: of the cluster, or None.

    Raises:
        InputError: ray or the cluster is not there, or it has fewer CPUs than `jobs`.
        WorkerError: a worker died, or it has other code or data.
    """
    if ray_address is not None:
        with _ray_cluster(ray_address) as cpus:
            if jobs is not None and jobs > cpus:
                raise InputError(f"--jobs {jobs}: the Ray cluster at {ray_address} has {cpus} CPUs")
            yield partial(_on_ray, jobs or cpus)
    elif jobs == 1:
        yield lambda task, items: (task(item) for item in items)
    else:
        yield partial(_in_processes, jobs or 2)


def _in_processes(jobs: int, task: Callable[[Any], Any], items: Sequence[Any]) -> Generator[Any, None, None]:
    import joblib

    isolate_children()
    parallel = joblib.Parallel(n_jobs=max(min(jobs, len(items)), 1), return_as="generator_unordered")
    in_worker = partial(_in_worker, task, os.getpid())
    results = parallel(joblib.delayed(in_worker)(item) for item in items)
    try:
        for result in results:  # noqa: UP028  `yield from` would close the other generator before the block below
            yield result
    except BrokenProcessPool as error:
        raise _died("process", error) from error
    finally:
        with warnings.catch_warnings():
            # Joblib warns of runs that it cancels.
            warnings.simplefilter("ignore")
            results.close()


def _in_worker(task: Callable[[Any], Any], parent_pid: int, item: Any) -> Any:  # noqa: ANN401  as of the task
    if os.getpid() != parent_pid:
        _live_and_die_with(parent_pid)
    return task(item)


@functools.cache
def _live_and_die_with(parent_pid: int) -> None:
    """Make this process ignore Ctrl-C, and end soon after its parent was killed.

    Workers of a killed process would wait for more work for minutes, and hold their memory.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # what was imported stays; Python would look through it for garbage again and again, and when it ends

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(_ORPHAN_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _on_ray(slots: int, task: Callable[[Any], Any], items: Sequence[Any]) -> Generator[Any, None, None]:
    """Run in batches, because joblib on Ray returns only whole lists."""
    import joblib

    pace = _Pace(slots)
    remaining = iter(items)
    with joblib.parallel_config(backend="ray", n_jobs=slots), joblib.Parallel(batch_size=1) as parallel:
        while batch := list(itertools.islice(remaining, pace.batch)):
            began_s = time.monotonic()
            chunks = _chunks(batch, pace.chunk(len(batch)))
            done = parallel(joblib.delayed(_several)(task, chunk) for chunk in chunks)
            pace.seen(len(batch), time.monotonic() - began_s)
            yield from itertools.chain.from_iterable(done)


def _several(task: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    return [task(item) for item in items]


@contextmanager
def _ray_cluster(address: str) -> Iterator[int]:
    """Connect joblib to the Ray cluster while the block runs; yields the number of its CPUs.

    Raises:
        InputError: ray is not installed, or there is no cluster.
        WorkerError: a worker or a node died.
    """
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise InputError(
            f"--ray {address}: ray is not installed: pip install 'elastune[bridge]', or leave --ray out"
        ) from error
    was_connected = ray.is_initialized()
    if not was_connected:
        _require_answer(address, ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"--ray {address}: no Ray cluster answers there: {str(error).splitlines()[0]}") from error
    try:
        register_ray()  # type: ignore[no-untyped-call]
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield int(resources.get("CPU", 1))
    except Exception as error:
        # After a node was lost, joblib raises a second error when it fails to restart.
        reasons = (one for one in _chain(error) if isinstance(one, ray.exceptions.RayError))
        if (reason := next(reasons, None)) is None:
            raise
        raise _died("worker or node of the Ray cluster", reason) from error
    finally:
        if not was_connected:
            ray.shutdown()


def _require_answer(address: str, own_ip: str) -> None:
    """Refuse a host:port where nobody listens. Ray itself would try for 15 minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "/" in host:
        return  # auto, or the client's ray://host:port
    # Ray replaces loopback by the machine's own address unless an environment variable forbids it.
    is_loopback = host in ("127.0.0.1", "localhost")
    asked = own_ip if is_loopback else host
    try:
        socket.create_connection((asked, int(port)), timeout=_ANSWER_S).close()
    except OSError as error:
        hint = (
            "; a cluster on loopback only takes RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 here, too" if asked != host else ""
        )
        raise InputError(f"--ray {address}: no Ray cluster answers at {asked}:{port} ({error}){hint}") from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and the errors that came before it."""
    while error is not None:
        yield error
        error = error.__context__


def _died(what: str, error: BaseException) -> WorkerError:
    return WorkerError(
        f"a {what} died, as when memory runs out; what was finished is kept: run the same command again, with fewer --jobs if"
        f" it was memory ({str(error).splitlines()[0]})"
    )


@dataclass
class _Pace:
    """Sizes of the next batch and its chunks, from the seconds that the last batch took.

    Attributes:
        batch: runs of the next batch.
    """

    slots: int
    batch: int = 0
    _per_chunk: int = 1

    def __post_init__(self) -> None:
        self.batch = self.slots * _FIRST_CHUNKS

    def seen(self, runs: int, seconds: float) -> None:
        """Note the seconds that a batch took."""
        run_s = max(seconds * self.slots / runs, 1e-6)
        self._per_chunk = max(round(CHUNK_S / run_s), 1)
        self.batch = self.slots * max(round(BATCH_S / run_s), 1)

    def chunk(self, runs: int) -> int:
        """Runs per chunk of a batch, small enough that every slot gets several chunks."""
        return max(min(self._per_chunk, runs // (self.slots * _CHUNKS_PER_SLOT)), 1)


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[first : first + size] for first in range(0, len(items), size))
