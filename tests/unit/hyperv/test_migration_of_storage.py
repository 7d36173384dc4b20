"""Live migration with and without the storage, between hosts with disks of their own."""
import pytest

from tests.hyperv import key_protector, windows
from tests.hyperv.fabric import Fabric
from tests.hyperv.guardian import Guardian
from tests.hyperv.windows_stand_ins import VhdUtils
from tests.unit.hyperv.machine import Machine

SECRET = b"BitLocker's key"


@pytest.fixture
def fabric(tmp_path):
    return Fabric({"fabrics": ["east", "west"], "storage": str(tmp_path / "%COMPUTERNAME%"),
                   "hosts": [{"name": "HV1", "fabric": "east", "live_migration": True},
                             {"name": "HV2", "fabric": "east", "live_migration": True},
                             {"name": "HV3", "fabric": "west", "live_migration": True}]})


@pytest.fixture
def on_host(fabric):
    def run_on(name):
        windows.install(fabric, name)
        from os_win import utilsfactory
        return utilsfactory
    return run_on


def make(fabric, on_host, folder):
    """A running VM on HV1, its files in a folder, its disk on an image of many."""
    vmutils = on_host("HV1").get_vmutils()
    folder.mkdir(parents=True)
    base, disk = folder.parent / "base.vhdx", folder / "root.vhdx"
    VhdUtils().create_dynamic_vhd(str(base), 1 << 20)
    VhdUtils().create_differencing_vhd(str(disk), str(base))
    vmutils.create_vm("guest", False, 2, str(folder), [])
    vmutils.create_scsi_controller("guest")
    vmutils.attach_drive("guest", str(disk), vmutils.get_vm_scsi_controller("guest"), 0)
    machine = Machine(vmutils, "guest")
    machine.set_protector(key_protector.make_protector(
        Guardian.generate("tenant"),
        [Guardian.from_metadata(fabric.metadata("east"), "east")]))
    machine.enable_tpm()
    machine.start()
    fabric.write_tpm("HV1", "guest", "bitlocker", SECRET)
    return machine


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def migrate(on_host, destination, with_storage):
    on_host("HV1").get_livemigrationutils().live_migrate_vm(
        "guest", destination, migrate_disks=with_storage)


def refused(on_host, destination, with_storage):
    from os_win import exceptions
    with pytest.raises(exceptions.WMIJobFailed) as caught:
        migrate(on_host, destination, with_storage)
    return str(caught.value)


@pytest.fixture
def local(fabric, on_host, tmp_path):
    return make(fabric, on_host, tmp_path / "HV1" / "guest")


def test_files_move_to_the_same_place(fabric, on_host, local, tmp_path):
    (tmp_path / "HV2").mkdir()
    (tmp_path / "HV2" / "base.vhdx").write_bytes((tmp_path / "HV1" / "base.vhdx").read_bytes())
    had = files(tmp_path / "HV1" / "guest")
    migrate(on_host, "HV2", with_storage=True)
    assert fabric.read_tpm("HV2", "guest", "bitlocker") == SECRET
    assert files(tmp_path / "HV2" / "guest") == had and len(had) == 4
    assert files(tmp_path / "HV1") == ["base.vhdx"]

    moved = on_host("HV2").get_vmutils()
    disk = str(tmp_path / "HV2" / "guest" / "root.vhdx")
    assert moved.get_vm_storage_paths("guest")[0] == [disk]
    assert VhdUtils().get_vhd_parent_path(disk) == str(tmp_path / "HV2" / "base.vhdx")
    assert moved._lookup_vm("guest").ConfigurationDataRoot == str(tmp_path / "HV2" / "guest")
    again = Machine(moved, "guest")
    again.stop()
    again.start()
    assert fabric.read_tpm("HV2", "guest", "bitlocker") == SECRET
    again.stop()
    moved.destroy_vm("guest")
    assert files(tmp_path / "HV2" / "guest") == ["root.vhdx"]


def test_local_files_do_not_stay_behind(fabric, on_host, local, tmp_path):
    before = files(tmp_path)
    words = refused(on_host, "HV2", with_storage=False)
    assert "cannot find the file" in words and str(tmp_path / "HV2") in words
    assert files(tmp_path) == before and not fabric.virtual_machines("HV2")
    assert fabric.read_tpm("HV1", "guest", "bitlocker") == SECRET


@pytest.mark.parametrize("destination, spoil, words", [
    ("HV3", None, "could not be unwrapped"),
    ("HV2", "guest/root.vhdx", "The file exists"),
    ("HV2", None, "base.vhdx': The system cannot find the file")])
def test_a_refused_move_leaves_nothing(fabric, on_host, local, tmp_path, destination, spoil, words):
    there = tmp_path / destination
    if destination == "HV3":
        there.mkdir()
        (there / "base.vhdx").touch()
    if spoil:
        (there / spoil).parent.mkdir(parents=True)
        (there / spoil).touch()
    before = files(tmp_path)
    described = fabric.virtual_machine("HV1", "guest")
    assert words in refused(on_host, destination, with_storage=True)
    assert files(tmp_path) == before and not fabric.virtual_machines(destination)
    assert fabric.virtual_machine("HV1", "guest") == described
    assert fabric.read_tpm("HV1", "guest", "bitlocker") == SECRET


