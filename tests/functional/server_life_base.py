"""Servers with a vTPM that this project's driver gave them, on several simulated hosts.

A secret is put into the TPM of each; what survives an operation is read back.
"""

# Patches nova first.
from tests.functional import hyperv_base  # isort: skip

import importlib
import os
import shutil

import fixtures
from nova import objects

from tests import stub_key_manager
from tests.hyperv import key_protector, windows
from tests.hyperv.guardian import Guardian
from tests.hyperv.resource_types import DVD_DISK
from vtpm_scheduling import decision, policy

EAST, WEST = "east", "west"
KEY = "2f6ac6a8-4e14-4e4c-a73d-069cbf4541e6"
OTHER_KEY = "3f6ac6a8-4e14-4e4c-a73d-069cbf4541e6"
RUNNING, OFF = hyperv_base.RUNNING, 3
SECRET = hyperv_base.SECRET
CONFIG_DRIVE = b"a file system of ISO 9660"


def _write_config_drive(builder, path):
    with open(path, "wb") as made:
        made.write(CONFIG_DRIVE)


class ServerLifeCase(hyperv_base.HyperVTestCase):
    """Hosts HV1 and HV2 in one fabric, and HV3 in another, which runs no nova-compute at first."""

    compute_driver = "vtpm_hyperv.HyperVDriver"
    FABRICS = (EAST, WEST)
    HOSTS = tuple({"name": name, "fabric": fabric, "live_migration": True}
                  for name, fabric in (("HV1", EAST), ("HV2", EAST), ("HV3", WEST)))
    STARTED_LATER = ("HV3",)
    # Making RSA keys takes a while.
    owner = Guardian.generate("Contoso")

    def _prepare_services(self):
        # Registers its options; os-win has to find Windows when it is imported.
        importlib.import_module("vtpm_compute.vtpm_driver")
        self.key_manager = self.enterContext(stub_key_manager.running())
        self.flags(endpoint_override=self.key_manager.url, timeout=5, connect_retries=0,
                   status_code_retries=0, group="vtpm_compute",
                   scratch_path=os.path.join(self.disks, "%COMPUTERNAME%", "scratch"))
        self.key_manager.payloads = {KEY: self.protector_of(self.owner)}
        self._aggregates, self._in_aggregates = {}, set()
        # Glance's state of an image without data; that of Nova's fixture is active.
        create = self.glance.create
        self.glance.create = lambda context, metadata, data=None: create(
            context, {"status": "active" if data else "queued", **metadata}, data)

    def protector_of(self, owner, fabric=EAST):
        return key_protector.make_protector(
            owner, [Guardian.from_metadata(self.simulated.metadata(fabric), fabric)])

    def start_compute_on(self, host):
        fabric = next(one["fabric"] for one in self.HOSTS if one["name"] == host)
        self.flags(fabric_guardian=fabric, group="vtpm_compute")
        service = super().start_compute_on(host)
        if fabric not in self._aggregates:
            self._aggregates[fabric] = self.create_fabric(fabric)
        if host not in self._in_aggregates:
            self.api.add_host_to_aggregate(self._aggregates[fabric], host)
            self._in_aggregates.add(host)
        return service

    def image(self, number=1, **properties):
        """An image that asks for a vTPM, with the tenant's key protector."""
        return self.create_image(number, **{
            **hyperv_base.GENERATION_2, "os_vtpm": "required", "os_vtpm_keys": KEY, **properties})

    def boot_with_secret(self, host="HV1", networks="none", volume=None):
        """A server on a host, whose TPM holds a secret; it boots from a volume, where one is named.
        """
        server = self._build_server(
            image_uuid="" if volume else self.image(), flavor_id=self.PLAIN_FLAVOR,
            networks=networks, host=host)
        if volume:
            server["block_device_mapping_v2"] = [{
                "source_type": "volume", "destination_type": "volume", "uuid": volume,
                "boot_index": 0}]
        server = self._wait_for_state_change(self.api.post_server({"server": server}), "ACTIVE")
        self.assertEqual("vtpm", self.system_metadata(server)["hyperv_vtpm"])
        self.simulated.write_tpm(host, self.name_of(server), "bitlocker", SECRET)
        self.requests = len(self.key_manager.requests)
        self.identifier = self.machine(server)["id"]
        return server

    def assert_kept(self, server, host=None, state=RUNNING):
        """The server's own VM is on a host, with its TPM; nothing was asked for its keys."""
        server = self._server_with(server, {"OS-EXT-STS:task_state": None})
        if host is not None:
            self.assertEqual(host, self.host_of(server))
        machine = self.machine(server)
        self.assertEqual((self.identifier, state), (machine["id"], machine["state"]))
        self.assertTrue(machine["security"]["TpmEnabled"])
        self.assertEqual(server["status"] == "RESCUE", not self.has_own_disk(server))
        if state == RUNNING:
            self.assert_tpm(server)
        self.assertEqual(self.requests, len(self.key_manager.requests))
        self.assert_one_protector()

    def has_own_disk(self, server):
        """Whether the server's root disk is the first of its VM, and none of a rescue is left."""
        disks = self.attached_disks(server)
        if not disks:
            return False
        folder, name = os.path.split(disks[0])
        files = os.listdir(folder)
        return (name.startswith("root") and name in files
                and not any("-rescue" in one for one in files))

    # Config drives.

    def make_config_drives(self):
        """Let servers have config drives, on DVDs; mkisofs is not there, and what is in them small.
        """
        self.flags(force_config_drive=True)
        self.flags(config_drive_cdrom=True, group="hyperv")
        self.useFixture(fixtures.MonkeyPatch(
            "nova.virt.configdrive.ConfigDriveBuilder.make_drive", _write_config_drive))

    def assert_config_drive(self, server):
        """The server's config drive is the only one of its VM, and it is there."""
        server = self.api.get_server(server["id"])
        (path,) = self.attached_disks(server, DVD_DISK)
        self.assertEqual((self.folder_of(server), "configdrive.iso"), os.path.split(path))
        with open(path, "rb") as opened:
            self.assertEqual(CONFIG_DRIVE, opened.read())

    def assert_one_protector(self, times=1):
        """A key protector was set so many times, on all hosts together."""
        self.assertEqual(times, sum(
            len(self.simulated.calls(host["name"], "*.SetKeyProtector")) for host in self.HOSTS))

    # What a user does and reads.

    def act(self, server, **action):
        """Ask for an action and wait until all is over; returns what its events tell."""
        before = len(self.api.get_instance_actions(server["id"]))
        self.api.post_server_action(server["id"], action)

        def look():
            actions = self.api.get_instance_actions(server["id"])
            shown = self.api.get_server(server["id"])
            self.assertTrue(len(actions) > before and shown["OS-EXT-STS:task_state"] is None,
                            (actions[:1], shown))
            events = self.api.api_get("/servers/%s/os-instance-actions/%s" % (
                server["id"], actions[0]["request_id"])).body["instanceAction"]["events"]
            self.assertTrue(events and all(event["finish_time"] for event in events),
                            (actions[0], shown))
            return " ".join(event.get("details") or "" for event in events)
        return self._soon(look)

    # What an operator does.

    def reset(self, server):
        self.api.post_server_action(server["id"], {"os-resetState": {"state": "active"}})

    def let_it_be_resized(self, server):
        """An edit of the database, so that the move can be reverted."""
        with self.cell_of(server) as cell:
            instance = objects.Instance.get_by_uuid(cell, server["id"])
            instance.vm_state, instance.task_state = "resized", None
            instance.save()
            migrations = objects.MigrationList.get_by_filters(
                cell, {"instance_uuid": server["id"]})
            migration = max(migrations, key=lambda one: one.id)
            migration.status = "finished"
            migration.save()

    def assert_refused(self, server, words, status="ACTIVE", **action):
        """An action is refused with a reason that the user reads, and changed nothing."""
        files = self.files_with_content(self.host_of(server))
        calls = len(self.state_changes())
        images = set(self.glance.images)
        told = self.act(server, **action)
        self.assertIn(words, told)
        server = self._server_with(server, {"status": status})
        self.assertNotIn("fault", server)
        self.assert_kept(server, self.host_of(server), RUNNING if status == "ACTIVE" else OFF)
        self.assertEqual(calls, len(self.state_changes()))
        self.assertEqual(files, self.files_with_content(self.host_of(server)))
        # That of a move between cells goes when its event is over.
        self._soon(lambda: self.assertEqual(images, set(self.glance.images)))

    def state_changes(self):
        """The calls that start and stop VMs, of all hosts."""
        return [call for host in self.HOSTS
                for call in self.simulated.calls(host["name"], "*.RequestStateChange")]

    def files_with_content(self, host):
        root = os.path.join(self.simulated.storage.folder(host), "Instances")
        return {name: os.path.getsize(os.path.join(root, name)) for name in self.files(host)}

    def take_checkpoint(self, server):
        """As an administrator does, or a nova-compute that dies while it makes an image."""
        with windows.acting_as(self.host_of(server)):
            importlib.import_module("os_win.utilsfactory").get_vmutils().take_vm_snapshot(
                self.name_of(server))

    def merge_slowly(self, server):
        """A checkpoint is gone, and the disk that Windows made for it not merged yet."""
        disk = self.stored_disk(server)
        (path,) = disk["HostResource"]
        differences = path.replace(".vhdx", "_2f6ac6a8.avhdx")
        shutil.copy(path, differences)
        disk["HostResource"] = [differences]

    # What befalls a host.

    def lose_power(self, host):
        """A host loses its power, and nova-compute there with it."""
        self.computes[host].stop()
        self.simulated.fail_node(host)

    def force_down(self, host, is_down=True):
        """Nova takes the host's nova-compute for down, as an administrator says."""
        (service,) = self.api.get_services(host=host, binary="nova-compute")
        self.api.put_service(service["id"], {"forced_down": is_down})

    def move_vm(self, server, source):
        """Move-VM, on the host where the VM is, to where Nova has its server."""
        with windows.acting_as(source):
            importlib.import_module("os_win.utilsfactory").get_livemigrationutils().live_migrate_vm(
                self.name_of(server), self.host_of(server))

    def boot_host(self, host):
        """A host that lost its power has it again, and nova-compute starts."""
        self.simulated.restore_node(host)
        self.restart(host)

    def restart(self, host):
        """Start nova-compute on a host again; it reads its settings anew."""
        self.green_threads.end(host)
        with windows.acting_as(host):
            self.computes[host] = self.restart_compute_service(
                self.computes[host], keep_hypervisor_state=False)

    def change_guardian(self):
        """The fabric of HV1 and HV2 has a new guardian: the hosts know it, the HGS it alone."""
        self.simulated.renew_fabric_guardian(EAST)
        self.simulated.drop_old_fabric_guardians(EAST)
        self.simulated.serve_key_protection(EAST)
        self.addCleanup(self.simulated.serve_key_protection, EAST, False)
        self.flags(fabric_guardian="east since then", group="vtpm_compute",
                   fabric_thumbprint=self.simulated.fabric_thumbprint(EAST))
        for host in ("HV1", "HV2"):
            self.restart(host)

    def only_the_drivers_look(self):
        """The scheduler's report is up to a minute old, and could be wrong."""
        self.useFixture(fixtures.MonkeyPatch(
            "vtpm_scheduling.decision._decide",
            lambda request: decision.Decision(policy.NO_VTPM)))
