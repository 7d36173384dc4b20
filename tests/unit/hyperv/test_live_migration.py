"""Live migration between simulated hosts, driven by os-win's own LiveMigrationUtils."""
import json
import pathlib
import subprocess
import sys

import pytest

from tests.hyperv import fabric_process, key_protector, live_migration, native, windows
from tests.hyperv.fabric import Fabric
from tests.hyperv.guardian import Guardian
from tests.unit.hyperv.machine import Machine

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
V2 = "//%s/root/virtualization/v2"
RUNNING, OFF, PAUSED = 2, 3, 9
SECRET = b"BitLocker's key"


@pytest.fixture(scope="module")
def fabric():
    return Fabric({"fabrics": ["east", "west"], "hosts": [
        {"name": "HV1", "fabric": "east", "live_migration": True},
        {"name": "HV2", "fabric": "east", "live_migration": True},
        {"name": "HV-WEST", "fabric": "west", "live_migration": True},
        {"name": "HV-OLD", "version": "6.3.9600", "live_migration": True},
        {"name": "HV-SMALL", "memory_mb": 512, "live_migration": True},
        {"name": "HV-LOCAL", "live_migration": True}, {"name": "HV-LOCAL2", "live_migration": True},
        {"name": "HV-DEAF", "live_migration": True, "live_migration_addresses": []},
        {"name": "HV-CLOSED"}]})


@pytest.fixture
def on_host(fabric):
    """A function that lets this process run on a host."""
    def run_on(name):
        windows.install(fabric, name)
        from os_win import utilsfactory
        return utilsfactory
    run_on("HV1")
    return run_on


@pytest.fixture(scope="module")
def owner():
    return Guardian.generate("tenant")


@pytest.fixture(scope="module")
def protector(fabric, owner):
    def make(*names):
        return key_protector.make_protector(
            owner, [Guardian.from_metadata(fabric.metadata(name), name) for name in names])
    return make


@pytest.fixture
def machine(on_host, tmp_path):
    """A running VM on HV1."""
    vmutils = on_host("HV1").get_vmutils()
    vmutils.create_vm(tmp_path.name, False, 2, str(tmp_path), ["notes"])
    vmutils.create_scsi_controller(tmp_path.name)
    disk = tmp_path / "root.vhdx"
    disk.write_bytes(b"disk")
    vmutils.attach_drive(tmp_path.name, str(disk), vmutils.get_vm_scsi_controller(tmp_path.name), 0)
    return Machine(vmutils, tmp_path.name)


@pytest.fixture
def tpm(machine, protector, fabric):
    """The VM runs with a TPM that holds a secret."""
    machine.set_protector(protector("east"))
    machine.enable_tpm()
    machine.start()
    fabric.write_tpm("HV1", machine.name, "bitlocker", SECRET)
    return machine


def migrate(on_host, name, destination, source="HV1", with_storage=False):
    on_host(source).get_livemigrationutils().live_migrate_vm(
        name, destination, migrate_disks=with_storage)


def failure(on_host, name, destination, **keywords):
    from os_win import exceptions
    with pytest.raises(exceptions.WMIJobFailed) as caught:
        migrate(on_host, name, destination, **keywords)
    return str(caught.value)


def names(fabric, host):
    return [machine["name"] for machine in fabric.virtual_machines(host)]


def test_a_vm_moves_while_it_runs(on_host, fabric, machine):
    machine.start()
    fabric.clock.advance(60)
    before = fabric.virtual_machine("HV1", machine.name)
    migrate(on_host, machine.name, "HV2")
    assert fabric.host("HV2").management.machine_named(
        machine.name).uptime_milliseconds() >= 60000
    # Nothing of its guest is at the source any more.
    import wmi
    assert not wmi.WMI(V2 % "HV1").Msvm_ShutdownComponent(SystemName=before["id"])
    after = fabric.virtual_machine("HV2", machine.name)
    assert machine.name not in names(fabric, "HV1")
    assert after == before and after["state"] == RUNNING

    moved = on_host("HV2").get_vmutils()
    assert moved.get_vm_storage_paths(machine.name)[0] == [
        str(pathlib.Path(after["guest_state_file"]).parents[1] / "root.vhdx")]
    moved.soft_shutdown_vm(machine.name)
    assert fabric.virtual_machine("HV2", machine.name)["state"] == OFF
    moved.destroy_vm(machine.name)


