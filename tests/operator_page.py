"""The page of the operator's command, with what the command prints.

Printed into ``doc/source/admin/operator-command.rst`` by::

    python -m tests.operator_page doc/source/admin/operator-command.rst

A test compares the page with this. The outputs are made by the command's own code, of values such
as a cloud or a host would give; the tests of the command get the same from real ones.
"""

import contextlib
import dataclasses
import datetime
import io
import pathlib
import sys
import types

from oslo_upgradecheck import upgradecheck

from vtpm_compute import key_protector, lifecycle
from vtpm_compute.cmd import (
    explain,
    explanation,
    host_check,
    host_findings,
    host_inventory,
    inventory,
    nova_records,
    upgrade_checks,
)
from vtpm_compute.key_protector_signatures import CheckedSignature, Verdict
from vtpm_scheduling import policy

NOW = datetime.datetime(2026, 3, 1, tzinfo=datetime.timezone.utc)
FABRIC, OTHER, OWNER = "5c0f" * 16, "a811" * 16, "e94d" * 16
KEY = "2f6ac6a8-4e14-4e4c-a73d-069cbf4541e6"
SERVER = "c1d5a0b2-9f39-4f0e-8a3c-5a2f1d0e7b11"
OTHER_SERVER = "0b6f3c58-3a52-4d5b-9b6a-77c1c2f4a9d3"
IMAGE = {policy.IMAGE_VTPM: policy.REQUIRED, policy.IMAGE_MACHINE_TYPE: policy.GENERATION_2}


def report(status=100, thumbprint=FABRIC):
    return policy.HostReport(status == policy.Attestation.PASSED, 10000, status,
                             fabric_thumbprint=thumbprint)


def host(name, has_trait=True, version=10000, label="contoso", **values):
    return explanation.Host(
        name, name, values.pop("kind", "hyperv"), version,
        frozenset({label}) if label else frozenset(), has_trait, **values)


HOSTS = [
    host("hv01"), host("hv02", has_trait=False), host("hv03", label=None),
    host("hv04", has_trait=False, version=6003),
    *(host("kvm%02d" % number, has_trait=False, kind="QEMU", label=None)
      for number in range(12))]
REPORTS = {"hv01": report(), "hv02": report(301), "hv03": report()}


def protector():
    """Alice's, for the cloud's fabric."""
    begin, end = NOW - datetime.timedelta(400), NOW + datetime.timedelta(1400)
    return key_protector.KeyProtector(
        bytes(8344), tuple(
            key_protector.Guardian(number, name, thumbprint, number == 1, 2048, begin, end, ())
            for number, (name, thumbprint) in enumerate(
                (("Contoso", OWNER), ("HGS Encryption", FABRIC)), 1)), (
            CheckedSignature("the owner's signature", Verdict.VERIFIED),), 0)


def of_image(request, flavor="m1.large (4)", **parts):
    return explanation.Explanation(
        {"Image": "win2022 (6a1f0e9c-55b4-4d65-9c1e-1f0a3f7d2b60)", "Flavor": flavor},
        request, **parts)


def accepted():
    return of_image(policy.decide(IMAGE, {}), hosts=explanation.judge_hosts(HOSTS))


def contradiction():
    return of_image(policy.decide(IMAGE, {policy.FLAVOR_VTPM: policy.DISABLED}),
                    "no-vtpm (5)")


def with_keys():
    found = protector()
    keys = explanation.Keys(
        "user 4b1c…, project 7d20…", (explanation.KeyAnswer(
            KEY, True, "8344 bytes: a key protector, or its first piece"),),
        tuple(found.lines()), guardians=frozenset(one.thumbprint for one in found.guardians))
    return of_image(
        policy.decide(dict(IMAGE, os_vtpm_keys=KEY), {}), keys=keys,
        fabrics=explanation.fabrics_sentence(keys, {FABRIC: "contoso"}),
        hosts=explanation.judge_hosts(reported()))


def unreadable():
    sentence = ("vTPM key %s may not be read by you. Ask its owner for access (a Barbican ACL), "
                "or name your own (it takes the role member)" % KEY)
    return of_image(
        policy.decide(dict(IMAGE, os_vtpm_keys=KEY), {}), keys=explanation.Keys(
            "user 4b1c…, project 7d20…", (explanation.KeyAnswer(KEY, False, sentence),),
            problem=sentence),
        hosts_problem="hosts are not known: Nova says 403 of /os-aggregates: you may not see it. "
                      "An administrator can")


