"""Kills the nova-compute of one host, while those of other hosts in the same process live on.

A process that is killed does nothing more: no exception passes through it, nothing is undone, no
lock is given back. So each of its green threads is halted for good where it next reaches out of the
process: to Windows, to the disk or to the database. It is never resumed, and neither an ``except``
nor a ``finally``, a context manager or a decorator of Nova runs in it. What the process only
remembered goes with it: whoever runs on the host afterwards does so on a new object for the
computer (:func:`tests.hyperv.windows.forget`), with locks of its own: some green threads of the
dead process are not halted yet when it runs already, and must not take those.
"""
import contextlib
import os
import weakref

import eventlet
import eventlet.event
import eventlet.hubs
import eventlet.timeout
import fixtures
import greenlet
from eventlet import tpool
from oslo_concurrency import lockutils
from oslo_db.sqlalchemy import enginefacade
from oslo_service import service as oslo_service
from tooz.drivers import file as shared_locks

from tests.functional import nova_base
from tests.hyperv import current_host, faults, native, windows
from tests.hyperv.connection import LocalComputer

# Each is one change of a file or a folder; shutil's are made of these.
_FILE_CHANGES = ("mkdir", "rename", "replace", "unlink", "remove", "rmdir")

# Folders of the drivers' own: cached images, locks.
_OF_NO_SERVER = {"_base", "locks"}
# Some are made once, for all servers: not to be counted, as it is but the first operation's.
_MADE_ONCE = {"Instances", "export"}


class _Halted(BaseException):
    """In a native thread that works for a green thread: that one is to be halted."""


def is_buried(service):
    """Whether a nova-compute was killed, and :meth:`KilledComputes.bury` was told."""
    return service.stop is _nothing


def _nothing():
    pass


class _LocksOfEachProcess:
    """Instead of oslo.concurrency's collection for the whole process: each computer has one.

    :param make: makes a collection
    """

    def __init__(self, make):
        self._make, self._of = make, weakref.WeakKeyDictionary()

    def get(self, name):
        here = current_host.computer_or_none() or self
        if here not in self._of:
            self._of[here] = self._make()
        return self._of[here].get(name)


