"""Makes key protectors on this host, and leaves nothing of their making there.

Windows makes one of guardians in its store, with the owner's private keys. So the owner, and
guardians that a tenant names, are there for a moment: whatever fails, they are removed again, their
private keys first. What a killed process left is removed by the next one, which knows it by names
and by notes.
"""

from __future__ import annotations

import contextlib
import functools
import re
import secrets
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, cast

from oslo_log import log as logging

from vtpm_compute import certificate_store, errors, guardian_metadata, owner_pfx
from vtpm_compute.guardians import Guardian, HostGuardianClient
from vtpm_compute.private_folders import PrivateFolder, PrivateFolders

LOG = logging.getLogger(__name__)

# Guardians that are made here carry these names, so that one that was left behind is recognised.
OWNER_PREFIX = "nova-vtpm-owner-"
GUARDIAN_PREFIX = "nova-vtpm-guardian-"

# MSFT_HgsGuardian.Remove leaves a guardian's certificates and private keys there, and they alone
# let a virtual machine start (Microsoft Learn, "Create a shielding data file"; public scripts that
# remove guardians delete them themselves).
CERTIFICATE_STORE = "Shielded VM Local Certificates"
# What Windows calls a generated guardian's: "Shielded VM Signing Certificate (guardian) (host)".
_GUARDIAN_IN_SUBJECT = re.compile(r"\(([^()]+)\)")

_PFX_FILES, _METADATA = ("signing.pfx", "encryption.pfx"), "guardian-%d.xml"
# The thumbprints of an owner's certificates, whose names are the tenant's: a line each.
_NOTES = "certificates"
_PASSWORD_BYTES = 32

Result = TypeVar("Result")


class ProtectorMaker:
    """Makes the key protectors of this host.

    :param client: of this host's Host Guardian Service client.
    :param folders: where files lie that Windows takes by their path.
    """

    def __init__(self, client: HostGuardianClient, folders: PrivateFolders) -> None:
        self._client, self._folders = client, folders
        # The store holds no guardian twice: what one tenant names, another may name as well.
        self._one_at_a_time = threading.Lock()
        # Of which something may still be on the host.
        self._not_undone: list[_Making] = []

    def make(self, fabric: Guardian, owner: owner_pfx.Owner | None = None,
             further: Sequence[guardian_metadata.GuardianMetadata] = ()) -> bytes:
        """Make a key protector.

        :param fabric: the fabric's guardian.
        :param owner: who owns it; None: a new owner.
        :param further: guardians who can unwrap it, too.
        :returns: its bytes, with their length before them.
        :raises vtpm_compute.errors.HostGuardianError: when Windows refuses a step. Nothing of its
            making stays on the host, or the message says what does.
        """
        alone = bool(owner or further or self._not_undone)
        with self._one_at_a_time if alone else contextlib.nullcontext():
            if alone:
                self._undo_again()
            making, attempts = _Making(self._client, self._folders), _Attempts()
            raw = None
            try:
                raw = attempts.make(lambda: making.protector(fabric, owner, further))
            finally:
                attempts.make(functools.partial(self._undo, making))
        # Here, where no private key is in reach: what an exception passes, its traceback keeps.
        attempts.require_none_failed()
        return cast(bytes, raw)

    def _undo(self, making: _Making) -> None:
        try:
            making.undo()
        except BaseException:
            self._not_undone.append(making)
            raise

    def _undo_again(self) -> None:
        """Undo what could not be undone before: it is in the way of the same owner.

        By its own names and notes alone: others may be making protectors at this moment. What
        stays now keeps no other protector from being made.
        """
        def undo(making: _Making) -> None:
            making.undo()
            self._not_undone.remove(making)
            LOG.info("What was left behind of an earlier key protector is removed")

        for making in tuple(self._not_undone):
            _Attempts().make(functools.partial(undo, making))

    def remove_leftovers(self) -> None:
        """Remove what an earlier process made and could not remove again, as far as it goes.

        Only while no protector is being made: at the start of nova-compute.

        :raises vtpm_compute.errors.HostGuardianError: when Windows refuses.
        """
        attempts = _Attempts()
        remover = _Remover(self._client, lambda name: name.startswith(
            (OWNER_PREFIX, GUARDIAN_PREFIX)), keys_may_be_gone=True)
        left = attempts.make(self._folders.left) or []
        for folder in left:
            # First: they hold private keys, if under a password that is gone.
            for name in _PFX_FILES:
                attempts.make(functools.partial(folder.remove_file, name))
        notes = _Notes().union(*(
            attempts.make(functools.partial(_Notes.of, folder)) or () for folder in left))
        attempts.make(lambda: remover.remove(notes))
        if not attempts.failures:
            # They hold the notes.
            for folder in left:
                attempts.make(folder.remove)
        if remover.removed or left:
            LOG.warning(
                "Guardians and files of key protectors were left behind, and are removed with "
                "their private keys: %s; %d folders",
                ", ".join(sorted(remover.removed)) or "no guardian", len(left))
        attempts.require_none_failed("What was left on the host cannot be removed: ")
        self._not_undone.clear()


