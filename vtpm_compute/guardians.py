"""The Host Guardian Service client of this host: is it guarded, who guards it, make a protector.

WMI namespace ``root/Microsoft/Windows/Hgs`` (Microsoft's reference of the HgsClient provider), over
os-win's connection. Methods are called with keyword arguments only: PyMI sorts positional ones by
name.
"""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from os_win.utils import baseutils
from oslo_log import log as logging

from vtpm_compute import certificate_store, errors, key_protector, windows_errors
from vtpm_scheduling import policy

LOG = logging.getLogger(__name__)

_NAMESPACE = "//./Root/Microsoft/Windows/Hgs"
# Owners that are made here carry this name, so that one that was left behind is recognised.
OWNER_PREFIX = "nova-vtpm-owner-"

# MSFT_HgsGuardian.Remove leaves a guardian's certificates and private keys there, and they alone
# let a virtual machine start (Microsoft Learn, "Create a shielding data file"; public scripts that
# remove guardians delete them themselves).
CERTIFICATE_STORE = "Shielded VM Local Certificates"
# What Windows calls a generated guardian's: "Shielded VM Signing Certificate (guardian) (host)".
_GUARDIAN_IN_SUBJECT = re.compile(r"\(([^()]+)\)")

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
            owner stays on the host, or the message says what does.
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
                self._remove_owners(connection.MSFT_HgsGuardian(Name=owner_name),
                                    owner_name.__eq__, keys_may_be_gone=False)
        return windows_errors.translated(
            "A key protector cannot be made on the host",
            errors.HostGuardianError, make)

    def remove_leftovers(self) -> None:
        """Remove the owners that an earlier process made and could not remove again.

        Only while no protector is being made: at the start of nova-compute.

        :raises vtpm_compute.errors.HostGuardianError: when Windows refuses.
        """
        def remove() -> None:
            removed = self._remove_owners(
                [found for found in self._connection().MSFT_HgsGuardian()
                 if _is_owner(str(found.Name))], _is_owner, keys_may_be_gone=True)
            if removed:
                LOG.warning("Owners of key protectors were left behind, and are removed with "
                            "their private keys: %s", ", ".join(sorted(removed)))
        windows_errors.translated(
            "The owners left on the host cannot be removed", errors.HostGuardianError, remove)

    def _remove_owners(self, stored: Iterable[Any], is_owner: Callable[[str], bool],
                       keys_may_be_gone: bool) -> set[str]:
        """Remove owners: private keys, certificates, guardians, whatever is there (still).

        A guardian goes last, and only without its private keys: it is how they are found again.

        :param stored: the owners' MSFT_HgsGuardian, of those that are in the guardian store.
        :param is_owner: whether a guardian of this name is one of the owners.
        :param keys_may_be_gone: see
            :meth:`vtpm_compute.certificate_store.CertificateStore.delete`.
        :returns: the names of those of whom something was there.
        """
        names = [str(guardian.Name) for guardian in stored]
        owners = {certificate_store.thumbprint(bytes(certificate)): str(guardian.Name)
                  for guardian in stored
                  for certificate in (guardian.EncryptionCertificate, guardian.SigningCertificate)
                  if certificate}
        removed, failures = set(names), []
        with certificate_store.CertificateStore(CERTIFICATE_STORE) as store:
            for certificate in store.certificates():
                owner = owners.get(certificate.thumbprint) or _named_in(certificate.common_name)
                if owner is None or not is_owner(owner):
                    continue
                removed.add(owner)
                try:
                    store.delete(certificate, keys_may_be_gone)
                    LOG.debug("Deleted a certificate of %s with its private key", owner)
                except errors.HostGuardianError as exc:
                    failures.append("Keys of %s may stay on the host: %s" % (owner, exc))
                    names = [name for name in names if name != owner]
        for name in names:
            try:
                self._remove_guardian(name)
            except errors.HostGuardianError as exc:
                failures.append(str(exc))
        if failures:
            raise errors.HostGuardianError(" ".join(failures))
        return removed

    def _remove_guardian(self, name: str) -> None:
        def remove() -> None:
            (code,) = self._connection().MSFT_HgsGuardian.Remove(Name=name)
            _check("MSFT_HgsGuardian.Remove", code)
            LOG.debug("Removed guardian %s from the host's store", name)
        windows_errors.translated(
            "Guardian %s cannot be removed" % name, errors.HostGuardianError, remove)

    def _connection(self) -> Any:
        return self._get_wmi_conn(_NAMESPACE)


def _is_owner(name: str) -> bool:
    return name.startswith(OWNER_PREFIX)


def _named_in(common_name: str) -> str | None:
    """The guardian for which Windows made a certificate; None where it does not say so."""
    found = _GUARDIAN_IN_SUBJECT.search(common_name)
    return found.group(1) if found else None


def _check(method: str, code: int) -> None:
    if code:
        raise errors.HostGuardianError("%s returned %s." % (method, code))
