"""What is refused before a virtual machine is defined: on a simulated host, without nova."""

import importlib

import pytest

from tests.hyperv import fabric, guardian, key_protector, windows
from vtpm_compute import errors
from vtpm_scheduling import policy

HOST, FABRIC, OTHER = "HV1", "east", "west"
VERSION = 10000
ID = "2f6ac6a8-4e14-4e4c-a73d-069cbf4541e6"


class Keys:
    """A key manager's answer."""

    def __init__(self, *payloads):
        self._payloads = list(payloads)

    def fetch(self, context, keys):
        return self._payloads


@pytest.fixture(scope="module")
def simulated():
    return fabric.Fabric({"fabrics": [FABRIC, OTHER], "hosts": [
        {"name": HOST, "fabric": FABRIC, "guardians": [OTHER]}]})


@pytest.fixture
def client(simulated):
    windows.install(simulated, HOST)
    simulated.clear_faults(HOST)
    simulated.clear_calls(HOST)
    simulated.set_guarded(HOST, True)
    return importlib.import_module("vtpm_compute.guardians").HostGuardianClient()


def vtpm(client, *payloads):
    return importlib.import_module("vtpm_compute.vtpm").Vtpm(Keys(*payloads), client, None, FABRIC)


def prepare(client, *payloads, version=VERSION, **request):
    keys = policy.parse_keys(ID) if payloads else ()
    return vtpm(client, *payloads).prepare(
        None, policy.VtpmRequest(vtpm=True, keys=keys, **request), version)


def protector_for(simulated, name):
    return key_protector.make_protector(
        guardian.Guardian.generate("Contoso"),
        [guardian.Guardian.from_metadata(simulated.metadata(name), name)])


def guardians_of(prepared):
    return [one.thumbprint for one in key_protector.read(prepared.protector)]


@pytest.mark.parametrize("shielded", [False, True])
def test_made_on_the_host(client, simulated, shielded):
    prepared = prepare(client, shielded=shielded)
    assert simulated.fabric_thumbprint(FABRIC) in guardians_of(prepared)
    assert prepared.fabric_thumbprint == simulated.fabric_thumbprint(FABRIC)
    assert prepared.shielded is shielded


def test_given_in_pieces(client, simulated):
    raw = protector_for(simulated, FABRIC)
    assert prepare(client, raw[:1000], raw[1000:]).protector == raw


def test_what_was_verified_is_in_the_log(client, simulated, caplog):
    caplog.set_level("INFO", "vtpm_compute.vtpm")
    raw = protector_for(simulated, FABRIC)
    prepare(client, raw[:1000], raw[1000:])
    (record,) = [one for one in caplog.records if one.name == "vtpm_compute.vtpm"]
    assert record.getMessage().startswith(
        "Key protector given in 2 secrets: %d bytes, guardians: " % len(raw))
    assert "5 of 6 signatures verified; " in record.getMessage()
    assert simulated.fabric_thumbprint(FABRIC)[:16] in record.getMessage()


def test_an_expired_certificate_is_a_warning(client, simulated, caplog):
    long_ago = guardian.Guardian.generate("Contoso", now=lambda: 0)
    fabric_guardian = guardian.Guardian.from_metadata(simulated.metadata(FABRIC), FABRIC)
    raw = key_protector.make_protector(long_ago, [fabric_guardian])
    assert prepare(client, raw).protector == raw
    warned = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"
              and one.name == "vtpm_compute.vtpm"]
    assert len(warned) == 2
    assert all("Key protector given in 1 secret: the " in one and "expired on 1980-" in one
               for one in warned)


def test_given_for_another_fabric(client, simulated):
    with pytest.raises(errors.KeyProtectorError, match="does not name this fabric's guardian"):
        prepare(client, protector_for(simulated, OTHER))


def test_the_flow_of_compute_hyperv_brings_its_own(client):
    assert prepare(client, uses_pdk=True).protector is None


@pytest.mark.parametrize("status", [1, 200, 300, 301, 302, 303])
def test_a_host_that_lost_its_attestation(client, simulated, status):
    simulated.set_attestation(HOST, status)
    with pytest.raises(errors.HostUnfitError, match="hosts are not guarded at present"):
        prepare(client)
    assert simulated.calls(HOST, "*.NewByGuardians") == []


def test_a_host_that_is_too_old(client):
    with pytest.raises(errors.HostUnfitError, match="older than 10.0"):
        prepare(client, version=6003)


def test_a_host_without_its_fabrics_guardian(client, simulated):
    (stored,) = simulated.host(HOST).repository.instances(
        "root/microsoft/windows/hgs", "MSFT_HgsGuardian", Name=FABRIC)
    certificate = stored["EncryptionCertificate"]
    stored["EncryptionCertificate"] = []
    try:
        with pytest.raises(errors.HostUnfitError):
            prepare(client)
        with pytest.raises(errors.HostGuardianError, match="has no certificate"):
            client.find_guardian(FABRIC)
    finally:
        stored["EncryptionCertificate"] = certificate


def test_a_guardian_that_is_replaced_meanwhile(client, monkeypatch):
    answers = [client.find_guardian(FABRIC), client.find_guardian(OTHER)]
    monkeypatch.setattr(client, "find_guardian", lambda name: answers.pop(0))
    with pytest.raises(errors.HostGuardianError, match="changed meanwhile"):
        prepare(client)


def test_a_protector_that_windows_makes_for_others(client, simulated, monkeypatch):
    raw = protector_for(simulated, OTHER)
    monkeypatch.setattr(client, "make_protector", lambda guardians: raw)
    with pytest.raises(errors.KeyProtectorError, match="of the host does not name"):
        prepare(client)


def test_leftovers_that_cannot_be_removed_are_told(client, simulated, caplog):
    name = importlib.import_module("vtpm_compute.guardians").OWNER_PREFIX + "1"
    importlib.import_module("wmi").WMI(
        "//./Root/Microsoft/Windows/Hgs").MSFT_HgsGuardian.NewByGenerateCertificates(
            Name=name, GenerateCertificates=True)
    simulated.add_fault(HOST, "MSFT_HgsGuardian.Remove", return_value=32768)
    vtpm(client).clean_up()
    assert "MSFT_HgsGuardian.Remove returned 32768" in caplog.text
    vtpm(client).clean_up()
    assert [one["name"] for one in simulated.guardians(HOST)] == [FABRIC, OTHER]
