"""Key protectors: the document, Grant and Revoke, damaged ones, and what they do to a TPM."""
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hyperv import certificates, damaged_protectors, guardian, key_protector, windows
from tests.hyperv.fabric import Fabric
from tests.hyperv.guardian import Guardian
from tests.hyperv.key_protector import Algorithms, CannotUnwrap, InvalidProtector

HGS = "//./Root/Microsoft/Windows/Hgs"
GENERATION_2 = 2
RUNNING, OFF = 2, 3
YEAR = 365 * 86400

# What a reader without a private key cannot notice.
NEEDS_THE_TRANSPORT_KEY = {"wrong TransportKeySignature", "a transport key of another protector"}
DAMAGES = (
    "empty", "its length alone", "cut at the end", "cut in the middle", "a byte too many",
    "length of another", "first part lost", "parts swapped", "wrong SigningCertificateSignature",
    "wrong EncryptionCertificateSignature", "wrong TransportKeySignature",
    "wrong GuardianSignature", "unknown signature algorithm", "unknown key encryption algorithm",
    "unknown key derivation algorithm", "unknown mac algorithm", "two owners", "no owner",
    "a cycle of parents beside the owner", "duplicate ids", "an unknown parent",
    "an id that is no number", "a negative id", "an id over 32 bits", "no wrappings",
    "signed in by a stranger", "a wrapping of another protector", "swapped ids",
    "a transport key of another protector", "an entity", "a document type", "another namespace",
    "another root element", "MaxOfflineUnwraps that is no number", "no XML")


@pytest.fixture(scope="module")
def owner():
    return Guardian.generate("tenant")


@pytest.fixture(scope="module")
def member():
    return Guardian.generate("fabric")


@pytest.fixture(scope="module")
def third():
    return Guardian.generate("third")


@pytest.fixture(scope="module")
def damaged(owner, member):
    return damaged_protectors.damaged(owner, member)


def thumbprints(raw):
    return [wrapping.thumbprint for wrapping in key_protector.read(raw)]


# The document.

def test_each_guardian_unwraps_the_same_key(owner, member, third):
    raw = key_protector.make_protector(owner, [member, third])
    keys = {key_protector.unwrap(raw, [one.encryption_key]) for one in (owner, member, third)}
    assert len(keys) == 1 and len(keys.pop()) == 32
    assert [w.is_owner for w in key_protector.read(raw)] == [True, False, False]
    with pytest.raises(CannotUnwrap):
        key_protector.unwrap(raw, [owner.signing_key])


def test_max_offline_unwraps(owner, member):
    raw = key_protector.make_protector(owner, [member], max_offline_unwraps=7)
    assert key_protector.max_offline_unwraps(raw) == 7
    rolled, _ = key_protector.roll(raw, member)
    assert key_protector.max_offline_unwraps(rolled) == 7
    assert key_protector.max_offline_unwraps(
        key_protector.make_protector(owner, [member])) == 0


@pytest.mark.parametrize("signature", [
    guardian.RSA_SHA256, guardian.RSA_SHA512, guardian.RSA_PSS_SHA256])
@pytest.mark.parametrize("encryption", [
    key_protector.RSA_OAEP, key_protector.RSA_OAEP_SHA256])
def test_algorithms_are_those_that_are_named(owner, member, signature, encryption):
    raw = key_protector.make_protector(owner, [member], algorithms=Algorithms(
        signature=signature, key_encryption=encryption))
    assert signature.encode() in raw and encryption.encode() in raw
    assert key_protector.unwrap(raw, [member.encryption_key])
    rolled, key = key_protector.roll(raw, member)
    assert key_protector.unwrap(rolled, [owner.encryption_key]) == key
    other = guardian.RSA_SHA512 if signature == guardian.RSA_SHA256 else guardian.RSA_SHA256
    with pytest.raises(InvalidProtector):
        key_protector.read(key_protector.with_prefix(
            raw[4:].replace(signature.encode(), other.encode())))


def test_six_guardians_of_4096_bits():
    first = Guardian.generate("first", key_bits=4096)
    six = [first] + [Guardian.of_certificates(name, *(
        (certificates.make_certificate(name, key, usage), key) for usage, key in (
            (certificates.SIGNING, first.signing_key),
            (certificates.ENCRYPTION, first.encryption_key)))) for name in "bcdef"]
    raw = key_protector.make_protector(first, six[1:])
    assert thumbprints(raw) == [one.thumbprint for one in six]
    assert {len(wrapping.encrypted_key) for wrapping in key_protector.read(raw)} == {512}
    assert len(raw) > 20000  # more than one Barbican secret holds by default
    assert key_protector.unwrap(raw, [first.encryption_key])