def test_a_tpm_goes_with_what_it_holds(on_host, fabric, tpm):
    before = fabric.virtual_machine("HV1", tpm.name)["key_protector"]
    migrate(on_host, tpm.name, "HV2")
    assert fabric.read_tpm("HV2", tpm.name, "bitlocker") == SECRET
    moved = Machine(on_host("HV2").get_vmutils(), tpm.name)
    rolled = moved.protector()
    assert rolled != before
    assert ([w.thumbprint for w in key_protector.read(rolled)]
            == [w.thumbprint for w in key_protector.read(before)])

    # The protector from before the move opens the TPM no more, the last known good one does.
    moved.stop()
    moved.set_protector(before)
    from os_win import exceptions
    with pytest.raises(exceptions.WMIJobFailed, match="0xC000A002"):
        moved.start()
    moved.vmutils._sec_svc.RestoreLastKnownGoodKeyProtector(
        SecuritySettingData=moved.settings().GetText_(1))
    assert moved.protector() == rolled
    moved.start()
    assert fabric.read_tpm("HV2", tpm.name, "bitlocker") == SECRET


def test_there_and_back(on_host, fabric, tpm):
    migrate(on_host, tpm.name, "HV2")
    fabric.write_tpm("HV2", tpm.name, "second", b"more")
    migrate(on_host, tpm.name, "HV1", source="HV2")
    assert fabric.read_tpm("HV1", tpm.name, "bitlocker") == SECRET
    assert fabric.read_tpm("HV1", tpm.name, "second") == b"more"


def stays(fabric, machine, destination, before):
    """The VM runs on HV1 as it did, its TPM readable, and nothing is at the destination."""
    assert fabric.virtual_machine("HV1", machine.name) == before
    assert fabric.read_tpm("HV1", machine.name, "bitlocker") == SECRET
    assert machine.name not in names(fabric, destination)
    windows.install(fabric, "HV1")
    machine.stop()
    machine.start()
    return fabric.read_tpm("HV1", machine.name, "bitlocker") == SECRET


def test_another_fabric_does_not_take_it(on_host, fabric, tpm):
    before = fabric.virtual_machine("HV1", tpm.name)
    words = failure(on_host, tpm.name, "HV-WEST")
    assert "'Microsoft Virtual TPM Device'" in words and "'HV-WEST'" in words
    assert "could not be unwrapped" in words and "0x80070057" in words
    assert stays(fabric, tpm, "HV-WEST", before)


def test_a_host_that_is_not_attested_does_not_take_it(on_host, fabric, tpm):
    before = fabric.virtual_machine("HV1", tpm.name)
    fabric.set_guarded("HV2", False)
    try:
        assert "could not be unwrapped" in failure(on_host, tpm.name, "HV2")
    finally:
        fabric.set_guarded("HV2", True)
    assert stays(fabric, tpm, "HV2", before)


@pytest.mark.parametrize("spoil", [
    lambda raw, old: old, lambda raw, old: raw[:-1],
    lambda raw, old: raw.replace(b"<Id>2", b"<Id>3")])
def test_an_old_or_damaged_protector_fails_at_the_arrival(on_host, fabric, tpm, protector, spoil):
    before = fabric.virtual_machine("HV1", tpm.name)
    stored = fabric.host("HV1").management.machine_named(tpm.name)
    good, stored.key_protector = stored.key_protector, spoil(
        stored.key_protector, protector("east"))
    words = failure(on_host, tpm.name, "HV2")
    stored.key_protector = good
    assert "Microsoft Virtual TPM Device" in words
    assert stays(fabric, tpm, "HV2", before)
    migrate(on_host, tpm.name, "HV2")
    assert fabric.read_tpm("HV2", tpm.name, "bitlocker") == SECRET


def test_in_local_mode_a_guardian_with_private_keys_is_needed(on_host, fabric, machine):
    on_host("HV-LOCAL")
    import wmi
    hgs = wmi.WMI("//./root/microsoft/windows/hgs")
    _, guardian = hgs.MSFT_HgsGuardian.NewByGenerateCertificates(
        Name=machine.name, GenerateCertificates=True)
    _, made = hgs.MSFT_HgsKeyProtector.NewByGuardians(
        Owner=guardian, Guardian=[], AllowUntrustedRoot=True)
    folder = fabric.virtual_machine("HV1", machine.name)["guest_state_file"]
    vmutils = on_host("HV-LOCAL").get_vmutils()
    name = machine.name + "-local"
    vmutils.create_vm(name, False, 2, str(pathlib.Path(folder).parents[1]), [])
    local = Machine(vmutils, name)
    local.set_protector(made.RawData)
    local.enable_tpm()
    local.start()
    fabric.write_tpm("HV-LOCAL", name, "bitlocker", SECRET)
    assert "could not be unwrapped" in failure(on_host, name, "HV-LOCAL2", source="HV-LOCAL")
    assert fabric.read_tpm("HV-LOCAL", name, "bitlocker") == SECRET

    # With the keys of the untrusted guardian in its store too, the other host takes it.
    keys = fabric.host("HV-LOCAL").hgs_client._find(machine.name)
    fabric.host("HV-LOCAL2").hgs_client.add(keys)
    migrate(on_host, name, "HV-LOCAL2", source="HV-LOCAL")
    assert fabric.read_tpm("HV-LOCAL2", name, "bitlocker") == SECRET


