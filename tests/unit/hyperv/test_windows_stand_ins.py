"""What stands in the place of Windows' own libraries."""
import pytest

from tests.hyperv import windows, windows_stand_ins
from tests.hyperv.fabric import Fabric


@pytest.fixture
def disks(tmp_path):
    """A base disk, and a differencing disk over it."""
    windows.install(Fabric({"hosts": [{"name": "HV1"}]}), "HV1")
    base, over = str(tmp_path / "base.vhdx"), str(tmp_path / "over.vhdx")
    vhdutils = windows_stand_ins.VhdUtils()
    vhdutils.create_dynamic_vhd(base, 1 << 30)
    windows_stand_ins._write(base, b"vhdxfile of Windows", vhdutils.get_vhd_info(base))
    vhdutils.create_differencing_vhd(over, base)
    return vhdutils, base, over


def test_a_differencing_disk_is_as_large_as_its_parent(disks):
    vhdutils, base, over = disks
    assert vhdutils.get_vhd_info(over) == {"VirtualSize": 1 << 30, "ParentPath": base}


def test_a_disk_does_not_shrink(disks):
    from os_win import exceptions
    vhdutils, base, over = disks
    vhdutils.resize_vhd(over, 2 << 30)
    vhdutils.resize_vhd(over, 2 << 30)
    with pytest.raises(exceptions.VHDException, match="to a smaller size"):
        vhdutils.resize_vhd(over, 1 << 30)
    assert vhdutils.get_vhd_size(over) == {"VirtualSize": 2 << 30}
    assert vhdutils.get_vhd_size(base) == {"VirtualSize": 1 << 30}


def test_a_merge_writes_into_the_parent(disks, tmp_path):
    vhdutils, base, over = disks
    windows_stand_ins._write(over, b"vhdxfile of a guest", vhdutils.get_vhd_info(over))
    vhdutils.resize_vhd(over, 2 << 30)
    vhdutils.merge_vhd(over)
    assert [path.name for path in tmp_path.iterdir()] == ["base.vhdx"]
    assert windows_stand_ins._read(base) == (b"vhdxfile of a guest", {"VirtualSize": 2 << 30})


def test_a_merge_of_nothing_leaves_the_parent(disks):
    vhdutils, base, over = disks
    vhdutils.merge_vhd(over, delete_merged_image=False)
    assert windows_stand_ins._read(base) == (b"vhdxfile of Windows", {"VirtualSize": 1 << 30})
    assert vhdutils.get_vhd_parent_path(over) == base


def test_a_merge_needs_a_parent(disks, tmp_path):
    from os_win import exceptions
    vhdutils, base, over = disks
    with pytest.raises(exceptions.VHDWin32APIException, match="type is invalid"):
        vhdutils.merge_vhd(base)
    vhdutils.reconnect_parent_vhd(over, str(tmp_path / "gone.vhdx"))
    with pytest.raises(exceptions.VHDWin32APIException, match="chain of virtual hard disks"):
        vhdutils.merge_vhd(over)


def test_what_is_not_there_says_so():
    with pytest.raises(AttributeError, match="create_fixed_vhd"):
        windows_stand_ins.VhdUtils().create_fixed_vhd("x", 1)
