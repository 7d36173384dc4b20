"""Many hosts as the policy sees them, quickly: hosts that the policy cannot tell apart are a kind.

A cloud has thousands of hosts and a handful of kinds. What the policy looks at of a host is put
into a tuple, without making a value of it, and the policy is asked once a kind.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Sequence
from typing import Any

from vtpm_scheduling import policy

_NO_LABELS: frozenset[str] = frozenset()


def sort(hosts: Sequence[Any]) -> tuple[list[int], list[policy.HostFacts]]:
    """The kind of each host, and what the kinds are.

    :param hosts: Nova's HostState objects.
    :returns: for each host, in their order, its kind: a position in the list that follows.
    """
    labels = _labels_by_name(hosts)
    version, guarded, attestation, fabric = policy.DECISIVE_STATS
    kinds: dict[tuple[Any, ...], int] = collections.defaultdict(itertools.count().__next__)
    # Written out: a call or a loop for each host would cost as much again as all of this.
    of_hosts = [
        kinds[host.hypervisor_type, host.hypervisor_version, labels.get(host.host, _NO_LABELS),
              (stats := host.stats or {}).get(version), stats.get(guarded),
              stats.get(attestation), stats.get(fabric)]
        for host in hosts]
    return of_hosts, [_facts(*kind) for kind in kinds]


def _facts(hypervisor_type: str | None, hypervisor_version: int | None,
           fabric_labels: frozenset[str], *stats: str | None) -> policy.HostFacts:
    return policy.HostFacts(
        hypervisor_type=hypervisor_type, hypervisor_version=hypervisor_version,
        report=policy.HostReport.from_stats(
            {name: value for name, value in zip(policy.DECISIVE_STATS, stats)
             if value is not None}),
        fabric_labels=fabric_labels)


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
        if not labels.keys().isdisjoint(named):
            for name in labels.keys() & named.keys():
                named[name] |= labels[name]
        labels.update(named)
    return labels
