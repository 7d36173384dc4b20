"""``host inventory``: the VMs with a vTPM on this Hyper-V host: who owns them, who can start them.

Reads what Hyper-V has now: it replaces a key protector at each start.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
from collections.abc import Iterator
from typing import Any

from vtpm_compute import errors, key_protector
from vtpm_compute.cmd import commands, missing, tables
from vtpm_compute.cmd.explanation import Outcome

_GENERATION_2 = 2


@dataclasses.dataclass(frozen=True)
class Machine:
    """A virtual machine with a vTPM.

    :ivar server: the server's id, from the machine's notes; empty where there is none.
    :ivar protector: None where it cannot be read; ``problem`` says why.
    """

    name: str
    server: str
    shielded: bool
    protector: key_protector.KeyProtector | None
    problem: str = ""

    def warnings(self, days: int, now: datetime.datetime) -> list[str]:
        """What the operator has to look at.

        :param days: a certificate that expires within so many days is told.
        """
        if self.protector is None:
            return [self.problem]
        last = now + datetime.timedelta(days=days)
        return ["the certificate of %s %s on %s" % (
            one.name, "expired" if one.not_after < now else "expires", one.not_after.date())
            for one in self.protector.guardians if one.not_after <= last]

    def as_dict(self, days: int, now: datetime.datetime) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, "server": self.server, "shielded": self.shielded,
                "protector": None if self.protector is None
                else commands.protector_as_json(self.protector),
                "warnings": self.warnings(days, now)}


def run(options: argparse.Namespace) -> Outcome:
    """List them.

    :returns: NO when there is something to look at.
    :raises vtpm_compute.errors.VtpmError: when the host cannot be asked.
    """
    machines = read()
    now = datetime.datetime.now(datetime.timezone.utc)
    for line in [tables.as_json([one.as_dict(options.days, now) for one in machines])] \
            if options.format == tables.JSON else lines(machines, options.days, now):
        print(line)
    return Outcome.NO if any(one.warnings(options.days, now) for one in machines) else Outcome.YES


def read() -> list[Machine]:
    """The virtual machines of this host that have a vTPM.

    :raises vtpm_compute.errors.RecordsError: when os-win is not here.
    :raises vtpm_compute.errors.AttachError: when Hyper-V does not answer.
    """
    try:
        # Not above: only a Hyper-V host has them.
        from os_win import utilsfactory

        from vtpm_compute import security, windows_errors
    except ModuleNotFoundError as exc:
        raise errors.RecordsError(missing.clause(exc, missing.ON_A_COMPUTE_HOST)) from None
    utils = windows_errors.translated(
        "Hyper-V cannot be asked", errors.AttachError, utilsfactory.get_vmutils)
    service = security.SecurityService(utils)
    names = windows_errors.translated(
        "Hyper-V could not list its virtual machines", errors.AttachError, utils.list_instances)
    return [machine for name in sorted(names)
            for machine in [_machine(utils, service, name)] if machine is not None]


def _machine(utils: Any, service: Any, name: str) -> Machine | None:
    """None: it has no vTPM."""
    from vtpm_compute import windows_errors

    server, shielded = "", False
    try:
        # Others have no security settings.
        if windows_errors.translated("Hyper-V could not tell its generation", errors.AttachError,
                                     lambda: utils.get_vm_generation(name)) != _GENERATION_2:
            return None
        settings = service.read(name)
        if not settings.tpm_enabled:
            return None
        shielded = settings.shielded
        server = windows_errors.translated(
            "Hyper-V could not read its notes", errors.AttachError,
            lambda: utils.get_instance_uuid(name)) or ""
        protector = key_protector.parse(
            [service.read_key_protector(name)], "the VM", refuse_wrong_signatures=False)
    except errors.VtpmError as exc:
        return Machine(name, server, shielded, None, str(exc))
    return Machine(name, server, shielded, protector)


def lines(machines: list[Machine], days: int, now: datetime.datetime) -> Iterator[str]:
    """For people."""
    yield from tables.table(("Virtual machine", "Kind", "Who can start it", "To look at"), [
        ("%s\n%s" % (one.name, one.server), "shielded" if one.shielded else "vtpm",
         "\n".join("%s, until %s" % (guardian, guardian.not_after.date())
                   for guardian in (one.protector.guardians if one.protector else ())),
         "\n".join(one.warnings(days, now))) for one in machines])
    yield "%d virtual machine%s with a vTPM." % (
        len(machines), "" if len(machines) == 1 else "s")
