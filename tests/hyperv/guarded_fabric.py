"""A guarded fabric: the Host Guardian Service with its private keys, and attestation.

Source: Microsoft Learn, "Guarded fabric and shielded VMs overview", "Managing the Host Guardian
Service" (renewing keys: old ones work until they are removed); [MS-KPS] RollTransportKey.
"""
import os
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.hyperv import key_protector
from tests.hyperv.attestation import RETRIABLE, AttestationFailed, AttestationService, NotAttested
from tests.hyperv.clock import Clock
from tests.hyperv.guardian import Guardian
from tests.hyperv.key_protection_http import KeyProtectionHttp

_KEY_BYTES, _NONCE_BYTES = 32, 12
_CURVE = ec.SECP256R1()
_POINT_BYTES = 65


class ServiceUnreachable(Exception):
    """The Host Guardian Service does not answer."""


class HealthCertificateException(Exception):
    """[MS-KPS]: the health certificate is not one that the service trusts now."""


class InvalidProtectorException(Exception):
    """[MS-KPS]: the ingress protector cannot be read, or a signature in it is wrong."""


class InvalidWrappingException(Exception):
    """[MS-KPS]: no wrapping of the ingress protector is for this service."""


class RollTransportKeyResponse(NamedTuple):
    """What RollTransportKey gives ([MS-KPS]): a new protector, and its keys for the host alone.

    The transfer key is encrypted to the key of the health certificate, the wrapping key with the
    transfer key, the ingress and the egress transport key with the wrapping key. The algorithms
    are this package's own [assumption algorithms].
    """

    egress_protector: bytes
    encrypted_transfer_key: bytes
    encrypted_wrapping_key: bytes
    encrypted_transport_keys: bytes

    def open(self, private_key):
        """(ingress transport key, egress transport key).

        :param private_key: of the host whose health certificate was shown
        :raises cryptography.exceptions.InvalidTag: another host's
        """
        point = ec.EllipticCurvePublicKey.from_encoded_point(
            _CURVE, self.encrypted_transfer_key[:_POINT_BYTES])
        transfer_key = _opened(_agreed(private_key, point),
                               self.encrypted_transfer_key[_POINT_BYTES:])
        wrapping_key = _opened(transfer_key, self.encrypted_wrapping_key)
        keys = _opened(wrapping_key, self.encrypted_transport_keys)
        return keys[:_KEY_BYTES], keys[_KEY_BYTES:]


class GuardedFabric:
    """A Host Guardian Service.

    :param name: of the fabric, and of its guardian in the stores of its hosts
    :param clock: the :class:`tests.hyperv.clock.Clock`; left out: its own
    :ivar attestation: its :class:`tests.hyperv.attestation.AttestationService`
    :ivar reachable: whether it answers
    :ivar behind: seconds that its own time is behind the clock
    """

    def __init__(self, name, clock=None):
        self.name, self._clock = name, clock or Clock()
        self.reachable, self.behind = True, 0
        self.attestation = AttestationService(name, self._now)
        self._guardians = [Guardian.generate(name, self._clock.now)]
        self._http = None

    def _now(self):
        return self._clock.now() - self.behind

    @property
    def guardian(self):
        """Its public guardian, as hosts and tenants import it."""
        return self._guardians[-1].public()

    @property
    def key_protection_url(self):
        return self._http.url if self._http else (
            "http://hgs.%s.example/KeyProtection" % self.name)

    @property
    def attestation_url(self):
        return "http://hgs.%s.example/Attestation" % self.name

    def serve_http(self, is_served=True):
        """Let the key protection server answer over HTTP, at :attr:`key_protection_url`."""
        if self._http:
            self._http.stop()
        self._http = KeyProtectionHttp(self) if is_served else None

    def metadata(self):
        """What ``.../service/metadata/2014-07/metadata.xml`` gives: bytes."""
        return self._guardians[-1].metadata()

    def renew_guardian(self):
        """Have new certificates, the primary ones from now on; the old ones still unwrap."""
        self._guardians.append(Guardian.generate(self.name, self._clock.now))

    def drop_old_guardians(self):
        """Remove all certificates but the primary ones: what only they unwrap is lost."""
        del self._guardians[:-1]

    def attest(self, host_name, public_key, health, at):
        """See :meth:`tests.hyperv.attestation.AttestationService.attest`.

        :param at: when the host asks, on the clock
        :raises tests.hyperv.attestation.AttestationFailed: also: the service is not reached
        """
        if not self.reachable:
            raise AttestationFailed(RETRIABLE)
        return self.attestation.attest(host_name, public_key, health, at - self.behind)

    def roll_transport_key(self, protector, health_certificate):
        """Unwrap a protector and wrap a new transport key ([MS-KPS] RollTransportKey).

        :param protector: the ingress protector, bytes
        :param health_certificate: of the host that asks, DER bytes
        :returns: :class:`RollTransportKeyResponse`
        :raises ServiceUnreachable: the service does not answer
        :raises HealthCertificateException: see there
        :raises InvalidProtectorException: see there
        :raises InvalidWrappingException: see there
        """
        if not self.reachable:
            raise ServiceUnreachable(self.name)
        try:
            host_key = self.attestation.check(health_certificate)
        except NotAttested as fault:
            raise HealthCertificateException(str(fault)) from None
        ingress, guardian = self._unwrap(protector)
        egress_protector, egress = key_protector.roll(protector, guardian)
        transfer_key, wrapping_key = os.urandom(_KEY_BYTES), os.urandom(_KEY_BYTES)
        once = ec.generate_private_key(_CURVE)
        point = once.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        return RollTransportKeyResponse(
            egress_protector, point + _sealed(_agreed(once, host_key), transfer_key),
            _sealed(transfer_key, wrapping_key), _sealed(wrapping_key, ingress + egress))

    def _unwrap(self, protector):
        for guardian in reversed(self._guardians):
            try:
                return key_protector.unwrap(protector, [guardian.encryption_key]), guardian
            except key_protector.CannotUnwrap:
                continue
            except key_protector.InvalidProtector as fault:
                raise InvalidProtectorException(str(fault)) from None
        raise InvalidWrappingException("no wrapping is for the fabric %s" % self.name)


def _agreed(private_key, public_key):
    secret = private_key.exchange(ec.ECDH(), public_key)
    return HKDF(hashes.SHA256(), _KEY_BYTES, None, b"TransferKey").derive(secret)


def _sealed(key, data):
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, None)


def _opened(key, data):
    return AESGCM(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], None)
