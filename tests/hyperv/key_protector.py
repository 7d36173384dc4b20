"""Key protectors with real cryptography: made, read, unwrapped, rolled, granted, revoked.

A protector is a length of four bytes (big endian, itself included) and an XML ``Protector``.
Structure: [MS-KPS] sections 2.2.2.3 to 2.2.2.14. Length: Microsoft Learn, "Get-
KeyProtectorFromShieldingDataFile" ("0 0 36 52" in its first example) [assumption protector-prefix].
The algorithms are this package's choice [assumption algorithms]: no byte compatibility with Windows
is claimed.

A tenant's script needs :func:`make_protector` and :class:`tests.hyperv.guardian.Guardian` only::

    owner = Guardian.generate("tenant")
    fabric = Guardian.from_metadata(open("fabric.xml", "rb").read(), "fabric")
    secret = make_protector(owner, [fabric])
"""
import base64
import hashlib
import os
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from lxml import etree

from tests.hyperv.guardian import NAMESPACE, RSA_SHA256, add_signature, encoded, sign, verify

RSA_OAEP = "http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p"
RSA_OAEP_SHA256 = "http://www.w3.org/2009/xmlenc11#rsa-oaep"
HMAC_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256"
HKDF_SHA256 = "http://www.w3.org/2021/04/xmldsig-more#hkdf"
_KEY_BYTES = 32
_PREFIX = 4


_KEY_ENCRYPTIONS = {RSA_OAEP: hashes.SHA1, RSA_OAEP_SHA256: hashes.SHA256}


class Algorithms(NamedTuple):
    """The algorithms that a protector names, by URI [assumption algorithms].

    A URI that this package does not know stands in the document as given, over bytes of the
    default algorithm: for tests of parsers; :func:`read` refuses such a protector.
    """

    signature: str = RSA_SHA256
    key_encryption: str = RSA_OAEP
    key_derivation: str = HKDF_SHA256
    mac: str = HMAC_SHA256


class InvalidProtector(Exception):
    """Bytes that are not a whole, properly signed key protector."""


class CannotUnwrap(Exception):
    """No wrapping of the protector is for this key."""


class Wrapping:
    """One wrapping: who it is for.

    :ivar identifier: its Id
    :ivar parent: the Id of the wrapping whose key signed its signing certificate
    :ivar signing_certificate, encryption_certificate: DER bytes
    :ivar signing_signature: the parent's signature over the signing certificate
    :ivar encryption_signature: its own signature over the encryption certificate
    :ivar encrypted_key: the transport key, encrypted; None: not yet
    """

    def __init__(self, identifier, parent, signing_certificate, signing_signature,
                 encryption_certificate, encryption_signature, encrypted_key=None,
                 signature_algorithm=RSA_SHA256, key_encryption=RSA_OAEP,
                 encryption_signature_algorithm=RSA_SHA256):
        self.identifier, self.parent = identifier, parent
        self.signing_certificate, self.signing_signature = signing_certificate, signing_signature
        self.encryption_certificate = encryption_certificate
        self.encryption_signature = encryption_signature
        self.encrypted_key = encrypted_key
        self.signature_algorithm, self.key_encryption = signature_algorithm, key_encryption
        self.encryption_signature_algorithm = encryption_signature_algorithm

    @classmethod
    def of_element(cls, element):
        signature = element.find(_tag("SigningCertificateSignature"))
        own = element.find(_tag("EncryptionCertificateSignature"))
        key = element.find(_tag("TransportKey") + "/" + _tag("EncryptedData"))
        return cls(
            element.findtext(_tag("Id")), signature.get("ParentWrappingId"),
            _data(element, "SigningCertificate"), _data(signature, "Signature", "SignatureValue"),
            _data(element, "EncryptionCertificate"), _data(own, "Signature", "SignatureValue"),
            _data(key, "CipherValue"), _algorithm(signature), key.get("Algorithm"),
            _algorithm(own))

    @classmethod
    def of_guardian(cls, guardian, identifier, parent, signing_key, algorithms=None):
        """A wrapping for a guardian, signed in with the signing key of the parent."""
        algorithms = algorithms or Algorithms()
        return cls(
            identifier, parent, guardian.signing_certificate,
            sign(signing_key, guardian.signing_certificate, algorithms.signature),
            guardian.encryption_certificate, guardian.encryption_signature,
            signature_algorithm=algorithms.signature, key_encryption=algorithms.key_encryption)

    @property
    def thumbprint(self):
        """SHA-256 of the encryption certificate, hexadecimal."""
        return hashlib.sha256(self.encryption_certificate).hexdigest()

    @property
    def is_owner(self):
        return self.parent == self.identifier

    def encrypt(self, transport_key):
        """Wrap the transport key for the encryption certificate."""
        public_key = x509.load_der_x509_certificate(self.encryption_certificate).public_key()
        self.encrypted_key = public_key.encrypt(transport_key, _oaep(self.key_encryption))

    def decrypt(self, key):
        """:raises InvalidProtector: the key is right, what it should decrypt is not"""
        try:
            return key.decrypt(self.encrypted_key, _oaep(self.key_encryption))
        except ValueError:
            raise InvalidProtector("the transport key cannot be decrypted") from None


