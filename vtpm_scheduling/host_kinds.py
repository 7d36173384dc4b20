"""Many hosts as the policy sees them, quickly: hosts that the policy cannot tell apart are a kind.

A cloud has thousands of hosts and a handful of kinds. Of each host only its report, one text, and
its list of aggregates are compared, whose fabric labels are read once a list; the policy is asked
once a kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vtpm_scheduling import policy

_Labels = frozenset[str]


class _Numbers(dict[Any, int]):
    """Numbers what is asked for, from 0."""

    def __missing__(self, key: Any) -> int:
        self[key] = number = len(self)
        return number


class _LabelNumbers(dict[tuple[Any, ...], int]):
    """The number of the fabric labels of aggregates, a tuple of Nova's Aggregate objects.

    Nova's scheduler has one object for an aggregate, which is compared by its identity.

    :ivar labels: the sets of labels, with their numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.labels = _Numbers()

    def __missing__(self, aggregates: tuple[Any, ...]) -> int:
        labels = frozenset(aggregate.metadata[policy.AGGREGATE_FABRIC] for aggregate in aggregates
                           if policy.AGGREGATE_FABRIC in aggregate.metadata)
        self[aggregates] = number = self.labels[labels]
        return number


def sort(hosts: Sequence[Any]) -> tuple[list[int], list[policy.HostFacts]]:
    """The kind of each host, and what the kinds are.

    :param hosts: Nova's HostState objects.
    :returns: for each host, in their order, its kind: a position in the list that follows.
    """
    reports, aggregates, kinds, stat = _Numbers(), _LabelNumbers(), _Numbers(), policy.STAT_REPORT
    # A call or a loop in Python for each host would cost as much again as all of this.
    report_numbers = map(reports.__getitem__, [
        host.stats.get(stat) or (host.hypervisor_type, host.hypervisor_version)
        for host in hosts])
    label_numbers = map(aggregates.__getitem__, map(tuple, [host.aggregates for host in hosts]))
    kind_of_each = list(map(kinds.__getitem__, zip(report_numbers, label_numbers)))
    keys, labels = list(reports), list(aggregates.labels)
    return kind_of_each, [_facts(keys[key], labels[label]) for key, label in kinds]


def _facts(key: Any, labels: _Labels) -> policy.HostFacts:
    """:param key: the text of a report, or where there is none the hypervisor's (type, version)."""
    if isinstance(key, tuple):
        hypervisor_type, hypervisor_version = key
        return policy.HostFacts(hypervisor_type, hypervisor_version, None, labels)
    report = policy.HostReport.from_stats({policy.STAT_REPORT: key})
    # Whoever made a report, which this version may not understand, is the vTPM driver.
    version = report.hypervisor_version if report else policy.MIN_HYPERVISOR_VERSION
    return policy.HostFacts(policy.HYPERV, version, report, labels)
