"""This host's Host Guardian Service client and report: os-win on a simulated host, without nova."""

import collections.abc
import importlib

import pytest

from tests.hyperv import fabric, windows
from vtpm_compute import errors, key_protector
from vtpm_scheduling import policy

HOST, OLD_HOST, FABRIC, OTHER = "HV1", "HV-OLD", "east", "west"
VERSION = 10000


@pytest.fixture(scope="module")
def simulated():
    return fabric.Fabric({"fabrics": [FABRIC, OTHER], "hosts": [
        {"name": HOST, "fabric": FABRIC, "guardians": [OTHER]},
        {"name": OLD_HOST, "version": "6.3.9600"}]})


@pytest.fixture
def client(simulated):
    """The client of a guarded host, and that its store holds the two fabrics' guardians again."""
    windows.install(simulated, HOST)
    simulated.clear_faults(HOST)
    simulated.set_guarded(HOST, True)
    yield importlib.import_module("vtpm_compute.guardians").HostGuardianClient()
    assert [one["name"] for one in simulated.guardians(HOST)] == [FABRIC, OTHER]


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


@pytest.mark.parametrize("call", ["NewByGenerateCertificates", "NewByGuardians"])
def test_whatever_fails_no_owner_stays(client, simulated, call):
    granted = [client.find_guardian(FABRIC)]
    simulated.add_fault(HOST, "*." + call, return_value=32768)
    with pytest.raises(errors.HostGuardianError, match="%s returned 32768" % call):
        client.make_protector(granted)
    assert [one["name"] for one in simulated.guardians(HOST)] == [FABRIC, OTHER]


def test_no_owner_stays_when_an_argument_is_wrong(client, simulated):
    unknown = importlib.import_module("vtpm_compute.guardians").Guardian("no handle", "00")
    with pytest.raises(errors.HostGuardianError, match="cannot be made on the host"):
        client.make_protector([unknown])
    assert [one["name"] for one in simulated.guardians(HOST)] == [FABRIC, OTHER]


def test_leftovers_are_only_those_that_were_made_here(client, simulated):
    prefix = importlib.import_module("vtpm_compute.guardians").OWNER_PREFIX
    connection = importlib.import_module("wmi").WMI("//./Root/Microsoft/Windows/Hgs")
    for name in (prefix + "1", "of another program"):
        connection.MSFT_HgsGuardian.NewByGenerateCertificates(Name=name, GenerateCertificates=True)
    client.remove_leftovers()
    names = [one["name"] for one in simulated.guardians(HOST)]
    simulated.remove_guardian(HOST, "of another program")
    assert names == [FABRIC, OTHER, "of another program"]


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
