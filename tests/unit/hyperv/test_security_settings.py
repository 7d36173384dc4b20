"""The rules of Msvm_SecurityService, Secure Boot and the start of a VM with a virtual TPM."""
import itertools
import pathlib
import shutil

import pytest
from hypothesis import given, settings, strategies

from tests.hyperv import key_protector, windows
from tests.hyperv.fabric import Fabric
from tests.hyperv.firmware import SECURE_BOOT_TEMPLATES, TEMPLATE_FIXED
from tests.hyperv.guardian import Guardian
from tests.unit.hyperv.machine import Machine

HGS = "//./Root/Microsoft/Windows/Hgs"
EMPTY = b"\0\0\0\4"
WINDOWS, OTHERS = SECURE_BOOT_TEMPLATES.values()
FLAGS = ("TpmEnabled", "EncryptStateAndVmMigrationTraffic", "ShieldingRequested")
ALL = dict.fromkeys(FLAGS, True)
MINUTE = 60
RUNNING, OFF, SAVED, PAUSED = 2, 3, 6, 9

_names = itertools.count()


@pytest.fixture(scope="module")
def fabric():
    return Fabric({"fabrics": ["east", "west"], "hosts": [
        {"name": "HV1", "fabric": "east"}, {"name": "OLD", "version": "6.3.9600"}]})


@pytest.fixture(scope="module")
def owner():
    return Guardian.generate("tenant")


@pytest.fixture(scope="module")
def east(fabric, owner):
    """A key protector for the host's fabric."""
    return protector_for(fabric, owner, "east")


@pytest.fixture(scope="module")
def west(fabric, owner):
    """A key protector for another fabric."""
    return protector_for(fabric, owner, "west")


def protector_for(fabric, owner, name):
    return key_protector.make_protector(
        owner, [Guardian.from_metadata(fabric.metadata(name), name)])


class CheckedMachine(Machine):
    """A VM whose methods give return values instead of raising errors."""

    @classmethod
    def create(cls, fabric, folder, host="HV1", generation=2):
        windows.install(fabric, host)
        fabric.clear_faults(host)
        from os_win import utilsfactory
        vmutils = utilsfactory.get_vmutils()
        name = "vm%d" % next(_names)
        vmutils.create_vm(name, False, generation, str(folder / name), [])
        return cls(vmutils, name)

    def modify(self, **values):
        """(return value, words of its job's failure or None)"""
        data = self.settings()
        data.set(**values)
        return self._outcome(self.vmutils._sec_svc.ModifySecuritySettings(
            SecuritySettingData=data.GetText_(1)))

    def protect(self, raw):
        return self.set_protector(raw)[1]

    def restore(self):
        return self.vmutils._sec_svc.RestoreLastKnownGoodKeyProtector(
            SecuritySettingData=self.settings().GetText_(1))[1]

    def set_policy(self, policy=(1,)):
        return self.vmutils._sec_svc.SetSecurityPolicy(
            SecuritySettingData=self.settings().GetText_(1), SecurityPolicy=list(policy))[1]

    def change_firmware(self, **values):
        data = self.vmutils._lookup_vm_check(self.name)
        for name, value in values.items():
            setattr(data, name, value)
        return self._outcome(self.vmutils._vs_man_svc.ModifySystemSettings(
            SystemSettings=data.GetText_(1)))

    def connect_serial_port(self, pipe):
        port = self.vmutils._get_vm_serial_ports(self.vmutils._lookup_vm_check(self.name))[0]
        port.Connection = [pipe]
        return self.vmutils._vs_man_svc.ModifyResourceSettings(
            ResourceSettings=[port.GetText_(1)])[2]

    def change_state(self, state):
        system = self.vmutils._lookup_vm_check(self.name, as_vssd=False)
        return self._outcome(system.RequestStateChange(RequestedState=state))

    def flags(self):
        data = self.settings()
        return {name: getattr(data, name) for name in FLAGS}

    def _outcome(self, answer):
        path, value = answer
        if not path:
            return value, None
        job = self.vmutils._jobutils._get_wmi_obj(path.replace("\\", "/"))
        return value, job.ErrorDescription if job.JobState == 10 else None


DONE = (4096, None)


@pytest.fixture
def vm(fabric, tmp_path):
    return CheckedMachine.create(fabric, tmp_path)


