"""Key protectors with real cryptography: made, read, unwrapped, rolled.

A protector is a length of four bytes (big endian, itself included) and an XML ``Protector``.
Structure: [MS-KPS] sections 2.2.2.3 to 2.2.2.14. Length prefix: Microsoft Learn, "New-
HgsKeyProtector" (RawData in its example). The algorithms are this package's choice
[assumption algorithms]: no byte compatibility with Windows is claimed.

A tenant's script needs :func:`make_protector` and :class:`tests.hyperv.guardian.Guardian` only::

    owner = Guardian.generate("tenant")
    fabric = Guardian.from_metadata(open("fabric.xml", "rb").read(), "fabric")
    secret = make_protector(owner, [fabric])
"""
import base64
import hashlib
import os

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from lxml import etree

from tests.hyperv.guardian import NAMESPACE, RSA_SHA256, add_signature, encoded, sign, verify

RSA_OAEP = "http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p"
HMAC_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256"
HKDF_SHA256 = "http://www.w3.org/2021/04/xmldsig-more#hkdf"
_KEY_BYTES = 32
_PREFIX = 4


class InvalidProtector(Exception):
    """Bytes that are not a whole, properly signed key protector."""


class CannotUnwrap(Exception):
    """No wrapping of the protector is for this key."""


class Wrapping:
    """One wrapping as read: who it is for.

    :ivar identifier: its Id
    :ivar parent: the Id of the wrapping whose key signed its signing certificate
    """

    def __init__(self, element):
        signature = element.find(_tag("SigningCertificateSignature"))
        self.identifier = element.findtext(_tag("Id"))
        self.parent = signature.get("ParentWrappingId")
        self.signing_certificate = _data(element, "SigningCertificate")
        self.encryption_certificate = _data(element, "EncryptionCertificate")
        self.signing_signature = _data(signature, "Signature", "SignatureValue")
        self.encryption_signature = _data(
            element, "EncryptionCertificateSignature", "Signature", "SignatureValue")
        self.encrypted_key = _data(element, "TransportKey", "EncryptedData", "CipherValue")

    @property
    def thumbprint(self):
        """SHA-256 of the encryption certificate, hexadecimal."""
        return hashlib.sha256(self.encryption_certificate).hexdigest()

    @property
    def is_owner(self):
        return self.parent == self.identifier


def make_protector(owner, guardians):
    """A new key protector.

    :param owner: a guardian with its private keys; signs the others in
    :param guardians: guardians, public parts, that shall be able to unwrap it
    :returns: bytes with their length prefix
    :raises ValueError: the owner has no private signing key
    """
    if owner.signing_key is None:
        raise ValueError("the owner, %s, has no private signing key" % owner.name)
    members = [owner] + [g for g in guardians if g.thumbprint != owner.thumbprint]
    entries = [
        {"identifier": str(number), "parent": "1",
         "signing_certificate": member.signing_certificate,
         "signing_signature": sign(owner.signing_key, member.signing_certificate),
         "encryption_certificate": member.encryption_certificate,
         "encryption_signature": member.encryption_signature}
        for number, member in enumerate(members, 1)]
    return _assemble(entries, os.urandom(_KEY_BYTES), owner.signing_key, "1")


def read(data):
    """The wrappings of a protector, after every check that needs no private key.

    :param data: with or without the length prefix
    :raises InvalidProtector: not whole, not a protector, or a signature is wrong
    """
    root = _root(data)
    try:
        wrappings = [Wrapping(element) for element in root.iterfind(
            _tag("Wrappings") + "/" + _tag("Wrapping"))]
        by_id = {wrapping.identifier: wrapping for wrapping in wrappings}
        for wrapping in wrappings:
            verify(by_id[wrapping.parent].signing_certificate, wrapping.signing_signature,
                   wrapping.signing_certificate)
            verify(wrapping.signing_certificate, wrapping.encryption_signature,
                   wrapping.encryption_certificate)
        by = root.find(_tag("GuardianSignature"))
        verify(by_id[by.get("WrappingId")].signing_certificate,
               _data(by, "Signature", "SignatureValue"), _canonical(root))
    except (AttributeError, KeyError, ValueError, TypeError):
        raise InvalidProtector("a part of the key protector is missing") from None
    except InvalidSignature:
        raise InvalidProtector("a signature in the key protector is wrong") from None
    return wrappings


def unwrap(data, encryption_keys):
    """The transport key.

    :param encryption_keys: RSA private keys to try
    :raises InvalidProtector: see :func:`read`; also: not signed with its transport key
    :raises CannotUnwrap: no wrapping is for one of the keys
    """
    wrappings = read(data)
    for key in encryption_keys:
        numbers = key.public_key().public_numbers()
        for wrapping in wrappings:
            if _public_numbers(wrapping.encryption_certificate) == numbers:
                try:
                    transport_key = key.decrypt(wrapping.encrypted_key, _oaep())
                except ValueError:
                    raise InvalidProtector("the transport key cannot be decrypted") from None
                _check_transport_signature(_root(data), transport_key)
                return transport_key
    raise CannotUnwrap("none of %d wrappings is for this host" % len(wrappings))


