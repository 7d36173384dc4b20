"""Each operation of a server's life: its TPM is there afterwards, or it was refused and runs on."""

# Patches nova first.
from tests.functional import server_life_base  # isort: skip

import contextlib
import importlib
import os
from unittest import mock

import eventlet
import fixtures
import glanceclient.exc
import greenlet
import pytest
from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova.image import glance
from os_brick import exception as os_brick_exception

from tests.functional import attached_volumes, killed_compute
from tests.functional.attached_volumes import ISCSI, SMB
from tests.functional.server_life_base import EAST, KEY, OFF, OTHER_KEY, RUNNING
from tests.hyperv import current_host, key_protector, windows
from tests.hyperv.guardian import Guardian
from tests.hyperv.resource_types import ETHERNET_PORT, PHYSICAL_DISK
from vtpm_compute import virtual_machines

pytestmark = pytest.mark.os_win

SAVED, PAUSED = 6, 9
_CH = "compute_hyperv.nova."


class _EveryDriver:
    """What every driver does, whatever it is made of.

    :cvar LARGER_FLAVOR: of Nova's fixtures
    """

    LARGER_FLAVOR = "2"

    # Where the VM stays.

    def test_power(self):
        server = self.boot_with_secret()
        # Nobody can read keys any more: nobody needs to.
        self.key_manager.status = 403
        self._stop_server(server)
        self._start_server(server)
        self._reboot_server(server, hard=True)
        self._reboot_server(server, hard=False)
        self.assert_kept(server, "HV1")

    def test_pause_and_suspend(self):
        server = self.boot_with_secret()
        self.api.post_server_action(server["id"], {"pause": None})
        self._wait_for_state_change(server, "PAUSED")
        self.assert_kept(server, "HV1", PAUSED)
        self.api.post_server_action(server["id"], {"unpause": None})
        self._wait_for_state_change(server, "ACTIVE")
        self.assert_kept(server, "HV1")
        self._suspend_server(server)
        self.assert_kept(server, "HV1", SAVED)
        self._resume_server(server)
        self.assert_kept(server, "HV1")

    def test_rescue(self):
        server = self.boot_with_secret()
        self.rescue(server)
        self.assert_kept(server, "HV1")

    def test_a_config_drive(self):
        self.make_config_drives()
        server = self.boot_with_secret()
        self.assert_config_drive(server)
        image = self.create_image(2, **server_life_base.hyperv_base.GENERATION_2)
        self.act(server, rescue={"rescue_image_ref": image})
        self._wait_for_state_change(server, "RESCUE")
        self.assertEqual("", self.act(server, unrescue=None).strip())
        self._reboot_server(server, hard=True)
        self.live_migrate(server, "HV2")
        self.assert_kept(server, "HV2")
        self.assert_config_drive(server)
        # What the stock drivers make by default.
        self.flags(config_drive_cdrom=False, group="hyperv")
        self.assertIn("which no VM of Generation 2 takes", self.act(
            server, rebuild={"imageRef": self.image(3)}))
        self.assertEqual("ACTIVE", self.api.get_server(server["id"])["status"])
        self.assertIn("which no VM of Generation 2 takes", self.act(
            server, rescue={"rescue_image_ref": image}))
        self._wait_for_state_change(server, "ACTIVE")
        self.assert_kept(server, "HV2")

    def test_a_rescue_with_a_checkpoint(self):
        """Its disk has another name then, and would be attached beside the rescue's once more."""
        server = self.boot_with_secret()
        self.merge_slowly(server)
        disks = self.attached_disks(server)
        self.assertIn("is being merged", self.act(
            server, rescue={"rescue_image_ref": self.image(2)}))
        self._soon(lambda: self._server_with(server, {"status": "ACTIVE"}))
        machine = self.machine(server)
        self.assertEqual((self.identifier, RUNNING, disks), (
            machine["id"], machine["state"], self.attached_disks(server)))

    def test_the_host_boots(self):
        self.flags(resume_guests_state_on_host_boot=True)
        server = self.boot_with_secret()
        self.lose_power("HV1")
        self.boot_host("HV1")
        self.assert_kept(server, "HV1")

    def test_an_image_of_the_server(self):
        server = self.boot_with_secret()
        self._snapshot_server(server, "image-of-it")
        self._soon(lambda: self._server_with(server, {"OS-EXT-STS:task_state": None}))
        self.assert_kept(server, "HV1")

    def test_a_backup(self):
        server = self.boot_with_secret()
        # Of which Nova's stand-in of Glance has less.
        backup = {"name": "monday", "backup_type": "daily", "rotation": 99}
        self.assertEqual("", self.act(server, createBackup=backup).strip())
        self.assertIn("monday", [one["name"] for one in self.glance.images.values()])
        self.assert_kept(server, "HV1")

    def test_rebuild_gets_the_keys_of_the_new_image(self):
        server = self.boot_with_secret()
        other = Guardian.generate("Fabrikam")
        self.key_manager.payloads[OTHER_KEY] = self.protector_of(other)
        self._rebuild_server(server, self.image(2, os_vtpm_keys=OTHER_KEY))
        guardians = [one["thumbprint"] for one in self.machine(server)["guardians"]]
        self.assertEqual([one.thumbprint for one in key_protector.read(
            self.key_manager.payloads[OTHER_KEY])], guardians)
        self.assertIsNone(self.simulated.read_tpm("HV1", self.name_of(server), "bitlocker"))
        self.assert_one_protector(2)

    def test_a_refused_rebuild_leaves_the_server_its_image(self):
        """Nova wrote the other one into it; a move would look for the disk's base in that."""
        server = self.boot_with_secret()

        def of_image():
            shown = self.api.get_server(server["id"])
            return shown["image"], {name: value for name, value in self.system_metadata(
                server).items() if name.startswith("image_")}
        before = of_image()
        self.assertEqual(KEY, before[1]["image_os_vtpm_keys"])
        # It names a key that is no key protector.
        other = self.image(2, os_vtpm_keys=OTHER_KEY, os_type="windows")
        get = glance.API.get

        def get_none_but_the_other(api, context, image, *arguments, **keywords):
            if image != other:
                raise nova_exception.ImageNotFound(image_id=image)
            return get(api, context, image, *arguments, **keywords)
        self.assertIn("is not a key protector", self.act(server, rebuild={"imageRef": other}))
        self._server_with(server, {"status": "ACTIVE"})
        self.assertEqual(before, of_image())
        self.useFixture(fixtures.MonkeyPatch("nova.image.glance.API.get", get_none_but_the_other))
        self.act(server, rebuild={"imageRef": other})
        image, metadata = of_image()
        self.assertEqual((before[0], before[0]["id"]), (image, metadata["image_base_image_ref"]))
        self.requests = len(self.key_manager.requests)
        self.assert_kept(server, "HV1")

    def test_delete(self):
        server = self.boot_with_secret()
        self._delete_server(server)
        self.assert_nothing_left()
        for host in ("HV1", "HV2"):
            self.assertEqual([EAST], [one["name"] for one in self.simulated.guardians(host)])
            self.assertEqual([], self.simulated.certificates(host))

    # What would destroy the TPM.

    def test_a_rebuild_that_keeps_the_boot_volume(self):
        server = self.boot_with_secret()
        admin = nova_context.get_admin_context()
        admin.auth_token = "token"
        instance = objects.Instance.get_by_uuid(
            admin, server["id"], expected_attrs=["system_metadata", "flavor"])
        volumes = objects.BlockDeviceMappingList(objects=[objects.BlockDeviceMapping(
            boot_index=0, source_type="volume", destination_type="volume")])

        def rebuild(**how):
            with windows.acting_as("HV1"):
                self.computes["HV1"].driver.rebuild(admin, instance, bdms=volumes, **how)
        error = self.assertRaises(
            nova_exception.InstanceFaultRollback, rebuild, reimage_boot_volume=False)
        self.assertIn("--reimage-boot-volume", str(error.inner_exception))
        self.assert_kept(server, "HV1")
        self.assertRaises(NotImplementedError, rebuild, reimage_boot_volume=True)

    def test_shelve(self):
        server = self.boot_with_secret()
        for seconds in (0, -1, 3600):
            self.flags(shelved_offload_time=seconds)
            self.assert_refused(server, "Shelving would destroy the server's TPM", shelve=None)

    def test_a_shelve_that_is_refused_deletes_its_image_only(self):
        server = self.boot_with_secret()
        of_shelve = {
            "name": server["name"] + "-shelved", "status": "queued",
            "properties": {"instance_uuid": server["id"], "image_type": "snapshot"}}
        others = [self.glance.create(None, {**of_shelve, **change})["id"] for change in (
            {"status": "active"}, {"name": "of-the-user"},
            {"properties": {"instance_uuid": server["id"], "image_type": "backup"}},
            {"properties": {"instance_uuid": KEY, "image_type": "snapshot"}})]
        earlier = self.glance.create(None, of_shelve)["id"]
        tokens, delete = [], self.glance.delete
        self.glance.delete = lambda context, image: (
            tokens.append(context.auth_token), delete(context, image))
        self.act(server, shelve=None)
        self.assertLessEqual(set(others), set(self.glance.images))
        self.assertNotIn(earlier, self.glance.images)
        # Those of the user who asked.
        self.assertEqual(["token"] * 2, tokens)

    def test_a_shelve_is_refused_where_glance_is_away(self):
        server = self.boot_with_secret()
        self.glance.detail = mock.Mock(side_effect=nova_exception.GlanceConnectionFailed(
            server="glance", reason="away"))
        self.assertIn("Shelving would destroy", self.act(server, shelve=None))
        self.assertEqual("ACTIVE", self.api.get_server(server["id"])["status"])
        self.assert_kept(server, "HV1")

    def test_shelve_of_a_stopped_server(self):
        server = self.boot_with_secret()
        self._stop_server(server)
        self.assert_refused(server, "Shelving would destroy the server's TPM", status="SHUTOFF",
                            shelve=None)
        self._start_server(server)
        self.assert_kept(server, "HV1")

    def test_offload_of_what_was_shelved_before(self):
        """As with another driver, and shelved_offload_time = -1."""
        server = self.boot_on("HV1")
        self.flags(shelved_offload_time=-1)
        self.api.post_server_action(server["id"], {"shelve": None})
        self._wait_for_state_change(server, "SHELVED")
        machines = self.machines("HV1")
        self.system_metadata(server, hyperv_vtpm="vtpm", hyperv_vtpm_fabric=(
            self.simulated.fabric_thumbprint(EAST)))
        self.assertIn("Shelving would destroy", self.act(server, shelveOffload=None))
        self.assertEqual("SHELVED", self.api.get_server(server["id"])["status"])
        self.assertEqual(machines, self.machines("HV1"))

    def test_shelve_without_a_vtpm(self):
        server = self.boot_on("HV1")
        self.flags(shelved_offload_time=0)
        self._shelve_server(server)

    def test_unshelve_of_what_another_driver_offloaded(self):
        server = self.boot_on("HV1")
        self.flags(shelved_offload_time=0)
        self._shelve_server(server)
        self.system_metadata(server, hyperv_vtpm="vtpm", hyperv_vtpm_fabric=(
            self.simulated.fabric_thumbprint(EAST)))
        self.assertIn("TPM is gone since it was shelved", self.act(server, unshelve=None))
        server = self.api.get_server(server["id"])
        self.assertEqual(("SHELVED_OFFLOADED", None), (server["status"], self.host_of(server)))
        self.assertEqual([[], []], [self.machines("HV1"), self.machines("HV2")])

    # Live migration.

    def test_live_migration(self):
        server = self.boot_with_secret()
        self.live_migrate(server, "HV2")
        self.assert_kept(server, "HV2")
        self.live_migrate(server, "HV1")
        self.assert_kept(server, "HV1")
        self._reboot_server(server, hard=True)
        self.assert_kept(server, "HV1")

    def test_a_live_migration_that_fails(self):
        server = self.boot_with_secret()
        self.simulated.add_fault(
            "HV1", "*.MigrateVirtualSystemToHost", job_error=("The network was lost.", 32768))
        self.live_migrate(server, "HV2", "failed")
        self.assert_kept(server, "HV1")
        self.simulated.clear_faults("HV1")
        self.live_migrate(server, "HV2")
        self.assert_kept(server, "HV2")

    @contextlib.contextmanager
    def slow_live_migration(self):
        """A live migration from HV1 that begins in here can be seen to run."""
        self.simulated.add_delay("HV1", "*.MigrateVirtualSystemToHost", 3)
        yield

    def test_a_live_migration_is_not_aborted(self):
        server = self.boot_with_secret()
        with self.slow_live_migration():
            self.api.post_server_action(server["id"], self.migration_to("HV2"))
            self._wait_for_migration_status(server, ["running"])
            (migration,) = self.api.api_get(
                "/servers/%s/migrations" % server["id"]).body["migrations"]
            self.api.api_delete("/servers/%s/migrations/%d" % (server["id"], migration["id"]))
        self._wait_for_migration_status(server, ["completed", "error", "failed"])
        server = self._soon(lambda: self._server_with(server, {"OS-EXT-STS:task_state": None}))
        self.assertEqual("ACTIVE", server["status"])
        self.assert_kept(server, "HV2")

    def migration_to(self, host):
        return {"os-migrateLive": {"host": host, "block_migration": "auto"}}

    def test_live_migration_to_a_host_that_is_not_guarded_any_more(self):
        server = self.boot_with_secret()
        self.only_the_drivers_look()
        self.simulated.set_guarded("HV2", False)
        self.assert_refused(server, "it is not guarded", **self.migration_to("HV2"))

    def test_live_migration_to_another_fabric(self):
        server = self.boot_with_secret()
        self.start_compute_on("HV3")
        self.only_the_drivers_look()
        self.assert_refused(server, "The other host belongs to another fabric",
                            **self.migration_to("HV3"))

    def test_live_migration_of_what_the_fabric_cannot_unwrap_any_more(self):
        server = self.boot_with_secret()
        self.change_guardian()
        self.only_the_drivers_look()
        self.assert_refused(server, "belongs to another fabric", **self.migration_to("HV2"))

    def test_live_migration_of_what_its_own_host_cannot_unwrap(self):
        """The other host would take it: it belongs to the fabric of the server's mark."""
        server = self.boot_with_secret()
        self.change_guardian()
        self.system_metadata(
            server, hyperv_vtpm_fabric=self.simulated.fabric_thumbprint(EAST))
        self.only_the_drivers_look()
        self.assert_refused(server, "is not in the server's key protector",
                            **self.migration_to("HV2"))

    # A fabric whose guardian changed, a host that is not guarded any more.

    def assert_not_started(self, server, words, seen="error"):
        """A start was tried once, and failed with a reason."""
        told = self.act(server, **{"os-start": None})
        self.assertIn(words, told)
        self.assertEqual("SHUTOFF", self.api.get_server(server["id"])["status"])
        self.assertEqual(1, len(self.simulated.calls("HV1", "*.RequestStateChange")))

    def test_a_start_of_what_the_fabric_cannot_unwrap_any_more(self):
        server = self.boot_with_secret()
        self._stop_server(server)
        self.change_guardian()
        self.simulated.clear_calls("HV1")
        self.assert_not_started(server, "is not in the server's key protector, which names "
                                "Contoso (%s...), " % self.owner.thumbprint[:8])
        self.assertIn("Add-HgsKeyProtectionCertificate", self.act(server, **{"os-start": None}))
        self.assertEqual(OFF, self.machine(server)["state"])

    def test_a_start_on_a_host_that_is_not_guarded_any_more(self):
        server = self.boot_with_secret()
        self._stop_server(server)
        self.simulated.set_guarded("HV1", False)
        self.simulated.clear_calls("HV1")
        self.assert_not_started(server, "cannot unwrap the server's key protector")
        self.simulated.set_guarded("HV1", True)
        self._start_server(server)
        self.assert_tpm(server)

    def test_a_hard_reboot_needs_no_unwrapping(self):
        server = self.boot_with_secret()
        self.change_guardian()
        self._reboot_server(server, hard=True)
        self.assert_tpm(server)

    def test_what_stops_a_server_to_start_it_again_is_not_begun(self):
        """Its host could not start it: a soft reboot, which Nova takes for done, and a rescue."""
        server = self.boot_with_secret()
        self.simulated.set_guarded("HV1", False)
        changes = len(self.state_changes())
        words = "cannot unwrap the server's key protector"
        self.assertIn(words, self.act(server, reboot={"type": "SOFT"}))
        self._server_with(server, {"status": "ACTIVE"})
        self.assert_kept(server, "HV1")
        image = self.create_image(2, **server_life_base.hyperv_base.GENERATION_2)
        self.assertIn(words, self.act(server, rescue={"rescue_image_ref": image}))
        server = self._wait_for_state_change(server, "ACTIVE")
        self.assertNotIn("fault", server)
        self.assertEqual(changes, len(self.state_changes()))
        self.assert_kept(server, "HV1")
        # The end of one.
        self.simulated.set_guarded("HV1", True)
        self.assertEqual("", self.act(server, rescue={"rescue_image_ref": image}).strip())
        self.simulated.set_guarded("HV1", False)
        changes = len(self.state_changes())
        self.assertIn(words, self.act(server, unrescue=None))
        self._wait_for_state_change(server, "RESCUE")
        self.assertEqual(changes, len(self.state_changes()))
        self.assert_kept(server, "HV1")
        self.simulated.set_guarded("HV1", True)
        self.assertEqual("", self.act(server, unrescue=None).strip())
        self.assert_kept(server, "HV1")
        self.simulated.set_guarded("HV1", False)
        # Of a server that was stopped.
        self._stop_server(server)
        self.assertIn(words, self.act(server, rescue={"rescue_image_ref": image}))
        self._wait_for_state_change(server, "SHUTOFF")
        self.assert_kept(server, "HV1", OFF)

    def test_a_resume_on_a_host_that_is_not_guarded_any_more(self):
        server = self.boot_with_secret()
        self._suspend_server(server)
        self.simulated.set_guarded("HV1", False)
        self.assertIn("cannot unwrap the server's key protector", self.act(server, resume=None))
        server = self._server_with(server, {"status": "SUSPENDED"})
        self.assertNotIn("fault", server)
        self.simulated.set_guarded("HV1", True)
        self._resume_server(server)
        self.assert_kept(server, "HV1")

    def test_the_host_boots_and_cannot_unwrap(self):
        self.flags(resume_guests_state_on_host_boot=True)
        server = self.boot_with_secret()
        self.lose_power("HV1")
        self.simulated.set_guarded("HV1", False)
        self.boot_host("HV1")
        server = self._wait_for_state_change(server, "ERROR")
        self.assertIn("cannot unwrap the server's key protector", server["fault"]["message"])
        self.simulated.set_guarded("HV1", True)
        self.api.post_server_action(server["id"], {"os-resetState": {"state": "active"}})
        self._stop_server(server)
        self._start_server(server)
        self.assert_tpm(server)