@pytest.fixture
def shielded(vm, east):
    """A shielded VM that is off."""
    assert vm.change_firmware(SecureBootEnabled=True) == (0, None)
    assert vm.protect(east) == 4096
    assert vm.modify(**ALL) == DONE
    return vm


# The key protector.


def test_the_empty_protector_can_be_set_and_reads_back(vm, east):
    vm.protect(east)
    assert vm.protect(EMPTY) == 4096
    assert vm.protector() == EMPTY


@pytest.mark.parametrize("spoil", [
    lambda raw: b"", lambda raw: b"\0", lambda raw: EMPTY[:3], lambda raw: EMPTY + b"\0",
    lambda raw: raw + b"\0", lambda raw: raw[:-1], lambda raw: raw[4:],
    lambda raw: (len(raw) - 4).to_bytes(4, "big") + raw[4:],
    lambda raw: len(raw).to_bytes(4, "little") + raw[4:], lambda raw: b"\0\0\0\7xml"])
def test_protectors_that_do_not_fit_their_prefix(vm, east, spoil):
    assert vm.protect(spoil(east)) == 32773
    assert vm.protector() == EMPTY


def test_wrong_types_of_a_protector(vm):
    service, text = vm.vmutils._sec_svc, vm.settings().GetText_(1)
    with pytest.raises(TypeError):
        service.SetKeyProtector(SecuritySettingData=text, KeyProtector=EMPTY.decode())
    with pytest.raises(SystemError):
        service.SetKeyProtector(SecuritySettingData=text, KeyProtector=[False, False, False, True])


def test_a_damaged_signature_is_refused_when_it_is_set(vm, east):
    assert vm.protect(east.replace(b"<Id>2", b"<Id>3")) == 32773


def test_a_protector_for_others_is_refused_at_the_start(vm, west):
    vm.protect(west)
    assert vm.modify(TpmEnabled=True) == DONE
    value, words = vm.change_state(RUNNING)
    assert value == 4096
    assert words == (
        "The key protector for the virtual machine '%s' could not be unwrapped. "
        "HostGuardianService returned: One or more arguments are invalid (0x80070057). Details "
        "are included in the HostGuardianService-Client event log." % vm.name)
    assert vm.vmutils.get_vm_state(vm.name) == OFF
    assert vm.protector() == west


@pytest.mark.parametrize("spoil", [
    lambda letter: b"B" if letter == b"A" else b"A", lambda letter: b"!"])
def test_a_damaged_protector_that_only_its_key_betrays_is_refused_at_the_start(
        vm, east, spoil):
    # The last but one signature is that with the transport key.
    position = east.rindex(b"<SignatureValue>", 0, east.rindex(b"<SignatureValue>")) + 16
    damaged = east[:position] + spoil(east[position:position + 1]) + east[position + 1:]
    assert vm.protect(damaged) == 4096
    vm.modify(TpmEnabled=True)
    assert "0x80070057" in vm.change_state(RUNNING)[1]
    assert vm.vmutils.get_vm_state(vm.name) == OFF


def test_a_protector_set_again_over_a_tpm_that_has_state(fabric, vm, east):
    vm.protect(east)
    vm.modify(TpmEnabled=True)
    assert vm.change_state(RUNNING) == DONE
    fabric.write_tpm("HV1", vm.name, "bitlocker", b"key")
    rolled = vm.protector()
    vm.change_state(OFF)
    assert vm.protect(east) == 4096
    assert "0xC000A002" in vm.change_state(RUNNING)[1]
    assert vm.vmutils.get_vm_state(vm.name) == OFF
    assert vm.restore() == 4096
    assert vm.protector() == rolled
    assert vm.change_state(RUNNING) == DONE
    assert fabric.read_tpm("HV1", vm.name, "bitlocker") == b"key"


def test_nothing_to_restore(vm, east):
    assert vm.restore() == 32775
    vm.protect(east)
    assert vm.restore() == 32775


@pytest.mark.parametrize("name", FLAGS)
def test_the_empty_protector_is_refused_while_a_setting_needs_one(vm, east, name):
    vm.change_firmware(SecureBootEnabled=True)
    vm.protect(east)
    vm.modify(**(ALL if name == "ShieldingRequested" else {name: True}))
    assert vm.protect(EMPTY) == 32775
    assert vm.protector() == east


# Settings.


