"""Snapshots, taken and removed by os-win, applied as a script would."""
import pathlib
import re

import pytest

from tests.hyperv import key_protector, windows
from tests.hyperv.fabric import Fabric
from tests.hyperv.guardian import Guardian
from tests.hyperv.windows_stand_ins import VhdUtils
from tests.unit.hyperv.machine import files, make

SECRET = b"BitLocker's key"
OFF, SAVED = 3, 6


@pytest.fixture(scope="module")
def fabric():
    return Fabric({"fabrics": ["east"], "hosts": [
        {"name": name, "fabric": "east", "live_migration": True} for name in ("HV1", "HV2")]})


@pytest.fixture
def utils(fabric):
    windows.install(fabric, "HV1")
    from os_win import utilsfactory
    return utilsfactory


@pytest.fixture(scope="module")
def protector(fabric):
    return key_protector.make_protector(
        Guardian.generate("tenant"), [Guardian.from_metadata(fabric.metadata("east"), "east")])


@pytest.fixture
def machine(utils, fabric, tmp_path, protector):
    """A running VM with a TPM that holds a secret."""
    return make(utils.get_vmutils(), fabric, tmp_path, protector)


def current_disk(machine):
    return machine.vmutils.get_vm_storage_paths(machine.name)[0][0]


def service(machine):
    return machine.vmutils._compat_conn.Msvm_VirtualSystemSnapshotService()[0]


def apply(machine, snapshot):
    job, result = service(machine).ApplySnapshot(Snapshot=snapshot)
    machine.vmutils._jobutils.check_ret_val(result, job)


def test_a_snapshot_is_taken_and_removed_while_the_vm_runs(machine, fabric, tmp_path):
    before, disk = files(tmp_path), current_disk(machine)
    taken = machine.vmutils.take_vm_snapshot(machine.name, "before the update")
    assert machine.vmutils.get_vm_snapshots(machine.name) == [taken]
    assert machine.vmutils.get_vm_snapshots(machine.name, "before the update") == [taken]
    assert machine.vmutils.get_vm_snapshots(machine.name, "another") == []

    child = current_disk(machine)
    assert child.endswith(".avhdx") and VhdUtils().get_vhd_parent_path(child) == disk
    new = set(files(tmp_path)) - set(before)
    assert sorted(pathlib.Path(path).suffix for path in new) == [
        ".VMRS", ".avhdx", ".vmcx", ".vmgs"]
    assert all(path.startswith("Snapshots/") for path in new if not path.endswith(".avhdx"))

    machine.vmutils.remove_vm_snapshot(taken)
    assert files(tmp_path) == before and current_disk(machine) == disk
    assert machine.vmutils.get_vm_snapshots(machine.name) == []
    assert fabric.read_tpm("HV1", machine.name, "bitlocker") == SECRET
    machine.stop()
    machine.start()
    assert fabric.read_tpm("HV1", machine.name, "bitlocker") == SECRET


def test_a_snapshot_has_the_settings_of_then(machine):
    taken = machine.vmutils.take_vm_snapshot(machine.name)
    import wmi
    settings = wmi.WMI(moniker=taken.replace("\\", "/"))
    assert settings.VirtualSystemType == "Microsoft:Hyper-V:Snapshot:Realized"
    assert settings.VirtualSystemIdentifier == machine.vmutils.get_vm_id(machine.name)
    # The VM itself is found as before.
    assert machine.vmutils._lookup_vm(machine.name).InstanceID != settings.InstanceID
    assert machine.vmutils.list_instances().count(machine.name) == 1
    second = wmi.WMI(moniker=machine.vmutils.take_vm_snapshot(machine.name).replace("\\", "/"))
    assert second.Parent.lower() == taken.lower()


def test_going_back_brings_the_tpm_of_then(machine, fabric, tmp_path):
    taken = machine.vmutils.take_vm_snapshot(machine.name)
    fabric.write_tpm("HV1", machine.name, "bitlocker", b"changed since")
    machine.stop()
    machine.start()
    machine.stop()
    protector, child = machine.protector(), current_disk(machine)
    apply(machine, taken)
    # The VM ran when the snapshot was taken.
    assert fabric.virtual_machine("HV1", machine.name)["state"] == SAVED
    assert machine.protector() != protector
    assert current_disk(machine) != child and not pathlib.Path(child).exists()
    machine.start()
    assert fabric.read_tpm("HV1", machine.name, "bitlocker") == SECRET
    machine.stop()
    # Again: the snapshot is still what it was.
    apply(machine, taken)
    machine.start()
    assert fabric.read_tpm("HV1", machine.name, "bitlocker") == SECRET


