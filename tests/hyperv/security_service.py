"""Msvm_SecurityService: key protectors and security settings of VMs.

Source: Microsoft Learn, "Msvm_SecurityService class" and its methods (return values),
"Msvm_SecuritySettingData class"; "Guarded fabric and shielded VMs overview" (what a shielded VM
has); "Managing the Host Guardian Service" (a key protector replaced, and the last known good one);
the words of a refusal: user report: GitHub, hashicorp/vagrant pull request 11978 (slightly other).
When a state is invalid: [assumption when-states-are-invalid].
"""
from tests.hyperv import jobs, key_protector, schema
from tests.hyperv.virtual_machine import EMPTY_PROTECTOR

V2 = "root/virtualization/v2"

NO_PROTECTOR = (
    "Cannot modify the selected security settings of a virtual machine without a valid key "
    "protector configured. Configure a valid key protector and try again.")

NOT_SUPPORTED = 32770
# ModifySecuritySettings has return values of its own.
_MODIFY_NOT_SUPPORTED, _MODIFY_INVALID_PARAMETER, _MODIFY_INVALID_STATE = 1, 4, 5

_NEEDS_PROTECTOR = ("TpmEnabled", "ShieldingRequested", "EncryptStateAndVmMigrationTraffic")

# The first configuration version with these settings (Windows Server 2016).
_FIRST_VERSION = (8, 0)

_PREFIX = 4


