"""What a driver of a failover cluster must do; asked of Nova's API, seen on its simulated nodes.

HV3 is a host outside of the cluster, with a driver for hosts that are in none.
"""

import importlib
import os
import time
import types

import fixtures
import greenlet
from oslo_config import cfg

from tests.functional import killed_compute
from tests.hyperv import current_host, windows

RUNNING, OFF, SAVED, PAUSED = 2, 3, 6, 9
ONLINE, OFFLINE, FAILED, PARTIAL = range(4)


class ClusterNodes:
    """Before a test case of several hosts: HV1 and HV2 are nodes; :attr:`DRIVERS` has HV3's."""

    STARTED_LATER = ("HV3",)
    CLUSTERS = ({"name": "CL1", "nodes": ["HV1", "HV2"]},)

    def _prepare_services(self):
        super()._prepare_services()
        importlib.import_module("compute_hyperv.nova.conf")  # registers the option below
        coordination = importlib.import_module("compute_hyperv.nova.coordination")
        self.flags(instances_path=os.path.join(self.disks, "shared"))
        self.flags(backend_url="file://" + os.path.join(self.disks, "locks"),
                   group="coordination")
        self.addCleanup(coordination.COORDINATOR.stop)
        # The nodes on which os-win listens for failovers, those where it shall stop, and how many
        # listeners did: they end with their process; here, in their pause after an error.
        self._listening, self._stopping, self._stopped = set(), set(), 0

        def pause(seconds):
            here = current_host.computer()
            if not windows.is_remembered(here):
                raise greenlet.GreenletExit  # it was killed; nobody waits for it
            if here.name in self._stopping:
                self._stopped += 1
                raise greenlet.GreenletExit
            time.sleep(0.2)
        self.useFixture(fixtures.MonkeyPatch(
            "os_win.utils.compute.clusterutils.time",
            types.SimpleNamespace(sleep=pause, time=time.time)))
        self.addCleanup(lambda: [self.stop(host) for host in sorted(self._listening)])

    def start_compute_on(self, host):
        if host not in self.DRIVERS:
            self._listening.add(host)
        return super().start_compute_on(host)

    def stop(self, host):
        """Stop nova-compute on a node, with the listener that it leaves behind."""
        self.computes[host].stop()
        self._listening.remove(host)
        if killed_compute.is_buried(self.computes[host]):
            self.simulated.close_clusters(host)
            return
        self._stopping.add(host)
        before = self._stopped
        self.simulated.close_clusters(host)
        self._soon(lambda: self.assertEqual(before + 1, self._stopped))
        self._stopping.remove(host)

    # Servers, their VMs and groups.

    def assert_on(self, server, host, group=ONLINE, state=RUNNING):
        """Nova, the cluster and Hyper-V agree where the server is, and its TPM is with it."""
        server = self._soon(lambda: self._server_with(server, {"OS-EXT-SRV-ATTR:host": host}))
        self.assertEqual(state, self.machine(server)["state"])
        found = self.group_of(server)
        self.assertEqual((host, group), (found["owner"], found["state"]), found["reason"])
        if state == RUNNING:
            self.assert_tpm(server)

    def folder_of(self, server):
        return os.path.join(cfg.CONF.instances_path, self.machine(server)["name"])

    def group_of(self, server):
        """Its group in the cluster, or None."""
        return next((group for group in self.simulated.cluster_groups("CL1")
                     if group["name"] == self.name_of(server)), None)

    def lose(self, host):
        """A node loses its power, and nova-compute there with it."""
        self.stop(host)
        self.simulated.fail_node(host)

    def delete(self, server):
        self._delete_server(server)
        self.assertEqual([], self.simulated.cluster_groups("CL1"))
        for host in self.HOSTS:
            self.assertEqual([], self.machines(host["name"]))
        left = os.listdir(cfg.CONF.instances_path)
        self.assertNotIn(self.name_of(server), " ".join(left))