def reported():
    return [dataclasses.replace(one, is_reported=True, report=REPORTS.get(one.name))
            for one in HOSTS]


def running():
    answers = explanation.judge_hosts(reported(), policy.Home(fabric_thumbprint=FABRIC))
    return explanation.Explanation(
        {"Server": "db1 (%s), ACTIVE" % SERVER, "Flavor": "m1.large", "Host": "hv01"},
        policy.decide(IMAGE, {}), explanation.Source.RECORDS, has_vtpm=True, own_host="hv01",
        hosts=answers, operations=tuple(explanation.operations("ACTIVE", answers, "hv01")))


def host_state():
    valid = host_findings.Certificate(
        "signing", NOW - datetime.timedelta(400), NOW + datetime.timedelta(1400))
    ends = host_findings.Certificate(
        "encryption", NOW - datetime.timedelta(700), NOW + datetime.timedelta(30))
    return host_findings.HostState(
        host_findings.Options(lifecycle.Driver.COMPUTE_HYPERV.value, "Fabric", None,
                              "C:\\ProgramData\\OpenStack\\vtpm", False, True, False),
        "10.0.17763", client=types.SimpleNamespace(
            guarded=False, attestation_status=303, attestation_substatus=1, mode=2,
            attestation_mode=1, attestation_url="http://hgs.example.org/Attestation",
            key_protection_url="http://hgs.example.org/KeyProtection"),
        guardian=host_findings.Guardian("Fabric", FABRIC, (valid, ends)))


def lines_of_host_check():
    state = host_state()
    return host_check.lines(state, host_findings.find(state, 60, NOW))


def servers():
    return [nova_records.MarkedServer(SERVER, "db1", "7d20…", "hv01", "active", "vtpm", FABRIC),
            nova_records.MarkedServer(OTHER_SERVER, "db2", "7d20…", "hv05", "active", "shielded",
                                      FABRIC)]


def nodes():
    return [nova_records.ComputeNode(name, name, policy.HostFacts(
        "hyperv", 10000, found, frozenset({"contoso"})))
        for name, found in (("hv01", report()), ("hv02", None), ("hv05", report(
            thumbprint=OTHER)))]


def lines_of_inventory():
    return inventory.lines(inventory.judge(servers(), nodes()))


def lines_of_host_inventory():
    return host_inventory.lines(
        [host_inventory.Machine("instance-00000007", SERVER, False, protector())], 60, NOW)


class Checks(upgrade_checks.UpgradeChecks):
    """Those of Nova's records; the two that read nova.conf succeed."""

    _upgrade_checks = tuple(
        (name, (lambda _: upgradecheck.Result(upgradecheck.Code.SUCCESS)) if check.__name__ in (
            "check_filter", "check_options") else check)
        for name, check in upgrade_checks.UpgradeChecks._upgrade_checks)


def lines_of_upgrade_check():
    records = types.SimpleNamespace(
        compute_nodes=nodes, require_fabric_aggregate=lambda: True,
        aggregates=lambda: {"guarded-hosts": ("contoso", 3)},
        fabric_labels=lambda: {one.host: one.facts.fabric_labels for one in nodes()})
    old, upgradecheck.CONF = upgradecheck.CONF, None
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            Checks(records).check()
    finally:
        upgradecheck.CONF = old
    return out.getvalue().splitlines()


def rows_of_misfits():
    for code in policy.MisfitCode:
        sources = explanation.MISFIT_SOURCES[code]
        yield code.value, policy.for_tenants(code), ", ".join({
            explanation.Source.API: "the API", explanation.Source.RECORDS: "Nova's records",
            explanation.Source.CONCLUDED: "the API, without telling which of these it is"}[one]
            for one in sources)


