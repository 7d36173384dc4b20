"""Gives a new virtual machine its vTPM: the steps, in order.

Everything that can be refused is refused by :meth:`Vtpm.prepare`, before the virtual machine is
defined. :meth:`Vtpm.attach` then acts, after it is defined and before it starts.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from oslo_log import log as logging

from vtpm_compute import (
    errors,
    fabric_guardian,
    guardians,
    host_report,
    key_material,
    key_protector,
    keys,
    protector_maker,
    security,
)
from vtpm_scheduling import policy

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PreparedVtpm:
    """What a virtual machine is to get.

    :ivar protector: its key protector; None where compute-hyperv's own flow brings it.
    :ivar shielded: whether it is to be shielded.
    :ivar fabric_thumbprint: the fabric it will belong to.
    """

    protector: bytes | None = dataclasses.field(repr=False)
    shielded: bool
    fabric_thumbprint: str


class Vtpm:
    """The vTPMs of this host.

    :param key_source: where keys are read.
    :param guardian_client: of this host's Host Guardian Service client.
    :param fabric: finds the fabric's guardian.
    :param maker: makes key protectors.
    :param security_service: of this host's virtual machines.
    :param allow_owner_keys: whether owners' private keys are taken.
    :param refuse_wrong_signatures: whether a wrong signature in what a tenant gives is an error;
        else it is logged, and Windows has the last word.
    :ivar narrowed: takes from this host's report what its surroundings do not allow.
    """

    narrowed: Callable[[policy.HostReport], policy.HostReport]

    def __init__(self, key_source: keys.KeySource,
                 guardian_client: guardians.HostGuardianClient,
                 fabric: fabric_guardian.FabricGuardian,
                 maker: protector_maker.ProtectorMaker,
                 security_service: security.SecurityService,
                 allow_owner_keys: bool, refuse_wrong_signatures: bool = True) -> None:
        self._keys = key_source
        self._guardians, self._fabric, self._maker = guardian_client, fabric, maker
        self._security = security_service
        self._allow_owner_keys = allow_owner_keys
        self._refuse_wrong_signatures = refuse_wrong_signatures
        self.narrowed = lambda report: report

    def clean_up(self) -> None:
        """Remove what a process that was killed may have left on the host.

        What cannot be removed is logged: it must not keep nova-compute from serving its servers.
        """
        try:
            self._maker.remove_leftovers()
        except errors.HostGuardianError as exc:
            LOG.error("%s", exc)

    def report(self, hypervisor_version: int) -> policy.HostReport:
        """What this host offers now; see :func:`vtpm_compute.host_report.read`."""
        return self.narrowed(self._state(hypervisor_version))

    def _state(self, hypervisor_version: int = policy.MIN_HYPERVISOR_VERSION) -> policy.HostReport:
        """What this host can do now, whether it offers it or not."""
        return host_report.read(self._guardians, self._fabric, hypervisor_version)

    def prepare(self, context: Any, request: policy.VtpmRequest,
                hypervisor_version: int) -> PreparedVtpm:
        """Check everything and get the key protector; changes nothing on the host.

        :param context: the user's request context, to read the keys with.
        :param request: what the policy decided; it has a vTPM.
        :param hypervisor_version: Nova's integer, of this host.
        :raises vtpm_compute.errors.HostUnfitError: when this host cannot run it now.
        :raises vtpm_compute.errors.KeyFetchError: when a key cannot be read.
        :raises vtpm_compute.errors.KeyProtectorError: when the keys are no protector for this
            fabric.
        :raises vtpm_compute.errors.HostGuardianError: when a protector cannot be made here.
        """
        report = self.report(hypervisor_version)
        # The scheduler looked at a report that is up to a minute old. Aggregates are its affair.
        unfit = policy.misfit(policy.HostFacts(policy.HYPERV, hypervisor_version, report),
                              require_fabric_aggregate=False)
        fabric = report.fabric_thumbprint
        if unfit is not None or fabric is None:
            LOG.warning("This host was chosen for a vTPM, but %s",
                        unfit.sentence if unfit else "it has no fabric")
            code = unfit.code if unfit else policy.MisfitCode.NO_FABRIC_GUARDIAN
            raise errors.HostUnfitError(
                "The host that was chosen cannot run a vTPM: %s. Try again; tell the "
                "administrator if it lasts." % policy.for_tenants(code))
        return PreparedVtpm(protector=self._protector(context, request, fabric),
                            shielded=request.shielded, fabric_thumbprint=fabric)

    def _protector(self, context: Any, request: policy.VtpmRequest, fabric: str) -> bytes | None:
        if request.uses_pdk:
            return None
        if not request.keys:
            if request.shielded:
                raise errors.RequestRefusedError(
                    "A shielded VM needs its owner's key protector, and image property %s is not "
                    "set." % policy.IMAGE_KEYS)
            return self._made(key_material.Ingredients(owner=None, guardians=()), fabric)
        secrets = self._keys.fetch(context, request.keys)
        material = key_material.read(
            secrets, policy.IMAGE_KEYS, self._allow_owner_keys, request.shielded,
            self._refuse_wrong_signatures)
        if isinstance(material, key_material.Ingredients):
            return self._made(material, fabric)
        material.require_guardian(fabric, policy.IMAGE_KEYS)
        _log(material, "given in %d secret%s" % (len(secrets), "s" if len(secrets) > 1 else ""))
        return material.raw

    def _made(self, ingredients: key_material.Ingredients, fabric: str) -> bytes:
        for guardian in ingredients.guardians:
            for warning in guardian.warnings:
                LOG.warning("Guardian metadata: %s", warning)
        raw = self._make(ingredients, fabric)
        try:
            parsed = key_protector.parse([raw], "the host", refuse_wrong_signatures=False)
        except errors.KeyProtectorError as exc:
            # Windows made it a moment ago, for these guardians: it knows the form better.
            LOG.warning("The key protector that Windows made is used unchecked: %s", exc)
            return raw
        parsed.require_guardian(fabric, "the host")
        _log(parsed, "made on this host")
        return parsed.raw

    def _make(self, ingredients: key_material.Ingredients, fabric: str) -> bytes:
        guardian = self._fabric.find()
        if guardian.thumbprint != fabric:
            raise errors.HostGuardianError(
                "The fabric's guardian on the host changed meanwhile. Try again.")
        fabric_guardian.require_valid(guardian)
        raw = self._maker.make(guardian, ingredients.owner, ingredients.guardians)
        if key_protector.is_unset(raw):
            raise errors.HostGuardianError("Windows made an empty key protector.")
        return raw

    def attach(self, vm_name: str, prepared: PreparedVtpm) -> None:
        """Give a virtual machine that was just defined its protector and its vTPM.

        The protector is set once, on a new virtual machine: Hyper-V replaces it at each start, and
        the old one set again would make the TPM's state unreadable.

        :param vm_name: name of the virtual machine, which is off.
        :raises vtpm_compute.errors.AttachError: when Hyper-V refuses a step, or the result is not
            what was asked for. The caller destroys the virtual machine.
        """
        if prepared.protector is None:
            raise ValueError("compute-hyperv's own flow attaches this one")
        if not key_protector.is_unset(self._security.read_key_protector(vm_name)):
            raise errors.AttachError(
                "The virtual machine already has a key protector: setting another would lose its "
                "TPM. Nothing was changed.")
        self._security.set_key_protector(vm_name, prepared.protector)
        self._security.enable_vtpm(vm_name, prepared.shielded)
        settings = self._security.read(vm_name)
        if not (settings.tpm_enabled and settings.encrypted) or \
                settings.shielded != prepared.shielded:
            raise errors.AttachError(
                "Hyper-V took the vTPM's settings, but reads back %s." % settings)
        if self._security.read_key_protector(vm_name) != prepared.protector:
            raise errors.AttachError("Hyper-V took the key protector, but reads back another one.")

    def require_attached(self, vm_name: str) -> None:
        """See that a virtual machine of a server with a vTPM has it.

        :raises vtpm_compute.errors.StartError: when it has none: nova-compute was killed before
            it attached it. The guest must not run without.
        :raises vtpm_compute.errors.AttachError: when its settings cannot be read.
        """
        if not self._security.read(vm_name).tpm_enabled:
            raise errors.StartError(
                "The server's virtual machine has no TPM: it was not built to its end. Rebuild "
                "the server.")

    def misfit(self, fabric_thumbprint: str | None = None) -> policy.Misfit | None:
        """Why this host, which runs Hyper-V 10.0 or later, cannot run a vTPM now; None: it can.

        :param fabric_thumbprint: of the fabric that a server belongs to; None: any will do.
        """
        version = policy.MIN_HYPERVISOR_VERSION
        home = policy.Home(fabric_thumbprint) if fabric_thumbprint else None
        return policy.misfit(policy.HostFacts(policy.HYPERV, version, self.report(version)), home,
                             require_fabric_aggregate=False)

    def doubt_of_start(self, vm_name: str) -> str | None:
        """Why this host will hardly unwrap a virtual machine's key protector; None: no doubt.

        Only a doubt: a Host Guardian Service may still have the keys of a guardian that is the
        fabric's no more.

        :returns: a sentence, for the user: what is wrong, and what an administrator can do.
        """
        report = self._state()
        if not report.guarded:
            return ("This host cannot unwrap the server's key protector: %s. The server can start "
                    "when the host is guarded again, or on another host of its fabric."
                    % policy.attestation_meaning(report.attestation_status))
        return self.other_guardians(vm_name)

    def other_guardians(self, vm_name: str) -> str | None:
        """Who can unwrap a virtual machine's key protector where the fabric's guardian cannot.

        :returns: a sentence, for the user, with what an administrator can do; None where the
            fabric's guardian is among them, or where it is not known.
        """
        fabric = self._state().fabric_thumbprint
        found = self._guardians_of(vm_name)
        if fabric is None or found is None or any(one.thumbprint == fabric for one in found):
            return None
        return errors.fitted(
            "%s is not in the server's key protector, which names %s. %s",
            "This host's guardian (%s...)" % fabric[:8],
            ", ".join("%s (%s...)" % (_short_name(one), one.thumbprint[:8]) for one in found),
            "Give the HGS a certificate of these (Add-HgsKeyProtectionCertificate).")

    def _guardians_of(self, vm_name: str) -> tuple[key_protector.Guardian, ...] | None:
        """Who can unwrap a virtual machine's key protector; None where that cannot be read."""
        try:
            raw = self._security.read_key_protector(vm_name)
            return key_protector.parse(
                [raw], "the server", refuse_wrong_signatures=False).guardians
        except (errors.AttachError, errors.KeyProtectorError) as exc:
            LOG.warning("Who can unwrap the key protector of %s is not known: %s", vm_name, exc)
            return None


def _short_name(guardian: key_protector.Guardian) -> str:
    """Without what Windows writes around the name of a guardian that it makes."""
    return re.sub(r"^Shielded VM Encryption Certificate \((.*)\)$", r"\1", guardian.name)


def _log(protector: key_protector.KeyProtector, made: str) -> None:
    LOG.info("Key protector %s: %s", made, protector.summary())
    for warning in protector.warnings:
        LOG.warning("Key protector %s: %s", made, warning)
