"""Reads the class tables in ``tests/hyperv/schema/``.

Notation, a class a block, parents first::

    class Msvm_Thing : CIM_Parent     the parent may be left out
      since 10.0                      first Windows version that has it; left out: all
      key InstanceID                  key properties; inherited where left out
      uint16 A B                      properties of one type; ``[]`` for arrays
      ref:CIM_Other C                 a reference; ``instance:`` for an embedded instance
      method Do(in string X, in? uint8[] Y, out ref:CIM_Job Job)
    static                          its methods are called on the class, not on an instance
    static Make(in string X)        this one is

``in?`` is a parameter that may be left out; WMI refuses a call without one of the others.
"""
import functools
import pathlib
import re

from tests.hyperv import cim

_FOLDER = pathlib.Path(__file__).parent / "schema"

# Namespaces: the file of each, and the first Windows version that has it. Those without a file
# hold no class that is used, but os-win connects to them.
_NAMESPACES = {
    "root/virtualization/v2": ("root_virtualization_v2.txt", (6, 2)),
    "root/microsoft/windows/hgs": ("root_microsoft_windows_hgs.txt", (10, 0)),
    "root/msps": ("root_msps.txt", (10, 0)),
    "root/cimv2": ("root_cimv2.txt", (6, 2)),
    "root/standardcimv2": ("root_standardcimv2.txt", (6, 2)),
    "root/microsoft/windows/storage": ("root_microsoft_windows_storage.txt", (6, 2)),
    "root/microsoft/windows/smb": ("root_microsoft_windows_smb.txt", (6, 2)),
    "root/microsoft/windows/remotedesktopmanagement": (None, (6, 2)),
    "root/interop": (None, (6, 2)),
    "root/wmi": (None, (6, 2)),
    "root/mscluster": ("root_mscluster.txt", (6, 2)),
}

# Those that come with a role of Windows which not every host has.
OF_ROLES = frozenset({"root/mscluster", "root/msps"})


def version_tuple(text):
    """``"10.0.17763"`` as (10, 0, 17763)."""
    return tuple(int(part) for part in text.split("."))


@functools.cache
def load_namespaces(windows_version):
    """The classes a host of this version has.

    :param windows_version: such as ``10.0.17763``
    :returns: {namespace in lower case: {class name in lower case: :class:`cim.Class`}}
    """
    version = version_tuple(windows_version)
    namespaces = {}
    for namespace, (file_name, since) in _NAMESPACES.items():
        if version >= since:
            text = (_FOLDER / file_name).read_text(encoding="utf-8") if file_name else ""
            namespaces[namespace] = parse(namespace, text, version, windows_version)
    return namespaces


def class_of(windows_version, namespace, name):
    """One class of :func:`load_namespaces`; a pickled class is made again with it."""
    return load_namespaces(windows_version)[namespace][name.lower()]


def parse(namespace, text, version=(99,), windows_version=None):
    """The classes declared in a text.

    :param version: leave out the classes that are newer than this
    :param windows_version: for a table of this package: the version it is read for
    :returns: {class name in lower case: :class:`cim.Class`}
    :raises ValueError: a line that the notation does not know, or what is declared twice
    """
    # PyMI reads the class __provider of every namespace when it connects (wmi/__init__.py, WMI).
    def origin(name):
        return (class_of, (windows_version, namespace, name)) if windows_version else None

    classes = {"__provider": cim.Class(
        namespace, "__Provider", None, {"Name": cim.CimType("string")}, {}, ("Name",),
        origin=origin("__Provider"))}
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r",\s*\n\s*", ", ", text)
    text = re.sub(r"\(\s*\n\s*", "(", text)
    for block in re.split(r"^class ", text, flags=re.MULTILINE)[1:]:
        head, *lines = [line.strip() for line in block.splitlines() if line.strip()]
        name, _, parent = head.partition(" : ")
        declared = _Block(name, lines)
        if name.lower() in classes:
            raise ValueError("%s: %s is there twice" % (namespace, name))
        if version >= declared.since:
            classes[name.lower()] = cim.Class(
                namespace, name, classes[parent.lower()] if parent else None,
                declared.properties, declared.methods, declared.keys, declared.static_methods,
                origin(name))
    return classes


class _Block:
    """The lines of one class."""

    def __init__(self, class_name, lines):
        self.since, self.keys, self.properties, self.methods = (0,), (), {}, {}
        self.static_methods, all_static = [], False
        for line in lines:
            word, _, rest = line.partition(" ")
            if word == "since":
                self.since = version_tuple(rest)
            elif word == "key":
                self.keys = tuple(rest.split())
            elif word == "method":
                self._add_method(class_name, rest)
            elif word == "static" and rest:
                self.static_methods.append(self._add_method(class_name, rest))
            elif word == "static":
                all_static = True
            else:
                for name in rest.split():
                    self._add(class_name, self.properties, name, cim.CimType(word))
        if all_static:
            self.static_methods = list(self.methods)

    def _add_method(self, class_name, text):
        match = re.fullmatch(r"(\w+)\((.*)\)", text)
        if not match:
            raise ValueError("%s: %s" % (class_name, text))
        self._add(class_name, self.methods, match.group(1), [
            _parameter(piece) for piece in match.group(2).split(", ") if piece])
        return match.group(1)

    def _add(self, class_name, members, name, declared):
        if name.lower() in {member.lower() for member in (*self.properties, *self.methods)}:
            raise ValueError("%s: %s is there twice" % (class_name, name))
        members[name] = declared


def _parameter(piece):
    direction, type_text, name = piece.split()
    if direction not in ("in", "in?", "out"):
        raise ValueError(piece)
    return cim.Parameter(direction.rstrip("?"), name, type_text, direction == "in?")
