"""Failover clusters: os-win's own ClusterUtils, over ctypes and WMI, on simulated nodes."""
import ctypes
import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest

from tests.hyperv import fabric_process, key_protector, native, windows
from tests.hyperv.fabric import Fabric
from tests.hyperv.guardian import Guardian
from tests.unit.hyperv.machine import Machine

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
RUNNING, OFF, SAVED = 2, 3, 6
ONLINE, OFFLINE, FAILED, PARTIAL, PENDING = range(5)
SECRET = b"BitLocker's key"
SOON = 0.2  # seconds: the patience of a caller whose move is held
LONG = 20  # seconds after which a test gives up
HOURS = 3600


@pytest.fixture(scope="module")
def owner():
    return Guardian.generate("tenant")


@pytest.fixture
def fabric():
    made = Fabric({
        "fabrics": ["east", "west"],
        "hosts": [{"name": "HV1", "fabric": "east"}, {"name": "HV2", "fabric": "east"},
                  {"name": "HV3", "fabric": "east"}, {"name": "HV-WEST", "fabric": "west"},
                  {"name": "HV-ALONE"}],
        "clusters": [{"name": "CL1", "nodes": ["HV1", "HV2", "HV3", "HV-WEST"]}]})
    windows.install(made, "HV1")
    yield made
    made.close_clusters()


@pytest.fixture
def cluster(fabric):
    from os_win import utilsfactory
    return utilsfactory.get_clusterutils()


@pytest.fixture
def exceptions():
    from os_win import exceptions
    return exceptions


@pytest.fixture
def vm(cluster, tmp_path):
    """A clustered VM of HV1 that is off and has no TPM."""
    from os_win import utilsfactory
    vmutils = utilsfactory.get_vmutils()
    vmutils.create_vm("vm-1", False, 2, str(tmp_path), ["notes"])
    cluster.add_vm_to_cluster("vm-1")
    return Machine(vmutils, "vm-1")


@pytest.fixture
def tpm(vm, fabric, owner):
    """The VM runs with a TPM that holds a secret."""
    vm.set_protector(key_protector.make_protector(
        owner, [Guardian.from_metadata(fabric.metadata("east"), "east")]))
    vm.enable_tpm()
    vm.start()
    fabric.write_tpm("HV1", vm.name, "bitlocker", SECRET)
    return vm


def group(fabric, name="vm-1"):
    return next(g for g in fabric.cluster_groups("CL1") if g["name"] == name)


def names(fabric, host):
    return [machine["name"] for machine in fabric.virtual_machines(host)]


def stored_group(cluster, name="vm-1"):
    return cluster._conn_cluster.MSCluster_ResourceGroup(Name=name)[0]


# Nodes and groups.

def test_what_a_node_knows_of_its_cluster(cluster, exceptions):
    cluster.check_cluster_state()
    assert cluster.get_node_name() == "HV1"
    assert cluster.get_cluster_node_names() == ["HV1", "HV2", "HV3", "HV-WEST"]
    nodes = list(cluster._get_cluster_nodes())
    assert cluster.get_cluster_node_name(nodes[1]["id"]) == "HV2"
    assert [n.Name for n in cluster._conn_cluster.MSCluster_Node()] == [
        "HV1", "HV2", "HV3", "HV-WEST"]
    with windows.acting_as("HV2"):
        from os_win import utilsfactory
        assert utilsfactory.get_clusterutils().get_node_name() == "HV2"
    for ask in (cluster.get_vm_host, cluster.take_offline):
        with pytest.raises(exceptions.ClusterObjectNotFound):
            ask("nobody")


def test_a_host_in_no_cluster(fabric):
    from os_win import exceptions, utilsfactory
    from os_win.utils.compute import _clusapi_utils
    with windows.acting_as("HV-ALONE"):
        with pytest.raises(exceptions.x_wmi):
            utilsfactory.get_clusterutils()
        with pytest.raises(exceptions.ClusterWin32Exception) as caught:
            _clusapi_utils.ClusApiUtils().open_cluster()
        assert caught.value.error_code == 1753  # no more endpoints available
        with _clusapi_utils.ClusterContextManager().open_cluster("cl1") as handle:
            assert handle
        with pytest.raises(exceptions.ClusterWin32Exception) as caught:
            _clusapi_utils.ClusApiUtils().open_cluster("CL2")
        assert caught.value.error_code == 1722


def test_a_vm_joins_and_leaves(cluster, vm, fabric, exceptions):
    assert cluster.list_instances() == ["vm-1"]
    assert cluster.vm_exists("vm-1") and not cluster.vm_exists("vm-2")
    assert len(cluster.list_instance_uuids()) == 1
    assert cluster.get_vm_host("vm-1") == "HV1"
    stored = stored_group(cluster)
    assert (stored.FailoverThreshold, stored.FailoverPeriod, stored.AutoFailbackType) == (1, 6, 1)
    assert (stored.FailbackWindowStart, stored.FailbackWindowEnd) == (0, 23)
    assert stored.PersistentState is True and stored.GroupType == 111
    resources = cluster._conn_cluster.MSCluster_Resource(OwnerGroup="vm-1")
    assert [(r.Name, r.Type, r.OwnerNode) for r in resources] == [
        ("Virtual Machine vm-1", "Virtual Machine", "HV1"),
        ("Virtual Machine Configuration vm-1", "Virtual Machine Configuration", "HV1")]
    with windows.acting_as("HV2"):
        from os_win import utilsfactory
        there = utilsfactory.get_clusterutils()
        assert stored_group(there).OwnerNode == "HV1"
        assert there.get_vm_host("vm-1") == "HV1"

    cluster.delete("vm-1")
    assert cluster.list_instances() == [] and not cluster.vm_exists("vm-1")
    assert not cluster._conn_cluster.MSCluster_Resource(OwnerGroup="vm-1")
    assert names(fabric, "HV1") == ["vm-1"]
    with pytest.raises(exceptions.HyperVVMNotFoundException):
        cluster.delete("vm-1")


