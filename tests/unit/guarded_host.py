"""A guarded host for tests of what vtpm_compute does there, without nova."""

import importlib
import os

from tests.hyperv import certificates, fabric, guardian, windows
from vtpm_compute import guardian_metadata, owner_pfx

HOST, OLD_HOST, FABRIC, OTHER = "HV1", "HV-OLD", "east", "west"


def module(name):
    """A module that imports os-win: only after the simulation is installed."""
    return importlib.import_module("vtpm_compute." + name)


def make_fabric():
    """The fabrics; making RSA keys takes a while, so one serves many tests."""
    return fabric.Fabric({"fabrics": [FABRIC, OTHER], "hosts": [
        {"name": OLD_HOST, "version": "6.3.9600"}]})


class GuardedHost:
    """A new host of a fabric, on which this process runs; it knows two fabrics' guardians.

    :param simulated: the :class:`tests.hyperv.fabric.Fabric`
    :param scratch: path of a folder that does not exist yet
    """

    def __init__(self, simulated, scratch):
        self.simulated, self.scratch = simulated, scratch
        simulated.add_host(HOST, fabric=FABRIC, guardians=[OTHER])
        windows.install(simulated, HOST)
        windows.libraries.misuses()  # of the test before
        self.client = module("guardians").HostGuardianClient()
        self.folders = module("private_folders").PrivateFolders(scratch)
        self.maker = module("protector_maker").ProtectorMaker(self.client, self.folders)

    @property
    def guardian(self):
        """The fabric's, in the store."""
        return self.client.find_guardian(FABRIC)

    def finder(self, name=FABRIC, thumbprint=None, read_metadata=None):
        """A FabricGuardian."""
        return module("fabric_guardian").FabricGuardian(
            self.client, self.folders, read_metadata, name, thumbprint)

    def assert_nothing_left(self):
        """No guardian but the fabrics', no certificate, no private key and no file."""
        assert [one["name"] for one in self.simulated.guardians(HOST)] == [FABRIC, OTHER]
        assert self.simulated.certificates(HOST) == []
        assert self.simulated.private_keys(HOST) == []
        self.assert_no_file_left()

    def assert_no_file_left(self):
        if os.path.exists(self.scratch):
            assert os.listdir(self.scratch) == []

    def assert_no_pfx_left(self):
        """No file of private keys, wherever else something may have stayed."""
        assert not any(name.endswith(".pfx") for _, _, names in os.walk(self.scratch)
                       for name in names)

    def assert_no_handle_left(self):
        assert windows.libraries.open_handles() == {}
        assert windows.libraries.misuses() == []

    def calls_of(self, function):
        """Every call that Windows gets of a function: [Class.Method or library.Function]."""
        self.simulated.clear_calls(HOST)
        function()
        return ["%s.%s" % call[:2] for call in self.simulated.calls(HOST)]


def pfx_files(owner=None):
    """An owner's PFX files, for signing and for encryption, without a password."""
    owner = owner or guardian.Guardian.generate("Contoso")
    return [certificates.make_pfx(owner.signing_certificate, owner.signing_key, ""),
            certificates.make_pfx(owner.encryption_certificate, owner.encryption_key, "")]


def owner_of(files):
    """What vtpm_compute reads out of PFX files."""
    return owner_pfx.read(files, "os_vtpm_keys")


def new_metadata():
    """The metadata document of a guardian that nobody knows yet."""
    return guardian.Guardian.generate("A second site").metadata()


def read_metadata(document):
    """What vtpm_compute reads out of it."""
    return guardian_metadata.parse(document, "os_vtpm_keys")