def roll(data, guardian):
    """The same wrappings around a new transport key ([MS-KPS] 3.1.4.1, RollTransportKey).

    :param guardian: with private keys; signs the new protector
    :returns: (new protector, new transport key)
    :raises CannotUnwrap: the guardian is none of the protector's
    """
    wrappings = read(data)
    signer = [w for w in wrappings if w.signing_certificate == guardian.signing_certificate]
    if not signer:
        raise CannotUnwrap("%s has no wrapping in it" % guardian.name)
    transport_key = os.urandom(_KEY_BYTES)
    entries = [{name: getattr(w, name) for name in (
        "identifier", "parent", "signing_certificate", "signing_signature",
        "encryption_certificate", "encryption_signature")} for w in wrappings]
    return (_assemble(entries, transport_key, guardian.signing_key, signer[0].identifier),
            transport_key)


def with_prefix(document):
    return (len(document) + _PREFIX).to_bytes(_PREFIX, "big") + document


def _assemble(entries, transport_key, signing_key, signer_id):
    root = etree.Element(_tag("Protector"), nsmap={None: NAMESPACE}, MaxOfflineUnwraps="0")
    wrappings = etree.SubElement(root, _tag("Wrappings"))
    for entry in entries:
        _add_wrapping(wrappings, entry, transport_key)
    canonical = _canonical(root)
    transport = etree.SubElement(root, _tag("TransportKeySignature"))
    etree.SubElement(transport, _tag("KeyDerivationMethod"), Algorithm=HKDF_SHA256)
    add_signature(transport, _transport_hmac(transport_key, canonical).finalize(), HMAC_SHA256)
    by = etree.SubElement(root, _tag("GuardianSignature"), WrappingId=signer_id)
    add_signature(by, sign(signing_key, canonical), RSA_SHA256)
    return with_prefix(etree.tostring(root, encoding="utf-8", xml_declaration=True))


def _add_wrapping(wrappings, entry, transport_key):
    wrapping = etree.SubElement(wrappings, _tag("Wrapping"))
    etree.SubElement(wrapping, _tag("Id")).text = entry["identifier"]
    etree.SubElement(wrapping, _tag("SigningCertificate")).text = encoded(
        entry["signing_certificate"])
    signature = etree.SubElement(wrapping, _tag("SigningCertificateSignature"),
                                 ParentWrappingId=entry["parent"])
    add_signature(signature, entry["signing_signature"])
    etree.SubElement(wrapping, _tag("EncryptionCertificate")).text = encoded(
        entry["encryption_certificate"])
    add_signature(etree.SubElement(wrapping, _tag("EncryptionCertificateSignature")),
                  entry["encryption_signature"])
    public_key = x509.load_der_x509_certificate(entry["encryption_certificate"]).public_key()
    key = etree.SubElement(etree.SubElement(wrapping, _tag("TransportKey")),
                           _tag("EncryptedData"), Algorithm=RSA_OAEP)
    etree.SubElement(key, _tag("CipherValue")).text = encoded(
        public_key.encrypt(transport_key, _oaep()))


def _check_transport_signature(root, transport_key):
    signature = _data(root, "TransportKeySignature", "Signature", "SignatureValue")
    try:
        _transport_hmac(transport_key, _canonical(root)).verify(signature)
    except InvalidSignature:
        raise InvalidProtector("the transport key's signature is wrong") from None


def _transport_hmac(transport_key, canonical):
    derivation = HKDF(hashes.SHA256(), _KEY_BYTES, None, b"TransportKeySignature")
    mac = hmac.HMAC(derivation.derive(transport_key), hashes.SHA256())
    mac.update(canonical)
    return mac


def _root(data):
    data = bytes(data)
    if data[:1] == b"\x00":
        if int.from_bytes(data[:_PREFIX], "big") != len(data):
            raise InvalidProtector("the length of the key protector is wrong")
        data = data[_PREFIX:]
    try:
        root = etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True))
    except (etree.XMLSyntaxError, ValueError) as fault:
        raise InvalidProtector("the key protector is not XML: %s" % fault) from None
    if root.tag != _tag("Protector"):
        raise InvalidProtector("%s is not a key protector" % root.tag)
    return root


def _canonical(root):
    """Exclusive canonical XML of the Wrappings, as [MS-KPS] 2.2.2.7 and 2.2.2.8 want it signed."""
    return etree.tostring(root.find(_tag("Wrappings")), method="c14n", exclusive=True)


def _data(element, *path):
    return base64.b64decode(element.find("/".join(_tag(name) for name in path)).text)


def _public_numbers(certificate):
    return x509.load_der_x509_certificate(certificate).public_key().public_numbers()


def _oaep():
    return padding.OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None)


def _tag(name):
    return "{%s}%s" % (NAMESPACE, name)
