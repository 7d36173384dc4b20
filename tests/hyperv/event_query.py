"""Queries about events: what is asked for, what WMI refuses, which event fits.

``SELECT fields FROM event class WITHIN seconds WHERE TargetInstance ISA 'class' [AND condition]``,
with the conditions of :mod:`tests.hyperv.wql` on ``TargetInstance.Property`` and
``PreviousInstance.Property``. The events are those of instances that are made, changed and removed.

Source: Microsoft Learn, "SELECT Statement for Event Queries", "WITHIN Clause", "ISA Operator for
Event Queries", "WMI Error Constants", "__InstanceModificationEvent class" and its kin.
"""
from tests.hyperv import cim, wql

CREATION, MODIFICATION, DELETION = "creation", "modification", "deletion"

_TARGET, _PREVIOUS = "targetinstance", "previousinstance"

# {event class: (what it tells of, the instances it holds)}
_EVENTS = {
    "__instancecreationevent": ((CREATION,), (_TARGET,)),
    "__instancemodificationevent": ((MODIFICATION,), (_TARGET, _PREVIOUS)),
    "__instancedeletionevent": ((DELETION,), (_TARGET,)),
    "__instanceoperationevent": ((CREATION, MODIFICATION, DELETION), (_TARGET,))}

# Event classes that every namespace has and nothing here tells of.
_NOT_SIMULATED = frozenset("__%sevent" % name for name in (
    "", "extrinsic", "aggregate", "methodinvocation", "timer", "classoperation", "classcreation",
    "classmodification", "classdeletion", "namespaceoperation", "namespacecreation",
    "namespacemodification", "namespacedeletion", "system", "consumerfailure", "eventdropped",
    "eventqueueoverflow", "qosfailure"))

# Seconds; the document's example of what may be refused as too small is 0.001.
_TOO_OFTEN = 0.001


class EventQuery(wql.Statement):
    """A query about events of instances.

    :param text: the query
    :param find_class: gives a :class:`cim.Class` by its name, or raises INVALID_CLASS
    :raises cim.Error: INVALID_QUERY, INVALID_CLASS, NOT_EVENT_CLASS, REGISTRATION_TOO_PRECISE
        (WITHIN is missing), REGISTRATION_TOO_BROAD (no class of instances is named)
        [assumption event-queries-checked]
    """

    def __init__(self, text, find_class):
        super().__init__(text)
        self._kinds, self._holds = self._event_class(find_class)
        self._check_interval()
        self._class = find_class(self._target_class())
        for comparison in self.comparisons:
            self._check_event_comparison(comparison, find_class)

    def fits(self, kind, instance, previous):
        """Whether to tell of an event.

        :param kind: :data:`CREATION`, :data:`MODIFICATION` or :data:`DELETION`
        :param instance: the instance, for a deletion as it was
        :param previous: for a modification: the instance as it was before; else None
        """
        return (kind in self._kinds and instance.cls.namespace == self._class.namespace
                and self._class.name in instance.cls.lineage and self.matches(instance, previous))

    def selected(self, instance, previous):
        """(TargetInstance, PreviousInstance) of an event: copies, and None for what it lacks.

        Names in the list that an event has not are no fault: os-win selects one
        (vmutils.py, _get_event_wql_query).
        """
        names = {field.partition(".")[0].lower() for field in self.fields} or set(self._holds)
        return (instance.clone() if _TARGET in names else None,
                previous.clone() if previous is not None and _PREVIOUS in names & set(self._holds)
                else None)

    def _event_class(self, find_class):
        name = self.class_name.lower()
        if name in _NOT_SIMULATED:
            raise self._invalid("%s is not simulated" % self.class_name)
        if name not in _EVENTS:
            found = find_class(self.class_name)
            raise cim.error("NOT_EVENT_CLASS", "not an event class: " + found.name)
        return _EVENTS[name]

    def _check_interval(self):
        """No class here has an event provider, so WMI has to poll [assumption events-by-polling].
        """
        if self.interval is None:
            raise cim.error("REGISTRATION_TOO_PRECISE", "WITHIN is missing: " + self._text)
        try:
            seconds = float(self.interval)
        except ValueError:
            raise self._invalid("WITHIN is a number of seconds") from None
        if not _TOO_OFTEN < seconds < float("inf"):
            raise self._invalid("WITHIN %s" % self.interval)

    def _target_class(self):
        classes = self._condition.classes if self._condition else None
        if not classes:
            raise cim.error("REGISTRATION_TOO_BROAD", "of which class? " + self._text)
        if len({name.lower() for name in classes}) > 1:
            raise self._invalid("one class of instances is simulated, not several")
        return next(iter(classes))

    def _check_event_comparison(self, comparison, find_class):
        """As strict as for a query about instances [assumption event-queries-checked]."""
        if comparison.operator == "isa":
            if comparison.name.lower() not in self._holds:
                raise self._invalid("the event has no %s" % comparison.name)
            find_class(comparison.literal[1])
            return
        for name in filter(None, (comparison.name, comparison.other)):
            first, _, member = name.partition(".")
            if first.lower() not in self._holds or not member:
                raise self._invalid("the event has no %s" % name)
            self._check_comparison(self._class, member, comparison)
