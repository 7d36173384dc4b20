"""The face of PyMI's C extension ``mi``: PyMI's own ``wmi/__init__.py`` runs on it unmodified.

:func:`make_modules` gives the modules ``mi`` and ``mi.mi_error`` over a *computer*: an object with
the methods of :class:`tests.hyperv.connection.LocalComputer`, in this process or behind a socket.

Source: PyMI 1.0.9, ``PyMI/PyMI.cpp`` and the calls of ``wmi/__init__.py``.
"""
import traceback
import types
import xml.etree.ElementTree as ElementTree

from tests.hyperv import cim


def make_modules(computer):
    """{module name: module} to put into ``sys.modules``.

    :param computer: what sessions to ``.`` and to other computers reach
    """
    mi, mi_error = types.ModuleType("mi"), types.ModuleType("mi.mi_error")
    for number, name in enumerate(cim.RESULT_NAMES):
        setattr(mi_error, "MI_RESULT_" + name, number)
    for name, code in cim.TYPE_CODES.items():
        setattr(mi, "MI_" + name.upper(), code)
        setattr(mi, "MI_%sA" % name.upper(), code | cim.ARRAY)
    mi.MI_ARRAY = cim.ARRAY
    mi.PROTOCOL_WMIDCOM, mi.PROTOCOL_WINRM = "WMIDCOM", "WINRM"
    mi.MI_AUTH_TYPE_DEFAULT = "Default"
    mi.MI_TRUE, mi.MI_FALSE = True, False
    mi.error, mi.timeouterror = cim.Error, cim.TimedOut
    mi.Class, mi.Instance = cim.Class, cim.Instance
    mi.Session, mi.Operation, mi.Serializer = Session, Operation, Serializer
    mi.mi_error = mi_error
    mi.Application = lambda: Application(computer)
    return {"mi": mi, "mi.mi_error": mi_error}


class Application:
    """``mi.Application``."""

    def __init__(self, computer):
        self._computer = computer

    def create_session(self, computer_name=".", protocol="", destination_options=None):
        return Session(self._computer.named(computer_name))

    def create_destination_options(self):
        return Options()

    def create_operation_options(self):
        return Options()

    def create_method_params(self, mi_class, method_name):
        """The in-parameters, sorted by name: the extension keeps them in a ``std::map``."""
        _, declared = mi_class.find_method(method_name)
        parameters = cim.Instance(None)
        parameters.is_client_side = True
        for parameter in sorted(declared, key=lambda p: p.name):
            if parameter.direction == "in":
                parameters.add_element(parameter.name, parameter.type)
        return parameters

    def create_instance_from_class(self, class_name, mi_class):
        instance = cim.Instance(mi_class)
        instance.is_client_side = True
        return instance

    def create_serializer(self):
        return Serializer()


class Options:
    """Time limits, credentials and the like are accepted and have no effect."""

    def set_timeout(self, timeout):
        pass

    def set_ui_locale(self, locale_name):
        pass

    def set_transport(self, transport):
        pass

    def add_credentials(self, auth_type, domain, user, password, cert_thumbprint):
        pass

    def set_custom_option(self, name, value_type, value, must_comply=True):
        pass


class Session:
    """``mi.Session``: the operations of one connection."""

    def __init__(self, computer):
        self._computer = computer

    def exec_query(self, ns, query, operation_options=None):
        return Operation(self._computer.query(ns, query))

    def get_associators(self, ns, instance, assoc_class="", result_class="",
                        operation_options=None):
        return Operation(self._computer.associators(ns, instance, assoc_class, result_class))

    def get_class(self, ns, class_name):
        return Operation([self._computer.get_class(ns, class_name)])

    def get_instance(self, ns, key_instance):
        return Operation([self._computer.get_instance(ns, key_instance)])

    def invoke_method(self, target, method_name, params, operation_options=None):
        return Operation([self._computer.invoke(target, method_name, params)])

    def create_instance(self, ns, instance, operation_options=None):
        raise cim.error("NOT_SUPPORTED", "instances are made by methods: " + str(instance.cls.name))

    def modify_instance(self, ns, instance, operation_options=None):
        self._computer.modify(instance)

    def delete_instance(self, ns, instance, operation_options=None):
        raise cim.error("NOT_SUPPORTED", "instances are deleted by methods: " + instance.cls.name)

    def subscribe(self, ns, query, indication_result):
        return Subscription(self._computer, ns, query, indication_result)


class Operation:
    """``mi.Operation``: results one by one."""

    def __init__(self, results):
        self._results = list(results)
        for result in self._results:
            if isinstance(result, cim.Instance):
                result.is_client_side = True

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None

    def get_next_instance(self):
        return self._results.pop(0) if self._results else None

    get_next_class = get_next_instance

    def cancel(self):
        self._results.clear()

    def close(self):
        self._results.clear()


class Subscription:
    """The operation behind an event watcher.

    The callback gets (event, bookmark, machine, more results, result, error, details) and a last
    call without more results when the subscription ends: PyMI's watcher waits for that one.
    """

    def __init__(self, computer, ns, query, callback):
        self._callback, self._open = callback, True
        self._cancel = computer.subscribe(ns, query, self._deliver, self._ended)

    def _deliver(self, instance, previous):
        """Give the callback an event that holds what is not None.

        What the callback raises (wmi's does without a TargetInstance) is printed and forgotten:
        PyMI/Utils.cpp, CallPythonCallback.
        """
        event = cim.Instance(None)
        for name, value in (("TargetInstance", instance), ("PreviousInstance", previous)):
            if value is not None:
                event.add_element(name, cim.CimType("instance"), value)
        event.is_client_side = True
        try:
            self._callback(event, None, None, True, 0, None, None)
        except Exception:  # noqa: BLE001 - see above
            traceback.print_exc()

    def _ended(self):
        if self._open:
            self._open = False
            self._callback(None, None, None, False, 0, None, None)

    def has_more_results(self):
        return self._open

    def cancel(self):
        self._cancel()
        self._ended()

    def close(self):
        pass


class Serializer:
    """``mi.Serializer``: the CIM-XML of an instance, as ``GetText_(1)`` gives it.

    References and embedded instances are left out: no method takes them as text here.
    """

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None

    def serialize_instance(self, instance):
        root = ElementTree.Element("INSTANCE", CLASSNAME=instance.get_class_name())
        for name, value in instance.values.items():
            code = instance.types[name].code
            kind = cim.TYPE_NAMES[code & ~cim.ARRAY]
            if value is None or kind in ("reference", "instance"):
                continue
            if code & cim.ARRAY:
                element = ElementTree.SubElement(root, "PROPERTY.ARRAY", NAME=name, TYPE=kind)
                element = ElementTree.SubElement(element, "VALUE.ARRAY")
            else:
                element = ElementTree.SubElement(root, "PROPERTY", NAME=name, TYPE=kind)
            for item in value if code & cim.ARRAY else (value,):
                ElementTree.SubElement(element, "VALUE").text = (
                    str(item).upper() if kind == "boolean" else str(item))
        return ElementTree.tostring(root, encoding="unicode")
