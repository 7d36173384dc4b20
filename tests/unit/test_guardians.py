"""This host's Host Guardian Service client and report: os-win on a simulated host, without nova."""

import pytest

from tests.hyperv import windows
from tests.unit.guarded_host import FABRIC, HOST, OLD_HOST, OTHER, module
from vtpm_compute import errors
from vtpm_scheduling import policy

VERSION = 10000


def report(host, name=FABRIC):
    return module("host_report").read(host.client, host.finder(name), VERSION)


def test_a_guardian_is_the_one_of_that_name(host):
    for name in (FABRIC, OTHER):
        found = host.client.find_guardian(name)
        assert (found.name, found.thumbprint) == (name, host.simulated.fabric_thumbprint(name))
    assert host.client.find_guardian("north") is None


def test_all_guardians(host):
    assert [(one.name, one.thumbprint, one.has_private_key)
            for one in host.client.guardians()] == [
        (name, host.simulated.fabric_thumbprint(name), False) for name in (FABRIC, OTHER)]


def test_the_key_protection_server(host):
    assert host.client.read_configuration().key_protection_url == (
        "http://hgs.east.example/KeyProtection")


def test_the_report_follows_the_attestation(host):
    for status, guarded in ((policy.Attestation.PASSED, True), (301, False), (200, False),
                            (policy.Attestation.PASSED, True)):
        host.simulated.set_attestation(HOST, status)
        read = report(host)
        assert (read.guarded, read.attestation_status) == (guarded, status)
        assert read.fabric_thumbprint == host.simulated.fabric_thumbprint(FABRIC)


@pytest.mark.parametrize(("name", "reason"), [
    (None, "neither fabric_guardian nor fabric_thumbprint"),
    ("north", "no guardian named north")])
def test_the_report_of_a_host_without_its_fabrics_guardian(host, name, reason, caplog):
    read = report(host, name)
    assert (read.guarded, read.fabric_thumbprint) == (True, None)
    assert "This host cannot run vTPMs: " in caplog.text
    assert reason in caplog.text


def test_what_windows_does_not_tell_is_not_guarded(host, caplog):
    host.simulated.add_fault(HOST, "MSFT_HgsClientConfiguration.Get", return_value=1)
    read = report(host)
    assert (read.guarded, read.fabric_thumbprint) == (False, None)
    assert "MSFT_HgsClientConfiguration.Get returned 1" in caplog.text


def test_what_wmi_refuses_is_our_error(host):
    windows.install(host.simulated, OLD_HOST)
    client = module("guardians").HostGuardianClient()
    for call in (client.read_configuration, client.guardians,
                 lambda: client.find_guardian(FABRIC), lambda: client.generate("x"),
                 lambda: client.remove("x"), lambda: client.import_metadata("x", "x"),
                 lambda: client.accept("x", "x", "x", "x"),
                 lambda: client.new_protector(host.guardian, [])):
        with pytest.raises(errors.HostGuardianError, match="x_wmi|namespace|Namespace"):
            call()
    assert not module("host_report").read(client, host.finder(), VERSION).guarded
    windows.install(host.simulated, HOST)