@pytest.mark.parametrize("name", FLAGS)
def test_no_setting_without_a_protector(vm, name):
    assert vm.modify(**{name: True}) == (4096, (
        "Cannot modify the selected security settings of a virtual machine without a valid key "
        "protector configured. Configure a valid key protector and try again."))
    assert not any(vm.flags().values())


def test_other_settings_need_no_protector(vm):
    wanted = {"DataProtectionRequested": True, "VirtualizationBasedSecurityOptOut": True}
    assert vm.modify(**wanted) == DONE
    assert {name: getattr(vm.settings(), name) for name in wanted} == wanted


def test_what_is_not_given_stays(vm, east):
    vm.protect(east)
    vm.modify(TpmEnabled=True)
    data = vm.vmutils._conn.Msvm_SecuritySettingData.new()
    data.InstanceID = vm.settings().InstanceID
    data.EncryptStateAndVmMigrationTraffic = True
    vm.vmutils._sec_svc.ModifySecuritySettings(SecuritySettingData=data.GetText_(1))
    assert vm.flags() == {**ALL, "ShieldingRequested": False}


def test_a_key_storage_drive_is_for_generation_1(vm):
    assert vm.modify(KsdEnabled=True) == (4, None)


def test_generation_1_has_no_security_settings(fabric, tmp_path):
    machine = CheckedMachine.create(fabric, tmp_path, generation=1)
    with pytest.raises(IndexError):
        machine.settings()


@pytest.mark.parametrize("state", [RUNNING, PAUSED, SAVED])
def test_security_changes_need_the_machine_off(vm, east, state):
    vm.protect(east)
    vm.change_state(RUNNING)
    if state != RUNNING:
        assert vm.change_state(state) == DONE
    assert vm.protect(east) == 32775
    assert vm.modify(TpmEnabled=True) == (5, None)
    assert vm.set_policy() == 32775
    assert vm.restore() == 32775
    assert vm.protector() == east


@pytest.mark.parametrize("state", [RUNNING, PAUSED, SAVED])
def test_a_protector_is_restored_while_the_machine_is_off(vm, east, state):
    vm.protect(east)
    vm.modify(TpmEnabled=True)
    vm.change_state(RUNNING)
    rolled = vm.protector()
    if state != RUNNING:
        assert vm.change_state(state) == DONE
    assert vm.restore() == 32775
    vm.change_state(OFF)
    assert vm.protect(east) == 4096
    assert vm.restore() == 4096
    assert vm.protector() == rolled


@pytest.mark.parametrize("policy", [(), (1,), b"no policy of Windows"])
def test_a_security_policy_is_set_by_a_job(fabric, vm, policy):
    fabric.add_delay("HV1", "*.SetSecurityPolicy", MINUTE)
    assert vm.set_policy(policy) == 4096
    assert vm.modify(DataProtectionRequested=True) == (5, None)
    fabric.advance_clock(MINUTE)
    assert vm.modify(DataProtectionRequested=True) == DONE
    assert fabric.host("HV1").management.machine_named(vm.name).security_policy == bytes(policy)


def test_they_are_refused_at_once_also_where_jobs_are_delayed(fabric, vm, east):
    fabric.add_delay("HV1", "Msvm_SecurityService.*", MINUTE, times=None)
    assert vm.protect(b"") == 32773
    assert vm.restore() == 32775
    assert vm.modify(KsdEnabled=True) == (4, None)
    assert vm.vmutils._conn.Msvm_ConcreteJob(JobState=4) == []
    assert vm.protect(east) == 4096
    assert vm.protector() == EMPTY
    fabric.advance_clock(MINUTE)
    assert vm.protector() == east


def test_a_virtual_machine_of_2012_r2_takes_none_of_them(fabric, tmp_path, east):
    old = CheckedMachine.create(fabric, tmp_path, host="OLD")
    assert old.vmutils._lookup_vm_check(old.name).Version == "5.0"
    shutil.copytree(tmp_path / old.name / "Virtual Machines", tmp_path / "export")
    old.vmutils.destroy_vm(old.name)
    windows.install(fabric, "HV1")
    from os_win import utilsfactory
    migration = utilsfactory.get_migrationutils()
    migration.import_vm_definition(str(next((tmp_path / "export").glob("*.vmcx"))), str(tmp_path))
    migration.realize_vm(old.name)
    vm = CheckedMachine(utilsfactory.get_vmutils(), old.name)
    assert vm.protect(east) == 32770
    assert vm.set_policy() == 32770
    assert vm.modify(TpmEnabled=True) == (1, None)
    assert vm.change_state(RUNNING) == DONE


