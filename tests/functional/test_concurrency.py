"""The scheduler's half runs in the threads that Nova has, without the driver's half and os-win."""

# Patches nova first.
from tests.functional import nova_base  # isort: skip # noqa: F401

import os
import pathlib
import subprocess
import sys
import unittest

THREADS = os.environ.get("OS_NOVA_DISABLE_EVENTLET_PATCHING", "false") == "true"

# As nova-scheduler and nova-api do it: Nova's own program first. The installed wheel is what loads.
LOAD_BOTH_SERVICES = """
import nova.cmd.scheduler
from importlib import metadata
import sys
import vtpm_scheduling.guarded_host_filter as loaded
for point in metadata.entry_points(group="nova.api.extra_spec_validators", name="hyperv_vtpm"):
    assert {one.name for one in point.load().register()} == {"os:vtpm", "os:shielded_vm"}
    print(loaded.__file__)
print(*sys.modules)
"""


class ConcurrencyTest(unittest.TestCase):

    def test_these_tests_run_in_the_threads_asked_for(self):
        # Not imported here: with native threads Nova 34 forbids it.
        eventlet = sys.modules.get("eventlet")
        green = eventlet is not None and eventlet.patcher.is_monkey_patched("thread")
        self.assertEqual(THREADS, not green)

    def test_the_wheel_loads_without_the_drivers_half(self):
        done = subprocess.run(
            [sys.executable, "-I", "-W", "ignore", "-c", LOAD_BOTH_SERVICES],
            capture_output=True, text=True, timeout=120)
        self.assertEqual(0, done.returncode, done.stderr)
        file, modules = done.stdout.splitlines()
        self.assertTrue(pathlib.Path(file).is_relative_to(sys.prefix), file)
        loaded = {module.partition(".")[0] for module in modules.split()}
        self.assertIn("vtpm_scheduling", loaded)
        self.assertFalse(loaded & {"os_win", "vtpm_compute", "compute_hyperv"})
