"""clusapi.dll: os-win's own ``_clusapi_utils`` calls it through ctypes, as it calls the real one.

:func:`make_library` gives an object for ``ctypes.windll.clusapi``. Its functions are real foreign
functions (ctypes makes machine code that calls back here), so os-win's ``register()`` declares
their arguments, and numbers, strings, buffers and addresses cross as they do on Windows. Sizes are
those of os-win's ``wintypes`` on this machine, where a DWORD has the width of a C long.

Source: Microsoft Learn, "clusapi.h"; [MS-CMRP] for the error codes of each call.
"""
import ctypes
import itertools
import sys
import traceback

from tests.hyperv import cim, native
from tests.hyperv.cluster_error import CODES, ClusterError

_INVALID_HANDLE_VALUE = ctypes.c_void_p(-1).value
_FOR_EVER = 0xFFFFFFFF
_STATE_UNKNOWN = 0xFFFFFFFF

# CLUSPROP_SYNTAX, from "Failover cluster: property lists".
_SYNTAX_END, _SYNTAX_NAME = 0, 0x00040003
_SYNTAX_DWORD, _SYNTAX_TEXT, _SYNTAX_ULARGE = 0x00010002, 0x00010003, 0x00010006

_GROUP_GET_RO_COMMON_PROPERTIES = 0x3000055
_ENUM_NODE, _ENUM_RESOURCE, _ENUM_GROUP = 1, 4, 8

_POINTER, _NUMBER, _TEXT = ctypes.c_void_p, ctypes.c_ulong, ctypes.c_wchar_p


def make_library(computer, set_last_error, structures):
    """The library.

    :param computer: a function that gives the :mod:`tests.hyperv.connection` computer of the caller
    :param set_last_error: kernel32's SetLastError of this process
    :param structures: os-win's module ``os_win.utils.winapi.libs.clusapi``
    """
    return _Library(computer, set_last_error, structures)


class _Library:
    """What ``ctypes.windll.clusapi`` would be."""

    def __init__(self, computer, set_last_error, structures):
        self._functions = _Functions(computer, structures)
        self._set_last_error = set_last_error
        for name, (result, arguments) in _SIGNATURES.items():
            setattr(self, name, self._foreign(name, result, arguments))

    def _foreign(self, name, result, arguments):
        function = getattr(self._functions, name)

        def call(*values):
            try:
                return function(*values) or 0
            except ClusterError as error:
                code = error.code
            except cim.Error:  # the connection to the cluster is gone
                code = CODES["RPC_SERVER_UNAVAILABLE"]
            except Exception:  # noqa: BLE001 - ctypes would drop it
                traceback.print_exc(file=sys.stderr)
                code = CODES["INTERNAL_ERROR"]
            return self._fail(name, result, code)
        foreign = ctypes.CFUNCTYPE(result, *arguments)(call)
        foreign.__name__ = name
        return foreign

    def _fail(self, name, result, code):
        if name == "GetClusterGroupState":
            self._set_last_error(code)
            return _STATE_UNKNOWN
        if result is _NUMBER:
            return code
        self._set_last_error(code)
        return 0


# {function: (type of its result, types of its arguments)}
_SIGNATURES = {
    "OpenCluster": (_POINTER, (_TEXT,)),
    "CloseCluster": (ctypes.c_long, (_POINTER,)),
    "OpenClusterGroup": (_POINTER, (_POINTER, _TEXT)),
    "CloseClusterGroup": (ctypes.c_long, (_POINTER,)),
    "OpenClusterNode": (_POINTER, (_POINTER, _TEXT)),
    "CloseClusterNode": (ctypes.c_long, (_POINTER,)),
    "OpenClusterResource": (_POINTER, (_POINTER, _TEXT)),
    "CloseClusterResource": (ctypes.c_long, (_POINTER,)),
    "ClusterOpenEnumEx": (_POINTER, (_POINTER, _NUMBER, _POINTER)),
    "ClusterGetEnumCountEx": (_NUMBER, (_POINTER,)),
    "ClusterEnumEx": (_NUMBER, (_POINTER, _NUMBER, _POINTER, _POINTER)),
    "ClusterCloseEnumEx": (ctypes.c_long, (_POINTER,)),
    "GetClusterGroupState": (_NUMBER, (_POINTER, _POINTER, _POINTER)),
    "ClusterGroupControl": (_NUMBER, (_POINTER, _POINTER, _NUMBER, _POINTER, _NUMBER, _POINTER,
                                      _NUMBER, _POINTER)),
    "OnlineClusterGroup": (_NUMBER, (_POINTER, _POINTER)),
    "OfflineClusterGroup": (_NUMBER, (_POINTER,)),
    "DestroyClusterGroup": (_NUMBER, (_POINTER,)),
    "MoveClusterGroupEx": (_NUMBER, (_POINTER, _POINTER, _NUMBER, _POINTER, _NUMBER)),
    "CancelClusterGroupOperation": (_NUMBER, (_POINTER, _NUMBER)),
    "CreateClusterNotifyPortV2": (_POINTER, (_POINTER, _POINTER, _POINTER, _NUMBER, _POINTER)),
    "CloseClusterNotifyPort": (ctypes.c_long, (_POINTER,)),
    "GetClusterNotifyV2": (_NUMBER, (_POINTER,) * 13 + (_NUMBER,)),
}


