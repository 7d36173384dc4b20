"""The demonstration: a server with a virtual TPM, from the request to the running VM.

Starts a small real OpenStack with this project's filter and driver on simulated Hyper-V hosts, and
does as a tenant would: what works, and what is refused. Checks each thing that it says, and ends
with a code other than 0 if one is not so.
"""
import argparse
import re
import sys
import textwrap
import time

from tests.cloud import CloudFailure, cloud, guarded_cloud
from tests.cloud.guarded_cloud import FABRIC, GUARDED, OLD, UNGUARDED
from vtpm_compute import key_protector

STATE = cloud.KEPT.parent / "demo"
RUNNING = 2


class Different(Exception):
    """Something is not as the demonstration says."""


def check(is_so, what):
    """Say what was checked.

    :raises Different: it is not so
    """
    if not is_so:
        raise Different(what)
    print("   ok  " + what)


def title(text):
    """A heading."""
    print("\n%s\n%s" % (text, "-" * len(text)), flush=True)


def say(text, *values):
    """A paragraph."""
    print(textwrap.fill(text % values if values else text, 96, initial_indent="   ",
                        subsequent_indent="   ", break_long_words=False, break_on_hyphens=False))


class Demonstration:
    """The story, on a cloud that runs.

    :param running: a GuardedCloud
    :param keep: whether the servers stay
    """

    def __init__(self, running, keep=False):
        self.cloud = running
        self.keep = keep
        self.admin, self.alice = running.client("admin"), running.client("alice")
        self.all_hosts = len(running.compute_host_names) > 1
        self.servers = []

    def run(self):
        """Tell it.

        :raises Different: something is not as it says
        """
        self.show_hosts()
        protector = self.make_protector()
        keys = self.store(protector)
        image = self.upload("windows-2019", os_vtpm="required", os_vtpm_keys=",".join(keys))
        self.flavor = self.admin.create_flavor("vtpm.small")
        self.boot(image, protector, keys)
        self.contradict(image)
        self.lose_access(image, keys)
        if not self.keep:
            self.delete_servers()

    def show_hosts(self):
        """The hosts, and what they report."""
        title("The hosts")
        expected = {GUARDED: (10000, True), UNGUARDED: (10000, False), OLD: (6003, False)}
        nodes = {node.name: node for node in self.admin.compute.hypervisors(details=True)}
        for name in self.cloud.compute_host_names:
            version, guarded = expected[name]
            node = nodes[name]
            traits = {trait for trait in self.admin.traits(node.id)
                      if trait.startswith("CUSTOM_HYPERV")}
            print("   %-13s %s %d.%d   traits: %s" % (
                name, node.hypervisor_type, *divmod(node.hypervisor_version, 1000),
                ", ".join(sorted(traits)) or "none of ours"))
            check(node.hypervisor_version == version
                  and ("CUSTOM_HYPERV_GUARDED_HOST" in traits) is guarded,
                  "%s is %sguarded" % (name, "" if guarded else "not "))
        say("%s is in the aggregate %s, which carries hgs_fabric=contoso.", GUARDED,
            guarded_cloud.AGGREGATE)
        if not self.all_hosts:
            say("RabbitMQ is not here, and this is not root who could install it: all of Nova "
                "runs in one process, with the one host.")

    def make_protector(self):
        """At the tenant's home."""
        title("At home, Alice makes a key protector")
        protector = self.cloud.protector_made_at_home()
        say("She owns it (her private keys stay with her), and lets the fabric's guardian unwrap "
            "it: %s..., %d bytes.", self.cloud.fabric.fabric_thumbprint(FABRIC)[:16],
            len(protector))
        return protector

    def store(self, protector):
        """Into Barbican, in two pieces."""
        title("She stores it in Barbican, in two pieces for herself alone, and uploads an image")
        half = len(protector) // 2
        return [self.alice.store_secret("key protector, piece %d" % number, piece, private=True)
                for number, piece in enumerate((protector[:half], protector[half:]), 1)]

    def upload(self, name, **properties):
        """An image for Hyper-V's Generation 2."""
        properties = dict(hypervisor_type="hyperv", hw_machine_type="hyperv-gen2",
                          hypervisor_version_requires=">=10.0", os_type="windows", **properties)
        for item in sorted(properties.items()):
            print("   %s=%s" % item)
        return self.alice.upload_image(name, guarded_cloud.IMAGE, properties)

    def boot(self, image, protector, keys):
        """What works."""
        title("She boots it")
        began = time.monotonic()
        server = self.alice.boot("alice-1", image, self.flavor)
        self.servers.append(server.id)
        took = time.monotonic() - began
        self.show_scheduling(server.id)
        check(server.status == "ACTIVE", "the server is ACTIVE, after %.1f s %s" % (
            took, self.alice.fault(server.id)))
        self.show_keys(keys, protector)
        machine = self.cloud.machine_of(server.id)
        print("   the virtual machine on %s:" % GUARDED)
        for name, value in sorted(machine["security"].items()):
            print("      %-40s %s" % (name, value))
        check(machine["state"] == RUNNING and machine["generation"] == 2,
              "it is of Generation 2 and runs")
        check(machine["security"]["TpmEnabled"]
              and machine["security"]["EncryptStateAndVmMigrationTraffic"],
              "it has a vTPM, and its state and migration are encrypted")
        check(machine["tpm_initialized"], "its TPM was initialised at the first start")
        for one in machine["guardians"]:
            print("      guardian %s...  %s" % (one["thumbprint"][:16], "Alice, the owner"
                                                if one["is_owner"] else one["name"]))
        check([(one["is_owner"], one["name"]) for one in machine["guardians"]]
              == [(True, None), (False, FABRIC)],
              "Alice's key protector: she owns it, %s can unwrap it" % FABRIC)
        check(machine["key_protector"] != protector,
              "the start replaced it by one with a new transport key, as Windows does")
        check([one["name"] for one in self.cloud.fabric.guardians(GUARDED)] == [FABRIC],
              "nothing of hers is in the host's guardian store")

    def show_scheduling(self, server_id):
        """Which hosts were looked at, out of nova-scheduler's log."""
        print("   nova-scheduler's log:")
        log = self.cloud.log_of("nova-scheduler").read_text(errors="replace")
        asked = re.findall(r"Request filter 'require_guarded_hosts' took [\d.]+ seconds", log)
        for line in asked[:1]:
            print("      " + line)
        check(asked, "placement was asked for hosts with the trait CUSTOM_HYPERV_GUARDED_HOST")
        # At debug level Nova adds the place in the code to each line.
        found = dict(re.findall(r"Host (\S+) (can|cannot) run instance %s with a vTPM" % server_id,
                                log))
        for name in self.cloud.compute_host_names:
            print("      %-13s %s" % (name, {"can": "fits", "cannot": "does not fit"}.get(
                found.get(name), "is not among those that placement gave")))
        check(found == {GUARDED: "can"}, "the filter was given %s alone, and it fits" % GUARDED)

    def show_keys(self, keys, protector):
        """That nova-compute read them, and what it verified, out of its log."""
        log = self.cloud.log_of("nova-compute-" + GUARDED).read_text(errors="replace")
        for key in keys:
            check("Reading vTPM key %s" % key in log, "nova-compute read key %s" % key)
        print("   nova-compute's log:")
        (logged,) = re.findall(r"(Key protector given in 2 secrets: .*)", log)
        print(textwrap.fill(logged, 96, initial_indent=" " * 6, subsequent_indent=" " * 6))
        check("5 of 6 signatures verified" in logged,
              "every signature that needs no private key was verified before anything was made")
        print("   the whole report (vtpm_compute.key_protector):")
        report = key_protector.parse([protector], "Alice").lines()
        print(textwrap.indent("\n".join(report), " " * 6))

    def contradict(self, image):
        """A request that no host could satisfy."""
        title("A flavor that says no where the image says yes")
        flavor = self.admin.create_flavor("no.vtpm", {"os:vtpm": "disabled"})
        server = self.alice.boot("alice-2", image, flavor)
        self.servers.append(server.id)
        self.show_fault("alice", server.id, (
            "No valid host was found. Flavor extra spec os:vtpm=disabled contradicts image "
            "property os_vtpm=required: change one of the two."))

    def lose_access(self, image, keys):
        """A key that the user may not read."""
        title("Carol, of the same project, may not read Alice's keys")
        server = self.cloud.client("carol").boot("carol-1", image, self.flavor)
        self.servers.append(server.id)
        self.show_fault("carol", server.id, (
            "vTPM key %s may not be read by you. Ask its owner for access (a Barbican ACL), or "
            "name your own" % keys[0]))
        check(len(self.cloud.machines()) == 1, "no virtual machine of hers is on any host")

    def show_fault(self, user, server_id, expected):
        """What the openstack client prints, and that it says this."""
        command = ["openstack", "server", "show", server_id, "-c", "status", "-c", "fault"]
        shown = self.cloud.run_openstack(
            user, *command[1:], environment={"CLIFF_MAX_TERM_WIDTH": "96"})
        print("   $ " + " ".join(command))
        print(textwrap.indent(shown.stdout or shown.stderr, "   "), end="")
        check(self.admin.server(server_id).status == "ERROR"
              and expected in self.admin.fault(server_id), "the fault says: " + expected)

    def delete_servers(self):
        """Delete everything."""
        title("The servers are deleted")
        for server in self.servers:
            self.admin.delete_server(server)
        check(self.cloud.machines() == [], "no virtual machine is left on any host")


