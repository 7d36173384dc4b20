"""The policy: every cell of the table, every refusal, every reason of a host."""

import dataclasses
import itertools
import string

import hypothesis
import pytest
from hypothesis import strategies as st

from vtpm_scheduling import policy

UUIDS = ["%08x-1111-2222-3333-444444444444" % number for number in range(7)]
GEN2 = {"hw_machine_type": "hyperv-gen2"}
SHIELDABLE = dict(GEN2, os_secure_boot="required", os_type="windows", os_vtpm_keys=UUIDS[0])
THUMBPRINT = "ab" * 32
NOVA_FAULT = 255
NOVA_PREFIX = "No valid host was found. "


def refusal(image, flavor=None):
    """The refusal of a request, after what holds for each of them was checked."""
    answer = policy.decide(image, flavor or {})
    assert isinstance(answer, policy.Refusal), answer
    assert len(NOVA_PREFIX + answer.sentence) <= NOVA_FAULT, answer.sentence
    return answer


# The table of the design, row by row: yes, no, or a refusal ("x").
TABLE = """
            unset  disabled  optional  required
  unset     no     no        no        yes
  disabled  no     no        no        x
  optional  no     no        no        yes
  required  yes    x         yes       yes
"""


def cells():
    lines = TABLE.strip().splitlines()
    columns = lines[0].split()
    for line in lines[1:]:
        row, *answers = line.split()
        for column, answer in zip(columns, answers):
            yield row, column, answer


@pytest.mark.parametrize(("names", "implies_shielded"), [
    (("os_vtpm", "os:vtpm"), False), (("os_shielded_vm", "os:shielded_vm"), True)])
@pytest.mark.parametrize(("row", "column", "answer"), list(cells()))
def test_table(row, column, answer, names, implies_shielded):
    image = dict(GEN2)
    if implies_shielded:
        image.update(os_secure_boot="required", os_type="windows")
    flavor = {}
    if row != "unset":
        image[names[0]] = row
    if column != "unset":
        flavor[names[1]] = column
    if answer == "yes" and implies_shielded:
        image["os_vtpm_keys"] = UUIDS[0]
    if answer == "x":
        refused = refusal(image, flavor)
        assert refused.code is policy.RefusalCode.CONTRADICTION
        assert "%s=%s" % (names[0], row) in refused.sentence
        assert "%s=%s" % (names[1], column) in refused.sentence
        return
    request = policy.decide(image, flavor)
    assert request.vtpm is (answer == "yes")
    assert request.shielded is (answer == "yes" and implies_shielded)


def test_table_walks_all_16_cells():
    assert len(list(cells())) == 16
    assert {cell[:2] for cell in cells()} == set(itertools.product(
        ("unset", *policy.CHOICES), repeat=2))


class TestBlueprint:
    """The blueprint's own examples, to the letter."""

    KEYS = ",".join(UUIDS[:6])

    def test_image(self):
        request = policy.decide({
            "hypervisor_type": "hyperv", "hw_machine_type": "hyperv-gen2",
            "hypervisor_version_requires": ">=10.0", "os_vtpm": "required",
            "os_vtpm_keys": self.KEYS}, {})
        assert request.vtpm
        assert not request.shielded
        assert not request.secure_boot
        assert [key.secret_id for key in request.keys] == UUIDS[:6]
        assert request.asked_by == "image property os_vtpm=required"

    def test_image_without_keys(self):
        request = policy.decide({
            "hypervisor_type": "hyperv", "hw_machine_type": "hyperv-gen2",
            "hypervisor_version_requires": ">=10.0", "os_vtpm": "required"}, {})
        assert request.vtpm
        assert request.keys == ()

    def test_flavor_requires_what_the_image_leaves_open(self):
        request = policy.decide(dict(GEN2, os_vtpm="optional"), {"os:vtpm": "required"})
        assert request.vtpm
        assert request.asked_by == "flavor extra spec os:vtpm=required"


VTPM = dict(GEN2, os_vtpm="required")


