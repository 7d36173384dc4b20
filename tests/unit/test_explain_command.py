"""``nova-hyperv-vtpm explain`` prints why, for every refusal, every misfit and every operation.

The command as it is, over HTTP to a cloud's APIs as small as can be; of Nova's records the reader
alone is replaced.
"""

import dataclasses
import http.server
import json
import threading
import types
import urllib.parse

import pytest

from tests.unit.test_explanation import GEN2, MISFITS, REFUSED, VTPM, reported
from vtpm_compute import lifecycle
from vtpm_compute.cmd import controller, explanation, operator
from vtpm_scheduling import instance_facts, policy

OLD, NEW = "old", "new"


class Apis(http.server.ThreadingHTTPServer):
    """Nova, Glance and Placement; ``answers`` is by path, without the query."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = {}

    def set(self, image, flavors, hosts=(), server=None):
        """:param hosts: values of explanation.Host; the server is on one named ``hv0``"""
        nothing = {"flavors": [], "servers": [], "hypervisors": []}
        self.answers = {
            "/images/i": dict(image, id="i", name="i"),
            **{"/flavors/" + name: {"flavor": {"id": name, "name": name, "extra_specs": specs}}
               for name, specs in flavors.items()},
            "/os-hypervisors/detail": {"hypervisors": [{
                "id": one.name, "hypervisor_hostname": one.node,
                "state": "down" if one.problem else "up",
                "status": "enabled", "service": {"host": one.name},
                "hypervisor_type": one.hypervisor_type,
                "hypervisor_version": one.hypervisor_version} for one in hosts]},
            "/os-hypervisors/detail?marker": nothing,
            "/os-aggregates": {"aggregates": [
                {"hosts": [one.name], "metadata": {policy.AGGREGATE_FABRIC: label}}
                for one in hosts for label in one.fabric_labels]},
            "/resource_providers": {"resource_providers": [
                {"uuid": one.name} for one in hosts if one.has_trait]}}
        if server is not None:
            self.answers["/servers/s"] = {"server": dict({
                "id": "s", "name": "s", "status": "ACTIVE", "image": {"id": "i"},
                "flavor": {"original_name": OLD, "extra_specs": flavors[OLD]},
                "OS-EXT-SRV-ATTR:host": "hv0"}, **server)}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        path = url.path + ("?marker" if "marker=" in url.query else "")
        found = self.server.answers.get(path)
        body = json.dumps(found or {}).encode()
        self.send_response(404 if found is None else found.get("code", 200))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def apis(monkeypatch, tmp_path):
    """The cloud that OS_* variables name."""
    server = Apis()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OS_AUTH_TYPE", "none")
    url = "http://127.0.0.1:%d" % server.server_address[1]
    for service in ("COMPUTE", "IMAGE", "PLACEMENT"):
        monkeypatch.setenv("OS_%s_ENDPOINT_OVERRIDE" % service, url)
    yield server
    server.shutdown()
    server.server_close()


def explained(capsys, *arguments):
    """(exit code, what it prints for people, the same as JSON)."""
    code = operator.main(["explain", *arguments])
    shown = capsys.readouterr()
    assert shown.err == ""
    assert operator.main(["explain", *arguments, "--format", "json"]) == code
    return code, Printed(shown.out), json.loads(capsys.readouterr().out)


class Printed:
    """What was printed for people; tables break lines where a column has no room."""

    def __init__(self, text):
        lines = text.splitlines()
        rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
        self.last = lines[-1]
        self._texts = [_bare(line) for line in lines] + [
            _bare(" ".join(column)) for width in {len(row) for row in rows}
            for column in zip(*[row for row in rows if len(row) == width])]

    def __contains__(self, words):
        return any(_bare(words) in text for text in self._texts)


def _bare(text):
    return "".join(text.split())


def test_a_server_of_another_driver(apis, capsys, monkeypatch):
    """Nothing says whether it has a vTPM; the scheduler goes by what it asks for."""
    hosts = [reported("hv%d" % number, fabric_labels=frozenset({"one"}), has_trait=True)
             for number in range(3)]
    other = dataclasses.replace(hosts[2].report, fabric_thumbprint="cd" * 32)
    hosts[2] = dataclasses.replace(hosts[2], report=other, problem="its nova-compute is down")
    records(monkeypatch, hosts, None, instance_facts.InstanceFacts(
        VTPM, is_booted=False, host="hv0",
        host_thumbprint=hosts[0].report.fabric_thumbprint))
    apis.set(VTPM, {OLD: {}, NEW: {policy.FLAVOR_VTPM: policy.DISABLED}}, hosts, server={})
    _, shown, found = explained(capsys, "--server", "s", "--config-file", "x")
    assert found["has_vtpm"] is True and "concluded" in found["request"]["source"]
    assert "This driver did not build the server" in shown
    assert "a rebuild would give it one" not in shown
    # What failed mixes no guardians.
    assert [one["verdict"] for one in found["hosts"]] == ["fits", "fits", "does not fit"]
    assert "does not fit" in shown and "guardian" in found["hosts"][2]["reason"]
    _, _, found = explained(capsys, "--server", "s", "--flavor", NEW, "--config-file", "x")
    assert found["request"]["code"] == policy.RefusalCode.CONTRADICTION.value


def records(monkeypatch, hosts, marks, facts=None):
    """Let --config-file find these values of explanation.Host, and of the server.

    :param marks: the fabric in the mark of a server that has a vTPM
    :param facts: instead of that server's
    """
    monkeypatch.setattr(controller, "load", lambda files: types.SimpleNamespace(
        compute_nodes=lambda: [types.SimpleNamespace(
            host=one.name, node=one.node, report=one.report) for one in hosts],
        fabrics=lambda nodes: {}, require_fabric_aggregate=lambda: True,
        server=lambda identifier: facts or instance_facts.InstanceFacts(
            VTPM, has_vtpm=True, fabric_thumbprint=marks, is_booted=False)))


def test_a_server_that_was_built_without_a_vtpm(apis, capsys, monkeypatch):
    """Its image's properties are those of a rebuild that was refused."""
    records(monkeypatch, [], None, instance_facts.InstanceFacts(
        VTPM, has_no_vtpm=True, is_booted=False))
    apis.set(GEN2, {OLD: {}, NEW: {policy.FLAVOR_VTPM: policy.REQUIRED}}, server={})
    _, shown, found = explained(capsys, "--server", "s", "--config-file", "x")
    assert "a rebuild would give it one" in shown and found["has_vtpm"] is False
    _, shown, found = explained(capsys, "--server", "s", "--flavor", NEW, "--config-file", "x")
    assert found["request"]["code"] == policy.RefusalCode.VTPM_NOT_ADDED.value, shown.last