def test_what_cannot_join(cluster, vm, exceptions):
    for name in ("vm-1", "nobody"):  # it is in a group; it is not there
        with pytest.raises(exceptions.x_wmi):
            cluster._cluster.AddVirtualMachine(name)
    with windows.acting_as("HV2"):  # it is another node's
        from os_win import utilsfactory
        with pytest.raises(exceptions.x_wmi):
            utilsfactory.get_clusterutils()._cluster.AddVirtualMachine("vm-1")


def test_the_methods_are_void(cluster, vm):
    assert stored_group(cluster).DestroyGroup(1) == ()


@pytest.mark.parametrize("name, value", [
    ("FailoverPeriod", 0), ("FailoverPeriod", 1194), ("FailbackWindowEnd", 24),
    ("AutoFailbackType", 2), ("OwnerNode", "HV2"), ("State", 0), ("GroupType", 1)])
def test_properties_that_are_refused(cluster, vm, exceptions, name, value):
    stored = stored_group(cluster)
    before = getattr(stored, name)
    setattr(stored, name, value)
    with pytest.raises(exceptions.x_wmi):
        stored.put()
    assert getattr(stored_group(cluster), name) == before


def test_only_groups_can_be_put(cluster, vm, exceptions):
    node = cluster._conn_cluster.MSCluster_Node(Name="HV1")[0]
    with pytest.raises(exceptions.x_wmi):
        node.put()


def test_the_state_follows_the_vm(cluster, vm, fabric):
    from os_win import constants
    assert cluster.get_cluster_group_state_info("vm-1")["state"] == PARTIAL
    vm.start()
    assert cluster.get_cluster_group_state_info("vm-1") == {
        "owner_node": "HV1", "state": constants.CLUSTER_GROUP_ONLINE, "migration_queued": False}
    vm.stop()
    assert group(fabric)["state"] == PARTIAL
    cluster.bring_online("vm-1")
    assert group(fabric)["state"] == ONLINE
    assert fabric.virtual_machine("HV1", "vm-1")["state"] == RUNNING
    cluster.take_offline("vm-1")
    assert group(fabric)["state"] == OFFLINE
    assert fabric.virtual_machine("HV1", "vm-1")["state"] == SAVED


# Moves.

def test_a_live_move_takes_the_tpm_along(cluster, tpm, fabric):
    before = fabric.virtual_machine("HV1", tpm.name)["key_protector"]
    cluster.live_migrate_vm(tpm.name, "hv2", LONG)  # in any case
    assert names(fabric, "HV1") == []
    assert cluster.get_vm_host(tpm.name) == "HV2"
    assert stored_group(cluster).OwnerNode == "HV2"
    assert fabric.read_tpm("HV2", tpm.name, "bitlocker") == SECRET
    assert fabric.virtual_machine("HV2", tpm.name)["key_protector"] != before
    assert group(fabric)["state"] == ONLINE


@pytest.mark.parametrize("why", ["fabric", "attestation"])
def test_a_move_that_is_refused_leaves_the_vm_where_it_was(cluster, tpm, fabric, exceptions, why):
    if why == "attestation":
        fabric.set_guarded("HV2", False)
    before = fabric.virtual_machine("HV1", tpm.name)
    with pytest.raises(exceptions.ClusterGroupMigrationFailed):
        cluster.live_migrate_vm(tpm.name, "HV-WEST" if why == "fabric" else "HV2", LONG)
    assert cluster.get_cluster_group_state_info(tpm.name) == {
        "owner_node": "HV1", "state": ONLINE, "migration_queued": False}
    assert "Microsoft Virtual TPM Device" in group(fabric)["reason"]
    assert fabric.virtual_machine("HV1", tpm.name) == before
    assert fabric.read_tpm("HV1", tpm.name, "bitlocker") == SECRET


def test_moves_that_do_not_begin(cluster, vm, fabric, exceptions):
    vm.start()
    fabric.fail_node("HV2")
    with pytest.raises(exceptions.ClusterWin32Exception) as caught:
        cluster.live_migrate_vm("vm-1", "HV2", LONG)
    assert caught.value.error_code == 5005  # the node is not available
    with pytest.raises(exceptions.ClusterObjectNotFound):
        cluster.live_migrate_vm("vm-1", "HV-ALONE", LONG)
    fabric.hold_cluster_moves("CL1")
    with pytest.raises(exceptions.ClusterGroupMigrationTimeOut):
        cluster.live_migrate_vm("vm-1", "HV3", timeout=SOON)
    cluster.live_migrate_vm("vm-1", "HV1", LONG)  # nothing to do
    assert cluster.get_vm_host("vm-1") == "HV1"


def test_only_one_move_of_a_group_at_a_time(cluster, vm, fabric, exceptions):
    vm.start()
    fabric.hold_cluster_moves("CL1")
    with cluster._cmgr.open_cluster_group("vm-1") as handle:
        cluster._clusapi_utils.move_cluster_group(handle, None, 0, None)
        for begin in (lambda: cluster.live_migrate_vm("vm-1", "HV3", LONG),
                      lambda: cluster.take_offline("vm-1"),
                      lambda: cluster._clusapi_utils.destroy_cluster_group(handle)):
            with pytest.raises(exceptions.ClusterWin32Exception) as caught:
                begin()
            assert caught.value.error_code == 5908  # the group is moving
    assert group(fabric)["state"] == PENDING


