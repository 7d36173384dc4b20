"""What a start needs of a VM's files, and what it leaves where it fails."""
import pathlib

import pytest

from tests.hyperv import key_protector, windows
from tests.hyperv.fabric import Fabric
from tests.hyperv.guardian import Guardian
from tests.hyperv.windows_stand_ins import VhdUtils
from tests.unit.hyperv.machine import Machine, files, make

SECRET = b"BitLocker's key"
OFF, SAVED, PAUSED, RESET = 3, 6, 9, 11
FAILED = 32768


@pytest.fixture(scope="module")
def fabric():
    return Fabric({"fabrics": ["east", "west"], "hosts": [{"name": "HV1", "fabric": "east"}]})


@pytest.fixture
def vmutils(fabric):
    windows.install(fabric, "HV1")
    from os_win import utilsfactory
    return utilsfactory.get_vmutils()


def protector_for(fabric, name):
    return key_protector.make_protector(
        Guardian.generate("tenant"), [Guardian.from_metadata(fabric.metadata(name), name)])


@pytest.fixture
def machine(vmutils, fabric, tmp_path):
    """A VM with a TPM that holds a secret; it is off."""
    made = make(vmutils, fabric, tmp_path / tmp_path.name, protector_for(fabric, "east"))
    made.stop()
    return made


@pytest.fixture
def fresh(vmutils, fabric, tmp_path):
    """A VM with a TPM that was never started."""
    name = tmp_path.name + "-fresh"
    vmutils.create_vm(name, False, 2, str(tmp_path / name), [])
    made = Machine(vmutils, name)
    made.set_protector(protector_for(fabric, "east"))
    made.enable_tpm()
    return made


def guest_state(fabric, machine):
    return pathlib.Path(fabric.virtual_machine("HV1", machine.name)["guest_state_file"])


def refused(machine, words):
    from os_win import exceptions
    with pytest.raises(exceptions.WMIJobFailed, match=words):
        machine.start()


def holds_secret(fabric, machine):
    machine.start()
    value = fabric.read_tpm("HV1", machine.name, "bitlocker")
    machine.stop()
    return value == SECRET


@pytest.mark.parametrize("spoil", [
    lambda data: b"", lambda data: data[:5], lambda data: data[:-1],
    lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: b"\0" * len(data)])
def test_a_damaged_guest_state_does_not_start(machine, fresh, fabric, spoil):
    for each, words in ((machine, "corrupted"), (fresh, "corrupted")):
        path = guest_state(fabric, each)
        whole = path.read_bytes()
        assert whole
        path.write_bytes(spoil(whole))
        damaged, protector = path.read_bytes(), each.protector()
        refused(each, words)
        assert path.read_bytes() == damaged and each.protector() == protector
        path.write_bytes(whole)
        each.start()
        each.stop()
    assert holds_secret(fabric, machine)


def test_a_damaged_guest_state_is_no_new_tpm_for_the_template(machine, fabric):
    """Secure Boot's template of a TPM that was started stays, whatever became of its file."""
    from os_win import exceptions

    from tests.hyperv.firmware import SECURE_BOOT_TEMPLATES
    guest_state(fabric, machine).write_bytes(b"")
    settings = machine.settings()
    settings.TpmEnabled = False
    machine.vmutils._sec_svc.ModifySecuritySettings(SecuritySettingData=settings.GetText_(1))
    data = machine.vmutils._lookup_vm_check(machine.name, for_update=True)
    data.SecureBootEnabled = True
    data.SecureBootTemplateId = SECURE_BOOT_TEMPLATES["MicrosoftUEFICertificateAuthority"]
    with pytest.raises(exceptions.WMIJobFailed, match="after the virtual TPM"):
        machine.vmutils._jobutils.check_ret_val(*reversed(
            machine.vmutils._vs_man_svc.ModifySystemSettings(SystemSettings=data.GetText_(1))))


def test_a_lost_guest_state_is_not_replaced_by_a_new_one(machine, fresh, fabric):
    path = guest_state(fabric, machine)
    whole, protector = path.read_bytes(), machine.protector()
    path.write_bytes(guest_state(fabric, fresh).read_bytes())
    assert not fabric.virtual_machine("HV1", machine.name)["tpm_initialized"]
    refused(machine, "does not hold the state")
    assert machine.protector() == protector
    path.write_bytes(whole)
    assert holds_secret(fabric, machine)
    fresh.start()
    assert fabric.virtual_machine("HV1", fresh.name)["tpm_initialized"]
    fresh.stop()


@pytest.mark.parametrize("missing", ["root.vhdx", "base.vhdx", "config.iso"])
def test_a_start_needs_the_disks(machine, fabric, tmp_path, missing):
    folder = tmp_path / tmp_path.name
    (folder / "config.iso").touch()
    machine.vmutils.attach_drive(
        machine.name, str(folder / "config.iso"),
        machine.vmutils.get_vm_scsi_controller(machine.name), 1, "DVD")
    (folder / missing).rename(tmp_path / missing)
    protector, before = machine.protector(), guest_state(fabric, machine).read_bytes()
    refused(machine, "Attachment '[^']*%s' not found.*0x80070002" % missing)
    assert fabric.virtual_machine("HV1", machine.name)["state"] == 3
    assert machine.protector() == protector
    assert guest_state(fabric, machine).read_bytes() == before
    (tmp_path / missing).rename(folder / missing)
    assert holds_secret(fabric, machine)


