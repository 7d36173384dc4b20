"""Msvm_VirtualSystemMigrationService: VMs move to another host, running or not.

Source: Microsoft Learn, "Msvm_VirtualSystemMigrationService class" and its methods,
"Msvm_VirtualSystemMigrationSettingData class", "Msvm_VirtualSystemMigrationServiceSettingData
class"; os-win, ``livemigrationutils.py`` (MigrationType). What a refused move says is recorded
nowhere in full [assumption words-of-migration], but for that of the TPM: user report: GitHub, "Live
Migration of vTPM enabled VM".
"""
import copy
import os
import pathlib
import shutil

from tests.hyperv import cim, disk_files, jobs
from tests.hyperv import definition as definitions
from tests.hyperv.resource_types import HARD_DISK, PHYSICAL_DISK
from tests.hyperv.virtual_machine import OFF, RUNNING, SAVED, encoded
from tests.hyperv.windows_stand_ins import VhdUtils

V2 = "root/virtualization/v2"

VIRTUAL_SYSTEM, STORAGE, STAGED, VIRTUAL_SYSTEM_AND_STORAGE = 32768, 32769, 32770, 32771

# The return values of MigrateVirtualSystemToHost.
_NOT_SUPPORTED, _INVALID_PARAMETER, _INVALID_STATE = 1, 4, 5

_SERVICE = "Msvm_VirtualSystemMigrationService"
_SETTINGS = "Msvm_VirtualSystemMigrationSettingData"
_SERVICE_SETTINGS = "Msvm_VirtualSystemMigrationServiceSettingData"

AT_SOURCE = "Virtual machine migration operation for '%s' failed at migration source '%s'. %s"
AT_DESTINATION = (
    "Virtual machine migration operation for '%s' failed at migration destination '%s'. %s")
TPM_INCOMPATIBLE = (
    "The version of the device 'Microsoft Virtual TPM Device' of the virtual machine '%s' is not "
    "compatible with device on physical computer '%s'. %s")
NO_CONNECTION = (
    "The Virtual Machine Management Service failed to establish a connection for a Virtual "
    "Machine migration with host '%s': %s")
UNKNOWN_HOST = "No such host is known. (0x80072AF9)"
REFUSED = "No connection could be made because the target machine actively refused it. (0x8007274D)"
DISABLED = "Virtual machine migration is not enabled on this computer."
EXISTS = "A virtual machine with the identifier %s already exists. (0x80070050)"
OLDER = "The configuration version %s of the virtual machine is not supported. (0x80070032)"
NO_MEMORY = "Not enough memory resources are available to complete this operation. (0x8007000E)"
NO_PLANNED = "There is no planned virtual machine with the identifier %s. (0x80070490)"
NO_FILE = "Cannot access '%s': The system cannot find the file specified. (0x80070002)"
FILE_EXISTS = "Cannot create '%s': The file exists. (0x80070050)"
NO_DISK = "The physical disk of the virtual machine is not on this computer. (0x80070490)"
BUSY = "The requested resource is in use. (0x800700AA)"


