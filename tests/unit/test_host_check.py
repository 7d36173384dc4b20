"""``host check``: every finding caused once, and the command over the simulated host."""

import dataclasses
import datetime
import json
import os

import pytest

from tests.hyperv import windows
from tests.unit import guarded_host
from vtpm_compute import lifecycle
from vtpm_compute.cmd import host_findings, operator, option_files
from vtpm_compute.cmd.host_findings import FindingCode
from vtpm_scheduling import policy

DRIVER = lifecycle.Driver.COMPUTE_HYPERV.value
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
PIN = "ab" * 32
# Which status is which finding; 999 is none of Microsoft's.
STATUSES = {0: FindingCode.NOT_CONFIGURED, 1: FindingCode.NOT_ATTEMPTED,
            100: FindingCode.PASSED_NOT_GUARDED, 200: FindingCode.CERTIFICATE_EXPIRED,
            300: FindingCode.RETRIABLE_ERROR, 301: FindingCode.HOST_NOT_AUTHORISED,
            302: FindingCode.TPM_ERROR, 303: FindingCode.INSECURE_CONFIGURATION,
            999: FindingCode.UNKNOWN_STATUS}


# What AttestationStatus means: Microsoft Learn, class MSFT_HgsClientConfiguration of the namespace
# root\Microsoft\Windows\Hgs.
MICROSOFTS_WORDS = {
    0: ("no", "configured"), 1: ("not attempted",), 100: ("passed",),
    200: ("passed", "certificate", "expired"), 300: ("error", "retried"),
    301: ("host", "not authorised"), 302: ("tpm error",), 303: ("insecure", "configuration")}


@dataclasses.dataclass(frozen=True)
class Client:
    """What vtpm_compute.guardians reads; that needs Windows."""

    guarded: bool = True
    attestation_status: int = 100
    attestation_substatus: int = 0


def certificate(usage="encryption", begin=NOW - DAY, end=NOW + 400 * DAY, problem=""):
    return host_findings.Certificate(usage, begin, end, problem)


OPTIONS = host_findings.Options(DRIVER, "East", PIN, "C:\\vtpm", False, True, False)
GOOD = host_findings.HostState(
    OPTIONS, "10.0.17763", client=Client(),
    guardian=host_findings.Guardian("East", PIN, (certificate("signing"), certificate())))


def with_options(**changes):
    return dataclasses.replace(GOOD, options=dataclasses.replace(OPTIONS, **changes))


def with_certificate(**changes):
    return dataclasses.replace(GOOD, guardian=host_findings.Guardian(
        "East", PIN, (certificate("signing"), certificate(**changes))))


# For each finding, a host that has it and no other one.
CAUSES = {
    FindingCode.WINDOWS_UNREADABLE: dataclasses.replace(GOOD, windows_problem="denied"),
    FindingCode.WINDOWS_TOO_OLD: dataclasses.replace(GOOD, windows_version="6.3.9600"),
    FindingCode.CLIENT_UNREADABLE: dataclasses.replace(
        GOOD, client=None, client_problem="denied"),
    **{code: dataclasses.replace(GOOD, client=Client(False, status))
       for status, code in STATUSES.items()},
    FindingCode.NO_FABRIC_OPTION: with_options(fabric_guardian=None, fabric_thumbprint=None),
    FindingCode.GUARDIAN_MISSING: dataclasses.replace(
        with_options(fabric_thumbprint=None), guardian=None, guardian_is_missing=True),
    FindingCode.GUARDIAN_TO_BE_IMPORTED: dataclasses.replace(
        GOOD, guardian=None, guardian_is_missing=True),
    FindingCode.GUARDIAN_UNUSABLE: dataclasses.replace(
        GOOD, guardian=None, guardian_problem="Guardian East is a local one"),
    FindingCode.GUARDIAN_NOT_PINNED: with_options(fabric_thumbprint=None),
    FindingCode.GUARDIAN_OUT_OF_TIME: with_certificate(end=NOW - DAY / 2),
    FindingCode.GUARDIAN_EXPIRES: with_certificate(end=NOW + 60 * DAY),
    FindingCode.OTHER_DRIVER: with_options(compute_driver="hyperv.HyperVDriver"),
    FindingCode.SCRATCH_OPEN: dataclasses.replace(GOOD, scratch_problem="others can write"),
    FindingCode.SCRATCH_REMOTE: with_options(scratch_path="\\\\server\\share"),
    FindingCode.LEFTOVERS: dataclasses.replace(GOOD, leftovers=2),
    FindingCode.OWNER_KEYS_ALLOWED: with_options(allow_owner_keys=True),
    FindingCode.SIGNATURES_NOT_REFUSED: with_options(refuse_wrong_signatures=False),
    FindingCode.NO_CREDENTIALS: with_options(is_service_without_credentials=True),
    FindingCode.STRANGE_OPTION: with_options(strange=("fabric in [vtpm_compute] of x is not",)),
}


def codes(state, days=60):
    return [one.code for one in host_findings.find(state, days, NOW)]


