"""Operations on a server that has a vTPM: done so that its TPM survives, or refused.

What is refused is decided by :mod:`vtpm_compute.lifecycle`; here it is looked at, before anything
changes, and told in the exceptions with which Nova leaves a server as it was.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import nova.conf
from nova import exception as nova_exception
from nova import objects
from nova.compute import task_states, vm_states
from nova.compute import utils as compute_utils
from nova.image import glance
from nova.virt import configdrive
from nova.virt import driver as nova_driver
from os_win import constants as os_win_constants
from oslo_log import log as logging

from vtpm_compute import (
    built_image,
    definition_files,
    errors,
    lifecycle,
    marks,
    refused_rescue,
    root_disk,
    shelve_image,
)
from vtpm_compute.lifecycle import Condition, Operation
from vtpm_scheduling import policy

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

# As Nova calls the kinds of a reboot.
SOFT_REBOOT, HARD_REBOOT = "SOFT", "HARD"

# Looks at a condition: None where it holds, else what to tell the user, "" for the condition's own.
Check = Callable[[], "str | None"]

# What Nova stops a server for, other than to stop it. A resize within the cell stops it through
# migrate_disk_and_power_off alone.
_STOPPED_FOR = {
    task_states.SHELVING: Operation.SHELVE,
    task_states.SHELVING_OFFLOADING: Operation.SHELVE,
    task_states.RESIZE_MIGRATING: Operation.CROSS_CELL,
}
_ASK_AGAIN = ("The image service could not be asked for the server's image, which its disk may "
              "need on the other host. Try again later.")
# Glance's, of an image whose data can be read.
_ACTIVE = "active"
# In an evacuation, and in a rebuild.
_EVACUATING = (task_states.REBUILDING, task_states.REBUILD_BLOCK_DEVICE_MAPPING,
               task_states.REBUILD_SPAWNING)
# In which a VM is destroyed where Nova has its server.
_DESTROYING = (task_states.DELETING, task_states.SOFT_DELETING, task_states.RESIZE_REVERTING)
# For which Nova destroys the VM when its host's nova-compute starts.
_UNFINISHED_EVACUATION = ("accepted", "pre-migrating", "done")


class ServerOperationError(nova_exception.NovaException):
    """An operation failed; Nova shows the reason in its event, and leaves the server as it is."""

    msg_fmt = "%(reason)s"


class ServerLife(nova_driver.ComputeDriver):
    """Put before a stock driver of Hyper-V.

    :cvar KIND: which stock driver it is.
    """

    KIND: ClassVar[lifecycle.Driver]

    def power_off(self, instance: Any, timeout: int = 0, retry_interval: int = 0) -> None:
        """Stop the server, unless that is the first step of an operation that loses the TPM.

        Or of a rescue in which the host could not start it again, which leaves the server in its
        state. The image that a shelve was to fill goes when it is refused.

        :raises ServerOperationError: when it is; the server runs on.
        """
        if instance.task_state == task_states.RESCUING:
            with self._told(instance), _state_kept(instance):
                self._require_rescue(instance)
                if marks.is_marked(instance):
                    require_config_drive(instance)
        operation = _STOPPED_FOR.get(instance.task_state)
        if operation is not None and marks.is_marked(instance):
            with self._told(instance), contextlib.ExitStack() as undo:
                if instance.task_state == task_states.SHELVING:
                    undo.callback(shelve_image.delete_queued, instance)
                self._require(operation)
                undo.pop_all()
        super().power_off(instance, timeout, retry_interval)

    def migrate_disk_and_power_off(self, context: Any, instance: Any, dest: str, flavor: Any,
                                   *args: Any, **kwargs: Any) -> Any:
        """Begin a resize or a cold migration.

        :raises nova.exception.InstanceFaultRollback: when it is refused; the server runs on.
        """
        def rollback(reason: str) -> nova_exception.InstanceFaultRollback:
            return nova_exception.InstanceFaultRollback(
                inner_exception=nova_exception.ResizeError(reason=reason))

        with self._told(instance, rollback):
            self.require_own_image(context, instance)
            if marks.is_marked(instance):
                self._require(Operation.RESIZE, {
                    Condition.SAME_REQUEST: lambda: _other_request(policy.decide_existing(
                        flavor.extra_specs or {}, marks.is_shielded(instance))),
                    Condition.GUEST_STATE_IN_PLACE: lambda: self._misplaced(instance),
                    # compute-hyperv would copy a checkpoint's disk, and not that below it.
                    Condition.NO_CHECKPOINT: lambda: self._checkpoint(instance),
                    Condition.OWN_DISK: lambda: self._lacks_own_disk(instance),
                    Condition.IMAGE_THERE: lambda: self._lacks_image(context, instance, dest),
                    Condition.CAN_UNWRAP: lambda: self._cannot_unwrap(instance)})
            else:
                specs = instance.flavor.extra_specs or {}, flavor.extra_specs or {}
                refusal = _other_request(
                    policy.decide_without_vtpm(*specs) if policy.is_built_without_vtpm(
                        instance.system_metadata, instance.image_ref)
                    else policy.decide_unmarked(
                        policy.image_properties_of(instance.system_metadata), *specs))
                if refusal is not None:
                    raise errors.OperationRefusedError(refusal)
        return super().migrate_disk_and_power_off(
            context, instance, dest, flavor, *args, **kwargs)

    def check_can_live_migrate_destination(self, context: Any, instance: Any, *args: Any,
                                           **kwargs: Any) -> Any:
        """Whether the server can come here.

        :raises nova.exception.MigrationPreCheckError: when its vTPM could not run here.
        """
        if marks.is_marked(instance):
            with self._told(instance, _pre_check_error):
                self._require(Operation.LIVE_MIGRATION, {
                    Condition.GUARDED: self._unguarded,
                    Condition.SAME_FABRIC: lambda: self._other_fabric(instance),
                    # Only the host where the server runs can read these.
                    Condition.OWN_DISK: lambda: None, Condition.CAN_UNWRAP: lambda: None})
        return super().check_can_live_migrate_destination(context, instance, *args, **kwargs)

    def check_can_live_migrate_source(self, context: Any, instance: Any, *args: Any,
                                      **kwargs: Any) -> Any:
        """Whether the server can leave.

        :raises nova.exception.MigrationPreCheckError: when no host of its fabric could run it.
        """
        if marks.is_marked(instance):
            with self._told(instance, _pre_check_error):
                self._require(Operation.LIVE_MIGRATION, {
                    # The other host was asked before.
                    Condition.GUARDED: lambda: None, Condition.SAME_FABRIC: lambda: None,
                    Condition.OWN_DISK: lambda: self._lacks_own_disk(instance),
                    Condition.CAN_UNWRAP: lambda: self._cannot_unwrap(instance)})
        return super().check_can_live_migrate_source(context, instance, *args, **kwargs)

    # Operations that start a VM: where the host cannot unwrap its key protector, this is told.

    def power_on(self, context: Any, instance: Any, *args: Any, **kwargs: Any) -> None:
        """:raises ServerOperationError: when the host cannot unwrap the key protector."""
        with self._told(instance), self.own_disk(instance):
            super().power_on(context, instance, *args, **kwargs)

    def reboot(self, context: Any, instance: Any, network_info: Any, reboot_type: str,
               block_device_info: Any = None, *args: Any, **kwargs: Any) -> None:
        """Reboot the server; a hard reboot, which resets the VM, needs no unwrapping.

        It starts a VM that is off. The stock drivers would ask for a reset, and take it that
        nothing was reset.

        :raises ServerOperationError: when the host cannot unwrap the key protector; the server runs
            on.
        """
        if (reboot_type == HARD_REBOOT and built_image.is_other(instance)
                and self._has_vm(instance)):
            built_image.restore(context, instance)
        with self._told(instance):
            if reboot_type == SOFT_REBOOT:
                with self._shown_to_user(context, instance, "vtpm_soft_reboot_check"):
                    self._require_next_start(instance)
            with self.own_disk(instance):
                if (marks.is_marked(instance) and self._has_vm(instance)
                        and self._is_off(instance)):
                    self._vmops.power_on(instance, block_device_info, network_info)
                    return
                super().reboot(context, instance, network_info, reboot_type, block_device_info,
                               *args, **kwargs)

    def resume(self, context: Any, instance: Any, *args: Any, **kwargs: Any) -> None:
        """Resume a suspended server.

        :raises nova.exception.InstanceFaultRollback: when the host cannot unwrap the key protector;
            the server stays suspended.
        """
        with self._told(instance, _rollback_to_here):
            super().resume(context, instance, *args, **kwargs)

    def rescue(self, context: Any, instance: Any, *args: Any, **kwargs: Any) -> None:
        """:raises ServerOperationError: when the host cannot unwrap the key protector."""
        with self._told(instance):
            super().rescue(context, instance, *args, **kwargs)

    def unrescue(self, context: Any, instance: Any) -> None:
        """End a rescue.

        :raises ServerOperationError: when the host cannot unwrap the key protector; the server is
            rescued still.
        """
        with self._told(instance):
            with _state_kept(instance):
                self._require_rescue(instance)
            super().unrescue(context, instance)

    def _require_rescue(self, instance: Any) -> None:
        """Look before a server is stopped to be started from other disks.

        :raises vtpm_compute.errors.VtpmError: when it would not start, or not with them.
        """
        self._require_next_start(instance)
        if marks.is_marked(instance):
            self._require(Operation.RESCUE, {
                # Looked at for the start.
                Condition.CAN_UNWRAP: lambda: None,
                # The stock drivers do not find its disk among those of the VM then, and add it.
                Condition.NO_CHECKPOINT: lambda: self._checkpoint(instance)})

    def finish_migration(self, context: Any, migration: Any, instance: Any, *args: Any,
                         **kwargs: Any) -> None:
        """:raises ServerOperationError: when the host cannot unwrap the key protector."""
        with self._told(instance):
            super().finish_migration(context, migration, instance, *args, **kwargs)

    def finish_revert_migration(self, context: Any, instance: Any, network_info: Any,
                                migration: Any, block_device_info: Any = None,
                                power_on: bool = True) -> None:
        """End the revert of a resize, or of one in whose middle nova-compute died.

        :raises ServerOperationError: when the host cannot unwrap the key protector.
        """
        interrupted = instance.task_state == task_states.RESIZE_MIGRATING
        with self._told(instance):
            if interrupted and marks.is_marked(instance) and self._has_vm(instance):
                self._resume_interrupted(instance, network_info, power_on)
            else:
                super().finish_revert_migration(
                    context, instance, network_info, migration, block_device_info, power_on)

    def _resume_interrupted(self, instance: Any, network_info: Any, power_on: bool) -> None:
        """Use the VM of a server whose move had begun and had not destroyed it.

        The stock driver would import the VM once more, from where an earlier move left its files.
        """
        self._put_back_moved_files(instance)
        if power_on:
            self._vmops.power_on(instance, network_info=network_info)

    def _put_back_moved_files(self, instance: Any) -> None:
        """Undo the beginning of a move that did not destroy the VM; nothing, if there was none."""
        paths = self._vmops._pathutils
        folder = paths.get_instance_dir(instance.name, create_dir=False)
        definition_files.put_back_moved_files(
            paths.get_instance_migr_revert_dir(folder), folder)
        # Of the move, or of an earlier one.
        if instance.system_metadata.pop("backup_location", None) is not None:
            instance.save()

    def rollback_live_migration_at_destination(self, context: Any, instance: Any, *args: Any,
                                               **kwargs: Any) -> None:
        """Clean up after a live migration that failed; not the VM, where it did arrive.

        Windows may have moved it when nova-compute no longer heard of it: then it is whole here,
        and nowhere else.
        """
        if marks.is_marked(instance) and self._has_vm(instance):
            LOG.error("The live migration failed, but the server's VM is on this host: it is left "
                      "alone. Move it back to %s (Move-VM)", instance.host, instance=instance)
            return
        super().rollback_live_migration_at_destination(context, instance, *args, **kwargs)

    def resume_state_on_host_boot(self, context: Any, instance: Any, *args: Any,
                                  **kwargs: Any) -> None:
        """Start the server again; Nova keeps no reason of a failure, so it is kept here.

        :raises ServerOperationError: when the host cannot unwrap the key protector.
        """
        try:
            with self._told(instance), self.own_disk(instance):
                super().resume_state_on_host_boot(context, instance, *args, **kwargs)
        except ServerOperationError as exc:
            compute_utils.add_instance_fault_from_exc(context, instance, exc)
            raise

    # Evacuations.

    def require_evacuation(self, instance: Any) -> None:
        """Look whether a server with a vTPM can be evacuated to this host.

        :raises vtpm_compute.errors.OperationRefusedError: when it cannot.
        """
        self._require(Operation.EVACUATION, self.evacuation_checks(instance))

    def evacuation_checks(self, instance: Any) -> dict[Condition, Check]:
        """What looks at the conditions of an evacuation to this host."""
        return {
            Condition.DEFINITION_SHARED: lambda: self._definition_away(instance),
            # compute-hyperv would give the VM its disks as they were at the checkpoint.
            Condition.NO_CHECKPOINT: lambda: (
                "" if self._definition_files(instance).have_checkpoint() else None),
            Condition.GUARDED: self._unguarded,
            Condition.SAME_FABRIC: lambda: self._other_fabric(instance)}

    def import_evacuated(self, context: Any, instance: Any, image_meta: Any, network_info: Any,
                         block_device_info: Any) -> None:
        """Make the server's VM of its definition on the storage that the hosts share; start it.

        Whatever fails leaves the files as they were, and no VM.

        :param image_meta: Nova's ImageMeta.
        """
        raise NotImplementedError

    def destroy(self, context: Any, instance: Any, network_info: Any,
                block_device_info: Any = None, destroy_disks: bool = True,
                **kwargs: Any) -> None:
        """Destroy the VM; not the files of one that was evacuated from here.

        Nova destroys the VMs of evacuated servers when nova-compute starts, also while the
        evacuation may yet be refused, and where the server never left, or came back, since the
        other host's nova-compute died in the evacuation.

        :raises nova.exception.InstanceFaultRollback: for the revert of a resize, where the cluster
            moved the VM from here to another node since.
        """
        if marks.is_marked(instance) and instance.task_state == task_states.RESIZE_REVERTING:
            with self._told(instance, _rollback_to_here):
                self._require(Operation.REVERT, {
                    Condition.NO_FAILOVER: lambda: "" if self._is_elsewhere(instance) else None})
        if not marks.is_marked(instance) or not self._has_vm(instance):
            super().destroy(context, instance, network_info, block_device_info, destroy_disks,
                            **kwargs)
        elif instance.task_state in _EVACUATING and not self._is_rebuilt_here(instance):
            LOG.warning("The server is being evacuated: its VM stays on this host until that is "
                        "done and nova-compute starts again", instance=instance)
        elif self._is_elsewhere(instance) and not instance.deleted:
            LOG.info("The server was evacuated to %s, with its VM's files", instance.host,
                     instance=instance)
            with self._definition_files(instance).kept():
                super().destroy(context, instance, network_info, block_device_info, False,
                                **kwargs)
        elif self._is_taken_for_evacuated(context, instance):
            LOG.warning("Nova takes the server for one that was evacuated from this host, because "
                        "of an evacuation that was never finished; it is here, and its VM stays",
                        instance=instance)
        else:
            super().destroy(context, instance, network_info, block_device_info, destroy_disks,
                            **kwargs)

    def init_host(self, host: str) -> None:
        """The stock driver's start.

        :param host: this host, as Nova calls it.
        """
        self._host_name = host
        definition_files.put_back_left_copies(self._vmops._pathutils.get_instances_dir(), host)
        super().init_host(host)

    def instance_exists(self, instance: Any) -> bool:
        """Whether its VM is here; not for an evacuation, which goes on with the VM.

        It is that of an evacuation to this host in whose middle nova-compute died. Nova asks here
        before it moves the server's ports to this host.

        :raises nova.exception.InstanceFaultRollback: when the evacuation is refused.
        """
        if self._is_evacuated_to_here(instance) and marks.is_marked(instance):
            if self._is_imported_next(instance):
                # Asked for each of its volumes: that it is not refused is decided.
                return False
            with self._told(instance, _rollback_to_here):
                self.require_evacuation(instance)
            return False
        return super().instance_exists(instance)

    def _is_evacuated_to_here(self, instance: Any) -> bool:
        return instance.task_state in _EVACUATING and self._is_elsewhere(instance)

    def _is_elsewhere(self, instance: Any) -> bool:
        """Whether Nova has it on another host, to which it was not migrated live just now."""
        return (instance.host != self._host_name
                and instance.task_state != task_states.MIGRATING)

    def _is_imported_next(self, instance: Any) -> bool:
        """Whether an evacuation to here is not refused, and its VM not imported yet."""
        raise NotImplementedError

    def _is_taken_for_evacuated(self, context: Any, instance: Any) -> bool:
        """Whether Nova destroys the VM for an evacuation alone, of a server that it has here."""
        if instance.task_state in _DESTROYING or self._is_rebuilt_here(instance) \
                or instance.deleted or instance.vm_state == vm_states.SOFT_DELETED:
            return False
        return bool(objects.MigrationList.get_by_filters(context.elevated(), {
            "instance_uuid": instance.uuid, "source_compute": self._host_name,
            "migration_type": "evacuation", "status": list(_UNFINISHED_EVACUATION)}))

    def _is_rebuilt_here(self, instance: Any) -> bool:
        """Whether it is a rebuild for which the VM is to be destroyed."""
        raise NotImplementedError

    def _require_next_start(self, instance: Any) -> None:
        """Look before a server is stopped that is to start again at once.

        :raises vtpm_compute.errors.StartError: when its host will hardly start it.
        """
        if marks.is_marked(instance):
            doubt = self._vmops.vtpm.doubt_of_start(instance.name)
            if doubt is not None:
                raise errors.StartError(doubt)

    @contextlib.contextmanager
    def own_disk(self, instance: Any) -> Iterator[None]:
        """Undo what an interrupted rescue left, and let the server's VM start.

        Its files go when that has not failed: an evacuation that fails imports the VM once more.

        :raises vtpm_compute.errors.VtpmError: when Hyper-V refuses it, or the VM runs from the
            rescue disk and could not be started again.
        """
        disk = root_disk.RootDisk(self._vmops, instance)
        if not marks.is_marked(instance) or not self._has_vm(instance) \
                or not disk.is_out_of_place():
            yield
            return
        # What a rebuild was making when nova-compute died has neither its disk nor its TPM yet.
        self._vmops.vtpm.require_attached(instance.name)
        if not self._is_off(instance):
            self._require_next_start(instance)
            self._vmops.power_off(instance)
        disk.put_back()
        yield
        disk.remove_rescue_files()

    def require_own_image(self, context: Any, instance: Any) -> None:
        """After a rebuild that never came to the VM, give the server its image back for a move.

        :raises vtpm_compute.errors.OperationRefusedError: when Glance could not be asked for it.
        """
        built_image.restore(context, instance)
        if built_image.is_other(instance):
            raise errors.OperationRefusedError(_ASK_AGAIN)

    def _lacks_image(self, context: Any, instance: Any, dest: str) -> str | None:
        """Whether the other host could not get, and has not, what the server's disk is based on."""
        base = root_disk.RootDisk(self._vmops, instance).base()
        if base is None:
            return None
        reason = _unreadable(context, instance)
        paths = self._vmops._pathutils
        # Another host's file: looked for last, as it waits for a host that does not answer.
        if reason is None or paths.exists(paths.get_remote_path(dest, base)):
            return None
        return reason

    def _checkpoint(self, instance: Any) -> str | None:
        return "" if root_disk.RootDisk(self._vmops, instance).has_checkpoint() else None

    def _lacks_own_disk(self, instance: Any) -> str | None:
        return "" if root_disk.RootDisk(self._vmops, instance).may_stay_behind() else None

    def _is_off(self, instance: Any) -> bool:
        return bool(self._vmops._vmutils.get_vm_state(instance.name)
                    == os_win_constants.HYPERV_VM_STATE_DISABLED)

    def _has_vm(self, instance: Any) -> bool:
        return self._vmops._vmutils.vm_exists(instance.name)

    def _definition_files(self, instance: Any) -> definition_files.DefinitionFiles:
        return definition_files.DefinitionFiles(
            self._vmops._pathutils.get_instance_dir(instance.name, create_dir=False),
            self._host_name)

    def _definition_away(self, instance: Any) -> str | None:
        if self._has_vm(instance):
            # Of an earlier try, in whose middle nova-compute died; else, who knows whose TPM.
            return self._misplaced(instance)
        problem = self._definition_files(instance).problem()
        if problem is None:
            return None
        LOG.warning("The VM cannot be imported: %s", problem, instance=instance)
        return ""

    # Looking, and telling.

    def _require(self, operation: Operation,
                 checks: Mapping[Condition, Check] = MappingProxyType({})) -> None:
        """Look at what must hold for an operation, up to the first that does not.

        :raises vtpm_compute.errors.OperationRefusedError: when it is refused.
        """
        unmet: dict[Condition, str] = {}
        for condition in lifecycle.RULES[operation][self.KIND].conditions:
            found = checks[condition]()
            if found is not None:
                unmet[condition] = found
                break
        reason = lifecycle.decide(operation, self.KIND, unmet)
        if reason is not None:
            raise errors.OperationRefusedError(reason)

    @contextlib.contextmanager
    def _told(self, instance: Any,
              as_nova: Callable[[str], Exception] = lambda reason: ServerOperationError(
                  reason=reason)) -> Iterator[None]:
        """Turn this package's errors into one of Nova's.

        :param as_nova: makes it of the reason.
        """
        try:
            yield
        except errors.VtpmError as exc:
            LOG.warning("%s", exc, instance=instance)
            raise as_nova(str(exc)) from exc

    @contextlib.contextmanager
    def _shown_to_user(self, context: Any, instance: Any, name: str) -> Iterator[None]:
        """Tell of an error in an event of its own, where Nova's own takes it for none.

        :param name: of the event, which is there with an error alone.
        """
        try:
            with self._told(instance):
                yield
        except ServerOperationError:
            with compute_utils.EventReporter(context, name, self._host_name, instance.uuid):
                raise

    def _misplaced(self, instance: Any) -> str | None:
        """Whether the guest state lies elsewhere than where the stock driver copies it from."""
        path = self._vmops.machines.guest_state_file(instance.name)
        if path is None:
            LOG.debug("Windows does not say where the TPM's contents lie", instance=instance)
            return None
        copied = self._vmops._pathutils.get_instance_virtual_machines_dir(instance.name)
        if _same(os.path.dirname(path), copied) and os.path.exists(path):
            return None
        LOG.warning("The TPM's contents are in %s, and the files in %s are copied", path, copied,
                    instance=instance)
        return ""

    def _cannot_unwrap(self, instance: Any) -> str | None:
        return self._vmops.vtpm.other_guardians(instance.name)

    def _unguarded(self) -> str | None:
        misfit = self._vmops.vtpm.misfit()
        if misfit is None:
            return None
        LOG.warning("This host cannot run a vTPM: %s", misfit.sentence)
        return ""

    def _other_fabric(self, instance: Any) -> str | None:
        misfit = self._vmops.vtpm.misfit(marks.fabric_of(instance))
        if misfit is None:
            return None
        LOG.warning("This host cannot run the server's vTPM: %s", misfit.sentence,
                    instance=instance)
        return ""


