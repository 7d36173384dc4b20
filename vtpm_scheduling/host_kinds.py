"""Many hosts as the policy sees them, quickly: hosts that the policy cannot tell apart are a kind.

A cloud has thousands of hosts and a handful of kinds. Of each host only its report, one text, and
its list of aggregates are compared, whose fabric labels are read once a list; the policy is asked
once a kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vtpm_scheduling import policy

# Most of what a host costs is waiting for its memory: so many are in a processor's cache still when
# they are read a second time.
_IN_A_CACHE = 512

_Labels = frozenset[str]


class _Numbers(dict[tuple[Any, _Labels], int]):
    """Numbers what is asked for, from 0."""

    def __missing__(self, key: tuple[Any, _Labels]) -> int:
        self[key] = number = len(self)
        return number


class _Kinds(dict[tuple[Any, tuple[Any, ...]], int]):
    """The number of the kind by a host's report and its aggregates.

    Nova's scheduler has one object for an aggregate, which is compared by its identity.

    :ivar numbers: the numbers of the kinds, by report and fabric labels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numbers = _Numbers()

    def __missing__(self, key: tuple[Any, tuple[Any, ...]]) -> int:
        report, aggregates = key
        labels = frozenset(aggregate.metadata[policy.AGGREGATE_FABRIC] for aggregate in aggregates
                           if policy.AGGREGATE_FABRIC in aggregate.metadata)
        self[key] = number = self.numbers[report, labels]
        return number


def sort(hosts: Sequence[Any]) -> tuple[list[int], list[policy.HostFacts]]:
    """The kind of each host, and what the kinds are.

    :param hosts: Nova's HostState objects.
    :returns: for each host, in their order, its kind: a position in the list that follows.
    """
    kinds, stat = _Kinds(), policy.STAT_REPORT
    kind_of_each: list[int] = []
    for start in range(0, len(hosts), _IN_A_CACHE):
        some = hosts[start:start + _IN_A_CACHE]
        # A call or a loop in Python for each host would cost as much again as all of this.
        reports = [host.stats.get(stat) or (host.hypervisor_type, host.hypervisor_version)
                   for host in some]
        aggregates = map(tuple, [host.aggregates for host in some])
        kind_of_each += map(kinds.__getitem__, zip(reports, aggregates))
    return kind_of_each, [_facts(report, labels) for report, labels in kinds.numbers]


def _facts(key: Any, labels: _Labels) -> policy.HostFacts:
    """:param key: the text of a report, or where there is none the hypervisor's (type, version)."""
    if isinstance(key, tuple):
        hypervisor_type, hypervisor_version = key
        return policy.HostFacts(hypervisor_type, hypervisor_version, None, labels)
    report = policy.HostReport.from_stats({policy.STAT_REPORT: key})
    # Whoever made a report, which this version may not understand, is the vTPM driver.
    version = report.hypervisor_version if report else policy.MIN_HYPERVISOR_VERSION
    return policy.HostFacts(policy.HYPERV, version, report, labels)