def make_protector(owner, guardians, max_offline_unwraps=0, algorithms=None):
    """A new key protector.

    :param owner: a guardian with its private keys; signs the others in
    :param guardians: guardians, public parts, that shall be able to unwrap it
    :param max_offline_unwraps: MaxOfflineUnwraps, how often a host may unwrap it without its HGS
    :param algorithms: :class:`Algorithms`; None: the default ones
    :returns: bytes with their length prefix
    :raises ValueError: the owner has no private signing key, or one guardian comes twice
    """
    if owner.signing_key is None:
        raise ValueError("the owner, %s, has no private signing key" % owner.name)
    members = [owner, *guardians]
    if len({member.thumbprint for member in members}) < len(members):
        raise ValueError("a guardian is there twice")
    wrappings = [Wrapping.of_guardian(member, str(number), "1", owner.signing_key, algorithms)
                 for number, member in enumerate(members, 1)]
    return assemble(wrappings, os.urandom(_KEY_BYTES), owner.signing_key, "1",
                    max_offline_unwraps, algorithms)


def grant(data, owner, guardian):
    """The protector with a further wrapping, around the same transport key.

    The owner's encryption key unwraps it, for only the transport key can give the new
    TransportKeySignature ([MS-KPS] 2.2.2.7) [assumption grant-keeps-the-transport-key].

    :param owner: with both private keys
    :raises InvalidProtector: see :func:`read`
    :raises CannotUnwrap: it is not the owner's protector
    :raises ValueError: the guardian is in it already
    """
    wrappings, transport_key, first = _opened(data, owner)
    if guardian.thumbprint in [wrapping.thumbprint for wrapping in wrappings]:
        raise ValueError("%s is in the key protector already" % guardian.name)
    identifier = str(max(int(wrapping.identifier) for wrapping in wrappings) + 1)
    added = Wrapping.of_guardian(guardian, identifier, first.identifier, owner.signing_key)
    return assemble([*wrappings, added], transport_key, owner.signing_key, first.identifier,
                    max_offline_unwraps(data))