@pytest.mark.parametrize(("image", "flavor", "code", "words"), [
    (dict(VTPM, os_vtpm="Required"), {}, "invalid_value", ["os_vtpm=Required", "disabled"]),
    (dict(VTPM, os_vtpm=""), {}, "invalid_value", ["os_vtpm="]),
    (VTPM, {"os:vtpm": "yes"}, "invalid_value", ["os:vtpm=yes"]),
    (dict(VTPM, os_shielded_vm="1"), {}, "invalid_value", ["os_shielded_vm=1"]),
    (VTPM, {"os:shielded_vm": "true"}, "invalid_value", ["os:shielded_vm=true"]),
    (dict(VTPM, os_secure_boot="on"), {}, "invalid_value", ["os_secure_boot=on"]),
    (VTPM, {"os:secure_boot": "on"}, "invalid_value", ["os:secure_boot=on"]),
    (dict(VTPM, os_secure_boot="disabled"), {"os:secure_boot": "required"}, "contradiction",
     ["os_secure_boot=disabled", "os:secure_boot=required"]),
    (dict(GEN2, os_vtpm_keys=UUIDS[0]), {}, "keys_without_vtpm", ["os_vtpm_keys=" + UUIDS[0]]),
    (dict(GEN2, os_vtpm_keys=UUIDS[0], os_vtpm="optional"), {"os:vtpm": "disabled"},
     "keys_without_vtpm", ["os_vtpm_keys=" + UUIDS[0]]),
    (dict(VTPM, os_vtpm_keys=UUIDS[0], img_pdk_reference="x"), {}, "keys_and_pdk",
     ["os_vtpm_keys=" + UUIDS[0], "img_pdk_reference"]),
    (dict(GEN2, img_pdk_reference="x"), {"os:vtpm": "required"}, "pdk_without_image",
     ["img_pdk_reference", "os:vtpm=required", "os_vtpm=required"]),
    (dict(VTPM, img_pdk_reference="x", os_secure_boot="required"), {"os:shielded_vm": "required"},
     "pdk_without_image", ["os:shielded_vm=required", "os_shielded_vm=required"]),
    (dict(VTPM, img_pdk_reference="x", os_type="windows"), {}, "pdk_without_secure_boot",
     ["img_pdk_reference", "os_secure_boot is not set", "os_type=windows"]),
    (dict(VTPM, img_pdk_reference="x", os_type="linux", os_secure_boot="required"), {},
     "pdk_without_secure_boot", ["os_secure_boot=required", "os_type=linux"]),
    (dict(VTPM, os_secure_boot="required"), {}, "secure_boot_without_os_type",
     ["os_secure_boot=required", "os_type is not set"]),
    (VTPM, {"os:secure_boot": "required"}, "secure_boot_without_os_type",
     ["os:secure_boot=required", "os_type is not set"]),
    (dict(VTPM, os_vtpm_keys="a" * 255), {}, "keys_cut", ["os_vtpm_keys", "too long"]),
    (dict(VTPM, os_vtpm_keys=",".join(UUIDS)[:255]), {}, "keys_cut", ["os_vtpm_keys"]),
    (dict(VTPM, os_vtpm_keys=",".join("abcdefg")), {}, "keys_too_many",
     ["os_vtpm_keys=a,b,c,d,e,f,g", "7"]),
    (dict(VTPM, os_vtpm_keys=""), {}, "key_empty", ["os_vtpm_keys", "entry 1 of 1"]),
    (dict(VTPM, os_vtpm_keys=UUIDS[0] + ", "), {}, "key_empty", ["entry 2 of 2"]),
    (dict(VTPM, os_vtpm_keys=UUIDS[0] + ",,"), {}, "key_empty", ["entry 2 of 3"]),
    (dict(VTPM, os_vtpm_keys="nonsense"), {}, "key_malformed", ["os_vtpm_keys", "nonsense"]),
    (dict(VTPM, os_vtpm_keys=UUIDS[0][:-1]), {}, "key_malformed", [UUIDS[0][:-1]]),
    (dict(VTPM, os_vtpm_keys="https://kms/v1/containers/" + UUIDS[0]), {}, "key_malformed",
     ["https://kms/v1/containers/"]),
    (dict(VTPM, os_vtpm_keys="ftp://kms/v1/secrets/" + UUIDS[0]), {}, "key_malformed", ["ftp"]),
    (dict(VTPM, os_vtpm_keys="https://u@kms/v1/secrets/" + UUIDS[0]), {}, "key_malformed",
     ["https://u@kms"]),
    (dict(VTPM, os_vtpm_keys="https://kms/v1/secrets/%s?x=1" % UUIDS[0]), {}, "key_malformed",
     ["os_vtpm_keys"]),
    (dict(VTPM, os_vtpm_keys="%s,%s" % (UUIDS[1], UUIDS[1].upper())), {}, "key_repeated",
     [UUIDS[1], "twice"]),
    (dict(VTPM, os_vtpm_keys="%s,https://kms/v1/secrets/%s" % (UUIDS[1], UUIDS[1])), {},
     "key_repeated", [UUIDS[1]]),
    ({"os_vtpm": "required"}, {}, "not_generation_2", ["hw_machine_type is not set"]),
    ({"os_vtpm": "required", "hw_machine_type": "hyperv-gen1"}, {}, "not_generation_2",
     ["hw_machine_type is hyperv-gen1", "hyperv-gen2"]),
    ({}, {"os:vtpm": "required"}, "not_generation_2", ["os:vtpm=required", "hw_machine_type"]),
    (dict(VTPM, hypervisor_type="kvm"), {}, "other_hypervisor", ["hypervisor_type=kvm"]),
    (dict(VTPM, hypervisor_type="hyperv", img_hv_type="qemu"), {}, "other_hypervisor",
     ["img_hv_type=qemu"]),
    (dict(VTPM, img_hv_type="qemu"), {}, "other_hypervisor", ["img_hv_type=qemu"]),
    (dict(VTPM, architecture="aarch64"), {}, "other_architecture", ["architecture=aarch64"]),
    (dict(VTPM, hw_architecture="i686"), {}, "other_architecture", ["hw_architecture=i686"]),
    (dict(SHIELDABLE, os_shielded_vm="required", os_vtpm="disabled"), {}, "shielded_without_vtpm",
     ["os_shielded_vm=required", "os_vtpm=disabled"]),
    (dict(SHIELDABLE), {"os:shielded_vm": "required", "os:vtpm": "disabled"},
     "shielded_without_vtpm", ["os:shielded_vm=required", "os:vtpm=disabled"]),
    (dict(GEN2, os_shielded_vm="required", os_vtpm_keys=UUIDS[0]), {},
     "shielded_without_secure_boot", ["os_shielded_vm=required", "os_secure_boot is not set"]),
    (dict(GEN2, os_shielded_vm="required", os_vtpm_keys=UUIDS[0]), {"os:secure_boot": "optional"},
     "shielded_without_secure_boot", ["os:secure_boot=optional"]),
    (dict(GEN2, os_shielded_vm="required", os_secure_boot="required", os_type="windows"), {},
     "shielded_without_keys", ["os_shielded_vm=required", "os_vtpm_keys"]),
])
def test_refusals(image, flavor, code, words):
    refused = refusal(image, flavor)
    assert refused.code.value == code
    for word in words:
        assert word in refused.sentence


