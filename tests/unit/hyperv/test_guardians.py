"""MSFT_HgsGuardian on the simulated host, called through PyMI."""
import datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from lxml import etree

from tests.hyperv import certificates, metadata_signature, native, rsa_keys, windows
from tests.hyperv.fabric import Fabric
from tests.hyperv.fabric_client import FabricClient
from tests.hyperv.fabric_process import Server
from tests.hyperv.guardian import Guardian

HGS = "//./Root/Microsoft/Windows/Hgs"
HOST = "HV1"
PASSWORD = "pass word"
TRUSTING = {"AllowUntrustedRoot": True}
ELEVEN_YEARS = 11 * 365 * 86400


@pytest.fixture
def fabric():
    return Fabric({"hosts": [{"name": HOST}]})


@pytest.fixture
def guardians(fabric):
    """The class MSFT_HgsGuardian."""
    windows.install(fabric, HOST)
    import wmi
    return wmi.WMI(HGS).MSFT_HgsGuardian


@pytest.fixture(scope="module")
def authority():
    return certificates.make_authority("Root")


@pytest.fixture(scope="module")
def self_made():
    return Guardian.generate("anybody")


@pytest.fixture(scope="module")
def issued(authority):
    return Guardian.generate("issued", authority=authority)


def refusal(method, **parameters):
    import wmi
    with pytest.raises(wmi.x_wmi) as caught:
        method(**parameters)
    return str(caught.value)


def pfx(tmp_path, guardian, password=PASSWORD, others=(), **replaced):
    """Both PFX files of a guardian as parameters of NewByAcceptCertificates."""
    parameters = {}
    for usage in ("signing", "encryption"):
        certificate, key = replaced.get(usage) or (
            getattr(guardian, usage + "_certificate"), getattr(guardian, usage + "_key"))
        path = tmp_path / (usage + ".pfx")
        path.write_bytes(certificates.make_pfx(certificate, key, password, others))
        parameters[usage.capitalize() + "Certificate"] = str(path)
        parameters[usage.capitalize() + "CertificatePassword"] = password
    return parameters


def made_on_host(fabric, name):
    return [entry for entry in fabric.certificates(HOST) if "(%s)" % name in entry["subject"]]


def test_generated(guardians, fabric):
    code, made = guardians.NewByGenerateCertificates(Name="tenant", GenerateCertificates=True)
    assert code == 0
    assert (made.Name, made.HasPrivateSigningKey) == ("tenant", True)
    assert [one.Name for one in guardians()] == ["tenant"]
    assert sorted((c["store"], c["subject"], c["has_private_key"], c["guardian"])
                  for c in fabric.certificates(HOST)) == [
        (certificates.SHIELDED, "Shielded VM Encryption Certificate (tenant) (HV1)", True,
         "tenant"),
        (certificates.SHIELDED, "Shielded VM Signing Certificate (tenant) (HV1)", True, "tenant")]


def test_certificates_are_for_their_use_and_ten_years(guardians):
    from cryptography import x509
    _, made = guardians.NewByGenerateCertificates(Name="tenant", GenerateCertificates=True)
    signing, encryption = (x509.load_der_x509_certificate(bytes(der)) for der in (
        made.SigningCertificate, made.EncryptionCertificate))
    usages = [c.extensions.get_extension_for_class(x509.KeyUsage).value
              for c in (signing, encryption)]
    assert [u.digital_signature for u in usages] == [True, False]
    assert [u.key_encipherment for u in usages] == [False, True]
    for certificate in (signing, encryption):
        assert certificate.public_key().key_size == 2048
        years = (certificate.not_valid_after - certificate.not_valid_before).days / 365.25
        assert round(years) == 10


def test_a_name_is_unique_in_any_case(guardians):
    guardians.NewByGenerateCertificates(Name="Tenant", GenerateCertificates=True)
    assert "exists" in refusal(
        guardians.NewByGenerateCertificates, Name="tENANT", GenerateCertificates=True)
    guardians.Remove(Name="TENANT")
    assert guardians() == []


@pytest.mark.parametrize("parameters", [
    {"Name": "tenant"}, {"Name": "tenant", "GenerateCertificates": False},
    {"GenerateCertificates": True}, {"Name": "", "GenerateCertificates": True}])
def test_generating_needs_a_name_and_the_switch(guardians, parameters):
    assert "are needed" in refusal(guardians.NewByGenerateCertificates, **parameters)
    assert guardians() == []


