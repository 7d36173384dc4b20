"""GuardedHostFilter: sends a server with a vTPM only to a Hyper-V host that can run it.

An adapter: it turns Nova's objects into the policy's values and the policy's answer into Nova's.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Any

import nova.conf
from nova import context as nova_context
from nova import exception as nova_exception
from nova.scheduler import filters
from nova.scheduler import utils as scheduler_utils
from oslo_log import log as logging

from vtpm_scheduling import conf, instance_facts, policy

CONF = nova.conf.CONF
conf.register_opts(CONF)
LOG = logging.getLogger(__name__)


class GuardedHostFilter(filters.BaseHostFilter):
    """Keeps the hosts that can run what the server asks for.

    A server that asks for no vTPM gets its list back unread. A request that no host could satisfy,
    and one that no host satisfies now, end in ``NoValidHost`` with the reason, which Nova shows as
    the server's fault.

    Every failure becomes ``NoValidHost``: any other exception would leave a rebuild or an
    evacuation stuck, and set a server to ERROR that was only to be live migrated.
    """

    RUN_ON_REBUILD = True
    # All servers of a request share image and flavor. A refusal that came only for a later one
    # would leave the allocations of the earlier ones in placement.
    run_filter_once_per_request = True

    def filter_all(self, filter_obj_list: Iterable[Any], spec_obj: Any) -> list[Any]:
        """Return the host states that fit.

        :param filter_obj_list: Nova's HostState objects.
        :param spec_obj: the RequestSpec.
        :raises nova.exception.NoValidHost: with a reason for the user, when the request is refused
            or when none of the hosts fits.
        """
        hosts = list(filter_obj_list)
        try:
            return self._filter(hosts, spec_obj)
        except nova_exception.NoValidHost:
            raise
        except instance_facts.InstanceRecordMissing:
            LOG.info("No record of instance %s: it is being deleted", spec_obj.instance_uuid)
            raise nova_exception.NoValidHost(
                reason="The server's records are gone: it is being deleted.") from None
        except Exception:  # see the class: Nova mishandles any other
            LOG.exception("Hosts for instance %s could not be chosen", spec_obj.instance_uuid)
            raise nova_exception.NoValidHost(
                reason="Whether the server asks for a vTPM, or which host fits, could not be read: "
                       "try again, and tell the administrator if it lasts.") from None

    def _filter(self, hosts: list[Any], spec_obj: Any) -> list[Any]:
        request, home = self._read(spec_obj)
        if isinstance(request, policy.Refusal):
            LOG.info("Instance %s is refused (%s): %s",
                     spec_obj.instance_uuid, request.code.value, request.sentence)
            raise nova_exception.NoValidHost(reason=request.sentence)
        if not request.vtpm:
            return hosts
        return self._fitting(hosts, spec_obj.instance_uuid, request, home)

    def host_passes(self, host_state: Any, filter_properties: Any) -> bool:
        """One host only; Nova itself calls :meth:`filter_all`."""
        try:
            return bool(self.filter_all([host_state], filter_properties))
        except nova_exception.NoValidHost:
            return False

    @staticmethod
    def _read(spec_obj: Any) -> tuple[policy.VtpmRequest | policy.Refusal, policy.Home | None]:
        context = getattr(spec_obj, "_context", None) or nova_context.get_admin_context()
        facts = instance_facts.load(context, spec_obj.instance_uuid)
        flavor = spec_obj.flavor
        extra_specs = (flavor.extra_specs or {}) if "extra_specs" in flavor else {}
        # A rebuild makes a new virtual machine with a new TPM on the host where it is.
        if not facts.has_vtpm or scheduler_utils.request_is_rebuild(spec_obj):
            return policy.decide(facts.image_properties, extra_specs), None
        return (policy.decide_existing(extra_specs),
                policy.Home(fabric_thumbprint=facts.fabric_thumbprint))

    @staticmethod
    def _fitting(hosts: list[Any], instance_uuid: str, request: policy.VtpmRequest,
                 home: policy.Home | None) -> list[Any]:
        require_aggregate = CONF.vtpm_scheduling.require_fabric_aggregate
        fitting = []
        reasons: collections.Counter[policy.MisfitCode] = collections.Counter()
        for host in hosts:
            reason = policy.misfit(host_facts(host), home, require_aggregate)
            if reason is None:
                fitting.append(host)
                LOG.debug("Host %s can run instance %s with a vTPM", host.host, instance_uuid)
            else:
                reasons[reason.code] += 1
                LOG.debug("Host %s cannot run instance %s with a vTPM: %s",
                          host.host, instance_uuid, reason.sentence)
        LOG.info("Instance %s with a vTPM: %d of %d hosts fit%s", instance_uuid, len(fitting),
                 len(hosts), "".join(", %s: %d" % (code.value, count)
                                     for code, count in sorted(reasons.items())))
        if hosts and not fitting:
            raise nova_exception.NoValidHost(reason=policy.no_host_sentence(request, reasons))
        return fitting


def host_facts(host_state: Any) -> policy.HostFacts:
    """Nova's HostState as the policy sees a host."""
    return policy.HostFacts(
        hypervisor_type=host_state.hypervisor_type,
        hypervisor_version=host_state.hypervisor_version,
        report=policy.HostReport.from_stats(host_state.stats or {}),
        fabric_labels=frozenset(
            aggregate.metadata[policy.AGGREGATE_FABRIC] for aggregate in host_state.aggregates
            if policy.AGGREGATE_FABRIC in aggregate.metadata))