def explain_how_to_talk_to_it(running):
    """For --keep."""
    title("It goes on running")
    state = running.state_dir
    say("Speak to it as Alice (or admin, bob, carol):")
    print('\n      cd %s\n' % guarded_cloud.REPOSITORY
          + '      eval "$(%s -m tests.cloud env --state %s --user alice)"\n'
          "      openstack server list\n" % (sys.executable, state))
    say("Logs are in %s. Stop it with:", running.log_dir)
    print("\n      %s -m tests.cloud down --state %s\n" % (sys.executable, state))


def main():
    """Tell the story; the exit code says whether all of it was so."""
    parser = argparse.ArgumentParser(prog="tools/demo", description=__doc__)
    parser.add_argument("--keep", action="store_true",
                        help="leave the cloud running and say how to talk to it")
    parser.add_argument("--state", default=str(STATE), metavar="DIR",
                        help="where the cloud's files lie (default: .cloud/demo)")
    arguments = parser.parse_args()
    began = time.monotonic()
    running = guarded_cloud.GuardedCloud(arguments.state)
    title("A small OpenStack on this machine: stock services, three Hyper-V hosts")
    kept = False
    try:
        running.start()
        Demonstration(running, arguments.keep).run()
        if arguments.keep:
            explain_how_to_talk_to_it(running)
            running.leave_running()
            kept = True
    except CloudFailure as failure:
        return "error: %s" % failure
    except Different as failure:
        return "NOT SO: %s\nLogs: %s" % (failure, running.log_dir)
    except KeyboardInterrupt:
        return "interrupted"
    finally:
        if not kept:
            running.stop()
    print("\nAll of it was so. %.0f s." % (time.monotonic() - began))
    return 0


if __name__ == "__main__":
    sys.exit(main())
