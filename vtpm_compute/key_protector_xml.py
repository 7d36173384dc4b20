"""The XML of a key protector: bytes in, checked values out.

The structure is that of [MS-KPS] (Key Protection Service Protocol) version 8.0, sections 2.2.2.3
to 2.2.2.15, 2.2.3.11 and 6.1. It is checked as strictly as its schema says: every element and
attribute is known, in its order, once; only ``Parameters`` may hold anything (2.2.2.15).

The bytes are a stranger's. No document type (so no entities), no network, no huge tree; size,
elements and attributes are bounded before the XML parser sees them, for it compares the attributes
of an element pair by pair.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import re
from collections.abc import Iterator

from lxml import etree

from vtpm_scheduling import policy

NAMESPACE = "http://schemas.microsoft.com/kps/2014/07"
# Six secrets of Barbican's 20,000 bytes hold some thirty wrappings of RSA-2048. A wrapping has
# about 30 tags and 10 quotation marks.
MAX_BYTES = 1024 * 1024
MAX_WRAPPINGS = 64
_MAX_TAGS = 10_000
_MAX_QUOTES = 4_000
_NAME_LENGTH = 40

_UNSIGNED_INT = re.compile("0*[0-9]{1,10}")
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")
# Any schema allows these two on any element (XML Schema Part 1, 2.6.3).
_SCHEMA_LOCATIONS = {"{http://www.w3.org/2001/XMLSchema-instance}" + name
                     for name in ("schemaLocation", "noNamespaceSchemaLocation")}


class MalformedError(Exception):
    """Bytes that are no key protector; ``str()`` of it is a clause that says why."""


@dataclasses.dataclass(frozen=True)
class Signature:
    """A Signature element (2.2.2.10).

    :ivar algorithm: its URI, as given.
    :ivar has_parameters: whether it has Parameters that change what the URI says.
    """

    algorithm: str
    has_parameters: bool
    value: bytes


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A certificate (2.2.3.11), not yet looked into.

    :ivar der: its bytes.
    :ivar forms: what a signature "over the certificate" may be over: the document does not say.
        Its bytes, their base64, and the canonical form of the element.
    """

    der: bytes
    forms: tuple[bytes, ...]


@dataclasses.dataclass(frozen=True)
class Wrapping:
    """A Wrapping element (2.2.2.4); its ids are numbers."""

    identifier: int
    parent: int
    signing_certificate: Certificate
    signing_signature: Signature
    encryption_certificate: Certificate
    encryption_signature: Signature


@dataclasses.dataclass(frozen=True)
class Protector:
    """A Protector element (2.2.2.3).

    :ivar wrappings: at least one, as many as :data:`MAX_WRAPPINGS` at most.
    :ivar signer: the id that GuardianSignature names.
    :ivar guardian_signature: over one of :attr:`signed_forms`.
    :ivar signed_forms: the Wrappings in exclusive canonical form, UTF-8; and the same without
        white space between the elements, where there is some.
    """

    wrappings: tuple[Wrapping, ...]
    signer: int
    guardian_signature: Signature
    signed_forms: tuple[bytes, ...]
    max_offline_unwraps: int


@dataclasses.dataclass(frozen=True)
class _Shape:
    """What an element holds: children in order ("?" one or none, "+" one or more), attributes."""

    children: tuple[str, ...]
    attributes: tuple[str, ...] = ()
    optional_attributes: tuple[str, ...] = ()


