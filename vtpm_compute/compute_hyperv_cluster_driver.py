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
    server_life,
)
from vtpm_compute.lifecycle import Condition
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


class HyperVClusterDriver(compute_hyperv_driver.HyperVDriver, _ClusterDriver):
    """compute-hyperv's cluster driver with vTPMs.

    A failover asks neither Nova nor this driver: all nodes have to be guarded, and of one fabric.
    """

    KIND = lifecycle.Driver.CLUSTER
    VMOPS_USERS = (*compute_hyperv_driver.HyperVDriver.VMOPS_USERS, "_clops")

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

    # compute-hyperv takes a VM out of the cluster before it is moved, and puts it back at the end
    # of what it knows.

    def migrate_disk_and_power_off(self, context: Any, instance: Any, *args: Any,
                                   **kwargs: Any) -> Any:
        """Begin a resize or a cold migration; where it fails, the cluster has the VM again."""
        try:
            return super().migrate_disk_and_power_off(context, instance, *args, **kwargs)
        except Exception:
            self._clops.add_again(instance)
            raise

    def reboot(self, context: Any, instance: Any, *args: Any, **kwargs: Any) -> None:
        """Reboot the server; the cluster gets the VM that a hard reboot has brought back."""
        super().reboot(context, instance, *args, **kwargs)
        if marks.is_marked(instance):
            self._clops.add_again(instance)

    def rollback_live_migration_at_source(self, context: Any, instance: Any,
                                          migrate_data: Any) -> None:
        """End a live migration that failed; one out of the cluster had taken the VM from it."""
        super().rollback_live_migration_at_source(context, instance, migrate_data)
        self._clops.add_again(instance)

    def _resume_interrupted(self, instance: Any, network_info: Any, power_on: bool) -> None:
        self._clops.add_again(instance)
        super()._resume_interrupted(instance, network_info, power_on)

    def import_evacuated(self, context: Any, instance: Any, *args: Any, **kwargs: Any) -> None:
        """Import the VM, and give it to the cluster."""
        super().import_evacuated(context, instance, *args, **kwargs)
        self._clops.add_to_cluster(instance)

    def evacuation_checks(self, instance: Any) -> dict[Condition, server_life.Check]:
        """As outside of a cluster; and the cluster must not have the VM on another node."""
        return {Condition.NOT_CLUSTERED: lambda: self._clustered(instance),
                **super().evacuation_checks(instance)}

    def _clustered(self, instance: Any) -> str | None:
        return "" if self._clops.is_clustered(instance) else None


def _last_report_of(node: str) -> policy.HostReport | None:
    try:
        found = objects.ComputeNode.get_by_host_and_nodename(
            nova_context.get_admin_context(), node, node)
    except nova_exception.ComputeHostNotFound:
        # nova-compute never ran there.
        return None
    return policy.HostReport.from_stats(found.stats or {})
