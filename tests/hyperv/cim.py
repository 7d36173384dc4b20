"""CIM values: types, classes, instances, errors. Plain data that can be pickled.

These classes are at once what the simulated host keeps and what the ``mi`` module shows, so that
what crosses a socket is the same as what stays in one process.

Behaviour that the docstrings call PyMI's was read in PyMI 1.0.9 (``PyMI/Utils.cpp``,
``PyMI/Instance.cpp``, ``MI/MIValue.cpp``, ``MI/MI++.cpp``, ``wmi/__init__.py``).
"""
import datetime
import re

TYPE_NAMES = (
    "boolean", "uint8", "sint8", "uint16", "sint16", "uint32", "sint32", "uint64", "sint64",
    "real32", "real64", "char16", "datetime", "string", "reference", "instance")
TYPE_CODES = {name: code for code, name in enumerate(TYPE_NAMES)}
ARRAY = 16

_INTEGER_RANGES = {"char16": (0, 0xFFFF)}
for _bits in (8, 16, 32, 64):
    _INTEGER_RANGES["uint%d" % _bits] = 0, (1 << _bits) - 1
    _INTEGER_RANGES["sint%d" % _bits] = -(1 << _bits - 1), (1 << _bits - 1) - 1

# Every MI_Result of mi.h by its number, as PyMI's mi_error names them (MI/MIExceptions.cpp).
RESULT_NAMES = (
    "OK", "FAILED", "ACCESS_DENIED", "INVALID_NAMESPACE", "INVALID_PARAMETER", "INVALID_CLASS",
    "NOT_FOUND", "NOT_SUPPORTED", "CLASS_HAS_CHILDREN", "CLASS_HAS_INSTANCES",
    "INVALID_SUPERCLASS", "ALREADY_EXISTS", "NO_SUCH_PROPERTY", "TYPE_MISMATCH",
    "QUERY_LANGUAGE_NOT_SUPPORTED", "INVALID_QUERY", "METHOD_NOT_AVAILABLE", "METHOD_NOT_FOUND",
    "NAMESPACE_NOT_EMPTY", "INVALID_ENUMERATION_CONTEXT", "INVALID_OPERATION_TIMEOUT",
    "PULL_HAS_BEEN_ABANDONED", "PULL_CANNOT_BE_ABANDONED", "FILTERED_ENUMERATION_NOT_SUPPORTED",
    "CONTINUATION_ON_ERROR_NOT_SUPPORTED", "SERVER_LIMITS_EXCEEDED", "SERVER_IS_SHUTTING_DOWN")

# What WMI answers: the MI_Result, and the HRESULT (WBEM_E_...) that goes with it.
# Source: Microsoft Learn, "MI_Result enumeration" and "WMI Error Constants".
RESULTS = {
    "FAILED": (1, 0x80041001), "ACCESS_DENIED": (2, 0x80041003),
    "INVALID_NAMESPACE": (3, 0x8004100E), "INVALID_PARAMETER": (4, 0x80041008),
    "INVALID_METHOD_PARAMETERS": (4, 0x8004102F),
    "INVALID_CLASS": (5, 0x80041010), "NOT_FOUND": (6, 0x80041002),
    "NOT_SUPPORTED": (7, 0x8004100C), "ALREADY_EXISTS": (11, 0x80041019),
    "NO_SUCH_PROPERTY": (12, 0x80041002), "TYPE_MISMATCH": (13, 0x80041005),
    "INVALID_QUERY": (15, 0x80041017), "NOT_EVENT_CLASS": (1, 0x80041059),
    "REGISTRATION_TOO_BROAD": (1, 0x80042001), "REGISTRATION_TOO_PRECISE": (1, 0x80042002),
    "METHOD_NOT_AVAILABLE": (16, 0x8004102D),
    "METHOD_NOT_FOUND": (17, 0x8004102E)}


class Error(Exception):
    """``mi.error``: one argument, a dictionary with mi_result, error_code and message."""


class TimedOut(Error):
    """``mi.timeouterror``."""


