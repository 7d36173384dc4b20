"""A simulated Hyper-V host: one computer with its repository and its services."""
from tests.hyperv import faults, inventory, jobs, schema
from tests.hyperv.certificate_access import CertificateAccess
from tests.hyperv.hardware import Hardware
from tests.hyperv.hgs_client import HgsClient
from tests.hyperv.live_migration import LiveMigration
from tests.hyperv.power import Power
from tests.hyperv.provisioning import MSPS, Provisioning
from tests.hyperv.repository import Repository
from tests.hyperv.security_service import SecurityService
from tests.hyperv.snapshots import SnapshotService
from tests.hyperv.virtual_machine import OFF, SAVED
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
    :param find_host: gives another :class:`Host` by its computer name, or raises
        :class:`cim.Error`; None: it is alone
    :param live_migration: whether live migration is enabled; Windows comes with it disabled
    :param live_migration_addresses: MigrationServiceListenerIPAddressList
    :param storage: the hosts' disks, a :class:`tests.hyperv.storage.Storage`; None: all share all
    :param shielded_vm_tools: whether the feature FabricShieldedTools is installed (root/msps)
    """

    def __init__(self, name, windows_version=SERVER_2019, fabric=None, attestation_status=100,
                 processors=8, memory_mb=32768, clock=None, find_host=None, live_migration=False,
                 live_migration_addresses=(), storage=None, shielded_vm_tools=False):
        self.name, self.windows_version, self.memory_mb = name, windows_version, memory_mb
        self.find_host, self._storage = find_host, storage
        self.is_down = False
        version = schema.version_tuple(windows_version)
        self.repository = Repository(name, windows_version, clock)
        self.jobs = job_factory = jobs.Jobs(self.repository)
        self.faults = self.repository.intercept = faults.Faults(job_factory)
        inventory.add(self.repository, windows_version, processors, memory_mb)
        self.management = VirtualSystemManagement(
            self.repository, job_factory, Hardware(version, processors), version)
        self.hgs_client = None
        if version >= (10, 0):
            self.hgs_client = HgsClient(self.repository, fabric, attestation_status)
            SecurityService(self.repository, job_factory, self.management, self.hgs_client)
        self.certificate_access = CertificateAccess(
            self.repository, self.faults, self.hgs_client)
        self.power = Power(self.repository, job_factory, self.management, self.hgs_client)
        self.provisioning = None
        if version >= (10, 0) and shielded_vm_tools:
            self.repository.add_namespace(MSPS)
            self.provisioning = self.power.provisioning = Provisioning(
                self.repository, job_factory, self.management)
        SnapshotService(self.repository, job_factory, self.management)
        self.live_migration = LiveMigration(
            self, job_factory, live_migration, live_migration_addresses)

    def lose_power(self):
        """Go down: nothing reaches the host, and its VMs are off, or still saved."""
        self.is_down = True
        self.jobs.lose_running()
        with self.repository.silence():
            for machine in self.management.machines.values():
                if not machine.is_planned and machine.state not in (OFF, SAVED):
                    self.power.cut(machine)

    def boot(self):
        """Come up again: the host attests, and its VMs stay off."""
        self.is_down = False
        if self.hgs_client and self.hgs_client.attestation:
            self.hgs_client.attestation.attest()

    def path_on(self, path, other):
        """What a path of this host is called on another one, where its own disk is meant."""
        return (self._storage.path_on(path, self.name, other.name) if self._storage
                else str(path))

    def free_memory_mb(self):
        """What running VMs leave of the memory."""
        return self.memory_mb - sum(
            machine.memory_mb for machine in self.management.machines.values()
            if machine.state not in (OFF, SAVED))

    def catch_up(self):
        """Let happen what is due on the clock."""
        if self.is_down:
            return
        if self.hgs_client and self.hgs_client.attestation:
            self.hgs_client.attestation.catch_up()
        self.jobs.catch_up()
