"""compute-hyperv's drivers, with vTPMs: ``compute_driver = vtpm_hyperv.HyperVDriver``."""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

from compute_hyperv.nova import driver as hyperv_driver
from compute_hyperv.nova import imagecache as hyperv_imagecache
from compute_hyperv.nova import migrationops as hyperv_migrationops
from compute_hyperv.nova import vmops as hyperv_vmops
from nova import objects
from nova.compute import task_states
from os_brick import exception as os_brick_exception

from vtpm_compute import (
    built_image,
    errors,
    lifecycle,
    marks,
    server_life,
    vtpm_driver,
    vtpm_vmops,
    windows_errors,
)

# Nova says so of a move as soon as the VM is gone from the destination; of one whose end failed.
_COMING_BACK = ("reverted", "error")
# Of one that left the source no more, where Nova has the server there still.
_NOT_LEFT = ("migrating", "post-migrating")
# Those that leave its files in a folder here, of the types of Nova's migrations.
_MOVES = ("resize", "migration")


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
        else:
            self.attach_prepared(instance, secure_boot_enabled)


class ImageCache(hyperv_imagecache.ImageCache):
    """compute-hyperv's; knows a server's image by what Nova keeps of it, also without Glance."""

    def get_image_details(self, context: Any, instance: Any) -> dict[str, Any]:
        """What compute-hyperv reads of the image when it reverts a move."""
        return built_image.details(instance)


class MigrationOps(hyperv_migrationops.MigrationOps):
    """compute-hyperv's; imports a VM also in place, from where its files lie.

    And goes on where a process was killed: what a VM is imported from stays until it is realized.
    """

    def __init__(self) -> None:
        super().__init__()
        self._imagecache = ImageCache()
        self._in_place: set[str] = set()

    def import_in_place(self, context: Any, instance: Any, image_meta: Any,
                        block_device_info: Any) -> None:
        """Register the VM whose files lie in the server's folder.

        :param image_meta: compute-hyperv's, a dictionary.
        """
        folder = self._pathutils.get_instance_dir(instance.name, create_dir=False)
        self._in_place.add(folder)
        try:
            self._import_and_setup_vm(context, instance, folder, image_meta, block_device_info)
        finally:
            self._in_place.remove(folder)

    def confirm_migration(self, context: Any, migration: Any, instance: Any,
                          network_info: Any) -> None:
        """Remove what a revert would need; Nova saves that the instance has none any more."""
        super().confirm_migration(context, migration, instance, network_info)
        instance.system_metadata.pop("backup_location")

    def _revert_migration_files(self, instance: Any) -> str:
        moved_to = instance.system_metadata["backup_location"]
        if self._pathutils.exists(moved_to):
            return super()._revert_migration_files(instance)
        # They are back already. compute-hyperv would remove them, and then miss what it moves.
        return self._pathutils.get_instance_dir(instance.name, create_dir=False)

    def _import_and_setup_vm(self, context: Any, instance: Any, instance_dir: str, *args: Any,
                             **kwargs: Any) -> None:
        if self._migrationutils.planned_vm_exists(instance.name):
            # Left by a process that died.
            self._migrationutils.destroy_existing_planned_vm(instance.name)
        super()._import_and_setup_vm(context, instance, instance_dir, *args, **kwargs)
        self._pathutils.get_export_dir(instance_dir=instance_dir, remove_dir=True)

    def _import_vm(self, instance_dir: str) -> None:
        definitions = (
            self._pathutils.get_instance_virtual_machines_dir(instance_dir=instance_dir)
            if instance_dir in self._in_place
            else self._pathutils.get_export_dir(instance_dir=instance_dir))
        self._migrationutils.import_vm_definition(
            self._pathutils.get_vm_config_file(definitions),
            self._pathutils.get_instance_snapshot_dir(instance_dir=instance_dir))


