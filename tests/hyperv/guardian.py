"""Guardians: a signing and an encryption certificate, with or without their private keys.

Source: Microsoft Learn, "New-HgsGuardian", "MSFT_HgsGuardian class"; [MS-KPS] section 6.4
(Metadata, GuardianInformation).
"""
import base64
import hashlib
import time

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from lxml import etree

from tests.hyperv import certificates, metadata_signature, rsa_keys

NAMESPACE = "http://schemas.microsoft.com/kps/2014/07"
# Signature algorithms by their URI [assumption algorithms].
RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
RSA_SHA512 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512"
RSA_PSS_SHA256 = "http://www.w3.org/2007/05/xmldsig-more#sha256-rsa-MGF1"
_SIGNATURES = {
    RSA_SHA256: (padding.PKCS1v15, hashes.SHA256),
    RSA_SHA512: (padding.PKCS1v15, hashes.SHA512),
    RSA_PSS_SHA256: (lambda: padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size),
                     hashes.SHA256)}


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
    def generate(cls, name, now=time.time, key_bits=2048, lifetime=certificates.TEN_YEARS,
                 authority=None, computer=None):
        """A new guardian with private keys (two RSA pairs; 4096 bits take seconds).

        :param now: function that gives the seconds since 1970: when it is made
        :param lifetime: how long its certificates are valid
        :param authority: the :class:`certificates.Authority` that signs them; None: self-signed
        :param computer: the host it is made on, which Windows puts into the subjects
        """
        whose = "(%s) (%s)" % (name, computer) if computer else "(%s)" % name
        pairs = []
        for usage in (certificates.SIGNING, certificates.ENCRYPTION):
            key = rsa_keys.new_key(key_bits)
            pairs.append((certificates.make_certificate(
                "Shielded VM %s Certificate %s" % (usage.capitalize(), whose), key, usage, now,
                lifetime, authority), key))
        return cls.of_certificates(name, *pairs)

    @classmethod
    def of_certificates(cls, name, signing, encryption):
        """A guardian of two pairs (certificate in DER, private key)."""
        return cls(name, signing[0], encryption[0], sign(signing[1], encryption[0]),
                   signing[1], encryption[1])

    def public(self, name=None):
        """The same guardian without its private keys, under another name if one is given."""
        return self.with_keys(None, None, name)

    def with_keys(self, signing_key, encryption_key, name=None):
        """The same guardian with these private keys (None: without)."""
        return Guardian(name or self.name, self.signing_certificate, self.encryption_certificate,
                        self.encryption_signature, signing_key, encryption_key)

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
        root = etree.Element(_tag("Metadata"), nsmap={None: NAMESPACE}, Version="1")
        information = etree.SubElement(root, _tag("GuardianInformation"))
        etree.SubElement(information, _tag("Version")).text = "1"
        for tag, data in (("EncryptionCertificate", self.encryption_certificate),
                          ("SigningCertificate", self.signing_certificate)):
            etree.SubElement(information, _tag(tag)).text = encoded(data)
        for tag, data in (("EncryptionCertificateSignature", self.encryption_signature),
                          ("SigningCertificateSelfSignature",
                           sign(self.signing_key, self.signing_certificate))):
            _fill_signature(etree.SubElement(information, _tag(tag)), data, RSA_SHA256)
        root = metadata_signature.add(root, self.signing_key, self.signing_certificate)
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
            metadata_signature.check(root, signing)
        except (etree.XMLSyntaxError, AttributeError, ValueError, TypeError) as fault:
            raise InvalidMetadata("not guardian metadata: %s" % fault) from None
        except (InvalidSignature, metadata_signature.WrongSignature):
            raise InvalidMetadata("a signature in the guardian metadata is wrong") from None
        return cls(name, signing, encryption, signature)


def sign(key, data, algorithm=RSA_SHA256):
    """An RSA signature.

    :param algorithm: its URI; one that this package does not know gives RSA_SHA256's bytes
    """
    scheme, digest = _SIGNATURES.get(algorithm, _SIGNATURES[RSA_SHA256])
    return key.sign(data, scheme(), digest())


def verify(certificate, signature, data, algorithm=RSA_SHA256):
    """Check a signature.

    :raises cryptography.exceptions.InvalidSignature: it is not that certificate's signature
    :raises ValueError: an algorithm that this package does not know
    """
    if algorithm not in _SIGNATURES:
        raise ValueError("the signature algorithm %s is not known" % algorithm)
    scheme, digest = _SIGNATURES[algorithm]
    key = x509.load_der_x509_certificate(certificate).public_key()
    key.verify(signature, data, scheme(), digest())


def encoded(data):
    return base64.b64encode(data).decode("ascii")


def add_signature(parent, data, algorithm=RSA_SHA256):
    """Add a ``Signature`` element ([MS-KPS] 2.2.2.10)."""
    _fill_signature(etree.SubElement(parent, _tag("Signature")), data, algorithm)


def _fill_signature(element, data, algorithm):
    """Make an element a ``Signature_T`` ([MS-KPS] 6.5)."""
    element.set("Algorithm", algorithm)
    etree.SubElement(element, _tag("SignatureValue")).text = encoded(data)


def _tag(name):
    return "{%s}%s" % (NAMESPACE, name)


def _signature_path(name):
    return "/".join((_tag(name), _tag("SignatureValue")))