@pytest.mark.parametrize("held", ["pending", "queued"])
def test_a_move_that_takes_too_long_is_cancelled(cluster, tpm, fabric, exceptions, held):
    fabric.hold_cluster_moves("CL1", held)
    with pytest.raises(exceptions.ClusterGroupMigrationTimeOut):
        cluster.live_migrate_vm(tpm.name, "HV2", timeout=SOON)
    fabric.release_cluster_moves("CL1")
    assert cluster.get_cluster_group_state_info(tpm.name) == {
        "owner_node": "HV1", "state": ONLINE, "migration_queued": False}
    assert fabric.read_tpm("HV1", tpm.name, "bitlocker") == SECRET
    cluster.live_migrate_vm(tpm.name, "HV2", LONG)
    assert cluster.get_vm_host(tpm.name) == "HV2"


@pytest.mark.parametrize("held", ["pending", "queued"])
def test_os_win_waits_for_the_end_of_a_move(cluster, vm, fabric, held):
    vm.start()
    fabric.hold_cluster_moves("CL1", held)
    failures = []

    def migrate():
        try:
            cluster.live_migrate_vm("vm-1", "HV2", LONG)
        except Exception as failure:  # noqa: BLE001 - the test shows it
            failures.append(failure)
    thread = threading.Thread(target=migrate, daemon=True)
    thread.start()
    while group(fabric)["state"] != PENDING and not group(fabric)["queued"]:
        assert thread.is_alive()
    assert cluster.get_cluster_group_state_info("vm-1")["migration_queued"] == (held == "queued")
    assert cluster.get_vm_host("vm-1") == "HV1" and thread.is_alive()
    fabric.release_cluster_moves("CL1")
    thread.join(LONG)
    assert not thread.is_alive() and not failures
    assert cluster.get_vm_host("vm-1") == "HV2"


def test_nothing_to_cancel(cluster, vm, exceptions):
    vm.start()
    cluster.cancel_cluster_group_migration("vm-1", ONLINE)
    with cluster._cmgr.open_cluster_group("vm-1") as handle:
        with pytest.raises(exceptions.ClusterWin32Exception) as caught:
            cluster._clusapi_utils.cancel_cluster_group_operation(handle)
    assert caught.value.error_code == 5023  # not in a state for it


def move(cluster, fabric, node, how):
    """Move by clusapi, and wait for the end."""
    utils = cluster._clusapi_utils
    properties = utils.get_property_list([utils.get_property_list_entry(
        "Virtual Machine", 0x00010002, ctypes.c_ulong(how))])
    with cluster._cmgr.open_cluster() as handle, \
            cluster._cmgr.open_cluster_group("vm-1", handle) as group_handle, \
            cluster._cmgr.open_cluster_node(node, handle) as node_handle:
        utils.move_cluster_group(group_handle, node_handle, 0, properties)
    while group(fabric)["state"] == PENDING:
        pass


def test_a_quick_move_saves_the_vm_and_resumes_it(cluster, tpm, fabric):
    quick = 1
    move(cluster, fabric, "HV2", quick)
    assert fabric.virtual_machine("HV2", tpm.name)["state"] == RUNNING
    assert fabric.read_tpm("HV2", tpm.name, "bitlocker") == SECRET
    # A node that cannot unwrap the protector notices when it resumes the VM.
    move(cluster, fabric, "HV-WEST", quick)
    assert "could not be unwrapped" in group(fabric)["reason"]
    assert names(fabric, "HV-WEST") == []
    assert fabric.virtual_machine("HV2", tpm.name)["state"] == RUNNING
    assert fabric.read_tpm("HV2", tpm.name, "bitlocker") == SECRET


def test_a_vm_that_is_off_moves_as_it_is(cluster, vm, fabric):
    with cluster._cmgr.open_cluster_group("vm-1") as handle:
        cluster._clusapi_utils.move_cluster_group(handle, None, 0, None)
    while group(fabric)["state"] == PENDING:
        pass
    assert group(fabric)["owner"] == "HV2" and group(fabric)["state"] == PARTIAL
    assert fabric.virtual_machine("HV2", "vm-1")["state"] == OFF


# Jobs.

SNAPSHOT, CHANGE = "*.CreateSnapshot", "Msvm_ComputerSystem.RequestStateChange"
MINUTE = 60


@pytest.fixture
def job(vm, fabric):
    """The VM runs, and a job of it takes a minute."""
    vm.start()
    fabric.add_delay("HV1", SNAPSHOT, MINUTE)
    return begin_snapshot(vm)


def begin_snapshot(vm):
    system = vm.vmutils._lookup_vm_check(vm.name, as_vssd=False)
    path, _, value = vm.vmutils._compat_conn.Msvm_VirtualSystemSnapshotService()[0].CreateSnapshot(
        AffectedSystem=system.path_(), SnapshotType=2)
    assert value == 4096
    return vm.vmutils._jobutils._get_wmi_obj(path.replace("\\", "/"))


def status(cluster):
    """StatusInformation of the group, as clusapi.dll and WMI give it."""
    with cluster._cmgr.open_cluster_group("vm-1") as handle:
        told = cluster._get_cluster_group_state(handle)["status_info"]
    assert stored_group(cluster).StatusInformation == told
    return told


def code_of(begin):
    """The error code of an order that is refused."""
    from os_win import exceptions
    with pytest.raises(exceptions.ClusterWin32Exception) as caught:
        begin()
    return caught.value.error_code


def order(cluster, function, *arguments):
    with cluster._cmgr.open_cluster_group("vm-1") as handle:
        return getattr(cluster._clusapi_utils, function)(handle, *arguments)