def test_a_good_host_has_none():
    assert codes(GOOD) == []


@pytest.mark.parametrize("code", FindingCode)
def test_every_finding(code):
    found = host_findings.find(CAUSES[code], 60, NOW)
    if code is FindingCode.GUARDIAN_MISSING:
        # Only a guardian that is not pinned is not imported.
        assert found.pop(0).code is FindingCode.GUARDIAN_NOT_PINNED
    assert [one.code for one in found] == [code]
    assert found[0].sentence.endswith((".", "write", "denied", "local one"))
    assert found[0].remedy.endswith(".") and len(found[0].remedy) > 20


@pytest.mark.parametrize("status", policy.Attestation)
def test_every_status_is_told_with_microsofts_meaning(status):
    (found,) = host_findings.find(
        dataclasses.replace(GOOD, client=Client(False, int(status))), 60, NOW)
    assert found.code is STATUSES[int(status)]
    assert "(%d)" % status in found.sentence
    for word in MICROSOFTS_WORDS[int(status)]:
        assert word in found.sentence.lower()


def test_what_is_insecure():
    (found,) = host_findings.find(
        dataclasses.replace(GOOD, client=Client(False, 303, 1 | 4)), 60, NOW)
    assert "(Secure Boot is off, its code integrity policy is not trusted)" in found.sentence


# AttestationSubstatus of the same class: 1 Secure Boot, 2 debug mode, 4 code integrity.
@pytest.mark.parametrize("substatus, told", [
    (1, "(Secure Boot is off)"), (2, "(it is being debugged)"),
    (4, "(its code integrity policy is not trusted)"),
    (8, "(AttestationSubstatus 8, of unknown meaning)"),
    (1 | 16 | 32, "(Secure Boot is off, AttestationSubstatus 48, of unknown meaning)")])
def test_each_substatus_is_told(substatus, told):
    (found,) = host_findings.find(
        dataclasses.replace(GOOD, client=Client(False, 303, substatus)), 60, NOW)
    assert told in found.sentence


NOT_VALID = "the value of option timeout in %(path)s is not valid"


@pytest.mark.parametrize("kind, value, told", [
    ("IntOpt", "hunter2", NOT_VALID), ("BoolOpt", "hunter2", NOT_VALID),
    ("StrOpt", "$hunter2",
     "a value refers to an option that there is not: write $$ for a plain $")])
def test_a_bad_value_is_not_printed(tmp_path, kind, value, told):
    from oslo_config import cfg
    path = tmp_path / "nova.conf"
    path.write_text("[vtpm_compute]\ntimeout = %s\n" % value)
    config = cfg.ConfigOpts()
    config.register_opt(getattr(cfg, kind)("timeout"), "vtpm_compute")
    config(["--config-file", str(path)])
    with pytest.raises((cfg.Error, ValueError)) as raised:
        assert config.vtpm_compute.timeout
    message = option_files.problem(raised.value)
    assert "hunter2" not in message
    assert message == "nova.conf cannot be used: " + told % {"path": path}


def test_certificates():
    assert codes(with_certificate(end=NOW + 61 * DAY)) == []
    assert codes(with_certificate(end=NOW + 61 * DAY), 61) == [FindingCode.GUARDIAN_EXPIRES]
    assert codes(with_certificate(begin=NOW + DAY)) == [FindingCode.GUARDIAN_OUT_OF_TIME]
    assert codes(with_certificate(begin=None, end=None, problem="it is none")) == [
        FindingCode.GUARDIAN_OUT_OF_TIME]


def test_strange_options(tmp_path):
    from oslo_config import cfg
    path = tmp_path / "nova.conf"
    path.write_text("[a]\nknown = 1\nold-name = 2\ntwo-words = 3\nkey = secret\n[b]\nx = 1\n")
    options = [cfg.StrOpt("known"), cfg.StrOpt("two_words"),
               cfg.StrOpt("new", deprecated_name="old-name")]
    assert option_files.strange([str(path)], "a", options) == [
        "key in [a] of %s is not an option: correct or remove it" % path]
    assert option_files.strange([str(path)], "a", options, {("a", "key"): "is gone: use new"}) == [
        "key in [a] of %s is gone: use new" % path]
    assert option_files.strange([str(path)], "c", options) == []


class Machine:
    """The command on the simulated host."""

    def __init__(self, host, folder, capsys):
        self.host, self.folder, self.capsys = host, folder, capsys
        self.path = folder / "nova.conf"
        self.pin = host.simulated.fabric_thumbprint(guarded_host.FABRIC)
        self.configure()

    def configure(self, more="", driver=DRIVER, guardian=guarded_host.FABRIC, pin=None):
        self.path.write_text(
            "[DEFAULT]\ncompute_driver = %s\n[vtpm_compute]\nscratch_path = %s\n%s%s%s" % (
                driver, self.host.scratch,
                "fabric_guardian = %s\n" % guardian if guardian else "",
                "fabric_thumbprint = %s\n" % (self.pin if pin is None else pin), more))

    def run(self, *arguments):
        """The exit code, and what it printed."""
        code = operator.main(["host", "check", "--config-file", str(self.path), *arguments])
        out, err = self.capsys.readouterr()
        assert "Traceback" not in err
        return code, err if code == 2 else out

    def found(self):
        code, out = self.run("--format", "json")
        found = json.loads(out)
        errors = [one for one in found["findings"] if one["severity"] == "error"]
        assert code == (1 if errors else 0)
        return found["host"], [one["code"] for one in found["findings"]]