def test_remove_leaves_the_private_keys(guardians, fabric):
    guardians.NewByGenerateCertificates(Name="tenant", GenerateCertificates=True)
    guardians.Remove(Name="tenant")
    assert guardians() == []
    left = made_on_host(fabric, "tenant")
    assert [(c["has_private_key"], c["guardian"]) for c in left] == [(True, None)] * 2
    for entry in left:
        fabric.remove_certificate(HOST, entry["thumbprint"])
    assert fabric.certificates(HOST) == []


def test_without_its_certificate_a_guardian_has_no_private_key(guardians, fabric):
    guardians.NewByGenerateCertificates(Name="tenant", GenerateCertificates=True)
    for entry in made_on_host(fabric, "tenant"):
        fabric.remove_certificate(HOST, entry["thumbprint"])
    assert not guardians()[0].HasPrivateSigningKey


def test_remove_of_an_unknown_guardian(guardians):
    assert "no guardian named nobody" in refusal(guardians.Remove, Name="nobody")


def test_accepted_from_pfx_files(guardians, fabric, tmp_path, self_made):
    code, made = guardians.NewByAcceptCertificates(
        Name="tenant", **TRUSTING, **pfx(tmp_path, self_made))
    assert code == 0 and made.HasPrivateSigningKey
    assert bytes(made.SigningCertificate) == self_made.signing_certificate
    assert {(c["store"], c["guardian"]) for c in fabric.certificates(HOST)} == {
        (certificates.SHIELDED, "tenant")}


def test_pfx_files_without_a_password(guardians, tmp_path, self_made):
    guardians.NewByAcceptCertificates(
        Name="tenant", **TRUSTING, **pfx(tmp_path, self_made, password=""))


@pytest.mark.parametrize("field", ["SigningCertificatePassword", "EncryptionCertificatePassword"])
@pytest.mark.parametrize("given", ["wrong", "", None])
def test_a_wrong_password(guardians, fabric, tmp_path, self_made, field, given):
    parameters = dict(pfx(tmp_path, self_made), **{field: given})
    assert "0x80070056" in refusal(
        guardians.NewByAcceptCertificates, Name="tenant", **TRUSTING, **parameters)
    assert guardians() == [] and fabric.certificates(HOST) == []


@pytest.mark.parametrize("field", ["SigningCertificate", "EncryptionCertificate"])
def test_a_missing_file(guardians, tmp_path, self_made, field):
    parameters = dict(pfx(tmp_path, self_made), **{field: str(tmp_path / "none.pfx")})
    assert "0x80070002" in refusal(
        guardians.NewByAcceptCertificates, Name="tenant", **TRUSTING, **parameters)


def test_a_pfx_file_without_the_private_key(guardians, tmp_path, self_made):
    parameters = pfx(tmp_path, self_made, encryption=(self_made.encryption_certificate, None))
    words = refusal(guardians.NewByAcceptCertificates, Name="tenant", **TRUSTING, **parameters)
    assert "0x80092004" in words or "0x8009000D" in words


@pytest.mark.parametrize("usage", ["signing", "encryption"])
def test_a_key_below_2048_bits(guardians, tmp_path, self_made, usage):
    key = rsa_keys.new_key(1024)
    short = certificates.make_certificate("short", key, usage), key
    assert "0x80090004" in refusal(
        guardians.NewByAcceptCertificates, Name="tenant", **TRUSTING,
        **pfx(tmp_path, self_made, **{usage: short}))


def test_a_key_that_is_not_rsa(guardians, tmp_path, self_made):
    key = ec.generate_private_key(ec.SECP256R1())
    curve = certificates.make_certificate("curve", key, "signing"), key
    assert "0x80090004" in refusal(
        guardians.NewByAcceptCertificates, Name="tenant", **TRUSTING,
        **pfx(tmp_path, self_made, signing=curve))


def test_an_expired_certificate(guardians, fabric, tmp_path, self_made):
    parameters = dict(pfx(tmp_path, self_made), **TRUSTING)
    fabric.advance_clock(ELEVEN_YEARS)
    assert "0x800B0101" in refusal(
        guardians.NewByAcceptCertificates, Name="tenant", **parameters)
    guardians.NewByAcceptCertificates(Name="tenant", AllowExpired=True, **parameters)


def test_a_certificate_that_is_not_valid_yet(guardians, tmp_path):
    later = Guardian.generate(
        "later", now=lambda: datetime.datetime(2100, 1, 1).timestamp())
    assert "0x800B0101" in refusal(
        guardians.NewByAcceptCertificates, Name="tenant", **TRUSTING, **pfx(tmp_path, later))


