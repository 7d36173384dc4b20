"""What hardware a VM may have, and when it may change.

Source: Microsoft Learn, "Plan for Hyper-V scalability in Windows Server" (processors, memory,
controllers, drives of a VM), "Should I create a generation 1 or 2 virtual machine in Hyper-V?"
(VHDX only, no IDE), "What's new in Hyper-V on Windows Server 2016" (a running VM's memory; its
network adapters, Generation 2), "Add-VMHardDiskDrive" (locations). What is left of it is assumed
[assumption hardware-of-a-vm].
"""
import os

from tests.hyperv import jobs
from tests.hyperv.disk_files import ATTACHMENT
from tests.hyperv.resource_types import (
    DISK_DRIVE,
    DVD_DISK,
    DVD_DRIVE,
    ETHERNET_PORT,
    HARD_DISK,
    IDE_CONTROLLER,
    PHYSICAL_DISK,
    SCSI_CONTROLLER,
)
from tests.hyperv.virtual_machine import RUNNING, SAVED

_CONTROLLERS, _DRIVES = (SCSI_CONTROLLER, IDE_CONTROLLER), (DISK_DRIVE, DVD_DRIVE, PHYSICAL_DISK)
_DRIVE_OF = {HARD_DISK: DISK_DRIVE, DVD_DISK: DVD_DRIVE}
_LOCATIONS = {SCSI_CONTROLLER: 64, IDE_CONTROLLER: 2}
_MOST_SCSI_CONTROLLERS = 4

# Of releases of Windows: (since, most processors, most MB) of Generation 2; Generation 1 has 64 and
# 1 TB in each.
_MOST = (((10, 0, 26100), 2048, 240 << 20), ((10, 0, 20348), 1024, 24 << 20),
         ((10, 0), 240, 12 << 20), ((6, 2), 64, 1 << 20))
_MOST_OF_GENERATION_1 = 64, 1 << 20
_LEAST_MB, _STEP_MB = 32, 2

# What of a processor does not change unless the VM is off; its reserve, limit and weight do.
_PROCESSOR_FIXED = ("VirtualQuantity", "ExposeVirtualizationExtensions", "LimitProcessorFeatures",
                    "LimitCPUID", "HwThreadsPerCore", "MaxProcessorsPerNumaNode",
                    "MaxNumaNodesPerSocket", "HideHypervisorPresent")
_MEMORY_FIXED = ("DynamicMemoryEnabled", "MaxMemoryBlocksPerNumaNode")

# The words are not recorded in full [assumption hardware-of-a-vm].
NO_PARENT = "The parent of the new resource does not exist."
NO_LOCATION = "The location %s does not exist on the controller. (0x80070057)"
OCCUPIED = "The location %s is already in use. (0x80070055)"
TOO_MANY_CONTROLLERS = "A virtual machine has at most %d SCSI controllers. (0x80070057)"
NO_IDE = "IDE controllers cannot be added to a virtual machine. (0x80070032)"
ATTACHED = "The disk '%s' is already attached to the virtual machine '%s'. (0x80070020)"
NO_VHD = "The disk '%s' must be a .vhdx file for a virtual machine of generation 2. (0x80070032)"
PROCESSORS = (
    "Cannot assign the specified number of processors for virtual machine '%s' because it is out "
    "of range. The range is 1 through %d. (0x80070057)")
MEMORY = "Invalid memory of virtual machine '%s': from %d MB to %d MB, a multiple of %d MB."