# In this schema the name of an element says its type.
_SHAPES = {
    "Protector": _Shape(("Wrappings", "TransportKeySignature", "GuardianSignature"),
                        optional_attributes=("MaxOfflineUnwraps",)),
    "Wrappings": _Shape(("Wrapping+",)),
    "Wrapping": _Shape(("Id", "SigningCertificate", "SigningCertificateSignature",
                        "EncryptionCertificate", "EncryptionCertificateSignature",
                        "TransportKey")),
    "SigningCertificateSignature": _Shape(("Signature",), ("ParentWrappingId",)),
    "EncryptionCertificateSignature": _Shape(("Signature",)),
    "TransportKey": _Shape(("EncryptedData",)),
    "EncryptedData": _Shape(("Parameters?", "CipherValue"), ("Algorithm",)),
    "TransportKeySignature": _Shape(("KeyDerivationMethod", "Signature")),
    "KeyDerivationMethod": _Shape(("Parameters?",), ("Algorithm",)),
    "GuardianSignature": _Shape(("Signature",), ("WrappingId",)),
    "Signature": _Shape(("Parameters?", "SignatureValue"), ("Algorithm",)),
}
_LEAVES = {"Id", "SigningCertificate", "EncryptionCertificate", "SignatureValue", "CipherValue"}
_ANYTHING = "Parameters"


def read(document: bytes) -> Protector:
    """Read the XML of a key protector, without the length before it.

    :raises MalformedError: when it is not one. Its words quote nothing but names, cut.
    """
    root = _root(document)
    _check_shape(root, "Protector")
    wrappings, _, signature = root
    if len(wrappings) > MAX_WRAPPINGS:
        raise MalformedError("it has more than %d wrappings" % MAX_WRAPPINGS)
    for element in root.iter(_tag("CipherValue")):
        _bytes(element)
    _signature(root[1])
    return Protector(
        wrappings=tuple(_wrapping(element) for element in wrappings),
        signer=_number(signature.get("WrappingId"), "the WrappingId of the GuardianSignature"),
        guardian_signature=_signature(signature),
        signed_forms=tuple(_signed_forms(wrappings)),
        max_offline_unwraps=_number(root.get("MaxOfflineUnwraps", "0"), "MaxOfflineUnwraps"))


def _root(document: bytes) -> etree._Element:
    text = _text(document)
    if "<!DOCTYPE" in text:
        raise MalformedError("it has a document type, which no key protector has")
    if text.count("<") > _MAX_TAGS or text.count('"') + text.count("'") > _MAX_QUOTES:
        raise MalformedError("it has more elements or attributes than any key protector")
    parser = etree.XMLParser(
        encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False,
        huge_tree=False, remove_comments=True)
    try:
        root = etree.fromstring(text.encode("utf-8"), parser)
    except etree.XMLSyntaxError as exc:
        # Not its own words: they quote the document.
        raise MalformedError(_SYNTAX_ERRORS.get(exc.code, "it is not XML")) from None
    if root.tag == _tag("Metadata"):
        raise MalformedError(
            "it is guardian metadata, which says who a guardian is and protects no key")
    if etree.QName(root).localname == "Protector" and root.tag != _tag("Protector"):
        raise MalformedError("it is a Protector of an unknown version (its namespace is %s)" % (
            policy.quote(etree.QName(root).namespace or "empty", 2 * _NAME_LENGTH)))
    if root.tag != _tag("Protector"):
        raise MalformedError("it is another kind of XML (%s)" % _shown(root))
    return root


_SYNTAX_ERRORS = {
    etree.ErrorTypes.ERR_DOCUMENT_END: "something follows after the end of its XML",
    etree.ErrorTypes.ERR_TAG_NOT_FINISHED: "its XML ends too early: a piece is missing",
}


def _text(document: bytes) -> str:
    # The document itself says what it is encoded in; a stranger's word would choose the decoder.
    encoding = "utf-16" if document[:2] in _BYTE_ORDER_MARKS else "utf-8-sig"
    try:
        return document.decode(encoding)
    except UnicodeDecodeError:
        raise MalformedError("it is not XML in UTF-8") from None


def _check_shape(element: etree._Element, path: str) -> None:
    name = etree.QName(element).localname
    if name == _ANYTHING:
        return
    shape = _SHAPES.get(name, _Shape(()))
    for attribute in element.keys():
        if attribute not in (*shape.attributes, *shape.optional_attributes) \
                and attribute not in _SCHEMA_LOCATIONS:
            raise MalformedError("%s has an unknown attribute, %s" % (
                path, policy.quote(etree.QName(attribute).localname, _NAME_LENGTH)))
    for attribute in shape.attributes:
        if element.get(attribute) is None:
            raise MalformedError("%s lacks its attribute %s" % (path, attribute))
    if name in _LEAVES:
        if len(element):
            raise MalformedError("%s holds more than text" % path)
        return
    if (element.text or "").strip() or any((child.tail or "").strip() for child in element):
        raise MalformedError("%s holds text, where only elements belong" % path)
    _check_children(element, shape, path)


