"""The driver nova-compute loads: compute-hyperv's, with vTPMs.

``compute_driver = vtpm_hyperv.HyperVDriver`` in nova.conf. Knows Nova's objects and turns this
package's errors into Nova's; what happens to a virtual machine is in :mod:`vtpm_compute.vtpm`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import nova.conf
from compute_hyperv.nova import driver as hyperv_driver
from compute_hyperv.nova import vmops as hyperv_vmops
from nova import exception as nova_exception
from nova.compute import task_states
from os_win import exceptions as os_win_exceptions
from oslo_log import log as logging

from vtpm_compute import (
    conf,
    errors,
    fabric_guardian,
    guardians,
    host_report,
    key_protection_server,
    keys,
    private_folders,
    protector_maker,
    security,
    vtpm,
)
from vtpm_scheduling import policy

CONF = nova.conf.CONF
conf.register_opts(CONF)
LOG = logging.getLogger(__name__)


class VMOps(hyperv_vmops.VMOps):
    """compute-hyperv's VM operations; attaches the vTPM that was prepared for an instance."""

    def __init__(self, virtapi: Any = None) -> None:
        super().__init__(virtapi)
        self.vtpm = _make_vtpm(CONF.vtpm_compute, security.SecurityService(self._vmutils))
        self._prepared: dict[str, vtpm.PreparedVtpm] = {}

    @contextlib.contextmanager
    def prepared(self, instance: Any, prepared: vtpm.PreparedVtpm) -> Iterator[None]:
        """While this lasts, a virtual machine defined for the instance gets this vTPM."""
        self._prepared[instance.uuid] = prepared
        try:
            yield
        finally:
            del self._prepared[instance.uuid]

    def _configure_secure_vm(self, context: Any, instance: Any, image_meta: Any,
                             secure_boot_enabled: bool) -> None:
        """Called by compute-hyperv after the VM is defined, before it starts."""
        prepared = self._prepared.get(instance.uuid)
        if prepared is None:
            # The policy gave this instance no vTPM; compute-hyperv would read the image alone.
            return
        if prepared.protector is None:
            super()._configure_secure_vm(context, instance, image_meta, secure_boot_enabled)
        else:
            if not secure_boot_enabled:
                LOG.warning("The vTPM is attached without Secure Boot: the guest's boot loader "
                            "is not verified", instance=instance)
            self.vtpm.attach(instance.name, prepared)
            LOG.info("The vTPM is attached", instance=instance)
        _mark(instance, prepared)

    def power_on(self, instance: Any, *args: Any, **kwargs: Any) -> None:
        """Start the VM; at the first start with a vTPM, a failure names the cause."""
        try:
            super().power_on(instance, *args, **kwargs)
        except (os_win_exceptions.OSWinException, os_win_exceptions.x_wmi) as exc:
            if instance.uuid not in self._prepared:
                raise
            raise errors.AttachError(
                "The virtual machine, which has a vTPM, does not start: %s" % exc) from exc