def test_the_protector_of_now_does_not_open_the_tpm_of_then(machine, fabric):
    taken = machine.vmutils.take_vm_snapshot(machine.name)
    machine.stop()
    machine.start()
    machine.stop()
    protector = machine.protector()
    apply(machine, taken)
    machine.request(OFF)
    machine.set_protector(protector)
    from os_win import exceptions
    with pytest.raises(exceptions.WMIJobFailed, match="0xC000A002"):
        machine.start()


def test_going_back_brings_the_name_of_then(machine, fabric):
    taken = machine.vmutils.take_vm_snapshot(machine.name)
    machine.stop()
    settings = machine.vmutils._lookup_vm_check(machine.name, for_update=True)
    settings.ElementName = "another"
    machine.vmutils._modify_virtual_system(settings)
    assert machine.vmutils._lookup_vm_check("another", as_vssd=False)
    apply(machine, taken)
    assert machine.vmutils._lookup_vm_check(machine.name, as_vssd=False)
    machine.start()
    assert fabric.read_tpm("HV1", machine.name, "bitlocker") == SECRET


def contents(folder):
    return {path: (folder / path).read_bytes() for path in files(folder)}


@pytest.mark.parametrize("step", [
    "VhdUtils.create_differencing_vhd", "VirtualMachine.replace", "VirtualMachine.save"])
def test_a_snapshot_is_applied_whole_or_not_at_all(
        machine, fabric, tmp_path, monkeypatch, step):
    from os_win import exceptions

    from tests.hyperv.virtual_machine import VirtualMachine
    taken = machine.vmutils.take_vm_snapshot(machine.name)
    second = tmp_path / "second.vhdx"
    VhdUtils().create_dynamic_vhd(str(second), 1 << 20)
    fabric.write_tpm("HV1", machine.name, "bitlocker", b"changed since")
    machine.stop()
    machine.vmutils.attach_drive(
        machine.name, str(second), machine.vmutils.get_vm_scsi_controller(machine.name), 1)
    later = machine.vmutils.take_vm_snapshot(machine.name)
    machine.start()
    fabric.write_tpm("HV1", machine.name, "bitlocker", b"changed again")
    machine.stop()
    before, described = contents(tmp_path), fabric.virtual_machine("HV1", machine.name)
    held = fabric.host("HV1").management.machine_named(machine.name).definition()
    owner, name = {"VhdUtils": VhdUtils, "VirtualMachine": VirtualMachine}[
        step.partition(".")[0]], step.partition(".")[2]
    real, calls = getattr(owner, name), []

    def broken(*arguments, **keywords):
        real(*arguments, **keywords)
        calls.append(arguments)
        if len(calls) == (2 if owner is VhdUtils else 1):
            raise OSError("The disk is full.")

    def check():
        assert contents(tmp_path) == before
        assert fabric.virtual_machine("HV1", machine.name) == described
        assert fabric.host("HV1").management.machine_named(machine.name).definition() == held
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        with pytest.raises(exceptions.WMIJobFailed, match="The disk is full."):
            apply(machine, later)
    assert calls
    check()
    machine.start()
    assert fabric.read_tpm("HV1", machine.name, "bitlocker") == b"changed again"
    machine.stop()
    apply(machine, later)
    machine.start()
    assert fabric.read_tpm("HV1", machine.name, "bitlocker") == b"changed since"
    machine.stop()
    apply(machine, taken)
    machine.start()
    assert fabric.read_tpm("HV1", machine.name, "bitlocker") == SECRET


@pytest.mark.parametrize("spoil", ["no guest state", "empty guest state", "no disk"])
def test_what_is_needed_to_go_back(machine, fabric, tmp_path, spoil):
    from os_win import exceptions
    taken = machine.vmutils.take_vm_snapshot(machine.name)
    machine.stop()
    if spoil == "no disk":
        # The VM has another one by now.
        machine.vmutils.update_vm_disk_path(
            current_disk(machine), str(tmp_path / "base.vhdx"), False)
        (tmp_path / "root.vhdx").unlink()
    else:
        (state,) = (tmp_path / "Snapshots").glob("*.vmgs")
        state.unlink()
        if spoil == "empty guest state":
            state.touch()
    before, protector = contents(tmp_path), machine.protector()
    with pytest.raises(exceptions.WMIJobFailed, match="No such file|missing or damaged"):
        apply(machine, taken)
    assert contents(tmp_path) == before and machine.protector() == protector
    machine.start()
    assert fabric.read_tpm("HV1", machine.name, "bitlocker") == SECRET


