"""The pins of the environments: what they say they are, and what each of them may not hold."""

import re

import pytest

from tests import environment

NOVAS = [name for name in environment.NAMES if name.startswith("nova-")]
# nova 19 and placement 1 are of the same release, and each release has one of both since.
PLACEMENT_IS_BEHIND_BY = 18


def pins(name):
    """{normalised name of a package: version} of an environment."""
    path = environment.REPOSITORY / "constraints" / ("%s-py311.txt" % name)
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    found = [re.fullmatch(r"([\w.-]+)==([\w.+]+)", line).groups() for line in lines]
    by_name = {re.sub("[-_.]+", "-", package).lower(): version for package, version in found}
    assert len(by_name) == len(found), "a package is pinned twice"
    return by_name


def test_each_environment_has_its_pins_and_no_other():
    files = (environment.REPOSITORY / "constraints").iterdir()
    assert {path.name for path in files} == {"%s-py311.txt" % name for name in environment.NAMES}


@pytest.mark.parametrize("name", NOVAS)
def test_nova_and_placement_are_of_the_release_in_the_name(name):
    versions = pins(name)
    release = int(name.removeprefix("nova-"))
    assert int(versions["nova"].split(".")[0]) == release
    assert int(versions["openstack-placement"].split(".")[0]) == release - PLACEMENT_IS_BEHIND_BY


@pytest.mark.parametrize("name", NOVAS)
def test_os_win_is_where_hyperv_is(name):
    assert ("os-win" in pins(name)) == (name in environment.WITH_HYPERV)
    assert ("compute-hyperv" in pins(name)) == (name == environment.DEFAULT)


@pytest.mark.parametrize("name", environment.NAMES)
def test_what_builds_the_rest_is_pinned(name):
    assert {"pip", "setuptools", "pbr"} <= set(pins(name))