@pytest.fixture
def machine(host, tmp_path, capsys):
    return Machine(host, tmp_path, capsys)


def test_a_guarded_host(machine):
    facts, found = machine.found()
    assert found == []
    assert facts["Windows"].startswith("10.0.") and facts["Mode"] == "Host Guardian Service"
    assert facts["Attestation"] == "attestation passed (100)" and facts["Guarded"] == "yes"
    assert (facts["Fabric's guardian"], facts["Thumbprint"], facts["Pinned"]) == (
        guarded_host.FABRIC, machine.pin, "yes")
    code, out = machine.run()
    assert code == 0 and out.splitlines()[-1] == "VMs with a vTPM can run on this host."


def test_the_pinned_guardian_under_another_name(machine):
    machine.configure(guardian="Fabric")
    facts, found = machine.found()
    assert found == [] and facts["Fabric's guardian"] == guarded_host.FABRIC


def test_it_changes_nothing(machine):
    """The fabric's guardian that is missing is imported by nova-compute, not by this."""
    machine.host.client.remove(guarded_host.FABRIC)
    try:
        calls = machine.host.calls_of(lambda: machine.found())
        assert machine.found()[1] == ["guardian_to_be_imported"]
        assert not [call for call in calls if call.endswith((".Import", ".Remove"))]
        assert not os.path.exists(machine.host.scratch)
    finally:
        machine.host.simulated.add_host(guarded_host.HOST, fabric=guarded_host.FABRIC,
                                        guardians=[guarded_host.OTHER])


@pytest.mark.parametrize("status", [1, 200, 300, 301, 302, 303])
def test_attestation(machine, status):
    machine.host.simulated.set_attestation(guarded_host.HOST, status)
    assert machine.found()[1] == [STATUSES[status].value]
    assert machine.run()[1].splitlines()[-1] == "No vTPM runs on this host: 1 error."


def test_local_mode(machine):
    machine.host.simulated.add_host("HV-LOCAL", guardians=[guarded_host.FABRIC])
    windows.install(machine.host.simulated, "HV-LOCAL")
    facts, found = machine.found()
    assert facts["Mode"] == "local" and found == ["not_configured"]


def test_an_old_windows(machine):
    windows.install(machine.host.simulated, guarded_host.OLD_HOST)
    facts, found = machine.found()
    assert facts["Windows"] == "6.3.9600" and found == ["windows_too_old"]


def test_guardians(machine):
    machine.path.write_text("[DEFAULT]\ncompute_driver = %s\n[vtpm_compute]\nscratch_path = %s\n"
                            "fabric_guardian = north\n" % (DRIVER, machine.host.scratch))
    assert machine.found()[1] == ["guardian_not_pinned", "guardian_missing"]
    machine.configure(guardian=guarded_host.OTHER)
    assert machine.found()[1] == ["guardian_unusable"]
    machine.configure(guardian=None)
    assert machine.found()[1] == []


def test_what_windows_does_not_tell(machine):
    machine.host.simulated.add_fault(
        guarded_host.HOST, "MSFT_HgsClientConfiguration.Get", return_value=5)
    assert machine.found()[1] == ["client_unreadable"]


def test_the_folder(machine):
    machine.host.folders.new("2f6ac6a8-4e14-4e4c-a73d-069cbf4541e6")
    assert machine.found()[1] == ["leftovers"]
    for folder in machine.host.folders.left():
        folder.remove()
    os.rmdir(machine.host.scratch)
    os.mkdir(machine.host.scratch)
    assert machine.found()[1] == ["scratch_open"]


def test_options(machine):
    machine.configure("allow_owner_keys = true\nrefuse_wrong_signatures = false\nauth = service\n"
                      "fabric = East\n", driver="compute_hyperv.driver.HyperVDriver")
    assert machine.found()[1] == ["other_driver", "owner_keys_allowed", "signatures_not_refused",
                                  "no_credentials", "strange_option"]
    machine.configure("auth = service\nauth_type = password\nusername = nova\npassword = secret\n")
    assert machine.found()[1] == []


def test_what_cannot_be_told(machine):
    machine.configure("max_key_bytes = many\n")
    code, out = machine.run()
    assert code == 2 and "max_key_bytes" in out
    machine.configure("auth = nobody\n")
    code, out = machine.run()
    assert code == 2 and out.startswith("error: nova.conf cannot be used: ")
    machine.path.write_text("[DEFAULT]\ncompute_driver = x\npassword hunter2\n")
    code, out = machine.run()
    assert code == 2 and "cannot be read from line 3 on" in out and "hunter2" not in out
