"""X.509 certificates with RSA keys, as guardians have them, read from a stranger's bytes."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa

from vtpm_scheduling import policy

# A stranger chose the names in the certificates.
_NAME_LENGTH = 80
# Microsoft Learn, "New-HgsGuardian"; more bits, and a longer exponent, than Windows' own
# cryptography has only cost time.
_MIN_KEY_BITS, _MAX_KEY_BITS, _MAX_EXPONENT_BITS = 2048, 16384, 64
# What the cryptography package raises for certificates that are none; not all of it is documented
# (KeyError: a name of an unknown ASN.1 type).
UNREADABLE = (ValueError, LookupError, TypeError, ArithmeticError, x509.InvalidVersion,
               x509.DuplicateExtension, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm)


class UnusableCertificateError(Exception):
    """A certificate of another key than a guardian's; ``str()`` of it is a clause."""


class UnreadableCertificateError(UnusableCertificateError):
    """Bytes that are no certificate."""


@dataclasses.dataclass(frozen=True)
class RsaCertificate:
    """A certificate that was read.

    :ivar name: its subject's common name, printable and cut.
    :ivar not_before: from when it is valid (UTC).
    :ivar not_after: until when.
    """

    der: bytes = dataclasses.field(repr=False)
    name: str
    key: rsa.RSAPublicKey = dataclasses.field(repr=False)
    not_before: datetime.datetime
    not_after: datetime.datetime

    @property
    def thumbprint(self) -> str:
        """SHA-256, lower-case hexadecimal."""
        return thumbprint(self.der)

    def out_of_time(self, now: datetime.datetime | None = None) -> str | None:
        """A predicate that says since or until when it is not valid; None: it is.

        :param now: with time zone; when not the present is meant.
        """
        now = now or datetime.datetime.now(datetime.timezone.utc)
        if now > self.not_after:
            return "expired on %s" % self.not_after.date()
        if now < self.not_before:
            return "is not valid before %s" % self.not_before.date()
        return None


def thumbprint(certificate: bytes) -> str:
    """SHA-256 thumbprint of a DER certificate, lower-case hexadecimal."""
    return hashlib.sha256(certificate).hexdigest()


def load(der: bytes, what: str) -> RsaCertificate:
    """Read a certificate.

    :param what: which one it is, for the clause of an error.
    :raises UnreadableCertificateError: when it is none.
    :raises UnusableCertificateError: when its key is not RSA, too short or too long.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        name = policy.quote(_common_name(certificate), _NAME_LENGTH)
        not_before, not_after = _validity(certificate)
        key = certificate.public_key()
    except UNREADABLE:
        raise UnreadableCertificateError("%s cannot be read" % what) from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise UnusableCertificateError("the key of %s is not RSA" % what)
    if key.key_size < _MIN_KEY_BITS:
        raise UnusableCertificateError("the RSA key of %s has %d bits, and needs %d" % (
            what, key.key_size, _MIN_KEY_BITS))
    if key.key_size > _MAX_KEY_BITS or key.public_numbers().e.bit_length() > _MAX_EXPONENT_BITS:
        raise UnusableCertificateError("the RSA key of %s is too long" % what)
    return RsaCertificate(der, name, key, not_before, not_after)


def usages(der: bytes, what: str) -> tuple[bool, bool]:
    """What the key of a certificate may do: (sign, encrypt). Both where it does not say.

    :param what: which one it is, for the clause of an error.
    :raises UnreadableCertificateError: when its extensions cannot be read.
    """
    try:
        extensions = x509.load_der_x509_certificate(der).extensions
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True, True
    except UNREADABLE:
        raise UnreadableCertificateError("the extensions of %s cannot be read" % what) from None
    return usage.digital_signature, usage.key_encipherment or usage.data_encipherment


def _validity(certificate: x509.Certificate) -> tuple[datetime.datetime, datetime.datetime]:
    utc = datetime.timezone.utc
    # Since version 42 of cryptography the names without "_utc" are deprecated.
    suffix = "_utc" if hasattr(certificate, "not_valid_before_utc") else ""
    return (getattr(certificate, "not_valid_before" + suffix).replace(tzinfo=utc),
            getattr(certificate, "not_valid_after" + suffix).replace(tzinfo=utc))


def _common_name(certificate: x509.Certificate) -> str:
    for attribute in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME):
        return str(attribute.value)
    return certificate.subject.rfc4514_string()
