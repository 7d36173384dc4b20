"""What Nova's services, all in one process, have still to do for each other.

Who knows that need not ask the API again and again whether an operation is over.
"""
import time

import eventlet.hubs
import fixtures
import greenlet
import oslo_messaging
from nova.compute import manager
from oslo_messaging._drivers import impl_fake
from oslo_messaging.rpc import dispatcher

from tests.functional import nova_base
from tests.hyperv import current_host

_TOPICS = ("compute", "conductor", "scheduler")


class MessagesInFlight(fixtures.Fixture):
    """Knows the messages that wait for their service, and those that are worked on."""

    def __init__(self):
        super().__init__()
        self._at_work, self._calls, self._away = {}, {}, set()

    def _setUp(self):  # noqa: N802
        self._wrap(dispatcher.RPCDispatcher, "dispatch", self._work)
        # Whoever asked nova-compute for that has its answer before.
        self._wrap(manager.ComputeManager, "_do_live_migration", self._work)
        self._wrap(impl_fake.FakeDriver, "_send", self._send)

    def _wrap(self, owner, name, wrapper):
        original = getattr(owner, name)
        self.useFixture(fixtures.MonkeyPatch(
            "%s.%s.%s" % (owner.__module__, owner.__qualname__, name),
            lambda *arguments, **keywords: wrapper(original, *arguments, **keywords)))

    def _work(self, original, *arguments):
        here, work = current_host.computer_or_none(), object()
        if here is None or here.name not in self._away:
            self._at_work[work] = here
        try:
            return original(*arguments)
        finally:
            self._at_work.pop(work, None)

    def _send(self, original, driver, target, context, message, wait_for_reply=None, *rest):
        if not wait_for_reply:
            return original(driver, target, context, message, wait_for_reply, *rest)
        if target.server in self._away:
            raise oslo_messaging.MessagingTimeout("%s is away" % target.server)
        this = greenlet.getcurrent()
        self._calls[this] = target.server
        try:
            return original(driver, target, context, message, wait_for_reply, *rest)
        finally:
            del self._calls[this]

    def lose(self, host):
        """The nova-compute of a host does nothing more; who waits for its answer need not wait."""
        self._away.add(host)
        for work, computer in list(self._at_work.items()):
            if computer is not None and computer.name == host:
                del self._at_work[work]
        for caller, server in list(self._calls.items()):
            if server == host:
                eventlet.hubs.get_hub().schedule_call_global(
                    0, caller.throw, oslo_messaging.MessagingTimeout("%s is away" % host))

    def find(self, host):
        """A nova-compute runs on a host again."""
        self._away.discard(host)

    def wait(self, is_over=lambda: False):
        """Until nothing is in flight, or what is waited for is over.

        A message that a service has taken, and not begun to work on, is not seen for a moment.
        """
        deadline, quiet = time.monotonic() + nova_base.PATIENCE, 0
        while quiet < 3 and not is_over():
            quiet = 0 if self._at_work or self._waiting() else quiet + 1
            assert time.monotonic() < deadline, (self._waiting(), self._at_work)
            time.sleep(0.02)

    def _waiting(self):
        """The queues with messages that a service will take."""
        return [key for exchange in impl_fake.FakeExchangeManager._exchanges.values()
                for queues in (exchange._server_queues, exchange._topic_queues)
                for key, messages in list(queues.items())
                if messages and self._is_served(*key)]

    def _is_served(self, topic, server):
        return topic in _TOPICS and server not in self._away and (topic, server) != (
            "compute", None)
