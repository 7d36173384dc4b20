"""The operator's command on a compute host that has servers."""

# Patches nova first.
from tests.functional import vtpm_base  # isort: skip

import contextlib
import datetime
import io
import json

import pytest

from vtpm_compute.cmd import host_inventory, operator

pytestmark = pytest.mark.os_win
YEARS = "99999"


@pytest.mark.compute_hyperv
class HostInventoryTest(vtpm_base.VtpmTestCase):

    def run_command(self, *arguments):
        """The exit code, and what it prints."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = operator.main(["host", "inventory", *arguments])
        return code, out.getvalue()

    def machines_of(self, *arguments, code=0):
        actual, out = self.run_command("--format", "json", *arguments)
        self.assertEqual(code, actual, out)
        return json.loads(out)

    def test_machines(self):
        self.assertEqual([], self.machines_of())
        given = self.boot(self.vtpm_image(os_vtpm_keys=vtpm_base.KEY))
        made = self.boot(self.vtpm_image(2))
        image = self.create_image(3, **vtpm_base.GEN2)
        self.boot(image)
        image = self.create_image(4, hw_machine_type="hyperv-gen1")
        self.boot(image)
        found = {one["server"]: one for one in self.machines_of()}
        self.assertEqual({given["id"], made["id"]}, set(found))
        fabric = self.simulated.fabric_thumbprint(vtpm_base.FABRIC)
        for one in found.values():
            owner, granted = one["protector"]["guardians"]
            self.assertTrue(owner["is_owner"])
            self.assertEqual(fabric, granted["thumbprint"])
            self.assertEqual([], one["warnings"])
        code, out = self.run_command()
        self.assertEqual(0, code)
        self.assertIn("2 virtual machines with a vTPM.", out)
        self.assertIn(given["id"], out)

    def test_certificates_that_expire(self):
        self.boot(self.vtpm_image(os_vtpm_keys=vtpm_base.KEY))
        (machine,) = self.machines_of("--days", YEARS, code=1)
        self.assertEqual(2, len(machine["warnings"]))
        self.assertIn(" expires on ", machine["warnings"][0])
        (machine,) = host_inventory.read()
        late = datetime.datetime(2999, 1, 1, tzinfo=datetime.timezone.utc)
        self.assertIn(" expired on ", machine.warnings(0, late)[0])

    def test_one_that_cannot_be_read(self):
        self.boot(self.vtpm_image(os_vtpm_keys=vtpm_base.KEY))
        self.simulated.add_fault(vtpm_base.HOST, "Msvm_SecurityService.GetKeyProtector",
                                 return_value=5)
        (machine,) = self.machines_of(code=1)
        self.assertIsNone(machine["protector"])
        self.assertIn("Hyper-V could not read the key protector", machine["warnings"][0])
