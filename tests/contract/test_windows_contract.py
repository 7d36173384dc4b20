"""What vtpm_compute relies on of Windows: Hyper-V's and the Host Guardian Service client's WMI.

Runs on the simulated host, and with ``--real-hyperv-host`` on a real one: ``README.rst`` beside
this file. A test that fails there names an assumption of vtpm_compute that does not hold.
"""

import hashlib
import importlib
import shutil

import pytest
from cryptography import x509

from tests.contract import windows_host
from tests.contract.windows_host import GENERATION_1
from vtpm_compute import errors, guardian_metadata, key_protector, owner_pfx
from vtpm_scheduling import policy

EMPTY = (0, 0, 0, 4)


def module(name):
    """One of those that can only be imported where Windows is, real or simulated."""
    return importlib.import_module(name)


def is_uint8_array(value):
    return isinstance(value, tuple) and all(
        type(item) is int and 0 <= item < 256 for item in value)


def read(raw):
    return key_protector.parse([bytes(raw)], "Windows")


def thumbprints(raw):
    return [guardian.thumbprint for guardian in read(raw).guardians]


def certificate_thumbprint(guardian):
    return hashlib.sha256(bytes(guardian.EncryptionCertificate)).hexdigest()


@pytest.fixture(autouse=True)
def nothing_stays(host):
    """What a test makes goes with it, whether it fails or not."""
    before = host.leftovers()
    with host.removing():
        yield
    assert host.leftovers() == before


@pytest.fixture(scope="module")
def guardian_name(host):
    """A guardian that lets this host start what it was granted: its fabric's, else one made here.

    A host in local mode unwraps with the private keys in its own store; a guarded host leaves that
    to its fabric.
    """
    _, settings = host.hgs.MSFT_HgsClientConfiguration.Get()
    if host.fabric_guardian:
        return host.fabric_guardian
    if settings.IsHostGuarded:
        pytest.skip("the host is guarded, and --fabric-guardian does not name its guardian")
    return host.make_guardian().Name


@pytest.fixture
def guardian(host, guardian_name):
    (found,) = host.hgs.MSFT_HgsGuardian(Name=guardian_name)
    return found


@pytest.fixture(scope="module")
def protector(host, guardian_name):
    """Bytes of a key protector that lets this host start a virtual machine; its owner is gone."""
    with host.removing():
        (guardian,) = host.hgs.MSFT_HgsGuardian(Name=guardian_name)
        return bytes(host.make_protector(host.make_guardian(), [guardian]).RawData)


@pytest.fixture
def fabric(host):
    if not host.fabric_guardian:
        pytest.skip("no guarded fabric: --fabric-guardian names none")
    return host.fabric_guardian


@pytest.fixture
def machine(host):
    return host.make_machine()


@pytest.fixture
def machine_with_vtpm(machine, protector):
    machine.set_key_protector(protector)
    machine.change_security(TpmEnabled=True, EncryptStateAndVmMigrationTraffic=True)
    return machine