def error(result, message):
    """An :class:`Error` to raise.

    :param result: a name in :data:`RESULTS`
    :param message: what is wrong, in words
    """
    number, hresult = RESULTS[result]
    return Error({"mi_result": number, "error_code": hresult, "message": message})


def client_error(result, message):
    """An :class:`Error` that the client's own MI library raises: without an HRESULT.

    :param result: a name in :data:`RESULT_NAMES`
    :param message: what is wrong, in words; PyMI gives the name of the result alone
    """
    return Error({"mi_result": RESULT_NAMES.index(result), "error_code": 0,
                  "message": "MI_RESULT_%s (%s)" % (result, message)})


class CimType:
    """The declared type of a property or parameter, such as ``uint8[]`` or ``ref:CIM_Job``.

    :param text: as written in the schema files
    """

    __slots__ = ("code", "of", "text")

    def __init__(self, text):
        self.text = text
        scalar = text[:-2] if text.endswith("[]") else text
        kind, _, self.of = scalar.partition(":")
        kind = {"ref": "reference"}.get(kind, kind)
        self.code = TYPE_CODES[kind] | (ARRAY if text.endswith("[]") else 0)

    def __repr__(self):
        return self.text

    @property
    def kind(self):
        """The name in :data:`TYPE_NAMES`, whether an array or not."""
        return TYPE_NAMES[self.code & ~ARRAY]

    @property
    def is_array(self):
        return bool(self.code & ARRAY)

    def convert(self, value):
        """The value as the extension would store it, by the rules of PyMI's own conversion.

        Two of them are stricter here, since no test would see what PyMI does: an integer that does
        not fit is refused where PyMI cuts it or leaves Python with a stray OverflowError, and so
        is None in an array of numbers, which PyMI makes 0. A datetime is a text in DMTF's form;
        what a client may give, :class:`Instance` knows.

        :raises TypeError: a Python type that cannot become this one
        :raises Error: a value that the MI library refuses
        :raises SystemError: where PyMI would end the process
        """
        if value is None:
            return None
        if isinstance(value, bool) and self.text != "boolean":
            raise client_error("TYPE_MISMATCH", "a boolean was given for %s" % self.text)
        if not self.is_array:
            return _convert(value, self.kind)
        if not isinstance(value, (list, tuple)):
            raise TypeError("an array of %s expected, not %s" % (self.kind, type(value).__name__))
        if self.kind == "uint8" and set(map(type, value)) == {int}:
            return _bytes_tuple(value)
        return tuple(_convert_item(item, self.kind) for item in value)


def _bytes_tuple(numbers):
    """The items of a uint8 array of integers alone; protectors and certificates are long ones."""
    try:
        return tuple(bytes(numbers))
    except ValueError:
        raise client_error("TYPE_MISMATCH", "a number is out of the range of uint8") from None


def _convert_item(value, kind):
    if value is None:
        raise Error({"message": "Array item cannot be NULL"})
    if isinstance(value, bool) and kind != "boolean":
        # PyMI throws a C++ pointer that nobody catches: the whole process would be gone.
        raise SystemError("PyMI ends the process when an array of %s holds a bool" % kind)
    return _convert(value, kind)


def _convert(value, kind):
    if kind in ("instance", "reference"):
        if isinstance(value, Instance):
            return value
    elif kind == "boolean":
        if isinstance(value, int):
            return bool(value)
    elif isinstance(value, (Instance, list, tuple)):
        pass  # for no other type
    elif kind == "string":
        return value if isinstance(value, str) else str(value)  # bytes become "b'..'"
    elif kind == "datetime":
        if isinstance(value, str):
            return _datetime_text(value)
    elif isinstance(value, (int, str)):
        return _convert_number(value, kind)
    raise TypeError("%s expected, not %s" % (kind, type(value).__name__))


def _convert_number(value, kind):
    try:
        number = int(value)
    except ValueError:
        raise TypeError("%r is not %s" % (value, kind)) from None
    if kind in ("real32", "real64"):
        return float(number)
    low, high = _INTEGER_RANGES[kind]
    if not low <= number <= high:
        raise client_error("TYPE_MISMATCH", "%d is out of the range of %s" % (number, kind))
    return number