def test_a_guardian_is_there_once(owner, member):
    for members in ([member, member], [owner], [member, owner.public("other name")]):
        with pytest.raises(ValueError):
            key_protector.make_protector(owner, members)


def test_the_owner_needs_its_private_key(owner, member):
    with pytest.raises(ValueError):
        key_protector.make_protector(owner.public(), [member])


def test_roll_changes_the_key_and_nothing_else(owner, member, third):
    raw = key_protector.make_protector(owner, [member, third])
    rolled, key = key_protector.roll(raw, member)
    assert key != key_protector.unwrap(raw, [member.encryption_key])
    assert thumbprints(rolled) == thumbprints(raw)
    assert {key_protector.unwrap(rolled, [one.encryption_key])
            for one in (owner, member, third)} == {key}
    with pytest.raises(CannotUnwrap):
        key_protector.roll(key_protector.make_protector(owner, [member]), third)


# Damaged ones.

def test_every_damage_is_tried(damaged):
    assert sorted(damaged) == sorted(DAMAGES)
    assert len(set(damaged.values())) == len(damaged)


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_protector_is_refused(damaged, owner, member, what):
    if what in NEEDS_THE_TRANSPORT_KEY:
        key_protector.read(damaged[what])
        victim = member if "transport key of" in what else owner
        with pytest.raises(InvalidProtector):
            key_protector.unwrap(damaged[what], [victim.encryption_key])
    else:
        with pytest.raises(InvalidProtector):
            key_protector.read(damaged[what])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_changed_byte_never_gives_another_key(owner, member, data):
    raw = _SOUND.setdefault("raw", key_protector.make_protector(owner, [member]))
    key = key_protector.unwrap(raw, [member.encryption_key])
    place = data.draw(st.integers(0, len(raw) - 1))
    byte = data.draw(st.integers(0, 255))
    changed = raw[:place] + bytes([byte]) + raw[place + 1:]
    try:
        assert key_protector.unwrap(changed, [member.encryption_key]) == key
    except (InvalidProtector, CannotUnwrap):
        assert changed != raw


_SOUND = {}


# Grant and Revoke.

def test_grant_keeps_the_transport_key(owner, member, third):
    raw = key_protector.make_protector(owner, [member], max_offline_unwraps=3)
    granted = key_protector.grant(raw, owner, third.public())
    assert thumbprints(granted) == thumbprints(raw) + [third.thumbprint]
    key = key_protector.unwrap(raw, [owner.encryption_key])
    assert key_protector.unwrap(granted, [third.encryption_key]) == key
    assert key_protector.unwrap(granted, [member.encryption_key]) == key
    assert key_protector.max_offline_unwraps(granted) == 3


def test_grant_and_revoke_after_the_fabric_rolled(owner, member, third):
    rolled, key = key_protector.roll(key_protector.make_protector(owner, [member]), member)
    granted = key_protector.grant(rolled, owner, third.public())
    assert key_protector.unwrap(granted, [third.encryption_key]) == key
    # The fabric signed the protector that is revoked from it.
    revoked = key_protector.revoke(key_protector.roll(granted, member)[0], owner,
                                   member.thumbprint)
    assert thumbprints(revoked) == [owner.thumbprint, third.thumbprint]
    with pytest.raises(CannotUnwrap):
        key_protector.unwrap(revoked, [member.encryption_key])


def test_grant_refuses(owner, member, third):
    raw = key_protector.make_protector(owner, [member])
    for added in (member, owner):
        with pytest.raises(ValueError):
            key_protector.grant(raw, owner, added)
    with pytest.raises(CannotUnwrap):
        key_protector.grant(raw, third, third)
    with pytest.raises(CannotUnwrap):  # a guardian of it, but not the owner
        key_protector.grant(raw, member, third)


def test_revoke_refuses(owner, member, third):
    raw = key_protector.make_protector(owner, [member])
    for thumbprint in (owner.thumbprint, third.thumbprint):
        with pytest.raises(ValueError):
            key_protector.revoke(raw, owner, thumbprint)
    with pytest.raises(CannotUnwrap):
        key_protector.revoke(raw, member, owner.thumbprint)


@pytest.fixture(scope="module")
def crowd(member, third):
    return [member, third, Guardian.generate("fourth")]


def change(step, raw, owner, one, key):
    """(protector, transport key) after a step; the key is the old one where nothing rolls."""
    if step == "roll":
        return key_protector.roll(raw, one)
    if step == "grant":
        return key_protector.grant(raw, owner, one.public()), key
    return key_protector.revoke(raw, owner, one.thumbprint), key


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["grant", "revoke", "roll"]), st.integers(0, 2)),
                max_size=8))
