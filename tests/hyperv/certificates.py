"""X.509 certificates as Windows keeps them: made, checked, in stores, in PFX files.

Source: Microsoft Learn, "New-HgsGuardian" (self-signed, ten years, RSA of 2048 bits or more) and
"Create a shielding data file" (a generated guardian's certificates and private keys are in
``Cert:\\LocalMachine\\Shielded VM Local Certificates``); System Error Codes and "COM Error Codes
(Security and Setup)" for the words. A thumbprint is Windows': SHA-1 of the DER bytes.
"""
import datetime
import hashlib
import time
import uuid
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from tests.hyperv import cim, rsa_keys

SHIELDED, PERSONAL, ROOT, INTERMEDIATE = "Shielded VM Local Certificates", "My", "Root", "CA"
SIGNING, ENCRYPTION, AUTHORITY = "signing", "encryption", "authority"
TEN_YEARS = datetime.timedelta(days=3653)
MINIMUM_KEY_BITS = 2048

# Types of CryptoAPI's providers (CRYPT_KEY_PROV_INFO); zero is one of CNG.
CNG, RSA_AES = 0, 24
_PROVIDERS = {CNG: "Microsoft Software Key Storage Provider",
              RSA_AES: "Microsoft Enhanced RSA and AES Cryptographic Provider"}
# Windows comes with them.
_PRESENT_STORES = (PERSONAL, ROOT, INTERMEDIATE)

_CHAIN_LENGTH = 8


class Refused(Exception):
    """A certificate, or the file it is in, is refused.

    :param hresult: Windows' number
    :param words: Windows' words
    """

    def __init__(self, hresult, words):
        super().__init__("%s (0x%08X)" % (words, hresult))
        self.hresult = hresult

    def as_wmi_error(self):
        """What a WMI caller sees of it [assumption static-faults]."""
        return cim.Error({"mi_result": cim.RESULTS["FAILED"][0], "error_code": self.hresult,
                          "message": str(self)})


def file_not_found():
    return Refused(0x80070002, "The system cannot find the file specified.")


def path_not_found():
    return Refused(0x80070003, "The system cannot find the path specified.")


def wrong_password():
    return Refused(0x80070056, "The specified network password is not correct.")


def no_certificate():
    return Refused(0x80092004, "Cannot find object or property.")


def no_private_key():
    return Refused(0x8009000D, "Key does not exist.")


def key_too_short():
    return Refused(0x80090004, "Bad Length.")


def expired():
    return Refused(
        0x800B0101, "A required certificate is not within its validity period when verifying "
        "against the current system clock or the timestamp in the signed file.")


def untrusted_root():
    return Refused(
        0x800B0109, "A certificate chain processed, but terminated in a root certificate which is "
        "not trusted by the trust provider.")


class Authority(NamedTuple):
    """A certification authority: its certificate (DER) and RSA private key."""

    certificate: bytes
    key: object


def make_certificate(common_name, key, usage, now=time.time, lifetime=TEN_YEARS, authority=None):
    """A certificate in DER.

    :param common_name: of any length: Windows keeps none to the 64 characters of X.520
    :param usage: :data:`SIGNING`, :data:`ENCRYPTION` or :data:`AUTHORITY`: its KeyUsage
        [assumption certificate-usages]
    :param now: function that gives the seconds since 1970; valid from a day before
    :param authority: the :class:`Authority` that signs it; None: signed with its own key
    """
    name = _name(common_name)
    issuer = name if authority is None else _loaded(authority.certificate).subject
    begin = datetime.datetime.utcfromtimestamp(now())
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(begin - datetime.timedelta(days=1))
    builder = builder.not_valid_after(begin + lifetime)
    builder = builder.add_extension(x509.BasicConstraints(usage == AUTHORITY, None), critical=True)
    builder = builder.add_extension(x509.KeyUsage(
        digital_signature=usage == SIGNING, content_commitment=False,
        key_encipherment=usage == ENCRYPTION, data_encipherment=usage == ENCRYPTION,
        key_agreement=False, key_cert_sign=usage == AUTHORITY, crl_sign=usage == AUTHORITY,
        encipher_only=False, decipher_only=False), critical=True)
    signer = key if authority is None else authority.key
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def make_authority(common_name, now=time.time, authority=None):
    """An :class:`Authority`: a root, or one that another authority signs."""
    key = rsa_keys.new_key()
    return Authority(make_certificate(common_name, key, AUTHORITY, now, authority=authority), key)