# yyyymmddHHMMSS.mmmmmmsUUU, or ddddddddHHMMSS.mmmmmm:000 for an interval. Source: Microsoft Learn,
# "Date and Time Format", "Interval Format" of WMI.
_TIMESTAMP = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)\.(\d{6})[+-]\d{3}")
_INTERVAL = re.compile(r"(\d{8})(\d\d)(\d\d)(\d\d)\.(\d{6}):000")


def _datetime_text(text):
    if not (_TIMESTAMP.fullmatch(text) or _INTERVAL.fullmatch(text)):
        raise client_error("TYPE_MISMATCH", "%r is no datetime of DMTF's form" % text)
    return text


def python_datetime(text):
    """What PyMI makes of a datetime: ``datetime.datetime`` without a zone, or ``timedelta``."""
    found = _TIMESTAMP.fullmatch(text)
    if found:
        return datetime.datetime(*(int(part) for part in found.groups()))
    days, hours, minutes, seconds, microseconds = (
        int(part) for part in _INTERVAL.fullmatch(text).groups())
    return datetime.timedelta(days, seconds, microseconds, 0, minutes, hours)


class Parameter:
    """A parameter of a method.

    :param direction: "in" or "out"
    :param is_optional: a call may leave it out
    """

    __slots__ = ("direction", "is_optional", "name", "type")

    def __init__(self, direction, name, type_text, is_optional=False):
        self.direction, self.name, self.type = direction, name, CimType(type_text)
        self.is_optional = is_optional


class Class:
    """A CIM class with what it inherits.

    :param namespace: such as ``root/virtualization/v2``
    :param parent: a :class:`Class` or None
    :param properties: {name: :class:`CimType`}, its own
    :param methods: {name: [:class:`Parameter`]}, its own
    :param keys: names of the key properties; inherited where empty
    :param static_methods: names of those of its methods that are called on the class
    :param origin: (function, arguments) that gives this very class again in another process,
        so that a pickle carries the class by name
    """

    def __init__(self, namespace, name, parent, properties, methods, keys, static_methods=(),
                 origin=None):
        self.namespace, self.name, self._origin = namespace, name, origin
        self.lineage = (name,) + (parent.lineage if parent else ())
        self.properties = {**(parent.properties if parent else {}), **properties}
        self.methods = {**(parent.methods if parent else {}), **methods}
        self.keys = tuple(keys) or (parent.keys if parent else ())
        self.static_methods = frozenset(static_methods) | (
            parent.static_methods if parent else frozenset())

    def find_method(self, name):
        """(declared name, parameters) of a method.

        :raises Error: METHOD_NOT_FOUND
        """
        for declared, parameters in self.methods.items():
            if declared.lower() == name.lower():
                return declared, parameters
        raise client_error("METHOD_NOT_FOUND", "%s has no method %s" % (self.name, name))

    def __reduce__(self):
        return self._origin or super().__reduce__()

    # What PyMI's Python calls on mi.Class.
    def get_class_name(self):
        return self.name

    def get_namespace(self):
        return self.namespace

    def get_path(self):
        return "%s:%s" % (self.namespace.replace("/", "\\"), self.name)

    def clone(self):
        return self

    def get_element(self, item):
        raise client_error("NO_SUCH_PROPERTY", "a class has no value of %s" % (item,))

    def __len__(self):
        return 0

    def __bool__(self):
        return True


