"""The tables of the reference, printed from the code that they are about.

``.. vtpm-table:: NAME`` in a page, NAME one of :data:`TABLES`. Sphinx is needed for the directive
alone: tests read the tables without it.
"""

from __future__ import annotations

import inspect
import itertools
import json
import pathlib
import re
from collections.abc import Iterable, Sequence

import source_texts
from source_texts import VALUE

from vtpm_compute import errors, lifecycle
from vtpm_compute.cmd import host_findings
from vtpm_scheduling import policy

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
METADEFS = REPOSITORY / "etc" / "metadefs"

_GUARDED = policy.Attestation.PASSED
_THUMBPRINT, _OTHER_THUMBPRINT = "0a1b" + "0" * 60, "9f8e" + "0" * 60
_KEY = "5c6d8f3a-0b4e-4f6c-9d0e-1a2b3c4d5e6f"
_VTPM = {policy.IMAGE_VTPM: "required", policy.IMAGE_MACHINE_TYPE: policy.GENERATION_2}
_SHIELDED = {policy.IMAGE_SHIELDED: "required", policy.IMAGE_MACHINE_TYPE: policy.GENERATION_2}
_PDK = {policy.IMAGE_PDK: "https://barbican/v1/containers/" + _KEY}

# For each refusal what asks for it: properties of the image, extra specs of the flavor.
REFUSED = {
    "invalid_value": ({policy.IMAGE_VTPM: "yes"}, {}),
    "contradiction": (_VTPM, {policy.FLAVOR_VTPM: "disabled"}),
    "shielded_without_vtpm": ({**_SHIELDED, policy.IMAGE_VTPM: "disabled"}, {}),
    "keys_without_vtpm": ({policy.IMAGE_KEYS: _KEY}, {}),
    "keys_and_pdk": ({**_VTPM, **_PDK, policy.IMAGE_KEYS: _KEY}, {}),
    "pdk_without_image": ({**_VTPM, **_PDK, policy.IMAGE_VTPM: "optional"},
                          {policy.FLAVOR_VTPM: "required"}),
    "pdk_without_secure_boot": ({**_VTPM, **_PDK}, {}),
    "secure_boot_without_os_type": ({**_VTPM, policy.IMAGE_SECURE_BOOT: "required"}, {}),
    "keys_cut": ({**_VTPM, policy.IMAGE_KEYS: ",".join(
        ["https://barbican.example.org/v1/secrets/" + _KEY] * 4)}, {}),
    "keys_too_many": ({**_VTPM, policy.IMAGE_KEYS: "1,2,3,4,5,6,7"}, {}),
    "key_empty": ({**_VTPM, policy.IMAGE_KEYS: _KEY + ","}, {}),
    "key_malformed": ({**_VTPM, policy.IMAGE_KEYS: "my-key"}, {}),
    "key_repeated": ({**_VTPM, policy.IMAGE_KEYS: "%s,%s" % (_KEY, _KEY)}, {}),
    "not_generation_2": ({policy.IMAGE_VTPM: "required"}, {}),
    "shielded_without_secure_boot": ({**_SHIELDED, policy.IMAGE_KEYS: _KEY}, {}),
    "shielded_without_keys": (
        {**_SHIELDED, policy.IMAGE_SECURE_BOOT: "required", policy.IMAGE_OS_TYPE: "windows"}, {}),
    "other_hypervisor": ({**_VTPM, "img_hv_type": "kvm"}, {}),
    "other_architecture": ({**_VTPM, "hw_architecture": "aarch64"}, {}),
}
# For the one that only a move meets: also the extra specs of the flavor that the server has.
REFUSED_MOVES = {
    "vtpm_not_added": ({policy.IMAGE_MACHINE_TYPE: policy.GENERATION_2}, {},
                       {policy.FLAVOR_VTPM: "required"}),
}

# The errors below KeyProtectorError, whose clauses it tells.
CAUSES = ("MalformedError", "_UnusableError", "WrongSignatureError", "PfxStructureError",
          "UnusableCertificateError", "UnreadableCertificateError")
# Errors whose messages another table has as well.
ELSEWHERE = {
    "RequestRefusedError": "those of `The request is refused`_",
    "ExistingVtpmError": "those of `An operation is refused`_",
    "OperationRefusedError": "those of `An operation is refused`_, and of a new flavor: "
                             "`The request is refused`_",
    "KeyProtectorError": "clauses: those of `What is wrong with a key's content`_",
}
# What host check says where it passes on what another part said.
UNREADABLE = "the message of the error"

