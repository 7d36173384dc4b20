"""What hardware a VM gets, and in which state; os-win asks for it."""
import time
import types

import pytest

from tests.hyperv import windows
from tests.hyperv.fabric import Fabric
from tests.hyperv.windows_stand_ins import VhdUtils
from tests.unit.hyperv.machine import Machine

RUNNING, OFF, SAVED, PAUSED = 2, 3, 6, 9
INVALID_STATE = 32775
HOSTS = {"10.0.17763": "HV1", "6.3.9600": "HV-OLD", "10.0.14393": "HV-LARGE",
         "10.0.20348": "HV-2022"}


@pytest.fixture(scope="module")
def fabric():
    return Fabric({"hosts": [
        {"name": name, "version": version,
         "processors": 8 if name in ("HV1", "HV-OLD") else 4096}
        for version, name in HOSTS.items()]})


@pytest.fixture
def on(fabric, monkeypatch):
    """on(host): os-win's vmutils there, which tries again without a pause."""
    def vmutils(host):
        windows.install(fabric, host)
        from os_win import _utils, utilsfactory
        monkeypatch.setattr(_utils, "time", types.SimpleNamespace(
            sleep=lambda seconds: None, time=time.time))
        return utilsfactory.get_vmutils()
    return vmutils


@pytest.fixture
def make(on, fabric, tmp_path):
    """make(generation, host): a VM with a SCSI controller, that is off."""
    def made(generation=2, host="HV1"):
        vmutils = on(host)
        vmutils.create_vm("guest", False, generation, str(tmp_path), [])
        machines.append((vmutils, host))
        vmutils.create_scsi_controller("guest")
        return Guest(vmutils, fabric.host(host), tmp_path)
    machines = []
    yield made
    for vmutils, host in machines:
        windows.install(fabric, host)
        vmutils.set_vm_state("guest", OFF)
        vmutils.destroy_vm("guest")


class Guest(Machine):
    """The VM, and what a driver asks for it."""

    def __init__(self, vmutils, host, folder):
        super().__init__(vmutils, "guest")
        self._host, self._folder = host, folder

    @property
    def stored(self):
        return self._host.management.machine_named("guest")

    def enter(self, state):
        if state != OFF:
            self.start()
        if state in (SAVED, PAUSED):
            self.request(state)

    def disk(self, name="disk.vhdx"):
        path = self._folder / name
        VhdUtils().create_dynamic_vhd(str(path), 1 << 20)
        return str(path)

    def image(self):
        path = self._folder / "image.iso"
        path.touch()
        return str(path)

    def attach(self, path, slot=0, kind="VHD", ide=None):
        controller = (self.vmutils.get_vm_scsi_controller("guest") if ide is None
                      else self.vmutils.get_vm_ide_controller("guest", ide))
        self.vmutils.attach_drive("guest", path, controller, slot, kind)

    def detach(self, path):
        self.vmutils.detach_vm_disk("guest", path, is_physical=False)

    def update(self, memory=512, processors=1, ratio=1):
        self.vmutils.update_vm("guest", memory, None, processors, None, False, ratio)

    def change(self, class_name, **values):
        """The return value of ModifyResourceSettings, and the job."""
        (data,) = [data for data in getattr(self.vmutils._conn, class_name)()
                   if self.stored.identifier in data.InstanceID]
        data.set(**values)
        job, _, value = self.vmutils._vs_man_svc.ModifyResourceSettings(
            ResourceSettings=[data.GetText_(1)])
        self.vmutils._jobutils.check_ret_val(value, job, [0, 4096, INVALID_STATE])
        return value

    def order(self, *disks):
        self.vmutils.set_boot_order("guest", disks)

    def hardware(self):
        """The setting data, to see that a refusal changed nothing."""
        return [(i["InstanceID"], dict(i.values)) for i in self.stored.resources()]


@pytest.fixture
def refused(fabric):
    """refused(guest, request, words=None): it fails, and nothing has changed."""
    def check(guest, request, words=None):
        from os_win import exceptions
        before = guest.hardware()
        if words is None:
            with pytest.raises(exceptions.HyperVException, match=str(INVALID_STATE)):
                request()
        else:
            with pytest.raises(exceptions.WMIJobFailed, match=words):
                request()
        assert guest.hardware() == before
    return check


NOT_OFF = (RUNNING, SAVED, PAUSED)


