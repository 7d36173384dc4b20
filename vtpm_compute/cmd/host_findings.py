"""What is wrong with a compute host, and what to do about it. Pure: of what was read before.

Source of what a status means: Microsoft Learn, class MSFT_HgsClientConfiguration, and
"Troubleshoot guarded hosts" for what to do.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vtpm_compute import lifecycle
from vtpm_scheduling import policy

if TYPE_CHECKING:
    from vtpm_compute import guardians

MODES = {0: "unknown", 1: "local", 2: "Host Guardian Service"}
ATTESTATION_MODES = {0: "unknown", 1: "TPM", 2: "Active Directory", 3: "host key"}
_SUBSTATUS = {1: "Secure Boot is off", 2: "it is being debugged",
              4: "its code integrity policy is not trusted"}
_DRIVERS = tuple(driver.value for driver in lifecycle.Driver)


class FindingCode(str, enum.Enum):
    """What is wrong."""

    WINDOWS_UNREADABLE = "windows_unreadable"
    WINDOWS_TOO_OLD = "windows_too_old"
    CLIENT_UNREADABLE = "client_unreadable"
    NOT_CONFIGURED = "not_configured"
    NOT_ATTEMPTED = "not_attempted"
    CERTIFICATE_EXPIRED = "certificate_expired"
    RETRIABLE_ERROR = "retriable_error"
    HOST_NOT_AUTHORISED = "host_not_authorised"
    TPM_ERROR = "tpm_error"
    INSECURE_CONFIGURATION = "insecure_configuration"
    UNKNOWN_STATUS = "unknown_status"
    PASSED_NOT_GUARDED = "passed_not_guarded"
    NO_FABRIC_OPTION = "no_fabric_option"
    GUARDIAN_MISSING = "guardian_missing"
    GUARDIAN_TO_BE_IMPORTED = "guardian_to_be_imported"
    GUARDIAN_UNUSABLE = "guardian_unusable"
    GUARDIAN_NOT_PINNED = "guardian_not_pinned"
    GUARDIAN_OUT_OF_TIME = "guardian_out_of_time"
    GUARDIAN_EXPIRES = "guardian_expires"
    OTHER_DRIVER = "other_driver"
    SCRATCH_OPEN = "scratch_open"
    SCRATCH_REMOTE = "scratch_remote"
    LEFTOVERS = "leftovers"
    OWNER_KEYS_ALLOWED = "owner_keys_allowed"
    SIGNATURES_NOT_REFUSED = "signatures_not_refused"
    NO_CREDENTIALS = "no_credentials"
    STRANGE_OPTION = "strange_option"


class Severity(str, enum.Enum):
    """How bad it is."""

    ERROR = "error"      # no vTPM runs here
    WARNING = "warning"  # one does, and something is to be looked at


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    :ivar sentence: what.
    :ivar remedy: what to do.
    """

    code: FindingCode
    severity: Severity
    sentence: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A certificate of the fabric's guardian.

    :ivar usage: 'signing' or 'encryption'.
    :ivar problem: why it cannot be read; empty where it can.
    """

    usage: str
    not_before: datetime.datetime | None
    not_after: datetime.datetime | None
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Guardian:
    """The fabric's guardian, as the store has it."""

    name: str
    thumbprint: str
    certificates: tuple[Certificate, ...]


@dataclasses.dataclass(frozen=True)
class Options:
    """What of nova.conf decides."""

    compute_driver: str | None
    fabric_guardian: str | None
    fabric_thumbprint: str | None
    scratch_path: str
    allow_owner_keys: bool
    refuse_wrong_signatures: bool
    is_service_without_credentials: bool
    strange: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class HostState:
    """What was read on the host; of each pair, the value or why there is none.

    :ivar windows_version: such as '10.0.17763'.
    :ivar guardian_is_missing: whether the store just has none of that name or certificate.
    :ivar leftovers: how many folders of unfinished work there are.
    """

    options: Options
    windows_version: str = ""
    windows_problem: str = ""
    client: guardians.ClientConfiguration | None = None
    client_problem: str = ""
    guardian: Guardian | None = None
    guardian_problem: str = ""
    guardian_is_missing: bool = False
    scratch_problem: str = ""
    leftovers: int = 0

    @property
    def hypervisor_version(self) -> int:
        """Nova's integer."""
        major, minor = (self.windows_version.split(".") + ["0", "0"])[:2]
        return int(major) * 1000 + int(minor)

    @property
    def can_have_hgs(self) -> bool:
        """Whether this Windows has a client of a Host Guardian Service."""
        return not self.windows_problem and \
            self.hypervisor_version >= policy.MIN_HYPERVISOR_VERSION


