"""The XML of a key protector: bytes in, checked values out.

The structure is that of [MS-KPS] (Key Protection Service Protocol) version 8.0, sections 2.2.2.3
to 2.2.2.15, 2.2.3.11 and 6.1. It is checked as strictly as its schema says: every element and
attribute is known, in its order, once; only ``Parameters`` may hold anything (2.2.2.15).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator

from lxml import etree

from vtpm_compute import kps_elements, untrusted_xml
from vtpm_compute.untrusted_xml import MalformedError, Shape
from vtpm_scheduling import policy


@dataclasses.dataclass(frozen=True)
class Wrapping:
    """A Wrapping element (2.2.2.4); its ids are numbers."""

    identifier: int
    parent: int
    signing_certificate: kps_elements.Certificate
    signing_signature: kps_elements.Signature
    encryption_certificate: kps_elements.Certificate
    encryption_signature: kps_elements.Signature


@dataclasses.dataclass(frozen=True)
class Protector:
    """A Protector element (2.2.2.3).

    :ivar wrappings: at least one, as many as :data:`untrusted_xml.MAX_REPEATED` at most.
    :ivar signer: the id that GuardianSignature names.
    :ivar guardian_signature: over one of :attr:`signed_forms`.
    :ivar signed_forms: the Wrappings in exclusive canonical form, UTF-8; and the same without
        white space between the elements, where there is some.
    """

    wrappings: tuple[Wrapping, ...]
    signer: int
    guardian_signature: kps_elements.Signature
    signed_forms: tuple[bytes, ...]
    max_offline_unwraps: int


# In this schema the name of an element says its type.
_SCHEMA = untrusted_xml.Schema(
    namespace=kps_elements.NAMESPACE,
    shapes={
        "Protector": Shape(("Wrappings", "TransportKeySignature", "GuardianSignature"),
                           optional_attributes=("MaxOfflineUnwraps",)),
        "Wrappings": Shape(("Wrapping+",)),
        "Wrapping": Shape(("Id", "SigningCertificate", "SigningCertificateSignature",
                           "EncryptionCertificate", "EncryptionCertificateSignature",
                           "TransportKey")),
        "SigningCertificateSignature": Shape(("Signature",), ("ParentWrappingId",)),
        "EncryptionCertificateSignature": Shape(("Signature",)),
        "TransportKey": Shape(("EncryptedData",)),
        "EncryptedData": Shape((kps_elements.PARAMETERS + "?", "CipherValue"), ("Algorithm",)),
        "TransportKeySignature": Shape(("KeyDerivationMethod", "Signature")),
        "KeyDerivationMethod": Shape((kps_elements.PARAMETERS + "?",), ("Algorithm",)),
        "GuardianSignature": Shape(("Signature",), ("WrappingId",)),
        "Signature": kps_elements.SIGNATURE},
    leaves=frozenset({"Id", "SigningCertificate", "EncryptionCertificate", "SignatureValue",
                      "CipherValue"}),
    open=frozenset({kps_elements.PARAMETERS}),
    plurals={"Wrapping": "wrappings"})


def read(document: bytes) -> Protector:
    """Read the XML of a key protector, without the length before it.

    :raises vtpm_compute.untrusted_xml.MalformedError: when it is not one. Its words quote nothing
        but names, cut.
    """
    root = _root(document)
    untrusted_xml.check_shape(root, "Protector", _SCHEMA)
    wrappings, transport_key_signature, signature = root
    for element in root.iter(_SCHEMA.tag("CipherValue")):
        untrusted_xml.octets(element)
    _signature(transport_key_signature)
    return Protector(
        wrappings=tuple(_wrapping(element) for element in wrappings),
        signer=untrusted_xml.number(
            signature.get("WrappingId"), "the WrappingId of the GuardianSignature"),
        guardian_signature=_signature(signature),
        signed_forms=tuple(_signed_forms(wrappings)),
        max_offline_unwraps=untrusted_xml.number(
            root.get("MaxOfflineUnwraps", "0"), "MaxOfflineUnwraps"))


def _root(document: bytes) -> etree._Element:
    root = untrusted_xml.parse(untrusted_xml.decode(document), "key protector")
    if root.tag == _SCHEMA.tag("Metadata"):
        raise MalformedError(
            "it is guardian metadata, which says who a guardian is and protects no key")
    if etree.QName(root).localname == "Protector" and root.tag != _SCHEMA.tag("Protector"):
        raise MalformedError("it is a Protector of an unknown version, in %s" % (
            policy.quote(etree.QName(root).namespace or "empty", untrusted_xml.NAME_LENGTH)))
    if root.tag != _SCHEMA.tag("Protector"):
        raise MalformedError("it is another kind of XML (%s)" % untrusted_xml.shown(root))
    return root


def _wrapping(element: etree._Element) -> Wrapping:
    identifier, signing, signing_signature, encryption, encryption_signature, _ = element
    number = untrusted_xml.number(identifier.text, "the Id of a wrapping")
    return Wrapping(
        identifier=number,
        parent=untrusted_xml.number(signing_signature.get("ParentWrappingId"),
                       "the ParentWrappingId of wrapping %d" % number),
        signing_certificate=kps_elements.certificate(signing),
        signing_signature=_signature(signing_signature),
        encryption_certificate=kps_elements.certificate(encryption),
        encryption_signature=_signature(encryption_signature))


def _signature(element: etree._Element) -> kps_elements.Signature:
    return kps_elements.signature(element.find(_SCHEMA.tag("Signature")))


def _signed_forms(wrappings: etree._Element) -> Iterator[bytes]:
    as_given = untrusted_xml.canonical(wrappings)
    yield as_given
    # Who signs before the document is laid out for reading signs other white space.
    compact = copy.deepcopy(wrappings)
    for element in compact.iter(*(_SCHEMA.tag(name) for name in _SCHEMA.shapes)):
        element.text = None
        for child in element:
            child.tail = None
    if untrusted_xml.canonical(compact) != as_given:
        yield untrusted_xml.canonical(compact)
