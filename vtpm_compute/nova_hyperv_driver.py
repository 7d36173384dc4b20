"""Nova's own Hyper-V driver, with vTPMs: ``compute_driver = vtpm_hyperv.NovaHyperVDriver``.

Nova has it until release 28 (2023.2).
"""

from __future__ import annotations

from typing import Any

from nova import exception as nova_exception
from nova.virt.hyperv import driver as hyperv_driver
from nova.virt.hyperv import vmops as hyperv_vmops

from vtpm_compute import errors, lifecycle, vtpm, vtpm_driver, vtpm_vmops
from vtpm_scheduling import policy


class VMOps(vtpm_vmops.VtpmVMOps, hyperv_vmops.VMOps):
    """Nova's VM operations; attaches the vTPM that was prepared for an instance."""

    def create_instance(self, instance: Any, network_info: Any, root_device: Any,
                        block_device_info: Any, vm_gen: int, image_meta: Any) -> None:
        """Define the VM, without starting it; give it its vTPM."""
        super().create_instance(instance, network_info, root_device, block_device_info, vm_gen,
                                image_meta)
        self.attach_prepared(instance, self._requires_secure_boot(instance, image_meta, vm_gen))


class NovaHyperVDriver(vtpm_driver.VtpmDriver, hyperv_driver.HyperVDriver):
    """Nova's own driver with vTPMs."""

    KIND = lifecycle.Driver.NOVA
    VMOPS = VMOps
    VMOPS_USERS = ("_livemigrationops", "_migrationops")
    # Not to do it: Nova would refuse it itself, and set the server to ERROR.
    capabilities = dict(hyperv_driver.HyperVDriver.capabilities, supports_evacuate=True)

    def instance_exists(self, instance: Any) -> bool:
        """Whether its VM is here.

        :raises nova.exception.InstanceFaultRollback: when it is to be evacuated to here.
        """
        found: bool = super().instance_exists(instance)
        if self._is_evacuated_to_here(instance):
            raise nova_exception.InstanceFaultRollback(
                inner_exception=nova_exception.InstanceEvacuateNotSupported())
        return found

    def _prepare(self, context: Any, instance: Any) -> vtpm.PreparedVtpm | None:
        """As every driver; without compute-hyperv's flow for PDK files.

        :raises vtpm_compute.errors.RequestRefusedError: when the image asks for it.
        """
        prepared = super()._prepare(context, instance)
        if prepared is not None and prepared.protector is None:
            raise errors.RequestRefusedError(
                "Image property %s needs compute-hyperv's driver, which the host that was chosen "
                "does not run. Set %s instead." % (policy.IMAGE_PDK, policy.IMAGE_KEYS))
        return prepared