class Hardware:
    """The rules of one host.

    :param windows_version: a tuple
    :param processors: the host's logical processors
    """

    def __init__(self, windows_version, processors):
        self._version, self._processors = windows_version, processors

    def check_resources(self, machine, changes):
        """Refuse resources that a VM cannot get, or not in its state; nothing is changed.

        :param machine: the :class:`tests.hyperv.virtual_machine.VirtualMachine`
        :param changes: [(the stored setting data or None: it is new, what it is to be)]
        :returns: the return value of a refusal, or None: none is refused
        :raises jobs.JobFailure: what is wrong in any state
        """
        resources = {resource["InstanceID"]: resource for resource in machine.resources()}
        for stored, wanted in changes:
            others = {name: resource for name, resource in resources.items()
                      if name != wanted["InstanceID"]}
            if not machine.is_off and self._needs_off(machine, stored, wanted):
                return jobs.INVALID_STATE
            self._check_values(machine, stored, wanted, list(others.values()))
            resources = {**others, wanted["InstanceID"]: wanted}
        return None

    def check_removal(self, machine, resource):
        """Like :meth:`check_resources`, for a resource that is removed."""
        if not machine.is_off and self._needs_off(machine, resource, None):
            return jobs.INVALID_STATE
        return None

    def _needs_off(self, machine, stored, wanted):
        given = wanted or stored

        def changes(*names):
            return stored is None or wanted is None or any(
                (stored[name] or None) != (wanted[name] or None) for name in names)
        kind = given["ResourceSubType"]
        if given.is_a("Msvm_ProcessorSettingData"):
            return changes(*_PROCESSOR_FIXED)
        if given.is_a("Msvm_MemorySettingData"):
            return changes(*_MEMORY_FIXED) or (
                changes("VirtualQuantity") and not self._memory_changes(machine, given))
        if kind in _CONTROLLERS:
            return changes("Address")
        if kind in _DRIVES or kind in _DRIVE_OF:
            return changes("Parent", "AddressOnParent", "HostResource") and (
                machine.state == SAVED or kind != DVD_DISK and _is_on_ide(machine, given))
        if kind == ETHERNET_PORT:
            return (stored is None or wanted is None) and (
                machine.state == SAVED or machine.generation == 1 or self._version < (10, 0))
        return False

    def _memory_changes(self, machine, memory):
        """Whether the memory of a VM that is not off can be more or less."""
        return (self._version >= (10, 0) and machine.state == RUNNING
                and not memory["DynamicMemoryEnabled"])

    def _check_values(self, machine, stored, wanted, others):
        kind = wanted["ResourceSubType"]
        if wanted.is_a("Msvm_ProcessorSettingData"):
            most = min(self._most(machine)[0], self._processors)
            if not 1 <= wanted["VirtualQuantity"] <= most:
                raise jobs.JobFailure(PROCESSORS % (machine.name, most))
        elif wanted.is_a("Msvm_MemorySettingData"):
            most, quantity = self._most(machine)[1], wanted["VirtualQuantity"]
            if not _LEAST_MB <= quantity <= most or quantity % _STEP_MB:
                raise jobs.JobFailure(MEMORY % (machine.name, _LEAST_MB, most, _STEP_MB))
        elif kind == IDE_CONTROLLER and stored is None:
            raise jobs.JobFailure(NO_IDE)
        elif kind == SCSI_CONTROLLER:
            if 1 + len(_of_kinds(others, kind)) > _MOST_SCSI_CONTROLLERS:
                raise jobs.JobFailure(TOO_MANY_CONTROLLERS % _MOST_SCSI_CONTROLLERS)
        elif kind in _DRIVES:
            _check_drive(machine, wanted, others)
        elif kind in _DRIVE_OF:
            _check_medium(machine, wanted, others)

    def _most(self, machine):
        """(processors, MB) of a VM."""
        if machine.generation == 1:
            return _MOST_OF_GENERATION_1
        return next(most for since, *most in _MOST if self._version >= since)


def _check_drive(machine, drive, others):
    controller = _parent(machine, drive, _CONTROLLERS)
    location = drive["AddressOnParent"] or ""
    if not location.isdigit() or int(location) >= _LOCATIONS[controller["ResourceSubType"]]:
        raise jobs.JobFailure(NO_LOCATION % location)
    if any(int(other["AddressOnParent"]) == int(location)
           for other in _of_kinds(others, *_DRIVES) if _have_same_parent(other, drive)):
        raise jobs.JobFailure(OCCUPIED % location)


def _check_medium(machine, medium, others):
    kind = medium["ResourceSubType"]
    drive = _parent(machine, medium, (_DRIVE_OF[kind],))
    if any(_have_same_parent(other, medium) for other in _of_kinds(others, *_DRIVE_OF)):
        raise jobs.JobFailure(OCCUPIED % drive["AddressOnParent"])
    path = (medium["HostResource"] or ("",))[0]
    # A planned VM is made right before it is realized, which asks for its disks.
    if not os.path.exists(path) and not machine.is_planned:
        raise jobs.JobFailure(ATTACHMENT % path)
    if kind == HARD_DISK:
        if any(os.path.realpath(path) == os.path.realpath(used)
               for other in _of_kinds(others, HARD_DISK) for used in other["HostResource"] or ()):
            raise jobs.JobFailure(ATTACHED % (path, machine.name))
        if machine.generation == 2 and path.lower().endswith((".vhd", ".avhd")):
            raise jobs.JobFailure(NO_VHD % path)


def _parent(machine, resource, kinds):
    """:raises jobs.JobFailure: the VM has none of these kinds there"""
    found = _find(machine, resource["Parent"])
    if found is None or found["ResourceSubType"] not in kinds:
        raise jobs.JobFailure(NO_PARENT)
    return found


def _find(machine, path):
    return next((resource for resource in machine.resources()
                 if resource.get_path().lower() == (path or "").lower()), None)


def _is_on_ide(machine, resource):
    """Whether a drive, or what is in one, is at an IDE controller."""
    while resource is not None and resource["ResourceSubType"] not in _CONTROLLERS:
        resource = _find(machine, resource["Parent"])
    return resource is not None and resource["ResourceSubType"] == IDE_CONTROLLER


def _of_kinds(resources, *kinds):
    return [resource for resource in resources if resource["ResourceSubType"] in kinds]


def _have_same_parent(one, other):
    return (one["Parent"] or "").lower() == (other["Parent"] or "").lower()
