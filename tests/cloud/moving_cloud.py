"""The cloud of the end-to-end tests of a server's life: guarded hosts between which servers move.

Not that of the other tests: with a second host that fits, theirs would not know where a server is.
"""
import pathlib
import types

from tests.cloud import configuration
from tests.cloud.guarded_cloud import FABRIC, OTHER_FABRIC, REPOSITORY, GuardedCloud

ONE, OTHER, ELSEWHERE = "hv-one", "hv-other", "hv-elsewhere"


def _host(name, fabric, address):
    # The address by which Nova sends other hosts to it (my_ip) is that of the host itself.
    return {"name": name, "version": "10.0.17763", "fabric": fabric, "live_migration": True,
            "address": address}


class MovingCloud(GuardedCloud):
    """Two guarded hosts of one fabric, and a guarded one of another.

    Owners read the details of their servers' events.
    """

    HOSTS = (_host(ONE, FABRIC, "198.51.100.1"), _host(OTHER, FABRIC, "198.51.100.2"),
             _host(ELSEWHERE, OTHER_FABRIC, "198.51.100.3"))
    AGGREGATES = types.MappingProxyType({
        "guarded-hosts": ((ONE, OTHER), "contoso"),
        "guarded-elsewhere": ((ELSEWHERE,), "fabrikam")})

    def __init__(self, state_dir, shared_storage, **options):
        """Take the parameters of Cloud.

        :param shared_storage: whether the servers' files are on storage that all hosts share; else
            each host has disks of its own
        """
        self._disks = pathlib.Path(state_dir).resolve() / "hosts" / "disks"
        self._shared = shared_storage
        super().__init__(state_dir, None if shared_storage else str(
            self._disks / "%COMPUTERNAME%"), nova_conf={
                "oslo_policy": {"policy_file": REPOSITORY / "etc" / "nova-policy.yaml"}}, **options)

    def conf_of(self, host):
        """Those of GuardedCloud, and where the servers' files are."""
        name = "shared" if self._shared else "%COMPUTERNAME%"
        return configuration.merge(super().conf_of(host), {"DEFAULT": {
            "my_ip": host["address"], "instances_path": self._disks / name / "Instances"}})

    def folder_of(self, host, instance_name):
        """Where the files of a server on this host lie."""
        name = "shared" if self._shared else host.upper()
        return self._disks / name / "Instances" / instance_name