class HyperVDriver(hyperv_driver.HyperVDriver):
    """compute-hyperv's standalone driver with vTPMs."""

    # compute-hyperv 16 does Secure Boot, and does not say so as Nova's own driver does: since
    # nova 23 the scheduler asks placement for it, and would find no host for a shielded VM.
    capabilities = dict(hyperv_driver.HyperVDriver.capabilities, supports_secure_boot=True)

    def __init__(self, virtapi: Any) -> None:
        super().__init__(virtapi)
        self._vmops = VMOps(virtapi)
        # Each of these made a VMOps of its own.
        for operations in (self._hostops, self._livemigrationops, self._migrationops,
                           self._event_handler):
            operations._vmops = self._vmops
        # What the VMs of rebuilds under way will get, by instance; None: no vTPM.
        self._rebuilds: dict[str, vtpm.PreparedVtpm | None] = {}

    def init_host(self, host: str) -> None:
        """compute-hyperv's start; removes what an earlier process may have left."""
        super().init_host(host)
        if self._hostops._get_hypervisor_version() >= policy.MIN_HYPERVISOR_VERSION:
            self._vmops.vtpm.clean_up()

    def spawn(self, context: Any, instance: Any, image_meta: Any, injected_files: Any,
              admin_password: Any, allocations: Any, *args: Any, **kwargs: Any) -> None:
        """Build the server; one that asks for a vTPM starts with it, or not at all.

        :raises nova.exception.BuildAbortException: when the vTPM is refused, with the reason. Any
            other exception would make Nova try other hosts and drop the reason.
        """
        def build() -> None:
            super(HyperVDriver, self).spawn(context, instance, image_meta, injected_files,
                                            admin_password, allocations, *args, **kwargs)

        with contextlib.ExitStack() as undo:
            if policy.MARK_VTPM not in instance.system_metadata:
                # Whatever fails: Nova may try the next host with this very instance.
                undo.callback(_unmark, instance)
            prepared: vtpm.PreparedVtpm | None = None
            try:
                if instance.uuid in self._rebuilds:
                    prepared = self._rebuilds.pop(instance.uuid)
                else:
                    _refuse_existing(instance)
                    prepared = self._prepare(context, instance)
                if prepared is None:
                    # It may have had one: a rebuild with an image that asks for none.
                    _unmark(instance)
                    build()
                else:
                    with self._vmops.prepared(instance, prepared):
                        build()
            except errors.VtpmError as exc:
                LOG.warning("The server is not built: %s", exc, instance=instance)
                raise _abort(instance, str(exc)) from exc
            except nova_exception.InstanceUnacceptable as exc:
                if prepared is None:
                    raise
                # compute-hyperv refuses it, as it would on every other host.
                raise _abort(instance, exc.format_message()) from exc
            undo.pop_all()

    def rebuild(self, context: Any, instance: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse a rebuild or an evacuation before Nova changes anything; else leave it to Nova.

        :raises NotImplementedError: when nothing speaks against it. Nova then destroys the VM
            (not for an evacuation) and spawns it anew.
        :raises nova.exception.InstanceFaultRollback: when it is refused; the server stays as it
            was, and its fault says why.
        """
        try:
            if kwargs.get("evacuate"):
                # The VM, with its TPM, may still be on the other host.
                _refuse_existing(instance)
            else:
                self._rebuilds[instance.uuid] = self._prepare(context, instance)
        except errors.VtpmError as exc:
            LOG.warning("The server is left as it is: %s", exc, instance=instance)
            raise nova_exception.InstanceFaultRollback(
                inner_exception=_abort(instance, str(exc))) from exc
        raise NotImplementedError()

    def destroy(self, context: Any, instance: Any, *args: Any, **kwargs: Any) -> None:
        """Destroy the VM; what was prepared for a rebuild that failed is forgotten."""
        if instance.task_state != task_states.REBUILDING:
            self._rebuilds.pop(instance.uuid, None)
        super().destroy(context, instance, *args, **kwargs)

    def _prepare(self, context: Any, instance: Any) -> vtpm.PreparedVtpm | None:
        """Decide again on the host itself, and get what the VM needs; None: no vTPM."""
        request = policy.decide(policy.image_properties_of(instance.system_metadata),
                                instance.flavor.extra_specs or {})
        if isinstance(request, policy.Refusal):
            raise errors.RequestRefusedError(request.sentence)
        if not request.vtpm:
            return None
        return self._vmops.vtpm.prepare(
            context, request, self._hostops._get_hypervisor_version())

    def get_available_resource(self, nodename: str) -> dict[str, Any]:
        """compute-hyperv's resources, with the host's report among the stats."""
        resources: dict[str, Any] = super().get_available_resource(nodename)
        report = self._vmops.vtpm.report(resources["hypervisor_version"])
        resources["stats"] = dict(resources.get("stats") or {}, **report.to_stats())
        return resources

    def update_provider_tree(self, provider_tree: Any, nodename: str,
                             allocations: Any = None) -> None:
        """compute-hyperv's inventory, with the host's traits."""
        super().update_provider_tree(provider_tree, nodename, allocations=allocations)
        host_report.update_traits(
            provider_tree, nodename,
            self._vmops.vtpm.report(self._hostops._get_hypervisor_version()))


def _make_vtpm(section: Any, security_service: security.SecurityService) -> vtpm.Vtpm:
    """:param section: the options of ``[vtpm_compute]``."""
    client = guardians.HostGuardianClient()
    folders = private_folders.PrivateFolders(section.scratch_path)
    read_metadata = functools.partial(
        key_protection_server.read_metadata, seconds=section.timeout,
        verify=not section.insecure and (section.cafile or True))
    fabric = fabric_guardian.FabricGuardian(
        client, folders, read_metadata, section.fabric_guardian, section.fabric_thumbprint)
    return vtpm.Vtpm(
        keys.KeySource(CONF), client, fabric, protector_maker.ProtectorMaker(client, folders),
        security_service, section.allow_owner_keys, section.refuse_wrong_signatures)


def _abort(instance: Any, reason: str) -> nova_exception.BuildAbortException:
    return nova_exception.BuildAbortException(instance_uuid=instance.uuid, reason=reason)


def _refuse_existing(instance: Any) -> None:
    """:raises vtpm_compute.errors.ExistingVtpmError: when the instance has a vTPM."""
    if policy.MARK_VTPM in instance.system_metadata:
        raise errors.ExistingVtpmError(
            "The server has a vTPM, and this would give it a new and empty one. Nothing was "
            "changed.")


def _mark(instance: Any, prepared: vtpm.PreparedVtpm) -> None:
    instance.system_metadata[policy.MARK_VTPM] = "shielded" if prepared.shielded else "vtpm"
    instance.system_metadata[policy.MARK_FABRIC] = prepared.fabric_thumbprint
    instance.save()


def _unmark(instance: Any) -> None:
    present = [key for key in (policy.MARK_VTPM, policy.MARK_FABRIC)
               if key in instance.system_metadata]
    for key in present:
        del instance.system_metadata[key]
    if present:
        instance.save()
