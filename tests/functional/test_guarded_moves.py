"""Every operation that moves a server with a vTPM: inside its fabric, or refused with a reason.

The hosts: a1, where the server runs, and a2, in fabric one; b1, in fabric two; u1, in fabric one
but not guarded.
"""

# Patches nova first.
from tests.functional import nova_base  # isort: skip

import dataclasses
import time
import types
from unittest import mock

import fixtures
import oslo_db.exception
from nova import exception
from nova.tests import fixtures as nova_fixtures

from vtpm_scheduling import instance_facts

GEN2 = {"hw_machine_type": "hyperv-gen2"}
ONE, TWO = "ab" * 32, "cd" * 32
# What the user reads, and what the totals in the scheduler's log say.
NOT_GUARDED = ("hosts are not guarded at present (not authorised)",
               "not_guarded (not authorised): ")
OTHER_FABRIC = ("hosts belong to another fabric than the server", "other_fabric: ")
GENERATION_1 = ("needs a Generation 2 VM", "is refused (not_generation_2)")
NOT_READ = "could not be read"


class GuardedMovesCase(nova_base.NovaTestCase):

    # Whether the server carries the mark that the driver gives it; without it, its fabric is that
    # of the host where it runs.
    marked = True

    def start(self, *names):
        for name in names:
            label, thumbprint = ("two", TWO) if name.startswith("b") else ("one", ONE)
            self.hosts[name] = self.start_host(
                name, guarded=not name.startswith("u"), thumbprint=thumbprint)
            if label not in self.aggregates:
                self.aggregates[label] = self.create_fabric(label)
            self.api.add_host_to_aggregate(self.aggregates[label], name)

    def setUp(self):
        super().setUp()
        self.hosts, self.aggregates = {}, {}
        self.start("a1")

    def boot_with_vtpm(self):
        server = self.boot(self.create_image(os_vtpm="required", **GEN2))
        if self.marked:
            # A refused rebuild leaves such properties behind: the mark counts.
            self.system_metadata(server, hyperv_vtpm="vtpm", hyperv_vtpm_fabric=ONE,
                                 image_os_vtpm="maybe")
        return server

    def act(self, server, action, body):
        """Do it, wait until it ended; returns whether it went well, and the texts of its events."""
        before, events = len(self.api.get_instance_actions(server["id"])), []
        self.api.post_server_action(server["id"], body)
        for _ in range(200):
            actions = self.api.get_instance_actions(server["id"])
            shown = self.api.get_server(server["id"])
            if len(actions) > before and shown["OS-EXT-STS:task_state"] is None:
                self.assertEqual(action, actions[0]["action"])
                events = self.api.get_instance_action_details(
                    server["id"], actions[0]["request_id"])["events"]
                if events and all(event["result"] for event in events):
                    return (all(event["result"] == "Success" for event in events),
                            [event.get("details") or "" for event in events])
            time.sleep(0.2)
        self.fail("%s did not end: %s, %s" % (action, shown["status"], events))

    def used_hosts(self, server):
        """Where placement holds resources, for the server or for anything else."""
        used = set()
        for provider in self._get_all_providers():
            if any(self._get_provider_usages(provider["uuid"]).values()):
                used.add(provider["name"])
        allocations = self._get_allocations_by_server_uuid(server["id"])
        names = {provider["uuid"]: provider["name"] for provider in self._get_all_providers()}
        self.assertEqual(used, {names[uuid] for uuid in allocations})
        return used

    def assert_refused(self, server, action, body, kind, status="ACTIVE", in_event=True,
                       host="a1", used=("a1",)):
        """The operation is refused for this kind of reason, and nothing is left of it.

        :param in_event: whether Nova hands the reason on; where it drops it, the log has it.
        """
        words, total = kind
        log = len(self.stdlog.logger.output)
        done, details = self.act(server, action, body)
        self.assertFalse(done, details)
        shown = self.api.get_server(server["id"])
        self.assertEqual((status, host), (shown["status"], self.host_of(shown)))
        self.assertEqual(set(used), self.used_hosts(server))
        self.assertEqual(in_event, any(words in text for text in details), details)
        if status == "ERROR":
            self.assertIn(words, shown["fault"]["message"])
        else:
            self.assertNotIn("fault", shown)
        self.assertIn(total, self.stdlog.logger.output[log:])

    def assert_done(self, server, action, body, *statuses):
        """The operation brings the server to a2."""
        done, details = self.act(server, action, body)
        self.assertTrue(done, details)
        shown = self.api.get_server(server["id"])
        self.assertIn(shown["status"], statuses or ["ACTIVE"])
        self.assertEqual("a2", self.host_of(shown))