def test_every_refusal_has_a_case():
    cases = test_refusals.pytestmark[0].args[1]
    assert {case[2] for case in cases} | {"vtpm_not_added"} == {
        code.value for code in policy.RefusalCode}


@pytest.mark.parametrize("value", [
    UUIDS[0], UUIDS[0].upper(), " %s " % UUIDS[0],
    "http://kms:9311/v1/secrets/" + UUIDS[0],
    "https://cloud/key-manager/v1/secrets/%s/" % UUIDS[0]])
def test_forms_of_a_reference(value):
    (key,) = policy.parse_keys(value)
    assert key.secret_id == UUIDS[0]
    assert key.text == value.strip()


def test_six_references_in_their_order():
    value = ", ".join(reversed(UUIDS[:6]))
    assert [key.secret_id for key in policy.parse_keys(value)] == UUIDS[5::-1]


def test_254_characters_are_not_cut():
    reference = "https://kms/%s/secrets/%s" % ("x" * (254 - 21 - 36), UUIDS[0])
    assert len(reference) == 254
    assert len(policy.parse_keys(reference)) == 1
    assert policy.parse_keys("x" + reference).code is policy.RefusalCode.KEYS_CUT


def test_blueprint_needs_no_secure_boot_and_shielded_has_it():
    assert policy.decide(VTPM, {}).secure_boot is False
    request = policy.decide(dict(SHIELDABLE, os_shielded_vm="required"), {})
    assert request.shielded
    assert request.secure_boot
    flavored = policy.decide(dict(GEN2, os_type="windows", os_vtpm_keys=UUIDS[0]),
                             {"os:shielded_vm": "required", "os:secure_boot": "required"})
    assert flavored.shielded


