"""What each operation of a server's life does to its vTPM, with each driver.

The rule: the TPM's contents survive, or the operation is refused before anything is changed. A lost
TPM is a lost BitLocker disk. :func:`decide` is the one place that says which; the drivers ask it,
and :func:`page` prints the same table for the documentation::

    python -m vtpm_compute.lifecycle doc/source/user/server-operations.rst

Pure: the standard library only.
"""

from __future__ import annotations

import enum
import pathlib
import sys
import textwrap
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Driver(enum.Enum):
    """A stock driver below ours; the value is the name of ours in ``compute_driver``."""

    COMPUTE_HYPERV = "vtpm_hyperv.HyperVDriver"
    CLUSTER = "vtpm_hyperv.HyperVClusterDriver"
    NOVA = "vtpm_hyperv.NovaHyperVDriver"


class Verdict(enum.Enum):
    """What becomes of the TPM; the value is how the documentation says it."""

    KEEPS = "keeps its TPM"
    KEEPS_IF = "keeps its TPM, or refused"
    REFUSED = "refused"
    NEW_TPM = "new TPM, on purpose"
    GONE = "the TPM goes with the server"
    NOT_OFFERED = "not offered"


class Operation(enum.Enum):
    """An operation of a server's life; the value is how the documentation says it."""

    POWER = "start, stop, soft and hard reboot"
    PAUSE = "pause, unpause, suspend, resume"
    RESCUE = "rescue, unrescue"
    HOST_BOOT = "the host boots (``resume_guests_state_on_host_boot``)"
    SNAPSHOT = "create an image, backup"
    RESIZE = "resize, cold migrate"
    CONFIRM = "confirm a resize"
    REVERT = "revert a resize"
    LIVE_MIGRATION = "live migrate"
    LIVE_MIGRATION_ABORT = "abort a live migration"
    EVACUATION = "evacuate"
    REBUILD = "rebuild"
    REBUILD_ON_VOLUME = "rebuild that keeps the boot volume (before microversion 2.93)"
    SHELVE = "shelve, with or without offload"
    UNSHELVE = "unshelve"
    CROSS_CELL = "resize to another cell"
    FAILOVER = "failover in the cluster"
    INTERRUPTED_RESIZE = "nova-compute dies in a resize and starts again"
    DELETE = "delete"


class Condition(enum.Enum):
    """What must hold where the verdict is :attr:`Verdict.KEEPS_IF`.

    The value is (for the user who asked, for the documentation).
    """

    SAME_REQUEST = (
        "A resize does not add a vTPM, take it away, or change how the server is shielded: choose "
        "another flavor.",
        "the new flavor neither forbids the vTPM nor changes how the server is shielded")
    GUEST_STATE_IN_PLACE = (
        "The file with the TPM's contents does not lie in the server's folder on this host, from "
        "which it would be copied. An administrator can move it there (Move-VMStorage).",
        "the file with the TPM's contents lies in ``Virtual Machines`` of the server's folder, "
        "from which it is copied")
    GUARDED = (
        "The other host cannot start a VM with a vTPM at present: it is not guarded, or lacks the "
        "fabric's guardian.",
        "the other host is guarded and has its fabric's guardian")
    SAME_FABRIC = (
        "The other host belongs to another fabric, which cannot unwrap the server's key protector.",
        "the other host is in the server's fabric")
    NO_CHECKPOINT = (
        "The server's VM has a checkpoint, or one is being merged into its disks: what they got "
        "since would be lost. Try again later; an administrator can remove it "
        "(Remove-VMSnapshot).",
        "the VM has no checkpoint, nor one that is being merged into its disks")
    IMAGE_THERE = (
        "The other host needs the image that the server was made from, which is deleted, "
        "deactivated or not shared with you. Restore it, or make a new server from an image of "
        "this one.",
        "the other host has the image that the server was made from in its cache, or the user who "
        "asks can read it, or the disk needs none")
    OWN_DISK = (
        "The server's VM does not have its own root disk since a rescue was interrupted. Start the "
        "server, or reboot it hard, and try again.",
        "the VM has the server's own root disk, also after a rescue that was interrupted")
    CAN_UNWRAP = (
        "The fabric's guardian on this host is not in the server's key protector: no host of the "
        "fabric could start it.",
        "the fabric's guardian is in the server's key protector")
    NOT_CLUSTERED = (
        "The failover cluster has the server's VM, and starts it itself on another node. An "
        "administrator can move its group (Move-ClusterGroup).",
        "the other host's cluster does not have the VM, on whichever node")
    NO_FAILOVER = (
        "The failover cluster has moved the server's VM to another node since the resize, which "
        "cannot be reverted from there: its files would be deleted under it.",
        "the cluster has not moved the VM to another node since")
    DEFINITION_SHARED = (
        "The server's TPM is on the host that failed: its VM's files are on no storage that this "
        "host shares. Here it would get a new and empty TPM.",
        "the VM's definition and its guest state lie on storage that both hosts share")