class TestWindowsContract:
    """Everything that vtpm_compute takes for granted."""

    # PyMI and os-win.

    def test_errors_of_windows_are_those_that_os_win_names(self, host):
        exceptions = module("os_win.exceptions")
        assert host.wmi.x_wmi is exceptions.x_wmi
        with pytest.raises(exceptions.x_wmi):
            host.wmi.WMI("//./root/no/such/namespace")
        with pytest.raises(exceptions.x_wmi):
            host.hgs.MSFT_HgsNothing()

    def test_an_unknown_parameter_is_refused(self, host):
        with pytest.raises(host.wmi.x_wmi):
            host.hgs.MSFT_HgsGuardian.Remove(GuardianName=host.new_name())

    def test_an_unknown_property_is_an_attribute_error(self, host):
        _, settings = host.hgs.MSFT_HgsClientConfiguration.Get()
        with pytest.raises(AttributeError):
            settings.Nothing  # noqa: B018

    def test_a_wrong_type_is_refused(self, machine):
        with pytest.raises(TypeError):
            machine.service.SetKeyProtector(SecuritySettingData=machine.text(), KeyProtector=4)
        assert machine.key_protector() == EMPTY

    # The Host Guardian Service client.

    def test_a_version_with_virtual_tpms_has_the_client(self, host):
        version = module("os_win.utilsfactory").get_hostutils().get_windows_version()
        assert tuple(map(int, version.split(".")[:2])) >= (10, 0)
        assert host.hgs.MSFT_HgsClientConfiguration.get_class_name() == (
            "MSFT_HgsClientConfiguration")

    def test_the_configuration_is_the_second_result_of_get(self, host):
        result = host.hgs.MSFT_HgsClientConfiguration.Get()
        assert len(result) == 2
        code, settings = result
        assert code == 0
        assert isinstance(settings.IsHostGuarded, bool)
        assert settings.AttestationStatus is None or isinstance(settings.AttestationStatus, int)

    def test_a_guarded_host_says_so(self, host, fabric):
        _, settings = host.hgs.MSFT_HgsClientConfiguration.Get()
        assert settings.IsHostGuarded is True
        assert settings.AttestationStatus == policy.Attestation.PASSED

    def test_a_host_without_a_fabric_is_not_guarded(self, host):
        if host.fabric_guardian:
            pytest.skip("the host has a fabric")
        _, settings = host.hgs.MSFT_HgsClientConfiguration.Get()
        assert not settings.IsHostGuarded

    # The guardian store.

    def test_a_name_that_no_guardian_has_finds_nothing(self, host):
        assert host.hgs.MSFT_HgsGuardian(Name=host.new_name()) == []

    def test_a_guardian_is_made_with_its_certificates(self, host):
        name = host.new_name()
        try:
            result = host.hgs.MSFT_HgsGuardian.NewByGenerateCertificates(
                Name=name, GenerateCertificates=True)
            assert len(result) == 2
            code, made = result
            assert code == 0
            assert made.Name == name
            assert made.HasPrivateSigningKey is True
            assert is_uint8_array(made.EncryptionCertificate)
        finally:
            host.remove_guardian(name)

    def test_a_guardian_is_found_by_its_name(self, host):
        made = host.make_guardian()
        (found,) = host.hgs.MSFT_HgsGuardian(Name=made.Name)
        assert found.Name == made.Name
        assert found.EncryptionCertificate == made.EncryptionCertificate

    def test_all_guardians_are_listed_by_name(self, host):
        made = host.make_guardian()
        names = [str(found.Name) for found in host.hgs.MSFT_HgsGuardian()]
        assert names.count(made.Name) == 1

    def test_a_certificate_is_der(self, host):
        made = host.make_guardian()
        raw = bytes(made.EncryptionCertificate)
        certificate = x509.load_der_x509_certificate(raw)
        assert certificate.public_key().key_size >= 2048

    def test_a_removed_guardian_is_gone(self, host):
        made = host.make_guardian()
        assert host.hgs.MSFT_HgsGuardian.Remove(Name=made.Name) == (0,)
        assert host.hgs.MSFT_HgsGuardian(Name=made.Name) == []

    def test_the_fabrics_guardian_has_a_certificate(self, host, fabric):
        (found,) = host.hgs.MSFT_HgsGuardian(Name=fabric)
        x509.load_der_x509_certificate(bytes(found.EncryptionCertificate))

    # Key protectors.

    def test_a_protector_has_its_length_before_it(self, host, guardian):
        made = host.make_protector(host.make_guardian(), [guardian])
        assert is_uint8_array(made.RawData)
        raw = bytes(made.RawData)
        assert int.from_bytes(raw[:4], "big") == len(raw)
        assert read(raw).raw == raw

    def test_a_protector_names_the_owner_and_the_guardians(self, host, guardian):
        owner = host.make_guardian()
        parsed = read(host.make_protector(owner, [guardian]).RawData)
        # The owner's wrapping alone is its own parent.
        assert [one.thumbprint for one in parsed.guardians if one.is_owner] == [
            certificate_thumbprint(owner)]
        assert [one.thumbprint for one in parsed.guardians if not one.is_owner] == [
            certificate_thumbprint(guardian)]

    def test_a_protector_can_have_several_guardians(self, host, guardian):
        other = host.make_guardian()
        raw = host.make_protector(host.make_guardian(), [guardian, other]).RawData
        assert set(thumbprints(raw)) >= {certificate_thumbprint(one) for one in (guardian, other)}

    def test_a_guardian_without_private_keys_owns_nothing(self, host, fabric):
        (of_fabric,) = host.hgs.MSFT_HgsGuardian(Name=fabric)
        try:
            result = host.hgs.MSFT_HgsKeyProtector.NewByGuardians(
                Owner=of_fabric, Guardian=[of_fabric], AllowUntrustedRoot=True, AllowExpired=False)
        except host.wmi.x_wmi:
            return
        # vtpm_compute takes a code for a refusal, too.
        assert result[0] != 0

    # The security settings of a virtual machine.

    def test_there_is_one_security_service(self, host):
        assert len(host.vmutils._conn.Msvm_SecurityService()) == 1

    def test_a_machines_settings_are_found_by_its_id(self, host, machine):
        other = host.make_machine()
        (found,) = machine.all_security_settings()
        assert found.InstanceID.upper().startswith("MICROSOFT:" + machine.identifier().upper())
        assert found.InstanceID != other.security_settings().InstanceID

    def test_a_new_machine_has_no_vtpm(self, machine):
        settings = machine.security_settings()
        for name in ("TpmEnabled", "ShieldingRequested", "EncryptStateAndVmMigrationTraffic"):
            assert getattr(settings, name) in (False, None), name

    def test_a_new_machine_has_an_empty_protector(self, machine):
        result = machine.service.GetKeyProtector(SecuritySettingData=machine.text())
        assert result == (EMPTY, 0)
        assert key_protector.is_unset(result[0])

    def test_a_generation_1_machine_gets_no_vtpm(self, host, protector):
        machine = host.make_machine(GENERATION_1)
        service = module("vtpm_compute.security").SecurityService(host.vmutils)
        # Whether it has no security settings, or has some and Windows refuses.
        with pytest.raises(errors.AttachError):
            service.set_key_protector(machine.name, protector)
            service.enable_vtpm(machine.name, shielded=False)
        assert not [found for found in machine.all_security_settings() if found.TpmEnabled]

    def test_no_vtpm_without_a_protector(self, machine):
        with pytest.raises(module("os_win.exceptions").WMIJobFailed,
                           match="without a valid key protector"):
            machine.change_security(TpmEnabled=True)
        assert not machine.security_settings().TpmEnabled

    def test_a_protector_is_set_and_reads_back_the_same(self, machine, protector):
        result = machine.service.SetKeyProtector(
            SecuritySettingData=machine.text(), KeyProtector=list(protector))
        assert len(result) == 2
        job, code = result
        assert code in (0, 4096)
        assert job is None or isinstance(job, str)
        machine.check(code, job)
        assert is_uint8_array(machine.key_protector())
        assert bytes(machine.key_protector()) == protector

    def test_bytes_that_are_no_protector_are_refused(self, machine):
        with pytest.raises((module("os_win.exceptions").WMIJobFailed,
                            module("os_win.exceptions").x_wmi)):
            machine.set_key_protector(b"\0\0\0\x0dnot a one")
        assert machine.key_protector() == EMPTY

    def test_a_vtpm_is_enabled_and_reads_back(self, machine, protector):
        machine.set_key_protector(protector)
        before = machine.security_settings()
        machine.change_security(TpmEnabled=True, EncryptStateAndVmMigrationTraffic=True,
                                ShieldingRequested=False)
        after = machine.security_settings()
        assert (after.TpmEnabled, after.EncryptStateAndVmMigrationTraffic,
                after.ShieldingRequested) == (True, True, False)
        # What was loaded before is stale.
        assert not before.TpmEnabled
        assert bytes(machine.key_protector()) == protector

    def test_shielding_reads_back(self, host, machine, protector):
        host.vmutils.enable_secure_boot(machine.name, msft_ca_required=False)
        machine.set_key_protector(protector)
        machine.change_security(TpmEnabled=True, EncryptStateAndVmMigrationTraffic=True,
                                ShieldingRequested=True)
        assert machine.security_settings().ShieldingRequested is True
        assert bytes(machine.key_protector()) == protector

    def test_one_machines_vtpm_is_not_anothers(self, host, machine_with_vtpm):
        other = host.make_machine()
        assert not other.security_settings().TpmEnabled
        assert other.key_protector() == EMPTY

    # Starting it.

    def test_a_machine_with_a_vtpm_starts(self, machine_with_vtpm):
        machine_with_vtpm.start()
        assert machine_with_vtpm.is_running()

    def test_a_start_replaces_the_protector_and_keeps_its_guardians(
            self, machine_with_vtpm, protector):
        machine_with_vtpm.start()
        rolled = bytes(machine_with_vtpm.key_protector())
        assert rolled != protector
        assert not key_protector.is_unset(rolled)
        assert thumbprints(rolled) == thumbprints(protector)

    def test_a_machine_stops_and_starts_again(self, machine_with_vtpm):
        for _ in range(2):
            machine_with_vtpm.start()
            machine_with_vtpm.stop()
        machine_with_vtpm.start()
        assert machine_with_vtpm.is_running()
        assert machine_with_vtpm.security_settings().TpmEnabled

    def test_a_running_machine_keeps_its_security(self, machine, protector):
        machine.start()
        with pytest.raises(module("os_win.exceptions").WMIJobFailed):
            machine.set_key_protector(protector)
        assert machine.key_protector() == EMPTY

    def test_a_running_machines_vtpm_cannot_be_changed(self, machine_with_vtpm):
        machine_with_vtpm.start()
        with pytest.raises(module("os_win.exceptions").WMIJobFailed):
            machine_with_vtpm.change_security(TpmEnabled=False)
        assert machine_with_vtpm.security_settings().TpmEnabled

    def test_a_protector_without_the_fabrics_guardian_starts_nothing(self, host, machine):
        owner, granted = host.make_guardian(), host.make_guardian()
        raw = host.make_protector(owner, [granted]).RawData
        for gone in (owner, granted):
            host.remove_guardian(gone.Name)
        machine.set_key_protector(raw)
        machine.change_security(TpmEnabled=True)
        with pytest.raises(module("os_win.exceptions").WMIJobFailed) as caught:
            machine.start()
        assert str(caught.value)
        assert not machine.is_running()

    def test_a_machine_with_a_vtpm_can_be_destroyed(self, host, machine_with_vtpm):
        machine_with_vtpm.start()
        machine_with_vtpm.stop()
        host.vmutils.destroy_vm(machine_with_vtpm.name)
        assert not host.vmutils.vm_exists(machine_with_vtpm.name)

    # Importing it, in the order of a cold migration by compute-hyperv.

    def test_a_planned_machine_has_its_tpm_without_what_it_came_from(
            self, machine_with_vtpm, protector):
        machine_with_vtpm.start()
        machine_with_vtpm.stop()
        rolled = machine_with_vtpm.key_protector()
        export = machine_with_vtpm.export_and_destroy()
        machine_with_vtpm.plan(export)
        shutil.rmtree(export)
        machine_with_vtpm.realize()
        assert machine_with_vtpm.security_settings().TpmEnabled
        assert machine_with_vtpm.key_protector() == rolled
        # The protector opens the TPM's state of then, and no other.
        machine_with_vtpm.start()
        assert machine_with_vtpm.is_running()
        assert thumbprints(machine_with_vtpm.key_protector()) == thumbprints(protector)

    # vtpm_compute's own modules.

    def test_the_products_own_reading(self, host):
        client = module("vtpm_compute.guardians").HostGuardianClient()
        configuration = client.read_configuration()
        assert configuration.guarded is bool(host.fabric_guardian)
        assert client.find_guardian(host.new_name()) is None
        _maker(client, "not made").remove_leftovers()

    def test_the_products_own_steps(self, host, guardian_name, machine, tmp_path):
        guardians, security = (module("vtpm_compute." + name)
                               for name in ("guardians", "security"))
        client = guardians.HostGuardianClient()
        granted = client.find_guardian(guardian_name)
        parsed = read(_maker(client, tmp_path).make(granted))
        parsed.require_guardian(granted.thumbprint, "the host")
        made = parsed.raw
        assert host.owners() == []
        service = security.SecurityService(host.vmutils)
        with pytest.raises(errors.AttachError, match="without a valid key protector"):
            service.enable_vtpm(machine.name, shielded=False)
        assert key_protector.is_unset(service.read_key_protector(machine.name))
        service.set_key_protector(machine.name, made)
        service.enable_vtpm(machine.name, shielded=False)
        assert service.read(machine.name) == security.SecuritySettings(
            tpm_enabled=True, shielded=False, encrypted=True)
        assert service.read_key_protector(machine.name) == made
        machine.start()
        assert machine.is_running()

    def test_the_products_own_files(self, host, guardian_name, tmp_path):
        """A given owner's keys and a further guardian, which Windows takes as files."""
        client = module("vtpm_compute.guardians").HostGuardianClient()
        owner = owner_pfx.read(windows_host.pfx_files(), "the test")
        further = guardian_metadata.parse(host.exported_metadata(tmp_path), "Windows")
        before = [one.name for one in client.guardians()]
        parsed = read(_maker(client, tmp_path / "scratch").make(
            client.find_guardian(guardian_name), owner, [further]))
        assert parsed.owner.thumbprint == owner.encryption.thumbprint
        parsed.require_guardian(further.thumbprint, "the host")
        assert [one.name for one in client.guardians()] == before
        assert host.owners() == []
        assert list((tmp_path / "scratch").iterdir()) == []


def _maker(client, folder):
    return module("vtpm_compute.protector_maker").ProtectorMaker(
        client, module("vtpm_compute.private_folders").PrivateFolders(str(folder)))