DIAGNOSE = "Get-HgsTrace -RunDiagnostics -Detailed says what is wrong."
OF_STATUS = {
    policy.Attestation.NOT_CONFIGURED: (
        FindingCode.NOT_CONFIGURED,
        "Set-HgsClientConfiguration -AttestationServerUrl URL -KeyProtectionServerUrl URL, with "
        "those that Get-HgsServer prints on the Host Guardian Service."),
    policy.Attestation.NOT_ATTEMPTED: (
        FindingCode.NOT_ATTEMPTED,
        "Get-HgsClientConfiguration attests. If this stays: " + DIAGNOSE),
    policy.Attestation.PASSED_CERTIFICATE_EXPIRED: (
        FindingCode.CERTIFICATE_EXPIRED,
        "Let the host reach the attestation server, and compare both clocks; then "
        "Get-HgsClientConfiguration attests again."),
    policy.Attestation.RETRIABLE_ERROR: (
        FindingCode.RETRIABLE_ERROR,
        "Check that the host reaches the attestation server (DNS, network, TLS), and that the "
        "Host Guardian Service runs. " + DIAGNOSE),
    policy.Attestation.HOST_NOT_AUTHORISED: (
        FindingCode.HOST_NOT_AUTHORISED,
        "Register the host with the Host Guardian Service: Add-HgsAttestationTpmHost (TPM), "
        "Add-HgsAttestationHostKey (host key), or the group of Add-HgsAttestationHostGroup (Active "
        "Directory)."),
    policy.Attestation.TPM_ERROR: (
        FindingCode.TPM_ERROR,
        "Get-Tpm says how the host's TPM is; update its firmware, or clear and register it anew."),
    policy.Attestation.INSECURE_CONFIGURATION: (
        FindingCode.INSECURE_CONFIGURATION,
        "Set right what AttestationSubstatus and the attestation policies ask for (Secure Boot, "
        "debug mode, code integrity), and boot. " + DIAGNOSE),
}


def find(state: HostState, days: int, now: datetime.datetime) -> list[Finding]:
    """What is wrong: what makes all else useless first.

    :param days: a certificate that expires within so many days is told.
    :param now: with time zone.
    """
    return [*_of_windows(state), *_of_attestation(state), *_of_guardian(state, days, now),
            *_of_options(state)]


def _error(code: FindingCode, sentence: str, remedy: str) -> Finding:
    return Finding(code, Severity.ERROR, sentence, remedy)


def _warning(code: FindingCode, sentence: str, remedy: str) -> Finding:
    return Finding(code, Severity.WARNING, sentence, remedy)


def _of_windows(state: HostState) -> Iterator[Finding]:
    if state.windows_problem:
        yield _error(FindingCode.WINDOWS_UNREADABLE, state.windows_problem,
                     "Run this on the Hyper-V host, as an administrator.")
    elif not state.can_have_hgs:
        yield _error(FindingCode.WINDOWS_TOO_OLD,
                     "Windows %s has no virtual TPMs." % state.windows_version,
                     "Use Windows Server 2016 or later.")


def _of_attestation(state: HostState) -> Iterator[Finding]:
    if not state.can_have_hgs:
        return
    client = state.client
    if client is None:
        yield _error(FindingCode.CLIENT_UNREADABLE, state.client_problem,
                     "Run this as an administrator, and install the feature HostGuardian "
                     "(Install-WindowsFeature HostGuardian -IncludeManagementTools).")
        return
    if client.guarded:
        return
    meaning = policy.attestation_meaning(client.attestation_status)
    if client.attestation_status == policy.Attestation.PASSED:
        yield _error(FindingCode.PASSED_NOT_GUARDED,
                     "%s, and Windows says that the host is not guarded." % _capital(meaning),
                     DIAGNOSE)
        return
    known = {int(status): what for status, what in OF_STATUS.items()}.get(
        client.attestation_status)
    code, remedy = known or (FindingCode.UNKNOWN_STATUS, DIAGNOSE)
    substatus = client.attestation_substatus
    wrong = [text for bit, text in _SUBSTATUS.items() if substatus & bit]
    unknown = substatus & ~sum(_SUBSTATUS)
    if unknown:
        # Microsoft names no others: whoever asks them needs the number.
        wrong.append("AttestationSubstatus %d, of unknown meaning" % unknown)
    yield _error(code, "The host is not guarded: %s%s." % (
        meaning, " (%s)" % ", ".join(wrong) if wrong else ""), remedy)


