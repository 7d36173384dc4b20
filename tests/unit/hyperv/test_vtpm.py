"""Virtual TPMs on the simulated host, called as a driver calls: through PyMI and os-win."""
import pytest

from tests.hyperv import key_protector, windows
from tests.hyperv.fabric import Fabric
from tests.hyperv.guardian import Guardian
from tests.unit.hyperv.machine import Machine

HGS = "//./Root/Microsoft/Windows/Hgs"
GENERATION_2 = 2


@pytest.fixture(scope="module")
def fabric():
    return Fabric({"fabrics": ["east", "west"], "hosts": [
        {"name": "HV1", "fabric": "east", "guardians": ["west"]}, {"name": "HV2", "fabric": "west"},
        {"name": "HV3"}]})


@pytest.fixture
def wmi(fabric):
    windows.install(fabric, "HV1")
    fabric.set_guarded("HV1", True)
    fabric.clear_faults("HV1")
    import wmi
    return wmi


@pytest.fixture
def machine(wmi, tmp_path):
    from os_win import utilsfactory
    vmutils = utilsfactory.get_vmutils()
    vmutils.create_vm(tmp_path.name, False, GENERATION_2, str(tmp_path), ["notes"])
    return Machine(vmutils, tmp_path.name)


@pytest.fixture(scope="module")
def owner():
    return Guardian.generate("tenant")


@pytest.fixture(scope="module")
def east(fabric):
    return Guardian.from_metadata(fabric.metadata("east"), "east")


def failure(function, *arguments):
    from os_win import exceptions
    with pytest.raises(exceptions.WMIJobFailed) as caught:
        function(*arguments)
    return str(caught.value)


def test_an_unset_protector(machine):
    assert machine.protector() == b"\0\0\0\4"


def test_no_tpm_without_a_protector(machine):
    assert "without a valid key protector" in failure(machine.enable_tpm)


def test_each_start_rolls_the_transport_key_and_keeps_the_tpm(machine, fabric, owner, east):
    given = key_protector.make_protector(owner, [east])
    machine.set_protector(given)
    machine.enable_tpm()
    machine.start()
    fabric.write_tpm("HV1", machine.name, "bitlocker", b"key")
    rolled = machine.protector()
    assert rolled != given
    assert ([w.thumbprint for w in key_protector.read(rolled)]
            == [w.thumbprint for w in key_protector.read(given)])
    machine.stop()
    machine.start()
    assert fabric.read_tpm("HV1", machine.name, "bitlocker") == b"key"
    machine.stop()

    machine.set_protector(given)
    assert "0xC000A002" in failure(machine.start)
    machine.vmutils._sec_svc.RestoreLastKnownGoodKeyProtector(
        SecuritySettingData=machine.settings().GetText_(1))
    machine.start()
    assert fabric.read_tpm("HV1", machine.name, "bitlocker") == b"key"
    described = fabric.virtual_machine("HV1", machine.name)
    assert described["security"]["TpmEnabled"] and described["tpm_initialized"]
    assert [g["name"] for g in described["guardians"]] == [None, "east"]


def test_another_fabric_cannot_unwrap(machine, fabric, owner):
    west = Guardian.from_metadata(fabric.metadata("west"), "west")
    machine.set_protector(key_protector.make_protector(owner, [west]))
    machine.enable_tpm()
    assert "0x80070057" in failure(machine.start)
    assert fabric.virtual_machine("HV1", machine.name)["state"] == 3


def test_a_host_that_is_not_attested_cannot_unwrap(machine, wmi, fabric, owner, east):
    machine.set_protector(key_protector.make_protector(owner, [east]))
    machine.enable_tpm()
    fabric.set_guarded("HV1", False)
    result, configuration = wmi.WMI(HGS).MSFT_HgsClientConfiguration.Get()
    assert not configuration.IsHostGuarded and configuration.AttestationStatus == 303
    assert "0x80070057" in failure(machine.start)


