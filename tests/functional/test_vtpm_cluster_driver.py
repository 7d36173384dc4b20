"""This project's cluster driver on the nodes of a simulated failover cluster."""

# Patches nova first.
from tests.functional import nova_base  # isort: skip # noqa: F401

import pytest

from tests.functional import cluster_operations, vtpm_hosts_base
from tests.functional.cluster_operations import FAILED, OFF

pytestmark = pytest.mark.os_win


@pytest.mark.compute_hyperv
class VtpmClusterDriverTest(
        cluster_operations.ClusterOperations, vtpm_hosts_base.VtpmHostsTestCase):
    """The same as compute-hyperv's, for servers to which it gave their vTPMs."""

    compute_driver = "vtpm_hyperv.HyperVClusterDriver"
    DRIVERS = {"HV3": "vtpm_hyperv.HyperVDriver"}

    def test_a_failover_says_why_a_vtpm_does_not_open(self):
        server = self.boot_with_tpm()
        self.simulated.set_guarded("HV2", False)
        self.lose("HV1")
        self.assert_on(server, "HV2", FAILED, OFF)
        self._soon(lambda: self.assertIn(
            "the cluster could not start it here: it is not guarded", self.stdlog.logger.output))