# What an operator does about a host that does not fit.
REMEDIES = {
    "other_hypervisor": "Nothing: the host is no Hyper-V host.",
    "too_old": "Nothing: virtual TPMs came with Windows Server 2016. Upgrade the host if it is to "
               "run them.",
    "no_report": "Set ``compute_driver = vtpm_hyperv.HyperVDriver`` there and restart "
                 "nova-compute; if it is set, read its log.",
    "not_guarded": "Look the status up in the table of attestation statuses, and act on the host "
                   "or its Host Guardian Service.",
    "no_fabric_guardian": "Set ``fabric_guardian`` or ``fabric_thumbprint`` in "
                          "``[vtpm_compute]``, import the guardian (``Import-HgsGuardian``), and "
                          "read nova-compute's log: it says which of them is wrong.",
    "no_fabric": "Add the host to an aggregate with ``hgs_fabric``; or, in a cloud of one fabric, "
                 "set ``require_fabric_aggregate = false``.",
    "several_fabrics": "Take the host out of all aggregates with ``hgs_fabric`` but that of its "
                       "fabric.",
    "mixed_fabric": "Some host of the aggregates is attested by another Host Guardian Service, or "
                    "holds an old guardian: its thumbprint differs. Put it into an aggregate of "
                    "its own fabric, or set the guardian right.",
    "other_fabric": "Nothing, where the fabric is really another: the server cannot start there. "
                    "After a new guardian: see the page on its rotation.",
}


def _host(**changes: object) -> policy.HostFacts:
    """A host that fits, but for the changes; ``report_…`` are of its report."""
    known = {name: value for name, value in (
        ("guarded", True), ("attestation_status", int(_GUARDED)), ("hypervisor_version", 10000),
        ("fabric_thumbprint", _THUMBPRINT)) if name in policy.HostReport.__dataclass_fields__}
    of_report = {name.removeprefix("report_"): changes.pop(name)
                 for name in list(changes) if name.startswith("report_")}
    facts = {"hypervisor_type": policy.HYPERV, "hypervisor_version": 10000,
             "report": policy.HostReport(**{**known, **of_report}),
             "fabric_labels": frozenset({"contoso"})}
    return policy.HostFacts(**{**facts, **changes})


_HOME = policy.Home(fabric_thumbprint=_THUMBPRINT)
# For each misfit one host or more that it is about, as the arguments of policy.misfit.
UNFIT = {
    "other_hypervisor": [(_host(hypervisor_type="QEMU", report=None),)],
    "too_old": [(_host(hypervisor_version=6003, report=None),)],
    "no_report": [(_host(report=None),)],
    "not_guarded": [(_host(report_guarded=False, report_attestation_status=int(
        policy.Attestation.HOST_NOT_AUTHORISED)),)],
    "no_fabric_guardian": [(_host(report_fabric_thumbprint=None),)],
    "no_fabric": [(_host(fabric_labels=frozenset()),)],
    "several_fabrics": [(_host(fabric_labels=frozenset({"contoso", "other"})),)],
    "mixed_fabric": [(_host(), None, True, {"contoso": (_THUMBPRINT, _OTHER_THUMBPRINT)})],
    "other_fabric": [(_host(report_fabric_thumbprint=_OTHER_THUMBPRINT), _HOME),
                     (_host(), policy.Home(fabric_label="other")), (_host(), policy.Home())],
}


# --- RST ----------------------------------------------------------------------------------------

def _table(header: Sequence[str], widths: str, rows: Iterable[Sequence[str]]) -> str:
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: " + widths, ""]
    for row in itertools.chain([header], rows):
        for position, cell in enumerate(row):
            first, *more = cell.splitlines() or [""]
            lines.append(("   * - " if not position else "     - ") + first)
            lines += ["       " + line if line else "" for line in more]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """A sentence in which nothing is markup."""
    return re.sub(r"([\\*`|_])", r"\\\1", text)


def _settings(settings: dict[str, str]) -> str:
    return ", ".join("``%s=%s``" % (name, policy.quote(value, 60))
                     for name, value in settings.items()) or "nothing"


def decision() -> str:
    """The table of ``os_vtpm`` and ``os:vtpm``, as the policy decides it."""
    def cell(image: str | None, flavor: str | None) -> str:
        properties = {policy.IMAGE_MACHINE_TYPE: policy.GENERATION_2}
        found = policy.decide(
            {**properties, **({policy.IMAGE_VTPM: image} if image else {})},
            {policy.FLAVOR_VTPM: flavor} if flavor else {})
        if isinstance(found, policy.Refusal):
            return "refused"
        return "**vTPM**" if found.vtpm else "no"
    values = [None, *policy.CHOICES]
    return _table(
        ["image \\\\ flavor"] + [value or "unset" for value in values], "20 20 20 20 20",
        [[image or "unset"] + [cell(image, flavor) for flavor in values] for image in values])


