"""GuardedHostFilter in a real scheduler: where servers go, and what users read when they do not."""

# Patches nova first.
from tests.functional import nova_base  # isort: skip

import types
from unittest import mock

import fixtures
import oslo_db.exception
from nova import exception
from nova.tests.functional.api import client as api_client

from vtpm_scheduling import guarded_host_filter, instance_facts, operator_log, policy

GEN2 = {"hw_machine_type": "hyperv-gen2"}
KEY = "2f6ac6a8-4e14-4e4c-a73d-069cbf4541e6"
OTHER_FABRIC = "cd" * 32


class GuardedHostFilterTest(nova_base.NovaTestCase):

    reads_debug_log = frozenset({"test_a_marked_server_stays_with_its_guardian"})

    def setUp(self):
        super().setUp()
        # One for the process, and so for all tests.
        self.useFixture(fixtures.MockPatchObject(
            guarded_host_filter, "_PROBLEMS", operator_log.Problems()))

    def refused(self, flavor=None, number=9, **properties):
        """The fault of a server that is refused."""
        server = self.boot(self.create_image(number, **properties), flavor, expected="ERROR")
        return server["fault"]["message"]

    def flavor(self, **extra_specs):
        return self._create_flavor(extra_spec={
            key.replace("_", ":", 1): value for key, value in extra_specs.items()})

    def test_only_the_guarded_host_of_a_fabric_fits(self):
        for number, name in enumerate(("a-old", "b-unguarded", "c-no-driver", "d-no-fabric",
                                       "e-good", "f-two-fabrics")):
            self.start_host(name, guarded=name != "b-unguarded",
                            version=6003 if number == 0 else 10000,
                            thumbprint=None if name == "c-no-driver" else "ab" * 32)
        self.create_fabric("one", "a-old", "b-unguarded", "c-no-driver", "e-good",
                           "f-two-fabrics")
        self.create_fabric("two", "f-two-fabrics")
        image = self.create_image(os_vtpm="required", **GEN2)
        for _ in range(4):
            self.assertEqual("e-good", self.host_of(self.boot(image)))

    def test_several_at_once(self):
        for name in ("a-unguarded", "c-no-fabric", "d-two-fabrics"):
            self.start_host(name, guarded="unguarded" not in name)
        one = self.create_fabric("one", "a-unguarded", "d-two-fabrics")
        self.create_fabric("two", "d-two-fabrics")
        for server in self.boot_together(3, "ERROR"):
            self.assertIn("hosts belong to more than one fabric; hosts belong to no fabric",
                          server["fault"]["message"])
        for provider in self._get_all_providers():
            self.assertEqual({0}, set(self._get_provider_usages(provider["uuid"]).values()))
        self.start_host("b-good")
        self.api.add_host_to_aggregate(one, "b-good")
        for server in self.boot_together(4, "ACTIVE"):
            self.assertEqual("b-good", self.host_of(server))

    def boot_together(self, count, expected):
        """Boot so many servers with a vTPM by one request; returns them."""
        body = self._build_server(
            image_uuid=self.create_image(count, os_vtpm="required", **GEN2), networks="none")
        body.update(min_count=count, return_reservation_id=True)
        reservation = self.api.post_server({"server": body})["reservation_id"]
        servers = self.api.get_servers(search_opts={"reservation_id": reservation})
        self.assertEqual(count, len(servers))
        return [self._wait_for_state_change(server, expected) for server in servers]

    def test_the_first_of_several_is_deleted_meanwhile(self):
        self.start_host("good")
        self.create_fabric("one", "good")
        gone = mock.Mock(side_effect=exception.BuildRequestNotFound(uuid=KEY))
        with mock.patch.object(instance_facts, "objects", types.SimpleNamespace(
                InstanceMapping=instance_facts.objects.InstanceMapping,
                BuildRequest=types.SimpleNamespace(get_by_instance_uuid=gone))):
            servers = self.boot_together(2, "ERROR")
        for server in servers:
            self.assertIn("One of the servers that were asked for together is being deleted",
                          server["fault"]["message"])
        gone.assert_called_once()

    def test_nothing_asked_runs_anywhere(self):
        self.start_host("old", thumbprint=None, version=6003)
        self.assertEqual("old", self.host_of(self.boot(self.create_image())))

    def test_flavor_asks(self):
        self.start_host("plain", thumbprint=None)
        image = self.create_image(os_vtpm="optional", **GEN2)
        flavor = self.flavor(os_vtpm="required")
        self.assertEqual("plain", self.host_of(self.boot(image)))
        self.assertIn("do not offer vTPMs",
                      self.boot(image, flavor, expected="ERROR")["fault"]["message"])
        self.start_host("guarded")
        self.create_fabric("one", "guarded")
        self.assertEqual("guarded", self.host_of(self.boot(image, flavor)))

    def test_refusals_are_the_servers_fault(self):
        self.start_host("guarded")
        self.create_fabric("one", "guarded")
        self.assertEqual(
            "No valid host was found. Flavor extra spec os:vtpm=disabled contradicts image "
            "property os_vtpm=required: change one of the two.",
            self.refused(self.flavor(os_vtpm="disabled"), os_vtpm="required", **GEN2))
        self.assertIn("hw_machine_type is hyperv-gen1", self.refused(
            number=8, os_vtpm="required", hw_machine_type="hyperv-gen1"))
        self.assertIn("os_vtpm_keys=%s" % KEY, self.refused(number=7, os_vtpm_keys=KEY))
        self.assertIn("os_vtpm=maybe", self.refused(number=6, os_vtpm="maybe", **GEN2))

    def test_no_host_fits(self):
        self.start_host("unguarded", guarded=False)
        self.create_fabric("one", "unguarded")
        self.assertEqual(
            "No valid host was found. No host fits the vTPM (image property os_vtpm=required): "
            "hosts are not guarded at present (not authorised).",
            self.refused(os_vtpm="required", **GEN2))

    def test_lost_attestation_is_seen_at_the_next_report(self):
        self.start_host("guarded")
        self.create_fabric("one", "guarded")
        image = self.create_image(os_vtpm="required", **GEN2)
        self.boot(image)
        nova_base.ReportingFakeDriver.REPORTS["guarded"] = None
        self._run_periodics()
        self.assertIn("do not offer vTPMs",
                      self.boot(image, expected="ERROR")["fault"]["message"])

    def test_no_aggregates_by_option(self):
        self.flags(require_fabric_aggregate=False, group="vtpm_scheduling")
        self.start_host("guarded")
        image = self.create_image(os_vtpm="required", **GEN2)
        self.assertEqual("guarded", self.host_of(self.boot(image)))

    def test_without_aggregates_nothing_fits(self):
        self.start_host("guarded")
        self.assertIn("belong to no fabric", self.refused(os_vtpm="required", **GEN2))

    def test_a_database_that_is_away_refuses(self):
        self.start_host("guarded")
        self.create_fabric("one", "guarded")
        # The filter's own view of Nova's objects: the API must go on reading.
        away = mock.Mock(side_effect=oslo_db.exception.DBConnectionError())
        with mock.patch.object(instance_facts, "objects", types.SimpleNamespace(
                InstanceMapping=types.SimpleNamespace(get_by_instance_uuid=away))):
            message = self.refused()
        away.assert_called_once()
        self.assertIn("could not be read", message)

    def test_a_marked_server_stays_with_its_guardian(self):
        self.start_host("a1")
        self.create_fabric("one", "a1")
        server = self.boot(self.create_image(os_vtpm="required", **GEN2))
        # What a refused rebuild leaves behind must not matter.
        self.system_metadata(server, hyperv_vtpm="vtpm", hyperv_vtpm_fabric="ab" * 32,
                             image_os_vtpm="maybe")
        self.start_host("b1", thumbprint=OTHER_FABRIC)
        self.start_host("c1", guarded=False)
        self.create_fabric("two", "b1")
        self.create_fabric("three", "c1")
        self.api.post_server_action(server["id"], {"migrate": None})
        self._wait_for_action_fail_completion(server, "migrate", "cold_migrate")
        self.assertEqual("a1", self.host_of(self.api.get_server(server["id"])))
        self.assertIn("Host b1 cannot run instance %s" % server["id"], self.log())
        self.assertIn("the instance's vTPM belongs to", self.log())
        self.start_host("a2")
        self.create_fabric("one again", "a2")
        self._migrate_server(server)
        self.assertEqual("a2", self.host_of(self._confirm_resize(server)))

    def test_a_fabric_that_mixes_guardians_gets_no_servers(self):
        for name, thumbprint in (("a1", "ab" * 32), ("a2", OTHER_FABRIC), ("b1", OTHER_FABRIC)):
            self.start_host(name, thumbprint=thumbprint)
        self.create_fabric("mixed", "a1", "a2")
        self.assertIn("hosts' fabric mixes guardians", self.refused(os_vtpm="required", **GEN2))
        self.create_fabric("two", "b1")
        for number in range(3):
            image = self.create_image(number, os_vtpm="required", **GEN2)
            self.assertEqual("b1", self.host_of(self.boot(image)))
        self.assertIn("1 of 3 hosts fit, mixed_fabric: 2", self.log())
        self.assertEqual(1, self.log().count(
            "hosts in aggregates with hgs_fabric=mixed have different guardians"))

    def test_a_host_that_failed_mixes_nothing(self):
        """Its last report is of the guardian that the others do not have any more."""
        for name in ("a1", "a2"):
            self.start_host(name)
        self.start_host("a3", thumbprint=OTHER_FABRIC)
        self.create_fabric("one", "a1", "a2", "a3")
        image = self.create_image(os_vtpm="required", **GEN2)
        self.assertIn("mixes guardians", self.boot(image, expected="ERROR")["fault"]["message"])
        for change, back in (({"forced_down": True}, {"forced_down": False}),
                             ({"status": "disabled"}, {"status": "enabled"})):
            (service,) = self.api.get_services(host="a3", binary="nova-compute")
            self.api.put_service(service["id"], change)
            self.assertIn(self.host_of(self.boot(image)), {"a1", "a2"})
            self.api.put_service(service["id"], back)
            self.assertIn("mixes guardians",
                          self.boot(image, expected="ERROR")["fault"]["message"])

    def test_a_host_in_two_fabrics_or_none_is_logged_once(self):
        for name in ("a-none", "b-two", "c-good"):
            self.start_host(name)
        self.create_fabric("one", "b-two", "c-good")
        two = self.create_fabric("two", "b-two")
        image = self.create_image(os_vtpm="required", **GEN2)
        for _ in range(3):
            self.assertEqual("c-good", self.host_of(self.boot(image)))
        self.assertEqual(3, self.log().count(
            "1 of 3 hosts fit, no_fabric: 1, several_fabrics: 1"))
        self.assert_warned("a-none", 1)
        self.assert_warned("b-two", 1)
        self.api.post_aggregate_action(two, {"remove_host": {"host": "b-two"}})
        self.boot(image)
        self.api.add_host_to_aggregate(two, "b-two")
        self.boot(image)
        self.assert_warned("a-none", 1)
        self.assert_warned("b-two", 2)

    def assert_warned(self, host, times):
        self.assertEqual(times, self.log().count(
            "Host %s gets no servers with a vTPM: " % host))

    def test_attestations_are_told_apart(self):
        kinds = {0: "attestation not configured", 1: "not attested yet",
                 200: "attestation expired", 300: "attestation is retried",
                 301: "not authorised", 302: "TPM error", 303: "insecure configuration"}
        self.start_host("host")
        self.create_fabric("one", "host")
        image = self.create_image(os_vtpm="required", **GEN2)
        for status, kind in kinds.items():
            nova_base.ReportingFakeDriver.REPORTS["host"] = policy.HostReport(
                False, 10000, status, fabric_thumbprint="ab" * 32)
            self._run_periodics()
            self.assertIn("hosts are not guarded at present (%s)." % kind,
                          self.boot(image, expected="ERROR")["fault"]["message"])
            self.assertIn("0 of 1 hosts fit, not_guarded (%s): 1" % kind, self.log())

    def log(self):
        return self.stdlog.logger.output


