"""Msvm_VirtualSystemSnapshotService: snapshots of VMs, and going back to them.

A snapshot keeps the VM's definition with its key protectors, a copy of its guest state file, and
its disks: the VM goes on with differencing disks on them. Its files lie in ``Snapshots`` below
SnapshotDataRoot [assumption snapshot-files].

Source: Microsoft Learn, "CIM_VirtualSystemSnapshotService class" and its methods,
"Msvm_SnapshotOfVirtualSystem class", "Using checkpoints to revert virtual machines to a previous
state"; os-win, ``vmutils.py`` (take_vm_snapshot, remove_vm_snapshot).
"""
import copy
import os
import pathlib
import re

from tests.hyperv import definition as definitions
from tests.hyperv import disk_files, guest_state, jobs
from tests.hyperv.kept_files import KeptFiles
from tests.hyperv.resource_types import HARD_DISK, PHYSICAL_DISK
from tests.hyperv.virtual_machine import OFF, SAVED, Snapshot, new_guid
from tests.hyperv.windows_stand_ins import VhdUtils

V2 = "root/virtualization/v2"

_SERVICE = "Msvm_VirtualSystemSnapshotService"
_FULL = 2
# The return values of the service's methods.
_INVALID_PARAMETER, _INVALID_STATE, _INVALID_TYPE = 4, 5, 6

# The words are not documented [assumption snapshot-files].
PASS_THROUGH = (
    "Cannot take checkpoint for '%s' because one or more of its disks are physical disks.")

# The words are not documented [assumption snapshots-and-tpms].
NO_GUEST_STATE = "The guest state file of the checkpoint '%s' is missing or damaged. (0x80070570)"

_DIFFERENCING = re.compile(r"(.*?)(?:_[0-9A-F-]{36})?\.a?(vhdx?)", re.IGNORECASE)


class SnapshotService:
    """The service of one host.

    :param machines: the host's :class:`VirtualSystemManagement`
    """

    def __init__(self, repository, job_factory, machines):
        self._repository, self._jobs, self._machines = repository, job_factory, machines
        repository.add(V2, _SERVICE, CreationClassName=_SERVICE, Name="vssnapsvc",
                       SystemCreationClassName="Msvm_ComputerSystem",
                       SystemName=repository.computer_name)
        repository.provide(V2, "CIM_VirtualSystemSnapshotService", {
            "CreateSnapshot": self._create, "DestroySnapshot": self._destroy,
            "ApplySnapshot": self._apply})
        repository.provide(V2, _SERVICE, {"DestroySnapshotTree": self._destroy_tree})
        job_factory.check_first("CIM_VirtualSystemSnapshotService", {
            "CreateSnapshot": (self._check_create, None),
            "DestroySnapshot": (self._check_snapshot, None),
            "ApplySnapshot": (self._check_apply, None)})
        job_factory.check_first(_SERVICE, {"DestroySnapshotTree": (self._check_snapshot, None)})

    def _check_create(self, service, AffectedSystem=None, SnapshotType=None, **_):  # noqa: N803
        machine = self._machines.machine_of(AffectedSystem)
        if SnapshotType != _FULL:
            return _INVALID_TYPE
        return _INVALID_STATE if machine.is_planned or not machine.is_settled else None

    def _check_snapshot(self, service, **given):
        (reference,) = given.values()
        return _INVALID_PARAMETER if self._machines.snapshot_of(reference)[1] is None else None

    def _check_apply(self, service, Snapshot=None):  # noqa: N803
        machine, snapshot = self._machines.snapshot_of(Snapshot)
        if snapshot is None:
            return _INVALID_PARAMETER
        is_allowed = machine.state in (OFF, SAVED) and not machine.is_planned
        return None if is_allowed else _INVALID_STATE

    def _create(self, service, AffectedSystem=None, SnapshotSettings=None,  # noqa: N803
                SnapshotType=None, ResultingSnapshot=None):  # noqa: N803
        refusal = self._check_create(service, AffectedSystem, SnapshotType)
        if refusal is not None:
            return refusal
        machine = self._machines.machine_of(AffectedSystem)
        try:
            snapshot = self._take(machine)
        except jobs.JobFailure as failure:
            return self._jobs.failed("CreateSnapshot", failure, machine.system)
        return self._jobs.done("CreateSnapshot", snapshot.settings, machine.system)

    def _take(self, machine):
        if any(i["ResourceSubType"] == PHYSICAL_DISK for i in machine.resources()):
            raise jobs.JobFailure(PASS_THROUGH % machine.name)
        snapshot = Snapshot.of(machine, new_guid(), OFF if machine.is_off else SAVED)
        made, kept = [], KeptFiles(machine.files())
        try:
            for disk in machine.resources():
                if disk["ResourceSubType"] == HARD_DISK and disk["HostResource"]:
                    made.append((disk, disk["HostResource"][0],
                                 self._differencing_disk(disk["HostResource"][0])))
            machine.keep(snapshot)
            for disk, _, child in made:
                disk["HostResource"] = [child]
            machine.save()
        except OSError as fault:
            for disk, parent, child in made:
                disk["HostResource"] = [parent]
                pathlib.Path(child).unlink(missing_ok=True)
            machine.drop(snapshot)
            machine.last_snapshot = snapshot.parent
            kept.put_back()
            raise jobs.JobFailure(str(fault)) from None
        snapshot.show()
        return snapshot

    @staticmethod
    def _differencing_disk(parent):
        _require(parent)
        stem, kind = _DIFFERENCING.fullmatch(os.path.basename(parent)).groups()
        child = os.path.join(os.path.dirname(parent), "%s_%s.a%s" % (stem, new_guid(), kind))
        try:
            VhdUtils().create_differencing_vhd(child, parent)
        except OSError:
            pathlib.Path(child).unlink(missing_ok=True)
            raise
        return child

    def _destroy(self, service, AffectedSnapshot=None):  # noqa: N803
        machine, snapshot = self._machines.snapshot_of(AffectedSnapshot)
        if snapshot is None:
            return _INVALID_PARAMETER
        return self._remove("DestroySnapshot", machine, [snapshot])

    def _destroy_tree(self, service, SnapshotSettingData=None):  # noqa: N803
        machine, snapshot = self._machines.snapshot_of(SnapshotSettingData)
        if snapshot is None:
            return _INVALID_PARAMETER
        tree = [snapshot]
        for grown in tree:
            tree += [s for s in machine.snapshots.values() if s.parent == grown.identifier]
        return self._remove("DestroySnapshotTree", machine, reversed(tree))

    def _remove(self, method, machine, snapshots):
        try:
            for snapshot in snapshots:
                remove(machine, snapshot)
        except OSError as fault:
            return self._jobs.failed(method, jobs.JobFailure(str(fault)), machine.system)
        return self._jobs.done(method, machine.system)

    def _apply(self, service, Snapshot=None):  # noqa: N803
        refusal = self._check_apply(service, Snapshot)
        if refusal is not None:
            return refusal
        machine, snapshot = self._machines.snapshot_of(Snapshot)
        try:
            self._go_back(machine, snapshot)
        except jobs.JobFailure as failure:
            return self._jobs.failed("ApplySnapshot", failure, machine.system)
        return self._jobs.done("ApplySnapshot", machine.system)

    def _go_back(self, machine, snapshot):
        """Take a VM back to a snapshot; where that fails, all is as it was."""
        state = _guest_state_of(machine, snapshot)
        # The TPM is what it was then, and the protector is the one that opens it: nothing that
        # the guest put there since is left [assumption snapshots-and-tpms].
        then = copy.deepcopy(snapshot.definition)
        then["last_snapshot"] = snapshot.identifier
        now, kept, old_disks, made = (
            machine.definition(), KeptFiles(machine.files()), _disks_of(machine), [])
        try:
            for path, values in definitions.disks(then):
                values["HostResource"] = [self._differencing_disk(path)]
                made += values["HostResource"]
            machine.replace(then)
            if state is not None:
                machine.guest_state_file.write_bytes(state)
            if snapshot.state == SAVED:
                machine.saved_state_file.touch()
            machine.save()
        except OSError as fault:
            machine.replace(now)
            kept.put_back()
            for path in made:
                pathlib.Path(path).unlink(missing_ok=True)
            raise jobs.JobFailure(str(fault)) from None
        if machine.state != snapshot.state:
            machine.change_state(snapshot.state)
        used = {path for other in machine.snapshots.values() for path in _disks_of(other)}
        for path in old_disks - used:
            pathlib.Path(path).unlink(missing_ok=True)


