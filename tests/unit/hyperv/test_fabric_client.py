"""The methods of a fabric, over its socket: the same names, and values that it carries."""
import importlib
import inspect
import sys

import hypothesis
import pytest
from hypothesis import strategies

from tests.hyperv import cim, connection, fabric_process, native, remote_methods, repository
from tests.hyperv.fabric import Fabric
from tests.hyperv.fabric_client import FabricClient


class Unreadable(Exception):
    """A pickle of it cannot be read: it is made again with one argument."""

    def __init__(self, one, two):
        super().__init__(one + two)


class Odd(Fabric):
    """A fabric with methods that do what none should."""

    def gives_a_host(self):
        return [{"host": self.host("HV1")}]

    def fails(self):
        raise Unreadable("both ", "words")

    def echo(self, value, *others, key=None, **keywords):
        return [value, list(others), key, keywords]


@pytest.fixture(scope="module")
def fabric():
    return Odd({"fabrics": ["east"], "hosts": [{"name": "HV1", "fabric": "east"}]})


@pytest.fixture(scope="module")
def channels(fabric, tmp_path_factory):
    path = tmp_path_factory.mktemp("fabric") / "socket"
    server = fabric_process.Server(fabric, path)
    thread = native.module("threading").Thread(target=server.run)
    thread.start()
    yield connection.Channels(path)
    server.stop()
    thread.join()


@pytest.fixture
def client(channels):
    return FabricClient(channels._path)


def public(cls):
    return {name: member for name, member in inspect.getmembers(cls, inspect.isfunction)
            if not name.startswith("_")}


def test_the_client_has_the_methods_of_the_fabric():
    ours, theirs = public(FabricClient), public(Fabric)
    not_offered = remote_methods.IN_PROCESS | remote_methods.OF_SESSIONS
    assert set(theirs) - set(ours) == not_offered
    assert set(ours) <= set(theirs)
    assert {"calls", "add_fault", "virtual_machines", "write_tpm"} <= set(ours)
    for name, method in ours.items():
        assert inspect.signature(method) == inspect.signature(theirs[name]), name
        assert inspect.getdoc(method) == inspect.getdoc(theirs[name]), name


def test_a_method_that_is_added_is_offered(monkeypatch, client):
    """The client's methods are made when its module is loaded, of those that there are."""
    monkeypatch.setattr(Fabric, "new_question", lambda self, host_name, times=1: None,
                        raising=False)
    remote_methods.of_tests.cache_clear()
    monkeypatch.delitem(sys.modules, FabricClient.__module__)
    made = importlib.import_module(FabricClient.__module__).FabricClient
    remote_methods.of_tests.cache_clear()
    assert "new_question" in public(made)
    assert not hasattr(client, "new_question")


def test_arguments_by_position_and_name(client, fabric):
    client.add_fault("HV1", pattern="*.Nothing", return_value=5)
    assert client.calls(host_name="HV1", pattern="*") == fabric.calls("HV1")
    client.set_host_health("HV1", tpm=False)
    assert fabric.host("HV1").hgs_client.attestation.health.tpm is False
    for call in (lambda: client.calls(), lambda: client.calls("HV1", wrong=1),
                 lambda: client.set_host_health("HV1", wrong=True),
                 lambda: client.calls("HV1", "*", 3)):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(TypeError):  # of the host's, there
        client.add_fault("HV1", "*.Nothing", return_value=5, wrong=1)
    with pytest.raises(KeyError):
        client.calls("HV2")


@pytest.mark.parametrize("name", [
    "nothing", "_tpm", "__init__", "host", "add_host", "add_cluster", "find_host", "catch_up",
    "clock", "storage", "_lock", ""])
def test_unknown_methods_are_refused(channels, client, name):
    with pytest.raises(AttributeError, match="no method"):
        channels.call("fabric", name)
    assert name == "" or not callable(getattr(client, name, None)) or name == "__init__"


@pytest.mark.parametrize("method", ["store", "_provider", "instances", "nothing", "intercept"])
def test_unknown_methods_of_a_repository_are_refused(channels, method):
    assert method not in repository.REPOSITORY_CALLS
    with pytest.raises(AttributeError, match=method):
        channels.call("fabric", "call_repository", "HV1", method)


@pytest.mark.parametrize("wrong", [
    object(), {1, 2}, cim.Instance(None), [[b"a", (bytearray(b"b"),)]], {"a": {"b": range(2)}},
    len, {("a", frozenset()): 1}])
def test_only_plain_values_are_sent(client, wrong):
    for call in (lambda: client.write_tpm("HV1", "vm", "secret", wrong),
                 lambda: client.add_fault("HV1", "a", return_value=wrong)):
        with pytest.raises(TypeError, match="no plain value"):
            call()


def test_only_plain_values_come_back(channels):
    with pytest.raises(TypeError, match="gives_a_host: no plain value"):
        channels.call("fabric", "gives_a_host")


def test_an_error_that_cannot_be_sent_is_told_in_words(channels):
    with pytest.raises(RuntimeError, match="Unreadable: both words"):
        channels.call("fabric", "fails")
    assert channels.call("fabric", "hosts")[0]["name"] == "HV1"  # the connection goes on


PLAIN = strategies.recursive(
    strategies.one_of(strategies.none(), strategies.booleans(), strategies.integers(),
                      strategies.floats(allow_nan=False), strategies.text(), strategies.binary()),
    lambda inner: strategies.one_of(
        strategies.lists(inner, max_size=3), strategies.tuples(inner, inner),
        strategies.dictionaries(strategies.text(), inner, max_size=3)), max_leaves=8)


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None,
                     suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(value=PLAIN)
def test_plain_values_come_back_as_they_went(channels, value):
    remote_methods.check_plain("echo", value)
    assert channels.call("fabric", "echo", value, value, key=value, other=value) == [
        value, [value], value, {"other": value}]