def test_pdk_keeps_its_own_flow():
    request = policy.decide(dict(VTPM, img_pdk_reference="x", os_secure_boot="required",
                                 os_type="windows", os_shielded_vm="required"), {})
    assert request.uses_pdk
    assert request.shielded


def test_nothing_asked():
    assert policy.decide({}, {}) == policy.NO_VTPM
    assert policy.decide({"hw_machine_type": "pc", "hypervisor_type": "kvm"}, {}) == policy.NO_VTPM


PROPERTY_NAMES = ["os_vtpm", "os_vtpm_keys", "os_shielded_vm", "os_secure_boot", "hw_machine_type",
                  "hypervisor_type", "architecture", "img_pdk_reference"]
VALUES = st.one_of(
    st.sampled_from([*policy.CHOICES, "hyperv-gen2", "hyperv", "x86_64", ",".join(UUIDS[:2])]),
    st.text(alphabet=string.printable + "\u00e9\u4e2d\ud7ff\x00", max_size=300))


@hypothesis.given(
    st.dictionaries(st.sampled_from(PROPERTY_NAMES), VALUES),
    st.dictionaries(st.sampled_from(["os:vtpm", "os:shielded_vm", "os:secure_boot"]), VALUES))
def test_any_input_gets_an_answer(image, flavor):
    answer = policy.decide(image, flavor)
    if isinstance(answer, policy.Refusal):
        assert len(NOVA_PREFIX + answer.sentence) <= NOVA_FAULT
        assert answer.sentence.isprintable()
    elif answer.vtpm:
        assert image["hw_machine_type"] == "hyperv-gen2"
        assert "required" in (image.get("os_vtpm"), flavor.get("os:vtpm"),
                              image.get("os_shielded_vm"), flavor.get("os:shielded_vm"))
        assert len(answer.keys) <= 6
    else:
        assert "os_vtpm_keys" not in image


# --- hosts ------------------------------------------------------------------------------------

REPORT = policy.HostReport(True, 10000, 100, fabric_thumbprint=THUMBPRINT)
GOOD = policy.HostFacts("hyperv", 10000, REPORT, frozenset({"one"}))


def with_report(**changes):
    return policy.HostFacts("hyperv", 10000, policy.HostReport(
        **dict({"guarded": True, "hypervisor_version": 10000, "attestation_status": 100,
                "fabric_thumbprint": THUMBPRINT}, **changes)), frozenset({"one"}))


def host(**changes):
    return policy.HostFacts(**dict(GOOD.__dict__, **changes))


