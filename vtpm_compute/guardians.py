"""The Host Guardian Service client of this host: is it guarded, who guards it, make a protector.

WMI namespace ``root/Microsoft/Windows/Hgs`` (Microsoft's reference of the HgsClient provider), over
os-win's connection. Methods are called with keyword arguments only: PyMI sorts positional ones by
name.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence
from typing import Any

from os_win.utils import baseutils
from oslo_log import log as logging

from vtpm_compute import errors, key_protector, windows_errors
from vtpm_scheduling import policy

LOG = logging.getLogger(__name__)

_NAMESPACE = "//./Root/Microsoft/Windows/Hgs"
# Owners that are made here carry this name, so that one that was left behind is recognised.
OWNER_PREFIX = "nova-vtpm-owner-"

@dataclasses.dataclass(frozen=True)
class ClientConfiguration:
    """What MSFT_HgsClientConfiguration says of this host now.

    :ivar guarded: whether attestation is passed and valid.
    :ivar attestation_status: see :class:`vtpm_scheduling.policy.Attestation`.
    """

    guarded: bool
    attestation_status: int


@dataclasses.dataclass(frozen=True)
class Guardian:
    """A guardian in the host's store.

    :ivar name: its name there.
    :ivar thumbprint: SHA-256 of its encryption certificate, lower-case hexadecimal.
    """

    name: str
    thumbprint: str
    handle: Any = dataclasses.field(repr=False, compare=False, default=None)


class HostGuardianClient(baseutils.BaseUtils):
    """The guardian store and the attestation state of the host this process runs on."""

    def read_configuration(self) -> ClientConfiguration:
        """Read the attestation state anew: a host attests at boot and every eight hours.

        :raises vtpm_compute.errors.HostGuardianError: when Windows does not tell.
        """
        def read() -> ClientConfiguration:
            code, settings = self._connection().MSFT_HgsClientConfiguration.Get()
            _check("MSFT_HgsClientConfiguration.Get", code)
            status = int(settings.AttestationStatus or 0)
            return ClientConfiguration(
                guarded=bool(settings.IsHostGuarded) and status == policy.Attestation.PASSED,
                attestation_status=status)
        return windows_errors.translated(
            "The Host Guardian Service client of the host cannot be read",
            errors.HostGuardianError, read)

    def find_guardian(self, name: str) -> Guardian | None:
        """The guardian of that name in the store; None where there is none.

        :raises vtpm_compute.errors.HostGuardianError: when Windows does not tell.
        """
        def find() -> Guardian | None:
            for found in self._connection().MSFT_HgsGuardian(Name=name):
                certificate = bytes(found.EncryptionCertificate or ())
                if not certificate:
                    # Its thumbprint would be that of every other one that Windows does not tell.
                    raise errors.HostGuardianError("guardian %s has no certificate." % name)
                return Guardian(name, key_protector.thumbprint(certificate), found)
            return None
        return windows_errors.translated(
            "The host's guardian store cannot be read",
            errors.HostGuardianError, find)

    def make_protector(self, guardians: Sequence[Guardian]) -> bytes:
        """Make a key protector with a new owner who is removed again.

        :param guardians: those who will be able to unwrap it.
        :returns: its bytes, with their length before them.
        :raises vtpm_compute.errors.HostGuardianError: when Windows refuses a step. Nothing of the
            owner stays in the store.
        """
        owner_name = OWNER_PREFIX + str(uuid.uuid4())

        def make() -> bytes:
            connection = self._connection()
            try:
                code, owner = connection.MSFT_HgsGuardian.NewByGenerateCertificates(
                    Name=owner_name, GenerateCertificates=True)
                _check("MSFT_HgsGuardian.NewByGenerateCertificates", code)
                code, protector = connection.MSFT_HgsKeyProtector.NewByGuardians(
                    Owner=owner, Guardian=[guardian.handle for guardian in guardians],
                    # Guardians' certificates are self-signed as a rule.
                    AllowUntrustedRoot=True, AllowExpired=False)
                _check("MSFT_HgsKeyProtector.NewByGuardians", code)
                return bytes(protector.RawData)
            finally:
                self._remove(owner_name)
        return windows_errors.translated(
            "A key protector cannot be made on the host",
            errors.HostGuardianError, make)

    def remove_leftovers(self) -> None:
        """Remove the owners that an earlier process made and could not remove again.

        Only while no protector is being made: at the start of nova-compute.

        :raises vtpm_compute.errors.HostGuardianError: when Windows refuses.
        """
        def remove() -> None:
            for found in self._connection().MSFT_HgsGuardian():
                if str(found.Name).startswith(OWNER_PREFIX):
                    LOG.warning("Guardian %s was left behind: it is removed", found.Name)
                    self._remove(found.Name)
        windows_errors.translated(
            "The owners left in the host's guardian store cannot be removed",
            errors.HostGuardianError, remove)

    def _remove(self, name: str) -> None:
        """Remove a guardian with its private keys, if it is there (still)."""
        if self._connection().MSFT_HgsGuardian(Name=name):
            (code,) = self._connection().MSFT_HgsGuardian.Remove(Name=name)
            _check("MSFT_HgsGuardian.Remove", code)
            LOG.debug("Removed guardian %s from the host's store", name)

    def _connection(self) -> Any:
        return self._get_wmi_conn(_NAMESPACE)


def _check(method: str, code: int) -> None:
    if code:
        raise errors.HostGuardianError("%s returned %s." % (method, code))
