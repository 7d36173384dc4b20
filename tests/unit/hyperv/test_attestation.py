"""A Host Guardian Service: attestation, health certificates, keys for hosts, renewed guardians."""

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given, settings, strategies

from tests.hyperv import attestation, guarded_fabric, key_protector, native, windows
from tests.hyperv.clock import Clock
from tests.hyperv.fabric import Fabric
from tests.hyperv.fabric_client import FabricClient
from tests.hyperv.fabric_process import Server
from tests.hyperv.guarded_fabric import GuardedFabric
from tests.hyperv.guardian import Guardian
from tests.unit.hyperv.machine import Machine

HGS = "//./Root/Microsoft/Windows/Hgs"
GENERATION_2 = 2
HOUR = 3600


@pytest.fixture
def fabric():
    fabric = Fabric({"fabrics": ["east"], "hosts": [
        {"name": "HV1", "fabric": "east"}, {"name": "LOCAL"}]})
    windows.install(fabric, "HV1")
    return fabric


@pytest.fixture
def configuration(fabric):
    """What MSFT_HgsClientConfiguration.Get says."""
    import wmi
    return lambda: wmi.WMI(HGS).MSFT_HgsClientConfiguration.Get()[1]


@pytest.fixture
def status(configuration):
    def read():
        found = configuration()
        assert found.IsHostGuarded == (found.AttestationStatus == 100)
        return found.AttestationStatus
    return read


@pytest.fixture(scope="module")
def owner():
    return Guardian.generate("tenant")


@pytest.fixture
def machine(fabric, owner, tmp_path):
    """A VM with a vTPM that was never started."""
    from os_win import utilsfactory
    vmutils = utilsfactory.get_vmutils()
    vmutils.create_vm("vm", False, GENERATION_2, str(tmp_path), [])
    machine = Machine(vmutils, "vm")
    machine.set_protector(key_protector.make_protector(owner, [east_of(fabric)]))
    machine.enable_tpm()
    return machine


def east_of(fabric):
    return Guardian.from_metadata(fabric.metadata("east"), "east")


def refusal(machine):
    from os_win import exceptions
    with pytest.raises(exceptions.WMIJobFailed) as caught:
        machine.start()
    assert machine.vmutils.get_vm_state(machine.name) == 3
    return str(caught.value)


def test_a_host_attests_when_it_starts(fabric, status):
    assert fabric.hosts()[0]["attestation_status"] == 100
    assert status() == 100


def test_a_host_in_local_mode_has_no_attestation(fabric):
    import wmi
    _, found = wmi.WMI("//LOCAL/Root/Microsoft/Windows/Hgs").MSFT_HgsClientConfiguration.Get()
    assert (found.Mode, found.AttestationStatus, found.AttestationOperationMode) == (1, 0, 0)
    assert not found.IsHostGuarded
    with pytest.raises(ValueError):
        fabric.set_attestation("LOCAL", 100)


@pytest.mark.parametrize("hours", [7.9, 8, 8.1, 20, 24, 1000])
def test_a_host_attests_every_eight_hours(fabric, hours):
    fabric.advance_clock(hours * HOUR)
    # Not asked by anybody: asking attests too.
    assert fabric.hosts()[0]["attestation_status"] == 100


def test_a_host_that_is_not_authorised_any_more_is_guarded_until_it_attests(
        fabric, status, machine):
    fabric.deauthorise_host("HV1")
    fabric.advance_clock(7.9 * HOUR)
    assert status() == 100
    machine.start()
    machine.stop()
    fabric.advance_clock(0.1 * HOUR)
    assert status() == 301
    assert "0x80070057" in refusal(machine)
    fabric.authorise_host("HV1")
    machine.start()
    assert status() == 100


def test_attesting_anew_shows_it_at_once(fabric, status):
    fabric.deauthorise_host("HV1")
    fabric.attest("HV1")
    assert status() == 301


def test_a_start_attests_where_there_is_no_certificate(fabric, machine):
    fabric.set_hgs_reachable("east", False)
    fabric.advance_clock(8 * HOUR)
    assert fabric.hosts()[0]["attestation_status"] == 300
    assert "could not be unwrapped" in refusal(machine)
    fabric.set_hgs_reachable("east", True)
    assert fabric.hosts()[0]["attestation_status"] == 300
    machine.start()
    assert fabric.hosts()[0]["attestation_status"] == 100


def test_reading_the_configuration_attests_where_there_is_no_certificate(fabric, status):
    fabric.set_hgs_reachable("east", False)
    assert status() == 100
    fabric.advance_clock(8 * HOUR)
    assert status() == 300
    fabric.set_hgs_reachable("east", True)
    assert status() == 100


