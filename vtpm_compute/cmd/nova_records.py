"""What Nova's configuration and databases say, on a controller: what its API does not show.

Through Nova's objects, as ``nova-status`` does it. Nothing is written. Only :func:`load` may be
called before the others; it makes this process one of Nova's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import nova.conf
import sqlalchemy.exc
from nova import config as nova_config
from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects, servicegroup
from oslo_config import cfg
from oslo_db import exception as db_exception

from vtpm_compute import errors
from vtpm_compute.cmd import option_files
from vtpm_scheduling import conf, instance_facts, policy

CONF = nova.conf.CONF
conf.register_opts(CONF)

# Servers read at once.
_PAGE = 500


@dataclasses.dataclass(frozen=True)
class ComputeNode:
    """A hypervisor, as its nova-compute reports it.

    :ivar report: see :class:`vtpm_scheduling.policy.HostFacts`.
    :ivar is_in_use: whether its nova-compute is up and enabled.
    """

    host: str
    node: str
    facts: policy.HostFacts
    is_in_use: bool = True

    @property
    def report(self) -> policy.HostReport | None:
        """What its vTPM driver says."""
        return self.facts.report


@dataclasses.dataclass(frozen=True)
class MarkedServer:
    """A server whose mark says that it has a vTPM.

    :ivar kind: 'vtpm' or 'shielded'.
    :ivar fabric: the thumbprint of its fabric's guardian; empty where its mark has none.
    :ivar host: where it is; empty: nowhere, as after shelving.
    """

    identifier: str
    name: str
    project: str
    host: str
    status: str
    kind: str
    fabric: str


def load(files: Sequence[str]) -> None:
    """Read nova.conf, and get ready to read the databases.

    :param files: its files; none: where Nova's services look for them.
    :raises vtpm_compute.errors.RecordsError: when it cannot be used.
    """
    try:
        nova_config.parse_args(
            ["nova-hyperv-vtpm", *(part for file in files for part in ("--config-file", file))])
    except (cfg.Error, OSError) as exc:
        raise errors.RecordsError(option_files.problem(exc)) from None
    if not CONF.api_database.connection:
        raise errors.RecordsError(
            "nova.conf has no [api_database] connection: run this on a controller, or name its "
            "file with --config-file")
    objects.register_all()


def require_fabric_aggregate() -> bool:
    """The scheduler's option."""
    return bool(CONF.vtpm_scheduling.require_fabric_aggregate)


def compute_nodes() -> list[ComputeNode]:
    """The hypervisors of all cells.

    :raises vtpm_compute.errors.RecordsError: when a database cannot be read.
    """
    with _Translated():
        labels = fabric_labels()
        services = servicegroup.API()
        found = []
        for context in _cells():
            in_use = {service.host for service in objects.ServiceList.get_by_binary(
                          context, "nova-compute", include_disabled=False)
                      if services.service_is_up(dict(service))}
            found += [ComputeNode(node.host, node.hypervisor_hostname, policy.HostFacts(
                node.hypervisor_type, node.hypervisor_version,
                policy.HostReport.from_stats(node.stats or {}),
                labels.get(node.host, frozenset())), node.host in in_use)
                for node in objects.ComputeNodeList.get_all(context)]
        return sorted(found, key=lambda one: (one.host, one.node))


def fabric_labels() -> dict[str, frozenset[str]]:
    """By host, the values of ``hgs_fabric`` on its aggregates.

    :raises vtpm_compute.errors.RecordsError: when the database cannot be read.
    """
    with _Translated():
        found: dict[str, frozenset[str]] = {}
        for aggregate in objects.AggregateList.get_all(nova_context.get_admin_context()):
            label = aggregate.metadata.get(policy.AGGREGATE_FABRIC)
            if label is not None:
                for host in aggregate.hosts:
                    found[host] = found.get(host, frozenset()) | {label}
        return found


def aggregates() -> dict[str, tuple[str, int]]:
    """The host aggregates with a fabric: by name, its label and how many hosts it has.

    :raises vtpm_compute.errors.RecordsError: when the database cannot be read.
    """
    with _Translated():
        return {one.name: (one.metadata[policy.AGGREGATE_FABRIC], len(one.hosts))
                for one in objects.AggregateList.get_all(nova_context.get_admin_context())
                if policy.AGGREGATE_FABRIC in one.metadata}


def server(identifier: str) -> instance_facts.InstanceFacts:
    """What Nova's records say of a server.

    :raises vtpm_compute.errors.RecordsError: when there are none, or they cannot be read.
    """
    with _Translated():
        return instance_facts.load(nova_context.get_admin_context(), identifier)


def marked_servers() -> list[MarkedServer]:
    """The servers of all cells that have a vTPM, by their marks.

    :raises vtpm_compute.errors.RecordsError: when a database cannot be read.
    """
    with _Translated():
        found = []
        for context in _cells():
            for instance in _instances(context):
                mark = instance.system_metadata.get(policy.MARK_VTPM)
                if mark is not None:
                    found.append(MarkedServer(
                        instance.uuid, instance.display_name or "", instance.project_id,
                        instance.host or "", instance.vm_state, mark,
                        instance.system_metadata.get(policy.MARK_FABRIC, "")))
        return sorted(found, key=lambda one: (one.host, one.name, one.identifier))


def fabrics(nodes: Sequence[ComputeNode]) -> dict[str, str]:
    """By thumbprint of a guardian, the labels of its fabric; where it has none, its hosts."""
    labels: dict[str, set[str]] = {}
    hosts: dict[str, set[str]] = {}
    for one in nodes:
        if one.report is not None and one.report.fabric_thumbprint:
            thumbprint = one.report.fabric_thumbprint
            labels.setdefault(thumbprint, set()).update(one.facts.fabric_labels)
            hosts.setdefault(thumbprint, set()).add("host " + one.host)
    return {thumbprint: ", ".join(sorted(labels[thumbprint] or names))
            for thumbprint, names in hosts.items()}


def _instances(context: Any) -> Iterator[Any]:
    """All servers of a cell, a page at a time: which values the mark has is the driver's affair.

    Also those that Nova deletes later ([DEFAULT] reclaim_instance_interval): their owners can take
    them back.
    """
    marker = None
    while True:
        page = objects.InstanceList.get_by_filters(
            context, {"deleted": False, "soft_deleted": True},
            expected_attrs=["system_metadata"], limit=_PAGE, marker=marker)
        yield from page
        if len(page) < _PAGE:
            return
        marker = page[-1].uuid


def _cells() -> Iterator[Any]:
    """A context for each cell in turn."""
    admin = nova_context.get_admin_context()
    for mapping in objects.CellMappingList.get_all(admin):
        if not mapping.is_cell0():
            with nova_context.target_cell(admin, mapping) as context:
                yield context


class _Translated:
    """What goes wrong in Nova's databases; their own words may hold a password."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, instance_facts.InstanceRecordMissing):
            raise errors.RecordsError("Nova has no records of this server") from None
        if isinstance(exc, (db_exception.DBError, sqlalchemy.exc.SQLAlchemyError, ImportError)):
            raise errors.RecordsError(
                "Nova's database cannot be read (%s). Check the connections in nova.conf, and "
                "that the databases are of this release" % type(exc).__name__) from None
        if isinstance(exc, nova_exception.NovaException):
            raise errors.RecordsError("Nova's records cannot be read: %s" % exc) from None