class Rule(NamedTuple):
    """What becomes of the TPM in one operation with one driver.

    :ivar text: for the documentation: why, or what is done for it.
    :ivar conditions: what must hold, in the order in which it is looked at.
    :ivar sentence: for the user, where it is refused always.
    """

    verdict: Verdict
    text: str
    conditions: tuple[Condition, ...] = ()
    sentence: str = ""


_KEPT = Rule(Verdict.KEEPS, "The VM stays. No key is read, no user's token is needed.")
_RESIZE = Rule(
    Verdict.KEEPS_IF, "The VM's definition is exported and imported. Looked at before the server "
    "is stopped; the scheduler looks at the target.",
    (Condition.SAME_REQUEST, Condition.GUEST_STATE_IN_PLACE, Condition.NO_CHECKPOINT,
     Condition.OWN_DISK, Condition.IMAGE_THERE, Condition.CAN_UNWRAP))
_REVERT = (
    "The old VM is imported again, with the TPM it had before the resize. A boot volume keeps what "
    "the guest wrote since: where it sealed keys anew, BitLocker asks for the recovery key.")
_DEFINES_ANEW = Rule(
    Verdict.REFUSED, "Nova's own driver defines a new VM over the old disk.",
    sentence="Nova's own Hyper-V driver would give the server a new and empty TPM in a resize or "
             "cold migration. Live migration keeps it.")
_LIVE_MIGRATION = Rule(
    Verdict.KEEPS_IF, "Hyper-V moves the VM. The scheduler and both hosts look; one that fails "
    "leaves the server where it is.",
    (Condition.GUARDED, Condition.SAME_FABRIC, Condition.OWN_DISK, Condition.CAN_UNWRAP))
_NO_ABORT = Rule(Verdict.NOT_OFFERED, "No Hyper-V driver can abort one.")
_EVACUATION = Rule(
    Verdict.KEEPS_IF, "The VM's definition is imported from the storage that the hosts share, and "
    "its volumes are connected. The host that failed must stay off until its nova-compute runs "
    "again.",
    (Condition.DEFINITION_SHARED, Condition.NO_CHECKPOINT, Condition.GUARDED,
     Condition.SAME_FABRIC))
_EVACUATION_TO_CLUSTER = Rule(
    Verdict.KEEPS_IF, "From outside of the cluster, as without one. Inside, it is the cluster that "
    "starts the VM on another node.",
    (Condition.NOT_CLUSTERED, *_EVACUATION.conditions))
_NO_EVACUATION = Rule(
    Verdict.REFUSED, "Nova's own driver evacuates no server.",
    sentence="Nova's own Hyper-V driver does not evacuate servers.")
_REBUILD = Rule(Verdict.NEW_TPM, "The new image has a new TPM, with the new image's keys.")
_REBUILD_ON_VOLUME = Rule(
    Verdict.REFUSED, "The new VM, with a new and empty TPM, would start from the old volume.",
    sentence="The rebuild would keep the server's boot volume and give it a new and empty TPM. Let "
             "it write the image to the volume: openstack server rebuild --reimage-boot-volume, "
             "from microversion 2.93.")