def test_a_group_is_locked_while_a_job_of_its_vm_runs(cluster, vm, job, fabric, exceptions):
    locked = 5960
    before = fabric.virtual_machine("HV1", "vm-1")
    for begin in (lambda: cluster.take_offline("vm-1"), lambda: cluster.bring_online("vm-1"),
                  lambda: cluster.live_migrate_vm("vm-1", "HV2", LONG),
                  lambda: order(cluster, "destroy_cluster_group")):
        assert code_of(begin) == locked
    for method, arguments in (("TakeOffline", ()), ("BringOnline", ()), ("MoveToNewNode", ("HV2",)),
                              ("DestroyGroup", (1,))):
        with pytest.raises(exceptions.x_wmi, match="RESOURCE_LOCKED_STATUS"):
            getattr(stored_group(cluster), method)(*arguments)
    assert fabric.virtual_machine("HV1", "vm-1") == before
    assert group(fabric)["state"] == ONLINE and status(cluster) == 1
    fabric.clock.advance(MINUTE)  # no call to the host: the order finds the job done
    cluster.live_migrate_vm("vm-1", "HV2", LONG)
    assert cluster.get_vm_host("vm-1") == "HV2" and status(cluster) == 0


@pytest.mark.parametrize("end", [
    lambda job, fabric: job.RequestStateChange(RequestedState=5),
    lambda job, fabric: fabric.advance_clock(MINUTE)])
def test_a_group_is_unlocked_when_the_job_ends(cluster, vm, job, fabric, end):
    assert status(cluster) == 1
    end(job, fabric)
    assert status(cluster) == 0
    cluster.take_offline("vm-1")
    assert group(fabric)["state"] == OFFLINE


def wait_for_moves():
    """Until the cluster has nothing to do for a move, in the queue or not."""
    for thread in native.module("threading").enumerate():
        if thread.name.startswith("move of "):
            thread.join(LONG)


def test_a_move_that_ignores_the_lock_ends_the_job(cluster, vm, job, fabric):
    ignore_resource_status = 1
    order(cluster, "move_cluster_group", None, ignore_resource_status, None)
    wait_for_moves()
    assert group(fabric)["owner"] == "HV2" and group(fabric)["state"] == ONLINE
    with windows.acting_as("HV1"):
        killed = 9
        assert vm.vmutils._conn.Msvm_ConcreteJob(ElementName="CreateSnapshot")[0].JobState == killed
    assert status(cluster) == 0


def test_a_queued_move_waits_for_the_job_of_its_vm(cluster, vm, fabric):
    vm.start()
    queue, queued = 4, 5959
    fabric.hold_cluster_moves("CL1", "queued")
    order(cluster, "move_cluster_group", None, queue, None)
    assert code_of(lambda: cluster.take_offline("vm-1")) == queued
    fabric.add_delay("HV1", SNAPSHOT, MINUTE)
    begin_snapshot(vm)  # it is in the queue, nothing moves yet
    fabric.release_cluster_moves("CL1")
    wait_for_moves()
    assert group(fabric)["queued"] and group(fabric)["owner"] == "HV1"
    assert status(cluster) == 5
    fabric.advance_clock(MINUTE)
    wait_for_moves()
    assert group(fabric)["owner"] == "HV2"
    assert group(fabric)["state"] == ONLINE and status(cluster) == 0


def test_a_move_that_is_not_to_be_queued_fails(cluster, vm, fabric):
    vm.start()
    fabric.hold_cluster_moves("CL1", "queued")
    order(cluster, "move_cluster_group", None, 0, None)
    fabric.add_delay("HV1", SNAPSHOT, MINUTE)
    begin_snapshot(vm)
    fabric.release_cluster_moves("CL1")
    wait_for_moves()
    assert not group(fabric)["queued"]
    assert group(fabric)["owner"] == "HV1" and group(fabric)["state"] == ONLINE
    assert "locked status" in group(fabric)["reason"]


def test_a_vm_that_moves_takes_no_changes(cluster, vm, fabric, exceptions):
    vm.start()
    fabric.hold_cluster_moves("CL1")
    order(cluster, "move_cluster_group", None, 0, None)
    system = vm.vmutils._lookup_vm_check("vm-1", as_vssd=False)
    assert system.RequestStateChange(RequestedState=OFF) == (None, 32775)
    assert vm.vmutils._vs_man_svc.DestroySystem(system.path_()) == (None, 32774)
    order(cluster, "cancel_cluster_group_operation")
    wait_for_moves()
    vm.stop()
    assert group(fabric)["state"] == PARTIAL


@pytest.mark.parametrize("requested, state, after", [(RUNNING, PARTIAL, ONLINE),
                                                     (OFF, ONLINE, PARTIAL)])
def test_the_state_stays_while_a_job_changes_that_of_the_vm(
        cluster, vm, fabric, requested, state, after):
    if state == ONLINE:
        vm.start()
    for end in (lambda: vm.vmutils.stop_vm_jobs("vm-1"), lambda: fabric.clock.advance(MINUTE)):
        fabric.add_delay("HV1", CHANGE, MINUTE)
        system = vm.vmutils._lookup_vm_check("vm-1", as_vssd=False)
        assert system.RequestStateChange(RequestedState=requested)[1] == 4096
        assert group(fabric)["state"] == state
        end()
        state = group(fabric)["state"]
    assert state == after


