"""Export, copy, import, destroy: what becomes of a VM's files, and of what its TPM holds."""
import pathlib
import re
import shutil

import pytest

from tests.hyperv import key_protector, windows
from tests.hyperv.definition import ROOTS
from tests.hyperv.fabric import Fabric
from tests.hyperv.guardian import Guardian
from tests.hyperv.windows_stand_ins import VhdUtils
from tests.unit.hyperv.machine import Machine, files, make

SECRET = b"BitLocker's key"
ALL_SNAPSHOTS, NO_SNAPSHOTS, ONE_SNAPSHOT = 0, 1, 2


@pytest.fixture(scope="module")
def fabric():
    return Fabric({"fabrics": ["east"], "hosts": [
        {"name": "HV1", "fabric": "east"}, {"name": "HV2", "fabric": "east"},
        {"name": "HV-2016", "fabric": "east", "version": "10.0.14393"}]})


@pytest.fixture
def on_host(fabric):
    def run_on(name):
        windows.install(fabric, name)
        from os_win import utilsfactory
        return utilsfactory
    return run_on


@pytest.fixture(scope="module")
def protector(fabric):
    return key_protector.make_protector(
        Guardian.generate("tenant"), [Guardian.from_metadata(fabric.metadata("east"), "east")])


@pytest.fixture
def machine(on_host, fabric, tmp_path, protector):
    """A VM with a TPM that holds a secret; it is off. Its files: ``tmp_path/<name>``."""
    made = make(on_host("HV1").get_vmutils(), fabric, tmp_path / tmp_path.name, protector)
    made.stop()
    return made


def definition_file(folder):
    return next(folder.glob("Virtual Machines/*.vmcx"))


def failure(function, *arguments, **keywords):
    from os_win import exceptions
    with pytest.raises(exceptions.WMIJobFailed) as caught:
        function(*arguments, **keywords)
    return str(caught.value)


def import_vm(utils, folder, name=None, new_uuid=False):
    """:returns: the planned VM's vmutils and migrationutils"""
    migration = utils.get_migrationutils()
    migration.import_vm_definition(
        str(definition_file(folder)), str(folder / "Snapshots"), new_uuid)
    return migration


def holds_secret(fabric, host, machine):
    machine.start()
    value = fabric.read_tpm(host, machine.name, "bitlocker")
    machine.stop()
    return value == SECRET


def test_an_export_is_a_whole_vm(on_host, fabric, machine, tmp_path):
    export = tmp_path / "export"
    on_host("HV1").get_migrationutils().export_vm(
        machine.name, str(export), copy_vm_storage=True, create_export_subdir=True)
    made = files(export / machine.name)
    assert [path for path in made if path.startswith("Virtual Hard Disks/")] == [
        "Virtual Hard Disks/base.vhdx", "Virtual Hard Disks/root.vhdx"]
    assert sorted(pathlib.Path(path).suffix for path in made if "Machines" in path) == [
        ".VMRS", ".vmcx", ".vmgs"]
    # All of the original may be gone.
    machine.vmutils.destroy_vm(machine.name)
    shutil.rmtree(tmp_path / machine.name)

    utils = on_host("HV2")
    migration = import_vm(utils, export / machine.name)
    vmutils = utils.get_vmutils()
    disk = vmutils.get_vm_storage_paths(machine.name)[0][0]
    assert disk == str(export / machine.name / "Virtual Hard Disks" / "root.vhdx")
    assert VhdUtils().get_vhd_parent_path(disk) == str(pathlib.Path(disk).parent / "base.vhdx")
    migration.realize_vm(machine.name)
    assert holds_secret(fabric, "HV2", Machine(vmutils, machine.name))


def test_an_export_without_storage_has_no_disks(on_host, fabric, machine, tmp_path):
    export = tmp_path / "export"
    on_host("HV1").get_migrationutils().export_vm(machine.name, str(export))
    assert sorted(pathlib.Path(path).suffix for path in files(export)) == [
        ".VMRS", ".vmcx", ".vmgs"]
    assert holds_secret(fabric, "HV1", machine)
    assert b"ExportSettingData" not in definition_file(export).read_bytes()