@contextlib.contextmanager
def _state_kept(instance: Any) -> Iterator[None]:
    """Where its block raises, the server keeps the state that Nova is about to take from it."""
    with contextlib.ExitStack() as undo:
        undo.callback(refused_rescue.put_state_back_later, instance)
        yield
        undo.pop_all()


def require_config_drive(instance: Any) -> None:
    """Look whether a VM of Generation 2 takes the config drive that is made for a server, if any.

    Both stock drivers hear of it from Hyper-V, when the VM is half made, or stopped for a rescue.

    :raises vtpm_compute.errors.HostUnfitError: when it does not.
    """
    if configdrive.required_by(instance) and not CONF.hyperv.config_drive_cdrom:
        raise errors.HostUnfitError(
            "The host makes config drives as VHDs, which no VM of Generation 2 takes. Boot the "
            "server without one, or tell the administrator ([hyperv] config_drive_cdrom = true).")


def _unreadable(context: Any, instance: Any) -> str | None:
    """Why the data of a server's image cannot be had from Glance, as a :data:`Check` says it."""
    try:
        status = glance.API().get(context, instance.image_ref)["status"]
    except built_image.GONE as exc:
        status = str(exc)
    # Of glanceclient, keystoneauth and Nova.
    except Exception as exc:  # noqa: BLE001
        LOG.warning("Glance could not be asked for image %s: %s", instance.image_ref, exc,
                    instance=instance)
        return _ASK_AGAIN
    if status == _ACTIVE:
        return None
    LOG.warning("The server's image %s cannot be read: %s", instance.image_ref, status,
                instance=instance)
    return ""


def _pre_check_error(reason: str) -> nova_exception.MigrationPreCheckError:
    return nova_exception.MigrationPreCheckError(reason=reason)


def _rollback_to_here(reason: str) -> nova_exception.InstanceFaultRollback:
    return nova_exception.InstanceFaultRollback(
        inner_exception=ServerOperationError(reason=reason))


def _other_request(decided: policy.VtpmRequest | policy.Refusal) -> str | None:
    """Why a flavor is refused; None: it is not."""
    return decided.sentence if isinstance(decided, policy.Refusal) else None


def _same(one: str, other: str) -> bool:
    return os.path.normcase(os.path.abspath(one)) == os.path.normcase(os.path.abspath(other))
