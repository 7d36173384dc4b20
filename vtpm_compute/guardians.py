"""The Host Guardian Service client of this host: is it guarded, and who is in its guardian store.

WMI namespace ``root/Microsoft/Windows/Hgs`` (Microsoft's reference of the HgsClient provider), over
os-win's connection. Methods are called with keyword arguments only: PyMI sorts positional ones by
name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from os_win.utils import baseutils
from oslo_log import log as logging

from vtpm_compute import errors, rsa_certificates, windows_errors
from vtpm_scheduling import policy

LOG = logging.getLogger(__name__)

_NAMESPACE = "//./Root/Microsoft/Windows/Hgs"
# Guardians' certificates are self-signed as a rule; none that has expired is taken.
_CHECKS = {"AllowUntrustedRoot": True, "AllowExpired": False}

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class ClientConfiguration:
    """What MSFT_HgsClientConfiguration says of this host now.

    :ivar guarded: whether attestation is passed and valid.
    :ivar attestation_status: see :class:`vtpm_scheduling.policy.Attestation`.
    :ivar key_protection_url: of the key protection server; empty where none is configured.
    :ivar attestation_url: of the attestation server, likewise.
    :ivar mode: 0 unknown, 1 local, 2 with a Host Guardian Service.
    :ivar attestation_mode: 0 unknown, 1 TPM, 2 Active Directory, 3 host key.
    :ivar attestation_substatus: a bit field: 1 Secure Boot, 2 debug mode, 4 code integrity; the
        meaning of others is not documented.
    """

    guarded: bool
    attestation_status: int
    key_protection_url: str = ""
    attestation_url: str = ""
    mode: int = 0
    attestation_mode: int = 0
    attestation_substatus: int = 0


@dataclasses.dataclass(frozen=True)
class Guardian:
    """A guardian in the host's store.

    :ivar name: its name there.
    :ivar thumbprint: SHA-256 of its encryption certificate, lower-case hexadecimal.
    :ivar certificates: the signing and the encryption certificate, in DER.
    :ivar has_private_key: whether its private signing key is on this host.
    """

    name: str
    thumbprint: str
    certificates: tuple[bytes, bytes] = dataclasses.field(repr=False, default=(b"", b""))
    has_private_key: bool = False
    handle: Any = dataclasses.field(repr=False, compare=False, default=None)


class HostGuardianClient(baseutils.BaseUtils):
    """The guardian store and the attestation state of the host this process runs on.

    Every method raises :class:`vtpm_compute.errors.HostGuardianError`, with Windows' own words,
    when Windows refuses or does not tell.
    """

    def read_configuration(self) -> ClientConfiguration:
        """Read the attestation state anew: a host attests at boot and every eight hours."""
        def read() -> ClientConfiguration:
            settings = self._call("MSFT_HgsClientConfiguration", "Get")
            status = int(settings.AttestationStatus or 0)
            return ClientConfiguration(
                guarded=bool(settings.IsHostGuarded) and status == policy.Attestation.PASSED,
                attestation_status=status,
                key_protection_url=str(settings.KeyProtectionServerUrl or ""),
                attestation_url=str(settings.AttestationServerUrl or ""),
                mode=int(settings.Mode or 0),
                attestation_mode=int(settings.AttestationOperationMode or 0),
                attestation_substatus=int(settings.AttestationSubstatus or 0))
        return _translated("The Host Guardian Service client of the host cannot be read", read)

    def find_guardian(self, name: str) -> Guardian | None:
        """The guardian of that name in the store; None where there is none."""
        def find() -> Guardian | None:
            for found in self._connection().MSFT_HgsGuardian(Name=name):
                return _require_certificate(_guardian(found))
            return None
        return _translated(_UNREADABLE_STORE, find)

    def guardians(self) -> list[Guardian]:
        """All guardians of the store. One without a certificate has no thumbprint."""
        return _translated(_UNREADABLE_STORE, lambda: [
            _guardian(found) for found in self._connection().MSFT_HgsGuardian()])

    def generate(self, name: str) -> Guardian:
        """A new guardian with private keys, in the store."""
        return _translated("A guardian cannot be made on the host", lambda: _guardian(self._call(
            "MSFT_HgsGuardian", "NewByGenerateCertificates",
            Name=name, GenerateCertificates=True)))

    def accept(self, name: str, signing_path: str, encryption_path: str,
               password: str) -> Guardian:
        """A guardian in the store, with the private keys of two PFX files.

        :param password: of both.
        """
        return _translated("The owner's keys cannot be used on the host", lambda: _guardian(
            self._call("MSFT_HgsGuardian", "NewByAcceptCertificates", Name=name,
                       SigningCertificate=signing_path, EncryptionCertificate=encryption_path,
                       SigningCertificatePassword=password,
                       EncryptionCertificatePassword=password, **_CHECKS)))

    def import_metadata(self, name: str, path: str) -> Guardian:
        """A guardian in the store, of a metadata document.

        :param path: of the file that holds it.
        """
        return _translated("Guardian metadata cannot be used on the host", lambda: _guardian(
            self._call("MSFT_HgsGuardian", "Import", Name=name, Path=path, **_CHECKS)))

    def new_protector(self, owner: Guardian, granted: Sequence[Guardian]) -> bytes:
        """A new key protector: its bytes, with their length before them.

        :param owner: whose private keys are on this host.
        :param granted: those who will be able to unwrap it, beside the owner.
        """
        return _translated("A key protector cannot be made on the host", lambda: bytes(self._call(
            "MSFT_HgsKeyProtector", "NewByGuardians", Owner=owner.handle,
            Guardian=[guardian.handle for guardian in granted], **_CHECKS).RawData))

    def remove(self, name: str) -> None:
        """Remove a guardian from the store; its certificates and private keys stay on the host."""
        def remove() -> None:
            (code,) = self._connection().MSFT_HgsGuardian.Remove(Name=name)
            _check("MSFT_HgsGuardian.Remove", code)
            LOG.debug("Removed guardian %s from the host's store", name)
        _translated("Guardian %s cannot be removed" % name, remove)

    def _call(self, class_name: str, method: str, **parameters: Any) -> Any:
        """The cmdletOutput of a static method."""
        code, output = getattr(getattr(self._connection(), class_name), method)(**parameters)
        _check("%s.%s" % (class_name, method), code)
        return output

    def _connection(self) -> Any:
        return self._get_wmi_conn(_NAMESPACE)


_UNREADABLE_STORE = "The host's guardian store cannot be read"


def _guardian(found: Any) -> Guardian:
    """:param found: an MSFT_HgsGuardian."""
    encryption = bytes(found.EncryptionCertificate or ())
    return Guardian(
        name=str(found.Name), handle=found,
        thumbprint=rsa_certificates.thumbprint(encryption) if encryption else "",
        certificates=(bytes(found.SigningCertificate or ()), encryption),
        has_private_key=bool(found.HasPrivateSigningKey))


def _require_certificate(guardian: Guardian) -> Guardian:
    if not guardian.thumbprint:
        raise errors.HostGuardianError("guardian %s has no certificate." % guardian.name)
    return guardian


def _check(method: str, code: int) -> None:
    if code:
        raise errors.HostGuardianError("%s returned %s." % (method, code))


def _translated(problem: str, call: Callable[[], Result]) -> Result:
    return windows_errors.translated(problem, errors.HostGuardianError, call)