class Instance:
    """An instance of a class, or (without a class) a bag of parameters.

    :param cls: a :class:`Class` or None
    :param server: the computer it lives on; "" for one that is not stored
    :param values: {property: value}
    """

    def __init__(self, cls, server="", values=None):
        self.cls, self.server = cls, server
        # Whether PyMI holds it: it refuses some values that the host itself may store.
        self.is_client_side = False
        self.types = dict(cls.properties) if cls else {}
        self.values = dict.fromkeys(self.types)
        for name, value in (values or {}).items():
            self[name] = value

    def __reduce__(self):
        return _instance, (self.cls, self.server, self.values, None if self.cls else self.types)

    def name_of(self, item):
        """The declared spelling of a property, given by name in any case or by position.

        :raises Error: NO_SUCH_PROPERTY
        """
        if isinstance(item, int):
            if item < len(self.types):
                return list(self.types)[item]
        elif item in self.types:
            return item
        else:
            for name in self.types:
                if name.lower() == item.lower():
                    return name
        raise client_error("NO_SUCH_PROPERTY", "%s has no %s" % (self.get_class_name(), item))

    def add_element(self, name, cim_type, value=None):
        """Add a parameter; only for an instance without a class."""
        self.types[name] = cim_type
        self.values[name] = cim_type.convert(value)

    def get_element(self, item):
        name = self.name_of(item)
        return name, self.types[name].code, self[name]

    def __getitem__(self, item):
        name = self.name_of(item)
        value = self.values[name]
        return _for_client(value, self.types[name]) if self.is_client_side else value

    def __setitem__(self, item, value):
        name = self.name_of(item)
        cim_type = self.types[name]
        if value is not None and self.is_client_side and cim_type.kind == "datetime":
            raise TypeError("PyMI has no conversion to a datetime")
        self.values[name] = cim_type.convert(value)

    def __len__(self):
        return len(self.types)

    def __bool__(self):
        return bool(self.cls or self.types)

    def get_class_name(self):
        return self.cls.name if self.cls else "__PARAMETERS"

    def get_namespace(self):
        return self.cls.namespace

    def get_server_name(self):
        return self.server

    def is_a(self, class_name):
        return any(name.lower() == class_name.lower() for name in self.cls.lineage)

    def get_path(self):
        """The object path; "" for an instance that is not stored, an embedded one for example.

        :raises Error: PyMI makes no path of keys that are neither texts nor integers, as those of
            associations, nor of an instance without keys (MI/MI++.cpp, Instance::GetPath)
        """
        if not self.server:
            return ""
        if self.is_client_side:
            self._check_path()
        return "\\\\%s\\%s:%s.%s" % (
            self.server, self.cls.namespace.replace("/", "\\"), self.cls.name,
            ",".join("%s=%s" % (key, _key_text(self.values[key])) for key in self.cls.keys))

    def _check_path(self):
        if not self.cls.keys:
            raise Error({"message": "Cannot get path of an instance without key elements"})
        for key in self.cls.keys:
            cim_type = self.types[key]
            if cim_type.kind != "string" and cim_type.kind not in _INTEGER_RANGES:
                raise Error({"message": "Unsupported key type in path generation"})

    def key(self):
        """What tells it from every other instance of its namespace."""
        return (self.cls.name.lower(),) + tuple(
            _plain(self.values[key]).lower() for key in self.cls.keys)

    def reference(self):
        """A copy that holds the keys alone."""
        keys_only = Instance(self.cls, self.server)
        keys_only.values.update({key: self.values[key] for key in self.cls.keys})
        return keys_only

    def projected(self, names):
        """A copy in which all but these properties and the keys is null.

        :param names: of properties, in any case
        """
        copy, wanted = self.clone(), {name.lower() for name in (*names, *self.cls.keys)}
        for name in copy.values:
            if name.lower() not in wanted:
                copy.values[name] = None
        return copy

    def clone(self):
        copy = Instance.__new__(Instance)
        copy.cls, copy.server = self.cls, self.server
        copy.is_client_side = self.is_client_side
        copy.types, copy.values = dict(self.types), dict(self.values)
        return copy


def _for_client(value, cim_type):
    if value is None or cim_type.kind not in ("datetime", "instance", "reference"):
        return value
    if cim_type.is_array:
        return tuple(_for_client(item, CimType(cim_type.text[:-2])) for item in value)
    if cim_type.kind == "datetime":
        return python_datetime(value)
    value = value.clone()
    value.is_client_side = True
    return value


def _instance(cls, server, values, types):
    instance = Instance.__new__(Instance)
    instance.cls, instance.server, instance.values = cls, server, values
    instance.is_client_side = False
    instance.types = dict(cls.properties) if cls else types
    return instance


def _plain(value):
    return value.get_path() if isinstance(value, Instance) else str(value)


def _key_text(value):
    if isinstance(value, int):
        return str(value)
    return '"%s"' % _plain(value).replace("\\", "\\\\").replace('"', '\\"')