class _Functions:
    """The functions; each raises :class:`ClusterError` for what the library returns as a code."""

    def __init__(self, computer, structures):
        self._computer, self._structures = computer, structures
        self._lock = native.module("threading").Lock()
        self._handles, self._numbers = {}, itertools.count(0x1000, 4)

    # Handles.

    def _new(self, kind, **values):
        handle = _Handle(kind, **values)
        with self._lock:
            number = next(self._numbers)
            self._handles[number] = handle
        return number

    def _get(self, number, kind):
        with self._lock:
            return self._held(number, kind)

    def _close(self, number, kind):
        # Two threads may close the same handle: the second one finds none.
        with self._lock:
            self._held(number, kind)
            return self._handles.pop(number)

    def _held(self, number, kind):
        handle = self._handles.get(number)
        if handle is None or handle.kind != kind:
            raise ClusterError("INVALID_HANDLE")
        return handle

    def _open(self, cluster, kind, find, name):
        parent = self._get(cluster, "cluster")
        if not name:
            raise ClusterError("INVALID_PARAMETER")
        return self._new(kind, cluster=parent.cluster, computer=parent.computer, parent=cluster,
                         identifier=parent.call(find, name))

    def OpenCluster(self, name):  # noqa: N802
        computer = self._computer()
        return self._new("cluster", computer=computer,
                         cluster=computer.call_cluster(None, "open", name))

    def CloseCluster(self, handle):  # noqa: N802
        """Its groups, nodes and resources are closed with it, as os-win says of the real one."""
        self._close(handle, "cluster")
        with self._lock:
            for number in [n for n, h in self._handles.items()
                           if h.parent == handle and h.kind != "port"]:
                del self._handles[number]
        return 1

    def OpenClusterGroup(self, cluster, name):  # noqa: N802
        return self._open(cluster, "group", "find_group", name)

    def CloseClusterGroup(self, handle):  # noqa: N802
        return bool(self._close(handle, "group"))

    def OpenClusterNode(self, cluster, name):  # noqa: N802
        return self._open(cluster, "node", "find_node", name)

    def CloseClusterNode(self, handle):  # noqa: N802
        return bool(self._close(handle, "node"))

    def OpenClusterResource(self, cluster, name):  # noqa: N802
        return self._open(cluster, "resource", "find_resource", name)

    def CloseClusterResource(self, handle):  # noqa: N802
        return bool(self._close(handle, "resource"))

    # Enumerations.

    def ClusterOpenEnumEx(self, cluster, kinds, options):  # noqa: N802
        parent = self._get(cluster, "cluster")
        if options or not kinds or kinds & ~(_ENUM_NODE | _ENUM_RESOURCE | _ENUM_GROUP):
            raise ClusterError("INVALID_PARAMETER")
        items = [(kind, *item) for kind, list_all in (
            (_ENUM_NODE, "nodes"), (_ENUM_RESOURCE, "resources"), (_ENUM_GROUP, "groups"))
            if kinds & kind for item in parent.call(list_all)]
        return self._new("enumeration", parent=cluster, items=items)

    def ClusterGetEnumCountEx(self, handle):  # noqa: N802
        return len(self._get(handle, "enumeration").items)

    def ClusterEnumEx(self, handle, index, buffer, size):  # noqa: N802
        items = self._get(handle, "enumeration").items
        if index >= len(items):
            raise ClusterError("NO_MORE_ITEMS")
        kind, identifier, name = items[index]
        structure = self._structures.CLUSTER_ENUM_ITEM
        texts = [_wide(identifier), _wide(name)]
        needed = ctypes.sizeof(structure) + sum(len(text) for text in texts)
        size = _number_at(size)
        if not buffer or size.value < needed:
            size.value = needed
            raise ClusterError("MORE_DATA")
        size.value = needed
        item = structure.from_address(buffer)
        item.dwVersion, item.dwType = 1, kind
        item.cbId, item.cbName = (len(text) for text in texts)
        # Both texts lie in the caller's buffer, behind the structure.
        position = buffer + ctypes.sizeof(structure)
        for field, text in zip(("lpszId", "lpszName"), texts):
            ctypes.memmove(position, text, len(text))
            _POINTER.from_address(
                buffer + getattr(structure, field).offset).value = position
            position += len(text)
        return 0

    def ClusterCloseEnumEx(self, handle):  # noqa: N802
        return self._close(handle, "enumeration") and 0

    # Groups.

    def GetClusterGroupState(self, group, node_name, size):  # noqa: N802
        group = self._get(group, "group")
        state, owner = group.call("group_state", group.identifier)
        if node_name:
            _put_text(owner, node_name, size)
        return state

    def ClusterGroupControl(self, group, node, code, given, given_size,  # noqa: N802
                            buffer, buffer_size, returned):
        group = self._get(group, "group")
        if node:
            self._get(node, "node")
        if code != _GROUP_GET_RO_COMMON_PROPERTIES or given_size:
            raise ClusterError("INVALID_PARAMETER")
        data = self._properties(group.call("group_properties", group.identifier))
        _number_at(returned).value = len(data)
        if buffer_size < len(data):
            raise ClusterError("MORE_DATA")
        ctypes.memmove(buffer, data, len(data))
        return 0

    def OnlineClusterGroup(self, group, node):  # noqa: N802
        group = self._get(group, "group")
        return group.call("online", group.identifier,
                          self._get(node, "node").identifier if node else None)

    def OfflineClusterGroup(self, group):  # noqa: N802
        group = self._get(group, "group")
        return group.call("offline", group.identifier)

    def DestroyClusterGroup(self, group):  # noqa: N802
        group = self._get(group, "group")
        return group.call("destroy", group.identifier)

    def MoveClusterGroupEx(self, group, node, flags, properties, size):  # noqa: N802
        group = self._get(group, "group")
        return group.call("move", group.identifier,
                          self._get(node, "node").identifier if node else None, flags,
                          self._read_properties(properties, size))

    def CancelClusterGroupOperation(self, group, flags):  # noqa: N802
        group = self._get(group, "group")
        if flags:
            raise ClusterError("INVALID_PARAMETER")
        return group.call("cancel", group.identifier)

    # Events.

    def CreateClusterNotifyPortV2(self, port, cluster, filters, count, key):  # noqa: N802
        parent = self._get(cluster, "cluster")
        opened = None
        if port == _INVALID_HANDLE_VALUE:
            port = opened = self._new("port", cluster=parent.cluster, computer=parent.computer,
                                      parent=cluster, identifier=parent.call("open_port"))
        handle = self._get(port, "port")
        structure = self._structures.NOTIFY_FILTER_AND_TYPE
        try:
            for index in range(count):
                wanted = structure.from_address(filters + index * ctypes.sizeof(structure))
                handle.call("listen", handle.identifier, wanted.dwObjectType, wanted.FilterFlags,
                            key or 0)
        except ClusterError:
            if opened:
                self.CloseClusterNotifyPort(opened)
            raise
        return port

    def CloseClusterNotifyPort(self, port):  # noqa: N802
        handle = self._close(port, "port")
        handle.call("close_port", handle.identifier)
        return 1

    def GetClusterNotifyV2(self, port, key, filter_and_type, buffer, buffer_size,  # noqa: N802
                           identifier, identifier_size, parent, parent_size, name, name_size,
                           kind, kind_size, milliseconds):
        handle = self._get(port, "port")
        forever = milliseconds & _FOR_EVER == _FOR_EVER
        event = handle.waiting or handle.call(
            "wait_for_event", handle.identifier, None if forever else milliseconds)
        handle.waiting = event  # stays the next one until it fits
        # The key is the address that was given with the filter.
        _POINTER.from_address(key).value = event["key"]
        if filter_and_type:
            structure = self._structures.NOTIFY_FILTER_AND_TYPE.from_address(filter_and_type)
            structure.dwObjectType, structure.FilterFlags = event["object_type"], event["flag"]
        fits = _put_data(self._event_data(event["data"]), buffer, buffer_size)
        for text, place, size in ((event["id"], identifier, identifier_size),
                                  (event["parent"], parent, parent_size),
                                  (event["name"], name, name_size), ("", kind, kind_size)):
            try:
                if place:
                    _put_text(text, place, size)
            except ClusterError:
                fits = False
        if not fits:
            raise ClusterError("MORE_DATA")
        handle.waiting = None
        return 0

    def _event_data(self, data):
        if isinstance(data, dict):
            return self._properties(data)
        return b"" if data is None else bytes(self._dword(data))

    # Property lists: a count, and for each property its name and value, each with syntax and
    # length before it and padded to four bytes, and an end mark.

    def _dword(self, value):
        return self._structures.wintypes.DWORD(value)

    def _properties(self, values):
        parts = [bytes(self._dword(len(values)))]
        for name, (kind, value) in values.items():
            syntax, data = {
                "dword": (_SYNTAX_DWORD, lambda v=value: bytes(self._dword(v))),
                "ulonglong": (_SYNTAX_ULARGE, lambda v=value: bytes(ctypes.c_ulonglong(v))),
                "text": (_SYNTAX_TEXT, lambda v=value: _wide(v))}[kind]
            for one_syntax, one in ((_SYNTAX_NAME, _wide(name)), (syntax, data())):
                parts += [bytes(self._dword(one_syntax)), bytes(self._dword(len(one))),
                          one + bytes(-len(one) % 4)]
            parts.append(bytes(self._dword(_SYNTAX_END)))
        return b"".join(parts)

    def _read_properties(self, address, size):
        """{name: number} of a list that a caller made.

        os-win makes it of ctypes structures, whose parts are as long as a multiple of a DWORD.
        """
        if not address:
            return {}
        width = ctypes.sizeof(self._structures.wintypes.DWORD)
        data, position, values = ctypes.string_at(address, size), 0, {}

        def take(count):
            nonlocal position
            if position + count > len(data):
                raise ClusterError("INVALID_PARAMETER")
            taken, position = data[position:position + count], position + count
            return taken

        def number():
            return int.from_bytes(take(width), sys.byteorder)

        def value(expected):
            syntax, length = number(), number()
            if syntax != expected:
                raise ClusterError("INVALID_PARAMETER")
            taken = take(length)
            take(-length % width)
            return taken
        for _ in range(number()):
            name = value(_SYNTAX_NAME).decode(_WIDE)[:-1]
            values[name] = int.from_bytes(value(_SYNTAX_DWORD), sys.byteorder)
            if number() != _SYNTAX_END:
                raise ClusterError("INVALID_PARAMETER")
        return values