class _Attempts:
    """Steps of which each is tried, whatever became of those before.

    :ivar failures: the messages of those that failed.
    """

    def __init__(self) -> None:
        self.failures: list[str] = []

    def make(self, step: Callable[[], Result]) -> Result | None:
        """Take a step; None where it fails."""
        try:
            return step()
        except errors.HostGuardianError as exc:
            LOG.warning("%s", exc)
            self.failures.append(str(exc))
            return None

    def require_none_failed(self, beginning: str = "") -> None:
        """:raises vtpm_compute.errors.HostGuardianError: when any failed; has all messages."""
        if self.failures:
            raise errors.HostGuardianError(beginning + " ".join(self.failures))


class _Notes(frozenset[bytes]):
    """Thumbprints of certificates that were brought to the host."""

    @classmethod
    def of(cls, folder: PrivateFolder) -> _Notes:
        """Those noted in a folder. A line that was not written to its end was not used yet."""
        lines = folder.read(_NOTES).decode("ascii", "replace")
        return cls(bytes.fromhex(line) for line in lines.split()
                   if re.fullmatch("[0-9A-F]{40}", line))

    def write(self, folder: PrivateFolder) -> None:
        folder.write(_NOTES, "".join(
            "%s\n" % thumbprint.hex().upper() for thumbprint in sorted(self)).encode("ascii"))


class _Making:
    """One key protector that is made, and what has to be undone of it."""

    def __init__(self, client: HostGuardianClient, folders: PrivateFolders) -> None:
        self._client, self._folders = client, folders
        self._id = str(uuid.uuid4())
        self._owner_name = OWNER_PREFIX + self._id
        self._folder: PrivateFolder | None = None
        self._notes = _Notes()
        self._accepted = False
        self._was_tried = False

    def protector(self, fabric: Guardian, owner: owner_pfx.Owner | None,
                  further: Sequence[guardian_metadata.GuardianMetadata]) -> bytes:
        """See :meth:`ProtectorMaker.make`."""
        granted = [fabric, *self._guardians(
            [one for one in further if one.thumbprint != fabric.thumbprint])]
        return self._client.new_protector(self._owner(owner), granted)

    def _guardians(self, documents: Sequence[guardian_metadata.GuardianMetadata]
                   ) -> list[Guardian]:
        """Those of metadata documents; one that the store holds already is used as it is."""
        if not documents:
            return []
        present = {guardian.thumbprint: guardian for guardian in self._client.guardians()}
        found = []
        for number, document in enumerate(documents):
            if document.thumbprint not in present:
                path = self._new_file(_METADATA % number, document.raw)
                present[document.thumbprint] = self._client.import_metadata(
                    "%s%s-%d" % (GUARDIAN_PREFIX, self._id, number), path)
            found.append(present[document.thumbprint])
        return found

    def _owner(self, given: owner_pfx.Owner | None) -> Guardian:
        """A new owner, or the one that was given."""
        if given is None:
            return self._client.generate(self._owner_name)
        ders = (given.signing.der, given.encryption.der)
        thumbprints = _Notes(certificate_store.thumbprint(der) for der in ders)
        self._require_new(ders, thumbprints)
        # Windows reads files. Under this password, which is nowhere else, they are no secret.
        password = secrets.token_urlsafe(_PASSWORD_BYTES)
        signing, encryption = given.pfx_files(password)
        self._notes = thumbprints
        thumbprints.write(self._private_folder())
        attempts = _Attempts()

        def accept() -> Guardian:
            accepted = self._client.accept(
                self._owner_name, self._new_file(_PFX_FILES[0], signing),
                self._new_file(_PFX_FILES[1], encryption), password)
            self._accepted = True
            return accepted
        try:
            accepted = attempts.make(accept)
        finally:
            for name in _PFX_FILES:
                attempts.make(functools.partial(self._private_folder().remove_file, name))
        attempts.require_none_failed()
        return cast(Guardian, accepted)

    def _require_new(self, ders: Sequence[bytes], thumbprints: _Notes) -> None:
        """Refuse an owner of whom something is on the host: it would be removed with ours."""
        with certificate_store.CertificateStore(CERTIFICATE_STORE) as store:
            known = any(one.thumbprint in thumbprints for one in store.certificates())
        if known or any(set(ders) & set(one.certificates) for one in self._client.guardians()):
            raise errors.HostGuardianError(
                "The owner's certificates are on the host already, where they must not be. Tell "
                "the administrator.")

    def _new_file(self, name: str, content: bytes) -> str:
        return self._private_folder().write(name, content)

    def _private_folder(self) -> PrivateFolder:
        if self._folder is None:
            self._folder = self._folders.new(self._id)
        return self._folder

    def undo(self) -> None:
        """Remove what was made; the folder last, and only when nothing else is left.

        It may be repeated after it failed.
        """
        guardians = "%s%s-" % (GUARDIAN_PREFIX, self._id)
        remover = _Remover(
            self._client, lambda name: name == self._owner_name or name.startswith(guardians),
            # A given owner's may never have come to the host.
            keys_may_be_gone=self._was_tried or bool(self._notes) and not self._accepted)
        self._was_tried = True
        remover.remove(self._notes)
        if self._folder is not None:
            self._folder.remove()


