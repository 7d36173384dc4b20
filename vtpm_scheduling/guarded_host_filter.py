"""GuardedHostFilter: sends a server with a vTPM only to a Hyper-V host that can run it.

An adapter: it turns Nova's objects into the policy's values and the policy's answer into Nova's.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable
from typing import Any

import nova.conf
from nova import exception as nova_exception
from nova import servicegroup
from nova.scheduler import filters
from oslo_log import log as logging

from vtpm_scheduling import (
    conf,
    decision,
    host_kinds,
    operator_log,
    placement_filter,
    policy,
)

CONF = nova.conf.CONF
conf.register_opts(CONF)
LOG = logging.getLogger(__name__)

# Nova imports the filters that it is configured with, and nothing else of this package.
placement_filter.register()

# About hosts, never about requests: one filter serves all of them at once.
_PROBLEMS = operator_log.Problems()
_LOGGED_ONCE = (policy.MisfitCode.NO_FABRIC, policy.MisfitCode.SEVERAL_FABRICS)


class GuardedHostFilter(filters.BaseHostFilter):
    """Keeps the hosts that can run what the server asks for.

    A server that asks for no vTPM gets its list back unread. A request that no host could satisfy,
    and one that no host satisfies now, end in ``NoValidHost`` with the reason, which Nova shows as
    the server's fault.

    Every failure becomes ``NoValidHost``; see :mod:`vtpm_scheduling.decision`.
    """

    RUN_ON_REBUILD = True
    # All servers of a request share image and flavor. A refusal that came only for a later one
    # would leave the allocations of the earlier ones in placement.
    run_filter_once_per_request = True

    def __init__(self) -> None:
        super().__init__()
        self._services = servicegroup.API()

    def filter_all(self, filter_obj_list: Iterable[Any], spec_obj: Any) -> list[Any]:
        """Return the host states that fit.

        :param filter_obj_list: Nova's HostState objects.
        :param spec_obj: the RequestSpec.
        :raises nova.exception.NoValidHost: with a reason for the user, when the request is refused
            or when none of the hosts fits.
        """
        with decision.only_no_valid_host(spec_obj):
            asked = decision.decide(spec_obj)
            hosts = list(filter_obj_list)
            if not asked.request.vtpm:
                return hosts
            return self._fitting(hosts, spec_obj.instance_uuid, asked)

    def host_passes(self, host_state: Any, filter_properties: Any) -> bool:
        """One host only; Nova itself calls :meth:`filter_all`."""
        try:
            return bool(self.filter_all([host_state], filter_properties))
        except nova_exception.NoValidHost:
            return False

    def _fitting(self, hosts: list[Any], instance_uuid: str,
                 asked: decision.Decision) -> list[Any]:
        kinds, facts = host_kinds.sort(hosts)
        mixed = policy.mixed_fabrics(facts)
        if mixed:
            # What a host reported before it failed says nothing of the fabric as it is now.
            in_use = {kind for host, kind in zip(hosts, kinds) if self._is_in_use(host)}
            mixed = policy.mixed_fabrics(facts[kind] for kind in in_use)
        reasons = [policy.misfit(
            of_kind, asked.home, CONF.vtpm_scheduling.require_fabric_aggregate, mixed)
            for of_kind in facts]
        fitting = hosts
        if any(reasons):
            fits = [reason is None for reason in reasons]
            fitting = list(itertools.compress(hosts, map(fits.__getitem__, kinds)))
        _log(instance_uuid, hosts, kinds, reasons)
        _PROBLEMS.update_fabrics(
            policy.mixed_sentence(label, thumbprints) for label, thumbprints in mixed.items())
        if hosts and not fitting:
            raise nova_exception.NoValidHost(reason=policy.no_host_sentence(
                asked.request, [reason for reason in reasons if reason is not None]))
        return fitting

    def _is_in_use(self, host: Any) -> bool:
        """As Nova's ComputeFilter, which comes later, sees it."""
        return not host.service["disabled"] and self._services.service_is_up(host.service)


def _log(instance_uuid: str, hosts: list[Any], kinds: list[int],
         reasons: list[policy.Misfit | None]) -> None:
    """Totals, a line a host at debug level, and what the operator has to set right."""
    totals: collections.Counter[str] = collections.Counter()
    if any(reasons):
        for kind, count in collections.Counter(kinds).items():
            reason = reasons[kind]
            if reason is not None:
                totals[reason.total_name] += count
    LOG.info("Instance %s with a vTPM: %d of %d hosts fit%s", instance_uuid,
             len(hosts) - sum(totals.values()), len(hosts), "".join(
                 ", %s: %d" % total for total in sorted(totals.items())))
    if LOG.isEnabledFor(logging.DEBUG):
        for host, kind in zip(hosts, kinds):
            reason = reasons[kind]
            if reason is None:
                LOG.debug("Host %s can run instance %s with a vTPM", host.host, instance_uuid)
            else:
                LOG.debug("Host %s cannot run instance %s with a vTPM: %s",
                          host.host, instance_uuid, reason.sentence)
    wrong = {kind: reason.sentence for kind, reason in enumerate(reasons)
             if reason is not None and reason.code in _LOGGED_ONCE}
    _PROBLEMS.update_hosts(
        (host.host for host in hosts),
        {host.host: wrong[kind] for host, kind in zip(hosts, kinds) if kind in wrong}
        if wrong else {})
