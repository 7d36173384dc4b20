"""A virtual machine of a simulated host: its CIM instances, its files, its secrets, its snapshots.
"""
import base64
import pathlib
import shutil
import uuid

from tests.hyperv import definition as definitions

V2 = "root/virtualization/v2"

_SETTINGS = "Msvm_VirtualSystemSettingData"
_EXPORT_SETTINGS = "Msvm_VirtualSystemExportSettingData"

# VirtualSystemType. Source: Microsoft Learn, "Msvm_VirtualSystemSettingData class".
REALIZED, PLANNED = "Microsoft:Hyper-V:System:Realized", "Microsoft:Hyper-V:System:Planned"
SNAPSHOT = "Microsoft:Hyper-V:Snapshot:Realized"

RUNNING, OFF, SAVED, PAUSED = 2, 3, 6, 9

# What an unset protector reads back as: a length of four bytes that counts itself
# [assumption unset-protector].
EMPTY_PROTECTOR = b"\x00\x00\x00\x04"


class VirtualMachine:
    """One VM, realized or planned.

    :param repository: that of its host
    :param identifier: the VM's GUID
    """

    def __init__(self, repository, identifier):
        self._repository, self.identifier = repository, identifier
        self.key_protector = EMPTY_PROTECTOR
        self.last_known_good = EMPTY_PROTECTOR
        self.security_policy = b""
        self.started_at = None
        # While it runs: the TPM in memory. While it is planned: where its files were imported from.
        self.tpm = None
        self.imported_from = None
        # Whether it is a planned one that waits for a live migration.
        self.is_staged = False
        self.snapshots, self.last_snapshot = {}, None

    @property
    def system(self):
        """Its CIM_ComputerSystem (Msvm_ComputerSystem or Msvm_PlannedComputerSystem)."""
        return self._repository.instances(V2, "CIM_ComputerSystem", Name=self.identifier)[0]

    @property
    def settings(self):
        """Its Msvm_VirtualSystemSettingData."""
        return self._repository.instances(
            V2, "Msvm_VirtualSystemSettingData", InstanceID="Microsoft:" + self.identifier)[0]

    @property
    def security_settings(self):
        """Its Msvm_SecuritySettingData, or None for a VM of Generation 1."""
        found = [i for i in self.elements() if i.is_a("Msvm_SecuritySettingData")]
        return found[0] if found else None

    @property
    def name(self):
        return self.settings["ElementName"]

    @property
    def generation(self):
        return 2 if (self.settings["VirtualSystemSubType"] or "").endswith(":2") else 1

    @property
    def state(self):
        return self.system["EnabledState"]

    @property
    def is_planned(self):
        return self.imported_from is not None

    @property
    def memory_mb(self):
        return next(i["VirtualQuantity"] for i in self.elements()
                    if i.is_a("Msvm_MemorySettingData"))

    @property
    def is_settled(self):
        """Whether it is in a state, not on the way to one."""
        return self.state in (RUNNING, OFF, SAVED, PAUSED)

    @property
    def is_off(self):
        return self.state == OFF

    @property
    def tpm_enabled(self):
        security = self.security_settings
        return bool(security and security["TpmEnabled"])

    @property
    def encrypts_state(self):
        security = self.security_settings
        return bool(security and security["EncryptStateAndVmMigrationTraffic"])

    def elements(self):
        """All its setting data."""
        prefix = "Microsoft:" + self.identifier
        return [i for i in self._repository.instances(V2, "CIM_SettingData")
                if i["InstanceID"].startswith(prefix) and not i.is_a(_EXPORT_SETTINGS)]

    def resources(self):
        """Those of its setting data that are resources."""
        return [i for i in self.elements() if i.is_a("CIM_ResourceAllocationSettingData")]

    def boot_identities(self):
        """The Msvm_LogicalIdentity instances that tie drives to boot sources."""
        return [i for i in self._repository.instances(V2, "Msvm_LogicalIdentity")
                if self.identifier in i["SystemElement"]["InstanceID"]]

    def uptime_milliseconds(self):
        now = self._repository.clock.now()
        return int((now - self.started_at) * 1000) if self.started_at else 0

    def change_state(self, state):
        """Enter a power state and tell who watches."""
        system = self.system
        before = system.clone()
        system["EnabledState"] = state
        if state == OFF:
            self.started_at = None
        elif self.started_at is None:
            self.started_at = self._repository.clock.now()
        self._repository.changed(system, before)

    # Its files. Source: Microsoft Learn, "Hyper-V: configuration file format" (.vmcx, .vmrs) and
    # Msvm_VirtualSystemSettingData (GuestStateDataRoot, GuestStateFile).

    @property
    def roots(self):
        """The folders of its files: {property: path or None}."""
        return {name: self.settings[name] for name in definitions.ROOTS}

    @property
    def definition_file(self):
        root = self.settings["ConfigurationDataRoot"]
        return pathlib.Path(root, "Virtual Machines", self.identifier + ".vmcx")

    @property
    def saved_state_file(self):
        """Its run-time state: while it is saved, its memory, which nothing brings back."""
        return self.definition_file.with_suffix(".VMRS")

    @property
    def guest_state_file(self):
        settings = self.settings
        return pathlib.Path(settings["GuestStateDataRoot"] or settings["ConfigurationDataRoot"],
                            settings["GuestStateFile"])

    def save(self):
        """Write the definition files, as the host does after each change."""
        definitions.write(self.definition_file, self.definition())
        if self.state != SAVED:
            self.saved_state_file.touch()
        for snapshot in self.snapshots.values():
            path = self.snapshot_files(snapshot)[0]
            definitions.write(path, snapshot.contents)
            path.with_suffix(".VMRS").touch()

    def files(self):
        """The files that are the host's own: definitions, run-time state, guest state."""
        found = [self.definition_file, self.saved_state_file]
        if self.generation == 2:
            found.append(self.guest_state_file)
        for snapshot in self.snapshots.values():
            found += self.snapshot_files(snapshot)
        return found

    def remove_files(self):
        for path in self.files():
            path.unlink(missing_ok=True)

    # Its snapshots.

    def snapshot_files(self, snapshot):
        """Definition, run-time state and, of Generation 2, guest state of a snapshot."""
        settings = self.settings
        folder = pathlib.Path(settings["SnapshotDataRoot"] or settings["ConfigurationDataRoot"],
                              "Snapshots")
        return [folder / (snapshot.identifier + suffix) for suffix in (
            (".vmcx", ".VMRS", ".vmgs") if self.generation == 2 else (".vmcx", ".VMRS"))]

    def keep(self, snapshot):
        """Have a new snapshot, with a copy of the guest state."""
        self.snapshots[snapshot.identifier] = snapshot
        self.last_snapshot = snapshot.identifier
        if self.generation == 2:
            target = self.snapshot_files(snapshot)[-1]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.guest_state_file, target)

    def drop(self, snapshot):
        """Forget a snapshot; its disks are not touched."""
        snapshot.hide()
        for path in self.snapshot_files(snapshot):
            path.unlink(missing_ok=True)
        self.snapshots.pop(snapshot.identifier, None)

    def change_disk(self, old, new):
        """Use another file for a virtual hard disk."""
        for disk in self.resources():
            if disk["HostResource"] and disk["HostResource"][0] == old:
                disk["HostResource"] = [new]

    def replace(self, definition):
        """Become what a definition says."""
        for instance in self.boot_identities() + self.elements():
            self._repository.remove(instance)
        self.load(definition, REALIZED)
        self.system["ElementName"] = self.name

    def definition(self):
        """What the definition file holds, as plain values."""
        return {
            "identifier": self.identifier, "name": self.name,
            "computer": self._repository.computer_name,
            "key_protector": encoded(self.key_protector),
            "last_known_good": encoded(self.last_known_good),
            "security_policy": encoded(self.security_policy),
            "elements": [
                {"class": i.cls.name,
                 "values": {k: v for k, v in i.values.items() if v is not None}}
                for i in self.elements()],
            "boot_identities": [
                (i["SystemElement"]["InstanceID"], i["SameElement"]["InstanceID"])
                for i in self.boot_identities()],
            "snapshots": list(self.snapshots), "last_snapshot": self.last_snapshot}

    def load(self, definition, virtual_system_type):
        """Fill the repository from a definition.

        :param definition: what :meth:`definition` gave, on this host or another
        :param virtual_system_type: goes into VirtualSystemType
        """
        self.key_protector = _bytes(definition["key_protector"])
        self.last_known_good = _bytes(definition["last_known_good"])
        self.security_policy = _bytes(definition["security_policy"])
        self.last_snapshot = definition["last_snapshot"]
        instances = _instances(self._repository, definition)
        by_id = {instance["InstanceID"]: instance for instance in instances}
        for instance in instances:
            self._repository.store(instance)
        for drive, source in definition["boot_identities"]:
            self._repository.add(V2, "Msvm_LogicalIdentity",
                                 SystemElement=by_id[drive].reference(),
                                 SameElement=by_id[source].reference())
        self.settings["VirtualSystemType"] = virtual_system_type
        self.offer_export()

    def offer_export(self):
        """Show the settings that an export of it begins with."""
        self._repository.add(
            V2, _EXPORT_SETTINGS, InstanceID="Microsoft:" + self.identifier,
            CopySnapshotConfiguration=0, CopyVmRuntimeInformation=True, CopyVmStorage=True,
            CreateVmExportSubdirectory=False)

    def forget(self):
        """Take all its instances out of the repository."""
        for snapshot in self.snapshots.values():
            snapshot.hide()
        system = self.system
        for instance in self.boot_identities() + self.elements() + self._repository.instances(
                V2, _EXPORT_SETTINGS, InstanceID="Microsoft:" + self.identifier) + [system]:
            self._repository.remove(instance)