def test_a_vm_joins_while_it_starts(cluster, vm, fabric):
    cluster.delete("vm-1")
    fabric.add_delay("HV1", CHANGE, MINUTE)
    system = vm.vmutils._lookup_vm_check("vm-1", as_vssd=False)
    assert system.RequestStateChange(RequestedState=RUNNING)[1] == 4096
    cluster.add_vm_to_cluster("vm-1")
    assert group(fabric)["state"] == OFFLINE
    assert status(cluster) == 1
    vm.vmutils.stop_vm_jobs("vm-1")
    assert group(fabric)["state"] == PARTIAL and status(cluster) == 0


def test_a_job_is_lost_with_its_node(cluster, tpm, fabric):
    fabric.add_delay("HV1", CHANGE, MINUTE)
    system = tpm.vmutils._lookup_vm_check(tpm.name, as_vssd=False)
    assert system.RequestStateChange(RequestedState=OFF)[1] == 4096
    fabric.fail_node("HV1")
    assert group(fabric)["owner"] == "HV2" and group(fabric)["state"] == ONLINE
    assert fabric.read_tpm("HV2", tpm.name, "bitlocker") == SECRET
    with windows.acting_as("HV2"):
        from os_win import utilsfactory
        there = utilsfactory.get_clusterutils()
        assert status(there) == 0
        there.take_offline(tpm.name)


def test_a_vm_does_not_come_home_while_a_job_of_it_runs(cluster, vm, fabric):
    vm.start()
    fabric.fail_node("HV1")
    with windows.acting_as("HV2"):
        from os_win import utilsfactory
        fabric.add_delay("HV2", SNAPSHOT, MINUTE)
        begin_snapshot(Machine(utilsfactory.get_vmutils(), "vm-1"))
    fabric.restore_node("HV1")
    assert group(fabric)["owner"] == "HV2" and group(fabric)["state"] == ONLINE
    assert "in use" in group(fabric)["reason"]


# What went wrong.

def resource_states(cluster):
    return [r.State for r in cluster._conn_cluster.MSCluster_Resource(OwnerGroup="vm-1")]


@pytest.fixture
def lost(cluster, vm, fabric):
    """The VM was destroyed, and the cluster was not asked."""
    vm.start()
    vm.stop()
    vm.vmutils.destroy_vm("vm-1")
    assert names(fabric, "HV1") == []
    return vm


def test_a_vm_that_is_destroyed_behind_the_cluster(cluster, lost, fabric):
    failed, offline, resource_failed = 4, 3, 5038
    assert group(fabric)["state"] == FAILED and "not found" in group(fabric)["reason"]
    assert resource_states(cluster) == [failed, failed]
    assert cluster.vm_exists("vm-1") and cluster.get_vm_host("vm-1") == "HV1"
    assert code_of(lambda: cluster.bring_online("vm-1")) == resource_failed
    assert group(fabric)["state"] == FAILED
    # What is left moves as a group that has failed does.
    order(cluster, "move_cluster_group", None, 0, None)
    wait_for_moves()
    assert group(fabric)["state"] == FAILED and cluster.get_vm_host("vm-1") == "HV2"
    cluster.take_offline("vm-1")
    assert group(fabric)["state"] == OFFLINE and resource_states(cluster) == [offline, offline]
    cluster.delete("vm-1")
    assert cluster.list_instances() == []


def test_the_node_of_a_lost_vm_fails(lost, fabric):
    for host, owner in (("HV1", "HV2"), ("HV2", "HV3"), ("HV3", "HV-WEST"),
                        ("HV-WEST", "HV-WEST")):
        fabric.fail_node(host)
        assert group(fabric)["owner"] == owner and group(fabric)["state"] == FAILED
    for host in ("HV-WEST", "HV1"):
        fabric.restore_node(host)
        assert group(fabric)["state"] == FAILED


def test_a_lost_vm_that_is_there_again(cluster, vm, fabric, tmp_path):
    from os_win import utilsfactory
    utils = utilsfactory.get_migrationutils()
    utils.export_vm("vm-1", str(tmp_path / "export"))
    vm.vmutils.destroy_vm("vm-1")
    assert group(fabric)["state"] == FAILED
    (definition,) = (tmp_path / "export").rglob("*.vmcx")
    utils.import_vm_definition(str(definition), str(tmp_path / "export"))
    assert code_of(lambda: cluster.bring_online("vm-1")) == 5038  # a planned one is not enough
    utils.realize_vm("vm-1")
    cluster.bring_online("vm-1")
    assert group(fabric)["state"] == ONLINE


def test_files_that_are_gone(cluster, vm, fabric, tmp_path):
    vm.start()
    (definition,) = tmp_path.rglob("*.vmcx")
    definition.unlink()
    fabric.fail_node("HV1")
    assert group(fabric)["state"] == FAILED
    assert "cannot find the file" in group(fabric)["reason"]
    assert not any(names(fabric, host) for host in ("HV2", "HV3", "HV-WEST"))


def test_a_file_that_cannot_be_written(cluster, tpm, fabric, monkeypatch):
    from tests.hyperv import guest_state
    tpm.stop()

    def full(*arguments):
        raise OSError("The disk is full.")
    monkeypatch.setattr(guest_state, "write", full)
    assert code_of(lambda: cluster.bring_online(tpm.name)) == 5023
    assert group(fabric)["state"] == FAILED
    assert group(fabric)["reason"] == "'vm-1' failed to start. The disk is full."


def test_no_node_is_left_for_a_vm(cluster, vm, fabric):
    vm.start()
    for host in ("HV2", "HV3", "HV-WEST", "HV1"):
        fabric.fail_node(host)
    fabric.restore_node("HV2")
    with windows.acting_as("HV2"):
        from os_win import utilsfactory
        there = utilsfactory.get_clusterutils()
        assert there.get_cluster_group_state_info("vm-1")["state"] == FAILED
        unavailable = 5005
        for begin in (lambda: there.bring_online("vm-1"), lambda: there.take_offline("vm-1"),
                      lambda: there.live_migrate_vm("vm-1", "HV2", LONG)):
            assert code_of(begin) == unavailable
        there.delete("vm-1")
        assert there.list_instances() == []


