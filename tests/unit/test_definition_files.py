"""The files of a VM that another host uses, or will use."""

import shutil

import pytest

from vtpm_compute import definition_files

NAME = "8b4e5b52-1d0e-4d9b-9d1a-8b4e5b521d0e"


class BrokenError(Exception):
    pass


@pytest.fixture
def folder(tmp_path):
    machines = tmp_path / "Virtual Machines"
    machines.mkdir()
    for suffix in (".vmcx", ".vmgs"):
        (machines / (NAME + suffix)).write_text("of the VM" + suffix)
    return tmp_path


def fail(error):
    def call(*arguments):
        raise error
    return call


def of(folder, host="HV1"):
    return definition_files.DefinitionFiles(str(folder), host)


def files(folder):
    return {str(path.relative_to(folder)): path.read_text()
            for path in folder.rglob("*") if path.is_file()}


def test_what_cannot_be_imported(folder):
    assert of(folder).problem() is None
    machines = folder / "Virtual Machines"
    (machines / "another.vmcx").write_text("")
    assert "2 definitions" in of(folder).problem()
    (machines / "another.vmcx").unlink()
    (machines / (NAME + ".vmgs")).unlink()
    assert "guest state" in of(folder).problem()
    assert "no definition" in of(folder / "none").problem()


def test_what_is_deleted_is_there_again(folder):
    before = files(folder)
    with of(folder).kept():
        for path in (folder / "Virtual Machines").iterdir():
            path.unlink()
        (folder / "Virtual Machines").rmdir()
    assert files(folder) == before


def test_what_was_written_meanwhile_stays(folder):
    with of(folder).kept():
        (folder / "Virtual Machines" / (NAME + ".vmgs")).write_text("newer")
    assert files(folder)["Virtual Machines/%s.vmgs" % NAME] == "newer"


def test_only_a_failure_puts_back(folder):
    gone = folder / "Virtual Machines" / (NAME + ".vmgs")
    before = files(folder)
    with pytest.raises(BrokenError), \
            of(folder).kept_on_failure():
        gone.unlink()
        raise BrokenError
    assert files(folder) == before
    with of(folder).kept_on_failure():
        gone.unlink()
    assert not gone.exists()
    assert [path.name for path in folder.iterdir()] == ["Virtual Machines"]


@pytest.mark.parametrize("point", ["copying", "putting back"])
def test_a_process_dies(folder, monkeypatch, point):
    """Whenever it does: the files or whole copies of them are there, and are used."""
    before, machines = files(folder), folder / "Virtual Machines"
    copy2, copied = shutil.copy2, []

    def copy_until_it_dies(source, target):
        copied.append(source)
        if len(copied) == (2 if point == "copying" else 4):
            open(target, "w").close()
            raise KeyboardInterrupt
        return copy2(source, target)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(definition_files.shutil, "copy2", copy_until_it_dies)
        with of(folder).kept():
            shutil.rmtree(machines)
    with of(folder).kept():
        pass
    assert files(folder) == before


def test_a_folder_that_is_not_there(tmp_path):
    with of(tmp_path / "none").kept():
        pass
    assert list(tmp_path.iterdir()) == []


def test_two_hosts_at_the_same_time(folder):
    """One tries to import the VM while the one that failed returns and destroys its own."""
    before = files(folder)
    with of(folder, "HV1").kept():
        with pytest.raises(BrokenError), of(folder, "HV2").kept_on_failure():
            raise BrokenError
        shutil.rmtree(folder / "Virtual Machines")
    assert files(folder) == before


def test_copies_that_cannot_be_put_back_stay(folder, monkeypatch):
    before = files(folder)
    with pytest.raises(OSError, match="full"), \
            of(folder).kept():
        shutil.rmtree(folder / "Virtual Machines")
        monkeypatch.setattr(definition_files.shutil, "copy2", fail(OSError("the disk is full")))
    monkeypatch.undo()
    with of(folder).kept():
        assert set(files(folder)) > set(before)
    assert files(folder) == before


def test_copies_of_a_dead_process(tmp_path, monkeypatch):
    """What one server's files cannot get back is said, and keeps no other's from it."""
    servers = tmp_path / "servers"
    definition_files.put_back_left_copies(str(servers), "HV1")
    for name in ("instance-1", "instance-2"):
        server = servers / name
        copies = server / "definition-HV1" / "Virtual Machines"
        copies.mkdir(parents=True)
        (copies / (NAME + ".vmcx")).write_text("copy")
        (server / "definition-HV2").mkdir()
    logged, copy2 = [], shutil.copy2
    monkeypatch.setattr(definition_files.LOG, "error", lambda *words: logged.append(words[1]))
    monkeypatch.setattr(definition_files.shutil, "copy2", lambda source, target: (
        fail(OSError("the disk is full")) if "instance-1" in source else copy2)(source, target))
    definition_files.put_back_left_copies(str(servers), "HV1")
    assert logged == ["instance-1"]
    assert [sorted(path.name for path in (servers / name).iterdir()) for name in (
        "instance-1", "instance-2")] == [
            ["Virtual Machines", "definition-HV1", "definition-HV2"],
            ["Virtual Machines", "definition-HV2"]]
    assert files(servers / "instance-2") == {
        "Virtual Machines/%s.vmcx" % NAME: "copy"}


def test_a_file_that_another_host_has_open(folder, monkeypatch):
    before, copy2 = files(folder), shutil.copy2
    in_use = PermissionError(13, "in use by another process")
    in_use.winerror = 32
    monkeypatch.setattr(definition_files.shutil, "copy2", lambda source, target: (
        fail(in_use) if source.endswith(".vmgs") else copy2)(source, target))
    with of(folder).kept():
        (folder / "Virtual Machines" / (NAME + ".vmcx")).unlink()
    assert files(folder) == before


def test_files_that_may_not_be_read_are_not_left_to_their_fate(folder, monkeypatch):
    before = files(folder)
    monkeypatch.setattr(definition_files.shutil, "copy2", fail(PermissionError(13, "denied")))
    with pytest.raises(OSError, match="denied"), \
            of(folder).kept():
        pytest.fail("nothing may be deleted")
    assert files(folder) == before


def test_moved_files_come_back(folder):
    moved = folder / "moved"
    (moved / "export").mkdir(parents=True)
    for path, text in ((moved / "root.vhdx", "disk"), (moved / "console.log", "old"),
                       (moved / "export" / "x.vmcx", "copy"), (folder / "console.log", "new")):
        path.write_text(text)
    definition_files.put_back_moved_files(str(moved), str(folder))
    assert (folder / "root.vhdx").read_text() == "disk"
    assert (folder / "console.log").read_text() == "new"
    assert not moved.exists()
    definition_files.put_back_moved_files(str(moved), str(folder))
