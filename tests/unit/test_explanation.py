"""What the operator's command concludes: every refusal, every kind of misfit, every source."""

import dataclasses
import json

import pytest

from vtpm_compute import lifecycle
from vtpm_compute.cmd import explain, explanation, tables
from vtpm_compute.cmd.explanation import Outcome, Source
from vtpm_scheduling import policy

EAST, WEST = "ab" * 32, "cd" * 32
KEY = "2f6ac6a8-4e14-4e4c-a73d-069cbf4541e6"
GEN2 = {"hw_machine_type": "hyperv-gen2"}
VTPM = dict(GEN2, os_vtpm="required")
SHIELDED = dict(GEN2, os_shielded_vm="required", os_vtpm_keys=KEY)
PDK = dict(VTPM, img_pdk_reference="x")

# For each refusal, an image and a flavor that cause it. A resize causes the last one.
REFUSED = {
    policy.RefusalCode.INVALID_VALUE: (dict(GEN2, os_vtpm="yes"), {}),
    policy.RefusalCode.CONTRADICTION: (VTPM, {"os:vtpm": "disabled"}),
    policy.RefusalCode.SHIELDED_WITHOUT_VTPM: (dict(SHIELDED, os_vtpm="disabled"), {}),
    policy.RefusalCode.KEYS_WITHOUT_VTPM: (dict(GEN2, os_vtpm_keys=KEY), {}),
    policy.RefusalCode.KEYS_AND_PDK: (dict(PDK, os_vtpm_keys=KEY), {}),
    policy.RefusalCode.PDK_WITHOUT_IMAGE: (
        dict(GEN2, img_pdk_reference="x"), {"os:vtpm": "required"}),
    policy.RefusalCode.PDK_WITHOUT_SECURE_BOOT: (PDK, {}),
    policy.RefusalCode.SECURE_BOOT_WITHOUT_OS_TYPE: (dict(VTPM, os_secure_boot="required"), {}),
    policy.RefusalCode.KEYS_CUT: (dict(VTPM, os_vtpm_keys="x" * 255), {}),
    policy.RefusalCode.KEYS_TOO_MANY: (dict(VTPM, os_vtpm_keys="a,b,c,d,e,f,g"), {}),
    policy.RefusalCode.KEY_EMPTY: (dict(VTPM, os_vtpm_keys=""), {}),
    policy.RefusalCode.KEY_MALFORMED: (dict(VTPM, os_vtpm_keys="mine"), {}),
    policy.RefusalCode.KEY_REPEATED: (dict(VTPM, os_vtpm_keys=KEY + "," + KEY), {}),
    policy.RefusalCode.NOT_GENERATION_2: ({"os_vtpm": "required"}, {}),
    policy.RefusalCode.SHIELDED_WITHOUT_SECURE_BOOT: (SHIELDED, {}),
    policy.RefusalCode.SHIELDED_WITHOUT_KEYS: (
        dict(GEN2, os_shielded_vm="required", os_secure_boot="required", os_type="windows"), {}),
    policy.RefusalCode.OTHER_HYPERVISOR: (dict(VTPM, hypervisor_type="qemu"), {}),
    policy.RefusalCode.OTHER_ARCHITECTURE: (dict(VTPM, architecture="aarch64"), {}),
}


def host(name="hv1", **changes):
    return dataclasses.replace(explanation.Host(
        name, name, "hyperv", 10000, frozenset({"east"}), True), **changes)


def reported(name="hv1", thumbprint=EAST, guarded=True, **changes):
    return host(name, is_reported=True, report=policy.HostReport(
        guarded, 10000, 100 if guarded else 301, fabric_thumbprint=thumbprint), **changes)


EAST_HOME = policy.Home(fabric_label="east")
# For each misfit: hosts of which the first has it, as the API and as the records show them, and
# the home of the server.
MISFITS = {
    policy.MisfitCode.OTHER_HYPERVISOR: (
        [host(hypervisor_type="QEMU")], [reported(hypervisor_type="QEMU")], None),
    policy.MisfitCode.TOO_OLD: (
        [host(hypervisor_version=6003)], [reported(hypervisor_version=6003)], None),
    policy.MisfitCode.NO_REPORT: (
        [host(has_trait=False)], [host(is_reported=True)], None),
    policy.MisfitCode.NOT_GUARDED: (
        [host(has_trait=False)], [reported(guarded=False)], None),
    policy.MisfitCode.NO_FABRIC_GUARDIAN: (
        [host(has_trait=False)], [reported(thumbprint=None)], None),
    policy.MisfitCode.NO_FABRIC: (
        [host(fabric_labels=frozenset())], [reported(fabric_labels=frozenset())], None),
    policy.MisfitCode.SEVERAL_FABRICS: (
        [host(fabric_labels=frozenset({"east", "west"}))],
        [reported(fabric_labels=frozenset({"east", "west"}))], None),
    policy.MisfitCode.MIXED_FABRIC: (
        None, [reported(), reported("hv2", WEST)], None),
    policy.MisfitCode.OTHER_FABRIC: (
        [host(fabric_labels=frozenset({"west"}))],
        [reported(thumbprint=WEST)], policy.Home(fabric_thumbprint=EAST)),
}