class SecurityService:
    """The service of one host.

    :param machines: the host's :class:`VirtualSystemManagement`
    :param hgs_client: the host's :class:`tests.hyperv.hgs_client.HgsClient`
    """

    def __init__(self, repository, job_factory, machines, hgs_client):
        self._repository, self._jobs, self._machines = repository, job_factory, machines
        self._hgs_client = hgs_client
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
        job_factory.check_first(name, {
            "SetKeyProtector": (self._check_key_protector, None),
            "SetSecurityPolicy": (self._check_security_policy, None),
            "ModifySecuritySettings": (self._check_modify, None),
            "RestoreLastKnownGoodKeyProtector": (self._check_restore, None)})

    def _given(self, text):
        given = self._repository.embedded(V2, text, "Msvm_SecuritySettingData")
        return given, self._machines.machine_of(given)

    # SetKeyProtector and its kin.

    def _check_key_protector(self, service, SecuritySettingData=None,  # noqa: N803
                             KeyProtector=None):  # noqa: N803
        _, machine = self._given(SecuritySettingData)
        raw = bytes(KeyProtector or ())
        if len(raw) < _PREFIX or int.from_bytes(raw[:_PREFIX], "big") != len(raw):
            return jobs.INVALID_PARAMETER
        if raw != EMPTY_PROTECTOR:
            try:
                # [assumption protector-read-when-set]
                key_protector.read(raw)
            except key_protector.InvalidProtector:
                return jobs.INVALID_PARAMETER
        if not _is_new_enough(machine):
            return NOT_SUPPORTED
        if not machine.is_off:
            return jobs.INVALID_STATE
        settings = machine.security_settings
        if raw == EMPTY_PROTECTOR and any(settings[name] for name in _NEEDS_PROTECTOR):
            return jobs.INVALID_STATE  # [assumption protector-in-use]
        return None

    def _set_key_protector(self, service, SecuritySettingData=None, KeyProtector=None):  # noqa: N803
        refusal = self._check_key_protector(service, SecuritySettingData, KeyProtector)
        if refusal is not None:
            return refusal
        _, machine = self._given(SecuritySettingData)
        machine.key_protector = bytes(KeyProtector)
        _save(machine)
        return self._jobs.done("SetKeyProtector", machine.system)

    def _get_key_protector(self, service, SecuritySettingData=None):  # noqa: N803
        _, machine = self._given(SecuritySettingData)
        return {"ReturnValue": 0, "KeyProtector": list(machine.key_protector)}

    def _check_restore(self, service, SecuritySettingData=None):  # noqa: N803
        _, machine = self._given(SecuritySettingData)
        if not machine.is_off or machine.last_known_good == EMPTY_PROTECTOR:
            return jobs.INVALID_STATE
        return None

    def _restore(self, service, SecuritySettingData=None):  # noqa: N803
        refusal = self._check_restore(service, SecuritySettingData)
        if refusal is not None:
            return refusal
        _, machine = self._given(SecuritySettingData)
        machine.key_protector = machine.last_known_good
        _save(machine)
        return self._jobs.done("RestoreLastKnownGoodKeyProtector", machine.system)

    def _check_security_policy(self, service, SecuritySettingData=None,  # noqa: N803
                               SecurityPolicy=None):  # noqa: N803
        _, machine = self._given(SecuritySettingData)
        if not _is_new_enough(machine):
            return NOT_SUPPORTED
        return None if machine.is_off else jobs.INVALID_STATE

    def _set_security_policy(self, service, SecuritySettingData=None,  # noqa: N803
                             SecurityPolicy=None):  # noqa: N803
        refusal = self._check_security_policy(service, SecuritySettingData)
        if refusal is not None:
            return refusal
        _, machine = self._given(SecuritySettingData)
        # [assumption any-policy]
        machine.security_policy = bytes(SecurityPolicy or ())
        _save(machine)
        return self._jobs.done("SetSecurityPolicy", machine.system)

    # ModifySecuritySettings.

    def _check_modify(self, service, SecuritySettingData=None):  # noqa: N803
        given, machine = self._given(SecuritySettingData)
        if not machine.is_off:
            return _MODIFY_INVALID_STATE
        before, after = machine.security_settings.values, _changed(machine, given)
        if after["KsdEnabled"]:
            return _MODIFY_INVALID_PARAMETER  # [assumption ksd-generation-2]
        if not any(after[name] for name in _NEEDS_PROTECTOR):
            return self._check_unshielding(machine, before, after)
        if not _is_new_enough(machine):
            return _MODIFY_NOT_SUPPORTED  # [assumption old-configuration-versions]
        if machine.key_protector == EMPTY_PROTECTOR:
            return None  # its job fails
        if before["ShieldingRequested"] and after["ShieldingRequested"] and any(
                before[name] and not after[name] for name in _NEEDS_PROTECTOR):
            return _MODIFY_INVALID_PARAMETER  # [assumption shielding-needs]
        return self._check_unshielding(machine, before, after)

    def _check_unshielding(self, machine, before, after):
        """Only who has the owner's private keys takes shielding back [assumption unshielding]."""
        if before["ShieldingRequested"] and not after["ShieldingRequested"]:
            owner = next(w for w in key_protector.read(machine.key_protector) if w.is_owner)
            known = self._hgs_client.guardian_with(owner.encryption_certificate)
            if known is None or known.signing_key is None:
                return _MODIFY_INVALID_STATE
        return None

    def _modify(self, service, SecuritySettingData=None):  # noqa: N803
        refusal = self._check_modify(service, SecuritySettingData)
        if refusal is not None:
            return refusal
        given, machine = self._given(SecuritySettingData)
        after = _changed(machine, given)
        if (machine.key_protector == EMPTY_PROTECTOR
                and any(after[name] for name in _NEEDS_PROTECTOR)):
            return self._jobs.failed("ModifySecuritySettings", jobs.JobFailure(NO_PROTECTOR),
                                     machine.system)
        # What a TPM holds stays in the guest state [assumption disabled-tpm].
        machine.security_settings.values.update(after)
        _save(machine)
        return self._jobs.done("ModifySecuritySettings", machine.system)


def _changed(machine, given):
    """The security settings after a change; what is not given stays."""
    return {**machine.security_settings.values,
            **{name: value for name, value in given.values.items() if value is not None}}


def _is_new_enough(machine):
    return schema.version_tuple(machine.settings["Version"]) >= _FIRST_VERSION


def _save(machine):
    if not machine.is_planned:
        machine.save()
