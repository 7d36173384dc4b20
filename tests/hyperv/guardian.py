"""Guardians: a signing and an encryption certificate, with or without their private keys.

Source: Microsoft Learn, "New-HgsGuardian" (self-signed, ten years, RSA), "MSFT_HgsGuardian class";
[MS-KPS] sections 2.2.2.1 and 2.2.2.2 (Metadata, GuardianInformation).
"""
import base64
import datetime
import hashlib

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from lxml import etree

NAMESPACE = "http://schemas.microsoft.com/kps/2014/07"
RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"  # [assumption algorithms]
_TEN_YEARS = datetime.timedelta(days=3653)


class InvalidMetadata(Exception):
    """A guardian's metadata cannot be read or are not signed by its own key."""


class Guardian:
    """One guardian.

    :param name: the name in a guardian store; of no meaning elsewhere
    :param signing_certificate: DER bytes
    :param encryption_certificate: DER bytes [assumption certificates-as-der]
    :param encryption_signature: by the signing key over the encryption certificate
    :param signing_key: RSA private key, or None
    :param encryption_key: RSA private key, or None
    """

    def __init__(self, name, signing_certificate, encryption_certificate, encryption_signature,
                 signing_key=None, encryption_key=None):
        self.name = name
        self.signing_certificate = signing_certificate
        self.encryption_certificate = encryption_certificate
        self.encryption_signature = encryption_signature
        self.signing_key, self.encryption_key = signing_key, encryption_key

    @classmethod
    def generate(cls, name):
        """A new guardian with private keys (two RSA-2048 pairs: about 0.2 s)."""
        signing_key, encryption_key = (
            rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
        signing = self_signed("Shielded VM Signing Certificate (%s)" % name, signing_key)
        encryption = self_signed("Shielded VM Encryption Certificate (%s)" % name, encryption_key)
        return cls(name, signing, encryption, sign(signing_key, encryption),
                   signing_key, encryption_key)

    def public(self, name=None):
        """The same guardian without its private keys, under another name if one is given."""
        return Guardian(name or self.name, self.signing_certificate, self.encryption_certificate,
                        self.encryption_signature)

    @property
    def thumbprint(self):
        """SHA-256 of the encryption certificate, hexadecimal."""
        return hashlib.sha256(self.encryption_certificate).hexdigest()

    def metadata(self):
        """The ``Metadata`` document, as the key protection server or Export gives it: bytes.

        :raises ValueError: without the private signing key the document cannot be signed
        """
        if self.signing_key is None:
            raise ValueError("guardian %s has no private signing key" % self.name)
        root = etree.Element(_tag("Metadata"), nsmap={None: NAMESPACE}, Version="1.0")
        information = etree.SubElement(root, _tag("GuardianInformation"), Version="1.0")
        for tag, data in (("EncryptionCertificate", self.encryption_certificate),
                          ("SigningCertificate", self.signing_certificate)):
            etree.SubElement(information, _tag(tag)).text = encoded(data)
        for tag, data in (("EncryptionCertificateSignature", self.encryption_signature),
                          ("SigningCertificateSelfSignature",
                           sign(self.signing_key, self.signing_certificate))):
            add_signature(etree.SubElement(information, _tag(tag)), data)
        return etree.tostring(root, encoding="utf-8", xml_declaration=True)

    @classmethod
    def from_metadata(cls, document, name):
        """The guardian in a ``Metadata`` document.

        :raises InvalidMetadata: it cannot be read, or a signature is wrong
        """
        try:
            root = etree.fromstring(document, etree.XMLParser(resolve_entities=False))
            information = root.find(_tag("GuardianInformation"))
            signing, encryption, signature, own_signature = (
                base64.b64decode(information.find(path).text) for path in (
                    _tag("SigningCertificate"), _tag("EncryptionCertificate"),
                    _signature_path("EncryptionCertificateSignature"),
                    _signature_path("SigningCertificateSelfSignature")))
            verify(signing, signature, encryption)
            verify(signing, own_signature, signing)
        except (etree.XMLSyntaxError, AttributeError, ValueError, TypeError) as fault:
            raise InvalidMetadata("not guardian metadata: %s" % fault) from None
        except InvalidSignature:
            raise InvalidMetadata("a signature in the guardian metadata is wrong") from None
        return cls(name, signing, encryption, signature)


def self_signed(common_name, key, years=_TEN_YEARS):
    """A self-signed certificate in DER."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
    now = datetime.datetime.utcnow()
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + years)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def sign(key, data):
    """RSA PKCS#1 v1.5 with SHA-256."""
    return key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def verify(certificate, signature, data):
    """:raises cryptography.exceptions.InvalidSignature: it is not that certificate's signature"""
    key = x509.load_der_x509_certificate(certificate).public_key()
    key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())


def encoded(data):
    return base64.b64encode(data).decode("ascii")


def add_signature(parent, data, algorithm=RSA_SHA256):
    """Add a ``Signature`` element ([MS-KPS] 2.2.2.10)."""
    signature = etree.SubElement(parent, _tag("Signature"), Algorithm=algorithm)
    etree.SubElement(signature, _tag("SignatureValue")).text = encoded(data)


def _tag(name):
    return "{%s}%s" % (NAMESPACE, name)


def _signature_path(name):
    return "/".join((_tag(name), _tag("Signature"), _tag("SignatureValue")))
