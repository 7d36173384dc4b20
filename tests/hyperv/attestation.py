"""Attestation: how a Host Guardian Service learns that a host is healthy, and what the host keeps.

A host attests when it starts, every eight hours after that, and when it needs a health certificate
and has no valid one: a VM with a vTPM starts, or the client's configuration is read. The
certificate is valid for eight hours [assumption health-certificate-life]. Nothing runs in the
background: :meth:`HostAttestation.catch_up` does what was due.

Source: Microsoft Learn, "Guarded fabric and shielded VMs overview" (modes; when a host attests; how
a shielded VM is powered on), "Confirm guarded hosts can attest", "Troubleshoot guarded hosts",
"MSFT_HgsClientConfiguration class" (modes, status, substatus).
"""
import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LIFE = 8 * 3600

TPM, ACTIVE_DIRECTORY, HOST_KEY = 1, 2, 3
MODES = {"tpm": TPM, "ad": ACTIVE_DIRECTORY, "host_key": HOST_KEY}

NOT_CONFIGURED, NOT_ATTEMPTED, PASSED, EXPIRED = 0, 1, 100, 200
RETRIABLE, NOT_AUTHORISED, TPM_ERROR, INSECURE = 300, 301, 302, 303
STATUSES = (NOT_ATTEMPTED, PASSED, EXPIRED, RETRIABLE, NOT_AUTHORISED, TPM_ERROR, INSECURE)

# AttestationSubstatus, a bit field.
SECURE_BOOT, DEBUG_MODE, CODE_INTEGRITY = 1, 2, 4


class NotAttested(Exception):
    """The host has no valid health certificate."""


class AttestationFailed(Exception):
    """The service gives no health certificate.

    :param status: AttestationStatus
    :param substatus: AttestationSubstatus
    """

    def __init__(self, status, substatus=0):
        super().__init__("%d, %d" % (status, substatus))
        self.status, self.substatus = status, substatus


class HostHealth:
    """What TPM attestation looks at; a change counts at the next attestation.

    :ivar secure_boot: Secure Boot is on
    :ivar debug_mode: the host is being debugged
    :ivar code_integrity: it runs a code integrity policy that the service trusts
    :ivar tpm: its TPM works
    """

    def __init__(self):
        self.secure_boot, self.debug_mode, self.code_integrity, self.tpm = True, False, True, True

    @property
    def substatus(self):
        """What is wrong, as AttestationSubstatus."""
        return (SECURE_BOOT * (not self.secure_boot) + DEBUG_MODE * self.debug_mode
                + CODE_INTEGRITY * (not self.code_integrity))


