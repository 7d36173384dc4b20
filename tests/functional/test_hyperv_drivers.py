"""Nova's own Hyper-V driver and compute-hyperv's, without ours, on several simulated hosts."""

# Patches nova first.
from tests.functional import hyperv_base  # isort: skip

import os

import pytest

pytestmark = pytest.mark.os_win

RUNNING, OFF, SAVED, PAUSED = 2, 3, 6, 9


class _DriverOperations:
    """What every driver must do; asked of Nova's API, seen on the hosts."""

    def assert_state(self, server, state):
        self.assertEqual(state, self.machine(server)["state"])

    def test_power(self):
        for number, generation in enumerate(
                (hyperv_base.GENERATION_1, hyperv_base.GENERATION_2), 1):
            image = self.create_image(number, **generation)
            server = self.boot(image)
            machine = self.machine(server)
            self.assertEqual((number, RUNNING), (machine["generation"], machine["state"]))
            self._stop_server(server)
            self.assert_state(server, OFF)
            self._start_server(server)
            self.assert_state(server, RUNNING)
            self._reboot_server(server, hard=True)
            self.assert_state(server, RUNNING)
            self._reboot_server(server, hard=False)
            self.assert_state(server, RUNNING)
            self.api.post_server_action(server["id"], {"pause": None})
            self._wait_for_state_change(server, "PAUSED")
            self.assert_state(server, PAUSED)
            self.api.post_server_action(server["id"], {"unpause": None})
            self._wait_for_state_change(server, "ACTIVE")
            self.assert_state(server, RUNNING)
            self._suspend_server(server)
            self.assert_state(server, SAVED)
            self._resume_server(server)
            self.assert_state(server, RUNNING)
            self.assertEqual(machine["id"], self.machine(server)["id"])
            self._delete_server(server)
            self.assert_nothing_left()

    def test_both_hosts_at_once(self):
        image = self.create_image(**hyperv_base.GENERATION_2)
        servers = [self.api.post_server({"server": self._build_server(
            image_uuid=image, flavor_id=self.PLAIN_FLAVOR, networks="none", host=host)})
            for host in ("HV1", "HV2") * 3]
        servers = [self._wait_for_state_change(server, "ACTIVE") for server in servers]
        self.assertEqual(["HV1", "HV2"] * 3, [self.host_of(server) for server in servers])
        for host in ("HV1", "HV2"):
            self.assertEqual(3, len(self.machines(host)))
        for server in servers:
            self.assert_state(server, RUNNING)
            self._delete_server(server)
        self.assert_nothing_left()

    def test_cold_migration_and_confirm(self):
        server = self.boot_on("HV1")
        before = self.machine(server)
        self._migrate_server(server)
        self._wait_for_state_change(server, "VERIFY_RESIZE")
        server = self._confirm_resize(server)
        self.assertEqual("HV2", self.host_of(server))
        self.assert_moved(before, self.machine(server))
        self._delete_server(server)
        self.assert_nothing_left()

    def test_resize_and_revert(self):
        server = self.boot_on("HV1")
        before = self.machine(server)
        self.assert_size(server, 512, 1)
        self.assert_size(self._resize_server(server, self.LARGER_FLAVOR), 2048, 20)
        server = self._revert_resize(server)
        self.assertEqual("HV1", self.host_of(server))
        self.assert_moved(before, self.machine(server))
        self.assert_size(server, 512, 1)
        self._delete_server(server)
        self.assert_nothing_left()

    def test_resize_and_confirm(self):
        server = self.boot_on("HV1", hyperv_base.GENERATION_1)
        before = self.machine(server)
        self._resize_server(server, self.LARGER_FLAVOR)
        server = self._confirm_resize(server)
        self.assertEqual("HV2", self.host_of(server))
        self.assert_moved(before, self.machine(server))
        self.assert_size(server, 2048, 20)
        self._delete_server(server)
        self.assert_nothing_left()

    def test_rescue(self):
        server = self.boot_on("HV1")
        self.rescue(server)
        self._delete_server(server)
        self.assert_nothing_left()

    def test_live_migration_with_the_disks(self):
        server = self.boot_on("HV1")
        before, files = self.machine(server), self.files("HV1")
        self.assertTrue([name for name in files if name.endswith("root.vhdx")])
        server = self._live_migrate(server)
        self.assertEqual("HV2", self.host_of(server))
        after = self.machine(server)
        self.assertEqual((before["id"], RUNNING), (after["id"], after["state"]))
        self.assertEqual([], self.files("HV1"))
        self.assertEqual(files, self.files("HV2"))
        # And back, into the folder it came from.
        server = self._live_migrate(server)
        self.assertEqual("HV1", self.host_of(server))
        self.assertEqual(before, self.machine(server))
        self._reboot_server(server, hard=True)
        self._delete_server(server)
        self.assert_nothing_left()

    def test_live_migration_on_shared_storage(self):
        shared = os.path.join(self.disks, "shared")
        self.flags(instances_path=shared)
        os.mkdir(shared)
        server = self.boot_on("HV1")
        before = self.machine(server)
        folder = os.path.join(shared, before["name"])
        disk = os.path.join(folder, "root.vhdx")
        number = os.stat(disk).st_ino
        server = self._live_migrate(server)
        self.assertEqual("HV2", self.host_of(server))
        self.assertEqual(before, self.machine(server))
        self.assertEqual(number, os.stat(disk).st_ino)
        self._delete_server(server)
        self.assertFalse(os.path.exists(folder))
        self.assertEqual([[], []], [self.machines("HV1"), self.machines("HV2")])

    def test_a_live_migration_that_fails_leaves_the_server_where_it_was(self):
        server = self.boot_on("HV1")
        before, files = self.machine(server), self.files("HV1")
        self.simulated.add_fault(
            "HV1", "*.MigrateVirtualSystemToHost", job_error=("The network was lost.", 32768))
        server = self._live_migrate(server, migration_expected_state="failed")
        self.assertEqual(1, len(self.simulated.calls("HV1", "*.MigrateVirtualSystemToHost")))
        self.assertEqual("HV1", self.host_of(server))
        self.assertEqual(before, self.machine(server))
        self.assertEqual(files, self.files("HV1"))
        # The destination is asked to clean up, and nobody waits for it.
        self._soon(lambda: self.assertEqual([], self.files("HV2")))
        self._delete_server(server)
        self.assert_nothing_left()

    LARGER_FLAVOR = "2"

    def assert_moved(self, before, after):
        """After a cold migration or a resize, confirmed or reverted."""
        self.assertEqual(RUNNING, after["state"])
        compare = self.assertEqual if self.KEEPS_MACHINE else self.assertNotEqual
        compare(before["id"], after["id"])


