"""A small real OpenStack on 127.0.0.1: Keystone, Barbican, Glance, Placement and Nova."""
import subprocess
import sys

import keystoneauth1.exceptions
from keystoneauth1 import adapter

from tests.cloud import broker, client, configuration, processes
from tests.cloud.plain_cloud import KEPT, PROGRAMS, CloudFailure, PlainCloud
from tests.cloud.settings import Companion, ComputeHost

__all__ = ["Cloud", "CloudFailure", "Companion", "ComputeHost"]

# What a Nova service writes once it listens. A call to it before that is lost.
LISTENS = "Join ServiceGroup membership for this service %s"


class Cloud(PlainCloud):
    """All plain APIs and Nova, of the environment that this process runs in or of another one.

    Without RabbitMQ on the machine all of Nova runs in one process, with the first compute host
    only.
    """

    def __init__(self, state_dir, base_port=None, compute_hosts=None, nova_conf=None, debug=True,
                 progress=print, compute_driver=configuration.COMPUTE_DRIVER,
                 available_filters=configuration.AVAILABLE_FILTERS,
                 enabled_filters=configuration.ENABLED_FILTERS, token_seconds=3600,
                 one_process=None, kept_dir=KEPT, companions=(), prefix=sys.prefix):
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
        :param prefix: the environment whose programs run
        """
        super().__init__(state_dir, prefix=prefix, base_port=base_port, debug=debug,
                         progress=progress, token_seconds=token_seconds, kept_dir=kept_dir)
        self._nova_conf = nova_conf or {}
        self._nova = (compute_driver, available_filters, enabled_filters)
        self._one_process = broker.server_program() is None if one_process is None else one_process
        hosts = list(compute_hosts or [ComputeHost("compute1")])
        self._choices.update(hosts=hosts[:1] if self._one_process else hosts,
                             one_process=self._one_process)
        self._companions = companions

    # -- what a user of the cloud needs

    def log_of(self, service):
        """The log file of one of Nova's services, by its name, also where all are one process."""
        return self.log_dir / ("nova.log" if self._settings.one_process else service + ".log")

    @property
    def compute_host_names(self):
        """The hosts whose nova-compute this cloud has."""
        return [host.name for host in self._settings.hosts]

    def compute_file(self, name):
        """The configuration file of one nova-compute."""
        return configuration.compute_file(self._settings, self._host(name))

    def _host(self, name):
        return next(host for host in self._settings.hosts if host.name == name)

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

    def stop_compute(self, name):
        """Stop one nova-compute, as if its host were switched off."""
        self._processes.stop_one("nova-compute-" + name)

    def start_compute(self, name):
        """Start a nova-compute that was stopped and return when it listens.

        Nova's fake driver cannot: it forgets its node's identity, and Nova refuses a host that
        comes back as another node.

        :raises CloudFailure: it ended
        """
        host = self._host(name)
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

    def _write_configuration(self):
        super()._write_configuration()
        configuration.write_nova(self._settings, *self._nova, self._nova_conf)

    def _start_before_apis(self):
        if self._one_process:
            self._say("one process for all of Nova, with the host %s alone"
                      % self._settings.hosts[0].name)
        else:
            broker.start(self._settings, self._processes)
        for companion in self._companions:
            self._processes.start(companion.name, companion.command)
            self._processes.wait_until(companion.name, companion.is_ready)
            self._say(companion.name)

    def _start_after_apis(self):
        self._processes.start("neutron", [sys.executable, "-P", PROGRAMS / "neutron_stub.py",
                                          self._settings.ports["neutron"]])
        if not self._one_process:
            self._processes.wait_until("RabbitMQ", lambda: broker.is_ready(self._settings))
            self._say("RabbitMQ")
        self._start_nova()
        self._wait_for_hosts()

    def _start_nova(self):
        conf = self._settings.etc / "nova/nova.conf"
        if self._one_process:
            host = self._settings.hosts[0]
            self._processes.start("nova", [
                self._programs(host.prefix) / "python", "-P", PROGRAMS / "nova_one_process.py",
                conf, "--log-file", self._settings.log / "nova.log"], host.environment)
        else:
            for service, program in (("nova-conductor", "nova-conductor"),
                                     ("nova-scheduler", "nova-scheduler"),
                                     ("nova-api", "nova-api-os-compute")):
                self._start_nova_service(service, self._programs() / program, conf)
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
        self._start_nova_service("nova-compute-" + host.name,
                                 self._programs(host.prefix) / "nova-compute",
                                 configuration.compute_file(self._settings, host),
                                 host.environment)

    def _programs(self, prefix=None):
        return prefix / "bin" if prefix is not None else self._settings.programs

    def _start_nova_service(self, name, program, conf, environment=None):
        self._processes.start(name, [
            program, "--config-file", conf,
            "--log-file", self._settings.log / (name + ".log")], environment)

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


def openstack_environment(config, user):
    """The environment variables with which the openstack client is a user of a cloud."""
    return {
        "OS_CLIENT_CONFIG_FILE": str(configuration.clouds_file(config)),
        "OS_CLOUD": user,
        "OS_COMPUTE_API_VERSION": client.COMPUTE_MICROVERSION,
        "PATH": configuration.environment(config)["PATH"],
    }
