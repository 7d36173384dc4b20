"""The pages of the reference, and the samples, hold everything that the code has."""

import ast
import json
import pathlib
import re
import sys

import pytest
from oslo_config import cfg, generator

from tests import environment
from vtpm_compute import conf as compute_conf
from vtpm_compute import keys, lifecycle
from vtpm_compute.cmd import host_findings
from vtpm_scheduling import conf as scheduling_conf
from vtpm_scheduling import policy

DOC = environment.REPOSITORY / "doc"
ETC = environment.REPOSITORY / "etc"
sys.path.insert(0, str(DOC / "ext"))
import reference_tables  # noqa: E402
import sequence_drawing  # noqa: E402
import source_texts  # noqa: E402

PAGES = sorted((DOC / "source").rglob("*.rst"))
SAMPLES = {"nova-scheduler-vtpm.conf": scheduling_conf, "nova-compute-vtpm.conf": compute_conf}


@pytest.fixture(scope="module")
def pages():
    """All pages, with the tables that they show."""
    text = "\n".join(path.read_text() for path in PAGES)
    return text + "\n".join(reference_tables.TABLES[name]() for name in set(
        re.findall(r"\.\. vtpm-table:: (\w+)", text)))


def test_every_table_is_shown(pages):
    assert set(re.findall(r"\.\. vtpm-table:: (\w+)", pages)) == set(reference_tables.TABLES)


@pytest.mark.parametrize("code", policy.RefusalCode)
def test_each_refusal_has_an_example_that_is_refused_so(pages, code):
    _, refusal = reference_tables.refused(code)
    assert isinstance(refusal, policy.Refusal) and refusal.code is code
    assert "``%s``" % code.value in pages
    assert reference_tables._plain(refusal.sentence) in pages


@pytest.mark.parametrize("code", policy.MisfitCode)
def test_each_misfit_has_an_example_and_a_remedy(pages, code):
    for arguments in reference_tables.UNFIT[code.value]:
        assert policy.misfit(*arguments).code is code
    assert reference_tables.REMEDIES[code.value] in pages
    assert policy.for_tenants(code) in pages


def test_no_example_is_left_over():
    assert set(reference_tables.REFUSED) | set(reference_tables.REFUSED_MOVES) == {
        code.value for code in policy.RefusalCode}
    assert set(reference_tables.UNFIT) == set(reference_tables.REMEDIES) == {
        code.value for code in policy.MisfitCode}
    assert set(host_findings.OF_STATUS) == set(policy.Attestation) - {policy.Attestation.PASSED}


def test_each_error_and_its_messages_are_there(pages):
    messages = source_texts.messages()
    for name in reference_tables.error_classes():
        assert "``%s``" % name in pages
    for problem in keys._BY_STATUS.values():
        assert "vTPM key … " + problem in messages["KeyFetchError"]
    # A base of a message that a function ends, one with a remedy, and one of a constant.
    assert any(one.startswith("What … holds is not a key protector: …. Store")
               for one in messages["KeyProtectorError"])
    assert "Windows made an empty key protector." in messages["HostGuardianError"]
    # What a wrapper puts before Windows' own words.
    assert "Guardian … cannot be removed: …" in messages["HostGuardianError"]


# Where an error is made whose text is not a text of its place: the call, and why no table has it.
SAID_ELSEWHERE = {
    # Of another error, whose places are looked at themselves.
    "errors.SecretStoreError(str(exc))": "the error of reading",
    "errors.SecretStoreError('%s %s' % (exc, upload.undo()))": "the error, and what was undone",
    "_UnusableError(str(exc))": "UnreadableCertificateError's",
    "_UnusableError(str(exc), _MAKE_ANEW)": "UnusableCertificateError's",
    "WrongSignatureError('%s %s' % (signature.what, signature.reason))": "those of wrong()",
    "errors.KeyFetchError(_shown(keys[0]), exc.problem)": "_UnreadableError's",
    "errors.KeyFetchError(_shown(key), exc.problem, exc.status)": "_UnreadableError's",
    "errors.HostGuardianError(beginning + ' '.join(self.failures))": "errors of undoing",
    "windows_errors.translated(problem, errors.HostGuardianError, call)": "its callers' problem",
    "errors.HostGuardianError('%s: %s.' % (problem, exc.strerror or exc))": "its callers' problem",
    # Of a sentence, whose places are looked at below.
    "errors.RequestRefusedError(keys.sentence)": "Refusal",
    "errors.RequestRefusedError(request.sentence)": "Refusal",
    "errors.OperationRefusedError(refusal)": "Refusal",
    "errors.OperationRefusedError(reason)": "lifecycle.RULES",
    "errors.ExistingVtpmError(reason)": "lifecycle.RULES",
    # For no user: they are caught.
    "InstanceRecordMissing(instance_uuid)": "decision.py says that the records are gone",
    "BuildRequestMissing(instance_uuid)": "decision.py says it of one server and of several",
    "InstanceRecordMissing('no flavor')": "decision.py says that the records are gone",
    "PlacementError('%s: %s' % (response.status_code, response.text))": "a line of the log",
    "NotInTimeError(position)": "keys.py makes a KeyFetchError of it",
}
# What passes on a message: of an error, or of an option.
PASSED_ON = {"state.windows_problem", "state.client_problem", "state.guardian_problem",
             "sentence + '.'", "' '.join(said)", "' '.join(said) or None",
             "'; '.join(found) + '.'", "remedy", "mixed_sentence(labels, mixed[labels])"}


