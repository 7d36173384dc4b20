"""Ends what a test's drivers listen to, once the test is over."""

import eventlet
import fixtures
import greenlet
from nova import utils

from tests.hyperv import current_host


class EndedGreenThreads(fixtures.Fixture):
    """Whatever Nova starts beside a test with ``spawn_n`` and still runs then is ended with it.

    A Hyper-V driver listens to events until its process ends, each time in one of the 20 native
    threads that eventlet has for the whole process: those of earlier tests would take them all,
    and keep everything that their tests made. So does a nova-compute that was started again.
    """

    def setUp(self):
        super().setUp()
        self._running = {}
        self.useFixture(fixtures.MonkeyPatch("nova.utils.spawn_n", self._spawn(utils.spawn_n)))
        self.addCleanup(self.end)

    def _spawn(self, spawn):
        def spawn_noted(function, *arguments, **keywords):
            return spawn(self._run, function, *arguments, **keywords)
        return spawn_noted

    def _run(self, function, *arguments, **keywords):
        this = greenlet.getcurrent()
        self._running[this] = current_host.computer_or_none()
        try:
            function(*arguments, **keywords)
        finally:
            self._running.pop(this, None)

    def leave(self, those):
        """Some of them are not to be ended here: they would do what is on their way out."""
        for one in those:
            self._running.pop(one, None)

    def end(self, host=None):
        """End them all, or those of one host, whose name is given."""
        for one, computer in list(self._running.items()):
            if host is None or computer is not None and computer.name == host:
                eventlet.kill(one)
        eventlet.sleep(0)