def test_whatever_is_granted_revoked_and_rolled(owner, crowd, steps):
    """Only a roll changes the key, and those unwrap who were granted and not revoked."""
    raw, inside = key_protector.make_protector(owner, []), []
    key = key_protector.unwrap(raw, [owner.encryption_key])
    for step, number in steps:
        one = crowd[number]
        if (one in inside) == (step == "grant"):
            with pytest.raises((ValueError, CannotUnwrap)):
                change(step, raw, owner, one, key)
            continue
        raw, key = change(step, raw, owner, one, key)
        if step == "grant":
            inside.append(one)
        elif step == "revoke":
            inside.remove(one)
        assert thumbprints(raw) == [g.thumbprint for g in [owner, *inside]]
        for other in [owner, *inside]:
            assert key_protector.unwrap(raw, [other.encryption_key]) == key
        for other in crowd:
            if other not in inside:
                with pytest.raises(CannotUnwrap):
                    key_protector.unwrap(raw, [other.encryption_key])


# Through WMI.

@pytest.fixture
def fabric():
    return Fabric({"fabrics": ["east", "west"], "hosts": [
        {"name": "HV1", "fabric": "east", "guardians": ["west"]}, {"name": "HV2"}]})


@pytest.fixture
def hgs(fabric):
    windows.install(fabric, "HV1")
    import wmi
    return wmi.WMI(HGS)


@pytest.fixture
def tenant(hgs):
    return hgs.MSFT_HgsGuardian.NewByGenerateCertificates(
        Name="tenant", GenerateCertificates=True)[1]


def known(hgs, name):
    return hgs.MSFT_HgsGuardian(Name=name)[0]


def made(hgs, owner, *names):
    return hgs.MSFT_HgsKeyProtector.NewByGuardians(
        Owner=owner, Guardian=[known(hgs, name) for name in names], AllowUntrustedRoot=True)[1]


def refusal(method, **parameters):
    import wmi
    with pytest.raises(wmi.x_wmi) as caught:
        method(**parameters)
    return str(caught.value)


def names(protector):
    return protector.Owner.Name, [one.Name for one in protector.Guardians]


def test_new_by_guardians(hgs, tenant):
    protector = made(hgs, tenant, "east", "west")
    assert names(protector) == ("tenant", ["east", "west"])
    assert names(made(hgs, tenant)) == ("tenant", [])
    again = hgs.MSFT_HgsKeyProtector.ConvertToByRawBytes(Bytes=list(protector.RawData))[1]
    assert names(again) == names(protector) and again.RawData == protector.RawData


def test_new_by_guardians_refuses(hgs, tenant, fabric):
    new = hgs.MSFT_HgsKeyProtector.NewByGuardians
    east = known(hgs, "east")
    assert "0x800B0109" in refusal(new, Owner=tenant, Guardian=[east])
    assert "no private signing key" in refusal(
        new, Owner=east, Guardian=[], AllowUntrustedRoot=True)
    assert "a guardian is needed" in refusal(new, Guardian=[east], AllowUntrustedRoot=True)
    assert "twice" in refusal(
        new, Owner=tenant, Guardian=[east, east], AllowUntrustedRoot=True)
    forged = known(hgs, "west")
    forged.EncryptionCertificate = list(east.EncryptionCertificate)
    assert "signature" in refusal(
        new, Owner=tenant, Guardian=[forged], AllowUntrustedRoot=True)
    fabric.advance_clock(11 * 365 * 86400)
    assert "0x800B0101" in refusal(new, Owner=tenant, Guardian=[east], AllowUntrustedRoot=True)
    new(Owner=tenant, Guardian=[east], AllowUntrustedRoot=True, AllowExpired=True)


