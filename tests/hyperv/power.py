"""Starting and stopping VMs: Msvm_ComputerSystem.RequestStateChange, Msvm_ShutdownComponent.

A start with a TPM unwraps the key protector, opens the guest state with the transport key, stores
a protector with a new transport key and keeps it as the last known good one.

Source: Microsoft Learn, "RequestStateChange method of the Msvm_ComputerSystem class",
"Msvm_ShutdownComponent class", "Troubleshoot vTPM, shielded VM, and HGS issues in Hyper-V clusters"
(what a start says in short); [MS-KPS] RollTransportKey. The whole words: user report: GitHub, "Live
Migration of vTPM enabled VM".
"""
import os

from tests.hyperv import disk_files, firmware, guest_state, jobs, key_protector
from tests.hyperv.attestation import NotAttested
from tests.hyperv.guarded_fabric import (
    HealthCertificateException,
    InvalidProtectorException,
    InvalidWrappingException,
    ServiceUnreachable,
)
from tests.hyperv.kept_files import KeptFiles
from tests.hyperv.virtual_machine import EMPTY_PROTECTOR, OFF, PAUSED, RUNNING, SAVED

V2 = "root/virtualization/v2"

_REBOOT, _RESET = 10, 11

# {requested state: (states it is allowed in, state after it)} [assumption when-states-are-invalid].
# Shut Down (4) is for version 1 of Hyper-V only.
_TRANSITIONS = {
    RUNNING: ((OFF, SAVED, PAUSED), RUNNING),
    OFF: ((RUNNING, SAVED, PAUSED), OFF),
    SAVED: ((RUNNING, PAUSED), SAVED),
    PAUSED: ((RUNNING,), PAUSED),
    _REBOOT: ((RUNNING,), RUNNING),
    _RESET: ((RUNNING, PAUSED), RUNNING)}

NOT_STARTED = "'%s' failed to start. %s"
# [assumption open-files]
NOT_CHANGED = "'%s' failed to change state. %s"

# The words are not recorded anywhere public [assumption guest-state-missing].
NO_GUEST_STATE = (
    "Cannot open guest state file '%s': The system cannot find the file specified. (0x80070002)")
DAMAGED_GUEST_STATE = (
    "Cannot open guest state file '%s': The file or directory is corrupted and unreadable. "
    "(0x80070570)")
# [assumption saved-state-missing]
NO_SAVED_STATE = (
    "Cannot open saved state file '%s': The system cannot find the file specified. (0x80070002)")
LOST_GUEST_STATE = (
    "The guest state file '%s' does not hold the state of the virtual TPM. (0x80070570)")

# [assumption disks-of-a-start]
DISK_IN_USE = (
    "Failed to open attachment '%s'. Error: 'The process cannot access the file because it is "
    "being used by another process.' (0x80070020)")

# What a shielded VM must have before it starts [assumption shielding-needs].
NOT_SHIELDED = (
    "A shielded virtual machine needs Secure Boot, a virtual TPM and encrypted state and migration "
    "traffic.")

# EnabledState while a job changes the state: Starting, Shutting Down; Other for the rest
# [assumption states-on-the-way].
_OTHER = 1
_ON_THE_WAY = {RUNNING: 10, OFF: 4}

CANNOT_UNWRAP = (
    "The key protector for the virtual machine '%s' could not be unwrapped. HostGuardianService "
    "returned: One or more arguments are invalid (0x80070057). Details are included in the "
    "HostGuardianService-Client event log.")
# The sentence is Microsoft's, what is around it is not [assumption words-of-a-wrong-tpm-key].
WRONG_TPM_KEY = (
    "The virtual TPM of the virtual machine '%s' could not be started: The computed "
    "authentication tag did not match the input authentication tag. (0xC000A002)")


_NOT_UNWRAPPED = (
    NotAttested, ServiceUnreachable, HealthCertificateException, InvalidProtectorException,
    InvalidWrappingException, key_protector.CannotUnwrap, key_protector.InvalidProtector)


