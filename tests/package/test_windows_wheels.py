"""pip finds a wheel for Windows for all that the compute half needs. Asks the package index."""

import configparser
import subprocess
import sys

import pytest

from tests import environment

# os-win names it for Windows alone, which pip on another system leaves out. There is no wheel for
# Python 3.9: the page on the Hyper-V hosts says so.
PYMI = {"3.10": "pymi", "3.11": "pymi==1.0.9"}


def requirements():
    """What setup.cfg names: of the package, and of its extra compute."""
    setup = configparser.ConfigParser()
    setup.read(environment.REPOSITORY / "setup.cfg")
    text = (environment.REPOSITORY / "requirements.txt").read_text() + \
        setup["options.extras_require"]["compute"]
    return [line for line in text.split() if line]


def download(folder, version, names, *options):
    return subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-input", "--disable-pip-version-check",
         "--platform", "win_amd64", "--python-version", version, "--only-binary=:all:",
         "--dest", folder, *options, *names], text=True, capture_output=True)


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11"])
def test_the_compute_half_resolves(tmp_path, version):
    needed = requirements()
    assert "os-win>=5.9.0" in needed and "oslo.log>=5.0.0" in needed
    done = download(tmp_path, version, needed)
    assert done.returncode == 0, done.stderr[-2000:]
    names = [path.name.lower() for path in tmp_path.iterdir()]
    for package in ("os_win", "cryptography", "lxml", "keystoneauth1", "oslo_config"):
        assert any(name.startswith(package + "-") for name in names), (package, names)
    tag = "cp" + version.replace(".", "")
    assert any(name.startswith("lxml-") and tag in name and "win_amd64" in name for name in names)


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11"])
def test_what_it_runs_on_has_wheels(tmp_path, version):
    names = ["nova==28.3.1", "compute-hyperv==16.0.0", *filter(None, [PYMI.get(version)])]
    done = download(tmp_path, version, names, "--no-deps")
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list(tmp_path.iterdir())) == len(names)