def test_the_runtime_state_can_be_left_out(on_host, machine, tmp_path):
    migration = on_host("HV1").get_migrationutils()
    settings = migration._get_export_setting_data(machine.name)
    settings.CopyVmRuntimeInformation = False
    job, result = migration._vs_man_svc.ExportSystemDefinition(
        ComputerSystem=machine.vmutils._lookup_vm_check(machine.name, as_vssd=False).path_(),
        ExportDirectory=str(tmp_path / "export"), ExportSettingData=settings.GetText_(1))
    migration._jobutils.check_ret_val(result, job)
    assert not list((tmp_path / "export").rglob("*.VMRS"))


def test_a_running_vm_is_exported_with_what_its_tpm_holds(on_host, fabric, machine, tmp_path):
    machine.start()
    export = tmp_path / "export"
    on_host("HV1").get_migrationutils().export_vm(machine.name, str(export), copy_vm_storage=True)
    fabric.write_tpm("HV1", machine.name, "bitlocker", b"changed since")
    import_vm(on_host("HV2"), export).realize_vm(machine.name)
    imported = Machine(on_host("HV2").get_vmutils(), machine.name)
    assert holds_secret(fabric, "HV2", imported)
    assert fabric.read_tpm("HV1", machine.name, "bitlocker") == b"changed since"


def test_snapshots_are_exported_where_they_are_wanted(on_host, fabric, machine, tmp_path):
    machine.vmutils.take_vm_snapshot(machine.name, "then")
    migration = on_host("HV1").get_migrationutils()
    migration.export_vm(machine.name, str(tmp_path / "all"), ALL_SNAPSHOTS, copy_vm_storage=True)
    migration.export_vm(machine.name, str(tmp_path / "none"), NO_SNAPSHOTS, copy_vm_storage=True)
    assert "32770" in failure(migration.export_vm, machine.name, str(tmp_path / "one"),
                              ONE_SNAPSHOT)
    assert not (tmp_path / "one").exists() and not (tmp_path / "none" / "Snapshots").exists()
    machine.start()
    fabric.write_tpm("HV1", machine.name, "bitlocker", b"changed since")

    imported = import_vm(on_host("HV2"), tmp_path / "all")
    imported.realize_vm(machine.name)
    vmutils = on_host("HV2").get_vmutils()
    assert len(vmutils.get_vm_snapshots(machine.name, "then")) == 1
    assert holds_secret(fabric, "HV2", Machine(vmutils, machine.name))
    vmutils.destroy_vm(machine.name)

    import_vm(on_host("HV2"), tmp_path / "none").realize_vm(machine.name)
    assert vmutils.get_vm_snapshots(machine.name) == []
    assert holds_secret(fabric, "HV2", Machine(vmutils, machine.name))


def test_an_import_without_its_snapshots_is_not_realized(on_host, machine, tmp_path):
    machine.vmutils.take_vm_snapshot(machine.name)
    on_host("HV1").get_migrationutils().export_vm(machine.name, str(tmp_path / "all"))
    shutil.rmtree(tmp_path / "all" / "Snapshots")
    imported = import_vm(on_host("HV2"), tmp_path / "all")
    assert "snapshot" in failure(imported.realize_vm, machine.name)
    assert imported.planned_vm_exists(machine.name)


def test_no_second_export_into_a_folder(on_host, machine, tmp_path):
    migration = on_host("HV1").get_migrationutils()
    migration.export_vm(machine.name, str(tmp_path / "export"))
    before = files(tmp_path)
    assert "already exists" in failure(migration.export_vm, machine.name, str(tmp_path / "export"))
    assert files(tmp_path) == before


def test_a_failed_export_leaves_nothing(on_host, machine, tmp_path):
    (tmp_path / machine.name / "base.vhdx").unlink()
    assert "No such file" in failure(
        on_host("HV1").get_migrationutils().export_vm, machine.name, str(tmp_path / "export"),
        copy_vm_storage=True)
    assert files(tmp_path / "export") == []


def copied(machine, tmp_path):
    """A copy of the VM's own files; the VM is destroyed."""
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / machine.name / "Virtual Machines", copy / "Virtual Machines")
    machine.vmutils.destroy_vm(machine.name)
    return copy