def test_the_folder_of_snapshots_stays(machine, tmp_path):
    from os_win import exceptions

    def move():
        settings = machine.vmutils._lookup_vm_check(machine.name, for_update=True)
        settings.SnapshotDataRoot = str(tmp_path / "elsewhere")
        machine.vmutils._modify_virtual_system(settings)
    taken = machine.vmutils.take_vm_snapshot(machine.name)
    with pytest.raises(exceptions.WMIJobFailed, match="32773"):
        move()
    machine.vmutils.remove_vm_snapshot(taken)
    move()
    machine.vmutils.take_vm_snapshot(machine.name)
    assert len(list((tmp_path / "elsewhere" / "Snapshots").glob("*.vmgs"))) == 1


def test_a_running_vm_does_not_go_back(machine):
    taken = machine.vmutils.take_vm_snapshot(machine.name)
    assert service(machine).ApplySnapshot(Snapshot=taken)[1] == 5


def test_refusals_come_at_once_also_where_jobs_are_delayed(machine, fabric):
    taken = machine.vmutils.take_vm_snapshot(machine.name)
    system = machine.vmutils._lookup_vm_check(machine.name, as_vssd=False)
    settings = machine.vmutils._lookup_vm_check(machine.name).path_()
    fabric.add_delay("HV1", "*Snapshot*", 60, times=None)
    try:
        assert service(machine).CreateSnapshot(
            AffectedSystem=system.path_(), SnapshotType=3) == (None, None, 6)
        assert service(machine).ApplySnapshot(Snapshot=taken) == (None, 5)
        assert service(machine).ApplySnapshot(Snapshot=settings) == (None, 4)
        assert service(machine).DestroySnapshot(AffectedSnapshot=settings) == (None, 4)
        assert service(machine).DestroySnapshotTree(SnapshotSettingData=settings) == (None, 4)
    finally:
        fabric.clear_faults("HV1")
    machine.stop()


def test_refused_snapshots(machine):
    system = machine.vmutils._lookup_vm_check(machine.name, as_vssd=False)
    assert service(machine).CreateSnapshot(
        AffectedSystem=system.path_(), SnapshotType=3)[2] == 6
    settings = machine.vmutils._lookup_vm_check(machine.name)
    assert service(machine).DestroySnapshot(settings.path_())[1] == 4


def test_a_vm_with_a_physical_disk_gets_no_snapshot(machine, tmp_path):
    from os_win import exceptions
    machine.stop()
    vmutils, before = machine.vmutils, files(tmp_path)
    vmutils.attach_volume_to_controller(
        machine.name, vmutils.get_vm_scsi_controller(machine.name), 1, "a disk", serial="serial")
    with pytest.raises(exceptions.WMIJobFailed, match="physical disks"):
        vmutils.take_vm_snapshot(machine.name)
    assert files(tmp_path) == before and vmutils.get_vm_snapshots(machine.name) == []


def test_a_chain_is_merged_from_the_middle(machine, fabric, tmp_path):
    before, disk = files(tmp_path), current_disk(machine)
    first, second, third = (machine.vmutils.take_vm_snapshot(machine.name) for _ in range(3))
    assert sum(path.endswith(".avhdx") for path in files(tmp_path)) == 3
    VhdUtils().resize_vhd(current_disk(machine), 2 << 20)
    machine.vmutils.remove_vm_snapshot(second)
    import wmi
    assert wmi.WMI(moniker=third.replace("\\", "/")).Parent.lower() == first.lower()
    assert sum(path.endswith(".avhdx") for path in files(tmp_path)) == 2
    machine.vmutils.remove_vm_snapshot(first)
    machine.stop()
    apply(machine, third)
    machine.start()
    assert fabric.read_tpm("HV1", machine.name, "bitlocker") == SECRET
    VhdUtils().resize_vhd(current_disk(machine), 4 << 20)
    machine.vmutils.remove_vm_snapshot(third)
    assert VhdUtils().get_vhd_size(disk)["VirtualSize"] == 4 << 20
    assert files(tmp_path) == before and current_disk(machine) == disk


