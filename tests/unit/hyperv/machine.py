"""A VM of a simulated host, handled as a driver does: through PyMI and os-win."""


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
