"""The operator's command against a real cloud: what it explains is what happens."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.cloud.guarded_cloud import FABRIC, GUARDED, OLD, UNGUARDED
from tests.e2e import tenants_home
from tests.hyperv import guardian

GEN2 = {"hw_machine_type": "hyperv-gen2"}


class Operator:
    """Runs the command as a user of the cloud."""

    def __init__(self, tenant, folder):
        self.tenant, self.folder = tenant, folder
        self.nova_conf = str(tenant.cloud.state_dir / "etc" / "nova" / "nova.conf")

    def run(self, *arguments, user="admin"):
        """Run it; returns subprocess.CompletedProcess, with text."""
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "vtpm_compute.cmd.operator", *arguments],
            env=dict(self.tenant.cloud.openstack_environment(user), HOME=str(self.folder),
                     PYTHONPATH=str(tenants_home.REPOSITORY),
                     LANG=os.environ.get("LANG", "C.UTF-8")),
            cwd=self.folder, text=True, capture_output=True)
        printed = done.stdout + done.stderr
        assert "Traceback" not in printed, printed
        for user_ in ("admin", "alice", "bob"):
            assert self.tenant.cloud.password(user_) not in printed
        return done

    def explain(self, *arguments, code, **keywords):
        """What it explains, as JSON says it, and what it prints for people."""
        shown = self.run("explain", *arguments, **keywords)
        assert shown.returncode == code, shown.stdout + shown.stderr
        done = self.run("explain", *arguments, "--format", "json", **keywords)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout), shown.stdout

    def records(self):
        return ["--config-file", self.nova_conf]


@pytest.fixture
def operator(tenant, tmp_path):
    return Operator(tenant, tmp_path)


def verdicts(found):
    return {one["host"]: (one["verdict"], one["codes"]) for one in found["hosts"]}


def test_an_image_and_a_flavor(operator, tenant):
    found, text = operator.explain(
        "--image", tenant.vtpm_image(), "--flavor", tenant.plain_flavor, code=0)
    assert found["request"]["verdict"] == "vtpm"
    untold = ["no_report", "not_guarded", "no_fabric_guardian"]
    assert verdicts(found) == {GUARDED: ("fits", []), UNGUARDED: ("does not fit", untold),
                               OLD: ("does not fit", ["too_old"])}
    assert text.splitlines()[-1] == "It would run: 1 of 3 hosts fit."


def test_with_novas_records(operator, tenant):
    found, _ = operator.explain("--image", tenant.vtpm_image(), "--flavor", "plain",
                                *operator.records(), code=0)
    assert verdicts(found)[UNGUARDED] == ("does not fit", ["not_guarded"])
    assert {one["source"] for one in found["hosts"] if one["host"] != OLD} == {"Nova's records"}


def test_a_refused_server(operator, tenant):
    """What the command says is what the tenant read."""
    image, flavor = tenant.vtpm_image(), tenant.flavor(os_vtpm="disabled")
    server = tenant.boot(image, flavor)
    fault = tenant.admin.fault(server.id)
    for arguments in (["--server", server.id], ["--image", image, "--flavor", flavor],
                      ["--server", server.id, *operator.records()]):
        found, text = operator.explain(*arguments, code=1)
        assert found["request"]["code"] == "contradiction"
        assert found["request"]["reason"] in fault
        assert "hosts" not in found
        assert "It would not run: Flavor extra spec os:vtpm=disabled contradicts" in text


def test_a_running_server(operator, tenant):
    tenant.boot_active(tenant.vtpm_image(os_vtpm_keys=tenant.store(tenant.protector)))
    (server,) = tenant.servers
    found, text = operator.explain("--server", server, code=0)
    assert found["has_vtpm"] and found["request"]["source"] == "concluded from the API"
    assert any("not known from the API" in one for one in found["remarks"])
    assert text.splitlines()[-1] == "It would run: its host fits."
    told = {one["name"]: one["verdict"] for one in found["operations"]}
    assert told["shelve, with or without offload"] == "refused"
    assert told["live migrate"] == "refused at present"
    found, _ = operator.explain("--server", server, *operator.records(), code=0)
    assert found["has_vtpm"] and found["request"]["source"] == "Nova's records"
    # Its owner sees neither its host nor any other one.
    found, _ = operator.explain("--server", server, user="alice", code=2)
    assert found["has_vtpm"] and "hosts" not in found
    owners = {one["name"]: one["verdict"] for one in found["operations"]}
    assert owners == dict(told, **{"live migrate": "keeps its TPM, or refused",
                                   "evacuate": owners["evacuate"]})
    tenant.set_attestation(301)
    try:
        found, _ = operator.explain("--server", server, *operator.records(), code=1)
    finally:
        tenant.set_attestation(100)
    assert verdicts(found)[GUARDED] == ("does not fit", ["not_guarded"])


def test_a_resize(operator, tenant):
    server = tenant.boot(tenant.image(**GEN2)).id
    for records in ([], operator.records()):
        found, _ = operator.explain("--server", server, "--flavor",
                                    tenant.flavor(os_vtpm="required"), *records, code=1)
        assert found["request"]["code"] == "vtpm_not_added"


def test_keys(operator, tenant):
    """Whose they are, and whether the fabric can unwrap them."""
    image = tenant.vtpm_image("alice", os_vtpm_keys=tenant.store(
        tenant.protector[:4000], tenant.protector[4000:]))
    # Alice may read them, and not see the hosts.
    asked = ["--image", image, "--flavor", tenant.plain_flavor]
    found, text = operator.explain(*asked, user="alice", code=2)
    assert [one["readable"] for one in found["keys"]["secrets"]] == [True, True]
    names = [one["name"] for one in found["keys"]["holds"]["guardians"]]
    assert len(names) == 2 and "not known from the API" in found["keys"]["fabrics"]
    assert "an administrator can" in found["conclusion"].lower()
    (operator.folder / "metadata.xml").write_bytes(tenant.cloud.fabric.metadata(FABRIC))
    found, text = operator.explain(*asked, "--guardian", "metadata.xml", user="alice", code=2)
    assert "Can be unwrapped by the guardian of: --guardian." in text
    found, text = operator.explain(*asked, "--guardian", "ab" * 32, user="alice", code=1)
    assert "does not name the guardian" in found["conclusion"]
    found, text = operator.explain(*asked, *operator.records(), user="alice", code=2)
    assert "Can be unwrapped by the guardian of: contoso." in text
    shown = json.dumps(found)
    assert tenant.protector[:30].hex() not in shown


def test_keys_that_cannot_be_read(operator, tenant):
    keys = tenant.store(tenant.protector, private=True)
    image = tenant.vtpm_image(os_vtpm_keys=keys)
    asked = ["--image", image, "--flavor", tenant.plain_flavor]
    found, text = operator.explain(*asked, user="carol", code=1)
    assert not found["keys"]["secrets"][0]["readable"]
    # The product's words, which the tenant reads too.
    assert "vTPM key %s may not be read by you" % keys in found["conclusion"]
    assert found["conclusion"].partition(": ")[2][:60] in tenant.fault(image, user="carol")


def test_ingredients(operator, tenant):
    further = guardian.Guardian.generate("Elsewhere")
    image = tenant.vtpm_image(os_vtpm_keys=tenant.store(further.metadata()))
    found, text = operator.explain("--image", image, "--flavor", tenant.plain_flavor,
                                   user="alice", code=2)
    assert further.thumbprint in text
    assert [one["thumbprint"] for one in found["keys"]["holds"]["guardians"]] == [
        further.thumbprint]


@pytest.mark.parametrize(("arguments", "words"), [
    (["--image", "nothing", "--flavor", "plain"], "image nothing is not there"),
    (["--server", "nothing"], "server nothing is not there"),
    (["--image", "x"], "--image with --flavor"),
    (["--image", "x", "--flavor", "y", "--server", "z"], "explain takes --server, or"),
    ([], "explain takes --server, or"),
    (["--server", "x", "--os-cloud", "nowhere"], "Not logged in"),
    (["--server", "x", "--config-file", "/nowhere"], "nova.conf cannot be used"),
])
def test_what_cannot_be_told(operator, arguments, words):
    done = operator.run("explain", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert words in done.stderr


def test_on_a_controller(operator, tenant):
    """Upgrade check and inventory, with nova.conf and Nova's databases."""
    server, _ = tenant.boot_active(tenant.vtpm_image(os_vtpm_keys=tenant.store(tenant.protector)))
    done = operator.run("upgrade", "check", *operator.records())
    # Two hosts report, and the third is too old to.
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Result: Success") == 5
    done = operator.run("upgrade", "check", "--json", *operator.records())
    assert {one["result"] for one in json.loads(done.stdout)["checks"]} == {0}
    done = operator.run("inventory", "--format", "json", *operator.records())
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["id"], row["host"], row["problem"]) == (server.id, GUARDED, "")
    assert row["fabric_thumbprint"] == tenant.cloud.fabric.fabric_thumbprint(FABRIC)


