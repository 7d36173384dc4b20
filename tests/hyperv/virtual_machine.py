"""A virtual machine of a simulated host: its CIM instances, its files, its secrets."""
import base64
import json
import os
import pathlib

from tests.hyperv import guest_state

V2 = "root/virtualization/v2"

RUNNING, OFF, SAVED, PAUSED = 2, 3, 6, 9

# What an unset protector reads back as: a length of four bytes that counts itself.
# Source: Microsoft Learn, "Get-VMKeyProtector" ("0 0 0 4").
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
    def is_off(self):
        return self.state == OFF

    @property
    def tpm_enabled(self):
        security = self.security_settings
        return bool(security and security["TpmEnabled"])

    def elements(self):
        """All its setting data."""
        prefix = "Microsoft:" + self.identifier
        return [i for i in self._repository.instances(V2, "CIM_SettingData")
                if i["InstanceID"].startswith(prefix)]

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
    def definition_file(self):
        root = self.settings["ConfigurationDataRoot"]
        return pathlib.Path(root, "Virtual Machines", self.identifier + ".vmcx")

    @property
    def guest_state_file(self):
        settings = self.settings
        return pathlib.Path(settings["GuestStateDataRoot"] or settings["ConfigurationDataRoot"],
                            settings["GuestStateFile"])

    def save(self):
        """Write the definition file, as the host does after each change."""
        self.definition_file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.definition_file.with_suffix(".new")
        temporary.write_text(json.dumps(self.definition()), encoding="utf-8")
        os.replace(temporary, self.definition_file)
        self.definition_file.with_suffix(".VMRS").touch()
        if self.generation == 2:
            guest_state.create(self.guest_state_file)

    def files(self):
        """The files that are the host's own: definition, run-time state, guest state."""
        found = [self.definition_file, self.definition_file.with_suffix(".VMRS")]
        if self.generation == 2:
            found.append(self.guest_state_file)
        return found

    def remove_files(self):
        for path in self.files():
            path.unlink(missing_ok=True)

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
                for i in self.boot_identities()]}

    def load(self, definition, virtual_system_type):
        """Fill the repository from a definition.

        :param definition: what :meth:`definition` gave, on this host or another
        :param virtual_system_type: goes into VirtualSystemType
        """
        self.key_protector = _bytes(definition["key_protector"])
        self.last_known_good = _bytes(definition["last_known_good"])
        self.security_policy = _bytes(definition["security_policy"])
        old, new = ("\\\\%s\\" % name for name in (
            definition["computer"], self._repository.computer_name))
        by_id = {}
        for element in definition["elements"]:
            values = {k: _moved(v, old, new) for k, v in element["values"].items()}
            instance = self._repository.add(V2, element["class"], **values)
            by_id[instance["InstanceID"]] = instance
        for drive, source in definition["boot_identities"]:
            self._repository.add(V2, "Msvm_LogicalIdentity",
                                 SystemElement=by_id[drive].reference(),
                                 SameElement=by_id[source].reference())
        self.settings["VirtualSystemType"] = virtual_system_type

    def forget(self):
        """Take all its instances out of the repository."""
        system = self.system
        for instance in self.boot_identities() + self.elements() + [system]:
            self._repository.remove(instance)


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
