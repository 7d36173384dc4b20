"""compute-hyperv's cluster driver with vTPMs: ``compute_driver = vtpm_hyperv.HyperVClusterDriver``.
"""

from __future__ import annotations

from typing import Any

from compute_hyperv.nova import driver as hyperv_driver
from compute_hyperv.nova.cluster import driver as cluster_driver
from compute_hyperv.nova.cluster import livemigrationops, volumeops
from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects

from vtpm_compute import (
    cluster_fabric,
    cluster_operations,
    compute_hyperv_driver,
    marks,
    vtpm_driver,
)
from vtpm_scheduling import policy


class _ClusterDriver(cluster_driver.HyperVClusterDriver):
    """compute-hyperv's, which does not follow failovers before it is complete.

    Its own constructor starts that at once, with a VMOps and a ClusterOps that are not ours.
    """

    def __init__(self, virtapi: Any) -> None:
        hyperv_driver.HyperVDriver.__init__(self, virtapi)
        self._clops = cluster_operations.ClusterOps(self._why_it_does_not_start)
        self._livemigrationops = livemigrationops.ClusterLiveMigrationOps()
        self._volumeops = volumeops.ClusterVolumeOps()

    def _why_it_does_not_start(self, instance: Any) -> str | None:
        raise NotImplementedError()


class HyperVClusterDriver(vtpm_driver.VtpmDriver, _ClusterDriver):
    """compute-hyperv's cluster driver with vTPMs.

    A failover asks neither Nova nor this driver: all nodes have to be guarded, and of one fabric.
    """

    VMOPS = compute_hyperv_driver.VMOps
    VMOPS_USERS = (*compute_hyperv_driver.HyperVDriver.VMOPS_USERS, "_clops")
    capabilities = compute_hyperv_driver.HyperVDriver.capabilities

    def __init__(self, virtapi: Any) -> None:
        super().__init__(virtapi)
        self._vmops.vtpm.narrowed = cluster_fabric.ClusterFabric(
            self._hostops.get_hostname(), self._clops.node_names, _last_report_of).narrowed
        self._clops.start_failover_listener_daemon()
        self._clops.reclaim_failovered_instances()

    def _why_it_does_not_start(self, instance: Any) -> str | None:
        """What keeps the instance's vTPM from being opened on this node; None: nothing known."""
        if not marks.is_marked(instance):
            return None
        version = self._hypervisor_version()
        misfit = policy.misfit(
            policy.HostFacts(policy.HYPERV, version, self._vmops.vtpm.report(version)),
            policy.Home(instance.system_metadata.get(policy.MARK_FABRIC)),
            require_fabric_aggregate=False)
        return misfit.sentence if misfit is not None else None


def _last_report_of(node: str) -> policy.HostReport | None:
    try:
        found = objects.ComputeNode.get_by_host_and_nodename(
            nova_context.get_admin_context(), node, node)
    except nova_exception.ComputeHostNotFound:
        # nova-compute never ran there.
        return None
    return policy.HostReport.from_stats(found.stats or {})