class HyperVDriver(vtpm_driver.VtpmDriver, hyperv_driver.HyperVDriver):
    """compute-hyperv's standalone driver with vTPMs."""

    KIND = lifecycle.Driver.COMPUTE_HYPERV
    VMOPS = VMOps
    VMOPS_USERS: ClassVar[tuple[str, ...]] = (
        "_hostops", "_livemigrationops", "_migrationops", "_event_handler")
    # compute-hyperv 16 does Secure Boot, and does not say so as Nova's own driver does: since
    # nova 23 the scheduler asks placement for it, and would find no host for a shielded VM.
    capabilities = dict(hyperv_driver.HyperVDriver.capabilities, supports_secure_boot=True)

    def __init__(self, virtapi: Any) -> None:
        super().__init__(virtapi)
        self._migrationops = MigrationOps()
        self._migrationops._vmops = self._vmops

    def migrate_disk_and_power_off(self, context: Any, instance: Any, *args: Any,
                                   **kwargs: Any) -> Any:
        """Begin a resize or a cold migration; one that fails leaves the VM its disks.

        compute-hyperv moves them to a folder that it empties when it begins the next one.
        """
        with contextlib.ExitStack() as undo:
            if marks.is_marked(instance):
                undo.callback(self._put_back_if_not_destroyed, instance)
            result = super().migrate_disk_and_power_off(context, instance, *args, **kwargs)
            undo.pop_all()
        return result

    def _put_back_if_not_destroyed(self, instance: Any) -> None:
        if self._has_vm(instance):
            self._put_back_moved_files(instance)

    def reboot(self, context: Any, instance: Any, network_info: Any, reboot_type: str,
               block_device_info: Any = None, *args: Any, **kwargs: Any) -> None:
        """Reboot the server; a hard reboot ends the revert of a move that was interrupted."""
        if (reboot_type == server_life.HARD_REBOOT and marks.is_marked(instance)
                and not self._has_vm(instance) and self._is_coming_back(context, instance)):
            with self._told(instance):
                self._migrationops.finish_revert_migration(
                    context, instance, network_info, block_device_info)
            return
        super().reboot(
            context, instance, network_info, reboot_type, block_device_info, *args, **kwargs)

    def _is_coming_back(self, context: Any, instance: Any) -> bool:
        """Whether the server's last move began on this host, and is reverted."""
        if "backup_location" not in instance.system_metadata:
            # Nothing was moved, or the move is confirmed.
            return False
        migrations = objects.MigrationList.get_by_filters(
            context.elevated(), {"instance_uuid": instance.uuid})
        last = max(migrations, key=lambda migration: migration.id, default=None)
        # The other host may have half of the files: nothing is to be made of them.
        return (last is not None and last.source_compute == self._host_name
                and last.migration_type in _MOVES
                and (last.status in _COMING_BACK
                     or last.status in _NOT_LEFT and instance.host == self._host_name))

    def _recreate_image_meta(self, context: Any, instance: Any, image_meta: Any) -> Any:
        """compute-hyperv's form of an image; not from Glance at the end of a move.

        Nor for what boots from a volume.

        :param image_meta: Nova's.
        """
        if image_meta.obj_attr_is_set("id") and instance.task_state != task_states.RESIZE_FINISH:
            return super()._recreate_image_meta(context, instance, image_meta)
        return built_image.details(instance)

    def import_evacuated(self, context: Any, instance: Any, image_meta: Any, network_info: Any,
                         block_device_info: Any) -> None:
        """Import the VM as compute-hyperv does it at the end of a resize, but in place.

        Where an earlier try did and its process was killed then, that VM is started.
        """
        if self._has_vm(instance):
            with self.own_disk(instance):
                self._vmops.power_on(instance, network_info=network_info)
            return
        properties = built_image.details(instance)

        def call() -> None:
            try:
                self._migrationops.import_in_place(
                    context, instance, properties, block_device_info)
            except os_brick_exception.BrickException as exc:
                # Nova shows the text of its own exceptions only.
                raise errors.ImportFailedError(
                    "a volume could not be connected to this host: %s" % exc) from exc
            with self.own_disk(instance):
                self._vmops.power_on(instance, network_info=network_info)

        with self._definition_files(instance).kept_on_failure(), contextlib.ExitStack() as undo:
            # With its definition, which is put back then; not its disks.
            undo.callback(self._vmops.destroy, instance, network_info, block_device_info,
                          destroy_disks=False)
            windows_errors.translated(
                "The server's VM could not be imported", errors.ImportFailedError, call)
            undo.pop_all()
