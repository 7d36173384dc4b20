"""This project's cluster driver on the nodes of a simulated failover cluster."""

# Patches nova first.
from tests.functional import nova_base  # isort: skip # noqa: F401

import contextlib
import os

import fixtures
import pytest
from oslo_config import cfg

from tests.functional import (
    cluster_operations,
    hyperv_base,
    killed_compute,
    server_life_base,
    test_server_life,
)
from tests.functional.cluster_operations import FAILED, OFF, ONLINE
from tests.functional.server_life_base import EAST, RUNNING, WEST
from tests.hyperv import windows

pytestmark = pytest.mark.os_win

HOST_TRAIT = "CUSTOM_HYPERV_GUARDED_HOST"


class _VtpmCluster:
    """A cluster with this project's driver."""

    compute_driver = "vtpm_hyperv.HyperVClusterDriver"
    DRIVERS = {"HV3": "vtpm_hyperv.HyperVDriver"}

    def is_offered(self, host):
        """Whether placement knows the host as one for vTPMs."""
        return HOST_TRAIT in self._get_provider_traits(self._get_provider_uuid_by_host(host))


@pytest.mark.compute_hyperv
class VtpmClusterDriverTest(
        _VtpmCluster, cluster_operations.ClusterOperations, server_life_base.ServerLifeCase):
    """The same as compute-hyperv's, for servers to which it gave their vTPMs."""

    def boot_with_tpm(self, host="HV1"):
        return self.boot_with_secret(host)

    def test_a_live_migration_that_is_refused(self):
        server = self.boot_with_tpm()
        self.simulated.set_guarded("HV2", False)
        self.assertIn("it is not guarded", self.act(server, **{"os-migrateLive": {
            "host": "HV2", "block_migration": "auto"}}))
        self.assert_on(server, "HV1")

    def test_a_live_migration_out_of_the_cluster_that_fails(self):
        server = self.boot_with_tpm()
        group = self.group_of(server)
        self.start_compute_on("HV3")
        self.simulated.add_fault(
            "HV1", "*.MigrateVirtualSystemToHost", job_error=("The network was lost.", 32768))
        server = self.live_migrate(server, "HV3", "failed")
        self.assert_on(server, "HV1")
        self.assertEqual(group, self.group_of(server))
        # It is a role of the cluster again, which moves it.
        self.lose("HV1")
        self.assert_on(server, "HV2")
        server = self.live_migrate(server, "HV3")
        self.assertIsNone(self.group_of(server))
        self.assert_tpm(server)

    def test_a_cluster_that_does_not_take_back_a_vm(self):
        server = self.boot_with_tpm()
        self.start_compute_on("HV3")
        for method, fault in (
                ("MigrateVirtualSystemToHost", {"job_error": ("It was lost.", 32768)}),
                ("AddVirtualMachine", {"return_value": 5})):
            self.simulated.add_fault("HV1", "*." + method, **fault)
        server = self.live_migrate(server, "HV3", "failed")
        self.assertEqual("HV1", self.host_of(server))
        self.assert_tpm(server)
        self.assertIn("will not start it on another node", self.stdlog.logger.output)

    def test_a_failover_says_why_a_vtpm_does_not_open(self):
        server = self.boot_with_tpm()
        self.simulated.set_guarded("HV2", False)
        self.lose("HV1")
        self.assert_on(server, "HV2", FAILED, OFF)
        self._soon(lambda: self.assertIn(
            "the cluster could not start it here. This host cannot unwrap the server's key "
            "protector: ", self.stdlog.logger.output))

    def test_neutron_is_told_of_a_failover(self):
        """With Nova's objects: compute-hyperv gives dictionaries, which Nova takes no more."""
        told = []
        for name in ("migrate_instance_start", "migrate_instance_finish"):
            self.useFixture(fixtures.MonkeyPatch(
                "nova.network.neutron.API." + name,
                lambda api, context, instance, migration, provider_mappings=None: told.append(
                    (migration.source_compute, migration.dest_compute))))
        server = self.boot_with_tpm()
        self.lose("HV1")
        self.assert_on(server, "HV2")
        self._soon(lambda: self.assertEqual([("HV1", "HV2")] * 2, told))

    def test_the_cluster_boots(self):
        """All nodes lost their power; the cluster starts its VMs itself, before Nova does."""
        self.flags(resume_guests_state_on_host_boot=True)
        server = self.boot_with_tpm()
        for host in ("HV2", "HV1"):
            self.lose(host)
        self.simulated.restore_node("HV1")
        self.start_compute_on("HV1")
        self.assert_on(server, "HV1")
        self.delete(server)