_SHELVE = Rule(
    Verdict.REFUSED, "Offloading destroys the VM and its TPM, also later: a shelved server is "
    "offloaded after ``shelved_offload_time``. Refused before the server is stopped; the image "
    "that Nova had made for it is deleted.",
    sentence="Shelving would destroy the server's TPM. Stop the server instead; an image of it "
             "(openstack server image create) has its disk, not its TPM.")
_UNSHELVE = Rule(
    Verdict.REFUSED, "The TPM went when the server was offloaded, with another driver.",
    sentence="The server's TPM is gone since it was shelved, and this would give it a new and "
             "empty one. A new server can be made from its image.")
_CROSS_CELL = Rule(
    Verdict.REFUSED, "The server is made anew from a snapshot of its disk. Refused on the host "
    "where it runs, before it is stopped.",
    sentence="A resize to another cell would give the server a new and empty one in the place of "
             "its TPM.")
_INTERRUPTED = Rule(
    Verdict.KEEPS, "The server's files are put back and its own VM is used again.")
_DELETE = Rule(Verdict.GONE, "What this driver put on the host goes as well.")

RULES: dict[Operation, dict[Driver, Rule]] = {
    Operation.POWER: dict.fromkeys(Driver, Rule(
        Verdict.KEEPS, "The VM stays. No key is read, no user's token is needed. A start for which "
        "the host cannot unwrap the key protector fails at once and says which guardians could; a "
        "soft reboot is not begun then, and the server runs on; an event of it tells the reason. A "
        "hard reboot needs no unwrapping.")),
    Operation.PAUSE: dict.fromkeys(Driver, Rule(
        Verdict.KEEPS, "The VM stays. A server that the host cannot unwrap stays suspended, and "
        "the reason is told.")),
    Operation.RESCUE: dict.fromkeys(Driver, Rule(
        Verdict.KEEPS_IF, "The VM stays. Where the host cannot unwrap the key protector, or what "
        "follows does not hold, neither the rescue nor its end is begun, and the server runs on as "
        "it was: Nova sets it to ERROR, and this driver back a moment later; the event tells the "
        "reason. The next start or hard reboot after one that was interrupted gives the VM its own "
        "disk again.",
        (Condition.CAN_UNWRAP, Condition.NO_CHECKPOINT))),
    Operation.HOST_BOOT: dict.fromkeys(Driver, _KEPT),
    Operation.SNAPSHOT: dict.fromkeys(Driver, Rule(
        Verdict.KEEPS, "The image has the disk, not the TPM: a server made from it gets a new one "
        "and asks for BitLocker's recovery key.")),
    Operation.RESIZE: {
        Driver.COMPUTE_HYPERV: _RESIZE, Driver.CLUSTER: _RESIZE, Driver.NOVA: _DEFINES_ANEW},
    Operation.CONFIRM: {
        Driver.COMPUTE_HYPERV: Rule(Verdict.KEEPS, "The old host's copy goes."),
        Driver.CLUSTER: Rule(Verdict.KEEPS, "The old host's copy goes."),
        Driver.NOVA: Rule(Verdict.NOT_OFFERED, "There is no resize to confirm.")},
    Operation.REVERT: {
        Driver.COMPUTE_HYPERV: Rule(Verdict.KEEPS, _REVERT),
        Driver.CLUSTER: Rule(Verdict.KEEPS_IF, _REVERT, (Condition.NO_FAILOVER,)),
        Driver.NOVA: Rule(Verdict.NOT_OFFERED, "There is no resize to revert.")},
    Operation.LIVE_MIGRATION: dict.fromkeys(Driver, _LIVE_MIGRATION),
    Operation.LIVE_MIGRATION_ABORT: dict.fromkeys(Driver, _NO_ABORT),
    Operation.EVACUATION: {
        Driver.COMPUTE_HYPERV: _EVACUATION, Driver.CLUSTER: _EVACUATION_TO_CLUSTER,
        Driver.NOVA: _NO_EVACUATION},
    Operation.REBUILD: dict.fromkeys(Driver, _REBUILD),
    Operation.REBUILD_ON_VOLUME: dict.fromkeys(Driver, _REBUILD_ON_VOLUME),
    Operation.SHELVE: dict.fromkeys(Driver, _SHELVE),
    Operation.UNSHELVE: dict.fromkeys(Driver, _UNSHELVE),
    Operation.CROSS_CELL: dict.fromkeys(Driver, _CROSS_CELL),
    Operation.FAILOVER: {
        Driver.COMPUTE_HYPERV: Rule(Verdict.NOT_OFFERED, "There is no cluster."),
        Driver.CLUSTER: Rule(
            Verdict.KEEPS, "The cluster moves the VM, and asks nobody: only nodes of one fabric "
            "may be in it."),
        Driver.NOVA: Rule(Verdict.NOT_OFFERED, "There is no cluster.")},
    Operation.INTERRUPTED_RESIZE: {
        Driver.COMPUTE_HYPERV: _INTERRUPTED, Driver.CLUSTER: _INTERRUPTED,
        Driver.NOVA: Rule(Verdict.NOT_OFFERED, "There is no resize.")},
    Operation.DELETE: dict.fromkeys(Driver, _DELETE),
}


