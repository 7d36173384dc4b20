"""Attaching a vTPM to a virtual machine: os-win on a simulated host, without nova."""

import importlib

import pytest

from tests.hyperv import fabric, guardian, key_protector, windows
from vtpm_compute import errors

HOST, FABRIC = "HV1", "east"
GENERATION_1, GENERATION_2 = 1, 2
OFF, RUNNING = 3, 2


@pytest.fixture(scope="module")
def simulated():
    return fabric.Fabric({"fabrics": [FABRIC], "hosts": [{"name": HOST, "fabric": FABRIC}]})


@pytest.fixture(scope="module")
def protector(simulated):
    return key_protector.make_protector(
        guardian.Guardian.generate("Contoso"),
        [guardian.Guardian.from_metadata(simulated.metadata(FABRIC), FABRIC)])


@pytest.fixture
def vmutils(simulated):
    windows.install(simulated, HOST)
    simulated.clear_faults(HOST)
    return importlib.import_module("os_win.utilsfactory").get_vmutils()


@pytest.fixture
def service(vmutils):
    return importlib.import_module("vtpm_compute.security").SecurityService(vmutils)


@pytest.fixture
def attached(service):
    """Vtpm.attach, as the driver calls it, with a service of security alone."""
    vtpm = importlib.import_module("vtpm_compute.vtpm")

    def attach(name, protector, shielded=False):
        vtpm.Vtpm(None, None, None, None, service, False).attach(
            name, vtpm.PreparedVtpm(protector, shielded, "00"))
    return attach


@pytest.fixture
def machine(vmutils, tmp_path):
    vmutils.create_vm(tmp_path.name, False, GENERATION_2, str(tmp_path), [])
    return tmp_path.name


def request_state(vmutils, name, state):
    job, code = vmutils._lookup_vm_check(name, as_vssd=False).RequestStateChange(
        RequestedState=state)
    vmutils._jobutils.check_ret_val(code, job)


def test_attach(attached, machine, protector, simulated, vmutils):
    attached(machine, protector)
    described = simulated.virtual_machine(HOST, machine)
    assert described["key_protector"] == protector
    assert described["security"]["TpmEnabled"]
    assert described["security"]["EncryptStateAndVmMigrationTraffic"]
    assert not described["security"]["ShieldingRequested"]
    request_state(vmutils, machine, RUNNING)


def test_attach_to_a_shielded_machine(attached, machine, protector, simulated, vmutils):
    vmutils.enable_secure_boot(machine, msft_ca_required=False)
    attached(machine, protector, shielded=True)
    assert simulated.virtual_machine(HOST, machine)["security"]["ShieldingRequested"]


@pytest.mark.parametrize("call", ["SetKeyProtector", "ModifySecuritySettings"])
def test_what_hyper_v_takes_and_does_not_do_is_found(attached, machine, protector, simulated, call):
    simulated.add_fault(HOST, "*." + call, return_value=0)
    with pytest.raises(errors.AttachError):
        attached(machine, protector)
    assert simulated.virtual_machine(HOST, machine)["state"] == OFF


def test_a_protector_that_hyper_v_changes_is_found(
        attached, service, machine, protector, simulated, monkeypatch):
    other = key_protector.make_protector(
        guardian.Guardian.generate("Fabrikam"),
        [guardian.Guardian.from_metadata(simulated.metadata(FABRIC), FABRIC)])
    set_key_protector = service.set_key_protector
    monkeypatch.setattr(service, "set_key_protector",
                        lambda name, raw: set_key_protector(name, other))
    with pytest.raises(errors.AttachError, match="reads back another one"):
        attached(machine, protector)


def test_shielding_that_hyper_v_leaves_out_is_found(
        attached, service, machine, protector, monkeypatch):
    enable_vtpm = service.enable_vtpm
    monkeypatch.setattr(service, "enable_vtpm",
                        lambda name, shielded: enable_vtpm(name, shielded=False))
    with pytest.raises(errors.AttachError, match="reads back .*shielded=False"):
        attached(machine, protector, shielded=True)


def test_a_protector_that_hyper_v_does_not_tell_is_our_error(service, machine, simulated):
    simulated.add_fault(HOST, "*.GetKeyProtector", return_value=32768)
    with pytest.raises(errors.AttachError, match="could not read the key protector.*32768"):
        service.read_key_protector(machine)


def test_a_protector_that_has_rolled_is_not_set_again(
        attached, machine, protector, simulated, vmutils):
    attached(machine, protector)
    request_state(vmutils, machine, RUNNING)
    simulated.write_tpm(HOST, machine, "bitlocker", b"key")
    request_state(vmutils, machine, OFF)
    with pytest.raises(errors.AttachError, match="already has a key protector"):
        attached(machine, protector)
    request_state(vmutils, machine, RUNNING)
    assert simulated.read_tpm(HOST, machine, "bitlocker") == b"key"


def test_settings_are_read_anew(service, machine, protector, simulated):
    service.set_key_protector(machine, protector)
    assert not service.read(machine).tpm_enabled
    # Taken, and not done.
    simulated.add_fault(HOST, "*.ModifySecuritySettings", return_value=0)
    service.enable_vtpm(machine, shielded=False)
    assert not service.read(machine).tpm_enabled
    service.enable_vtpm(machine, shielded=False)
    assert service.read(machine).tpm_enabled


def test_a_running_machine_is_refused_in_the_words_of_windows(
        service, machine, protector, vmutils):
    request_state(vmutils, machine, RUNNING)
    with pytest.raises(errors.AttachError, match="could not set the key protector.*32775"):
        service.set_key_protector(machine, protector)


def test_generation_1_is_refused(service, vmutils, tmp_path):
    vmutils.create_vm(tmp_path.name, False, GENERATION_1, str(tmp_path), [])
    for call in (service.read, service.read_key_protector,
                 lambda name: service.enable_vtpm(name, shielded=False)):
        with pytest.raises(errors.AttachError):
            call(tmp_path.name)


def test_a_machine_that_is_not_there_is_our_error(service):
    with pytest.raises(errors.AttachError, match="VM not found: nobody"):
        service.read("nobody")
