"""What is refused before a virtual machine is defined: on a simulated host, without nova."""

import importlib

import pytest

from tests.hyperv import damaged_protectors, guardian, key_protector
from tests.unit.guarded_host import (
    FABRIC,
    HOST,
    OTHER,
    module,
    new_metadata,
    pfx_files,
)
from vtpm_compute import errors
from vtpm_scheduling import policy

VERSION = 10000
ID = "2f6ac6a8-4e14-4e4c-a73d-069cbf4541e6"


class Keys:
    """A key manager's answer."""

    def __init__(self, *payloads):
        self._payloads = list(payloads)

    def fetch(self, context, keys):
        return self._payloads


@pytest.fixture
def simulated(host):
    return host.simulated


def vtpm(host, *payloads, allow_owner_keys=False, refuse_wrong_signatures=True):
    return module("vtpm").Vtpm(Keys(*payloads), host.client, host.finder(), host.maker, None,
                               allow_owner_keys, refuse_wrong_signatures)


def prepare(host, *payloads, version=VERSION, allow_owner_keys=False,
            refuse_wrong_signatures=True, **request):
    keys = policy.parse_keys(ID) if payloads else ()
    return vtpm(host, *payloads, allow_owner_keys=allow_owner_keys,
                refuse_wrong_signatures=refuse_wrong_signatures).prepare(
        None, policy.VtpmRequest(vtpm=True, keys=keys, **request), version)


def protector_for(simulated, name):
    return key_protector.make_protector(
        guardian.Guardian.generate("Contoso"),
        [guardian.Guardian.from_metadata(simulated.metadata(name), name)])


def guardians_of(prepared):
    return [one.thumbprint for one in key_protector.read(prepared.protector)]


def test_made_on_the_host(host, simulated):
    prepared = prepare(host)
    assert simulated.fabric_thumbprint(FABRIC) in guardians_of(prepared)
    assert prepared.fabric_thumbprint == simulated.fabric_thumbprint(FABRIC)
    assert prepared.shielded is False


def test_a_shielded_machine_without_keys(host, simulated):
    """The policy has refused it before."""
    with pytest.raises(errors.RequestRefusedError, match="os_vtpm_keys is not set"):
        prepare(host, shielded=True)
    assert simulated.calls(HOST, "MSFT_HgsKeyProtector.*") == []


def test_given_in_pieces(host, simulated):
    raw = protector_for(simulated, FABRIC)
    assert prepare(host, raw[:1000], raw[1000:]).protector == raw


def test_what_was_verified_is_in_the_log(host, simulated, caplog):
    caplog.set_level("INFO", "vtpm_compute.vtpm")
    raw = protector_for(simulated, FABRIC)
    prepare(host, raw[:1000], raw[1000:])
    (record,) = [one for one in caplog.records if one.name == "vtpm_compute.vtpm"]
    assert record.getMessage().startswith(
        "Key protector given in 2 secrets: %d bytes, guardians: " % len(raw))
    assert "5 of 6 signatures verified; " in record.getMessage()
    assert simulated.fabric_thumbprint(FABRIC)[:16] in record.getMessage()


def test_an_expired_certificate_is_a_warning(host, simulated, caplog):
    long_ago = guardian.Guardian.generate("Contoso", now=lambda: 0)
    fabric_guardian = guardian.Guardian.from_metadata(simulated.metadata(FABRIC), FABRIC)
    raw = key_protector.make_protector(long_ago, [fabric_guardian])
    assert prepare(host, raw).protector == raw
    warned = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"
              and one.name == "vtpm_compute.vtpm"]
    assert len(warned) == 2
    assert all("Key protector given in 1 secret: the " in one and "expired on 1980-" in one
               for one in warned)


def test_given_for_another_fabric(host, simulated):
    with pytest.raises(errors.KeyProtectorError, match="does not name this fabric's guardian"):
        prepare(host, protector_for(simulated, OTHER))


def test_the_flow_of_compute_hyperv_brings_its_own(host):
    assert prepare(host, uses_pdk=True).protector is None


@pytest.mark.parametrize("status", [1, 200, 300, 301, 302, 303])
def test_a_host_that_lost_its_attestation(host, simulated, status):
    simulated.set_attestation(HOST, status)
    with pytest.raises(errors.HostUnfitError, match="hosts are not guarded at present"):
        prepare(host)
    assert simulated.calls(HOST, "*.NewByGuardians") == []


def test_a_host_that_is_too_old(host):
    with pytest.raises(errors.HostUnfitError, match="older than 10.0"):
        prepare(host, version=6003)


def test_a_host_without_its_fabrics_guardian(host, simulated):
    (stored,) = simulated.host(HOST).repository.instances(
        "root/microsoft/windows/hgs", "MSFT_HgsGuardian", Name=FABRIC)
    certificate = stored["EncryptionCertificate"]
    stored["EncryptionCertificate"] = []
    try:
        with pytest.raises(errors.HostUnfitError):
            prepare(host)
        with pytest.raises(errors.HostGuardianError, match="has no certificate"):
            host.client.find_guardian(FABRIC)
    finally:
        stored["EncryptionCertificate"] = certificate


