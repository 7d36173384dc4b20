"""``host check``: reads what decides about vTPMs on this Hyper-V host, and prints it."""

from __future__ import annotations

import argparse
import datetime
import functools
from collections.abc import Iterator
from typing import Any

from oslo_config import cfg

from vtpm_compute import conf, errors
from vtpm_compute.cmd import host_findings, missing, option_files, tables
from vtpm_compute.cmd.explanation import Outcome
from vtpm_scheduling import policy

# Microsoft Learn, "Windows Server release information".
_RELEASES = {"14393": "2016", "17763": "2019", "20348": "2022", "26100": "2025"}


def run(options: argparse.Namespace) -> Outcome:
    """Check.

    :returns: NO when no vTPM runs on this host; UNKNOWN when this is none of Hyper-V.
    :raises vtpm_compute.errors.VtpmError: when nothing can be told.
    """
    configuration = load_configuration(options.config_file or [])
    state = read(configuration)
    now = datetime.datetime.now(datetime.timezone.utc)
    found = host_findings.find(state, options.days, now)
    for line in [tables.as_json(as_dict(state, found))] if options.format == tables.JSON else \
            lines(state, found):
        print(line)
    if state.windows_problem:
        return Outcome.UNKNOWN
    return Outcome.NO if any(one.severity is host_findings.Severity.ERROR for one in found) else \
        Outcome.YES


def load_configuration(files: list[str]) -> cfg.ConfigOpts:
    """nova-compute's configuration, as far as it matters here.

    :param files: none: where Nova's services look for theirs.
    :raises vtpm_compute.errors.RecordsError: when it cannot be read.
    """
    try:
        # Not above: without Nova this module can still say what is missing.
        import nova.conf.compute
        import nova.conf.paths
    except ModuleNotFoundError as exc:
        raise errors.RecordsError(missing.clause(exc, missing.ON_A_COMPUTE_HOST)) from None
    # Not Nova's own, which wants far more than what is looked at.
    found = cfg.ConfigOpts()
    nova.conf.paths.register_opts(found)
    nova.conf.compute.register_opts(found)
    conf.register_opts(found)
    try:
        found([part for file in files for part in ("--config-file", file)], project="nova")
        # oslo.config looks at a value when it is asked for it.
        for name in found.vtpm_compute:
            found.vtpm_compute[name]
        _options(found)
    except (cfg.Error, ValueError, OSError) as exc:
        raise errors.RecordsError(option_files.problem(exc)) from None
    return found


def read(configuration: cfg.ConfigOpts) -> host_findings.HostState:
    """What is so on this host now; nothing is changed.

    :raises vtpm_compute.errors.RecordsError: when os-win is not here.
    """
    try:
        # Not above: only a Hyper-V host has them.
        from os_win import utilsfactory

        from vtpm_compute import guardians, private_folders, windows_errors
    except ModuleNotFoundError as exc:
        raise errors.RecordsError(missing.clause(exc, missing.ON_A_COMPUTE_HOST)) from None
    values: dict[str, Any] = {"options": _options(configuration)}
    try:
        values["windows_version"] = windows_errors.translated(
            "Windows cannot be asked for its version", errors.HostGuardianError,
            lambda: utilsfactory.get_hostutils().get_windows_version())
    except errors.HostGuardianError as exc:
        values["windows_problem"] = str(exc)
    folders = private_folders.PrivateFolders(configuration.vtpm_compute.scratch_path)
    if host_findings.HostState(**values).can_have_hgs:
        client = guardians.HostGuardianClient()
        try:
            values["client"] = client.read_configuration()
        except errors.HostGuardianError as exc:
            values["client_problem"] = str(exc)
        values.update(_read_guardian(client, folders, configuration))
    try:
        values["leftovers"] = len(folders.left())
    except errors.HostGuardianError as exc:
        values["scratch_problem"] = str(exc)
    return host_findings.HostState(**values)


