"""The commands of the README, as a tenant types them into the openstack client."""

import shlex

from tests.e2e import tenants_home

README = tenants_home.REPOSITORY / "README.rst"


def test_a_server_as_a_tenant(home):
    tenant = home.tenant
    names = {"IMAGE": tenant.image(), "FLAVOR": tenant.plain_flavor,
             "SERVER": tenant.name("server")}
    for command in tenants_home.commands(README, "A server, as a tenant"):
        program, *arguments = shlex.split(command)
        if program == tenants_home.PROGRAM:
            names["IDS"] = home.done(*arguments)
        else:
            home.run_openstack(names, command)
    server = tenant.alice.compute.find_server(names["SERVER"])
    tenant.servers.append(server.id)
    assert server.status == "ACTIVE"
    machine = tenant.cloud.machine_of(server.id)
    assert machine["security"]["TpmEnabled"]
    assert len(machine["guardians"]) == 2
