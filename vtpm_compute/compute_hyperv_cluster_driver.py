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
    lifecycle,
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
        self._clops = cluster_operations.ClusterOps(self._doubt_of_start)
        self._livemigrationops = livemigrationops.ClusterLiveMigrationOps()
        self._volumeops = volumeops.ClusterVolumeOps()

    def _doubt_of_start(self, instance: Any) -> str | None:
        raise NotImplementedError()


class HyperVClusterDriver(vtpm_driver.VtpmDriver, _ClusterDriver):
    """compute-hyperv's cluster driver with vTPMs.

    A failover asks neither Nova nor this driver: all nodes have to be guarded, and of one fabric.
    """

    KIND = lifecycle.Driver.CLUSTER
    VMOPS = compute_hyperv_driver.VMOps
    VMOPS_USERS = (*compute_hyperv_driver.HyperVDriver.VMOPS_USERS, "_clops")
    capabilities = compute_hyperv_driver.HyperVDriver.capabilities

    def __init__(self, virtapi: Any) -> None:
        super().__init__(virtapi)
        self._vmops.vtpm.narrowed = cluster_fabric.ClusterFabric(
            self._hostops.get_hostname(), self._clops.node_names, _last_report_of).narrowed
        self._clops.start_failover_listener_daemon()
        self._clops.reclaim_failovered_instances()

    def _doubt_of_start(self, instance: Any) -> str | None:
        """Why this node will hardly start the instance's VM, for its vTPM; None: no doubt."""
        if not marks.is_marked(instance):
            return None
        return self._vmops.vtpm.doubt_of_start(instance.name)


def _last_report_of(node: str) -> policy.HostReport | None:
    try:
        found = objects.ComputeNode.get_by_host_and_nodename(
            nova_context.get_admin_context(), node, node)
    except nova_exception.ComputeHostNotFound:
        # nova-compute never ran there.
        return None
    return policy.HostReport.from_stats(found.stats or {})