def test_branches_keep_the_disk_they_share(machine, fabric, tmp_path):
    before, disk = files(tmp_path), current_disk(machine)
    root = machine.vmutils.take_vm_snapshot(machine.name)
    machine.vmutils.take_vm_snapshot(machine.name)
    machine.stop()
    apply(machine, root)
    machine.vmutils.take_vm_snapshot(machine.name)
    for path in machine.vmutils.get_vm_storage_paths(machine.name)[0]:
        assert VhdUtils().get_vhd_parent_path(path) is not None
    job, result = service(machine).DestroySnapshotTree(SnapshotSettingData=root)
    machine.vmutils._jobutils.check_ret_val(result, job)
    assert machine.vmutils.get_vm_snapshots(machine.name) == []
    assert files(tmp_path) == before and current_disk(machine) == disk
    machine.start()
    assert fabric.read_tpm("HV1", machine.name, "bitlocker") == SECRET


def test_a_disk_error_leaves_no_snapshot(machine, fabric, tmp_path, monkeypatch):
    from os_win import exceptions

    from tests.hyperv.virtual_machine import VirtualMachine
    before, disk, real = contents(tmp_path), current_disk(machine), VirtualMachine.save
    with monkeypatch.context() as patch:
        def broken(self):
            real(self)
            raise OSError("The disk is full.")
        patch.setattr(VirtualMachine, "save", broken)
        with pytest.raises(exceptions.WMIJobFailed, match="The disk is full."):
            machine.vmutils.take_vm_snapshot(machine.name)
    assert contents(tmp_path) == before and current_disk(machine) == disk
    assert machine.vmutils.get_vm_snapshots(machine.name) == []
    import wmi
    taken = machine.vmutils.take_vm_snapshot(machine.name)
    assert wmi.WMI(moniker=taken.replace("\\", "/")).Parent is None
    assert fabric.host("HV1").management.machine_named(
        machine.name).snapshots.popitem()[1].parent is None


@pytest.mark.parametrize("missing", ["root.vhdx", "base.vhdx"])
def test_a_vm_without_its_disks_gets_no_snapshot(machine, tmp_path, missing):
    from os_win import exceptions
    (tmp_path / missing).unlink()
    before = files(tmp_path)
    with pytest.raises(exceptions.WMIJobFailed, match="No such file"):
        machine.vmutils.take_vm_snapshot(machine.name)
    assert files(tmp_path) == before and machine.vmutils.get_vm_snapshots(machine.name) == []


def test_disks_that_cannot_be_merged_keep_the_snapshot(machine, tmp_path):
    from os_win import exceptions
    taken = machine.vmutils.take_vm_snapshot(machine.name)
    machine.stop()
    (tmp_path / "base.vhdx").unlink()
    before = files(tmp_path)
    with pytest.raises(exceptions.WMIJobFailed, match="No such file"):
        machine.vmutils.remove_vm_snapshot(taken)
    with pytest.raises(exceptions.WMIJobFailed, match="No such file"):
        machine.vmutils.destroy_vm(machine.name)
    assert machine.vmutils.get_vm_snapshots(machine.name) == [taken]
    assert files(tmp_path) == before


def test_destroying_a_vm_merges_its_disks(machine, tmp_path):
    machine.vmutils.take_vm_snapshot(machine.name)
    machine.vmutils.take_vm_snapshot(machine.name)
    machine.stop()
    machine.vmutils.destroy_vm(machine.name)
    assert files(tmp_path) == ["base.vhdx", "root.vhdx"]


def test_snapshots_go_with_a_live_migration(machine, utils, fabric):
    machine_id = machine.vmutils.get_vm_id(machine.name)
    taken = machine.vmutils.take_vm_snapshot(machine.name, "kept")
    fabric.write_tpm("HV1", machine.name, "bitlocker", b"changed since")
    utils.get_livemigrationutils().live_migrate_vm(machine.name, "HV2", migrate_disks=False)
    assert fabric.read_tpm("HV2", machine.name, "bitlocker") == b"changed since"
    left = [instance.get_path() for instance in fabric.host("HV1").repository.instances(
        "root/virtualization/v2", "CIM_SettingData")]
    snapshot = re.search(r"Microsoft:([0-9A-F-]{36})", taken).group(1)
    assert left and not [path for path in left if snapshot in path or machine_id in path]
    windows.install(fabric, "HV2")
    machine.vmutils = utils.get_vmutils()
    moved = machine.vmutils.get_vm_snapshots(machine.name, "kept")
    assert len(moved) == 1 and moved != [taken]
    machine.stop()
    apply(machine, moved[0])
    machine.start()
    assert fabric.read_tpm("HV2", machine.name, "bitlocker") == SECRET
