"""Several simulated hosts in one process, seen through real os-win."""
import importlib
import platform
import socket
import threading
import time

import pytest

from tests import machine_lives
from tests.hyperv import cim, connection, current_host, fabric_process, native, windows
from tests.hyperv.fabric import Fabric


@pytest.fixture
def simulated(tmp_path):
    """HV1, HV2 and an old one; nobody has said which of them the test runs on."""
    fabric = Fabric({"storage": "%s/%%COMPUTERNAME%%" % tmp_path, "hosts": [
        {"name": "HV1"}, {"name": "HV2"}, {"name": "HV-OLD", "version": "6.3.9600"}]})
    windows.install(fabric)
    return fabric


@pytest.fixture
def factory(simulated):
    from os_win import utilsfactory
    return utilsfactory


def names_on(fabric, host):
    return [machine["name"] for machine in fabric.virtual_machines(host)]


def create(vmutils, name, tmp_path):
    from os_win import constants
    vmutils.create_vm(name, False, constants.VM_GEN_2, str(tmp_path))


def test_the_local_host_is_the_caller_s(simulated, factory, tmp_path):
    for host in ("HV1", "HV2"):
        with windows.acting_as(host):
            create(factory.get_vmutils(), "of " + host, tmp_path)
    assert names_on(simulated, "HV1") == ["of HV1"]
    assert names_on(simulated, "HV2") == ["of HV2"]


def test_another_host_is_reached_by_name_and_by_address(simulated, factory, tmp_path):
    with windows.acting_as("HV1"):
        create(factory.get_vmutils("HV2"), "a", tmp_path)
        create(factory.get_vmutils(simulated.address("HV2")), "b", tmp_path)
        assert factory.get_vmutils().list_instances() == []
        with pytest.raises(Exception, match="RPC server is unavailable"):
            factory.get_vmutils("HV3").list_instances()
    assert names_on(simulated, "HV2") == ["a", "b"]


def test_nobody_guesses(simulated, factory):
    assert platform.node() == windows._real_node()
    assert socket.gethostname() == windows._real_gethostname()
    with pytest.raises(current_host.NoCurrentHost):
        factory.get_vmutils()
    with windows.acting_as("HV1"):
        with pytest.raises(Exception, match="RPC server is unavailable"):
            with windows.acting_as("HV3"):
                pass
        assert platform.node() == socket.gethostname() == "HV1"


def test_an_object_keeps_to_its_host(simulated, factory, tmp_path):
    with windows.acting_as("HV1"):
        vmutils = factory.get_vmutils()
    create(vmutils, "a", tmp_path)  # as in a thread that knows of no host
    assert names_on(simulated, "HV1") == ["a"]
    with windows.acting_as("HV2"):
        vmutils = factory.get_vmutils()
    with windows.acting_as("HV1"), pytest.raises(current_host.MixedHosts):
        vmutils.list_instances()


def test_each_host_has_its_version_of_windows(simulated, factory):
    seen = {}
    for host in ("HV-OLD", "HV1", "HV-OLD"):
        with windows.acting_as(host):
            seen[host] = (type(factory.get_vmutils()).__name__,
                          factory.get_hostutils().get_windows_version(),
                          factory.get_vmutils()._compat_conn is not None and
                          type(factory.get_vmutils())._os_version)
    assert seen == {"HV-OLD": ("VMUtils6_3", "6.3.9600", [6, 3, 9600]),
                    "HV1": ("VMUtils10", "10.0.17763", [10, 0, 17763])}


def test_each_host_has_its_address(simulated, factory):
    for host in ("HV1", "HV2"):
        with windows.acting_as(host):
            hostutils = factory.get_hostutils()
        assert hostutils.get_local_ips() == [simulated.address(host)]


def test_the_same_setting_is_another_folder_on_each_host(simulated, tmp_path):
    from oslo_config import cfg
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.StrOpt("instances_path", default="%s/%%COMPUTERNAME%%/I" % tmp_path))
    for host in ("HV1", "HV2"):
        with windows.acting_as(host):
            assert conf.instances_path == "%s/%s/I" % (tmp_path, host)
    assert conf.instances_path == "%s/%%COMPUTERNAME%%/I" % tmp_path


def test_a_bound_service_runs_on_its_host(simulated):
    class Service:
        def where(self):
            return platform.node()

    one, two = windows.bind(Service(), "HV1"), windows.bind(Service(), "HV2")
    assert (one.where(), two.where()) == ("HV1", "HV2")
    with windows.acting_as("HV1"):
        assert two.where() == "HV2"
        assert Service().where() == "HV1"


def test_threads_work_on_two_hosts_at_once(simulated, factory, tmp_path):
    faults = []

    def work(host, number):
        try:
            with windows.acting_as(host):
                for _ in range(5):
                    machine_lives.live(host, number, str(tmp_path))
        except BaseException as fault:
            faults.append(fault)
            raise
    threads = [threading.Thread(target=work, args=(host, number))
               for number in range(4) for host in ("HV1", "HV2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert names_on(simulated, "HV1") == names_on(simulated, "HV2") == []
    for host in ("HV1", "HV2"):
        assert len(simulated.calls(host, "*.DefineSystem")) == 20


@pytest.mark.parametrize("module, owner, cache", [
    ("os_win.utils.baseutils", "BaseUtils", "_WMI_CONS"),
    ("os_win.utils.network.networkutils", "NetworkUtils", "_switches"),
    ("os_win.utils.storage.smbutils", "SMBUtils", "_loopback_share_map")])
def test_each_host_has_its_caches(simulated, factory, module, owner, cache):
    found = getattr(getattr(importlib.import_module(module), owner), cache)
    with windows.acting_as("HV1"):
        found["key"] = "of HV1"
    with windows.acting_as("HV2"):
        assert "key" not in found
        found["key"] = "of HV2"
        assert (found["key"], list(found)) == ("of HV2", ["key"])
    with windows.acting_as("HV1"):
        assert found.pop("key") == "of HV1"
        assert len(found) == 0 and found.get("key") is None


def test_a_host_of_another_process_has_its_disk_and_address(simulated, tmp_path):
    server = fabric_process.Server(simulated, str(tmp_path / "socket"))
    thread = native.module("threading").Thread(target=server.run)
    thread.start()
    try:
        computer = connection.RemoteComputer(str(tmp_path / "socket"), "HV1")
        assert computer.storage.template == simulated.storage_template()
        assert computer.storage.path_on("%s/HV1/a" % tmp_path, "HV1", simulated.address("HV2")) \
            == "%s/HV2/a" % tmp_path
        assert computer.address_of("HV2") == simulated.address("HV2")
        assert computer.named(simulated.address("HV2")).name == "HV2"
        with pytest.raises(cim.Error, match="RPC server is unavailable"):
            computer.named("HV3")
    finally:
        server.stop()
        thread.join()


def test_one_call_at_a_time(simulated, factory):
    """A host's state is changed under one lock, whatever thread asks for whichever host."""
    inside, most = [], []
    for host in ("HV1", "HV2"):
        repository = simulated.host(host).repository

        def query(*arguments, real=repository.query):
            inside.append(None)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()
            return real(*arguments)
        repository.query = query

    def work(host):
        with windows.acting_as(host):
            factory.get_vmutils().list_instances()
    threads = [threading.Thread(target=work, args=(host,)) for host in ("HV1", "HV2") * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) >= 8
    assert set(most) == {1}
