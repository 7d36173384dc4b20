"""The signatures of a key protector, as far as public certificates can check them.

[MS-KPS] version 8.0 settles whose key makes each signature (sections 2.2.2.8, 2.2.2.12, 2.2.2.13,
and 3.1.5.1.1.3, where the server checks them). It names no algorithm (2.2.3.12: any URI), and says
what exactly is signed for one of them only. So:

- GuardianSignature is over the Wrappings element in exclusive canonical form, in UTF-8 (2.2.2.8).
  Where its algorithm is known and it is not over that, it is wrong.
- The signatures of the certificates are "over this wrapping's" certificate (2.2.2.12, 2.2.2.13):
  its DER bytes, their base64 or the XML element. Any of the three is taken. One that is over
  something else is not verified: we may not know the form. But one that the key in question did
  not make at all is wrong, whatever it is over; an RSA signature in PKCS #1 v1.5 shows that.
- An algorithm that is not in the table, or that comes with parameters of its own, is not verified.
- The TransportKeySignature is made with a key derived from the transport key (2.2.2.7): nobody
  without a guardian's private key can check it.

The URIs are those of RFC 9231 (Additional XML Security URIs), 2.3.2 to 2.3.4 and 2.3.10.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Sequence

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from vtpm_compute import kps_elements
from vtpm_scheduling import policy

_PKCS1 = {"http://www.w3.org/2001/04/xmldsig-more#rsa-" + name: algorithm
          for name, algorithm in (("sha256", hashes.SHA256), ("sha384", hashes.SHA384),
                                  ("sha512", hashes.SHA512))}
_PSS = {"http://www.w3.org/2007/05/xmldsig-more#%s-rsa-MGF1" % name: algorithm
        for name, algorithm in (("sha256", hashes.SHA256), ("sha384", hashes.SHA384),
                                ("sha512", hashes.SHA512))}
_URI_LENGTH = 100


class Verdict(enum.Enum):
    """What became of a signature."""

    VERIFIED = "verified"
    WRONG = "WRONG"
    NOT_VERIFIED = "not verified"
    NEEDS_SECRETS = "cannot be checked without a guardian's private key"


@dataclasses.dataclass(frozen=True)
class CheckedSignature:
    """What is known of a signature.

    :ivar what: what it is over and whose it is, for people.
    :ivar verdict: what became of it.
    :ivar reason: a predicate that says why it is wrong or not verified; else empty.
    """

    what: str
    verdict: Verdict
    reason: str = ""

    def __str__(self) -> str:
        return "%s: %s%s" % (self.what, self.verdict.value, self.reason and " (%s)" % self.reason)


class WrongSignatureError(Exception):
    """A signature that its signer did not make, or not over this; ``str()`` of it says which."""


def require_none_wrong(signatures: Iterable[CheckedSignature]) -> None:
    """:raises WrongSignatureError: the first of them that is wrong."""
    for signature in signatures:
        if signature.verdict is Verdict.WRONG:
            raise WrongSignatureError("%s %s" % (signature.what, signature.reason))


def check_certificate(what: str, key: rsa.RSAPublicKey, signature: kps_elements.Signature,
                      certificate: kps_elements.Certificate) -> CheckedSignature:
    """Check a signature over a certificate.

    :param what: what it is over and whose it is, for people.
    :param key: of who should have made it; it is wrong when they did not.
    """
    return _check(what, key, signature, certificate.forms, is_settled=False)


def check_wrappings(what: str, key: rsa.RSAPublicKey, signature: kps_elements.Signature,
                    forms: Sequence[bytes]) -> CheckedSignature:
    """Check a GuardianSignature.

    :param what: what it is over and whose it is, for people.
    :param key: of who should have made it; it is wrong when they did not, or not over this.
    :param forms: the signed element's canonical forms.
    """
    return _check(what, key, signature, forms, is_settled=True)


def _check(what: str, key: rsa.RSAPublicKey, signature: kps_elements.Signature,
           forms: Sequence[bytes], is_settled: bool) -> CheckedSignature:
    def not_verified(reason: str) -> CheckedSignature:
        return CheckedSignature(what, Verdict.NOT_VERIFIED, reason)

    def wrong(reason: str) -> CheckedSignature:
        return CheckedSignature(what, Verdict.WRONG, reason)

    if signature.algorithm not in _PKCS1 and signature.algorithm not in _PSS:
        return not_verified("its algorithm, %s, is not known here" % policy.quote(
            signature.algorithm, _URI_LENGTH))
    if signature.has_parameters:
        return not_verified("its algorithm has parameters that are not known here")
    if len(signature.value) != (key.key_size + 7) // 8:
        return wrong("has %d bytes, not the %d of its key" % (
            len(signature.value), (key.key_size + 7) // 8))
    try:
        if signature.algorithm in _PKCS1:
            fits = _fits_pkcs1(key, signature, forms)
        else:
            fits = _fits_pss(key, signature, forms)
    except InvalidSignature:
        return wrong("was not made with its key")
    except UnsupportedAlgorithm:
        return not_verified("this host's cryptography does not have its algorithm")
    if fits:
        return CheckedSignature(what, Verdict.VERIFIED)
    if is_settled:
        return wrong("is over something else")
    return not_verified("it is not over the certificate in a form that is known here")


def _fits_pkcs1(key: rsa.RSAPublicKey, signature: kps_elements.Signature,
                forms: Sequence[bytes]) -> bool:
    """:raises InvalidSignature: when the key did not make it, over whatever."""
    algorithm = _PKCS1[signature.algorithm]()
    signed = key.recover_data_from_signature(signature.value, padding.PKCS1v15(), algorithm)
    return any(signed == _digest(form, algorithm) for form in forms)


def _fits_pss(key: rsa.RSAPublicKey, signature: kps_elements.Signature,
              forms: Sequence[bytes]) -> bool:
    algorithm = _PSS[signature.algorithm]()
    for form in forms:
        try:
            # RFC 9231, 2.3.10: the salt is as long as the digest.
            key.verify(signature.value, form, padding.PSS(
                padding.MGF1(algorithm), algorithm.digest_size), algorithm)
        except InvalidSignature:
            continue
        return True
    return False


def _digest(data: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
    digest = hashes.Hash(algorithm)
    digest.update(data)
    return digest.finalize()
