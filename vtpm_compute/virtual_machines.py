"""This host's virtual machines: what os-win does not do with them.

``Msvm_ComputerSystem`` and ``Msvm_VirtualSystemSettingData`` (Microsoft's Hyper-V WMI provider,
V2), over os-win's VMUtils.
"""

from __future__ import annotations

import os
from typing import Any

from vtpm_compute import errors, windows_errors

# RequestStateChange for the state that the machine has already; os-win takes it for done.
_INVALID_STATE = 32775


class VirtualMachines:
    """:param vmutils: os-win's VMUtils10."""

    def __init__(self, vmutils: Any) -> None:
        self._vmutils = vmutils

    def change_state_once(self, vm_name: str, state: int) -> None:
        """As os-win's set_vm_state, which tries five times, a second apart.

        :param state: one of os-win's HYPERV_VM_STATE_*.
        :raises vtpm_compute.errors.StartError: with Windows' own words.
        """
        def call() -> None:
            machine = self._vmutils._lookup_vm_check(vm_name, as_vssd=False)
            job, code = machine.RequestStateChange(
                RequestedState=self._vmutils._vm_power_states_map[state])
            self._vmutils._jobutils.check_ret_val(code, job, [0, _INVALID_STATE])
        windows_errors.translated("Hyper-V could not start it", errors.StartError, call)

    def guest_state_file(self, vm_name: str) -> str | None:
        """Path of the file that holds the TPM's contents.

        :returns: None where Windows does not say: it does since Server 2019.
        :raises vtpm_compute.errors.OperationRefusedError: when the machine cannot be read.
        """
        def call() -> str | None:
            settings = self._vmutils._lookup_vm_check(vm_name)
            name = getattr(settings, "GuestStateFile", None)
            if not name:
                return None
            root = settings.GuestStateDataRoot or settings.ConfigurationDataRoot
            return os.path.join(root, name)
        return windows_errors.translated(
            "Hyper-V could not say where the TPM's contents lie", errors.OperationRefusedError,
            call)
