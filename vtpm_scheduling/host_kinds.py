"""Many hosts as the policy sees them, quickly: hosts that the policy cannot tell apart are a kind.

A cloud has thousands of hosts and a handful of kinds. Of each host only its report, one text, and
the fabric labels of its aggregates are compared; the policy is asked once a kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vtpm_scheduling import policy

_Labels = frozenset[str]


class _Kinds(dict[Any, int]):
    """The kinds among hosts with the same fabric labels, found as they are asked for.

    A key is the text of a host's report, or the hypervisor's (type, version) where it has none.
    """

    def __init__(self, labels: _Labels, facts: list[policy.HostFacts]) -> None:
        super().__init__()
        self.labels = labels
        self._facts = facts

    def __missing__(self, key: Any) -> int:
        self[key] = kind = len(self._facts)
        self._facts.append(_facts(key, self.labels))
        return kind


def sort(hosts: Sequence[Any]) -> tuple[list[int], list[policy.HostFacts]]:
    """The kind of each host, and what the kinds are.

    :param hosts: Nova's HostState objects.
    :returns: for each host, in their order, its kind: a position in the list that follows.
    """
    facts: list[policy.HostFacts] = []
    unlabelled = _Kinds(frozenset(), facts)
    kinds_of, report = _kinds_by_host_name(hosts, facts).get, policy.STAT_REPORT
    # Written out: a call or a loop for each host would cost as much again as all of this.
    return [kinds_of(host.host, unlabelled)[
        host.stats.get(report) or (host.hypervisor_type, host.hypervisor_version)]
        for host in hosts], facts


def _facts(key: Any, labels: _Labels) -> policy.HostFacts:
    if isinstance(key, tuple):
        hypervisor_type, hypervisor_version = key
        return policy.HostFacts(hypervisor_type, hypervisor_version, None, labels)
    report = policy.HostReport.from_stats({policy.STAT_REPORT: key})
    # Whoever made a report, which this version may not understand, is the vTPM driver.
    version = report.hypervisor_version if report else policy.MIN_HYPERVISOR_VERSION
    return policy.HostFacts(policy.HYPERV, version, report, labels)


def _kinds_by_host_name(hosts: Sequence[Any],
                        facts: list[policy.HostFacts]) -> dict[str, _Kinds]:
    """The kinds with the labels of each host that is in an aggregate with ``hgs_fabric``.

    Nova's scheduler makes a host's list of aggregates from their lists of hosts, so that the
    latter, which are few, say the same.
    """
    by_labels: dict[_Labels, _Kinds] = {}

    def kinds_with(labels: _Labels) -> _Kinds:
        if labels not in by_labels:
            by_labels[labels] = _Kinds(labels, facts)
        return by_labels[labels]

    by_name: dict[str, _Kinds] = {}
    for aggregate in set().union(*[host.aggregates for host in hosts]):
        label = aggregate.metadata.get(policy.AGGREGATE_FABRIC)
        if label is None:
            continue
        labels = frozenset({label})
        named = dict.fromkeys(aggregate.hosts or (), kinds_with(labels))
        if not by_name.keys().isdisjoint(named):
            for name in by_name.keys() & named.keys():
                named[name] = kinds_with(labels | by_name[name].labels)
        by_name.update(named)
    return by_name