def test_the_tables_have_every_code():
    assert set(explanation.REFUSAL_SOURCES) == set(policy.RefusalCode)
    assert set(explanation.MISFIT_SOURCES) == set(policy.MisfitCode) == set(MISFITS)
    assert set(REFUSED) | {policy.RefusalCode.VTPM_NOT_ADDED} == set(policy.RefusalCode)


def explained(request, **parts):
    return explanation.Explanation({"Image": "i", "Flavor": "f"}, request, **parts)


def refusals():
    for code, (image, flavor) in REFUSED.items():
        yield pytest.param(code, policy.decide(image, flavor), id=code.value)
    yield pytest.param(policy.RefusalCode.VTPM_NOT_ADDED, policy.decide_unmarked(
        GEN2, {}, {"os:vtpm": "required"}), id="vtpm_not_added")


@pytest.mark.parametrize(("code", "request_"), refusals())
def test_every_refusal(code, request_):
    assert request_.code is code
    found = explained(request_)
    assert found.outcome is Outcome.NO
    text = "\n".join(explain.lines(found))
    assert "refused (%s)" % code.value in text
    assert text.splitlines()[-1] == "It would not run: %s" % request_.sentence
    assert found.as_dict()["request"]["code"] == code.value
    json.dumps(found.as_dict())


@pytest.mark.parametrize("code", policy.MisfitCode)
def test_every_misfit_by_the_records(code):
    _, hosts, home = MISFITS[code]
    answer = explanation.judge_hosts(hosts, home)[0]
    assert (answer.outcome, answer.codes) == (Outcome.NO, (code,))
    expected = Source.RECORDS if Source.RECORDS in explanation.MISFIT_SOURCES[code] else Source.API
    assert answer.source is expected
    assert answer.sentence


@pytest.mark.parametrize("code", policy.MisfitCode)
def test_every_misfit_by_the_api(code):
    hosts, _, home = MISFITS[code]
    sources = explanation.MISFIT_SOURCES[code]
    if hosts is None:
        assert sources == (Source.RECORDS,)
        return
    home = EAST_HOME if home is not None else None
    answer = explanation.judge_hosts(hosts, home)[0]
    assert answer.outcome is Outcome.NO and code in answer.codes
    if Source.API in sources:
        assert (answer.codes, answer.source) == ((code,), Source.API)
    else:
        assert answer.source is Source.CONCLUDED
        assert len(answer.codes) == 3 and "not known from the API" in answer.sentence


def test_what_the_api_cannot_tell_is_said():
    (answer,) = explanation.judge_hosts([host()])
    assert (answer.outcome, answer.source) == (Outcome.YES, Source.CONCLUDED)
    assert answer.sentence == "not known from the API: which guardian it has"
    (answer,) = explanation.judge_hosts([host(has_trait=None)])
    assert answer.outcome is Outcome.UNKNOWN and "not known from the API" in answer.sentence
    # The stand-in for what is not known is nobody's guardian.
    found = explained(policy.decide(VTPM, {}), hosts=[answer])
    assert '"-"' not in tables.as_json(found.as_dict())
    assert found.outcome is Outcome.UNKNOWN


def test_hosts_that_nova_would_not_use():
    (answer,) = explanation.judge_hosts([reported(problem="its nova-compute is down")])
    assert answer.outcome is Outcome.NO and answer.codes == ()
    assert answer.sentence == "it could run a vTPM, but its nova-compute is down"


def test_a_single_fabric_without_aggregates():
    nowhere = reported(fabric_labels=frozenset())
    assert explanation.judge_hosts([nowhere])[0].outcome is Outcome.NO
    assert explanation.judge_hosts([nowhere], None, False)[0].outcome is Outcome.YES
    assert explanation.home_of(None, frozenset(), False) is None
    assert explanation.home_of(None, frozenset(), True) == policy.Home()
    assert explanation.home_of(None, frozenset({"a", "b"}), True) == policy.Home()
    assert explanation.home_of(None, frozenset({"a"}), True) == policy.Home(fabric_label="a")
    assert explanation.home_of(EAST, frozenset({"a"}), True) == policy.Home(EAST)


