"""Ends what a test's drivers listen to, once the test is over."""

import eventlet
import fixtures
import greenlet
from nova import utils


class EndedGreenThreads(fixtures.Fixture):
    """Whatever Nova starts beside a test with ``spawn_n`` and still runs then is ended with it.

    A Hyper-V driver listens to events until its process ends, each time in one of the 20 native
    threads that eventlet has for the whole process: those of earlier tests would take them all,
    and keep everything that their tests made.
    """

    def setUp(self):
        super().setUp()
        self._running = set()
        self.useFixture(fixtures.MonkeyPatch("nova.utils.spawn_n", self._spawn(utils.spawn_n)))
        self.addCleanup(self._end_all)

    def _spawn(self, spawn):
        def spawn_noted(function, *arguments, **keywords):
            return spawn(self._run, function, *arguments, **keywords)
        return spawn_noted

    def _run(self, function, *arguments, **keywords):
        this = greenlet.getcurrent()
        self._running.add(this)
        try:
            function(*arguments, **keywords)
        finally:
            self._running.discard(this)

    def _end_all(self):
        for one in list(self._running):
            eventlet.kill(one)
        eventlet.sleep(0)
