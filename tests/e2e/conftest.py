"""One cloud for all end-to-end tests, and what they all need of it.

And a second, smaller one, with a newer Barbican, for those that only read keys.
"""

import collections
import contextlib
import json
import os
import pathlib
import time

import pytest
from openstack import exceptions

from tests import environment, key_failures
from tests.cloud import PlainCloud, client, configuration, guarded_cloud
from tests.e2e import secrets_in_logs, tenants_home

# Where its files and logs lie; another one for a second run at the same time.
STATE = pathlib.Path(os.environ.get("E2E_STATE") or (
    pathlib.Path(__file__).resolve().parent.parent.parent / ".cloud" / "e2e"))
OLDER, NEWER = key_failures.BARBICAN_17, key_failures.BARBICAN_23
# Which Barbicans keys were read from, and by how many tests.
BARBICANS = pytest.StashKey[collections.Counter]()

TRAIT = "CUSTOM_HYPERV_GUARDED_HOST"


class Secrets:
    """What the tests do with a Barbican.

    ``compute_file`` is the configuration of a nova-compute of the cloud: its ``[service_user]``.
    """

    def __init__(self, cloud, compute_file):
        self.cloud, self.compute_file = cloud, compute_file
        self.clients = {user: cloud.client(user) for user in ("admin", "alice", "bob", "carol")}
        self.admin, self.alice = self.clients["admin"], self.clients["alice"]
        self.payloads = []
        # What a test needs once for each Barbican.
        self.kept = {}
        self._count = 0

    @property
    def url(self):
        """Barbican's."""
        return self.cloud.endpoints["key-manager"]

    def name(self, kind):
        """A name that nothing has yet."""
        self._count += 1
        return "%s-%d" % (kind, self._count)

    def store(self, *payloads, user="alice", private=False):
        """Secrets in Barbican; returns the value of os_vtpm_keys."""
        self.payloads += payloads
        return ",".join(self.clients[user].store_secret(self.name("secret"), payload, private)
                        for payload in payloads)


class Tenant(Secrets):
    """What the tests do with the cloud, and a tidy end: no test leaves a server or a VM."""

    def __init__(self, cloud):
        super().__init__(cloud, cloud.compute_file(cloud.compute_host_names[0]))
        self.plain_flavor = self.admin.create_flavor("plain")
        self.protector = cloud.protector_made_at_home()
        self.servers = []

    def image(self, user="alice", **properties):
        """An image with these properties, for Windows; None: without that one."""
        properties = dict({"os_type": "windows"}, **properties)
        return self.clients[user].upload_image(
            self.name("image"), guarded_cloud.IMAGE,
            {name: value for name, value in properties.items() if value is not None})

    def vtpm_image(self, user="alice", **properties):
        """An image that requires a vTPM, of Generation 2 unless the properties say otherwise."""
        return self.image(user, **dict(
            {"os_vtpm": "required", "hw_machine_type": "hyperv-gen2"}, **properties))

    def flavor(self, **extra_specs):
        """A flavor; ``os_vtpm`` stands for ``os:vtpm``."""
        return self.admin.create_flavor(self.name("flavor"), {
            key.replace("_", ":", 1): value for key, value in extra_specs.items()})

    def boot(self, image, flavor=None, user="alice", **attributes):
        """A server, when it is ACTIVE or in ERROR."""
        server = self.clients[user].boot(
            self.name("server"), image, flavor or self.plain_flavor, **attributes)
        self.servers.append(server.id)
        return server

    def boot_active(self, *arguments, **keywords):
        """A server that must become ACTIVE, and its VM on a guarded host."""
        server = self.boot(*arguments, **keywords)
        assert server.status == "ACTIVE", self.admin.fault(server.id)
        assert self.host_of(server) in self.cloud.guarded_hosts
        return server, self.cloud.machine_of(server.id)

    def host_of(self, server):
        """The host where Nova has a server."""
        return self.admin.server(server.id).compute_host

    def fault(self, *arguments, user="alice", **keywords):
        """The fault that the user reads of a server that must fail; no VM may stay behind."""
        server = self.boot(*arguments, user=user, **keywords)
        assert server.status == "ERROR"
        message = self.clients[user].fault(server.id)
        assert self.cloud.machines() == []
        self.assert_no_strange_guardian()
        return message

    def assert_no_strange_guardian(self):
        """The guarded hosts' stores hold what they held at the beginning: no private key."""
        for host, fabric in self.cloud.guarded_hosts.items():
            assert [(one["name"], one["has_private_keys"]) for one in
                    self.cloud.fabric.guardians(host)] == [(fabric, False)]
            assert self.cloud.fabric.private_keys(host) == []
            assert self.cloud.fabric.certificates(host) == []

    def set_attestation(self, status, host=guarded_cloud.GUARDED):
        """Change a host's attestation, and wait until its next report is there.

        A report is read once for the stats and then once for the traits. Of three readings two
        are of one report, whichever was the first.
        """
        self.cloud.fabric.set_attestation(host, status)
        before = self._readings(host)
        provider = next(node.id for node in self.admin.compute.hypervisors()
                        if node.name == host)
        deadline = time.monotonic() + client.PATIENCE
        while ((TRAIT in self.admin.traits(provider)) is not (status == 100)
               or self._readings(host) < before + 3):
            assert time.monotonic() < deadline, "no report"
            time.sleep(0.5)

    def _readings(self, host):
        return len(self.cloud.fabric.calls(host, "MSFT_HgsClientConfiguration.*"))

    @contextlib.contextmanager
    def other_fabric(self):
        """The host that is not guarded becomes one that is, in another fabric."""
        host, compute = guarded_cloud.UNGUARDED, self.admin.compute
        aggregate = self.admin.create_aggregate(
            self.name("aggregate"), [host], {"hgs_fabric": "fabrikam"})
        try:
            self.set_attestation(100, host)
            yield host
        finally:
            self.set_attestation(303, host)
            compute.remove_host_from_aggregate(aggregate, host)
            compute.delete_aggregate(aggregate)

    @contextlib.contextmanager
    def forced_down(self, host):
        """Nova takes a host for one that failed."""
        self.set_service(host, forced_down=True)
        try:
            yield
        finally:
            self.set_service(host, forced_down=False)

    @contextlib.contextmanager
    def enabled(self, host, is_enabled=True):
        """The scheduler may choose a host that it may not otherwise, or the other way round."""
        self.set_service(host, status="enabled" if is_enabled else "disabled")
        try:
            yield
        finally:
            self.set_service(host, status="disabled" if is_enabled else "enabled")

    def set_service(self, host, **values):
        """Change what Nova knows of a host's nova-compute."""
        compute = self.admin.compute
        service = next(service for service in compute.services(host=host, binary="nova-compute"))
        exceptions.raise_from_response(compute.put("/os-services/%s" % service.id, json=values))

    def act(self, server, body, user="admin", microversion=client.COMPUTE_MICROVERSION):
        """Let a user do something to a server, and wait for its end; returns the request's id."""
        answer = self.clients[user].compute.post(
            "/servers/%s/action" % server.id, json=body, microversion=microversion)
        exceptions.raise_from_response(answer)
        request_id = answer.headers["x-openstack-request-id"]
        deadline = time.monotonic() + client.PATIENCE
        while True:
            # In this order: further events may follow on one that has ended.
            in_progress = self.admin.server(server.id).task_state
            events = self.events(server, request_id)
            if not in_progress and events and all(event.get("result") for event in events):
                return request_id
            assert time.monotonic() < deadline, "%s does not end" % body
            time.sleep(0.3)

    def events(self, server, request_id, user="admin"):
        """Those of an action, as a user sees them."""
        return self.clients[user].compute.get("/servers/%s/os-instance-actions/%s" % (
            server.id, request_id)).json()["instanceAction"].get("events", [])

    def details(self, server, request_id, user="admin"):
        """What a user reads in the events of an action."""
        return " ".join(event.get("details") or ""
                        for event in self.events(server, request_id, user))

    def shown_fault(self, server_id):
        """What ``openstack server show`` prints of a server's fault to alice, who owns it."""
        done = self.cloud.run_openstack(
            "alice", "server", "show", server_id, "--format", "json", "--column", "fault")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["fault"]["message"]

    def tidy(self):
        """Delete the servers of a test, and what it broke."""
        for host in self.cloud.guarded_hosts:
            self.cloud.fabric.clear_faults(host)
        for server in self.servers:
            self.admin.delete_server(server)
        self.servers = []
        assert self.cloud.machines() == []
        self.assert_no_strange_guardian()