@pytest.mark.parametrize("state", NOT_OFF)
def test_what_needs_the_vm_off(make, refused, state):
    guest = make()
    guest.attach(guest.disk())
    guest.attach(guest.disk("second.vhdx"), 1)
    guest.order(guest.disk(), guest.disk("second.vhdx"))
    guest.enter(state)
    refused(guest, lambda: guest.vmutils.create_scsi_controller("guest"))
    refused(guest, lambda: guest.vmutils.set_nested_virtualization("guest", True))
    before = guest.stored.settings["BootSourceOrder"]
    refused(guest, lambda: guest.order(guest.disk("second.vhdx"), guest.disk()))
    assert guest.stored.settings["BootSourceOrder"] == before
    for values in ({"VirtualQuantity": 2}, {"LimitProcessorFeatures": True},
                   {"MaxProcessorsPerNumaNode": 2}):
        assert guest.change("Msvm_ProcessorSettingData", **values) == INVALID_STATE
    assert guest.change("Msvm_MemorySettingData", DynamicMemoryEnabled=True) == INVALID_STATE
    controller, = [c for c in guest.vmutils._conn.Msvm_ResourceAllocationSettingData()
                   if c.path_() == guest.vmutils.get_vm_scsi_controller("guest")]
    refused(guest, lambda: guest.vmutils._jobutils.remove_virt_resource(controller))
    # Neither what is not changed nor what has its limits at any time needs it off.
    guest.vmutils._modify_virtual_system(guest.vmutils._lookup_vm_check("guest"))
    assert guest.change("Msvm_ProcessorSettingData", Weight=200, VirtualQuantity=1) == 0
    guest.stop()
    guest.order(guest.disk("second.vhdx"), guest.disk())
    guest.vmutils.create_scsi_controller("guest")
    guest.vmutils.set_nested_virtualization("guest", True)
    guest.update(processors=2, ratio=2)


@pytest.mark.parametrize("state", NOT_OFF)
def test_generation_1_changes_while_it_is_off(make, refused, state):
    guest = make(generation=1)
    guest.attach(guest.disk(), 0, ide=0)
    guest.attach(guest.image(), 0, "DVD", ide=1)
    guest.vmutils.create_nic("guest", "one")
    guest.enter(state)
    other = guest.disk("other.vhdx")
    for request in (lambda: guest.attach(other, 1, ide=0),
                    lambda: guest.attach(guest.image(), 1, "DVD", ide=1),
                    lambda: guest.detach(guest.disk()),
                    lambda: guest.vmutils.create_nic("guest", "two"),
                    lambda: guest.vmutils.destroy_nic("guest", "one"),
                    lambda: guest.order(3, 2, 1, 0)):
        refused(guest, request)
    guest.stop()
    guest.attach(other, 1, ide=0)
    guest.detach(other)
    guest.vmutils.create_nic("guest", "two")
    guest.order(3, 2, 1, 0)


@pytest.mark.parametrize("state", [RUNNING, PAUSED])
def test_what_generation_2_takes_while_it_is_in_memory(make, state):
    guest = make()
    guest.enter(state)
    guest.attach(guest.disk())
    guest.attach(guest.image(), 1, "DVD")
    guest.vmutils.create_nic("guest", "one")
    guest.vmutils.destroy_nic("guest", "one")
    guest.detach(guest.disk())
    assert len(guest.vmutils.get_vm_storage_paths("guest")[0]) == 1


def test_a_saved_vm_gets_nothing(make, refused):
    guest = make()
    guest.attach(guest.disk())
    guest.enter(SAVED)
    for request in (lambda: guest.attach(guest.image(), 1, "DVD"),
                    lambda: guest.detach(guest.disk()),
                    lambda: guest.vmutils.create_nic("guest", "one")):
        refused(guest, request)


@pytest.mark.parametrize("state, host, ratio, taken", [
    (RUNNING, "HV1", 1, True), (RUNNING, "HV1", 2, False), (PAUSED, "HV1", 1, False),
    (SAVED, "HV1", 1, False), (RUNNING, "HV-OLD", 1, False)])
def test_the_memory_of_a_vm_that_is_not_off(make, state, host, ratio, taken):
    guest = make(host=host)
    guest.update(ratio=ratio)
    before = guest.stored.memory_mb
    guest.enter(state)
    value = guest.change("Msvm_MemorySettingData", VirtualQuantity=before + 2)
    assert value == (0 if taken else INVALID_STATE)
    assert guest.stored.memory_mb == before + 2 * taken


def test_no_adapter_while_a_vm_of_2012_r2_runs(make, refused):
    guest = make(host="HV-OLD")
    guest.start()
    refused(guest, lambda: guest.vmutils.create_nic("guest", "one"))


@pytest.mark.parametrize("state", [OFF, RUNNING])
def test_locations(make, refused, state):
    guest = make()
    guest.attach(guest.disk())
    guest.enter(state)
    other = guest.disk("other.vhdx")
    for kind, path in (("VHD", other), ("DVD", guest.image())):
        refused(guest, lambda p=path, k=kind: guest.attach(p, 0, k), "0 is already in use")
        for slot in (64, -1, "none"):
            refused(guest, lambda p=path, s=slot, k=kind: guest.attach(p, s, k),
                    "location %s does not exist" % slot)
    guest.attach(other, 63)
    # A drive stays where it is when something else of it changes.
    drive = guest.vmutils._get_wmi_obj(guest.vmutils._get_mounted_disk_resource_from_path(
        other, False).Parent)
    guest.vmutils._jobutils.modify_virt_resource(drive)
    drive.AddressOnParent = "0"
    refused(guest, lambda: guest.vmutils._jobutils.modify_virt_resource(drive), "already in use")
    drive.AddressOnParent = "1"
    guest.vmutils._jobutils.modify_virt_resource(drive)