def test_destroying_removes_the_guest_state(machine, fabric, tmp_path):
    state = pathlib.Path(fabric.virtual_machine("HV1", machine.name)["guest_state_file"])
    assert state.exists()
    machine.vmutils.destroy_vm(machine.name)
    assert files(tmp_path / machine.name) == ["base.vhdx", "root.vhdx"]


@pytest.mark.parametrize("state", [2, 9])
def test_a_running_vm_is_not_destroyed(machine, fabric, state):
    machine.start()
    if state != 2:
        machine.request(state)
    assert "32775" in failure(machine.vmutils.destroy_vm, machine.name)
    assert fabric.read_tpm("HV1", machine.name, "bitlocker") == SECRET


def test_what_an_import_came_from_is_needed_no_more(on_host, fabric, machine, tmp_path):
    """compute-hyperv removes it before it realizes the VM."""
    copy = copied(machine, tmp_path)
    migration = import_vm(on_host("HV1"), copy)
    shutil.rmtree(copy)
    migration.realize_vm(machine.name)
    assert holds_secret(fabric, "HV1", machine)


def test_destroying_a_planned_vm_removes_no_file(on_host, fabric, machine, tmp_path):
    copy = copied(machine, tmp_path)
    before = files(tmp_path)
    migration = import_vm(on_host("HV1"), copy)
    migration.destroy_existing_planned_vm(machine.name)
    assert files(tmp_path) == before
    import_vm(on_host("HV1"), copy).realize_vm(machine.name)
    assert holds_secret(fabric, "HV1", machine)


def test_a_missing_guest_state_is_not_a_new_tpm(on_host, machine, tmp_path):
    copy = copied(machine, tmp_path)
    next(copy.rglob("*.vmgs")).unlink()
    before = files(tmp_path)
    migration = import_vm(on_host("HV1"), copy)
    assert "guest state file" in failure(migration.realize_vm, machine.name)
    assert files(tmp_path) == before and migration.planned_vm_exists(machine.name)


def test_a_vm_does_not_start_without_its_guest_state(machine, fabric):
    pathlib.Path(fabric.virtual_machine("HV1", machine.name)["guest_state_file"]).unlink()
    assert "Cannot open guest state file" in failure(machine.start)


def test_an_import_with_another_protector_does_not_start(on_host, fabric, machine, tmp_path,
                                                         protector):
    migration = import_vm(on_host("HV1"), copied(machine, tmp_path))
    migration.realize_vm(machine.name)
    rolled = machine.protector()
    machine.set_protector(protector)
    assert "0xC000A002" in failure(machine.start)
    machine.set_protector(rolled)
    assert holds_secret(fabric, "HV1", machine)


def test_an_older_guest_state_does_not_start(on_host, fabric, machine, tmp_path):
    """The protector rolls with each start: a state from before it is not its own."""
    state = pathlib.Path(fabric.virtual_machine("HV1", machine.name)["guest_state_file"])
    old = state.read_bytes()
    assert holds_secret(fabric, "HV1", machine)
    copy = copied(machine, tmp_path)
    next(copy.rglob("*.vmgs")).write_bytes(old)
    import_vm(on_host("HV1"), copy).realize_vm(machine.name)
    assert "0xC000A002" in failure(machine.start)


def test_an_identifier_is_there_once(on_host, fabric, machine, tmp_path):
    utils = on_host("HV1")
    own = tmp_path / machine.name
    assert "32779" in failure(import_vm, utils, own)
    copy = tmp_path / "copy"
    shutil.copytree(own / "Virtual Machines", copy / "Virtual Machines")
    assert "already exists" in failure(import_vm, utils, copy)
    assert len([m for m in fabric.virtual_machines("HV1") if m["name"] == machine.name]) == 1
    assert holds_secret(fabric, "HV1", machine)