def test_a_service_that_is_away_unwraps_nothing(fabric, machine):
    fabric.set_hgs_reachable("east", False)
    assert "could not be unwrapped" in refusal(machine)
    assert fabric.hosts()[0]["attestation_status"] == 100
    fabric.set_hgs_reachable("east", True)
    machine.start()


def test_a_certificate_that_has_expired(fabric, status, machine):
    fabric.set_hgs_time("east", 9 * HOUR)
    fabric.attest("HV1")
    assert status() == 200
    assert "could not be unwrapped" in refusal(machine)


@pytest.mark.parametrize("wrong, expected", [
    ({"secure_boot": False}, (303, 1)), ({"debug_mode": True}, (303, 2)),
    ({"code_integrity": False}, (303, 4)),
    ({"debug_mode": True, "code_integrity": False}, (303, 6)), ({"tpm": False}, (302, 0))])
def test_tpm_attestation_looks_at_the_host(fabric, configuration, wrong, expected):
    fabric.set_host_health("HV1", **wrong)
    fabric.attest("HV1")
    found = configuration()
    assert (found.AttestationStatus, found.AttestationSubstatus) == expected
    assert not found.IsHostGuarded
    assert found.AttestationOperationMode == 1
    fabric.set_attestation_mode("east", "host_key")
    found = configuration()
    assert (found.AttestationStatus, found.AttestationSubstatus) == (100, 0)


@pytest.mark.parametrize("mode, number", [("tpm", 1), ("ad", 2), ("host_key", 3)])
def test_each_mode_asks_whether_the_host_is_authorised(fabric, configuration, mode, number):
    fabric.set_attestation_mode("east", mode)
    assert configuration().AttestationOperationMode == number
    fabric.deauthorise_host("HV1")
    fabric.attest("HV1")
    assert configuration().AttestationStatus == 301


@pytest.mark.parametrize("number", [1, 200, 300, 301, 302, 303])
def test_a_status_that_a_test_sets_stays(fabric, configuration, machine, number):
    fabric.set_attestation("HV1", number, 4)
    for _ in range(2):
        found = configuration()
        assert (found.AttestationStatus, found.AttestationSubstatus) == (number, 4)
        fabric.advance_clock(8 * HOUR)
    assert "could not be unwrapped" in refusal(machine)
    fabric.set_attestation("HV1", 100)
    assert configuration().IsHostGuarded
    machine.start()


def test_statuses_that_do_not_exist_are_refused(fabric):
    with pytest.raises(ValueError):
        fabric.set_attestation("HV1", 77)


def test_old_certificates_of_the_fabric_unwrap_until_they_are_dropped(fabric, machine, owner):
    before = fabric.fabric_thumbprint("east")
    machine.start()
    machine.stop()
    fabric.renew_fabric_guardian("east")
    assert fabric.fabric_thumbprint("east") not in (before, None)
    assert east_of(fabric).thumbprint == fabric.fabric_thumbprint("east")
    # The store of the host is not what the fabric has.
    assert before in [guardian["thumbprint"] for guardian in fabric.guardians("HV1")]
    machine.start()
    machine.stop()
    fabric.drop_old_fabric_guardians("east")
    assert "0x80070057" in refusal(machine)


def test_new_certificates_of_the_fabric_unwrap(fabric, machine, owner):
    fabric.renew_fabric_guardian("east")
    fabric.drop_old_fabric_guardians("east")
    machine.set_protector(key_protector.make_protector(owner, [east_of(fabric)]))
    machine.start()


def test_behind_a_socket(fabric, tmp_path):
    server = Server(fabric, tmp_path / "socket")
    thread = native.module("threading").Thread(target=server.run, daemon=True)
    thread.start()
    try:
        client = FabricClient(tmp_path / "socket")
        client.set_host_health("HV1", code_integrity=False)
        client.attest("HV1")
        assert client.hosts()[0]["attestation_status"] == 303
        client.set_attestation_mode("east", "ad")
        client.deauthorise_host("HV1")
        client.attest("HV1")
        assert client.hosts()[0]["attestation_status"] == 301
        client.authorise_host("HV1")
        client.set_hgs_time("east", 9 * HOUR)
        client.attest("HV1")
        assert client.hosts()[0]["attestation_status"] == 200
        client.set_hgs_time("east", 0)
        client.set_hgs_reachable("east", False)
        client.attest("HV1")
        assert client.hosts()[0]["attestation_status"] == 300
        before = client.fabric_thumbprint("east")
        client.renew_fabric_guardian("east")
        client.drop_old_fabric_guardians("east")
        assert client.fabric_thumbprint("east") != before
    finally:
        server.stop()
        thread.join()


