"""The state of a server whose rescue was refused before anything was done.

Nova sets it to ERROR when its driver raised, whatever that was (``rescue_instance`` of
``nova/compute/manager.py``); ``InstanceFaultRollback`` says nothing to it there.
"""

from __future__ import annotations

import time
from typing import Any

from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova import utils as nova_utils
from nova.compute import task_states, vm_states
from oslo_log import log as logging

LOG = logging.getLogger(__name__)

# Nova is done with it in much less, unless its database or message queue is slow.
_SECONDS, _PAUSE = 60, 0.5


def put_state_back_later(instance: Any) -> None:
    """Once Nova has set the server to ERROR, set it to what it was.

    Whoever else changes the server meanwhile has it as they want.

    :param instance: Nova's, which is being rescued.
    """
    nova_utils.spawn_n(_put_state_back, instance.uuid, instance.vm_state)


def _put_state_back(uuid: str, vm_state: str) -> None:
    context = nova_context.get_admin_context()
    deadline = time.monotonic() + _SECONDS
    try:
        while time.monotonic() < deadline:
            instance = objects.Instance.get_by_uuid(context, uuid)
            if instance.task_state is None:
                if instance.vm_state == vm_states.ERROR:
                    instance.vm_state = vm_state
                    instance.save(expected_vm_state=[vm_states.ERROR], expected_task_state=[None])
                return
            if instance.task_state != task_states.RESCUING:
                return
            time.sleep(_PAUSE)
    except (nova_exception.InstanceNotFound, nova_exception.InstanceUpdateConflict) as exc:
        LOG.info("The server's state is not put back after a rescue that was refused: somebody "
                 "else changed it: %s", exc)
        return
    LOG.warning("Nova is at work on the rescue that was refused: if the server is set to ERROR, "
                "reset its state (openstack server set --state active)",
                instance_uuid=uuid)
