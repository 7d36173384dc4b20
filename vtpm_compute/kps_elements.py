"""What key protectors and guardian metadata have in common: signatures and certificates in XML.

Source: [MS-KPS] (Key Protection Service Protocol) version 8.0, sections 2.2.2.10, 2.2.3.11 and 6.5.
"""

from __future__ import annotations

import base64
import dataclasses

from lxml import etree

from vtpm_compute import untrusted_xml

NAMESPACE = "http://schemas.microsoft.com/kps/2014/07"
PARAMETERS = "Parameters"
# Of an element that is a signature, whatever its name (Signature_T).
SIGNATURE = untrusted_xml.Shape((PARAMETERS + "?", "SignatureValue"), ("Algorithm",))


@dataclasses.dataclass(frozen=True)
class Signature:
    """A signature (2.2.2.10).

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


def tag(name: str) -> str:
    """A name of :data:`NAMESPACE`, as lxml writes it."""
    return "{%s}%s" % (NAMESPACE, name)


def certificate(element: etree._Element) -> Certificate:
    """:raises vtpm_compute.untrusted_xml.MalformedError: when it is not base64."""
    der = untrusted_xml.octets(element)
    return Certificate(der, (der, base64.b64encode(der), untrusted_xml.canonical(element)))


def signature(element: etree._Element) -> Signature:
    """Read an element that has the shape :data:`SIGNATURE`.

    :raises vtpm_compute.untrusted_xml.MalformedError: when its value is not base64.
    """
    parameters = element.find(tag(PARAMETERS))
    return Signature(
        algorithm=element.get("Algorithm").strip(),
        has_parameters=parameters is not None and (
            len(parameters) > 0 or bool((parameters.text or "").strip())),
        value=untrusted_xml.octets(element.find(tag("SignatureValue"))))
