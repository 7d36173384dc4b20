"""``explain``: asks for everything that decides about a server with a vTPM, and prints it."""

from __future__ import annotations

import argparse
import collections
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from vtpm_compute import errors
from vtpm_compute.cmd import cloud_facts, controller, explanation, login, missing, tables
from vtpm_compute.cmd.explanation import Outcome, Source
from vtpm_scheduling import policy

_PROGRAM = "nova-hyperv-vtpm"
_CONCLUDED = ("Whether the server has a vTPM is not known from the API: concluded from what its "
              "image and flavor say now. --config-file on a controller reads it.")
_FROM_VOLUME = ("The server boots from a volume: the properties of its image are not known from "
                "the API. --config-file on a controller reads them.")
_NO_EXTRA_SPECS = "The extra specs of the server's flavor are not yours to see: taken for none."
_FOR_A_REBUILD = "The keys are needed for a rebuild only: the server has its key protector."
_ASKS_IN_VAIN = ("Image and flavor ask for a vTPM, and the server was built without one: a "
                 "rebuild would give it one.")
_UNMARKED = ("This driver did not build the server: whether it has a vTPM is concluded from what "
             "its image and flavor ask for, as the scheduler does.")
_OPTION = ("[vtpm_scheduling] require_fabric_aggregate is taken for true, its default. "
           "--config-file on a controller reads it.")


