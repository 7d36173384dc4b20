"""The state of a server whose rescue, or its end, was refused before anything was done.

Nova sets it to ERROR when its driver raised (``rescue_instance`` and ``unrescue_instance`` of
``nova/compute/manager.py``). ``InstanceFaultRollback`` says nothing to the one there, and ACTIVE to
the other.
"""

from __future__ import annotations

import time
from typing import Any

import oslo_messaging
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

    Whoever asks for something else meanwhile has the server as that leaves it. Where nova-compute
    ends before it is done, the server stays in ERROR.

    :param instance: Nova's, which is being rescued, or no more.
    """
    if instance.vm_state != vm_states.ERROR:
        nova_utils.spawn_n(
            _put_state_back, instance.uuid, instance.vm_state, instance._context.request_id)


def _put_state_back(uuid: str, vm_state: str, request_id: str) -> None:
    context = nova_context.get_admin_context()
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        try:
            instance = objects.Instance.get_by_uuid(context, uuid)
            if not _is_newest(context, uuid, request_id):
                return
            if instance.task_state is None and instance.vm_state == vm_states.ERROR:
                instance.vm_state = vm_state
                instance.save(expected_vm_state=[vm_states.ERROR], expected_task_state=[None])
            if instance.task_state not in (task_states.RESCUING, task_states.UNRESCUING):
                return
        except (nova_exception.InstanceNotFound, nova_exception.InstanceUpdateConflict) as exc:
            LOG.info("The server's state is not put back after a rescue that was refused: "
                     "somebody else changed it: %s", exc, instance_uuid=uuid)
            return
        except oslo_messaging.MessagingTimeout as exc:
            LOG.info("Nova's conductor did not answer: %s", exc, instance_uuid=uuid)
        time.sleep(_PAUSE)
    LOG.warning("Nova is at work on a rescue that was refused: if the server is set to ERROR, "
                "reset its state (openstack server set --state active)", instance_uuid=uuid)


def _is_newest(context: Any, uuid: str, request_id: str) -> bool:
    """Whether nobody has asked for anything since a request."""
    newest = objects.InstanceActionList.get_by_instance_uuid(context, uuid, limit=1)
    return bool(newest) and newest[0].request_id == request_id
