"""Real os-win makes, runs and destroys virtual machines; threads do it on several hosts at once."""
import importlib
import os


def live(host, number, folder):
    """One machine's life, on the host that the caller acts on.

    Every host has machines of the same names; whoever mixed up hosts would find one too many, or
    none.

    :raises AssertionError: what os-win sees is not what it did
    """
    constants = importlib.import_module("os_win.constants")
    vmutils = importlib.import_module("os_win.utilsfactory").get_vmutils()
    name = "machine-%d" % number
    vmutils.create_vm(name, False, constants.VM_GEN_2, os.path.join(folder, host), [host])
    assert name in vmutils.list_instances()
    vmutils.set_vm_state(name, constants.HYPERV_VM_STATE_ENABLED)
    assert vmutils.get_vm_summary_info(name)["EnabledState"] == constants.HYPERV_VM_STATE_ENABLED
    assert [name for name, notes in vmutils.list_instance_notes() if notes != [host]] == []
    vmutils.set_vm_state(name, constants.HYPERV_VM_STATE_DISABLED)
    vmutils.destroy_vm(name)
    assert name not in vmutils.list_instances()