class TestOutcome:

    request = policy.decide(dict(VTPM, os_vtpm_keys=KEY), {})
    fits, unfit = explanation.judge_hosts([reported("hv1"), reported("hv2", guarded=False)])
    keys = explanation.Keys("alice", (), guardians=frozenset({EAST}))

    def outcome(self, **parts):
        return explained(parts.pop("request", self.request), **parts).outcome

    def test_no_vtpm(self):
        assert self.outcome(request=policy.NO_VTPM) is Outcome.YES

    def test_not_known(self):
        assert self.outcome(request=None) is Outcome.UNKNOWN
        found = explained(self.request, hosts_problem="Nova says 403")
        assert found.outcome is Outcome.UNKNOWN
        assert found.conclusion == "Whether it would run cannot be told: Nova says 403"

    def test_hosts(self):
        assert self.outcome(hosts=[self.fits, self.unfit]) is Outcome.YES
        assert self.outcome(hosts=[self.unfit]) is Outcome.NO
        assert self.outcome(hosts=[]) is Outcome.NO

    def test_its_own_host_alone_counts_for_a_server(self):
        assert self.outcome(hosts=[self.fits, self.unfit], own_host="hv2") is Outcome.NO
        assert self.outcome(hosts=[self.fits, self.unfit], own_host="hv1") is Outcome.YES

    def test_keys(self):
        broken = dataclasses.replace(self.keys, problem="may not be read by you")
        assert self.outcome(hosts=[self.fits], keys=self.keys) is Outcome.YES
        assert self.outcome(hosts=[self.fits], keys=broken) is Outcome.NO
        # One that runs needs them no more.
        assert self.outcome(hosts=[self.fits], keys=broken, has_vtpm=True,
                            own_host="hv1") is Outcome.YES

    def test_a_protector_for_another_fabric(self):
        for fabrics, expected in (({EAST: "east"}, Outcome.YES), ({WEST: "west"}, Outcome.NO),
                                  ({EAST: "east", WEST: "west"}, Outcome.YES)):
            said = explanation.fabrics_sentence(self.keys, fabrics)
            assert said[0] is expected
            assert self.outcome(hosts=[self.fits], keys=self.keys, fabrics=said) is expected
        said = explanation.fabrics_sentence(self.keys, {})
        assert said[0] is Outcome.UNKNOWN and "not known from the API" in said[1]
        made_here = dataclasses.replace(self.keys, guardians=None)
        assert explanation.fabrics_sentence(made_here, {})[0] is Outcome.YES


def test_hosts_without_hyperv_are_one_row():
    hosts = [host("kvm%d" % number, hypervisor_type="QEMU") for number in range(3)]
    text = "\n".join(explain.lines(explained(
        policy.decide(VTPM, {}), hosts=explanation.judge_hosts([*hosts, host("hv1")]))))
    assert "| 3 hosts " in text and "kvm" not in text and "| hv1 " in text


def test_a_table():
    rows = [("1", None), ("two\nthree", "x " * 40), ("4", "ab" * 33)]
    assert list(tables.table(("A", "Bcd"), rows)) == [
        "+-------+--------------------------------------------------------------------+",
        "| A     | Bcd                                                                |",
        "+-------+--------------------------------------------------------------------+",
        "| 1     |                                                                    |",
        "| two   | x x x x x x x x x x x x x x x x x x x x x x x x x x x x x x x x    |",
        "| three | x x x x x x x x                                                    |",
        "| 4     | %s |" % ("ab" * 33),
        "+-------+--------------------------------------------------------------------+"]


class TestOperations:

    def operations(self, status, hosts, own_host="hv1"):
        answers = explanation.judge_hosts(hosts)
        return {(one.name, one.drivers): one for one in explanation.operations(
            status, answers, own_host)}

    def test_what_is_not_now(self):
        told = self.operations("SHELVED", [reported()])
        assert told["rebuild", ()].sentence == "the server is shelved"
        told = self.operations("SHUTOFF", [reported()])
        assert told["live migrate", ()].sentence == "only of a server that is ACTIVE or PAUSED"

    def test_what_the_drivers_refuse(self):
        told = self.operations("ACTIVE", [reported()])
        assert told["shelve, with or without offload", ()].verdict == "refused"
        assert told["rebuild", ()].verdict == "new TPM, on purpose"
        nova = (lifecycle.Driver.NOVA.value,)
        assert told["resize, cold migrate", nova].verdict == "refused"

    def test_a_move_needs_another_host(self):
        for others, verdict, sentence in (
                ([], "refused at present", "no other host fits"),
                ([reported("hv2", guarded=False)], "refused at present", "no other host fits"),
                ([reported("hv2")], "keeps its TPM, or refused", "1 other host fits; kept if")):
            told = self.operations("ACTIVE", [reported(), *others])["live migrate", ()]
            assert told.verdict == verdict and told.sentence.startswith(sentence)
