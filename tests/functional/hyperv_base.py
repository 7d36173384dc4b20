"""Several Hyper-V nova-computes in one process, each on a simulated host of its own."""

# Patches nova first.
from tests.functional import hyperv_services  # isort: skip

import os
import tempfile
import uuid

import fixtures
from nova import context as nova_context
from nova.virt import driver as virt_driver
from oslo_config import cfg

from tests.hyperv import current_host, key_protector, windows
from tests.hyperv.fabric import Fabric
from tests.hyperv.guardian import Guardian
from tests.hyperv.resource_types import HARD_DISK, IDE_CONTROLLER, PHYSICAL_DISK
from tests.hyperv.windows_stand_ins import VhdUtils
from tests.unit.hyperv.machine import Machine

GENERATION_1 = {"hw_machine_type": "hyperv-gen1"}
GENERATION_2 = {"hw_machine_type": "hyperv-gen2", "os_type": "windows"}
RUNNING = 2
SECRET = b"BitLocker's key"


class HyperVTestCase(hyperv_services.HyperVServicesCase):
    """Hosts with nova-compute on each, all with the same driver.

    Each host's driver is made and called on its own host, whoever calls it. The hosts' disks are
    folders of their own, and their addresses those that Nova migrates to.

    :cvar compute_driver: as nova.conf names it
    :cvar HOSTS: the hosts of the fabric's configuration
    :cvar CLUSTERS: the failover clusters of the fabric's configuration
    :cvar DRIVERS: {host: its driver}, where it is not ``compute_driver``
    :cvar STARTED_LATER: the hosts on which a test starts nova-compute itself
    :cvar LEAVES_FOLDERS: whether the driver leaves empty folders of servers behind
    """

    HOSTS = tuple({"name": name, "live_migration": True} for name in ("HV1", "HV2"))
    LEAVES_FOLDERS = False
    FABRICS = ()
    CLUSTERS = ()
    DRIVERS = {}
    STARTED_LATER = ()

    def setUp(self):
        self.disks = self.enterContext(tempfile.TemporaryDirectory())
        template = os.path.join(self.disks, "%COMPUTERNAME%")
        self.simulated = Fabric(
            {"fabrics": self.FABRICS, "hosts": self.HOSTS, "storage": template,
             "clusters": self.CLUSTERS})
        windows.install(self.simulated)
        self._load_drivers_on_their_hosts()
        super().setUp()
        self.flags(instances_path=os.path.join(template, "Instances"))
        self._give_each_host_its_settings()
        self._prepare_services()
        for host in self.HOSTS:
            if host["name"] not in self.STARTED_LATER:
                self.start_compute_on(host["name"])

    def start_compute_on(self, host):
        with windows.acting_as(host):
            return self._start_compute(host)

    def _prepare_services(self):
        """Called before the services start."""

    def _load_drivers_on_their_hosts(self):
        load = virt_driver.load_compute_driver

        def load_on_its_host(virtapi, compute_driver=None):
            host = virtapi._compute.host
            with windows.acting_as(host):
                return windows.bind(
                    load(virtapi, compute_driver or self.DRIVERS.get(host)), host)
        self.useFixture(fixtures.MonkeyPatch(
            "nova.virt.driver.load_compute_driver", load_on_its_host))

    def _give_each_host_its_settings(self):
        """What each host's nova.conf says of itself; here they all read one."""
        read = cfg.ConfigOpts.__getattr__

        def read_on_this_host(conf, name):
            here = current_host.computer_or_none()
            if here is not None and name == "my_ip":
                return here.address_of(here.name)
            if here is not None and name == "host":
                return here.name
            return read(conf, name)
        self.useFixture(fixtures.MonkeyPatch(
            "oslo_config.cfg.ConfigOpts.__getattr__", read_on_this_host))
        # The file compute_id; Nova remembers it for the process.
        identifiers = {}
        self.useFixture(fixtures.MonkeyPatch(
            "nova.virt.node.get_local_node_uuid",
            lambda: identifiers.setdefault(current_host.computer().name, str(uuid.uuid4()))))

    def _run_periodics(self, raise_on_error=False):
        # Nova's own knows nothing of hosts of their own.
        admin = nova_context.get_admin_context()
        for host, service in self.computes.items():
            with windows.acting_as(host), nova_context.target_cell(
                    admin, self.host_mappings[host].cell_mapping) as cell:
                service.manager.update_available_resource(cell)

    def boot_on(self, host, generation=GENERATION_2):
        server = self._build_server(
            image_uuid=self.create_image(**generation), flavor_id=self.PLAIN_FLAVOR,
            networks="none", host=host)
        return self._wait_for_state_change(self.api.post_server({"server": server}), "ACTIVE")

    def boot_with_tpm(self, host="HV1"):
        """A server whose VM runs with a TPM that holds a secret; for the first of the fabrics."""
        server = self.boot_on(host)
        self._stop_server(server)
        fabric = self.FABRICS[0]
        with windows.acting_as(host):
            from os_win import utilsfactory
            machine = Machine(utilsfactory.get_vmutils(), self.name_of(server))
            machine.set_protector(key_protector.make_protector(Guardian.generate("tenant"), [
                Guardian.from_metadata(self.simulated.metadata(fabric), fabric)]))
            machine.enable_tpm()
        server = self._start_server(server)
        self.simulated.write_tpm(host, self.name_of(server), "bitlocker", SECRET)
        return server

    def assert_tpm(self, server):
        """A running server's TPM holds its secret."""
        self.assertEqual(SECRET, self.simulated.read_tpm(
            self.host_of(self.api.get_server(server["id"])), self.name_of(server), "bitlocker"))

    def live_migrate(self, server, host, expected="completed"):
        """Live migrate a server to a host, and wait until that has ended as it must."""
        self.api.post_server_action(
            server["id"], {"os-migrateLive": {"host": host, "block_migration": "auto"}})
        self._wait_for_migration_status(server, [expected])
        return self._wait_for_state_change(server, "ACTIVE")

    def rescue(self, server):
        """Rescue a server with another image, see it in that state, and end it."""
        identifier = self.machine(server)["id"]
        disk = os.path.join(self.folder_of(server), "root.vhdx")
        rescue_disk = os.path.join(self.folder_of(server), "root-rescue.vhdx")
        self.assertEqual([disk], self.attached_disks(server))
        image = self.create_image(2, **GENERATION_2)
        self.api.post_server_action(server["id"], {"rescue": {"rescue_image_ref": image}})
        self._wait_for_state_change(server, "RESCUE")
        self.assertEqual([rescue_disk, disk], self.attached_disks(server))
        self.assertEqual((identifier, RUNNING), (
            self.machine(server)["id"], self.machine(server)["state"]))
        self.api.post_server_action(server["id"], {"unrescue": None})
        server = self._wait_for_state_change(server, "ACTIVE")
        self.assertEqual([disk], self.attached_disks(server))
        self.assertFalse(os.path.exists(rescue_disk))
        self.assertEqual((identifier, RUNNING), (
            self.machine(server)["id"], self.machine(server)["state"]))
        return server

    def name_of(self, server):
        return server["OS-EXT-SRV-ATTR:instance_name"]

    def folder_of(self, server):
        """Where a server's files lie on its host."""
        return os.path.join(self.simulated.storage.folder(self.host_of(server)), "Instances",
                            self.machine(server)["name"])

    def _stored_machine(self, server):
        return self.simulated.host(self.host_of(server)).management.machine_named(
            self.name_of(server))

    def attached_disks(self, server, kind=HARD_DISK):
        """The disks of a kind of a server's machine, by their places: IDE first, then SCSI.

        Virtual hard disks by their paths, physical ones by those of their objects.
        """
        resources = self._stored_machine(server).resources()
        by_path = {resource.get_path().lower(): resource for resource in resources}

        def place(disk):
            drive = disk if kind == PHYSICAL_DISK else by_path[disk["Parent"].lower()]
            controller = by_path[drive["Parent"].lower()]
            return controller["ResourceSubType"] != IDE_CONTROLLER, int(drive["AddressOnParent"])
        disks = [resource for resource in resources if resource["ResourceSubType"] == kind]
        return [disk["HostResource"][0] for disk in sorted(disks, key=place)]

    def assert_size(self, server, memory_mb, root_gb):
        """The memory and the root disk, which is the only one, of a server's machine."""
        self.assertEqual(memory_mb, self._stored_machine(server).memory_mb)
        disk = os.path.join(self.folder_of(server), "root.vhdx")
        self.assertEqual([disk], self.attached_disks(server))
        self.assertEqual({"VirtualSize": root_gb << 30}, VhdUtils().get_vhd_size(disk))

    def other_host(self, server):
        """The name of the first host that the server is not on."""
        return next(host["name"] for host in self.HOSTS if host["name"] != self.host_of(server))

    def machines(self, host):
        """The virtual machines of a host, as its fabric describes them."""
        return self.simulated.virtual_machines(host)

    def stored_disk(self, server):
        """The simulated host's own object for the only disk of a server's machine."""
        (disk,) = [resource for resource in self._stored_machine(server).resources()
                   if resource["ResourceSubType"] == HARD_DISK]
        return disk

    def machine(self, server):
        """The one machine of a server, which must be on no other host than Nova believes."""
        found = {host["name"]: machine for host in self.HOSTS
                 for machine in self.machines(host["name"])
                 if machine["notes"] and server["id"] in machine["notes"][0]
                 or machine["name"] == server["OS-EXT-SRV-ATTR:instance_name"]}
        self.assertEqual([self.host_of(server)], list(found))
        return found[self.host_of(server)]

    def files(self, host):
        """The files and the empty folders on a host's disk, relative to that of the instances.

        Without what belongs to no instance: cached images and locks.
        """
        root = os.path.join(self.simulated.storage.folder(host), "Instances")
        found = [os.path.relpath(os.path.join(folder, name), root)
                 for folder, folders, names in os.walk(root)
                 for name in names or ([] if folders else ["."])]
        return sorted(path for path in found
                      if path.split(os.sep)[0] not in (".", "_base", "locks")
                      and not (self.LEAVES_FOLDERS and os.path.isdir(os.path.join(root, path))))

    def assert_nothing_left(self):
        """No host has a machine, planned or not, or a file of one."""
        for host in self.HOSTS:
            self.assertEqual([], self.machines(host["name"]))
            self.assertEqual([], self.files(host["name"]))
        self.assertLessEqual(set(os.listdir(self.disks)), {host["name"] for host in self.HOSTS})
