"""Jobs that start, run, end, fail and are stopped, as PyMI and os-win see them."""
import datetime
import xml.etree.ElementTree as ElementTree

import pytest

from tests.hyperv import cim, native, windows
from tests.hyperv.connection import RemoteComputer
from tests.hyperv.fabric import Fabric
from tests.hyperv.fabric_client import FabricClient
from tests.hyperv.fabric_process import Server

V2 = "root/virtualization/v2"
GENERATION_2 = 2
DEFINE, CHANGE = "*.DefineSystem", "Msvm_ComputerSystem.RequestStateChange"
MINUTE = 60


@pytest.fixture
def fabric():
    fabric = Fabric({"fabrics": ["east"], "hosts": [{"name": "HV1", "fabric": "east"}]})
    windows.install(fabric, "HV1")
    return fabric


@pytest.fixture
def vmutils(fabric):
    from os_win import utilsfactory
    return utilsfactory.get_vmutils()


@pytest.fixture
def system(vmutils, tmp_path):
    """A VM, as PyMI gives it."""
    vmutils.create_vm("vm", False, GENERATION_2, str(tmp_path), [])
    return vmutils._lookup_vm_check("vm", as_vssd=False)


@pytest.fixture
def job_of(vmutils):
    return lambda path: vmutils._jobutils._get_wmi_obj(path.replace("\\", "/"))


def state_of(fabric):
    return fabric.virtual_machine("HV1", "vm")["state"]


def test_a_job_is_finished_unless_it_is_delayed(fabric, system, job_of):
    path, value = system.RequestStateChange(RequestedState=2)
    assert (value, job_of(path).JobState, job_of(path).PercentComplete) == (4096, 7, 100)
    assert state_of(fabric) == 2


def test_a_delayed_job_works_at_its_end(fabric, system, job_of):
    fabric.add_delay("HV1", CHANGE, MINUTE)
    path, value = system.RequestStateChange(RequestedState=2)
    assert value == 4096
    assert job_of(path).JobState in (3, 4)
    assert state_of(fabric) == 10
    fabric.advance_clock(MINUTE / 2)
    job = job_of(path)
    assert job.JobState == 4
    assert 50 <= job.PercentComplete < 60
    assert job.JobType == 0
    assert 30 <= job.ElapsedTime.total_seconds() < 36
    fabric.advance_clock(MINUTE / 2 - 10)
    assert job_of(path).JobState == 4
    assert state_of(fabric) == 10
    fabric.advance_clock(10)
    job = job_of(path)
    assert (job.JobState, job.PercentComplete, job.ErrorCode) == (7, 100, 0)
    assert job.GetErrorEx() == (None, 0)
    assert state_of(fabric) == 2


def test_only_the_calls_that_were_asked_for_are_delayed(fabric, system, job_of):
    fabric.add_delay("HV1", CHANGE, MINUTE, nth=2)
    for state, expected in ((2, (7,)), (3, (3, 4))):
        path, _ = system.RequestStateChange(RequestedState=state)
        assert job_of(path).JobState in expected


def test_out_parameters_come_with_the_end(fabric, vmutils, tmp_path, job_of):
    fabric.add_delay("HV1", DEFINE, MINUTE)
    settings = vmutils._conn.Msvm_VirtualSystemSettingData.new()
    settings.ElementName, settings.ConfigurationDataRoot = "vm", str(tmp_path)
    path, result, value = vmutils._vs_man_svc.DefineSystem(SystemSettings=settings.GetText_(1))
    assert (result, value) == (None, 4096)
    assert fabric.virtual_machines("HV1") == []
    fabric.advance_clock(MINUTE)
    (made,) = job_of(path).associators(
        wmi_association_class="Msvm_AffectedJobElement", wmi_result_class="Msvm_ComputerSystem")
    assert made.ElementName == "vm"
    assert job_of(path).JobType == 1