def _of_guardian(state: HostState, days: int, now: datetime.datetime) -> Iterator[Finding]:
    options = state.options
    if not options.fabric_guardian and not options.fabric_thumbprint:
        yield _error(
            FindingCode.NO_FABRIC_OPTION,
            "[vtpm_compute] has neither fabric_guardian nor fabric_thumbprint.",
            "Set fabric_thumbprint, to the SHA-256 thumbprint of the encryption certificate of "
            "the fabric's guardian.")
        return
    if not options.fabric_thumbprint:
        yield _warning(
            FindingCode.GUARDIAN_NOT_PINNED,
            "fabric_thumbprint is not set: any guardian named %s is taken for the fabric's." %
            options.fabric_guardian,
            "Set fabric_thumbprint%s." % (
                " = %s, if that is the fabric's" % state.guardian.thumbprint
                if state.guardian else ""))
    if not state.can_have_hgs:
        return
    if state.guardian_is_missing and options.fabric_thumbprint:
        yield _warning(
            FindingCode.GUARDIAN_TO_BE_IMPORTED,
            "The guardian store lacks the fabric's guardian (%s...)." % (
                options.fabric_thumbprint[:16]),
            "nova-compute imports it from the key protection server. If it logs that it cannot: "
            "Import-HgsGuardian.")
    elif state.guardian_is_missing:
        yield _error(
            FindingCode.GUARDIAN_MISSING,
            "The guardian store has no guardian named %s." % options.fabric_guardian,
            "Import-HgsGuardian -Name %s -Path metadata.xml -AllowUntrustedRoot, or set "
            "fabric_thumbprint." % options.fabric_guardian)
    elif state.guardian is None:
        yield _error(FindingCode.GUARDIAN_UNUSABLE, state.guardian_problem,
                     "Correct the option, or what Get-HgsGuardian shows.")
    else:
        yield from _of_certificates(state.guardian, days, now)


def _of_certificates(guardian: Guardian, days: int, now: datetime.datetime) -> Iterator[Finding]:
    remedy = ("Renew it on the Host Guardian Service, and import the new metadata on all hosts, "
              "under a new name.")
    for one in guardian.certificates:
        which = "The %s certificate of guardian %s" % (one.usage, guardian.name)
        if one.not_before is None or one.not_after is None:
            yield _error(FindingCode.GUARDIAN_OUT_OF_TIME,
                         "%s cannot be used: %s." % (which, one.problem), remedy)
        elif not one.not_before <= now <= one.not_after:
            yield _error(FindingCode.GUARDIAN_OUT_OF_TIME, "%s is valid from %s to %s only: no key "
                         "protector can be made." % (
                             which, one.not_before.date(), one.not_after.date()), remedy)
        elif one.not_after - now <= datetime.timedelta(days=days):
            yield _warning(FindingCode.GUARDIAN_EXPIRES,
                           "%s expires on %s." % (which, one.not_after.date()), remedy)


def _of_options(state: HostState) -> Iterator[Finding]:
    options = state.options
    if options.compute_driver not in _DRIVERS:
        yield _error(FindingCode.OTHER_DRIVER,
                     "compute_driver is %s, which makes no vTPMs." % (
                         options.compute_driver or "not set"),
                     "Set compute_driver to one of %s." % ", ".join(_DRIVERS))
    if state.scratch_problem:
        yield _error(FindingCode.SCRATCH_OPEN, "scratch_path %s: %s" % (
            options.scratch_path, state.scratch_problem),
            "Remove the folder; nova-compute makes it anew, for administrators alone.")
    if options.scratch_path.startswith(("\\\\", "//")):
        yield _error(FindingCode.SCRATCH_REMOTE, "scratch_path %s is not on a local disk." %
                     options.scratch_path, "Name a folder on a local disk.")
    if state.leftovers:
        yield _warning(FindingCode.LEFTOVERS, "%d folders of unfinished work are in %s." % (
            state.leftovers, options.scratch_path),
            "nova-compute removes them when it starts, with the keys that they name.")
    if options.allow_owner_keys:
        yield _warning(FindingCode.OWNER_KEYS_ALLOWED,
                       "allow_owner_keys lets owners' private keys pass through this host.",
                       "Turn it off, unless your tenants cannot make key protectors at home.")
    if not options.refuse_wrong_signatures:
        yield _warning(FindingCode.SIGNATURES_NOT_REFUSED,
                       "refuse_wrong_signatures is off: a wrong signature is only logged.",
                       "Turn it on, unless your Windows signs in a form that is not known here.")
    if options.is_service_without_credentials:
        yield _error(FindingCode.NO_CREDENTIALS,
                     "auth is service, and [vtpm_compute] has no auth_type: no key can be read.",
                     "Set auth_type and the credentials that belong to it, or auth = user.")
    for sentence in options.strange:
        yield _warning(FindingCode.STRANGE_OPTION, sentence + ".",
                       "The options are in the sample file.")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
