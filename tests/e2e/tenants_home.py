"""A tenant's own machine, from which commands of the documentation go to the cloud."""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import textwrap

from tests.cloud import guarded_cloud

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = "nova-hyperv-vtpm-protector"


def blocks(text):
    """The indented texts of a page, each as (the last line before it, it without the indent)."""
    return [(before, textwrap.dedent(block).strip("\n") + "\n") for _, before, block in re.findall(
        r"^( *)(.*)::\n\n((?:\1 +\S.*\n|\n)+)", text, re.MULTILINE)]


def block_after(page, heading):
    """The one indented text after a line of a page that ends with this heading."""
    (block,) = [block for before, block in blocks(page.read_text()) if before.endswith(heading)]
    return block


def commands(page, heading):
    """The indented commands after a line of a page that ends with this heading."""
    return lines_of(block_after(page, heading))


def lines_of(block):
    """The commands of such a text; a backslash at the end of a line goes on with the next one."""
    return [line.strip() for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def shows(table, sentence):
    """Whether a table of the client, which breaks lines where it has no room, has a sentence."""
    return re.sub(r"[|\s]", "", sentence) in re.sub(r"[|\s]", "", table)


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
