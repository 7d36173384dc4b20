"""Nova's own Hyper-V driver with vTPMs: each operation of a server's life, kept or refused."""

# Patches nova first.
from tests.functional import server_life_base  # isort: skip

import pytest

from tests.functional import test_server_life
from tests.functional.server_life_base import EAST

pytestmark = pytest.mark.os_win


class NovaHyperVLifeTest(test_server_life._EveryDriver, server_life_base.ServerLifeCase):
    """On the hosts' own disks."""

    compute_driver = "vtpm_hyperv.NovaHyperVDriver"

    def test_report(self):
        for host in ("HV1", "HV2"):
            traits = self._get_provider_traits(self._get_provider_uuid_by_host(host))
            self.assertIn("CUSTOM_HYPERV_VTPM", traits)
            self.assertIn("CUSTOM_HYPERV_GUARDED_HOST", traits)
        self.simulated.set_attestation("HV1", 301)
        self._run_periodics()
        self.assertNotIn("CUSTOM_HYPERV_GUARDED_HOST", self._get_provider_traits(
            self._get_provider_uuid_by_host("HV1")))
        self.assertIn("CUSTOM_HYPERV_GUARDED_HOST", self._get_provider_traits(
            self._get_provider_uuid_by_host("HV2")))

    def test_its_resizes_are_refused(self):
        server = self.boot_with_secret()
        words = "Nova's own Hyper-V driver would give the server a new and empty TPM"
        self.assert_refused(server, words, resize={"flavorRef": self.LARGER_FLAVOR})
        self.assert_refused(server, words, migrate=None)
        self._stop_server(server)
        self.assert_refused(server, words, status="SHUTOFF", migrate=None)
        self._start_server(server)
        self.assert_kept(server, "HV1")

    def fail(self, host):
        self.lose_power(host)
        self.force_down(host)

    def assert_not_evacuated(self, server, words):
        self.assertIn(words, self.act(server, evacuate={}))
        server = self._server_with(server, {"status": "ACTIVE", "OS-EXT-SRV-ATTR:host": "HV1"})
        self.assertNotIn("fault", server)
        self.assertEqual([], self.machines("HV2"))

    def test_its_evacuations_are_refused(self):
        server = self.boot_with_secret()
        self.fail("HV1")
        self.assert_not_evacuated(server, "Nova's own Hyper-V driver does not evacuate servers.")
        self.force_down("HV1", False)
        self.boot_host("HV1")
        self._stop_server(server)
        self._start_server(server)
        self.assert_kept(server, "HV1")

    def test_its_evacuations_without_a_vtpm_are_refused(self):
        server = self.boot_on("HV1")
        self.fail("HV1")
        self.assert_not_evacuated(server, "Instance evacuate is not supported.")

    def test_its_resizes_without_a_vtpm(self):
        server = self.boot_on("HV1")
        self._resize_server(server, self.LARGER_FLAVOR)
        self._revert_resize(server)
        self._migrate_server(server)
        self._wait_for_state_change(server, "VERIFY_RESIZE")
        server = self._confirm_resize(server)
        self.assertEqual("HV2", self.host_of(server))
        self.assertFalse(self.machine(server)["security"]["TpmEnabled"])

    def test_compute_hyperv_alone_takes_pdk_files(self):
        image = self.create_image(**{
            "hw_machine_type": "hyperv-gen2", "os_type": "windows", "os_vtpm": "required",
            "os_secure_boot": "required", "img_pdk_reference": "2f6ac6a8-4e14-4e4c-a73d"})
        message = self.boot(image, expected="ERROR")["fault"]["message"]
        self.assertIn("img_pdk_reference needs compute-hyperv's driver", message)
        self.assert_nothing_left()

    def test_secure_boot(self):
        image = self.image(os_secure_boot="required")
        server = self.boot(image)
        self.assertTrue(self._stored_machine(server).settings["SecureBootEnabled"])
        self.assertTrue(self.machine(server)["security"]["TpmEnabled"])
        self._delete_server(server)
        self.assertEqual([EAST], [one["name"] for one in self.simulated.guardians("HV1")])
        self.assert_nothing_left()


class NovaHyperVCellsTest(test_server_life._Cells, server_life_base.ServerLifeCase):
    """A resize between cells, which Nova does with every driver."""

    compute_driver = "vtpm_hyperv.NovaHyperVDriver"