def test_parameters_and_state_are_checked_when_the_method_is_called(fabric, system, vmutils):
    import wmi
    fabric.add_delay("HV1", "*", MINUTE, times=None)
    assert system.RequestStateChange(RequestedState=3) == (None, 32775)
    with pytest.raises(wmi.x_wmi):
        vmutils._vs_man_svc.ModifySystemSettings(SystemSettings="<INSTANCE CLASSNAME='None'/>")
    fabric.clear_faults("HV1")
    system.RequestStateChange(RequestedState=2)
    fabric.add_delay("HV1", "*", MINUTE, times=None)
    assert vmutils._vs_man_svc.DestroySystem(system.path_()) == (None, 32775)
    settings = vmutils._lookup_vm_check("vm")
    settings.SecureBootEnabled = True
    assert vmutils._vs_man_svc.ModifySystemSettings(
        SystemSettings=settings.GetText_(1)) == (None, 32775)
    assert vmutils._conn.Msvm_ConcreteJob(JobState=4) == []


def test_the_state_is_checked_again_when_the_job_runs(fabric, system, job_of):
    fabric.add_delay("HV1", CHANGE, MINUTE)
    path, _ = system.RequestStateChange(RequestedState=2)
    # Nothing on the host can do this while the job runs; a test can.
    fabric.host("HV1").management.machine_named("vm").imported_from = "elsewhere"
    fabric.advance_clock(MINUTE)
    job = job_of(path)
    assert (job.JobState, job.ErrorCode) == (10, 32775)
    assert job.ErrorDescription == "Invalid state for this operation"
    assert state_of(fabric) == 3


@pytest.mark.parametrize("delay", [0, MINUTE])
@pytest.mark.parametrize("point, state", [("before", 3), ("after", 2)])
def test_a_job_fails_before_or_after_its_work(fabric, system, job_of, delay, point, state):
    fabric.add_fault("HV1", CHANGE, job_error=("It broke.", 32778), delay=delay, point=point)
    path, value = system.RequestStateChange(RequestedState=2)
    assert value == 4096
    assert (job_of(path).JobState == 10) == (not delay)
    fabric.advance_clock(delay)
    job = job_of(path)
    assert (job.JobState, job.ErrorCode) == (10, 32778)
    assert job.ErrorDescription == job.ErrorSummaryDescription == "It broke."
    assert state_of(fabric) == state


def test_a_method_fails_after_its_work(fabric, system):
    fabric.add_fault("HV1", CHANGE, return_value=32768, point="after", nth=2)
    assert system.RequestStateChange(RequestedState=2)[1] == 4096
    # A call that is refused is no less refused.
    fabric.add_fault("HV1", CHANGE, return_value=32778, point="after")
    assert system.RequestStateChange(RequestedState=3)[1] == 32768
    assert state_of(fabric) == 3
    assert system.RequestStateChange(RequestedState=3)[1] == 32775


@pytest.mark.parametrize("wrong", [
    {}, {"return_value": 1, "job_error": ("", 1)}, {"return_value": 1, "delay": 1},
    {"return_value": 1, "point": "during"}])
def test_faults_that_make_no_sense(fabric, wrong):
    with pytest.raises(ValueError):
        fabric.add_fault("HV1", "*", **wrong)


def test_the_errors_of_a_job(fabric, system, job_of):
    fabric.add_fault("HV1", CHANGE, job_error=("It <broke>.", 32768))
    path, _ = system.RequestStateChange(RequestedState=2)
    (text,), value = job_of(path).GetErrorEx()
    assert value == 0
    error = ElementTree.fromstring(text)
    assert error.get("CLASSNAME") == "Msvm_Error"
    values = {p.get("NAME"): p.findtext("VALUE") for p in error}
    assert (values["Message"], values["MessageID"]) == ("It <broke>.", "32768")
    assert job_of(path).GetError() == (text, 0)


