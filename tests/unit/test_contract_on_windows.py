"""The contract tests with the option for a real Hyper-V host, in a Python that has what one has."""

import os
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

# A plug-in of pytest: what it names cannot be imported.
BLOCKER = '''
import sys

BLOCKED = %r

class Blocker:
    def find_spec(self, name, path=None, target=None):
        for blocked in BLOCKED:
            if name == blocked or name.startswith(blocked + "."):
                raise ImportError("there is no %%s on a Hyper-V host" %% name)

sys.meta_path.insert(0, Blocker())
'''
NOT_ON_WINDOWS = ["nova", "compute_hyperv", "barbicanclient", "keystoneauth1", "fcntl", "pwd",
                  "termios"]

# One whose WMI is the simulated one, and which only knows itself as real.
STANDS_FOR_A_REAL_HOST = '''
from tests.hyperv import fabric, windows

windows.install(fabric.Fabric(
    {"fabrics": ["contoso"], "hosts": [{"name": "HV1", "fabric": "contoso"}]}), "HV1")
'''


@pytest.fixture
def run(tmp_path):
    """Run pytest on the contract tests: run({plug-in: its source}, *arguments) -> (code, text)."""
    def start(plugins, *arguments):
        names = []
        for name, source in plugins.items():
            (tmp_path / (name + ".py")).write_text(source)
            names += ["-p", name]
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *names, "tests/contract", "--real-hyperv-host",
             *arguments], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env=dict(os.environ, PYTHONPATH=str(tmp_path)), timeout=120)
        return result.returncode, result.stdout
    return start


def test_they_are_collected_without_the_simulation(run, tmp_path):
    (tmp_path / "wmi.py").write_text("class x_wmi(Exception):\n    pass\n")
    code, text = run({"blocker": BLOCKER % (["tests.hyperv"] + NOT_ON_WINDOWS)}, "--collect-only")
    assert code == 0, text
    collected = [line for line in text.splitlines() if "::TestWindowsContract::" in line]
    assert len(collected) > 30
    assert all(line.endswith("[a-real-host]") for line in collected)


def test_without_pymi_they_say_what_is_missing(run):
    code, text = run({"blocker": BLOCKER % ["tests.hyperv"]}, "--collect-only")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "--real-hyperv-host needs the module wmi" in text
    assert "pip install PyMI" in text


def test_they_run_by_the_option(run, tmp_path):
    """On the simulation, which does not know it: nothing of nova, the guardian named by option."""
    files = tmp_path / "files"
    files.mkdir()
    code, text = run({"stand_in": STANDS_FOR_A_REAL_HOST, "blocker": BLOCKER % NOT_ON_WINDOWS[:3]},
                     "--fabric-guardian", "contoso", "--vm-folder", str(files))
    assert code == 0, text
    assert " passed, 1 skipped" in text
    assert "the host has a fabric" in text
    assert list(files.iterdir()) == []


def test_a_guarded_host_whose_guardian_is_not_named(run):
    code, text = run({"stand_in": STANDS_FOR_A_REAL_HOST}, "-k", "machine_stops or configuration")
    assert code == 0, text
    assert "1 passed, 1 skipped" in text
    assert "--fabric-guardian does not name its guardian" in text