class MarkedMovesTest(GuardedMovesCase):
    """A server that carries its fabric's mark."""

    def check(self, action, body, finish=None, prepare=None, **refused):
        """Refused while only other hosts are there, done inside the fabric.

        :param body: the action's body, or a function that makes it of the host to go to.
        """
        server = self.boot_with_vtpm()
        if prepare:
            prepare(server)
        make = body if callable(body) else lambda host: body
        self.start("u1")
        self.assert_refused(server, action, make("u1"), NOT_GUARDED, **refused)
        self.start("b1")
        self.assert_refused(server, action, make("b1"), OTHER_FABRIC, **refused)
        if callable(body):
            # There is a guarded host now, but it is not the one that was named.
            self.assert_refused(server, action, make("u1"), NOT_GUARDED, **refused)
        self.start("a2")
        if finish:
            finish(server, make("a2"))
        else:
            self.assert_done(server, action, make("a2"))

    def finish_resize(self, server, body):
        (action,) = body
        self.assert_done(server, action, body, "VERIFY_RESIZE")
        self.assertEqual("a2", self.host_of(self._confirm_resize(server)))
        self.assertEqual({"a2"}, self.used_hosts(server))

    def test_cold_migration(self):
        self.check("migrate", {"migrate": None}, self.finish_resize, in_event=False)

    def test_cold_migration_to_a_named_host(self):
        self.check("migrate", lambda host: {"migrate": {"host": host}}, self.finish_resize,
                   in_event=False)

    def test_resize(self):
        flavor = self._create_flavor(memory_mb=1024)
        self.check("resize", {"resize": {"flavorRef": flavor}}, self.finish_resize,
                   in_event=False)

    def test_live_migration(self):
        self.check("live-migration",
                   {"os-migrateLive": {"host": None, "block_migration": "auto"}})

    def test_live_migration_to_a_named_host(self):
        self.check("live-migration",
                   lambda host: {"os-migrateLive": {"host": host, "block_migration": "auto"}})

    def finish_evacuation(self, server, body):
        # By the version of Nova, and by whether an earlier one was refused.
        self.assert_done(server, "evacuate", body, "SHUTOFF", "ACTIVE")

    def source_fails(self, server):
        self.hosts["a1"].stop()
        (service,) = self.api.get_services(host="a1", binary="nova-compute")
        self.api.put_service(service["id"], {"forced_down": True})

    def test_evacuation(self):
        self.check("evacuate", {"evacuate": {}}, self.finish_evacuation, self.source_fails,
                   status="ERROR")

    def test_evacuation_to_a_named_host(self):
        self.check("evacuate", lambda host: {"evacuate": {"host": host}},
                   self.finish_evacuation, self.source_fails, status="ERROR")

    def offload(self, server):
        self._shelve_server(server)
        # It could come back to where it was.
        (service,) = self.api.get_services(host="a1", binary="nova-compute")
        self.api.put_service(service["id"], {"status": "disabled"})

    def test_unshelving(self):
        self.check("unshelve", {"unshelve": None}, prepare=self.offload,
                   status="SHELVED_OFFLOADED", host=None, used=())

    def test_unshelving_to_a_named_host(self):
        self.check("unshelve", lambda host: {"unshelve": {"host": host}}, prepare=self.offload,
                   status="SHELVED_OFFLOADED", host=None, used=())

    def test_unshelving_to_a_zone(self):
        for name in ("a2", "b1", "u1"):
            self.zone_of(name)
        self.check("unshelve",
                   lambda host: {"unshelve": {"availability_zone": "zone-" + host}},
                   prepare=self.offload, status="SHELVED_OFFLOADED", host=None, used=())

    def zone_of(self, host):
        """Give a host that is started later a zone of its own."""
        start = self.start

        def start_in_zone(*names):
            start(*names)
            if host in names:
                zone = self.api.post_aggregate({"aggregate": {
                    "name": "zone-" + host, "availability_zone": "zone-" + host}})
                self.api.add_host_to_aggregate(zone["id"], host)
        self.start = start_in_zone


