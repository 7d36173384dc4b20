"""Servers with a vTPM live random lives: the TPM's secret is never lost.

Sequences of operations on three hosts in two fabrics, while hosts lose their attestation,
nova-compute is killed and Barbican is away. Of ``tools/run-tests random-lives`` and
``random-lives-nightly``; ``VTPM_RANDOM_LIVES`` is how many sequences, each time others; without it
30, the same ones each time.
"""

# Patches nova first.
from tests.functional import server_life_base  # isort: skip

import collections
import contextlib
import os
import time

import hypothesis
import pytest
from hypothesis import stateful, strategies
from nova import context as nova_context
from nova.tests.functional.api import client as api_client

from tests.functional.server_life_base import RUNNING
from tests.hyperv import windows

pytestmark = pytest.mark.os_win

EXAMPLES = int(os.environ.get("VTPM_RANDOM_LIVES", "0"))
STEPS = 20
# What ends a state that is not one of a server's usual two.
ENDS = {"VERIFY_RESIZE": ("confirm", {"confirmResize": None}),
        "RESCUE": ("unrescue", {"unrescue": None}), "PAUSED": ("unpause", {"unpause": None}),
        "SUSPENDED": ("resume", {"resume": None})}
# What can be asked for, by the server's state. Hypothesis takes the first ones more often.
POSSIBLE = {
    "ACTIVE": ["resize_or_migrate", "live_migrate", "resize_or_migrate", "reboot", "stop",
               "pause_or_not", "suspend_or_resume", "rescue_or_not", "snapshot", "rebuild",
               "shelve", "evacuate"],
    "SHUTOFF": ["start", "reboot", "rescue_or_not", "snapshot", "resize_or_migrate", "shelve",
                "evacuate"],
    "PAUSED": ["pause_or_not", "live_migrate"], "SUSPENDED": ["suspend_or_resume"],
    "RESCUE": ["rescue_or_not"], "VERIFY_RESIZE": ["end_resize"], "ERROR": ["reboot"]}
FAULTS = ["attestation", "nova_compute_dies", "barbican"]
HOSTS = [host["name"] for host in server_life_base.ServerLifeCase.HOSTS]