def test_new_by_guardians_looks_at_the_members_certificates(hgs, fabric, tmp_path):
    fabric.advance_clock(11 * YEAR)
    trusted, other = (certificates.make_authority(name, fabric.clock.now)
                      for name in ("Trusted", "Other"))
    fabric.add_certificate("HV1", certificates.ROOT, trusted.certificate)

    def stored(name, authority):
        path = tmp_path / (name + ".xml")
        path.write_bytes(Guardian.generate(
            name, fabric.clock.now, authority=authority).metadata())
        return hgs.MSFT_HgsGuardian.Import(Path=str(path), Name=name, AllowUntrustedRoot=True)[1]
    new = hgs.MSFT_HgsKeyProtector.NewByGuardians
    owner = hgs.MSFT_HgsGuardian.NewByGenerateCertificates(
        Name="tenant", GenerateCertificates=True)[1]
    fabric.add_certificate("HV1", certificates.ROOT, bytes(owner.SigningCertificate))
    fabric.add_certificate("HV1", certificates.ROOT, bytes(owner.EncryptionCertificate))
    new(Owner=owner, Guardian=[stored("good", trusted)])
    untrusted, expired = stored("untrusted", other), known(hgs, "east")
    for present in ([untrusted], [known(hgs, "good"), untrusted]):
        assert "0x800B0109" in refusal(new, Owner=owner, Guardian=present)
        new(Owner=owner, Guardian=present, AllowUntrustedRoot=True)
    for present in ([expired], [known(hgs, "good"), expired]):
        assert "0x800B0101" in refusal(
            new, Owner=owner, Guardian=present, AllowUntrustedRoot=True)
        new(Owner=owner, Guardian=present, AllowUntrustedRoot=True, AllowExpired=True)


def test_convert_refuses_what_is_no_protector(hgs, owner, member):
    convert = hgs.MSFT_HgsKeyProtector.ConvertToByRawBytes
    raw = key_protector.make_protector(owner, [member])
    for wrong in (raw[:-1], raw[4:]):
        assert "begin with their length" in refusal(convert, Bytes=list(wrong))
    refusal(convert)
    assert "not XML" in refusal(convert, Bytes=list(key_protector.with_prefix(b"protector")))
    owner_shown, members = names(convert(Bytes=list(raw))[1])
    assert owner_shown == members[0] == "(not in the store)"


def test_grant_and_revoke(hgs, tenant):
    protectors = hgs.MSFT_HgsKeyProtector
    protector = made(hgs, tenant, "east")
    west = known(hgs, "west")
    assert "0x800B0109" in refusal(protectors.Grant, KeyProtector=protector, Guardian=west)
    _, granted = protectors.Grant(KeyProtector=protector, Guardian=west, AllowUntrustedRoot=True)
    assert names(granted) == ("tenant", ["east", "west"])
    assert "already" in refusal(
        protectors.Grant, KeyProtector=granted, Guardian=west, AllowUntrustedRoot=True)
    _, revoked = protectors.Revoke(KeyProtector=granted, Guardian=known(hgs, "east"))
    assert names(revoked) == ("tenant", ["west"])
    assert "not in the key protector" in refusal(
        protectors.Revoke, KeyProtector=revoked, Guardian=known(hgs, "east"))
    assert "owner" in refusal(protectors.Revoke, KeyProtector=revoked, Guardian=tenant)
    for method in (protectors.Grant, protectors.Revoke):
        assert "KeyProtector is needed" in refusal(method, Guardian=west)
        assert "Guardian is needed" in refusal(method, KeyProtector=revoked)


def test_grant_and_revoke_need_the_owners_keys(hgs, tenant, fabric):
    protector = made(hgs, tenant, "east")
    west = known(hgs, "west")
    hgs.MSFT_HgsGuardian.Remove(Name="tenant")
    # The keys are still there.
    hgs.MSFT_HgsKeyProtector.Grant(
        KeyProtector=protector, Guardian=west, AllowUntrustedRoot=True)
    for entry in fabric.certificates("HV1"):
        fabric.remove_certificate("HV1", entry["thumbprint"])
    assert "0x8009000D" in refusal(
        hgs.MSFT_HgsKeyProtector.Grant, KeyProtector=protector, Guardian=west,
        AllowUntrustedRoot=True)
    assert "0x8009000D" in refusal(
        hgs.MSFT_HgsKeyProtector.Revoke, KeyProtector=protector, Guardian=known(hgs, "east"))


class Vm:
    """A VM with a vTPM, as os-win sees it."""

    def __init__(self, name, folder, protector):
        from os_win import utilsfactory
        self.vmutils, self.name = utilsfactory.get_vmutils(), name
        self.vmutils.create_vm(name, False, GENERATION_2, str(folder), [])
        self.set_protector(protector)
        settings = self.settings()
        settings.TpmEnabled = True
        job, result = self.vmutils._sec_svc.ModifySecuritySettings(
            SecuritySettingData=settings.GetText_(1))
        self.vmutils._jobutils.check_ret_val(result, job)

    def settings(self):
        from os_win.utils import _wqlutils
        return _wqlutils.get_element_associated_class(
            self.vmutils._conn, "Msvm_SecuritySettingData",
            element_uuid=self.vmutils._lookup_vm_check(self.name).ConfigurationID)[0]

    def set_protector(self, raw):
        job, result = self.vmutils._sec_svc.SetKeyProtector(
            SecuritySettingData=self.settings().GetText_(1), KeyProtector=list(raw))
        self.vmutils._jobutils.check_ret_val(result, job)

    def protector(self):
        return self.vmutils._sec_svc.GetKeyProtector(
            SecuritySettingData=self.settings().GetText_(1))[0]

    def request(self, state):
        system = self.vmutils._lookup_vm_check(self.name, as_vssd=False)
        job, result = system.RequestStateChange(RequestedState=state)
        self.vmutils._jobutils.check_ret_val(result, job)