def _shown(pages, text):
    """Whether the pages have a text, or a sentence that is one with its values."""
    return re.search("[a-z]{3}", text) is not None and source_texts.is_like(
        reference_tables._plain(text), pages)


def test_each_place_that_makes_an_error_is_in_a_table(pages):
    """An error's new text is found, or this fails and wants it found."""
    lost, unused = [], set(SAID_ELSEWHERE)
    for site in source_texts.error_sites():
        call = site.place.split(": ", 1)[1]
        if call in SAID_ELSEWHERE:
            unused.discard(call)
        elif not site.texts or not all(
                "- %s\n" % reference_tables._plain(text) in pages for text in site.texts):
            lost.append(site)
    assert not lost and not unused


@pytest.mark.parametrize("module, position, names", [
    ("policy", 1, ("Refusal", "Misfit")),
    ("host_findings", 1, ("_error", "_warning")), ("host_findings", 2, ("_error", "_warning")),
    ("upgrade_checks", 1, ("Result",)), ("upgrade_checks", 0, ("append",))])
def test_each_sentence_is_in_a_table(pages, module, position, names):
    calls = [call for call, _ in source_texts.calls(module, *names) if len(call.args) > position]
    assert calls
    lost = []
    for call in calls:
        node = call.args[position]
        texts = source_texts.texts(module, node)
        if ast.unparse(node) not in PASSED_ON and not (
                texts and all(_shown(pages, text) for text in texts)):
            lost.append((ast.unparse(node), texts))
    assert not lost


def test_each_sentence_of_a_servers_life_is_in_a_table(pages):
    for rules in lifecycle.RULES.values():
        for rule in rules.values():
            for text in [rule.sentence] if rule.sentence else [
                    condition.value[0] for condition in rule.conditions]:
                assert reference_tables._plain(text) in pages
    for condition in lifecycle.Condition:
        assert reference_tables._plain(condition.value[0]) in pages


def test_findings_and_other_texts_of_the_commands_are_there(pages):
    for code, remedy in host_findings.OF_STATUS.values():
        assert "``%s``" % code.value in pages and reference_tables._plain(remedy) in pages
    for code in host_findings.FindingCode:
        assert "``%s``" % code.value in pages
    for text in ("it is on no host: its TPM is gone", "it is a PFX file, which holds a private key",
                 "its XML ends too early: a piece is missing",
                 "is not an option: correct or remove it",
                 "The server's records are gone: it is being deleted."):
        assert text in pages


def test_properties(pages):
    names = {value for name, value in vars(policy).items()
             if re.fullmatch("(IMAGE|FLAVOR)_[A-Z_]+", name) and isinstance(value, str)}
    for name in names | set(policy.IMAGE_HYPERVISOR_TYPES) | set(policy.IMAGE_ARCHITECTURES):
        assert "``%s" % name in pages, name
    for name in (policy.AGGREGATE_FABRIC, policy.TRAIT_GUARDED_HOST, policy.MARK_VTPM,
                 policy.MARK_FABRIC, policy.MARK_BUILT_FROM):
        assert "``%s``" % name in pages


def test_every_stat_of_the_report_is_there(pages):
    for name, value in vars(policy).items():
        if name.startswith("STAT_"):
            assert "``%s``" % value in pages


def test_options_are_shown_by_their_namespaces(pages):
    for module in (scheduling_conf, compute_conf):
        assert ".. show-options:: %s\n" % module.SECTION in pages


def test_every_page_is_in_a_toctree():
    listed = {path for index in PAGES for pattern in re.findall(
        r"^   ([\w*/-]+)$", index.read_text(), re.MULTILINE)
        for path in index.parent.glob(pattern + ".rst")}
    assert set(PAGES) - listed == {DOC / "source" / "index.rst"}


# --- samples ------------------------------------------------------------------------------------

