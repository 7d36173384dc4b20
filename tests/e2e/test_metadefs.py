"""The metadata definitions, loaded into a real Glance as its operator does it, and read back."""

import json
import subprocess

import pytest

from tests.cloud import configuration
from tests.e2e import tenants_home
from vtpm_scheduling import policy

PAGE = tenants_home.REPOSITORY / "doc" / "source" / "admin" / "quick-start.rst"
FOLDER = tenants_home.REPOSITORY / "etc" / "metadefs"
FILES = {json.loads(path.read_text())["namespace"]: json.loads(path.read_text())
         for path in FOLDER.glob("*.json")}
EXPECTED = {
    "OS::Glance::Image": {policy.IMAGE_VTPM, policy.IMAGE_KEYS, policy.IMAGE_SHIELDED},
    "OS::Nova::Flavor": {policy.FLAVOR_VTPM, policy.FLAVOR_SHIELDED},
}


@pytest.fixture(scope="module")
def loaded(everything):
    """A user's way to Glance, when the definitions are there."""
    settings = everything.cloud._settings
    (command,) = tenants_home.commands(PAGE, "command to load them")
    program, *arguments = command.split()
    assert program == "glance-manage"
    for _ in range(2):
        # A second time changes nothing.
        done = subprocess.run(
            [settings.programs / program, "--config-file",
             settings.etc / "glance" / "glance-api.conf", *arguments],
            env=configuration.environment(settings), cwd=tenants_home.REPOSITORY, text=True,
            capture_output=True)
        assert done.returncode == 0, done.stderr
    return everything.alice.image


def test_namespaces_are_listed(loaded):
    listed = {one["namespace"]: one for one in
              loaded.get("/metadefs/namespaces").json()["namespaces"]}
    for name, definition in FILES.items():
        assert listed[name]["display_name"] == definition["display_name"]
        assert listed[name]["visibility"] == "public" and listed[name]["protected"]


@pytest.mark.parametrize("name", FILES)
def test_properties_are_the_policys(loaded, name):
    answer = loaded.get("/metadefs/namespaces/" + name)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    (association,) = found["resource_type_associations"]
    assert set(found["properties"]) == EXPECTED[association["name"]]
    for key, one in found["properties"].items():
        assert one["type"] == "string" and one["title"] and one["description"]
        if key == policy.IMAGE_KEYS:
            assert one["maxLength"] == policy.NOVA_VALUE_LENGTH - 1
        else:
            assert one["enum"] == list(policy.CHOICES)


def test_both_are_there():
    assert {one["resource_type_associations"][0]["name"] for one in FILES.values()} == \
        set(EXPECTED)
