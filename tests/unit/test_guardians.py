"""This host's Host Guardian Service client and report: os-win on a simulated host, without nova."""

import collections.abc
import importlib

import pytest

from tests.hyperv import certificates, fabric, windows
from vtpm_compute import errors, key_protector
from vtpm_scheduling import policy

HOST, OLD_HOST, FABRIC, OTHER = "HV1", "HV-OLD", "east", "west"
VERSION = 10000


@pytest.fixture(scope="module")
def simulated():
    # Making RSA keys takes a while: one fabric serves all tests, a host of its own each.
    return fabric.Fabric({"fabrics": [FABRIC, OTHER], "hosts": [
        {"name": OLD_HOST, "version": "6.3.9600"}]})


@pytest.fixture
def client(simulated):
    """The client of a guarded host, which holds the two fabrics' guardians alone again."""
    simulated.add_host(HOST, fabric=FABRIC, guardians=[OTHER])
    windows.install(simulated, HOST)
    windows.libraries.misuses()  # of the test before
    yield importlib.import_module("vtpm_compute.guardians").HostGuardianClient()
    assert_nothing_left(simulated)
    assert windows.libraries.open_handles() == {}
    assert windows.libraries.misuses() == []


def assert_nothing_left(simulated):
    """No owner, none of its certificates and none of its private keys are on the host."""
    assert [one["name"] for one in simulated.guardians(HOST)] == [FABRIC, OTHER]
    assert simulated.certificates(HOST) == []
    assert simulated.private_keys(HOST) == []


def report(client, guardian=FABRIC):
    return importlib.import_module("vtpm_compute.host_report").read(client, guardian, VERSION)


def test_a_guardian_is_the_one_of_that_name(client, simulated):
    for name in (FABRIC, OTHER):
        assert client.find_guardian(name).thumbprint == simulated.fabric_thumbprint(name)
    assert client.find_guardian("north") is None


def test_a_protector_is_for_the_given_guardians(client, simulated):
    granted = [client.find_guardian(name) for name in (FABRIC, OTHER)]
    parsed = key_protector.parse([client.make_protector(granted)], "the host")
    assert [one.thumbprint for one in parsed.guardians if not one.is_owner] == [
        one.thumbprint for one in granted]
    assert sum(one.is_owner for one in parsed.guardians) == 1


def test_an_owner_goes_with_its_private_keys(client, simulated):
    client.make_protector([client.find_guardian(FABRIC)])
    assert_nothing_left(simulated)


class WhileIterated(collections.abc.Sequence):
    """A list; something else happens while it is read."""

    def __init__(self, items, happens):
        self._items, self._happens = items, happens

    def __getitem__(self, index):
        if index == 0:
            self._happens()
        return self._items[index]

    def __len__(self):
        return len(self._items)


def test_two_protectors_at_a_time(client):
    granted = [client.find_guardian(FABRIC)]
    made = []
    made.append(client.make_protector(
        WhileIterated(granted, lambda: made.append(client.make_protector(granted)))))
    owners = {one.thumbprint for raw in made
              for one in key_protector.parse([raw], "the host").guardians if one.is_owner}
    assert len(owners) == 2


def calls_of(simulated, function):
    """Every call that Windows gets of a function: [Class.Method or library.Function]."""
    simulated.clear_calls(HOST)
    function()
    return ["%s.%s" % call[:2] for call in simulated.calls(HOST)]


@pytest.mark.parametrize("provider", [certificates.CNG, certificates.RSA_AES])
@pytest.mark.parametrize("point", ["before", "after"])
def test_whatever_fails_no_owner_stays(client, simulated, point, provider, monkeypatch):
    """After the next clean-up; where the clean-up itself did not fail, at once."""
    monkeypatch.setattr(
        simulated.host(HOST).hgs_client.certificates, "key_provider", provider)
    granted = [client.find_guardian(FABRIC)]
    calls = calls_of(simulated, lambda: client.make_protector(granted))
    assert_nothing_left(simulated)
    assert {"MSFT_HgsGuardian.NewByGenerateCertificates", "MSFT_HgsKeyProtector.NewByGuardians",
            "MSFT_HgsGuardian.Remove", "crypt32.CertDeleteCertificateFromStore",
            "ncrypt.NCryptDeleteKey" if provider == certificates.CNG
            else "advapi32.CryptAcquireContextW"} <= set(calls)
    for number, call in enumerate(calls):
        simulated.add_fault(HOST, call, nth=calls[:number + 1].count(call), return_value=32768,
                            point=point)
        with pytest.raises(errors.HostGuardianError, match=call.split(".")[1]) as caught:
            client.make_protector(granted)
        if "NewBy" in call:
            assert_nothing_left(simulated)
        elif "Remove" not in call:
            assert "failed with 0x00008000" in str(caught.value)
            # What is left is what the next start finds the rest by.
            assert point == "after" or simulated.certificates(HOST)
        client.remove_leftovers()
        assert_nothing_left(simulated)


def test_a_killed_process_leaves_what_the_next_one_finds(client, simulated, monkeypatch):
    """Killed at each call of a clean-up, in turn, and again at each of the next one's."""
    class Killed(BaseException):
        pass

    granted = [client.find_guardian(FABRIC)]
    access = simulated.host(HOST).certificate_access
    call, countdown = type(access).call, []

    def dying(self, *arguments):
        if countdown and not countdown[0]:
            raise Killed
        countdown[:] = [number - 1 for number in countdown]
        return call(self, *arguments)
    monkeypatch.setattr(type(access), "call", dying)
    tried = 0
    for function in (lambda: client.make_protector(granted), client.remove_leftovers):
        for number in range(100):
            if function == client.remove_leftovers:
                make_owner("-of-a-killed-one")
            countdown[:] = [number]
            try:
                function()
            except Killed:
                tried += 1
            else:
                break
            finally:
                countdown.clear()
            client.remove_leftovers()
            assert_nothing_left(simulated)
    assert tried > 20


