"""Exporting VMs, importing them as planned VMs, making those real.

Source: Microsoft Learn, "ExportSystemDefinition", "ImportSystemDefinition",
"ValidatePlannedSystem", "RealizePlannedSystem" methods of the
Msvm_VirtualSystemManagementService class, "Msvm_VirtualSystemExportSettingData class", "Export and
import virtual machines". How the files lie in the folder is assumed [assumption export-layout].
"""
import copy
import os
import pathlib
import shutil

from tests.hyperv import definition as definitions
from tests.hyperv import disk_files, jobs
from tests.hyperv.virtual_machine import new_guid
from tests.hyperv.windows_stand_ins import VhdUtils

# CopySnapshotConfiguration.
ALL_SNAPSHOTS, NO_SNAPSHOTS = 0, 1

# The words of refusals; nothing public lists them [assumption import-refusals].
_FAILED = "Virtual machine '%s': %s"
EXPORT_EXISTS = "The directory '%s' already exists. (0x80070050)"
DAMAGED = "Cannot read the virtual machine configuration '%s': The data is invalid. (0x8007000D)"
EXISTS = "Import failed. A virtual machine with the identifier %s already exists. (0x80070050)"
NEWER = "Import failed. The configuration version %s is not supported. (0x80070032)"
ATTACHMENT = (
    "Attachment '%s' not found. Error: 'The system cannot find the file specified.' (0x80070002)")
GUEST_STATE = "The guest state file of the virtual machine is missing. (0x80070002)"
SNAPSHOT = "The snapshot %s was not found. (0x80070002)"


def export(machine, directory, wanted):
    """Write a VM's files below a folder.

    :param machine: a :class:`tests.hyperv.virtual_machine.VirtualMachine`; it may run
    :param directory: the folder
    :param wanted: properties of Msvm_VirtualSystemExportSettingData
    :raises jobs.JobFailure: there is such an export already, or a file cannot be written
    """
    root = pathlib.Path(directory)
    if wanted.get("CreateVmExportSubdirectory"):
        root = root / machine.name
    target = root / "Virtual Machines" / machine.definition_file.name
    if target.exists():
        raise jobs.JobFailure(_FAILED % (machine.name, EXPORT_EXISTS % root))
    export_of = _Export(machine, root, wanted)
    try:
        export_of.run(target)
    except OSError as fault:
        export_of.undo()
        raise jobs.JobFailure(_FAILED % (machine.name, fault)) from None