class UnmarkedMovesTest(MarkedMovesTest):
    """One without, as compute-hyperv makes it from a provisioning data file."""

    marked = False

    def test_resize_that_may_stay_on_its_host(self):
        self.flags(allow_resize_to_same_host=True)
        server = self.boot_with_vtpm()
        self.start("b1")
        flavor = self._create_flavor(memory_mb=1024)
        done, details = self.act(server, "resize", {"resize": {"flavorRef": flavor}})
        self.assertTrue(done, details)
        self.assertEqual("a1", self.host_of(self._confirm_resize(server)))

    def test_a_host_in_no_fabric(self):
        server = self.boot_with_vtpm()
        self.start("a2")
        self.api.post_aggregate_action(
            self.aggregates["one"], {"remove_host": {"host": "a1"}})
        migration = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
        self.assert_refused(server, "live-migration", migration, OTHER_FABRIC)
        self.assertIn("runs on host a1, which is in 0 fabrics", self.stdlog.logger.output)

    def test_a_cloud_without_aggregates(self):
        self.flags(require_fabric_aggregate=False, group="vtpm_scheduling")
        server = self.boot_with_vtpm()
        self.start("a2", "b1")
        for label, host in (("one", "a1"), ("one", "a2"), ("two", "b1")):
            self.api.post_aggregate_action(
                self.aggregates[label], {"remove_host": {"host": host}})

        def migration(host):
            return {"os-migrateLive": {"host": host, "block_migration": "auto"}}

        self.assert_refused(server, "live-migration", migration("b1"), OTHER_FABRIC)
        self.assert_done(server, "live-migration", migration(None))

    def test_a_fabric_that_mixes_guardians(self):
        """A request that names a host sees no other: nothing that it could be compared with."""
        server = self.boot_with_vtpm()
        self.start("b1")
        self.api.post_aggregate_action(self.aggregates["two"], {"remove_host": {"host": "b1"}})
        self.api.add_host_to_aggregate(self.aggregates["one"], "b1")
        self.assert_refused(server, "live-migration", {
            "os-migrateLive": {"host": "b1", "block_migration": "auto"}}, OTHER_FABRIC)

    def test_a_resize_adds_no_vtpm(self):
        server = self.boot(self.create_image(**GEN2))
        self.start("a2")
        flavor = self._create_flavor(extra_spec={"os:vtpm": "required"})
        done, _ = self.act(server, "resize", {"resize": {"flavorRef": flavor}})
        self.assertFalse(done)
        shown = self.api.get_server(server["id"])
        self.assertEqual(("ACTIVE", "a1"), (shown["status"], self.host_of(shown)))
        self.assertEqual({"a1"}, self.used_hosts(server))
        self.assertIn("a resize does not add one", self.stdlog.logger.output)


class RebuildTest(GuardedMovesCase):
    """The server stays where it is, whatever other hosts there are."""

    def boot(self, *args, **kwargs):
        server = super().boot(*args, **kwargs)
        self.start("a2", "b1", "u1")
        return server

    def assert_rebuilt(self, server, image):
        done, details = self.act(server, "rebuild", {"rebuild": {"imageRef": image}})
        self.assertTrue(done, details)
        shown = self._wait_for_state_change(server, "ACTIVE")
        self.assertEqual(("a1", image), (self.host_of(shown), shown["image"]["id"]))

    def test_same_image(self):
        server = self.boot_with_vtpm()
        self.assert_rebuilt(server, server["image"]["id"])

    def test_another_image(self):
        self.assert_rebuilt(self.boot_with_vtpm(),
                            self.create_image(2, os_vtpm="required", **GEN2))

    def test_another_image_on_a_host_that_is_no_longer_guarded(self):
        server = self.boot_with_vtpm()
        self.reports_unguarded("a1")
        other = self.create_image(2, os_vtpm="required", **GEN2)
        self.assert_refused(server, "rebuild", {"rebuild": {"imageRef": other}}, NOT_GUARDED,
                            status="ERROR")

    def test_another_image_that_contradicts(self):
        server = self.boot_with_vtpm()
        other = self.create_image(2, os_vtpm="required", hw_machine_type="hyperv-gen1")
        self.assert_refused(server, "rebuild", {"rebuild": {"imageRef": other}},
                            GENERATION_1, status="ERROR")

    def test_a_server_without_a_vtpm_gets_one_only_on_a_host_that_fits(self):
        server = self.boot(self.create_image())
        # As the driver notes it. The image's properties, which tell what a server without that note
        # asks for, are those of the other image from now on.
        self.system_metadata(server, hyperv_built_from=server["image"]["id"])
        self.reports_unguarded("a1")
        self.assert_refused(
            server, "rebuild",
            {"rebuild": {"imageRef": self.create_image(2, os_vtpm="required", **GEN2)}},
            NOT_GUARDED, status="ERROR")
        self.assertEqual("required", self.system_metadata(server)["image_os_vtpm"])
        self.api.post_server_action(server["id"], {"os-resetState": {"state": "active"}})
        flavor = self._create_flavor(extra_spec={"os:vtpm": "required"})
        done, details = self.act(server, "live-migration", {
            "os-migrateLive": {"host": "u1", "block_migration": "auto"}})
        self.assertTrue(done, details)
        self.assertEqual("u1", self.host_of(self.api.get_server(server["id"])))
        done, _ = self.act(server, "resize", {"resize": {"flavorRef": flavor}})
        self.assertFalse(done)
        self.assertIn("a resize does not add one", self.stdlog.logger.output)

    def test_a_server_without_hyper_v(self):
        """That it has no vTPM is told by its host: nobody notes of it what it was built from."""
        for host in ("k1", "k2"):
            self.start_host(host, thumbprint=None, hypervisor="QEMU")
        server = self.boot(self.create_image(), zone="nova:k1")
        self.assert_refused(
            server, "rebuild",
            {"rebuild": {"imageRef": self.create_image(2, os_vtpm="required")}},
            GENERATION_1, status="ERROR", host="k1", used=["k1"])
        self.assertEqual("required", self.system_metadata(server)["image_os_vtpm"])
        self.api.post_server_action(server["id"], {"os-resetState": {"state": "active"}})
        flavor = self._create_flavor(extra_spec={"os:vtpm": "required"})
        done, _ = self.act(server, "resize", {"resize": {"flavorRef": flavor}})
        self.assertFalse(done)
        self.assertIn("a resize does not add one", self.stdlog.logger.output)
        done, details = self.act(server, "live-migration", {
            "os-migrateLive": {"host": "k2", "block_migration": "auto"}})
        self.assertTrue(done, details)
        self.assertEqual("k2", self.host_of(self.api.get_server(server["id"])))

    def reports_unguarded(self, host):
        reports = nova_base.ReportingFakeDriver.REPORTS
        reports[host] = dataclasses.replace(
            reports[host], guarded=False, attestation_status=301)
        self._run_periodics()