def test_a_saved_vm_fails_over_as_it_is(cluster, tpm, fabric):
    cluster.take_offline(tpm.name)
    fabric.fail_node("HV1")
    assert group(fabric)["owner"] == "HV2" and group(fabric)["state"] == OFFLINE
    assert fabric.virtual_machine("HV2", tpm.name)["state"] == SAVED
    with windows.acting_as("HV2"):
        from os_win import utilsfactory
        utilsfactory.get_clusterutils().bring_online(tpm.name)
    assert fabric.read_tpm("HV2", tpm.name, "bitlocker") == SECRET


def test_a_saved_vm_outlives_a_power_cut(cluster, tpm, fabric):
    cluster.take_offline(tpm.name)
    cluster.delete(tpm.name)
    fabric.fail_node("HV1")
    fabric.restore_node("HV1")
    assert fabric.virtual_machine("HV1", tpm.name)["state"] == SAVED
    tpm.start()
    assert fabric.read_tpm("HV1", tpm.name, "bitlocker") == SECRET


@pytest.mark.parametrize("held", ["pending", "queued"])
def test_the_destination_of_a_move_fails(cluster, vm, fabric, held):
    vm.start()
    fabric.hold_cluster_moves("CL1", held)
    order(cluster, "move_cluster_group", None, 0, None)
    fabric.fail_node("HV2")
    assert group(fabric) == dict(group(fabric), owner="HV1", state=ONLINE, queued=False)
    assert "'HV2' is not available" in group(fabric)["reason"]
    vm.stop()


def test_a_group_that_is_destroyed_meanwhile(cluster, vm):
    with cluster._cmgr.open_cluster_group("vm-1") as handle:
        cluster.delete("vm-1")
        utils = cluster._clusapi_utils
        for begin in (lambda: utils.online_cluster_group(handle),
                      lambda: utils.cluster_group_control(handle, 0x3000055),
                      lambda: utils.destroy_cluster_group(handle)):
            assert code_of(begin) == 5012  # the group is not available


def test_a_node_that_does_not_take_the_vm_to_start(cluster, tpm, fabric, library):
    handle = library.OpenCluster(None)
    opened, node = (library.OpenClusterGroup(handle, tpm.name),
                    library.OpenClusterNode(handle, "HV-WEST"))
    assert library.OnlineClusterGroup(opened, node) == 5023
    assert "could not be unwrapped" in group(fabric)["reason"]
    assert group(fabric)["owner"] == "HV1" and group(fabric)["state"] == ONLINE
    assert fabric.read_tpm("HV1", tpm.name, "bitlocker") == SECRET
    library.CloseCluster(handle)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whatever_happens_a_move_ends(cluster, vm, fabric, monkeypatch):
    from tests.hyperv import live_migration
    vm.start()

    def broken(*arguments):
        raise ZeroDivisionError("a fault of the simulation itself")
    monkeypatch.setattr(live_migration, "move", broken)
    order(cluster, "move_cluster_group", None, 0, None)
    wait_for_moves()
    assert group(fabric)["state"] == ONLINE and group(fabric)["owner"] == "HV1"
    vm.stop()


# Events.

class Ended(SystemExit):
    """Ends os-win's listeners, which have no other end."""


def test_the_owner_change_listener(cluster, vm, fabric):
    vm.start()
    seen, listening = [], cluster.get_vm_owner_change_listener_v2()

    def callback(name, node):
        seen.append((name, node))
        if len(seen) == 2:
            raise Ended

    def listen():
        with pytest.raises(Ended):
            listening(callback)
    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    while not fabric.cluster_listeners("CL1"):
        assert thread.is_alive()
    vm.stop()  # no change of the owner
    vm.start()
    cluster.live_migrate_vm("vm-1", "HV2", LONG)
    fabric.fail_node("HV2")
    thread.join(LONG)
    assert not thread.is_alive()
    assert seen == [("vm-1", "HV2"), ("vm-1", "HV1")]


def test_the_owner_change_as_a_wmi_event(cluster, vm):
    vm.start()
    seen, watcher = [], cluster._get_failover_watcher()
    cluster.live_migrate_vm("vm-1", "HV2", LONG)
    cluster._monitor_vm_failover(watcher, lambda *event: seen.append(event), LONG * 1000)
    assert seen == [("vm-1", "HV1", "HV2")]


# Failover.

def test_a_running_vm_restarts_elsewhere_with_its_tpm(cluster, tpm, fabric):
    before = fabric.virtual_machine("HV1", tpm.name)["key_protector"]
    fabric.fail_node("HV1")
    assert group(fabric)["owner"] == "HV2" and group(fabric)["state"] == ONLINE
    there = fabric.virtual_machine("HV2", tpm.name)
    assert there["state"] == RUNNING and there["key_protector"] != before
    assert fabric.read_tpm("HV2", tpm.name, "bitlocker") == SECRET
    fabric.restore_node("HV1")
    # Automatic failback is on: it comes home, live.
    assert group(fabric)["owner"] == "HV1" and group(fabric)["state"] == ONLINE
    assert names(fabric, "HV2") == []
    assert fabric.read_tpm("HV1", tpm.name, "bitlocker") == SECRET


def test_without_automatic_failback_it_stays(cluster, vm, fabric):
    cluster.delete("vm-1")
    cluster.add_vm_to_cluster("vm-1", auto_failback=False)
    vm.start()
    fabric.fail_node("HV1")
    fabric.restore_node("HV1")
    assert group(fabric)["owner"] == "HV2"
    assert names(fabric, "HV1") == []