class LiveMigration:
    """The service of one host.

    :param host: its :class:`tests.hyperv.host.Host`
    :param job_factory: :class:`jobs.Jobs`
    :param enabled: EnableVirtualSystemMigration at first
    :param addresses: where it listens
    """

    def __init__(self, host, job_factory, enabled, addresses):
        self._host, self._jobs = host, job_factory
        repository = host.repository
        self._service = repository.add(
            V2, _SERVICE, CreationClassName=_SERVICE, Name="migrationwmi",
            SystemCreationClassName="Msvm_ComputerSystem", SystemName=host.name,
            MigrationServiceListenerIPAddressList=list(addresses),
            ActiveVirtualSystemMigrationCount=0, ActiveStorageMigrationCount=0)
        self._settings = repository.add(
            V2, _SERVICE_SETTINGS, InstanceID="Microsoft:%s\\MigrationService" % host.name,
            EnableVirtualSystemMigration=enabled, MaximumActiveVirtualSystemMigration=2,
            MaximumActiveStorageMigration=2, AuthenticationType=0)
        for kind in (VIRTUAL_SYSTEM, STORAGE, STAGED, VIRTUAL_SYSTEM_AND_STORAGE):
            repository.add(V2, _SETTINGS, InstanceID="Microsoft:Migration\\%d" % kind,
                           MigrationType=kind, TransportType=5)
        repository.provide(V2, "CIM_VirtualSystemMigrationService", {
            "MigrateVirtualSystemToHost": self._migrate})
        repository.provide(V2, _SERVICE, {
            "CheckVirtualSystemIsMigratable": self._check,
            "ModifyServiceSettings": self._modify_service})
        job_factory.check_first("CIM_VirtualSystemMigrationService", {
            "MigrateVirtualSystemToHost": (self._check_migrate, None)})

    @property
    def enabled(self):
        return self._settings["EnableVirtualSystemMigration"]

    @property
    def addresses(self):
        return self._service["MigrationServiceListenerIPAddressList"]

    def _modify_service(self, service, ServiceSettingData=None):  # noqa: N803
        given = self._host.repository.embedded(V2, ServiceSettingData, _SERVICE_SETTINGS)
        self._settings.values.update(
            {name: value for name, value in given.values.items()
             if value is not None and name != "InstanceID"})
        return self._jobs.done("ModifyServiceSettings")

    def _check_migrate(self, service, ComputerSystem=None, DestinationHost=None,  # noqa: N803
                       MigrationSettingData=None, NewSystemSettingData=None,  # noqa: N803
                       NewResourceSettingData=None):  # noqa: N803
        given = self._host.repository.embedded(V2, MigrationSettingData, _SETTINGS)
        machine = self._host.management.machine_of(ComputerSystem)
        if machine.is_planned or not machine.is_settled:
            return _INVALID_STATE
        if given["MigrationType"] not in (
                VIRTUAL_SYSTEM, STAGED, VIRTUAL_SYSTEM_AND_STORAGE) or (
                NewSystemSettingData is not None):
            return _NOT_SUPPORTED  # [assumption moves-not-simulated]
        if not DestinationHost or self._new_disks(machine, NewResourceSettingData) is None:
            return _INVALID_PARAMETER
        return None

    def _migrate(self, service, ComputerSystem=None, DestinationHost=None,  # noqa: N803
                 MigrationSettingData=None, NewSystemSettingData=None,  # noqa: N803
                 NewResourceSettingData=None):  # noqa: N803
        refusal = self._check_migrate(service, ComputerSystem, DestinationHost,
                                      MigrationSettingData, NewSystemSettingData,
                                      NewResourceSettingData)
        if refusal is not None:
            return refusal
        given = self._host.repository.embedded(V2, MigrationSettingData, _SETTINGS)
        machine = self._host.management.machine_of(ComputerSystem)
        kind = given["MigrationType"]
        disks = self._new_disks(machine, NewResourceSettingData)
        try:
            destination = self._connect(machine, DestinationHost,
                                        given["DestinationIPAddressList"])
            if kind == STAGED:
                stage(machine, self._host, destination)
            else:
                move(machine, self._host, destination, kind == VIRTUAL_SYSTEM_AND_STORAGE,
                     planned_id=given["DestinationPlannedVirtualSystemId"], disks=disks,
                     keep_source_disks=bool(given["RetainVhdCopiesOnSource"]
                                            or given["AvoidRemovingVHDs"]))
        except jobs.JobFailure as failure:
            return self._jobs.failed("MigrateVirtualSystemToHost", failure, machine.system)
        return self._jobs.done("MigrateVirtualSystemToHost")

    def _check(self, service, ComputerSystem=None, DestinationHost=None,  # noqa: N803
               MigrationSettingData=None, NewSystemSettingData=None,  # noqa: N803
               NewResourceSettingData=None):  # noqa: N803
        given = self._host.repository.embedded(V2, MigrationSettingData, _SETTINGS)
        machine = self._host.management.machine_of(ComputerSystem)
        if machine.is_planned or not DestinationHost:
            return jobs.INVALID_PARAMETER
        try:
            destination = self._connect(machine, DestinationHost,
                                        given["DestinationIPAddressList"])
            check(machine, self._host, destination, given["DestinationPlannedVirtualSystemId"])
        except jobs.JobFailure as failure:
            return self._jobs.failed("CheckVirtualSystemIsMigratable", failure, machine.system)
        return self._jobs.done("CheckVirtualSystemIsMigratable")

    def _new_disks(self, machine, texts):
        """{InstanceID: path} of the disks that shall lie elsewhere; None: not this VM's."""
        own = {element["InstanceID"]: element for element in machine.elements()}
        disks = {}
        for text in texts or ():
            given = self._host.repository.embedded(V2, text, "CIM_ResourceAllocationSettingData")
            stored = own.get(given["InstanceID"])
            if stored is None:
                return None
            if given["HostResource"] and given["HostResource"] != stored["HostResource"]:
                disks[given["InstanceID"]] = given["HostResource"][0]
        return disks

    def _connect(self, machine, name, addresses):
        def failed(words):
            return jobs.JobFailure(AT_SOURCE % (machine.name, self._host.name, words))

        if not self.enabled:
            raise failed(DISABLED)
        try:
            if self._host.find_host is None:
                raise cim.error("FAILED", name)
            destination = self._host.find_host(name)
        except cim.Error:
            raise failed(NO_CONNECTION % (name, UNKNOWN_HOST)) from None
        listener = destination.live_migration
        if not listener.enabled or not set(addresses or listener.addresses) & set(
                listener.addresses):
            raise failed(NO_CONNECTION % (name, REFUSED))
        return destination