@pytest.mark.compute_hyperv
class ComputeHyperVLifeTest(_EveryDriver, server_life_base.ServerLifeCase):
    """compute-hyperv's standalone driver, on the hosts' own disks."""

    def test_resize_and_revert(self):
        server = self.boot_with_secret()
        self._resize_server(server, self.LARGER_FLAVOR)
        self.assert_kept(server, "HV2")
        self.assert_no_copy(server)
        self._revert_resize(server)
        self.assert_kept(server, "HV1")
        self.assert_no_copy(server)

    def assert_no_copy(self, server):
        """Of the TPM, as it was when the VM was moved."""
        self.assertNotIn("export", os.listdir(self.folder_of(self.api.get_server(server["id"]))))

    def test_resize_and_confirm(self):
        server = self.boot_with_secret()
        self._resize_server(server, self.LARGER_FLAVOR)
        server = self._confirm_resize(server)
        self.assert_kept(server, "HV2")
        self.assert_size(server, 2048, 20)

    def test_cold_migration(self):
        server = self.boot_with_secret()
        self._migrate_server(server)
        self._wait_for_state_change(server, "VERIFY_RESIZE")
        self._confirm_resize(server)
        self.assert_kept(server, "HV2")
        # And back, by way of the name of the folder that was there before.
        self._migrate_server(server)
        self._wait_for_state_change(server, "VERIFY_RESIZE")
        self._confirm_resize(server)
        self.assert_kept(server, "HV1")

    def test_resize_of_a_stopped_server(self):
        server = self.boot_with_secret()
        self._stop_server(server)
        for end, host in (("revertResize", "HV1"), ("confirmResize", "HV2")):
            self.assertEqual("", self.act(
                server, resize={"flavorRef": self.LARGER_FLAVOR}).strip())
            self._wait_for_state_change(server, "VERIFY_RESIZE")
            self.assert_kept(server, "HV2", OFF)
            self.assertEqual("", self.act(server, **{end: None}).strip())
            self._wait_for_state_change(server, "SHUTOFF")
            self.assert_kept(server, host, OFF)
        self._start_server(server)
        self.assert_kept(server, "HV2")

    def test_a_resize_with_a_config_drive(self):
        self.make_config_drives()
        server = self.boot_with_secret()
        for end, host in (("revertResize", "HV1"), ("confirmResize", "HV2")):
            self._resize_server(server, self.LARGER_FLAVOR)
            self.assert_config_drive(server)
            self.assertEqual("", self.act(server, **{end: None}).strip())
            self._wait_for_state_change(server, "ACTIVE")
            self.assert_kept(server, host)
            self.assert_config_drive(server)

    # Resizes that are refused.

    def test_a_guest_state_file_that_is_not_copied(self):
        server = self.boot_with_secret()
        folder = os.path.join(self.folder_of(server), "Virtual Machines")
        stored = self._stored_machine(server)
        stored.settings["GuestStateDataRoot"] = os.path.join(self.folder_of(server), "elsewhere")
        os.makedirs(os.path.dirname(stored.guest_state_file))
        os.rename(os.path.join(folder, stored.identifier + ".vmgs"), stored.guest_state_file)
        self.useFixture(fixtures.MonkeyPatch(
            "tests.hyperv.power.Tpm.seal", lambda tpm: None))
        self.assert_refused(server, "does not lie in the server's folder", migrate=None)

    def test_flavors_that_change_the_vtpm(self):
        server = self.boot_with_secret()
        self.only_the_drivers_look()
        for spec in ({"os:vtpm": "disabled"}, {"os:shielded_vm": "required"}):
            flavor = self._create_flavor(memory_mb=1024, disk=20, extra_spec=spec)
            self.assert_refused(server, "choose another flavor", resize={"flavorRef": flavor})

    def test_a_resize_adds_no_vtpm(self):
        server = self.boot_on("HV1")
        self.only_the_drivers_look()
        flavor = self._create_flavor(memory_mb=1024, disk=20, extra_spec={"os:vtpm": "required"})
        self.assertIn("a resize does not add one",
                      self.act(server, resize={"flavorRef": flavor}))
        self.assertEqual(("ACTIVE", RUNNING), (
            self.api.get_server(server["id"])["status"], self.machine(server)["state"]))

    def test_a_resize_of_what_the_fabric_cannot_unwrap_any_more(self):
        server = self.boot_with_secret()
        self.change_guardian()
        self.only_the_drivers_look()
        self.assert_refused(server, "is not in the server's key protector", migrate=None)

    def test_a_resize_while_a_checkpoint_is_merged(self):
        """Windows merges it in the background when it is removed."""
        server = self.boot_with_secret()
        self.merge_slowly(server)
        self.assert_refused(server, "is being merged", migrate=None)

    def test_a_resize_with_a_checkpoint(self):
        """One disk of two would be copied."""
        server = self.boot_with_secret()
        self.take_checkpoint(server)
        self.assert_refused(server, "has a checkpoint", migrate=None)
        self.assert_refused(server, "has a checkpoint", resize={"flavorRef": self.LARGER_FLAVOR})

    def test_a_start_with_a_checkpoint(self):
        """Its disk is another file than the server's."""
        server = self.boot_with_secret()
        self.take_checkpoint(server)
        for action in ({"os-stop": None}, {"os-start": None}, {"reboot": {"type": "HARD"}}):
            self.assertEqual("", self.act(server, **action).strip())
        self.assert_kept(server)

    # The image that it was made from.

    def lose_image(self, server):
        """Its owner deletes it, or it is not shared any more."""
        self.glance.delete(None, self.api.get_server(server["id"])["image"]["id"])

    def test_a_move_after_the_image_is_gone(self):
        """The other host has no base for the disk, and could not get it."""
        server = self.boot_with_secret()
        self.lose_image(server)
        self.assert_refused(server, "needs the image that the server was made from", migrate=None)

    def test_a_move_after_the_image_is_deactivated(self):
        server = self.boot_with_secret()
        self.glance.images[server["image"]["id"]]["status"] = "deactivated"
        self.assert_refused(server, "needs the image that the server was made from",
                            resize={"flavorRef": self.LARGER_FLAVOR})

    def test_a_move_while_glance_is_away(self):
        server = self.boot_with_secret()
        self.useFixture(fixtures.MonkeyPatch("nova.image.glance.API.get", mock.Mock(
            side_effect=glanceclient.exc.HTTPInternalServerError("hunter2"))))
        self.assert_refused(server, "could not be asked", migrate=None)

    def cache_image_on(self, host, server):
        """As ``openstack aggregate cache image`` does."""
        admin = nova_context.get_admin_context()
        admin.auth_token = "token"
        with windows.acting_as(host):
            self.computes[host].driver.cache_image(admin, server["image"]["id"])

    def test_the_other_host_has_the_image(self):
        server = self.boot_with_secret()
        self.cache_image_on("HV2", server)
        self.lose_image(server)
        self._migrate_server(server)
        self._wait_for_state_change(server, "VERIFY_RESIZE")
        self.assertEqual("HV2", self.host_of(self.api.get_server(server["id"])))
        self.assert_tpm(self.api.get_server(server["id"]))

    def test_a_disk_that_needs_no_image(self):
        self.flags(use_cow_images=False)
        server = self.boot_with_secret()
        self.lose_image(server)
        self._migrate_server(server)
        self._wait_for_state_change(server, "VERIFY_RESIZE")
        self.assert_kept(server, "HV2")

    def test_the_image_goes_before_the_revert(self):
        server = self.boot_with_secret()
        self._resize_server(server, self.LARGER_FLAVOR)
        self.lose_image(server)
        self._revert_resize(server)
        self.assert_kept(server, "HV1")

    def test_a_rebuild_that_ends_before_it_comes_to_the_vm(self):
        """A move would connect the disk to the other image, and so does its revert."""
        server = self.boot_with_secret()
        disk = os.path.join(self.folder_of(server), "root.vhdx")
        base = self.base_of("HV1", disk)
        other = self.image(2, os_type="windows")
        for after, move in (
                ({"reboot": {"type": "HARD"}}, False),
                ({"os-resetState": {"state": "active"}}, True)):
            self.act(server, rebuild={"imageRef": other, "preserve_ephemeral": True})
            shown = self._server_with(server, {"status": "ERROR"})
            self.assertEqual(other, shown["image"]["id"])
            self.api.post_server_action(server["id"], after)
            shown = self._wait_for_state_change(server, "ACTIVE")
            if move:
                self._migrate_server(server)
                self._wait_for_state_change(server, "VERIFY_RESIZE")
                self._revert_resize(server)
                shown = self.api.get_server(server["id"])
            self.requests = len(self.key_manager.requests)
            self.assertEqual(server["image"], shown["image"])
            self.assertEqual(server["image"]["id"],
                             self.system_metadata(server)["image_base_image_ref"])
            self.assertEqual(base, self.base_of("HV1", disk))
            self.assert_kept(server, "HV1")

    def test_the_image_is_not_put_back_while_glance_is_away(self):
        """Neither half of it nor a move with the other one: it is put back when it can be."""
        server = self.boot_with_secret()
        # So that nothing but the image speaks against the move.
        self.cache_image_on("HV2", server)
        other = self.image(2, os_type="windows")
        self.act(server, rebuild={"imageRef": other, "preserve_ephemeral": True})
        self._server_with(server, {"status": "ERROR"})
        with mock.patch.object(glance.API, "get", side_effect=(
                glanceclient.exc.HTTPInternalServerError("hunter2"))):
            self.act(server, reboot={"type": "HARD"})
            shown = self._wait_for_state_change(server, "ACTIVE")
            self.assertEqual(other, shown["image"]["id"])
            self.requests = len(self.key_manager.requests)
            self.assert_refused(server, "could not be asked", migrate=None)
        self._migrate_server(server)
        shown = self._wait_for_state_change(server, "VERIFY_RESIZE")
        self.assertEqual(server["image"], shown["image"])
        self.assert_kept(server, "HV2")

    def base_of(self, host, disk):
        with windows.acting_as(host):
            return importlib.import_module("os_win.utilsfactory").get_vhdutils(
                ).get_vhd_parent_path(disk)

    # Of a volume.

    def boot_from_volume(self):
        share = os.path.join(self.disks, "share")
        os.mkdir(share)
        volumes = self.useFixture(attached_volumes.AttachedVolumes(
            self.simulated, share, dict(
                server_life_base.hyperv_base.GENERATION_2, os_vtpm="required", os_vtpm_keys=KEY)))
        return self.boot_with_secret(volume=SMB), volumes

    def test_a_server_that_boots_from_a_volume(self):
        """It has no image, which a revert would ask Glance for."""
        server, volumes = self.boot_from_volume()
        self._resize_server(server, self.LARGER_FLAVOR)
        self.assert_kept_on_volume(server, "HV2", volumes)
        self._revert_resize(server)
        self.assert_kept_on_volume(server, "HV1", volumes)
        self._resize_server(server, self.LARGER_FLAVOR)
        server = self._confirm_resize(server)
        self.assert_kept_on_volume(server, "HV2", volumes)
        self._live_migrate(server)
        self.assert_kept_on_volume(server, "HV1", volumes)

    def assert_kept_on_volume(self, server, host, volumes):
        server = self.api.get_server(server["id"])
        machine = self.machine(server)
        self.assertEqual((host, self.identifier, RUNNING), (
            self.host_of(server), machine["id"], machine["state"]))
        self.assert_tpm(server)
        self.assertEqual([volumes.path(SMB)], self.attached_disks(server))

    def test_a_refused_rebuild_of_a_server_that_boots_from_a_volume(self):
        """Nova keeps no image of it, and the other one's properties."""
        server, volumes = self.boot_from_volume()
        before = self.properties_of(server)
        other = self.image(2, os_vtpm_keys=OTHER_KEY, os_type="linux")
        self.assertIn("is not a key protector", self.act(server, rebuild={"imageRef": other}))
        self.assertEqual(before, self.properties_of(server))
        self.requests = len(self.key_manager.requests)
        self.assert_kept_on_volume(server, "HV1", volumes)

    def properties_of(self, server):
        return {name: value for name, value in self.system_metadata(server).items()
                if name.startswith("image_")}

    # Moves whose end fails.

    def fail_import(self, host):
        self.simulated.add_fault(host, "*.ImportSystemDefinition", times=1,
                                 job_error=("The disk is full.", 32768))

    def test_a_revert_that_fails(self):
        server = self.boot_with_secret()
        self._migrate_server(server)
        self._wait_for_state_change(server, "VERIFY_RESIZE")
        self.fail_import("HV1")
        self.assertIn("The disk is full.", self.act(server, revertResize=None))
        self.reset(server)
        self.assertEqual("", self.act(server, reboot={"type": "HARD"}).strip())
        self.assert_kept(server, "HV1")

    def test_a_cold_migration_that_fails(self):
        """Nothing is made on the other host of what was copied there."""
        server = self.boot_with_secret()
        self.fail_import("HV2")
        self.assertIn("The disk is full.", self.act(server, migrate=None))
        self.reset(server)
        self.assertIn("not found", self.act(server, reboot={"type": "HARD"}))
        self.assertEqual("HV2", self.host_of(self.api.get_server(server["id"])))
        self.assertEqual([], self.machines("HV2"))
        self.let_it_be_resized(server)
        self.assertEqual("", self.act(server, revertResize=None).strip())
        self.assert_kept(server, "HV1")

    def test_a_move_that_fails_before_the_vm_is_destroyed(self):
        """Its disks are where the VM has them: the next move begins with an empty folder."""
        server = self.boot_with_secret()
        files = self.files_with_content("HV1")
        self.simulated.add_fault(
            "HV1", "*.DestroySystem", times=9, job_error=("It broke.", 32768))
        self.assertIn("It broke.", self.act(server, migrate=None))
        self.simulated.clear_faults("HV1")
        self.assertEqual(files, self.files_with_content("HV1"))
        self.reset(server)
        self.assertEqual("", self.act(server, reboot={"type": "HARD"}).strip())
        self.assert_kept(server, "HV1")
        self._migrate_server(server)
        self._wait_for_state_change(server, "VERIFY_RESIZE")
        self.assert_kept(server, "HV2")
        self._confirm_resize(server)
        # A hard reboot would find its way back with it.
        self.assertNotIn("backup_location", self.system_metadata(server))

    def test_only_a_move_that_left_files_is_reverted_by_a_hard_reboot(self):
        server = self.boot_with_secret()
        admin = nova_context.get_admin_context()
        instance = objects.Instance.get_by_uuid(admin, server["id"], ["system_metadata"])
        migration = objects.Migration(
            admin, instance_uuid=server["id"], source_compute="HV1", dest_compute="HV2",
            status="error", migration_type="live-migration")
        migration.create()

        def is_coming_back():
            return self.computes["HV1"].driver._is_coming_back(admin, instance)
        instance.system_metadata["backup_location"] = self.folder_of(server) + "_revert"
        self.assertFalse(is_coming_back())
        migration.migration_type = "migration"
        for status, source, comes_back in (
                # Where the other host has the VM, or may have it, nothing is made of the files.
                ("accepted", "HV1", False), ("finished", "HV1", False),
                ("confirmed", "HV1", False), ("reverting", "HV1", False),
                ("reverted", "HV2", False), ("reverted", "HV1", True), ("error", "HV1", True),
                # Nova has the server here: the other host was not asked yet.
                ("migrating", "HV1", True), ("post-migrating", "HV1", True)):
            migration.status, migration.source_compute = status, source
            migration.save()
            self.assertEqual(comes_back, is_coming_back(), (status, source))
        instance.host = "HV2"
        for migration.status in ("migrating", "post-migrating"):
            migration.save()
            self.assertFalse(is_coming_back(), migration.status)
        del instance.system_metadata["backup_location"]
        self.assertFalse(is_coming_back())

    def test_a_live_migration_that_arrives_and_fails(self):
        """The VM is nowhere else: what is on the other host is not cleaned up."""
        server = self.boot_with_secret()
        self.simulated.add_fault(
            "HV1", "*.MigrateVirtualSystemToHost", job_error=("The network was lost.", 32768),
            point="after")
        self.live_migrate(server, "HV2", "failed")
        self.assertEqual([(self.identifier, RUNNING)], [
            (one["id"], one["state"]) for one in self.machines("HV2")])
        self.assertEqual(server_life_base.SECRET, self.simulated.read_tpm(
            "HV2", self.name_of(server), "bitlocker"))

    def test_it_is_deleted_where_nova_does_not_have_it(self):
        """Nova reaps the VM there later; nobody else would delete its files."""
        server = self.boot_with_secret()
        self.simulated.add_fault(
            "HV1", "*.MigrateVirtualSystemToHost", job_error=("The network was lost.", 32768),
            point="after")
        self.live_migrate(server, "HV2", "failed")
        self._delete_server(server)
        self.flags(running_deleted_instance_action="reap", running_deleted_instance_timeout=0)
        manager = self.computes["HV2"].manager
        with windows.acting_as("HV2"), self.cell_of(server) as cell:
            manager._cleanup_running_deleted_instances(cell)
        self.assertEqual([], self.machines("HV2"))
        self.assertEqual([], [name for name in self.files("HV2") if self.name_of(server) in name])

    # A nova-compute that dies in the middle of a move, and starts again.

    def die_in(self, method, after=False):
        """A resize in which nova-compute dies before or after a method of compute-hyperv.

        Nothing of what Nova does about exceptions happens: this is none.
        """
        server = self.boot_with_secret()
        self.die_in_resize_of(server, method, after)
        self.restart("HV1")
        return self._soon(lambda: self._server_with(
            server, {"OS-EXT-STS:task_state": None, "status": "ACTIVE"}))

    def die_in_resize_of(self, server, method, after):
        owner = importlib.import_module(method.rpartition(".")[0].rpartition(".")[0])
        owner = getattr(owner, method.split(".")[-2])
        name, original = method.split(".")[-1], getattr(owner, method.split(".")[-1])
        died = []

        def die(*arguments, **keywords):
            if after:
                original(*arguments, **keywords)
            died.append(name)
            raise greenlet.GreenletExit
        with mock.patch.object(owner, name, die):
            self.api.post_server_action(server["id"], {"migrate": None})
            self._soon(lambda: self.assertEqual([name], died))
        self.assertEqual("resize_migrating", self.api.get_server(server["id"])[
            "OS-EXT-STS:task_state"])

    def assert_goes_on(self, server):
        """It runs where it was, and can be moved."""
        self.assert_kept(server, "HV1")
        self._resize_server(server, self.LARGER_FLAVOR)
        self.assert_kept(server, "HV2")
        self._revert_resize(server)
        self.assert_kept(server, "HV1")

    def test_dies_before_it_stops_the_server(self):
        self.assert_goes_on(self.die_in(_CH + "vmops.VMOps.power_off"))

    def test_dies_after_it_stopped_the_server(self):
        self.assert_goes_on(self.die_in(_CH + "vmops.VMOps.power_off", after=True))

    def test_dies_when_the_disks_have_moved(self):
        self.assert_goes_on(self.die_in(_CH + "pathutils.PathUtils.copy_vm_config_files"))

    def test_dies_before_it_destroys_the_vm(self):
        self.assert_goes_on(self.die_in(_CH + "vmops.VMOps.destroy"))

    def test_dies_after_it_destroyed_the_vm(self):
        self.assert_goes_on(self.die_in(_CH + "vmops.VMOps.destroy", after=True))

    def test_evacuation_without_shared_storage(self):
        server = self.boot_with_secret()
        self.lose_power("HV1")
        self.force_down("HV1")
        told = self.act(server, evacuate={})
        self.assertIn("no storage that this host shares", told)
        self.assertEqual([], self.machines("HV2"))
        self.force_down("HV1", False)
        self.boot_host("HV1")
        server = self.api.get_server(server["id"])
        self.assertEqual(("ACTIVE", "HV1"), (server["status"], self.host_of(server)))
        self._stop_server(server)
        self._start_server(server)
        self.assert_kept(server, "HV1")

    def test_dies_in_a_second_resize(self):
        """compute-hyperv still knows where the first one had moved the files."""
        server = self.boot_with_secret()
        for _ in range(2):
            self._migrate_server(server)
            self._wait_for_state_change(server, "VERIFY_RESIZE")
            server = self._confirm_resize(server)
        self.assertEqual("HV1", self.host_of(server))
        self.die_in_resize_of(server, _CH + "vmops.VMOps.power_off", after=True)
        self.restart("HV1")
        server = self._soon(lambda: self._server_with(server, {"OS-EXT-STS:task_state": None}))
        self.assert_goes_on(server)