def _read_guardian(client: Any, folders: Any, configuration: cfg.ConfigOpts) -> dict[str, Any]:
    from vtpm_compute import fabric_guardian, key_protection_server, rsa_certificates

    section = configuration.vtpm_compute
    if not section.fabric_guardian and not section.fabric_thumbprint:
        return {}
    # It is only asked for what is there: an import would change the host.
    finder = fabric_guardian.FabricGuardian(
        client, folders, functools.partial(
            key_protection_server.read_metadata, seconds=section.timeout, verify=True),
        section.fabric_guardian, section.fabric_thumbprint)
    try:
        found = finder.stored()
    except errors.HostGuardianError as exc:
        return {"guardian_problem": str(exc)}
    if found is None:
        return {"guardian_is_missing": True}
    certificates = []
    for usage, der in zip(("signing", "encryption"), found.certificates):
        try:
            one = rsa_certificates.load(der, "it")
            certificates.append(host_findings.Certificate(usage, one.not_before, one.not_after))
        except rsa_certificates.UnusableCertificateError as exc:
            certificates.append(host_findings.Certificate(usage, None, None, str(exc)))
    return {"guardian": host_findings.Guardian(
        found.name, found.thumbprint, tuple(certificates))}


def _options(configuration: cfg.ConfigOpts) -> host_findings.Options:
    section = configuration.vtpm_compute
    return host_findings.Options(
        compute_driver=configuration.compute_driver, fabric_guardian=section.fabric_guardian,
        fabric_thumbprint=section.fabric_thumbprint, scratch_path=section.scratch_path,
        allow_owner_keys=section.allow_owner_keys,
        refuse_wrong_signatures=section.refuse_wrong_signatures,
        is_service_without_credentials=section.auth == conf.AUTH_SERVICE and
        not section.auth_type and not section.auth_section,
        strange=tuple(option_files.strange(
            configuration.config_file or [], conf.SECTION,
            option_files.of_compute(section.auth_type))))


def facts(state: host_findings.HostState) -> dict[str, str]:
    """What was read, for people, by what it is."""
    build = state.windows_version.rpartition(".")[2]
    found = {"Windows": "%s%s" % (
        state.windows_version, " (Server %s)" % _RELEASES[build] if build in _RELEASES else "")}
    client = state.client
    if client is not None:
        found.update({
            "Mode": host_findings.MODES.get(client.mode, str(client.mode)),
            "Attestation": policy.attestation_meaning(client.attestation_status),
            "Attested by": host_findings.ATTESTATION_MODES.get(
                client.attestation_mode, str(client.attestation_mode)),
            "Guarded": "yes" if client.guarded else "no",
            "Attestation server": client.attestation_url,
            "Key protection server": client.key_protection_url})
    if state.guardian is not None:
        found.update({"Fabric's guardian": state.guardian.name,
                      "Thumbprint": state.guardian.thumbprint,
                      "Pinned": "yes" if state.options.fabric_thumbprint else "no"})
        found.update({"Its %s certificate" % one.usage: "valid until %s" % one.not_after.date()
                      for one in state.guardian.certificates if one.not_after is not None})
    found["compute_driver"] = state.options.compute_driver or "not set"
    return {name: value for name, value in found.items() if value}


def lines(state: host_findings.HostState, found: list[host_findings.Finding]) -> Iterator[str]:
    """For people."""
    yield from tables.table(("Field", "Value"), list(facts(state).items()))
    yield ""
    if found:
        yield from tables.table(("Finding", "What is wrong", "What to do"), [
            ("%s\n%s" % (one.severity.value, one.code.value), one.sentence, one.remedy)
            for one in found])
    errors_found = sum(one.severity is host_findings.Severity.ERROR for one in found)
    if state.windows_problem:
        yield "Whether VMs with a vTPM can run here cannot be told."
        return
    yield "No vTPM runs on this host: %d error%s." % (
        errors_found, "s" if errors_found > 1 else "") if errors_found else \
        "VMs with a vTPM can run on this host."


def as_dict(state: host_findings.HostState,
            found: list[host_findings.Finding]) -> dict[str, Any]:
    """For programs."""
    return {"host": facts(state), "findings": [
        {"code": one.code.value, "severity": one.severity.value, "what": one.sentence,
         "remedy": one.remedy} for one in found]}
