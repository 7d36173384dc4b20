"""The pre-filter: asks placement for guarded hosts only, where a server gets a vTPM.

nova-scheduler runs it before it asks placement. It spares the scheduler the hosts that cannot,
keeps placement's limit of candidates (``[scheduler] max_placement_results``) from hiding the few
that can, and holds for servers that are forced to a host (``--availability-zone zone:host``),
which no host filter sees. Importing :mod:`vtpm_scheduling.guarded_host_filter` registers it.

When placement has no candidate Nova gives no reason. So the trait is asked for only where that
leaves hosts for the filter; where it does not, the filter looks at the others and says why.
"""

from __future__ import annotations

import urllib.parse
from typing import Any

import nova.conf
import os_traits
from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova.scheduler import request_filter
from nova.scheduler.client import report
from oslo_log import log as logging

from vtpm_scheduling import conf, decision, instance_facts, policy

CONF = nova.conf.CONF
conf.register_opts(CONF)
LOG = logging.getLogger(__name__)

# The first with forbidden traits (1.22), several (1.24) and forbidden aggregates (1.32) of resource
# providers.
_PLACEMENT_VERSION = "1.32"


class PlacementError(Exception):
    """Placement answered with an error."""


@request_filter.trace_request_filter
def require_guarded_hosts(ctxt: Any, request_spec: Any) -> bool:
    """Ask for the trait of guarded hosts, if the request gets a vTPM.

    :param ctxt: the request's context.
    :param request_spec: the RequestSpec, changed in place.
    :returns: whether it was changed.
    :raises nova.exception.NoValidHost: with a reason for the user, when the request is refused or
        forced to a host that does not fit.
    """
    with decision.only_no_valid_host(request_spec):
        asked = decision.decide(request_spec)
        if not asked.request.vtpm:
            return False
        forced = bool(request_spec.force_hosts or request_spec.force_nodes)
        if forced:
            _check_forced_hosts(ctxt, request_spec, asked)
        if not CONF.vtpm_scheduling.require_guarded_trait:
            return False
        if not forced and not _leaves_hosts(ctxt, request_spec):
            return False
        request_spec.root_required.add(policy.TRAIT_GUARDED_HOST)
        return True


def register() -> None:
    """Put the pre-filter among Nova's; repeating it is harmless."""
    registered = {(found.__module__, found.__qualname__)
                  for found in request_filter.ALL_REQUEST_FILTERS}
    if (__name__, require_guarded_hosts.__qualname__) not in registered:
        request_filter.ALL_REQUEST_FILTERS.append(require_guarded_hosts)


def _check_forced_hosts(context: nova_context.RequestContext, request_spec: Any,
                        asked: decision.Decision) -> None:
    """What the filter would check of a host, which Nova does not ask for a forced one."""
    if not request_spec.force_hosts:
        raise nova_exception.NoValidHost(
            reason="A server with a vTPM (%s) cannot be forced to a node alone: name the host."
                   % asked.request.asked_by)
    for host in request_spec.force_hosts:
        labels = instance_facts.fabric_labels(context, host)
        for node in _compute_nodes(context, host):
            reason = policy.misfit(
                policy.HostFacts(node.hypervisor_type, node.hypervisor_version,
                                 policy.HostReport.from_stats(node.stats or {}), labels),
                asked.home, CONF.vtpm_scheduling.require_fabric_aggregate)
            if reason is not None:
                LOG.info("Instance %s with a vTPM is forced to host %s: %s",
                         request_spec.instance_uuid, host, reason.sentence)
                raise nova_exception.NoValidHost(
                    reason=policy.no_host_sentence(asked.request, [reason]))


def _compute_nodes(context: nova_context.RequestContext, host: str) -> Any:
    admin = context.elevated()
    try:
        mapping = objects.HostMapping.get_by_host(admin, host)
        with nova_context.target_cell(admin, mapping.cell_mapping) as cell_context:
            return objects.ComputeNodeList.get_all_by_host(cell_context, host)
    except (nova_exception.HostMappingNotFound, nova_exception.ComputeHostNotFound):
        raise nova_exception.NoValidHost(
            reason="There is no host %s." % policy.quote(host)) from None


def _leaves_hosts(context: nova_context.RequestContext, request_spec: Any) -> bool:
    """Whether hosts are left for the filter when placement gives guarded ones only."""
    destination = request_spec.requested_destination
    if destination is not None and any(name in destination and getattr(destination, name)
                                       for name in ("host", "node")):
        # It looks at that one alone, whatever placement has.
        return False
    names = _guarded_hosts(context, destination)
    # Nova takes these away after placement and before the filters.
    left = names - {host.lower() for host in request_spec.ignore_hosts or ()}
    if not left:
        LOG.info("Instance %s with a vTPM: placement knows no guarded host that it could go to",
                 request_spec.instance_uuid)
    return bool(left)


def _guarded_hosts(context: nova_context.RequestContext, destination: Any) -> set[str]:
    """The hosts, in lower case, that are guarded, enabled and in the aggregates asked for.

    :param destination: the request's, or None; Nova notes an availability zone in it.
    :raises PlacementError: when placement does not answer the question.
    """
    query = [("required", "%s,!%s" % (policy.TRAIT_GUARDED_HOST,
                                      os_traits.COMPUTE_STATUS_DISABLED))]
    for alternatives in (destination.aggregates or ()) if destination is not None else ():
        query.append(("member_of", "in:" + alternatives))
    if destination is not None and destination.forbidden_aggregates:
        query.append(("member_of", "!in:" + ",".join(sorted(destination.forbidden_aggregates))))
    response = report.report_client_singleton().get(
        "/resource_providers?" + urllib.parse.urlencode(query), version=_PLACEMENT_VERSION,
        global_request_id=context.global_id)
    if response.status_code == 400 and policy.TRAIT_GUARDED_HOST in response.text:
        # A trait that no host ever reported is unknown to placement.
        LOG.debug("Placement knows no trait %s: %s", policy.TRAIT_GUARDED_HOST, response.text)
        return set()
    if response.status_code != 200:
        raise PlacementError("%s: %s" % (response.status_code, response.text))
    return {provider["name"].lower() for provider in response.json()["resource_providers"]}