def test_a_vm_that_was_off_stays_off(vm, fabric):
    fabric.fail_node("HV1")
    assert group(fabric)["owner"] == "HV2" and group(fabric)["state"] == PARTIAL
    assert fabric.virtual_machine("HV2", "vm-1")["state"] == OFF


@pytest.mark.parametrize("why", ["fabric", "attestation"])
def test_a_node_that_cannot_unwrap_the_protector_fails_the_group(cluster, tpm, fabric, why):
    fabric.fail_node("HV3")
    if why == "fabric":
        fabric.fail_node("HV2")
    else:
        fabric.set_guarded("HV2", False)
    fabric.fail_node("HV1")
    bad = "HV-WEST" if why == "fabric" else "HV2"
    assert group(fabric)["state"] == FAILED and group(fabric)["owner"] == bad
    assert "could not be unwrapped" in group(fabric)["reason"]
    assert fabric.virtual_machine(bad, tpm.name)["state"] == OFF
    with windows.acting_as(bad):
        from os_win import exceptions, utilsfactory
        there = utilsfactory.get_clusterutils()
        assert there.get_cluster_group_state_info(tpm.name)["state"] == FAILED
        with pytest.raises(exceptions.ClusterWin32Exception):
            there.bring_online(tpm.name)
        if why == "attestation":
            fabric.set_guarded("HV2", True)
            there.bring_online(tpm.name)
            assert fabric.read_tpm("HV2", tpm.name, "bitlocker") == SECRET


def test_the_next_node_is_tried_as_often_as_the_group_says(cluster, tpm, fabric):
    cluster.delete(tpm.name)
    cluster.add_vm_to_cluster(tpm.name, max_failover_count=2, failover_period=6)
    fabric.set_guarded("HV2", False)
    fabric.fail_node("HV1")  # two attempts: HV2 cannot, HV3 can
    assert group(fabric)["owner"] == "HV3" and group(fabric)["state"] == ONLINE
    assert names(fabric, "HV2") == []
    fabric.set_guarded("HV2", True)
    fabric.fail_node("HV3")  # none left
    assert group(fabric)["state"] == FAILED and group(fabric)["owner"] == "HV3"


def test_failovers_are_counted_within_their_period(cluster, vm, fabric):
    vm.start()  # one failover in six hours
    fabric.fail_node("HV1")
    fabric.advance_clock(6 * HOURS)
    fabric.fail_node("HV2")
    assert group(fabric)["owner"] == "HV3" and group(fabric)["state"] == ONLINE
    fabric.fail_node("HV3")
    assert group(fabric)["owner"] == "HV3" and group(fabric)["state"] == FAILED
    fabric.restore_node("HV3")  # it was its last owner: the VM starts there
    assert group(fabric)["state"] == ONLINE
    assert fabric.virtual_machine("HV3", "vm-1")["state"] == RUNNING


def test_storage_that_is_not_shared(tmp_path):
    """A VM on the local disk of its host is lost with it, until the host is back."""
    made = Fabric({"storage": "%s/%%COMPUTERNAME%%" % tmp_path,
                   "hosts": [{"name": "HV1"}, {"name": "HV2"}],
                   "clusters": [{"name": "CL1", "nodes": ["HV1", "HV2"]}]})
    windows.install(made, "HV1")
    from os_win import utilsfactory
    vmutils = utilsfactory.get_vmutils()
    vmutils.create_vm("vm-1", False, 2, str(tmp_path / "HV1" / "instances"), ["notes"])
    utilsfactory.get_clusterutils().add_vm_to_cluster("vm-1")
    Machine(vmutils, "vm-1").start()
    made.fail_node("HV1")
    assert group(made)["state"] == FAILED and "cannot find the file" in group(made)["reason"]
    made.restore_node("HV1")
    assert group(made)["state"] == ONLINE and group(made)["owner"] == "HV1"


def test_a_host_that_is_down_answers_nobody(cluster, vm, fabric, exceptions):
    vm.vmutils.create_vm("alone", False, 2, os.path.dirname(
        fabric.virtual_machine("HV1", "vm-1")["guest_state_file"]) + "/alone", ["notes"])
    Machine(vm.vmutils, "alone").start()
    fabric.fail_node("HV1")
    with pytest.raises(exceptions.x_wmi):
        vm.vmutils.list_instances()
    with pytest.raises(exceptions.ClusterWin32Exception) as caught:
        cluster.get_vm_host("vm-1")
    assert caught.value.error_code == 1722  # the RPC server is unavailable
    with windows.acting_as("HV2"):
        from os_win import utilsfactory
        with pytest.raises(exceptions.x_wmi):
            utilsfactory.get_vmutils("HV1").list_instances()
    with pytest.raises(ValueError, match="down"):
        fabric.fail_node("HV1")
    fabric.deauthorise_host("HV1")
    fabric.restore_node("HV1")
    assert fabric.virtual_machine("HV1", "alone")["state"] == OFF
    not_authorised = 301  # it attests when it starts
    assert fabric.hosts()[0]["attestation_status"] == not_authorised
    with pytest.raises(ValueError, match="down"):
        fabric.restore_node("HV1")


# The library itself.

@pytest.fixture
def library(fabric):
    from os_win.utils.winapi import libs
    return libs.get_shared_lib_handle(libs.CLUSAPI)