@pytest.mark.parametrize("code", policy.RefusalCode)
def test_every_refusal(apis, capsys, code):
    if code is policy.RefusalCode.VTPM_NOT_ADDED:
        # Of a server that exists.
        flavors = {OLD: {}, NEW: {policy.FLAVOR_VTPM: policy.REQUIRED}}
        refusal = policy.decide_unmarked(GEN2, flavors[OLD], flavors[NEW])
        apis.set(GEN2, flavors, server={})
        arguments = ["--server", "s", "--flavor", NEW]
    else:
        image, flavor = REFUSED[code]
        refusal = policy.decide(image, flavor)
        apis.set(image, {NEW: flavor})
        arguments = ["--image", "i", "--flavor", NEW]
    assert refusal.code is code
    exit_code, shown, found = explained(capsys, *arguments)
    assert exit_code == 1
    assert "refused (%s)" % code.value in shown and refusal.sentence in shown
    assert shown.last == "It would not run: " + refusal.sentence
    assert found["request"] == {"verdict": "refused", "code": code.value,
                                "reason": refusal.sentence, "source": found["request"]["source"]}


def misfits():
    """Each with hosts of which hv1 has it, as the API and as the records show them."""
    for code, (of_api, of_records, home) in MISFITS.items():
        if of_api is not None:
            yield pytest.param(code, of_api, home, False, id="%s-by-the-api" % code.value)
        yield pytest.param(code, of_records, home, True, id="%s-by-the-records" % code.value)


