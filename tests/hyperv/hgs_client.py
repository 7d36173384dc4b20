"""root/Microsoft/Windows/Hgs: the host's HGS client configuration, guardian store, protectors.

Source: Microsoft Learn, "Host Guardian Service client WMI provider" (MSFT_HgsClientConfiguration,
MSFT_HgsGuardian, MSFT_HgsKeyProtector) and the cmdlets over it, "New-HgsGuardian", "Export-
HgsGuardian", "New-HgsKeyProtector", "Grant-HgsKeyProtectorAccess", "Revoke-
HgsKeyProtectorAccess". Refusals are WMI errors [assumption static-faults].
"""
import base64
import functools
import pathlib

from tests.hyperv import certificates, cim, key_protector
from tests.hyperv.attestation import NOT_CONFIGURED, PASSED, HostAttestation
from tests.hyperv.guardian import Guardian, InvalidMetadata, encoded

HGS = "root/microsoft/windows/hgs"

MODE_LOCAL, MODE_SECURE_HOSTING = 1, 2
_SIGNATURE_ALGORITHM = "sha256RSA"


def _windows_words(method):
    """Give what the method refuses as the WMI error that a caller sees."""
    @functools.wraps(method)
    def call(*arguments, **keywords):
        try:
            return method(*arguments, **keywords)
        except certificates.Refused as refused:
            raise refused.as_wmi_error() from None
        except (InvalidMetadata, key_protector.InvalidProtector, ValueError) as fault:
            raise cim.error("INVALID_PARAMETER", str(fault)) from None
    return call


