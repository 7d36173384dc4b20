"""``inventory``: the servers with a vTPM and the fabrics that they belong to, by Nova's records."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vtpm_compute.cmd import controller, tables
from vtpm_compute.cmd.explanation import Outcome


@dataclasses.dataclass(frozen=True)
class Row:
    """A server, and whether it is where it belongs.

    :ivar server: a :class:`vtpm_compute.cmd.nova_records.MarkedServer`.
    :ivar labels: of its host.
    :ivar problem: empty: it is where it belongs, or that is not known.
    """

    server: Any
    labels: frozenset[str]
    problem: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"id": self.server.identifier, "name": self.server.name,
                "project": self.server.project, "host": self.server.host,
                "status": self.server.status, "kind": self.server.kind,
                "fabric_thumbprint": self.server.fabric, "fabric_labels": sorted(self.labels),
                "problem": self.problem}


def run(options: argparse.Namespace) -> Outcome:
    """List them.

    :returns: NO when some server is on a host that is not of its fabric.
    :raises vtpm_compute.errors.RecordsError: when the records cannot be read.
    """
    records = controller.load(options.config_file or [])
    rows = judge(records.marked_servers(), records.compute_nodes())
    for line in [tables.as_json([row.as_dict() for row in rows])] \
            if options.format == tables.JSON else lines(rows):
        print(line)
    return Outcome.NO if any(row.problem for row in rows) else Outcome.YES


def judge(servers: Iterable[Any], nodes: Iterable[Any]) -> list[Row]:
    """Whether servers are where they belong.

    :param servers: :class:`vtpm_compute.cmd.nova_records.MarkedServer` values.
    :param nodes: :class:`vtpm_compute.cmd.nova_records.ComputeNode` values.
    """
    hosts: Mapping[str, Any] = {one.host: one for one in nodes}
    return [Row(server, hosts[server.host].facts.fabric_labels if server.host in hosts
                else frozenset(), _problem(server, hosts.get(server.host))) for server in servers]


def _problem(server: Any, node: Any) -> str:
    if not server.host:
        return "it is on no host: its TPM is gone"
    if node is None:
        return "Nova has no record of its host"
    if node.report is None:
        return "its host reports no vTPM support"
    thumbprint = node.report.fabric_thumbprint
    if server.fabric and thumbprint and thumbprint != server.fabric:
        return "its host's guardian is another one, %s...: it may not start again" % (
            thumbprint[:16])
    return ""


def lines(rows: list[Row]) -> Iterator[str]:
    """For people."""
    yield from tables.table(
        ("Server", "Project", "Host", "Kind", "Fabric", "Guardian", "Problem"),
        [("%s\n%s" % (row.server.name, row.server.identifier), row.server.project,
          row.server.host, "%s, %s" % (row.server.kind, row.server.status),
          ", ".join(sorted(row.labels)), row.server.fabric[:16] + "..." if row.server.fabric
          else "not known", row.problem) for row in rows])
    yield "%d server%s with a vTPM." % (len(rows), "" if len(rows) == 1 else "s")
