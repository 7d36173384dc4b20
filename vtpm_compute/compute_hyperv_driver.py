"""compute-hyperv's drivers, with vTPMs: ``compute_driver = vtpm_hyperv.HyperVDriver``."""

from __future__ import annotations

from typing import Any

from compute_hyperv.nova import driver as hyperv_driver
from compute_hyperv.nova import vmops as hyperv_vmops

from vtpm_compute import lifecycle, marks, vtpm_driver, vtpm_vmops


class VMOps(vtpm_vmops.VtpmVMOps, hyperv_vmops.VMOps):
    """compute-hyperv's VM operations; attaches the vTPM that was prepared for an instance."""

    def _configure_secure_vm(self, context: Any, instance: Any, image_meta: Any,
                             secure_boot_enabled: bool) -> None:
        """Called by compute-hyperv after the VM is defined, before it starts."""
        prepared = self.prepared_for(instance)
        if prepared is None:
            # The policy gave this instance no vTPM; compute-hyperv would read the image alone.
            return
        if prepared.protector is None:
            super()._configure_secure_vm(context, instance, image_meta, secure_boot_enabled)
            marks.mark(instance, prepared.shielded, prepared.fabric_thumbprint)
        else:
            self.attach_prepared(instance, secure_boot_enabled)


class HyperVDriver(vtpm_driver.VtpmDriver, hyperv_driver.HyperVDriver):
    """compute-hyperv's standalone driver with vTPMs."""

    KIND = lifecycle.Driver.COMPUTE_HYPERV
    VMOPS = VMOps
    VMOPS_USERS = ("_hostops", "_livemigrationops", "_migrationops", "_event_handler")
    # compute-hyperv 16 does Secure Boot, and does not say so as Nova's own driver does: since
    # nova 23 the scheduler asks placement for it, and would find no host for a shielded VM.
    capabilities = dict(hyperv_driver.HyperVDriver.capabilities, supports_secure_boot=True)
