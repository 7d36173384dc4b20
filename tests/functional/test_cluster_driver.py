"""compute-hyperv's cluster driver, without ours, on the nodes of a simulated failover cluster."""

# Patches nova first.
from tests.functional import hyperv_base  # isort: skip

import importlib

import fixtures
import pytest
from nova import exception, objects
from nova.network import neutron

from tests.functional import cluster_operations
from tests.functional.cluster_operations import ONLINE

pytestmark = pytest.mark.os_win


@pytest.mark.compute_hyperv
class ClusterDriverTest(cluster_operations.ClusterOperations, hyperv_base.HyperVTestCase):
    compute_driver = "compute_hyperv.cluster.driver.HyperVClusterDriver"
    DRIVERS = {"HV3": "compute_hyperv.driver.HyperVDriver"}

    def follow_failovers(self):
        """Let Nova take what compute-hyperv 16 gives it when it follows a failover.

        Nova 28 refuses a new node without its compute_id, which compute-hyperv 16 does not know
        (test_nova_28_does_not_follow_a_failover), and wants an object where it gives a dictionary.
        """
        for name in ("migrate_instance_start", "migrate_instance_finish"):
            self._take_a_dictionary(name)
        if "compute_id" not in objects.Instance.fields:
            return
        clusterops = importlib.import_module("compute_hyperv.nova.cluster.clusterops")
        follow = clusterops.ClusterOps._nova_failover_server

        def follow_with_compute_id(ops, instance, host):
            instance.compute_id = objects.ComputeNode.get_by_host_and_nodename(
                instance._context, host, host).id
            follow(ops, instance, host)
        self.useFixture(fixtures.MonkeyPatch(
            "compute_hyperv.nova.cluster.clusterops.ClusterOps._nova_failover_server",
            follow_with_compute_id))

    def _take_a_dictionary(self, name):
        method = getattr(neutron.API, name)

        def take(api, context, instance, migration, **keywords):
            return method(api, context, instance, objects.Migration(**migration), **keywords)
        self.useFixture(fixtures.MonkeyPatch("nova.network.neutron.API." + name, take))

    def test_nova_28_does_not_follow_a_failover(self):
        if "compute_id" not in objects.Instance.fields:
            self.skipTest("an older Nova")
        refusals = []
        clusterops = importlib.import_module("compute_hyperv.nova.cluster.clusterops")
        follow = clusterops.ClusterOps._nova_failover_server

        def follow_and_tell(ops, instance, host):
            try:
                follow(ops, instance, host)
            except exception.ObjectActionError as refusal:
                refusals.append(str(refusal))
                raise
        self.useFixture(fixtures.MonkeyPatch(
            "compute_hyperv.nova.cluster.clusterops.ClusterOps._nova_failover_server",
            follow_and_tell))
        server = self.boot_with_tpm()
        self.lose("HV1")
        self.assertEqual(("HV2", ONLINE), (
            self.group_of(server)["owner"], self.group_of(server)["state"]))
        self._soon(lambda: self.assertEqual(
            ["Instance.node is being updated ('HV2') but compute_id is not"], refusals))
        self.assertEqual("HV1", self.host_of(self.api.get_server(server["id"])))