@dataclasses.dataclass(frozen=True)
class _Records:
    """What was read on a controller.

    :ivar module: :mod:`vtpm_compute.cmd.nova_records`, for more.
    :ivar reports: by host and node.
    :ivar fabrics: by thumbprint of the guardian, what it is called.
    """

    module: Any
    reports: Mapping[tuple[str, str], policy.HostReport | None]
    fabrics: Mapping[str, str]
    require_fabric_aggregate: bool


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What is to be explained, and what hangs on it.

    :ivar host: where the server is, or was when it was shelved.
    :ivar status: of the server; empty: it is none that has a vTPM.
    :ivar thumbprint: of its fabric's guardian, from the server's mark.
    :ivar host_thumbprint: of that host's guardian, as the host reported it.
    """

    found: explanation.Explanation
    host: str | None = None
    status: str = ""
    thumbprint: str | None = None
    host_thumbprint: str | None = None


def run(options: argparse.Namespace) -> Outcome:
    """Explain.

    :returns: whether it would run.
    :raises vtpm_compute.errors.VtpmError: when it cannot even be told what it is about.
    """
    found = explain(options)
    for line in [tables.as_json(found.as_dict())] if options.format == tables.JSON else \
            lines(found):
        print(line)
    return found.outcome


def explain(options: argparse.Namespace) -> explanation.Explanation:
    """Ask, without printing; see :func:`run`."""
    records = _read_records(options) if options.config_file is not None else None
    try:
        logged_in = login.connect(options.os_cloud, _PROGRAM)
        cloud = cloud_facts.Cloud(logged_in)
    except errors.LoginError as exc:
        raise errors.CloudError("Not logged in: %s" % exc) from None
    asked = _of_server(cloud, options, records) if options.server is not None else \
        _Asked(_of_image(cloud, options))
    request = asked.found.request
    if not isinstance(request, policy.VtpmRequest) or not request.vtpm:
        return asked.found
    found = asked.found
    if request.keys:
        found = _with_keys(found, logged_in, request, options, records)
    return _with_hosts(dataclasses.replace(asked, found=found), cloud, records)


def _read_records(options: argparse.Namespace) -> _Records:
    module = controller.load(options.config_file)
    nodes = module.compute_nodes()
    return _Records(module, {(one.host, one.node): one.report for one in nodes},
                    module.fabrics(nodes), module.require_fabric_aggregate())


def _of_image(cloud: cloud_facts.Cloud, options: argparse.Namespace) -> explanation.Explanation:
    image, flavor = cloud.image(options.image), cloud.flavor(options.flavor)
    return explanation.Explanation(
        {"Image": str(image), "Flavor": str(flavor)}, policy.decide(image.values, flavor.values))


def _of_server(cloud: cloud_facts.Cloud, options: argparse.Namespace,
               records: _Records | None) -> _Asked:
    server = cloud.server(options.server)
    subject = {"Server": str(server), "Flavor": server.flavor}
    remarks = [] if server.extra_specs is not None else [_NO_EXTRA_SPECS]
    old_specs = server.extra_specs or {}
    new_specs = old_specs
    if options.flavor is not None:
        new = cloud.flavor(options.flavor)
        subject["Resized to"] = str(new)
        new_specs = new.values
    if server.host:
        subject["Host"] = server.host
    if server.fault:
        subject["Fault"] = server.fault
    facts = records.module.server(server.identifier) if records is not None else None
    properties: Mapping[str, str]
    if facts is not None:
        properties = facts.image_properties
    elif server.image is not None:
        image = cloud.image(server.image)
        subject["Image"], properties = str(image), image.values
    else:
        return _Asked(explanation.Explanation(
            subject, None, remarks=[*remarks, _FROM_VOLUME]))
    source = Source.API if facts is None else Source.RECORDS
    if not server.was_built:
        return _Asked(explanation.Explanation(
            subject, policy.decide(properties, new_specs), source, remarks=remarks))
    now = policy.decide(properties, old_specs)
    asks = isinstance(now, policy.VtpmRequest) and now.vtpm
    is_known = facts is not None and (facts.has_vtpm or facts.has_no_vtpm)
    has_vtpm = facts.has_vtpm if facts is not None and is_known else asks
    if facts is None:
        source, remarks = Source.CONCLUDED, [*remarks, _CONCLUDED]
    elif not is_known and asks:
        source, remarks = Source.CONCLUDED, [*remarks, _UNMARKED]
    elif asks and not has_vtpm:
        remarks.append(_ASKS_IN_VAIN)
    if options.flavor is not None:
        if has_vtpm and (facts is None or is_known):
            request = policy.decide_existing(new_specs)
        elif facts is not None and facts.has_no_vtpm:
            request = policy.decide_without_vtpm(old_specs, new_specs)
        else:
            request = policy.decide_unmarked(properties, old_specs, new_specs)
    elif has_vtpm:
        request = now if asks else policy.EXISTING_VTPM
        if isinstance(request, policy.VtpmRequest) and request.keys:
            remarks.append(_FOR_A_REBUILD)
    else:
        request = policy.NO_VTPM if asks else now
    return _Asked(
        explanation.Explanation(
            subject, request, source, has_vtpm=has_vtpm, remarks=remarks,
            own_host=server.host if options.flavor is None else None),
        host=server.host or (facts.shelved_host if facts is not None else None),
        status=server.status if has_vtpm else "",
        thumbprint=facts.fabric_thumbprint if facts is not None else None,
        host_thumbprint=facts.host_thumbprint if facts is not None else None)


def _with_keys(found: explanation.Explanation, logged_in: login.Login,
               request: policy.VtpmRequest, options: argparse.Namespace,
               records: _Records | None) -> explanation.Explanation:
    try:
        # Not above: they are needed for this alone.
        from vtpm_compute.cmd import commands, key_facts
    except ModuleNotFoundError as exc:
        raise errors.CloudError(missing.clause(exc, missing.install("operator"))) from None
    fabrics = dict(records.fabrics) if records is not None else {}
    if options.guardian is not None:
        fabrics = {commands.Wanted.of(options.guardian).thumbprint: "--guardian"}
    keys = key_facts.read(logged_in, request.keys, request.shielded)
    return dataclasses.replace(
        found, keys=keys,
        fabrics=None if keys.problem else explanation.fabrics_sentence(keys, fabrics))


def _with_hosts(asked: _Asked, cloud: cloud_facts.Cloud,
                records: _Records | None) -> explanation.Explanation:
    try:
        hosts = cloud.hosts()
    except errors.CloudError as exc:
        return dataclasses.replace(
            asked.found, hosts_problem="hosts are not known: %s" % exc,
            operations=_operations(asked, None))
    required, remarks = True, [*asked.found.remarks]
    if records is not None:
        required = records.require_fabric_aggregate
        hosts = [dataclasses.replace(
            one, is_reported=True, report=records.reports.get((one.name, one.node)))
            for one in hosts]
    elif any(not one.fabric_labels for one in hosts):
        remarks.append(_OPTION)
    home = None
    if asked.status:
        labels = frozenset(
            label for one in hosts if one.name == asked.host for label in one.fabric_labels)
        home = explanation.home_of(asked.thumbprint, labels, required, asked.host_thumbprint)
    answers = explanation.judge_hosts(hosts, home, required)
    return dataclasses.replace(asked.found, hosts=answers, remarks=remarks,
                               operations=_operations(asked, answers))


def _operations(asked: _Asked, answers: list[explanation.HostAnswer] | None) -> tuple[
        explanation.Operation, ...]:
    return tuple(explanation.operations(asked.status, answers, asked.host)) \
        if asked.status else ()


def lines(found: explanation.Explanation) -> Iterator[str]:
    """An explanation, for people."""
    rows = [*found.subject.items(), *explanation.request_rows(
        found.request, is_built=bool(found.has_vtpm))]
    if found.has_vtpm is not None:
        rows.append(("Has a vTPM", "%s (%s)" % (
            "yes" if found.has_vtpm else "no", found.request_source.value)))
    yield from tables.table(("Field", "Value"), rows)
    if found.keys is not None:
        yield from _lines_of_keys(found.keys, found.fabrics)
    if found.hosts is not None:
        yield ""
        yield from tables.table(("Host", "Verdict", "Why", "Source"), _host_rows(found.hosts))
    if found.operations:
        yield ""
        yield from tables.table(("Operation", "The TPM", "Why"), [
            ("\n".join([one.name, *("  " + driver for driver in one.drivers)]), one.verdict,
             one.sentence) for one in found.operations])
    yield ""
    for remark in found.remarks:
        yield "Note: %s" % remark
    yield "%s." % found.conclusion


def _lines_of_keys(keys: explanation.Keys,
                   fabrics: tuple[Outcome, str] | None) -> Iterator[str]:
    yield ""
    yield from tables.table(("Key, read by %s" % keys.read_by, "Readable", "What it holds"), [
        (one.reference, "yes" if one.readable else "no", one.sentence) for one in keys.answers])
    yield from keys.lines
    if fabrics is not None:
        yield "%s." % fabrics[1]


def _host_rows(hosts: Any) -> Iterator[tuple[str, str, str, str]]:
    """A row a Hyper-V host; one for all others of a kind, of which there may be thousands."""
    others: collections.Counter[str] = collections.Counter()
    for one in hosts:
        if one.codes == (policy.MisfitCode.OTHER_HYPERVISOR,):
            others[one.sentence] += 1
        else:
            yield one.host, explanation.HOST_WORDS[one.outcome], one.sentence, one.source.value
    for sentence, count in sorted(others.items()):
        yield ("%d host%s" % (count, "s" if count > 1 else ""),
               explanation.HOST_WORDS[Outcome.NO], sentence, Source.API.value)