@pytest.mark.parametrize(("connection", "words"), [
    ("", "nova.conf has no [api_database] connection"),
    ("nonsense://nova:hunter2@db/api", "Nova's database cannot be read (NoSuchModuleError)"),
    ("nova:hunter2 at db", "Nova's database cannot be read (ArgumentError)"),
    ("sqlite:////nowhere/hunter2", "Nova's database cannot be read ("),
])
def test_databases_that_cannot_be_read(operator, connection, words):
    """The words of the libraries quote the connection, which holds a password."""
    path = operator.folder / "nova.conf"
    path.write_text("[api_database]\nconnection = %s\nmax_retries = 1\nretry_interval = 1\n"
                    % connection)
    for code, *command in ((2, "inventory"), (255, "upgrade", "check")):
        done = operator.run(*command, "--config-file", str(path))
        assert done.returncode == code
        printed = done.stdout + done.stderr
        assert words in printed and "hunter2" not in printed, printed


def test_the_program_is_installed():
    program = pathlib.Path(sys.prefix, "bin", "nova-hyperv-vtpm")
    done = subprocess.run([program, "--help"], text=True, capture_output=True)
    assert done.returncode == 0
    for command in ("explain", "inventory", "upgrade", "host"):
        assert "\n    %s" % command in done.stdout


@pytest.mark.parametrize("arguments", [["host", "check"], ["host", "inventory"]])
def test_elsewhere_than_on_a_host(operator, arguments):
    """Where Windows is not, it says so."""
    done = operator.run(*arguments)
    assert done.returncode == 2
    assert "Hyper-V" in done.stdout + done.stderr
