"""An owner's certificates and private keys, for a key protector that is to be made for them.

Two PFX files ([RFC 7292]) without a password: the key manager protects them. Nothing secret is in
any message, in the ``repr()`` of anything, or in the chain of an exception. Pure: no Windows, no
network.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from vtpm_compute import errors, pfx_structure, rsa_certificates

# What the cryptography package raises for files that are none; not all of it is documented.
_UNREADABLE = (ValueError, LookupError, TypeError, ArithmeticError, x509.InvalidVersion,
               UnsupportedAlgorithm, InternalError)

_UNUSABLE = "%s of %s cannot be used: %s. %s"
_EXPORT_AGAIN = "Store one certificate with its private key, without a password."
_STORE_OPEN = "Store it without a password: the key manager protects it."
_ANOTHER = "Use another certificate."
# A certificate is imported for each use; Windows may keep a private key of each, and names one.
_ONE_FOR_BOTH = (
    "An owner needs two certificates, to sign and to encrypt, and %s has one. Store two "
    "(New-HgsGuardian -GenerateCertificates makes them), or a finished key protector.")

is_pfx = pfx_structure.is_pfx


@dataclasses.dataclass(frozen=True)
class OwnerCertificate:
    """A certificate with its private key.

    :ivar name: its subject's common name, printable and cut.
    :ivar thumbprint: SHA-256 of it, lower-case hexadecimal.
    :ivar may_sign: whether its KeyUsage lets its key sign; also where it has none.
    :ivar may_encrypt: whether its KeyUsage lets others encrypt for its key, likewise.
    """

    der: bytes = dataclasses.field(repr=False)
    name: str
    thumbprint: str
    may_sign: bool
    may_encrypt: bool
    private_key: rsa.RSAPrivateKey = dataclasses.field(repr=False, compare=False)

    def __str__(self) -> str:
        return "%s (%s...)" % (self.name, self.thumbprint[:16])

    def pfx(self, password: str) -> bytes:
        """A PFX file with it alone; see :meth:`Owner.pfx_files`."""
        encryption = serialization.PrivateFormat.PKCS12.encryption_builder().key_cert_algorithm(
            pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC).hmac_hash(hashes.SHA1())  # noqa: S303
        return pkcs12.serialize_key_and_certificates(
            None, self.private_key, x509.load_der_x509_certificate(self.der), None,
            encryption.build(password.encode("utf-8")))


@dataclasses.dataclass(frozen=True)
class Owner:
    """Who will own a key protector.

    :ivar signing: signs the guardians in.
    :ivar encryption: can unwrap it; another certificate.
    """

    signing: OwnerCertificate
    encryption: OwnerCertificate

    def __str__(self) -> str:
        return str(self.encryption)

    def pfx_files(self, password: str) -> tuple[bytes, bytes]:
        """PFX files to hand to Windows: the signing certificate's and the encryption certificate's.

        They are in the form that Windows Server 2016 can read: triple DES and SHA-1, with
        PKCS #12's own way to make keys of passwords. That is good enough here: what is weak in it
        is that passwords are tried fast, and nobody guesses 256 random bits; SHA-1's collisions
        help nobody to find a key; and triple DES has 112 bits against a file that lives for a
        moment.

        :param password: random, of 256 bits (:func:`secrets.token_urlsafe`), used once.
        """
        return self.signing.pfx(password), self.encryption.pfx(password)


def read(files: Sequence[bytes], source: str, now: datetime.datetime | None = None) -> Owner:
    """Read and check an owner's PFX files.

    Of two, their certificates' KeyUsage tells which one signs; where both may do both, the first.

    :param files: of a certificate that may sign, and of another one that may encrypt.
    :param source: where they come from, for messages.
    :param now: with time zone; when not the present is meant.
    :raises vtpm_compute.errors.KeyProtectorError: when they are not an owner's, or not valid now.
    """
    owner = _owner(files, source, now)
    if isinstance(owner, str):
        # Here, where no exception of the library is under way and no key is in reach.
        raise errors.KeyProtectorError(owner)
    return owner


def _owner(files: Sequence[bytes], source: str, now: datetime.datetime | None) -> Owner | str:
    """The owner, or the message that says why there is none."""
    if not 1 <= len(files) <= 2:
        return "%s has %d PFX files: an owner has two. Remove the others." % (
            source, len(files))
    certificates = []
    for position, data in enumerate(files, 1):
        found = _certificate(data, now)
        if isinstance(found, _Problem):
            which = "PFX file %d" % position if len(files) > 1 else "The PFX file"
            return _UNUSABLE % (which, source, found.clause, found.remedy)
        certificates.append(found)
    return _assigned(certificates, source)


def _assigned(certificates: Sequence[OwnerCertificate], source: str) -> Owner | str:
    first, last = certificates[0], certificates[-1]
    if first.thumbprint == last.thumbprint:
        return _ONE_FOR_BOTH % source
    for signing, encryption in ((first, last), (last, first)):
        if signing.may_sign and encryption.may_encrypt:
            return Owner(signing, encryption)
    lacking = "sign" if not any(one.may_sign for one in certificates) else "encrypt"
    return "No certificate in the PFX files of %s may %s (KeyUsage). An owner needs one to sign " \
        "and one to encrypt." % (source, lacking)


@dataclasses.dataclass(frozen=True)
class _Problem:
    """Why a file cannot be used, and what to do."""

    clause: str
    remedy: str


def _certificate(data: bytes, now: datetime.datetime | None) -> OwnerCertificate | _Problem:
    try:
        pfx_structure.check(data)
    except pfx_structure.PfxStructureError as exc:
        return _Problem(str(exc), _EXPORT_AGAIN)
    try:
        # PKCS #12 tells no password from an empty one; OpenSSL tries both.
        opened = pkcs12.load_pkcs12(data, None)
    except _UNREADABLE:
        return _Problem("it has a password, or is damaged", _STORE_OPEN)
    if opened.cert is None:
        return _Problem("none of its certificates is its private key's"
                        if opened.additional_certs else "it holds no certificate", _EXPORT_AGAIN)
    der = opened.cert.certificate.public_bytes(serialization.Encoding.DER)
    try:
        certificate = rsa_certificates.load(der, "its certificate")
        may_sign, may_encrypt = rsa_certificates.usages(der, "its certificate")
    except rsa_certificates.UnusableCertificateError as exc:
        return _Problem(str(exc), _ANOTHER)
    if not isinstance(opened.key, rsa.RSAPrivateKey) or \
            opened.key.public_key().public_numbers() != certificate.key.public_numbers():
        return _Problem("its certificate is not its private key's", _EXPORT_AGAIN)
    out_of_time = certificate.out_of_time(now)
    if out_of_time:
        return _Problem("its certificate %s" % out_of_time, _ANOTHER)
    return OwnerCertificate(der, certificate.name, certificate.thumbprint, may_sign, may_encrypt,
                            opened.key)
