"""Keystone and some of the plain APIs beside it on 127.0.0.1, of any environment; no Nova."""
import contextlib
import fcntl
import pathlib
import shutil
import signal
import sys
import threading
import time
import urllib.error
import urllib.request

from tests.cloud import client, configuration, databases, identity, ports, processes, settings

KEPT = pathlib.Path(__file__).resolve().parent.parent.parent / ".cloud" / "kept"
PROGRAMS = pathlib.Path(__file__).resolve().parent / "programs"


class CloudFailure(Exception):
    """The cloud cannot be started; the message says why."""


class PlainCloud:
    """Services of the stock programs, each a process, on free ports, with a folder of their own.

    As a context manager it is stopped at the end, whatever happens in between, Ctrl-C and SIGTERM
    included.
    """

    def __init__(self, state_dir, apis=settings.APIS, prefix=sys.prefix, base_port=None,
                 debug=True, progress=print, token_seconds=3600, kept_dir=KEPT):
        """Only remember what to start.

        :param state_dir: a folder for databases, logs and files; emptied at each start
        :param apis: which of settings.APIS; Keystone is needed by all
        :param prefix: the environment whose programs run; this process needs no more of it
        :param base_port: the first of its ports; None takes a free block
        :param debug: whether the services log at debug level
        :param progress: called with a line after each step
        :param token_seconds: how long Keystone's tokens live
        :param kept_dir: where migrated databases lie between starts
        """
        self._state = pathlib.Path(state_dir).resolve()
        self._base_port = base_port
        self._progress = progress
        self._choices = {"apis": tuple(apis), "prefix": pathlib.Path(prefix), "debug": debug,
                         "token_seconds": token_seconds}
        self._kept = pathlib.Path(kept_dir)
        self._settings = None
        self._processes = None
        self._state_lock = None
        self._old_handlers = {}
        self._began = time.monotonic()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    # -- what a user of the cloud needs

    @property
    def log_dir(self):
        """The folder with every service's log (``.log``) and output (``.out``)."""
        return self._state / "log"

    @property
    def state_dir(self):
        """The folder of this cloud's files."""
        return self._state

    @property
    def auth_url(self):
        """Keystone's URL."""
        return self._settings.auth_url

    @property
    def endpoints(self):
        """The service catalog: {service type: URL}."""
        return dict(self._settings.endpoints(), identity=self._settings.auth_url)

    def version(self, package):
        """The version of a service that runs, by its package's name."""
        return self._settings.version(package)

    def password(self, user):
        """A user's password."""
        return self._settings.passwords[user]

    def session(self, user):
        """A keystoneauth1 session of a user: admin, alice, bob, carol or a service's."""
        return identity.session(self._settings, user)

    def client(self, user):
        """A client.Client of a user, with what tests and demonstration do most."""
        return client.Client(self.session(user), self._settings.url("barbican"))

    def credentials(self, user):
        """How a user logs in, as the options of keystoneauth1 in a service's configuration."""
        return configuration.credentials(self._settings, user)

    # -- life

    def start(self):
        """Start everything and return when it can be used.

        Whatever stops it half-way, nothing is left running.

        :raises CloudFailure: it cannot be started
        """
        self._began = time.monotonic()
        self._catch_signals()
        try:
            self._start()
        except (processes.ProcessFailure, ports.NoPorts, OSError) as failure:
            self.stop()
            raise CloudFailure(str(failure)) from failure
        except BaseException:
            self.stop()
            raise

    def stop(self):
        """Stop every process of this cloud; its files stay until the next start."""
        with _no_interruption():
            if self._processes is not None:
                self._processes.stop()
            if self._state_lock is not None:
                self._state_lock.close()
                self._state_lock = None
            if self._settings is not None:
                self._settings.ports.release()
        self._leave_signals()

    def leave_running(self):
        """Let the cloud outlive this process: ``python -m tests.cloud down`` stops it."""
        self._leave_signals()

    def stop_api(self, service):
        """Stop one of the plain APIs, as if it had failed."""
        self._processes.stop_one(service)

    def signal_api(self, service, number):
        """Send one of the plain APIs a signal, such as SIGSTOP."""
        self._processes.signal_one(service, number)

    def start_api(self, service):
        """Start one that was stopped and return when it answers."""
        self._start_api(service)
        self._wait_for_answer(service)

    def _start(self):
        self._take_state_folder()
        self._settings = config = settings.Settings.with_new_passwords(
            state=self._state, ports=ports.reserve(self._base_port), **self._choices)
        config.save()
        self._write_configuration()
        self._processes = processes.Processes(
            self._state, config.log, configuration.environment(config))
        self._say("configuration in %s, ports from %d" % (self._state, config.ports.base))
        self._start_before_apis()
        migrated = databases.prepare(config, self._processes, self._kept)
        self._say("databases migrated" if migrated else "databases from an earlier start")
        self._start_apis()
        self._start_after_apis()

    def _write_configuration(self):
        configuration.write_apis(self._settings)

    def _start_before_apis(self):
        """What a larger cloud starts before its databases are there."""

    def _start_after_apis(self):
        """What a larger cloud starts when users and catalog are there."""

    def _take_state_folder(self):
        state = self._state
        state.mkdir(parents=True, exist_ok=True)
        if any(state.iterdir()) and not settings.record_of(state).exists():
            raise CloudFailure("%s holds something else than a cloud's files." % state)
        state.chmod(0o700)  # configuration files hold passwords too
        settings.record_of(state).touch(mode=0o600)
        self._state_lock = open(state / "lock", "w")
        try:
            fcntl.flock(self._state_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CloudFailure("%s is in use by another process." % state) from None
        earlier = processes.Processes(state, state, {})
        if earlier.running():
            earlier.stop()
            self._say("stopped what an earlier start had left running")
        for folder in settings.Settings.FOLDERS:
            shutil.rmtree(state / folder, ignore_errors=True)
            (state / folder).mkdir()

    def _start_apis(self):
        config = self._settings
        for service in config.apis:
            if service != "keystone":
                self._start_api(service)
        self._processes.run("keystone-bootstrap", [
            config.programs / "keystone-manage",
            "--config-file", config.etc / "keystone/keystone.conf", "bootstrap",
            "--bootstrap-region-id", settings.REGION,
            "--bootstrap-public-url", config.auth_url,
            "--bootstrap-internal-url", config.auth_url,
            "--bootstrap-admin-url", config.auth_url],
            environment={"OS_BOOTSTRAP_PASSWORD": config.passwords["admin"]})
        self._start_api("keystone")
        self._wait_for_answer("keystone", "/v3")
        identity.seed(config)
        self._say("users, roles and catalog")
        # nova-scheduler, for one, remembers for its life that there is no Placement.
        for service in config.apis:
            if service != "keystone":
                self._wait_for_answer(service)

    def _start_api(self, service):
        # It holds the lock on the ports for as long as the cloud runs, also without this process.
        self._processes.start(
            service, [self._settings.programs / "python", "-P", PROGRAMS / "wsgi_service.py",
                      service, self._settings.ports[service]],
            keep_open=[self._settings.ports.lock.fileno()])

    def _wait_for_answer(self, service, path="/"):
        url = self._settings.url(service) + path
        self._processes.wait_until(service, lambda: _answers(url))
        self._say(service)

    def _say(self, message):
        self._progress("%6.1f s  %s" % (time.monotonic() - self._began, message))

    def _catch_signals(self):
        """Let SIGTERM and SIGHUP end this process by an exception, so that the cloud is stopped.

        Only where nobody else has decided what they do.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is signal.SIG_DFL:
                    self._old_handlers[number] = signal.signal(number, _exit_by_signal)

    def _leave_signals(self):
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._old_handlers = {}


def _exit_by_signal(number, _):
    sys.exit(128 + number)


@contextlib.contextmanager
def _no_interruption():
    """Let nobody interrupt what stops the processes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _answers(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(url, timeout=10).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
