"""Exporting VMs, importing them as planned VMs, making those real.

Source: Microsoft Learn, "ExportSystemDefinition", "ImportSystemDefinition",
"ValidatePlannedSystem", "RealizePlannedSystem" methods of the
Msvm_VirtualSystemManagementService class, "Msvm_VirtualSystemExportSettingData class", "Export and
import virtual machines", "Import-VM". How the files lie in the folder is assumed
[assumption export-layout].
"""
import copy
import os
import pathlib
import shutil

from tests.hyperv import definition as definitions
from tests.hyperv import disk_files, jobs
from tests.hyperv.kept_files import KeptFiles
from tests.hyperv.virtual_machine import REALIZED, new_guid
from tests.hyperv.windows_stand_ins import VhdUtils

# CopySnapshotConfiguration.
ALL_SNAPSHOTS, NO_SNAPSHOTS = 0, 1

# The words of refusals; nothing public lists them [assumption import-refusals].
_FAILED = "Virtual machine '%s': %s"
EXPORT_EXISTS = "The directory '%s' already exists. (0x80070050)"
DAMAGED = "Cannot read the virtual machine configuration '%s': The data is invalid. (0x8007000D)"
EXISTS = "Import failed. A virtual machine with the identifier %s already exists. (0x80070050)"
NOT_SUPPORTED = "Import failed. The configuration version %s is not supported. (0x80070032)"
GUEST_STATE = "The guest state file of the virtual machine is missing. (0x80070002)"
SNAPSHOT = "The snapshot %s was not found. (0x80070002)"
OTHER_GUEST_STATE = "Cannot create '%s': The file exists. (0x80070050)"

_FOLDER = "Virtual Machines"


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
    target = root / _FOLDER / machine.definition_file.name
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

    Its folders are those it is imported from, never those that the definition names: these are of
    the host where it was written [assumption import-roots]. Its disks are where the definition
    says. It keeps the guest states found then: the files it came from are needed no more
    [assumption planned-keeps-guest-state].

    :param management: the host's :class:`VirtualSystemManagement`
    :param path: the definition file
    :param snapshot_folder: where its snapshots' files are, or None
    :param new_identifier: whether it and its snapshots get new identifiers; the key protector
        stays
    :returns: the machine
    :raises jobs.JobFailure: damaged, of a version that this host does not load, or there is a VM
        with its identifier
    """
    definition = _read(path)
    found, states = [], {definition["identifier"]: _bytes(path.with_suffix(".vmgs"))}
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
        raise jobs.JobFailure(NOT_SUPPORTED % version)
    roots = dict.fromkeys(definitions.ROOTS, str(_root(path)))
    for each in [definition, *(contents["definition"] for contents in found)]:
        definitions.place(each, roots)
    machine = management.plan(definition, path, found)
    machine.carried = Carried(states, definition)
    return machine


class Carried:
    """What a planned VM brings that is not in its definition any more.

    :ivar guest_states: {identifier of the VM or of a snapshot: bytes, or None: missing}
    :ivar snapshots: identifiers of the snapshots that its definition names
    :ivar guest_root: its GuestStateDataRoot when it was imported
    """

    def __init__(self, guest_states, definition):
        self.guest_states, self.snapshots = guest_states, definition["snapshots"]
        self.guest_root = definitions.settings(definition)["GuestStateDataRoot"]


def validate(machine):
    """Refuse a planned VM that lacks a file.

    :raises jobs.JobFailure: in its words all that is missing
    """
    problems = disk_files.missing(machine.definition())
    for snapshot in machine.snapshots.values():
        problems += disk_files.missing(snapshot.definition)
    if not machine.is_staged:
        if machine.generation == 2 and machine.carried.guest_states[machine.identifier] is None:
            problems.append(GUEST_STATE)
        problems += [SNAPSHOT % identifier for identifier in machine.carried.snapshots
                     if identifier not in machine.snapshots]
    if problems:
        raise jobs.JobFailure(_FAILED % (machine.name, "\n".join(problems)))


def settle(management, machine):
    """Make a real VM of an imported one: its files lie where its settings say.

    :raises jobs.JobFailure: a file is missing, cannot be written, or is another TPM's; it is still
        planned, and no file has changed
    """
    validate(machine)
    settings = machine.settings
    before = machine.roots["GuestStateDataRoot"], settings["VirtualSystemType"]
    if before[0] == machine.carried.guest_root:
        # Where nobody says where, it goes where the definition goes
        # [assumption guest-state-place].
        settings["GuestStateDataRoot"] = settings["ConfigurationDataRoot"]
    settings["VirtualSystemType"] = REALIZED
    kept = KeptFiles(machine.files())
    try:
        _write_guest_states(machine)
        for snapshot in machine.snapshots.values():
            # Applied, it leaves the VM's files where they are.
            definitions.place(snapshot.definition, machine.roots)
        machine.save()
    except (OSError, jobs.JobFailure) as fault:
        settings["GuestStateDataRoot"], settings["VirtualSystemType"] = before
        kept.put_back()
        raise jobs.JobFailure(_FAILED % (machine.name, fault)) from None
    management.realize(machine)


def _write_guest_states(machine):
    """:raises jobs.JobFailure: there is another one already"""
    states = {machine.guest_state_file: machine.carried.guest_states[machine.identifier]}
    for snapshot in machine.snapshots.values():
        states[machine.snapshot_files(snapshot)[-1]] = (
            machine.carried.guest_states[snapshot.identifier])
    for path, state in states.items():
        if state is not None and _bytes(path) not in (None, state):
            # What a TPM holds is never written over [assumption import-refusals].
            raise jobs.JobFailure(OTHER_GUEST_STATE % path)
    for path, state in states.items():
        _write(path, state)


def _read(path):
    try:
        contents = definitions.read(path)
    except (definitions.Damaged, OSError):
        raise jobs.JobFailure(DAMAGED % path) from None
    if contents["identifier"].upper() != pathlib.Path(path).stem.upper():
        raise jobs.JobFailure(DAMAGED % path)
    return contents


def _root(path):
    """The folder that holds the folders of the files of a VM with this definition file."""
    folder = pathlib.Path(path).parent
    return folder.parent if folder.name.lower() == _FOLDER.lower() else folder


def _bytes(path):
    return path.read_bytes() if path.exists() else None


def _write(path, data):
    if data is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(data)