def _check_children(element: etree._Element, shape: _Shape, path: str) -> None:
    children = list(element)
    for expected in shape.children:
        name, repeated = expected.rstrip("?+"), expected.endswith("+")
        count = 0
        while children and children[0].tag == _tag(name) and (repeated or not count):
            count += 1
            _check_shape(children.pop(0), "%s/%s" % (path, name) + (
                "[%d]" % count if repeated else ""))
        if not count and not expected.endswith("?"):
            raise MalformedError("%s lacks %s%s" % (path, name, (
                ": in its place is %s" % _shown(children[0])) if children else ""))
        if count > MAX_WRAPPINGS:
            raise MalformedError("it has more than %d wrappings" % MAX_WRAPPINGS)
    if children:
        raise MalformedError("%s holds %s, which does not belong there" % (
            path, _shown(children[0])))


def _wrapping(element: etree._Element) -> Wrapping:
    identifier, signing, signing_signature, encryption, encryption_signature, _ = element
    number = _number(identifier.text, "the Id of a wrapping")
    return Wrapping(
        identifier=number,
        parent=_number(signing_signature.get("ParentWrappingId"),
                       "the ParentWrappingId of wrapping %d" % number),
        signing_certificate=_certificate(signing),
        signing_signature=_signature(signing_signature),
        encryption_certificate=_certificate(encryption),
        encryption_signature=_signature(encryption_signature))


def _certificate(element: etree._Element) -> Certificate:
    der = _bytes(element)
    return Certificate(der, (der, base64.b64encode(der), _canonical(element)))


def _signature(element: etree._Element) -> Signature:
    signature = element.find(_tag("Signature"))
    parameters = signature.find(_tag(_ANYTHING))
    return Signature(
        algorithm=signature.get("Algorithm").strip(),
        has_parameters=parameters is not None and (
            len(parameters) > 0 or bool((parameters.text or "").strip())),
        value=_bytes(signature.find(_tag("SignatureValue"))))


def _signed_forms(wrappings: etree._Element) -> Iterator[bytes]:
    as_given = _canonical(wrappings)
    yield as_given
    # Who signs before the document is laid out for reading signs other white space.
    compact = copy.deepcopy(wrappings)
    for element in compact.iter(*(_tag(name) for name in _SHAPES)):
        element.text = None
        for child in element:
            child.tail = None
    if _canonical(compact) != as_given:
        yield _canonical(compact)


def _canonical(element: etree._Element) -> bytes:
    """Exclusive canonical XML 1.0 without comments (2.2.2.8), in UTF-8."""
    try:
        result: bytes = etree.tostring(element, method="c14n", exclusive=True, with_comments=False)
    except etree.LxmlError:
        raise MalformedError("a name of its XML has no canonical form") from None
    return result


def _bytes(element: etree._Element) -> bytes:
    try:
        found = base64.b64decode("".join((element.text or "").split()), validate=True)
    except ValueError:
        found = b""
    if not found:
        raise MalformedError("%s in it is empty, or is not base64" % (
            etree.QName(element).localname))
    return found


def _number(text: str | None, what: str) -> int:
    stripped = (text or "").strip()
    if not _UNSIGNED_INT.fullmatch(stripped) or int(stripped.lstrip("0") or "0") >= 1 << 32:
        raise MalformedError("%s is not a number of 32 bits" % what)
    return int(stripped.lstrip("0") or "0")


def _shown(element: etree._Element) -> str:
    if not isinstance(element.tag, str):
        return "a processing instruction"
    return policy.quote(etree.QName(element).localname, _NAME_LENGTH)


def _tag(name: str) -> str:
    return "{%s}%s" % (NAMESPACE, name)
