"""root/msps: shielding data files, and the provisioning of shielded VMs.

ProvisionMachine only prepares: the job waits for the machine to boot, and its first start
specialises the disk with the tenant's answer file, which the key protector's transport key opens.

Source: Microsoft Learn, "Shielded VM Provisioning WMI Provider", "Shielded VM Provisioning Service
WMI Provider" (Msps_ProvisioningJob: JobState, JobStatus), "Initialize-ShieldedVM".
"""
import os
import pathlib

from tests.hyperv import certificates, cim, guest_state, provisioning_files
from tests.hyperv.virtual_machine import EMPTY_PROTECTOR

MSPS = "root/msps"

PENDING_BOOT, COMPLETED, EXCEPTION = 3, 7, 10
_STATUS = {PENDING_BOOT: "PendingBoot", COMPLETED: "Complete", EXCEPTION: "Failed"}
_FAILED = 32768


class Provisioning:
    """The provisioning service and the file processor of one host.

    :param job_factory: :class:`tests.hyperv.jobs.Jobs`
    :param machines: the host's :class:`VirtualSystemManagement`
    """

    def __init__(self, repository, job_factory, machines):
        self._repository, self._hyperv_jobs, self._machines = repository, job_factory, machines
        self._waiting = {}  # {VM id: (Pdk, {placeholder: value})}
        self._answer_files = {}
        repository.provide(MSPS, "Msps_ProvisioningFileProcessor", {
            "PopulateFromFile": self._populate, "PopulateFromStream": self._populate_from_stream,
            "SerializeToFile": self._serialize})
        repository.provide(MSPS, "Msps_ProvisioningService", {"ProvisionMachine": self._provision})
        repository.provide(MSPS, "CIM_ConcreteJob", {"GetError": self._error})

    def state(self, machine):
        """(JobState, JobStatus, the specialised answer file or None) of a VM's provisioning.

        :raises KeyError: it was never asked for
        """
        jobs = self._jobs_of(machine.identifier)
        if not jobs:
            raise KeyError(machine.name)
        return (jobs[0]["JobState"], jobs[0]["JobStatus"],
                self._answer_files.get(machine.identifier))

    def boot(self, machine, transport_key):
        """A VM with a TPM boots: specialise its disk, if it waits for that.

        At once, and a job that fails does not stop the VM [assumption provisioning-at-boot].

        :param transport_key: what its key protector held before this start
        :returns: secrets for its TPM: {name: bytes}
        """
        pdk, pairs = self._waiting.pop(machine.identifier, (None, None))
        if pdk is None:
            return {}
        job = self._jobs_of(machine.identifier)[0]
        try:
            text = pdk.answer_file(transport_key)
        except provisioning_files.InvalidFile as fault:
            _show(job, EXCEPTION)
            job["ErrorCode"], job["ErrorDescription"] = _FAILED, str(fault)
            return {}
        for placeholder, value in pairs.items():
            text = text.replace(placeholder, value)
        self._answer_files[machine.identifier] = text
        _show(job, COMPLETED)
        # The disk is encrypted anew, and its key is in the TPM from now on.
        return {"volume key": os.urandom(32)}

    # Msps_ProvisioningFileProcessor.

    def _populate(self, cls, FilePath=None):  # noqa: N803
        return self._populate_from_stream(cls, _read(FilePath))

    def _populate_from_stream(self, cls, Data=None):  # noqa: N803
        data = bytes(Data or ())
        try:
            pdk = provisioning_files.read_pdk(data)
        except provisioning_files.InvalidFile:
            pairs = _checked(provisioning_files.read_fsk, data)
            file = self._repository.new(
                MSPS, "Msps_FSK", RawData=list(data), FabricDataPairs=[
                    self._repository.new(MSPS, "Msps_FabricData", key=key, Value=value)
                    for key, value in pairs.items()])
        else:
            file = self._repository.new(
                MSPS, "Msps_PDK", RawData=list(data), KeyProtector=list(pdk.key_protector),
                PolicyData=list(pdk.policy), VolumeIDFilters=[])
        return {"ReturnValue": 0, "ProvisioningFile": file}

    def _serialize(self, cls, FilePath=None, ProvisioningFile=None):  # noqa: N803
        if ProvisioningFile is None or not ProvisioningFile.is_a("Msps_FSK"):
            # "May not be supported by all provisioning file instances" (Microsoft Learn).
            raise cim.error("NOT_SUPPORTED", "only a specialization data file can be written")
        pairs = {pair["key"]: pair["Value"] for pair in ProvisioningFile["FabricDataPairs"] or ()}
        if None in pairs or None in pairs.values():
            raise cim.error("INVALID_PARAMETER", "each of FabricDataPairs needs key and Value")
        try:
            pathlib.Path(FilePath or "").write_bytes(provisioning_files.make_fsk(pairs))
        except OSError:
            raise certificates.path_not_found().as_wmi_error() from None
        return 0

    # Msps_ProvisioningService.

    def _provision(self, cls, PDKPath=None, FSKPath=None, MachineID=None):  # noqa: N803
        machine = self._machines.machines.get((MachineID or "").upper())
        if machine is None:
            raise cim.error("NOT_FOUND", "There is no virtual machine with the id %s." % MachineID)
        if self._hyperv_jobs.is_busy({machine.identifier}):
            raise cim.error("FAILED", "The virtual machine is in use.")
        pdk = _checked(provisioning_files.read_pdk, _read(PDKPath))
        # Initialize-ShieldedVM can do without.
        pairs = _checked(provisioning_files.read_fsk, _read(FSKPath)) if FSKPath else {}
        if not guest_state.is_new(machine.guest_state_file):
            raise cim.error("FAILED", "The virtual machine has been started already.")
        if not machine.tpm_enabled or machine.key_protector == EMPTY_PROTECTOR:
            raise cim.error("FAILED", "The virtual machine has no virtual TPM.")
        self._waiting[machine.identifier] = pdk, pairs
        for old in self._jobs_of(machine.identifier):
            self._repository.remove(old)
        job = self._repository.add(
            MSPS, "Msps_ProvisioningJob", InstanceID=machine.identifier, Name="ProvisionMachine",
            ElementName=machine.name, ErrorCode=0, PercentComplete=0, DeleteOnCompletion=False)
        _show(job, PENDING_BOOT)
        # The job is embedded, not a reference: a caller cannot wait for it by its path, so the
        # method itself has succeeded [assumption provisioning-job].
        return {"ReturnValue": 0, "ProvisioningJob": job}

    def _error(self, job):
        return {"ReturnValue": 0, "Error": job["ErrorDescription"]}

    def _jobs_of(self, identifier):
        return self._repository.instances(MSPS, "Msps_ProvisioningJob", InstanceID=identifier)


def _show(job, state):
    job["JobState"], job["JobStatus"] = state, _STATUS[state]
    job["PercentComplete"] = 100 if state == COMPLETED else 0


def _read(path):
    try:
        return pathlib.Path(path or "").read_bytes()
    except OSError:
        raise certificates.file_not_found().as_wmi_error() from None


def _checked(read, data):
    try:
        return read(data)
    except provisioning_files.InvalidFile as fault:
        raise cim.error("INVALID_PARAMETER", str(fault)) from None