class ClusterStorage(_VtpmCluster, cluster_operations.ClusterNodes):
    """Before a :class:`~tests.functional.server_life_base.ServerLifeCase`: what nodes share."""

    def restart(self, host):
        self.stop(host)
        self._listening.add(host)
        hyperv_base.HyperVTestCase.start_compute_on(self, host)

    def files(self, host):
        root = cfg.CONF.instances_path
        return sorted(
            os.path.relpath(os.path.join(folder, name), root)
            for folder, _, names in os.walk(root) for name in names
            if os.path.relpath(folder, root).split(os.sep)[0] not in (".", "_base", "locks"))

    def files_with_content(self, host):
        return {name: os.path.getsize(os.path.join(cfg.CONF.instances_path, name))
                for name in self.files(host)}

    def assert_nothing_left(self):
        for host in self.HOSTS:
            self.assertEqual([], self.machines(host["name"]))
        self.assertEqual([], self.files("HV1"))
        self.assertEqual([], self.simulated.cluster_groups("CL1"))

    def assert_kept(self, server, host=None, state=RUNNING):
        super().assert_kept(server, host, state)
        if state == RUNNING:
            group = self.group_of(server)
            self.assertEqual((self.host_of(self.api.get_server(server["id"])), ONLINE),
                             (group["owner"], group["state"]))


@pytest.mark.compute_hyperv
class VtpmClusterLifeTest(ClusterStorage, test_server_life.ComputeHyperVLifeTest):
    """What compute-hyperv's standalone driver does, on storage that the nodes share."""

    # The cluster's own: see test_the_cluster_boots, and those of failovers.
    test_the_host_boots = test_the_host_boots_and_cannot_unwrap = None
    # The cluster moves the VM itself.
    test_a_live_migration_that_arrives_and_fails = None
    test_it_is_deleted_where_nova_does_not_have_it = None
    # The nodes share the cache of images too: see the next one.
    test_a_move_after_the_image_is_deactivated = test_a_move_while_glance_is_away = None

    def test_a_move_after_the_image_is_gone(self):
        server = self.boot_with_secret()
        self.lose_image(server)
        self._migrate_server(server)
        self._wait_for_state_change(server, "VERIFY_RESIZE")
        self.assert_kept(server, "HV2")
        self._revert_resize(server)
        self.assert_kept(server, "HV1")

    @contextlib.contextmanager
    def slow_live_migration(self):
        # The cluster moves the VM itself.
        self.simulated.hold_cluster_moves("CL1")
        try:
            yield
        finally:
            self.simulated.release_cluster_moves("CL1")

    def test_a_live_migration_that_fails(self):
        """The other node cannot unwrap the protector: nobody there reaches the HGS."""
        server = self.boot_with_secret()
        self.simulated.set_hgs_reachable(EAST, False)
        self.live_migrate(server, "HV2", "failed")
        self.assert_kept(server, "HV1")
        self.simulated.set_hgs_reachable(EAST, True)
        self.live_migrate(server, "HV2")
        self.assert_kept(server, "HV2")

    def test_a_resize_that_fails(self):
        server = self.boot_with_secret()
        self.simulated.add_fault(
            "HV1", "*.RequestStateChange", times=9, job_error=("It goes on.", 32768))
        self.assertIn("It goes on.", self.act(server, migrate=None))
        self.assertIsNotNone(self.group_of(server))

    # It is the cluster that moves VMs away from a node that failed: see ClusterEvacuationTest.
    test_evacuation_without_shared_storage = None


@pytest.mark.compute_hyperv
class VtpmClusterCellsTest(test_server_life._Cells, _VtpmCluster, cluster_operations.ClusterNodes,
                           server_life_base.ServerLifeCase):
    """A cluster of one node, and a host that is in none in another cell."""

    CLUSTERS = ({"name": "CL1", "nodes": ["HV1"]},)
    DRIVERS = dict.fromkeys(("HV2", "HV3"), "vtpm_hyperv.HyperVDriver")


class _Evacuations(_VtpmCluster, cluster_operations.ClusterNodes, server_life_base.ServerLifeCase):
    HOSTS = tuple({"name": name, "fabric": EAST, "live_migration": True}
                  for name in ("HV1", "HV2", "HV3"))