def test_security_changes_need_the_machine_off(machine, owner, east):
    given = key_protector.make_protector(owner, [east])
    machine.start()
    assert machine.set_protector(given)[1] == 32775


@pytest.mark.parametrize("spoil", [
    lambda raw: raw[4:], lambda raw: raw[:-1], lambda raw: raw.replace(b"<Id>2", b"<Id>3"),
    lambda raw: b""])
def test_no_protector(machine, owner, east, spoil):
    assert machine.set_protector(spoil(key_protector.make_protector(owner, [east])))[1] == 32773


def test_the_host_makes_a_protector(machine, wmi, fabric):
    hgs = wmi.WMI(HGS)
    _, made = hgs.MSFT_HgsGuardian.NewByGenerateCertificates(
        Name=machine.name, GenerateCertificates=True)
    assert made.HasPrivateSigningKey
    known = hgs.MSFT_HgsGuardian(Name="east")[0]
    assert not known.HasPrivateSigningKey
    _, protector = hgs.MSFT_HgsKeyProtector.NewByGuardians(
        Owner=made, Guardian=[known], AllowUntrustedRoot=True)
    assert [g.Name for g in protector.Guardians] == ["east"]
    hgs.MSFT_HgsGuardian.Remove(Name=machine.name)
    assert machine.name not in [g["name"] for g in fabric.guardians("HV1")]
    machine.set_protector(protector.RawData)
    machine.enable_tpm()
    machine.start()


def test_metadata_can_be_imported(wmi, fabric, tmp_path):
    path = tmp_path / "metadata.xml"
    path.write_bytes(Guardian.generate("elsewhere").metadata())
    hgs = wmi.WMI(HGS)
    _, guardian = hgs.MSFT_HgsGuardian.Import(
        Path=str(path), Name=tmp_path.name, AllowUntrustedRoot=True)
    assert guardian.Name == tmp_path.name
    path.write_bytes(path.read_bytes().replace(b"<SignatureValue>", b"<SignatureValue>AAAA", 1))
    with pytest.raises(wmi.x_wmi):
        hgs.MSFT_HgsGuardian.Import(Path=str(path), Name="other", AllowUntrustedRoot=True)


def test_the_fabric_cannot_be_the_owner(wmi):
    hgs = wmi.WMI(HGS)
    fabric_guardian = hgs.MSFT_HgsGuardian(Name="east")[0]
    with pytest.raises(wmi.x_wmi):
        hgs.MSFT_HgsKeyProtector.NewByGuardians(
            Owner=fabric_guardian, Guardian=[fabric_guardian], AllowUntrustedRoot=True)


def test_faults(machine, fabric, owner, east):
    fabric.add_fault("HV1", "*.SetKeyProtector", nth=2, return_value=32768)
    fabric.add_fault("HV1", "*.ModifySecuritySettings", job_error=("It broke.", 32768))
    given = key_protector.make_protector(owner, [east])
    assert machine.set_protector(given)[1] == 4096
    assert machine.set_protector(given)[1] == 32768
    assert "It broke." in failure(machine.enable_tpm)
    machine.enable_tpm()


def test_a_definition_carries_the_tpm(machine, fabric, owner, east, tmp_path):
    import shutil

    from os_win import utilsfactory
    machine.set_protector(key_protector.make_protector(owner, [east]))
    machine.enable_tpm()
    machine.start()
    fabric.write_tpm("HV1", machine.name, "bitlocker", b"key")
    machine.stop()
    export = tmp_path / "export"
    shutil.copytree(tmp_path / "Virtual Machines", export)
    machine.vmutils.destroy_vm(machine.name)
    assert not list((tmp_path / "Virtual Machines").glob("*"))
    migration = utilsfactory.get_migrationutils()
    migration.import_vm_definition(str(next(export.glob("*.vmcx"))), str(export))
    migration.realize_vm(machine.name)
    machine.start()
    assert fabric.read_tpm("HV1", machine.name, "bitlocker") == b"key"