def _guest_state_of(machine, snapshot):
    """What a snapshot's guest state file holds; None for Generation 1, which has none.

    :raises jobs.JobFailure: it is missing or damaged
    """
    if machine.generation != 2:
        return None
    path = machine.snapshot_files(snapshot)[-1]
    try:
        guest_state.check(path)
        return path.read_bytes()
    except (OSError, guest_state.Damaged):
        raise jobs.JobFailure(NO_GUEST_STATE % snapshot.contents["name"]) from None


def remove(machine, snapshot):
    """Remove a snapshot; what its disks alone hold goes into the disks on them.

    A running VM keeps running.

    :raises OSError: a disk cannot be written
    """
    others = [other for other in machine.snapshots.values() if other is not snapshot]
    users = [machine, *others]
    in_use = {path for user in users for path in _disks_of(user)}
    for path in in_use | _disks_of(snapshot):
        _require(path)
    machine.drop(snapshot)
    for path in _disks_of(snapshot):
        children = [child for child in in_use if disk_files.parent(child) == path]
        if len(children) == 1 and path not in in_use:
            _merge(children[0], path, users, in_use)
        elif not children and path not in in_use:
            pathlib.Path(path).unlink(missing_ok=True)
    for other in machine.snapshots.values():
        if other.parent == snapshot.identifier:
            other.set_parent(snapshot.parent)
    if machine.last_snapshot == snapshot.identifier:
        machine.last_snapshot = snapshot.parent
    machine.save()


def _merge(child, parent, users, in_use):
    """Put the contents of a differencing disk into its parent, which all use instead."""
    vhdutils = VhdUtils()
    vhdutils.merge_vhd(child, delete_merged_image=True)
    for path in in_use - {child}:
        if disk_files.parent(path) == child:
            vhdutils.reconnect_parent_vhd(path, parent)
    for user in users:
        user.change_disk(child, parent)
    in_use.discard(child)
    in_use.add(parent)


def _require(disk):
    """:raises OSError: the disk, or one that it is based on, is not there"""
    for path in disk_files.chain(disk):
        os.stat(path)


def _disks_of(user):
    """The disk files of a machine or snapshot."""
    return {path for path, _ in definitions.disks(user.definition
                                                  if isinstance(user, Snapshot)
                                                  else user.definition())}