def check(machine, source, destination, planned_id=None):
    """Refuse a move that the destination does not take; nothing is changed.

    The parameters are those of :func:`move`. Whether a TPM can go is not looked at: the
    destination learns it when the key protector arrives.

    :raises jobs.JobFailure: see :func:`move`
    """
    def failed(words):
        return jobs.JobFailure(AT_DESTINATION % (machine.name, destination.name, words))

    machines = {machine.identifier}
    if source.jobs.runs_one_of(machines):
        raise jobs.JobFailure(AT_SOURCE % (machine.name, source.name, BUSY))
    if destination.jobs.runs_one_of(machines):
        raise failed(BUSY)
    there = destination.management.machines.get(machine.identifier)
    if planned_id:
        planned = destination.management.machines.get(planned_id)
        if planned is None or not planned.is_planned or planned_id != machine.identifier:
            raise failed(NO_PLANNED % planned_id)
    elif there is not None:
        raise failed(EXISTS % machine.identifier)
    if not destination.management.supports(machine.settings["Version"]):
        raise failed(OLDER % machine.settings["Version"])
    if not machine.is_off and machine.memory_mb > destination.free_memory_mb():
        raise failed(NO_MEMORY)


def stage(machine, source, destination):
    """Make a planned VM at the destination, whose disks the caller may change before the move.

    :raises jobs.JobFailure: see :func:`move`
    """
    check(machine, source, destination)
    planned = destination.management.plan(machine.definition(), machine.definition_file)
    planned.is_staged = True


def move(machine, source, destination, with_storage=False, planned_id=None, disks=None,
         keep_source_disks=False):
    """Move a VM, running or not, to another host; where it fails, all is as it was.

    A running TPM goes with what it holds: the destination unwraps the key protector with its own
    HGS client and seals the guest state under a new transport key. A VM that is off or saved
    brings its guest state file, and only its next start unwraps the protector
    [assumption cold-moves-keep-protectors].

    :param machine: a :class:`tests.hyperv.virtual_machine.VirtualMachine` of the source
    :param source: its :class:`tests.hyperv.host.Host`
    :param destination: another one
    :param with_storage: its files move to the same-named place at the destination; else they
        stay, and the destination must reach them where they are [assumption storage-that-moves]
    :param planned_id: of the planned VM at the destination that :func:`stage` made
    :param disks: {InstanceID: path} of virtual hard disks that shall lie elsewhere there
    :param keep_source_disks: with storage: the virtual hard disks are copied, not moved
    :returns: the machine at the destination
    :raises jobs.JobFailure: in Windows' words; the VM goes on at the source, and nothing is left
        at the destination
    """
    check(machine, source, destination, planned_id)
    return _Move(machine, source, destination, with_storage, disks or {},
                 keep_source_disks).run(planned_id)


def take_over(machine, source, destination):
    """Give a VM of a host that died to another one, which reaches its files.

    It is off there, or still saved. What a failover cluster does. The TPM keeps what it had; the
    next start unwraps the protector.

    :returns: the machine at the destination
    :raises jobs.JobFailure: the destination cannot have it; nothing is changed
    """
    found = {"state": machine.state, "tpm": machine.tpm, "started_at": machine.started_at}
    if machine.state != SAVED:
        machine.system["EnabledState"], machine.tpm, machine.started_at = OFF, None, None
    try:
        moved = move(machine, source, destination)
    except jobs.JobFailure:
        machine.system["EnabledState"] = found["state"]
        machine.tpm, machine.started_at = found["tpm"], found["started_at"]
        raise
    return moved