@pytest.mark.parametrize("destination, words", [
    ("NOWHERE", "No such host is known"), ("HV-CLOSED", "actively refused it"),
    ("HV-DEAF", "actively refused it"), ("HV-OLD", "configuration version 9.0"),
    ("HV-SMALL", "Not enough memory")])
def test_refused_destinations(on_host, fabric, machine, destination, words):
    from os_win import exceptions
    machine.start()
    before = fabric.virtual_machine("HV1", machine.name)
    utils = on_host("HV1").get_livemigrationutils()
    import wmi
    connection = wmi.WMI(V2 % "HV1")
    system = connection.Msvm_ComputerSystem(ElementName=machine.name)[0]
    # os-win itself reads the destination first; the service is asked as a script would.
    settings = connection.Msvm_VirtualSystemMigrationSettingData(MigrationType=32768)[0]
    service = connection.Msvm_VirtualSystemMigrationService()[0]
    for method in ("MigrateVirtualSystemToHost", "CheckVirtualSystemIsMigratable"):
        job, result = getattr(service, method)(
            ComputerSystem=system.path_(), DestinationHost=destination,
            MigrationSettingData=settings.GetText_(1))
        with pytest.raises(exceptions.WMIJobFailed, match=words):
            utils._jobutils.check_ret_val(result, job)
    assert fabric.virtual_machine("HV1", machine.name) == before
    if destination != "NOWHERE":
        assert not fabric.virtual_machines(destination)


def test_live_migration_must_be_enabled(on_host, fabric):
    from os_win import exceptions
    utils = on_host("HV-CLOSED").get_livemigrationutils()
    with pytest.raises(exceptions.HyperVException, match="not enabled"):
        utils.check_live_migration_config()
    import wmi
    connection = wmi.WMI(V2 % ".")
    settings = connection.Msvm_VirtualSystemMigrationServiceSettingData()[0]
    settings.EnableVirtualSystemMigration = True
    service = connection.Msvm_VirtualSystemMigrationService()[0]
    try:
        assert service.ModifyServiceSettings(ServiceSettingData=settings.GetText_(1))[1] == 0
        utils.check_live_migration_config()
    finally:
        settings.EnableVirtualSystemMigration = False
        service.ModifyServiceSettings(ServiceSettingData=settings.GetText_(1))
    with pytest.raises(exceptions.HyperVException, match="networks are not configured"):
        on_host("HV-DEAF").get_livemigrationutils().check_live_migration_config()


def test_moves_of_the_storage_alone_are_not_supported(on_host, machine):
    on_host("HV1")
    import wmi
    connection = wmi.WMI(V2 % "HV1")
    settings = connection.Msvm_VirtualSystemMigrationSettingData(MigrationType=32769)[0]
    assert connection.Msvm_VirtualSystemMigrationService()[0].MigrateVirtualSystemToHost(
        ComputerSystem=connection.Msvm_ComputerSystem(ElementName=machine.name)[0].path_(),
        DestinationHost="HV2", MigrationSettingData=settings.GetText_(1))[1] == 1


def test_a_planned_vm_is_where_it_arrives(on_host, fabric, tpm):
    before = fabric.virtual_machine("HV1", tpm.name)
    planned = on_host("HV2").get_livemigrationutils()
    planned.create_planned_vm(tpm.name, "HV1", {})
    assert planned.planned_vm_exists(tpm.name)
    assert fabric.virtual_machine("HV2", tpm.name)["planned"]
    assert fabric.virtual_machine("HV1", tpm.name) == before
    # It becomes real by the migration alone.
    assert planned._vs_man_svc.RealizePlannedSystem(
        planned._get_planned_vm(tpm.name).path_())[2] == 32775
    migrate(on_host, tpm.name, "HV2")
    assert not fabric.virtual_machine("HV2", tpm.name)["planned"]
    assert fabric.read_tpm("HV2", tpm.name, "bitlocker") == SECRET


