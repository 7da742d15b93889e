"""Connects the members of a worker group. Imports torch only for a group of several."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from elastune.sim.model.errors import WorkerError

FORMING_S = 600.0
"""How long members wait for each other at the start; importing torch on many slots of one machine takes minutes."""
_TRAINING = timedelta(hours=6)
"""How long members wait for each other afterwards. Rank 0 alone evaluates and saves, which may take long. If a member dies, the
driver ends the others, so no time limit has to."""


class GroupMembers(Protocol):
    """The members of a worker group; all of them call each method at the same point of their training."""

    def agree(self, number: int) -> int:
        """The number that rank 0 says."""

    def all_of(self, is_true: bool) -> bool:
        """Whether it is true for every member."""


class Alone:
    """A worker group of one."""

    def agree(self, number: int) -> int:
        """Its own value."""
        return number

    def all_of(self, is_true: bool) -> bool:
        """Its own value."""
        return is_true


class _TorchGroup:
    """A worker group connected by torch.distributed."""

    def __init__(self, device: str) -> None:
        self._device = device

    def agree(self, number: int) -> int:
        import torch

        said = torch.tensor([number], device=self._device)
        torch.distributed.broadcast(said, src=0)
        return int(said.item())

    def all_of(self, is_true: bool) -> bool:
        import torch

        told = torch.tensor([int(is_true)], device=self._device)
        torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MIN)
        return bool(told.item())


def listen(host: str) -> socket.socket:
    """A socket on this address and a free port, at which the other members find rank 0."""
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    listening = socket.socket(family)
    listening.bind((host, 0))
    listening.listen(socket.SOMAXCONN)
    return listening


@contextmanager
def form_group(
    rank: int,
    size: int,
    device: str,
    rendezvous: str,
    listening: socket.socket | None,
    forming_s: float = FORMING_S,
) -> Iterator[GroupMembers]:
    """Connect the members once all of them are there, until the end of the context.

    Members listen only on the interface that leads to the rendezvous, so a group on loopback stays on loopback.

    Args:
        rank: of this member, from 0.
        size: members, more than 1.
        device: `cpu` connects by gloo, `cuda` by nccl with the first visible device of each member.
        rendezvous: `host:port` of rank 0's socket.
        listening: that socket, at rank 0; else None.
        forming_s: how long members wait for each other here.

    Raises:
        WorkerError: not all members came.
    """
    import torch

    host, port = rendezvous.rsplit(":", 1)
    forming = timedelta(seconds=forming_s)
    _use_interface(host, int(port))
    if device == "cuda":
        torch.cuda.set_device(0)
    try:
        store = torch.distributed.TCPStore(  # type: ignore[attr-defined]
            host,
            int(port),
            size,
            is_master=rank == 0,
            timeout=forming,
            wait_for_workers=False,
            master_listen_fd=None if listening is None else listening.detach(),
        )
        store.set(f"rank {rank}", "is here")
        store.wait([f"rank {other}" for other in range(size)], forming)
        backend = "nccl" if device == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TRAINING)
    except (RuntimeError, ValueError) as error:
        raise WorkerError(
            f"rank {rank} of {size}: the worker group at {rendezvous} did not come together: {error}"
        ) from error
    try:
        yield _TorchGroup(device)
    finally:
        torch.distributed.destroy_process_group()


def _use_interface(host: str, port: int) -> None:
    """Make gloo and nccl use the interface to the rendezvous, unless the user has named one."""
    import psutil

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as towards:
        towards.connect((host, port))  # sends nothing: it only finds the route
        own = towards.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address == own for address in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
            return
