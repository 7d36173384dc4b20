"""What DefineSystem takes, and what stays of it afterwards."""
import pytest

from tests.hyperv import windows
from tests.hyperv.fabric import Fabric
from tests.unit.hyperv.machine import files

RELEASES = {
    "HV-2012R2": "6.3.9600", "HV-2016": "10.0.14393", "HV-2019": "10.0.17763",
    "HV-2022": "10.0.20348", "HV-2025": "10.0.26100"}


@pytest.fixture(scope="module")
def fabric():
    return Fabric({"fabrics": ["east"], "hosts": [
        {"name": name, "version": version} for name, version in RELEASES.items()]})


def define(fabric, host, folder, **values):
    """:returns: (return value of DefineSystem, words of its job's failure or None, vmutils)"""
    windows.install(fabric, host)
    from os_win import exceptions, utilsfactory
    vmutils = utilsfactory.get_vmutils()
    settings = vmutils._compat_conn.Msvm_VirtualSystemSettingData.new()
    for name, value in {"ElementName": folder.name, "ConfigurationDataRoot": str(folder),
                        "VirtualSystemSubType": "Microsoft:Hyper-V:SubType:2", **values}.items():
        setattr(settings, name, value)
    job, _, result = vmutils._vs_man_svc.DefineSystem(
        ResourceSettings=[], ReferenceConfiguration=None, SystemSettings=settings.GetText_(1))
    try:
        vmutils._jobutils.check_ret_val(result, job)
    except exceptions.WMIJobFailed as failure:
        return result, str(failure), vmutils
    return result, None, vmutils


def test_the_version_of_a_new_vm(fabric, tmp_path):
    for number, (given, made) in enumerate(((None, "9.0"), ("8.0", "8.0"), ("5.0", "5.0"))):
        folder = tmp_path / str(number)
        result, _, vmutils = define(fabric, "HV-2019", folder, Version=given)
        assert result == 4096
        assert vmutils._lookup_vm_check(folder.name).Version == made
        vmutils.destroy_vm(folder.name)
    for given in ("10.0", "9.1", "8.4", "9", "newest", ""):
        assert define(fabric, "HV-2019", tmp_path / "refused", Version=given)[0] == 32773
    assert fabric.virtual_machines("HV-2019") == [] and not (tmp_path / "refused").exists()


def test_versions_that_a_host_loads(fabric):
    """The table of the document, a row a release: newest, oldest and how many."""
    found = {}
    for name in RELEASES:
        management = fabric.host(name).management
        loaded = [version for version in "5.0 6.2 7.0 7.1 8.0 8.1 8.2 8.3 9.0 9.1 9.2 9.3 10.0 "
                  "11.0 12.0".split() if management.supports(version)]
        found[name] = loaded[-1], loaded[0], len(loaded)
        assert management.newest_version == loaded[-1]
    assert found == {
        "HV-2012R2": ("5.0", "5.0", 1), "HV-2016": ("8.0", "5.0", 5),
        "HV-2019": ("9.0", "5.0", 9), "HV-2022": ("10.0", "8.0", 9),
        "HV-2025": ("12.0", "8.0", 11)}


def test_a_vm_whose_files_cannot_be_made(fabric, tmp_path):
    for root in ("ConfigurationDataRoot", "GuestStateDataRoot", "SnapshotDataRoot"):
        assert define(fabric, "HV-2019", tmp_path, **{root: "not/a/full/path"})[0] == 32773
    (tmp_path / "file").touch()
    result, words, _ = define(fabric, "HV-2019", tmp_path / "file")
    assert result == 4096 and "Not a directory" in words
    assert fabric.virtual_machines("HV-2019") == [] and files(tmp_path) == ["file"]
    left = fabric.host("HV-2019").repository.instances(
        "root/virtualization/v2", "Msvm_VirtualSystemSettingData", ElementName="file")
    assert not left


@pytest.mark.parametrize("name, value", [
    ("Version", "8.0"), ("VirtualSystemSubType", "Microsoft:Hyper-V:SubType:1"),
    ("VirtualSystemType", "Microsoft:Hyper-V:System:Planned"),
    ("VirtualSystemIdentifier", "another"), ("ConfigurationID", "another"),
    ("GuestStateFile", "another.vmgs")])
def test_settings_that_stay(fabric, tmp_path, name, value):
    _, _, vmutils = define(fabric, "HV-2019", tmp_path)
    settings = vmutils._lookup_vm_check(tmp_path.name)
    before = getattr(settings, name)
    setattr(settings, name, value)
    assert vmutils._vs_man_svc.ModifySystemSettings(
        SystemSettings=settings.GetText_(1))[1] == 32773
    assert getattr(vmutils._lookup_vm_check(tmp_path.name), name) == before
    vmutils.destroy_vm(tmp_path.name)