@pytest.mark.parametrize("module", [scheduling_conf, compute_conf])
def test_each_option_is_in_the_generated_sample(tmp_path, module):
    config = cfg.ConfigOpts()
    generator.register_cli_opts(config)
    sample = tmp_path / "sample"
    config(["--config-file", str(ETC / "oslo-config-generator.conf"),
            "--output-file", str(sample)])
    generator.generate(config)
    section = re.search(r"^\[%s\]\n(.*?)(?=^\[|\Z)" % module.SECTION, sample.read_text(),
                        re.MULTILINE | re.DOTALL).group(1)
    ((_, options),) = module.list_opts()
    for option in options:
        assert re.search("^#%s = " % option.dest.replace("-", "_"), section, re.MULTILINE), option
        assert len(option.help.strip()) > 20 or option.dest not in {
            one.dest for one in module.OPTIONS}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("with_comments", [False, True])
def test_sample_parts_parse(tmp_path, name, with_comments):
    """As they stand, and with every option that they only show."""
    text = (ETC / name).read_text()
    if with_comments:
        text = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE).replace(
            "64 HEXADECIMAL DIGITS", "0" * 64)
    (tmp_path / "nova.conf").write_text(text)
    config = cfg.ConfigOpts()
    SAMPLES[name].register_opts(config)
    config(["--config-file", str(tmp_path / "nova.conf")])
    section, known = SAMPLES[name].SECTION, 0
    for option in re.findall(r"^(\w+) = ", text.split("[%s]" % section)[1].split("\n[")[0],
                             re.MULTILINE):
        if option in config[section]:
            getattr(config[section], option)
            known += 1
        else:
            # keystoneauth's, of the kind of credentials.
            assert option in ("auth_url", "username", "password", "user_domain_name",
                              "project_name", "project_domain_name"), option
    assert known or not with_comments


def test_samples_name_what_there_is():
    scheduler = (ETC / "nova-scheduler-vtpm.conf").read_text()
    assert "vtpm_scheduling.guarded_host_filter.GuardedHostFilter" in scheduler
    assert "compute_driver = vtpm_hyperv.HyperVDriver" in (
        ETC / "nova-compute-vtpm.conf").read_text()


def test_metadata_definitions_are_the_policys():
    found = {name: one for definition in reference_tables.definitions()
             for name, one in definition["properties"].items()}
    assert set(found) == {policy.IMAGE_VTPM, policy.IMAGE_KEYS, policy.IMAGE_SHIELDED,
                          policy.FLAVOR_VTPM, policy.FLAVOR_SHIELDED}
    for name, one in found.items():
        assert one["title"] and one["description"]
        if name == policy.IMAGE_KEYS:
            assert one["maxLength"] == policy.NOVA_VALUE_LENGTH - 1
        else:
            assert tuple(one["enum"]) == policy.CHOICES


def test_barbicans_policy_sample_names_its_rules():
    from barbican.common import policies
    from oslo_policy import _parser
    from oslo_policy import policy as oslo_policy

    known = {rule.name for rule in policies.list_rules()}
    rules = oslo_policy.Rules.load((ETC / "barbican-policy.yaml").read_text())
    assert set(rules) == {"secret:decrypt"} <= known
    for check in rules.values():
        assert isinstance(check, type(_parser.parse_rule("rule:a or rule:b")))
        assert {one.match for one in check.rules} <= known


def test_novas_policy_sample_names_its_rules():
    from nova import policies
    from oslo_policy import policy as oslo_policy

    known = {rule.name for rule in policies.list_rules()}
    rules = oslo_policy.Rules.load((ETC / "nova-policy.yaml").read_text())
    assert set(rules) == {"os_compute_api:os-instance-actions:events:details"} <= known
    assert {check.match for check in rules.values()} <= known


def test_barbicans_acl_sample_is_valid():
    from barbican.common import validators

    sample = json.loads((ETC / "barbican-acl.json").read_text())
    assert validators.ACLValidator().validate(sample) == sample


# --- drawings -----------------------------------------------------------------------------------

def test_a_drawing_shows_each_step():
    steps = sequence_drawing.parse(["a -> b: says <this>", "b: thinks", "b -> a: ! no"])
    assert steps == [("a", "b", False, "says <this>"), ("b", None, False, "thinks"),
                     ("b", "a", True, "no")]
    drawn = sequence_drawing.draw("Title", steps)
    assert drawn.count("says &lt;this&gt;") == 2 and ">thinks</text>" in drawn
    assert sequence_drawing._REFUSED in drawn
    with pytest.raises(ValueError):
        sequence_drawing.parse(["nothing"])


def test_files_that_pages_name_are_there():
    for path in PAGES:
        for name in re.findall(r"``((?:etc|tests|tools|constraints|doc)/[\w./-]+)``",
                               path.read_text()):
            assert pathlib.Path(environment.REPOSITORY, name).exists(), (path.name, name)