def test_other_changes_are_refused_while_a_job_of_the_machine_runs(
        fabric, system, vmutils, tmp_path):
    vmutils.create_vm("other", False, GENERATION_2, str(tmp_path), [])
    fabric.add_delay("HV1", CHANGE, MINUTE)
    system.RequestStateChange(RequestedState=2)
    assert system.RequestStateChange(RequestedState=3) == (None, 32775)
    service, settings = vmutils._vs_man_svc, vmutils._lookup_vm_check("vm")
    assert service.DestroySystem(system.path_()) == (None, 32774)
    assert service.ModifySystemSettings(SystemSettings=settings.GetText_(1)) == (None, 32774)
    security = vmutils._conn.query(
        "SELECT * FROM Msvm_SecuritySettingData WHERE InstanceID LIKE 'Microsoft:%s%%'"
        % settings.ConfigurationID)[0].GetText_(1)
    assert vmutils._sec_svc.ModifySecuritySettings(SecuritySettingData=security) == (None, 5)
    assert vmutils._sec_svc.GetKeyProtector(SecuritySettingData=security)[1] == 0
    assert vmutils.get_vm_summary_info("vm")
    vmutils.destroy_vm("other")
    fabric.advance_clock(MINUTE)
    assert system.RequestStateChange(RequestedState=3)[1] == 4096


SNAPSHOTS = {
    "CreateSnapshot": lambda service, system, taken: service.CreateSnapshot(
        AffectedSystem=system.path_(), SnapshotType=2)[-1],
    "DestroySnapshot": lambda service, system, taken: service.DestroySnapshot(
        AffectedSnapshot=taken)[-1],
    "DestroySnapshotTree": lambda service, system, taken: service.DestroySnapshotTree(
        SnapshotSettingData=taken)[-1],
    "ApplySnapshot": lambda service, system, taken: service.ApplySnapshot(Snapshot=taken)[-1]}


@pytest.fixture
def snapshots(vmutils):
    return vmutils._compat_conn.Msvm_VirtualSystemSnapshotService()[0]


@pytest.mark.parametrize("method", SNAPSHOTS)
def test_the_job_of_a_snapshot_is_one_of_its_machine(fabric, system, vmutils, snapshots, method):
    taken = vmutils.take_vm_snapshot("vm")
    fabric.add_delay("HV1", "*." + method, MINUTE)
    assert SNAPSHOTS[method](snapshots, system, taken) == 4096
    (running,) = (job for job in vmutils._conn.Msvm_ConcreteJob(ElementName=method)
                  if job.JobState in (3, 4))
    assert [found.ElementName for found in running.associators(
        wmi_association_class="Msvm_AffectedJobElement",
        wmi_result_class="Msvm_ComputerSystem")] == ["vm"]
    assert system.RequestStateChange(RequestedState=2) == (None, 32775)
    assert SNAPSHOTS["DestroySnapshot"](snapshots, system, taken) == 5
    settings = vmutils._lookup_vm_check("vm")
    assert vmutils._vs_man_svc.ModifySystemSettings(
        SystemSettings=settings.GetText_(1)) == (None, 32774)
    fabric.advance_clock(MINUTE)
    assert system.RequestStateChange(RequestedState=2)[1] == 4096


@pytest.mark.parametrize("method, code", [
    ("CreateSnapshot", 5), ("DestroySnapshot", 5), ("ApplySnapshot", 5),
    ("DestroySnapshotTree", 32774)])
def test_a_snapshot_stays_while_a_job_of_its_machine_runs(
        fabric, system, vmutils, snapshots, method, code):
    taken = vmutils.take_vm_snapshot("vm")
    fabric.add_delay("HV1", CHANGE, MINUTE)
    system.RequestStateChange(RequestedState=2)
    assert SNAPSHOTS[method](snapshots, system, taken) == code
    assert vmutils.get_vm_snapshots("vm") == [taken]


def test_the_elements_of_finished_jobs(fabric, system, vmutils, snapshots, job_of):
    """A job names its VM, also one that failed; one whose VM or snapshot is gone names none."""
    def affected(path, result="CIM_ManagedElement"):
        return sorted(found.ElementName for found in job_of(path).associators(
            wmi_association_class="Msvm_AffectedJobElement", wmi_result_class=result))
    made, _, value = snapshots.CreateSnapshot(AffectedSystem=system.path_(), SnapshotType=2)
    assert value == 4096
    assert affected(made, "Msvm_ComputerSystem") == ["vm"]
    assert len(affected(made)) == 2  # and the snapshot
    fabric.add_fault("HV1", CHANGE, job_error=("It broke.", 32768))
    path, _ = system.RequestStateChange(RequestedState=2)
    assert affected(path) == ["vm"]
    (taken,) = vmutils.get_vm_snapshots("vm")
    vmutils.remove_vm_snapshot(taken)
    assert affected(made) == ["vm"]
    vmutils.destroy_vm("vm")
    assert affected(made) == affected(path) == []