def test_a_planned_vm_stays_planned_when_the_move_fails(on_host, fabric, tpm):
    before = fabric.virtual_machine("HV1", tpm.name)
    planned = on_host("HV-WEST").get_livemigrationutils()
    planned.create_planned_vm(tpm.name, "HV1", {})
    assert "could not be unwrapped" in failure(on_host, tpm.name, "HV-WEST")
    assert fabric.virtual_machine("HV-WEST", tpm.name)["planned"]
    on_host("HV-WEST")
    planned.destroy_existing_planned_vm(tpm.name)
    # What lies in shared storage is not the planned VM's.
    assert stays(fabric, tpm, "HV-WEST", before)


def test_a_vm_of_that_id_is_there(on_host, fabric, machine):
    machine.start()
    on_host("HV2").get_livemigrationutils().create_planned_vm(machine.name, "HV1", {})
    utils = on_host("HV1").get_livemigrationutils()
    from os_win import exceptions
    with pytest.raises(exceptions.WMIJobFailed, match="already exists"):
        utils._live_migrate_vm(
            utils._compat_conn, utils._get_vm(utils._compat_conn, machine.name), None,
            ["198.51.100.2"], None, "HV2", 32768)


def test_a_vm_that_is_off_brings_its_guest_state(on_host, fabric, tpm):
    protector_before = tpm.protector()
    tpm.stop()
    # Nothing is unwrapped until it starts.
    migrate(on_host, tpm.name, "HV-WEST")
    moved = Machine(on_host("HV-WEST").get_vmutils(), tpm.name)
    assert moved.protector() == protector_before
    from os_win import exceptions
    with pytest.raises(exceptions.WMIJobFailed, match="could not be unwrapped"):
        moved.start()
    migrate(on_host, tpm.name, "HV2", source="HV-WEST")
    Machine(on_host("HV2").get_vmutils(), tpm.name).start()
    assert fabric.read_tpm("HV2", tpm.name, "bitlocker") == SECRET


def test_another_host_takes_over_when_one_dies(fabric, tpm, on_host):
    source = fabric.host("HV1")
    moved = live_migration.take_over(
        source.management.machine_named(tpm.name), source, fabric.host("HV2"))
    assert moved.is_off and tpm.name not in names(fabric, "HV1")
    Machine(on_host("HV2").get_vmutils(), tpm.name).start()
    assert fabric.read_tpm("HV2", tpm.name, "bitlocker") == SECRET


def test_a_migration_that_takes_its_time(on_host, fabric, tpm):
    on_host("HV1")
    import wmi
    connection = wmi.WMI(V2 % "HV1")
    settings = connection.Msvm_VirtualSystemMigrationSettingData(MigrationType=32768)[0]
    system = connection.Msvm_ComputerSystem(ElementName=tpm.name)[0]

    def begin():
        fabric.add_delay("HV1", "*.MigrateVirtualSystemToHost", 60)
        job, result = connection.Msvm_VirtualSystemMigrationService()[0].MigrateVirtualSystemToHost(
            ComputerSystem=system.path_(), DestinationHost="HV2",
            MigrationSettingData=settings.GetText_(1))
        assert result == 4096
        fabric.clock.advance(30)
        assert tpm.name not in names(fabric, "HV2")
        assert fabric.read_tpm("HV1", tpm.name, "bitlocker") == SECRET
        return wmi.WMI(moniker=job.replace("\\", "/"))
    assert begin().RequestStateChange(5)[-1] in (0, 4096)
    fabric.clock.advance(60)
    assert tpm.name in names(fabric, "HV1") and tpm.name not in names(fabric, "HV2")
    begin()
    fabric.clock.advance(60)
    assert tpm.name not in names(fabric, "HV1")
    assert fabric.read_tpm("HV2", tpm.name, "bitlocker") == SECRET


def ask(method, name, destination="HV2", kind=32768):
    """Call a method of the migration service of HV1; its return value and words of its job."""
    import wmi
    connection = wmi.WMI(V2 % "HV1")
    settings = connection.Msvm_VirtualSystemMigrationSettingData(MigrationType=kind)[0]
    job, value = getattr(connection.Msvm_VirtualSystemMigrationService()[0], method)(
        ComputerSystem=connection.Msvm_ComputerSystem(ElementName=name)[0].path_(),
        DestinationHost=destination, MigrationSettingData=settings.GetText_(1))
    return value, job and wmi.WMI(moniker=job.replace("\\", "/")).ErrorDescription


