"""Shielded VMs from a tenant's shielding data, over os-win's own add_vtpm and provision_vm."""
import pytest

from tests.hyperv import key_protector, provisioning_files, windows
from tests.hyperv.fabric import Fabric
from tests.hyperv.guardian import Guardian

HOST, UNGUARDED, PLAIN = "HV1", "HV2", "HV3"
GENERATION_2 = 2
RUNNING, OFF = 2, 3
PENDING_BOOT, COMPLETED, EXCEPTION = 3, 7, 10
ANSWERS = "<unattend><name>@@ComputerName@@</name><zone>@@Zone@@</zone></unattend>"


@pytest.fixture(scope="module")
def owner():
    return Guardian.generate("tenant")


@pytest.fixture(scope="module")
def fabric():
    return Fabric({"fabrics": ["east", "west"], "hosts": [
        {"name": HOST, "fabric": "east", "shielded_vm_tools": True},
        {"name": UNGUARDED, "fabric": "east", "guarded": False, "shielded_vm_tools": True},
        {"name": PLAIN, "fabric": "east"}]})


@pytest.fixture
def pdk(fabric, owner, tmp_path):
    return write_pdk(fabric, owner, tmp_path / "tenant.pdk", "east")


def write_pdk(fabric, owner, path, fabric_name):
    guardian = Guardian.from_metadata(fabric.metadata(fabric_name), fabric_name)
    path.write_bytes(provisioning_files.make_pdk(owner, [guardian], ANSWERS, b"the policy"))
    return str(path)


class Vm:
    """A VM as compute-hyperv makes it, and its shielding data."""

    def __init__(self, fabric, host, folder):
        windows.install(fabric, host)
        from os_win import utilsfactory
        self.vmutils, self.folder, self.name = utilsfactory.get_vmutils(), folder, folder.name
        self.vmutils.create_vm(self.name, False, GENERATION_2, str(folder), [])
        self.vmutils.enable_secure_boot(self.name, msft_ca_required=False)

    def provision(self, pdk, shielded=False, **pairs):
        fsk = str(self.folder / "fabric.fsk")
        self.vmutils.populate_fsk(fsk, {"@@%s@@" % key: value for key, value in pairs.items()})
        self.vmutils.add_vtpm(self.name, pdk, shielded)
        self.vmutils.provision_vm(self.name, fsk, pdk)

    def set_state(self, state):
        self.vmutils.set_vm_state(self.name, state)


@pytest.fixture
def vm(fabric, tmp_path):
    return Vm(fabric, HOST, tmp_path)


@pytest.mark.parametrize("shielded", [False, True])
def test_os_wins_flow(vm, fabric, pdk, shielded):
    vm.provision(pdk, shielded, ComputerName="web", Zone="UTC")
    assert fabric.provisioning(HOST, vm.name) == {
        "job_state": PENDING_BOOT, "job_status": "PendingBoot", "answer_file": None}
    given = provisioning_files.read_pdk(open(pdk, "rb").read()).key_protector
    machine = fabric.virtual_machine(HOST, vm.name)
    assert machine["key_protector"] == given
    assert machine["security"]["TpmEnabled"]
    assert machine["security"]["EncryptStateAndVmMigrationTraffic"]
    assert machine["security"]["ShieldingRequested"] is shielded
    assert fabric.host(HOST).management.machine_named(vm.name).security_policy == b"the policy"

    vm.set_state(RUNNING)
    assert fabric.provisioning(HOST, vm.name) == {
        "job_state": COMPLETED, "job_status": "Complete",
        "answer_file": "<unattend><name>web</name><zone>UTC</zone></unattend>"}
    key = fabric.read_tpm(HOST, vm.name, "volume key")
    assert len(key) == 32
    vm.set_state(OFF)
    vm.set_state(RUNNING)
    assert fabric.read_tpm(HOST, vm.name, "volume key") == key
    assert fabric.provisioning(HOST, vm.name)["job_state"] == COMPLETED
    vm.set_state(OFF)
    vm.vmutils.destroy_vm(vm.name)


def test_what_a_pdk_and_an_fsk_show(vm, pdk, tmp_path):
    processor = vm.vmutils._conn_msps.Msps_ProvisioningFileProcessor
    data = open(pdk, "rb").read()
    for shown in (processor.PopulateFromFile(FilePath=pdk)[0],
                  processor.PopulateFromStream(Data=list(data))[0]):
        assert shown.get_class_name() == "Msps_PDK"
        assert [w.is_owner for w in key_protector.read(bytes(shown.KeyProtector))] == [True, False]
        assert bytes(shown.PolicyData) == b"the policy"
        assert ANSWERS[:20].encode() not in bytes(shown.RawData)
    path = str(tmp_path / "a.fsk")
    vm.vmutils.populate_fsk(path, {"@@a@@": "1"})
    fsk, code = processor.PopulateFromFile(FilePath=path)
    assert code == 0 and fsk.get_class_name() == "Msps_FSK"
    assert [(pair.key, pair.Value) for pair in fsk.FabricDataPairs] == [("@@a@@", "1")]


def refusal(method, **parameters):
    import wmi
    with pytest.raises(wmi.x_wmi) as caught:
        method(**parameters)
    return str(caught.value)