class _Handle:
    """What a handle stands for; which attributes it has depends on its kind."""

    def __init__(self, kind, computer=None, cluster=None, parent=None, identifier=None,
                 items=None):
        self.kind, self.computer, self.cluster = kind, computer, cluster
        self.parent, self.identifier, self.items = parent, identifier, items
        self.waiting = None

    def call(self, method, *arguments):
        return self.computer.call_cluster(self.cluster, method, *arguments)


_WIDE = "utf-%d-%s" % (ctypes.sizeof(ctypes.c_wchar) * 8,
                       "le" if sys.byteorder == "little" else "be")


def _wide(text):
    return (text + "\0").encode(_WIDE)


def _number_at(address):
    return _NUMBER.from_address(address)


def _put_data(data, address, size):
    """Whether it fits; the size is told in both cases."""
    if not address:
        return True
    size = _number_at(size)
    room, size.value = size.value, len(data)
    if room >= len(data):
        ctypes.memmove(address, data, len(data))
    return room >= len(data)


def _put_text(text, address, size):
    """Sizes are in characters: with the end when they come, without it when they go.

    :raises ClusterError: MORE_DATA
    """
    size = _number_at(size)
    room, size.value = size.value, len(text)
    if room <= len(text):
        raise ClusterError("MORE_DATA")
    data = _wide(text)
    ctypes.memmove(address, data, len(data))
