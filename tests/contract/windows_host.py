"""A Hyper-V host as the contract tests use it: PyMI's wmi and os-win, and nothing else.

The same on Windows and on the simulation. Everything that is made here is removed again, also when
a test fails.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import os
import pathlib
import shutil
import uuid

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12

HGS = "//./Root/Microsoft/Windows/Hgs"
# GetText_'s only format: the embedded instance as XML.
TEXT = 1
GENERATION_1, GENERATION_2 = 1, 2
# RequestStateChange: Microsoft Learn, "RequestStateChange method of the Msvm_ComputerSystem class".
RUNNING, OFF = 2, 3
_PREFIX = "vtpm-contract-"


def pfx_files():
    """An owner's PFX files, for signing and for encryption, without a password."""
    files = []
    for usage in ("Signing", "Encryption"):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Contract %s" % usage)])
        now, is_signing = datetime.datetime.utcnow(), usage == "Signing"
        certificate = x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(),
            now - datetime.timedelta(days=1), now + datetime.timedelta(days=1)).add_extension(
                x509.KeyUsage(is_signing, False, not is_signing, not is_signing, False, False,
                              False, False, False), critical=True).sign(key, hashes.SHA256())
        files.append(pkcs12.serialize_key_and_certificates(
            None, key, certificate, None, serialization.NoEncryption()))
    return files


class WindowsHost:
    """One host; as a context manager it removes what was made on it.

    :param fabric_guardian: name of its fabric's guardian in its store; None where it has no fabric
    :param folder: a folder of the host for the files of virtual machines
    :ivar wmi: PyMI's module
    :ivar hgs: a connection to the Host Guardian Service client
    :ivar vmutils: os-win's, which vtpm_compute gets from compute-hyperv
    :ivar migrationutils: os-win's, with which compute-hyperv exports and imports
    """

    def __init__(self, fabric_guardian, folder):
        self.fabric_guardian, self._folder = fabric_guardian, folder
        # Not at the top: on the simulation they can only be imported once it is installed.
        self.wmi = importlib.import_module("wmi")
        self.hgs = self.wmi.WMI(HGS)
        factory = importlib.import_module("os_win.utilsfactory")
        self.vmutils, self.migrationutils = factory.get_vmutils(), factory.get_migrationutils()
        self._made = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._made.close()

    def removing(self):
        """A context in which what is made is removed at its end, not at the host's."""
        return _Scope(self)

    # The guardian store.

    def new_name(self):
        """A name for a guardian or a virtual machine, which nothing else has."""
        return _PREFIX + str(uuid.uuid4())

    def make_guardian(self):
        """A guardian with private keys in the store: its instance, as Windows returned it."""
        name = self.new_name()
        self._made.callback(self.remove_guardian, name)
        code, guardian = self.hgs.MSFT_HgsGuardian.NewByGenerateCertificates(
            Name=name, GenerateCertificates=True)
        assert code == 0
        return guardian

    def exported_metadata(self, folder):
        """The metadata of a guardian that the host does not know, as Windows writes it: bytes."""
        guardian = self.make_guardian()
        path = os.path.join(folder, "guardian.xml")
        assert self.hgs.MSFT_HgsGuardian.Export(Path=path, InputObject=guardian) == (0,)
        self.remove_guardian(guardian.Name)
        with open(path, "rb") as file:
            return file.read()

    def certificates_of(self, name):
        """A guardian's certificates in the store of the host, by their subject."""
        return self._certificates_with("(%s)" % name)

    def _certificates_with(self, text):
        with self._certificate_store() as store:
            return [found for found in store.certificates() if text in found.common_name]

    def delete_certificates_of(self, name, key_may_be_gone=False):
        """Delete them with their private keys."""
        with self._certificate_store() as store:
            for certificate in self.certificates_of(name):
                store.delete(certificate, key_may_be_gone)

    def _certificate_store(self):
        return importlib.import_module("vtpm_compute.certificate_store").CertificateStore(
            importlib.import_module("vtpm_compute.protector_maker").CERTIFICATE_STORE)

    def remove_guardian(self, name):
        """Remove it and its private keys, as far as they are there."""
        self.delete_certificates_of(name, key_may_be_gone=True)
        if self.hgs.MSFT_HgsGuardian(Name=name):
            assert self.hgs.MSFT_HgsGuardian.Remove(Name=name) == (0,)

    def owners(self):
        """What vtpm_compute left on the host of the owners it made: nothing."""
        prefix = importlib.import_module("vtpm_compute.protector_maker").OWNER_PREFIX
        return [found.Name for found in self.hgs.MSFT_HgsGuardian()
                if found.Name.startswith(prefix)] + self._certificates_with("(" + prefix)

    def make_protector(self, owner, guardians):
        """A key protector: its instance, as Windows returned it."""
        code, protector = self.hgs.MSFT_HgsKeyProtector.NewByGuardians(
            Owner=owner, Guardian=guardians, AllowUntrustedRoot=True, AllowExpired=False)
        assert code == 0
        return protector

    # Virtual machines.

    def make_machine(self, generation=GENERATION_2):
        """A new virtual machine that is off, without a disk: its :class:`Machine`."""
        name = self.new_name()
        folder = os.path.join(self._folder, name)
        os.makedirs(folder)
        self._made.callback(shutil.rmtree, folder)
        machine = Machine(self, name)
        self._made.callback(machine.remove)
        self.vmutils.create_vm(name, False, generation, folder, ["contract test"])
        return machine

    def leftovers(self):
        """Names of what the tests made and did not remove yet."""
        names = [guardian.Name for guardian in self.hgs.MSFT_HgsGuardian()]
        return [name for name in names + self.vmutils.list_instances()
                if name.startswith(_PREFIX)] + [
                    found.common_name for found in self._certificates_with("(" + _PREFIX)]