@pytest.mark.parametrize(("facts", "home", "code", "words"), [
    (host(hypervisor_type="QEMU"), None, "other_hypervisor", "QEMU"),
    (host(hypervisor_type=None), None, "other_hypervisor", "None"),
    (host(hypervisor_version=6003), None, "too_old", "6.3"),
    (host(hypervisor_version=9999), None, "too_old", "9.999"),
    (host(hypervisor_version=None), None, "too_old", "0.0"),
    (host(report=None), None, "no_report", "vTPM driver"),
    (with_report(guarded=False, attestation_status=301), None, "not_guarded", "not authorised"),
    (with_report(guarded=False, attestation_status=None), None, "not_guarded", "no attestation"),
    (with_report(guarded=False, attestation_status=77), None, "not_guarded", "77"),
    (with_report(fabric_thumbprint=None), None, "no_fabric_guardian", "guardian store"),
    (host(fabric_labels=frozenset()), None, "no_fabric", "hgs_fabric"),
    (host(fabric_labels=frozenset({"one", "two"})), None, "several_fabrics", "one, two"),
    (host(fabric_labels=frozenset({"mixed"})), None, "mixed_fabric", "hgs_fabric=mixed"),
    (host(fabric_labels=frozenset({"mixed"})), policy.Home(THUMBPRINT), "mixed_fabric", "ab, cd"),
    (GOOD, policy.Home(fabric_thumbprint="cd" * 32), "other_fabric", "cd" * 32),
    (GOOD, policy.Home(THUMBPRINT, fabric_label="two"), "other_fabric", "two"),
    (GOOD, policy.Home(None, "two"), "other_fabric", "two"),
    (GOOD, policy.Home(), "other_fabric", "not known"),
])
def test_misfits(facts, home, code, words):
    reason = policy.misfit(facts, home, mixed={"mixed": ["ab", "cd"]})
    assert reason.code.value == code
    assert words in reason.sentence


def test_every_misfit_has_a_case():
    cases = test_misfits.pytestmark[0].args[1]
    assert {case[2] for case in cases} == {code.value for code in policy.MisfitCode}


@pytest.mark.parametrize("home", [
    None, policy.Home(THUMBPRINT), policy.Home(THUMBPRINT, "one"), policy.Home(None, "one")])
def test_fits(home):
    assert policy.misfit(GOOD, home) is None


def test_windows_server_2025_and_other_spellings_fit():
    assert policy.misfit(host(hypervisor_type="Hyper-V".replace("-", ""))) is None
    assert policy.misfit(host(hypervisor_version=11000)) is None


def test_a_cloud_without_aggregates():
    bare = host(fabric_labels=frozenset())
    assert policy.misfit(bare, require_fabric_aggregate=False) is None
    assert policy.misfit(bare, policy.Home(THUMBPRINT, "one"), False) is None
    both = host(fabric_labels=frozenset({"one", "two"}))
    assert policy.misfit(both, require_fabric_aggregate=False) is not None


@pytest.mark.parametrize("report", [
    REPORT, policy.HostReport(False, 6003),
    policy.HostReport(False, 10000, 200, "2026-01-01T00:00:00", None)])
def test_report_survives_nova(report):
    assert policy.HostReport.from_stats(
        {key: str(value) for key, value in report.to_stats().items()}) == report


@pytest.mark.parametrize("stats", [
    {}, {"hyperv_attestation_read_at": "2026-01-01T00:00:00"}, *(
        {"hyperv_vtpm_report": text} for text in (
            "", "x", "1", "guarded=True hypervisor=10000", "version=1 guarded=True",
            "version=0 guarded=True hypervisor=10000", "version=x guarded=True hypervisor=10000",
            "version=1 guarded=True hypervisor=10.0"))])
def test_no_report(stats):
    assert policy.HostReport.from_stats(stats) is None


def test_anything_but_true_is_not_guarded():
    for value in ("true", "1", "", "False", "None"):
        text = REPORT.to_stats()[policy.STAT_REPORT].replace("=True", "=" + value)
        assert not policy.HostReport.from_stats({policy.STAT_REPORT: text}).guarded


def test_the_report_as_an_operator_reads_it():
    assert REPORT.to_stats() == {"hyperv_vtpm_report": (
        "version=1 guarded=True hypervisor=10000 attestation=100 fabric=" + THUMBPRINT)}


def test_a_later_version_may_say_more():
    text = REPORT.to_stats()[policy.STAT_REPORT].replace("version=1", "version=2")
    report = policy.HostReport.from_stats({policy.STAT_REPORT: text + " more=this flag"})
    assert report == dataclasses.replace(REPORT, version=2)


