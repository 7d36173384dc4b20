"""CIM values: types, classes, instances, errors. Plain data that can be pickled.

These classes are at once what the simulated host keeps and what the ``mi`` module shows, so that
what crosses a socket is the same as what stays in one process.

Behaviour that the docstrings call PyMI's was read in PyMI 1.0.9 (``PyMI/MI.cpp``,
``PyMI/utils.cpp``, ``wmi/__init__.py``).
"""

TYPE_NAMES = (
    "boolean", "uint8", "sint8", "uint16", "sint16", "uint32", "sint32", "uint64", "sint64",
    "real32", "real64", "char16", "datetime", "string", "reference", "instance")
TYPE_CODES = {name: code for code, name in enumerate(TYPE_NAMES)}
ARRAY = 16

_INTEGER_BITS = {
    "uint8": (0, 8), "sint8": (1, 8), "uint16": (0, 16), "sint16": (1, 16), "uint32": (0, 32),
    "sint32": (1, 32), "uint64": (0, 64), "sint64": (1, 64)}

# MI_Result of mi.h, and the HRESULT (WBEM_E_...) that goes with it.
# Source: Microsoft Learn, "MI_Result enumeration" and "WMI Error Constants".
RESULTS = {
    "FAILED": (1, 0x80041001), "ACCESS_DENIED": (2, 0x80041003),
    "INVALID_NAMESPACE": (3, 0x8004100E), "INVALID_PARAMETER": (4, 0x80041008),
    "INVALID_CLASS": (5, 0x80041010), "NOT_FOUND": (6, 0x80041002),
    "NOT_SUPPORTED": (7, 0x8004100C), "ALREADY_EXISTS": (11, 0x80041019),
    "NO_SUCH_PROPERTY": (12, 0x80041002), "TYPE_MISMATCH": (13, 0x80041005),
    "INVALID_QUERY": (15, 0x80041017), "METHOD_NOT_AVAILABLE": (16, 0x8004102D),
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

    def convert(self, value):
        """The value as the extension would store it, as PyMI's own conversion does.

        :raises TypeError: a Python type that cannot become this one
        :raises Error: a value that WMI refuses
        """
        return _convert(value, self.code)


def _convert(value, code):
    if value is None:
        return None
    name = TYPE_NAMES[code & ~ARRAY]
    if code & ARRAY:
        if not isinstance(value, (list, tuple)):
            raise TypeError("an array of %s expected, not %s" % (name, type(value).__name__))
        return tuple(_convert_item(item, name) for item in value)
    return _convert_scalar(value, name)


def _convert_item(value, name):
    if name == "uint8" and isinstance(value, bool):
        # PyMI throws a C++ pointer that nobody catches: the whole process would be gone.
        raise SystemError("PyMI ends the process when a uint8 array holds a bool")
    if name == "uint8" and isinstance(value, int):
        return value & 0xFF  # PyMI cuts silently
    return _convert_scalar(value, name)


def _convert_scalar(value, name):
    if name in ("string", "datetime"):
        return value if isinstance(value, str) else str(value)  # PyMI: bytes become "b'..'"
    if name in ("instance", "reference"):
        if not isinstance(value, Instance):
            raise TypeError("an instance expected, not %s" % type(value).__name__)
        return value
    if name == "boolean":
        if isinstance(value, int):
            return bool(value)
        raise TypeError("a boolean expected, not %s" % type(value).__name__)
    if name in ("real32", "real64"):
        return float(value)
    return _convert_integer(value, name)


def _convert_integer(value, name):
    if isinstance(value, bool):
        raise error("TYPE_MISMATCH", "a boolean was given for %s" % name)
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            raise TypeError("%r is not %s" % (value, name)) from None
    if not isinstance(value, int):
        raise TypeError("%s expected, not %s" % (name, type(value).__name__))
    signed, bits = _INTEGER_BITS[name]
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    if not low <= value < high:
        raise error("TYPE_MISMATCH", "%d is out of the range of %s" % (value, name))
    return value


class Parameter:
    """A parameter of a method: direction ("in" or "out"), name, type."""

    __slots__ = ("direction", "name", "type")

    def __init__(self, direction, name, type_text):
        self.direction, self.name, self.type = direction, name, CimType(type_text)


class Class:
    """A CIM class with what it inherits.

    :param namespace: such as ``root/virtualization/v2``
    :param parent: a :class:`Class` or None
    :param properties: {name: :class:`CimType`}, its own
    :param methods: {name: [:class:`Parameter`]}, its own
    :param keys: names of the key properties; inherited where empty
    :param origin: (function, arguments) that gives this very class again in another process,
        so that a pickle carries the class by name
    """

    def __init__(self, namespace, name, parent, properties, methods, keys, origin=None):
        self.namespace, self.name, self._origin = namespace, name, origin
        self.lineage = (name,) + (parent.lineage if parent else ())
        self.properties = {**(parent.properties if parent else {}), **properties}
        self.methods = {**(parent.methods if parent else {}), **methods}
        self.keys = tuple(keys) or (parent.keys if parent else ())

    def find_method(self, name):
        """(declared name, parameters) of a method.

        :raises Error: METHOD_NOT_FOUND
        """
        for declared, parameters in self.methods.items():
            if declared.lower() == name.lower():
                return declared, parameters
        raise error("METHOD_NOT_FOUND", "%s has no method %s" % (self.name, name))

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
        raise error("NO_SUCH_PROPERTY", "a class has no value of %s" % (item,))

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
        raise error("NO_SUCH_PROPERTY", "%s has no %s" % (self.get_class_name(), item))

    def add_element(self, name, cim_type, value=None):
        """Add a parameter; only for an instance without a class."""
        self.types[name] = cim_type
        self.values[name] = cim_type.convert(value)

    def get_element(self, item):
        name = self.name_of(item)
        return name, self.types[name].code, self.values[name]

    def __getitem__(self, item):
        return self.values[self.name_of(item)]

    def __setitem__(self, item, value):
        name = self.name_of(item)
        self.values[name] = self.types[name].convert(value)

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
        """The object path; "" for an instance that is not stored, an embedded one for example."""
        if not self.server or not self.cls.keys:
            return ""
        return "\\\\%s\\%s:%s.%s" % (
            self.server, self.cls.namespace.replace("/", "\\"), self.cls.name,
            ",".join('%s="%s"' % (key, _escaped(self.values[key])) for key in self.cls.keys))

    def key(self):
        """What tells it from every other instance of its namespace."""
        return (self.cls.name.lower(),) + tuple(
            _plain(self.values[key]).lower() for key in self.cls.keys)

    def reference(self):
        """A copy that holds the keys alone."""
        keys_only = Instance(self.cls, self.server)
        keys_only.values.update({key: self.values[key] for key in self.cls.keys})
        return keys_only

    def clone(self):
        copy = Instance.__new__(Instance)
        copy.cls, copy.server = self.cls, self.server
        copy.types, copy.values = dict(self.types), dict(self.values)
        return copy


def _instance(cls, server, values, types):
    instance = Instance.__new__(Instance)
    instance.cls, instance.server, instance.values = cls, server, values
    instance.types = dict(cls.properties) if cls else types
    return instance


def _plain(value):
    return value.get_path() if isinstance(value, Instance) else str(value)


def _escaped(value):
    return _plain(value).replace("\\", "\\\\").replace('"', '\\"')