def test_a_vm_whose_protector_was_granted_opens_its_tpm(hgs, tenant, fabric, tmp_path):
    vm = Vm("vm", tmp_path, made(hgs, tenant, "east").RawData)
    vm.request(RUNNING)
    fabric.write_tpm("HV1", "vm", "bitlocker", b"key")
    vm.request(OFF)
    _, present = hgs.MSFT_HgsKeyProtector.ConvertToByRawBytes(Bytes=list(vm.protector()))
    _, granted = hgs.MSFT_HgsKeyProtector.Grant(
        KeyProtector=present, Guardian=known(hgs, "west"), AllowUntrustedRoot=True)
    vm.set_protector(granted.RawData)
    vm.request(RUNNING)
    assert fabric.read_tpm("HV1", "vm", "bitlocker") == b"key"
    vm.request(OFF)
    _, present = hgs.MSFT_HgsKeyProtector.ConvertToByRawBytes(Bytes=list(vm.protector()))
    _, revoked = hgs.MSFT_HgsKeyProtector.Revoke(
        KeyProtector=present, Guardian=known(hgs, "west"))
    vm.set_protector(revoked.RawData)
    vm.request(RUNNING)
    assert fabric.read_tpm("HV1", "vm", "bitlocker") == b"key"


def test_certificates_of_a_fabric_expire_and_are_renewed(hgs, tenant, fabric, tmp_path):
    """The owner grants the new certificates; who was not granted them starts no more."""
    protectors = hgs.MSFT_HgsKeyProtector
    granted, forgotten = (Vm(name, tmp_path / name, made(hgs, tenant, "east").RawData)
                          for name in ("granted", "forgotten"))
    for vm in (granted, forgotten):
        vm.request(RUNNING)
        fabric.write_tpm("HV1", vm.name, "bitlocker", b"key")
        vm.request(OFF)
    fabric.advance_clock(11 * 365 * 86400)
    path = tmp_path / "metadata.xml"
    given = {"Path": str(path), "Name": "east", "AllowUntrustedRoot": True}
    hgs.MSFT_HgsGuardian.Remove(Name="east")
    path.write_bytes(fabric.metadata("east"))
    assert "0x800B0101" in refusal(hgs.MSFT_HgsGuardian.Import, **given)
    fabric.renew_fabric_guardian("east")
    path.write_bytes(fabric.metadata("east"))
    _, renewed = hgs.MSFT_HgsGuardian.Import(**given)

    _, present = protectors.ConvertToByRawBytes(Bytes=list(granted.protector()))
    _, changed = protectors.Grant(
        KeyProtector=present, Guardian=renewed, AllowUntrustedRoot=True)
    granted.set_protector(changed.RawData)
    fabric.drop_old_fabric_guardians("east")
    granted.request(RUNNING)
    assert fabric.read_tpm("HV1", "granted", "bitlocker") == b"key"
    from os_win import exceptions
    with pytest.raises(exceptions.WMIJobFailed, match="0x80070057"):
        forgotten.request(RUNNING)


def test_local_mode_unwraps_with_the_certificates_that_are_there(fabric, tmp_path):
    from os_win import exceptions
    windows.install(fabric, "HV2")
    import wmi
    hgs = wmi.WMI(HGS)
    _, tenant = hgs.MSFT_HgsGuardian.NewByGenerateCertificates(
        Name="tenant", GenerateCertificates=True)
    vm = Vm("vm", tmp_path, made(hgs, tenant).RawData)
    vm.request(RUNNING)
    fabric.write_tpm("HV2", "vm", "bitlocker", b"key")
    vm.request(OFF)
    hgs.MSFT_HgsGuardian.Remove(Name="tenant")
    vm.request(RUNNING)
    assert fabric.read_tpm("HV2", "vm", "bitlocker") == b"key"
    vm.request(OFF)
    for entry in fabric.certificates("HV2"):
        fabric.remove_certificate("HV2", entry["thumbprint"])
    with pytest.raises(exceptions.WMIJobFailed, match="0x80070057"):
        vm.request(RUNNING)
