"""compute-hyperv's own driver on the simulated Hyper-V host, in this process and over a socket."""
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from tests.hyperv import site_hook

pytestmark = pytest.mark.os_win

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
NAME = "HV-ONE"


def wait_for_file(path, process):
    deadline = time.monotonic() + 30
    while not path.exists():
        assert process.poll() is None, "the fabric process ended"
        assert time.monotonic() < deadline, "the fabric process is not ready"
        time.sleep(0.05)


@pytest.fixture
def fabric_process(tmp_path):
    """The socket of a fabric process with a guarded host and an old one."""
    config, socket = tmp_path / "fabric.json", tmp_path / "socket"
    config.write_text(json.dumps({"fabrics": ["east"], "hosts": [
        {"name": NAME, "fabric": "east"}, {"name": "HV-OLD", "version": "6.3.9600"}]}))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hyperv.fabric_process", "--socket", socket,
         "--config", config], cwd=REPOSITORY)
    wait_for_file(socket, process)
    yield socket
    process.terminate()
    assert process.wait(timeout=10) == 0


def run_life(tmp_path, *arguments, **environment):
    """Run stock_driver_life.py in a process of its own and give what it says."""
    from tests.hyperv import windows
    environment = dict(os.environ, PYMI_DIR=windows.pymi_dir(), **environment)
    script = pathlib.Path(__file__).with_name("stock_driver_life.py")
    done = subprocess.run(
        [sys.executable, script, REPOSITORY, tmp_path, *arguments], env=environment,
        capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return json.loads(done.stdout.splitlines()[-1])


def check_life(said, version, threads="eventlet"):
    assert said["nodes"] == [NAME if version == 10000 else "HV-OLD"]
    assert said["resources"]["hypervisor_version"] == version
    assert said["resources"]["hypervisor_type"] == "hyperv"
    assert said["resources"]["vcpus"] == 8
    assert said["resources"]["memory_mb"] == 32768
    assert said["states"] == ["running", "off"] + ["running"] * 4 + ["gone"]
    assert said["disks in rescue"] == ["root-rescue.vhdx", "root.vhdx"]
    assert said["disks"] == ["root.vhdx"]
    assert said["events"] or threads == "native"  # the driver listens in a green thread
    assert said["left"] == ["_base"]


@pytest.mark.compute_hyperv
@pytest.mark.parametrize("threads", ["native", "eventlet"])
def test_life_in_one_process(tmp_path, threads):
    check_life(run_life(tmp_path, "local", threads), 10000, threads)


@pytest.mark.compute_hyperv
@pytest.mark.parametrize("threads", ["native", "eventlet"])
def test_life_over_a_socket(tmp_path, fabric_process, threads):
    said = run_life(tmp_path, "socket", threads, SIMULATED_HYPERV_HOST=NAME,
                    SIMULATED_HYPERV_SOCKET=str(fabric_process))
    check_life(said, 10000, threads)


@pytest.mark.compute_hyperv
def test_an_old_host_over_a_socket(tmp_path, fabric_process):
    said = run_life(tmp_path, "socket", "eventlet", SIMULATED_HYPERV_HOST="HV-OLD",
                    SIMULATED_HYPERV_SOCKET=str(fabric_process))
    check_life(said, 6003)


def test_the_hook_does_nothing_unasked(tmp_path):
    path = site_hook.install_site_hook(tmp_path, REPOSITORY, tmp_path)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SIMULATED_HYPERV")}
    said = subprocess.run(
        [sys.executable, "-S", "-c",
         "import site, sys; site.addpackage(%r, %r, None); print(sorted(sys.modules))"
         % (str(tmp_path), path.name)],
        env=environment, capture_output=True, text=True, check=True)
    assert "tests.hyperv" not in said.stdout


def test_the_hook_ends_a_process_without_pymi(tmp_path):
    path = site_hook.install_site_hook(tmp_path, REPOSITORY, tmp_path)
    environment = {**os.environ, "SIMULATED_HYPERV_HOST": NAME,
                   "SIMULATED_HYPERV_SOCKET": str(tmp_path / "none")}
    environment.pop("PYMI_DIR", None)
    # -S: this environment has a hook of its own, whose PyMI is there.
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import site; site.addpackage(%r, %r, None); print('went on')"
         % (str(tmp_path), path.name)], env=environment, capture_output=True, text=True)
    assert done.returncode == 3
    assert "No PyMI in" in done.stderr
    assert "went on" not in done.stdout
