"""Whether the nodes of a failover cluster are of one fabric.

The cluster moves a virtual machine to any of its nodes without asking, and a node of another fabric
cannot start it. One node sees its own guardian alone; what the others have is in the reports that
they give to Nova.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from os_win import exceptions as os_win_exceptions
from oslo_log import log as logging

from vtpm_scheduling import policy

LOG = logging.getLogger(__name__)


class ClusterFabric:
    """The fabric of this node's cluster.

    :param this_node: name of this node.
    :param node_names: gives the names of the cluster's nodes; may raise os-win's errors.
    :param report_of: gives what a node last reported to Nova; None: nothing.
    """

    def __init__(self, this_node: str, node_names: Callable[[], Iterable[str]],
                 report_of: Callable[[str], policy.HostReport | None]) -> None:
        self._this_node = this_node
        self._node_names, self._report_of = node_names, report_of
        self._mixture: dict[str, str] = {}

    def narrowed(self, report: policy.HostReport) -> policy.HostReport:
        """What this node may report in its cluster; logs a mixture of fabrics once.

        A node of a mixed cluster does not offer vTPMs. It goes on reporting its thumbprint: that is
        how the other nodes see the mixture, and its end.

        :param report: what it would report alone.
        """
        mixture = self._find_mixture(report)
        if mixture and mixture != self._mixture:
            LOG.error("This node offers no vTPMs: the nodes of its cluster have different fabric "
                      "guardians, and a server that fails over between them does not start (%s)",
                      ", ".join("%s: %s" % item for item in sorted(mixture.items())))
        elif self._mixture and not mixture:
            LOG.info("The nodes of this node's cluster have one fabric guardian again")
        self._mixture = mixture
        return dataclasses.replace(report, guarded=False) if mixture else report

    def _find_mixture(self, report: policy.HostReport) -> dict[str, str]:
        """The thumbprint of each node that has one, where they differ; else nothing."""
        if report.fabric_thumbprint is None:
            return {}
        try:
            names = list(self._node_names())
        except (os_win_exceptions.OSWinException, os_win_exceptions.x_wmi) as exc:
            LOG.warning("The nodes of this node's cluster are not known, nor whether they are of "
                        "one fabric: %s", exc)
            return {}
        found = {self._this_node: report.fabric_thumbprint}
        for name in names:
            other = None if name.upper() == self._this_node.upper() else self._report_of(name)
            if other is not None and other.fabric_thumbprint is not None:
                found[name] = other.fabric_thumbprint
        return found if len(set(found.values())) > 1 else {}