@pytest.mark.parametrize(("code", "hosts", "home", "with_records"), misfits())
def test_every_misfit(apis, capsys, monkeypatch, code, hosts, home, with_records):
    arguments, server = ["--image", "i", "--flavor", NEW], None
    if home is not None:
        # Of a server that has a vTPM, of the fabric of the host where it is.
        own = reported("hv0", fabric_labels=frozenset({"home"}), has_trait=True)
        hosts, server, arguments = [own, *hosts], {}, ["--server", "s"]
    apis.set(VTPM, {OLD: {}, NEW: {}}, hosts, server)
    if with_records:
        records(monkeypatch, hosts, home.fabric_thumbprint if home else None)
        arguments.append("--config-file")
    _, shown, found = explained(capsys, *arguments)
    assert set(MISFITS) == set(policy.MisfitCode)
    told = next(one for one in found["hosts"] if one["host"] == "hv1")
    assert told["verdict"] == "does not fit" and code.value in told["codes"]
    # Without the records three of them are one answer: there is no trait.
    assert len(told["codes"]) == 1 or (not with_records and len(told["codes"]) == 3)
    # Hosts without Hyper-V, of which there may be thousands, are one row.
    name = "1 host" if code is policy.MisfitCode.OTHER_HYPERVISOR else "hv1"
    assert told["reason"] and told["reason"] in shown and name in shown




@pytest.mark.parametrize("status", ["ACTIVE", "PAUSED", "SHUTOFF", "VERIFY_RESIZE", "ERROR",
                                    "SHELVED", "SHELVED_OFFLOADED"])
def test_every_operation(apis, capsys, status):
    """Each of the drivers' table, whatever the server is: what it would do, or why not now."""
    hosts = [MISFITS[policy.MisfitCode.NO_FABRIC_GUARDIAN][0][0]]
    apis.set(VTPM, {OLD: {}}, hosts, {"status": status})
    _, shown, found = explained(capsys, "--server", "s")
    told = {}
    for one in found["operations"]:
        told.setdefault(one["name"], []).append(one)
        assert one["sentence"] and one["sentence"] in shown
        assert one["name"] in shown and one["verdict"] in shown
    assert set(told) == {one.value.replace("``", "") for one in lifecycle.Operation}
    for operation, rules in lifecycle.RULES.items():
        rows = told[operation.value.replace("``", "")]
        if rows[0]["verdict"] == "not now":
            assert len(rows) == 1
            continue
        # Each driver has one answer, and it is the table's.
        of_driver = {name: row for row in rows for name in row["drivers"] or [
            driver.value for driver in lifecycle.Driver]}
        for driver, rule in rules.items():
            verdict = of_driver[driver.value]["verdict"]
            assert verdict == rule.verdict.value or (
                rule.verdict is lifecycle.Verdict.KEEPS_IF and verdict == "refused at present")
        assert sum(len(row["drivers"]) or len(lifecycle.Driver) for row in rows) == len(
            lifecycle.Driver)
    shelved = status in explanation.SHELVED
    assert {name for name, (first, *_) in told.items() if first["verdict"] == "not now"} == {
        one.value.replace("``", "") for one in lifecycle.Operation if (
            one not in (lifecycle.Operation.UNSHELVE, lifecycle.Operation.DELETE) if shelved else
            one is lifecycle.Operation.UNSHELVE or
            one in (lifecycle.Operation.CONFIRM, lifecycle.Operation.REVERT)
            and status != "VERIFY_RESIZE" or
            one is lifecycle.Operation.LIVE_MIGRATION and status not in ("ACTIVE", "PAUSED"))}


def test_operations_without_the_hosts(apis, capsys):
    """Who may not see the hosts reads what the operations would do all the same."""
    apis.set(VTPM, {OLD: {}}, server={"OS-EXT-SRV-ATTR:host": None})
    apis.answers["/os-aggregates"] = {"code": 403}
    code, shown, found = explained(capsys, "--server", "s")
    assert code == 2 and "hosts" not in found
    (move,) = [one for one in found["operations"] if one["name"] == "live migrate"]
    assert move["verdict"] == "keeps its TPM, or refused"
    assert move["sentence"].startswith("whether another host fits is not known; kept if")
    assert move["sentence"] in shown
