"""What may be changed of a VM's firmware, and when: Secure Boot, its template, the boot order.

Source: Microsoft Learn, "Set-VMFirmware" (templates), "Generation 2 virtual machine security
settings for Hyper-V", "Guarded fabric and shielded VMs overview" (Secure Boot is required and
enforced for shielded VMs; COM ports are disabled).
"""
from tests.hyperv import guest_state, jobs

SECURE_BOOT_TEMPLATES = {
    "MicrosoftWindows": "1734c6e8-3154-4dda-ba5f-a874cc483422",
    "MicrosoftUEFICertificateAuthority": "272e7447-90a4-4563-a4b9-8e4ab00526ce"}

TEMPLATE_FIXED = (
    "Cannot modify the secure boot template ID property after the virtual TPM is initialized")


def complete(settings):
    """Give a machine that has Secure Boot the template of those that name none."""
    if settings["SecureBootEnabled"] and not settings["SecureBootTemplateId"]:
        settings["SecureBootTemplateId"] = _DEFAULT


def check(machine, given):
    """Why a change of a VM's settings is refused.

    :param machine: the :class:`tests.hyperv.virtual_machine.VirtualMachine`
    :param given: the new Msvm_VirtualSystemSettingData; what it leaves out stays
    :returns: the return value, or None: it is not refused
    :raises jobs.JobFailure: the template of a VM that has a TPM would change
    """
    stored = machine.settings
    if not machine.is_off and any(
            given[name] is not None and _order(given[name]) != _order(stored[name])
            for name in ("BootOrder", "BootSourceOrder")):
        return jobs.INVALID_STATE  # [assumption firmware-refusals]
    wanted = given["SecureBootEnabled"]
    changes_boot = wanted is not None and wanted != bool(stored["SecureBootEnabled"])
    template = (given["SecureBootTemplateId"] or "").lower()
    changes_template = bool(template) and template != (
        stored["SecureBootTemplateId"] or _DEFAULT).lower()
    if not changes_boot and not changes_template:
        return None
    if machine.generation != 2:
        return jobs.INVALID_PARAMETER  # [assumption firmware-refusals]
    if template and template not in SECURE_BOOT_TEMPLATES.values():
        return jobs.INVALID_PARAMETER  # [assumption firmware-refusals]
    if not machine.is_off:
        return jobs.INVALID_STATE  # [assumption firmware-refusals]
    if changes_template and (machine.tpm_enabled or _had_a_tpm(machine)):
        raise jobs.JobFailure(TEMPLATE_FIXED)
    if is_shielded(machine) and changes_boot and not wanted:
        return jobs.INVALID_STATE  # [assumption firmware-refusals]
    return None


def check_serial_port(machine, given):
    """Why a change of a serial port is refused: a shielded VM has none that could be connected.

    :param given: the port's new setting data
    :returns: the return value, or None: it is not refused
    """
    if is_shielded(machine) and any(given["Connection"] or ()):
        return jobs.INVALID_STATE  # [assumption firmware-refusals]
    return None


def _order(sources):
    """Boot sources as they are compared: paths are the same in any case."""
    return [str(source).lower() for source in sources or ()]


def _had_a_tpm(machine):
    """Whether its TPM has ever been started: disabling it keeps what it holds."""
    path = machine.guest_state_file
    return path.exists() and not guest_state.is_new(path)


def is_shielded(machine):
    security = machine.security_settings
    return bool(security and security["ShieldingRequested"])


_DEFAULT = SECURE_BOOT_TEMPLATES["MicrosoftWindows"]