@pytest.fixture(scope="session")
def running_cloud():
    """The cloud; started once."""
    with guarded_cloud.GuardedCloud(STATE) as cloud:
        yield cloud


@contextlib.contextmanager
def tenant_of(cloud):
    """A Tenant; at the end no log of the cloud may hold a byte of what it stored."""
    tenant = Tenant(cloud)
    yield tenant
    # Here too, so that it holds for whatever tests ran.
    secrets_in_logs.assert_none(cloud, tenant.payloads)


@pytest.fixture(scope="session")
def everything(running_cloud):
    """The one Tenant of the cloud."""
    with tenant_of(running_cloud) as tenant:
        yield tenant


@pytest.fixture
def tenant(everything):
    """The Tenant of one test."""
    yield everything
    everything.tidy()


@pytest.fixture
def home(tenant, tmp_path):
    """The machine of a tenant, with a key protector and the fabric's metadata."""
    return tenants_home.Home(tenant, tmp_path)


@pytest.fixture(scope="session")
def newer_barbican():
    """The Secrets of a cloud of Keystone and a newer Barbican alone; started once.

    Its services are of an environment of their own. What reads, vtpm_compute and keystoneauth1 of
    nova 28's time, is of this one.
    """
    prefix = environment.folder_of_environment(NEWER)
    assert prefix.exists(), "no such environment yet: python -m tests.environment %s" % NEWER
    with PlainCloud(STATE.with_name("%s-%s" % (STATE.name, NEWER)), ("keystone", "barbican"),
                    prefix) as cloud:
        compute_file = cloud.state_dir / "etc" / "nova-compute.conf"
        compute_file.write_text(configuration.render({"service_user": dict(
            cloud.credentials("nova"), send_service_user_token="true")}))
        secrets = Secrets(cloud, compute_file)
        yield secrets
        secrets_in_logs.assert_none(cloud, secrets.payloads)


@pytest.fixture(params=[OLDER, pytest.param(NEWER, marks=pytest.mark.barbican_23)])
def barbican(request):
    """The Secrets of the cloud with everything, and those of the one with a newer Barbican."""
    secrets = request.getfixturevalue(
        "newer_barbican" if request.param == NEWER else "everything")
    version = "Barbican %s with Keystone %s" % (
        secrets.cloud.version("barbican"), secrets.cloud.version("keystone"))
    read = request.config.stash.setdefault(BARBICANS, collections.Counter())
    read[version] += 1
    return secrets


def pytest_terminal_summary(terminalreporter, config):
    """Say which they were."""
    for barbican, tests in config.stash.get(BARBICANS, {}).items():
        terminalreporter.write_line("%d tests read keys from %s." % (tests, barbican))