class ExtraSpecValidatorTest(nova_base.NovaTestCase):
    """The entry point as nova-api loads it."""

    # The first that validates.
    microversion = "2.86"

    def set_extra_spec(self, **extra_specs):
        flavor = self._create_flavor()
        return self.api.post_extra_spec(flavor, {"extra_specs": extra_specs})

    def update(self, flavor, name, value):
        self.api.api_put("/flavors/%s/os-extra_specs/%s" % (flavor, name), {name: value})

    def extra_specs(self, flavor):
        return self.api.api_get("/flavors/%s/os-extra_specs" % flavor).body["extra_specs"]

    def assert_bad(self, call, *args, **kwargs):
        error = self.assertRaises(api_client.OpenStackApiException, call, *args, **kwargs)
        self.assertEqual(400, error.response.status_code)
        return error.response.text

    def test_good_values(self):
        flavor = self._create_flavor()
        for name in ("os:vtpm", "os:shielded_vm"):
            for value in ("disabled", "optional", "required"):
                self.set_extra_spec(**{name: value})
                self.update(flavor, name, value)
                self.assertEqual(value, self.extra_specs(flavor)[name])

    def test_a_bad_update_changes_nothing(self):
        flavor = self._create_flavor(extra_spec={"os:vtpm": "required", "rack": "any"})
        before = self.extra_specs(flavor)
        self.assertIn("os:vtpm=maybe", self.assert_bad(self.update, flavor, "os:vtpm", "maybe"))
        self.assertEqual(before, self.extra_specs(flavor))
        self.assertEqual(before["rack"], "any")

    def test_other_keys_are_as_nova_has_them(self):
        self.set_extra_spec(**{"hw:cpu_policy": "shared", "os:secure_boot": "required",
                               "rack": "any", "trait:CUSTOM_HYPERV_GUARDED_HOST": "required"})
        for name, value in (("hw:cpu_policy", "maybe"), ("os:secure_boot", "maybe"),
                            ("trait:CUSTOM_HYPERV_GUARDED_HOST", "maybe")):
            self.assertNotIn("hyperv_vtpm", self.assert_bad(
                self.set_extra_spec, **{name: value}))

    def test_an_older_client_is_not_validated(self):
        self.api.microversion = "2.85"
        self.set_extra_spec(**{"os:vtpm": "maybe"})

    def test_bad_value_and_unknown_name(self):
        for name, value in (("os:vtpm", "maybe"), ("os:shielded_vm", "1"), ("os:vtmp", "required")):
            error = self.assertRaises(api_client.OpenStackApiException, self.set_extra_spec,
                                      **{name: value})
            self.assertEqual(400, error.response.status_code)
            self.assertIn(name, error.response.text)
            if value != "required":
                self.assertIn("%s=%s" % (name, value), error.response.text)
