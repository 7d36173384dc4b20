"""The tables of the reference, printed from the code that they are about.

``.. vtpm-table:: NAME`` in a page, NAME one of :data:`TABLES`. Sphinx is needed for the directive
alone: tests read the tables without it.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import itertools
import json
import pathlib
import re
from collections.abc import Iterable, Sequence

from vtpm_compute import errors
from vtpm_scheduling import policy

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
METADEFS = REPOSITORY / "etc" / "metadefs"
# What stands for a value that is not known before it happens.
VALUE = "…"

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

# What is done about an attestation status. Microsoft's names are those of Get-HgsTrace and
# Get-HgsClientConfiguration ("Troubleshooting guarded hosts", Microsoft Learn).
ATTESTATION_REMEDIES = {
    0: "``Set-HgsClientConfiguration`` with both URLs of the Host Guardian Service.",
    1: "``Get-HgsClientConfiguration`` makes the host attest now.",
    100: "Nothing.",
    200: "Attest again: ``Get-HgsClientConfiguration``. Look at the host's clock.",
    300: "Network or Host Guardian Service: ``Get-HgsTrace -RunDiagnostics -Detailed``.",
    301: "Register the host (key, TPM, or group) with the Host Guardian Service.",
    302: "Look at the host's TPM; register its identifier and baseline anew.",
    303: "``AttestationSubstatus`` says what: a baseline, code integrity, or debug mode.",
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


def refusals() -> str:
    """Requests that no host could satisfy: an example of each, and what its user reads."""
    rows = []
    for code in policy.RefusalCode:
        asked, refusal = refused(code)
        rows.append(["``%s``" % code.value, asked, _plain(refusal.sentence)])
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
    """What AttestationStatus means."""
    return _table(["Status", "Meaning", "What to do"], "10 40 50", [
        ["%d" % status, _plain(policy.attestation_meaning(int(status)).rpartition(" (")[0]),
         ATTESTATION_REMEDIES[int(status)]] for status in policy.Attestation])


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
    found = messages()
    rows = []
    for name, error in error_classes().items():
        said = [_plain(one) for one in found.get(name, ())]
        when = " ".join(inspect.getdoc(error).split("\n\n")[0].split())
        rows.append(["``%s``" % name, _plain(when),
                     "\n".join("- " + one for one in said) or "\\-"])
    return _table(["Error", "When", "Messages"], "18 27 55", rows)


def error_classes() -> dict[str, type]:
    """The errors of :mod:`vtpm_compute.errors` that have messages of their own."""
    return {name: one for name, one in vars(errors).items()
            if inspect.isclass(one) and issubclass(one, errors.VtpmError)
            and one is not errors.VtpmError}


TABLES = {one.__name__: one for one in (
    decision, properties, refusals, misfits, attestations, report, failures)}


# --- messages in the source ---------------------------------------------------------------------

# Exceptions of a module that become one of the package's errors, with what stands before them.
_BECOME = {"_UnreadableError": ("KeyFetchError", "vTPM key … ")}
_DEPTH = 6


def messages() -> dict[str, list[str]]:
    """By the name of an error, the messages that the package's source gives it.

    Values that are only known when it happens are :data:`VALUE`.
    """
    folder = pathlib.Path(importlib.util.find_spec("vtpm_compute").origin).parent
    found: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*.py")):
        source = _Source(ast.parse(path.read_text(encoding="utf-8")))
        for error, message in source.messages():
            found.setdefault(error, set()).add(message)
    return {error: sorted(said) for error, said in found.items()}


def _name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _with_values(text: str) -> str:
    return re.sub(r"%0?\d*[sdrXx]", VALUE, text).replace("%%", "%")


class _Source:
    """One module, of which the texts of its errors are found."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._values: dict[str, list[ast.expr]] = {}
        self._functions: dict[str, ast.FunctionDef] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        self._values.setdefault(target.id, []).append(node.value)
            elif isinstance(node, ast.FunctionDef):
                self._functions[node.name] = node

    def messages(self) -> Iterable[tuple[str, str]]:
        known = error_classes()
        wrappers = dict(self._wrappers())
        for node in ast.walk(self._tree):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = _name_of(node.func)
            if name == "translated" and len(node.args) > 1:
                wrapped = _name_of(node.args[1])
            else:
                wrapped = wrappers.get(name)
            if wrapped in known:
                for text in self._texts(node.args[0], _DEPTH):
                    yield wrapped, "%s: %s" % (_with_values(text), VALUE)
                continue
            error, before = _BECOME.get(name, (name, ""))
            if error not in known:
                continue
            position = 0
            if name == "KeyFetchError":
                position, before = 1, _BECOME["_UnreadableError"][1]
            if len(node.args) <= position:
                continue
            for text in self._texts(node.args[position], _DEPTH):
                message = before + _with_values(text)
                # Not what is made of values alone.
                if re.search(r"[a-z]{3} [a-z]|[a-z]{3} …", message[len(before):]):
                    yield error, message

    def _wrappers(self) -> Iterable[tuple[str, str]]:
        """Functions that put a problem before what went wrong, and the error that they raise."""
        for name, function in self._functions.items():
            if function.args.args and function.args.args[0].arg == "problem":
                raised = {one.attr for one in ast.walk(function) if isinstance(one, ast.Attribute)
                          and getattr(one.value, "id", "") == "errors"}
                if len(raised) == 1:
                    yield name, raised.pop()

    def _texts(self, node: ast.expr, depth: int) -> list[str]:
        """What an expression may be, with places for values; empty where that is not known."""
        if depth == 0:
            return []
        more = depth - 1
        if isinstance(node, ast.Constant):
            return [node.value] if isinstance(node.value, str) else []
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
            return self._formatted(node, more)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return [left + right for left in self._texts(node.left, more) or ["%s"]
                    for right in self._texts(node.right, more) or ["%s"]]
        if isinstance(node, ast.IfExp):
            return self._texts(node.body, more) + self._texts(node.orelse, more)
        if isinstance(node, ast.Name):
            return [text for value in self._values.get(node.id, ())
                    for text in self._texts(value, more)]
        if isinstance(node, ast.Dict):
            return [text for value in node.values for text in self._texts(value, more)]
        if isinstance(node, ast.Subscript):
            return self._texts(node.value, more)
        if isinstance(node, ast.Call):
            return self._returned(node, more)
        return []

    def _formatted(self, node: ast.BinOp, depth: int) -> list[str]:
        """A text with its places: those with a text of their own, such as a remedy, are filled."""
        values = node.right.elts if isinstance(node.right, ast.Tuple) else [node.right]
        texts = self._texts(node.left, depth)
        fillings = [self._texts(value, depth) for value in values]
        filled = []
        for text in texts:
            parts = re.split(r"(%0?\d*[sdrXx])", text)
            if len(parts) // 2 != len(fillings) or sum(map(bool, fillings)) > 1:
                filled.append(text)
                continue
            for choice in itertools.product(*[found or [None] for found in fillings]):
                filled.append("".join(
                    choice[number // 2] or part if number % 2 else part
                    for number, part in enumerate(parts)))
        return filled

    def _returned(self, node: ast.Call, depth: int) -> list[str]:
        name = _name_of(node.func)
        if name == "fitted":
            template, _, _, remedy = node.args
            return [text[::-1].replace("s%", end[::-1], 1)[::-1]
                    for text in self._texts(template, depth)
                    for end in self._texts(remedy, depth) or [VALUE]]
        function = self._functions.get(name)
        if function is None:
            return []
        return [text for one in ast.walk(function)
                if isinstance(one, ast.Return) and one.value is not None
                for text in self._texts(one.value, depth)]


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