class NovaDriverTest(_DriverOperations, hyperv_base.HyperVTestCase):
    """nova.virt.hyperv: its cold migration defines a new machine over the old disks."""

    compute_driver = "hyperv.HyperVDriver"
    KEEPS_MACHINE = False
    # On the source of a cold migration: its confirm_migration removes the "_revert" folder alone.
    LEAVES_FOLDERS = True


@pytest.mark.compute_hyperv
class ComputeHyperVTest(_DriverOperations, hyperv_base.HyperVTestCase):
    """compute_hyperv.driver: its cold migration imports the machine's definition."""

    compute_driver = "compute_hyperv.driver.HyperVDriver"
    KEEPS_MACHINE = True


@pytest.mark.compute_hyperv
class ComputeHyperVTpmTest(hyperv_base.HyperVTestCase):
    """The same driver carries a TPM that another hand gave a server, on the hosts' own disks."""

    compute_driver = "compute_hyperv.driver.HyperVDriver"
    FABRICS = ("east",)
    HOSTS = tuple({"name": name, "fabric": "east", "live_migration": True}
                  for name in ("HV1", "HV2"))

    def test_resize(self):
        server = self.boot_with_tpm()
        server = self._resize_server(server, "2")
        self.assertEqual("HV2", self.host_of(server))
        self.assert_tpm(server)
        server = self._revert_resize(server)
        self.assertEqual("HV1", self.host_of(server))
        self.assert_tpm(server)
        self._resize_server(server, "2")
        server = self._confirm_resize(server)
        self.assertEqual("HV2", self.host_of(server))
        self.assert_size(server, 2048, 20)
        self.assert_tpm(server)
        self._delete_server(server)
        self.assert_nothing_left()
