"""What the configuration of simulated hosts may be."""
import inspect
import json

import pytest

from tests.hyperv import configuration, fabric_process
from tests.hyperv.fabric import Fabric


def config(host=None, **top):
    """A good configuration, with these keys of its first host, and these beside."""
    return {"fabrics": ["east", "west"],
            "hosts": [{"name": "HV1", **(host or {})}, {"name": "HV2"}], **top}


def test_a_full_configuration(tmp_path):
    made = Fabric(config({
        "version": "10.0.17763", "fabric": "east", "guarded": True, "attestation_status": None,
        "guardians": ["west"], "processors": 8, "memory_mb": 32768, "address": "198.51.100.1",
        "live_migration": True, "live_migration_addresses": ["198.51.100.1", "2001:db8::1"],
        "shielded_vm_tools": True}, storage=str(tmp_path / "%COMPUTERNAME%"),
        clusters=[{"name": "CL1", "nodes": ["hv1", "HV2"]}]))
    assert [host["name"] for host in made.hosts()] == ["HV1", "HV2"]
    assert Fabric({}).hosts() == []


@pytest.mark.parametrize("wrong, words", [
    (config(host_s=[]), ["the configuration", "'host_s'", "hosts", "storage"]),
    (config({"fabrik": "east"}), ["hosts[0]", "'fabrik'", "fabric", "processors"]),
    (config(clusters=[{"name": "CL1", "nodes": ["HV1"], "node": 1}]),
     ["clusters[0]", "'node'", "nodes"]),
    (config(clusters=[{"name": "CL1"}]), ["clusters[0]", "nodes is missing"]),
    ({"hosts": [{}]}, ["hosts[0]", "name is missing"]),
    ([], ["the configuration", "a dictionary"]),
    ({"hosts": ["HV1"]}, ["hosts[0]", "a dictionary"]),
    ({"hosts": {"name": "HV1"}}, ["hosts: a list"]), ({"fabrics": "east"}, ["fabrics: a list"]),
    ({"fabrics": [{"name": "east"}]}, ["fabrics: a text"]),
    ({"fabrics": [""]}, ["fabrics: a text"]),
    ({"fabrics": ["east", "East"]}, ["'East' is there twice"]),
    ({"hosts": [{"name": "HV1"}, {"name": "hv1"}]}, ["'hv1' is there twice"]),
    ({"hosts": [{"name": 1}]}, ["name: a text"]),
    (config({"fabric": "north"}), ["'HV1'", "no fabric 'north'", "east, west"]),
    ({"hosts": [{"name": "HV1", "fabric": "east"}]}, ["no fabric 'east'; there are: none"]),
    (config({"guardians": ["north"]}), ["guardians: no fabric 'north'"]),
    (config({"guardians": "west"}), ["guardians: a list"]),
    (config({"guarded": "false"}), ["guarded: true or false"]),
    (config({"guarded": 0}), ["guarded: true or false"]),
    (config({"live_migration": None}), ["live_migration: true or false"]),
    (config({"shielded_vm_tools": "yes"}), ["shielded_vm_tools: true or false"]),
    (config({"version": "2019"}), ["version", "10.0.17763", "'2019'"]),
    (config({"version": 10}), ["version"]), (config({"version": None}), ["version"]),
    (config({"version": "6.1.7601"}), ["6.2 on"]), (config({"version": "10.0"}), ["version"]),
    (config({"attestation_status": 5}), ["5 is no status", "100"]),
    (config({"attestation_status": True}), ["True is no status"]),
    (config({"processors": 0}), ["processors: a number"]),
    (config({"processors": "8"}), ["processors: a number"]),
    (config({"processors": True}), ["processors: a number"]),
    (config({"memory_mb": 1.5}), ["memory_mb: a number"]),
    (config({"address": "HV1"}), ["address: an IP address"]),
    (config({"address": 5}), ["address: an IP address"]),
    (config({"live_migration_addresses": "198.51.100.1"}), ["live_migration_addresses: a list"]),
    (config({"live_migration_addresses": ["here"]}), ["an IP address"]),
    ({"hosts": [{"name": name, "address": "198.51.100.9"} for name in ("HV1", "HV2")]},
     ["'198.51.100.9' is there twice"]),
    ({"hosts": [{"name": "HV1"}, {"name": "HV2", "address": "198.51.100.1"}]},
     ["'hv2'", "198.51.100.1 is another host's"]),
    (config(storage="/tmp/x"), ["storage", "%COMPUTERNAME%"]), (config(storage=1), ["storage"]),
    (config(clusters=[{"name": "CL1", "nodes": ["HV3"]}]), ["no host 'HV3'", "HV1, HV2"]),
    (config(clusters=[{"name": "CL1", "nodes": []}]), ["a cluster has a node"]),
    (config(clusters=[{"name": "CL1", "nodes": "HV1"}]), ["nodes: a list"]),
    (config(clusters=[{"name": "CL1", "nodes": ["HV1", "hv1"]}]), ["'hv1' is there twice"]),
    (config(clusters=[{"name": name, "nodes": ["HV1"]} for name in ("CL1", "CL2")]),
     ["'HV1' is there twice"]),
    (config(clusters=[{"name": "CL1", "nodes": ["HV1"]}, {"name": "cl1", "nodes": ["HV2"]}]),
     ["'cl1' is there twice"])])
def test_what_is_refused(wrong, words):
    with pytest.raises(configuration.ConfigurationError) as caught:
        Fabric(wrong)
    for word in words:
        assert word in str(caught.value)


def test_a_host_and_a_cluster_that_are_added_are_checked():
    made = Fabric(config(clusters=[{"name": "CL1", "nodes": ["HV1"]}]))
    for wrong in ({"fabric": "north"}, {"version": "2019"}, {"processors": "8"}):
        with pytest.raises(configuration.ConfigurationError):
            made.add_host("HV3", **wrong)
    with pytest.raises(TypeError):
        made.add_host("HV3", fabrik="east")
    assert len(made.hosts()) == 2
    for wrong in (["HV3"], ["HV1"], []):
        with pytest.raises(configuration.ConfigurationError):
            made.add_cluster("CL2", wrong)
    made.add_host("HV3", fabric="east")
    made.add_cluster("CL2", ["HV2", "HV3"])


def test_addresses():
    made = Fabric({"hosts": [{"name": "HV1", "address": "198.51.100.2"}, {"name": "HV2"},
                             {"name": "HV3"}]})
    assert [made.address("HV%d" % number) for number in (1, 2, 3)] == [
        "198.51.100.2", "198.51.100.1", "198.51.100.3"]
    made.add_host("HV1")
    assert made.address("HV1") == "198.51.100.2"
    made.add_host("HV1", address="198.51.100.7")
    assert made.address("HV1") == "198.51.100.7"


def test_every_key_of_a_host_has_its_check():
    """A parameter of add_host is a key of the configuration: say there what it may be."""
    parameters = set(inspect.signature(Fabric.add_host).parameters) - {"self"}
    assert set(configuration.CHECKS) == parameters


def test_a_fabric_process_does_not_begin(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"host": []}))
    with pytest.raises(configuration.ConfigurationError, match="unknown 'host'; known: fabrics, "):
        fabric_process.main(["--socket", str(tmp_path / "socket"),
                             "--config", str(tmp_path / "config.json")])
    assert not (tmp_path / "socket").exists()
