"""root/Microsoft/Windows/Hgs: the host's HGS client configuration, guardian store, protectors.

Source: Microsoft Learn, "Host Guardian Service client WMI provider" (MSFT_HgsClientConfiguration,
MSFT_HgsGuardian, MSFT_HgsKeyProtector), "New-HgsGuardian", "New-HgsKeyProtector". Refusals are
WMI errors [assumption static-faults].
"""
import base64
import pathlib

from tests.hyperv import cim, key_protector
from tests.hyperv.guarded_fabric import PASSED
from tests.hyperv.guardian import Guardian, InvalidMetadata, encoded

HGS = "root/microsoft/windows/hgs"

MODE_LOCAL, MODE_SECURE_HOSTING = 1, 2
NOT_CONFIGURED = 0
_OPERATION_MODE_TPM = 1
_SIGNATURE_ALGORITHM = "sha256RSA"


class HgsClient:
    """The HGS client of one host.

    :param repository: that of the host
    :param fabric: its :class:`tests.hyperv.guarded_fabric.GuardedFabric`, or None: local mode
    :param attestation_status: AttestationStatus; only 100 (passed) makes the host guarded
        [assumption guarded-means-passed]
    """

    def __init__(self, repository, fabric, attestation_status):
        self._repository, self.fabric = repository, fabric
        self.attestation_status = attestation_status
        self._store = {}
        for name, methods in (
                ("MSFT_HgsClientConfiguration", {"Get": self._get}),
                ("MSFT_HgsGuardian", {
                    "NewByGenerateCertificates": self._generate, "Import": self._import,
                    "Export": self._export, "Remove": self._remove}),
                ("MSFT_HgsKeyProtector", {
                    "NewByGuardians": self._new_protector, "Grant": self._grant,
                    "ConvertToByRawBytes": self._convert})):
            repository.provide(HGS, name, methods)
        if fabric is not None:
            self.add(fabric.guardian)

    @property
    def is_guarded(self):
        return self.fabric is not None and self.attestation_status == PASSED

    # The guardian store.

    def add(self, guardian):
        """Persist a guardian.

        :raises cim.Error: ALREADY_EXISTS
        """
        if guardian.name.lower() in self._store:
            raise cim.error("ALREADY_EXISTS", "A guardian named %s exists." % guardian.name)
        self._store[guardian.name.lower()] = guardian
        instance = self._repository.add(HGS, "MSFT_HgsGuardian", **_values(guardian))
        return instance

    def remove(self, name):
        """Remove a guardian and its private keys.

        :raises cim.Error: NOT_FOUND
        """
        guardian = self._find(name)
        del self._store[guardian.name.lower()]
        for instance in self._repository.instances(HGS, "MSFT_HgsGuardian", Name=guardian.name):
            self._repository.remove(instance)

    def guardians(self):
        return list(self._store.values())

    def private_encryption_keys(self):
        return [g.encryption_key for g in self._store.values() if g.encryption_key is not None]

    def guardian_with(self, encryption_certificate):
        """The stored guardian with this certificate, or None."""
        for guardian in self._store.values():
            if guardian.encryption_certificate == encryption_certificate:
                return guardian
        return None

    def _find(self, name):
        try:
            return self._store[(name or "").lower()]
        except KeyError:
            raise cim.error("NOT_FOUND", "There is no guardian named %s." % name) from None

    # MSFT_HgsClientConfiguration.

    def _get(self, cls):
        values = {"Mode": MODE_LOCAL, "IsHostGuarded": False,
                  "AttestationStatus": NOT_CONFIGURED, "AttestationSubstatus": 0,
                  "AttestationOperationMode": 0}
        if self.fabric is not None:
            values.update(
                Mode=MODE_SECURE_HOSTING, IsHostGuarded=self.is_guarded,
                AttestationStatus=self.attestation_status,
                AttestationOperationMode=_OPERATION_MODE_TPM,
                KeyProtectionServerUrl=self.fabric.key_protection_url,
                AttestationServerUrl=self.fabric.attestation_url)
        return _output(self._repository.new(HGS, "MSFT_HgsClientConfiguration", **values))

    # MSFT_HgsGuardian.

    def _generate(self, cls, Name=None, GenerateCertificates=None):  # noqa: N803
        if not Name or not GenerateCertificates:
            raise cim.error("INVALID_PARAMETER", "Name and GenerateCertificates are needed")
        if Name.lower() in self._store:
            raise cim.error("ALREADY_EXISTS", "A guardian named %s exists." % Name)
        return _output(self.add(Guardian.generate(Name)))

    def _import(self, cls, Path=None, Name=None, AllowExpired=None,  # noqa: N803
                AllowUntrustedRoot=None):  # noqa: N803
        if not AllowUntrustedRoot:
            raise cim.error("FAILED", "A certificate chain ended in an untrusted root certificate.")
        try:
            guardian = Guardian.from_metadata(pathlib.Path(Path or "").read_bytes(), Name)
        except OSError as fault:
            raise cim.error("NOT_FOUND", "Cannot read %s: %s" % (Path, fault.strerror)) from None
        except InvalidMetadata as fault:
            raise cim.error("INVALID_PARAMETER", str(fault)) from None
        return _output(self.add(guardian))

    def _export(self, cls, Path=None, InputObject=None):  # noqa: N803
        guardian = self._find(InputObject["Name"])
        try:
            pathlib.Path(Path).write_bytes(guardian.metadata())
        except ValueError as fault:
            raise cim.error("FAILED", str(fault)) from None
        return 0

    def _remove(self, cls, Name=None):  # noqa: N803
        self.remove(Name)
        return 0

    # MSFT_HgsKeyProtector.

    def _new_protector(self, cls, Owner=None, Guardian=None, AllowUntrustedRoot=None,  # noqa: N803
                       AllowExpired=None):  # noqa: N803
        if Owner is None:
            raise cim.error("INVALID_PARAMETER", "Owner is needed")
        if not AllowUntrustedRoot:
            raise cim.error("FAILED", "A certificate chain ended in an untrusted root certificate.")
        owner = self._find(Owner["Name"])
        if owner.signing_key is None:
            # "HGS cannot be an owner because it does not have private keys" (Microsoft Learn).
            raise cim.error("INVALID_PARAMETER",
                            "The owner guardian %s has no private signing key." % owner.name)
        members = [_guardian(instance) for instance in Guardian or ()]
        return _output(self._protector(key_protector.make_protector(owner, members)))

    def _grant(self, cls, KeyProtector=None, Guardian=None, AllowExpired=None,  # noqa: N803
               AllowUntrustedRoot=None):  # noqa: N803
        if KeyProtector is None or Guardian is None or not AllowUntrustedRoot:
            raise cim.error("INVALID_PARAMETER", "KeyProtector, Guardian, AllowUntrustedRoot")
        wrappings = self._read(bytes(KeyProtector["RawData"] or ()))
        owner = next(self.guardian_with(w.encryption_certificate)
                     for w in wrappings if w.is_owner)
        if owner is None or owner.signing_key is None:
            raise cim.error("FAILED", "The owner's private signing key is not on this host.")
        members = [_of_wrapping(w) for w in wrappings if not w.is_owner] + [_guardian(Guardian)]
        return _output(self._protector(key_protector.make_protector(owner, members)))

    def _convert(self, cls, Bytes=None):  # noqa: N803
        raw = bytes(Bytes or ())
        self._read(raw)
        return _output(self._protector(raw))

    def _read(self, raw):
        try:
            return key_protector.read(raw)
        except key_protector.InvalidProtector as fault:
            raise cim.error("INVALID_PARAMETER", str(fault)) from None

    def _protector(self, raw):
        known = []
        for wrapping in key_protector.read(raw):
            guardian = self.guardian_with(wrapping.encryption_certificate)
            guardian = guardian or _of_wrapping(wrapping)
            instance = self._repository.new(HGS, "MSFT_HgsGuardian", **_values(guardian))
            known.append((wrapping.is_owner, instance))
        return self._repository.new(
            HGS, "MSFT_HgsKeyProtector", RawData=list(raw),
            Owner=next(instance for is_owner, instance in known if is_owner),
            Guardians=[instance for is_owner, instance in known if not is_owner])


def _values(guardian):
    return {
        "Name": guardian.name,
        "SigningCertificate": list(guardian.signing_certificate),
        "EncryptionCertificate": list(guardian.encryption_certificate),
        "EncryptionCertificateSignature": encoded(guardian.encryption_signature),
        "EncryptionCertificateSignatureAlgorithm": _SIGNATURE_ALGORITHM,
        "HasPrivateSigningKey": guardian.signing_key is not None,
        "GuardianMetadataVersion": 1}


def _guardian(instance):
    return Guardian(
        instance["Name"], bytes(instance["SigningCertificate"]),
        bytes(instance["EncryptionCertificate"]),
        base64.b64decode(instance["EncryptionCertificateSignature"]))


def _of_wrapping(wrapping):
    return Guardian("(not in the store)", wrapping.signing_certificate,
                    wrapping.encryption_certificate, wrapping.encryption_signature)


def _output(instance):
    return {"ReturnValue": 0, "cmdletOutput": instance}
