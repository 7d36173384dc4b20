"""Folders that the service alone can read."""

import errno
import importlib.util
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


ONE, TWO = ("%08x-1111-4444-8888-555555555555" % number for number in (1, 2))


def test_only_administrators_read_what_is_in_them(folders, tmp_path):
    folder = folders.new(ONE)
    path = folder.write("file", b"content\r\n\0")
    for made in (os.path.dirname(path), tmp_path / "a" / "scratch"):
        assert stat.S_IMODE(os.stat(made).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(path, "rb") as file:
        assert file.read() == b"content\r\n\0"
    assert folder.read("file") == b"content\r\n\0"
    folder.remove()
    assert os.listdir(tmp_path / "a" / "scratch") == []


def test_nothing_is_written_over(folders):
    folder = folders.new(ONE)
    folder.write("file", b"1")
    with pytest.raises(errors.HostGuardianError, match="File exists"):
        folder.write("file", b"2")
    assert folder.read("file") == b"1"
    with pytest.raises(errors.HostGuardianError, match="it is there already"):
        folders.new(ONE)


def test_what_is_not_there_is_no_error(folders):
    assert list(folders.left()) == []
    folder = folders.new(ONE)
    assert folder.read("file") == b""
    folder.remove_file("file")
    for _ in range(2):
        folder.remove()


def test_what_is_left_is_found_again(folders, tmp_path):
    folders.new(TWO).write("file", b"content")
    folders.new(ONE)
    os.mkdir(tmp_path / "a" / "scratch" / "of another program")
    left = list(folders.left())
    assert [one.read("file") for one in left] == [b"", b"content"]
    for one in left:
        one.remove()
    assert os.listdir(tmp_path / "a" / "scratch") == ["of another program"]


@pytest.mark.parametrize(("descriptor", "mode"), [
    ("O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)", 0o700),
    ("O:BAD:(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)", 0o755),
    ("D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)", 0o755),
    ("O:BAD:P(A;OICI;FA;;;BA)", 0o755),
    ("O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FR;;;WD)", 0o755)])
def test_the_simulation_tells_who_may_read(folders, tmp_path, monkeypatch, descriptor, mode):
    """So that the test above would notice a descriptor that lets others in."""
    monkeypatch.setattr(module("private_folders"), "_SECURITY", descriptor)
    folders.new(ONE)
    assert stat.S_IMODE(os.stat(tmp_path / "a" / "scratch").st_mode) == mode


@pytest.mark.parametrize(("descriptor", "code"), [("D:P(A;", 1336), ("O:WDD:P(A;;FA;;;SY)", 1307)])
def test_the_simulation_refuses_descriptors(folders, monkeypatch, descriptor, code):
    monkeypatch.setattr(module("private_folders"), "_SECURITY", descriptor)
    with pytest.raises(errors.HostGuardianError, match="failed with %d" % code):
        folders.new(ONE)


def test_a_root_that_others_can_write_to_is_refused(folders, tmp_path):
    """Who could write the notes could have any private key deleted."""
    root = tmp_path / "a" / "scratch"
    root.mkdir(parents=True)
    (root / ("vtpm-" + ONE)).mkdir()
    for call in (lambda: folders.new(TWO), folders.left):
        with pytest.raises(errors.HostGuardianError, match="others can write to the folder of"):
            call()
    root.chmod(0o700)
    assert len(folders.left()) == 1
    folders.new(TWO)


def test_links_are_not_followed(folders, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "file").write_text("of somebody else")
    folders.new(ONE)
    (tmp_path / "a" / "scratch" / ("vtpm-" + TWO)).symlink_to(elsewhere)
    assert len(folders.left()) == 1
    for folder in folders.left():
        folder.remove()
    assert (elsewhere / "file").exists()
    (tmp_path / "b").symlink_to(elsewhere)
    linked = module("private_folders").PrivateFolders(str(tmp_path / "b"))
    for call in (lambda: linked.new(TWO), linked.left):
        with pytest.raises(errors.HostGuardianError, match="others can write to the folder of"):
            call()


def test_only_names_of_ours(folders, tmp_path):
    folders.new(ONE)
    for name in ("vtpm-evil", "vtpm-", "of another program", "vtpm-" + ONE + "0"):
        (tmp_path / "a" / "scratch" / name).mkdir()
    assert len(folders.left()) == 1


def test_a_relative_root_is_where_windows_looks_for_it(guarded_fabric, tmp_path, monkeypatch):
    guarded_fabric.add_host(HOST)
    windows.install(guarded_fabric, HOST)
    monkeypatch.chdir(tmp_path)
    path = module("private_folders").PrivateFolders("scratch").new(ONE).write("file", b"")
    assert os.path.isabs(path)


def test_a_file_is_on_the_disk_when_it_is_written(folders, monkeypatch):
    """After a power cut the next start needs the notes."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_size))
    folders.new(ONE).write("file", b"content")
    assert synced == [7]


def test_files_are_opened_as_bytes(guarded_fabric, monkeypatch):
    """Windows alone has the flag, without which it changes line ends."""
    private_folders = module("private_folders")
    monkeypatch.setattr(os, "O_BINARY", 0x8000, raising=False)
    source = importlib.util.spec_from_file_location("as_on_windows", private_folders.__file__)
    on_windows = importlib.util.module_from_spec(source)
    source.loader.exec_module(on_windows)
    assert on_windows._NEW_FILE & 0x8000 and on_windows._OLD_FILE & 0x8000


def test_errors_do_not_name_paths(folders, tmp_path, monkeypatch):
    """A tenant reads them."""
    folder = folders.new(ONE)
    def refuse(*arguments, **keywords):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path))
    for name in ("open", "unlink", "listdir"):
        monkeypatch.setattr(os, name, refuse)
    for call in (lambda: folder.write("file", b""), lambda: folder.remove_file("file"),
                 folder.remove, lambda: list(folders.left())):
        with pytest.raises(errors.HostGuardianError, match=r": Permission denied\.$") as caught:
            call()
        assert str(tmp_path) not in str(caught.value)


