"""Definitions: a VM's settings as plain values, and the files (.vmcx) that hold them.

A definition is a dictionary: "identifier", "name", "computer", the key protectors and the security
policy (base64), "elements" (setting data: {"class", "values"}), "boot_identities", "snapshots"
(identifiers) and "last_snapshot". The form of the file is this package's own: a digest and JSON
[assumption definition-form].
"""
import hashlib
import json
import os
import pathlib
import re

from tests.hyperv.resource_types import DVD_DISK, HARD_DISK

_MAGIC = b"SIMULATED-VMCX "
_SETTINGS = "Msvm_VirtualSystemSettingData"

# The properties of Msvm_VirtualSystemSettingData that hold folders of the VM's files.
ROOTS = ("ConfigurationDataRoot", "GuestStateDataRoot", "SnapshotDataRoot", "SuspendDataRoot",
         "SwapFileDataRoot", "LogDataRoot")


class Damaged(Exception):
    """The file is no whole definition."""


def write(path, definition):
    """Replace a file."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(definition).encode("utf-8")
    temporary = path.with_suffix(".new")
    temporary.write_bytes(_MAGIC + _digest(text) + b"\n" + text)
    os.replace(temporary, path)


def read(path):
    """The definition in a file.

    :raises Damaged: see the class
    :raises OSError: the file cannot be read
    """
    head, _, text = pathlib.Path(path).read_bytes().partition(b"\n")
    if head != _MAGIC + _digest(text):
        raise Damaged(str(path))
    return json.loads(text)


def settings(definition):
    """The values of its Msvm_VirtualSystemSettingData."""
    return next(element["values"] for element in definition["elements"]
                if element["class"] == _SETTINGS)


def place(definition, roots):
    """Let a definition's files lie in other folders.

    :param roots: the value of each of :data:`ROOTS` by its name; None: it has none
    """
    values = settings(definition)
    for name in ROOTS:
        values.pop(name, None)
        if roots[name] is not None:
            values[name] = roots[name]


def disks(definition, kinds=(HARD_DISK,)):
    """[(path, values of the resource)] of its disk files."""
    found = []
    for element in definition["elements"]:
        values = element["values"]
        if values.get("ResourceSubType") in kinds and values.get("HostResource"):
            found.append((values["HostResource"][0], values))
    return found


def all_disks(definition):
    """:func:`disks`, and those in its DVD drives."""
    return disks(definition, (HARD_DISK, DVD_DISK))


def replaced(definition, identifiers):
    """The definition with other identifiers wherever they stand.

    :param identifiers: {old: new}
    """
    pattern = re.compile("|".join(map(re.escape, identifiers)))
    return json.loads(pattern.sub(lambda match: identifiers[match.group()],
                                  json.dumps(definition)))


def _digest(text):
    return hashlib.sha256(text).hexdigest().encode("ascii")