def test_a_disabled_tpm_keeps_what_it_holds(fabric, vm, east):
    vm.protect(east)
    vm.modify(TpmEnabled=True)
    vm.change_state(RUNNING)
    fabric.write_tpm("HV1", vm.name, "bitlocker", b"key")
    vm.change_state(OFF)
    vm.modify(TpmEnabled=False)
    vm.change_state(RUNNING)
    with pytest.raises(ValueError):
        fabric.read_tpm("HV1", vm.name, "bitlocker")
    vm.change_state(OFF)
    vm.modify(TpmEnabled=True)
    vm.change_state(RUNNING)
    assert fabric.read_tpm("HV1", vm.name, "bitlocker") == b"key"


# Shielding.


@pytest.mark.parametrize("missing", FLAGS[:2])
def test_a_shielded_machine_needs_the_other_settings(vm, east, missing):
    vm.change_firmware(SecureBootEnabled=True)
    vm.protect(east)
    # As the cmdlets do: shielding first, the rest after it.
    assert vm.modify(**{**ALL, missing: False}) == DONE
    assert vm.change_state(RUNNING)[1].endswith("encrypted state and migration traffic.")
    assert vm.modify(**ALL) == DONE
    assert vm.modify(**{missing: False}) == (4, None)
    assert vm.flags() == ALL
    assert vm.change_state(RUNNING) == DONE


def test_a_shielded_machine_needs_secure_boot(vm, east):
    vm.protect(east)
    assert vm.modify(**ALL) == DONE
    assert "needs Secure Boot" in vm.change_state(RUNNING)[1]
    assert vm.change_firmware(SecureBootEnabled=True) == (0, None)
    assert vm.change_state(RUNNING) == DONE


def test_the_template_of_a_tpm_that_was_started_stays(vm, east):
    vm.change_firmware(SecureBootEnabled=True)
    vm.protect(east)
    vm.modify(TpmEnabled=True)
    vm.change_state(RUNNING)
    vm.change_state(OFF)
    vm.modify(TpmEnabled=False)
    assert vm.change_firmware(SecureBootTemplateId=OTHERS)[1] == TEMPLATE_FIXED


def test_a_shielded_machine_starts(fabric, shielded):
    assert shielded.change_state(RUNNING) == DONE
    fabric.write_tpm("HV1", shielded.name, "bitlocker", b"key")


def test_secure_boot_of_a_shielded_machine_stays(shielded):
    assert shielded.change_firmware(SecureBootEnabled=False) == (32775, None)
    assert shielded.change_firmware(Notes=["other"]) == (0, None)


def test_shielding_stays_where_the_owner_is_not(fabric, owner, shielded):
    assert shielded.modify(**dict.fromkeys(FLAGS, False)) == (5, None)
    assert shielded.modify(ShieldingRequested=False) == (5, None)
    # To know who it is is not enough.
    fabric.host("HV1").hgs_client.add(owner.public())
    assert shielded.modify(ShieldingRequested=False) == (5, None)
    assert shielded.flags() == ALL


def test_the_owner_takes_shielding_back(vm):
    import wmi
    hgs = wmi.WMI(HGS)
    _, owner = hgs.MSFT_HgsGuardian.NewByGenerateCertificates(
        Name=vm.name, GenerateCertificates=True)
    _, protector = hgs.MSFT_HgsKeyProtector.NewByGuardians(
        Owner=owner, Guardian=[], AllowUntrustedRoot=True)
    vm.change_firmware(SecureBootEnabled=True)
    vm.protect(protector.RawData)
    vm.modify(**ALL)
    assert vm.modify(ShieldingRequested=False) == DONE


def test_a_shielded_machine_has_no_serial_port(shielded):
    assert shielded.connect_serial_port(r"\\.\pipe\one") == 32775
    assert shielded.connect_serial_port("") == 0


def test_other_machines_have_serial_ports(vm, east):
    vm.protect(east)
    vm.modify(TpmEnabled=True, EncryptStateAndVmMigrationTraffic=True)
    assert vm.connect_serial_port(r"\\.\pipe\one") == 0


