"""The commands of the README, as a tenant types them into the openstack client."""

import pathlib
import re
import shlex

README = pathlib.Path(__file__).resolve().parent.parent.parent / "README.rst"


def commands(heading):
    """The indented commands after a line of the README."""
    text = README.read_text().split("\n%s::\n" % heading)[1]
    block = re.match(r"(?:\n|    .*\n)+", text).group().replace("\\\n", " ")
    return [line.strip() for line in block.splitlines() if line.strip()]


def test_a_server_as_a_tenant(tenant, tmp_path):
    (tmp_path / "protector.bin").write_bytes(tenant.protector)
    tenant.payloads.append(tenant.protector)
    names = {"IMAGE": tenant.image(), "FLAVOR": tenant.plain_flavor,
             "SERVER": tenant.name("server")}
    for command in commands("A server, as a tenant"):
        for name, value in names.items():
            command = command.replace(name, value)
        program, *arguments = shlex.split(command)
        assert program == "openstack"
        if arguments[:2] == ["server", "create"]:
            # This cloud has no networks.
            arguments += ["--nic", "none", "--wait"]
        done = tenant.cloud.run_openstack("alice", *arguments, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        if arguments[:2] == ["secret", "store"]:
            names["SECRET_UUID"] = re.search(r"/secrets/([0-9a-f-]{36})", done.stdout).group(1)
    server = tenant.alice.compute.find_server(names["SERVER"])
    tenant.servers.append(server.id)
    assert server.status == "ACTIVE"
    machine = tenant.cloud.machine_of(server.id)
    assert machine["security"]["TpmEnabled"]
    assert len(machine["guardians"]) == 2