def make_pfx(certificate, key, password, others=()):
    """The bytes of a PFX file, as Export-PfxCertificate writes them.

    :param certificate: DER bytes
    :param key: its private key, or None for a file without one
    :param password: text; "" for none
    :param others: further certificates (DER), of the authorities between it and the root
    """
    encryption = (serialization.BestAvailableEncryption(password.encode("utf-8")) if password
                  else serialization.NoEncryption())
    return pkcs12.serialize_key_and_certificates(
        b"certificate", key, _loaded(certificate), [_loaded(other) for other in others] or None,
        encryption)


def read_pfx(path, password):
    """(certificate, private key, further certificates) of a PFX file; certificates in DER.

    :raises Refused: no such file, wrong password, not a PFX file, no certificate with private key
    """
    try:
        with open(path or "", "rb") as file:
            data = file.read()
    except OSError:
        raise file_not_found() from None
    try:
        key, certificate, others = pkcs12.load_key_and_certificates(
            data, password.encode("utf-8") if password else None)
    except ValueError:
        # The library cannot tell a wrong password from a damaged file; nor can Windows always.
        raise wrong_password() from None
    if certificate is None:
        raise no_certificate()
    if key is None:
        raise no_private_key()
    return _der(certificate), key, [_der(other) for other in others]


def check(certificate, now, stores, allow_expired, allow_untrusted_root):
    """Check what every method that takes a guardian's certificates checks.

    :param certificate: DER bytes
    :param now: function that gives the seconds since 1970
    :param stores: the host's :class:`CertificateStores`
    :raises Refused: RSA below 2048 bits or no RSA; expired; no trusted root
    """
    loaded = _loaded(certificate)
    key = loaded.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < MINIMUM_KEY_BITS:
        raise key_too_short()
    moment = datetime.datetime.utcfromtimestamp(now())
    if not allow_expired and not loaded.not_valid_before <= moment <= loaded.not_valid_after:
        raise expired()
    if not allow_untrusted_root and not stores.trusts(certificate):
        raise untrusted_root()


def thumbprint(certificate):
    """Windows' thumbprint of a certificate in DER: SHA-1, hexadecimal, upper case."""
    return hashlib.sha1(certificate).hexdigest().upper()


