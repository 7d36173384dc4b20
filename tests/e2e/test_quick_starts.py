"""The commands of both quick starts and of the second fabric, as the pages have them."""

import pytest

from tests.cloud import guarded_cloud
from tests.e2e import tenants_home

PAGES = tenants_home.REPOSITORY / "doc" / "source"
TENANTS, OPERATORS = PAGES / "user" / "quick-start.rst", PAGES / "admin" / "quick-start.rst"
FABRICS = PAGES / "admin" / "fabrics.rst"


@pytest.fixture
def operator(home):
    """The home, from which the administrator's commands go; takes away what they made."""
    aggregates = {one.name for one in home.tenant.admin.compute.aggregates()}
    yield home
    compute = home.tenant.admin.compute
    for aggregate in compute.aggregates():
        if aggregate.name not in aggregates:
            for host in aggregate.hosts:
                compute.remove_host_from_aggregate(aggregate, host)
            compute.delete_aggregate(aggregate)


def run_all(home, names, page, heading, user="alice"):
    """What each command printed."""
    home.write("disk.vhdx", guarded_cloud.IMAGE)
    home.tenant.payloads.remove(guarded_cloud.IMAGE)
    found = tenants_home.commands(page, heading)
    assert found and all(one.startswith("openstack ") for one in found)
    # The client ends with 0 also when the server that it waits for fails.
    return [home.run_openstack(names, one, user=user) for one in found]


def server_of(tenant, name):
    server = tenant.alice.compute.find_server(name)
    tenant.servers.append(server.id)
    return server


def test_a_tenants(home):
    tenant = home.tenant
    names = {"IMAGE": tenant.name("image"), "FLAVOR": tenant.plain_flavor,
             "SERVER": tenant.name("server"), "IMAGE2": tenant.name("image"),
             "SERVER2": tenant.name("server")}
    run_all(home, names, TENANTS, "Commands for the image")
    server = server_of(tenant, names["SERVER"])
    assert server.status == "ACTIVE"
    assert tenant.cloud.machine_of(server.id)["security"]["TpmEnabled"]
    *_, shown = run_all(home, names, TENANTS, "Commands for a refusal")
    server_of(tenant, names["SERVER2"])
    assert tenants_home.shows(
        shown, tenants_home.block_after(TENANTS, "prints, among other things"))


def test_an_operators(operator):
    home, tenant = operator, operator.tenant
    names = {"HOST": guarded_cloud.GUARDED, "FLAVOR": tenant.name("flavor"),
             "IMAGE": tenant.name("image"), "SERVER": tenant.name("server")}
    run_all(home, names, OPERATORS, "Commands for the fabric", user="admin")
    (aggregate,) = [one for one in tenant.admin.compute.aggregates() if one.name == "guarded"]
    assert aggregate.hosts == [guarded_cloud.GUARDED]
    assert aggregate.metadata["hgs_fabric"] == "contoso"
    run_all(home, names, OPERATORS, "Commands for a flavor", user="admin")
    run_all(home, names, OPERATORS, "Commands for a server")
    server = server_of(tenant, names["SERVER"])
    assert server.status == "ACTIVE"
    assert tenant.cloud.machine_of(server.id)["security"]["TpmEnabled"]


def test_a_second_fabric(operator):
    """The one host gets a second label, too: it is in two fabrics, and the tenant reads so."""
    home, tenant = operator, operator.tenant
    run_all(home, {"HOST2": guarded_cloud.GUARDED}, FABRICS, "Commands for a second fabric",
            user="admin")
    assert "hosts belong to more than one fabric" in tenant.fault(tenant.vtpm_image())
