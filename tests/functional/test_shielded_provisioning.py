"""compute-hyperv's own os_vtpm: shielding data of a tenant, out of a key manager's container."""

# Patches nova first.
from tests.functional import hyperv_base  # isort: skip

import fixtures
import pytest
from nova.api import auth
from nova.scheduler import request_filter

from tests import stub_key_manager
from tests.hyperv import key_protector, provisioning_files
from tests.hyperv.guardian import Guardian
from vtpm_scheduling import placement_filter

pytestmark = pytest.mark.os_win

RUNNING, OFF = 2, 3
COMPLETED = 7
CONTAINER = "2f6ac6a8-4e14-4e4c-a73d-069cbf4541e6"
PIECES = {"1": "4f6ac6a8-4e14-4e4c-a73d-069cbf4541e6", "2": "3f6ac6a8-4e14-4e4c-a73d-069cbf4541e6"}
ANSWERS = "<unattend><name>@@ComputerName@@</name><zone>@@Zone@@</zone></unattend>"


@pytest.mark.compute_hyperv
class ShieldedProvisioningTest(hyperv_base.HyperVTestCase):
    """A guarded host with FabricShieldedTools, and the stock driver."""

    compute_driver = "compute_hyperv.driver.HyperVDriver"
    HOSTS = ({"name": "HV1", "fabric": "east", "guardians": ["west"], "shielded_vm_tools": True},)
    FABRICS = ("east", "west")

    def setUp(self):
        super().setUp()
        # Past our filter and pre-filter, which want our driver on the host.
        self.useFixture(fixtures.MonkeyPatch(
            "nova.scheduler.request_filter.ALL_REQUEST_FILTERS",
            [found for found in request_filter.ALL_REQUEST_FILTERS
             if found is not placement_filter.require_guarded_hosts]))
        self.key_manager = self.enterContext(stub_key_manager.running())
        self._offer_key_manager()
        self.owner = Guardian.generate("tenant")
        self.shield_for("east")
        # Nova asks placement for it; compute-hyperv does not say it.
        provider = self._get_provider_uuid_by_host("HV1")
        self._set_provider_traits(provider, [
            *self._get_provider_traits(provider), "COMPUTE_SECURITY_UEFI_SECURE_BOOT"])

    def _offer_key_manager(self):
        """What Keystone's middleware takes from a token: the catalog of the services."""
        create_context = auth.NovaKeystoneContext._create_context

        def create_context_with_catalog(env, **keywords):
            context = create_context(env, **keywords)
            context.service_catalog = [{
                "type": "key-manager", "name": "barbican",
                "endpoints": [{"publicURL": self.key_manager.url}]}]
            return context
        self.useFixture(fixtures.MonkeyPatch(
            "nova.api.auth.NovaKeystoneContext._create_context", create_context_with_catalog))

    def shield_for(self, fabric):
        """Put shielding data for a fabric into the key manager, in two pieces."""
        guardian = Guardian.from_metadata(self.simulated.metadata(fabric), fabric)
        self.pdk = provisioning_files.make_pdk(self.owner, [guardian], ANSWERS)
        half = len(self.pdk) // 2
        self.key_manager.containers = {CONTAINER: PIECES}
        self.key_manager.payloads = {PIECES["1"]: self.pdk[:half], PIECES["2"]: self.pdk[half:]}

    def image(self, **properties):
        return self.create_image(**dict(
            hyperv_base.GENERATION_2, os_secure_boot="required",
            img_pdk_reference="%s/v1/containers/%s" % (self.key_manager.url, CONTAINER),
            **properties))

    def post(self, image, expected="ACTIVE"):
        server = self._build_server(
            image_uuid=image, flavor_id=self.PLAIN_FLAVOR, networks="none",
            az="nova:HV1")
        server["metadata"] = {"fsk:Zone": "UTC"}
        server = self.api.post_server({"server": server})
        return self._wait_for_state_change(server, expected)

    def check_life(self, shielded, **properties):
        server = self.post(self.image(**properties))
        machine = self.machine(server)
        self.assertEqual(RUNNING, machine["state"])
        self.assertTrue(machine["secure_boot"])
        self.assertTrue(machine["security"]["TpmEnabled"])
        self.assertTrue(machine["security"]["EncryptStateAndVmMigrationTraffic"])
        self.assertEqual(shielded, machine["security"]["ShieldingRequested"])
        given = provisioning_files.read_pdk(self.pdk).key_protector
        self.assertEqual([one.thumbprint for one in key_protector.read(given)],
                         [one["thumbprint"] for one in machine["guardians"]])
        # Windows rolled it at the start.
        self.assertNotEqual(given, machine["key_protector"])
        provisioning = self.simulated.provisioning("HV1", machine["name"])
        self.assertEqual(COMPLETED, provisioning["job_state"])
        self.assertEqual(
            "<unattend><name>%s</name><zone>UTC</zone></unattend>"
            % server["OS-EXT-SRV-ATTR:hostname"], provisioning["answer_file"])
        self.simulated.write_tpm("HV1", machine["name"], "bitlocker", b"key")
        self._stop_server(server)
        self.assertEqual(OFF, self.machine(server)["state"])
        self._start_server(server)
        self.assertEqual(b"key", self.simulated.read_tpm("HV1", machine["name"], "bitlocker"))
        self._delete_server(server)
        self.assert_nothing_left()

    def test_a_server_with_a_vtpm(self):
        self.check_life(False, os_vtpm="required")

    def test_a_shielded_server(self):
        self.check_life(True, os_shielded_vm="required")

    def refused(self):
        return self.post(self.image(os_vtpm="required"), "ERROR")["fault"]["message"]

    def test_shielding_data_for_another_fabric(self):
        self.shield_for("west")
        self.assertIn("could not be unwrapped", self.refused())
        self.assert_nothing_left()

    def test_a_host_that_is_not_guarded(self):
        self.simulated.set_guarded("HV1", False)
        self.assertIn("not guarded", self.refused())
        self.assert_nothing_left()

    def test_a_container_that_is_not_there(self):
        self.key_manager.containers = {}
        self.assertIn("barbican container", self.refused())
        self.assert_nothing_left()
