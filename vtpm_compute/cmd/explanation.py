"""Why a server with a vTPM would run, or would not: what was found out, put together. Pure.

Everything that decides is asked of :mod:`vtpm_scheduling.policy`. What is added here is how much of
it can be known: Nova's API does not show what a host reports, nor the mark of a server that has a
vTPM. Each answer says where it comes from, and what could not be told.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vtpm_compute import lifecycle
from vtpm_scheduling import policy


class Source(str, enum.Enum):
    """Where an answer comes from."""

    API = "API"
    RECORDS = "Nova's records"
    KEY_MANAGER = "key manager"
    # Of what the API shows of something else.
    CONCLUDED = "concluded from the API"


class Outcome(enum.IntEnum):
    """What a command says at its end; its exit code."""

    YES = 0
    NO = 1
    UNKNOWN = 2


# What Nova calls a server without a host that has been on one.
SHELVED = ("SHELVED", "SHELVED_OFFLOADED")

# Which source tells that a host does not fit, and why. Without Nova's records the first three of
# CONCLUDED are one answer: the host has no trait of a guarded host.
MISFIT_SOURCES: Mapping[policy.MisfitCode, tuple[Source, ...]] = {
    policy.MisfitCode.OTHER_HYPERVISOR: (Source.API,),
    policy.MisfitCode.TOO_OLD: (Source.API,),
    policy.MisfitCode.NO_REPORT: (Source.CONCLUDED, Source.RECORDS),
    policy.MisfitCode.NOT_GUARDED: (Source.CONCLUDED, Source.RECORDS),
    policy.MisfitCode.NO_FABRIC_GUARDIAN: (Source.CONCLUDED, Source.RECORDS),
    policy.MisfitCode.NO_FABRIC: (Source.API,),
    policy.MisfitCode.SEVERAL_FABRICS: (Source.API,),
    policy.MisfitCode.MIXED_FABRIC: (Source.RECORDS,),
    # By the label from the API, by the guardian from the records.
    policy.MisfitCode.OTHER_FABRIC: (Source.API, Source.RECORDS),
}

# All but one are decided from image and flavor; that one from the mark of the server.
REFUSAL_SOURCES: Mapping[policy.RefusalCode, tuple[Source, ...]] = {
    code: (Source.CONCLUDED, Source.RECORDS) if code is policy.RefusalCode.VTPM_NOT_ADDED
    else (Source.API, Source.RECORDS) for code in policy.RefusalCode}

# Reports of a host whose trait says that it is guarded and has its fabric's guardian; which one,
# the API does not say. It never leaves this module.
_UNSEEN = "-"
_UNTOLD = tuple(code for code, sources in MISFIT_SOURCES.items() if Source.CONCLUDED in sources)
_HOW_TO_TELL = "run this on a controller with --config-file, or \"host check\" on the host"


@dataclasses.dataclass(frozen=True)
class Host:
    """A host as the API and, where they were read, Nova's records show it.

    :ivar name: of its nova-compute.
    :ivar node: its name as a hypervisor.
    :ivar fabric_labels: values of ``hgs_fabric`` on its aggregates.
    :ivar has_trait: whether placement has it as a guarded host; None: that could not be asked.
    :ivar is_reported: whether ``report`` was read.
    :ivar report: see :class:`vtpm_scheduling.policy.HostFacts`.
    :ivar problem: why Nova would send it no server at all, such as 'its nova-compute is down'.
    """

    name: str
    node: str
    hypervisor_type: str | None
    hypervisor_version: int | None
    fabric_labels: frozenset[str] = frozenset()
    has_trait: bool | None = None
    is_reported: bool = False
    report: policy.HostReport | None = None
    problem: str = ""

    @property
    def facts(self) -> policy.HostFacts:
        """What the policy is asked about."""
        report = self.report
        if not self.is_reported:
            report = policy.HostReport(
                guarded=True, hypervisor_version=self.hypervisor_version or 0,
                attestation_status=policy.Attestation.PASSED,
                fabric_thumbprint=_UNSEEN) if self.has_trait else None
        return policy.HostFacts(
            self.hypervisor_type, self.hypervisor_version, report, self.fabric_labels)


@dataclasses.dataclass(frozen=True)
class HostAnswer:
    """Whether a server with a vTPM can run on one host.

    :ivar outcome: whether it fits.
    :ivar codes: why not; several where it cannot be told which of them.
    :ivar sentence: for people.
    :ivar source: of the outcome.
    """

    host: str
    outcome: Outcome
    codes: tuple[policy.MisfitCode, ...]
    sentence: str
    source: Source

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"host": self.host, "verdict": HOST_WORDS[self.outcome],
                "codes": [code.value for code in self.codes], "reason": self.sentence,
                "source": self.source.value}


HOST_WORDS = {Outcome.YES: "fits", Outcome.NO: "does not fit", Outcome.UNKNOWN: "not known"}


def judge_hosts(hosts: Iterable[Host], home: policy.Home | None = None,
                require_fabric_aggregate: bool = True) -> list[HostAnswer]:
    """Which hosts fit a server with a vTPM, as the scheduler would see it.

    :param home: for a server that has a vTPM: the fabric that it belongs to.
    :param require_fabric_aggregate: the scheduler's option.
    """
    hosts = list(hosts)
    mixed = policy.mixed_fabrics(host.facts for host in hosts if not host.problem)
    answers = []
    for host in hosts:
        reason = policy.misfit(host.facts, home, require_fabric_aggregate, mixed)
        answers.append(_judged(host, home, reason))
    return answers


def _judged(host: Host, home: policy.Home | None, reason: policy.Misfit | None) -> HostAnswer:
    def answer(outcome: Outcome, sentence: str, source: Source,
               *codes: policy.MisfitCode) -> HostAnswer:
        return HostAnswer(host.name, outcome, codes, sentence, source)

    source = Source.RECORDS if host.is_reported else Source.API
    if reason is not None and reason.code not in _UNTOLD:
        return answer(Outcome.NO, reason.sentence,
                      source if source in MISFIT_SOURCES[reason.code] else Source.API, reason.code)
    if reason is not None and host.is_reported:
        return answer(Outcome.NO, reason.sentence, source, reason.code)
    if reason is not None and host.has_trait is None:
        return answer(Outcome.UNKNOWN, "not known from the API: placement did not tell whether it "
                      "is guarded; %s" % _HOW_TO_TELL, Source.API, *_UNTOLD)
    if reason is not None:
        return answer(
            Outcome.NO, "placement has no trait %s of it. Why is not known from the API: it does "
            "not run the vTPM driver, is not guarded, or lacks its fabric's guardian; %s" % (
                policy.TRAIT_GUARDED_HOST, _HOW_TO_TELL), Source.CONCLUDED, *_UNTOLD)
    if host.problem:
        return answer(Outcome.NO, "it could run a vTPM, but %s" % host.problem, source)
    if host.is_reported:
        return answer(Outcome.YES, "", source)
    return answer(Outcome.YES, "not known from the API: which guardian it has", Source.CONCLUDED)


def home_of(thumbprint: str | None, labels: frozenset[str],
            require_fabric_aggregate: bool,
            host_thumbprint: str | None = None) -> policy.Home | None:
    """The fabric of a server that has a vTPM, as the scheduler finds it.

    :param thumbprint: in its mark; None where there is none, or it is not known.
    :param labels: of the host where it is.
    :param host_thumbprint: of that host's guardian; None where it is not known.
    """
    if thumbprint:
        return policy.Home(fabric_thumbprint=thumbprint)
    return policy.home_by_host(labels, host_thumbprint, require_fabric_aggregate)


@dataclasses.dataclass(frozen=True)
class KeyAnswer:
    """What became of one entry of ``os_vtpm_keys``.

    :ivar reference: as it stands there.
    :ivar readable: whether the caller could read it.
    :ivar sentence: what it holds, or why it cannot be read.
    """

    reference: str
    readable: bool
    sentence: str


@dataclasses.dataclass(frozen=True)
class Keys:
    """What ``os_vtpm_keys`` names.

    :ivar read_by: the user with whose rights they were read.
    :ivar answers: one an entry.
    :ivar lines: what they are together: owner, guardians, what was verified.
    :ivar problem: why no server would be built with them; empty: nothing speaks against it.
    :ivar guardians: SHA-256 thumbprints of who can unwrap the key protector; None: it is made
        on the host, for the fabric's guardian too.
    :ivar details: the same as ``lines``, for programs.
    """

    read_by: str
    answers: tuple[KeyAnswer, ...]
    lines: tuple[str, ...] = ()
    problem: str = ""
    guardians: frozenset[str] | None = None
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def fabrics_sentence(keys: Keys, fabrics: Mapping[str, str]) -> tuple[Outcome, str]:
    """Whether the cloud's fabrics can unwrap a given key protector.

    :param fabrics: by thumbprint, what a guardian is called; empty: none is known.
    """
    if keys.guardians is None:
        return Outcome.YES, "The host makes the key protector, and grants its fabric's guardian"
    if not fabrics:
        return Outcome.UNKNOWN, (
            "Whether the fabric's guardian can unwrap it is not known from the API: give "
            "--guardian, or --config-file on a controller")
    granted = [name for thumbprint, name in fabrics.items() if thumbprint in keys.guardians]
    if granted:
        return Outcome.YES, "Can be unwrapped by the guardian of: %s" % ", ".join(sorted(granted))
    return Outcome.NO, (
        "It does not name the guardian of any fabric here (%s): make it with "
        "Grant-HgsKeyProtectorAccess for that guardian, and store it again" % ", ".join(
            sorted("%s..." % one[:16] for one in fabrics)))


@dataclasses.dataclass(frozen=True)
class Operation:
    """What an operation would do to a server's vTPM now.

    :ivar drivers: of the server's host, as compute_driver names them; empty: whatever it is.
    :ivar verdict: such as 'keeps its TPM', 'refused', 'not now'.
    """

    name: str
    drivers: tuple[str, ...]
    verdict: str
    sentence: str


_ONLY_IN = {
    lifecycle.Operation.CONFIRM: ("VERIFY_RESIZE",),
    lifecycle.Operation.REVERT: ("VERIFY_RESIZE",),
    lifecycle.Operation.UNSHELVE: SHELVED,
    lifecycle.Operation.LIVE_MIGRATION: ("ACTIVE", "PAUSED"),
}
_OF_SHELVED = (lifecycle.Operation.UNSHELVE, lifecycle.Operation.DELETE)
_NOT_NOW = "not now"
# Those that need a host that fits, beside the server's own.
_MOVES = (lifecycle.Operation.LIVE_MIGRATION, lifecycle.Operation.EVACUATION)
_ON_THE_HOST = (lifecycle.Condition.GUEST_STATE_IN_PLACE, lifecycle.Condition.NO_CHECKPOINT,
                lifecycle.Condition.OWN_DISK, lifecycle.Condition.IMAGE_THERE,
                lifecycle.Condition.CAN_UNWRAP,
                lifecycle.Condition.DEFINITION_SHARED)


def operations(status: str, hosts: Sequence[HostAnswer] | None, own_host: str | None) -> Iterator[
        Operation]:
    """What each operation would do to a server with a vTPM: every one of them is answered.

    :param status: of the server, as Nova's API says it.
    :param hosts: of all hosts, for this server; None: they could not be asked for.
    """
    others = [Outcome.UNKNOWN] if hosts is None else [
        one.outcome for one in hosts if one.host != own_host]
    for operation, rules in lifecycle.RULES.items():
        name = operation.value.replace("``", "")
        reason = _why_not_now(operation, status)
        if reason:
            yield Operation(name, (), _NOT_NOW, reason)
            continue
        for rule in dict.fromkeys(rules.values()):
            drivers = tuple(one.value for one in lifecycle.Driver if rules[one] == rule)
            verdict, sentence = rule.verdict.value, rule.sentence or rule.text
            if rule.verdict is lifecycle.Verdict.KEEPS_IF:
                verdict, sentence = _with_conditions(operation, rule, others)
            yield Operation(
                name, () if len(drivers) == len(lifecycle.Driver) else drivers, verdict,
                sentence.replace("``", ""))


def _why_not_now(operation: lifecycle.Operation, status: str) -> str:
    """Why Nova takes no such operation of a server in a status; empty: it does."""
    statuses = _ONLY_IN.get(operation, (status,))
    if status not in statuses:
        return "only of a server that is %s" % " or ".join(statuses)
    if status in SHELVED and operation not in _OF_SHELVED:
        return "the server is shelved"
    return ""


def _with_conditions(operation: lifecycle.Operation, rule: lifecycle.Rule,
                     others: Sequence[Outcome]) -> tuple[str, str]:
    """The verdict and the sentence, by what is known of the conditions."""
    fitting = others.count(Outcome.YES)
    if operation not in _MOVES:
        told = ""
    elif fitting:
        told = "%d other host%s; " % (fitting, " fits" if fitting == 1 else "s fit")
    elif Outcome.UNKNOWN in others:
        told = "whether another host fits is not known; "
    else:
        return "refused at present", "no other host fits"
    texts = [condition.value[1] for condition in rule.conditions if condition in _ON_THE_HOST or (
        condition is lifecycle.Condition.SAME_REQUEST)]
    return rule.verdict.value, "%skept if %s" % (told, ", and ".join(texts))


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Everything that was found out.

    :ivar subject: what it is about, by the names of its parts, in their order.
    :ivar request: what the policy says.
    :ivar request_source: what that was decided from.
    :ivar has_vtpm: whether the server has one; None: it is none that was built.
    :ivar hosts: of all hosts; None: they could not be asked for, see ``hosts_problem``.
    :ivar remarks: sentences about what is assumed, and what could not be told.
    """

    subject: Mapping[str, str]
    request: policy.VtpmRequest | policy.Refusal | None
    request_source: Source = Source.API
    keys: Keys | None = None
    fabrics: tuple[Outcome, str] | None = None
    hosts: Sequence[HostAnswer] | None = None
    hosts_problem: str = ""
    has_vtpm: bool | None = None
    own_host: str | None = None
    operations: Sequence[Operation] = ()
    remarks: Sequence[str] = ()

    @property
    def outcome(self) -> Outcome:
        """Whether it would run: NO as soon as one thing speaks against it."""
        found = [outcome for outcome, _ in self._parts()]
        for one in (Outcome.NO, Outcome.UNKNOWN):
            if one in found:
                return one
        return Outcome.YES

    @property
    def conclusion(self) -> str:
        """One sentence."""
        outcome = self.outcome
        reasons = [sentence for one, sentence in self._parts() if one is outcome and sentence]
        does = {Outcome.YES: "It would run", Outcome.NO: "It would not run",
                Outcome.UNKNOWN: "Whether it would run cannot be told"}[outcome]
        return "%s%s%s" % (does, ": " if reasons else "", "; ".join(
            reason.rstrip(".") for reason in reasons))

    def _parts(self) -> Iterator[tuple[Outcome, str]]:
        """What speaks for and against it."""
        request = self.request
        if request is None:
            yield Outcome.UNKNOWN, "what it asks for is not known from the API"
            return
        if isinstance(request, policy.Refusal):
            yield Outcome.NO, request.sentence
            return
        if not request.vtpm:
            yield Outcome.YES, "no vTPM is asked for"
            return
        if self.has_vtpm is None:
            # A server that was built has its key protector.
            if self.keys is not None and self.keys.problem:
                yield Outcome.NO, self.keys.problem
            if self.fabrics is not None and self.fabrics[0] is Outcome.NO:
                yield self.fabrics
        yield self._hosts()

    def _hosts(self) -> tuple[Outcome, str]:
        if self.hosts is None:
            return Outcome.UNKNOWN, self.hosts_problem
        looked_at = [one for one in self.hosts if self.own_host in (None, one.host)]
        outcomes = [one.outcome for one in looked_at]
        if Outcome.YES in outcomes:
            return Outcome.YES, "%d of %d hosts fit" % (
                outcomes.count(Outcome.YES), len(outcomes)) if self.own_host is None else \
                "its host fits"
        if Outcome.UNKNOWN in outcomes:
            return Outcome.UNKNOWN, "of no host it is known that it fits"
        if not self.hosts:
            return Outcome.NO, "there is no host"
        if self.own_host is not None:
            return Outcome.NO, "its host does not fit: %s" % "; ".join(
                one.sentence for one in looked_at)
        return Outcome.NO, "no host fits"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found: dict[str, Any] = {
            "subject": dict(self.subject),
            "outcome": {Outcome.YES: "would_run", Outcome.NO: "would_not_run",
                        Outcome.UNKNOWN: "not_known"}[self.outcome],
            "conclusion": self.conclusion,
            "request": request_as_dict(self.request, self.request_source),
            "remarks": list(self.remarks)}
        if self.has_vtpm is not None:
            found["has_vtpm"] = self.has_vtpm
        if self.keys is not None:
            found["keys"] = {
                "read_by": self.keys.read_by,
                "secrets": [dataclasses.asdict(one) for one in self.keys.answers],
                "holds": dict(self.keys.details), "problem": self.keys.problem,
                "fabrics": self.fabrics[1] if self.fabrics else ""}
        if self.hosts is not None:
            found["hosts"] = [one.as_dict() for one in self.hosts]
        elif self.hosts_problem:
            found["hosts_problem"] = self.hosts_problem
        if self.operations:
            found["operations"] = [dataclasses.asdict(one) for one in self.operations]
        return found


