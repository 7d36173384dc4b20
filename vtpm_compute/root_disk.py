"""The root disk of a server in whose rescue, or at whose end, nova-compute died.

Both stock drivers take the disk from the VM before they attach the other one (``rescue_instance``,
``unrescue_instance`` of ``vmops.py``). A VM that stays without it starts none the less; a resize or
a live migration would take along what is attached, and Nova then deletes the folder with the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from nova.compute import task_states, vm_states
from oslo_log import log as logging

from vtpm_compute import errors, windows_errors

LOG = logging.getLogger(__name__)

# That of a VM of Generation 2, which those with a vTPM are; it takes the first free place.
_SCSI, _NO_ADDRESS = "SCSI", 0
# What Windows attaches in the place of a disk while there is a checkpoint, or is yet to be merged.
_DIFFERENCES = (".avhdx", ".avhd")
_Read = TypeVar("_Read")


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
        if self._is_rescued() or self._root() is None:
            return False

        def call() -> bool:
            # By its name: its path can be written in other ways, or an administrator moved it.
            return not self._has_checkpoint() and (self._has_rescue_files() or not any(
                name.startswith("root") for name in self._attached()))
        return _read(call)

    def has_checkpoint(self) -> bool:
        """Whether the VM has a checkpoint, or one that is yet to be merged into its disks.

        :raises vtpm_compute.errors.OperationRefusedError: when the VM cannot be read.
        """
        return _read(self._has_checkpoint)

    def base(self) -> str | None:
        """The file of the image to which the disk holds but the differences; None: it is whole.

        :raises vtpm_compute.errors.OperationRefusedError: when the disk cannot be read.
        """
        root = self._root()
        return _read(lambda: self._vmops._vhdutils.get_vhd_parent_path(root)) if root else None

    def may_stay_behind(self) -> bool:
        """Whether a move would perhaps not take it along.

        :raises vtpm_compute.errors.OperationRefusedError: when the VM cannot be read.
        """
        return (not self._is_rescued() and self._has_rescue_files()) or self.is_out_of_place()

    def put_back(self) -> None:
        """Give the VM, which must be off, its own disks again.

        The files of the rescue stay until :meth:`remove_rescue_files`, and the disk is out of place
        so long: what fails meanwhile is done again.

        :raises vtpm_compute.errors.StartError: when Hyper-V refuses it.
        """
        LOG.warning("A rescue was interrupted: the server gets its own root disk back",
                    instance=self._instance)
        windows_errors.translated(
            "The server's own root disk could not be put back", errors.StartError, self._put_back)

    def _put_back(self) -> None:
        root, attached = self._root(), self._attached()
        for path in (root, *self._rescue_files()):
            name = _name(path)
            if name in attached:
                self._utils.detach_vm_disk(self._name, attached[name], is_physical=False)
        # Before a config drive could take its place.
        self._vmops._attach_drive(self._name, root, _NO_ADDRESS, _NO_ADDRESS, _SCSI)
        drive = self._paths.lookup_configdrive_path(self._name)
        if drive and _name(drive) not in attached:
            self._vmops.attach_config_drive(
                self._instance, drive, self._utils.get_vm_generation(self._name))

    def remove_rescue_files(self) -> None:
        """Delete what the rescue left; logs a file that cannot be deleted."""
        for path in self._rescue_files():
            try:
                self._paths.remove(path)
            except OSError as exc:
                LOG.warning("%s, of a rescue that was interrupted, could not be deleted: %s", path,
                            exc, instance=self._instance)

    def _has_checkpoint(self) -> bool:
        return bool(self._utils.get_vm_snapshots(self._name)) or any(
            name.endswith(_DIFFERENCES) for name in self._attached())

    def _is_rescued(self) -> bool:
        return bool(self._instance.vm_state == vm_states.RESCUED
                    and self._instance.task_state != task_states.UNRESCUING)

    def _attached(self) -> dict[str, str]:
        """{name: path} of the files that are the VM's disks, and its config drive."""
        paths, _ = self._utils.get_vm_storage_paths(self._name)
        return {_name(path): path for path in paths}

    def _root(self) -> Any:
        return self._paths.lookup_root_vhd_path(self._name)

    def _rescue_files(self) -> list[str]:
        found = (self._paths.lookup_root_vhd_path(self._name, rescue=True),
                 self._paths.lookup_configdrive_path(self._name, rescue=True))
        return [path for path in found if path]

    def _has_rescue_files(self) -> bool:
        return bool(self._rescue_files())


def _read(call: Callable[[], _Read]) -> _Read:
    return windows_errors.translated(
        "Hyper-V could not say which disks the VM has", errors.OperationRefusedError, call)


def _name(path: Any) -> str:
    return os.path.basename(str(path).replace("\\", "/")).lower()
