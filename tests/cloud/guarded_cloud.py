"""The cloud of the demonstration and of the end-to-end tests: Hyper-V hosts, one of them guarded.

Stock programs with this project's filter and driver, over a simulated Windows (tests/hyperv).
"""
import json
import pathlib
import shutil
import sys
import tempfile
import types

from tests.cloud import Cloud, Companion, ComputeHost
from tests.hyperv import guardian, key_protector
from tests.hyperv.fabric_client import FabricClient
from tests.hyperv.windows_stand_ins import TINY_VHDX

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
FABRIC, OTHER_FABRIC = "Fabric", "Elsewhere"
GUARDED, UNGUARDED, OLD = "hv-guarded", "hv-unguarded", "hv-2012r2"
HOSTS = [
    {"name": GUARDED, "version": "10.0.17763", "fabric": FABRIC},
    {"name": UNGUARDED, "version": "10.0.17763", "fabric": OTHER_FABRIC, "guarded": False},
    {"name": OLD, "version": "6.3.9600"},
]
AGGREGATE = "guarded-hosts"
IMAGE = TINY_VHDX


class HyperVCloud(Cloud):
    """Keystone, Barbican, Glance, Placement, Nova; Hyper-V hosts, and the fabrics they live in.

    Nova is set up as the caller says. ``fabric`` asks the simulated hosts what they did.

    :cvar HOSTS: as the simulated fabric's configuration has them
    """

    HOSTS = HOSTS

    def __init__(self, state_dir, storage=None, host_prefix=None, **options):
        """Take the parameters of Cloud.

        :param storage: the template of the hosts' own disks (tests.hyperv.storage), or None
        :param host_prefix: the environment of nova-compute; None: that of the cloud
        """
        # A socket's path is short by nature; the state folder's may be long.
        self._fabric_dir = pathlib.Path(tempfile.mkdtemp(prefix="fabric-"))
        self._socket = self._fabric_dir / "socket"
        config = self._fabric_dir / "fabric.json"
        config.write_text(json.dumps(
            {"fabrics": [FABRIC, OTHER_FABRIC], "hosts": self.HOSTS, "storage": storage}))
        self.fabric = FabricClient(str(self._socket))
        fabric_process = Companion(
            "hyperv-fabric",
            [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv.pop(1));"
             "from tests.hyperv import fabric_process; sys.exit(fabric_process.main())",
             REPOSITORY, "--socket", self._socket, "--config", config], self._socket.exists)
        hosts = [ComputeHost(
            host["name"],
            environment={"SIMULATED_HYPERV_SOCKET": str(self._socket),
                         "SIMULATED_HYPERV_HOST": host["name"]},
            conf=self.conf_of(host), prefix=host_prefix) for host in self.HOSTS]
        super().__init__(state_dir, compute_hosts=hosts, companions=[fabric_process], **options)

    def conf_of(self, host):
        """The options of a host's nova-compute: {section: {option: value}}."""
        return {}

    @property
    def guarded_hosts(self):
        """{name: its fabric} of the hosts that are guarded at the beginning."""
        return {host["name"]: host["fabric"] for host in self.HOSTS
                if "fabric" in host and host.get("guarded", True)}

    def stop(self):
        """Stop it, and the fabric."""
        super().stop()
        shutil.rmtree(self._fabric_dir, ignore_errors=True)

    def protector_made_at_home(self, owner="Contoso"):
        """What a tenant makes on a machine of their own: an owner, and this fabric's guardian.

        :returns: the protector's bytes; the owner's private keys are never in the cloud
        """
        fabric = guardian.Guardian.from_metadata(self.fabric.metadata(FABRIC), FABRIC)
        return key_protector.make_protector(guardian.Guardian.generate(owner), [fabric])

    def machines(self):
        """The VMs of all hosts, as fabric.virtual_machines describes them."""
        return [one for name in self.compute_host_names
                for one in self.fabric.virtual_machines(name)]

    def machine_of(self, server_id):
        """The VM of a server, on the host where Nova has it."""
        server = self.client("admin").server(server_id)
        return self.fabric.virtual_machine(server.compute_host, server.instance_name)


class GuardedCloud(HyperVCloud):
    """That cloud with this project's driver and filter, and the fabrics' aggregates.

    :cvar AGGREGATES: {name: (names of hosts, hgs_fabric)}
    """

    AGGREGATES = types.MappingProxyType({AGGREGATE: ((GUARDED,), "contoso")})

    def conf_of(self, host):
        """Its fabric's guardian."""
        return {"vtpm_compute": {"fabric_guardian": host.get("fabric", FABRIC),
                                 "allow_owner_keys": True}}

    def start(self):
        """Start it, with the guarded hosts in an aggregate of their fabric."""
        super().start()
        try:
            for name, (hosts, label) in self.AGGREGATES.items():
                self.create_aggregate(name, hosts, {"hgs_fabric": label})
        except BaseException:
            self.stop()
            raise
