"""Whether nova-scheduler grows with this project's filter and pre-filter in it.

``python -m tests.bench.scheduler_memory [requests [hosts]]``, in the environment of the tests:
1,000 requests, each for another server, on 1,000 hosts. Nova's own HostManager and pre-filters, its
default filters, and real databases of the API and of a cell, in SQLite; only placement's answer is
made here. The requests are boots that ask for nothing, for a vTPM, and for what no host can
satisfy, live migrations of a server with its fabric's mark and of one without, a boot that finds
all hosts unguarded, and one that finds a fabric whose hosts have different guardians. One host is
in two fabrics, and one is put into one and taken out of it again and again: what is wrong with
hosts and fabrics is all that the filter keeps.

Each way runs in a process of its own: without this project and with it, and each once more under
tracemalloc, which counts what Python's objects hold and makes the process itself larger. Ends with
1 where a request got another answer than it has to, or where the growth after the first tenth of
the requests is more with this project than without it, by more than MARGIN_KB.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
import tracemalloc
import types
from unittest import mock

os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "1"

# What 900 requests may add: Python gives memory back to the system when it likes.
MARGIN_KB = {"RSS": 2048, "traced": 256}
OURS = "vtpm_scheduling.guarded_host_filter.GuardedHostFilter"
NOVAS = ("ComputeFilter", "ComputeCapabilitiesFilter", "ImagePropertiesFilter",
         "ServerGroupAntiAffinityFilter", "ServerGroupAffinityFilter")
GENERATION_2 = {"hw_machine_type": "hyperv-gen2"}
VTPM = dict(GENERATION_2, os_vtpm="required")
MARK = {"hyperv_vtpm": "vtpm", "hyperv_vtpm_fabric": "00" * 32}
# Image properties, whether the server runs, its mark, whether hosts are guarded (MIXED: they are,
# and one has another guardian than its fabric), whether it gets a host when this project is asked.
MIXED = "mixed"
KINDS = (
    ("a boot that asks for nothing", {}, False, {}, True, True),
    ("a boot", VTPM, False, {}, True, True),
    ("a contradiction", {"os_vtpm": "required", "hw_machine_type": "hyperv-gen1"}, False, {}, True,
     False),
    ("a move with a mark", VTPM, True, MARK, True, True),
    ("a move without a mark", VTPM, True, {}, True, True),
    ("a boot on unguarded hosts", VTPM, False, {}, False, False),
    ("a boot beside a fabric that mixes guardians", VTPM, False, {}, MIXED, True),
)


class Scheduler:
    """Nova's, in this process.

    :param folder: for the databases
    :param hosts: how many
    """

    def __init__(self, folder, hosts, with_ours):
        self._with_ours = with_ours
        self._configure(folder)
        from nova import context, objects
        from nova.scheduler import host_manager
        self._context = context.get_admin_context()
        self._cell = objects.CellMapping(
            self._context, uuid="11111111-1111-4111-8111-111111111111", name="cell1",
            transport_url="fake:/", database_connection="sqlite:///%s/cell.sqlite" % folder)
        self._cell.create()
        names = ["host%04d" % number for number in range(hosts)]
        for number in range(2):
            aggregate = objects.Aggregate(self._context, name="fabric%d" % number,
                                          metadata={"hgs_fabric": "fabric%d" % number})
            aggregate.create()
            for name in [*names[number:-2:2], names[-2]]:
                aggregate.add_host(name)
        self.manager = host_manager.HostManager()
        self._hosts = [self._host_state(host_manager, name) for name in names]
        self._placement = types.SimpleNamespace(get=lambda *args, **kwargs: types.SimpleNamespace(
            status_code=200, json=lambda: {"resource_providers": [
                {"name": name} for name in names]}))

    def _configure(self, folder):
        import nova.conf
        from nova import config, objects, rpc
        from nova.db import migration
        from oslo_messaging import conffixture
        conf = nova.conf.CONF
        with mock.patch("nova.rpc.init"):
            config.parse_args(["scheduler"], default_config_files=[])
        for name, value, group in (
                ("connection", "sqlite:///%s/api.sqlite" % folder, "api_database"),
                ("connection", "sqlite:///%s/cell.sqlite" % folder, "database"),
                ("available_filters", ["nova.scheduler.filters.all_filters"] + (
                    [OURS] if self._with_ours else []), "filter_scheduler"),
                ("enabled_filters", (["GuardedHostFilter"] if self._with_ours else [])
                 + list(NOVAS), "filter_scheduler"),
                ("track_instance_changes", False, "filter_scheduler")):
            conf.set_override(name, value, group)
        conf.set_override("log_file", os.devnull)
        conf.set_override("use_stderr", False)
        from oslo_log import log as logging
        logging.setup(conf, "nova")
        transport = conffixture.ConfFixture(conf)
        transport.setUp()
        transport.transport_url = "fake:/"
        rpc.init(conf)
        objects.register_all()
        from nova.db.api import api as api_database
        from nova.db.main import api as main_database
        api_database.configure(conf)
        main_database.configure(conf)
        for database in ("api", "main"):
            migration.db_sync(database=database)

    def _host_state(self, host_manager, name):
        state = host_manager.HostState(name, name, self._cell.uuid)
        state.hypervisor_type, state.hypervisor_version = "hyperv", 10000
        state.supported_instances = [["x86_64", "hyperv", "hvm"]]
        state.service = {"host": name, "topic": "compute", "binary": "nova-compute",
                         "disabled": False, "last_seen_up": None, "created_at": None,
                         "updated_at": None, "forced_down": False}
        state.aggregates = [self.manager.aggs_by_id[identifier]
                            for identifier in self.manager.host_aggregates_map[name]]
        return state

    def request(self, number):
        """Write what nova-api and nova-conductor write; returns the RequestSpec."""
        from nova import context, objects
        _, properties, runs, mark, _, _ = KINDS[number % len(KINDS)]
        user = context.RequestContext("user", "project")
        flavor = objects.Flavor(
            name="f", flavorid="f", vcpus=1, memory_mb=512, root_gb=1, ephemeral_gb=0, swap=0,
            extra_specs={}, rxtx_factor=1.0, vcpu_weight=0, disabled=False, is_public=True)
        identifier = "%08x-2222-4222-8222-222222222222" % number
        metadata = dict({"image_" + name: value for name, value in properties.items()}, **mark)
        instance = objects.Instance(
            user, uuid=identifier, system_metadata=metadata, metadata={}, flavor=flavor,
            old_flavor=None, new_flavor=None, project_id="project", user_id="user",
            host="host0000" if runs else None)
        mapping = objects.InstanceMapping(user, instance_uuid=identifier, project_id="project",
                                          user_id="user", cell_mapping=None)
        if runs:
            with context.target_cell(user, self._cell) as cell_context:
                instance._context = cell_context
                instance.create()
            mapping.cell_mapping = self._cell
        else:
            objects.BuildRequest(
                user, instance=instance, project_id="project", instance_uuid=identifier,
                block_device_mappings=objects.BlockDeviceMappingList(objects=[]),
                tags=objects.TagList(objects=[])).create()
        mapping.create()
        known = {name: value for name, value in properties.items() if name != "os_vtpm"}
        return objects.RequestSpec(
            user, image=objects.ImageMeta.from_dict({"id": identifier, "properties": known}),
            flavor=flavor, num_instances=1, instance_uuid=identifier, project_id="project",
            user_id="user", ignore_hosts=["host0000"] if runs else None, force_hosts=None,
            force_nodes=None, requested_destination=None, scheduler_hints={}, is_bfv=False,
            instance_group=None, availability_zone=None, numa_topology=None,
            pci_requests=objects.InstancePCIRequests(requests=[]), requested_resources=[],
            request_level_params=objects.RequestLevelParams(), limits=objects.SchedulerLimits(),
            retry=None, security_groups=objects.SecurityGroupList(objects=[]))

    def serve(self, number, spec):
        """What nova-scheduler does of a request between placement and the choice of one host."""
        from nova import exception
        from nova.scheduler import request_filter
        from nova.scheduler.client import report
        name, _, _, _, guarded, gets_host = KINDS[number % len(KINDS)]
        for position, host in enumerate(self._hosts):
            host.stats = json.loads(self._stats(position, guarded))
        alike = self._hosts[(len(self._hosts) - 1) % 2]
        self._hosts[-1].aggregates = alike.aggregates if number % 2 else []
        try:
            with mock.patch.object(report, "report_client_singleton",
                                   lambda *args: self._placement):
                request_filter.process_reqspec(spec._context, spec)
                found = list(self.manager.get_filtered_hosts(self._hosts, spec))
        except exception.NoValidHost:
            found = []
        if bool(found) is not (gets_host or not self._with_ours):
            raise SystemExit("%s: %d hosts" % (name, len(found)))

    @staticmethod
    def _stats(position, guarded):
        fabric = 2 if guarded is MIXED and position == 0 else position % 2
        # As a host with the driver reports it; a process without this project has it as a text.
        return json.dumps({
            "failed_builds": "0", "hyperv_attestation_read_at": "2026-01-01T00:00:%02d" % (
                position % 60),
            "hyperv_vtpm_report": "version=1 guarded=%s hypervisor=10000 attestation=%d fabric=%s"
                                  % (bool(guarded), 100 if guarded else 301, "%02d" % fabric * 32)})


def resident_kb():
    """What of this process is in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def run(requests, hosts, with_ours, is_traced):
    """Serve the requests in this process; prints kB after a tenth and after all of them."""
    with tempfile.TemporaryDirectory() as folder:
        scheduler = Scheduler(folder, hosts, with_ours)
        with mock.patch("nova.servicegroup.API.service_is_up", lambda *args: True):
            tenth = max(1, requests // 10)
            if is_traced:
                tracemalloc.start()
            for number in range(requests):
                scheduler.serve(number, scheduler.request(number))
                if number + 1 in (tenth, requests):
                    gc.collect()
                    print(tracemalloc.get_traced_memory()[0] // 1024 if is_traced
                          else resident_kb(), flush=True)
    return 0


def main(requests=1000, hosts=1000):
    print("%-8s %-22s %12s %12s %10s" % (
        "kB", "", "%d requests" % max(1, requests // 10), "%d requests" % requests, "growth"))
    grown = {}
    for is_traced in (False, True):
        for with_ours in (False, True):
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "tests.bench.scheduler_memory", "run",
                 *(str(int(value)) for value in (requests, hosts, with_ours, is_traced))],
                stdout=subprocess.PIPE, text=True)
            if done.returncode:
                return 1
            first, last = (int(line) for line in done.stdout.split())
            what = "traced" if is_traced else "RSS"
            grown[what, with_ours] = last - first
            print("%-8s %-22s %12d %12d %10d" % (
                what, "with this project" if with_ours else "without this project", first, last,
                last - first), flush=True)
    more = [what for what, margin in MARGIN_KB.items()
            if grown[what, True] - grown[what, False] > margin]
    for what in more:
        print("GROWS: %s, by %d kB more than without this project" % (
            what, grown[what, True] - grown[what, False]))
    return 1 if more else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        sys.exit(run(*(int(argument) for argument in sys.argv[2:])))
    sys.exit(main(*(int(argument) for argument in sys.argv[1:])))
