"""Key protectors: which guardians can unwrap one.

The structure is that of [MS-KPS] (Key Protection Service Protocol), section "Protector", as
``Get-VMKeyProtector`` and ``New-HgsKeyProtector`` give it: four bytes of length (big endian,
themselves included), then XML. Pure: no Windows, no network, no secrets needed.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
from collections.abc import Sequence

from cryptography import x509
from lxml import etree

from vtpm_compute import errors
from vtpm_scheduling import policy

NAMESPACE = "http://schemas.microsoft.com/kps/2014/07"
_PREFIX_LENGTH = 4
# What Windows gives for a virtual machine that has none: just the length.
UNSET = (_PREFIX_LENGTH).to_bytes(_PREFIX_LENGTH, "big")
# A protector with six guardians of RSA-4096 has 38 KB.
_MAX_BYTES = 1024 * 1024
# A stranger chose the names in the certificates.
_NAME_LENGTH = 80
_NOT_ONE = "What %s holds is not a key protector: %s. Store the bytes of (Get-VMKeyProtector)."


@dataclasses.dataclass(frozen=True)
class Guardian:
    """One who can unwrap the protector.

    :ivar wrapping_id: its number in the protector.
    :ivar name: the common name in its encryption certificate.
    :ivar thumbprint: SHA-256 of that certificate, lower-case hexadecimal.
    :ivar is_owner: whether its wrapping is its own parent, as only the owner's is.
    """

    wrapping_id: str
    name: str
    thumbprint: str
    is_owner: bool


@dataclasses.dataclass(frozen=True)
class KeyProtector:
    """A key protector that was read.

    :ivar raw: with its length before it, as Hyper-V takes it.
    :ivar guardians: in the order of the wrappings.
    """

    raw: bytes = dataclasses.field(repr=False)
    guardians: tuple[Guardian, ...] = ()

    def require_guardian(self, thumbprint: str, source: str) -> None:
        """Check that a guardian can unwrap it.

        :param thumbprint: of the guardian's encryption certificate.
        :param source: where it comes from, for the message.
        :raises vtpm_compute.errors.KeyProtectorError: when it is none of them.
        """
        if all(guardian.thumbprint != thumbprint for guardian in self.guardians):
            raise errors.KeyProtectorError(
                "The key protector of %s does not name this fabric's guardian (%s...). Make it "
                "with Grant-HgsKeyProtector for that guardian and store it again."
                % (source, thumbprint[:16]))


def is_unset(raw: Sequence[int]) -> bool:
    """Whether what GetKeyProtector gave means that there is none."""
    return len(raw) <= _PREFIX_LENGTH


def thumbprint(certificate: bytes) -> str:
    """SHA-256 thumbprint of a DER certificate, lower-case hexadecimal."""
    return hashlib.sha256(certificate).hexdigest()


def parse(pieces: Sequence[bytes], source: str) -> KeyProtector:
    """Read a key protector that was given whole or in pieces.

    :param pieces: its bytes in order, with or without the length at the beginning.
    :param source: where they come from, for messages.
    :raises vtpm_compute.errors.KeyProtectorError: when they are not one whole protector.
    """
    data = b"".join(pieces)
    if len(data) > _MAX_BYTES:
        raise errors.KeyProtectorError(_NOT_ONE % (source, "it is larger than 1 MiB"))
    document = data
    if data[:1] == b"\0":
        document = data[_PREFIX_LENGTH:]
        length = int.from_bytes(data[:_PREFIX_LENGTH], "big")
        if max(length, _PREFIX_LENGTH) > len(data):
            raise errors.KeyProtectorError(_NOT_ONE % (
                source, "it should have %d bytes and has %d: a piece is missing"
                % (length, len(data))))
        if length < len(data):
            raise errors.KeyProtectorError(_NOT_ONE % (
                source, "%d bytes follow after its end" % (len(data) - length)))
    guardians = tuple(_guardians(_root(document, source), source))
    if not guardians:
        raise errors.KeyProtectorError(_NOT_ONE % (source, "it has no guardians"))
    raw = (len(document) + _PREFIX_LENGTH).to_bytes(_PREFIX_LENGTH, "big") + document
    return KeyProtector(raw=raw, guardians=guardians)


def _root(document: bytes, source: str) -> etree._Element:
    # Bytes of strangers: no entities, no network, no huge trees.
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False,
                             huge_tree=False, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(document, parser)
    except (etree.XMLSyntaxError, ValueError):
        # The parser's own words quote the document.
        raise errors.KeyProtectorError(_NOT_ONE % (
            source, "it is not XML, or its pieces are not in order")) from None
    if root.getroottree().docinfo.doctype:
        raise errors.KeyProtectorError(_NOT_ONE % (source, "it has a document type"))
    if root.tag != "{%s}Protector" % NAMESPACE:
        raise errors.KeyProtectorError(_NOT_ONE % (source, "it is another kind of XML"))
    return root


def _guardians(root: etree._Element, source: str) -> list[Guardian]:
    found = []
    names = {"k": NAMESPACE}
    for wrapping in root.findall("k:Wrappings/k:Wrapping", names):
        identifier = (wrapping.findtext("k:Id", namespaces=names) or "").strip()
        signature = wrapping.find("k:SigningCertificateSignature", names)
        encoded = wrapping.findtext("k:EncryptionCertificate", namespaces=names)
        if not identifier or signature is None or not encoded:
            raise errors.KeyProtectorError(_NOT_ONE % (source, "a wrapping lacks a part"))
        try:
            der = base64.b64decode("".join(encoded.split()), validate=True)
            certificate = x509.load_der_x509_certificate(der)
            name = _common_name(certificate)
        except (binascii.Error, ValueError):
            raise errors.KeyProtectorError(_NOT_ONE % (
                source, "the certificate of wrapping %s cannot be read" % identifier[:10])
            ) from None
        found.append(Guardian(
            wrapping_id=policy.quote(identifier), name=policy.quote(name, _NAME_LENGTH),
            thumbprint=thumbprint(der), is_owner=signature.get("ParentWrappingId") == identifier))
    return found


def _common_name(certificate: x509.Certificate) -> str:
    for attribute in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME):
        return str(attribute.value)
    return certificate.subject.rfc4514_string()
