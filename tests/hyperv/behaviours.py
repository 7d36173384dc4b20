"""What the simulation does, on whose word, and which test shows it.

Printed into ``doc/source/contributor/simulated-host.rst`` by::

    python -m tests.hyperv.behaviours doc/source/contributor/simulated-host.rst

A test compares the page with this table, the tests named here with those there are, and the
assumptions named here with :mod:`tests.hyperv.assumptions`.
"""
import pathlib
import sys
from typing import NamedTuple

from tests.hyperv.assumptions import ASSUMPTIONS


class Behaviour(NamedTuple):
    """One row.

    :ivar what: what the simulated host does, in one sentence
    :ivar basis: a document and its section, a public source file, or ``assumed: <id>`` with the id
        of an entry of :data:`tests.hyperv.assumptions.ASSUMPTIONS`
    :ivar test: the test that shows it: path::class::function, as pytest takes it
    """

    what: str
    basis: str
    test: str


def _rows(*rows):
    return tuple(Behaviour(*row) for row in rows)


# An area a constant; in the order of the page.
AREAS = {}

AREAS["WMI"] = _rows(
)

AREAS["Virtual machines"] = _rows(
)

AREAS["Jobs"] = _rows(
)

AREAS["Security settings and the virtual TPM"] = _rows(
)

AREAS["Guardians and key protectors"] = _rows(
)

AREAS["Host Guardian Service and attestation"] = _rows(
)

AREAS["Live migration"] = _rows(
)

AREAS["Snapshots, export and import"] = _rows(
)

AREAS["Failover cluster"] = _rows(
)

AREAS["Provisioning of shielded virtual machines"] = _rows(
)

_SEVERAL = "tests/unit/hyperv/test_several_hosts.py::"
_STORAGE = "tests/unit/hyperv/test_storage.py::StorageTest::"
AREAS["Several hosts"] = _rows(
    ("A path on a host's local disk has the same name on every host and is another file there.",
     "Microsoft Learn, \"Set up hosts for live migration without Failover Clustering\": the "
     "virtual machine's files keep their paths on the destination",
     _STORAGE + "test_the_same_name_on_another_host"),
    ("A path outside of the local disks is one file for all hosts, as on an SMB share.",
     "Microsoft Learn, \"Deploy Hyper-V over SMB\"",
     _STORAGE + "test_shared_paths_are_the_same_everywhere"),
    ("``\\\\HV2\\C$\\...`` is a path on the local disk of HV2.",
     "Microsoft Learn, \"Problems when administrative shares are missing\"",
     _STORAGE + "test_administrative_shares"),
    ("A connection to ``.`` reaches the host whose service calls; nobody's call is refused.",
     "Microsoft Learn, \"Describing the Location of a WMI Object\": a dot is the local computer",
     _SEVERAL + "test_the_local_host_is_the_caller_s"),
    ("A connection by name or address reaches another host; an unknown one is an RPC error.",
     "Microsoft Learn, \"Describing the Location of a WMI Object\"",
     _SEVERAL + "test_another_host_is_reached_by_name_and_by_address"),
    ("What os-win keeps for a process (connections, version of Windows) is kept for each host.",
     "os-win, os_win/utils/baseutils.py, hostutils.py and utilsfactory.py",
     _SEVERAL + "test_each_host_has_its_version_of_windows"),
    ("Threads use several hosts at once without seeing each other's machines.",
     "Microsoft Learn, \"Hyper-V WMI provider (V2)\": a host's objects are its own",
     _SEVERAL + "test_threads_work_on_two_hosts_at_once"),
)

_HEAD = """\
.. Printed by "python -m tests.hyperv.behaviours"; a test compares it.

==========================
The simulated Hyper-V host
==========================

What ``tests/hyperv`` does in the place of Windows, and on whose word. Nothing here was tried on a
real Windows host. "assumed" links to the decisions that no public document settles.

"""

_ASSUMPTIONS_HEAD = """\
Assumptions
===========

"""


def page():
    """The documentation page, as text."""
    parts = [_HEAD]
    for area, rows in AREAS.items():
        parts += [area, "\n", "=" * len(area), "\n\n", ".. list-table::\n", "   :header-rows: 1\n",
                  "   :widths: 50 30 20\n\n", "   * - The simulated host\n     - Basis\n",
                  "     - Test\n"]
        for row in rows:
            parts.append("   * - %s\n     - %s\n     - ``%s``\n" % (
                row.what, _linked(row.basis), row.test.rpartition("::")[2]))
        parts.append("\n")
    parts.append(_ASSUMPTIONS_HEAD)
    for entry in ASSUMPTIONS:
        parts.append(".. _assumed-%s:\n\n%s\n    %s *Why:* %s\n\n" % (
            entry.id, entry.id, entry.what, entry.reason))
    return "".join(parts).rstrip("\n") + "\n"


def _linked(basis):
    word, _, identifier = basis.partition(": ")
    return "assumed: :ref:`%s <assumed-%s>`" % (identifier, identifier) if (
        word == "assumed") else basis


if __name__ == "__main__":
    pathlib.Path(sys.argv[1]).write_text(page(), encoding="utf-8")
