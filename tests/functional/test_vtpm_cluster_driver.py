"""This project's cluster driver on the nodes of a simulated failover cluster."""

# Patches nova first.
from tests.functional import nova_base  # isort: skip # noqa: F401

import pytest

from tests.functional import cluster_operations, server_life_base
from tests.functional.cluster_operations import FAILED, OFF

pytestmark = pytest.mark.os_win


@pytest.mark.compute_hyperv
class VtpmClusterDriverTest(
        cluster_operations.ClusterOperations, server_life_base.ServerLifeCase):
    """The same as compute-hyperv's, for servers to which it gave their vTPMs."""

    compute_driver = "vtpm_hyperv.HyperVClusterDriver"
    DRIVERS = {"HV3": "vtpm_hyperv.HyperVDriver"}

    def boot_with_tpm(self, host="HV1"):
        return self.boot_with_secret(host)

    def test_a_live_migration_that_is_refused(self):
        server = self.boot_with_tpm()
        self.simulated.set_guarded("HV2", False)
        self.assertIn("it is not guarded", self.act(server, **{"os-migrateLive": {
            "host": "HV2", "block_migration": "auto"}}))
        self.assert_on(server, "HV1")

    def test_a_failover_says_why_a_vtpm_does_not_open(self):
        server = self.boot_with_tpm()
        self.simulated.set_guarded("HV2", False)
        self.lose("HV1")
        self.assert_on(server, "HV2", FAILED, OFF)
        self._soon(lambda: self.assertIn(
            "the cluster could not start it here. This host cannot unwrap the server's key "
            "protector: ", self.stdlog.logger.output))
