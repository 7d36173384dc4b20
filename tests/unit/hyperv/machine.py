"""A VM of a simulated host, handled as a driver does: through PyMI and os-win."""
from tests.hyperv.windows_stand_ins import VhdUtils


class Machine:
    """A VM and its security service."""

    def __init__(self, vmutils, name):
        self.vmutils, self.name = vmutils, name

    def settings(self):
        from os_win.utils import _wqlutils
        vssd = self.vmutils._lookup_vm_check(self.name)
        return _wqlutils.get_element_associated_class(
            self.vmutils._conn, "Msvm_SecuritySettingData", element_uuid=vssd.ConfigurationID)[0]

    def set_protector(self, raw):
        job, result = self.vmutils._sec_svc.SetKeyProtector(
            SecuritySettingData=self.settings().GetText_(1), KeyProtector=list(raw))
        return job, result

    def protector(self):
        return bytes(self.vmutils._sec_svc.GetKeyProtector(
            SecuritySettingData=self.settings().GetText_(1))[0])

    def enable_tpm(self, **others):
        settings = self.settings()
        settings.set(TpmEnabled=True, **others)
        job, result = self.vmutils._sec_svc.ModifySecuritySettings(
            SecuritySettingData=settings.GetText_(1))
        self.vmutils._jobutils.check_ret_val(result, job)

    def request(self, state):
        system = self.vmutils._lookup_vm_check(self.name, as_vssd=False)
        job, result = system.RequestStateChange(RequestedState=state)
        self.vmutils._jobutils.check_ret_val(result, job)

    def start(self):
        self.request(2)

    def stop(self):
        self.request(3)


def make(vmutils, fabric, folder, protector, host="HV1", secret=b"BitLocker's key"):
    """A VM of Generation 2, named as its folder, that runs with a TPM and a disk on an image.

    :param protector: its key protector: bytes
    :param secret: what its TPM holds under the name "bitlocker"
    """
    folder.mkdir(parents=True, exist_ok=True)
    name, base, disk = folder.name, folder / "base.vhdx", folder / "root.vhdx"
    VhdUtils().create_dynamic_vhd(str(base), 1 << 20)
    VhdUtils().create_differencing_vhd(str(disk), str(base))
    vmutils.create_vm(name, False, 2, str(folder), [])
    vmutils.create_scsi_controller(name)
    vmutils.attach_drive(name, str(disk), vmutils.get_vm_scsi_controller(name), 0)
    machine = Machine(vmutils, name)
    machine.set_protector(protector)
    machine.enable_tpm()
    machine.start()
    fabric.write_tpm(host, name, "bitlocker", secret)
    return machine


def files(folder):
    """The files below a folder, as sorted relative paths."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