@pytest.mark.parametrize("delay", [0, MINUTE])
def test_a_file_that_cannot_be_written_fails_the_job(
        fabric, system, vmutils, job_of, delay, monkeypatch):
    from tests.hyperv import virtual_machine

    def full(self):
        raise OSError("The disk is full.")
    monkeypatch.setattr(virtual_machine.VirtualMachine, "save", full)
    if delay:
        fabric.add_delay("HV1", "*.ModifySystemSettings", delay)
    settings = vmutils._lookup_vm_check("vm")
    path, value = vmutils._vs_man_svc.ModifySystemSettings(SystemSettings=settings.GetText_(1))
    fabric.advance_clock(delay)
    assert value == 4096
    assert (job_of(path).JobState, job_of(path).ErrorDescription) == (10, "The disk is full.")


@pytest.mark.parametrize("request_, expected", [(4, 8), (5, 9)])
def test_a_job_is_stopped(fabric, system, job_of, request_, expected):
    fabric.add_delay("HV1", CHANGE, MINUTE)
    path, _ = system.RequestStateChange(RequestedState=2)
    assert job_of(path).RequestStateChange(RequestedState=request_) == (0,)
    job = job_of(path)
    assert job.JobState == expected
    assert "canceled" in job.GetErrorEx()[0][0]
    fabric.advance_clock(MINUTE)
    assert state_of(fabric) == 3
    assert job_of(path).JobState == expected
    system.RequestStateChange(RequestedState=2)
    assert state_of(fabric) == 2


def test_requests_that_a_job_refuses(fabric, system, job_of):
    fabric.add_delay("HV1", CHANGE, MINUTE, cancellable=False)
    path, _ = system.RequestStateChange(RequestedState=2)
    job = job_of(path)
    assert not job.Cancellable
    assert job.RequestStateChange(RequestedState=5) == (1,)
    assert job.RequestStateChange(RequestedState=3) == (1,)
    assert job.RequestStateChange(RequestedState=77) == (5,)
    with pytest.raises(TypeError):  # PyMI can give no time limit; others can
        job.RequestStateChange(RequestedState=5, TimeoutPeriod="00000000000001.000000:000")
    limited = cim.Instance(None)
    limited.add_element("RequestedState", cim.CimType("uint16"), 5)
    limited.add_element("TimeoutPeriod", cim.CimType("datetime"), "00000000000001.000000:000")
    answer = fabric.call_repository(
        "HV1", "invoke", job.get_wrapped_object(), "RequestStateChange", limited)
    assert answer["ReturnValue"] == 4098
    fabric.advance_clock(MINUTE)
    assert job_of(path).RequestStateChange(RequestedState=5) == (4097,)


def test_os_win_stops_jobs(fabric, system, vmutils):
    fabric.add_delay("HV1", CHANGE, MINUTE)
    system.RequestStateChange(RequestedState=2)
    vmutils.stop_vm_jobs("vm")
    (job,) = vmutils._conn.Msvm_ConcreteJob(ElementName="RequestStateChange")
    assert job.JobState == 9


def test_os_win_cannot_stop_a_job_that_is_not_cancellable(fabric, system, vmutils):
    from os_win import exceptions
    fabric.add_delay("HV1", CHANGE, MINUTE, cancellable=False)
    system.RequestStateChange(RequestedState=2)
    with pytest.raises(exceptions.JobTerminateFailed):
        vmutils.stop_vm_jobs("vm", timeout=0.001)