def test_a_new_identifier_keeps_the_tpm(on_host, fabric, machine, tmp_path):
    utils, copy = on_host("HV1"), tmp_path / "copy"
    shutil.copytree(tmp_path / machine.name / "Virtual Machines", copy / "Virtual Machines")
    before = machine.protector()
    migration = import_vm(utils, copy, new_uuid=True)
    planned = machine.vmutils._conn.Msvm_PlannedComputerSystem(ElementName=machine.name)[0]
    assert planned.Name not in str(definition_file(copy))
    both = {m["id"]: m for m in fabric.virtual_machines("HV1") if m["name"] == machine.name}
    assert len(both) == 2 and both[planned.Name]["key_protector"] == before
    settings = machine.vmutils._conn.Msvm_VirtualSystemSettingData(
        InstanceID="Microsoft:" + planned.Name)[0]
    settings.ElementName = machine.name + "-copy"
    settings.ConfigurationDataRoot = str(tmp_path / "new")
    machine.vmutils._modify_virtual_system(settings)
    migration.realize_vm(machine.name + "-copy")
    assert holds_secret(fabric, "HV1", Machine(machine.vmutils, machine.name + "-copy"))
    assert holds_secret(fabric, "HV1", machine)
    assert fabric.virtual_machine("HV1", machine.name + "-copy")["guest_state_file"] == str(
        tmp_path / "new" / "Virtual Machines" / (planned.Name + ".vmgs"))


def test_a_guest_state_elsewhere(on_host, fabric, tmp_path, protector):
    vmutils = on_host("HV1").get_vmutils()
    real, elsewhere = vmutils._compat_conn, tmp_path / "elsewhere"
    settings = real.Msvm_VirtualSystemSettingData.new()
    settings.ElementName = tmp_path.name
    settings.VirtualSystemSubType = "Microsoft:Hyper-V:SubType:2"
    settings.ConfigurationDataRoot = str(tmp_path / "vm")
    settings.GuestStateDataRoot = str(elsewhere)
    job, _, result = vmutils._vs_man_svc.DefineSystem(
        ResourceSettings=[], ReferenceConfiguration=None, SystemSettings=settings.GetText_(1))
    vmutils._jobutils.check_ret_val(result, job)
    machine = Machine(vmutils, tmp_path.name)
    machine.set_protector(protector)
    machine.enable_tpm()
    machine.start()
    fabric.write_tpm("HV1", machine.name, "bitlocker", SECRET)
    machine.stop()
    assert [pathlib.Path(path).suffix for path in files(elsewhere)] == [".vmgs"]
    # In place another host does not find it.
    migration = import_vm(on_host("HV2"), tmp_path / "vm")
    assert "guest state file" in failure(migration.realize_vm, machine.name)
    migration.destroy_existing_planned_vm(machine.name)
    on_host("HV1").get_migrationutils().export_vm(machine.name, str(tmp_path / "export"))
    on_host("HV1").get_vmutils().destroy_vm(machine.name)
    assert files(elsewhere) == files(tmp_path / "vm") == []
    import_vm(on_host("HV2"), tmp_path / "export").realize_vm(machine.name)
    moved = Machine(on_host("HV2").get_vmutils(), machine.name)
    assert holds_secret(fabric, "HV2", moved)
    moved.vmutils.destroy_vm(machine.name)
    assert files(tmp_path) == []


def folders(vmutils, name):
    settings = vmutils._lookup_vm_check(name)
    return {getattr(settings, root) for root in ROOTS}


def test_an_import_has_folders_of_its_own(on_host, fabric, machine, tmp_path):
    """Not those of the host that it comes from, which this one may have, too."""
    taken = machine.vmutils.take_vm_snapshot(machine.name)
    on_host("HV1").get_migrationutils().export_vm(machine.name, str(tmp_path / "export"))
    before = files(tmp_path / machine.name)
    migration = import_vm(on_host("HV2"), tmp_path / "export")
    vmutils = on_host("HV2").get_vmutils()
    planned = vmutils._conn.Msvm_PlannedComputerSystem(ElementName=machine.name)[0]
    snapshot = re.search(r"Microsoft:[0-9A-F-]{36}", taken).group()
    for identifier in ("Microsoft:" + planned.Name, snapshot):
        (settings,) = vmutils._conn.Msvm_VirtualSystemSettingData(InstanceID=identifier)
        assert {getattr(settings, root) for root in ROOTS} == {str(tmp_path / "export")}
    migration.realize_vm(machine.name)
    assert folders(vmutils, machine.name) == {str(tmp_path / "export")}
    assert holds_secret(fabric, "HV2", Machine(vmutils, machine.name))
    assert files(tmp_path / machine.name) == before


