"""Msvm_VirtualSystemManagementService: defining, changing, importing, destroying VMs.

Source: Microsoft Learn, "Msvm_VirtualSystemManagementService class" and its methods.
"""
import os
import pathlib

from tests.hyperv import cim, export_and_import, firmware, guest_state, jobs, snapshots
from tests.hyperv.definition import ROOTS
from tests.hyperv.resource_types import (
    DISK_DRIVE,
    DVD_DISK,
    DVD_DRIVE,
    ETHERNET_PORT,
    HARD_DISK,
    IDE_CONTROLLER,
    PHYSICAL_DISK,
    SCSI_CONTROLLER,
    SERIAL_PORT,
)
from tests.hyperv.virtual_machine import (
    OFF,
    PLANNED,
    REALIZED,
    SAVED,
    Snapshot,
    VirtualMachine,
    new_guid,
)

V2 = "root/virtualization/v2"

_FIXED_ROOTS = ("ConfigurationDataRoot", "GuestStateDataRoot")

# What ModifySystemSettings does not change [assumption settings-that-stay].
_FIXED = ("Version", "VirtualSystemSubType", "VirtualSystemType", "VirtualSystemIdentifier",
          "ConfigurationID", "GuestStateFile")

_NOT_SUPPORTED, _FILE_IN_USE = 32770, 32779

_SYSTEM_SERVICE = "Msvm_VirtualSystemManagementService"
# The configuration versions of releases of Windows, and of each (since, newest, oldest). Source:
# Microsoft Learn, "Upgrade virtual machine version in Hyper-V", supported versions.
_VERSIONS = ("4.0", "5.0", "6.2", "7.0", "7.1", "8.0", "8.1", "8.2", "8.3", "9.0", "9.1", "9.2",
             "9.3", "10.0", "11.0", "12.0")
_RELEASES = (
    ((10, 0, 26100), "12.0", "8.0"), ((10, 0, 20348), "10.0", "8.0"),
    ((10, 0, 17763), "9.0", "5.0"), ((10, 0, 14393), "8.0", "5.0"), ((6, 3), "5.0", "5.0"),
    ((6, 2), "4.0", "4.0"))