# The service itself, as [MS-KPS] has it.


@pytest.fixture(scope="module")
def service():
    service = GuardedFabric("east", Clock())
    service.attestation.authorised.add("hv1")
    return service


@pytest.fixture
def host(service):
    return attestation.HostAttestation("HV1", service, service._clock.now)


@pytest.fixture(scope="module")
def protector(service, owner):
    return key_protector.make_protector(owner, [service.guardian])


def test_roll_transport_key(service, host, protector, owner):
    response = service.roll_transport_key(protector, host.require_certificate())
    ingress, egress = response.open(host.key)
    assert key_protector.unwrap(protector, [owner.encryption_key]) == ingress
    assert key_protector.unwrap(response.egress_protector, [owner.encryption_key]) == egress
    assert ingress != egress


def test_the_keys_are_for_the_host_of_the_certificate_alone(service, host, protector):
    other = attestation.HostAttestation("HV1", service, service._clock.now)
    response = service.roll_transport_key(protector, host.require_certificate())
    with pytest.raises(InvalidTag):
        response.open(other.key)


@pytest.mark.parametrize("spoil", [
    lambda certificate: b"", lambda certificate: certificate[:-1] + bytes([certificate[-1] ^ 1]),
    lambda certificate: None])
def test_health_certificates_that_are_none(service, host, protector, spoil):
    with pytest.raises(guarded_fabric.HealthCertificateException):
        service.roll_transport_key(protector, spoil(host.require_certificate()))


def test_health_certificates_of_another_service(service, protector):
    other = GuardedFabric("east", service._clock)
    other.attestation.authorised.add("hv1")
    host = attestation.HostAttestation("HV1", other, service._clock.now)
    with pytest.raises(guarded_fabric.HealthCertificateException):
        service.roll_transport_key(protector, host.require_certificate())


def test_a_health_certificate_ends_after_eight_hours(service, host, protector):
    certificate = host.require_certificate()
    service._clock.advance(8 * HOUR)
    with pytest.raises(guarded_fabric.HealthCertificateException):
        service.roll_transport_key(protector, certificate)


def test_protectors_that_are_refused(service, host, protector, owner):
    certificate = host.require_certificate()
    with pytest.raises(guarded_fabric.InvalidProtectorException):
        service.roll_transport_key(protector[:-1], certificate)
    with pytest.raises(guarded_fabric.InvalidWrappingException):
        service.roll_transport_key(key_protector.make_protector(owner, []), certificate)


EVENTS = strategies.lists(strategies.sampled_from(
    ["advance", "attest", "authorise", "deauthorise", "reach", "lose", "use"]), max_size=20)


class Expected:
    """The rules as simple facts; hours since the host started."""

    def __init__(self):
        self.hour, self.next, self.status = 0, 0, None
        self.authorised = self.reachable = True
        self.certificate_until = 0
        self.attempt(0)

    def attempt(self, hour):
        self.next = hour + 8
        self.status = 300 if not self.reachable else 100 if self.authorised else 301
        if self.status == 100:
            self.certificate_until = hour + 8
        elif self.status == 301:
            self.certificate_until = 0

    def use(self):
        if self.hour >= self.certificate_until:
            self.attempt(self.hour)

    def advance(self, hours):
        self.hour += hours
        while self.hour >= self.next:
            self.attempt(self.next)


@settings(max_examples=400, deadline=None)
@given(EVENTS)
def test_a_host_is_guarded_just_when_its_last_attestation_passed(events):
    """Any sequence of events, against the rules."""
    service = EVENT_SERVICE
    service.reachable, service.attestation.authorised = True, {"hv1"}
    host = attestation.HostAttestation("HV1", service, service._clock.now)
    host.attest()
    expected = Expected()
    for event in events:
        if event == "advance":
            service._clock.advance(5 * HOUR)
            host.catch_up()
            expected.advance(5)
        elif event == "attest":
            host.attest()
            expected.attempt(expected.hour)
        elif event == "use":
            host.refresh()
            expected.use()
        elif event in ("authorise", "deauthorise"):
            expected.authorised = event == "authorise"
            service.attestation.authorised = {"hv1"} if expected.authorised else set()
        else:
            expected.reachable = service.reachable = event == "reach"
        assert host.status == expected.status
        if expected.status == 100:
            service.attestation.check(host.certificate)


EVENT_SERVICE = GuardedFabric("events", Clock())