def common_name(certificate):
    return _loaded(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value


class PlaceOfKey(NamedTuple):
    """Where a certificate's private key is said to be."""

    container: str
    provider: str
    provider_type: int


class _Key(NamedTuple):
    key: object
    place: PlaceOfKey
    certificate: bytes


class CertificateStores:
    """The local machine's certificate stores of one host, and the private keys on its disk.

    A certificate in a store names the place of its private key. Each can be there without the
    other.

    :ivar key_provider: where the private keys of new certificates go: :data:`CNG` or
        :data:`RSA_AES` [assumption guardian-key-provider]
    """

    def __init__(self):
        self._entries = {}  # {(store, thumbprint): (certificate, PlaceOfKey or None)}
        self._keys = {}  # {container: _Key}
        self._names = set(_PRESENT_STORES)
        self.key_provider = CNG

    def exists(self, store):
        return store in self._names

    def create(self, store):
        """Make a store, if there is none."""
        self._names.add(store)

    def add(self, store, certificate, key=None):
        """Put a certificate into a store; a private key that is there already stays."""
        self.create(store)
        place = self.place_of_key(store, certificate)
        if key is not None:
            place = place or PlaceOfKey(
                uuid.uuid4().hex, _PROVIDERS[self.key_provider], self.key_provider)
            self._keys[place.container] = _Key(key, place, certificate)
        self._entries[store, thumbprint(certificate)] = certificate, place

    def remove(self, store, print_):
        """Delete a certificate and its private key.

        :raises KeyError: it is not in the store
        """
        _, place = self._entries.pop((store, print_.upper()))
        if place is not None:
            self._keys.pop(place.container, None)

    def delete_certificate(self, store, certificate):
        """Delete a certificate, if it is there, and leave its private key."""
        self._entries.pop((store, thumbprint(certificate)), None)

    def place_of_key(self, store, certificate):
        """Where a certificate says its private key is: :class:`PlaceOfKey`; None: it has none."""
        return self._entries.get((store, thumbprint(certificate)), (None, None))[1]

    def has_key(self, container, provider_type=None):
        """Whether there is such a container, of this type of provider; None: of any."""
        return container in self._keys and provider_type in (
            None, self._keys[container].place.provider_type)

    def delete_key(self, container):
        """:raises KeyError: there is none"""
        del self._keys[container]

    def private_keys(self):
        """[(certificate, store it is still in, or None)] of all private keys on the disk."""
        stores = {place.container: store
                  for (store, _), (_, place) in self._entries.items() if place is not None}
        return [(key.certificate, stores.get(container)) for container, key in self._keys.items()]

    def in_store(self, store):
        """The certificates of a store, in DER."""
        return [certificate for name, certificate, _ in self.entries() if name == store]

    def key_of(self, certificate):
        """The private key of a certificate in any store, or None."""
        for _, present, key in self.entries():
            if present == certificate and key is not None:
                return key
        return None

    def with_key(self, print_):
        """(certificate, private key) by thumbprint, from the personal or the shielded VMs' store.

        :raises Refused: there is none, or it has no private key
        """
        wanted = (print_ or "").replace(" ", "").upper()
        found = [(certificate, key) for store, certificate, key in self.entries()
                 if store in (PERSONAL, SHIELDED) and thumbprint(certificate) == wanted]
        if not found:
            raise no_certificate()
        for certificate, key in found:
            if key is not None:
                return certificate, key
        raise no_private_key()

    def entries(self):
        """[(store, certificate, private key or None)]"""
        return [(store, certificate, self._key_at(place))
                for (store, _), (certificate, place) in self._entries.items()]

    def _key_at(self, place):
        found = self._keys.get(place.container) if place else None
        return found and found.key

    def trusts(self, certificate):
        """Whether a certificate's chain ends in this host's trusted roots."""
        roots = [c for store, c, _ in self.entries() if store == ROOT]
        others = [c for store, c, _ in self.entries() if store != ROOT]
        for _ in range(_CHAIN_LENGTH):
            if certificate in roots or any(_signed_by(certificate, root) for root in roots):
                return True
            issuers = [other for other in others
                       if other != certificate and _signed_by(certificate, other)]
            if not issuers:
                return False
            certificate = issuers[0]
        return False


def _signed_by(certificate, issuer):
    certificate, issuer = _loaded(certificate), _loaded(issuer)
    if certificate.issuer != issuer.subject or not _is_authority(issuer):
        return False
    try:
        issuer.public_key().verify(
            certificate.signature, certificate.tbs_certificate_bytes, padding.PKCS1v15(),
            certificate.signature_hash_algorithm)
    except InvalidSignature:
        return False
    return True


def _is_authority(certificate):
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _name(common_name_):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name_, _validate=False)])


def _loaded(certificate):
    return x509.load_der_x509_certificate(certificate)


def _der(certificate):
    certificate = getattr(certificate, "certificate", certificate)
    return certificate.public_bytes(serialization.Encoding.DER)
