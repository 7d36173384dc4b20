"""Several guarded hosts with nova-compute on each, all with drivers of this project."""

# Patches nova first.
from tests.functional import hyperv_base  # isort: skip

import importlib
import os
import time

from tests import stub_key_manager
from tests.hyperv import windows

GEN2 = hyperv_base.GENERATION_2


class VtpmHostsTestCase(hyperv_base.HyperVTestCase):
    """The hosts' servers have vTPMs; each host's fabric guardian is that of its fabric.

    An aggregate for each fabric has its hosts as soon as nova-compute runs there. The key manager
    has no secret: protectors are made on the hosts, unless a test brings one.
    """

    FABRICS = ("east",)
    HOSTS = tuple({"name": name, "fabric": "east", "live_migration": True}
                  for name in ("HV1", "HV2"))

    def setUp(self):
        self._aggregates = {}
        super().setUp()

    def _prepare_services(self):
        super()._prepare_services()
        importlib.import_module("nova.virt.vtpm_hyperv")  # registers the options below
        self.key_manager = self.enterContext(stub_key_manager.running())
        self.flags(scratch_path=os.path.join(self.disks, "HV1", "scratch"),
                   endpoint_override=self.key_manager.url, timeout=5, connect_retries=0,
                   status_code_retries=0, group="vtpm_compute")

    def start_compute_on(self, host):
        fabric = next(one["fabric"] for one in self.HOSTS if one["name"] == host)
        self.flags(fabric_guardian=fabric, group="vtpm_compute")
        started = super().start_compute_on(host)
        if fabric not in self._aggregates:
            self._aggregates[fabric] = self.create_fabric(fabric)
        members = self.api.api_get("/os-aggregates/%s" % self._aggregates[fabric]).body
        if host not in members["aggregate"]["hosts"]:
            self.api.add_host_to_aggregate(self._aggregates[fabric], host)
        return started

    def vtpm_image(self, number=1, **properties):
        return self.create_image(number, **dict(GEN2, os_vtpm="required", **properties))

    def boot_with_tpm(self, host="HV1"):
        """A server whose VM runs with a vTPM from this project's driver, which holds a secret."""
        server = self.boot_on(host, dict(GEN2, os_vtpm="required"))
        self.simulated.write_tpm(
            host, self.name_of(server), "bitlocker", hyperv_base.SECRET)
        return server

    def events_of_last_action(self, server):
        """What its events say, as the API shows them, when they have ended."""
        action = self.api.get_instance_actions(server["id"])[0]
        deadline = time.monotonic() + 60
        while True:
            events = self.api.api_get("/servers/%s/os-instance-actions/%s" % (
                server["id"], action["request_id"])).body["instanceAction"]["events"]
            if events and all(event["finish_time"] for event in events):
                return " ".join(event.get("details") or "" for event in events)
            self.assertLess(time.monotonic(), deadline, events)
            time.sleep(0.05)

    def thumbprint(self, fabric):
        return self.simulated.fabric_thumbprint(fabric)


def acting_as(host):
    """While this lasts, this thread is on the host."""
    return windows.acting_as(host)
