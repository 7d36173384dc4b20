"""The operator's command on Nova's records: upgrade check, inventory, explain's part of them."""

# Patches nova first.
from tests.functional import nova_base  # isort: skip

import contextlib
import io
import json

import fixtures
from nova import conf
from oslo_upgradecheck.upgradecheck import Code

from vtpm_compute.cmd import inventory, nova_records, operator, upgrade_checks
from vtpm_scheduling import policy

CONF = conf.CONF
EAST, WEST = "ab" * 32, "cd" * 32
GEN2 = {"hw_machine_type": "hyperv-gen2"}


class RecordsTestCase(nova_base.NovaTestCase):

    def setUp(self):
        super().setUp()
        self.read_files = []
        # Nova would read its configuration anew, and lose the test's.
        self.useFixture(fixtures.MonkeyPatch(
            "nova.config.parse_args", lambda argv: self.read_files.append(argv[1:])))

    def start_hosts(self):
        self.start_host("hv1")
        self.start_host("hv2", guarded=False)
        self.create_fabric("east", "hv1", "hv2")

    def run_command(self, *arguments):
        """The exit code, and what it prints."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = operator.main(arguments)
        return code, out.getvalue()


class UpgradeCheckTest(RecordsTestCase):

    def setUp(self):
        super().setUp()
        self.checks = upgrade_checks.UpgradeChecks(nova_records)

    def assert_result(self, result, code, *words):
        self.assertEqual(code, result.code, result.details)
        for word in words:
            self.assertIn(word, result.details)
        if code is not Code.SUCCESS:
            self.assertTrue(result.details)

    def filters(self, **options):
        self.flags(group="filter_scheduler", **options)

    def test_all_is_well(self):
        self.start_hosts()
        code, out = self.run_command("upgrade", "check")
        self.assertEqual((0, [[]]), (code, self.read_files), out)
        self.assertEqual(5, out.count("Result: Success"))
        code, out = self.run_command("upgrade", "check", "--json", "--config-file", "a.conf")
        self.assertEqual((0, [[], ["--config-file", "a.conf"]]), (code, self.read_files))
        self.assertEqual({0}, {check["result"] for check in json.loads(out)["checks"]})

    def test_filter(self):
        self.assert_result(self.checks.check_filter(), Code.SUCCESS)
        self.filters(enabled_filters=["ComputeFilter", "GuardedHostFilter"])
        self.assert_result(self.checks.check_filter(), Code.WARNING, "not the first",
                           "before ComputeFilter")
        self.filters(enabled_filters=["ComputeFilter"])
        self.assert_result(self.checks.check_filter(), Code.FAILURE, "enabled_filters")
        self.filters(available_filters=["nova.scheduler.filters.all_filters"])
        self.assert_result(self.checks.check_filter(), Code.FAILURE, "available_filters")
        self.filters(available_filters=["vtpm_scheduling.nothing.Filter"])
        self.assert_result(self.checks.check_filter(), Code.FAILURE, "cannot be loaded")

    def test_aggregates(self):
        self.assert_result(self.checks.check_aggregates(), Code.FAILURE, "No host aggregate",
                           "require_fabric_aggregate")
        self.flags(require_fabric_aggregate=False, group="vtpm_scheduling")
        self.assert_result(self.checks.check_aggregates(), Code.SUCCESS)
        self.start_hosts()
        self.assert_result(self.checks.check_aggregates(), Code.SUCCESS)
        self.create_fabric("west", "hv2")
        self.create_fabric("north")
        self.assert_result(self.checks.check_aggregates(), Code.WARNING,
                           "without hosts: north", "several fabrics", "hv2")

    def test_reports(self):
        self.assert_result(self.checks.check_reports(), Code.WARNING, "no Hyper-V host")
        self.start_hosts()
        self.assert_result(self.checks.check_reports(), Code.SUCCESS)
        self.start_host("hv3", thumbprint=None)
        self.assert_result(self.checks.check_reports(), Code.WARNING, "without a report", "hv3")
        nova_base.ReportingFakeDriver.REPORTS["hv3"] = policy.HostReport(
            True, 10000, 100, fabric_thumbprint=EAST, version=policy.REPORT_VERSION + 1)
        self._run_periodics()
        self.assert_result(self.checks.check_reports(), Code.FAILURE, "newer form", "hv3")

    def test_mixed_fabrics(self):
        self.start_hosts()
        self.assert_result(self.checks.check_fabrics(), Code.SUCCESS)
        self.start_host("hv3", thumbprint=WEST)
        west = self.create_fabric("west", "hv3")
        self.assert_result(self.checks.check_fabrics(), Code.SUCCESS)
        self.start_host("hv4", thumbprint=EAST)
        self.api.add_host_to_aggregate(west, "hv4")
        self.assert_result(self.checks.check_fabrics(), Code.FAILURE, "hgs_fabric=west",
                           EAST[:16], WEST[:16])
        code, out = self.run_command("upgrade", "check")
        self.assertEqual(2, code, out)
        (service,) = self.api.get_services(host="hv4", binary="nova-compute")
        for change in ({"forced_down": True}, {"forced_down": False, "status": "disabled"}):
            self.api.put_service(service["id"], change)
            self.assert_result(self.checks.check_fabrics(), Code.SUCCESS)

    def test_options(self):
        self.assert_result(self.checks.check_options(), Code.SUCCESS)
        path = self.useFixture(fixtures.TempDir()).join("nova.conf")
        with open(path, "w") as file:
            file.write("[vtpm_scheduling]\nrequire_guarded_trait = true\nrequire_fabric = true\n"
                       "[vtpm_compute]\nfabric_guardian = East\nguardian = East\n")
        self.useFixture(fixtures.MonkeyPatch("oslo_config.cfg.ConfigOpts.config_file", [path]))
        self.assert_result(self.checks.check_options(), Code.WARNING,
                           "require_fabric in [vtpm_scheduling]", "guardian in [vtpm_compute]")
        self.assertNotIn("require_guarded_trait", self.checks.check_options().details)

    def test_records_that_cannot_be_read(self):
        self.useFixture(fixtures.MonkeyPatch(
            "nova.objects.CellMappingList.get_all", self.fail_as_a_database))
        code, out = self.run_command("upgrade", "check")
        self.assertEqual(255, code)
        self.assertIn("Error: Nova's database cannot be read (DBConnectionError).", out)

    def test_a_configuration_that_cannot_be_used(self):
        self.flags(connection=None, group="api_database")
        code, out = self.run_command("upgrade", "check")
        self.assertEqual(255, code)
        self.assertIn("Error: nova.conf has no [api_database] connection", out)

    def fail_as_a_database(self, *_):
        from oslo_db import exception
        raise exception.DBConnectionError("mysql://nova:hunter2@db")


class InventoryTest(RecordsTestCase):

    def marked(self, server, fabric=EAST):
        self.system_metadata(server, hyperv_vtpm="vtpm", hyperv_vtpm_fabric=fabric)

    def rows(self, code=0):
        actual, out = self.run_command("inventory", "--format", "json")
        self.assertEqual(code, actual, out)
        return {row["id"]: row for row in json.loads(out)}

    def test_servers(self):
        self.start_hosts()
        self.assertEqual({}, self.rows())
        first = self.boot(self.create_image(os_vtpm="required", **GEN2))
        self.boot(self.create_image(2, **GEN2))
        # A mark is what counts, not what the image asks for.
        self.assertEqual({}, self.rows())
        self.marked(first)
        (row,) = self.rows().values()
        self.assertEqual((first["id"], "hv1", "vtpm", EAST, ["east"], ""), (
            row["id"], row["host"], row["kind"], row["fabric_thumbprint"], row["fabric_labels"],
            row["problem"]))
        code, out = self.run_command("inventory")
        self.assertEqual(0, code)
        self.assertIn("1 server with a vTPM.", out)
        self._delete_server(first)
        self.assertEqual({}, self.rows())

    def test_one_that_is_deleted_later(self):
        """Its owner can take it back until then."""
        self.flags(reclaim_instance_interval=3600)
        self.start_hosts()
        server = self.boot(self.create_image(os_vtpm="required", **GEN2))
        self.marked(server)
        self.api.delete_server(server["id"])
        self._wait_for_state_change(server, "SOFT_DELETED")
        self.assertEqual({server["id"]: "soft-delete"}, {
            name: row["status"] for name, row in self.rows().items()})

    def test_one_that_is_not_where_it_belongs(self):
        self.start_hosts()
        server = self.boot(self.create_image(os_vtpm="required", **GEN2))
        self.marked(server, WEST)
        self.assertIn("guardian is another one", self.rows(1)[server["id"]]["problem"])
        self.marked(server, "")
        self.assertEqual("", self.rows()[server["id"]]["problem"])
        nova_base.ReportingFakeDriver.REPORTS["hv1"] = None
        self._run_periodics()
        self.assertIn("no vTPM support", self.rows(1)[server["id"]]["problem"])

    def test_pages(self):
        self.useFixture(fixtures.MonkeyPatch("vtpm_compute.cmd.nova_records._PAGE", 2))
        self.start_hosts()
        image = self.create_image(os_vtpm="required", **GEN2)
        servers = [self.boot(image) for _ in range(5)]
        for server in servers:
            self.marked(server)
        self.assertEqual({server["id"] for server in servers}, set(self.rows()))

    def test_one_without_a_host(self):
        row = nova_records.MarkedServer("id", "name", "project", "", "shelved", "vtpm", EAST)
        self.assertIn("its TPM is gone", inventory.judge([row], [])[0].problem)


class ReportsTest(RecordsTestCase):

    def test_compute_nodes_and_fabrics(self):
        self.start_hosts()
        self.start_host("hv3", thumbprint=WEST)
        nodes = nova_records.compute_nodes()
        self.assertEqual(["hv1", "hv2", "hv3"], [one.host for one in nodes])
        self.assertEqual([True, False, True], [one.report.guarded for one in nodes])
        self.assertEqual({EAST: "east", WEST: "host hv3"}, nova_records.fabrics(nodes))
        self.assertEqual({"east": ("east", 2)}, nova_records.aggregates())

    def test_a_server(self):
        self.start_hosts()
        server = self.boot(self.create_image(os_vtpm="required", **GEN2))
        self.assertFalse(nova_records.server(server["id"]).has_vtpm)
        self.system_metadata(server, hyperv_vtpm="vtpm", hyperv_vtpm_fabric=EAST)
        found = nova_records.server(server["id"])
        self.assertEqual((True, EAST, "required"), (
            found.has_vtpm, found.fabric_thumbprint, found.image_properties["os_vtpm"]))
