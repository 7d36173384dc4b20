"""Which Hyper-V host the contract tests run on: simulated ones, or by an option a real one."""

import importlib
import importlib.util

import pytest

from tests.contract.windows_host import WindowsHost

REAL = "a real host"
# A host of a fabric, and one in local mode, whose own guardians unwrap.
GUARDED, LOCAL = "a simulated guarded host", "a simulated host in local mode"
_FABRIC = "contoso"


def pytest_addoption(parser):
    group = parser.getgroup("contract tests", "contract tests of a Hyper-V host")
    group.addoption(
        "--real-hyperv-host", action="store_true",
        help="run on the Hyper-V host that this process runs on (as an administrator)")
    group.addoption(
        "--fabric-guardian", metavar="NAME",
        help="of the fabric's guardian in the real host's guardian store; without it, what needs a "
             "guarded fabric is skipped")
    group.addoption(
        "--vm-folder", metavar="FOLDER",
        help="where the real host may keep the files of virtual machines; default: a temporary one")


def pytest_configure(config):
    if not config.getoption("--real-hyperv-host"):
        return
    for module, package in (("wmi", "PyMI"), ("os_win", "os-win")):
        if importlib.util.find_spec(module) is None:
            raise pytest.UsageError(
                "--real-hyperv-host needs the module %s. Install it on the Hyper-V host "
                "(pip install %s), and see tests/contract/README.rst." % (module, package))


def pytest_generate_tests(metafunc):
    if "host" in metafunc.fixturenames:
        real = metafunc.config.getoption("--real-hyperv-host", default=False)
        metafunc.parametrize("host", [REAL] if real else [GUARDED, LOCAL], indirect=True,
                             scope="module", ids=lambda name: name.replace(" ", "-"))


@pytest.fixture(scope="module")
def host(request, tmp_path_factory):
    """The host; what a module's tests made on it goes at the end."""
    if request.param == REAL:
        fabric_guardian = request.config.getoption("--fabric-guardian")
        folder = request.config.getoption("--vm-folder")
    else:
        folder, fabric_guardian = None, _FABRIC if request.param == GUARDED else None
        _simulate(fabric_guardian)
    with WindowsHost(fabric_guardian, folder or str(tmp_path_factory.mktemp("vm"))) as found:
        yield found


def _simulate(fabric_name):
    # Here alone, so that a real host needs nothing of it.
    fabric = importlib.import_module("tests.hyperv.fabric")
    windows = importlib.import_module("tests.hyperv.windows")
    windows.install(fabric.Fabric({
        "fabrics": [fabric_name] if fabric_name else [],
        "hosts": [{"name": "HV1", "fabric": fabric_name}]}), "HV1")