class _Export:
    """One export; parameters: see :func:`export`."""

    def __init__(self, machine, root, wanted):
        self._machine, self._root, self._wanted = machine, root, wanted
        self._made = []

    def run(self, target):
        machine = self._machine
        definition = copy.deepcopy(machine.definition())
        snapshots = copy.deepcopy([s.contents for s in machine.snapshots.values()])
        if self._wanted.get("CopySnapshotConfiguration") == NO_SNAPSHOTS:
            snapshots, definition["snapshots"], definition["last_snapshot"] = [], [], None
        if self._wanted.get("CopyVmStorage"):
            self._copy_disks([definition] + [s["definition"] for s in snapshots])
        self._copy_files(definition, target, machine.files()[1:3])
        for contents in snapshots:
            files = machine.snapshot_files(machine.snapshots[contents["identifier"]])
            self._copy_files(contents, self._root / "Snapshots" / files[0].name, files[1:])

    def undo(self):
        for path in self._made:
            path.unlink(missing_ok=True)

    def _copy_files(self, definition, target, others):
        self._made.append(target)
        definitions.write(target, definition)
        for path in others:
            if path.suffix != ".VMRS" or self._wanted.get("CopyVmRuntimeInformation") is not False:
                self._copy(path, target.parent / path.name)

    def _copy(self, path, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        self._made.append(target)
        shutil.copy(path, target)

    def _copy_disks(self, all_definitions):
        """Copy the disks with all that they are based on, and let the definitions name the copies.
        """
        copies = {}
        for definition in all_definitions:
            for path, values in definitions.disks(definition):
                for link in disk_files.chain(path):
                    if link not in copies:
                        copies[link] = self._root / "Virtual Hard Disks" / os.path.basename(link)
                        self._copy(link, copies[link])
                values["HostResource"] = [str(copies[path])]
        for path, there in copies.items():
            parent = disk_files.parent(path)
            if parent:
                VhdUtils().reconnect_parent_vhd(str(there), str(copies[parent]))


def import_(management, path, snapshot_folder, new_identifier):
    """Make a planned VM of an export.

    It keeps the guest states found then: the files it came from are needed no more
    [assumption planned-keeps-guest-state].

    :param management: the host's :class:`VirtualSystemManagement`
    :param path: the definition file
    :param snapshot_folder: where its snapshots' files are, or None
    :param new_identifier: whether it and its snapshots get new identifiers; the key protector
        stays
    :returns: the machine
    :raises jobs.JobFailure: damaged, too new, or there is a VM with its identifier
    """
    definition = _read(path)
    found, states = [], {definition["identifier"]: _bytes(_guest_state(path, definition))}
    folder = pathlib.Path(snapshot_folder or "")
    for identifier in definition["snapshots"]:
        file = folder / (identifier + ".vmcx")
        if snapshot_folder and file.exists():
            found.append(_read(file))
            states[identifier] = _bytes(file.with_suffix(".vmgs"))
    if new_identifier:
        fresh = {identifier: new_guid()
                 for identifier in [definition["identifier"], *definition["snapshots"]]}
        definition = definitions.replaced(definition, fresh)
        found = [definitions.replaced(contents, fresh) for contents in found]
        states = {fresh[identifier]: state for identifier, state in states.items()}
    if definition["identifier"] in management.machines:
        raise jobs.JobFailure(EXISTS % definition["identifier"])
    version = definitions.settings(definition)["Version"]
    if not management.supports(version):
        raise jobs.JobFailure(NEWER % version)
    machine = management.plan(definition, path, found)
    machine.carried = Carried(states, definition, not _beside(path).exists())
    return machine


class Carried:
    """What a planned VM brings that is not in its definition any more.

    :ivar guest_states: {identifier of the VM or of a snapshot: bytes, or None: missing}
    :ivar snapshots: identifiers of the snapshots that its definition names
    :ivar guest_root: its GuestStateDataRoot when it was imported
    :ivar in_place: whether the guest state lay there and not beside the definition
    """

    def __init__(self, guest_states, definition, in_place):
        self.guest_states, self.snapshots = guest_states, definition["snapshots"]
        self.guest_root = definitions.settings(definition).get("GuestStateDataRoot")
        self.in_place = in_place


def validate(machine):
    """Refuse a planned VM that lacks a file.

    :raises jobs.JobFailure: in its words all that is missing
    """
    problems = [ATTACHMENT % link
                for path, values in definitions.all_disks(machine.definition())
                for link in disk_files.chain(path) if not os.path.exists(link)]
    if not machine.is_staged:
        if machine.generation == 2 and machine.carried.guest_states[machine.identifier] is None:
            problems.append(GUEST_STATE)
        problems += [SNAPSHOT % identifier for identifier in machine.carried.snapshots
                     if identifier not in machine.snapshots]
    if problems:
        raise jobs.JobFailure(_FAILED % (machine.name, "\n".join(problems)))


def settle(management, machine):
    """Make a real VM of an imported one: its files lie where its definition says.

    :raises jobs.JobFailure: a file is missing or cannot be written; it is still planned, and no
        file is left
    """
    validate(machine)
    settings = machine.settings
    if settings["GuestStateDataRoot"] == machine.carried.guest_root and (
            not machine.carried.in_place):
        # Where nobody says where, it goes where the definition goes
        # [assumption guest-state-place].
        settings["GuestStateDataRoot"] = settings["ConfigurationDataRoot"]
    made = [path for path in machine.files() if not path.exists()]
    try:
        _write(machine.guest_state_file, machine.carried.guest_states[machine.identifier])
        for snapshot in machine.snapshots.values():
            _write(machine.snapshot_files(snapshot)[-1],
                   machine.carried.guest_states[snapshot.identifier])
        machine.save()
    except OSError as fault:
        for path in made:
            path.unlink(missing_ok=True)
        raise jobs.JobFailure(_FAILED % (machine.name, fault)) from None
    management.realize(machine)
    machine.save()


def _read(path):
    try:
        contents = definitions.read(path)
    except (definitions.Damaged, OSError):
        raise jobs.JobFailure(DAMAGED % path) from None
    if contents["identifier"].upper() != pathlib.Path(path).stem.upper():
        raise jobs.JobFailure(DAMAGED % path)
    return contents


def _beside(path):
    return pathlib.Path(path).with_suffix(".vmgs")


def _guest_state(path, definition):
    """The guest state file of a definition file: beside it, else where the definition says."""
    settings = definitions.settings(definition)
    if _beside(path).exists() or not settings.get("GuestStateFile"):
        return _beside(path)
    return pathlib.Path(settings.get("GuestStateDataRoot") or settings["ConfigurationDataRoot"],
                        settings["GuestStateFile"])


def _bytes(path):
    return path.read_bytes() if path.exists() else None


def _write(path, data):
    if data is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(data)