def definitions() -> list[dict]:
    """The Glance metadata definitions, one a file."""
    return [json.loads(path.read_text()) for path in sorted(METADEFS.glob("*.json"))]


def properties() -> str:
    """Image properties and extra specs, out of the Glance metadata definitions."""
    rows = []
    for definition in definitions():
        on = {"OS::Glance::Image": "image", "OS::Nova::Flavor": "flavor"}[
            definition["resource_type_associations"][0]["name"]]
        for name, one in definition["properties"].items():
            rows.append(["``%s``" % name, on,
                         ", ".join("``%s``" % value for value in one.get("enum", ())) or "text",
                         _plain(one["description"])])
    return _table(["Name", "On", "Values", "Meaning"], "18 8 20 54", rows)


def refused(code: policy.RefusalCode) -> tuple[str, policy.VtpmRequest | policy.Refusal]:
    """What asks for a refusal, in RST, and what the policy answers."""
    if code.value in REFUSED_MOVES:
        image, old, new = REFUSED_MOVES[code.value]
        return ("a resize to a flavor with %s" % _settings(new),
                policy.decide_unmarked(image, old, new))
    image, flavor = REFUSED[code.value]
    return ("%s%s" % ("image: " + _settings(image),
                      "; flavor: " + _settings(flavor) if flavor else ""),
            policy.decide(image, flavor))


def sentences(kind: str) -> dict[str, list[str]]:
    """By the name of a code, what the policy's source says of it.

    :param kind: "Refusal" or "Misfit".
    """
    found: dict[str, list[str]] = {}
    for call, _ in source_texts.calls("policy", kind):
        found.setdefault(source_texts.name_of(call.args[0]), []).extend(
            source_texts.texts("policy", call.args[1]))
    return found


def refusals() -> str:
    """Requests that no host could satisfy: an example of each, and what its user reads."""
    rows = []
    for code in policy.RefusalCode:
        asked, refusal = refused(code)
        others = [text for text in sentences("Refusal").get(code.name, ())
                  if not source_texts.is_like(text, refusal.sentence)]
        rows.append(["``%s``" % code.value, asked,
                     "\n\n".join(map(_plain, [refusal.sentence, *others]))])
    return _table(["Code", "For example", "The user reads"], "18 36 46", rows)


def misfits() -> str:
    """Why a host does not fit: for the tenant, for the operator, and what to do."""
    rows = []
    for code in policy.MisfitCode:
        sentences = [policy.misfit(*arguments).sentence for arguments in UNFIT[code.value]]
        rows.append(["``%s``" % code.value, _plain(policy.for_tenants(code)),
                     "\n\n".join(_plain(one.replace(_THUMBPRINT, "0a1b…").replace(
                         _OTHER_THUMBPRINT, "9f8e…")) for one in sentences), REMEDIES[code.value]])
    return _table(["Code", "The tenant reads", "The log says", "What the operator does"],
                  "14 20 33 33", rows)


def attestations() -> str:
    """What AttestationStatus means, and what host check says to do."""
    remedies = {int(status): remedy for status, (_, remedy) in host_findings.OF_STATUS.items()}
    return _table(["Status", "Meaning", "What to do"], "10 40 50", [
        ["%d" % status, _plain(policy.attestation_meaning(int(status)).rpartition(" (")[0]),
         _plain(remedies.get(int(status), "Nothing."))] for status in policy.Attestation])


def report() -> str:
    """What a host says of itself to Nova: an example."""
    stats = policy.HostReport(**{name: value for name, value in (
        ("guarded", True), ("hypervisor_version", 10000),
        ("attestation_status", int(_GUARDED)), ("read_at", "2026-01-31T12:00:00"),
        ("fabric_thumbprint", _THUMBPRINT))
        if name in policy.HostReport.__dataclass_fields__}).to_stats()
    return _table(["Name in the host's stats", "For example"], "40 60", [
        ["``%s``" % name, "``%s``" % value.replace("0" * 60, VALUE)]
        for name, value in stats.items()])


def failures() -> str:
    """Errors of vtpm_compute and their messages, read off its source."""
    return _errors(error_classes())


def causes() -> str:
    """What may be wrong with the content of a key: clauses in the messages of KeyProtectorError."""
    return _errors(CAUSES)


def _errors(names: Iterable[str]) -> str:
    found = source_texts.messages()
    rows = []
    for name in names:
        said = [_plain(one) for one in found.get(name, ())]
        if name in ELSEWHERE:
            said.append(ELSEWHERE[name])
        rows.append(["``%s``" % name, _plain(source_texts.docstring(name)), _list(said)])
    return _table(["Error", "When", "Messages"], "18 27 55", rows)


