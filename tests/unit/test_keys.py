"""Reading keys: the real clients against a small key manager that answers as a test wants."""

import logging
import socket
import uuid

import pytest
from keystoneauth1 import loading, token_endpoint
from oslo_config import cfg

from tests import stub_key_manager
from vtpm_compute import conf, errors, keys
from vtpm_scheduling import policy

TOKEN = "the-users-token-1234"
SECRET = stub_key_manager.SECRET
@pytest.fixture
def key_manager():
    with stub_key_manager.running() as server:
        yield server


class Context:
    """What is used of Nova's request context."""

    def __init__(self, endpoint, auth_token=TOKEN):
        self._endpoint, self.auth_token = endpoint, auth_token

    def get_auth_plugin(self):
        return token_endpoint.Token(self._endpoint, TOKEN)


def configuration(**overrides):
    config = cfg.ConfigOpts()
    conf.register_opts(config)
    group = "service_user"
    config.register_opts([cfg.BoolOpt("send_service_user_token", default=False)], group)
    loading.register_auth_conf_options(config, group)
    config([])
    for name, value in dict({"connect_retries": 0, "status_code_retries": 0, "timeout": 2},
                            **overrides).items():
        config.set_override(name, value, "vtpm_compute")
    return config


def reference(text=None):
    identifier = str(uuid.uuid4())
    (key,) = policy.parse_keys((text or "%s") % identifier)
    return key


def fetch(endpoint, *references, **overrides):
    return keys.KeySource(configuration(**overrides)).fetch(Context(endpoint), references)


def failure(endpoint, **overrides):
    key = reference()
    with pytest.raises(errors.KeyFetchError) as caught:
        fetch(endpoint, key, **overrides)
    message = str(caught.value)
    assert key.text in message
    assert TOKEN not in message
    assert len("Build of instance %s aborted: " % uuid.uuid4() + message) <= 255
    # What the client said may quote the answer.
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


def test_one_request_a_key_in_order(key_manager):
    references = [reference() for _ in range(6)]
    assert fetch(key_manager.url, *references) == [SECRET] * 6
    assert [path for path, _ in key_manager.requests] == [
        "/v1/secrets/%s/payload" % key.secret_id for key in references]
    for _, headers in key_manager.requests:
        assert headers["Accept"] == "application/octet-stream"
        assert headers["X-Auth-Token"] == TOKEN


@pytest.mark.parametrize("endpoint", ["%s", "%s/", "%s/v1", "%s/v1/"])
def test_forms_of_the_endpoint(key_manager, endpoint):
    assert fetch(endpoint % key_manager.url, reference()) == [SECRET]


def test_endpoint_override(key_manager):
    assert fetch("http://127.0.0.1:1", reference(), endpoint_override=key_manager.url) == [SECRET]


def test_the_host_in_a_reference_is_never_asked(key_manager):
    with stub_key_manager.running() as foreign:
        key = reference(foreign.url + "/v1/secrets/%s")
        assert fetch(key_manager.url, key) == [SECRET]
        assert foreign.requests == []


def test_redirects_do_not_take_the_token_away(key_manager):
    with stub_key_manager.running() as foreign:
        for status in (301, 302, 303, 307, 308):
            key_manager.status = status
            key_manager.headers = {"Location": foreign.url + "/v1/secrets/x/payload"}
            for body in (b"", b"<html>Moved</html>"):
                key_manager.body = body
                assert "the key manager answered %d" % status in str(failure(key_manager.url))
        assert foreign.requests == []


@pytest.mark.parametrize(("status", "words"), [
    (401, "token is not valid any more"), (403, "may not be read by you"), (404, "has expired"),
    (406, "application/octet-stream"), (410, "is gone"), (413, "too large"),
    (429, "too many requests"), (500, "answered 500"), (503, "answered 503")])
@pytest.mark.parametrize("body", [b"", b"<html>", b'{"title": "T", "description": "D"}',
                                  b'{"error": {"message": "m", "code": 401}}', b"[]", b'"x"',
                                  SECRET])
def test_every_status_names_the_key_and_the_remedy(key_manager, status, words, body):
    key_manager.status, key_manager.body = status, body
    key_manager.content_type = (
        "application/json" if body[:1] in (b"{", b"[", b'"') else "text/html")
    error = failure(key_manager.url)
    assert words in str(error)
    assert "key protector" not in str(error)


def test_a_long_reference_does_not_hide_what_is_wrong(key_manager):
    key_manager.status = 403
    key = reference("https://%s.example.org/v1/secrets/%%s" % ("x" * 150))
    with pytest.raises(errors.KeyFetchError) as caught:
        fetch(key_manager.url, key)
    assert str(caught.value).startswith("vTPM key %s may not be read" % key.secret_id)


def test_discovery_that_fails(key_manager, monkeypatch):
    for versions in ("", "[]", "{}", "<html>", '{"versions": []}'):
        monkeypatch.setattr(stub_key_manager, "VERSIONS", versions)
        failure(key_manager.url)


def test_empty(key_manager):
    key_manager.body = b""
    assert "is empty" in str(failure(key_manager.url))


def test_too_large(key_manager):
    key_manager.body = b"x" * 2000
    assert "holds 2000 bytes" in str(failure(key_manager.url, max_key_bytes=1999))
    assert fetch(key_manager.url, reference(), max_key_bytes=2000) == [b"x" * 2000]


def test_nobody_there():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = "http://127.0.0.1:%d" % unused.getsockname()[1]
        assert "does not answer" in str(failure(url))


def test_nobody_answers():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = "http://127.0.0.1:%d" % silent.getsockname()[1]
        assert "does not answer" in str(failure(url, timeout=1))


def test_no_key_manager_in_the_catalog():
    assert "catalog has no key manager" in str(failure(None))


def test_an_operation_without_a_user(key_manager):
    key = reference()
    with pytest.raises(errors.KeyFetchError, match="%s .* no user's token" % key.text):
        keys.KeySource(configuration()).fetch(Context(key_manager.url, None), [key])
    assert key_manager.requests == []


@pytest.mark.parametrize("wanted", [False, True])
def test_the_token_of_the_service_goes_along_where_it_is_wanted(key_manager, wanted):
    config = configuration()
    config.register_opts(loading.get_auth_plugin_conf_options("admin_token"), "service_user")
    for name, value in (("auth_type", "admin_token"), ("token", "novas-token"),
                        ("endpoint", key_manager.url), ("send_service_user_token", wanted)):
        config.set_override(name, value, "service_user")
    assert keys.KeySource(config).fetch(Context(key_manager.url), [reference()]) == [SECRET]
    ((_, headers),) = key_manager.requests
    assert headers["X-Auth-Token"] == TOKEN
    assert headers.get("X-Service-Token") == ("novas-token" if wanted else None)


def test_passing_trouble_is_tried_again(key_manager):
    key_manager.status = 503
    failure(key_manager.url, status_code_retries=1)
    assert len(key_manager.requests) == 2


def test_nothing_of_the_answer_is_logged(key_manager, caplog):
    caplog.set_level(logging.DEBUG)
    fetch(key_manager.url, reference())
    assert "payload" in caplog.text
    for needle in (TOKEN, "the key protector", repr(SECRET[:10])[2:-1]):
        assert needle not in caplog.text
