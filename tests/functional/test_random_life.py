"""Servers with a vTPM live random lives: the TPM's secret is never lost.

Sequences of operations on three hosts in two fabrics, with disks of their own or shared ones, while
hosts lose their attestation and their power, nova-compute is killed in the middle of operations,
and Barbican is away. Of ``tools/run-tests random-lives`` and
``random-lives-nightly``; ``VTPM_RANDOM_LIVES`` is how many sequences, each time others; without it
30, the same ones each time.
"""

# Patches nova first.
from tests.functional import server_life_base  # isort: skip

import collections
import contextlib
import importlib
import os
import shutil
import sys
import time
import traceback

import hypothesis
import pytest
from hypothesis import stateful, strategies
from nova import context as nova_context
from nova.compute import power_state
from nova.tests.functional.api import client as api_client

from tests.functional import killed_compute, messages_in_flight
from tests.functional.server_life_base import EAST, RUNNING
from tests.hyperv import windows

pytestmark = pytest.mark.os_win

EXAMPLES = int(os.environ.get("VTPM_RANDOM_LIVES", "0"))
STEPS = 20
# What ends a state that is not one of a server's usual two.
ENDS = {"VERIFY_RESIZE": ("confirm", {"confirmResize": None}),
        "RESCUE": ("unrescue", {"unrescue": None}), "PAUSED": ("unpause", {"unpause": None}),
        "SUSPENDED": ("resume", {"resume": None})}
# What can be asked for, by the server's state.
POSSIBLE = {
    "ACTIVE": ["resize_or_migrate", "live_migrate", "resize_or_migrate", "reboot", "stop",
               "pause_or_not", "suspend_or_resume", "rescue_or_not", "snapshot", "rebuild",
               "shelve", "evacuate"],
    "SHUTOFF": ["start", "reboot", "rescue_or_not", "snapshot", "resize_or_migrate", "shelve",
                "evacuate"],
    "PAUSED": ["pause_or_not", "live_migrate"], "SUSPENDED": ["suspend_or_resume"],
    "RESCUE": ["rescue_or_not"], "VERIFY_RESIZE": ["end_resize"], "ERROR": ["reboot"]}
FAULTS = ["attestation", "nova_compute_stops", "barbican"]
HOSTS = [host["name"] for host in server_life_base.ServerLifeCase.HOSTS]
EASTERN = [host["name"] for host in server_life_base.ServerLifeCase.HOSTS
           if host["fabric"] == EAST]
# How many changes the nova-computes of the server's host and of the other one make in an operation.
CHANGES = {"reboot": (2, 0), "stop": (1, 0), "start": (1, 0), "pause": (1, 0), "unpause": (1, 0),
           "suspend": (1, 0), "resume": (1, 0), "rescue": (8, 0), "unrescue": (8, 0),
           "snapshot": (6, 0), "rebuild": (20, 0), "evacuate": (0, 17), "migrate": (9, 12),
           "resize": (8, 13), "revert": (5, 11), "confirm": (0, 6),
           # With what only reads.
           "live migrate": (30, 20)}