def make_owner(name, prefix=None):
    """An owner as an earlier process left it: its guardian's name."""
    if prefix is None:
        prefix = importlib.import_module("vtpm_compute.guardians").OWNER_PREFIX
    importlib.import_module("wmi").WMI(
        "//./Root/Microsoft/Windows/Hgs").MSFT_HgsGuardian.NewByGenerateCertificates(
            Name=prefix + name, GenerateCertificates=True)
    return prefix + name


def test_no_owner_stays_when_an_argument_is_wrong(client, simulated):
    unknown = importlib.import_module("vtpm_compute.guardians").Guardian("no handle", "00")
    with pytest.raises(errors.HostGuardianError, match="cannot be made on the host"):
        client.make_protector([unknown])
    assert_nothing_left(simulated)


def test_leftovers_are_only_those_that_were_made_here(client, simulated, caplog):
    left = make_owner("1")
    without_guardian = make_owner("2")
    simulated.remove_guardian(HOST, without_guardian)
    others = [make_owner(name, prefix="") for name in (
        "of another program", "nova-vtpm", "my-nova-vtpm-owner-3")]
    client.remove_leftovers()
    names = [one["name"] for one in simulated.guardians(HOST)]
    kept = simulated.certificates(HOST)
    for other in others:
        simulated.remove_guardian(HOST, other)
    for one in kept:
        simulated.remove_certificate(HOST, one["thumbprint"])
    assert names == [FABRIC, OTHER, *others]
    assert [(one["guardian"], one["has_private_key"]) for one in kept] == [
        (other, True) for other in others for _ in range(2)]
    assert "%s, %s" % (left, without_guardian) in caplog.text


def test_certificates_of_an_owner_are_known_without_their_subject(client, simulated, monkeypatch):
    """By the thumbprints of its guardian, whatever Windows writes into the subject."""
    make = certificates.make_certificate
    monkeypatch.setattr(certificates, "make_certificate", lambda name, *arguments: make(
        "A certificate", *arguments))
    make_owner("1")
    client.remove_leftovers()
    assert_nothing_left(simulated)
    client.make_protector([client.find_guardian(FABRIC)])


def test_a_host_that_never_made_a_guardian_has_nothing_to_remove(caplog):
    fresh = fabric.Fabric({"hosts": [{"name": HOST}]})
    windows.install(fresh, HOST)
    importlib.import_module("vtpm_compute.guardians").HostGuardianClient().remove_leftovers()
    assert not fresh.host(HOST).hgs_client.certificates.exists(certificates.SHIELDED)
    assert caplog.text == ""


def test_a_key_that_is_not_found_when_it_was_just_made(client, simulated):
    """Windows also says so of a key that may not be opened: no server is built on that."""
    simulated.add_fault(
        HOST, "crypt32.CryptAcquireCertificatePrivateKey", return_value=0x80090016)
    with pytest.raises(errors.HostGuardianError, match="does not find the private key"):
        client.make_protector([client.find_guardian(FABRIC)])
    assert len(simulated.private_keys(HOST)) == 1
    client.remove_leftovers()


def test_a_key_that_cannot_be_deleted_keeps_its_guardian(client, simulated):
    simulated.add_fault(HOST, "ncrypt.NCryptDeleteKey", return_value=0x80090010, times=2)
    message = "may stay on the host: NCryptDeleteKey failed with 0x80090010"
    with pytest.raises(errors.HostGuardianError, match=message) as caught:
        client.make_protector([client.find_guardian(FABRIC)])
    assert str(caught.value).count("may stay on the host") == 2
    assert len(simulated.private_keys(HOST)) == 2
    assert len(simulated.guardians(HOST)) == 3
    client.remove_leftovers()


def test_the_report_follows_the_attestation(client, simulated):
    for status, guarded in ((policy.Attestation.PASSED, True), (301, False), (200, False),
                            (policy.Attestation.PASSED, True)):
        simulated.set_attestation(HOST, status)
        read = report(client)
        assert (read.guarded, read.attestation_status) == (guarded, status)
        assert read.fabric_thumbprint == simulated.fabric_thumbprint(FABRIC)


@pytest.mark.parametrize("guardian", [None, "north"])
def test_the_report_of_a_host_without_its_fabrics_guardian(client, guardian, caplog):
    assert report(client, guardian).fabric_thumbprint is None
    assert "cannot run vTPMs" in caplog.text


def test_what_windows_does_not_tell_is_not_guarded(client, simulated, caplog):
    simulated.add_fault(HOST, "MSFT_HgsClientConfiguration.Get", return_value=1)
    read = report(client)
    assert (read.guarded, read.fabric_thumbprint) == (False, None)
    assert "MSFT_HgsClientConfiguration.Get returned 1" in caplog.text


def test_what_wmi_refuses_is_our_error(simulated):
    windows.install(simulated, OLD_HOST)
    client = importlib.import_module("vtpm_compute.guardians").HostGuardianClient()
    for call in (client.read_configuration, lambda: client.find_guardian(FABRIC),
                 client.remove_leftovers, lambda: client.make_protector([])):
        with pytest.raises(errors.HostGuardianError, match="x_wmi|namespace|Namespace"):
            call()
    assert not report(client).guarded
