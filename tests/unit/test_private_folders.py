"""Folders that the service alone can read."""

import errno
import os
import stat

import pytest

from tests.hyperv import windows
from tests.unit.guarded_host import HOST, module
from vtpm_compute import errors


@pytest.fixture
def folders(guarded_fabric, tmp_path):
    guarded_fabric.add_host(HOST)
    windows.install(guarded_fabric, HOST)
    yield module("private_folders").PrivateFolders(str(tmp_path / "a" / "scratch"))
    assert windows.libraries.open_handles() == {}
    assert windows.libraries.misuses() == []


def test_only_the_service_reads_what_is_in_them(folders, tmp_path):
    folder = folders.new("one")
    path = folder.write("file", b"content\r\n\0")
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(path, "rb") as file:
        assert file.read() == b"content\r\n\0"
    assert folder.read("file") == b"content\r\n\0"
    folder.remove()
    assert os.listdir(tmp_path / "a" / "scratch") == []


def test_nothing_is_written_over(folders):
    folder = folders.new("one")
    folder.write("file", b"1")
    with pytest.raises(errors.HostGuardianError, match="File exists"):
        folder.write("file", b"2")
    assert folder.read("file") == b"1"
    with pytest.raises(errors.HostGuardianError, match="CreateDirectoryW failed with 183"):
        folders.new("one")


def test_what_is_not_there_is_no_error(folders):
    assert list(folders.left()) == []
    folder = folders.new("one")
    assert folder.read("file") == b""
    folder.remove_file("file")
    for _ in range(2):
        folder.remove()


def test_what_is_left_is_found_again(folders, tmp_path):
    folders.new("2").write("file", b"content")
    folders.new("1")
    os.mkdir(tmp_path / "a" / "scratch" / "of another program")
    left = list(folders.left())
    assert [one.read("file") for one in left] == [b"", b"content"]
    for one in left:
        one.remove()
    assert os.listdir(tmp_path / "a" / "scratch") == ["of another program"]


@pytest.mark.parametrize("descriptor", ["D:(A;OICI;FA;;;SY)", "D:P(A;OICI;FA;;;WD)", "D:P(A;"])
def test_the_simulation_tells_who_may_read(folders, monkeypatch, descriptor):
    """So that the test above would notice a descriptor that lets others in."""
    monkeypatch.setattr(module("private_folders"), "_SECURITY", descriptor)
    if descriptor.endswith(")"):
        path = folders.new("one").write("file", b"")
        assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o755
    else:
        with pytest.raises(errors.HostGuardianError, match="failed with 1336"):
            folders.new("one")


def test_errors_do_not_name_paths(folders, tmp_path, monkeypatch):
    """A tenant reads them."""
    folder = folders.new("one")
    def refuse(*arguments, **keywords):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path))
    for name in ("open", "unlink", "listdir"):
        monkeypatch.setattr(os, name, refuse)
    for call in (lambda: folder.write("file", b""), lambda: folder.remove_file("file"),
                 folder.remove, lambda: list(folders.left())):
        with pytest.raises(errors.HostGuardianError, match=r": Permission denied\.$") as caught:
            call()
        assert str(tmp_path) not in str(caught.value)