@hypothesis.given(st.dictionaries(
    st.sampled_from(["version", "guarded", "hypervisor", "attestation", "fabric"]),
    st.sampled_from(["1", "True", "100", "301", "10000", "ab", ""])),
    st.text(), st.sampled_from([None, policy.Home("ab"), policy.Home(None, "one")]))
def test_only_the_text_decides(values, other, home):
    stats = {policy.STAT_REPORT: " ".join(map("=".join, values.items()))}

    def reason(**more):
        return policy.misfit(host(report=policy.HostReport.from_stats(dict(stats, **more))), home)
    assert reason() == reason(hyperv_attestation_read_at=other, num_instances=other)


def test_attestation_meanings():
    for status in policy.Attestation:
        assert str(int(status)) in policy.attestation_meaning(status)


def test_every_failed_attestation_is_told_apart():
    request = policy.decide(VTPM, {})
    failed = [status for status in policy.Attestation if status != policy.Attestation.PASSED]
    reasons = [policy.misfit(with_report(guarded=False, attestation_status=int(status)))
               for status in failed]
    for seen in ({reason.sentence for reason in reasons},
                 {reason.total_name for reason in reasons},
                 {policy.no_host_sentence(request, [reason]) for reason in reasons}):
        assert len(seen) == len(failed) == 7
    for status in (None, 77, 100):
        reason = policy.misfit(with_report(guarded=False, attestation_status=status))
        assert reason.total_name == "not_guarded"
        assert "at present." in policy.no_host_sentence(request, [reason])


def a_misfit(code, attestation=""):
    return policy.Misfit(policy.MisfitCode(code), "", attestation)


def test_what_a_tenant_reads():
    request = policy.decide(VTPM, {})
    sentence = policy.no_host_sentence(request, [
        a_misfit("too_old"), a_misfit("not_guarded", "TPM error"), a_misfit("too_old"),
        a_misfit("not_guarded"), a_misfit("not_guarded", "attestation expired")])
    assert sentence == (
        "No host fits the vTPM (image property os_vtpm=required): hosts are not guarded at "
        "present (TPM error, attestation expired); hosts run a Hyper-V older than 10.0.")


def test_what_a_tenant_reads_is_never_cut():
    kinds = sorted(policy._ATTESTATION_KINDS.values(), key=len)
    for request in (policy.decide(VTPM, {}), policy.EXISTING_VTPM, policy.decide(
            SHIELDABLE, {"os:shielded_vm": "required"})):
        for count in range(1, len(policy.MisfitCode) + 1):
            for codes in itertools.combinations(policy.MisfitCode, count):
                misfits = [a_misfit(code) for code in codes]
                if policy.MisfitCode.NOT_GUARDED in codes:
                    misfits += [a_misfit("not_guarded", kind) for kind in kinds]
                sentence = policy.no_host_sentence(request, misfits)
                assert len(NOVA_PREFIX + sentence) <= NOVA_FAULT, sentence
                assert ("..." in sentence) is ("not guarded" in sentence)


def test_a_fabric_that_mixes_guardians():
    other = with_report(fabric_thumbprint="cd" * 32)
    elsewhere = policy.HostFacts("hyperv", 10000, other.report, frozenset({"two"}))
    assert policy.mixed_fabrics([GOOD, GOOD, elsewhere]) == {}
    assert policy.mixed_fabrics([other, GOOD, elsewhere]) == {
        "one": (THUMBPRINT, "cd" * 32)}
    # A host that is not guarded at present has its guardian all the same.
    assert policy.mixed_fabrics([GOOD, with_report(
        guarded=False, fabric_thumbprint="cd" * 32)]) != {}


@pytest.mark.parametrize("says_nothing", [
    host(report=None), with_report(fabric_thumbprint=None),
    policy.HostFacts("hyperv", 10000, with_report(fabric_thumbprint="cd" * 32).report,
                     frozenset({"one", "two"})),
    policy.HostFacts("hyperv", 10000, with_report(fabric_thumbprint="cd" * 32).report)])