@pytest.mark.parametrize("step", ["shutil.copy", "guest_state.write", "VirtualMachine.save"])
def test_a_disk_error_undoes_the_move(fabric, on_host, local, tmp_path, monkeypatch, step):
    from tests.hyperv import guest_state, live_migration, virtual_machine
    target, name = {
        "shutil.copy": (live_migration.shutil, "copy"),
        "guest_state.write": (guest_state, "write"),
        "VirtualMachine.save": (virtual_machine.VirtualMachine, "save")}[step]
    (tmp_path / "HV2").mkdir()
    (tmp_path / "HV2" / "base.vhdx").write_bytes((tmp_path / "HV1" / "base.vhdx").read_bytes())
    before, real, calls = files(tmp_path), getattr(target, name), []

    def broken(*arguments, **keywords):
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError("The disk is full.")
        return real(*arguments, **keywords)
    with monkeypatch.context() as patch:
        patch.setattr(target, name, broken)
        assert "The disk is full." in refused(on_host, "HV2", with_storage=True)
    assert files(tmp_path) == before and not fabric.virtual_machines("HV2")
    assert not (tmp_path / "HV2" / "guest").exists()
    windows.install(fabric, "HV1")
    local.stop()
    local.start()
    assert fabric.read_tpm("HV1", "guest", "bitlocker") == SECRET
    migrate(on_host, "HV2", with_storage=True)
    assert fabric.read_tpm("HV2", "guest", "bitlocker") == SECRET


@pytest.mark.parametrize("with_storage", [False, True])
def test_shared_files_stay(fabric, on_host, tmp_path, with_storage):
    make(fabric, on_host, tmp_path / "cluster" / "guest")
    before = files(tmp_path)
    migrate(on_host, "HV2", with_storage)
    assert files(tmp_path) == before
    assert fabric.read_tpm("HV2", "guest", "bitlocker") == SECRET


def test_a_disk_error_on_shared_storage_leaves_the_tpm_readable(
        fabric, on_host, tmp_path, monkeypatch):
    from tests.hyperv.virtual_machine import VirtualMachine
    machine = make(fabric, on_host, tmp_path / "cluster" / "guest")
    real, calls = VirtualMachine.save, []

    def broken(self):
        calls.append(self)
        if len(calls) == 1:
            raise OSError("The disk is full.")
        real(self)
    with monkeypatch.context() as patch:
        patch.setattr(VirtualMachine, "save", broken)
        assert "The disk is full." in refused(on_host, "HV2", with_storage=False)
    windows.install(fabric, "HV1")
    machine.stop()
    machine.start()
    assert fabric.read_tpm("HV1", "guest", "bitlocker") == SECRET


def test_a_dvd_must_be_there_already(fabric, on_host, local, tmp_path):
    iso = tmp_path / "HV1" / "guest" / "config.iso"
    iso.touch()
    local.stop()
    vmutils = on_host("HV1").get_vmutils()
    vmutils.attach_drive("guest", str(iso), vmutils.get_vm_scsi_controller("guest"), 1, "DVD")
    (tmp_path / "HV2").mkdir()
    (tmp_path / "HV2" / "base.vhdx").write_bytes((tmp_path / "HV1" / "base.vhdx").read_bytes())
    assert "config.iso" in refused(on_host, "HV2", with_storage=True)
    (tmp_path / "HV2" / "guest").mkdir()
    (tmp_path / "HV2" / "guest" / "config.iso").touch()
    migrate(on_host, "HV2", with_storage=True)
    assert on_host("HV2").get_vmutils().get_vm_dvd_disk_paths("guest") == [
        str(tmp_path / "HV2" / "guest" / "config.iso")]


def test_snapshots_move_with_the_storage(fabric, on_host, local, tmp_path):
    local.vmutils.take_vm_snapshot("guest")
    fabric.write_tpm("HV1", "guest", "bitlocker", b"changed since")
    (tmp_path / "HV2").mkdir()
    (tmp_path / "HV2" / "base.vhdx").write_bytes((tmp_path / "HV1" / "base.vhdx").read_bytes())
    had = files(tmp_path / "HV1" / "guest")
    migrate(on_host, "HV2", with_storage=True)
    assert files(tmp_path / "HV2" / "guest") == had and files(tmp_path / "HV1") == ["base.vhdx"]
    moved = Machine(on_host("HV2").get_vmutils(), "guest")
    moved.stop()
    (snapshot,) = moved.vmutils.get_vm_snapshots("guest")
    service = moved.vmutils._compat_conn.Msvm_VirtualSystemSnapshotService()[0]
    job, result = service.ApplySnapshot(Snapshot=snapshot)
    moved.vmutils._jobutils.check_ret_val(result, job)
    assert all(path.startswith(str(tmp_path / "HV2"))
               for path in moved.vmutils.get_vm_storage_paths("guest")[0])
    moved.start()
    assert fabric.read_tpm("HV2", "guest", "bitlocker") == SECRET