class VolumeTest(GuardedMovesCase):
    """Servers that boot from a volume."""

    VOLUME = "6ca404f3-d844-4169-bb96-bc792f37de%02d"

    def setUp(self):
        super().setUp()
        if not hasattr(nova_fixtures.CinderFixture, "fake_get"):
            self.skipTest("the Cinder of this Nova's fixtures makes no volumes")

    def boot_from(self, mapping, expected):
        server = self._build_server(
            image_uuid="", flavor_id=self.PLAIN_FLAVOR, networks="none")
        server["block_device_mapping_v2"] = [
            dict(mapping, destination_type="volume", boot_index=0, delete_on_termination=True)]
        server = self.api.post_server({"server": server})
        return self._wait_for_state_change(server, expected)

    def test_from_an_image(self):
        mapping = {"source_type": "image", "volume_size": 1,
                   "uuid": self.create_image(os_vtpm="required", **GEN2)}
        self.assertEqual("a1", self.host_of(self.boot_from(mapping, "ACTIVE")))
        self.stop("a1")
        self.start("u1")
        self.assertIn(NOT_GUARDED[0], self.boot_from(mapping, "ERROR")["fault"]["message"])
        self.start("b1")
        self.assertEqual("b1", self.host_of(self.boot_from(mapping, "ACTIVE")))

    def test_it_stays_in_its_fabric(self):
        server = self.boot_from({
            "source_type": "image", "volume_size": 1,
            "uuid": self.create_image(os_vtpm="required", **GEN2)}, "ACTIVE")
        self.system_metadata(server, hyperv_vtpm="vtpm", hyperv_vtpm_fabric=ONE)
        self.start("u1", "b1")
        migration = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
        self.assert_refused(server, "live-migration", migration, OTHER_FABRIC)
        other = self.create_image(2, os_vtpm="required", hw_machine_type="hyperv-gen1")
        self.assert_refused(server, "rebuild", {"rebuild": {"imageRef": other}}, GENERATION_1,
                            status="ERROR")
        self.api.post_server_action(server["id"], {"os-resetState": {"state": "active"}})
        self.start("a2")
        self.assert_done(server, "live-migration", migration)

    def test_an_existing_volume(self):
        cinder = self.useFixture(nova_fixtures.CinderFixture(self))
        ask = {"os_vtpm": "required", **GEN2}

        def get(_api, context, volume_id, microversion=None):
            volume = cinder.fake_get(context, volume_id, microversion)
            volume.update(bootable=True, volume_image_metadata=dict(ask))
            return volume

        self.useFixture(fixtures.MonkeyPatch("nova.volume.cinder.API.get", get))

        def mapping(number):
            return {"source_type": "volume", "uuid": self.VOLUME % number}

        self.assertEqual("a1", self.host_of(self.boot_from(mapping(1), "ACTIVE")))
        self.stop("a1")
        self.start("u1")
        self.assertIn(NOT_GUARDED[0],
                      self.boot_from(mapping(2), "ERROR")["fault"]["message"])
        ask["os_vtpm"] = "maybe"
        self.assertIn("os_vtpm=maybe", self.boot_from(mapping(3), "ERROR")["fault"]["message"])

    def stop(self, host):
        (service,) = self.api.get_services(host=host, binary="nova-compute")
        self.api.put_service(service["id"], {"status": "disabled"})