PAGE = """\
.. Printed by "python -m tests.operator_page"; a test compares it.

======================
The operator's command
======================

``nova-hyperv-vtpm`` looks, and changes nothing: why a server with a vTPM would run or not, what is
wrong with a host, whether the set-up is ready for an upgrade, which servers have a vTPM. Nothing
that it prints is secret.

.. list-table::
   :header-rows: 1
   :widths: 30 40 30

   * - Command
     - Where it runs
     - What it needs
   * - ``explain``
     - anywhere; with ``--config-file`` on a controller
     - the extra ``operator``, the credentials of an administrator
   * - ``upgrade check``, ``inventory``
     - on a controller, with the Python of Nova
     - nova.conf with the databases; the extra ``operator``
   * - ``host check``, ``host inventory``
     - on a Hyper-V host, with the Python of nova-compute, as an administrator
     - the extra ``compute``

Install an extra from the project's wheel, on a controller with the pip of Nova's environment::

    pip install "nova_hyperv_vtpm-0.1.0-py3-none-any.whl[operator]"

``--format json`` (``--json`` of ``upgrade check``, as ``nova-status`` has it) is for programs. The
exit code is 0 where all is well, 1 where it is not, 2 where it cannot be told or the usage is
wrong; that of ``upgrade check`` is the one of ``nova-status``: 0 success, 1 warning, 2 failure, 255
error.

Why a server would run, or not
==============================

It logs in as the openstack client does: ``OS_CLOUD`` and ``clouds.yaml``, or the ``OS_*``
variables. The keys are read with the rights of whoever runs it: log in as the tenant to see what
the tenant may read; the hosts are for administrators to see. ::

    $ nova-hyperv-vtpm explain --image win2022 --flavor m1.large

{accepted}

A request that no host could satisfy::

    $ nova-hyperv-vtpm explain --image win2022 --flavor no-vtpm

{contradiction}

A key that the caller may not read, here a tenant, who does not see hosts::

    $ nova-hyperv-vtpm explain --image win2022 --flavor m1.large

{unreadable}

Nova's API does not show what hosts report, nor which servers have a vTPM. On a controller
``--config-file`` reads both from Nova's databases (without a file: with the nova.conf that Nova's
services find). Where it is not given, and the API does not suffice, the answer is "not known from
the API". Which kind of reason comes from where:

.. list-table::
   :header-rows: 1
   :widths: 25 40 35

   * - Code
     - What a tenant reads
     - Source
{misfits}

Refusals by image and flavor need the API alone, but for ``vtpm_not_added``, which needs the mark of
the server: without the records it is concluded from what image and flavor ask for now.

A key protector of a tenant, and whether the fabric's guardian can unwrap it; without
``--config-file`` give the guardian with ``--guardian``, its metadata or its thumbprint::

    $ nova-hyperv-vtpm explain --image win2022 --flavor m1.large --config-file

{with_keys}

A server, and what each operation would do to its TPM now; "not now": Nova does not take it of a
server in this status. With ``--flavor`` a resize to it is explained. An owner, who may not see the
hosts, reads the operations too::

    $ nova-hyperv-vtpm explain --server db1 --config-file /etc/nova/nova.conf

{running}

What is wrong with a host
=========================

::

    PS> nova-hyperv-vtpm host check --config-file C:\\OpenStack\\etc\\nova.conf

{host_check}

Warnings do not change the exit code. It imports no guardian: nova-compute does.

Before an upgrade
=================

Before nova-scheduler starts with a new version. It asks whether the filter is enabled, can be
loaded and comes first; whether aggregates carry ``hgs_fabric``; which Hyper-V hosts report, and in
which form; whether a fabric mixes guardians; and whether nova.conf has options that there are
not::

    $ nova-hyperv-vtpm upgrade check

{upgrade_check}

Which servers have a vTPM
=========================

By Nova's records, with the label of their host's fabric. A server whose host has another guardian
than its mark says, or that has no host any more, is a problem, and so is one of whose host Nova has
no report; the exit code is 1 then. Servers that Nova deletes later (``reclaim_instance_interval``)
are among them::

    $ nova-hyperv-vtpm inventory

{inventory}

On a host, by Hyper-V itself: whose the key protectors are, who can start the machines, and which
certificates expire within ``--days`` (60)::

    PS> nova-hyperv-vtpm host inventory

{host_inventory}
"""


def page():
    """The documentation page, as text."""
    return PAGE.format(
        accepted=_block(explain.lines(accepted())),
        contradiction=_block(explain.lines(contradiction())),
        unreadable=_block(explain.lines(unreadable())),
        with_keys=_block(explain.lines(with_keys())), running=_block(explain.lines(running())),
        host_check=_block(lines_of_host_check()), upgrade_check=_block(lines_of_upgrade_check()),
        inventory=_block(lines_of_inventory()),
        host_inventory=_block(lines_of_host_inventory()),
        misfits="\n".join("   * - ``%s``\n     - %s\n     - %s" % row
                          for row in rows_of_misfits()))


def _block(lines):
    return "\n".join(("    " + line).rstrip() for line in lines)


if __name__ == "__main__":
    pathlib.Path(sys.argv[1]).write_text(page(), encoding="utf-8")