class _Cells:
    """HV1 and HV2 are in two cells."""

    NUMBER_OF_CELLS = 2
    CELLS = {"HV1": "cell1", "HV2": "cell2"}

    def _start_compute(self, host, cell_name=None):
        return super()._start_compute(host, cell_name or self.CELLS[host])

    def _prepare_services(self):
        super()._prepare_services()
        self.policy.set_rules(
            {"compute:servers:resize:cross_cell": "is_admin:True"}, overwrite=False)

    def test_resize_to_another_cell(self):
        server = self.boot_with_secret()
        self.assert_refused(server, "A resize to another cell would give", migrate=None)
        self._stop_server(server)
        self._start_server(server)
        self.assert_kept(server, "HV1")


@pytest.mark.compute_hyperv
class ComputeHyperVCellsTest(_Cells, server_life_base.ServerLifeCase):
    """compute-hyperv's standalone driver."""


@pytest.mark.compute_hyperv
class ComputeHyperVEvacuationTest(server_life_base.ServerLifeCase):
    """compute-hyperv's standalone driver, on storage that the hosts share."""

    def _prepare_services(self):
        super()._prepare_services()
        self.shared = os.path.join(self.disks, "shared")
        self.flags(instances_path=self.shared)

    def folder_of(self, server):
        return os.path.join(self.shared, self.name_of(server))

    def fail(self, host):
        self.lose_power(host)
        self.force_down(host)

    def come_back(self, host):
        self.boot_host(host)
        self.force_down(host, False)

    def evacuate(self, server):
        """Evacuate it to HV2 and start it there."""
        self.assertEqual("", self.act(server, evacuate={}).strip())
        return self.started(server)

    def started(self, server):
        server = self.api.get_server(server["id"])
        self.assertEqual("HV2", self.host_of(server))
        if server["status"] == "SHUTOFF":  # by the version of Nova
            server = self._start_server(server)
        return server

    def assert_not_evacuated(self, server, words):
        """It is refused or fails, and what the host that failed had is as it was."""
        files = self.contents()
        self.assertIn(words, self.act(server, evacuate={}))
        self.assertEqual(files, self.contents())
        self.assertEqual([], self.machines("HV2"))
        self.assertEqual("HV1", self.host_of(self.api.get_server(server["id"])))

    def contents(self):
        """{path: bytes} of the files of all servers."""
        found = {}
        for folder, _, names in os.walk(self.shared):
            if os.path.basename(folder) not in ("_base", "locks"):
                for name in names:
                    with open(os.path.join(folder, name), "rb") as file:
                        found[os.path.join(folder, name)] = file.read()
        return found

    def assert_at(self, server, host):
        """As machine(), but the host that failed may still have its VM."""
        found = [one for one in self.machines(host) if one["name"] == self.name_of(server)]
        self.assertEqual([(self.identifier, RUNNING)], [
            (one["id"], one["state"]) for one in found])
        self.assertEqual(server_life_base.SECRET, self.simulated.read_tpm(
            host, self.name_of(server), "bitlocker"))

    def test_evacuation_and_the_return_of_the_host(self):
        server = self.boot_with_secret()
        self.fail("HV1")
        server = self.evacuate(server)
        self.assert_at(server, "HV2")
        # What is in the TPM goes on.
        self.simulated.write_tpm("HV2", self.name_of(server), "later", b"more")
        self.come_back("HV1")
        self.assertEqual([], self.machines("HV1"))
        self.assert_kept(server, "HV2")
        self._stop_server(server)
        self._start_server(server)
        self.assert_kept(server, "HV2")
        self.assertEqual(b"more", self.simulated.read_tpm("HV2", self.name_of(server), "later"))
        # And it goes on living.
        self._migrate_server(server)
        self._wait_for_state_change(server, "VERIFY_RESIZE")
        self._confirm_resize(server)
        self.assert_kept(server, "HV1")

    def test_each_step_fails_once(self):
        server = self.boot_with_secret()
        self.fail("HV1")
        steps = [(method, point) for method in (
            "ImportSystemDefinition", "ValidatePlannedSystem", "RealizePlannedSystem")
            for point in ("before", "after")]
        # One that fails after it started the VM is tried again by os-win, and found done.
        for method, point in [*steps, ("RequestStateChange", "before")]:
            self.simulated.add_fault(
                "HV2", "*." + method, times=6, job_error=("It broke.", 32768), point=point)
            self.assert_not_evacuated(server, "It broke.")
            self.simulated.clear_faults("HV2")
        self.assert_at(self.evacuate(server), "HV2")

    def test_killed_in_the_middle(self):
        """nova-compute dies with a planned VM, and then with the VM of which Nova knows nothing."""
        kills = self.useFixture(killed_compute.KilledComputes(self.disks))
        server = self.boot_with_secret()
        self.fail("HV1")
        for method in ("ImportSystemDefinition", "RealizePlannedSystem"):
            with kills.armed("HV2", "Msvm_VirtualSystemManagementService." + method, after=True):
                self.api.post_server_action(server["id"], {"evacuate": {}})
            kills.bury(self.computes["HV2"])
            self.restart("HV2")
            self.addCleanup(kills.end)
            self.assertEqual("HV1", self.host_of(self.api.get_server(server["id"])))
            self.api.post_server_action(server["id"], {"os-resetState": {"state": "active"}})
        self.assert_at(self.evacuate(server), "HV2")

    def test_after_an_interrupted_rescue(self):
        """The VM has the rescue disk alone; what fails then can be tried again."""
        kills = self.useFixture(killed_compute.KilledComputes(self.disks))
        rescue_image = self.create_image(2, **server_life_base.hyperv_base.GENERATION_2)
        server = self.boot_with_secret()
        with kills.armed("HV1", "Msvm_VirtualSystemManagementService.AddResourceSettings",
                         after=True):
            self.api.post_server_action(
                server["id"], {"rescue": {"rescue_image_ref": rescue_image}})
        kills.bury(self.computes["HV1"])
        self.addCleanup(kills.end)
        self.reset(server)
        self.assertFalse(self.has_own_disk(server))
        self.fail("HV1")
        self.simulated.add_fault(
            "HV2", "*.RequestStateChange", times=6, job_error=("It broke.", 32768))
        self.assert_not_evacuated(server, "It broke.")
        self.simulated.clear_faults("HV2")
        self.reset(server)
        self.assertEqual("", self.act(server, evacuate={}).strip())
        # Before a start does it.
        self.assertTrue(self.has_own_disk(self.api.get_server(server["id"])))
        self.assert_at(self.started(server), "HV2")

    def die_in_an_evacuation_of(self, server):
        """HV2's nova-compute dies; the operator resets the server's state."""
        kills = self.useFixture(killed_compute.KilledComputes(self.disks))
        with kills.armed("HV2", 0):
            self.api.post_server_action(server["id"], {"evacuate": {}})
        kills.bury(self.computes["HV2"])
        self.restart("HV2")
        self.addCleanup(kills.end)
        self.reset(server)

    def test_a_server_without_a_vtpm_stays_without(self):
        """Its image's properties ask for one since a rebuild that the scheduler refused."""
        server = self.boot_on("HV1")
        self.simulated.set_attestation("HV1", 301)
        self._run_periodics()
        self.act(server, rebuild={"imageRef": self.image(2)})
        shown = self._server_with(server, {"status": "ERROR"})
        self.assertIn("hosts are not guarded at present", shown["fault"]["message"])
        self.assertEqual("required", self.system_metadata(server)["image_os_vtpm"])
        self.reset(server)
        self.fail("HV1")
        server = self.evacuate(server)
        (machine,) = self.machines("HV2")
        self.assertFalse(machine["security"]["TpmEnabled"])
        self.assertEqual([], self.key_manager.requests)
        self.assertNotIn("hyperv_vtpm", self.system_metadata(server))

    def test_the_host_returns_after_an_evacuation_that_died(self):
        """Nova takes it for evacuated, and the server is where it was."""
        server = self.boot_with_secret()
        self.fail("HV1")
        self.die_in_an_evacuation_of(server)
        self.come_back("HV1")
        self.act(server, reboot={"type": "HARD"})
        self.assert_kept(server, "HV1")
        self._delete_server(server)
        self.assertEqual([[], []], [self.machines("HV1"), self.machines("HV2")])

    def test_it_comes_back_after_an_evacuation_that_died(self):
        """Nova ends the later evacuation alone, and finds the other one the next time."""
        server = self.boot_with_secret()
        self.fail("HV1")
        self.die_in_an_evacuation_of(server)
        self.evacuate(server)
        self.come_back("HV1")
        self.live_migrate(server, "HV1")
        self.restart("HV1")
        self.assert_kept(server, "HV1")

    def test_a_host_that_is_not_guarded(self):
        server = self.boot_with_secret()
        self.only_the_drivers_look()
        self.fail("HV1")
        self.simulated.set_guarded("HV2", False)
        self.assert_not_evacuated(server, "it is not guarded")
        server = self._server_with(server, {"status": "ACTIVE"})
        self.assertNotIn("fault", server)
        self.simulated.set_guarded("HV2", True)
        self.assert_at(self.evacuate(server), "HV2")

    def test_a_refused_evacuation_leaves_the_ports_alone(self):
        self.plugged_interfaces()
        server = self.boot_with_secret(networks="auto")
        self.only_the_drivers_look()
        self.fail("HV1")
        self.simulated.set_guarded("HV2", False)
        self.assert_not_evacuated(server, "it is not guarded")
        self.assertEqual("HV1", self.port_of(server)["binding:host_id"])

    def test_a_vm_of_the_same_name_with_another_tpm(self):
        """Its guest state does not lie where the server's lies."""
        server = self.boot_with_secret()
        self.fail("HV1")
        with mock.patch.object(virtual_machines.VirtualMachines, "guest_state_file",
                               return_value=os.path.join(self.disks, "elsewhere", "1.vmgs")), \
                mock.patch("os_win.utils.compute.vmutils.VMUtils.vm_exists", return_value=True):
            self.assertIn("no storage that this host shares", self.act(server, evacuate={}))
        self.assert_at(self.evacuate(server), "HV2")

    def test_files_that_are_in_use(self):
        """As where the host runs on, and its nova-compute alone died."""
        server = self.boot_with_secret()
        self.fail("HV1")
        state = os.path.join(self.folder_of(server), "Virtual Machines",
                             self.identifier + ".vmgs")
        opened = open

        def refuse(path, mode="r", *arguments, **keywords):
            if path == state and mode == "r+b":
                raise PermissionError(13, "in use by another process")
            return opened(path, mode, *arguments, **keywords)
        with mock.patch("vtpm_compute.definition_files.open", refuse, create=True):
            self.assert_not_evacuated(server, "no storage that this host shares")

    def test_a_checkpoint(self):
        """The disk of the checkpoint would be used, and what was written since lost."""
        server = self.boot_with_secret()
        self.take_checkpoint(server)
        self.fail("HV1")
        self.assert_not_evacuated(server, "has a checkpoint")

    def attach_volumes(self, server):
        """Attach a volume over iSCSI and one on a share."""
        share = os.path.join(self.disks, "share")
        os.mkdir(share)
        self.flags(volume_attach_retry_count=0, group="hyperv")
        volumes = self.useFixture(attached_volumes.AttachedVolumes(self.simulated, share))
        for volume in (ISCSI, SMB):
            self.api.post_server_volume(server["id"], {"volumeAttachment": {"volumeId": volume}})
        self._soon(lambda: self.assert_volumes(server, "HV1", volumes))
        self._soon(lambda: self.assertEqual(2, len([
            action for action in self.api.get_instance_actions(server["id"])
            if action["action"] == "attach_volume"])))
        return volumes

    def assert_volumes(self, server, host, volumes):
        """They are attached to the server's VM on this host, and connected nowhere else."""
        self.assertEqual({(host, ISCSI), (host, SMB)}, volumes.connected)
        self.assertEqual([
            os.path.join(self.folder_of(server), "root.vhdx"), volumes.path(SMB)],
            self.attached_disks(server))
        self.assertEqual([volumes.disk(host)], self.attached_disks(server, PHYSICAL_DISK))
        for volume in (ISCSI, SMB):
            self.assertEqual([host], volumes.attached_to(volume))

    def test_volumes(self):
        server = self.boot_with_secret()
        volumes = self.attach_volumes(server)
        self.fail("HV1")
        volumes.connected.clear()
        self.simulated.add_fault(
            "HV2", "*.RealizePlannedSystem", job_error=("It broke.", 32768))
        self.assert_not_evacuated(server, "It broke.")
        self.assertEqual(set(), volumes.connected)
        server = self.evacuate(server)
        self.assert_at(server, "HV2")
        self.come_back("HV1")
        self.assert_volumes(server, "HV2", volumes)
        self._stop_server(server)
        self._start_server(server)
        self.assert_kept(server, "HV2")

    def test_a_volume_that_cannot_be_connected(self):
        server = self.boot_with_secret()
        volumes = self.attach_volumes(server)
        self.fail("HV1")
        volumes.connected.clear()
        with mock.patch.object(volumes, "connect_volume", side_effect=(
                os_brick_exception.TargetPortalNotFound(target_portal="of the volume"))):
            self.assert_not_evacuated(
                server, "could not be connected to this host: Unable to find target portal of the")
        server = self.evacuate(server)
        self.come_back("HV1")
        self.assert_kept(server, "HV2")
        self.assert_volumes(server, "HV2", volumes)

    def plugged_interfaces(self):
        """[(host, id of the port)], from now on; Neutron's ports are of Hyper-V's kind."""
        plugged = []
        self.useFixture(fixtures.MonkeyPatch(
            _CH + "vif.HyperVNeutronVIFPlugin.plug", lambda plugin, instance, vif: plugged.append(
                (current_host.computer().name, vif["id"]))))
        self.flags(vif_plugging_timeout=0)
        self.neutron.default_port = {
            **self.neutron.default_port, "binding:vif_type": "hyperv"}
        return plugged

    def port_of(self, server):
        (port,) = self.neutron.list_ports(True, device_id=server["id"])["ports"]
        return port

    def test_a_config_drive(self):
        self.make_config_drives()
        server = self.boot_with_secret()
        self.fail("HV1")
        self.evacuate(server)
        self.assert_config_drive(server)

    def test_network_interfaces(self):
        """Neutron's agent connects an interface that has its port's id for a name."""
        plugged = self.plugged_interfaces()
        server = self.boot_with_secret(networks="auto")
        port = self.port_of(server)
        self.fail("HV1")
        del plugged[:]
        self.assertEqual("", self.act(server, evacuate={}).strip())
        # A start would plug it too.
        self.assertEqual([("HV2", port["id"])], plugged)
        server = self.started(server)
        self.assert_at(server, "HV2")
        port = self.port_of(server)
        self.assertEqual(("HV2", "hyperv"), (port["binding:host_id"], port["binding:vif_type"]))
        self.come_back("HV1")
        self.assert_kept(server, "HV2")
        self.assertEqual([(port["id"], port["mac_address"].replace(":", ""))], [
            (one["ElementName"], one["Address"])
            for one in self._stored_machine(server).resources()
            if one["ResourceSubType"] == ETHERNET_PORT])

    def test_the_host_returns_before_it_is_evacuated(self):
        server = self.boot_with_secret()
        self.fail("HV1")
        # HV1 asks HV2 when it starts, in vain.
        self.flags(rpc_response_timeout=3)
        # Whoever evacuates it has not begun: its nova-compute is busy, or dead.
        self.computes["HV2"].stop()
        self.api.post_server_action(server["id"], {"evacuate": {"host": "HV2"}})
        self._soon(lambda: self.assertEqual(
            [("HV1", "accepted")], [(one["source_compute"], one["status"]) for one in
                                    self.api.api_get("/os-migrations").body["migrations"]]))
        self.come_back("HV1")
        self.assertEqual([self.identifier], [one["id"] for one in self.machines("HV1")])

    def test_it_is_stopped_when_the_host_returns(self):
        server = self.boot_with_secret()
        self.fail("HV1")
        server = self.evacuate(server)
        self._stop_server(server)
        self.come_back("HV1")
        self._start_server(server)
        self.assert_kept(server, "HV2")
        self._delete_server(server)
        self.assertEqual([], [name for name in self.contents() if self.name_of(server) in name])

    def test_a_server_without_a_vtpm(self):
        """As compute-hyperv does it: a new VM over the old disk."""
        server = self.boot_on("HV1")
        self.fail("HV1")
        self.evacuate(server)
        self.come_back("HV1")
        self.assertEqual("HV2", self.host_of(self.api.get_server(server["id"])))

    def test_the_host_that_returns_is_killed_when_it_destroyed_its_vm(self):
        """Hyper-V has deleted the files of the VM that runs elsewhere by now."""
        kills = self.useFixture(killed_compute.KilledComputes(self.disks))
        server = self.boot_with_secret()
        self.fail("HV1")
        server = self.evacuate(server)
        self._stop_server(server)
        # Nova's fixture replaces it while a service starts.
        self.useFixture(fixtures.MonkeyPatch(
            "nova.context.get_admin_context", nova_context.get_admin_context))
        admin_context = nova_context.get_admin_context
        with kills.armed("HV1", "Msvm_VirtualSystemManagementService.DestroySystem", after=True):
            eventlet.spawn(self.boot_host, "HV1")
        self.addCleanup(kills.end)
        nova_context.get_admin_context = admin_context
        self.restart("HV1")
        self._start_server(server)
        self.assert_kept(server, "HV2")

    def test_it_is_deleted_when_the_host_returns(self):
        server = self.boot_with_secret()
        self.fail("HV1")
        self.evacuate(server)
        self._delete_server(server)
        self.come_back("HV1")
        self.assertEqual([[], []], [self.machines("HV1"), self.machines("HV2")])
        self.assertEqual([], [name for name in self.contents() if self.name_of(server) in name])

    def test_live_migration(self):
        server = self.boot_with_secret()
        self.live_migrate(server, "HV2")
        self.assert_kept(server, "HV2")
        self.simulated.add_fault(
            "HV2", "*.MigrateVirtualSystemToHost", job_error=("The network was lost.", 32768))
        self.live_migrate(server, "HV1", "failed")
        self.simulated.clear_faults("HV2")
        self.assert_kept(server, "HV2")
        self._reboot_server(server, hard=True)
        self.assert_kept(server, "HV2")

    def test_resize(self):
        server = self.boot_with_secret()
        self._resize_server(server, "2")
        self.assert_kept(server, "HV2")
        self._revert_resize(server)
        self.assert_kept(server, "HV1")
        self._resize_server(server, "2")
        self._confirm_resize(server)
        self.assert_kept(server, "HV2")
