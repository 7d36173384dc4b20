"""The ds:Signature of a guardian's Metadata document: XML Signature, made and checked by signxml.

Source: [MS-KPS] 6.4 (Metadata has a ds:Signature); W3C, "XML Signature Syntax and Processing".
How it is made is this package's choice [assumption metadata-signature].
"""
import logging

import signxml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm, SignatureMethod

_CONFIGURATION = signxml.SignatureConfiguration(
    location="./", expect_references=1, signature_methods=frozenset({SignatureMethod.RSA_SHA256}),
    digest_algorithms=frozenset({DigestAlgorithm.SHA256}))

# At debug level it writes whole documents into the log of whatever runs on the simulation.
logging.getLogger("signxml").setLevel(logging.INFO)


class WrongSignature(Exception):
    """The document has none, or one of another key or document."""


def add(document, key, certificate):
    """The document (an element) with an enveloped signature at its end.

    :param key: RSA private key
    :param certificate: its certificate, DER bytes; goes into the KeyInfo
    """
    signer = signxml.XMLSigner(
        signxml.methods.enveloped, SignatureMethod.RSA_SHA256, DigestAlgorithm.SHA256,
        CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0)
    return signer.sign(document, key=key, cert=_pem(certificate))


def check(document, certificate):
    """What of a document its signature covers, as an element.

    :param certificate: whose signature it has to be, DER bytes
    :raises WrongSignature: see there
    """
    try:
        return signxml.XMLVerifier().verify(
            document, x509_cert=_pem(certificate), expect_config=_CONFIGURATION).signed_xml
    except (signxml.InvalidInput, signxml.InvalidSignature) as fault:
        raise WrongSignature(str(fault)) from None


def _pem(certificate):
    return x509.load_der_x509_certificate(certificate).public_bytes(
        serialization.Encoding.PEM).decode("ascii")