def revoke(data, owner, thumbprint):
    """The protector without a guardian's wrapping, around the same transport key.

    :param owner: with both private keys
    :param thumbprint: SHA-256 of the guardian's encryption certificate
    :raises InvalidProtector: see :func:`read`
    :raises CannotUnwrap: it is not the owner's protector
    :raises ValueError: the guardian is the owner, or not in it
    """
    wrappings, transport_key, first = _opened(data, owner)
    if thumbprint == first.thumbprint:
        raise ValueError("the owner of a key protector cannot be revoked")
    left = [wrapping for wrapping in wrappings if wrapping.thumbprint != thumbprint]
    if len(left) == len(wrappings):
        raise ValueError("the guardian is not in the key protector")
    for wrapping in left:
        if wrapping.parent not in [other.identifier for other in left]:
            wrapping.parent, wrapping.signature_algorithm = first.identifier, RSA_SHA256
            wrapping.signing_signature = sign(owner.signing_key, wrapping.signing_certificate)
    return assemble(left, transport_key, owner.signing_key, first.identifier,
                    max_offline_unwraps(data))


def _opened(data, owner):
    """(wrappings, transport key, the owner's wrapping)"""
    wrappings = read(data)
    first = next(wrapping for wrapping in wrappings if wrapping.is_owner)
    if first.signing_certificate != owner.signing_certificate:
        raise CannotUnwrap("%s is not the owner" % owner.name)
    return wrappings, unwrap(data, [owner.encryption_key]), first


def read(data):
    """The wrappings of a protector, after every check that needs no private key.

    :param data: with or without the length prefix
    :raises InvalidProtector: not whole, not a protector, an algorithm that is not known, or a
        signature is wrong
    """
    root = _root(data)
    try:
        int(root.get("MaxOfflineUnwraps", "0"))
        wrappings = [Wrapping.of_element(element) for element in root.iterfind(
            _tag("Wrappings") + "/" + _tag("Wrapping"))]
        by_id = {wrapping.identifier: wrapping for wrapping in wrappings}
        _check_structure(wrappings, by_id)
        for wrapping in wrappings:
            verify(by_id[wrapping.parent].signing_certificate, wrapping.signing_signature,
                   wrapping.signing_certificate, wrapping.signature_algorithm)
            verify(wrapping.signing_certificate, wrapping.encryption_signature,
                   wrapping.encryption_certificate, wrapping.encryption_signature_algorithm)
        by = root.find(_tag("GuardianSignature"))
        verify(by_id[by.get("WrappingId")].signing_certificate,
               _data(by, "Signature", "SignatureValue"), _canonical(root), _algorithm(by))
        _check_algorithms(root, wrappings)
    except (AttributeError, KeyError, ValueError, TypeError) as fault:
        raise InvalidProtector("a part of the key protector is missing or not known: %s"
                               % fault) from None
    except InvalidSignature:
        raise InvalidProtector("a signature in the key protector is wrong") from None
    return wrappings


def _check_structure(wrappings, by_id):
    """Ids are unsigned and differ, and every wrapping descends from the one owner's.

    [MS-KPS] 2.2.2.5 and 2.2.2.6; that there is one owner: [assumption one-owner].
    """
    if len(by_id) < len(wrappings) or not all(
            name.isascii() and name.isdigit() and int(name) < 1 << 32 for name in by_id):
        raise InvalidProtector("the ids of the wrappings are wrong")
    if sum(wrapping.is_owner for wrapping in wrappings) != 1:
        raise InvalidProtector("the key protector has not one owner")
    for wrapping in wrappings:
        seen = set()
        while not wrapping.is_owner:
            if wrapping.identifier in seen:
                raise InvalidProtector("the wrappings are each other's parents")
            seen.add(wrapping.identifier)
            wrapping = by_id[wrapping.parent]


def _check_algorithms(root, wrappings):
    transport = root.find(_tag("TransportKeySignature"))
    named = [(transport.find(_tag("KeyDerivationMethod")).get("Algorithm"), {HKDF_SHA256}),
             (_algorithm(transport), {HMAC_SHA256})]
    named += [(wrapping.key_encryption, _KEY_ENCRYPTIONS) for wrapping in wrappings]
    for algorithm, known in named:
        if algorithm not in known:
            raise InvalidProtector("the algorithm %s is not known" % algorithm)