def test_os_win_waits_for_jobs(fabric, vmutils, tmp_path):
    from os_win import constants, exceptions
    for pattern in (DEFINE, "*.ModifySystemSettings", "*.ModifyResourceSettings", CHANGE,
                    "*.DestroySystem"):
        fabric.add_delay("HV1", pattern, 0.02, times=None)
    vmutils.create_vm("vm", False, GENERATION_2, str(tmp_path), [])
    vmutils.enable_secure_boot("vm", msft_ca_required=False)
    vmutils.set_vm_state("vm", constants.HYPERV_VM_STATE_ENABLED)
    assert vmutils.get_vm_state("vm") == constants.HYPERV_VM_STATE_ENABLED
    vmutils.set_vm_state("vm", constants.HYPERV_VM_STATE_DISABLED)
    vmutils.destroy_vm("vm")
    assert fabric.virtual_machines("HV1") == []
    fabric.clear_faults("HV1")
    fabric.add_fault("HV1", DEFINE, job_error=("No room.", 32778), delay=0.02)
    with pytest.raises(exceptions.WMIJobFailed, match="No room."):
        vmutils.create_vm("vm", False, GENERATION_2, str(tmp_path), [])


def test_a_finished_job_is_kept_for_five_minutes(fabric, system, vmutils, job_of):
    import wmi
    path, _ = system.RequestStateChange(RequestedState=2)
    assert job_of(path).TimeBeforeRemoval == datetime.timedelta(minutes=5)
    fabric.advance_clock(4 * MINUTE)
    assert job_of(path).JobState == 7
    fabric.advance_clock(MINUTE)
    with pytest.raises(wmi.x_wmi):
        job_of(path)
    assert vmutils._conn.Msvm_AffectedJobElement() == []
    vmutils.stop_vm_jobs("vm")


def test_a_host_that_lost_its_power_has_no_jobs(fabric, system, vmutils, job_of):
    import wmi
    ended, _ = system.RequestStateChange(RequestedState=2)
    fabric.add_delay("HV1", CHANGE, MINUTE)
    running, _ = system.RequestStateChange(RequestedState=3)
    fabric.fail_node("HV1")
    fabric.restore_node("HV1")
    for path in (ended, running):
        with pytest.raises(wmi.x_wmi):
            job_of(path)
    assert vmutils._conn.Msvm_AffectedJobElement() == []
    fabric.advance_clock(10 * MINUTE)
    assert state_of(fabric) == 3


def test_who_watches_a_job_sees_it_change(fabric, system):
    seen = []
    fabric.call_repository(
        "HV1", "subscribe", V2, "SELECT * FROM __InstanceModificationEvent WITHIN 1 WHERE "
        "TargetInstance ISA 'Msvm_ConcreteJob' AND "
        "TargetInstance.JobState <> PreviousInstance.JobState",
        lambda after, before: seen.append((before["JobState"], after["JobState"])))
    fabric.add_delay("HV1", CHANGE, MINUTE)
    system.RequestStateChange(RequestedState=2)
    fabric.advance_clock(MINUTE / 2)
    fabric.advance_clock(MINUTE)
    assert seen == [(3, 4), (4, 7)]


def test_jobs_behind_a_socket(fabric, system, tmp_path):
    server = Server(fabric, tmp_path / "socket")
    thread = native.module("threading").Thread(target=server.run, daemon=True)
    thread.start()
    try:
        client = FabricClient(tmp_path / "socket")
        client.add_delay("HV1", CHANGE, MINUTE, nth=1)
        computer = RemoteComputer(tmp_path / "socket", "HV1")
        (stored,) = computer.query(V2, "SELECT * FROM Msvm_ComputerSystem WHERE ElementName='vm'")
        wanted = cim.Instance(None)
        wanted.add_element("RequestedState", cim.CimType("uint16"), 2)
        job = computer.invoke(stored, "RequestStateChange", wanted)["Job"]
        assert computer.get_instance(V2, job)["JobState"] in (3, 4)
        client.advance_clock(MINUTE)
        assert computer.get_instance(V2, job)["JobState"] == 7
        assert client.virtual_machine("HV1", "vm")["state"] == 2
    finally:
        server.stop()
        thread.join()
