"""``nova-hyperv-vtpm``: usage, and what each command imports."""

import subprocess
import sys

import pytest

from tests import environment
from vtpm_compute.cmd import operator

ON_CONTROLLERS = ["explain", "key_facts", "nova_records", "upgrade_check", "upgrade_checks",
                  "inventory"]
ON_HOSTS = ["host_check", "host_inventory"]


def run_without(missing, code):
    """Run Python where these packages cannot be imported."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c",
         "import sys\nfor name in %r: sys.modules[name] = None\n%s" % (missing, code)],
        cwd=environment.REPOSITORY, text=True, capture_output=True)


@pytest.mark.parametrize("module", ON_CONTROLLERS)
def test_on_a_controller_there_is_no_os_win(module):
    done = run_without(["os_win", "compute_hyperv", "wmi"],
                       "import vtpm_compute.cmd.%s" % module)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ON_HOSTS)
def test_on_a_host_there_is_no_openstacksdk(module):
    done = run_without(["openstack", "oslo_upgradecheck"], "import vtpm_compute.cmd.%s" % module)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("missing", "arguments", "words"), [
    (["nova"], ["inventory"], "Python package of nova is missing. Run this on a controller"),
    (["nova"], ["explain", "--server", "x", "--config-file"], "Run this on a controller"),
    (["openstack.config", "openstack"], ["explain", "--server", "x"], "[tool]"),
    (["os_win"], ["host", "inventory"], "Python package of os_win is missing. Run this on"),
    (["nova"], ["host", "check"], "Python package of nova is missing. Run this on"),
])
def test_what_is_missing_is_said(missing, arguments, words):
    done = run_without(
        missing, "from vtpm_compute.cmd import operator\nsys.exit(operator.main(%r))" % arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_upgrade_check_that_cannot_be_made():
    """As nova-status says it; 2 is a check that failed."""
    done = run_without(["nova"], "from vtpm_compute.cmd import operator\n"
                       "sys.exit(operator.main(['upgrade', 'check']))")
    assert (done.returncode, done.stderr) == (255, "")
    assert done.stdout == ("Error: the Python package of nova is missing. Run this on a "
                           "controller, with the Python that Nova runs in.\n")


@pytest.mark.parametrize("arguments", [
    [], ["explain"], ["explain", "--image", "x"], ["explain", "--flavor", "x"], ["host"],
    ["explain", "--image", "x", "--flavor", "y", "--server", "z"], ["upgrade"], ["nothing"],
    ["host", "check", "--days", "-1"], ["host", "check", "--days", "x"],
    ["inventory", "--format", "xml"]])
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        operator.main(arguments)
    assert ended.value.code == 2
    assert "usage: nova-hyperv-vtpm" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [
    [], ["explain"], ["inventory"], ["upgrade", "check"], ["host", "check"],
    ["host", "inventory"]])
def test_help_tells_the_exit_codes(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        operator.main([*arguments, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert not arguments or "Exit code: 0 " in out