def test_snapshots_of_an_import_are_applied_where_it_lies(on_host, fabric, machine, tmp_path):
    machine.vmutils.take_vm_snapshot(machine.name)
    on_host("HV1").get_migrationutils().export_vm(
        machine.name, str(tmp_path / "export"), copy_vm_storage=True)
    machine.vmutils.destroy_vm(machine.name)
    before = files(tmp_path / machine.name)
    migration = import_vm(on_host("HV2"), tmp_path / "export")
    vmutils = on_host("HV2").get_vmutils()
    vmutils.update_vm(machine.name, 512, None, 1, None, False, 1,
                      configuration_root_dir=str(tmp_path / "new"))
    migration.realize_vm(machine.name)
    shutil.rmtree(tmp_path / "export" / "Snapshots")
    shutil.rmtree(tmp_path / "export" / "Virtual Machines")
    imported = Machine(vmutils, machine.name)
    imported.start()
    fabric.write_tpm("HV2", machine.name, "bitlocker", b"changed since")
    imported.stop()
    (snapshot,) = vmutils.get_vm_snapshots(machine.name)
    settings = vmutils._jobutils._get_wmi_obj(snapshot.replace("\\", "/"))
    assert {getattr(settings, root) for root in ROOTS[:1] + ROOTS[2:]} == {str(tmp_path / "new")}
    service = vmutils._compat_conn.Msvm_VirtualSystemSnapshotService()[0]
    job, result = service.ApplySnapshot(Snapshot=snapshot)
    vmutils._jobutils.check_ret_val(result, job)
    assert folders(vmutils, machine.name) == {str(tmp_path / "new")}
    assert holds_secret(fabric, "HV2", imported)
    assert files(tmp_path / machine.name) == before


def test_a_realization_does_not_replace_a_guest_state(on_host, fabric, machine, tmp_path):
    copy = copied(machine, tmp_path)
    migration = import_vm(on_host("HV1"), copy)
    machine.vmutils.update_vm(machine.name, 512, None, 1, None, False, 1,
                              configuration_root_dir=str(tmp_path / "new"))
    state = next(copy.rglob("*.vmgs"))
    other = tmp_path / "new" / "Virtual Machines" / state.name
    other.parent.mkdir(parents=True)
    other.write_bytes(b"another TPM")
    before = files(tmp_path)
    assert "The file exists" in failure(migration.realize_vm, machine.name)
    assert files(tmp_path) == before and other.read_bytes() == b"another TPM"
    assert migration.planned_vm_exists(machine.name)
    other.unlink()
    migration.realize_vm(machine.name)
    assert holds_secret(fabric, "HV1", machine)


def test_a_planned_vm_needs_the_disks_of_its_snapshots(on_host, machine, tmp_path):
    machine.vmutils.take_vm_snapshot(machine.name)
    on_host("HV1").get_migrationutils().export_vm(
        machine.name, str(tmp_path / "export"), copy_vm_storage=True)
    machine.vmutils.destroy_vm(machine.name)
    disks = tmp_path / "export" / "Virtual Hard Disks"
    migration = import_vm(on_host("HV2"), tmp_path / "export")
    vmutils = on_host("HV2").get_vmutils()
    # The VM itself has another disk.
    VhdUtils().create_dynamic_vhd(str(disks / "new.vhdx"), 1 << 20)
    (now,) = vmutils.get_vm_storage_paths(machine.name)[0]
    vmutils.update_vm_disk_path(now, str(disks / "new.vhdx"), False)
    (disks / "root.vhdx").unlink()
    assert "root.vhdx" in failure(migration.realize_vm, machine.name)


def test_a_planned_vm_keeps_its_disks(on_host, machine, tmp_path):
    migration = import_vm(on_host("HV1"), copied(machine, tmp_path))
    (disk,) = machine.vmutils.get_vm_storage_paths(machine.name)[0]
    assert "32775" in failure(machine.vmutils.detach_vm_disk, machine.name, disk, False)
    migration.realize_vm(machine.name)
    machine.vmutils.detach_vm_disk(machine.name, disk, False)
    assert machine.vmutils.get_vm_storage_paths(machine.name)[0] == []


