"""The CIM repository of one computer: namespaces, classes, instances, method providers."""
import contextlib
import fnmatch
import functools
import xml.etree.ElementTree as ElementTree

from tests.hyperv import cim, schema, wql
from tests.hyperv.clock import Clock
from tests.hyperv.event_query import CREATION, DELETION, MODIFICATION, EventQuery

_HYPERV = "root/virtualization/v2"
# The methods that clients may call from another machine.
REPOSITORY_CALLS = frozenset((
    "find_class", "query", "associators", "get", "invoke", "modify", "subscribe"))

_BOOLEANS = {"true": True, "false": False}

# What is taken for a reference parameter beside its declared class: os-win gives the system of a
# machine for its configuration, and the other way round, and runs on Windows.
_ALSO_TAKEN = {"AffectedConfiguration": "CIM_ComputerSystem",
               "ComputerSystem": "CIM_VirtualSystemSettingData"}


class Repository:
    """What a WMI connection to one computer reads and calls.

    :param computer_name: goes into the path of every instance
    :param windows_version: decides which namespaces and classes there are
    :param clock: the computer's :class:`tests.hyperv.clock.Clock`; left out: a new one
    """

    def __init__(self, computer_name, windows_version, clock=None):
        self.computer_name = computer_name
        self.clock = clock or Clock()
        known = schema.load_namespaces(windows_version)
        self._of_roles = {name: known[name] for name in schema.OF_ROLES if name in known}
        self._classes = {name: classes for name, classes in known.items()
                         if name not in self._of_roles}
        self._instances = {namespace: {} for namespace in self._classes}
        self._providers, self._changers = {}, {}
        self._subscriptions, self._is_silent = [], False
        self.calls = CallLog()
        self.intercept = None

    # Filling it.

    def add_namespace(self, namespace):
        """Have a namespace that comes with a role of Windows: see :data:`schema.OF_ROLES`."""
        self._classes[namespace] = self._of_roles[namespace]
        self._instances.setdefault(namespace, {})

    def allow_changes(self, namespace, class_name, function):
        """Let clients put instances of a class.

        :param function: called with the stored instance and the given one; changes the first or
            raises :class:`cim.Error`
        """
        cls = self.find_class(namespace, class_name)
        self._changers[(_normal(namespace), cls.name.lower())] = function

    def provide(self, namespace, class_name, methods):
        """Register the functions behind the methods of a class.

        :param methods: {method name: function}; called with the target (an instance, or the class
            of a static method) and the in-parameters as keywords; returns the out-parameters as
            a dictionary, or the ReturnValue alone, or None for a method that is void
        """
        for method, function in methods.items():
            self.find_class(namespace, class_name).find_method(method)
            self._providers[(_normal(namespace), class_name.lower(), method)] = function

    def new(self, namespace, class_name, **values):
        """An instance that is not stored: no path, as an embedded one."""
        return cim.Instance(self.find_class(namespace, class_name), "", values)

    def add(self, namespace, class_name, **values):
        """Store a new instance and return it."""
        instance = cim.Instance(
            self.find_class(namespace, class_name), self.computer_name, values)
        self.store(instance)
        return instance

    def store(self, instance):
        """Store an instance, in the place of that with the same keys."""
        instance.server = self.computer_name
        stored, key = self._instances[_normal(instance.cls.namespace)], instance.key()
        before = stored.get(key)
        stored[key] = instance
        if before is None:
            self._tell(CREATION, instance, None)
        elif before is not instance and before.values != instance.values:
            self._tell(MODIFICATION, instance, before)

    def remove(self, instance):
        """Remove the stored instance with the keys of this one, if there is one."""
        removed = self._instances[_normal(instance.cls.namespace)].pop(instance.key(), None)
        if removed is not None:
            self._tell(DELETION, removed, None)

    # Reading it.

    def find_class(self, namespace, name):
        """:raises cim.Error: INVALID_NAMESPACE, INVALID_CLASS"""
        namespace = _normal(namespace)
        if namespace not in self._classes:
            raise cim.error("INVALID_NAMESPACE", "Invalid namespace: " + namespace)
        try:
            return self._classes[namespace][name.lower()]
        except KeyError:
            raise cim.error("INVALID_CLASS", "Invalid class: %s:%s" % (namespace, name)) from None

    def instances(self, namespace, class_name, **wanted):
        """The stored instances of a class and its children, with these property values."""
        name = self.find_class(namespace, class_name).name
        return [instance for instance in list(self._instances[_normal(namespace)].values())
                if name in instance.cls.lineage
                and all(instance[prop] == value for prop, value in wanted.items())]

    def stored(self, instance):
        """The stored instance with the keys of this one.

        :raises cim.Error: NOT_FOUND
        """
        found = self._instances[_normal(instance.cls.namespace)].get(instance.key())
        if found is None:
            raise cim.error("NOT_FOUND", "Not found: %s" % (
                instance.get_path() or str(instance.key())))
        return found

    def query(self, namespace, text):
        """Copies of the instances a WQL query selects, with the properties that it selects.

        :raises cim.Error: INVALID_QUERY, INVALID_CLASS, INVALID_NAMESPACE
        """
        query = wql.Query(text)
        query.check(self.find_class(namespace, query.class_name))
        return [query.selected(instance)
                for instance in self.instances(namespace, query.class_name)
                if query.matches(instance)]

    def get(self, instance):
        return self.stored(instance).clone()

    def associators(self, namespace, instance, association_class, result_class):
        """The instances tied to one by an association (a class that holds two references).

        :raises cim.Error: NOT_FOUND, INVALID_CLASS
        """
        for name in (association_class, result_class):
            if name:
                self.find_class(namespace, name)
        self.stored(instance)
        path, found = instance.get_path().lower(), []
        for candidate in list(self._instances[_normal(namespace)].values()):
            references = [value for value in candidate.values.values()
                          if isinstance(value, cim.Instance)]
            paths = [reference.get_path().lower() for reference in references]
            if len(references) != 2 or path not in paths:
                continue
            if association_class and not candidate.is_a(association_class):
                continue
            other = references[1 - paths.index(path)]
            if not result_class or other.is_a(result_class):
                # A job is tied to its VM longer than that may exist.
                stored = self._instances[_normal(other.cls.namespace)].get(other.key())
                if stored is not None:
                    found.append(stored.clone())
        return found

    # Changing it.

    def invoke(self, target, method, parameters):
        """Call a method and return its out-parameters.

        :param target: an instance, or the class for a static method
        :param parameters: an instance without class, or None
        :raises cim.Error: whatever WMI refuses before a provider sees the call
        """
        cls = target if isinstance(target, cim.Class) else target.cls
        name, declared = cls.find_method(method)
        provider = self._provider(cls, name)
        values = dict(parameters.values) if parameters else {}
        self._check_parameters(cls, name, declared, values)
        if not isinstance(target, cim.Class):
            stored = self.stored(target)
        elif name in cls.static_methods:
            stored = target
        else:
            raise cim.error("INVALID_METHOD_PARAMETERS", "%s.%s is not static: an instance's" % (
                cls.name, name))
        work = functools.partial(provider, stored, **values)
        result = self.intercept(stored, name, values, work) if self.intercept else work()
        is_void = result is None
        result = dict(result or {}) if is_void or isinstance(result, dict) else {
            "ReturnValue": result}
        self.calls.add(cls.name, name, values, result.get("ReturnValue", 0))
        answer = cim.Instance(None)
        for parameter in declared:
            if parameter.direction == "out":
                answer.add_element(
                    parameter.name, parameter.type, _sent(result.pop(parameter.name, None)))
        if not is_void:
            answer.add_element("ReturnValue", cim.CimType("uint32"), result.pop("ReturnValue", 0))
        if result:
            raise AssertionError("%s.%s gave undeclared %s" % (cls.name, name, sorted(result)))
        return answer

    def modify(self, given):
        """Put an instance.

        :raises cim.Error: NOT_SUPPORTED, NOT_FOUND, or what the class refuses
        """
        cls = given.cls
        function = self._changers.get((_normal(cls.namespace), cls.name.lower()))
        if function is None:
            raise cim.error("NOT_SUPPORTED", "instances are changed by methods: " + cls.name)
        self.calls.add(cls.name, "put", dict(given.values), 0)
        function(self.stored(given), given)

    def _check_parameters(self, cls, method, declared, values):
        """Refuse what WMI refuses before a provider sees the call.

        What is missing is looked for in Hyper-V's own namespace only: the tables of the others do
        not say what may be left out, and their providers look themselves. A reference has to be
        of the declared class, and to exist on this computer [assumption references-checked].

        :raises cim.Error: INVALID_METHOD_PARAMETERS, NOT_FOUND
        """
        inward = {p.name: p for p in declared if p.direction == "in"}
        unknown = set(values) - set(inward)
        if unknown:
            raise cim.error("INVALID_METHOD_PARAMETERS", "%s.%s has no parameter %s" % (
                cls.name, method, ", ".join(sorted(unknown))))
        for name, parameter in inward.items():
            value = values.get(name)
            if value is None:
                if not parameter.is_optional and _normal(cls.namespace) == _HYPERV:
                    raise cim.error("INVALID_METHOD_PARAMETERS", "%s.%s needs %s" % (
                        cls.name, method, name))
            elif parameter.type.of:
                for given in value if parameter.type.is_array else (value,):
                    if not (given.is_a(parameter.type.of)
                            or given.is_a(_ALSO_TAKEN.get(name, parameter.type.of))):
                        raise cim.error("INVALID_METHOD_PARAMETERS", "%s of %s.%s is a %s" % (
                            name, cls.name, method, given.get_class_name()))
                    if parameter.type.kind == "reference":
                        self._check_reference(given)

    def _check_reference(self, given):
        if given.server.lower() not in (self.computer_name.lower(), "."):
            raise cim.error("NOT_FOUND", "Not on this computer: " + given.get_path())
        self.stored(given)

    def _provider(self, cls, method):
        for name in cls.lineage:
            function = self._providers.get((_normal(cls.namespace), name.lower(), method))
            if function:
                return function
        raise cim.error("METHOD_NOT_AVAILABLE", "%s.%s is not simulated" % (cls.name, method))

    def embedded(self, namespace, text, class_name):
        """The instance written in a text, as ``GetText_(1)`` gives it (DMTF DSP0201).

        :raises cim.Error: INVALID_PARAMETER, TYPE_MISMATCH, NO_SUCH_PROPERTY
        """
        try:
            root = ElementTree.fromstring(text or "")
            cls = self.find_class(namespace, root.get("CLASSNAME") or "")
        except ElementTree.ParseError as fault:
            raise cim.error("INVALID_PARAMETER", "not an instance: %s" % fault) from None
        if root.tag != "INSTANCE":
            raise cim.error("INVALID_PARAMETER", "not an instance: %s" % root.tag)
        if class_name not in cls.lineage:
            raise cim.error("TYPE_MISMATCH", "%s is not a %s" % (cls.name, class_name))
        instance, seen = cim.Instance(cls), set()
        for element in root:
            name = instance.name_of(element.get("NAME") or "")
            cim_type = instance.types[name]
            if name in seen:
                raise cim.error("INVALID_PARAMETER", "%s is there twice" % name)
            seen.add(name)
            if ((element.tag, element.get("TYPE"))
                    != ("PROPERTY.ARRAY" if cim_type.is_array else "PROPERTY", cim_type.kind)):
                raise cim.error("TYPE_MISMATCH", "%s of %s is a %s" % (name, cls.name, cim_type))
            values = [value.text or "" for value in element.iter("VALUE")]
            if len(values) != 1 and not cim_type.is_array and list(element):
                raise cim.error("INVALID_PARAMETER", "%s has %d values" % (name, len(values)))
            try:
                if cim_type.kind == "boolean":
                    values = [_BOOLEANS[value.lower()] for value in values]
                instance[name] = values if cim_type.is_array else (values[0] if values else None)
            except (TypeError, KeyError):
                raise cim.error("TYPE_MISMATCH", "%s of %s is a %s" % (
                    name, cls.name, cim_type)) from None
        return instance

    # Events.

    def subscribe(self, namespace, text, deliver):
        """Deliver the events that a query selects until the result's function is called.

        :param deliver: called with (TargetInstance, PreviousInstance), None for what the event
            has not or the query did not select; must not block
        :raises cim.Error: see :class:`tests.hyperv.event_query.EventQuery`
        """
        entry = (EventQuery(text, functools.partial(self.find_class, namespace)), deliver)
        self._subscriptions.append(entry)

        def cancel():
            if entry in self._subscriptions:
                self._subscriptions.remove(entry)
        return cancel

    @contextlib.contextmanager
    def silence(self):
        """Let changes be no events: nobody is there to tell them."""
        self._is_silent = True
        try:
            yield
        finally:
            self._is_silent = False

    def changed(self, instance, before):
        """Tell the subscribers that an instance is not what it was."""
        self._tell(MODIFICATION, instance, before)

    def _tell(self, kind, instance, before):
        """Events come at once, not after WITHIN's interval [assumption events-at-once]."""
        if self._is_silent:
            return
        for query, deliver in list(self._subscriptions):
            if query.fits(kind, instance, before):
                deliver(*query.selected(instance, before))


class CallLog:
    """Every method call of a computer, in order: (class, method, parameters, return value)."""

    def __init__(self):
        self._entries = []

    def add(self, class_name, method, parameters, return_value):
        self._entries.append((class_name, method, parameters, return_value))

    def entries(self, pattern="*"):
        """The calls whose ``Class.Method`` matches a pattern such as ``*.SetKeyProtector``."""
        return [entry for entry in self._entries
                if fnmatch.fnmatchcase("%s.%s" % entry[:2], pattern)]

    def clear(self):
        self._entries.clear()


def _normal(namespace):
    return namespace.lower().replace("\\", "/")


def _sent(value):
    """Out-parameters hold references or copies, never what is stored."""
    if isinstance(value, cim.Instance):
        return value.clone()
    if isinstance(value, (list, tuple)):
        return [_sent(item) for item in value]
    return value