def test_the_security_of_a_machine_in_memory(shielded):
    def found():
        return [(element.Shielded, element.EncryptStateAndVmMigrationTrafficEnabled)
                for element in shielded.vmutils._conn.Msvm_SecurityElement(SystemName=guid)]

    guid = shielded.vmutils._lookup_vm_check(shielded.name).ConfigurationID
    assert found() == []
    shielded.change_state(RUNNING)
    assert found() == [(True, True)]
    shielded.change_state(PAUSED)
    assert found() == [(True, True)]
    shielded.change_state(OFF)
    assert found() == []


# Firmware.


def test_the_template_is_fixed_once_there_is_a_tpm(vm, east):
    vm.change_firmware(SecureBootEnabled=True)
    assert vm.change_firmware(SecureBootTemplateId=OTHERS) == (0, None)
    vm.protect(east)
    vm.modify(TpmEnabled=True)
    assert vm.change_firmware(SecureBootTemplateId=WINDOWS) == (4096, (
        "Cannot modify the secure boot template ID property after the virtual TPM is "
        "initialized"))
    assert vm.change_firmware(SecureBootTemplateId=OTHERS.upper()) == (0, None)
    assert vm.vmutils._lookup_vm_check(vm.name).SecureBootTemplateId.lower() == OTHERS


def test_the_first_template_comes_before_the_tpm_too(vm, east):
    vm.protect(east)
    vm.modify(TpmEnabled=True)
    assert "secure boot template" in vm.change_firmware(
        SecureBootEnabled=True, SecureBootTemplateId=OTHERS)[1]
    assert vm.change_firmware(SecureBootEnabled=True) == (0, None)
    assert vm.vmutils._lookup_vm_check(vm.name).SecureBootTemplateId == WINDOWS


def test_secure_boot_changes_while_the_machine_is_off(vm):
    vm.change_state(RUNNING)
    assert vm.change_firmware(SecureBootEnabled=True) == (32775, None)
    assert vm.change_firmware(SecureBootTemplateId=OTHERS) == (32775, None)
    assert vm.change_firmware(Notes=["running"]) == (0, None)


def test_templates_that_do_not_exist(vm):
    assert vm.change_firmware(
        SecureBootTemplateId="00000000-0000-0000-0000-000000000000") == (32773, None)


def test_secure_boot_is_for_generation_2(fabric, tmp_path):
    machine = CheckedMachine.create(fabric, tmp_path, generation=1)
    assert machine.change_firmware(SecureBootEnabled=True) == (32773, None)


# Power.

REACHED_BY = {RUNNING: (RUNNING,), OFF: (), SAVED: (RUNNING, SAVED), PAUSED: (RUNNING, PAUSED)}
# {requested: {state before: state after}}; 10 is Reboot, 11 Reset.
STEPS = {
    RUNNING: dict.fromkeys((OFF, SAVED, PAUSED), RUNNING),
    OFF: dict.fromkeys((RUNNING, SAVED, PAUSED), OFF),
    SAVED: dict.fromkeys((RUNNING, PAUSED), SAVED),
    PAUSED: {RUNNING: PAUSED},
    10: {RUNNING: RUNNING},
    11: dict.fromkeys((RUNNING, PAUSED), RUNNING)}


@pytest.mark.parametrize("requested", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 32768, 32769])
@pytest.mark.parametrize("before", REACHED_BY)
def test_each_request_in_each_state(fabric, vm, before, requested):
    for step in REACHED_BY[before]:
        assert vm.change_state(step) == DONE
    after = STEPS.get(requested, {}).get(before)
    assert vm.change_state(requested) == (DONE if after else (32775, None))
    assert fabric.virtual_machine("HV1", vm.name)["state"] == (after or before)


# The guest.


def test_the_guest_obeys(vm):
    vm.change_state(RUNNING)
    vm.vmutils.soft_shutdown_vm(vm.name)
    assert vm.vmutils.get_vm_state(vm.name) == OFF
    assert vm.vmutils._conn.Msvm_ShutdownComponent(
        SystemName=vm.vmutils._lookup_vm_check(vm.name).ConfigurationID) == []


def test_the_guest_state_is_sealed_and_sealed_anew(fabric, vm, east):
    vm.protect(east)
    vm.modify(TpmEnabled=True)
    vm.change_state(RUNNING)
    fabric.write_tpm("HV1", vm.name, "bitlocker", b"a secret of the guest")
    path = pathlib.Path(fabric.virtual_machine("HV1", vm.name)["guest_state_file"])
    before = path.read_bytes()
    assert b"a secret" not in before
    assert b"a secret".hex().encode() not in before
    vm.change_state(OFF)
    vm.change_state(RUNNING)
    assert path.read_bytes() != before


