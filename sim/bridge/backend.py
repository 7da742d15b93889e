"""The real backend: turns commands into Ray nodes and worker groups, and what happens to them into events.

A thread follows each machine and each worker group. All events go through one queue, in order of time. Only the caller's thread
gives commands. `experiments.contracts.backends` says which events must come in which order, here and in simulation.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, ClassVar

from elastune.sim.bridge.machines.clock import Clock
from elastune.sim.bridge.machines.fault_injector import FaultInjector
from elastune.sim.bridge.machines.machine import Machine, MachineListener
from elastune.sim.bridge.retry_policy import RetryPolicy
from elastune.sim.bridge.workers.checkpoint import CheckpointStore
from elastune.sim.bridge.workers.group_starter import GroupStarter, join_all
from elastune.sim.bridge.workers.resumption import Resumption, known_score
from elastune.sim.bridge.workers.worker_group import GroupContext, GroupListener, Site, WorkerGroup
from elastune.sim.model.commands import (
    Command,
    EndSegment,
    ProvisionInstance,
    ReleaseInstance,
    StartSegment,
    StartTimer,
)
from elastune.sim.model.errors import InputError, TuningError, WorkerError
from elastune.sim.model.events import (
    Event,
    GoneCause,
    InstanceGone,
    Outcome,
    ProgressReported,
    ReclaimNoticed,
    RunStarted,
    SegmentEnded,
    TimerFired,
    TrialSampled,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from elastune.sim.bridge.machines.nodes import Node, Nodes
    from elastune.sim.bridge.workers.worker import WorkerSettings
    from elastune.sim.model.ids import InstanceId, Placement, SegmentId, TrialId
    from elastune.sim.model.protocols import Configuration, ConfigurationSource

_log = logging.getLogger(__name__)
_WATCH_S = 0.1


class RayBackend:
    """Trains on real workers; see `sim.model.protocols.Backend`.

    Args:
        nodes: provide machines; closed with the backend.
        settings: shared by all workers.
        gpus_of: GPUs by instance type.
        configurations: asked once for each trial that starts without one.
        clock: of the run.
        fault_injector: adds delays and losses.
        on_lease: called with each machine that is ready, in that machine's thread.
        resumption: what a dead driver left behind; None for a new run.

    Attributes:
        make_group: starts the workers of a segment.
        join_s: host seconds to wait for worker groups before their machine is given back, and `hangs_s` for each after.
        control_s: host seconds between handing over an event and the next call of `next_event`.
        handed_over_s: when the last event was handed over, by `time.perf_counter`.
    """

    make_group: ClassVar[type[WorkerGroup]] = WorkerGroup
    join_s: ClassVar[float] = 10.0
    hangs_s: ClassVar[float] = 60.0

    def __init__(
        self,
        nodes: Nodes,
        settings: WorkerSettings,
        *,
        gpus_of: Mapping[str, int],
        configurations: ConfigurationSource,
        clock: Clock | None = None,
        fault_injector: FaultInjector | None = None,
        on_lease: Callable[[InstanceId, Node], None] = lambda _instance, _node: None,
        resumption: Resumption | None = None,
    ) -> None:
        self.control_s: list[float] = []
        self.handed_over_s = 0.0
        self._is_controlled = False
        self._nodes, self._gpus_of, self._source, self._on_lease = nodes, gpus_of, configurations, on_lease
        self._clock = clock or Clock()
        self._fault_injector = fault_injector or FaultInjector()
        store = CheckpointStore(settings.checkpoints, settings.keep)
        self._context = GroupContext(settings, store, self._clock, self._tell)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._ahead: Event | None = None  # taken from the queue, but not handed over yet
        self._decided_at_s = self._clock.now_s()
        self._telling, self._lock = threading.Lock(), threading.RLock()
        self._machines: dict[InstanceId, Machine] = {}
        self._leaving: set[InstanceId] = set()
        self._groups: dict[SegmentId, WorkerGroup] = {}
        self._configurations: dict[TrialId, Configuration] = {}
        self._clones: set[TrialId] = set()
        self._timers: list[tuple[float, int, str]] = []
        self._timer_of: dict[str, int] = {}
        self._timers_set = 0
        self._retries, self._is_closed = RetryPolicy(), threading.Event()
        self._broken: BaseException | None = None
        if resumption is None:
            self._events.put(RunStarted(0.0))
        else:
            self._go_on(resumption)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        self._starter = GroupStarter(self._break)

    # The seam.

    def perform(self, command: Command) -> None:
        """Start what the command asks for; see `sim.model.protocols.Backend`."""
        match command:
            case StartSegment():
                self._start(command)
            case EndSegment():
                with self._lock:
                    group = self._groups.get(command.segment)
                if group is not None:
                    group.end()
            case ProvisionInstance():
                self._follow(command.instance, command.instance_type, command.market)
            case ReleaseInstance():
                with self._lock:
                    machine = self._machines.get(command.instance)
                if machine is not None:  # else it died before the command arrived
                    machine.release()
            case StartTimer():
                self._timers_set += 1
                self._timer_of[command.tag] = self._timers_set
                heapq.heappush(self._timers, (command.at_s, self._timers_set, command.tag))

    def next_event(self) -> Event | None:
        """Wait for the next event; see `sim.model.protocols.Backend`.

        Raises:
            WorkerError: the backend itself broke down, or trials fail again and again and no other gets on.
        """
        self._note_control()
        while True:
            event = self._earliest()
            self._raise_if_broken()
            if event is not None:
                self._listen(event)
                self._decided_at_s = event.at_s
                self._is_controlled, self.handed_over_s = True, time.perf_counter()
                return event
            if self._is_still():
                return None
            self._look_ahead(self._patience_s())

    def _raise_if_broken(self) -> None:
        broken = self._broken
        if isinstance(broken, TuningError):
            raise broken
        if broken is not None:
            raise WorkerError(f"the run on real workers broke down: {type(broken).__name__}: {broken}") from broken

    def close(self) -> None:
        """End every worker, machine and thread."""
        if self._is_closed.is_set():
            return
        self._is_closed.set()
        with self._lock:
            groups, machines = list(self._groups.values()), list(self._machines.values())
        for machine in machines:
            machine.cancel()
        with contextlib.ExitStack() as last_first:  # each of these happens, whatever the others raise
            last_first.callback(self._nodes.close)
            last_first.callback(self._starter.close)
            last_first.callback(join_all, groups, self.join_s)
            for group in groups:
                last_first.callback(group.abort, Outcome.ENDED)

    # Events.

    def _tell(self, event_at: Callable[[float], Event]) -> None:
        """Queue an event that happens now; no later event has an earlier time."""
        with self._telling:
            self._events.put(event_at(self._clock.now_s()))

    def _look_ahead(self, host_s: float) -> None:
        """Wait up to `host_s` seconds for the next event."""
        if self._ahead is None:
            with contextlib.suppress(queue.Empty):
                self._ahead = self._events.get(timeout=host_s) if host_s > 0 else self._events.get_nowait()

    def _patience_s(self) -> float:
        """Host seconds until the next timer, but at most `_WATCH_S`."""
        if not self._timers:
            return _WATCH_S
        return min(max(self._clock.host_s(self._timers[0][0] - self._clock.now_s()), 0.0), _WATCH_S)

    def _earliest(self) -> Event | None:
        """The earlier of the next queued event and the next due timer; None if there is neither.

        A timer fires at the time it was set to, even if it is noticed milliseconds later.
        """
        with self._telling:  # no event can be queued now, so later events come after the timers that are due
            now_s = self._clock.now_s()
            self._look_ahead(0.0)
            while self._timers and self._timers[0][0] <= (now_s if self._ahead is None else self._ahead.at_s):
                due_s, number, tag = heapq.heappop(self._timers)
                if self._timer_of.get(tag) == number:
                    del self._timer_of[tag]
                    return TimerFired(max(due_s, self._decided_at_s), tag)
            event, self._ahead = self._ahead, None
            return event

    def _listen(self, event: Event) -> None:
        """Pass results on to the sampler; a clone does not train a configuration that it proposed."""
        if isinstance(event, SegmentEnded):
            self._retries.hear(event, self._configurations.get(event.trial, {}))
        if isinstance(event, SegmentEnded | ProgressReported) and event.iteration and event.trial not in self._clones:
            self._source.hear(event.trial, event.iteration, event.score)

    def _is_still(self) -> bool:
        """Whether nothing can happen any more. An idle machine counts as still, unless it is going to be lost."""
        with self._lock:
            is_moving = any(not machine.is_settled for machine in self._machines.values())
            return not (self._groups or self._timer_of or self._leaving or is_moving or not self._events.empty())

    def _note_control(self) -> None:
        if self._is_controlled:
            self.control_s.append(time.perf_counter() - self.handed_over_s)
            self._is_controlled = False

    # Segments.

    def _start(self, command: StartSegment) -> None:
        configuration, started_at_s = self._configuration(command), self._decided_at_s
        if self._retries.is_hopeless(command):
            self._tell(_untrained(command, command.until_iteration, None, Outcome.COMPLETED, started_at_s))
            return
        with self._lock:
            site = self._site(command.placement)
            if site is not None:
                group = self.make_group(
                    command,
                    started_at_s,
                    configuration,
                    site,
                    context=self._context,
                    listener=GroupListener(
                        ended=self._group_ended, broken=self._break, raised=self._retries.raised.__setitem__
                    ),
                )
                self._groups[command.segment] = group
                self._starter.start(group)  # under the lock: whoever finds it may wait for its end
                return
        score = known_score(self._context.store, command)
        self._tell(_untrained(command, command.from_iteration, score, Outcome.INSTANCE_GONE, started_at_s))

    def _site(self, placement: Placement) -> Site | None:
        """Where a worker group runs; None if one of its machines is gone."""
        nodes: list[Node] = []
        for instance, count in placement:
            machine = self._machines.get(instance)
            if machine is None or machine.node is None:
                return None
            nodes += [machine.node] * count
        instances = {instance for instance, _ in placement}
        return Site([node.node_id for node in nodes], nodes[0].host, lambda: instances.isdisjoint(self._nodes.dead()))

    def _group_ended(self, group: WorkerGroup) -> None:
        with self._lock:
            del self._groups[group.command.segment]

    def _configuration(self, command: StartSegment) -> Configuration:
        """The command's configuration, the known one, or a new one from the source, which is told as an event."""
        trial, given = command.trial, command.configuration
        if given is not None:
            if given != self._configurations.setdefault(trial, given):
                self._clones.add(trial)
                self._retries.forgive(trial)
                self._configurations[trial] = given
        elif trial not in self._configurations:
            proposed = dict(self._source.configuration_of(trial))
            self._configurations[trial] = proposed
            self._tell(lambda at_s: TrialSampled(at_s, trial, proposed))
        return self._configurations[trial]

    def _groups_on(self, instance: InstanceId) -> list[WorkerGroup]:
        with self._lock:
            return [g for g in self._groups.values() if any(number == instance for number, _ in g.command.placement)]

    # Machines.

    def _follow(self, instance: InstanceId, instance_type: str, market: str, node: Node | None = None) -> None:
        """Start a machine, or take over a running one, and follow it to its end."""
        if instance_type not in self._gpus_of:
            raise InputError(f"instance type {instance_type} is unknown here; known: {', '.join(self._gpus_of)}")
        with self._lock:
            faults = self._fault_injector.draw(instance, market, self._clock.now_s())
            machine = self._machines[instance] = Machine(
                instance,
                self._gpus_of[instance_type],
                faults,
                nodes=self._nodes,
                clock=self._clock,
                listener=MachineListener(
                    self._tell,
                    self._on_lease,
                    self._notice,
                    lambda number, cause: self._gone(number, market, cause),
                    self._break,
                ),
            )
        machine.start(node)

    def _notice(self, instance: InstanceId, gone_at_s: float) -> None:
        self._tell(lambda at_s: ReclaimNoticed(at_s, instance, gone_at_s))
        for group in self._groups_on(instance):
            group.save_each()

    def _gone(self, instance: InstanceId, market: str, cause: GoneCause | None) -> None:
        """End the worker groups on a machine, then tell that it is gone; without a cause its request was refused.

        Raises:
            WorkerError: a worker group on it does not end.
        """
        with self._lock:
            self._leaving.add(instance)
            del self._machines[instance]
            groups = self._groups_on(instance)
        outcome = Outcome.ENDED if cause is GoneCause.RELEASED else Outcome.INSTANCE_GONE
        for group in groups:
            group.abort(outcome)
        join_all(groups, self.join_s)
        self._nodes.release(instance)
        for group in groups:
            # The end of a worker group comes before the end of its machine, however long its checkpoints take to read.
            if not group.join(self.hangs_s):
                raise WorkerError(f"segment {group.command.segment} does not end, although machine {instance} is gone")
        if cause is not None:
            self._tell(lambda at_s: InstanceGone(at_s, instance, cause))
        with self._lock:
            self._fault_injector.machine_gone(instance, market)
            self._leaving.discard(instance)

    def _break(self, error: BaseException) -> None:
        """Remember the error of a thread of the backend; `next_event` raises it."""
        if not self._is_closed.is_set() and self._broken is None:
            self._broken = error

    def _watch(self) -> None:
        """Look for dead machines until the backend is closed."""
        try:
            while not self._is_closed.wait(_WATCH_S):
                for instance in self._nodes.dead():
                    with self._lock:
                        machine = self._machines.get(instance)
                    if machine is not None:
                        machine.die()
        except Exception as error:
            self._break(error)

    # Going on.

    def _go_on(self, left: Resumption) -> None:
        """Continue a dead driver's run: tell what is gone, follow what lives, and request again what had not come yet."""
        self._configurations.update(left.configurations)
        self._clones.update(left.clones)
        left.teach(self._source)
        alive = self._nodes.adopt(left.kept())
        for event_at in left.settling(self._context.store, alive):
            self._tell(event_at)
        for one in left.instances:
            if one.instance in alive:
                self._follow(one.instance, one.instance_type, one.market, alive[one.instance])
        for one in left.requested():
            self._follow(one.instance, one.instance_type, one.market)
        for timer in left.to_set():
            self.perform(timer)


def _untrained(
    command: StartSegment, iteration: int, score: float | None, outcome: Outcome, since_s: float
) -> Callable[[float], SegmentEnded]:
    """The end of a segment that had no workers, as a function of its time; `completed` without a score means diverged."""
    trial, segment = command.trial, command.segment
    return lambda at_s: SegmentEnded(
        at_s, trial, segment, iteration, iteration, score, outcome, at_s - since_s, 0.0, 0.0
    )
