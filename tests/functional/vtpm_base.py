"""One guarded host on which nova-compute runs with this project's driver."""

# Patches nova first.
from tests.functional import hyperv_services  # isort: skip

import importlib
import os
import tempfile

from tests import stub_key_manager
from tests.hyperv import fabric, guardian, key_protector, windows

HOST, FABRIC = "hv1", "Fabric"
KEY = "2f6ac6a8-4e14-4e4c-a73d-069cbf4541e6"
OTHER_KEY = "3f6ac6a8-4e14-4e4c-a73d-069cbf4541e6"
GEN2 = {"hw_machine_type": "hyperv-gen2", "os_type": "windows"}


class VtpmTestCase(hyperv_services.HyperVServicesCase):
    """One guarded host, and a key manager that answers as a test sets."""

    compute_driver = "vtpm_hyperv.HyperVDriver"
    # Making RSA keys takes a while: one fabric serves all tests, a host of its own each.
    simulated = fabric.Fabric({"fabrics": [FABRIC, "Elsewhere"]})

    def setUp(self):
        self.simulated.add_host(HOST, fabric=FABRIC)
        windows.install(self.simulated, HOST)
        self.addCleanup(self.assert_no_owner_keys)
        # Registers its options; os-win has to find Windows when it is imported.
        importlib.import_module("nova.virt.vtpm_hyperv")
        super().setUp()
        self.key_manager = self.enterContext(stub_key_manager.running())
        self.disk = self.enterContext(tempfile.TemporaryDirectory())
        self.flags(instances_path=tempfile.mkdtemp(dir=self.disk))
        self.scratch = os.path.join(self.disk, "scratch")
        self.flags(fabric_guardian=FABRIC, scratch_path=self.scratch, allow_owner_keys=True,
                   endpoint_override=self.key_manager.url, timeout=5,
                   connect_retries=0, status_code_retries=0, group="vtpm_compute")
        self.compute = self._start_compute(HOST)
        self.create_fabric("one", HOST)
        self.protector = key_protector.make_protector(
            guardian.Guardian.generate("Contoso"),
            [guardian.Guardian.from_metadata(self.simulated.metadata(FABRIC), FABRIC)])
        self.key_manager.payloads = {KEY: self.protector}

    def vtpm_image(self, number=1, **properties):
        return self.create_image(number, **dict(GEN2, os_vtpm="required", **properties))

    def prepared(self, *arguments):
        # After os-win has found Windows.
        return importlib.import_module("vtpm_compute.vtpm").PreparedVtpm(*arguments)

    @property
    def machines(self):
        return self.simulated.virtual_machines(HOST)

    def assert_nothing_left(self):
        self.assertEqual([], self.machines)
        self.assertEqual([FABRIC], [one["name"] for one in self.simulated.guardians(HOST)])
        self.assert_no_owner_keys()
        if os.path.exists(self.scratch):
            self.assertEqual([], os.listdir(self.scratch))

    def assert_no_owner_keys(self):
        """No server leaves its owner's private keys on the host, not even while it runs."""
        self.assertEqual([], self.simulated.certificates(HOST))
        self.assertEqual([], self.simulated.private_keys(HOST))
        self.assertEqual({}, windows.libraries.open_handles())
        self.assertEqual([], windows.libraries.misuses())

    def refused(self, image, flavor=None):
        message = self.boot(image, flavor, expected="ERROR")["fault"]["message"]
        self.assert_nothing_left()
        return message

    def wait_until_built(self, server):
        def look():
            shown = self.api.get_server(server["id"])
            self.assertIn(shown["status"], ("ACTIVE", "ERROR"))
            return shown
        return self._soon(look)

    def calls_of_a_boot(self, image):
        """The methods that Windows is called with while a server is built."""
        self.simulated.clear_calls(HOST)
        server = self.boot(image)
        calls = ["%s.%s" % call[:2] for call in self.simulated.calls(HOST)]
        self._delete_server(server)
        self.assert_nothing_left()
        return calls
