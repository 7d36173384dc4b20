"""nova-compute is killed in the middle of each operation of a server's life, and started again.

Its TPM's contents are there when a user or an operator has done what Nova documents.
"""

# Patches nova first.
from tests.functional import server_life_base  # isort: skip

import contextlib
import importlib
import os
import shutil

import eventlet
import pytest
from nova import exception as nova_exception
from nova import objects
from nova.compute import power_state
from nova.tests.functional.api import client as api_client

from tests.functional import killed_compute, test_vtpm_cluster_driver
from tests.functional.server_life_base import EAST, OFF, RUNNING, SECRET
from tests.hyperv import windows

pytestmark = pytest.mark.os_win

# At how many changes of an operation nova-compute is killed, at most; "0" is all.
POINTS = int(os.environ.get("VTPM_KILLS", "3"))
# With the other drivers, whose code is mostly the same.
FEWER_POINTS = POINTS and max(POINTS - 2, 1)
DEFINE = "Msvm_VirtualSystemManagementService.DefineSystem"
START = "Msvm_ComputerSystem.RequestStateChange"
DETACH = "Msvm_VirtualSystemManagementService.RemoveResourceSettings"
START_AGAIN = {"SHUTOFF": "os-start", "SUSPENDED": "resume"}


class KilledNodes:
    """Before a :class:`~tests.functional.server_life_base.ServerLifeCase`: kills nova-computes.

    :cvar POINTS: at how many changes of an operation nova-compute is killed, at most; 0 is all
    """

    POINTS = POINTS

    def setUp(self):
        super().setUp()
        self.kills = self.useFixture(killed_compute.KilledComputes(self.disks))
        # Nobody needs to wait for a guest that shuts itself down.
        self.flags(shutdown_timeout=1)
        self._images = {}

    def create_image(self, number=1, **properties):
        if number not in self._images:
            self._images[number] = super().create_image(number, **properties)
        return self._images[number]

    def restart(self, host):
        self.green_threads.leave(self.kills.halted)
        try:
            super().restart(host)
        except nova_exception.UnexpectedTaskStateError:
            # The other host ended a live migration at this moment, which Nova's start does not
            # expect. Whoever starts nova-compute does it again.
            super().restart(host)
        # Before the new services stop: they would wait for what is halted.
        self.addCleanup(self.kills.end)

    # Killing.

    def walk(self, operate, settle, host="HV1", prepare=None, points=None, reads=False,
             boots=False, at=()):
        """Kill a host's nova-compute at changes that it makes in an operation, and start it again.

        :param operate: the action, as the API takes it; or a function that asks for it
        :param settle: called with the server when nova-compute runs again
        :param prepare: called with the new server, before the operation
        :param points: how many of the changes, at most
        :param boots: whether the operation makes the server, and returns it
        :param at: numbers or names of changes, before which to kill it, instead of them all
        """
        points = self.POINTS if points is None else points
        if not callable(operate):
            action = operate

            def operate(server):
                self.api.post_server_action(server["id"], action)

        self.server = None
        self.simulated_calls_anew()
        with self.kills.recorded(host, reads) as changes:
            server = None if boots else self.prepared(prepare)
            changes.clear()
            server = operate(server) or server
            self.wait_for_end(server)
        self.assertNotEqual([], changes)
        self.settle(settle, server)
        for number, after in [(one, False) for one in at] or positions(len(changes), points):
            try:
                server = None if boots else self.prepared(prepare)
                with self.kills.armed(host, number, after, reads):
                    server = operate(server) or server
                self.kills.bury(self.computes[host])
                self.restart(host)
                self.settle(settle, server)
            except Exception as exc:
                raise AssertionError("killed %s change %s of %s: %s" % (
                    "after" if after else "before", number, changes, exc)) from exc
        if self.server is not None:
            self.end(self.server)

    def settle(self, settle, server):
        """:param settle: its result is whether the server can live on"""
        if settle(server):
            self.server = server
        else:
            self.end(server)
            self.server = None

    def simulated_calls_anew(self):
        for host in self.HOSTS:
            self.simulated.clear_calls(host["name"])

    def prepared(self, prepare):
        """A server for the operation: that which lived on, or a new one."""
        if self.server is None:
            self.simulated_calls_anew()
            self.server = self.boot_with_secret()
        if prepare is not None:
            prepare(self.server)
        return self.server

    def wait_for_end(self, server):
        """Nova is done with what it was asked for last."""
        def look():
            actions = self.api.get_instance_actions(server["id"])
            self.assertNotEqual([], actions)
            events = self.api.api_get("/servers/%s/os-instance-actions/%s" % (
                server["id"], actions[0]["request_id"])).body["instanceAction"]["events"]
            self.assertTrue(events and all(event["finish_time"] for event in events))
        try:
            self._soon(look)
            self._soon(lambda: self._server_with(server, {"OS-EXT-STS:task_state": None}))
        except api_client.OpenStackApiNotFoundException:
            pass  # it was deleted

    def end(self, server):
        try:
            self._delete_server(server)
        except api_client.OpenStackApiNotFoundException:
            pass  # that was the operation
        self.assert_nothing_left()

    def assert_nothing_left(self):
        super().assert_nothing_left()
        for host in ("HV1", "HV2"):
            self.assertEqual([EAST], [one["name"] for one in self.simulated.guardians(host)])
            self.assertEqual([], self.simulated.certificates(host))
            self.assertEqual([], self.simulated.private_keys(host))
            scratch = os.path.join(self.disks, host, "scratch")
            self.assertEqual([], os.listdir(scratch) if os.path.exists(scratch) else [])