class AttestationService:
    """The attestation half of a Host Guardian Service.

    :param name: of the fabric, in the names of its certificates
    :param now: gives the time in seconds since 1970
    :ivar mode: :data:`TPM`, :data:`ACTIVE_DIRECTORY` or :data:`HOST_KEY`
    :ivar authorised: names of hosts, in lower case
    """

    def __init__(self, name, now):
        self._now = now
        self.mode, self.authorised = TPM, set()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.signer = _certificate(
            "Attestation Signer (%s)" % name, self._key.public_key(), None, self._key,
            now(), now() + 10 * 365 * 24 * 3600)

    def attest(self, host_name, public_key, health, begin=None):
        """Give a host its health certificate.

        :param public_key: the host's; the key protection service encrypts to it
        :param health: :class:`HostHealth`; only TPM attestation looks at it
        :param begin: when the host asks; left out: now
        :returns: DER bytes
        :raises AttestationFailed: the host is not authorised, or not healthy
        """
        if host_name.lower() not in self.authorised:
            raise AttestationFailed(NOT_AUTHORISED)
        if self.mode == TPM:
            if not health.tpm:
                raise AttestationFailed(TPM_ERROR)
            if health.substatus:
                raise AttestationFailed(INSECURE, health.substatus)
        begin = self._now() if begin is None else begin
        return _certificate(host_name, public_key, self.signer, self._key, begin, begin + LIFE)

    def check(self, certificate):
        """The public key in a health certificate.

        :param certificate: DER bytes
        :raises NotAttested: not a certificate, not signed by this service, not valid now
        """
        try:
            loaded = x509.load_der_x509_certificate(certificate)
            self._key.public_key().verify(
                loaded.signature, loaded.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
        except (ValueError, TypeError):
            raise NotAttested("the health certificate cannot be read") from None
        except InvalidSignature:
            raise NotAttested("the health certificate is another service's") from None
        if not is_valid(certificate, self._now()):
            raise NotAttested("the health certificate is not valid at this time")
        return loaded.public_key()


class HostAttestation:
    """What one host knows of its attestation.

    :param host_name: its computer name
    :param fabric: its :class:`tests.hyperv.guarded_fabric.GuardedFabric`
    :param now: gives the time in seconds since 1970
    :ivar status: AttestationStatus
    :ivar substatus: AttestationSubstatus
    :ivar health: its :class:`HostHealth`
    :ivar key: the private key that its health certificates are for
    """

    def __init__(self, host_name, fabric, now):
        self._name, self._fabric, self._now = host_name, fabric, now
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.health = HostHealth()
        self._certificate, self._forced = None, None
        self._status, self.substatus = NOT_ATTEMPTED, 0
        self._next = now() + LIFE

    @property
    def status(self):
        if self._status == PASSED and not self._has_valid_certificate:
            return EXPIRED
        return self._status

    @property
    def certificate(self):
        """The health certificate (DER bytes), valid or not; None where there is none."""
        return self._certificate

    def force(self, status, substatus=0):
        """Let each attestation of this host end so; :data:`PASSED` ends that.

        :param status: one of :data:`STATUSES`
        :raises ValueError: another status
        """
        if status not in STATUSES:
            raise ValueError("%s is no attestation status of a guarded fabric" % status)
        self._forced = None if status == PASSED else (status, substatus)
        self.attest()

    def attest(self):
        """Attest now."""
        self._next = self._now() + LIFE
        self._attest(self._now())

    def require_certificate(self):
        """A valid health certificate (DER bytes); attests where there is none.

        :raises NotAttested: attestation does not pass
        """
        if not self._has_valid_certificate:
            self.attest()
        if not self._has_valid_certificate:
            raise NotAttested("AttestationStatus %d" % self.status)
        return self._certificate

    def refresh(self):
        """Attest if there is no valid health certificate; whatever comes of it."""
        if not self._has_valid_certificate:
            self.attest()

    def catch_up(self):
        """Attest if that was due, as of the last time when it was."""
        late = self._now() - self._next
        if late >= 0:
            due = self._next + late // LIFE * LIFE
            self._next = due + LIFE
            self._attest(due)

    @property
    def _has_valid_certificate(self):
        return self._certificate is not None and is_valid(self._certificate, self._now())

    def _attest(self, at):
        try:
            if self._forced:
                raise AttestationFailed(*self._forced)
            self._certificate = self._fabric.attest(
                self._name, self.key.public_key(), self.health, at)
            self._status, self.substatus = PASSED, 0
        except AttestationFailed as failed:
            self._status, self.substatus = failed.status, failed.substatus
            if failed.status != RETRIABLE or self._forced:
                # A service that was not reached took nothing away.
                self._certificate = None


def is_valid(certificate, now):
    """Whether a certificate (DER bytes) is valid at a time in seconds since 1970."""
    loaded = x509.load_der_x509_certificate(certificate)
    return (_seconds(loaded.not_valid_before) <= now < _seconds(loaded.not_valid_after))


def _seconds(naive):
    return naive.replace(tzinfo=datetime.timezone.utc).timestamp()


def _certificate(common_name, public_key, issuer, key, begin, end):
    """A certificate in DER; it has whole seconds only, and must not begin later than now."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
    issued_by = x509.load_der_x509_certificate(issuer).subject if issuer else name
    first, last = (datetime.datetime.fromtimestamp(int(moment), datetime.timezone.utc)
                   for moment in (begin, end))
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issued_by)
    builder = builder.public_key(public_key).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(first).not_valid_after(last)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