def request_as_dict(request: policy.VtpmRequest | policy.Refusal | None,
                    source: Source) -> dict[str, Any]:
    """The policy's answer, for JSON."""
    if request is None:
        return {"verdict": "not_known"}
    if isinstance(request, policy.Refusal):
        return {"verdict": "refused", "code": request.code.value, "reason": request.sentence,
                "source": source.value}
    return {"verdict": "vtpm" if request.vtpm else "no_vtpm", "asked_by": request.asked_by,
            "shielded": request.shielded, "secure_boot": request.secure_boot,
            "keys": [key.secret_id for key in request.keys], "source": source.value}


def request_rows(request: policy.VtpmRequest | policy.Refusal | None,
                 is_built: bool = False) -> Iterator[tuple[str, str]]:
    """The policy's answer, for people: what, and what about it.

    :param is_built: whether there is a server that has its key protector.
    """
    if request is None:
        yield "Asks for", "not known from the API"
    elif isinstance(request, policy.Refusal):
        yield "Asks for", "refused (%s)" % request.code.value
        yield "Why", request.sentence
    elif not request.vtpm:
        yield "Asks for", "no vTPM"
        yield "Why", "neither the image nor the flavor requires one"
    else:
        yield "Asks for", "a shielded VM with a vTPM" if request.shielded else "a vTPM"
        yield "Why", request.asked_by
        if request is policy.EXISTING_VTPM:
            return
        yield "Secure Boot", "yes" if request.secure_boot else "no"
        if is_built:
            return
        if request.uses_pdk:
            yield "Key protector", "from the provisioning data file (%s)" % policy.IMAGE_PDK
        elif not request.keys:
            yield "Key protector", "made on the host, with an owner whose keys nobody keeps"