def test_locations_at_ide(make, refused):
    guest = make(generation=1)
    refused(guest, lambda: guest.attach(guest.disk(), 2, ide=0), "location 2 does not exist")
    guest.attach(guest.disk(), 1, ide=0)
    refused(guest, lambda: guest.attach(guest.disk("other.vhdx"), 1, ide=0), "already in use")
    guest.attach(guest.disk("other.vhdx"), 1, ide=1)


def test_two_at_one_place_in_one_call(make, refused):
    guest = make()
    drive = guest.vmutils._get_new_resource_setting_data(guest.vmutils._DISK_DRIVE_RES_SUB_TYPE)
    drive.Parent, drive.AddressOnParent = guest.vmutils.get_vm_scsi_controller("guest"), "5"
    job, _, value = guest.vmutils._vs_man_svc.AddResourceSettings(
        guest.vmutils._lookup_vm_check("guest").path_(), [drive.GetText_(1)] * 2)
    refused(guest, lambda: guest.vmutils._jobutils.check_ret_val(value, job), "already in use")
    assert not guest.stored.boot_identities()


def test_controllers(make, refused):
    guest = make()
    for _ in range(3):
        guest.vmutils.create_scsi_controller("guest")
    refused(guest, lambda: guest.vmutils.create_scsi_controller("guest"), "at most 4 SCSI")
    ide = guest.vmutils._get_new_resource_setting_data(guest.vmutils._IDE_CTRL_RES_SUB_TYPE)
    refused(guest, lambda: guest.vmutils._jobutils.add_virt_resource(
        ide, guest.vmutils._lookup_vm_check("guest")), "IDE controllers cannot be added")


@pytest.mark.parametrize("state", [OFF, RUNNING])
def test_disks(make, refused, tmp_path, state):
    guest = make()
    guest.attach(guest.disk())
    guest.enter(state)
    for request, words in (
            (lambda: guest.attach(str(tmp_path / "none.vhdx"), 1), "none.vhdx' not found"),
            (lambda: guest.attach(str(tmp_path / "none.iso"), 1, "DVD"), "none.iso' not found"),
            (lambda: guest.attach(guest.disk(), 1), "is already attached"),
            (lambda: guest.attach(guest.disk("old.vhd"), 1), "must be a .vhdx"),
            (lambda: guest.vmutils.update_vm_disk_path(
                guest.disk(), str(tmp_path / "none.vhdx"), False), "none.vhdx' not found")):
        refused(guest, request, words)
    guest.attach(guest.disk("other.vhdx"), 1)
    refused(guest, lambda: guest.vmutils.update_vm_disk_path(
        guest.disk("other.vhdx"), guest.disk(), False), "is already attached")
    # A second medium in a drive, and one in a drive of another kind.
    drive = guest.vmutils._get_mounted_disk_resource_from_path(guest.disk(), False).Parent
    for name, path, words in (
            (guest.vmutils._HARD_DISK_RES_SUB_TYPE, guest.disk("third.vhdx"), "already in use"),
            (guest.vmutils._DVD_DISK_RES_SUB_TYPE, guest.image(), "parent of the new resource")):
        medium = guest.vmutils._get_new_resource_setting_data(
            name, "Msvm_StorageAllocationSettingData")
        medium.Parent, medium.HostResource = drive, [path]
        refused(guest, lambda m=medium: guest.vmutils._jobutils.add_virt_resource(
            m, guest.vmutils._lookup_vm_check("guest")), words)


def test_generation_1_takes_a_vhd(make):
    guest = make(generation=1)
    guest.attach(guest.disk("old.vhd"), ide=0)


@pytest.mark.parametrize("host, generation, most", [
    ("HV1", 2, 8), ("HV1", 1, 8), ("HV-LARGE", 1, 64), ("HV-LARGE", 2, 240), ("HV-2022", 2, 1024)])
def test_how_many_processors(make, refused, host, generation, most):
    guest = make(generation, host)
    for number in (0, most + 1):
        refused(guest, lambda n=number: guest.change(
            "Msvm_ProcessorSettingData", VirtualQuantity=n), "range is 1 through %d" % most)
    guest.change("Msvm_ProcessorSettingData", VirtualQuantity=most)


@pytest.mark.parametrize("host, generation, most", [
    ("HV1", 2, 12 << 20), ("HV1", 1, 1 << 20), ("HV-2022", 2, 24 << 20), ("HV-OLD", 2, 1 << 20)])
def test_how_much_memory(make, refused, host, generation, most):
    guest = make(generation, host)
    for quantity in (0, 30, 33, most + 2):
        refused(guest, lambda q=quantity: guest.change(
            "Msvm_MemorySettingData", VirtualQuantity=q),
                "from 32 MB to %d MB, a multiple of 2" % most)
    for quantity in (32, 34, most):
        guest.change("Msvm_MemorySettingData", VirtualQuantity=quantity)
        assert guest.stored.memory_mb == quantity


def test_refusals_come_at_once_also_where_jobs_are_delayed(make, fabric):
    guest = make()
    guest.start()
    fabric.add_delay("HV1", "*.ModifyResourceSettings", 60)
    assert guest.change("Msvm_ProcessorSettingData", VirtualQuantity=2) == INVALID_STATE