class Power:
    """The power states of one host's VMs.

    :param hgs_client: the host's :class:`tests.hyperv.hgs_client.HgsClient`, or None before 2016
    """

    def __init__(self, repository, job_factory, machines, hgs_client):
        self._repository, self._jobs, self._machines = repository, job_factory, machines
        self._hgs_client = hgs_client
        # The host's tests.hyperv.provisioning.Provisioning, where it has one.
        self.provisioning = None
        repository.provide(V2, "CIM_EnabledLogicalElement", {"RequestStateChange": self._request})
        job_factory.check_first("CIM_EnabledLogicalElement", {
            "RequestStateChange": (self._check, self._begin)})
        repository.provide(V2, "Msvm_ShutdownComponent", {
            "InitiateShutdown": self._shut_down, "InitiateReboot": self._reboot})

    def _check(self, system, RequestedState=None, TimeoutPeriod=None):  # noqa: N803
        machine = self._machines.machine_of(system)
        allowed, _ = _TRANSITIONS.get(RequestedState, ((), None))
        if machine.imported_from is not None or machine.state not in allowed:
            return jobs.INVALID_STATE
        return None

    def _begin(self, system, RequestedState=None, TimeoutPeriod=None):  # noqa: N803
        """The state on the way to another, while the job runs."""
        stored = self._machines.machine_of(system).system
        before = stored.clone()
        stored["EnabledState"] = _ON_THE_WAY.get(_TRANSITIONS[RequestedState][1], _OTHER)
        self._repository.changed(stored, before)

        def take_back():
            stored["EnabledState"] = before["EnabledState"]
        return take_back

    def _request(self, system, RequestedState=None, TimeoutPeriod=None):  # noqa: N803
        refusal = self._check(system, RequestedState)
        if refusal is not None:
            return refusal
        machine = self._machines.machine_of(system)
        _, after = _TRANSITIONS[RequestedState]
        try:
            self._change(machine, after)
        except jobs.JobFailure as failure:
            return self._jobs.failed("RequestStateChange", failure, system)
        return self._jobs.done("RequestStateChange", system)

    def _change(self, machine, after):
        if machine.state in (RUNNING, PAUSED):
            self._check_open_files(machine)
        elif after == RUNNING:
            self._check_saved_state(machine)
            self._check_disks(machine)
            self._open_guest_state(machine)
        self._enter(machine, after)

    def _enter(self, machine, after):
        if after in (OFF, SAVED):
            machine.tpm = None
        if after == SAVED:
            machine.saved_state_file.touch()
        machine.change_state(after)
        self.show_guest(machine, after == RUNNING)
        if after == PAUSED:
            self._show_security(machine)

    def change_state(self, machine, state):
        """Bring a VM into a power state, as another service of the host asks.

        :raises jobs.JobFailure: it does not start, or a file that it had open is gone
        """
        self._change(machine, state)

    def cut(self, machine):
        """Take the power from a VM that is in memory, as its host loses its own."""
        self._enter(machine, OFF)

    def show_guest(self, machine, runs):
        """Have what only a running guest gives: Msvm_ShutdownComponent; or take it away."""
        components = self._repository.instances(
            V2, "Msvm_ShutdownComponent", SystemName=machine.identifier)
        if runs and not components:
            self._repository.add(
                V2, "Msvm_ShutdownComponent", CreationClassName="Msvm_ShutdownComponent",
                DeviceID="Microsoft:" + machine.identifier, EnabledState=2,
                SystemCreationClassName="Msvm_ComputerSystem", SystemName=machine.identifier)
        elif not runs:
            for component in components:
                self._repository.remove(component)
        if machine.security_settings is not None:
            for element in self._repository.instances(
                    V2, "Msvm_SecurityElement", SystemName=machine.identifier):
                self._repository.remove(element)
            if runs:
                self._show_security(machine)

    def _show_security(self, machine):
        """Have the security settings of a VM in memory [assumption security-element]."""
        settings = machine.security_settings
        if settings is not None:
            self._repository.add(
                V2, "Msvm_SecurityElement", CreationClassName="Msvm_SecurityElement",
                SystemCreationClassName="Msvm_ComputerSystem", SystemName=machine.identifier,
                EnabledState=2, Shielded=bool(settings["ShieldingRequested"]),
                EncryptStateAndVmMigrationTrafficEnabled=bool(
                    settings["EncryptStateAndVmMigrationTraffic"]))

    def _shut_down(self, component, Force=None, Reason=None):  # noqa: N803
        # The guest obeys at once [assumption guest-obeys].
        try:
            self._change(self._machines.machines[component["SystemName"]], OFF)
        except jobs.JobFailure:
            return jobs.FAILED
        return 0

    def _reboot(self, component, Force=None, Reason=None):  # noqa: N803
        return 0

    def _check_open_files(self, machine):
        """Refuse to go on without a file that a VM in memory has open [assumption open-files]."""
        problems = disk_files.missing(machine.definition())
        if machine.generation == 2 and not machine.guest_state_file.exists():
            problems.append(NO_GUEST_STATE % machine.guest_state_file)
        if problems:
            raise jobs.JobFailure(NOT_CHANGED % (machine.name, "\n".join(problems)))

    def _check_saved_state(self, machine):
        """Refuse to resume a VM whose memory is gone [assumption saved-state-missing]."""
        if machine.state == SAVED and not machine.saved_state_file.exists():
            raise _not_started(machine, NO_SAVED_STATE % machine.saved_state_file)

    def _check_disks(self, machine):
        """Refuse a start without a disk, or with one that another VM has open."""
        definition = machine.definition()
        problems = disk_files.missing(definition)
        if not problems:
            written, based_on = disk_files.opened(definition)
            for other in self._machines.machines.values():
                if other is not machine and not other.is_planned and (
                        other.state not in (OFF, SAVED)):
                    others, others_base = disk_files.opened(other.definition())
                    problems += [DISK_IN_USE % path for path in sorted(
                        written & (others | others_base) | based_on & others)]
        if problems:
            raise _not_started(machine, "\n".join(problems))

    def _open_guest_state(self, machine):
        if machine.generation == 2:
            try:
                guest_state.check(machine.guest_state_file)
            except FileNotFoundError:
                raise _not_started(machine, NO_GUEST_STATE % machine.guest_state_file) from None
            except guest_state.Damaged:
                raise _not_started(
                    machine, DAMAGED_GUEST_STATE % machine.guest_state_file) from None
        if firmware.is_shielded(machine) and not (
                machine.tpm_enabled and machine.settings["SecureBootEnabled"]
                and machine.encrypts_state):
            raise _not_started(machine, NOT_SHIELDED)
        if machine.tpm_enabled:
            self._start_tpm(machine)
        elif machine.encrypts_state:
            # [assumption encrypted-state-needs-the-key]
            self._unwrap_for(machine.name, machine.key_protector)

    def _start_tpm(self, machine):
        ingress, rolled, egress = self._unwrap_for(machine.name, machine.key_protector)
        try:
            secrets = guest_state.read(machine.guest_state_file, ingress)
        except guest_state.WrongKey:
            raise jobs.JobFailure(WRONG_TPM_KEY % machine.name) from None
        if not secrets:
            if machine.last_known_good != EMPTY_PROTECTOR:
                # It had one: another's file, or a new one, never becomes its TPM.
                raise _not_started(machine, LOST_GUEST_STATE % machine.guest_state_file)
            # What a real TPM has from its making: a seed that is its identity.
            secrets = {"endorsement seed": os.urandom(16)}
        if self.provisioning is not None:
            secrets.update(self.provisioning.boot(machine, ingress))
        before = machine.key_protector, machine.last_known_good
        kept = KeptFiles(machine.files())
        try:
            guest_state.write(machine.guest_state_file, egress, secrets)
            machine.key_protector = machine.last_known_good = rolled
            machine.save()
        except OSError as fault:
            # State and protector change together or not at all.
            machine.key_protector, machine.last_known_good = before
            kept.put_back()
            raise _not_started(machine, fault) from None
        machine.tpm = Tpm(machine.guest_state_file, egress, secrets)

    def receive_tpm(self, name, protector, tpm, path):
        """What a running TPM becomes when it arrives from another host; nothing is written yet.

        :param name: of its VM, for the words of a failure
        :param protector: the VM's key protector
        :param tpm: the :class:`Tpm` that arrives
        :param path: where its guest state file will lie
        :returns: (new protector, :class:`Tpm`)
        :raises jobs.JobFailure: this host cannot unwrap the protector, or it is not this TPM's
        """
        ingress, rolled, egress = self._unwrap_for(name, protector)
        if not tpm.is_sealed_with(ingress):
            raise jobs.JobFailure(WRONG_TPM_KEY % name)
        return rolled, Tpm(path, egress, dict(tpm.secrets))

    def _unwrap_for(self, name, protector):
        if self._hgs_client is None:
            raise jobs.JobFailure(CANNOT_UNWRAP % name)
        try:
            return self._unwrap(protector)
        except _NOT_UNWRAPPED:
            # Whatever the reason [assumption words-of-a-refused-start].
            raise jobs.JobFailure(CANNOT_UNWRAP % name) from None

    def _unwrap(self, protector):
        """(transport key, new protector, its transport key)."""
        client = self._hgs_client
        if client.fabric is not None:
            return client.unwrap_with_fabric(protector)
        return client.unwrap_locally(protector)


class Tpm:
    """A running VM's TPM, as its guest uses it.

    :ivar secrets: what is in it; {name: bytes}
    """

    def __init__(self, path, transport_key, secrets):
        self._path, self._transport_key = path, transport_key
        self.secrets = secrets

    def write(self, name, value):
        """:raises OSError: its guest state file is gone, or cannot be written"""
        secrets = {**self.secrets, name: value}
        guest_state.write(self._path, self._transport_key, secrets)
        self.secrets = secrets

    def seal(self):
        """Write its guest state file; it is never made anew.

        :raises OSError: it is gone, or cannot be written
        """
        guest_state.write(self._path, self._transport_key, self.secrets)

    def is_sealed_with(self, transport_key):
        return self._transport_key == transport_key


def _not_started(machine, why):
    return jobs.JobFailure(NOT_STARTED % (machine.name, why))