def test_who_says_nothing_of_a_fabric(says_nothing):
    assert policy.mixed_fabrics([GOOD, says_nothing]) == {}


@pytest.mark.parametrize(("image", "old", "new", "expected"), [
    ({}, {}, {}, False),
    (GEN2, {}, {"os:vtpm": "required"}, "vtpm_not_added"),
    (dict(GEN2, os_vtpm="optional"), {"os:vtpm": "optional"}, {"os:vtpm": "required"},
     "vtpm_not_added"),
    (GEN2, {"os:vtpm": "required"}, {"os:vtpm": "required"}, True),
    (VTPM, {}, {}, True),
    (VTPM, {}, {"os:vtpm": "disabled"}, "contradiction"),
])
def test_a_move_of_a_server_without_the_mark(image, old, new, expected):
    answer = policy.decide_unmarked(image, old, new)
    if isinstance(expected, str):
        assert answer.code.value == expected
        assert len(NOVA_PREFIX + answer.sentence) <= NOVA_FAULT
    else:
        assert answer.vtpm is expected


@pytest.mark.parametrize("value", [None, "optional", "required"])
def test_an_existing_vtpm_stays(value):
    request = policy.decide_existing({} if value is None else {"os:vtpm": value})
    assert request == policy.EXISTING_VTPM


@pytest.mark.parametrize(("value", "code"), [("disabled", "contradiction"),
                                             ("no", "invalid_value")])
def test_an_existing_vtpm_and_a_flavor_without(value, code):
    answer = policy.decide_existing({"os:vtpm": value})
    assert answer.code.value == code
    assert "os:vtpm=%s" % value in answer.sentence


@pytest.mark.parametrize(("shielded", "value", "is_refused"), [
    (True, "disabled", True), (True, "required", False), (True, "optional", False),
    (False, "required", True), (False, "disabled", False), (None, "required", False)])
def test_no_move_changes_how_a_server_is_shielded(shielded, value, is_refused):
    decided = policy.decide_existing({"os:shielded_vm": value}, shielded)
    assert isinstance(decided, policy.Refusal) == is_refused


def test_a_server_that_is_known_to_have_no_vtpm():
    built = {policy.MARK_BUILT_FROM: "image-1", "image_os_vtpm": "required"}
    assert policy.is_built_without_vtpm(built, "image-1")
    assert not policy.is_built_without_vtpm({**built, policy.MARK_VTPM: "vtpm"}, "image-1")
    # By a driver that leaves no mark.
    assert not policy.is_built_without_vtpm(built, "image-2")
    assert not policy.is_built_without_vtpm({"image_os_vtpm": "required"}, "image-1")
    # Of a volume, and after a rebuild that was refused Nova names its image.
    for image in ("", None, "image-1"):
        assert not policy.is_built_without_vtpm({}, image)
        assert policy.is_built_without_vtpm({policy.MARK_BUILT_FROM: ""}, image)


@pytest.mark.parametrize("name", [policy.FLAVOR_VTPM, policy.FLAVOR_SHIELDED])
def test_a_resize_of_a_server_without_a_vtpm(name):
    asks = {name: "required"}
    refused = policy.decide_without_vtpm({name: "optional"}, asks)
    assert refused.code is policy.RefusalCode.VTPM_NOT_ADDED
    assert "flavor extra spec %s=required" % name in refused.sentence
    assert policy.decide_without_vtpm({}, asks) == refused
    invalid = policy.decide_without_vtpm({}, {name: "maybe"})
    assert invalid.code is policy.RefusalCode.INVALID_VALUE
    assert "%s=maybe" % name in invalid.sentence
    for extra_specs in ({}, {name: "optional"}, {name: "disabled"}):
        assert policy.decide_without_vtpm(asks, extra_specs) == policy.NO_VTPM
    # It came to that somehow; where it runs does not matter more than before.
    assert policy.decide_without_vtpm(asks, asks) == policy.NO_VTPM
