"""A small real OpenStack on 127.0.0.1: Keystone, Barbican, Glance, Placement and Nova."""
import contextlib
import fcntl
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import keystoneauth1.exceptions
from keystoneauth1 import adapter

from tests.cloud import (
    broker,
    client,
    configuration,
    databases,
    identity,
    ports,
    processes,
    settings,
)
from tests.cloud.settings import Companion, ComputeHost

__all__ = ["Cloud", "CloudFailure", "Companion", "ComputeHost"]

KEPT = pathlib.Path(__file__).resolve().parent.parent.parent / ".cloud" / "kept"
PROGRAMS = pathlib.Path(__file__).resolve().parent / "programs"
PLAIN_APIS = ("keystone", "barbican", "placement", "glance")

# What a Nova service writes once it listens. A call to it before that is lost.
LISTENS = "Join ServiceGroup membership for this service %s"


class CloudFailure(Exception):
    """The cloud cannot be started; the message says why."""


class Cloud:
    """Services of the stock programs, each a process, on free ports, with a folder of their own.

    As a context manager it is stopped at the end, whatever happens in between, Ctrl-C and SIGTERM
    included. Without RabbitMQ on the machine all of Nova runs in one process, with the first
    compute host only.
    """

    def __init__(self, state_dir, base_port=None, compute_hosts=None, nova_conf=None, debug=True,
                 progress=print, compute_driver=configuration.COMPUTE_DRIVER,
                 available_filters=configuration.AVAILABLE_FILTERS,
                 enabled_filters=configuration.ENABLED_FILTERS, token_seconds=3600,
                 one_process=None, kept_dir=KEPT, companions=()):
        """Only remember what to start.

        :param state_dir: a folder for databases, logs and files; emptied at each start
        :param base_port: the first of its ports; None takes a free block
        :param compute_hosts: ComputeHost values, one for each nova-compute
        :param nova_conf: {section: {option: value}} for nova-api, -conductor and -scheduler
        :param debug: whether the services log at debug level
        :param progress: called with a line after each step
        :param token_seconds: how long Keystone's tokens live
        :param one_process: run all of Nova in one process; None does without RabbitMQ only
        :param kept_dir: where migrated databases lie between starts
        :param companions: Companion values: programs of the test's own that live with the cloud
        """
        self._state = pathlib.Path(state_dir).resolve()
        self._base_port = base_port
        self._hosts = list(compute_hosts or [ComputeHost("compute1")])
        self._nova_conf = nova_conf or {}
        self._debug = debug
        self._progress = progress
        self._nova = (compute_driver, available_filters, enabled_filters)
        self._token_seconds = token_seconds
        self._one_process = broker.server_program() is None if one_process is None else one_process
        self._kept = pathlib.Path(kept_dir)
        self._companions = companions
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

    def log_of(self, service):
        """The log file of one of Nova's services, by its name, also where all are one process."""
        return self.log_dir / ("nova.log" if self._settings.one_process else service + ".log")

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

    @property
    def compute_host_names(self):
        """The hosts whose nova-compute this cloud has."""
        return [host.name for host in self._settings.hosts]

    def password(self, user):
        """A user's password."""
        return self._settings.passwords[user]

    def session(self, user):
        """A keystoneauth1 session of a user: admin, alice, bob, carol or a service's."""
        return identity.session(self._settings, user)

    def client(self, user):
        """A client.Client of a user, with what tests and demonstration do most."""
        return client.Client(self.session(user), self._settings.url("barbican"))

    def create_aggregate(self, name, hosts, metadata):
        """Make a host aggregate as the operator would and return it."""
        return self.client("admin").create_aggregate(name, hosts, metadata)

    def openstack_environment(self, user):
        """The environment variables with which the openstack client is this user."""
        return openstack_environment(self._settings, user)

    def run_openstack(self, user, *arguments, environment=None, folder=None):
        """Run the openstack client as a user; returns subprocess.CompletedProcess, with text."""
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "openstackclient.shell", *arguments],
            env=dict(self.openstack_environment(user), **environment or {}), cwd=folder,
            text=True, capture_output=True)

    # -- life

    def start(self):
        """Start everything and return when a server can be booted.

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

    def stop_compute(self, name):
        """Stop one nova-compute, as if its host were switched off."""
        self._processes.stop_one("nova-compute-" + name)

    def start_compute(self, name):
        """Start a nova-compute that was stopped and return when it listens.

        Nova's fake driver cannot: it forgets its node's identity, and Nova refuses a host that
        comes back as another node.

        :raises CloudFailure: it ended
        """
        host = next(host for host in self._settings.hosts if host.name == name)
        service = "nova-compute-" + name
        # A log of its own for each start: what the last one wrote tells nothing about this one.
        number = len(list(self.log_dir.glob(service + ".*.log"))) + 1
        (self.log_dir / (service + ".log")).rename(
            self.log_dir / ("%s.%d.log" % (service, number)))
        self._start_compute(host)
        try:
            self._wait_for_listener(service, "compute")
        except processes.ProcessFailure as failure:
            raise CloudFailure(str(failure)) from failure

    def stop_api(self, service):
        """Stop Keystone, Barbican, Placement or Glance, as if it had failed."""
        self._processes.stop_one(service)

    def start_api(self, service):
        """Start one that was stopped and return when it answers."""
        self._start_api(service)
        self._wait_for_answer(service)

    def _start(self):
        self._take_state_folder()
        hosts = self._hosts[:1] if self._one_process else self._hosts
        self._settings = config = settings.Settings.with_new_passwords(
            state=self._state, ports=ports.reserve(self._base_port), hosts=hosts,
            one_process=self._one_process, debug=self._debug, token_seconds=self._token_seconds)
        config.save()
        configuration.write_all(config, *self._nova, self._nova_conf)
        self._processes = processes.Processes(
            self._state, config.log, configuration.environment(config))
        self._say("configuration in %s, ports from %d" % (self._state, config.ports.base))
        if self._one_process:
            self._say("one process for all of Nova, with the host %s alone" % hosts[0].name)
        else:
            broker.start(config, self._processes)
        for companion in self._companions:
            self._processes.start(companion.name, companion.command)
            self._processes.wait_until(companion.name, companion.is_ready)
            self._say(companion.name)
        migrated = databases.prepare(config, self._processes, self._kept)
        self._say("databases migrated" if migrated else "databases from an earlier start")
        self._start_plain_services()
        if not self._one_process:
            self._processes.wait_until("RabbitMQ", lambda: broker.is_ready(config))
            self._say("RabbitMQ")
        self._start_nova()
        for service in ("barbican", "glance"):
            self._wait_for_answer(service)
        self._wait_for_hosts()

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

    def _start_plain_services(self):
        config, run = self._settings, self._processes
        for service in PLAIN_APIS:
            if service != "keystone":
                self._start_api(service)
        # It holds the lock on the ports for as long as the cloud runs, also without this process.
        run.start("neutron", [sys.executable, "-P", PROGRAMS / "neutron_stub.py",
                              config.ports["neutron"]], keep_open=[config.ports.lock.fileno()])
        run.run("keystone-bootstrap", [
            pathlib.Path(sys.prefix, "bin", "keystone-manage"),
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
        # nova-scheduler remembers for its life that there is no Placement.
        self._wait_for_answer("placement")

    def _start_api(self, service):
        self._processes.start(service, [sys.executable, "-P", PROGRAMS / "wsgi_service.py",
                                        service, self._settings.ports[service]])

    def _start_nova(self):
        conf = self._settings.etc / "nova/nova.conf"
        if self._one_process:
            host = self._settings.hosts[0]
            self._processes.start("nova", [
                sys.executable, "-P", PROGRAMS / "nova_one_process.py", conf,
                "--log-file", self._settings.log / "nova.log"], host.environment)
        else:
            for service, program in (("nova-conductor", "nova-conductor"),
                                     ("nova-scheduler", "nova-scheduler"),
                                     ("nova-api", "nova-api-os-compute")):
                self._start_nova_service(service, program, conf)
            # A nova-compute that calls before the conductor listens waits ten seconds more.
            self._wait_for_listener("nova-conductor", "conductor")
            self._say("nova-conductor")
            for host in self._settings.hosts:
                self._start_compute(host)
        self._wait_for_answer("nova-api")

    def _start_compute(self, host):
        folder = self._state / "hosts" / host.name
        for part in ("instances", "providers", "locks"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self._start_nova_service("nova-compute-" + host.name, "nova-compute",
                                 configuration.compute_file(self._settings, host),
                                 host.environment)

    def _start_nova_service(self, name, program, conf, environment=None):
        self._processes.start(name, [
            pathlib.Path(sys.prefix, "bin", program), "--config-file", conf,
            "--log-file", self._settings.log / (name + ".log")], environment)

    def _wait_for_answer(self, service, path="/"):
        url = self._settings.url(service) + path
        self._processes.wait_until(service, lambda: _answers(url))
        self._say(service)

    def _wait_for_hosts(self):
        """Wait until the scheduler can choose every host."""
        for host in self._settings.hosts:
            service = "nova" if self._one_process else "nova-compute-" + host.name
            self._wait_for_listener(service, "compute")
            self._say("nova-compute on %s" % host.name)
        admin = self.session("admin")
        compute = adapter.Adapter(admin, service_type="compute", default_microversion="2.88",
                                  raise_exc=False)
        placement = adapter.Adapter(admin, service_type="placement", raise_exc=False)

        def have_inventories():
            # Without details: with them nova-api calls the hosts, which may not listen yet.
            answer = compute.get("/os-hypervisors")
            known = answer.json()["hypervisors"] if answer.ok else []
            answers = [placement.get("/resource_providers/%s/inventories" % one["id"])
                       for one in known if one["state"] == "up"]
            ready = [answer for answer in answers if answer.ok and answer.json()["inventories"]]
            return len(ready) == len(self._settings.hosts)

        try:
            self._processes.wait_until("the compute hosts", have_inventories, interval=0.5)
        except keystoneauth1.exceptions.ClientException as failure:
            raise CloudFailure("Nova or Placement: %s" % failure) from failure
        self._say("hosts known to the scheduler: %s" % ", ".join(self.compute_host_names))

    def _wait_for_listener(self, service, topic):
        self._processes.wait_until(service, lambda: self._has_logged(service, LISTENS % topic))

    def _has_logged(self, service, text):
        try:
            content = (self.log_dir / (service + ".log")).read_text(errors="replace")
        except FileNotFoundError:
            return False
        return text in content

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


def openstack_environment(config, user):
    """The environment variables with which the openstack client is a user of a cloud."""
    return {
        "OS_CLIENT_CONFIG_FILE": str(configuration.clouds_file(config)),
        "OS_CLOUD": user,
        "OS_COMPUTE_API_VERSION": client.COMPUTE_MICROVERSION,
        "PATH": configuration.environment(config)["PATH"],
    }


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
