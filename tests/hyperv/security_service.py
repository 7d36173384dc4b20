"""Msvm_SecurityService: key protectors and security settings of VMs.

Source: Microsoft Learn, "Msvm_SecurityService class" and its methods, "Msvm_SecuritySettingData
class"; the words of the refusals: "Enable-VMTPM", "Set-VMKeyProtector" troubleshooting.
"""
from tests.hyperv import jobs, key_protector
from tests.hyperv.virtual_machine import EMPTY_PROTECTOR

V2 = "root/virtualization/v2"

NO_PROTECTOR = (
    "Cannot modify the selected security settings of a virtual machine without a valid key "
    "protector configured. Configure a valid key protector and try again.")

# ModifySecuritySettings has return values of its own.
_MODIFY_INVALID_PARAMETER, _MODIFY_INVALID_STATE = 4, 5

_NEEDS_PROTECTOR = ("TpmEnabled", "ShieldingRequested", "EncryptStateAndVmMigrationTraffic")


class SecurityService:
    """The service of one host.

    :param machines: the host's :class:`VirtualSystemManagement`
    """

    def __init__(self, repository, job_factory, machines):
        self._repository, self._jobs, self._machines = repository, job_factory, machines
        name = "Msvm_SecurityService"
        repository.add(V2, name, CreationClassName=name, Name="SecurityService",
                       SystemCreationClassName="Msvm_ComputerSystem",
                       SystemName=repository.computer_name)
        repository.provide(V2, name, {
            "SetKeyProtector": self._set_key_protector,
            "GetKeyProtector": self._get_key_protector,
            "SetSecurityPolicy": self._set_security_policy,
            "ModifySecuritySettings": self._modify,
            "RestoreLastKnownGoodKeyProtector": self._restore})

    def _given(self, text):
        given = self._repository.embedded(V2, text, "Msvm_SecuritySettingData")
        return given, self._machines.machine_of(given)

    def _set_key_protector(self, service, SecuritySettingData=None, KeyProtector=None):  # noqa: N803
        _, machine = self._given(SecuritySettingData)
        raw = bytes(KeyProtector or ())
        if len(raw) < len(EMPTY_PROTECTOR) or int.from_bytes(raw[:4], "big") != len(raw):
            return jobs.INVALID_PARAMETER
        if not machine.is_off:
            return jobs.INVALID_STATE
        if raw != EMPTY_PROTECTOR:
            try:
                key_protector.read(raw)
            except key_protector.InvalidProtector:
                return jobs.INVALID_PARAMETER
        elif machine.tpm_enabled:
            return jobs.INVALID_STATE
        machine.key_protector = raw
        machine.save()
        return self._jobs.done("SetKeyProtector", machine.system)

    def _get_key_protector(self, service, SecuritySettingData=None):  # noqa: N803
        _, machine = self._given(SecuritySettingData)
        return {"ReturnValue": 0, "KeyProtector": list(machine.key_protector)}

    def _set_security_policy(self, service, SecuritySettingData=None,  # noqa: N803
                             SecurityPolicy=None):  # noqa: N803
        _, machine = self._given(SecuritySettingData)
        if not machine.is_off:
            return jobs.INVALID_STATE
        machine.security_policy = bytes(SecurityPolicy or ())
        machine.save()
        return self._jobs.done("SetSecurityPolicy", machine.system)

    def _modify(self, service, SecuritySettingData=None):  # noqa: N803
        given, machine = self._given(SecuritySettingData)
        if not machine.is_off:
            return _MODIFY_INVALID_STATE
        wanted = {name: value for name, value in given.values.items() if value is not None}
        if (machine.key_protector == EMPTY_PROTECTOR
                and any(wanted.get(name) for name in _NEEDS_PROTECTOR)):
            return self._jobs.failed("ModifySecuritySettings", jobs.JobFailure(NO_PROTECTOR),
                                     machine.system)
        if wanted.get("ShieldingRequested") and not (
                wanted.get("TpmEnabled") and machine.settings["SecureBootEnabled"]):
            # A shielded VM has a TPM and Secure Boot [assumption shielding-needs].
            return _MODIFY_INVALID_PARAMETER
        machine.security_settings.values.update(wanted)
        machine.save()
        return self._jobs.done("ModifySecuritySettings", machine.system)

    def _restore(self, service, SecuritySettingData=None):  # noqa: N803
        _, machine = self._given(SecuritySettingData)
        if not machine.is_off or machine.last_known_good == EMPTY_PROTECTOR:
            return jobs.INVALID_STATE
        machine.key_protector = machine.last_known_good
        machine.save()
        return self._jobs.done("RestoreLastKnownGoodKeyProtector", machine.system)
