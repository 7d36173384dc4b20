"""The files of a VM that another host uses, or will use."""

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


def files(folder):
    return {str(path.relative_to(folder)): path.read_text()
            for path in folder.rglob("*") if path.is_file()}


def test_what_cannot_be_imported(folder):
    assert definition_files.DefinitionFiles(str(folder)).problem() is None
    machines = folder / "Virtual Machines"
    (machines / "another.vmcx").write_text("")
    assert "2 definitions" in definition_files.DefinitionFiles(str(folder)).problem()
    (machines / "another.vmcx").unlink()
    (machines / (NAME + ".vmgs")).unlink()
    assert "guest state" in definition_files.DefinitionFiles(str(folder)).problem()
    assert "no definition" in definition_files.DefinitionFiles(str(folder / "none")).problem()


def test_what_is_deleted_is_there_again(folder):
    before = files(folder)
    with definition_files.DefinitionFiles(str(folder)).kept():
        for path in (folder / "Virtual Machines").iterdir():
            path.unlink()
        (folder / "Virtual Machines").rmdir()
    assert files(folder) == before


def test_what_was_written_meanwhile_stays(folder):
    with definition_files.DefinitionFiles(str(folder)).kept():
        (folder / "Virtual Machines" / (NAME + ".vmgs")).write_text("newer")
    assert files(folder)["Virtual Machines/%s.vmgs" % NAME] == "newer"


def test_only_a_failure_puts_back(folder):
    gone = folder / "Virtual Machines" / (NAME + ".vmgs")
    before = files(folder)
    with pytest.raises(BrokenError), \
            definition_files.DefinitionFiles(str(folder)).kept_on_failure():
        gone.unlink()
        raise BrokenError
    assert files(folder) == before
    with definition_files.DefinitionFiles(str(folder)).kept_on_failure():
        gone.unlink()
    assert not gone.exists()
    assert not (folder / "definition").exists()


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