class VirtualSystemManagement:
    """The service and the machines it manages.

    :param repository: that of the host
    :param job_factory: :class:`jobs.Jobs`
    :param hardware: the host's :class:`tests.hyperv.hardware.Hardware`
    :param windows_version: a tuple; decides the configuration version of new VMs
    """

    def __init__(self, repository, job_factory, hardware, windows_version):
        self._repository, self._jobs = repository, job_factory
        self._hardware, self._windows_version = hardware, windows_version
        self.machines = {}
        self.on_forget = []  # called with the identifier of each machine that leaves the host
        repository.add(V2, _SYSTEM_SERVICE, CreationClassName=_SYSTEM_SERVICE, Name="vmms",
                       SystemCreationClassName="Msvm_ComputerSystem",
                       SystemName=repository.computer_name)
        for name, methods in (
                (_SYSTEM_SERVICE, {
                    "ImportSystemDefinition": self._import,
                    "ValidatePlannedSystem": self._validate, "RealizePlannedSystem": self._realize,
                    "ExportSystemDefinition": self._export,
                    "GetSummaryInformation": self._summaries}),
                ("CIM_VirtualSystemManagementService", {
                    "DefineSystem": self._define, "DestroySystem": self._destroy,
                    "AddResourceSettings": self._add_resources,
                    "ModifyResourceSettings": self._modify_resources,
                    "RemoveResourceSettings": self._remove_resources,
                    "ModifySystemSettings": self._modify_system})):
            repository.provide(V2, name, methods)
        job_factory.check_first("CIM_VirtualSystemManagementService", {
            "DestroySystem": (self._check_destroy, None),
            "AddResourceSettings": (self._check_add, None),
            "ModifyResourceSettings": (self._check_modify, None),
            "RemoveResourceSettings": (self._check_remove, None),
            "ModifySystemSettings": (self._check_modify_system, None)})
        self._add_templates()

    @property
    def newest_version(self):
        """The newest configuration version this host can load, such as ``9.0``."""
        return self._supported[-1]

    @property
    def _supported(self):
        newest, oldest = next((newest, oldest) for since, newest, oldest in _RELEASES
                              if self._windows_version >= since)
        return _VERSIONS[_VERSIONS.index(oldest):_VERSIONS.index(newest) + 1]

    def supports(self, version):
        """Whether the host can load a VM with this configuration version."""
        return version in self._supported

    def machine_named(self, name):
        """The machine with this ElementName.

        :raises KeyError: there is none
        """
        for machine in self.machines.values():
            if machine.name == name:
                return machine
        raise KeyError(name)

    def machine_of(self, instance):
        """The machine to which a computer system or setting data belongs.

        :raises cim.Error: NOT_FOUND
        """
        stored = self._repository.stored(instance)
        identifier = (stored["Name"] if "CIM_ComputerSystem" in stored.cls.lineage
                      else stored["InstanceID"].split(":", 1)[1].split("\\")[0])
        if identifier not in self.machines:
            raise cim.error("NOT_FOUND", "No virtual machine has the id " + identifier)
        return self.machines[identifier]

    def _add_templates(self):
        """The templates of new resources, whose InstanceID ends in ``\\Default``."""
        for sub_type in (SCSI_CONTROLLER, IDE_CONTROLLER, DISK_DRIVE, DVD_DRIVE, PHYSICAL_DISK):
            self._add_template("Msvm_ResourceAllocationSettingData", sub_type)
        for sub_type in (HARD_DISK, DVD_DISK):
            self._add_template("Msvm_StorageAllocationSettingData", sub_type)
        self._add_template("Msvm_SyntheticEthernetPortSettingData", ETHERNET_PORT)
        for name, identifier in firmware.SECURE_BOOT_TEMPLATES.items():
            self._repository.add(
                V2, "Msvm_VirtualSystemSettingData", ElementName=name,
                InstanceID="Microsoft:Definition\\SecureBoot\\" + identifier,
                VirtualSystemType="Microsoft:Hyper-V:SecureBootTemplate",
                SecureBootTemplateId=identifier)

    def _add_template(self, class_name, sub_type):
        self._repository.add(V2, class_name, ResourceSubType=sub_type, HostResource=[],
                             InstanceID="Microsoft:Definition\\%s\\Default" % new_guid())

    # DefineSystem and what belongs to a new machine.

    def _define(self, service, ResourceSettings=None, ReferenceConfiguration=None,  # noqa: N803
                SystemSettings=None):  # noqa: N803
        given = self._repository.embedded(V2, SystemSettings, "Msvm_VirtualSystemSettingData")
        if ReferenceConfiguration is not None or ResourceSettings:
            return jobs.INVALID_PARAMETER  # neither is simulated
        if not given["ConfigurationDataRoot"] or not all(
                os.path.isabs(given[root]) for root in ROOTS if given[root]):
            return jobs.INVALID_PARAMETER
        if given["Version"] is None:
            given["Version"] = self.newest_version
        elif not self.supports(given["Version"]):
            return jobs.INVALID_PARAMETER  # [assumption version-of-a-new-vm]
        identifier = new_guid()
        machine = VirtualMachine(self._repository, identifier)
        self._complete_settings(given, identifier)
        self._repository.store(given)
        system = self._repository.add(
            V2, "Msvm_ComputerSystem", Name=identifier, ElementName=given["ElementName"],
            CreationClassName="Msvm_ComputerSystem", EnabledState=OFF, HealthState=5,
            Caption="Virtual Machine", OperationalStatus=[2])
        self._add_devices(identifier, machine.generation)
        machine.offer_export()
        self.machines[identifier] = machine
        try:
            if machine.generation == 2:
                guest_state.create(machine.guest_state_file)
            machine.save()
        except OSError as fault:
            self.forget(machine)
            return self._jobs.failed("DefineSystem", jobs.JobFailure(str(fault)))
        return self._jobs.done("DefineSystem", ResultingSystem=system.reference())

    def _complete_settings(self, given, identifier):
        root = given["ConfigurationDataRoot"]
        for name, value in (
                ("InstanceID", "Microsoft:" + identifier), ("VirtualSystemType", REALIZED),
                ("VirtualSystemIdentifier", identifier), ("ConfigurationID", identifier),
                ("BootSourceOrder", [])):
            given[name] = value
        if not given["VirtualSystemSubType"]:
            given["VirtualSystemSubType"] = "Microsoft:Hyper-V:SubType:1"
        # Where guest state lies when nobody says so [assumption guest-state-place].
        if given["GuestStateDataRoot"] is None:
            given["GuestStateDataRoot"] = root
        given["GuestStateFile"] = os.path.join("Virtual Machines", identifier + ".vmgs")

    def _add_devices(self, identifier, generation):
        prefix = "Microsoft:%s\\" % identifier
        add = self._repository.add
        add(V2, "Msvm_MemorySettingData", InstanceID=prefix + new_guid(), VirtualQuantity=1024,
            Reservation=1024, Limit=1048576, DynamicMemoryEnabled=False)
        add(V2, "Msvm_ProcessorSettingData", InstanceID=prefix + new_guid() + "\\0",
            VirtualQuantity=1, Reservation=0, Limit=100000, Weight=100)
        serial_class = ("Msvm_SerialPortSettingData" if self._windows_version >= (10, 0)
                        else "Msvm_ResourceAllocationSettingData")
        for number in (0, 1):
            add(V2, serial_class, ResourceSubType=SERIAL_PORT, Connection=[""],
                ElementName="COM %d" % (number + 1),
                InstanceID="%s%s\\%d" % (prefix, new_guid(), number))
        if generation == 1:
            for number in (0, 1):
                add(V2, "Msvm_ResourceAllocationSettingData", ResourceSubType=IDE_CONTROLLER,
                    Address=str(number), InstanceID="%s%s\\%d" % (prefix, new_guid(), number))
        self._add_security_settings(identifier, generation)

    def _add_security_settings(self, identifier, generation):
        # Generation 1 has none here [assumption security-generation-2].
        if generation == 2 and self._windows_version >= (10, 0):
            self._repository.add(
                V2, "Msvm_SecuritySettingData", TpmEnabled=False, KsdEnabled=False,
                InstanceID="Microsoft:%s\\%s" % (identifier, new_guid()),
                ShieldingRequested=False, DataProtectionRequested=False,
                EncryptStateAndVmMigrationTraffic=False,
                VirtualizationBasedSecurityOptOut=False, BindToHostTpm=False)

    def _check_destroy(self, service, AffectedSystem=None):  # noqa: N803
        machine = self.machine_of(AffectedSystem)
        return None if machine.state in (OFF, SAVED) else jobs.INVALID_STATE

    def _destroy(self, service, AffectedSystem=None):  # noqa: N803
        refusal = self._check_destroy(service, AffectedSystem)
        if refusal is not None:
            return refusal
        machine = self.machine_of(AffectedSystem)
        if not machine.is_planned:
            # The disks stay: what the differencing ones hold goes into those under them.
            try:
                for snapshot in list(machine.snapshots.values()):
                    snapshots.remove(machine, snapshot)
            except OSError as fault:
                return self._jobs.failed("DestroySystem", jobs.JobFailure(str(fault)),
                                         machine.system)
            machine.remove_files()
        self.forget(machine)
        return self._jobs.done("DestroySystem")

    # Changing a machine.

    def _check_modify_system(self, service, SystemSettings=None):  # noqa: N803
        given = self._repository.embedded(V2, SystemSettings, "Msvm_VirtualSystemSettingData")
        machine, snapshot = self.snapshot_of(given)
        if snapshot is not None:
            return None
        machine = self.machine_of(given)
        stored = machine.settings

        def changes(names):
            return any(given[name] and given[name] != stored[name] for name in names)

        if changes(_FIXED):
            return jobs.INVALID_PARAMETER
        if not machine.is_planned and (
                changes(_FIXED_ROOTS) or machine.snapshots and changes(("SnapshotDataRoot",))):
            # The files of a VM are moved by a migration only [assumption roots-stay].
            return jobs.INVALID_PARAMETER
        return firmware.check(machine, given)

    def _modify_system(self, service, SystemSettings=None):  # noqa: N803
        refusal = self._check_modify_system(service, SystemSettings)
        if refusal is not None:
            return refusal
        given = self._repository.embedded(V2, SystemSettings, "Msvm_VirtualSystemSettingData")
        machine, snapshot = self.snapshot_of(given)
        if snapshot is not None:
            return self._rename_snapshot(machine, snapshot, given["ElementName"])
        machine = self.machine_of(given)
        stored = machine.settings
        _update(stored, given)
        firmware.complete(stored)
        machine.system["ElementName"] = stored["ElementName"]
        self._saved(machine)
        return self._jobs.done("ModifySystemSettings")

    def _rename_snapshot(self, machine, snapshot, name):
        snapshot.rename(name)
        self._saved(machine)
        return self._jobs.done("ModifySystemSettings")

    def _check_add(self, service, AffectedConfiguration=None,  # noqa: N803
                   ResourceSettings=None):  # noqa: N803
        machine = self.machine_of(AffectedConfiguration)
        return self._hardware.check_resources(machine, [
            (None, resource) for resource in self._new_resources(machine, ResourceSettings)])

    def _add_resources(self, service, AffectedConfiguration=None,  # noqa: N803
                       ResourceSettings=None):  # noqa: N803
        refusal = self._check_add(service, AffectedConfiguration, ResourceSettings)
        if refusal is not None:
            return refusal
        machine = self.machine_of(AffectedConfiguration)
        added = self._new_resources(machine, ResourceSettings)
        for resource in added:
            self._repository.store(resource)
            if resource["ResourceSubType"] in (DISK_DRIVE, DVD_DRIVE, PHYSICAL_DISK):
                self._add_boot_source(machine, resource)
        self._saved(machine)
        return self._jobs.done("AddResourceSettings",
                               ResultingResourceSettings=[i.reference() for i in added])

    def _add_boot_source(self, machine, drive):
        source = self._repository.add(
            V2, "Msvm_BootSourceSettingData", BootSourceType=1,
            InstanceID="Microsoft:%s\\%s" % (machine.identifier, new_guid()))
        self._repository.add(V2, "Msvm_LogicalIdentity", SystemElement=drive.reference(),
                             SameElement=source.reference())

    def _new_resources(self, machine, texts):
        resources = [self._resource(text) for text in texts or ()]
        for resource in resources:
            resource["InstanceID"] = "Microsoft:%s\\%s" % (machine.identifier, new_guid())
        return resources

    def _check_modify(self, service, ResourceSettings=None):  # noqa: N803
        changes = {}
        for text in ResourceSettings or ():
            given = self._resource(text)
            stored = self._repository.stored(given)
            machine = self.machine_of(stored)
            if stored["ResourceSubType"] == SERIAL_PORT:
                refusal = firmware.check_serial_port(machine, given)
                if refusal is not None:
                    return refusal
            wanted = stored.clone()
            _update(wanted, given)
            changes.setdefault(machine, []).append((stored, wanted))
        return _first(self._hardware.check_resources(machine, its)
                      for machine, its in changes.items())

    def _modify_resources(self, service, ResourceSettings=None):  # noqa: N803
        refusal = self._check_modify(service, ResourceSettings)
        if refusal is not None:
            return refusal
        changed = []
        for text in ResourceSettings or ():
            given = self._resource(text)
            stored = self._repository.stored(given)
            _update(stored, given)
            changed.append(stored.reference())
            self._saved(self.machine_of(stored))
        return self._jobs.done("ModifyResourceSettings", ResultingResourceSettings=changed)

    def _check_remove(self, service, ResourceSettings=None):  # noqa: N803
        for given in ResourceSettings or ():
            stored, machine = self._repository.stored(given), self.machine_of(given)
            if machine.is_planned and stored["ResourceSubType"] == HARD_DISK:
                return jobs.INVALID_STATE  # [assumption planned-keeps-disks]
            refusal = self._hardware.check_removal(machine, stored)
            if refusal is not None:
                return refusal
        return None

    def _remove_resources(self, service, ResourceSettings=None):  # noqa: N803
        refusal = self._check_remove(service, ResourceSettings)
        if refusal is not None:
            return refusal
        for given in ResourceSettings or ():
            stored = self._repository.stored(given)
            machine = self.machine_of(stored)
            for identity in machine.boot_identities():
                if identity["SystemElement"]["InstanceID"] == stored["InstanceID"]:
                    self._repository.remove(self._repository.stored(identity["SameElement"]))
                    self._repository.remove(identity)
            self._repository.remove(stored)
            self._saved(machine)
        return self._jobs.done("RemoveResourceSettings")

    def _resource(self, text):
        return self._repository.embedded(V2, text, "CIM_ResourceAllocationSettingData")

    def _saved(self, machine):
        if machine.imported_from is None:
            machine.save()

    # Export and import: tests/hyperv/export_and_import.py.

    def plan(self, definition, imported_from, kept_snapshots=()):
        """Make a planned machine.

        :param definition: see :mod:`tests.hyperv.definition`
        :param imported_from: the definition file it comes from
        :param kept_snapshots: the contents of its snapshots' files
        """
        machine = VirtualMachine(self._repository, definition["identifier"])
        machine.load(definition, PLANNED)
        if machine.security_settings is None:
            # It was made on a host that knew none.
            self._add_security_settings(machine.identifier, machine.generation)
        machine.imported_from = imported_from
        self._repository.add(
            V2, "Msvm_PlannedComputerSystem", Name=machine.identifier, EnabledState=OFF,
            CreationClassName="Msvm_PlannedComputerSystem", ElementName=machine.name)
        self.machines[machine.identifier] = machine
        for contents in kept_snapshots:
            machine.snapshots[contents["identifier"]] = Snapshot(self._repository, contents)
        for snapshot in machine.snapshots.values():
            snapshot.show()
        return machine

    def realize(self, machine, state=OFF):
        """Make a machine of a planned one; its files stay where they are.

        :param state: the EnabledState it has from the start
        """
        for snapshot in machine.snapshots.values():
            snapshot.hide()
        planned = machine.system
        self._repository.remove(planned)
        self._repository.add(
            V2, "Msvm_ComputerSystem", Name=machine.identifier, EnabledState=state,
            ElementName=planned["ElementName"], CreationClassName="Msvm_ComputerSystem",
            Caption="Virtual Machine", HealthState=5, OperationalStatus=[2])
        machine.settings["VirtualSystemType"] = REALIZED
        machine.imported_from = None
        for snapshot in machine.snapshots.values():
            snapshot.show()

    def forget(self, machine):
        """Know a machine no more; its files stay."""
        machine.forget()
        del self.machines[machine.identifier]
        for tell in self.on_forget:
            tell(machine.identifier)

    def snapshot_of(self, settings):
        """(machine, snapshot) of a snapshot's setting data; (None, None) for others."""
        identifier = self._repository.stored(settings)["InstanceID"].partition(":")[2]
        for machine in self.machines.values():
            if identifier in machine.snapshots:
                return machine, machine.snapshots[identifier]
        return None, None

    def _export(self, service, ComputerSystem=None, ExportDirectory=None,  # noqa: N803
                ExportSettingData=None):  # noqa: N803
        machine = self.machine_of(ComputerSystem)
        given = ExportSettingData and self._repository.embedded(
            V2, ExportSettingData, "Msvm_VirtualSystemExportSettingData")
        if not os.path.isabs(ExportDirectory or ""):
            return jobs.INVALID_PARAMETER
        if machine.is_planned or not machine.is_settled:
            return jobs.INVALID_STATE
        wanted = dict(given.values) if given else {}
        if wanted.get("CopySnapshotConfiguration") not in (
                None, export_and_import.ALL_SNAPSHOTS, export_and_import.NO_SNAPSHOTS):
            return _NOT_SUPPORTED  # the export of one snapshot as a VM is not simulated
        try:
            export_and_import.export(machine, ExportDirectory, wanted)
        except jobs.JobFailure as failure:
            return self._jobs.failed("ExportSystemDefinition", failure, machine.system)
        return self._jobs.done("ExportSystemDefinition", machine.system)

    def _import(self, service, SystemDefinitionFile=None, SnapshotFolder=None,  # noqa: N803
                GenerateNewSystemIdentifier=None):  # noqa: N803
        path = pathlib.Path(SystemDefinitionFile or "")
        if path.suffix.lower() != ".vmcx" or not path.is_file():
            return jobs.INVALID_PARAMETER
        if any(os.path.realpath(path) == os.path.realpath(machine.definition_file)
               for machine in self.machines.values() if not machine.is_planned):
            return _FILE_IN_USE
        try:
            machine = export_and_import.import_(
                self, path, SnapshotFolder, bool(GenerateNewSystemIdentifier))
        except jobs.JobFailure as failure:
            return self._jobs.failed("ImportSystemDefinition", failure)
        return self._jobs.done("ImportSystemDefinition",
                               ImportedSystem=machine.system.reference())

    def _validate(self, service, PlannedSystem=None):  # noqa: N803
        machine = self.machine_of(PlannedSystem)
        if not machine.is_planned:
            return jobs.INVALID_PARAMETER
        try:
            export_and_import.validate(machine)
        except jobs.JobFailure as failure:
            return self._jobs.failed("ValidatePlannedSystem", failure, machine.system)
        return self._jobs.done("ValidatePlannedSystem")

    def _realize(self, service, PlannedSystem=None):  # noqa: N803
        machine = self.machine_of(PlannedSystem)
        if not machine.is_planned or machine.is_staged:
            return jobs.INVALID_STATE
        try:
            export_and_import.settle(self, machine)
        except jobs.JobFailure as failure:
            return self._jobs.failed("RealizePlannedSystem", failure, machine.system)
        return self._jobs.done("RealizePlannedSystem", ResultingSystem=machine.system.reference())

    def _summaries(self, service, SettingData=None, RequestedInformation=None):  # noqa: N803
        summaries = []
        for settings in SettingData or ():
            machine = self.machine_of(settings)
            security = machine.security_settings
            summaries.append(self._repository.new(
                V2, "Msvm_SummaryInformation", Name=machine.identifier,
                ElementName=machine.name, EnabledState=machine.state,
                NumberOfProcessors=self._quantity(machine, "Msvm_ProcessorSettingData"),
                MemoryUsage=0 if machine.is_off else self._quantity(
                    machine, "Msvm_MemorySettingData"),
                UpTime=machine.uptime_milliseconds(),
                Shielded=bool(security and security["ShieldingRequested"])))
        return {"ReturnValue": 0, "SummaryInformation": summaries}

    def _quantity(self, machine, class_name):
        return next(i["VirtualQuantity"] for i in machine.elements() if i.is_a(class_name))


def _first(refusals):
    return next((refusal for refusal in refusals if refusal is not None), None)


def _update(stored, given):
    stored.values.update({k: v for k, v in given.values.items() if v is not None})