@pytest.mark.compute_hyperv
class ClusterEvacuationTest(_Evacuations):
    """A cluster of three nodes, on one of which nova-compute died too."""

    CLUSTERS = ({"name": "CL1", "nodes": ["HV1", "HV2", "HV3"]},)
    DRIVERS = {}
    STARTED_LATER = ()

    def test_what_the_cluster_has_is_not_evacuated(self):
        server = self.boot_with_secret()
        self.stop("HV2")
        self.lose("HV1")
        self.assertEqual("HV2", self.group_of(server)["owner"])
        for host in ("HV1", "HV2"):
            self.force_down(host)
        self.assertIn("The failover cluster has the server's VM", self.act(server, evacuate={}))
        self.assertEqual([], self.machines("HV3"))
        self.start_compute_on("HV2")
        self.assert_on(server, "HV2")

    def test_the_node_that_returns_leaves_the_group_of_the_evacuated_server(self):
        """Of a server that somebody had taken out of the cluster."""
        server = self.boot_with_secret()
        with windows.acting_as("HV1"):
            self.computes["HV1"].driver._clops._clustutils.delete(self.name_of(server))
        self.assertIsNone(self.group_of(server))
        self.lose("HV1")
        self.force_down("HV1")
        self.assertEqual("", self.act(server, evacuate={"host": "HV2"}).strip())
        if self.api.get_server(server["id"])["status"] == "SHUTOFF":  # by the version of Nova
            self._start_server(server)
        group = self.group_of(server)
        self.assertEqual(("HV2", ONLINE), (group["owner"], group["state"]))
        self.simulated.restore_node("HV1")
        self.start_compute_on("HV1")
        self.assertEqual([], self.machines("HV1"))
        self.assertEqual(group, self.group_of(server))
        self.assert_on(server, "HV2")

    def test_a_revert_after_a_failover(self):
        """The node of the resize is asked to destroy a VM that another one has by now."""
        self.flags(auto_failback=False, group="hyperv")
        server = self.boot_with_secret()
        self._migrate_server(server)
        server = self._wait_for_state_change(server, "VERIFY_RESIZE")
        resized_on = self.host_of(server)
        self.lose(resized_on)
        self._soon(lambda: self.assertEqual(
            self.group_of(server)["owner"], self.host_of(self.api.get_server(server["id"]))))
        here = self.group_of(server)["owner"]
        self.assertNotEqual(resized_on, here)
        self.simulated.restore_node(resized_on)
        self.start_compute_on(resized_on)
        self.assertIn("since the resize", self.act(server, revertResize=None))
        self._server_with(server, {"status": "ACTIVE"})
        self.assert_on(server, here)
        self._stop_server(server)
        self._start_server(server)
        self.assert_on(server, here)


@pytest.mark.compute_hyperv
class EvacuationToClusterTest(_Evacuations):
    """HV3 shares the cluster's storage and is none of its nodes."""

    def test_a_server_of_another_host(self):
        self.start_compute_on("HV3")
        server = self.boot_with_secret("HV3")
        self.lose_power("HV3")
        self.force_down("HV3")
        self.evacuate(server)

    def evacuate(self, server):
        self.assertEqual("", self.act(server, evacuate={"host": "HV2"}).strip())
        if self.api.get_server(server["id"])["status"] == "SHUTOFF":  # by the version of Nova
            self._start_server(server)
        self.assert_evacuated(server)

    def assert_evacuated(self, server):
        self.assertEqual(("HV2", ONLINE), (
            self.group_of(server)["owner"], self.group_of(server)["state"]))
        self.assertEqual(server_life_base.SECRET, self.simulated.read_tpm(
            "HV2", self.name_of(server), "bitlocker"))

    def test_killed_in_the_middle(self):
        """nova-compute dies with a planned VM, then with one that the cluster lacks, then has.

        The last is a failover for the nova-compute that starts, once the state is reset.
        """
        kills = self.useFixture(killed_compute.KilledComputes(self.disks))
        self.start_compute_on("HV3")
        server = self.boot_with_secret("HV3")
        self.lose_power("HV3")
        self.force_down("HV3")

        def kill(change):
            with kills.armed("HV2", change, after=True):
                self.api.post_server_action(server["id"], {"evacuate": {"host": "HV2"}})
            kills.bury(self.computes["HV2"])
            self.green_threads.leave(kills.halted)
            self.restart("HV2")
            self.addCleanup(kills.end)

        for change in ("Msvm_VirtualSystemManagementService.ImportSystemDefinition",
                       "Msvm_VirtualSystemManagementService.RealizePlannedSystem"):
            kill(change)
            self.assertEqual("HV3", self.host_of(self.api.get_server(server["id"])))
            self.reset(server)
        kill("MSCluster_Cluster.AddVirtualMachine")
        self._soon(lambda: self.assertIn("Nova does not follow", self.stdlog.logger.output))
        self.reset(server)
        self.restart("HV2")
        self._soon(lambda: self._server_with(server, {"OS-EXT-SRV-ATTR:host": "HV2"}))
        self.assertEqual("", self.act(server, reboot={"type": "HARD"}).strip())
        self.assert_evacuated(server)


@pytest.mark.compute_hyperv
class MixedClusterTest(
        _VtpmCluster, cluster_operations.ClusterNodes, server_life_base.ServerLifeCase):
    """A cluster whose nodes are of two fabrics."""

    HOSTS = tuple({"name": name, "fabric": fabric, "live_migration": True}
                  for name, fabric in (("HV1", EAST), ("HV2", WEST), ("HV3", EAST)))

    def test_its_nodes_offer_no_vtpms(self):
        self.start_compute_on("HV3")
        for _ in range(2):
            self._run_periodics()
            self.assertEqual([False, False, True], [
                self.is_offered(host) for host in ("HV1", "HV2", "HV3")])
        # Each says it once.
        self.assertEqual(2, self.stdlog.logger.output.count(
            "the nodes of its cluster have different fabric guardians"))
        self.assertIn("HV2: %s" % self.simulated.fabric_thumbprint(WEST),
                      self.stdlog.logger.output)
        self.simulated.remove_guardian("HV2", WEST)
        self._run_periodics()
        self._run_periodics()
        self.assertEqual([True, False, True], [
            self.is_offered(host) for host in ("HV1", "HV2", "HV3")])