def test_files_that_are_refused(vm, pdk, tmp_path):
    connection = vm.vmutils._conn_msps
    processor = connection.Msps_ProvisioningFileProcessor
    populate, serialize = processor.PopulateFromFile, processor.SerializeToFile
    assert "0x80070002" in refusal(populate, FilePath=str(tmp_path / "none"))
    for data in (b"", b"\xff", b"{}", b"[]", open(pdk, "rb").read()[:-9],
                 open(pdk, "rb").read().replace(
                     b"<Id>1".hex().encode(), b"<Id>2".hex().encode())):
        path = tmp_path / "wrong"
        path.write_bytes(data)
        assert "not a" in refusal(populate, FilePath=str(path))
    fsk = connection.Msps_FSK.new()
    assert "0x80070003" in refusal(
        serialize, FilePath=str(tmp_path / "no" / "folder"), ProvisioningFile=fsk)
    pair = connection.Msps_FabricData.new()
    pair.key = "@@a@@"
    fsk.FabricDataPairs = [pair]
    assert "needs key and Value" in refusal(
        serialize, FilePath=str(tmp_path / "a.fsk"), ProvisioningFile=fsk)
    read = populate(FilePath=pdk)[0]
    assert "only a specialization data file" in refusal(
        serialize, FilePath=str(tmp_path / "a.pdk"), ProvisioningFile=read)


def test_provisioning_that_is_refused(vm, fabric, pdk, tmp_path):
    connection = vm.vmutils._conn_msps
    provision = connection.Msps_ProvisioningService.ProvisionMachine
    identifier = vm.vmutils._lookup_vm_check(vm.name).ConfigurationID
    given = {"PDKPath": pdk, "MachineID": identifier}
    assert "no virtual TPM" in refusal(provision, **given)
    vm.vmutils.add_vtpm(vm.name, pdk, False)
    assert "no virtual machine with the id" in refusal(
        provision, PDKPath=pdk, MachineID=identifier[:-1])
    for wrong in ("PDKPath", "FSKPath"):
        assert "0x80070002" in refusal(
            provision, **dict(given, **{wrong: str(tmp_path / "none")}))
        assert "not a" in refusal(provision, **dict(given, **{wrong: __file__}))
    with pytest.raises(KeyError):
        fabric.provisioning(HOST, vm.name)
    job, code = provision(**given)  # the FSK is left out
    assert (code, job.JobState, job.JobStatus) == (0, PENDING_BOOT, "PendingBoot")
    assert job.InstanceID == identifier
    vm.set_state(RUNNING)
    (done,) = connection.Msps_ProvisioningJob(InstanceID=identifier)
    assert (done.JobState, done.PercentComplete) == (COMPLETED, 100)
    assert fabric.provisioning(HOST, vm.name)["answer_file"] == ANSWERS
    assert "started already" in refusal(provision, **given)
    vm.set_state(OFF)
    assert "started already" in refusal(provision, **given)


def test_a_vm_whose_job_runs_is_not_provisioned(vm, fabric, pdk):
    vm.vmutils.add_vtpm(vm.name, pdk, False)
    fabric.add_delay(HOST, "Msvm_ComputerSystem.RequestStateChange", 60)
    system = vm.vmutils._lookup_vm_check(vm.name, as_vssd=False)
    assert system.RequestStateChange(RequestedState=RUNNING)[1] == 4096
    given = {"PDKPath": pdk, "MachineID": system.Name}
    provision = vm.vmutils._conn_msps.Msps_ProvisioningService.ProvisionMachine
    assert "in use" in refusal(provision, **given)
    vm.vmutils.stop_vm_jobs(vm.name)
    assert provision(**given)[1] == 0


def test_shielding_data_of_another_protector(vm, fabric, owner, pdk, tmp_path):
    other = write_pdk(fabric, owner, tmp_path / "other.pdk", "east")
    vm.vmutils.add_vtpm(vm.name, pdk, False)
    vm.vmutils.provision_vm(vm.name, None, other)
    vm.set_state(RUNNING)
    assert fabric.provisioning(HOST, vm.name) == {
        "job_state": EXCEPTION, "job_status": "Failed", "answer_file": None}
    (job,) = vm.vmutils._conn_msps.Msps_ProvisioningJob(
        InstanceID=vm.vmutils._lookup_vm_check(vm.name).ConfigurationID)
    assert job.ErrorCode == 32768
    assert "not for this key protector" in job.GetError()[0]
    assert fabric.read_tpm(HOST, vm.name, "volume key") is None


def starts_not(vm):
    from os_win import exceptions
    with pytest.raises(exceptions.WMIJobFailed, match="could not be unwrapped.*0x80070057"):
        vm.set_state(RUNNING)


def test_a_host_that_is_not_guarded(fabric, pdk, tmp_path):
    vm = Vm(fabric, UNGUARDED, tmp_path)
    vm.provision(pdk, ComputerName="web")
    starts_not(vm)
    assert fabric.provisioning(UNGUARDED, vm.name)["job_state"] == PENDING_BOOT
    fabric.set_guarded(UNGUARDED, True)
    vm.set_state(RUNNING)
    assert fabric.provisioning(UNGUARDED, vm.name)["job_state"] == COMPLETED
    fabric.set_guarded(UNGUARDED, False)


def test_shielding_data_for_another_fabric(vm, fabric, owner, tmp_path):
    vm.provision(write_pdk(fabric, owner, tmp_path / "west.pdk", "west"))
    starts_not(vm)
    assert fabric.provisioning(HOST, vm.name)["job_state"] == PENDING_BOOT


def test_without_the_feature_there_is_no_namespace(fabric, pdk, tmp_path):
    from os_win import exceptions
    vm = Vm(fabric, PLAIN, tmp_path)
    with pytest.raises(exceptions.OSWinException, match="FabricShieldedTools"):
        vm.provision(pdk)