# Any sequence of calls, against the rules.


class Rules:
    """What the documents say, as a few facts. A protector is (fabric, transport key)."""

    def __init__(self):
        self.protector = self.last_good = self.sealed_with = None
        self.flags = dict.fromkeys(FLAGS, False)
        self.running = self.secure_boot = False
        self.keys = itertools.count(1)

    def set(self, which):
        if which == "nothing":
            return 32773
        if self.running or (which == "empty" and any(self.flags.values())):
            return 32775
        # The same bytes each time: transport key 0.
        self.protector = None if which == "empty" else (which, 0)
        return 4096

    def modify(self, wanted):
        if self.running:
            return 5, False
        after = dict(zip(FLAGS, wanted))
        unshields = self.flags["ShieldingRequested"] and not after["ShieldingRequested"]
        if any(after.values()) and self.protector is None:
            return 4096, True
        if self.flags["ShieldingRequested"] and after["ShieldingRequested"] and any(
                self.flags[name] and not after[name] for name in FLAGS):
            return 4, False
        if unshields:
            return 5, False
        self.flags = after
        return 4096, False

    def boot_securely(self, wanted):
        if wanted == self.secure_boot:
            return 0, False
        if self.running or (self.flags["ShieldingRequested"] and not wanted):
            return 32775, False
        self.secure_boot = wanted
        return 0, False

    def start(self):
        if self.running:
            return 32775, False
        if self.flags["ShieldingRequested"] and not (
                all(self.flags.values()) and self.secure_boot):
            return 4096, True
        if self.flags["TpmEnabled"]:
            fabric, key = self.protector
            if fabric != "east" or self.sealed_with not in (None, key):
                return 4096, True
            self.sealed_with = next(self.keys)
            self.protector = self.last_good = "east", self.sealed_with
        elif self.flags["EncryptStateAndVmMigrationTraffic"] and self.protector[0] != "east":
            return 4096, True
        self.running = True
        return 4096, False

    def stop(self):
        if not self.running:
            return 32775, False
        self.running = False
        return 4096, False

    def restore(self):
        if self.running or self.last_good is None:
            return 32775
        self.protector = self.last_good
        return 4096


CALLS = strategies.lists(strategies.one_of(
    strategies.tuples(strategies.just("set"),
                      strategies.sampled_from(["empty", "east", "east", "west", "nothing"])),
    strategies.tuples(strategies.just("modify"), strategies.tuples(*[strategies.booleans()] * 3)),
    strategies.tuples(strategies.just("modify"), strategies.just((True, True, False))),
    strategies.tuples(strategies.just("boot_securely"), strategies.booleans()),
    strategies.tuples(strategies.sampled_from(["start", "start", "stop", "stop", "restore"]))),
    max_size=18)


def _failed(outcome):
    value, words = outcome
    return value, words is not None


@settings(max_examples=60, deadline=None)
@given(calls=CALLS)
def test_any_sequence_of_calls_has_the_outcome_of_the_rules(
        fabric, tmp_path_factory, east, west, calls):
    vm, rules = CheckedMachine.create(fabric, tmp_path_factory.mktemp("calls")), Rules()
    raw = {"empty": EMPTY, "east": east, "west": west, "nothing": b"\0\0\0\5x"}
    for name, *arguments in calls:
        expected = getattr(rules, name)(*arguments)
        outcome = {
            "set": lambda which: vm.protect(raw[which]),
            "modify": lambda wanted: _failed(vm.modify(**dict(zip(FLAGS, wanted)))),
            "boot_securely": lambda on: _failed(vm.change_firmware(SecureBootEnabled=on)),
            "start": lambda: _failed(vm.change_state(RUNNING)),
            "stop": lambda: _failed(vm.change_state(OFF)),
            "restore": vm.restore}[name](*arguments)
        assert outcome == expected, (name, arguments)
        assert vm.flags() == rules.flags
        assert (vm.protector() == EMPTY) == (rules.protector is None)
        assert (vm.vmutils.get_vm_state(vm.name) == RUNNING) == rules.running
    vm.change_state(OFF)
    vm.vmutils.destroy_vm(vm.name)