def test_handles(cluster, vm, library):
    invalid_handle = 6
    handle = library.OpenCluster(None)
    opened = library.OpenClusterGroup(handle, "vm-1")
    buffer, size = (ctypes.c_wchar * 260)(), ctypes.c_ulong(260)

    def state(of):
        return library.GetClusterGroupState(of, buffer, ctypes.byref(size))
    assert state(opened) == PARTIAL and buffer.value == "HV1" and size.value == 3
    unknown = 0xFFFFFFFF
    assert state(handle) == unknown  # no group
    assert library.OfflineClusterGroup(handle) == invalid_handle
    assert library.CloseCluster(handle)
    assert state(opened) == unknown  # closed with its cluster
    assert not library.CloseClusterGroup(opened)
    assert library.OpenClusterGroup(handle, "vm-1") is None


def test_a_handle_that_two_threads_close(fabric, library, monkeypatch):
    from tests.hyperv.windows_stand_ins import Kernel32
    handle, done = library.OpenCluster(None), []

    def close():
        result = library.CloseCluster(handle)
        done.append((result, 0 if result else Kernel32.GetLastError()))

    class Lock:
        """Lets another thread close the handle as soon as this one lets go."""

        def __enter__(self):
            return None

        def __exit__(self, *exception):
            if not done:
                done.append(None)
                close()
    monkeypatch.setattr(library._functions, "_lock", Lock())
    close()
    invalid_handle = 6
    assert sorted(done[1:]) == [(0, invalid_handle), (1, 0)]


def test_arguments_are_those_that_os_win_declares(library):
    with pytest.raises(ctypes.ArgumentError):
        library.OpenCluster(5)
    with pytest.raises(TypeError):
        library.OpenCluster()
    with pytest.raises(AttributeError):
        library.GetClusterResourceState  # noqa: B018 - not simulated


def test_buffers_that_are_too_small(cluster, vm, library):
    more_data = 234
    handle = library.OpenCluster(None)
    opened = library.OpenClusterGroup(handle, "vm-1")
    size = ctypes.c_ulong(3)
    small = (ctypes.c_wchar * 3)()  # "HV1" without its end
    assert library.GetClusterGroupState(opened, small, ctypes.byref(size)) == 0xFFFFFFFF
    assert size.value == 3 and small.value == ""
    returned = ctypes.c_ulong()
    read_only_properties = 0x3000055
    result = library.ClusterGroupControl(opened, None, read_only_properties, None, 0,
                                         (ctypes.c_ubyte * 8)(), 8, ctypes.byref(returned))
    assert result == more_data and returned.value > 8
    library.CloseCluster(handle)


def test_an_event_waits_until_it_fits(cluster, vm, library, fabric):
    from os_win.utils.winapi.libs import clusapi
    wait_timeout, more_data, state_changes, of_groups = 258, 234, 8, 2
    handle = library.OpenCluster(None)
    key = ctypes.c_ulong(7)
    port = library.CreateClusterNotifyPortV2(
        ctypes.c_void_p(-1), handle, ctypes.byref(clusapi.NOTIFY_FILTER_AND_TYPE(
            of_groups, state_changes)), 1, ctypes.byref(key))
    known, found = ctypes.POINTER(ctypes.c_ulong)(), clusapi.NOTIFY_FILTER_AND_TYPE()

    def next_event(room):
        sizes = [ctypes.c_ulong(room) for _ in range(5)]
        texts = [(ctypes.c_wchar * room)() for _ in range(4)]
        data = (ctypes.c_byte * room)()
        arguments = [data, ctypes.byref(sizes[0])]
        for text, size in zip(texts, sizes[1:]):
            arguments += [text, ctypes.byref(size)]
        result = library.GetClusterNotifyV2(port, ctypes.byref(known), ctypes.byref(found),
                                            *arguments, 0)
        return result, [text.value for text in texts], data, sizes
    assert next_event(100)[0] == wait_timeout
    vm.start()
    assert next_event(1)[0] == more_data
    result, (identifier, parent, name, kind), data, sizes = next_event(100)
    assert (result, name, kind) == (0, "vm-1", "")
    assert identifier == cluster.list_instance_uuids()[0]
    assert cluster.get_cluster_node_name(parent) == "HV1"
    assert known.contents.value == 7 and found.FilterFlags == state_changes
    assert bytes(data)[:sizes[0].value] == bytes(ctypes.c_ulong(ONLINE))
    assert next_event(100)[0] == wait_timeout
    resources = 3  # whose events are not simulated
    assert library.CreateClusterNotifyPortV2(
        port, handle, ctypes.byref(clusapi.NOTIFY_FILTER_AND_TYPE(resources, 1)), 1, None) is None
    assert fabric.cluster_listeners("CL1") == 1
    assert library.CloseClusterNotifyPort(port)
    assert fabric.cluster_listeners("CL1") == 0
    assert next_event(100)[0] == 6  # an invalid handle


# Over the socket of a fabric process.

@pytest.mark.parametrize("threads", ["native", "eventlet"])
def test_over_a_socket(fabric, tmp_path, threads):
    path = str(tmp_path / "fabric")
    server = fabric_process.Server(fabric, path)
    worker = native.module("threading").Thread(target=server.run, daemon=True)
    worker.start()
    try:
        done = subprocess.run(
            [sys.executable, str(pathlib.Path(__file__).with_name("cluster_life.py")),
             str(REPOSITORY), path, str(tmp_path / "vm"), threads],
            capture_output=True, text=True, timeout=100, check=False)
    finally:
        server.stop()
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said == {
        "node": "HV1", "nodes": ["HV1", "HV2", "HV3", "HV-WEST"], "instances": ["vm-1"],
        "owners": ["HV1", "HV2", "HV3"], "unknown": "ClusterObjectNotFound",
        "timeout": "ClusterGroupMigrationTimeOut", "left": []}