class HgsClient:
    """The HGS client of one host.

    :param repository: that of the host
    :param fabric: its :class:`tests.hyperv.guarded_fabric.GuardedFabric`, or None: local mode
    :param attestation_status: 100, or how each attestation ends: see
        :meth:`tests.hyperv.attestation.HostAttestation.force`
    :ivar attestation: its :class:`tests.hyperv.attestation.HostAttestation`; None in local mode
    :ivar certificates: the host's :class:`tests.hyperv.certificates.CertificateStores`
    """

    def __init__(self, repository, fabric, attestation_status):
        self._repository, self.fabric = repository, fabric
        self._now = repository.clock.now
        self._store = {}
        self.certificates = certificates.CertificateStores()
        for name, methods in (
                ("MSFT_HgsClientConfiguration", {"Get": self._get}),
                ("MSFT_HgsGuardian", {
                    "NewByGenerateCertificates": self._generate,
                    "NewByAcceptCertificates": self._accept,
                    "NewByCertificateThumbprints": self._of_thumbprints, "Import": self._import,
                    "Export": self._export, "Remove": self._remove}),
                ("MSFT_HgsKeyProtector", {
                    "NewByGuardians": self._new_protector, "Grant": self._grant,
                    "Revoke": self._revoke, "ConvertToByRawBytes": self._convert})):
            repository.provide(HGS, name, {
                method: _windows_words(function) for method, function in methods.items()})
        self.attestation = None
        if fabric is not None:
            self.add(fabric.guardian)
            # The host has just started: it attests.
            self.attestation = HostAttestation(
                repository.computer_name, fabric, repository.clock.now)
            self.attestation.force(attestation_status)

    @property
    def attestation_status(self):
        return self.attestation.status if self.attestation else NOT_CONFIGURED

    @property
    def is_guarded(self):
        """Only AttestationStatus 100 makes a host guarded [assumption guarded-means-passed]."""
        return self.attestation_status == PASSED

    def unwrap_with_fabric(self, protector):
        """Have the fabric unwrap and roll a protector; attests first where that is needed.

        :returns: (transport key, new protector, new transport key)
        :raises tests.hyperv.attestation.NotAttested: the host does not pass attestation
        :raises guarded_fabric.ServiceUnreachable: and the other exceptions of
            :meth:`tests.hyperv.guarded_fabric.GuardedFabric.roll_transport_key`
        """
        certificate = self.attestation.require_certificate()
        response = self.fabric.roll_transport_key(protector, certificate)
        ingress, egress = response.open(self.attestation.key)
        return ingress, response.egress_protector, egress

    # The guardian store.

    def add(self, guardian):
        """Persist a guardian; its certificates and private keys go to the certificate store.

        :returns: its MSFT_HgsGuardian
        :raises cim.Error: ALREADY_EXISTS: the name, in any case, or its certificates are there
            [assumption one-guardian-a-certificate]
        """
        if not guardian.name:
            raise cim.error("INVALID_PARAMETER", "Name is needed")
        self._require_free_name(guardian.name)
        present = self.guardian_with(guardian.encryption_certificate)
        if present is not None:
            raise cim.error("ALREADY_EXISTS", "The guardian %s has the certificates of %s." % (
                present.name, guardian.name))
        for certificate, key in ((guardian.signing_certificate, guardian.signing_key),
                                 (guardian.encryption_certificate, guardian.encryption_key)):
            if key is not None and self.certificates.key_of(certificate) is None:
                self.certificates.add(certificates.SHIELDED, certificate, key)
        self._store[guardian.name.lower()] = guardian.public()
        return self._repository.add(
            HGS, "MSFT_HgsGuardian", **_values(self._with_keys(guardian)))

    def _require_free_name(self, name):
        if name.lower() in self._store:
            raise cim.error("ALREADY_EXISTS", "A guardian named %s exists." % name)

    def remove(self, name):
        """Remove a guardian. Its certificates and private keys stay [assumption removed-guardian].

        :raises cim.Error: NOT_FOUND
        """
        guardian = self._find(name)
        del self._store[guardian.name.lower()]
        for instance in self._repository.instances(HGS, "MSFT_HgsGuardian", Name=guardian.name):
            self._repository.remove(instance)

    def remove_certificate(self, thumbprint):
        """Delete a guardian's certificate with its private key, as an administrator does.

        :param thumbprint: Windows' (SHA-1, hexadecimal)
        :raises KeyError: it is not in the store
        """
        self.certificates.remove(certificates.SHIELDED, thumbprint)
        self.keys_changed()

    def keys_changed(self):
        """Let the stored guardians show which private keys are on the host."""
        for guardian in self.guardians():
            for instance in self._repository.instances(
                    HGS, "MSFT_HgsGuardian", Name=guardian.name):
                instance["HasPrivateSigningKey"] = guardian.signing_key is not None

    def describe_certificates(self):
        """What :meth:`tests.hyperv.fabric.Fabric.certificates` gives."""
        owners = {certificate: guardian.name for guardian in self._store.values()
                  for certificate in (guardian.signing_certificate,
                                      guardian.encryption_certificate)}
        return [{"store": store, "thumbprint": certificates.thumbprint(certificate),
                 "subject": certificates.common_name(certificate),
                 "has_private_key": key is not None, "guardian": owners.get(certificate)}
                for store, certificate, key in self.certificates.entries()]

    def describe_private_keys(self):
        """What :meth:`tests.hyperv.fabric.Fabric.private_keys` gives."""
        return [{"subject": certificates.common_name(certificate),
                 "thumbprint": certificates.thumbprint(certificate), "store": store}
                for certificate, store in self.certificates.private_keys()]

    def guardians(self):
        """The stored guardians, each with the private keys that are on this host."""
        return [self._with_keys(guardian) for guardian in self._store.values()]

    def unwrap_locally(self, protector):
        """Unwrap and roll a protector with private keys on this host, without an HGS.

        Those of a removed guardian will do, as long as its certificates are in the store. Source:
        Microsoft Japan's System Center support blog, on error 10698: both certificates imported
        into the store let a VM with a virtual TPM run there.

        :returns: (transport key, new protector, new transport key)
        :raises key_protector.InvalidProtector: see there
        :raises key_protector.CannotUnwrap: no wrapping's private keys are here
        """
        for wrapping in key_protector.read(protector):
            guardian = self._with_keys(_of_wrapping(wrapping))
            if guardian.signing_key is not None and guardian.encryption_key is not None:
                ingress = key_protector.unwrap(protector, [guardian.encryption_key])
                return (ingress,) + key_protector.roll(protector, guardian)
        raise key_protector.CannotUnwrap("no private key of its guardians is on this host")

    def guardian_with(self, encryption_certificate):
        """The stored guardian with this certificate, or None."""
        for guardian in self._store.values():
            if guardian.encryption_certificate == encryption_certificate:
                return self._with_keys(guardian)
        return None

    def _with_keys(self, guardian):
        return guardian.with_keys(self.certificates.key_of(guardian.signing_certificate),
                                  self.certificates.key_of(guardian.encryption_certificate))

    def _find(self, name):
        try:
            return self._with_keys(self._store[(name or "").lower()])
        except KeyError:
            raise cim.error("NOT_FOUND", "There is no guardian named %s." % name) from None

    # MSFT_HgsClientConfiguration.

    def _get(self, cls):
        values = {"Mode": MODE_LOCAL, "IsHostGuarded": False,
                  "AttestationStatus": NOT_CONFIGURED, "AttestationSubstatus": 0,
                  "AttestationOperationMode": 0}
        if self.fabric is not None:
            self.attestation.refresh()
            values.update(
                Mode=MODE_SECURE_HOSTING, IsHostGuarded=self.is_guarded,
                AttestationStatus=self.attestation_status,
                AttestationSubstatus=self.attestation.substatus,
                AttestationOperationMode=self.fabric.attestation.mode,
                KeyProtectionServerUrl=self.fabric.key_protection_url,
                AttestationServerUrl=self.fabric.attestation_url)
        return _output(self._repository.new(HGS, "MSFT_HgsClientConfiguration", **values))

    # MSFT_HgsGuardian.

    def _generate(self, cls, Name=None, GenerateCertificates=None):  # noqa: N803
        if not Name or not GenerateCertificates:
            raise cim.error("INVALID_PARAMETER", "Name and GenerateCertificates are needed")
        self._require_free_name(Name)
        return _output(self.add(Guardian.generate(
            Name, self._now, computer=self._repository.computer_name)))

    def _accept(self, cls, Name=None, EncryptionCertificate=None,  # noqa: N803
                SigningCertificate=None, SigningCertificatePassword=None,  # noqa: N803
                EncryptionCertificatePassword=None, AllowExpired=None,  # noqa: N803
                AllowUntrustedRoot=None):  # noqa: N803
        pairs = []
        for path, password in ((SigningCertificate, SigningCertificatePassword),
                               (EncryptionCertificate, EncryptionCertificatePassword)):
            certificate, key, others = certificates.read_pfx(path, password)
            pairs.append((certificate, key))
            for other in others:
                self.certificates.add(certificates.INTERMEDIATE, other)
        return self._new_guardian(Name, pairs, AllowExpired, AllowUntrustedRoot)

    def _of_thumbprints(self, cls, Name=None, SigningCertificateThumbprint=None,  # noqa: N803
                        EncryptionCertificateThumbprint=None, AllowExpired=None,  # noqa: N803
                        AllowUntrustedRoot=None):  # noqa: N803
        pairs = [self.certificates.with_key(thumbprint) for thumbprint in (
            SigningCertificateThumbprint, EncryptionCertificateThumbprint)]
        return self._new_guardian(Name, pairs, AllowExpired, AllowUntrustedRoot)

    def _new_guardian(self, name, pairs, allow_expired, allow_untrusted_root):
        self._check_certificates(
            [certificate for certificate, _ in pairs], allow_expired, allow_untrusted_root)
        return _output(self.add(Guardian.of_certificates(name, *pairs)))

    def _import(self, cls, Path=None, Name=None, AllowExpired=None,  # noqa: N803
                AllowUntrustedRoot=None):  # noqa: N803
        try:
            document = pathlib.Path(Path or "").read_bytes()
        except OSError:
            raise certificates.file_not_found() from None
        guardian = Guardian.from_metadata(document, Name)
        self._check([guardian], AllowExpired, AllowUntrustedRoot)
        return _output(self.add(guardian))

    def _export(self, cls, Path=None, InputObject=None):  # noqa: N803
        # The metadata is signed with the guardian's own key [assumption export-needs-the-key].
        guardian = self._stored(InputObject)
        if guardian.signing_key is None:
            raise certificates.no_private_key()
        try:
            pathlib.Path(Path or "").write_bytes(guardian.metadata())
        except OSError:
            raise certificates.path_not_found() from None
        return 0

    def _remove(self, cls, Name=None):  # noqa: N803
        self.remove(Name)
        return 0

    def _check(self, guardians, allow_expired, allow_untrusted_root):
        for guardian in guardians:
            self._check_certificates(
                [guardian.signing_certificate, guardian.encryption_certificate], allow_expired,
                allow_untrusted_root)

    def _check_certificates(self, given, allow_expired, allow_untrusted_root):
        for certificate in given:
            certificates.check(certificate, self._now, self.certificates, allow_expired,
                               allow_untrusted_root)

    def _stored(self, instance):
        """The stored guardian that an embedded instance shows.

        :raises cim.Error: NOT_FOUND
        """
        if instance is None:
            raise cim.error("INVALID_PARAMETER", "a guardian is needed")
        guardian = self._find(instance["Name"])
        if guardian.encryption_certificate != bytes(instance["EncryptionCertificate"] or ()):
            raise cim.error("NOT_FOUND", "Another guardian is named %s." % guardian.name)
        return guardian

    # MSFT_HgsKeyProtector.

    def _new_protector(self, cls, Owner=None, Guardian=None, AllowUntrustedRoot=None,  # noqa: N803
                       AllowExpired=None):  # noqa: N803
        owner = self._stored(Owner)
        if owner.signing_key is None:
            # Microsoft Learn, "Troubleshoot vTPM, shielded VM, and HGS issues in Hyper-V clusters":
            # "HGS cannot be an owner because it does not have private keys".
            raise cim.error("INVALID_PARAMETER",
                            "The owner guardian %s has no private signing key." % owner.name)
        members = [_guardian(instance) for instance in Guardian or ()]
        self._check([owner, *members], AllowExpired, AllowUntrustedRoot)
        return _output(self._protector(key_protector.make_protector(owner, members)))

    def _grant(self, cls, KeyProtector=None, Guardian=None, AllowExpired=None,  # noqa: N803
               AllowUntrustedRoot=None):  # noqa: N803
        raw, owner = self._owned(KeyProtector)
        added = _guardian(Guardian)
        self._check([added], AllowExpired, AllowUntrustedRoot)
        return _output(self._protector(key_protector.grant(raw, owner, added)))

    def _revoke(self, cls, KeyProtector=None, Guardian=None):  # noqa: N803
        raw, owner = self._owned(KeyProtector)
        revoked = _guardian(Guardian)
        return _output(self._protector(key_protector.revoke(raw, owner, revoked.thumbprint)))

    def _convert(self, cls, Bytes=None):  # noqa: N803
        raw = bytes(Bytes or ())
        if raw[:4] != len(raw).to_bytes(4, "big"):
            raise cim.error("INVALID_PARAMETER", "the bytes do not begin with their length")
        return _output(self._protector(raw))

    def _owned(self, instance):
        """(bytes, owner with private keys) of a protector whose owner's keys are on this host."""
        if instance is None:
            raise cim.error("INVALID_PARAMETER", "KeyProtector is needed")
        raw = bytes(instance["RawData"] or ())
        first = next(w for w in key_protector.read(raw) if w.is_owner)
        owner = self._with_keys(_of_wrapping(first))
        if owner.signing_key is None or owner.encryption_key is None:
            raise certificates.no_private_key()
        return raw, owner

    def _protector(self, raw):
        known = []
        for wrapping in key_protector.read(raw):
            guardian = self.guardian_with(wrapping.encryption_certificate)
            guardian = guardian or self._with_keys(_of_wrapping(wrapping))
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
    if instance is None:
        raise cim.error("INVALID_PARAMETER", "Guardian is needed")
    return Guardian(
        instance["Name"], bytes(instance["SigningCertificate"] or ()),
        bytes(instance["EncryptionCertificate"] or ()),
        base64.b64decode(instance["EncryptionCertificateSignature"] or ""))


def _of_wrapping(wrapping):
    # [assumption unknown-guardian-name]
    return Guardian("(not in the store)", wrapping.signing_certificate,
                    wrapping.encryption_certificate, wrapping.encryption_signature)


def _output(instance):
    return {"ReturnValue": 0, "cmdletOutput": instance}
