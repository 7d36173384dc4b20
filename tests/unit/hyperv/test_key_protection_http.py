"""The key protection server over HTTP."""
import importlib

import pytest
import requests

from tests.hyperv import fabric, windows

METADATA = "/service/metadata/2014-07/metadata.xml"


@pytest.fixture(scope="module")
def simulated():
    return fabric.Fabric({"fabrics": ["east"], "hosts": [{"name": "HV1", "fabric": "east"}]})


@pytest.fixture
def url(simulated):
    yield simulated.serve_key_protection("east")
    simulated.serve_key_protection("east", False)
    assert simulated.host("HV1").hgs_client.fabric.key_protection_url.startswith("http://hgs.")


def test_its_metadata(simulated, url):
    answer = requests.get(url + METADATA, timeout=5)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/xml")
    assert answer.content == simulated.metadata("east")
    simulated.renew_fabric_guardian("east")
    assert requests.get(url + METADATA, timeout=5).content != answer.content


def test_what_it_does_not_have(simulated, url):
    for path in ("", "/", "/service/metadata/2014-07/"):
        assert requests.get(url + path, timeout=5).status_code == 404
    simulated.set_hgs_reachable("east", False)
    assert requests.get(url + METADATA, timeout=5).status_code == 503
    simulated.set_hgs_reachable("east", True)


def test_hosts_are_configured_with_it(simulated, url):
    windows.install(simulated, "HV1")
    _, settings = importlib.import_module("wmi").WMI(
        "//./Root/Microsoft/Windows/Hgs").MSFT_HgsClientConfiguration.Get()
    assert settings.KeyProtectionServerUrl == url