def test_an_untrusted_root(guardians, tmp_path, self_made, issued):
    for guardian in (self_made, issued):
        assert "0x800B0109" in refusal(
            guardians.NewByAcceptCertificates, Name="tenant", **pfx(tmp_path, guardian))


def test_a_trusted_root(guardians, fabric, tmp_path, issued, authority):
    fabric.add_certificate(HOST, certificates.ROOT, authority.certificate)
    guardians.NewByAcceptCertificates(Name="tenant", **pfx(tmp_path, issued))


def test_a_chain_over_an_authority_in_the_pfx_file(guardians, fabric, tmp_path, authority):
    between = certificates.make_authority("Issuing", authority=authority)
    guardian = Guardian.generate("issued", authority=between)
    fabric.add_certificate(HOST, certificates.ROOT, authority.certificate)
    assert "0x800B0109" in refusal(
        guardians.NewByAcceptCertificates, Name="tenant", **pfx(tmp_path, guardian))
    guardians.NewByAcceptCertificates(
        Name="tenant", **pfx(tmp_path, guardian, others=[between.certificate]))


def test_an_end_certificate_is_no_authority(guardians, fabric, tmp_path, self_made):
    """The issuer's name and signature are right, but it may not issue."""
    impostor = certificates.Authority(self_made.signing_certificate, self_made.signing_key)
    guardian = Guardian.generate("issued", authority=impostor)
    fabric.add_certificate(HOST, certificates.ROOT, impostor.certificate)
    assert "0x800B0109" in refusal(
        guardians.NewByAcceptCertificates, Name="tenant", **pfx(tmp_path, guardian))


def test_the_certificates_of_another_guardian(guardians, tmp_path, self_made):
    parameters = dict(pfx(tmp_path, self_made), **TRUSTING)
    guardians.NewByAcceptCertificates(Name="tenant", **parameters)
    assert "has the certificates of" in refusal(
        guardians.NewByAcceptCertificates, Name="other", **parameters)


def test_made_of_thumbprints(guardians, fabric):
    _, first = guardians.NewByGenerateCertificates(Name="first", GenerateCertificates=True)
    given = {usage + "CertificateThumbprint": certificates.thumbprint(bytes(der))
             for usage, der in (("Signing", first.SigningCertificate),
                                ("Encryption", first.EncryptionCertificate))}
    guardians.Remove(Name="first")
    assert "0x800B0109" in refusal(guardians.NewByCertificateThumbprints, Name="again", **given)
    _, again = guardians.NewByCertificateThumbprints(Name="again", **TRUSTING, **given)
    assert again.HasPrivateSigningKey
    assert again.EncryptionCertificate == first.EncryptionCertificate
    assert {c["guardian"] for c in fabric.certificates(HOST)} == {"again"}


def test_thumbprints_of_nothing_and_of_a_certificate_without_key(guardians, fabric, self_made):
    given = {"SigningCertificateThumbprint": "00" * 20,
             "EncryptionCertificateThumbprint": "00" * 20}
    assert "0x80092004" in refusal(
        guardians.NewByCertificateThumbprints, Name="tenant", **TRUSTING, **given)
    fabric.add_certificate(HOST, certificates.PERSONAL, self_made.signing_certificate)
    given["SigningCertificateThumbprint"] = certificates.thumbprint(self_made.signing_certificate)
    assert "0x8009000D" in refusal(
        guardians.NewByCertificateThumbprints, Name="tenant", **TRUSTING, **given)


def test_export_and_import(guardians, fabric, tmp_path):
    _, made = guardians.NewByGenerateCertificates(Name="tenant", GenerateCertificates=True)
    path = str(tmp_path / "tenant.xml")
    assert guardians.Export(Path=path, InputObject=made) == (0,)
    fabric.add_host("HV2")
    windows.install(fabric, "HV2")
    import wmi
    elsewhere = wmi.WMI(HGS).MSFT_HgsGuardian
    assert "0x800B0109" in refusal(elsewhere.Import, Path=path, Name="imported")
    _, imported = elsewhere.Import(Path=path, Name="imported", **TRUSTING)
    assert not imported.HasPrivateSigningKey
    assert imported.EncryptionCertificate == made.EncryptionCertificate
    assert fabric.certificates("HV2") == []
    assert "0x8009000D" in refusal(
        elsewhere.Export, Path=path, InputObject=imported)