class _Move:
    """One move; the parameters are those of :func:`move`."""

    def __init__(self, machine, source, destination, with_storage, disks, keep_source_disks):
        self._machine, self._source, self._destination = machine, source, destination
        self._with_storage, self._disks = with_storage, disks
        self._keep_source_disks = keep_source_disks
        self._definition = machine.definition()
        self._snapshots = copy.deepcopy([s.contents for s in machine.snapshots.values()])
        self._files = {}  # {path at the source: path at the destination}, what must be copied
        self._made = []  # files and folders that this move made at the destination

    def run(self, planned_id):
        planned = planned_id and self._destination.management.machines[planned_id]
        self._place_definition()
        self._place_disks(planned)
        self._check_parents()
        tpm = self._receive_tpm()
        try:
            self._copy_files()
            moved = self._arrive(planned, tpm)
        except OSError as fault:
            self._undo()
            raise self._failed(str(fault)) from None
        self._leave()
        return moved

    def _failed(self, words):
        return jobs.JobFailure(AT_DESTINATION % (
            self._machine.name, self._destination.name, words))

    def _there(self, path):
        """What a path of the source is called at the destination."""
        return self._source.path_on(path, self._destination)

    # What will be where.

    def _place_definition(self):
        for definition in self._definitions():
            settings = definitions.settings(definition)
            for name in definitions.ROOTS:
                if settings.get(name):
                    settings[name] = self._there(settings[name])
        for path in self._machine.files():
            self._place(path, self._there(path))

    def _definitions(self):
        return [self._definition] + [contents["definition"] for contents in self._snapshots]

    def _place(self, path, there):
        """A file that goes with the VM; without its storage it must be in reach already."""
        if not os.path.exists(path):
            raise self._failed(NO_FILE % path)
        if there == str(path):
            return
        if not self._with_storage:
            raise self._failed(NO_FILE % there)
        if os.path.exists(there):
            raise self._failed(FILE_EXISTS % there)
        self._files[str(path)] = there

    def _place_disks(self, planned):
        for definition in self._definitions():
            for path, values in definitions.all_disks(definition):
                there = self._disks.get(values["InstanceID"]) or self._there(path)
                values["HostResource"] = [there]
                if values["ResourceSubType"] == HARD_DISK and self._with_storage:
                    self._place(path, there)
                elif not os.path.exists(there):
                    # Storage that moves is that of virtual hard disks: a DVD's file does not.
                    raise self._failed(NO_FILE % there)
        for _, values in definitions.disks(self._definition, (PHYSICAL_DISK,)):
            if planned:
                found = [i["HostResource"] for i in planned.elements()
                         if i["InstanceID"] == values["InstanceID"]]
                if not found:
                    raise self._failed(NO_DISK)
                values["HostResource"] = list(found[0] or ())

    def _check_parents(self):
        """A disk's parent that is none of this VM's files must be in reach: an image of many."""
        for path in self._files:
            parent = disk_files.parent(path)
            if parent and parent not in self._files and not os.path.exists(self._there(parent)):
                raise self._failed(NO_FILE % self._there(parent))

    # Doing it, in an order that can be undone.

    def _receive_tpm(self):
        machine, there = self._machine, self._destination
        if machine.tpm is None:
            return None
        settings = definitions.settings(self._definition)
        path = os.path.join(settings.get("GuestStateDataRoot") or
                            settings["ConfigurationDataRoot"], settings["GuestStateFile"])
        try:
            protector, tpm = there.power.receive_tpm(
                machine.name, machine.key_protector, machine.tpm, path)
        except jobs.JobFailure as failure:
            raise self._failed(TPM_INCOMPATIBLE % (
                machine.name, there.name, failure.description)) from None
        self._definition["key_protector"] = encoded(protector)
        self._definition["last_known_good"] = encoded(protector)
        return tpm

    def _copy_files(self):
        for path, there in self._files.items():
            self._make_folder(pathlib.Path(there).parent)
            self._made.append(pathlib.Path(there))
            shutil.copy(path, there)
        for path, there in self._files.items():
            parent = disk_files.parent(path)
            if parent:
                VhdUtils().reconnect_parent_vhd(there, self._files.get(parent)
                                                or self._there(parent))

    def _make_folder(self, folder):
        if not folder.exists():
            self._make_folder(folder.parent)
            folder.mkdir()
            self._made.append(folder)


    def _arrive(self, planned, tpm):
        management, machine = self._destination.management, self._machine
        kept = planned and planned.definition()
        if planned:
            management.forget(planned)
        moved = management.plan(self._definition, machine.definition_file, self._snapshots)
        try:
            management.realize(moved, machine.state)
            moved.started_at, moved.tpm = machine.started_at, tpm
            if tpm:
                tpm.seal()
            moved.save()
        except OSError:
            management.forget(moved)
            if planned:
                management.plan(kept, machine.definition_file).is_staged = True
            raise
        self._destination.power.show_guest(moved, moved.state == RUNNING)
        return moved

    def _undo(self):
        for path in reversed(self._made):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        if self._machine.tpm:
            self._machine.tpm.seal()
        self._machine.save()

    def _leave(self):
        for path in self._files:
            if not (self._keep_source_disks and disk_files.is_disk(path)):
                pathlib.Path(path).unlink()
        self._source.power.show_guest(self._machine, False)
        self._source.management.forget(self._machine)
