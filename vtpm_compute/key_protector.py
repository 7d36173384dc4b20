"""Key protectors: whose one is, who can unwrap it, and what of it was verified.

A key protector is what ``Get-VMKeyProtector`` and ``New-HgsKeyProtector`` give: four bytes of
length (big endian, themselves included), then XML. It is checked as the server checks it ([MS-KPS]
version 8.0, section 3.1.5.1.1.3), without any secret: structure
(:mod:`vtpm_compute.key_protector_xml`), certificates, the chain of every wrapping to its owner, and
signatures (:mod:`vtpm_compute.key_protector_signatures`). Pure: no Windows, no network.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import re
from collections.abc import Iterator, Mapping, Sequence

from vtpm_compute import (
    errors,
    key_protector_signatures,
    key_protector_xml,
    pfx_structure,
    rsa_certificates,
    untrusted_xml,
)
from vtpm_compute.key_protector_signatures import CheckedSignature, Verdict

_PREFIX_LENGTH = 4
# What Windows gives for a virtual machine that has none: just the length.
UNSET = (_PREFIX_LENGTH).to_bytes(_PREFIX_LENGTH, "big")
# The name of the root element stands within so many bytes of all that people write before it.
_BEGINNING = 4096
# No byte may be matched by two parts in a row: a stranger's would be tried in every division.
_BASE64 = re.compile(rb"[A-Za-z0-9+/\s]{64,}(?:=\s*){0,2}")

_NOT_ONE = "What %s holds is not a key protector: %s. %s"
_UNUSABLE = "The key protector of %s cannot be used: %s. %s"
_STORE_AGAIN = "Store the bytes of (Get-VMKeyProtector)."
_EXPORT_AGAIN = "It is damaged or forged: export it again."
_MAKE_ANEW = "Make a new one with New-HgsKeyProtector."


@dataclasses.dataclass(frozen=True)
class Guardian:
    """One who can unwrap the protector.

    :ivar wrapping_id: its number in the protector.
    :ivar name: the common name in its encryption certificate, printable and cut.
    :ivar thumbprint: SHA-256 of that certificate, lower-case hexadecimal.
    :ivar is_owner: whether its wrapping is its own parent, as only the owner's is.
    :ivar key_bits: the length of its RSA encryption key.
    :ivar not_before: from when its encryption certificate is valid (UTC).
    :ivar not_after: until when.
    :ivar signatures: over its signing and its encryption certificate.
    """

    wrapping_id: int
    name: str
    thumbprint: str
    is_owner: bool
    key_bits: int
    not_before: datetime.datetime
    not_after: datetime.datetime
    signatures: tuple[CheckedSignature, ...]

    def __str__(self) -> str:
        return "%s%s (%s...)" % (
            self.name, ", the owner" if self.is_owner else "", self.thumbprint[:16])

    def lines(self) -> Iterator[str]:
        """What there is to know of it, for people."""
        yield "%s, wrapping %d: %s" % (
            "Owner" if self.is_owner else "Guardian", self.wrapping_id, self.name)
        yield "  encryption certificate: SHA-256 %s" % self.thumbprint
        yield "  RSA of %d bits, valid from %s to %s" % (
            self.key_bits, self.not_before.date(), self.not_after.date())
        for signature in self.signatures:
            yield "  %s" % signature


@dataclasses.dataclass(frozen=True)
class KeyProtector:
    """A key protector that was read and checked.

    :ivar raw: with its length before it, as Hyper-V takes it.
    :ivar guardians: in the order of the wrappings.
    :ivar signatures: over all wrappings: the guardian's, and the transport key's.
    :ivar max_offline_unwraps: whether it may be unwrapped without its HGS: not when it is 0.
    :ivar warnings: sentences; what is doubtful but does not keep it from being used.
    """

    raw: bytes = dataclasses.field(repr=False)
    guardians: tuple[Guardian, ...]
    signatures: tuple[CheckedSignature, ...]
    max_offline_unwraps: int
    warnings: tuple[str, ...] = ()

    @property
    def owner(self) -> Guardian:
        """Who made it and signed the others in."""
        return next(guardian for guardian in self.guardians if guardian.is_owner)

    @property
    def all_signatures(self) -> tuple[CheckedSignature, ...]:
        """Those over the certificates, then those over all wrappings."""
        return (*(signature for guardian in self.guardians for signature in guardian.signatures),
                *self.signatures)

    def require_guardian(self, thumbprint: str, source: str) -> None:
        """Check that a guardian can unwrap it.

        :param thumbprint: of the guardian's encryption certificate.
        :param source: where it comes from, for the message.
        :raises vtpm_compute.errors.KeyProtectorError: when it is none of them.
        """
        if all(guardian.thumbprint != thumbprint for guardian in self.guardians):
            raise errors.KeyProtectorError(
                "The key protector of %s does not name this fabric's guardian (%s...). Make it "
                "with Grant-HgsKeyProtectorAccess for that guardian and store it again."
                % (source, thumbprint[:16]))

    def summary(self) -> str:
        """One line for a log: whose it is, who can unwrap it, what was verified and what not."""
        verified = [one for one in self.all_signatures if one.verdict is Verdict.VERIFIED]
        return "%d bytes, guardians: %s; %d of %d signatures verified%s" % (
            len(self.raw), ", ".join(map(str, self.guardians)), len(verified),
            len(self.all_signatures), "".join(
                "; %s" % one for one in self.all_signatures if one not in verified))

    def lines(self) -> Iterator[str]:
        """The report, for people: what it is, each signature, and warnings."""
        yield "Key protector of %d bytes, MaxOfflineUnwraps %d" % (
            len(self.raw), self.max_offline_unwraps)
        for guardian in self.guardians:
            yield from guardian.lines()
        yield "All wrappings"
        for signature in self.signatures:
            yield "  %s" % signature
        for warning in self.warnings:
            yield "Warning: %s" % warning


def is_unset(raw: Sequence[int]) -> bool:
    """Whether what GetKeyProtector gave means that there is none."""
    return len(raw) <= _PREFIX_LENGTH


def is_piece(data: bytes) -> bool:
    """Whether bytes look like a key protector, or its beginning or end; never of the middle."""
    return data[:1] == b"\0" or b"Protector>" in data or b"<Protector" in data[:_BEGINNING]


def parse(pieces: Sequence[bytes], source: str, now: datetime.datetime | None = None,
          refuse_wrong_signatures: bool = True) -> KeyProtector:
    """Read and check a key protector that was given whole or in pieces.

    :param pieces: its bytes in order, with or without the length at the beginning.
    :param source: where they come from, for messages.
    :param now: with time zone; when not the present is meant.
    :param refuse_wrong_signatures: whether a signature that is wrong is an error; else it is a
        warning.
    :raises vtpm_compute.errors.KeyProtectorError: when they are not one whole protector, or
        something in it is wrong.
    """
    try:
        document = _document(pieces)
        read = key_protector_xml.read(document)
    except untrusted_xml.MalformedError as exc:
        raise errors.KeyProtectorError(
            errors.fitted(_NOT_ONE, source, exc, _STORE_AGAIN)) from None
    try:
        _check_chain(read)
        certificates = {wrapping.identifier: _Certificates.of(wrapping)
                        for wrapping in read.wrappings}
        guardians = tuple(_guardian(wrapping, certificates) for wrapping in read.wrappings)
        signature = key_protector_signatures.check_wrappings(
            "the signature of wrapping %d over all wrappings" % read.signer,
            certificates[read.signer].signing.key, read.guardian_signature, read.signed_forms)
        checked = (*(one for guardian in guardians for one in guardian.signatures), signature)
        if refuse_wrong_signatures:
            key_protector_signatures.require_none_wrong(checked)
    except _UnusableError as exc:
        raise errors.KeyProtectorError(
            errors.fitted(_UNUSABLE, source, exc, exc.remedy)) from None
    except key_protector_signatures.WrongSignatureError as exc:
        raise errors.KeyProtectorError(
            errors.fitted(_UNUSABLE, source, exc, _EXPORT_AGAIN)) from None
    return KeyProtector(
        raw=(len(document) + _PREFIX_LENGTH).to_bytes(_PREFIX_LENGTH, "big") + document,
        guardians=guardians,
        signatures=(signature, CheckedSignature(
            "the signature of the transport key over all wrappings", Verdict.NEEDS_SECRETS)),
        max_offline_unwraps=read.max_offline_unwraps,
        warnings=(*(str(one) for one in checked if one.verdict is Verdict.WRONG),
                  *_warnings(read, certificates, now)))


def _document(pieces: Sequence[bytes]) -> bytes:
    """The XML, as bytes."""
    size = sum(map(len, pieces))
    if size > untrusted_xml.MAX_BYTES:
        raise untrusted_xml.MalformedError("it is larger than 1 MiB")
    if len(set(pieces)) < len(pieces):
        raise untrusted_xml.MalformedError("two of its %d pieces are the same" % len(pieces))
    data = b"".join(pieces)
    _check_beginning(data, pieces)
    if data[:1] != b"\0":
        return data
    length = int.from_bytes(data[:_PREFIX_LENGTH], "big")
    if max(length, _PREFIX_LENGTH) > len(data):
        raise untrusted_xml.MalformedError(
            "it should have %d bytes and has %d: a piece is missing" % (length, len(data)))
    if length < len(data):
        raise untrusted_xml.MalformedError(
            "%d bytes follow after its end" % (len(data) - length))
    if length == _PREFIX_LENGTH:
        raise untrusted_xml.MalformedError(
            "it is what a virtual machine without a key protector has")
    return data[_PREFIX_LENGTH:]


def _check_beginning(data: bytes, pieces: Sequence[bytes]) -> None:
    """Say of what does not begin like a key protector what it is."""
    if not data:
        raise untrusted_xml.MalformedError("it is empty")
    if data[:1] == b"\0" or data.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")[:1] == b"<":
        return
    if pfx_structure.is_pfx(data):
        raise untrusted_xml.MalformedError("it is a PFX file, which holds a private key")
    if any(piece[:2] == b"\0\0" for piece in pieces[1:]):
        raise untrusted_xml.MalformedError(
            "its pieces are not in order: it begins with another than the first")
    if b"Protector>" in data:
        raise untrusted_xml.MalformedError(
            "its beginning is not there: the first piece is missing, or is not the first")
    if _is_base64_of_one(data):
        raise untrusted_xml.MalformedError("it is text in base64, not the bytes themselves")
    raise untrusted_xml.MalformedError("it is not XML")


def _is_base64_of_one(data: bytes) -> bool:
    """Whether it is base64 of what begins like a key protector."""
    if not _BASE64.fullmatch(data):
        return False
    beginning = b"".join(data[:_BEGINNING].split())[:4]
    return len(beginning) == 4 and b"=" not in beginning and base64.b64decode(
        beginning).startswith((b"\0\0", b"<"))


class _UnusableError(Exception):
    """Something in a well-formed protector is wrong; ``str()`` of it is a clause."""

    def __init__(self, clause: str, remedy: str = _EXPORT_AGAIN) -> None:
        super().__init__(clause)
        self.remedy = remedy


def _check_chain(read: key_protector_xml.Protector) -> None:
    """Check that all wrappings descend from one owner's, and that the signer is one of them.

    [MS-KPS] 3.1.5.1.1.3 speaks of "the owner"; its glossary, of at least one. With a second one a
    wrapping would be accepted that the first never signed.
    """
    parents = {wrapping.identifier: wrapping.parent for wrapping in read.wrappings}
    if len(parents) < len(read.wrappings):
        raise _UnusableError("two of its wrappings have the same id")
    if read.signer not in parents:
        raise _UnusableError("it is signed by wrapping %d, which it does not have" % read.signer)
    owners = [identifier for identifier, parent in parents.items() if identifier == parent]
    if not owners:
        raise _UnusableError("it has no owner")
    if len(owners) > 1:
        raise _UnusableError("it has %d owners, wrappings %d and %d" % (
            len(owners), owners[0], owners[1]), _MAKE_ANEW)
    reaching = set(owners)
    for identifier in parents:
        path: list[int] = []
        while identifier not in reaching:
            if identifier not in parents:
                raise _UnusableError("wrapping %d has wrapping %d for its parent, which is not "
                                     "there" % (path[-1], identifier))
            if identifier in path:
                raise _UnusableError(
                    "wrapping %d is an ancestor of itself, and not the owner's" % identifier)
            path.append(identifier)
            identifier = parents[identifier]
        reaching.update(path)


@dataclasses.dataclass(frozen=True)
class _Certificates:
    """The two certificates of a wrapping."""

    signing: rsa_certificates.RsaCertificate
    encryption: rsa_certificates.RsaCertificate

    @classmethod
    def of(cls, wrapping: key_protector_xml.Wrapping) -> _Certificates:
        try:
            return cls(*(rsa_certificates.load(
                given.der, "the %s certificate of wrapping %d" % (usage, wrapping.identifier))
                for usage, given in (("signing", wrapping.signing_certificate),
                                     ("encryption", wrapping.encryption_certificate))))
        except rsa_certificates.UnreadableCertificateError as exc:
            raise _UnusableError(str(exc)) from None
        except rsa_certificates.UnusableCertificateError as exc:
            raise _UnusableError(str(exc), _MAKE_ANEW) from None


def _guardian(wrapping: key_protector_xml.Wrapping,
              certificates: Mapping[int, _Certificates]) -> Guardian:
    own, parent = certificates[wrapping.identifier], certificates[wrapping.parent]
    is_owner = wrapping.parent == wrapping.identifier
    return Guardian(
        wrapping_id=wrapping.identifier, name=own.encryption.name, is_owner=is_owner,
        thumbprint=own.encryption.thumbprint, key_bits=own.encryption.key.key_size,
        not_before=own.encryption.not_before, not_after=own.encryption.not_after,
        signatures=(
            key_protector_signatures.check_certificate(
                "the signature of wrapping %d over the signing certificate of wrapping %d"
                % (wrapping.parent, wrapping.identifier), parent.signing.key,
                wrapping.signing_signature, wrapping.signing_certificate),
            key_protector_signatures.check_certificate(
                "the signature of wrapping %d over its encryption certificate"
                % wrapping.identifier, own.signing.key,
                wrapping.encryption_signature, wrapping.encryption_certificate)))


def _warnings(read: key_protector_xml.Protector, certificates: Mapping[int, _Certificates],
              now: datetime.datetime | None) -> Iterator[str]:
    for wrapping in read.wrappings:
        own = certificates[wrapping.identifier]
        for usage, certificate in (("signing", own.signing), ("encryption", own.encryption)):
            out_of_time = certificate.out_of_time(now)
            if out_of_time:
                yield "the %s certificate of wrapping %d, %s, %s" % (
                    usage, wrapping.identifier, own.encryption.name, out_of_time)
    prints = [wrapping.encryption_certificate.der for wrapping in read.wrappings]
    if len(set(prints)) < len(prints):
        yield "a guardian is named twice"