def test_a_guardian_that_is_replaced_meanwhile(host, monkeypatch):
    answers = [host.client.find_guardian(FABRIC), host.client.find_guardian(OTHER)]
    monkeypatch.setattr(host.client, "find_guardian", lambda name: answers.pop(0))
    with pytest.raises(errors.HostGuardianError, match="changed meanwhile"):
        prepare(host)


def test_a_protector_that_windows_makes_for_others(host, simulated, monkeypatch):
    raw = protector_for(simulated, OTHER)
    monkeypatch.setattr(host.client, "new_protector", lambda owner, granted: raw)
    with pytest.raises(errors.KeyProtectorError, match="of the host does not name"):
        prepare(host)


def test_wrong_signatures_may_be_left_to_windows(host, simulated, caplog):
    """For a Windows that signs in a form that is not known here."""
    fabric = guardian.Guardian.from_metadata(simulated.metadata(FABRIC), FABRIC)
    raw = damaged_protectors.damaged(guardian.Guardian.generate("Contoso"), fabric)[
        "swapped ids"]
    with pytest.raises(errors.KeyProtectorError, match="was not made with its key"):
        prepare(host, raw)
    assert prepare(host, raw, refuse_wrong_signatures=False).protector == raw
    assert "the signing certificate of wrapping 2: WRONG (was not made with its key)" in caplog.text


def test_what_windows_makes_is_used_whatever_its_form(host, monkeypatch, caplog):
    raw = b"\0\0\0\x10another form"
    monkeypatch.setattr(host.client, "new_protector", lambda owner, granted: raw)
    assert prepare(host).protector == raw
    assert "is used unchecked: What the host holds is not a key protector" in caplog.text
    monkeypatch.setattr(host.client, "new_protector", lambda owner, granted: b"\0\0\0\4")
    with pytest.raises(errors.HostGuardianError, match="made an empty key protector"):
        prepare(host)


def test_leftovers_that_cannot_be_removed_are_told(host, simulated, caplog):
    name = module("protector_maker").OWNER_PREFIX + "1"
    importlib.import_module("wmi").WMI(
        "//./Root/Microsoft/Windows/Hgs").MSFT_HgsGuardian.NewByGenerateCertificates(
            Name=name, GenerateCertificates=True)
    simulated.add_fault(HOST, "MSFT_HgsGuardian.Remove", return_value=32768)
    vtpm(host).clean_up()
    assert "MSFT_HgsGuardian.Remove returned 32768" in caplog.text
    vtpm(host).clean_up()
    assert [one["name"] for one in simulated.guardians(HOST)] == [FABRIC, OTHER]


def test_made_with_a_given_owner(host, simulated):
    owner = guardian.Guardian.generate("Contoso")
    with pytest.raises(errors.KeyProtectorError, match="this cloud takes no private keys"):
        prepare(host, *pfx_files(owner))
    prepared = prepare(host, *pfx_files(owner), allow_owner_keys=True)
    assert guardians_of(prepared) == [owner.thumbprint, simulated.fabric_thumbprint(FABRIC)]


def test_made_with_further_guardians(host, simulated):
    further = [new_metadata() for _ in range(2)]
    prepared = prepare(host, *further)
    assert guardians_of(prepared)[1:] == [simulated.fabric_thumbprint(FABRIC), *(
        guardian.Guardian.from_metadata(one, "x").thumbprint for one in further)]


def test_a_shielded_machine_needs_its_owners_protector(host, simulated):
    raw = protector_for(simulated, FABRIC)
    assert prepare(host, raw, shielded=True).protector == raw
    for payloads in ([new_metadata()], pfx_files()):
        with pytest.raises(errors.KeyProtectorError, match="shielded"):
            prepare(host, *payloads, shielded=True, allow_owner_keys=True)
    assert simulated.calls(HOST, "MSFT_HgsKeyProtector.*") == []


def test_no_protector_is_made_for_a_guardian_that_has_expired(host, simulated):
    simulated.remove_guardian(HOST, FABRIC)
    old = guardian.Guardian.generate(FABRIC, now=lambda: 0)
    simulated.host(HOST).hgs_client.add(old.public())
    with pytest.raises(errors.HostGuardianError, match="expired on 1980-"):
        prepare(host)
    given = key_protector.make_protector(
        guardian.Guardian.generate("Contoso"), [old.public()])
    assert prepare(host, given).protector == given
    simulated.remove_guardian(HOST, FABRIC)
    for name in (FABRIC, OTHER):
        if name == OTHER:
            simulated.remove_guardian(HOST, OTHER)
        simulated.host(HOST).hgs_client.add(
            guardian.Guardian.from_metadata(simulated.metadata(name), name))
