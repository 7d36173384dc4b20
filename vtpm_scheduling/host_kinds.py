"""Many hosts as the policy sees them, quickly: hosts that the policy cannot tell apart are a kind.

A cloud has thousands of hosts and a handful of kinds. What the policy looks at of a host is put
into a tuple, without making a value of it, and the policy is asked once a kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from vtpm_scheduling import policy

_NO_LABELS: frozenset[str] = frozenset()


class Kind(NamedTuple):
    """What the policy looks at of a host, as Nova's HostState has it."""

    hypervisor_type: str | None
    hypervisor_version: int | None
    stats: tuple[str | None, ...]
    fabric_labels: frozenset[str]

    def facts(self) -> policy.HostFacts:
        """The same for the policy."""
        stats = {name: value for name, value in zip(policy.DECISIVE_STATS, self.stats)
                 if value is not None}
        return policy.HostFacts(
            hypervisor_type=self.hypervisor_type, hypervisor_version=self.hypervisor_version,
            report=policy.HostReport.from_stats(stats), fabric_labels=self.fabric_labels)


def of(hosts: Sequence[Any]) -> list[Kind]:
    """The kind of each host, in the order of the hosts.

    :param hosts: Nova's HostState objects.
    """
    labels = _labels_by_name(hosts)
    kinds = []
    for host in hosts:
        stat = (host.stats or {}).get
        kinds.append(Kind(host.hypervisor_type, host.hypervisor_version,
                          tuple([stat(name) for name in policy.DECISIVE_STATS]),
                          labels.get(host.host, _NO_LABELS)))
    return kinds


def _labels_by_name(hosts: Sequence[Any]) -> dict[str, frozenset[str]]:
    """The values of ``hgs_fabric`` on the aggregates of each host that is in such an aggregate.

    Nova's scheduler makes a host's list of aggregates from their lists of hosts, so that the
    latter, which are few, say the same.
    """
    labels: dict[str, frozenset[str]] = {}
    for aggregate in set().union(*[host.aggregates for host in hosts]):
        label = aggregate.metadata.get(policy.AGGREGATE_FABRIC)
        if label is None:
            continue
        named = dict.fromkeys(aggregate.hosts or (), frozenset({label}))
        for name in labels.keys() & named.keys():
            named[name] |= labels[name]
        labels.update(named)
    return labels
