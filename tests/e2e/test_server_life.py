"""Each operation of a server's life in a real cloud: its TPM is there after it, or it is refused.

Alice, an ordinary user, does what she may; the administrator does the rest.
"""
import contextlib

import pytest

from tests.cloud import broker
from tests.cloud.moving_cloud import ELSEWHERE, ONE, OTHER, MovingCloud
from tests.e2e import conftest

OFF, RUNNING = 3, 2
# Long enough to be looked for in the logs.
SECRET = b"BitLocker's volume master key, which only the TPM knows"
SHARED, OWN_DISKS = "shared storage", "own disks"

OF_THE_HOST = "The other host belongs to another fabric"
OF_THE_SCHEDULER = "hosts belong to another fabric than the server"


@pytest.fixture(scope="module")
def moving(request):
    """The Tenant of a cloud whose servers can move, on the storage that the parameter names."""
    if broker.server_program() is None:
        pytest.skip("a cloud of several hosts needs RabbitMQ")
    name = request.param.replace(" ", "-")
    cloud = MovingCloud(conftest.STATE.with_name("%s-%s" % (conftest.STATE.name, name)),
                        request.param == SHARED)
    with cloud, conftest.tenant_of(cloud) as tenant:
        tenant.payloads.append(SECRET)
        # Alice's servers are made in the fabric for which she made her key protector.
        tenant.set_service(ELSEWHERE, status="disabled")
        yield tenant


@pytest.fixture
def server(moving):
    """A server of Alice's, with a secret in its TPM."""
    yield LivingServer(moving)
    moving.tidy()


