"""Guardian metadata: who a guardian is, for a key protector that is to be made for them.

What ``Export-HgsGuardian`` writes, and what a key protection server gives at
``/keyprotection/service/metadata/2014-07/metadata.xml``. Its structure is that of the schema in
[MS-KPS] version 8.0, section 6.4, and is checked as strictly. Pure: no Windows, no network.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Iterator

from vtpm_compute import (
    errors,
    key_protector_signatures,
    kps_elements,
    rsa_certificates,
    untrusted_xml,
)
from vtpm_compute.key_protector_signatures import CheckedSignature, Verdict
from vtpm_compute.untrusted_xml import MalformedError, Shape

_DS_SIGNATURE = "{http://www.w3.org/2000/09/xmldsig#}Signature"
_SCHEMA = untrusted_xml.Schema(
    namespace=kps_elements.NAMESPACE,
    shapes={
        "Metadata": Shape(("GuardianInformation", _DS_SIGNATURE, "*"), ("Version",), ("*",)),
        "GuardianInformation": Shape((
            "Version", "EncryptionCertificate", "SigningCertificate",
            "EncryptionCertificateSignature", "SigningCertificateSelfSignature",
            "OtherSigningCertificates?")),
        "EncryptionCertificateSignature": kps_elements.SIGNATURE,
        "SigningCertificateSelfSignature": kps_elements.SIGNATURE,
        "OtherSigningCertificates": Shape(("Certificate*",))},
    leaves=frozenset({"Version", "EncryptionCertificate", "SigningCertificate", "SignatureValue",
                      "Certificate"}),
    open=frozenset({kps_elements.PARAMETERS}),
    plurals={"Certificate": "other signing certificates"})

# The name of the root element stands within so many bytes of all that people write before it.
_BEGINNING = 4096
_ROOT = re.compile(r"<(?:[\w.-]+:)?Metadata[\s/>]")

_NOT_ONE = "What %s holds is not guardian metadata: %s. %s"
_UNUSABLE = "The guardian metadata of %s cannot be used: %s. %s"
_STORE_WHOLE = "Store the whole file."
_EXPORT_AGAIN = "Export it again."
_ANOTHER = "Name a guardian with another certificate."


@dataclasses.dataclass(frozen=True)
class GuardianMetadata:
    """Guardian metadata that was read and checked.

    :ivar raw: the document in UTF-8 without byte-order mark, as MSFT_HgsGuardian.Import reads it.
    :ivar name: the common name in its encryption certificate, printable and cut.
    :ivar thumbprint: SHA-256 of that certificate, lower-case hexadecimal.
    :ivar key_bits: the length of its RSA encryption key.
    :ivar not_before: from when its encryption certificate is valid (UTC).
    :ivar not_after: until when.
    :ivar signatures: over its encryption certificate, its signing certificate, the document.
    :ivar warnings: sentences; what Windows may refuse.
    :ivar out_of_time: a clause: which of its two certificates is not valid now, and why; None:
        both are. Windows makes no key protector for it.
    """

    raw: bytes = dataclasses.field(repr=False)
    name: str
    thumbprint: str
    key_bits: int
    not_before: datetime.datetime
    not_after: datetime.datetime
    signatures: tuple[CheckedSignature, ...]
    warnings: tuple[str, ...] = ()
    out_of_time: str | None = None

    def __str__(self) -> str:
        return "%s (%s...)" % (self.name, self.thumbprint[:16])

    def lines(self) -> Iterator[str]:
        """The report, for people: who it is, each signature, and warnings."""
        yield "Guardian metadata of %d bytes: %s" % (len(self.raw), self.name)
        yield "  encryption certificate: SHA-256 %s" % self.thumbprint
        yield "  RSA of %d bits, valid from %s to %s" % (
            self.key_bits, self.not_before.date(), self.not_after.date())
        for signature in self.signatures:
            yield "  %s" % signature
        for warning in self.warnings:
            yield "Warning: %s" % warning


@dataclasses.dataclass(frozen=True)
class _Document:
    """A Metadata element (6.4), its certificates not yet looked into."""

    encryption: kps_elements.Certificate
    signing: kps_elements.Certificate
    encryption_signature: kps_elements.Signature
    self_signature: kps_elements.Signature
    other_signing: tuple[kps_elements.Certificate, ...]


def is_metadata(data: bytes) -> bool:
    """Whether bytes begin like a Metadata document, whatever they go on with."""
    text = _decoded(data[:_BEGINNING]).lstrip()
    while text[:2] == "<?" or text[:4] == "<!--":
        text = text.partition("?>" if text[:2] == "<?" else "-->")[2].lstrip()
    return _ROOT.match(text) is not None


def is_cut(data: bytes) -> bool:
    """Whether metadata lacks its end."""
    text = _decoded(data)
    end = _without_space(text, len(text))
    while text.endswith("-->", 0, end):
        # Found backwards: a stranger's comments are looked at once, however many there are.
        end = _without_space(text, max(text.rfind("<!--", 0, end), 0))
    start = max(text.rfind("<", 0, end), 0)
    return not text.endswith(">", start, end) or "Metadata" not in text[start:end]


def _decoded(data: bytes) -> str:
    """The text of a document, or of a part of it: what is none is replaced."""
    encoding = "utf-16" if data[:2] in untrusted_xml.UTF_16_MARKS else "utf-8-sig"
    return data.decode(encoding, errors="replace")


def _without_space(text: str, end: int) -> int:
    """A position in a text, or that before the white space there."""
    while end and text[end - 1].isspace():
        end -= 1
    return end


def parse(document: bytes, source: str, now: datetime.datetime | None = None,
          refuse_wrong_signatures: bool = True) -> GuardianMetadata:
    """Read and check guardian metadata.

    :param document: one whole document.
    :param source: where it comes from, for messages.
    :param now: with time zone; when not the present is meant.
    :param refuse_wrong_signatures: whether a signature that is wrong is an error; else it is a
        warning.
    :raises vtpm_compute.errors.KeyProtectorError: when it is not one, or something in it is wrong.
    """
    try:
        text, raw = _text(document)
        read = _read(text)
    except MalformedError as exc:
        raise errors.KeyProtectorError(
            errors.fitted(_NOT_ONE, source, exc, _STORE_WHOLE)) from None
    try:
        encryption = rsa_certificates.load(read.encryption.der, "its encryption certificate")
        signing = rsa_certificates.load(read.signing.der, "its signing certificate")
        for position, other in enumerate(read.other_signing, 1):
            rsa_certificates.load(other.der, "its other signing certificate %d" % position)
        signatures = (
            key_protector_signatures.check_certificate(
                "its signature over its encryption certificate", signing.key,
                read.encryption_signature, read.encryption),
            key_protector_signatures.check_certificate(
                "its signature over its signing certificate", signing.key,
                read.self_signature, read.signing),
            # What Windows checks there, and with whose key, no document says.
            CheckedSignature("the XML signature of the document", Verdict.NOT_VERIFIED,
                             "it is left to Windows"))
        if refuse_wrong_signatures:
            key_protector_signatures.require_none_wrong(signatures)
    except rsa_certificates.UnreadableCertificateError as exc:
        raise errors.KeyProtectorError(
            errors.fitted(_UNUSABLE, source, exc, _EXPORT_AGAIN)) from None
    except rsa_certificates.UnusableCertificateError as exc:
        raise errors.KeyProtectorError(
            errors.fitted(_UNUSABLE, source, exc, _ANOTHER)) from None
    except key_protector_signatures.WrongSignatureError as exc:
        raise errors.KeyProtectorError(
            errors.fitted(_UNUSABLE, source, exc, _EXPORT_AGAIN)) from None
    problems = {usage: problem for usage, problem in (
        ("signing", signing.out_of_time(now)), ("encryption", encryption.out_of_time(now)))
        if problem}
    return GuardianMetadata(
        raw=raw, name=encryption.name, thumbprint=encryption.thumbprint,
        key_bits=encryption.key.key_size, not_before=encryption.not_before,
        not_after=encryption.not_after, signatures=signatures,
        warnings=(*(str(one) for one in signatures if one.verdict is Verdict.WRONG), *(
            "the %s certificate of guardian %s %s" % (usage, encryption.name, problem)
            for usage, problem in problems.items())),
        out_of_time=next(
            ("its %s certificate %s" % one for one in problems.items()), None))


def _text(document: bytes) -> tuple[str, bytes]:
    """The document's text, and the bytes in which any reader of XML finds the same text."""
    if not document:
        raise MalformedError("it is empty")
    if len(document) > untrusted_xml.MAX_BYTES:
        raise MalformedError("it is larger than 1 MiB")
    text = untrusted_xml.decode(document)
    if document[:2] in untrusted_xml.UTF_16_MARKS:
        return text, untrusted_xml.without_declaration(text).encode("utf-8")
    declared = untrusted_xml.declared_encoding(text)
    if declared is not None and declared.lower() != "utf-8":
        # Windows would go by it, and might read another guardian out of the same bytes.
        raise MalformedError("it is in UTF-8, and says that it is in another encoding")
    return text, untrusted_xml.without_mark(document)


def _read(text: str) -> _Document:
    root = untrusted_xml.parse(text, "guardian metadata")
    if root.tag != _SCHEMA.tag("Metadata"):
        raise MalformedError("it is another kind of XML (%s), or of an unknown version" % (
            untrusted_xml.shown(root)))
    untrusted_xml.check_shape(root, "Metadata", _SCHEMA)
    untrusted_xml.number(root.get("Version"), "the Version of Metadata")
    version, encryption, signing, encryption_signature, self_signature, *others = root[0]
    untrusted_xml.number(version.text, "the Version of GuardianInformation")
    return _Document(
        encryption=kps_elements.certificate(encryption),
        signing=kps_elements.certificate(signing),
        encryption_signature=kps_elements.signature(encryption_signature),
        self_signature=kps_elements.signature(self_signature),
        other_signing=tuple(kps_elements.certificate(element)
                            for collection in others for element in collection))