class KilledComputes(fixtures.Fixture):
    """Counts the changes that a host's nova-compute makes, and kills it at one of them.

    A change is a method of WMI that does not only read, a function of a Windows library for
    certificates or of a cluster, or a change of a file or a folder below ``folder``.

    :param folder: where the hosts' disks are
    :ivar halted: the green threads that are
    """

    def __init__(self, folder):
        super().__init__()
        self._folder = os.path.join(folder, "")
        self._dead, self.halted, self._is_over = set(), [], False
        self._host = self._changes = self._killed_at = self._death = self._fatal = None
        self._killed = None
        self._reads = False
        self._main = native.module("threading").get_ident()
        # What runs inside of the simulated host is no work of nova-compute.
        self._inside = native.module("threading").local()

    def _setUp(self):  # noqa: N802
        for name in ("_call", "call_cluster", "call_certificates"):
            self._patch(LocalComputer, name, self._call)
        for name in _FILE_CHANGES:
            self._patch(os, name, self._change_file)
        self._patch(tpool, "execute", self._execute)
        self._patch(enginefacade._TransactionContextManager, "_transaction_scope", self._access)
        for name, make in (("_semaphores", lockutils.Semaphores),
                           ("_fair_locks", lockutils.FairLocks)):
            self.useFixture(fixtures.MonkeyPatch(
                "oslo_concurrency.lockutils." + name, _LocksOfEachProcess(make)))
        # Of all nodes of a cluster.
        self._patch(shared_locks.FileDriver, "get_lock", self._access)
        self.addCleanup(self.end)

    def _patch(self, owner, name, replacement):
        original = getattr(owner, name)
        self.useFixture(fixtures.MonkeyPatch(
            "%s.%s" % (owner.__module__ + "." + owner.__qualname__
                       if isinstance(owner, type) else owner.__name__, name),
            lambda *arguments, **keywords: replacement(name, original, *arguments, **keywords)))

    # For tests.

    @contextlib.contextmanager
    def recorded(self, host, reads=False):
        """The names of the changes that the host's nova-compute makes while this lasts.

        :param reads: whether methods that only read and queries are among them
        """
        self._host, self._changes, self._killed_at, self._reads = host, [], None, reads
        try:
            yield self._changes
        finally:
            self._host = None

    @contextlib.contextmanager
    def armed(self, host, number, after=False, reads=False):
        """The host's nova-compute is killed at a change, and has been when this ends.

        :param number: of the change, counted from 0; or its name, for the first of that name
        :param after: whether the change is made
        :param reads: as with :meth:`recorded`
        """
        with self.aimed(host, number, after, reads):
            yield
            try:
                with eventlet.timeout.Timeout(nova_base.PATIENCE) as limit:
                    self._death.wait()
            except eventlet.timeout.Timeout as over:
                if over is not limit:
                    raise
                raise AssertionError("%s is not killed at change %s; it made %s" % (
                    host, number, self._changes)) from None

    @contextlib.contextmanager
    def aimed(self, host, number, after, reads=False):
        """As :meth:`armed`, but it may make fewer changes.

        Gives a function: at which change it is killed; None: it is not.
        """
        self._host, self._changes, self._killed_at = host, [], (number, after)
        self._reads, self._death, self._killed = reads, eventlet.event.Event(), None
        try:
            yield lambda: self._fatal if self._death.ready() else None
        finally:
            self._host = None

    def bury(self, service):
        """What ends with the process of a nova-compute that was killed.

        :param service: the nova.service.Service
        """
        # One that only waits for another, which is halted, reaches out of the process no more.
        self.halted.extend(service.rpcserver._work_executor._pool.coroutines_running)
        service.rpcserver.stop()
        # Its timers; nothing is waited for.
        oslo_service.Service.stop(service)
        service.manager.driver._compute_event_callback = None
        service.stop = _nothing

    # What is done on the way out of the process.

    def _call(self, name, original, computer, *arguments):
        what = self._name_of(name, arguments)
        self._inside.depth = getattr(self._inside, "depth", 0)
        if self._inside.depth:
            return original(computer, *arguments)

        def call():
            self._inside.depth += 1
            try:
                return original(computer, *arguments)
            finally:
                self._inside.depth -= 1
        return self._make(what, call)

    def _change_file(self, name, original, path, *arguments, **keywords):
        if getattr(self._inside, "depth", 0) or not (
                keywords.get("dir_fd") is not None or self._is_of_a_host(path)) \
                or self._is_made_once(name, path):
            return original(path, *arguments, **keywords)
        return self._make("%s %s" % (name, os.path.basename(os.fsdecode(path))),
                          lambda: original(path, *arguments, **keywords))

    def _is_of_a_host(self, path):
        path = os.path.abspath(os.fsdecode(path))
        return path.startswith(self._folder) and not _OF_NO_SERVER & set(path.split(os.sep))

    def _is_made_once(self, name, path):
        folder, base = os.path.split(os.path.abspath(os.fsdecode(path)))
        return name == "mkdir" and (base in _MADE_ONCE or os.path.join(folder, "") == self._folder)

    def _access(self, name, original, *arguments, **keywords):
        self._halt_if_dead()
        return original(*arguments, **keywords)

    def _execute(self, name, original, function, *arguments, **keywords):
        def run(*arguments, **keywords):
            try:
                return function(*arguments, **keywords)
            except _Halted:
                return _Halted
        self._halt_if_dead()
        result = original(run, *arguments, **keywords)
        if result is _Halted:
            self._halt()
        self._halt_if_dead()
        return result

    def _name_of(self, call, arguments):
        """What is called; None: it does not count."""
        if call != "_call":
            return ".".join(str(argument) for argument in arguments[:2])
        method, *rest = arguments
        if method == "modify":
            return rest[0].get_class_name() + ".put"
        if method != "invoke":
            return method if self._reads else None
        target, name = rest[:2]
        if name.startswith(faults.READING) and not self._reads:
            return None
        return "%s.%s" % (getattr(target, "cls", target).name, name)

    def _make(self, change, function):
        self._halt_if_dead()
        here = current_host.computer_or_none()
        if change is None or here is None or here.name != self._host:
            return function()
        number = len(self._changes)
        self._changes.append(change)
        if self._killed_at in ((number, False), (change, False)):
            self._kill(here)
        result = function()
        if self._killed_at in ((number, True), (change, True)):
            self._kill(here)
        return result

    def _kill(self, here):
        self._fatal = self._changes[-1]
        self._killed = here
        self._dead.add(here)
        windows.forget(here.name)
        # The other nodes give theirs back as usual: each has the object of its own.
        shared_locks.FileDriver._barriers = weakref.WeakValueDictionary()
        self._halt()

    def _halt_if_dead(self):
        if current_host.computer_or_none() in self._dead:
            self._halt()

    def _halt(self):
        if native.module("threading").get_ident() != self._main:
            raise _Halted
        if self._is_over:
            raise greenlet.GreenletExit
        this = greenlet.getcurrent()
        if this.parent is None:
            raise AssertionError("the test itself runs on a computer that was killed")
        self.halted.append(this)
        # Those of one that was killed before come here late.
        if current_host.computer_or_none() is self._killed and not self._death.ready():
            self._death.send()
        while True:
            # Some time limits of eventlet end what a green thread waits for.
            with contextlib.suppress(eventlet.timeout.Timeout):
                eventlet.hubs.get_hub().switch()

    def end(self):
        """End what is halted, when the test is over; what it does on its way out counts no more.
        """
        self._is_over = True
        while self.halted:
            eventlet.kill(self.halted.pop())
        eventlet.sleep(0)

    def end_the_halted(self):
        """As :meth:`end`, for a test that goes on."""
        self.end()
        self._is_over = False