class LivingServer:
    """A server, what is done to it, and what must be so afterwards.

    :ivar host: where it was booted
    :ivar other: the other host of the fabric
    """

    def __init__(self, tenant):
        self.tenant, self.fabric = tenant, tenant.cloud.fabric
        self.protectors = self._protectors()
        self.server, machine = tenant.boot_active(
            tenant.vtpm_image(os_vtpm_keys=tenant.store(tenant.protector)))
        self.id, self.name, self.vm_id = self.server.id, machine["name"], machine["id"]
        self.host = tenant.host_of(self.server)
        self.other = {ONE: OTHER, OTHER: ONE}[self.host]
        self.fabric.write_tpm(self.host, self.name, "bitlocker", SECRET)
        self.assert_kept(self.host)

    # What is done.

    def alice(self, action, status, **details):
        """Alice's action, after which the server must have a status."""
        return self._act("alice", action, status, details or None)

    def admin(self, action, status, **details):
        """The administrator's."""
        return self._act("admin", action, status, details or None)

    def _act(self, user, action, status, details):
        request = self.tenant.act(self.server, {action: details}, user)
        server = self.tenant.alice.server(self.id)
        assert server.status == status, (
            action, server.fault, self.told(request))
        return request

    def live_migrate(self, to, **more):
        """Begin a live migration, and wait for its end; returns the request's id."""
        return self.tenant.act(self.server, {"os-migrateLive": {
            "host": to, "block_migration": "auto", **more}}, **forced(more))

    def evacuate(self, **details):
        """The same with an evacuation."""
        return self.tenant.act(self.server, {"evacuate": details}, **forced(details))

    @contextlib.contextmanager
    def failed_host(self):
        """The host where the server was booted loses its power, and comes back in the end."""
        cloud = self.tenant.cloud
        cloud.stop_compute(self.host)
        self.fabric.fail_node(self.host)
        with self.tenant.forced_down(self.host):
            try:
                yield
            finally:
                self.fabric.restore_node(self.host)
                cloud.start_compute(self.host)

    def start_after_return(self):
        """After the host of an ACTIVE server came back, where its VM is off.

        The nova-compute there compares the two as it starts, and stops the server.
        """
        self.tenant.alice.wait_for_status(self.id, "SHUTOFF")
        self.alice("os-start", "ACTIVE")
        self.assert_kept(self.host)

    # What Alice reads.

    def told(self, request):
        """The details of the events of an action."""
        return self.tenant.details(self.server, request, "alice")

    def shown_event(self, request):
        """What ``openstack server event show`` prints of an action."""
        done = self.tenant.cloud.run_openstack("alice", "server", "event", "show", self.id, request)
        assert done.returncode == 0, done.stderr
        return done.stdout

    # What must be so.

    def assert_kept(self, host, besides=()):
        """The server's own VM runs on this host, alone, with its secret; no TPM was made anew.

        :param besides: hosts that failed, which may have the VM too
        """
        assert self.tenant.host_of(self.server) == host
        assert self.machines(besides) == {host: [(self.vm_id, RUNNING)]}
        assert self.fabric.read_tpm(host, self.name, "bitlocker") == SECRET
        assert self._protectors() == self.protectors + 1

    def assert_stopped(self, host):
        """The VM is off, on this host alone."""
        assert self.machines() == {host: [(self.vm_id, OFF)]}

    def machines(self, besides=()):
        """{host: [(id, state)]} of the VMs that bear the server's name."""
        found = {host: [(machine["id"], machine["state"])
                        for machine in self.fabric.virtual_machines(host)
                        if machine["name"] == self.name]
                 for host in self.tenant.cloud.compute_host_names if host not in besides}
        return {host: machines for host, machines in found.items() if machines}

    def _protectors(self):
        """How often a VM was given a key protector, on all hosts."""
        return len(self._calls("SetKeyProtector"))

    def _calls(self, method):
        return [call for host in self.tenant.cloud.compute_host_names
                for call in self.fabric.calls(host, "*." + method)]

    @contextlib.contextmanager
    def nothing_changes(self):
        """What happens meanwhile stops no VM and starts none, and leaves the files as they are."""
        before = self._changeable()
        yield
        assert self._changeable() == before

    def _changeable(self):
        return (self.machines(), self._calls("RequestStateChange"), self._calls("DestroySystem"),
                self.files())

    def files(self):
        """{path: bytes} of what lies in the server's folder on the host where it was booted."""
        folder = self.tenant.cloud.folder_of(self.host, self.name)
        found = {str(path.relative_to(folder)): path.read_bytes()
                 for path in folder.rglob("*") if path.is_file()}
        assert any(path.endswith(".vmgs") for path in found), found.keys()
        return found

    @contextlib.contextmanager
    def refused(self, status="ACTIVE"):
        """What is asked for meanwhile is refused: the server has no fault and is as it was."""
        with self.nothing_changes():
            yield
        server = self.tenant.alice.server(self.id)
        assert (server.status, server.fault) == (status, None)
        assert self.tenant.host_of(self.server) == self.host


def forced(details):
    """The newest microversion that knows ``force``, where it is used: no scheduler looks then."""
    return {"microversion": "2.67"} if details.get("force") else {}


def live_through_moves(server):
    """Every operation that needs no host to fail; it ends on the host where it began."""
    here, there = server.host, server.other
    larger = server.tenant.admin.create_flavor(server.tenant.name("flavor"), ram=1024, disk=2)

    server.alice("resize", "VERIFY_RESIZE", flavorRef=larger)
    server.assert_kept(there)
    server.alice("revertResize", "ACTIVE")
    server.assert_kept(here)

    server.alice("resize", "VERIFY_RESIZE", flavorRef=larger)
    server.alice("confirmResize", "ACTIVE")
    server.assert_kept(there)
    assert server.tenant.alice.server(server.id).flavor.ram == 1024

    server.admin("migrate", "VERIFY_RESIZE")
    server.assert_kept(here)
    server.admin("confirmResize", "ACTIVE")
    server.assert_kept(here)

    for host in (there, here):
        server.live_migrate(host)
        server.assert_kept(host)

    server.alice("reboot", "ACTIVE", type="HARD")
    server.assert_kept(here)
    server.alice("os-stop", "SHUTOFF")
    server.assert_stopped(here)
    server.alice("os-start", "ACTIVE")
    server.assert_kept(here)


