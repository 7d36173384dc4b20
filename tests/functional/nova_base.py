"""Real Nova services in one process, on Nova's own functional fixtures."""

from __future__ import annotations

import contextlib
import os
import sys
import time

# Seconds; Nova's own test case reads it. A test that waits for ever says where.
os.environ.setdefault("OS_TEST_TIMEOUT", "900")

# Run nova.monkey_patch; have to come before anything else that nova imports. Which of the two does
# it depends on the release.
import nova.tests.functional  # isort: skip
import nova.test  # isort: skip # noqa: F401

import fixtures
from keystoneauth1 import exceptions as keystone_exceptions
from nova import conf, objects
from nova import context as nova_context
from nova.scheduler.client import report
from nova.tests.functional import integrated_helpers
from nova.tests.functional.api import client as api_client
from nova.virt import fake

from tests.functional import fixtures_in_threads
from vtpm_scheduling import policy

CONF = conf.CONF
# Seconds after which what takes a few will not happen any more, on a busy machine.
PATIENCE = 180
FILTER = "vtpm_scheduling.guarded_host_filter.GuardedHostFilter"


class ReportingFakeDriver(fake.MediumFakeDriver):
    """Nova's fake driver that reports what a test says of its host.

    Scheduling tests need hosts, not Hyper-V: the real driver has tests of its own.
    """

    REPORTS: dict[str, policy.HostReport | None] = {}
    VERSIONS: dict[str, int] = {}
    HYPERVISORS: dict[str, str] = {}

    def get_available_resource(self, nodename):
        resources = super().get_available_resource(nodename)
        resources["hypervisor_type"] = self.HYPERVISORS.get(nodename, "hyperv")
        resources["hypervisor_version"] = self.VERSIONS.get(nodename, 10000)
        report = self.REPORTS.get(nodename)
        if report is not None:
            resources["stats"] = report.to_stats()
        return resources

    def update_provider_tree(self, provider_tree, nodename, allocations=None):
        super().update_provider_tree(provider_tree, nodename, allocations=allocations)
        report = self.REPORTS.get(nodename)
        if report is not None and report.guarded and report.fabric_thumbprint:
            provider_tree.add_traits(nodename, policy.TRAIT_GUARDED_HOST)
        else:
            provider_tree.remove_traits(nodename, policy.TRAIT_GUARDED_HOST)


fixtures_in_threads.complete()

# Nova loads drivers from nova.virt only.
fake.ReportingFakeDriver = ReportingFakeDriver