def test_a_vm_whose_job_runs_does_not_move(on_host, fabric, machine):
    on_host("HV1")
    fabric.add_delay("HV1", "*.RequestStateChange", 60)
    system = machine.vmutils._lookup_vm_check(machine.name, as_vssd=False)
    assert system.RequestStateChange(RequestedState=RUNNING)[1] == 4096
    assert ask("MigrateVirtualSystemToHost", machine.name)[0] == 32774
    value, words = ask("CheckVirtualSystemIsMigratable", machine.name)
    assert value == 4096 and "0x800700AA" in words and "source 'HV1'" in words
    fabric.clock.advance(60)
    migrate(on_host, machine.name, "HV2")


def test_a_planned_vm_whose_job_runs_is_no_destination(on_host, fabric, machine):
    there = on_host("HV2").get_livemigrationutils()
    there.create_planned_vm(machine.name, "HV1", {})
    fabric.add_delay("HV2", "*.ModifySystemSettings", 60)
    import wmi
    (settings,) = wmi.WMI(V2 % "HV2").Msvm_VirtualSystemSettingData(ElementName=machine.name)
    assert there._vs_man_svc.ModifySystemSettings(SystemSettings=settings.GetText_(1))[1] == 4096
    words = failure(on_host, machine.name, "HV2")
    assert "0x800700AA" in words and "destination 'HV2'" in words
    fabric.clock.advance(60)
    migrate(on_host, machine.name, "HV2")


def test_a_migration_is_checked_when_it_is_called(on_host, fabric, machine):
    on_host("HV1")
    fabric.add_delay("HV1", "*.MigrateVirtualSystemToHost", 60)
    try:
        assert ask("MigrateVirtualSystemToHost", machine.name, kind=32769) == (1, None)
        fabric.add_delay("HV1", "*.MigrateVirtualSystemToHost", 60)
        assert ask("MigrateVirtualSystemToHost", machine.name, destination="") == (4, None)
    finally:
        fabric.clear_faults("HV1")


def test_a_planned_vm_that_lost_its_physical_disk(on_host, fabric, machine):
    vmutils = machine.vmutils
    vmutils.attach_volume_to_controller(
        machine.name, vmutils.get_vm_scsi_controller(machine.name), 1, "a disk", serial="serial")
    there = on_host("HV2").get_livemigrationutils()
    there.create_planned_vm(machine.name, "HV1", {"serial": "another"})
    import wmi
    planned = fabric.virtual_machine("HV2", machine.name)["id"]
    (disk,) = (found for found in wmi.WMI(V2 % "HV2").Msvm_ResourceAllocationSettingData(
        ResourceSubType="Microsoft:Hyper-V:Physical Disk Drive") if planned in found.InstanceID)
    assert there._vs_man_svc.RemoveResourceSettings(ResourceSettings=[disk.path_()])[1] == 0
    assert "physical disk" in failure(on_host, machine.name, "HV2")
    assert machine.name in names(fabric, "HV1")


def test_a_definition_that_is_gone(on_host, fabric, machine, tmp_path):
    (definition,) = tmp_path.rglob("*.vmcx")
    definition.unlink()
    words = failure(on_host, machine.name, "HV2")
    assert "cannot find the file" in words and definition.name in words
    assert machine.name not in names(fabric, "HV2")


# Over the socket of a fabric process.

@pytest.mark.parametrize("threads", ["native", "eventlet"])
def test_a_tpm_goes_and_comes_back_over_a_socket(fabric, tpm, tmp_path, threads):
    path = str(tmp_path / "fabric")
    server = fabric_process.Server(fabric, path)
    worker = native.module("threading").Thread(target=server.run, daemon=True)
    worker.start()
    protectors = [tpm.protector()]
    try:
        for source, destination in (("HV1", "HV2"), ("HV2", "HV1")):
            done = subprocess.run(
                [sys.executable, str(pathlib.Path(__file__).with_name("migration_life.py")),
                 str(REPOSITORY), path, source, tpm.name, destination, threads],
                capture_output=True, text=True, timeout=100, check=False)
            assert done.returncode == 0, done.stderr
            said = json.loads(done.stdout.splitlines()[-1])
            assert tpm.name in said["before"] and tpm.name not in said["after"]
            assert tpm.name not in names(fabric, source)
            there = fabric.virtual_machine(destination, tpm.name)
            assert there["state"] == RUNNING
            assert there["key_protector"] not in protectors
            protectors.append(there["key_protector"])
            assert fabric.read_tpm(destination, tpm.name, "bitlocker") == SECRET
            fabric.write_tpm(destination, tpm.name, destination, b"written there")
    finally:
        server.stop()
    tpm.stop()
    tpm.start()
    for name, value in (("bitlocker", SECRET), ("HV2", b"written there"),
                        ("HV1", b"written there")):
        assert fabric.read_tpm("HV1", tpm.name, name) == value