@pytest.mark.parametrize("moving", [SHARED], indirect=True)
class TestSharedStorage:

    def test_moves(self, server):
        live_through_moves(server)

    def test_evacuation_and_the_return_of_the_host(self, server):
        with server.failed_host():
            server.evacuate()
            if server.tenant.alice.server(server.id).status == "SHUTOFF":  # by the API's version
                server.alice("os-start", "ACTIVE")
            server.assert_kept(server.other, besides=[server.host])
            server.fabric.write_tpm(server.other, server.name, "later", b"more")
        # Its nova-compute has destroyed the VM that it still had, and not the VM's files.
        server.assert_kept(server.other)
        server.alice("os-stop", "SHUTOFF")
        server.assert_stopped(server.other)
        server.alice("os-start", "ACTIVE")
        server.assert_kept(server.other)
        assert server.fabric.read_tpm(server.other, server.name, "later") == b"more"
        # And it goes on living.
        server.live_migrate(server.host)
        server.assert_kept(server.host)

    # What is refused.

    def test_shelve(self, server):
        with server.refused():
            request = server.alice("shelve", "ACTIVE")
        assert "Shelving would destroy the server's TPM" in server.told(request)
        assert "Shelving would destroy the server's TPM" in server.shown_event(request)
        server.assert_kept(server.host)

    def test_shelve_of_a_stopped_server(self, server):
        server.alice("os-stop", "SHUTOFF")
        with server.refused("SHUTOFF"):
            request = server.alice("shelve", "SHUTOFF")
        assert "Shelving would destroy the server's TPM" in server.told(request)
        server.alice("os-start", "ACTIVE")
        server.assert_kept(server.host)

    @pytest.mark.parametrize(("force", "reason"), [
        ({}, OF_THE_SCHEDULER), ({"force": True}, OF_THE_HOST)], ids=["scheduler", "host"])
    def test_live_migration_to_the_other_fabric(self, server, force, reason):
        with server.tenant.enabled(ELSEWHERE), server.refused():
            request = server.live_migrate(ELSEWHERE, **force)
        assert reason in server.told(request)
        server.assert_kept(server.host)

    def test_resize_and_cold_migration_to_the_other_fabric(self, server):
        """Of both Nova tells a reason of its own; the scheduler's is in its log."""
        tenant = server.tenant
        log = tenant.cloud.log_of("nova-scheduler")
        larger = tenant.admin.create_flavor(tenant.name("flavor"), ram=1024, disk=2)
        with tenant.enabled(ELSEWHERE), tenant.enabled(server.other, False):
            for act in (lambda: server.alice("resize", "ACTIVE", flavorRef=larger),
                        lambda: server.admin("migrate", "ACTIVE", host=ELSEWHERE),
                        lambda: server.admin("migrate", "ACTIVE")):
                logged = len(log.read_text(errors="replace"))
                with server.refused():
                    request = act()
                assert "No valid host" in server.told(request)
                assert "Instance %s with a vTPM: 0 of 1 hosts fit, other_fabric: 1" % server.id in (
                    log.read_text(errors="replace")[logged:])
        server.assert_kept(server.host)

    def test_evacuation_to_the_other_fabric(self, server):
        tenant = server.tenant
        with tenant.enabled(ELSEWHERE), tenant.enabled(server.other, False):
            with server.failed_host(), server.nothing_changes():
                request = server.evacuate(host=ELSEWHERE, force=True)
                assert OF_THE_HOST in server.told(request)
                assert tenant.alice.server(server.id).status == "ACTIVE"
                # Of this one Nova makes an error; Alice reads why.
                server.evacuate()
                assert OF_THE_SCHEDULER in tenant.shown_fault(server.id)
                tenant.admin.compute.reset_server_state(server.id, "active")
        server.start_after_return()


@pytest.mark.parametrize("moving", [OWN_DISKS], indirect=True)
class TestOwnDisks:

    def test_moves(self, server):
        live_through_moves(server)

    def test_evacuation_is_refused(self, server):
        with server.failed_host(), server.nothing_changes():
            request = server.evacuate()
            assert "no storage that this host shares" in server.told(request)
        server.start_after_return()