def test_export_of_what_is_not_stored(guardians, tmp_path):
    _, made = guardians.NewByGenerateCertificates(Name="tenant", GenerateCertificates=True)
    path = str(tmp_path / "tenant.xml")
    assert "0x80070003" in refusal(
        guardians.Export, Path=str(tmp_path / "no" / "folder"), InputObject=made)
    assert "a guardian is needed" in refusal(guardians.Export, Path=path)
    guardians.Remove(Name="tenant")
    assert "no guardian named tenant" in refusal(guardians.Export, Path=path, InputObject=made)
    guardians.NewByGenerateCertificates(Name="tenant", GenerateCertificates=True)
    assert "Another guardian" in refusal(guardians.Export, Path=path, InputObject=made)


def test_import_refuses(guardians, fabric, tmp_path, self_made):
    path = tmp_path / "metadata.xml"
    given = dict(TRUSTING, Path=str(path), Name="imported")
    assert "0x80070002" in refusal(guardians.Import, **given)
    path.write_text("<Metadata/>")
    assert "not guardian metadata" in refusal(guardians.Import, **given)
    path.write_bytes(self_made.metadata())
    assert "Name is needed" in refusal(guardians.Import, Path=str(path), **TRUSTING)
    fabric.advance_clock(ELEVEN_YEARS)
    assert "0x800B0101" in refusal(guardians.Import, **given)
    assert guardians() == []
    guardians.Import(AllowExpired=True, **given)
    assert [one.Name for one in guardians()] == ["imported"]


@pytest.mark.parametrize("number", range(2))
def test_import_of_metadata_with_a_wrong_signature(guardians, tmp_path, self_made, number):
    head, tail = self_made.metadata().split(b"<SignatureValue>", 1)
    parts = [head, *tail.split(b"<SignatureValue>")]
    parts[number + 1] = b"AAAA" + parts[number + 1][4:]
    path = tmp_path / "metadata.xml"
    path.write_bytes(b"<SignatureValue>".join(parts))
    assert "signature" in refusal(guardians.Import, Path=str(path), Name="imported", **TRUSTING)


def test_metadata_is_signed_whole(guardians, tmp_path, self_made):
    path = tmp_path / "metadata.xml"
    sound = self_made.metadata()
    without = sound[:sound.index(b"<ds:Signature")] + b"</Metadata>"
    stranger = metadata_signature.add(
        etree.fromstring(without), rsa_keys.new_key(), self_made.signing_certificate)
    for changed in (
            without, sound.replace(b'Version="1"', b'Version="2"', 1),
            sound.replace(b"</GuardianInformation>", b"<More/></GuardianInformation>"),
            etree.tostring(stranger)):
        assert changed != sound
        path.write_bytes(changed)
        assert "signature" in refusal(
            guardians.Import, Path=str(path), Name="imported", **TRUSTING)
    # Who wrote it in another way meant the same.
    path.write_bytes(sound.replace(b'<Metadata ', b'<Metadata\n  '))
    guardians.Import(Path=str(path), Name="imported", **TRUSTING)


def test_a_key_is_found_by_its_certificate_alone(self_made):
    stores = certificates.CertificateStores()
    stores.add(certificates.PERSONAL, self_made.signing_certificate)
    assert stores.key_of(self_made.signing_certificate) is None
    stores.add(certificates.SHIELDED, self_made.signing_certificate, self_made.signing_key)
    stores.add(certificates.SHIELDED, self_made.signing_certificate)
    assert stores.key_of(self_made.signing_certificate) is self_made.signing_key
    assert isinstance(stores.with_key(certificates.thumbprint(
        self_made.signing_certificate).lower()), tuple)


def test_behind_a_socket(fabric, tmp_path, authority):
    server = Server(fabric, tmp_path / "socket")
    thread = native.module("threading").Thread(target=server.run, daemon=True)
    thread.start()
    try:
        client = FabricClient(tmp_path / "socket")
        client.add_certificate(HOST, certificates.ROOT, authority.certificate)
        (entry,) = client.certificates(HOST)
        assert entry == {
            "store": certificates.ROOT, "subject": "Root", "has_private_key": False,
            "thumbprint": certificates.thumbprint(authority.certificate), "guardian": None}
        for refused in (lambda: client.remove_certificate(HOST, entry["thumbprint"]),
                        lambda: client.provisioning(HOST, "no such machine")):
            with pytest.raises(KeyError):
                refused()
    finally:
        server.stop()
        thread.join()
