"""What one request of nova-scheduler asks for: found once, used by pre-filter and filter.

Whatever goes wrong here ends in ``NoValidHost``: any other exception would leave a rebuild or an
evacuation stuck, and set a server to ERROR that was only to be live migrated.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import nova.conf
from nova import context as nova_context
from nova import exception as nova_exception
from nova.scheduler import utils as scheduler_utils
from oslo_log import log as logging

from vtpm_scheduling import conf, instance_facts, policy

CONF = nova.conf.CONF
conf.register_opts(CONF)
LOG = logging.getLogger(__name__)

# Pre-filter and filter get the same RequestSpec object, and nobody else gets it.
_ATTRIBUTE = "_hyperv_vtpm_decision"


@dataclasses.dataclass(frozen=True)
class Decision:
    """What an instance gets, and where it may go.

    :ivar request: what it gets.
    :ivar home: the fabric that it may not leave; None where any will do.
    """

    request: policy.VtpmRequest
    home: policy.Home | None = None


@contextlib.contextmanager
def only_no_valid_host(spec_obj: Any) -> Iterator[None]:
    """Turn every failure into a refusal with a reason that the user can read.

    :param spec_obj: the RequestSpec.
    :raises nova.exception.NoValidHost: instead of any other exception.
    """
    try:
        yield
    except nova_exception.NoValidHost:
        raise
    except instance_facts.InstanceRecordMissing as exc:
        LOG.info("No record of instance %s: it is being deleted", spec_obj.instance_uuid)
        # Of several, Nova asks about the first, and refuses all with it.
        is_one_of_several = (isinstance(exc, instance_facts.BuildRequestMissing)
                             and spec_obj.num_instances > 1)
        raise nova_exception.NoValidHost(
            reason="One of the servers that were asked for together is being deleted: try again."
                   if is_one_of_several
                   else "The server's records are gone: it is being deleted.") from None
    except Exception:  # see the module: Nova mishandles any other
        LOG.exception("Hosts for instance %s could not be chosen", spec_obj.instance_uuid)
        raise nova_exception.NoValidHost(
            reason="Whether the server asks for a vTPM, or which host fits, could not be read: "
                   "try again, and tell the administrator if it lasts.") from None


def context_of(spec_obj: Any) -> nova_context.RequestContext:
    """The context of the request's caller, or an administrator's where there is none."""
    return getattr(spec_obj, "_context", None) or nova_context.get_admin_context()


def decide(spec_obj: Any) -> Decision:
    """What a request asks for.

    Two queries for a boot, and for a move of a server that carries its fabric; a third for a move
    where the fabric is that of its host. None when it was asked before.

    :param spec_obj: the RequestSpec; it keeps the answer.
    :raises nova.exception.NoValidHost: when no host could ever satisfy it, with the reason.
    :raises Exception: what Nova's records raise; see :func:`only_no_valid_host`.
    """
    instance_uuid, answer = getattr(spec_obj, _ATTRIBUTE, (None, None))
    if answer is None or instance_uuid != spec_obj.instance_uuid:
        answer = _decide(spec_obj)
        setattr(spec_obj, _ATTRIBUTE, (spec_obj.instance_uuid, answer))
    if isinstance(answer, policy.Refusal):
        LOG.info("Instance %s is refused (%s): %s",
                 spec_obj.instance_uuid, answer.code.value, answer.sentence)
        raise nova_exception.NoValidHost(reason=answer.sentence)
    return answer


def _decide(spec_obj: Any) -> Decision | policy.Refusal:
    context = context_of(spec_obj)
    facts = instance_facts.load(context, spec_obj.instance_uuid)
    flavor = spec_obj.flavor
    extra_specs = (flavor.extra_specs or {}) if "extra_specs" in flavor else {}
    # A rebuild makes a new virtual machine with a new TPM on the host where it is.
    is_move = not facts.is_booted and not scheduler_utils.request_is_rebuild(spec_obj)
    if is_move and facts.has_vtpm:
        request = policy.decide_existing(extra_specs)
    elif is_move and facts.has_no_vtpm:
        request = policy.decide_without_vtpm(facts.extra_specs, extra_specs)
    else:
        request = policy.decide(facts.image_properties, extra_specs)
        if is_move and _asked_by_flavor_alone(request, facts):
            request = policy.decide_unmarked(
                facts.image_properties, facts.extra_specs, extra_specs)
    if isinstance(request, policy.Refusal):
        return request
    if not is_move or not request.vtpm:
        return Decision(request)
    if facts.fabric_thumbprint:
        return Decision(request, policy.Home(fabric_thumbprint=facts.fabric_thumbprint))
    return Decision(request, _home_by_host(context, spec_obj, facts))


def _asked_by_flavor_alone(request: policy.VtpmRequest | policy.Refusal,
                           facts: instance_facts.InstanceFacts) -> bool:
    if isinstance(request, policy.Refusal) or not request.vtpm:
        return False
    by_image = policy.decide(facts.image_properties, {})
    return isinstance(by_image, policy.Refusal) or not by_image.vtpm


def _home_by_host(context: nova_context.RequestContext, spec_obj: Any,
                  facts: instance_facts.InstanceFacts) -> policy.Home | None:
    """The fabric of the host where the instance runs, or ran when it was shelved."""
    # Nova puts the host that it moves a server away from first; a resize that may stay, and
    # unshelving, leave this empty.
    host = (spec_obj.ignore_hosts or [None])[0] or facts.shelved_host or facts.host
    if host is None:
        return policy.Home()
    labels = instance_facts.fabric_labels(context, host)
    home = policy.home_by_host(
        labels, facts.host_thumbprint if host == facts.host else None,
        CONF.vtpm_scheduling.require_fabric_aggregate)
    if home == policy.Home():
        LOG.info("Instance %s runs on host %s, which is in %d fabrics: its own is not known",
                 spec_obj.instance_uuid, host, len(labels))
    return home
