"""compute-hyperv's cluster operations, which follow a failover on Nova 28 too.

compute-hyperv 16 does not: since 2023.2 Nova refuses an instance's new node without the id of its
compute node, and takes migrations as objects, where compute-hyperv gives dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compute_hyperv.nova.cluster import clusterops
from nova import exception, objects
from nova.network import neutron
from os_win import constants as os_win_constants
from os_win import exceptions as os_win_exceptions
from oslo_log import log as logging

LOG = logging.getLogger(__name__)


class _NetworkAPI(neutron.API):
    """Nova's, which takes a dictionary for a migration too."""

    def migrate_instance_start(self, context: Any, instance: Any, migration: Any) -> None:
        super().migrate_instance_start(context, instance, _as_object(migration))

    def migrate_instance_finish(self, context: Any, instance: Any, migration: Any,
                                provider_mappings: Any) -> None:
        super().migrate_instance_finish(context, instance, _as_object(migration),
                                        provider_mappings)


class ClusterOps(clusterops.ClusterOps):
    """Follows failovers to this node.

    :param doubt_of_start: says of an instance why this node will hardly start it, for its vTPM;
        None where there is no doubt.
    """

    def __init__(self, doubt_of_start: Callable[[Any], str | None]) -> None:
        super().__init__()
        self._network_api = _NetworkAPI()
        self._doubt_of_start = doubt_of_start

    def is_clustered(self, instance: Any) -> bool:
        """Whether the cluster has the instance's VM, on whichever node."""
        return bool(self._clustutils.vm_exists(instance.name))

    def add_again(self, instance: Any) -> None:
        """Give the cluster an instance's VM of this node that it has lost, if it has.

        Logs where that fails: this is for the end of what failed already.
        """
        try:
            if self._vmutils.vm_exists(instance.name) and not self.is_clustered(instance):
                self.add_to_cluster(instance)
        except (os_win_exceptions.OSWinException, os_win_exceptions.x_wmi) as exc:
            LOG.error("The cluster does not have the server's VM any more, and will not start it "
                      "on another node: %s", exc, instance=instance)

    def remove_from_cluster(self, instance: Any) -> None:
        """Take an instance's VM out of the cluster, unless that has it on another node.

        As where this node returns after its server was evacuated, or failed over.
        """
        if not self._is_on_another_node(instance):
            super().remove_from_cluster(instance)

    def _is_on_another_node(self, instance: Any) -> bool:
        try:
            if not self.is_clustered(instance):
                return False
            owner = self._clustutils.get_vm_host(instance.name)
        except os_win_exceptions.HyperVClusterException as exc:
            LOG.error("The cluster does not say which node has the server's VM, which stays in "
                      "it: %s", exc, instance=instance)
            return True
        if owner.lower() == self._this_node.lower():
            return False
        LOG.info("%s has the server's VM, which stays in the cluster", owner, instance=instance)
        return True

    def node_names(self) -> list[str]:
        """The names of the cluster's nodes.

        :raises os_win.exceptions.OSWinException: when the cluster does not answer.
        """
        return list(self._clustutils.get_cluster_node_names())

    def _nova_failover_server(self, instance: Any, new_host: str) -> None:
        """Called when the instance's VM came to this node and the cluster is done with it.

        :raises nova.exception.UnexpectedTaskStateError: Nova, or one that was killed, is at work
            on the instance.
        """
        node = objects.ComputeNode.get_by_host_and_nodename(self._context, new_host, new_host)
        if "compute_id" in objects.Instance.fields:
            instance.compute_id = node.id
        try:
            # As Nova spells it: the cluster may use other cases.
            super()._nova_failover_server(instance, node.host)
        except exception.UnexpectedDeletingTaskStateError:
            LOG.warning("The server failed over to this node while it was being deleted: if it "
                        "stays, delete it again", instance=instance)
            raise
        except exception.UnexpectedTaskStateError as exc:
            # Whoever calls this in a green thread of its own hears of nothing.
            LOG.error("The server failed over to this node, and Nova does not follow, as it was "
                      "about to do something with the server: %s. Where that died with a host, "
                      "reset the server's state (openstack server set --state active), and start "
                      "nova-compute here again.", exc, instance=instance)
            raise
        self._tell_of_start(instance)

    def _tell_of_start(self, instance: Any) -> None:
        """The cluster starts the VM itself and asks nobody: say at least why it fails."""
        doubt = self._doubt_of_start(instance)
        state = self._clustutils.get_cluster_group_state_info(instance.name)["state"]
        if state == os_win_constants.CLUSTER_GROUP_FAILED:
            LOG.error("The server failed over to this node, and the cluster could not start it "
                      "here. %s", doubt or "See the events of Hyper-V and of the cluster.",
                      instance=instance)
        elif doubt is not None:
            LOG.error("The server failed over to this node, which could not start it again. %s",
                      doubt, instance=instance)


def _as_object(migration: Any) -> Any:
    return objects.Migration(**migration) if isinstance(migration, dict) else migration
