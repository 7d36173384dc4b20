"""The tenant's tool against a real Keystone and Barbican, and the servers made with what it stored.

The commands are those of the tenant's page, doc/source/user/key-protectors.rst.
"""

import re
import shlex

from tests.cloud import guarded_cloud
from tests.e2e import tenants_home
from tests.hyperv import guardian, key_protector

PAGE = tenants_home.REPOSITORY / "doc" / "source" / "user" / "key-protectors.rst"
# The environment of the tests has it.
NOT_RUN = ("pip",)


def blocks():
    """The page's literal blocks, each a list of commands."""
    return [tenants_home.lines_of(block) for _, block in tenants_home.blocks(
        PAGE.read_text().split("Look at it\n===")[1])]


def test_the_page(home):
    """All commands of the page, as a tenant types them."""
    tenant = home.tenant
    names = {"IMAGE": tenant.image(), "FLAVOR": tenant.plain_flavor,
             "SERVER": tenant.name("server")}
    before, programs, pieces = home.secrets(), [], []
    for command in [command for block in blocks() for command in block]:
        program, *arguments = shlex.split(command)
        programs.append((program, arguments[0]))
        if program == tenants_home.PROGRAM:
            answer = "y\n" if arguments[0] == "delete" else None
            printed = home.done(*[names.get(one, one) for one in arguments], answer=answer)
            if arguments[0] == "store":
                names["VALUE"] = printed
                assert home.secrets() - before == set(printed.split(","))
            elif arguments[0] == "delete":
                assert home.secrets() == before
        elif program not in NOT_RUN:
            printed = home.run_openstack(names, command)
            if arguments[:2] == ["secret", "store"]:
                pieces.append(re.search(r"/secrets/([0-9a-f-]{36})", printed).group(1))
    tool = tenants_home.PROGRAM
    assert {("pip", "install"), (tool, "show"), (tool, "store"), (tool, "split"),
            (tool, "delete"), ("openstack", "image"), ("openstack", "server"),
            ("openstack", "secret")} == set(programs)
    assert_runs(tenant, names["SERVER"])
    # What the page says of its console.
    done = tenant.cloud.run_openstack("alice", "console", "log", "show", names["SERVER"])
    assert done.returncode != 0 and "404" in done.stderr
    assert "don't support serial console" in done.stderr
    # Both pieces that it stored without the tool.
    server, _ = tenant.boot_active(tenant.vtpm_image(os_vtpm_keys=",".join(pieces)))
    assert_runs(tenant, server.name)


def assert_runs(tenant, name):
    """The server has a vTPM with alice's key protector."""
    server = tenant.alice.compute.find_server(name)
    if server.id not in tenant.servers:
        tenant.servers.append(server.id)
    assert server.status == "ACTIVE"
    machine = tenant.cloud.machine_of(server.id)
    assert machine["security"]["TpmEnabled"]
    assert len(machine["guardians"]) == 2


def test_in_several_pieces_a_shielded_server(home):
    tenant = home.tenant
    fabric = guardian.Guardian.from_metadata(
        (home.folder / "metadata.xml").read_bytes(), guarded_cloud.FABRIC)
    others = [guardian.Guardian.generate("Other%d" % number) for number in range(6)]
    home.write("large.bin", key_protector.make_protector(
        guardian.Guardian.generate("Contoso"), [fabric, *others]))
    for options, count in (([], 3), (["--piece-bytes", "20000", "--private"], 2)):
        value = home.stored("large.bin", "--guardian", fabric.thumbprint, *options)
        assert len(value.split(",")) == count
        server, machine = tenant.boot_active(tenant.vtpm_image(
            os_vtpm_keys=value, os_shielded_vm="required", os_secure_boot="required"))
        assert machine["security"]["ShieldingRequested"] and len(machine["guardians"]) == 8
        tenant.alice.delete_server(server.id)
        home.done("delete", value, "--yes")


def test_private_is_for_one_user(home):
    tenant = home.tenant
    shared, private = home.stored("protector.bin"), home.stored("protector.bin", "--private")
    flavor, image = tenant.plain_flavor, tenant.vtpm_image(os_vtpm_keys=private)
    assert "may not be read by you" in tenant.fault(image, flavor, user="carol")
    before = home.secrets()
    for user, value in (("carol", private), ("bob", shared)):
        done = home.run("delete", value, "--yes", user=user)
        assert done.returncode == 1 and "you may not do this (403)" in done.stderr, done.stderr
        assert home.secrets() == before
    home.done("delete", shared + "," + private, "--yes")
    assert home.secrets() == before - {shared, private}


def test_a_long_name(home):
    home.done("delete", home.stored("protector.bin", "--name", "é" * 200), "--yes")


def test_a_strange_guardian_leaves_nothing(home):
    before = home.secrets()
    done = home.run("store", "protector.bin", "--guardian", "ab" * 32)
    assert done.returncode == 1 and done.stdout == ""
    assert home.secrets() == before


def test_expiration(home):
    value = home.stored("protector.bin", "--expiration", "2971-12-31T18:00:00Z", "--private")
    secret = home.tenant.alice.barbican.secrets.get(value)
    assert str(secret.expiration).startswith("2971-12-31 18:00:00") or \
        str(secret.expiration).startswith("2971-12-31T18:00:00")
    home.done("delete", value, "--yes")