def _list(said: Iterable[str]) -> str:
    return "\n".join("- " + one for one in said) or "\\-"


def error_classes() -> list[str]:
    """The errors of :mod:`vtpm_compute.errors` that have messages of their own."""
    return [name for name, one in vars(errors).items()
            if inspect.isclass(one) and issubclass(one, errors.VtpmError)
            and one is not errors.VtpmError]


def operations() -> str:
    """Operations of a server's life that may be refused, and what their user reads."""
    rows = []
    for operation, rules in lifecycle.RULES.items():
        for rule in dict.fromkeys(rules.values()):
            said = [rule.sentence] if rule.sentence else [
                condition.value[0] for condition in rule.conditions]
            if said:
                rows.append([operation.value, "\n\n".join(
                    "``%s``" % driver.value for driver in rules if rules[driver] == rule),
                    _list(map(_plain, said))])
    return _table(["Operation", "With", "The user reads one of"], "20 30 50", rows)


def findings() -> str:
    """What ``host check`` finds, and what it says to do: of its source."""
    said: dict[str, tuple[list[str], list[str]]] = {
        code.name: ([], []) for code in host_findings.FindingCode}
    for call, _ in source_texts.calls("host_findings", "_error", "_warning"):
        code, sentence, remedy = call.args
        # One call is for all statuses.
        name = source_texts.name_of(code)
        name = name if name in said else host_findings.FindingCode.UNKNOWN_STATUS.name
        for cell, one in zip(said[name], (sentence, remedy)):
            cell.extend(source_texts.texts("host_findings", one))
    templates, remedies = said[host_findings.FindingCode.UNKNOWN_STATUS.name]
    remedies[:] = [host_findings.DIAGNOSE]
    for status, (found, remedy) in host_findings.OF_STATUS.items():
        meaning = policy.attestation_meaning(int(status))
        said[found.name][0].extend(one.replace(VALUE, meaning, 1) for one in templates)
        said[found.name][1].append(remedy)
    said[host_findings.FindingCode.STRANGE_OPTION.name][0][:] = source_texts.appended(
        "option_files", "strange")
    return _table(["Code", "What it says", "What it says to do"], "20 40 40", [
        ["``%s``" % code.value, "\n\n".join(map(_plain, said[code.name][0])) or UNREADABLE,
         "\n\n".join(dict.fromkeys(map(_plain, said[code.name][1])))]
        for code in host_findings.FindingCode])


def upgrades() -> str:
    """What ``upgrade check`` says, of its source: what it runs on is on controllers only."""
    said: dict[str, list[str]] = {}
    for call, function in source_texts.calls("upgrade_checks", "Result", "append"):
        if function.startswith("check_"):
            said.setdefault(function, []).extend(
                source_texts.texts("upgrade_checks", call.args[-1]))
    said.setdefault("check_options", []).extend(source_texts.appended("option_files", "strange"))
    return _table(["Check", "It says"], "25 75", [
        [_plain(name.removeprefix("check_")), _list(map(_plain, said[name]))] for name in said])


def inventory() -> str:
    """The problems that ``inventory`` tells of servers."""
    return "\n".join("* " + _plain(one) for one in source_texts.returned("inventory", "_problem"))


def scheduler() -> str:
    """What the scheduler says where it is no host's fault."""
    said = [text for module in ("decision", "placement_filter")
            for call, _ in source_texts.calls(module, "NoValidHost")
            for keyword in call.keywords if keyword.arg == "reason"
            for text in source_texts.texts(module, keyword.value)]
    return "\n".join("* " + _plain(one) for one in sorted(set(said)))


TABLES = {one.__name__: one for one in (
    decision, properties, refusals, misfits, scheduler, attestations, report, operations, failures,
    causes, findings, upgrades, inventory)}


# --- Sphinx -------------------------------------------------------------------------------------

def setup(app):
    """Give Sphinx the directive."""
    from docutils import nodes, statemachine
    from docutils.parsers import rst

    class VtpmTable(rst.Directive):
        """``.. vtpm-table:: NAME``."""

        required_arguments = 1

        def run(self):
            text = TABLES[self.arguments[0]]()
            holder = nodes.Element()
            self.state.nested_parse(
                statemachine.StringList(text.splitlines(), "vtpm-table"), self.content_offset,
                holder)
            return holder.children

    app.add_directive("vtpm-table", VtpmTable)
    return {"version": "1", "parallel_read_safe": True}
