"""A tenant's own machine, from which commands of the documentation go to the cloud."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

from tests.cloud import guarded_cloud

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = "nova-hyperv-vtpm-protector"


def commands(page, heading):
    """The indented commands after a line of a page that ends with this heading."""
    text = page.read_text().split("%s::\n\n" % heading)[1]
    indent = re.match(r" +", text).group()
    block = re.match(r"(?:\n|%s.*\n)+" % indent, text).group().replace("\\\n", " ")
    return [line.strip() for line in block.splitlines() if line.strip()]


class Home:
    """A tenant's own machine: a folder with the files, and the OS_* variables of a user."""

    def __init__(self, tenant, folder):
        self.tenant, self.folder = tenant, folder
        fabric = tenant.cloud.fabric.metadata(guarded_cloud.FABRIC)
        self.write("metadata.xml", fabric)
        self.write("protector.bin", tenant.protector)

    def write(self, name, data):
        (self.folder / name).write_bytes(data)
        self.tenant.payloads.append(data)

    def run(self, *arguments, user="alice", answer=None):
        """Run the tool; returns subprocess.CompletedProcess, with text."""
        cloud = self.tenant.cloud
        environment = {
            "OS_AUTH_URL": cloud.auth_url, "OS_USERNAME": user,
            "OS_PASSWORD": cloud.password(user), "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_NAME": {"alice": "demo", "bob": "other", "carol": "demo"}[user],
            "OS_PROJECT_DOMAIN_NAME": "Default", "OS_IDENTITY_API_VERSION": "3",
            "PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONPATH": str(REPOSITORY)}
        return subprocess.run(
            [sys.executable, "-m", "vtpm_compute.cmd.protector", *arguments], env=environment,
            cwd=self.folder, input=answer, text=True, capture_output=True)

    def done(self, *arguments, **keywords):
        """What it prints, when it succeeds."""
        done = self.run(*arguments, **keywords)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def stored(self, *arguments, **keywords):
        return self.done("store", *arguments, **keywords)

    def secrets(self):
        """The ids of all secrets of alice's project."""
        return {one.secret_ref.rpartition("/")[2]
                for one in self.tenant.alice.barbican.secrets.list(limit=1000)}

    def run_openstack(self, names, command, user="alice"):
        """Run a command of a page; what it prints.

        :param names: what stands in the place of words of it
        """
        for name, value in names.items():
            command = re.sub(r"\b%s\b" % name, value, command)
        program, *arguments = shlex.split(command)
        assert program == "openstack"
        if arguments[:2] == ["server", "create"]:
            # This cloud has no networks.
            arguments += ["--nic", "none", "--wait"]
        done = self.tenant.cloud.run_openstack(user, *arguments, folder=self.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout
