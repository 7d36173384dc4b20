"""The pre-filter in a real scheduler: what placement is asked for, and what users read."""

# Patches nova first.
from tests.functional import nova_base  # isort: skip

import importlib
import pathlib
import sys

import fixtures
import placement
import sqlalchemy
from nova.scheduler import request_filter
from nova.scheduler.client import report

import vtpm_scheduling
from vtpm_scheduling import placement_filter

GEN2 = {"hw_machine_type": "hyperv-gen2"}
TRAIT = "CUSTOM_HYPERV_GUARDED_HOST"
PACKAGE, PLACEMENT = (
    str(pathlib.Path(module.__file__).parent) for module in (vtpm_scheduling, placement))


class PlacementFilterCase(nova_base.NovaTestCase):

    def setUp(self):
        super().setUp()
        self.image = self.create_image(os_vtpm="required", **GEN2)

    def candidates(self, log):
        """The questions for allocation candidates that are in a log."""
        return [line for line in log.splitlines() if "/allocation_candidates?" in line]

    def boot_and_log(self, expected="ACTIVE", **kwargs):
        """Boot with a vTPM; returns the server, and the log of it."""
        start = len(self.stdlog.logger.output)
        server = self.boot(kwargs.pop("image", self.image), expected=expected, **kwargs)
        return server, self.stdlog.logger.output[start:]


class RequiredTraitTest(PlacementFilterCase):

    def test_placement_gives_guarded_hosts_only(self):
        for name in ("a-unguarded", "b-good", "c-unguarded", "d-no-driver"):
            self.start_host(name, guarded="good" in name,
                            thumbprint=None if name == "d-no-driver" else "ab" * 32)
        self.create_fabric("one", "a-unguarded", "b-good", "c-unguarded")
        server, log = self.boot_and_log()
        self.assertEqual("b-good", self.host_of(server))
        self.assertIn("1 of 1 hosts fit", log)
        (question,) = self.candidates(log)
        self.assertIn(TRAIT, question)

    def test_placements_limit_hides_no_guarded_host(self):
        self.flags(max_placement_results=1, group="scheduler")
        for number in range(6):
            self.start_host("host%d" % number, guarded=number == 4)
        self.create_fabric("one", "host4")
        for _ in range(3):
            self.assertEqual("host4", self.host_of(self.boot_and_log()[0]))

    def test_nothing_asked(self):
        self.start_host("unguarded", guarded=False)
        server, log = self.boot_and_log(image=self.create_image(2))
        self.assertEqual("unguarded", self.host_of(server))
        self.assertNotIn(TRAIT, log)

    def test_switched_off_the_filter_is_the_only_check(self):
        self.flags(require_guarded_trait=False, group="vtpm_scheduling")
        for name in ("a-unguarded", "b-good"):
            self.start_host(name, guarded="good" in name)
        self.create_fabric("one", "a-unguarded", "b-good")
        server, log = self.boot_and_log()
        self.assertEqual("b-good", self.host_of(server))
        self.assertIn("1 of 2 hosts fit, not_guarded (not authorised): 1", log)
        self.assertNotIn(TRAIT, log)

    def test_what_no_host_could_satisfy_is_refused_before_placement_is_asked(self):
        self.start_host("good")
        self.create_fabric("one", "good")
        server, log = self.boot_and_log("ERROR", image=self.create_image(
            2, os_vtpm="required", hw_machine_type="hyperv-gen1"))
        self.assertIn("hw_machine_type is hyperv-gen1", server["fault"]["message"])
        self.assertEqual([], self.candidates(log))
        # Said once, by the first that asks.
        self.assertEqual(1, log.count("is refused (not_generation_2)"))

    def test_a_zone_without_guarded_hosts(self):
        for name in ("a-unguarded", "b-good"):
            self.start_host(name, guarded="good" in name)
        self.create_fabric("one", "a-unguarded", "b-good")
        for name in ("a-unguarded", "b-good"):
            zone = self.api.post_aggregate(
                {"aggregate": {"name": "zone-" + name, "availability_zone": "zone-" + name}})
            self.api.add_host_to_aggregate(zone["id"], name)
        server, _ = self.boot_and_log("ERROR", zone="zone-a-unguarded")
        self.assertIn("hosts are not guarded at present", server["fault"]["message"])
        server, log = self.boot_and_log(zone="zone-b-good")
        self.assertEqual("b-good", self.host_of(server))
        self.assertIn(TRAIT, self.candidates(log)[0])

    def test_a_guarded_host_that_is_disabled(self):
        for name in ("a-unguarded", "b-good"):
            self.start_host(name, guarded="good" in name)
        self.create_fabric("one", "a-unguarded", "b-good")
        (service,) = self.api.get_services(host="b-good", binary="nova-compute")
        self.api.put_service(service["id"], {"status": "disabled"})
        server, _ = self.boot_and_log("ERROR")
        self.assertIn("hosts are not guarded at present", server["fault"]["message"])

    def test_a_host_that_is_asked_for(self):
        for name in ("a-unguarded", "b-good"):
            self.start_host(name, guarded="good" in name)
        self.create_fabric("one", "a-unguarded", "b-good")
        for parameter in ("host", "hypervisor_hostname"):
            for host, status in (("a-unguarded", "ERROR"), ("b-good", "ACTIVE")):
                body = self._build_server(image_uuid=self.image, networks="none")
                body[parameter] = host
                server = self._wait_for_state_change(
                    self.api.post_server({"server": body}), status)
                if status == "ERROR":
                    self.assertIn("hosts are not guarded at present", server["fault"]["message"])
                else:
                    self.assertEqual(host, self.host_of(server))

    def test_isolated_aggregates(self):
        self.flags(enable_isolated_aggregate_filtering=True, group="scheduler")
        for name in ("a-unguarded", "b-good"):
            self.start_host(name, guarded="good" in name)
        self.create_fabric("one", "a-unguarded")
        isolated = self.create_fabric("two", "b-good")
        self.api.post_aggregate_action(isolated, {"set_metadata": {"metadata": {
            "trait:" + TRAIT: "required"}}})
        server, _ = self.boot_and_log("ERROR")
        self.assertIn("hosts are not guarded at present", server["fault"]["message"])
        flavor = self._create_flavor(extra_spec={"trait:" + TRAIT: "required"})
        server, _ = self.boot_and_log(flavor=flavor)
        self.assertEqual("b-good", self.host_of(server))

    def test_placement_away(self):
        self.start_host("good")
        self.create_fabric("one", "good")
        asked = self.placement_away("secret address")
        server, log = self.boot_and_log("ERROR")
        self.assertEqual(1, len(asked))
        self.assertIn("could not be read", server["fault"]["message"])
        self.assertNotIn("secret address", server["fault"]["message"])
        self.assertIn("secret address", log)

    def test_placement_does_not_understand_the_question(self):
        self.start_host("good")
        self.create_fabric("one", "good")
        ask = report.SchedulerReportClient.get

        def refuse(client, url, *args, **kwargs):
            wrong = "&member_of=on:nothing" if TRAIT in url else ""
            return ask(client, url + wrong, *args, **kwargs)

        self.useFixture(fixtures.MonkeyPatch(
            "nova.scheduler.client.report.SchedulerReportClient.get", refuse))
        server, log = self.boot_and_log("ERROR")
        self.assertIn("could not be read", server["fault"]["message"])
        self.assertIn("PlacementError: 400", log)

    def test_registered_once(self):
        def registered():
            return [found for found in request_filter.ALL_REQUEST_FILTERS
                    if found.__module__ == placement_filter.__name__]
        self.assertEqual(1, len(registered()))
        placement_filter.register()
        self.assertEqual(1, len(registered()))
        self.addCleanup(request_filter.ALL_REQUEST_FILTERS.__setitem__, slice(None),
                        list(request_filter.ALL_REQUEST_FILTERS))
        request_filter.ALL_REQUEST_FILTERS.remove(registered()[0])
        importlib.reload(sys.modules["vtpm_scheduling.guarded_host_filter"])
        self.assertEqual(1, len(registered()))
        importlib.reload(sys.modules["vtpm_scheduling.guarded_host_filter"])
        self.assertEqual(1, len(registered()))


class ForcedHostTest(PlacementFilterCase):
    """``--availability-zone zone:host``: no host filter is asked."""

    def setUp(self):
        super().setUp()
        for name in ("good", "unguarded", "no-driver", "no-fabric", "old"):
            self.start_host(name, guarded=name != "unguarded",
                            thumbprint=None if name == "no-driver" else "ab" * 32,
                            version=6003 if name == "old" else 10000)
        self.create_fabric("one", "good", "unguarded", "no-driver", "old")

    def assert_held(self):
        for host, words in (("unguarded", "hosts are not guarded at present (not authorised)"),
                            ("no-driver", "hosts do not offer vTPMs"),
                            ("no-fabric", "hosts belong to no fabric"),
                            ("old", "hosts run a Hyper-V older than 10.0")):
            server, log = self.boot_and_log("ERROR", zone="nova:" + host)
            self.assertIn(words, server["fault"]["message"])
            self.assertEqual([], self.candidates(log))
            self.assertIn("is forced to host %s" % host, log)
        server, _ = self.boot_and_log(zone="nova:good")
        self.assertEqual("good", self.host_of(server))

    def test_held(self):
        self.assert_held()

    def test_held_without_the_trait(self):
        self.flags(require_guarded_trait=False, group="vtpm_scheduling")
        self.assert_held()

    def test_a_server_without_a_vtpm_goes_where_it_is_forced(self):
        server, _ = self.boot_and_log(zone="nova:unguarded", image=self.create_image(2))
        self.assertEqual("unguarded", self.host_of(server))

    def test_a_host_that_does_not_exist(self):
        server, _ = self.boot_and_log("ERROR", zone="nova:nowhere")
        self.assertIn("There is no host nowhere.", server["fault"]["message"])

    def test_a_node_alone(self):
        server, _ = self.boot_and_log("ERROR", zone="nova::unguarded")
        self.assertIn("name the host", server["fault"]["message"])


