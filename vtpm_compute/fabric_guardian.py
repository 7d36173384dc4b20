"""Which guardian of this host's store is the fabric's; imports it where the store lacks it.

The operator names it, pins its thumbprint, or both. Only a pinned one is imported: whatever the key
protection server says, the host then has that guardian or none.
"""

from __future__ import annotations

import datetime
import threading
import time
import uuid
from collections.abc import Callable

from oslo_log import log as logging

from vtpm_compute import errors, guardian_metadata, rsa_certificates
from vtpm_compute.guardians import Guardian, HostGuardianClient
from vtpm_compute.private_folders import PrivateFolders

LOG = logging.getLogger(__name__)

# Of an import that failed, and would fail again: reports are made every minute.
_SECONDS_BETWEEN_IMPORTS = 600
_SHOWN = 16
_FILE = "metadata.xml"


class FabricGuardian:
    """The fabric's guardian on this host.

    :param client: of this host's Host Guardian Service client.
    :param folders: where the file lies that Windows imports.
    :param read_metadata: gives the metadata of a key protection server, by its URL; see
        :func:`vtpm_compute.key_protection_server.read_metadata`.
    :param name: its name in the store, where it has one of that name; None: any.
    :param thumbprint: SHA-256 of its encryption certificate, lower-case hexadecimal; None: any.
    """

    def __init__(self, client: HostGuardianClient, folders: PrivateFolders,
                 read_metadata: Callable[[str], bytes], name: str | None,
                 thumbprint: str | None) -> None:
        self._client, self._folders, self._read_metadata = client, folders, read_metadata
        self._name, self._thumbprint = name, thumbprint
        self._next_import = time.monotonic()
        self._importing = threading.Lock()

    def find(self) -> Guardian:
        """The guardian; imports it first, where it is pinned and the store lacks it.

        :raises vtpm_compute.errors.HostGuardianError: there is none that can be meant, or it
            cannot be told; the message says what the operator can do.
        """
        if not self._name and not self._thumbprint:
            raise errors.HostGuardianError(
                "[vtpm_compute] has neither fabric_guardian nor fabric_thumbprint: set one.")
        found = self.stored()
        if found is None:
            # A report and a spawn may want it at the same time.
            with self._importing:
                found = self.stored() or self._import()
        return found

    def stored(self) -> Guardian | None:
        """The guardian, if the store has it; None: it has not. Imports nothing.

        :raises vtpm_compute.errors.HostGuardianError: what the store has cannot be taken for it.
        """
        found = self._client.find_guardian(self._name) if self._name else None
        if found is None and self._thumbprint:
            # The store holds none twice: under this name it could not be imported either.
            found = self._with_thumbprint()
        if found is not None:
            self._check(found)
        return found

    def _with_thumbprint(self) -> Guardian | None:
        """The guardian of the store that is the pinned one, whatever its name."""
        fitting = [one for one in self._client.guardians() if one.thumbprint == self._thumbprint]
        if len(fitting) > 1:
            raise errors.HostGuardianError(
                "Several guardians of the store have the certificate of fabric_thumbprint: %s. "
                "Set fabric_guardian to one of these names." % ", ".join(
                    sorted(one.name for one in fitting)))
        return fitting[0] if fitting else None

    def _check(self, found: Guardian) -> None:
        if self._thumbprint and found.thumbprint != self._thumbprint:
            raise errors.HostGuardianError(
                "Guardian %s of the store has the certificate %s..., and fabric_thumbprint is "
                "%s...: import the fabric's guardian under another name, or mend the option." % (
                    found.name, found.thumbprint[:_SHOWN], self._thumbprint[:_SHOWN]))
        if found.has_private_key:
            # Whoever has this host's disk could open the TPMs of its servers.
            raise errors.HostGuardianError(
                "Guardian %s is a local one, whose private key is on this host. The fabric's has "
                "its own on its Host Guardian Service alone." % found.name)

    def _import(self) -> Guardian:
        if not self._thumbprint:
            raise errors.HostGuardianError(
                "The guardian store has no guardian named %s: import it (Import-HgsGuardian), or "
                "set fabric_thumbprint." % self._name)
        missing = "The guardian store lacks the fabric's guardian (%s...)" % (
            self._thumbprint[:_SHOWN])
        if time.monotonic() < self._next_import:
            raise errors.HostGuardianError(
                "%s; it could not be imported, which is tried again every %d minutes." % (
                    missing, _SECONDS_BETWEEN_IMPORTS // 60))
        self._next_import = time.monotonic() + _SECONDS_BETWEEN_IMPORTS
        url = self._client.read_configuration().key_protection_url
        try:
            imported = self._import_from(url)
        except errors.VtpmError as exc:
            raise errors.HostGuardianError("%s, and it cannot be imported from %s: %s" % (
                missing, url or "nowhere", exc)) from exc
        self._next_import = time.monotonic()
        LOG.info("Guardian %s (%s) was imported from %s", imported.name, imported.thumbprint, url)
        return imported

    def _import_from(self, url: str) -> Guardian:
        document = guardian_metadata.parse(self._read_metadata(url), "the key protection server")
        if document.thumbprint != self._thumbprint:
            raise errors.HostGuardianError(
                "its guardian has the certificate %s... Nothing was imported." % (
                    document.thumbprint[:_SHOWN]))
        folder = self._folders.new(str(uuid.uuid4()))
        try:
            return self._client.import_metadata(
                self._name or "Fabric-%s" % self._thumbprint[:_SHOWN],
                folder.write(_FILE, document.raw))
        finally:
            folder.remove()


def require_valid(guardian: Guardian, now: datetime.datetime | None = None) -> None:
    """Check that protectors can be made for a guardian now: Windows takes none that has expired.

    :param now: with time zone; when not the present is meant.
    :raises vtpm_compute.errors.HostGuardianError: one of its certificates is not valid.
    """
    for usage, der in zip(("signing", "encryption"), guardian.certificates):
        try:
            problem = rsa_certificates.load(der, "it").out_of_time(now)
        except rsa_certificates.UnusableCertificateError as exc:
            problem = "is not one: %s" % exc
        if problem:
            raise errors.HostGuardianError(
                "The %s certificate of the fabric's guardian %s %s: no key protector can be made. "
                "Tell the administrator to renew it." % (usage, guardian.name, problem))