class RecordsAwayTest(GuardedMovesCase):
    """What the scheduler cannot read is a refusal, on every move."""

    marked = False
    words = NOT_READ

    def away(self, **names):
        """Nova's objects as the look-up sees them, some of them away."""
        self.useFixture(fixtures.MonkeyPatch(
            "vtpm_scheduling.instance_facts.objects",
            types.SimpleNamespace(**dict(
                {name: getattr(instance_facts.objects, name)
                 for name in ("InstanceMapping", "BuildRequest", "Instance", "AggregateList")},
                **names))))

    def failing(self, method, error=None):
        return types.SimpleNamespace(**{method: mock.Mock(
            side_effect=error
            or oslo_db.exception.DBConnectionError("secret of the database"))})

    def check_moves(self):
        server = self.boot_with_vtpm()
        self.start("a2")
        return server

    def assert_all_refused(self, server):
        live = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
        self.assert_not_read(server, "live-migration", live)
        self.assert_not_read(server, "migrate", {"migrate": None}, in_event=False)
        flavor = self._create_flavor(memory_mb=1024)
        self.assert_not_read(server, "resize", {"resize": {"flavorRef": flavor}}, in_event=False)
        self._shelve_server(server)
        self.assert_not_read(server, "unshelve", {"unshelve": None})

    def assert_not_read(self, server, action, body, in_event=True):
        before = self.api.get_server(server["id"])
        done, details = self.act(server, action, body)
        self.assertFalse(done)
        self.assertEqual(in_event, any(self.words in text for text in details), details)
        self.assertNotIn("secret of the database", "".join(details))
        shown = self.api.get_server(server["id"])
        self.assertEqual((before["status"], self.host_of(before)),
                         (shown["status"], self.host_of(shown)))

    def test_api_database(self):
        server = self.check_moves()
        self.away(InstanceMapping=self.failing("get_by_instance_uuid"))
        self.assert_all_refused(server)

    def test_aggregates(self):
        server = self.check_moves()
        self.away(AggregateList=self.failing("get_by_host"))
        self.assert_all_refused(server)

    def test_cell_database(self):
        server = self.check_moves()
        self.useFixture(fixtures.MonkeyPatch(
            "vtpm_scheduling.instance_facts.main_db", self.failing("model_query")))
        self.assert_all_refused(server)

    def test_no_record(self):
        """Of a server that is deleted meanwhile."""
        server = self.check_moves()
        self.words = "it is being deleted"
        self.away(InstanceMapping=self.failing(
            "get_by_instance_uuid", exception.InstanceMappingNotFound(uuid=server["id"])))
        self.assert_all_refused(server)

    def test_placement(self):
        server = self.check_moves()
        self.placement_away("secret of the database")
        self.assert_all_refused(server)

    def test_rebuild_with_another_image(self):
        server = self.check_moves()
        self.away(InstanceMapping=self.failing("get_by_instance_uuid"))
        done, details = self.act(server, "rebuild", {"rebuild": {
            "imageRef": self.create_image(2, os_vtpm="required", **GEN2)}})
        self.assertFalse(done, details)
        shown = self.api.get_server(server["id"])
        self.assertEqual(("ERROR", "a1"), (shown["status"], self.host_of(shown)))
        self.assertIn(NOT_READ, shown["fault"]["message"])
        self.assertEqual({"a1"}, self.used_hosts(server))

    def test_evacuation(self):
        server = self.check_moves()
        self.hosts["a1"].stop()
        (service,) = self.api.get_services(host="a1", binary="nova-compute")
        self.api.put_service(service["id"], {"forced_down": True})
        self.away(InstanceMapping=self.failing("get_by_instance_uuid"))
        done, details = self.act(server, "evacuate", {"evacuate": {}})
        self.assertFalse(done)
        shown = self.api.get_server(server["id"])
        self.assertEqual("ERROR", shown["status"])
        self.assertIn(NOT_READ, shown["fault"]["message"])
        self.assertEqual({"a1"}, self.used_hosts(server))