def decide(operation: Operation, driver: Driver,
           unmet: Mapping[Condition, str] = MappingProxyType({})) -> str | None:
    """Whether an operation may go on: None, or why not, for the user who asked for it.

    :param unmet: the conditions of the operation's rule that were looked at and do not hold; with
        a sentence for the user where there is a better one than the condition's own, else "".
    :raises ValueError: for a condition that the rule does not have: nobody would be told.
    """
    rule = RULES[operation][driver]
    if not unmet.keys() <= set(rule.conditions):
        raise ValueError("%s has no such condition: %s" % (operation, unmet))
    if rule.verdict is Verdict.REFUSED:
        return rule.sentence
    return next((unmet[condition] or condition.value[0] for condition in rule.conditions
                 if condition in unmet), None)


_HEAD = """\
.. Printed by "python -m vtpm_compute.lifecycle"; a test compares it.

=========================================
What a server with a vTPM can go through
=========================================

The TPM's contents survive an operation, or it is refused before anything is changed: the server
runs on, and the reason is in its fault or in the details of its event (``openstack server event
show``). A lost TPM is a lost BitLocker disk.

"""


def page() -> str:
    """The documentation's page, as text."""
    parts = [_HEAD]
    for operation, rules in RULES.items():
        title = operation.value[0].upper() + operation.value[1:]
        parts.append("%s\n%s\n\n" % (title, "-" * len(title)))
        for rule in dict.fromkeys(rules.values()):
            drivers = [driver.value for driver in Driver if rules[driver] == rule]
            whose = "" if len(drivers) == len(Driver) else " (%s)" % ", ".join(
                "``%s``" % name for name in drivers)
            verdict = rule.verdict.value
            parts.append(_wrapped("**%s**%s. %s" % (
                verdict[0].upper() + verdict[1:], whose, rule.text)))
            if rule.conditions:
                parts.append("\nKept if\n\n")
                ends = [";"] * (len(rule.conditions) - 1) + ["."]
                parts += [_wrapped("- %s%s" % (condition.value[1], end), "  ")
                          for condition, end in zip(rule.conditions, ends)]
            parts.append("\n")
    return "".join(parts).rstrip("\n") + "\n"


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 100, subsequent_indent=indent, break_long_words=False,
                         break_on_hyphens=False) + "\n"


if __name__ == "__main__":
    pathlib.Path(sys.argv[1]).write_text(page(), encoding="utf-8")
