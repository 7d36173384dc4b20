"""The sdist, the wheel that is built from it, and what it does where it is installed.

The new wheel is installed as an operator does it, with pip looking for what it requires.
"""

import configparser
import os
import pathlib
import sys
import tarfile
import zipfile

import pytest

from tests import environment, fresh_environment
from tests.fresh_environment import run

HALVES = {
    "nova-28": ("vtpm_scheduling", "vtpm_compute", "nova.virt.vtpm_hyperv"),
    "nova-34": ("vtpm_scheduling",),
}
FILTER = """
import sys
from nova import config, filters
import nova.conf
CONF = nova.conf.CONF
CONF([], project="nova")
CONF.set_override("available_filters", [
    "nova.scheduler.filters.all_filters",
    "vtpm_scheduling.guarded_host_filter.GuardedHostFilter"], "filter_scheduler")
from nova.scheduler.filters import HostFilterHandler
found = HostFilterHandler().get_matching_classes(CONF.filter_scheduler.available_filters)
assert "GuardedHostFilter" in [one.__name__ for one in found], found
from nova.scheduler import request_filter
assert "require_guarded_hosts" in [one.__name__ for one in request_filter.ALL_REQUEST_FILTERS]
assert not {"os_win", "compute_hyperv", "vtpm_compute"} & set(sys.modules)
import vtpm_scheduling
print(vtpm_scheduling.__file__)
"""
VALIDATORS = """
import nova.conf
nova.conf.CONF([], project="nova")
from nova.api.validation.extra_specs import validators
from nova import exception
validators.load_validators()
validators.validate("os:vtpm", "required")
validators.validate("os:shielded_vm", "optional")
try:
    validators.validate("os:vtpm", "yes")
except exception.ValidationError as exc:
    print(exc)
else:
    raise SystemExit("os:vtpm=yes was taken")
"""
DRIVER = """
import sys
# Last: the package is the installed one.
sys.path.append(%r)
import tempfile
from tests.hyperv import windows
from tests.hyperv.fabric import Fabric
windows.install(Fabric({"fabrics": ["east"], "hosts": [{"name": "HV1", "fabric": "east"}]}), "HV1")
from nova import config
import nova.conf
with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
    file.write("[DEFAULT]\\ntransport_url = fake://\\n")
    file.flush()
    nova.conf.CONF(["--config-file", file.name], project="nova")
from nova import objects, rpc
rpc.init(nova.conf.CONF)
objects.register_all()
from nova.virt import driver
loaded = driver.load_compute_driver(None, "vtpm_hyperv.HyperVDriver")
print(type(loaded).__name__, sys.modules["vtpm_compute"].__file__)
"""


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """(sdist, wheel): the wheel is built from the unpacked sdist, outside of the checkout."""
    folder = tmp_path_factory.mktemp("build")
    fresh_environment.checkout_without_builds(folder / "checkout")
    build = ("import sys; from setuptools import build_meta;"
             "print(getattr(build_meta, sys.argv[1])(sys.argv[2]))")
    run([sys.executable, "-c", build, "build_sdist", folder], cwd=folder / "checkout")
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    run([sys.executable, "-c", build, "build_wheel", folder], cwd=source)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module", params=HALVES)
def installed(request, archives, tmp_path_factory):
    """(name, interpreter) of an environment with that nova and the wheel."""
    folder = tmp_path_factory.mktemp("installed", numbered=True) / request.param
    python = fresh_environment.without_project(request.param, folder)
    extra = "[compute]" if request.param == "nova-28" else ""
    run([python, "-m", "pip", "install", str(archives[1]) + extra],
        env=dict(os.environ, **fresh_environment.PIP))
    return request.param, python


def in_it(installed, code):
    name, python = installed
    return run([python, "-W", "ignore", "-c", code], cwd=python.parent, env={
        "PATH": os.environ["PATH"], "HOME": str(python.parent),
        "OS_NOVA_DISABLE_EVENTLET_PATCHING": "true"})


def test_what_is_in_the_archives(archives):
    sdist, wheel = archives
    names = zipfile.ZipFile(wheel).namelist()
    assert "nova/virt/vtpm_hyperv/__init__.py" in names
    # Nova's own, which another distribution's would overwrite.
    assert not {"nova/__init__.py", "nova/virt/__init__.py"} & set(names)
    assert {name.split("/")[0] for name in names} == {
        "nova", "vtpm_compute", "vtpm_scheduling", "nova_hyperv_vtpm-0.1.0.dist-info"}
    for package in ("vtpm_scheduling", "vtpm_compute"):
        for path in (environment.REPOSITORY / package).rglob("*.py"):
            if path.parts[-2] != "nova_virt":
                assert str(path.relative_to(environment.REPOSITORY)) in names, path
    with tarfile.open(sdist) as archive:
        inside = {pathlib.PurePath(name).relative_to(pathlib.PurePath(name).parts[0]).as_posix()
                  for name in archive.getnames()}
    assert {"README.rst", "LICENSE", "requirements.txt", "setup.cfg", "pyproject.toml",
            "etc/nova-compute-vtpm.conf", "etc/metadefs/hyperv-vtpm-image.json",
            "doc/source/index.rst", "releasenotes/notes"} <= inside


def test_novas_loader_finds_the_filter(installed):
    assert "site-packages" in in_it(installed, FILTER)


def test_novas_api_finds_the_validators(installed):
    assert "os:vtpm" in in_it(installed, VALIDATORS)


def test_the_compute_half_is_not_needed_with_nova_34(installed):
    present = in_it(installed, "import importlib.util as u; print(all(u.find_spec(one) for one in "
                    "('os_win', 'compute_hyperv')))")
    assert present == str(installed[0] == "nova-28")


def test_novas_loader_makes_the_driver(installed):
    if installed[0] != "nova-28":
        pytest.skip("Nova 34 has no Hyper-V")
    name, path = in_it(installed, DRIVER % str(environment.REPOSITORY)).split()[-2:]
    assert name == "HyperVDriver"
    assert path.startswith(str(installed[1].parent.parent))


def test_each_console_script_runs(installed):
    name, python = installed
    setup = configparser.ConfigParser()
    setup.read(environment.REPOSITORY / "setup.cfg")
    scripts = [line.partition("=")[0].strip() for line in setup[
        "options.entry_points"]["console_scripts"].strip().splitlines()]
    assert "nova-hyperv-vtpm-protector" in scripts
    for script in scripts:
        assert "usage:" in run([python.parent / script, "--help"], cwd=python.parent)


def test_the_environments_of_the_tests_have_this_wheel(installed, archives):
    """What the other tests ran on is what a wheel out of the sdist holds."""
    source = environment.folder_of_environment(installed[0])
    (site_packages,) = source.glob("lib/python*/site-packages")
    with zipfile.ZipFile(archives[1]) as wheel:
        for name in wheel.namelist():
            if name.endswith(".py"):
                assert (site_packages / name).read_bytes() == wheel.read(name), name
