"""A simulated Hyper-V host: one computer with its repository and its services."""
from tests.hyperv import faults, inventory, jobs, schema
from tests.hyperv.hgs_client import HgsClient
from tests.hyperv.power import Power
from tests.hyperv.repository import Repository
from tests.hyperv.security_service import SecurityService
from tests.hyperv.virtual_system_management import VirtualSystemManagement

SERVER_2012_R2, SERVER_2016, SERVER_2019 = "6.3.9600", "10.0.14393", "10.0.17763"


class Host:
    """One host.

    :param name: its computer name
    :param windows_version: such as :data:`SERVER_2019`
    :param fabric: the :class:`tests.hyperv.guarded_fabric.GuardedFabric` it belongs to, or None
    :param attestation_status: AttestationStatus of MSFT_HgsClientConfiguration
    :param processors: logical processors
    :param memory_mb: memory
    :param clock: the :class:`tests.hyperv.clock.Clock` of its fabric; left out: its own
    """

    def __init__(self, name, windows_version=SERVER_2019, fabric=None, attestation_status=100,
                 processors=8, memory_mb=32768, clock=None):
        self.name, self.windows_version = name, windows_version
        version = schema.version_tuple(windows_version)
        self.repository = Repository(name, windows_version, clock)
        job_factory = jobs.Jobs(self.repository)
        self.faults = self.repository.intercept = faults.Faults(job_factory)
        inventory.add(self.repository, windows_version, processors, memory_mb)
        self.management = VirtualSystemManagement(self.repository, job_factory, version)
        self.hgs_client = None
        if version >= (10, 0):
            self.hgs_client = HgsClient(self.repository, fabric, attestation_status)
            SecurityService(self.repository, job_factory, self.management)
        Power(self.repository, job_factory, self.management, self.hgs_client)