class Life(stateful.RuleBasedStateMachine):
    """One server, its TPM's secret, and what happens to both.

    :cvar case: the test that runs the services
    :cvar outcomes: how often each operation was done and refused, and nova-compute killed in it
    """

    case = None
    outcomes = collections.Counter()

    def __init__(self):
        super().__init__()
        self.unguarded = set()
        self.secrets, self.history = 0, []
        self.is_deadly = self.was_killed = False
        self._shown = None

    # What Nova and the hosts say.

    @property
    def shown(self):
        """As the API showed the server since the last operation."""
        if self._shown is None:
            self._shown = self.case.api.get_server(self.server["id"])
        return self._shown

    @contextlib.contextmanager
    def changing(self):
        """What is known of the server is not so any more, once this is over."""
        try:
            yield
        finally:
            self._shown = None

    @property
    def status(self):
        return self.shown["status"]

    @property
    def host(self):
        return self.case.host_of(self.shown)

    def machine(self):
        return self.case.machine(self.shown)

    def is_running(self):
        return self.machine()["state"] == RUNNING

    # Asking for something.

    def act(self, name, body):
        """Ask for an operation and wait for its end; whether it was done.

        None: nova-compute was killed in its middle, and all that is to be done then was done.
        """
        if not self.is_deadly:
            return self._count(name, self.ask(body))
        self.is_deadly = False
        before = self.shown
        host, number, after = self.death_in(name)
        with self.case.kills.aimed(host, number, after, name == "live migrate") as killed_at:
            done = self.ask(body, killed_at)
        if not killed_at():
            return self._count(name, done)
        self.outcomes[name, "killed"] += 1
        self.was_killed = True
        self.history.append("killed on %s %s %s" % (
            host, "after" if after else "before", killed_at()))
        with self.changing():
            self.case.lose(host)
            # What other hosts do goes on.
            self.case.messages.wait()
            self.case.restart(host)
            self.case.messages.wait()
        self.recover(name, body, before)
        return None

    def ask(self, body, killed_at=lambda: None):
        """Ask for something and wait for its end, unless nova-compute dies; whether it was done."""
        api = self.case.api
        with self.changing():
            try:
                api.post_server_action(self.server["id"], body)
            except api_client.OpenStackApiException as refusal:
                assert refusal.response.status_code in (400, 403, 409), refusal
                return False
            self.case.messages.wait(killed_at)
        if killed_at():
            return False
        action = api.get_instance_actions(self.server["id"])[0]
        events = api.get_instance_action_details(
            self.server["id"], action["request_id"])["events"]
        assert events and all(event["result"] for event in events), events
        assert self.shown["OS-EXT-STS:task_state"] is None, self.shown
        done = all(event["result"] == "Success" for event in events)
        if not done and not {"rescue", "unrescue"}.isdisjoint(body):
            # A refused one is set to ERROR by Nova, and back by the driver; not one that failed.
            deadline = time.monotonic() + 5
            while self.status == "ERROR" and time.monotonic() < deadline:
                with self.changing():
                    time.sleep(0.2)
        return done

    def _count(self, name, done):
        self.outcomes[name, "done" if done else "refused"] += 1
        return done

    # What an administrator and the server's owner do when nova-compute was killed.

    def recover(self, name, body, before):
        """Do what the documentation says until the secret reads back.

        :param name: of the operation
        :param before: the server, as the API showed it before that
        """
        identifier = self.identifier
        self.bring_back(name, body, before)
        if not self.reads_back():
            self.all_is_well()
            self.bring_back(name, body, before)
        if name == "rebuild" and not self.reads_back():
            assert self.ask(body), self.shown
            if not self.is_running():
                assert self.ask({"os-start": None}), self.shown
            assert identifier != self.machine()["id"]
            self.write_secret()
        assert self.reads_back(), (name, self.shown, self.case.all_machines())

    def reads_back(self):
        """Whether the VM that the server had runs, with the secret in its TPM."""
        shown = self.shown
        found = [machine for machine in self.case.machines(self.case.host_of(shown))
                 if machine["id"] == self.identifier]
        if not found or found[0]["state"] != RUNNING or not self.has_its_disk():
            return False
        return self.secret == self.case.simulated.read_tpm(
            self.case.host_of(shown), found[0]["name"], "bitlocker")

    def bring_back(self, name, body, before):
        """Of doc/source/admin/troubleshooting.rst."""
        shown = self.shown
        is_moved = self.case.host_of(shown) != self.case.host_of(before)
        hangs = shown["OS-EXT-STS:task_state"] or shown["status"] == "ERROR"
        if name == "confirm":
            self.reset()
            self.ask({"reboot": {"type": "HARD"}})
            self.case.remove_what_a_move_left(shown)
        elif name in ("resize", "migrate") and is_moved or (
                name == "revert" and not is_moved):
            if hangs:
                with self.changing():
                    self.case.let_it_be_resized(self.server)
                self.ask({"revertResize": None})
            elif shown["status"] != "VERIFY_RESIZE":
                self.start_again()
            elif not self.is_running():
                # It was off before, and nothing is wrong.
                assert self.ask({"revertResize": None}), self.shown
                self.start_again()
        else:
            if hangs:
                self.reset()
            if name == "evacuate" and not is_moved:
                self.ask(body)
            elif name == "snapshot":
                self.case.remove_checkpoints(shown)
            elif name == "live migrate":
                self.case.move_back(shown)
            self.start_again()

    def start_again(self):
        status = self.status
        if status == "RESCUE":
            self.ask({"unrescue": None})
        elif status == "SHUTOFF":
            self.ask({"os-start": None})
        elif status == "SUSPENDED":
            self.ask({"resume": None})
        else:
            self.ask({"reboot": {"type": "HARD"}})
            if self.shown["OS-EXT-STS:power_state"] != power_state.RUNNING:
                # A reboot starts no VM that is saved.
                self.ask({"os-stop": None})
                self.ask({"os-start": None})

    def reset(self):
        with self.changing():
            self.case.reset(self.server)

    def repair(self):
        """What an administrator does after a failure."""
        shown = self.shown
        if shown["status"] == "ERROR" or shown["OS-EXT-STS:task_state"]:
            self.reset()

    def all_is_well(self):
        """Hosts are guarded again, and Barbican is back."""
        self.case.key_manager.status = 200
        while self.unguarded:
            self.guard(self.unguarded.pop(), True)

    # The server.

    def write_secret(self):
        self.secrets += 1
        self.secret = b"volume master key %d" % self.secrets
        machine = self.machine()
        self.identifier = machine["id"]
        self.case.simulated.write_tpm(self.host, machine["name"], "bitlocker", self.secret)

    @stateful.initialize(are_shared=strategies.booleans())
    def boot(self, are_shared):
        self.are_shared = are_shared
        self.case.use_disks(are_shared)
        self.server = self.case.boot_vtpm_server()
        self.write_secret()

    def the_secret_is_there(self):
        shown = self.shown
        machine = self.case.machine(shown)
        assert machine["id"] == self.identifier, machine
        assert machine["tpm_initialized"], machine
        if machine["state"] == RUNNING:
            assert self.has_its_disk(), self.case.attached_disks(shown)
            assert self.secret == self.case.simulated.read_tpm(
                self.case.host_of(shown), machine["name"], "bitlocker")

    def has_its_disk(self):
        """Whether the VM has the server's root disk, and that of a rescue only in one."""
        return self.status in ("RESCUE", "ERROR") or self.case.has_own_disk(self.shown)

    def leaves_it(self, name, body):
        """An operation that, done or refused, leaves the machine as it is."""
        before = self.machine()
        self.act(name, body)
        assert before == self.machine()

    # As many and the same ranges whatever the state is: Hypothesis refuses what depends on it.
    @stateful.rule(numbers=strategies.tuples(*[strategies.integers(0, 9999)] * 8))
    def step(self, numbers):
        """What the server's state allows, or a fault; in some of them, nova-compute is killed."""
        self.numbers = list(numbers)
        if self.draw(*range(6)) == 0:
            name, self.is_deadly = self.draw(*FAULTS), False
        else:
            name, self.is_deadly = self.draw(*POSSIBLE[self.status]), self.draw(*range(3)) == 0
        self.history.append(name)
        with self.printing_failures():
            getattr(self, name)()
            self.the_secret_is_there()
        self.is_deadly = False

    @contextlib.contextmanager
    def printing_failures(self):
        """Hypothesis tells nothing of a failure that it does not see a second time."""
        try:
            yield
        except Exception:
            print("\nDisks are %sshared: %s" % (
                "" if self.are_shared else "not ", ", ".join(self.history)))
            traceback.print_exc(file=sys.stdout)
            raise

    def draw(self, *choices):
        """One of them, as the next number says."""
        return choices[self.numbers.pop() % len(choices)]

    def death_in(self, name):
        """Where nova-compute dies: the host, the number of the change, whether it is made."""
        here = self.host
        there = next(one for one in EASTERN if one != here)
        host, count = self.draw(*(
            one for one in zip((here, there), CHANGES[name]) if one[1]))
        return host, self.draw(*range(count)), self.draw(False, True)

    # Operations.

    def reboot(self):
        kind = self.draw("SOFT", "HARD")
        self.act("reboot", {"reboot": {"type": kind}})

    def stop(self):
        self.act("stop", {"os-stop": None})

    def start(self):
        self.act("start", {"os-start": None})

    def pause_or_not(self):
        name = "pause" if self.status == "ACTIVE" else "unpause"
        self.act(name, {name: None})

    def suspend_or_resume(self):
        name = "suspend" if self.status == "ACTIVE" else "resume"
        self.act(name, {name: None})

    def rescue_or_not(self):
        if self.status == "RESCUE":
            self.act("unrescue", {"unrescue": None})
        else:
            self.act("rescue", {"rescue": {"rescue_image_ref": self.case.rescue_image}})

    def snapshot(self):
        self.act("snapshot", {"createImage": {"name": "snapshot"}})

    def resize_or_migrate(self):
        if self.draw(False, True) and self.shown["flavor"]["original_name"] != "m1.small":
            self.act("resize", {"resize": {"flavorRef": "2"}})
        else:
            self.act("migrate", {"migrate": None})

    def end_resize(self):
        if self.draw(False, True):
            self.act("confirm", {"confirmResize": None})
        else:
            self.act("revert", {"revertResize": None})

    def live_migrate(self):
        host = self.draw(None, *HOSTS)
        self.act("live migrate", {"os-migrateLive": {"host": host, "block_migration": "auto"}})

    def rebuild(self):
        before = self.identifier
        if self.act("rebuild", {"rebuild": {"imageRef": self.case.kept_image}}):
            assert before != self.machine()["id"]
            self.write_secret()

    def shelve(self):
        self.is_deadly = False
        before = self.machine()
        self.act("shelve", {"shelve": None})
        assert before == self.machine()

    def evacuate(self):
        """A host fails, and comes back."""
        host = self.host
        with self.is_down(host, self.case.simulated.fail_node,
                          self.case.simulated.restore_node):
            self.act("evacuate", {"evacuate": {}})
            assert self.are_shared or host == self.host
        self.repair()

    def attestation(self):
        """A host is not guarded any more, or again."""
        host = self.draw(*HOSTS)
        self.unguarded ^= {host}
        self.guard(host, host not in self.unguarded)

    def guard(self, host, is_guarded):
        self.case.simulated.set_guarded(host, is_guarded)
        self.case.report(host)

    def nova_compute_stops(self):
        with self.is_down(self.draw(*HOSTS)):
            pass

    def barbican(self):
        """Barbican is away, or back."""
        self.case.key_manager.status ^= 200 ^ 503

    @contextlib.contextmanager
    def is_down(self, host, begin=lambda host: None, end=lambda host: None):
        """While this lasts, nova-compute does not run there, as an administrator has noticed."""
        with self.changing():
            self.case.stop(host)
            begin(host)
            self.case.force_down(host)
        yield
        with self.changing():
            end(host)
            self.case.restart(host)
            self.case.force_down(host, False)

    def teardown(self):
        """All is well again: the secret is there, and nothing stays behind."""
        self.is_deadly = False
        if not hasattr(self, "server"):
            return
        with self.printing_failures():
            self.end()

    def end(self):
        self.all_is_well()
        self.repair()
        if self.status in ENDS and not self.act(*ENDS[self.status]):
            # Nova believes in a state that its VM does not have, since a start failed.
            self.reset()
        if not self.is_running():
            if self.status == "ACTIVE":
                assert self.act("stop", {"os-stop": None}), self.shown
            assert self.act("start", {"os-start": None}), self.shown
        assert self.is_running()
        self.the_secret_is_there()
        self.case._delete_server(self.server)
        self.case.assert_nothing_left(self.was_killed)
        self.case.audit_placement()
        self.case.kills.end_the_halted()