class Life(stateful.RuleBasedStateMachine):
    """One server, its TPM's secret, and what happens to both.

    :cvar case: the test that runs the services
    :cvar outcomes: how often each operation was done and refused
    """

    case = None
    outcomes = collections.Counter()

    def __init__(self):
        super().__init__()
        self.unguarded = set()
        self.secrets = 0

    # What Nova and the hosts say.

    @property
    def shown(self):
        return self.case.api.get_server(self.server["id"])

    @property
    def status(self):
        return self.shown["status"]

    def machine(self):
        return self.case.machine(self.shown)

    def is_running(self):
        return self.machine()["state"] == RUNNING

    def act(self, name, body):
        """Ask for an operation and wait for its end; whether it was done."""
        api, before = self.case.api, len(self.case.api.get_instance_actions(self.server["id"]))
        try:
            api.post_server_action(self.server["id"], body)
        except api_client.OpenStackApiException as refusal:
            assert refusal.response.status_code in (400, 403, 409), refusal
            return self._count(name, False)
        return self._count(name, self._wait_for_end(before))

    def _wait_for_end(self, before):
        api, deadline = self.case.api, time.monotonic() + 120
        while True:
            actions = api.get_instance_actions(self.server["id"])
            events = api.get_instance_action_details(
                self.server["id"], actions[0]["request_id"])["events"]
            if (len(actions) > before and events and all(event["result"] for event in events)
                    and self.shown["OS-EXT-STS:task_state"] is None):
                return all(event["result"] == "Success" for event in events)
            assert time.monotonic() < deadline, (actions[0], events, self.shown)
            time.sleep(0.2)

    def _count(self, name, done):
        self.outcomes[name, "done" if done else "refused"] += 1
        return done

    def write_secret(self):
        self.secrets += 1
        self.secret = b"volume master key %d" % self.secrets
        self.case.simulated.write_tpm(
            self.case.host_of(self.shown), self.machine()["name"], "bitlocker", self.secret)

    @stateful.initialize()
    def boot(self):
        self.server = self.case.boot_vtpm_server()
        self.write_secret()

    @stateful.invariant()
    def the_secret_is_there(self):
        if not hasattr(self, "server"):
            return
        machine = self.machine()
        assert machine["tpm_initialized"], machine
        if machine["state"] == RUNNING:
            assert self.secret == self.case.simulated.read_tpm(
                self.case.host_of(self.shown), machine["name"], "bitlocker")

    def leaves_it(self, name, body):
        """An operation that, done or refused, leaves the machine as it is."""
        before = self.machine()
        self.act(name, body)
        assert before == self.machine()

    @stateful.rule(number=strategies.integers(0, 9999), choice=strategies.integers(0, 9999))
    def step(self, number, choice):
        """What the server's state allows, or a fault; a remainder makes all of them as likely."""
        names = POSSIBLE[self.status] + FAULTS
        name = names[number % len(names)]
        hypothesis.note(name)
        getattr(self, name)(choice)

    # Operations.

    def reboot(self, choice):
        kind = ["SOFT", "HARD"][choice % 2]
        self.act("reboot", {"reboot": {"type": kind}})

    def stop(self, choice):
        self.act("stop", {"os-stop": None})

    def start(self, choice):
        self.act("start", {"os-start": None})

    def pause_or_not(self, choice):
        name = "pause" if self.status == "ACTIVE" else "unpause"
        self.act(name, {name: None})

    def suspend_or_resume(self, choice):
        name = "suspend" if self.status == "ACTIVE" else "resume"
        self.act(name, {name: None})

    def rescue_or_not(self, choice):
        if self.status == "RESCUE":
            self.act("unrescue", {"unrescue": None})
        else:
            self.act("rescue", {"rescue": {"rescue_image_ref": self.case.rescue_image}})

    def snapshot(self, choice):
        self.act("snapshot", {"createImage": {"name": "snapshot"}})

    def resize_or_migrate(self, choice):
        if choice % 2 and self.shown["flavor"]["original_name"] != "m1.small":
            self.act("resize", {"resize": {"flavorRef": "2"}})
        else:
            self.act("migrate", {"migrate": None})

    def end_resize(self, choice):
        if choice % 2:
            self.act("confirm", {"confirmResize": None})
        else:
            self.act("revert", {"revertResize": None})

    def live_migrate(self, choice):
        host = [None, *HOSTS][choice % (len(HOSTS) + 1)]
        before = self.machine()
        self.act("live migrate", {"os-migrateLive": {"host": host, "block_migration": "auto"}})
        assert before["id"] == self.machine()["id"]

    def rebuild(self, choice):
        before = self.machine()["id"]
        if self.act("rebuild", {"rebuild": {"imageRef": self.case.kept_image}}):
            assert before != self.machine()["id"]
            self.write_secret()
        else:
            assert before == self.machine()["id"]

    def shelve(self, choice):
        self.leaves_it("shelve", {"shelve": None})

    def evacuate(self, choice):
        host = self.case.host_of(self.shown)
        with self.is_down(host):
            before = self.machine()
            self.act("evacuate", {"evacuate": {}})
            assert before == self.machine()
        self.repair()

    def attestation(self, choice):
        """A host is not guarded any more, or again."""
        host = HOSTS[choice % len(HOSTS)]
        self.unguarded ^= {host}
        self.case.simulated.set_guarded(host, host not in self.unguarded)
        self.case.report_hosts()

    def nova_compute_dies(self, choice):
        with self.is_down(HOSTS[choice % len(HOSTS)]):
            pass

    def barbican(self, choice):
        """Barbican is away, or back."""
        self.case.key_manager.status ^= 200 ^ 503

    @contextlib.contextmanager
    def is_down(self, host):
        """While this lasts, nova-compute does not run there, as an administrator has noticed."""
        (service,) = self.case.api.get_services(host=host, binary="nova-compute")
        self.case.computes[host].stop()
        self.case.api.put_service(service["id"], {"forced_down": True})
        yield
        self.case.api.put_service(service["id"], {"forced_down": False})
        self.case.restart(host)

    def repair(self):
        """What an administrator does after a failure."""
        shown = self.shown
        if shown["status"] == "ERROR" or shown["OS-EXT-STS:task_state"]:
            self.case.api.post_server_action(
                shown["id"], {"os-resetState": {"state": "active"}})

    def teardown(self):
        """All is well again: the secret is there, and nothing stays behind."""
        case = self.case
        case.key_manager.status = 200
        for host in self.unguarded:
            case.simulated.set_guarded(host, True)
        case.report_hosts()
        if not hasattr(self, "server"):
            return
        self.repair()
        if self.status in ENDS and not self.act(*ENDS[self.status]):
            # Nova believes in a state that its VM does not have, since a start failed.
            case.api.post_server_action(
                self.server["id"], {"os-resetState": {"state": "active"}})
        if not self.is_running():
            if self.status == "ACTIVE":
                assert self.act("stop", {"os-stop": None}), self.shown
            assert self.act("start", {"os-start": None}), self.shown
        assert self.is_running()
        self.the_secret_is_there()
        case._delete_server(self.server)
        case.assert_nothing_left()


@pytest.mark.compute_hyperv
class RandomLivesTest(server_life_base.ServerLifeCase):

    STARTED_LATER = ()
    # Nova's fixture ends a test after so many times five minutes.
    TIMEOUT_SCALING_FACTOR = 4 + EXAMPLES // 4

    def restart(self, host):
        fabric = next(one["fabric"] for one in self.HOSTS if one["name"] == host)
        self.flags(fabric_guardian=fabric, group="vtpm_compute")
        super().restart(host)

    def report_hosts(self):
        """What each host reports now, as its next periodic report would."""
        for host, compute in self.computes.items():
            with windows.acting_as(host):
                compute.manager.update_available_resource(nova_context.get_admin_context())

    def boot_vtpm_server(self):
        server = self._build_server(image_uuid=self.kept_image, flavor_id=self.PLAIN_FLAVOR,
                                    networks="none", host="HV1")
        return self._wait_for_state_change(self.api.post_server({"server": server}), "ACTIVE")

    def test_no_secret_is_lost(self):
        # A VM that does not run cannot shut itself down: nobody needs to wait for it.
        self.flags(shutdown_timeout=1)
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