def test_a_saved_vm_needs_its_disks_too(machine, fabric, tmp_path):
    disk = tmp_path / tmp_path.name / "root.vhdx"
    machine.start()
    machine.request(SAVED)
    disk.rename(tmp_path / "root.vhdx")
    refused(machine, "0x80070002")
    (tmp_path / "root.vhdx").rename(disk)
    machine.start()
    assert fabric.read_tpm("HV1", machine.name, "bitlocker") == SECRET


def test_a_saved_vm_needs_its_memory(machine, fabric, tmp_path):
    memory = guest_state(fabric, machine).with_suffix(".VMRS")
    machine.start()
    machine.request(SAVED)
    memory.rename(tmp_path / "memory")
    data = machine.vmutils._lookup_vm_check(machine.name)
    data.Notes = ["changed"]
    machine.vmutils._modify_virtual_system(data)
    assert not memory.exists()
    refused(machine, "saved state file '[^']*VMRS'.*0x80070002")
    assert fabric.virtual_machine("HV1", machine.name)["state"] == SAVED
    (tmp_path / "memory").rename(memory)
    assert holds_secret(fabric, machine)
    # Of a VM that is off nothing is in it; saving writes it.
    memory.unlink()
    machine.start()
    machine.request(SAVED)
    assert memory.exists()
    assert holds_secret(fabric, machine)


@pytest.mark.parametrize("state", [OFF, SAVED, PAUSED, RESET])
@pytest.mark.parametrize("gone", ["root.vhdx", "base.vhdx", "vmgs"])
def test_a_vm_in_memory_needs_the_files_that_it_has_open(machine, fabric, tmp_path, state, gone):
    from os_win import exceptions
    path = (guest_state(fabric, machine) if gone == "vmgs"
            else tmp_path / tmp_path.name / gone)
    machine.start()
    path.rename(tmp_path / "moved")
    with pytest.raises(exceptions.WMIJobFailed, match="failed to change state.*%s.*0x80070002" % (
            gone)):
        machine.request(state)
    assert fabric.virtual_machine("HV1", machine.name)["state"] == 2
    (component,) = machine.vmutils._conn.Msvm_ShutdownComponent(
        SystemName=fabric.virtual_machine("HV1", machine.name)["id"].upper())
    assert component.InitiateShutdown(Reason="none")[-1] == FAILED
    (tmp_path / "moved").rename(path)
    machine.request(state)
    if state == PAUSED:
        path.rename(tmp_path / "moved")
        for after in (2, OFF):
            with pytest.raises(exceptions.WMIJobFailed, match="failed to change state"):
                machine.request(after)
        (tmp_path / "moved").rename(path)
    if state != OFF:
        machine.stop()
    assert holds_secret(fabric, machine)


def test_a_guest_state_that_is_deleted_does_not_come_back(machine, fabric, tmp_path):
    machine.start()
    path = guest_state(fabric, machine)
    path.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        fabric.write_tpm("HV1", machine.name, "bitlocker", b"another key")
    assert not path.exists()
    (tmp_path / "moved").rename(path)
    machine.stop()
    assert holds_secret(fabric, machine)


def test_a_disk_of_a_running_vm_is_in_use(machine, fresh, tmp_path):
    folder, vmutils = tmp_path / tmp_path.name, machine.vmutils
    child = tmp_path / "child.vhdx"
    VhdUtils().create_differencing_vhd(str(child), str(folder / "base.vhdx"))
    vmutils.create_scsi_controller(fresh.name)
    vmutils.attach_drive(fresh.name, str(child), vmutils.get_vm_scsi_controller(fresh.name), 0)
    machine.start()
    # What is below both is only read.
    fresh.start()
    fresh.stop()
    for path in ("root.vhdx", "base.vhdx"):
        (now,) = vmutils.get_vm_storage_paths(fresh.name)[0]
        vmutils.update_vm_disk_path(now, str(folder / path), False)
        refused(fresh, "Failed to open attachment '[^']*%s'.*0x80070020" % path)
    machine.stop()
    # Now the other one writes to what is below this one's disk.
    fresh.start()
    refused(machine, "base.vhdx")
    fresh.stop()
    machine.start()


def test_a_failed_start_changes_nothing(machine, fabric, tmp_path, monkeypatch):
    from tests.hyperv.virtual_machine import VirtualMachine

    def contents():
        return {path: (tmp_path / path).read_bytes() for path in files(tmp_path)}
    before, described = contents(), fabric.virtual_machine("HV1", machine.name)
    real = VirtualMachine.save

    def broken(self):
        real(self)
        raise OSError("The disk is full.")
    with monkeypatch.context() as patch:
        patch.setattr(VirtualMachine, "save", broken)
        refused(machine, "The disk is full.")
    assert contents() == before
    assert fabric.virtual_machine("HV1", machine.name) == described
    assert holds_secret(fabric, machine)


@pytest.mark.parametrize("name, starts", [("east", True), ("west", False)])
def test_encrypted_state_needs_the_key(vmutils, fabric, tmp_path, name, starts):
    vmutils.create_vm(tmp_path.name, False, 2, str(tmp_path), [])
    machine = Machine(vmutils, tmp_path.name)
    given = protector_for(fabric, name)
    machine.set_protector(given)
    settings = machine.settings()
    settings.EncryptStateAndVmMigrationTraffic = True
    machine.vmutils._sec_svc.ModifySecuritySettings(SecuritySettingData=settings.GetText_(1))
    if starts:
        machine.start()
    else:
        refused(machine, "could not be unwrapped")
    assert machine.protector() == given
