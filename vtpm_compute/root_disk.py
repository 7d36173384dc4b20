"""The root disk of a server in whose rescue, or at whose end, nova-compute died.

Both stock drivers take the disk from the VM before they attach the other one (``rescue_instance``,
``unrescue_instance`` of ``vmops.py``). A VM that stays without it starts none the less; a resize or
a live migration would take along what is attached, and Nova then deletes the folder with the rest.
"""

from __future__ import annotations

import os
from typing import Any

from nova.compute import task_states, vm_states
from oslo_log import log as logging

from vtpm_compute import errors, windows_errors

LOG = logging.getLogger(__name__)

# The one of a VM of Generation 2, which those with a vTPM are.
_SCSI = "SCSI"
_ROOT_ADDRESS, _CONTROLLER_ADDRESS = 0, 0


class RootDisk:
    """The disk in the server's folder; a server that was booted from a volume has none.

    :param vmops: a stock driver's VMOps.
    :param instance: Nova's, which has a VM on this host.
    """

    def __init__(self, vmops: Any, instance: Any) -> None:
        self._vmops, self._instance = vmops, instance
        self._utils, self._paths = vmops._vmutils, vmops._pathutils
        self._name = instance.name

    def is_out_of_place(self) -> bool:
        """Whether the VM lacks it, or has a rescue disk, while the server is not being rescued.

        Of a VM with a checkpoint that is not said: it has another file in the place of each disk,
        which nothing here may replace.

        :raises vtpm_compute.errors.OperationRefusedError: when the VM cannot be read.
        """
        if (self._instance.vm_state == vm_states.RESCUED
                and self._instance.task_state != task_states.UNRESCUING):
            return False
        root = self._paths.lookup_root_vhd_path(self._name)
        if root is None:
            return False

        def call() -> bool:
            if self._utils.get_vm_snapshots(self._name):
                return False
            attached, _ = self._utils.get_vm_storage_paths(self._name)
            return self._has_files_of_a_rescue() or not any(
                _same(root, path) for path in attached)
        return windows_errors.translated(
            "Hyper-V could not say which disks the VM has", errors.OperationRefusedError, call)

    def put_back(self) -> None:
        """Give the VM, which must be off, its own disks again, and delete those of the rescue.

        Where nova-compute dies in it, the disk is out of place still.

        :raises vtpm_compute.errors.StartError: when Hyper-V refuses it.
        """
        LOG.warning("A rescue was interrupted: the server gets its own root disk back",
                    instance=self._instance)
        windows_errors.translated(
            "The server's own root disk could not be put back", errors.StartError, self._put_back)

    def _put_back(self) -> None:
        root, rescue = self._paths.lookup_root_vhd_path(self._name), self._rescue_disk()
        self._utils.detach_vm_disk(self._name, root, is_physical=False)
        if rescue is not None:
            self._utils.detach_vm_disk(self._name, rescue, is_physical=False)
        # Before a config drive could take its place.
        self._vmops._attach_drive(
            self._name, root, _ROOT_ADDRESS, _CONTROLLER_ADDRESS, _SCSI)
        self._vmops._detach_config_drive(self._name, rescue=True, delete=True)
        drive = self._paths.lookup_configdrive_path(self._name)
        if drive and not self._utils.is_disk_attached(drive, is_physical=False):
            self._vmops.attach_config_drive(
                self._instance, drive, self._utils.get_vm_generation(self._name))
        if rescue is not None:
            self._paths.remove(rescue)

    def _has_files_of_a_rescue(self) -> bool:
        return (self._rescue_disk() is not None
                or self._paths.lookup_configdrive_path(self._name, rescue=True) is not None)

    def _rescue_disk(self) -> str | None:
        path: str | None = self._paths.lookup_root_vhd_path(self._name, rescue=True)
        return path


def _same(one: str, other: str) -> bool:
    return os.path.normcase(os.path.abspath(one)) == os.path.normcase(os.path.abspath(other))
