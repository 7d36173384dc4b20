"""The security settings of this host's virtual machines: key protector and vTPM.

``Msvm_SecurityService`` and ``Msvm_SecuritySettingData`` (Microsoft's Hyper-V WMI provider, V2),
over os-win's VMUtils10. Methods are called with keyword arguments only: PyMI sorts positional ones
by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from os_win import exceptions as os_win_exceptions
from os_win.utils import _wqlutils

from vtpm_compute import errors, windows_errors

_SETTING_CLASS = "Msvm_SecuritySettingData"
# GetText_'s only format: the embedded instance as XML.
_TEXT = 1
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class SecuritySettings:
    """What a virtual machine's Msvm_SecuritySettingData says."""

    tpm_enabled: bool
    shielded: bool
    encrypted: bool


class SecurityService:
    """Reads and changes the security settings of virtual machines that are off.

    :param vmutils: os-win's VMUtils10.

    Every method raises :class:`vtpm_compute.errors.AttachError`, with Windows' own words, when
    Hyper-V refuses, or when the virtual machine has no security settings (Generation 1).
    """

    def __init__(self, vmutils: Any) -> None:
        self._vmutils = vmutils

    def read(self, vm_name: str) -> SecuritySettings:
        """Read the settings anew."""
        def call() -> SecuritySettings:
            data = self._data(vm_name)
            return SecuritySettings(bool(data.TpmEnabled), bool(data.ShieldingRequested),
                                    bool(data.EncryptStateAndVmMigrationTraffic))
        return _translated("read the security settings", call)

    def read_key_protector(self, vm_name: str) -> bytes:
        """The key protector that the virtual machine has now."""
        def call() -> bytes:
            protector, code = self._service().GetKeyProtector(
                SecuritySettingData=self._data(vm_name).GetText_(_TEXT))
            self._check(code)
            return bytes(protector or ())
        return _translated("read the key protector", call)

    def set_key_protector(self, vm_name: str, protector: bytes) -> None:
        """Give the virtual machine its key protector: once, while it has none."""
        def call() -> None:
            job, code = self._service().SetKeyProtector(
                SecuritySettingData=self._data(vm_name).GetText_(_TEXT),
                # A list: PyMI takes bytes apart wrongly where it expects uint8[].
                KeyProtector=list(protector))
            self._check(code, job)
        _translated("set the key protector", call)

    def enable_vtpm(self, vm_name: str, shielded: bool) -> None:
        """Enable the vTPM, and encrypt saved state and migration traffic.

        For a shielded machine in the same step, as os-win does it. SetSecurityPolicy is not
        called: its bytes are those of a shielding data file (PDK), in a form that is not public,
        and Set-VMSecurityPolicy, which shields a machine without one, only requests shielding
        (Microsoft Learn, "Set-VMSecurityPolicy").
        """
        def call() -> None:
            data = self._data(vm_name)
            data.EncryptStateAndVmMigrationTraffic = True
            data.ShieldingRequested = shielded
            data.TpmEnabled = True
            job, code = self._service().ModifySecuritySettings(
                SecuritySettingData=data.GetText_(_TEXT))
            self._check(code, job)
        _translated("enable the vTPM", call)

    def _service(self) -> Any:
        return self._vmutils._sec_svc

    def _data(self, vm_name: str) -> Any:
        """Msvm_SecuritySettingData, loaded anew: what was loaded before a change is stale."""
        settings = self._vmutils._lookup_vm_check(vm_name)
        found = _wqlutils.get_element_associated_class(
            self._vmutils._conn, _SETTING_CLASS, element_uuid=settings.ConfigurationID)
        if not found:
            raise os_win_exceptions.HyperVException(
                "The virtual machine %s has no security settings: it is not of Generation 2."
                % vm_name)
        return found[0]

    def _check(self, code: int, job: Any = None) -> None:
        self._vmutils._jobutils.check_ret_val(code, job)


def _translated(problem: str, call: Callable[[], Result]) -> Result:
    return windows_errors.translated(
        "Hyper-V could not %s" % problem, errors.AttachError, call)