@pytest.mark.compute_hyperv
class RandomLivesTest(server_life_base.ServerLifeCase):

    STARTED_LATER = ()
    # Nova's fixture ends a test after so many times OS_TEST_TIMEOUT.
    TIMEOUT_SCALING_FACTOR = 2 + EXAMPLES // 10

    def _prepare_services(self):
        super()._prepare_services()
        self.kills = self.useFixture(killed_compute.KilledComputes(self.disks))
        self.messages = self.useFixture(messages_in_flight.MessagesInFlight())
        # A VM that does not run cannot shut itself down: nobody needs to wait for it.
        self.flags(shutdown_timeout=1, resume_guests_state_on_host_boot=True)
        self.down = set()
        self.shared = os.path.join(self.disks, "shared")

    def use_disks(self, are_shared):
        """Before there is a server: whether the hosts share their disks."""
        self.flags(instances_path=self.shared if are_shared else os.path.join(
            self.disks, "%COMPUTERNAME%", "Instances"))

    def folders(self):
        """Where the servers' folders are, on all hosts."""
        return [self.shared, *(os.path.join(self.simulated.storage.folder(host), "Instances")
                               for host in HOSTS)]

    def remove_what_a_move_left(self, server):
        for folder in self.folders():
            shutil.rmtree(os.path.join(folder, self.name_of(server) + "_revert"),
                          ignore_errors=True)

    def move_back(self, server):
        """Move the VM to where Nova has its server, if it is elsewhere (Move-VM)."""
        for host in HOSTS:
            if host != self.host_of(server) and self.name_of(server) in [
                    machine["name"] for machine in self.machines(host)]:
                self.move_vm(server, host)

    def remove_checkpoints(self, server):
        with windows.acting_as(self.host_of(server)):
            utils = importlib.import_module("os_win.utilsfactory").get_vmutils()
            for checkpoint in utils.get_vm_snapshots(self.name_of(server)):
                utils.remove_vm_snapshot(checkpoint)

    def assert_nothing_left(self, was_killed):
        """:param was_killed: whether folders without files may be: nobody came to remove them"""
        self.assertEqual({host: [] for host in HOSTS}, self.all_machines())
        for host in HOSTS:
            self.assertEqual(1, len(self.simulated.guardians(host)))
            self.assertEqual([], self.simulated.certificates(host))
            self.assertEqual([], self.simulated.private_keys(host))
        for root in self.folders():
            servers = [one for one in os.scandir(root) if one.name not in ("_base", "locks")] \
                if os.path.exists(root) else []
            self.assertEqual([], [os.path.join(folder, name) for server in servers
                                  for folder, _, names in os.walk(server) for name in names])
            if was_killed:
                for server in servers:
                    shutil.rmtree(server)
            else:
                self.assertEqual([], servers)

    def audit_placement(self):
        """As ``nova-manage placement audit --delete``: moves that died leave allocations."""
        for provider in self._get_all_providers():
            for consumer in self._get_allocations_by_provider_uuid(provider["uuid"]):
                self.placement.delete("/allocations/%s" % consumer)

    def lose(self, host):
        """The nova-compute of a host was killed."""
        self.kills.bury(self.computes[host])
        self.leave(host)

    def stop(self, host):
        """Stop the nova-compute of a host."""
        self.computes[host].stop()
        self.leave(host)

    def leave(self, host):
        self.down.add(host)
        self.messages.lose(host)

    def all_machines(self):
        return {host: [(one["name"], one["id"], one["state"], one["tpm_initialized"])
                       for one in self.machines(host)] for host in HOSTS}

    def restart(self, host):
        fabric = next(one["fabric"] for one in self.HOSTS if one["name"] == host)
        self.flags(fabric_guardian=fabric, group="vtpm_compute")
        super().restart(host)
        self.messages.find(host)
        self.down.discard(host)
        # Before the new services stop: they would wait for what is halted.
        self.addCleanup(self.kills.end)

    def report(self, host):
        """Let a host report now what its next periodic report would."""
        if host not in self.down:
            with windows.acting_as(host):
                self.computes[host].manager.update_available_resource(
                    nova_context.get_admin_context())

    def boot_vtpm_server(self):
        server = self._build_server(image_uuid=self.kept_image, flavor_id=self.PLAIN_FLAVOR,
                                    networks="none", host="HV1")
        return self._wait_for_state_change(self.api.post_server({"server": server}), "ACTIVE")

    def test_no_secret_is_lost(self):
        self.kept_image = self.image()
        self.rescue_image = self.create_image(2, **server_life_base.hyperv_base.GENERATION_2)
        Life.case = self
        self.addCleanup(setattr, Life, "case", None)
        Life.outcomes.clear()
        start = time.monotonic()
        try:
            stateful.run_state_machine_as_test(Life, settings=hypothesis.settings(
                max_examples=EXAMPLES or 30, stateful_step_count=STEPS, deadline=None,
                derandomize=not EXAMPLES, database=None, print_blob=True,
                phases=[hypothesis.Phase.generate],
                suppress_health_check=list(hypothesis.HealthCheck)))
        finally:
            print("\n%d s; %s" % (time.monotonic() - start, ", ".join(
                "%s %s %d" % (*key, count) for key, count in sorted(Life.outcomes.items()))))