class NovaTestCase(integrated_helpers.ProviderUsageBaseTestCase):
    """One cell, an API, a scheduler with GuardedHostFilter first; a test starts the computes."""

    compute_driver = "fake.ReportingFakeDriver"
    microversion = "latest"
    # One of those that Nova's fixtures bring.
    PLAIN_FLAVOR = "1"
    # Tests that read the log at debug level; Nova's fixture keeps it at info otherwise.
    reads_debug_log = frozenset()

    def setUp(self):
        if self._testMethodName in self.reads_debug_log:
            self.useFixture(fixtures.EnvironmentVariable("OS_DEBUG", "1"))
        # Nova's fixture looks for its source tree; the wheel puts the file elsewhere.
        paste = os.path.join(sys.prefix, "etc/nova/api-paste.ini")
        for name, value, group in (
                ("api_paste_config", paste, "wsgi"),
                ("available_filters", ["nova.scheduler.filters.all_filters", FILTER],
                 "filter_scheduler"),
                ("enabled_filters", ["GuardedHostFilter", "ComputeFilter",
                                     "ImagePropertiesFilter"], "filter_scheduler"),
                # Tests say which nova-compute is down. Of one that is started again and again, or
                # on a slow machine, Nova would hear too rarely: it would delete its servers from
                # the database alone. Read once, when the API starts.
                ("service_down_time", 86400, None),
                ("instances", -1, "quota"), ("cores", -1, "quota"), ("ram", -1, "quota")):
            CONF.set_override(name, value, group=group)
            self.addCleanup(CONF.clear_override, name, group=group)
        ReportingFakeDriver.REPORTS = {}
        ReportingFakeDriver.VERSIONS = {}
        ReportingFakeDriver.HYPERVISORS = {}
        super().setUp()

    def _clear_attrs(self):
        # Nova's cleanup deletes every public attribute, also the method that pytest put there.
        method = self.__dict__.get(self._testMethodName)
        super()._clear_attrs()
        if method is not None:
            self.__dict__[self._testMethodName] = method

    def start_host(self, name, guarded=True, thumbprint="ab" * 32, version=10000,
                   status=None, hypervisor="hyperv"):
        """Start nova-compute on a host that reports this; thumbprint None: no vTPM driver."""
        ReportingFakeDriver.VERSIONS[name] = version
        ReportingFakeDriver.HYPERVISORS[name] = hypervisor
        ReportingFakeDriver.REPORTS[name] = None if thumbprint is None else policy.HostReport(
            guarded, version, status or (100 if guarded else 301), fabric_thumbprint=thumbprint)
        return self._start_compute(name)

    def placement_away(self, message):
        """Placement cannot be asked for guarded hosts; returns a list for the addresses."""
        ask, asked = report.SchedulerReportClient.get, []

        def away(client, url, *args, **kwargs):
            if policy.TRAIT_GUARDED_HOST not in url:
                return ask(client, url, *args, **kwargs)
            asked.append(url)
            raise keystone_exceptions.ConnectFailure(message)

        self.useFixture(fixtures.MonkeyPatch(
            "nova.scheduler.client.report.SchedulerReportClient.get", away))
        return asked

    def create_fabric(self, label, *hosts):
        """An aggregate that carries ``hgs_fabric``; returns its id."""
        aggregate = self.api.post_aggregate(
            {"aggregate": {"name": label, "availability_zone": None}})
        self.api.post_aggregate_action(
            aggregate["id"], {"set_metadata": {"metadata": {"hgs_fabric": label}}})
        for host in hosts:
            self.api.add_host_to_aggregate(aggregate["id"], host)
        return aggregate["id"]

    def create_image(self, number=1, **properties):
        """An image with these properties; returns its id."""
        identifier = "%08d-4e14-4e4c-a73d-069cbf4541e6" % number
        self.glance.create(None, {
            "id": identifier, "name": "image-%d" % number, "status": "active",
            "container_format": "bare", "disk_format": "vhdx", "size": 1, "min_ram": 0,
            "min_disk": 0, "properties": properties})
        return identifier

    def boot(self, image, flavor=None, expected="ACTIVE", zone=None):
        """Boot a server; returns it as the API shows it."""
        # Nova's helper would take the first of all flavors, and ids of new ones are random.
        server = self._build_server(
            image_uuid=image, flavor_id=flavor or self.PLAIN_FLAVOR, networks="none", az=zone)
        server = self.api.post_server({"server": server})
        return self._wait_for_state_change(server, expected)

    # Nova's own waits look twice a second, and ten times at most.

    def _wait_for_server_parameter(self, server, expected_params, max_retries=None, api=None,
                                   wait_for_fault_key=False):
        def look():
            try:
                shown = self._server_with(server, expected_params)
                if wait_for_fault_key and expected_params.get("status") == "ERROR":
                    # Nova writes it a moment later.
                    self.assertIn("fault", shown)
                return shown
            except api_client.OpenStackApiNotFoundException as exc:
                # For a moment, between Nova's request to build a server and the server.
                raise AssertionError("the server is not there") from exc
        return self._soon(look)

    def _server_with(self, server, expected):
        server = self.api.get_server(server["id"])
        self.assertEqual(expected, {name: server[name] for name in expected},
                         server.get("fault"))
        return server

    def _wait_until_deleted(self, server):
        self._soon(lambda: self.assertRaises(
            api_client.OpenStackApiNotFoundException, self.api.get_server, server["id"]))

    def _soon(self, assertion):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return assertion()
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def host_of(self, server):
        return server["OS-EXT-SRV-ATTR:host"]

    @contextlib.contextmanager
    def cell_of(self, server):
        """An administrator's context in the cell of a server."""
        admin = nova_context.get_admin_context()
        mapping = objects.InstanceMapping.get_by_instance_uuid(admin, server["id"])
        with nova_context.target_cell(admin, mapping.cell_mapping) as cell:
            yield cell

    def system_metadata(self, server, **changes):
        """A server's system metadata; the keyword arguments are written first."""
        with self.cell_of(server) as cell:
            instance = objects.Instance.get_by_uuid(
                cell, server["id"], expected_attrs=["system_metadata"])
            if changes:
                instance.system_metadata.update(changes)
                instance.save()
            return dict(instance.system_metadata)