class _Remover:
    """Removes guardians with all that is theirs on the host.

    :param is_ours: whether a guardian of this name is to go.
    :param keys_may_be_gone: see
        :meth:`vtpm_compute.certificate_store.CertificateStore.delete`.
    :ivar removed: the names of those of whom something was there.
    """

    def __init__(self, client: HostGuardianClient, is_ours: Callable[[str], bool],
                 keys_may_be_gone: bool) -> None:
        self._client, self._is_ours = client, is_ours
        self._keys_may_be_gone = keys_may_be_gone
        self.removed: set[str] = set()

    def remove(self, notes: frozenset[bytes]) -> None:
        """Remove private keys, certificates, guardians, whatever is there (still).

        A guardian goes last, and only without its private keys: it is how they are found again.

        :param notes: further certificates that are to go.
        :raises vtpm_compute.errors.HostGuardianError: when something stays; says what.
        """
        attempts = _Attempts()
        known = attempts.make(self._client.guardians)
        if known is None:
            attempts.failures.append("Private keys of owners may stay on the host.")
        stored = [one for one in known or () if self._is_ours(one.name)]
        kept = self._delete_certificates(stored, notes, attempts)
        for guardian in stored:
            self.removed.add(guardian.name)
            if guardian.name not in kept:
                attempts.make(functools.partial(self._client.remove, guardian.name))
        attempts.require_none_failed()

    def _delete_certificates(self, stored: Sequence[Guardian], notes: frozenset[bytes],
                             attempts: _Attempts) -> set[str]:
        """Delete them; the names of the guardians of whom something stays."""
        owners = dict.fromkeys(notes, "a given owner")
        owners.update((certificate_store.thumbprint(certificate), guardian.name)
                      for guardian in stored if guardian.name.startswith(OWNER_PREFIX)
                      for certificate in guardian.certificates if certificate)
        kept = {guardian.name for guardian in stored}

        def delete() -> None:
            with certificate_store.CertificateStore(CERTIFICATE_STORE) as store:
                found = [(self._owner_of(one, owners), one) for one in store.certificates()]
                kept.clear()
                for owner, certificate in found:
                    if owner is not None:
                        self.removed.add(owner)
                        if not self._delete(store, owner, certificate, attempts):
                            kept.add(owner)
        attempts.make(delete)
        return kept

    def _delete(self, store: certificate_store.CertificateStore, owner: str,
                certificate: certificate_store.Certificate, attempts: _Attempts) -> bool:
        def delete() -> bool:
            try:
                store.delete(certificate, self._keys_may_be_gone)
            except errors.HostGuardianError as exc:
                raise errors.HostGuardianError(
                    "Keys of %s may stay on the host: %s" % (owner, exc)) from exc
            LOG.debug("Deleted a certificate of %s with its private key", owner)
            return True
        return bool(attempts.make(delete))

    def _owner_of(self, certificate: certificate_store.Certificate,
                  owners: Mapping[bytes, str]) -> str | None:
        """Whose certificate it is, of those that are to go."""
        return owners.get(certificate.thumbprint) or self._named_in(certificate.common_name)

    def _named_in(self, common_name: str) -> str | None:
        """Whose certificate it is, of those that are to go, where Windows says it there."""
        found = _GUARDIAN_IN_SUBJECT.search(common_name)
        return found.group(1) if found and self._is_ours(found.group(1)) else None
