"""Cinder's volumes on simulated hosts: what os-brick connects there is a disk, or a file.

compute-hyperv's volume drivers are the real ones; os-brick alone is replaced.
"""

import copy
import os

import fixtures
from nova.tests import fixtures as nova_fixtures

from tests.hyperv import current_host
from tests.hyperv.virtual_machine import V2
from tests.hyperv.windows_stand_ins import VhdUtils

ISCSI = "7f6ac6a8-4e14-4e4c-a73d-069cbf4541e6"
SMB = "8f6ac6a8-4e14-4e4c-a73d-069cbf4541e6"


class AttachedVolumes(fixtures.Fixture):
    """A volume over iSCSI, :data:`ISCSI`, and one on a share, :data:`SMB`.

    :param simulated: the fabric of the hosts
    :param share: a folder that all hosts reach
    :param properties: of the image that they were made from; none: one boots from them
    :ivar connected: {(host, volume)}
    """

    def __init__(self, simulated, share, properties=None):
        super().__init__()
        self._simulated, self._share = simulated, share
        self.properties = properties
        self.connected = set()

    def _setUp(self):  # noqa: N802
        VhdUtils().create_dynamic_vhd(self.path(SMB), 1 << 30)
        connections = {ISCSI: {"driver_volume_type": "iscsi", "data": {}},
                       SMB: {"driver_volume_type": "smbfs", "data": {"export": self._share}}}
        for name, value in (
                ("os_brick.initiator.connector.get_connector_properties",
                 lambda host, **keywords: {"host": host}),
                ("os_brick.initiator.connector.InitiatorConnector.factory",
                 staticmethod(lambda protocol, **keywords: self)),
                ("nova.tests.fixtures.CinderFixture.VOLUME_CONNECTION_INFO",
                 copy.deepcopy(connections)),
                # The simulated host ties no controller to its VM. For the metadata of devices.
                ("os_win.utils.compute.vmutils.VMUtils._get_disk_ctrl_addr",
                 lambda utils, path: 0)):
            self.useFixture(fixtures.MonkeyPatch(name, value))
        # In the place of the test case's, which keeps it to itself.
        self._cinder = self.useFixture(nova_fixtures.CinderFixture(None))
        if self.properties is not None:
            self.useFixture(fixtures.MonkeyPatch("nova.volume.cinder.API.get", self._get))

    def _get(self, context, volume, microversion=None):
        return dict(self._cinder.fake_get(context, volume, microversion), bootable=True,
                    volume_image_metadata=dict(self.properties))

    def attached_to(self, volume):
        """The hosts that Cinder has attached a volume to."""
        return [attachment["connector"]["host"] for attachment in
                self._cinder.volume_to_attachment[volume].values()]

    def path(self, volume, host=None):
        """Where a volume is; one over iSCSI is another disk on each host."""
        if volume == SMB:
            return os.path.join(self._share, "volume-%s.vhdx" % volume)
        return "\\\\.\\PHYSICALDRIVE%d" % self._number(host)

    def disk(self, host):
        """The path of the disk that the volume over iSCSI is on a host, as a VM has it."""
        (disk,) = self._disks(host)
        return disk.get_path()

    # os-brick's.

    def connect_volume(self, data):
        host, volume = current_host.computer().name, data["volume_id"]
        self.connected.add((host, volume))
        if volume == ISCSI and not self._disks(host):
            self._simulated.host(host).repository.add(
                V2, "Msvm_DiskDrive", DriveNumber=self._number(host), SystemName=host,
                SystemCreationClassName="Msvm_ComputerSystem", CreationClassName="Msvm_DiskDrive",
                DeviceID="Microsoft:%s" % self._number(host))
        return {"path": self.path(volume, host)}

    def disconnect_volume(self, data):
        self.connected.discard((current_host.computer().name, data["volume_id"]))

    def get_volume_paths(self, data):
        host, volume = current_host.computer().name, data["volume_id"]
        return [self.path(volume, host)] if (host, volume) in self.connected else []

    def _disks(self, host):
        return self._simulated.host(host).repository.instances(V2, "Msvm_DiskDrive")

    def _number(self, host):
        return int(host.removeprefix("HV"))