class _Scope:
    def __init__(self, host):
        self._host = host

    def __enter__(self):
        self._outer, self._host._made = self._host._made, contextlib.ExitStack()

    def __exit__(self, *exception):
        inner, self._host._made = self._host._made, self._outer
        inner.close()


class Machine:
    """A virtual machine of the host."""

    def __init__(self, host, name):
        self._vmutils, self._migrationutils, self.name = host.vmutils, host.migrationutils, name

    @property
    def service(self):
        """Msvm_SecurityService."""
        return self._vmutils._sec_svc

    def identifier(self):
        """Its GUID, as its Msvm_VirtualSystemSettingData has it."""
        return self._vmutils._lookup_vm_check(self.name).ConfigurationID

    def all_security_settings(self):
        """Msvm_SecuritySettingData as vtpm_compute looks for it: a list."""
        return self._vmutils._conn.query(
            "SELECT * FROM Msvm_SecuritySettingData WHERE InstanceID LIKE 'Microsoft:%s%%'"
            % self.identifier())

    def security_settings(self):
        """Msvm_SecuritySettingData, loaded anew."""
        (settings,) = self.all_security_settings()
        return settings

    def text(self):
        """Msvm_SecuritySettingData as its service's methods take it."""
        return self.security_settings().GetText_(TEXT)

    def key_protector(self):
        """What GetKeyProtector gives: a tuple of integers."""
        protector, code = self.service.GetKeyProtector(SecuritySettingData=self.text())
        assert code == 0
        return protector

    def set_key_protector(self, raw):
        """:raises os_win.exceptions.OSWinException: Windows refuses it"""
        job, code = self.service.SetKeyProtector(
            SecuritySettingData=self.text(), KeyProtector=list(raw))
        self.check(code, job)

    def change_security(self, **properties):
        """ModifySecuritySettings.

        :raises os_win.exceptions.OSWinException: Windows refuses it
        """
        settings = self.security_settings()
        settings.set(**properties)
        job, code = self.service.ModifySecuritySettings(SecuritySettingData=settings.GetText_(TEXT))
        self.check(code, job)

    def start(self):
        """:raises os_win.exceptions.OSWinException: Windows refuses it"""
        self._request(RUNNING)

    def stop(self):
        """Switch it off."""
        self._request(OFF)

    def export_and_destroy(self):
        """Leave nothing of it but an export: the folder of that, in the one of its files."""
        folder = pathlib.Path(self._vmutils.get_vm_config_root_dir(self.name), "export")
        # os-win names a folder of snapshots to each import.
        (folder / "Snapshots").mkdir(parents=True)
        self._migrationutils.export_vm(self.name, str(folder))
        self._vmutils.destroy_vm(self.name)
        return folder

    def plan(self, export):
        """Import it as a planned virtual machine, with the folders that it had."""
        (definition,) = export.rglob("*.vmcx")
        self._migrationutils.import_vm_definition(str(definition), str(export / "Snapshots"))
        self._vmutils.update_vm(self.name, 512, None, 1, None, False, 1,
                                configuration_root_dir=str(export.parent))

    def realize(self):
        """:raises os_win.exceptions.OSWinException: Windows refuses it"""
        self._migrationutils.realize_vm(self.name)

    def is_running(self):
        return self._state() == RUNNING

    def remove(self):
        """Remove it whatever state it is in, if it is there."""
        self._migrationutils.destroy_existing_planned_vm(self.name)
        if self._vmutils.vm_exists(self.name):
            if self._state() != OFF:
                self.stop()
            self._vmutils.destroy_vm(self.name)

    def check(self, code, job):
        """os-win's judgement of what a method returned; waits for the job."""
        self._vmutils._jobutils.check_ret_val(code, job)

    def _state(self):
        return self._vmutils._lookup_vm_check(self.name, as_vssd=False).EnabledState

    def _request(self, state):
        # Not os-win's set_vm_state, which tries five times, a second apart.
        system = self._vmutils._lookup_vm_check(self.name, as_vssd=False)
        job, code = system.RequestStateChange(RequestedState=state)
        self.check(code, job)