def max_offline_unwraps(data):
    """:raises InvalidProtector: not a protector"""
    return int(_root(data).get("MaxOfflineUnwraps", "0"))


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
                transport_key = wrapping.decrypt(key)
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
    for wrapping in wrappings:
        wrapping.encrypted_key = None
    return (assemble(wrappings, transport_key, guardian.signing_key, signer[0].identifier,
                     max_offline_unwraps(data)),
            transport_key)


def assemble(wrappings, transport_key, signing_key, signer_id, max_offline_unwraps=0,
             algorithms=None):
    """A protector of wrappings, whatever sense they make; they get the transport key they lack.

    :param wrappings: :class:`Wrapping`, in their order
    :param signing_key: of the wrapping ``signer_id``: makes the GuardianSignature
    :returns: bytes with their length prefix
    """
    algorithms = algorithms or Algorithms()
    root = etree.Element(_tag("Protector"), nsmap={None: NAMESPACE},
                         MaxOfflineUnwraps=str(max_offline_unwraps))
    collection = etree.SubElement(root, _tag("Wrappings"))
    for wrapping in wrappings:
        if wrapping.encrypted_key is None:
            wrapping.encrypt(transport_key)
        _add_wrapping(collection, wrapping)
    canonical = _canonical(root)
    transport = etree.SubElement(root, _tag("TransportKeySignature"))
    etree.SubElement(transport, _tag("KeyDerivationMethod"), Algorithm=algorithms.key_derivation)
    add_signature(transport, _transport_hmac(transport_key, canonical).finalize(), algorithms.mac)
    by = etree.SubElement(root, _tag("GuardianSignature"), WrappingId=signer_id)
    add_signature(by, sign(signing_key, canonical, algorithms.signature), algorithms.signature)
    return with_prefix(etree.tostring(root, encoding="utf-8", xml_declaration=True))


def with_prefix(document):
    return (len(document) + _PREFIX).to_bytes(_PREFIX, "big") + document


def _add_wrapping(collection, wrapping):
    element = etree.SubElement(collection, _tag("Wrapping"))
    etree.SubElement(element, _tag("Id")).text = wrapping.identifier
    etree.SubElement(element, _tag("SigningCertificate")).text = encoded(
        wrapping.signing_certificate)
    signature = etree.SubElement(element, _tag("SigningCertificateSignature"),
                                 ParentWrappingId=wrapping.parent)
    add_signature(signature, wrapping.signing_signature, wrapping.signature_algorithm)
    etree.SubElement(element, _tag("EncryptionCertificate")).text = encoded(
        wrapping.encryption_certificate)
    add_signature(etree.SubElement(element, _tag("EncryptionCertificateSignature")),
                  wrapping.encryption_signature, wrapping.encryption_signature_algorithm)
    key = etree.SubElement(etree.SubElement(element, _tag("TransportKey")),
                           _tag("EncryptedData"), Algorithm=wrapping.key_encryption)
    etree.SubElement(key, _tag("CipherValue")).text = encoded(wrapping.encrypted_key)


def _check_transport_signature(root, transport_key):
    try:
        signature = _data(root, "TransportKeySignature", "Signature", "SignatureValue")
        _transport_hmac(transport_key, _canonical(root)).verify(signature)
    except (AttributeError, ValueError, TypeError):
        raise InvalidProtector("the transport key's signature cannot be read") from None
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
    if root.getroottree().docinfo.doctype:
        raise InvalidProtector("the key protector has a document type")
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


def _algorithm(element):
    return element.find(_tag("Signature")).get("Algorithm")


def _oaep(algorithm):
    digest = _KEY_ENCRYPTIONS.get(algorithm, _KEY_ENCRYPTIONS[RSA_OAEP])
    return padding.OAEP(mgf=padding.MGF1(digest()), algorithm=digest(), label=None)


def _tag(name):
    return "{%s}%s" % (NAMESPACE, name)