def positions(count, points):
    """Where to kill, spread over so many changes: [(number of a change, after it)]."""
    last = count  # after the last change
    if points == 1:
        chosen = [last // 2]
    elif not points or points > count:
        chosen = range(count + 1)
    else:
        chosen = sorted({round(last * number / (points - 1)) for number in range(points)})
    return [(number, False) if number < count else (count - 1, True) for number in chosen]


class _EveryDriver:
    """What every driver does, before :class:`KilledNodes`."""

    def recover(self, server):
        """What an operator and a user do about a server that hangs or failed."""
        shown = self.api.get_server(server["id"])
        if shown["OS-EXT-STS:task_state"] or shown["status"] == "ERROR":
            self.reset(server)
            shown = self.api.get_server(server["id"])
        if shown["status"] == "RESCUE":
            self.assertEqual("", self.act(server, unrescue=None).strip())
        elif shown["status"] == "VERIFY_RESIZE":
            self.act(server, revertResize=None)
        elif shown["status"] in START_AGAIN:
            self.assertEqual(
                "", self.act(server, **{START_AGAIN[shown["status"]]: None}).strip())
        else:
            self.act(server, reboot={"type": "HARD"})
            if self.api.get_server(server["id"])["OS-EXT-STS:power_state"] != power_state.RUNNING:
                # A reboot starts no VM that is saved.
                for action in ("os-stop", "os-start"):
                    self.assertEqual("", self.act(server, **{action: None}).strip())

    def kept(self, server, host="HV1"):
        self.recover(server)
        self._server_with(server, {"status": "ACTIVE"})
        self.assert_kept(server, host)
        return True

    def acted(self, **action):
        return lambda server: self.act(server, **action)

    def test_soft_reboot(self):
        self.walk({"reboot": {"type": "SOFT"}}, self.kept)

    def test_hard_reboot(self):
        self.walk({"reboot": {"type": "HARD"}}, self.kept)

    def test_stop(self):
        self.walk({"os-stop": None}, self.kept)

    def test_start(self):
        self.walk({"os-start": None}, self.kept, prepare=self._stop_server)

    def test_pause(self):
        self.walk({"pause": None}, self.kept)

    def test_unpause(self):
        self.walk({"unpause": None}, self.kept, prepare=self.acted(pause=None))

    def test_suspend(self):
        self.walk({"suspend": None}, self.kept)

    def test_resume(self):
        self.walk({"resume": None}, self.kept, prepare=self.acted(suspend=None))

    def rescue_image(self):
        return self.create_image(2, **server_life_base.hyperv_base.GENERATION_2)

    def test_rescue(self):
        self.walk({"rescue": {"rescue_image_ref": self.rescue_image()}}, self.kept)

    def test_unrescue(self):
        self.walk({"unrescue": None}, self.kept, prepare=lambda server: self.act(
            server, rescue={"rescue_image_ref": self.rescue_image()}))

    def interrupt_rescue(self):
        """A server whose VM is off, without its own disk, since nova-compute died."""
        server = self.boot_with_secret()
        with self.kills.armed("HV1", DETACH, after=True):
            self.api.post_server_action(
                server["id"], {"rescue": {"rescue_image_ref": self.rescue_image()}})
        self.kills.bury(self.computes["HV1"])
        self.restart("HV1")
        return server

    def test_start_after_an_interrupted_rescue(self):
        server = self.interrupt_rescue()
        self.reset(server)
        for action in ("os-stop", "os-start"):
            self.assertEqual("", self.act(server, **{action: None}).strip())
        self.assert_kept(server)
        self.end(server)

    def test_host_boot_after_an_interrupted_rescue(self):
        self.flags(resume_guests_state_on_host_boot=True)
        server = self.interrupt_rescue()
        self.reset(server)
        self.assert_kept(server)
        self.end(server)

    def test_moves_after_an_interrupted_rescue(self):
        """What is not attached would not go along, and be deleted here."""
        server = self.interrupt_rescue()
        self.reset(server)
        for action in self.MOVES:
            files = self.files_with_content("HV1")
            self.assertIn("does not have its own root disk", self.act(server, **action))
            self._server_with(server, {"status": "ACTIVE"})
            self.assertEqual(files, self.files_with_content("HV1"))
        self.kept(server)
        self.end(server)

    def test_snapshot(self):
        self.walk({"createImage": {"name": "snapshot"}}, self.kept)

    def test_delete(self):
        def delete(server):
            self.api.delete_server(server["id"])
        self.walk(delete, self.deleted)

    def deleted(self, server):
        self._wait_until_deleted(server)
        return False

    # Where the VM is made.

    def test_rebuild_before_the_vtpm_is_attached(self):
        """The new VM is there, without a TPM: no guest runs in it."""
        server = self.boot_with_secret()
        with self.kills.armed("HV1", DEFINE, after=True):
            self.api.post_server_action(server["id"], {"rebuild": {"imageRef": self.image()}})
        self.kills.bury(self.computes["HV1"])
        self.restart("HV1")
        self._server_with(server, {"status": "ERROR"})
        self.reset(server)
        self.assertIn("no TPM", self.act(server, reboot={"type": "HARD"}))
        machine = self.machine(server)
        self.assertEqual((False, OFF), (machine["security"]["TpmEnabled"], machine["state"]))
        self.act(server, rebuild={"imageRef": self.image()})
        self._server_with(server, {"status": "ACTIVE"})
        machine = self.machine(server)
        self.assertEqual((True, RUNNING), (machine["security"]["TpmEnabled"], machine["state"]))
        self.end(server)

    def test_boot(self):
        """Nova lets such a server be deleted, and nothing else: it was never launched."""
        def settle(server):
            self.assert_no_guest_without_tpm(server)
            return False
        self.walk(self.boot_one, settle, boots=True)

    def boot_one(self, server):
        """Ask for a server; returns it when its host is known."""
        server = self._build_server(
            image_uuid=self.image(), flavor_id=self.PLAIN_FLAVOR, networks="none", host="HV1")
        return self._wait_for_server_parameter(
            self.api.post_server({"server": server}), {"OS-EXT-SRV-ATTR:host": "HV1"})

    def assert_no_guest_without_tpm(self, server):
        """Whatever its user and an administrator try."""
        for action in ({"reboot": {"type": "HARD"}}, {"os-resetState": {"state": "active"}},
                       {"reboot": {"type": "HARD"}}, {"os-stop": None}, {"os-start": None}):
            with contextlib.suppress(api_client.OpenStackApiException):
                # Nova refuses some, by the server's state.
                if "os-resetState" in action:
                    self.reset(server)
                else:
                    self.act(server, **action)
            for machine in self.machines("HV1"):
                self.assertTrue(machine["state"] == OFF or machine["security"]["TpmEnabled"],
                                (action, machine))

    def assert_rebuilt(self, server):
        """A rebuild succeeds: the server has a new TPM, as its image says."""
        self.assertEqual("", self.act(server, rebuild={"imageRef": self.image()}).strip())
        if self.api.get_server(server["id"])["status"] == "SHUTOFF":  # as before
            self._start_server(server)
        machine = self.machine(self._server_with(server, {"status": "ACTIVE"}))
        self.assertEqual((True, RUNNING), (machine["security"]["TpmEnabled"], machine["state"]))
        self.assertIsNone(self.simulated.read_tpm("HV1", self.name_of(server), "bitlocker"))

    def test_rebuild(self):
        self.walk({"rebuild": {"imageRef": self.image()}}, self.rebuilt, prepare=self.make_disk_old)

    def root_disk(self, server):
        return os.path.join(self.folder_of(server), "root.vhdx")

    def make_disk_old(self, server):
        os.utime(self.root_disk(server), (1, 1))

    def rebuilt(self, server):
        """The old VM with its TPM, or the new one with another; or nothing runs, up to a rebuild.
        """
        self.assert_no_guest_without_tpm(server)
        self.assert_old_or_new(server)
        self.assert_rebuilt(server)
        self.assertNotEqual(1, os.path.getmtime(self.root_disk(server)))
        return False

    def assert_old_or_new(self, server):
        for machine in self.machines("HV1"):
            if machine["state"] == RUNNING:
                is_old = machine["id"] == self.identifier
                self.assertEqual(is_old, os.path.getmtime(self.root_disk(server)) == 1)
                self.assertEqual(SECRET if is_old else None, self.simulated.read_tpm(
                    "HV1", self.name_of(server), "bitlocker"))

    def test_rebuild_that_adds_a_vtpm(self):
        """Until the new VM is complete, the old one runs as it did, or nothing."""
        plain = self.create_image(2, **server_life_base.hyperv_base.GENERATION_2)

        def make_plain(server):
            self._rebuild_server(server, plain)
            self.make_disk_old(server)

        def settle(server):
            for action in ({"reboot": {"type": "HARD"}}, {"os-stop": None}, {"os-start": None}):
                with contextlib.suppress(api_client.OpenStackApiException):
                    self.act(server, **action)
                for machine in self.machines("HV1"):
                    is_old = os.path.getmtime(self.root_disk(server)) == 1
                    self.assertTrue(machine["state"] == OFF or machine["security"]["TpmEnabled"]
                                    or is_old, (action, machine))
            self.assert_rebuilt(server)
            return False
        self.walk({"rebuild": {"imageRef": self.image()}}, settle, prepare=make_plain,
                  points=POINTS)

    # Live migrations.

    MIGRATE = {"os-migrateLive": {"host": "HV2", "block_migration": "auto"}}
    MOVES = (MIGRATE,)

    def test_live_migration_on_the_source(self):
        self.walk(self.MIGRATE, self.migrated)

    def test_live_migration_on_the_destination(self):
        # For what the other host asks of one that was killed.
        self.flags(rpc_response_timeout=3, long_rpc_timeout=3)
        # While it is asked, before the VM comes, and when it is there. It changes nothing itself.
        self.walk(self.MIGRATE, self.migrated, "HV2", reads=True, at=(
            0, 5, "Msvm_VirtualSystemManagementService.GetSummaryInformation"))

    def migrated(self, server):
        """The VM is whole on one host; what the documentation says gets it to where Nova has it.
        """
        def look():
            (migration,) = self.api.api_get(
                "/os-migrations?instance_uuid=%s" % server["id"]).body["migrations"]
            if migration["status"] != "completed":
                self._server_with(server, {"OS-EXT-STS:task_state": None})
        # Completed for Nova, though the other host did not take it over.
        self._soon(look)
        server = self.api.get_server(server["id"])
        if server["OS-EXT-STS:task_state"]:
            self.reset(server)
        (there,) = (host["name"] for host in self.HOSTS if self.machines(host["name"]))
        self.assertEqual(SECRET, self.simulated.read_tpm(there, self.name_of(server), "bitlocker"))
        if there != self.host_of(server):
            self.move_vm(server, there)
        self.kept(server, self.host_of(server))
        self._delete_server(server)
        self.remove_empty_folders(server)
        self.audit_placement()
        return False

    def audit_placement(self):
        """As ``nova-manage placement audit --delete``: of migrations in which nova-compute died."""
        for provider in self._get_all_providers():
            for consumer in self._get_allocations_by_provider_uuid(provider["uuid"]):
                self.placement.delete("/allocations/" + consumer)

    def remove_empty_folders(self, server):
        """As Nova and Windows leave them where the VM was, or was to come."""
        for host in ("HV1", "HV2"):
            folder = os.path.join(self.simulated.storage.folder(host), "Instances",
                                  self.name_of(server))
            self.assertEqual([], [name for _, _, names in os.walk(folder) for name in names])
            shutil.rmtree(folder, ignore_errors=True)


class _Moves:
    """Resizes and cold migrations, which Nova's own driver refuses."""

    MOVES = (*_EveryDriver.MOVES, {"migrate": None}, {"resize": {"flavorRef": "2"}})

    def test_resize_on_the_source(self):
        self.walk({"migrate": None}, self.kept, points=self.POINTS and self.POINTS + 1)

    def test_resize_on_the_destination(self):
        self.walk({"migrate": None}, self.reverted, "HV2", points=self.POINTS and self.POINTS + 1)

    def test_revert_on_the_destination(self):
        self.walk({"revertResize": None}, self.reverted, "HV2", self.resized)

    def test_revert_on_the_source(self):
        self.walk({"revertResize": None}, self.kept, "HV1", self.resized,
                  points=self.POINTS and self.POINTS + 2)

    def test_confirm(self):
        def settle(server):
            # Nova goes on with a confirmation no more, nor lets it be reverted.
            self.reset(server)
            self.assertEqual("", self.act(server, reboot={"type": "HARD"}).strip())
            self.assert_kept(server, "HV2")
            self._delete_server(server)
            # As Nova leaves it.
            shutil.rmtree(os.path.join(self.simulated.storage.folder("HV1"), "Instances",
                                       self.name_of(server) + "_revert"), ignore_errors=True)
            return False
        self.walk({"confirmResize": None}, settle, "HV1", self.resized)

    def resized(self, server):
        self._migrate_server(server)
        self._wait_for_state_change(server, "VERIFY_RESIZE")

    def reverted(self, server):
        """What the documentation tells an administrator to do: in the database, and revert."""
        shown = self.api.get_server(server["id"])
        if self.host_of(shown) == "HV2":
            if shown["status"] != "VERIFY_RESIZE" or shown["OS-EXT-STS:task_state"]:
                self.let_it_be_resized(server)
            self.assertEqual("", self.act(server, revertResize=None).strip())
        return self.kept(server)


class _OwnHosts:
    """Hosts of no cluster, which would start the VM itself."""

    def test_host_boot(self):
        self.flags(resume_guests_state_on_host_boot=True)
        server = self.boot_with_secret()
        for after in (False, True):
            self.lose_power("HV1")
            self.simulated.restore_node("HV1")
            manager = self.computes["HV1"].manager
            with self.kills.armed("HV1", START, after), self.cell_of(server) as cell, \
                    windows.acting_as("HV1"):
                # Nova's own test case starts one nova-compute at a time, and to its end.
                eventlet.spawn_n(manager._init_instance, cell,
                                 objects.Instance.get_by_uuid(cell, server["id"]))
            self.kills.bury(self.computes["HV1"])
            self.restart("HV1")
            self.assert_kept(server, "HV1")
        self.end(server)

    def test_host_boot_of_a_rescued_server(self):
        self.flags(resume_guests_state_on_host_boot=True)
        server = self.boot_with_secret()
        self.act(server, rescue={"rescue_image_ref": self.rescue_image()})
        self.lose_power("HV1")
        self.boot_host("HV1")
        self._server_with(server, {"status": "RESCUE"})
        self.assert_kept(server)
        self.kept(server)
        self.end(server)


@pytest.mark.compute_hyperv
class ComputeHyperVKilledTest(
        _OwnHosts, _Moves, _EveryDriver, KilledNodes, server_life_base.ServerLifeCase):
    """compute-hyperv's standalone driver, on the hosts' own disks."""


@pytest.mark.compute_hyperv
class ClusterKilledTest(
        _Moves, _EveryDriver, KilledNodes, test_vtpm_cluster_driver.ClusterStorage,
        server_life_base.ServerLifeCase):
    """compute-hyperv's cluster driver, on storage that the nodes share."""

    POINTS = FEWER_POINTS
    def test_failover(self):
        """The cluster has moved the VM; the next nova-compute there finds it."""
        self.flags(auto_failback=False, max_failover_count=99, group="hyperv")
        server = self.boot_with_secret()
        self.lose("HV1")
        with self.kills.recorded("HV2", reads=True) as changes:
            self.assert_on(server, "HV2")
        self.assertNotEqual([], changes)
        here, there = "HV2", "HV1"
        for number, after in positions(len(changes), self.POINTS and self.POINTS + 2):
            self.simulated.restore_node(there)
            self.start_compute_on(there)
            self._soon(lambda: self.assertEqual(2, self.simulated.cluster_listeners("CL1")))
            with self.kills.armed(there, number, after, reads=True):
                self.lose(here)
            self.kills.bury(self.computes[there])
            self.restart(there)
            self.assert_on(server, there)
            here, there = there, here
        self.assert_kept(server)
        self.end(server)

    def move_vm(self, server, source):
        """Move-ClusterVirtualMachineRole."""
        with windows.acting_as(source):
            utilsfactory = importlib.import_module("os_win.utilsfactory")
            utilsfactory.get_clusterutils().live_migrate_vm(
                self.name_of(server), self.host_of(server), 60)


class NovaHyperVKilledTest(_OwnHosts, _EveryDriver, KilledNodes, server_life_base.ServerLifeCase):
    """Nova's own driver, on the hosts' own disks."""

    compute_driver = "vtpm_hyperv.NovaHyperVDriver"
    POINTS = FEWER_POINTS

    def files(self, host):
        # A snapshot leaves the folder of all exports, empty.
        return [path for path in super().files(host) if path != "export"]

    def test_snapshot(self):
        def settle(server):
            kept = self.kept(server)
            # As Nova leaves it: the copies of the disks, for the image.
            shutil.rmtree(os.path.join(self.simulated.storage.folder("HV1"), "Instances", "export",
                                       self.name_of(server)), ignore_errors=True)
            return kept
        self.walk({"createImage": {"name": "snapshot"}}, settle)
