"""What a driver's VM operations (``VMOps``) do for vTPMs, whichever stock driver they belong to."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import nova.conf
from os_win import constants as os_win_constants
from os_win import exceptions as os_win_exceptions
from oslo_log import log as logging

from vtpm_compute import (
    conf,
    errors,
    fabric_guardian,
    guardians,
    key_protection_server,
    keys,
    marks,
    private_folders,
    protector_maker,
    security,
    virtual_machines,
    vtpm,
)

CONF = nova.conf.CONF
conf.register_opts(CONF)
LOG = logging.getLogger(__name__)
# Those in which a VM is started.
_STARTS = (os_win_constants.HYPERV_VM_STATE_ENABLED, os_win_constants.HYPERV_VM_STATE_REBOOT)
# Its base is a stock driver's VMOps, in each subclass that of another one.
_StockVMOps: Any = object


class VtpmVMOps(_StockVMOps):
    """Put before a stock VMOps; attaches the vTPM that was prepared for an instance.

    A subclass calls :meth:`attach_prepared` where its stock VMOps has defined a VM and has not
    started it yet.

    :ivar vtpm: the vTPMs of this host.
    :ivar machines: its virtual machines, beside what os-win does with them.
    """

    def __init__(self, virtapi: Any = None) -> None:
        super().__init__(virtapi)
        self.vtpm = _make_vtpm(CONF.vtpm_compute, security.SecurityService(self._vmutils))
        self.machines = virtual_machines.VirtualMachines(self._vmutils)
        self._prepared: dict[str, vtpm.PreparedVtpm] = {}

    @contextlib.contextmanager
    def prepared(self, instance: Any, prepared: vtpm.PreparedVtpm) -> Iterator[None]:
        """While this lasts, a virtual machine defined for the instance gets this vTPM."""
        self._prepared[instance.uuid] = prepared
        try:
            yield
        finally:
            del self._prepared[instance.uuid]

    def prepared_for(self, instance: Any) -> vtpm.PreparedVtpm | None:
        """What the instance's VM, which is being built, is to get; None: no vTPM."""
        return self._prepared.get(instance.uuid)

    def attach_prepared(self, instance: Any, secure_boot_enabled: bool) -> None:
        """Give the instance's VM, which was just defined, what was prepared for it.

        :raises vtpm_compute.errors.AttachError: when Hyper-V refuses it.
        """
        prepared = self.prepared_for(instance)
        if prepared is None:
            return
        if not secure_boot_enabled:
            LOG.warning("The vTPM is attached without Secure Boot: the guest's boot loader is not "
                        "verified", instance=instance)
        self.vtpm.attach(instance.name, prepared)
        LOG.info("The vTPM is attached", instance=instance)

    def power_on(self, instance: Any, *args: Any, **kwargs: Any) -> None:
        """Start the VM; at the first start with a vTPM, a failure names the cause."""
        try:
            super().power_on(instance, *args, **kwargs)
        except (os_win_exceptions.OSWinException, os_win_exceptions.x_wmi) as exc:
            if self.prepared_for(instance) is None:
                raise
            raise errors.AttachError(
                "The virtual machine, which has a vTPM, does not start: %s" % exc) from exc

    def _set_vm_state(self, instance: Any, req_state: int) -> None:
        """Change the VM's state; a start that will hardly do is tried once and says why.

        os-win tries each five times, a second apart.

        :raises vtpm_compute.errors.StartError: when it did not start, and there was a doubt; or
            when its vTPM was never attached.
        """
        starts = req_state in _STARTS and marks.is_marked(instance)
        if not starts or self.prepared_for(instance) is not None:
            super()._set_vm_state(instance, req_state)
            return
        if self._vmutils.vm_exists(instance.name):
            # Else the stock driver says that it is missing.
            self.vtpm.require_attached(instance.name)
        doubt = self.vtpm.doubt_of_start(instance.name)
        if doubt is None:
            super()._set_vm_state(instance, req_state)
            return
        try:
            self.machines.change_state_once(instance.name, req_state)
        except errors.StartError as exc:
            LOG.error("%s %s", exc, doubt, instance=instance)
            raise errors.StartError(doubt) from exc


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