class QueriesTest(PlacementFilterCase):
    """How often the databases are asked, whatever the number of hosts."""

    def setUp(self):
        super().setUp()
        self.queries = []
        sqlalchemy.event.listen(
            sqlalchemy.engine.Engine, "before_cursor_execute", self.note_query)
        self.addCleanup(sqlalchemy.event.remove, sqlalchemy.engine.Engine,
                        "before_cursor_execute", self.note_query)
        self.hosts = {}
        self.start(range(4))
        self.fabric = self.create_fabric("one", *self.hosts)

    def start(self, numbers):
        for name in ("host%d" % number for number in numbers):
            self.hosts[name] = self.start_host(name)

    def note_query(self, _connection, _cursor, statement, *_):
        """Those that this package makes: it is the first that the stack leads back to."""
        frame = sys._getframe()
        while frame is not None and not frame.f_code.co_filename.startswith(
                (PACKAGE, PLACEMENT)):
            frame = frame.f_back
        # Placement runs in this process too. oslo.db begins SQLite's transactions itself, and looks
        # with SELECT 1 whether a connection lives.
        if frame is not None and frame.f_code.co_filename.startswith(PACKAGE) \
                and statement not in ("BEGIN", "SELECT 1"):
            self.queries.append(statement)

    def assert_asked(self, count):
        queries, self.queries = self.queries, []
        self.assertEqual(count, len(queries), "\n".join(queries))

    def test_boots(self):
        self.boot_and_log()
        self.assert_asked(2)
        self.boot_and_log(image=self.create_image(2))
        self.assert_asked(2)
        self.start(range(4, 9))
        for name in list(self.hosts)[4:]:
            self.api.add_host_to_aggregate(self.fabric, name)
        _, log = self.boot_and_log()
        self.assertIn("9 of 9 hosts fit", log)
        self.assert_asked(2)

    def test_a_boot_that_is_forced_to_a_host(self):
        """Its aggregates, its cell and what it reported last are looked up too."""
        self.boot_and_log(zone="nova:host1")
        self.assert_asked(5)

    def test_evacuations_and_rebuilds(self):
        server = self.boot(self.image)
        self.queries.clear()
        self._rebuild_server(server, self.create_image(2, os_vtpm="required", **GEN2))
        self.assert_asked(2)
        host = self.host_of(server)
        self.hosts[host].stop()
        (service,) = self.api.get_services(host=host, binary="nova-compute")
        self.api.put_service(service["id"], {"forced_down": True})
        self.api.post_server_action(server["id"], {"evacuate": {}})
        self._wait_for_migration_status(server, ["done"])
        self.assert_asked(3)

    def test_several_at_once(self):
        body = self._build_server(image_uuid=self.image, networks="none")
        body.update(min_count=3, return_reservation_id=True)
        reservation = self.api.post_server({"server": body})["reservation_id"]
        for server in self.api.get_servers(search_opts={"reservation_id": reservation}):
            self._wait_for_state_change(server, "ACTIVE")
        self.assert_asked(2)

    def test_moves(self):
        server = self.boot(self.image)
        plain = self.boot(self.create_image(2))
        self.queries.clear()
        self._live_migrate(plain)
        self.assert_asked(2)
        # By its host: it has no mark.
        self._live_migrate(server)
        self.assert_asked(3)
        self._migrate_server(server)
        self.assert_asked(3)
        self._confirm_resize(server)
        self._shelve_server(server)
        self._unshelve_server(server)
        self.assert_asked(3)
        self.system_metadata(server, hyperv_vtpm="vtpm", hyperv_vtpm_fabric="ab" * 32)
        self._live_migrate(server)
        self.assert_asked(2)
        self._resize_server(server, self._create_flavor(memory_mb=1024))
        self.assert_asked(2)

    def test_moves_asked_by_the_flavor_alone(self):
        flavor = self._create_flavor(extra_spec={"os:vtpm": "required"})
        server = self.boot(self.create_image(2, **GEN2), flavor=flavor)
        self.queries.clear()
        self._live_migrate(server)
        self.assert_asked(3)
        other = self._create_flavor(memory_mb=1024, extra_spec={"os:vtpm": "required"})
        self._confirm_resize(self._resize_server(server, other))
        self.assert_asked(3)
        self._shelve_server(server)
        self._unshelve_server(server)
        self.assert_asked(3)

    def test_a_resize_that_may_stay_on_its_host(self):
        self.flags(allow_resize_to_same_host=True)
        by_image = self.boot(self.image)
        by_flavor = self.boot(self.create_image(2, **GEN2), flavor=self._create_flavor(
            extra_spec={"os:vtpm": "required"}))
        self.queries.clear()
        self._resize_server(by_image, self._create_flavor(memory_mb=1024))
        self.assert_asked(3)
        self._resize_server(by_flavor, self._create_flavor(
            memory_mb=1024, extra_spec={"os:vtpm": "required"}))
        self.assert_asked(3)
