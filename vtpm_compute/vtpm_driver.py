"""What a driver of nova-compute does for servers with vTPMs, whichever stock driver it is.

Knows Nova's objects and turns this package's errors into Nova's; what happens to a virtual machine
is in :mod:`vtpm_compute.vtpm`. Nothing here imports a stock driver: which one is installed is
known to :mod:`vtpm_compute.compute_hyperv_driver` and its like.
"""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

from nova import exception as nova_exception
from nova.compute import task_states, vm_states
from nova.compute import utils as compute_utils
from oslo_log import log as logging

from vtpm_compute import (
    built_image,
    errors,
    host_report,
    lifecycle,
    marks,
    server_life,
    vtpm,
    vtpm_vmops,
)
from vtpm_compute.lifecycle import Operation
from vtpm_scheduling import policy

LOG = logging.getLogger(__name__)


class VtpmDriver(server_life.ServerLife):
    """Put before a stock driver of Hyper-V: builds, rebuilds and reports with vTPMs.

    :cvar VMOPS: the class of the driver's VM operations; a stock VMOps with
        :class:`vtpm_compute.vtpm_vmops.VtpmVMOps` before it.
    :cvar VMOPS_USERS: names of the stock driver's attributes that each made a VMOps of their own.
    """

    VMOPS: ClassVar[type[vtpm_vmops.VtpmVMOps]]
    VMOPS_USERS: ClassVar[tuple[str, ...]]

    def __init__(self, virtapi: Any) -> None:
        super().__init__(virtapi)
        self._vmops = self.VMOPS(virtapi)
        for name in self.VMOPS_USERS:
            getattr(self, name)._vmops = self._vmops
        # What the VMs of rebuilds under way will get, by instance; None: no vTPM.
        self._rebuilds: dict[str, vtpm.PreparedVtpm | None] = {}
        # Instances with a vTPM whose evacuations to this host are under way.
        self._evacuations: set[str] = set()

    def init_host(self, host: str) -> None:
        """The stock driver's start; removes what an earlier process may have left."""
        super().init_host(host)
        if self._hypervisor_version() >= policy.MIN_HYPERVISOR_VERSION:
            self._vmops.vtpm.clean_up()

    def spawn(self, context: Any, instance: Any, image_meta: Any, injected_files: Any,
              admin_password: Any, allocations: Any, network_info: Any = None,
              block_device_info: Any = None, *args: Any, **kwargs: Any) -> None:
        """Build the server; one that asks for a vTPM starts with it, or not at all.

        :raises nova.exception.BuildAbortException: when the vTPM is refused, with the reason. Any
            other exception would make Nova try other hosts and drop the reason.
        """
        def build() -> None:
            super(VtpmDriver, self).spawn(
                context, instance, image_meta, injected_files, admin_password, allocations,
                network_info, block_device_info, *args, **kwargs)

        if instance.uuid in self._evacuations:
            self._evacuations.remove(instance.uuid)
            self._import(context, instance, image_meta, network_info, block_device_info)
            return

        with contextlib.ExitStack() as undo:
            if not marks.is_marked(instance):
                undo.callback(self._unmark, instance)
            prepared: vtpm.PreparedVtpm | None = None
            is_rebuilt = instance.task_state == task_states.REBUILD_SPAWNING
            try:
                if is_rebuilt and instance.uuid in self._rebuilds:
                    prepared = self._rebuilds.pop(instance.uuid)
                else:
                    self._refuse_existing(instance)
                    if not _was_built_without_vtpm(instance):
                        prepared = self._prepare(context, instance)
                if prepared is None:
                    # It may have had one: a rebuild with an image that asks for none.
                    marks.unmark(instance)
                    build()
                else:
                    # Before there is a VM: where this process is killed, none starts without it.
                    marks.mark(instance, prepared.shielded, prepared.fabric_thumbprint)
                    with self._vmops.prepared(instance, prepared):
                        build()
            except errors.VtpmError as exc:
                LOG.warning("The server is not built: %s", exc, instance=instance)
                raise abort(instance, str(exc)) from exc
            except nova_exception.InstanceUnacceptable as exc:
                if prepared is None:
                    raise
                # The stock driver refuses it, as it would on every other host.
                raise abort(instance, exc.format_message()) from exc
            if is_rebuilt or instance.vm_state == vm_states.BUILDING:
                built_image.remember(instance)
            undo.pop_all()

    def _unmark(self, instance: Any) -> None:
        """Whatever failed: Nova may try the next host with this very instance.

        Nova destroys what it built anew, but not what it rebuilt.
        """
        if instance.vm_state == vm_states.BUILDING or not self._has_vm(instance):
            marks.unmark(instance)

    def rebuild(self, context: Any, instance: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse a rebuild or an evacuation before Nova changes anything; else leave it to Nova.

        :raises NotImplementedError: when nothing speaks against it. Nova then destroys the VM
            (not for an evacuation) and spawns it anew.
        :raises nova.exception.InstanceFaultRollback: when it is refused; the server stays as it
            was, and its fault says why.
        """
        try:
            self._evacuations.discard(instance.uuid)
            # Of one that ended before it came to the new VM.
            self._rebuilds.pop(instance.uuid, None)
            if kwargs.get("evacuate"):
                if marks.is_marked(instance):
                    self.require_own_image(context, instance)
                    self.require_evacuation(instance)
                    self._evacuations.add(instance.uuid)
            else:
                if (marks.is_marked(instance) and not kwargs.get("reimage_boot_volume")
                        and compute_utils.is_volume_backed_instance(
                            context, instance, kwargs.get("bdms"))):
                    self._require(Operation.REBUILD_ON_VOLUME)
                self._rebuilds[instance.uuid] = self._prepare(context, instance)
        except errors.VtpmError as exc:
            LOG.warning("The server is left as it is: %s", exc, instance=instance)
            if not kwargs.get("evacuate"):
                built_image.restore(context, instance, rebuilt=True)
            raise nova_exception.InstanceFaultRollback(
                inner_exception=abort(instance, str(exc))) from exc
        raise NotImplementedError()

    def destroy(self, context: Any, instance: Any, *args: Any, **kwargs: Any) -> None:
        """Destroy the VM; what was prepared for a rebuild that failed is forgotten."""
        if instance.task_state != task_states.REBUILDING:
            self._rebuilds.pop(instance.uuid, None)
        elif instance.uuid in self._rebuilds:
            # Whatever ends the rebuild now, the server is not what it was built as.
            built_image.forget(instance)
        super().destroy(context, instance, *args, **kwargs)

    def _is_imported_next(self, instance: Any) -> bool:
        return instance.uuid in self._evacuations

    def _is_rebuilt_here(self, instance: Any) -> bool:
        return instance.uuid in self._rebuilds

    def _import(self, context: Any, instance: Any, image_meta: Any, network_info: Any,
                block_device_info: Any) -> None:
        try:
            self.import_evacuated(context, instance, image_meta, network_info, block_device_info)
        except errors.VtpmError as exc:
            LOG.error("The server is not evacuated: %s", exc, instance=instance)
            raise abort(instance, str(exc)) from exc

    def _prepare(self, context: Any, instance: Any) -> vtpm.PreparedVtpm | None:
        """Decide again on the host itself, and get what the VM needs; None: no vTPM."""
        request = policy.decide(policy.image_properties_of(instance.system_metadata),
                                instance.flavor.extra_specs or {})
        if isinstance(request, policy.Refusal):
            raise errors.RequestRefusedError(request.sentence)
        if not request.vtpm:
            return None
        server_life.require_config_drive(instance)
        return self._vmops.vtpm.prepare(context, request, self._hypervisor_version())

    def _refuse_existing(self, instance: Any) -> None:
        """:raises vtpm_compute.errors.ExistingVtpmError: when the instance has a vTPM."""
        if marks.is_marked(instance):
            operation = (Operation.UNSHELVE if instance.vm_state == vm_states.SHELVED_OFFLOADED
                         else Operation.CROSS_CELL)
            reason = lifecycle.decide(operation, self.KIND)
            if reason is not None:
                raise errors.ExistingVtpmError(reason)

    def _hypervisor_version(self) -> int:
        """Nova's integer, of this host."""
        return self._hostops._get_hypervisor_version()

    def get_available_resource(self, nodename: str) -> dict[str, Any]:
        """The stock driver's resources, with the host's report among the stats."""
        resources: dict[str, Any] = super().get_available_resource(nodename)
        report = self._vmops.vtpm.report(resources["hypervisor_version"])
        resources["stats"] = dict(resources.get("stats") or {}, **report.to_stats())
        return resources

    def update_provider_tree(self, provider_tree: Any, nodename: str,
                             allocations: Any = None) -> None:
        """The stock driver's inventory, with the host's traits."""
        super().update_provider_tree(provider_tree, nodename, allocations=allocations)
        host_report.update_traits(
            provider_tree, nodename, self._vmops.vtpm.report(self._hypervisor_version()))


def _was_built_without_vtpm(instance: Any) -> bool:
    """Of a server that is not new; unshelved or in another cell, its image is its snapshot."""
    if instance.vm_state == vm_states.BUILDING:
        return False
    has_snapshot = (instance.vm_state == vm_states.SHELVED_OFFLOADED
                    or instance.task_state == task_states.RESIZE_FINISH)
    image = (instance.system_metadata.get(policy.MARK_BUILT_FROM) if has_snapshot
             else instance.image_ref)
    return policy.is_built_without_vtpm(instance.system_metadata, image)


def abort(instance: Any, reason: str) -> nova_exception.BuildAbortException:
    """Nova's exception for a refusal, whose text becomes the server's fault."""
    return nova_exception.BuildAbortException(instance_uuid=instance.uuid, reason=reason)