class Snapshot:
    """A snapshot of a VM.

    :param repository: that of the VM's host
    :param contents: what its file holds: {"identifier", "machine" (identifier), "name",
        "parent" (identifier or None), "state" (EnabledState the VM has when it is applied),
        "definition" (the VM's)}
    """

    def __init__(self, repository, contents):
        self._repository, self.contents = repository, contents

    @classmethod
    def of(cls, machine, identifier, state):
        """A snapshot of a machine as it is now."""
        return cls(machine._repository, {
            "identifier": identifier, "machine": machine.identifier,
            "name": "%s - (%s)" % (machine.name, identifier[:8]),
            "parent": machine.last_snapshot, "state": state, "definition": machine.definition()})

    @property
    def identifier(self):
        return self.contents["identifier"]

    @property
    def parent(self):
        return self.contents["parent"]

    @property
    def state(self):
        return self.contents["state"]

    @property
    def definition(self):
        return self.contents["definition"]

    @property
    def settings(self):
        """Its Msvm_VirtualSystemSettingData."""
        return self._repository.instances(
            V2, _SETTINGS, InstanceID="Microsoft:" + self.identifier)[0]

    def show(self):
        """Put its instances into the repository: the VM's setting data under its own identifier."""
        machine = self.contents["machine"]
        for instance in _instances(self._repository, definitions.replaced(
                self.definition, {machine: self.identifier})):
            self._repository.store(instance)
        settings = self.settings
        for name, value in (("ElementName", self.contents["name"]),
                            ("VirtualSystemIdentifier", machine),
                            ("VirtualSystemType", SNAPSHOT)):
            settings[name] = value
        system = self._repository.instances(V2, "CIM_ComputerSystem", Name=machine)[0]
        self._repository.add(V2, "Msvm_SnapshotOfVirtualSystem", Antecedent=system.reference(),
                             Dependent=settings.reference())
        self._show_parent()

    def hide(self):
        """Take its instances out of the repository."""
        prefix = "Microsoft:" + self.identifier
        for instance in self._repository.instances(V2, "CIM_SettingData"):
            if instance["InstanceID"].startswith(prefix):
                self._repository.remove(instance)
        for tie in self._repository.instances(V2, "Msvm_SnapshotOfVirtualSystem"):
            if tie["Dependent"]["InstanceID"] == prefix:
                self._repository.remove(tie)

    def rename(self, name):
        self.contents["name"] = self.settings["ElementName"] = name

    def set_parent(self, identifier):
        self.contents["parent"] = identifier
        self._show_parent()

    def _show_parent(self):
        found = self._repository.instances(
            V2, _SETTINGS, InstanceID="Microsoft:%s" % self.parent)
        self.settings["Parent"] = found[0].get_path() if found else None

    def change_disk(self, old, new):
        """Use another file for a virtual hard disk."""
        for path, values in definitions.disks(self.definition):
            if path == old:
                values["HostResource"] = [new]
        prefix = "Microsoft:" + self.identifier
        for disk in self._repository.instances(V2, "Msvm_StorageAllocationSettingData"):
            if disk["InstanceID"].startswith(prefix) and tuple(disk["HostResource"]) == (old,):
                disk["HostResource"] = [new]


def new_guid():
    return str(uuid.uuid4()).upper()


def _instances(repository, definition):
    """The instances of a definition, not stored yet."""
    old, new = ("\\\\%s\\" % name for name in (
        definition["computer"], repository.computer_name))
    return [repository.new(V2, element["class"], **{
        name: _moved(value, old, new) for name, value in element["values"].items()})
        for element in definition["elements"]]


def encoded(data):
    return base64.b64encode(data).decode("ascii")


def _bytes(text):
    return base64.b64decode(text)


def _moved(value, old, new):
    """Object paths in a definition name the computer they were written on, in any case."""
    if isinstance(value, str) and value.lower().startswith(old.lower()):
        return new + value[len(old):]
    if isinstance(value, (list, tuple)):
        return [_moved(item, old, new) for item in value]
    return value