class ClusterOperations(ClusterNodes):
    """What is asked of Nova's API."""

    FABRICS = ("east",)
    HOSTS = tuple({"name": name, "fabric": "east", "live_migration": True}
                  for name in ("HV1", "HV2", "HV3"))

    def follow_failovers(self):
        """Called before the first failover: what the driver needs, to follow it."""

    def test_power(self):
        server = self.boot_with_tpm()
        self.assert_on(server, "HV1")
        self._stop_server(server)
        self.assert_on(server, "HV1", PARTIAL, OFF)
        self._start_server(server)
        self._reboot_server(server, hard=True)
        self._reboot_server(server, hard=False)
        self.assert_on(server, "HV1")
        self.api.post_server_action(server["id"], {"pause": None})
        self._wait_for_state_change(server, "PAUSED")
        self.assert_on(server, "HV1", ONLINE, PAUSED)
        self.api.post_server_action(server["id"], {"unpause": None})
        self._wait_for_state_change(server, "ACTIVE")
        self._suspend_server(server)
        self.assert_on(server, "HV1", PARTIAL, SAVED)
        self._resume_server(server)
        self.assert_on(server, "HV1")
        self.delete(server)

    def test_rescue(self):
        server = self.boot_with_tpm()
        self.rescue(server)
        self.assert_on(server, "HV1")
        self.delete(server)

    def test_resize(self):
        server = self.boot_with_tpm()
        server = self._resize_server(server, "2")
        self.assert_on(server, "HV2")
        self.assert_size(server, 2048, 20)
        server = self._revert_resize(server)
        self.assert_on(server, "HV1")
        self.assert_size(server, 512, 1)
        self._resize_server(server, "2")
        server = self._confirm_resize(server)
        self.assert_on(server, "HV2")
        self.assert_size(server, 2048, 20)
        self.delete(server)

    def test_live_migration_within_the_cluster(self):
        server = self.boot_with_tpm()
        server = self.live_migrate(server, "HV2")
        self.assert_on(server, "HV2")
        server = self.live_migrate(server, "HV1")
        self.assert_on(server, "HV1")
        # By the cluster: Hyper-V itself was asked for nothing.
        self.assertEqual([], self.simulated.calls("HV1", "*.MigrateVirtualSystemToHost"))
        self._reboot_server(server, hard=True)
        self.delete(server)

    def test_a_live_migration_that_is_refused(self):
        server = self.boot_with_tpm()
        self.simulated.set_guarded("HV2", False)
        server = self.live_migrate(server, "HV2", "failed")
        self.assertIn("Microsoft Virtual TPM Device", self.group_of(server)["reason"])
        self.assert_on(server, "HV1")
        self.delete(server)

    def test_live_migration_out_of_the_cluster(self):
        server = self.boot_with_tpm()
        self.start_compute_on("HV3")
        server = self.live_migrate(server, "HV3")
        self.assertEqual("HV3", self.host_of(server))
        self.assertIsNone(self.group_of(server))
        self.assert_tpm(server)
        self.delete(server)

    def test_failover_and_failback(self):
        server = self.boot_with_tpm()
        self.follow_failovers()
        self.lose("HV1")
        self.assert_on(server, "HV2")
        self._reboot_server(server, hard=True)
        self.assert_on(server, "HV2")
        self.simulated.restore_node("HV1")
        self.start_compute_on("HV1")
        self.assert_on(server, "HV1")
        self.delete(server)

    def test_failover_of_a_suspended_server(self):
        server = self.boot_with_tpm()
        self.follow_failovers()
        self._suspend_server(server)
        self.lose("HV1")
        self.assert_on(server, "HV2", PARTIAL, SAVED)
        self._resume_server(server)
        self.assert_on(server, "HV2")
        self.delete(server)

    def test_failover_of_a_paused_server(self):
        """What its memory had is lost with the node: the cluster starts it anew."""
        server = self.boot_with_tpm()
        self.follow_failovers()
        self.api.post_server_action(server["id"], {"pause": None})
        self._wait_for_state_change(server, "PAUSED")
        self.lose("HV1")
        self.assert_on(server, "HV2")
        # Nova hears of it when it is asked to go on.
        self.api.post_server_action(server["id"], {"unpause": None})
        self._wait_for_state_change(server, "ACTIVE")
        self.assert_on(server, "HV2")
        self.delete(server)

    def test_a_failover_while_nova_was_not_running(self):
        server = self.boot_with_tpm()
        self.follow_failovers()
        self.stop("HV2")
        self.lose("HV1")
        self.assertEqual("HV2", self.group_of(server)["owner"])
        self.start_compute_on("HV2")
        self.assert_on(server, "HV2")
        self.delete(server)

    def test_a_failover_to_a_node_that_cannot_unwrap_the_protector(self):
        server = self.boot_with_tpm()
        self.follow_failovers()
        self.simulated.set_guarded("HV2", False)
        self.lose("HV1")
        self.assert_on(server, "HV2", FAILED, OFF)
        self.simulated.set_guarded("HV2", True)
        self._stop_server(server)
        self._start_server(server)
        self.assert_on(server, "HV2")
        self.delete(server)
