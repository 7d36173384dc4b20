"""Notification ports of a failover cluster: queues of events that clients wait for.

Source: Microsoft Learn, "CreateClusterNotifyPortV2", "GetClusterNotifyV2"; [MS-CMRP] 2.2.2.13
CLUSTER_CHANGE_GROUP_V2.
"""
import collections
import itertools

from tests.hyperv import native
from tests.hyperv.cluster_error import ClusterError

OBJECT_GROUP = 2
GROUP_DELETED, GROUP_COMMON_PROPERTY, GROUP_STATE, GROUP_OWNER = 0x1, 0x2, 0x8, 0x10


class NotifyPorts:
    """The ports of one cluster. Waiting blocks the native thread, and nothing else."""

    def __init__(self):
        self._changed = native.module("threading").Condition()
        self._ports, self._numbers = {}, itertools.count(1)

    def open(self, host_name):
        """The number of a new port.

        :param host_name: where it is waited for
        """
        with self._changed:
            number = next(self._numbers)
            self._ports[number] = _Port(host_name)
            return number

    def listen(self, number, object_type, flags, key):
        """Let a port receive events.

        :param object_type: :data:`OBJECT_GROUP`; the others have no events here
        :param flags: which changes, such as :data:`GROUP_STATE`
        :param key: comes with each event of this filter
        :raises ClusterError: no such port, or a filter that is not simulated
        """
        if object_type != OBJECT_GROUP:
            raise ClusterError("INVALID_PARAMETER")
        with self._changed:
            self._port(number).filters.append((object_type, flags, key))

    def close(self, number):
        """Close a port and wake who waits for it."""
        with self._changed:
            self._ports.pop(number, None)
            self._changed.notify_all()

    def close_of(self, host_name):
        """Close the ports of a host; None: of all."""
        with self._changed:
            for number in [n for n, p in self._ports.items()
                           if host_name in (None, p.host_name)]:
                del self._ports[number]
            self._changed.notify_all()

    def count(self):
        """How many filters all ports have."""
        with self._changed:
            return sum(len(port.filters) for port in self._ports.values())

    def post(self, object_type, flag, **event):
        """Queue an event in every port that listens to it."""
        with self._changed:
            for port in self._ports.values():
                for wanted, flags, key in port.filters:
                    if wanted == object_type and flags & flag:
                        port.events.append(
                            dict(event, object_type=object_type, flag=flag, key=key))
            self._changed.notify_all()

    def wait(self, number, milliseconds):
        """The next event of a port.

        :param milliseconds: how long to wait; None: for ever
        :returns: {"object_type", "flag", "key", "id", "parent", "name", "data"}
        :raises ClusterError: WAIT_TIMEOUT; INVALID_HANDLE when the port is closed
        """
        with self._changed:
            if not self._changed.wait_for(
                    lambda: number not in self._ports or self._ports[number].events,
                    None if milliseconds is None else milliseconds / 1000):
                raise ClusterError("WAIT_TIMEOUT")
            return self._port(number).events.popleft()

    def _port(self, number):
        if number not in self._ports:
            raise ClusterError("INVALID_HANDLE")
        return self._ports[number]


class _Port:
    def __init__(self, host_name):
        self.host_name = host_name
        self.filters, self.events = [], collections.deque()
