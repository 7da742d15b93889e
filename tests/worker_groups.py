"""Worker groups of real processes for tests: each member runs a function and learns where the group meets."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from multiprocessing.connection import wait

_SPAWN = multiprocessing.get_context("spawn")
DIED = "died"


class Meeting:
    """What a member knows of the others."""

    def __init__(self, rank, size, pipe):
        self.rank, self.size = rank, size
        self._pipe = pipe

    def at(self, address=None):
        """Rank 0 says the address; the others wait for it."""
        if self.rank == 0:
            self._pipe.send(("address", address))
            return address
        return self._pipe.recv()


def _be_member(rank, size, pipe, member, arguments):
    try:
        result = member(Meeting(rank, size, pipe), *arguments)
    except BaseException:
        pipe.send(("error", traceback.format_exc()))
        raise
    pipe.send(("done", result))


def run_group(size, member, *arguments, timeout_s=240):
    """What `member(meeting, *arguments)` returned, by rank, or `DIED`; no process is left.

    Each sees one CUDA device, if there are any.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    pipes, processes, results = [], [], {}
    for rank in range(size):
        os.environ["CUDA_VISIBLE_DEVICES"] = str(rank)  # the child inherits it
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_be_member, args=(rank, size, theirs, member, arguments), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    os.environ.pop("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    try:
        while len(results) < size:
            ready = wait([pipe for rank, pipe in enumerate(pipes) if rank not in results], timeout_s)
            assert ready, f"the group fell silent; these ranks are done: {sorted(results)}"
            for pipe in ready:
                try:
                    kind, content = pipe.recv()
                except EOFError:
                    kind, content = "done", DIED
                assert kind != "error", content
                if kind == "done":
                    results[pipes.index(pipe)] = content
                else:
                    for other in pipes[1:]:
                        other.send(content)
    finally:
        for pipe, process in zip(pipes, processes, strict=True):
            process.kill()
            process.join()
            pipe.close()
    return [results[rank] for rank in range(size)]
