"""The only loop: events to the controller, commands to the backend, in simulation and for real alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.sim.model.errors import InvalidActionError, RefusedCommandError, StalledRunError

if TYPE_CHECKING:
    from elastune.sim.control.controller import Controller
    from elastune.sim.model.protocols import Backend


def run(controller: Controller, backend: Backend) -> None:
    """Run until the policy has finished and every machine is given back.

    Raises:
        StalledRunError: nothing can happen any more, or nothing is gained any more, and the policy has not finished.
        InvalidActionError: the policy asked for something impossible, or for something that this backend cannot do.
    """
    handle, perform, next_event = controller.handle, backend.perform, backend.next_event
    try:
        while not controller.is_closed:
            event = next_event()
            if event is None or controller.is_stalled:
                raise StalledRunError(controller.story())
            for command in handle(event):
                perform(command)
    except RefusedCommandError as refused:
        raise InvalidActionError(controller.name, refused.action, refused.at_s, refused.problem) from refused
    finally:
        backend.close()