def test_a_vms_files_do_not_move_by_a_setting(machine, tmp_path):
    settings = machine.vmutils._lookup_vm_check(machine.name, for_update=True)
    settings.ConfigurationDataRoot = str(tmp_path / "elsewhere")
    assert "32773" in failure(machine.vmutils._modify_virtual_system, settings)
    settings = machine.vmutils._lookup_vm_check(machine.name, for_update=True)
    settings.GuestStateDataRoot = str(tmp_path / "elsewhere")
    assert "32773" in failure(machine.vmutils._modify_virtual_system, settings)


@pytest.mark.parametrize("missing", ["root.vhdx", "base.vhdx"])
def test_a_planned_vm_without_its_disks_is_not_valid(on_host, machine, tmp_path, missing):
    copy = copied(machine, tmp_path)
    (tmp_path / machine.name / missing).unlink()
    before = files(tmp_path)
    migration = import_vm(on_host("HV1"), copy)
    planned = migration._get_planned_vm(machine.name)
    for method in ("ValidatePlannedSystem", "RealizePlannedSystem"):
        job, *_, result = getattr(migration._vs_man_svc, method)(planned.path_())
        words = failure(migration._jobutils.check_ret_val, result, job)
        assert "Attachment" in words and missing in words
    assert files(tmp_path) == before


@pytest.mark.parametrize("spoil", [
    lambda data: b"", lambda data: data[:-1], lambda data: data.replace(b"Realized", b"realized"),
    lambda data: b"\0" * len(data)])
def test_a_damaged_definition(on_host, fabric, machine, tmp_path, spoil):
    copy = copied(machine, tmp_path)
    path = definition_file(copy)
    path.write_bytes(spoil(path.read_bytes()))
    assert "data is invalid" in failure(import_vm, on_host("HV1"), copy)
    assert machine.name not in [m["name"] for m in fabric.virtual_machines("HV1")]


def test_a_definition_under_another_name(on_host, machine, tmp_path):
    copy = copied(machine, tmp_path)
    path = definition_file(copy)
    path.rename(path.with_stem("A" * 8 + path.stem[8:]))
    assert "data is invalid" in failure(import_vm, on_host("HV1"), copy)


def test_a_definition_of_a_newer_version(on_host, fabric, machine, tmp_path):
    copy = copied(machine, tmp_path)
    assert "configuration version 9.0" in failure(import_vm, on_host("HV-2016"), copy)
    assert not fabric.virtual_machines("HV-2016")


def test_what_is_no_definition(on_host, tmp_path):
    migration = on_host("HV1").get_migrationutils()
    (tmp_path / "file.txt").touch()
    for path in ("file.txt", "missing.vmcx"):
        assert "32773" in failure(migration.import_vm_definition, str(tmp_path / path), "")


def test_a_failed_realize_leaves_nothing(on_host, fabric, machine, tmp_path, monkeypatch):
    from tests.hyperv.virtual_machine import VirtualMachine
    copy, real = copied(machine, tmp_path), VirtualMachine.save
    migration = import_vm(on_host("HV1"), copy)

    def move_to(folder):
        machine.vmutils.update_vm(machine.name, 512, None, 1, None, False, 1,
                                  configuration_root_dir=str(folder))

    move_to(tmp_path / "new")
    before = files(tmp_path)
    with monkeypatch.context() as patch:
        def broken(self):
            real(self)
            raise OSError("The disk is full.")
        patch.setattr(VirtualMachine, "save", broken)
        assert "The disk is full." in failure(migration.realize_vm, machine.name)
    assert files(tmp_path) == before and migration.planned_vm_exists(machine.name)
    # The guest state still goes where the definition goes.
    move_to(tmp_path / "newer")
    migration.realize_vm(machine.name)
    assert fabric.virtual_machine("HV1", machine.name)["guest_state_file"].startswith(
        str(tmp_path / "newer"))
    assert holds_secret(fabric, "HV1", machine)
