"""Green threads, tpool threads and native threads on several simulated hosts in one process."""

# Patches nova first.
from tests.functional import nova_base  # isort: skip # noqa: F401

import importlib
import platform
import tempfile
import threading
import time
import unittest

import eventlet
import pytest
from eventlet import patcher, tpool
from nova import utils

from tests import machine_lives
from tests.hyperv import current_host, windows
from tests.hyperv.fabric import Fabric

pytestmark = pytest.mark.os_win

HOSTS = ("HV1", "HV2")


class ThreadsTest(unittest.TestCase):

    def setUp(self):
        self.disks = self.enterContext(tempfile.TemporaryDirectory())
        self.simulated = Fabric({"hosts": [{"name": host} for host in HOSTS]})
        windows.install(self.simulated)
        # As nova-compute does it, before there are threads.
        importlib.import_module("os_win.utilsfactory")

    def test_threads_act_on_the_host_of_those_that_start_them(self):
        seen = []

        def look():
            seen.append((platform.node(), tpool.execute(platform.node)))

        def start_thread(function):
            threading.Thread(target=function).start()

        for spawn in (eventlet.spawn, eventlet.spawn_n, utils.spawn, utils.spawn_n,
                      eventlet.GreenPool().spawn, eventlet.GreenPool().spawn_n, start_thread):
            for host in HOSTS:
                seen.clear()
                with windows.acting_as(host):
                    spawn(look)
                with eventlet.Timeout(30):
                    while not seen:
                        eventlet.sleep(0.01)
                self.assertEqual([(host, host)], seen, spawn)
        self.assertIsNone(current_host.computer_or_none())

    def test_green_and_native_threads_at_once(self):
        native, faults, running = patcher.original("threading"), [], [True]
        import wmi

        def watch(host):
            """As PyMI's own native threads: WMI itself, and another host by its name."""
            try:
                with windows.acting_as(host):
                    while running:
                        for machine in wmi.WMI("root/virtualization/v2") \
                                .Msvm_VirtualSystemSettingData(
                                    VirtualSystemType="Microsoft:Hyper-V:System:Realized"):
                            assert machine.Notes == (host,), machine.Notes
                        for machine in self.simulated.virtual_machines(host):
                            assert machine["notes"] == [host], machine
                        native_time.sleep(0.001)
            except BaseException as fault:
                faults.append(fault)
                raise

        def live(host, number):
            with windows.acting_as(host):
                for _ in range(3):
                    machine_lives.live(host, number, self.disks)
                    eventlet.sleep(0)

        native_time = patcher.original("time")
        watchers = [native.Thread(target=watch, args=(host,)) for host in HOSTS * 2]
        for watcher in watchers:
            watcher.start()
        lives = [eventlet.spawn(live, host, number) for number in range(4) for host in HOSTS]
        try:
            for one in lives:
                one.wait()
        finally:
            running.clear()
            while any(watcher.is_alive() for watcher in watchers):
                time.sleep(0.01)
        self.assertEqual([], faults)
        for host in HOSTS:
            self.assertEqual([], self.simulated.virtual_machines(host))
            self.assertEqual(12, len(self.simulated.calls(host, "*.DefineSystem")))

    def test_what_is_collected_while_a_result_comes_back(self):
        """Whoever brings results of the pool does not wait for one."""
        class Collected:
            def __del__(self):
                seen.append(tpool.execute(platform.node))

        def collect():
            with windows.acting_as("HV1"):
                Collected()

        class Result:
            def send(self, value):
                collect()

        seen = []
        tpool.setup()
        with eventlet.Timeout(30):
            tpool._rspq.put((Result(), None))
            tpool._wsock.sendall(tpool._bytetosend)
            while len(seen) < 1:
                eventlet.sleep(0.01)
            eventlet.hubs.get_hub().schedule_call_global(0, collect)
            while len(seen) < 2:
                eventlet.sleep(0.01)
            self.assertEqual("HV1", tpool.execute(seen.pop))
        self.assertEqual(["HV1"], seen)

    def test_what_is_collected_in_the_middle_of_something(self):
        """No other green thread runs while PyMI ends what nobody has any more."""
        import wmi

        class Collected(wmi._EventWatcher):
            def __init__(self):
                pass

            def close(self):
                tpool.execute(platform.node)

        def work():
            with windows.acting_as("HV1"):
                eventlet.spawn_n(ran.append, True)
                Collected()
                seen.append(list(ran))
        seen, ran = [], []
        eventlet.spawn(work).wait()
        self.assertEqual([[]], seen)

    def test_each_host_has_its_console_handlers(self):
        for module in ("nova.virt.hyperv.serialconsoleops",
                       "compute_hyperv.nova.serialconsoleops"):
            if not importlib.util.find_spec(module.split(".")[0]):
                continue  # nova's own environments have no compute-hyperv
            with windows.acting_as("HV1"):
                handlers = importlib.import_module(module)._console_handlers
                handlers["instance-00000001"] = "of HV1"
            with windows.acting_as("HV2"):
                self.assertNotIn("instance-00000001", handlers)
