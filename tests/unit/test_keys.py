"""Reading keys: the real clients against a small key manager that answers as a test wants."""

import contextlib
import datetime
import gzip
import ipaddress
import logging
import socket
import ssl
import struct
import subprocess
import sys
import threading
import uuid
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from keystoneauth1 import loading, token_endpoint
from oslo_config import cfg

from tests import key_failures, stub_key_manager
from tests.e2e import secrets_in_logs
from vtpm_compute import conf, errors, keys
from vtpm_scheduling import policy

TOKEN = "the-users-token-1234"
SERVICE_TOKEN = "the-services-token-5678"
SECRET = stub_key_manager.SECRET
CREATOR = stub_key_manager.CREATOR
LIMIT = key_failures.MOST_BYTES


@pytest.fixture
def key_manager():
    with stub_key_manager.running() as server:
        yield server


class Context:
    """What is used of Nova's request context."""

    def __init__(self, endpoint, auth_token=TOKEN, user_id=CREATOR):
        self._endpoint, self.auth_token, self.user_id = endpoint, auth_token, user_id

    def get_auth_plugin(self):
        return token_endpoint.Token(self._endpoint, self.auth_token)


def configuration(service_user=None, **overrides):
    """The options; those of ``[service_user]`` and of credentials as in a file."""
    config = cfg.ConfigOpts()
    conf.register_opts(config)
    config.register_opts([cfg.BoolOpt("send_service_user_token", default=False)], "service_user")
    loading.register_auth_conf_options(config, "service_user")
    config([])
    overrides = dict({"connect_retries": 0, "status_code_retries": 0, "timeout": 5}, **overrides)
    for group, values in (("vtpm_compute", overrides), ("service_user", service_user or {})):
        if "auth_type" in values:
            config.register_opts(loading.get_auth_plugin_conf_options(values["auth_type"]), group)
        for name, value in values.items():
            config.set_override(name, value, group)
    return config


def as_service(endpoint, /, **overrides):
    return dict({"auth": "service", "auth_type": "admin_token", "endpoint": endpoint,
                 "token": SERVICE_TOKEN}, **overrides)


def reference(text=None):
    identifier = str(uuid.uuid4())
    (key,) = policy.parse_keys((text or "%s") % identifier)
    return key


def fetch(endpoint, /, *references, user_token=TOKEN, user_id=CREATOR, **overrides):
    return keys.KeySource(configuration(**overrides)).fetch(
        Context(endpoint, user_token, user_id), references)


def check_error(error, key):
    """What holds of every failure: names the key, quotes nothing, fits into Nova's fault."""
    message = str(error)
    assert message.startswith("vTPM key %s " % key.secret_id)
    for secret in (TOKEN, SERVICE_TOKEN, "key protector \\xff"):
        assert secret not in message + error.detail
    assert len("Build of instance %s aborted: " % uuid.uuid4() + message) <= 255, len(message)
    # What the libraries raised may quote the answer, and its frames hold it.
    assert error.__cause__ is None
    assert error.__suppress_context__


def failure(endpoint, /, **overrides):
    key = reference()
    with pytest.raises(errors.KeyFetchError) as caught:
        fetch(endpoint, key, **overrides)
    check_error(caught.value, key)
    return caught.value


def assert_nothing_secret(text):
    assert TOKEN not in text
    assert SERVICE_TOKEN not in text
    for printed in ("the key protector \\xff", "the key protector \xff"):
        assert printed not in text
    text = text.encode()
    for needle in secrets_in_logs.needles(SECRET):
        assert needle not in text


class TestRequests:

    def test_one_request_a_key_in_order(self, key_manager):
        references = [reference() for _ in range(6)]
        key_manager.payloads = {key.secret_id: b"payload %d" % number
                                for number, key in enumerate(references)}
        assert fetch(key_manager.url, *references) == list(key_manager.payloads.values())
        assert sorted(path for path, _ in key_manager.requests) == sorted(
            "/v1/secrets/%s/payload" % key.secret_id for key in references)
        assert key_manager.others == []
        for _, headers in key_manager.requests:
            assert headers["Accept"] == "application/octet-stream"
            assert headers["Accept-Encoding"] == "identity"
            assert headers["X-Auth-Token"] == TOKEN
            assert "X-Service-Token" not in headers

    @pytest.mark.parametrize("endpoint", ["%s", "%s/", "%s/v1", "%s/v1/"])
    def test_forms_of_the_endpoint(self, key_manager, endpoint):
        assert fetch(endpoint % key_manager.url, reference()) == [SECRET]
        assert key_manager.requests[0][0].startswith("/v1/secrets/")

    def test_endpoint_below_a_path(self, key_manager):
        fetch(key_manager.url + "/key-manager", reference())
        assert key_manager.requests[0][0].startswith("/key-manager/v1/secrets/")

    def test_endpoint_override(self, key_manager):
        assert fetch("http://127.0.0.1:1", reference(),
                     endpoint_override=key_manager.url) == [SECRET]

    def test_endpoint_by_interface_and_region(self, key_manager):
        asked = []

        class Plugin(token_endpoint.Token):
            def get_endpoint(self, session, **kwargs):
                asked.append(kwargs)
                return key_manager.url

        context = Context(None)
        context.get_auth_plugin = lambda: Plugin(None, TOKEN)
        keys.KeySource(configuration(valid_interfaces=["admin"], region_name="two")).fetch(
            context, [reference()])
        (asked,) = asked
        assert (asked["interface"], asked["region_name"], asked["service_type"]) == (
            ["admin"], "two", "key-manager")
        # It would be a request to Barbican before the first.
        assert asked["skip_discovery"]

    def test_the_host_in_a_reference_is_never_asked(self, key_manager):
        with stub_key_manager.running() as foreign:
            key = reference(foreign.url + "/v1/secrets/%s")
            assert fetch(key_manager.url, key) == [SECRET]
            assert foreign.connections == 0

    def test_upper_case(self, key_manager):
        (key,) = policy.parse_keys(str(uuid.uuid4()).upper())
        assert fetch(key_manager.url, key) == [SECRET]
        assert key_manager.requests[0][0] == "/v1/secrets/%s/payload" % key.text.lower()

    def test_a_chunked_answer(self, key_manager):
        key_manager.script = lambda handler: handler.wfile.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n4\r\n\x00\x01ab\r\n3\r\ncde\r\n0\r\n\r\n")
        assert fetch(key_manager.url, reference()) == [b"\x00\x01abcde"]

    def test_as_large_as_allowed(self, key_manager):
        key_manager.body = b"x" * LIMIT
        assert fetch(key_manager.url, reference(), max_key_bytes=LIMIT) == [b"x" * LIMIT]

    @pytest.mark.parametrize("status", [429, 502, 503, 504])
    def test_passing_trouble_is_tried_again(self, key_manager, status):
        def script(handler):
            send(handler, b"", status)
            key_manager.script = None

        key_manager.script = script
        assert fetch(key_manager.url, reference(), status_code_retries=1) == [SECRET]
        assert len(key_manager.requests) == 2

    def test_a_refusal_is_not_tried_again(self, key_manager):
        key_manager.status = 403
        failure(key_manager.url, status_code_retries=2, connect_retries=2)
        assert len(key_manager.requests) == 1

    def test_a_connection_that_breaks_is_tried_again(self, key_manager):
        def script(_):
            key_manager.script = None

        key_manager.script = script
        assert fetch(key_manager.url, reference(), connect_retries=1) == [SECRET]


class TestSideBySide:

    def test_six_at_once(self, key_manager):
        barrier = threading.Barrier(6)

        def script(handler):
            # Answers only when all six are there.
            barrier.wait(20)
            send(handler, SECRET)

        key_manager.script = script
        assert fetch(key_manager.url, *(reference() for _ in range(6)), timeout=30) == [SECRET] * 6

    def test_at_most_as_many_as_the_option_says(self, key_manager):
        barrier, lock, now, most = threading.Barrier(2), threading.Lock(), [], []

        def script(handler):
            with lock:
                now.append(1)
                most.append(len(now))
            barrier.wait(20)
            # Before the answer, which lets the next request come.
            with lock:
                now.pop()
            send(handler, SECRET)

        key_manager.script = script
        assert fetch(key_manager.url, *(reference() for _ in range(6)), timeout=30,
                     max_parallel_requests=2) == [SECRET] * 6
        assert max(most) == 2

    def test_the_first_failure_in_their_order_is_told(self, key_manager):
        first, second, third = (reference() for _ in range(3))
        refused = threading.Event()

        def script(handler):
            if second.secret_id in handler.path:
                send(handler, b"", 403)
                handler.wfile.flush()
                refused.set()
            else:
                assert refused.wait(20)
                send(handler, b"", 404)

        key_manager.script = script
        for _ in range(3):
            refused.clear()
            with pytest.raises(errors.KeyFetchError) as caught:
                fetch(key_manager.url, first, second, third, timeout=30)
            check_error(caught.value, first)
            assert caught.value.status == 404

    def test_after_a_failure_no_other_is_begun(self, key_manager):
        key_manager.status = 403
        with pytest.raises(errors.KeyFetchError):
            fetch(key_manager.url, *(reference() for _ in range(6)), max_parallel_requests=1)
        assert len(key_manager.requests) == 1

    def test_connections_are_kept_and_tokens_are_not(self, key_manager):
        key_manager.headers = {"Set-Cookie": "session=one-users; Path=/"}
        source = keys.KeySource(configuration())
        for token in ("a", "b", "c"):
            source.fetch(Context(key_manager.url, token), [reference()])
        assert [headers["X-Auth-Token"] for _, headers in key_manager.requests] == ["a", "b", "c"]
        assert not any("Cookie" in headers for _, headers in key_manager.requests)
        assert key_manager.connections == 1

    def test_what_is_left_of_an_answer_is_not_the_next_ones(self, key_manager):
        def script(handler):
            # Announces less than it sends.
            handler.close_connection = False
            send(handler, SECRET, Content_Length="10")
            key_manager.script = None

        key_manager.script = script
        source = keys.KeySource(configuration())
        context = Context(key_manager.url)
        assert source.fetch(context, [reference()]) == [SECRET[:10]]
        assert source.fetch(context, [reference()]) == [SECRET]

    def test_under_eventlet(self, key_manager):
        """Six at once in a nova-compute that eventlet has patched."""
        barrier = threading.Barrier(6)

        def script(handler):
            barrier.wait(20)
            send(handler, SECRET)

        key_manager.script = script
        program = (
            "import eventlet; eventlet.monkey_patch()\n"
            "import sys, threading\n"
            "from tests.unit import test_keys as t\n"
            "assert eventlet.patcher.is_monkey_patched('thread')\n"
            "got = t.fetch(sys.argv[1], *(t.reference() for _ in range(6)), timeout=30)\n"
            "assert got == [t.SECRET] * 6\n"
            "print('read six')\n")
        done = subprocess.run([sys.executable, "-c", program, key_manager.url],
                              capture_output=True, text=True, timeout=60)
        assert done.stdout == "read six\n", done.stderr

    def test_a_slow_drip_under_eventlet(self, key_manager):
        key_manager.script = drip_of_the_body
        program = (
            "import eventlet; eventlet.monkey_patch()\n"
            "import sys\n"
            "from tests.unit import test_keys as t\n"
            "print(t.failure(sys.argv[1], fetch_timeout=1))\n")
        done = subprocess.run([sys.executable, "-c", program, key_manager.url],
                              capture_output=True, text=True, timeout=60)
        assert "within 1 seconds" in done.stdout, done.stderr


def send(handler, body, status=200, **headers):
    """A whole answer; header names with _ for -; None: without that header."""
    headers = dict({"Content_Type": "application/octet-stream",
                    "Content_Length": str(len(body))}, **headers)
    handler.send_response(status)
    if handler.close_connection:
        handler.send_header("Connection", "close")
    for name, value in headers.items():
        if value is not None:
            handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def answer(body=SECRET, status=200, **headers):
    return lambda handler: send(handler, body, status, **headers)


def raw(text):
    return lambda handler: handler.wfile.write(text)


def reset(after=b""):
    """Send something, then RST."""
    def script(handler):
        handler.wfile.write(after)
        handler.wfile.flush()
        # The rest of what was sent would be thrown away with the reset, unless it has been read.
        handler.server.stopping.wait(0.2)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                      struct.pack("ii", 1, 0))
        handler.connection.close()
        handler.wfile = handler.rfile
    return script


def drip(start, piece):
    """Send a piece again and again, as slowly as no time-out of a single wait notices."""
    def script(handler):
        handler.wfile.write(start)
        while not handler.server.stopping.wait(0.1):
            handler.wfile.write(piece)
            handler.wfile.flush()
    return script


def flood(start, piece):
    """Send without end; how much was sent is in the server's ``flooded``."""
    def script(handler):
        handler.server.flooded = 0
        handler.wfile.write(start)
        while True:
            handler.wfile.write(piece)
            handler.server.flooded += len(piece)
    return script


HEADER = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
drip_of_the_body = drip(HEADER + b"Content-Length: 1000\r\n\r\n", b"x")
IN_TIME = {"timeout": 5, "fetch_timeout": 1}
SMALL = {"max_key_bytes": LIMIT}
BOMB = gzip.compress(bytes(10 ** 7))

def self_signed(folder, name="127.0.0.1"):
    """A certificate for this machine and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(
        key.public_key()).serial_number(x509.random_serial_number()).not_valid_before(
        now - datetime.timedelta(days=1)).not_valid_after(
        now + datetime.timedelta(days=1)).add_extension(x509.SubjectAlternativeName(
            [x509.IPAddress(ipaddress.ip_address(name))]), critical=False).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(
        key, hashes.SHA256())
    files = folder / ("%s.pem" % certificate.serial_number), folder / (
        "%s.key" % certificate.serial_number)
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption()))
    return [str(file) for file in files]


def server_tls(files):
    """The server's side of TLS with a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    return context


@pytest.fixture
def files(tmp_path):
    """A certificate for this machine, and its key."""
    return self_signed(tmp_path)


class Local(NamedTuple):
    """What a situation is made of."""

    key_manager: Any
    # For files.
    folder: Any
    caplog: Any
    tls: Any
    # The certificate that ``tls`` shows.
    cafile: str


# The situations of the table by their names, as context managers of a Local: they say where the key
# manager is and the options, and look afterwards at what else has to hold.
SITUATIONS = {}


def situation(name):
    """Register one; its name is the table's."""
    def register(function):
        assert name not in SITUATIONS
        SITUATIONS[name] = contextlib.contextmanager(function)
        return function
    return register


def does(name, script, **options):
    """Register one in which the key manager does something."""
    def script_it(local):
        local.key_manager.script = script
        yield local.key_manager.url, options
        # What sends for ever was left.
        assert getattr(local.key_manager, "flooded", 0) < 50 * 10 ** 6
    situation(name)(script_it)


for number in (400, 401, 403, 404, 405, 406, 410, 413, 429, 500, 502, 503, 504):
    does(str(number), answer(status=number))
does("no content", answer(b"", 204))
does("a part", answer(status=206))
does("a redirect to nowhere", answer(status=302))
does("an endless redirect", flood(
    b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", b"x" * 65536))
does("an endless error page", flood(
    b"HTTP/1.1 500 Oops\r\nContent-Type: text/html\r\n\r\n", b"x" * 65536))
does("empty", answer(b""))
does("too large", answer(bytes(LIMIT + 1)), **SMALL)
does("too large, by what is announced alone",
     drip(HEADER + b"Content-Length: 1025\r\n\r\n", b""), **SMALL)
does("too large, announced as 10^30", answer(Content_Length="1" + "0" * 30), **SMALL)
does("a byte too many, not announced", raw(HEADER + b"\r\n" + bytes(LIMIT + 1)), **SMALL)
does("endless, without a length", flood(HEADER + b"\r\n", b"x" * 65536), **SMALL)
does("endless, in chunks", flood(
    HEADER + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
    **SMALL)
does("endless, in chunks, announced as small", flood(
    HEADER + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"10000\r\n" + b"x" * 65536 + b"\r\n"), **SMALL)
does("cut off", answer(Content_Length="1000"))
does("cut off in a chunk", raw(HEADER + b"Transfer-Encoding: chunked\r\n\r\n400\r\n" + SECRET))
does("a bad chunk", raw(HEADER + b"Transfer-Encoding: chunked\r\n\r\n" + SECRET))
does("a length that is no number", answer(Content_Length="many"))
does("a negative length", answer(Content_Length="-1"))
does("two lengths", answer(Content_Length="5, 6"))
does("compressed", answer(BOMB, Content_Encoding="gzip"))
does("compressed otherwise", answer(BOMB, Content_Encoding="br, gzip"))
does("compressed on its way",
     answer(BOMB, Content_Length=None, Transfer_Encoding="gzip, chunked"))
does("a page", answer(b"<html>Log in</html>", Content_Type="text/html; charset=utf-8"))
does("the description of a secret", answer(b"{}", Content_Type="application/json"))
does("without a type", answer(Content_Type=None))
does("another protocol", raw(b"SSH-2.0-OpenSSH_9.2\r\n"))
does("no HTTP, but the secret", raw(SECRET + b"\r\n\r\n"))
does("a status that is no number", raw(b"HTTP/1.1 two OK\r\n\r\n" + SECRET))
does("a long header", raw(HEADER + b"X: " + bytes(10 ** 6) + b"\r\n\r\n"))
does("a thousand headers", raw(HEADER + b"X: y\r\n" * 1000 + b"\r\n"))
does("closed without a word", raw(b""))
does("reset without a word", reset())
does("reset in the header", reset(HEADER))
does("reset in the body", reset(HEADER + b"Content-Length: 1000\r\n\r\n" + SECRET))
does("silent", drip(b"", b""), timeout=1)
does("silent in the body", drip(HEADER + b"Content-Length: 1000\r\n\r\n" + SECRET, b""), timeout=1)
does("a drip of the status", drip(b"", b"H"), **IN_TIME)
does("a drip of the header", drip(HEADER + b"X: ", b"x"), **IN_TIME)
does("a drip of the body", drip_of_the_body, **IN_TIME)
does("a drip of chunks", drip(HEADER + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
     **IN_TIME)
does("endless waiting", drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), **IN_TIME)


def redirects_elsewhere(status):
    def redirect(local):
        with stub_key_manager.running() as foreign:
            local.key_manager.status = status
            local.key_manager.headers = {"Location": foreign.url + "/v1/secrets/x/payload"}
            yield local.key_manager.url, {}
            assert foreign.connections == 0
    situation("a redirect to another host, %d" % status)(redirect)


for number in (301, 302, 303, 307, 308):
    redirects_elsewhere(number)


@situation("a redirect to another path of the host")
def redirect_within(local):
    local.key_manager.status = 302
    local.key_manager.headers = {"Location": "/v1/secrets/x/payload"}
    yield local.key_manager.url, {}
    assert len(local.key_manager.requests) == 1


@situation("nobody is there")
def nobody_there(local):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield "http://127.0.0.1:%d" % unused.getsockname()[1], {}
    assert "Connection refused" in local.caplog.text


@situation("nobody accepts")
def nobody_accepts(_):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        yield "http://127.0.0.1:%d" % silent.getsockname()[1], {"timeout": 1}


def has_endpoint(name, endpoint):
    def give(_):
        yield endpoint, {}
    situation(name)(give)


has_endpoint("a name that is none", "http://key-manager.invalid")
has_endpoint("an endpoint without a scheme", "nonsense")
has_endpoint("an endpoint that is a host and a port", "key-manager:9311")
has_endpoint("an endpoint of FTP", "ftp://127.0.0.1")
has_endpoint("an endpoint with half an address", "http://[::1")
has_endpoint("an endpoint without a host", "http:///v1")
has_endpoint("no key manager in the catalog", None)


@situation("no user's token")
def no_token(local):
    yield local.key_manager.url, {"user_token": None}
    assert local.key_manager.connections == 0


@situation("TLS of another CA")
def another_ca(local):
    with stub_key_manager.running(local.tls) as server:
        yield server.url, {"cafile": self_signed(local.folder)[0]}
        assert server.requests == []
    assert "self-signed certificate" in local.caplog.text


@situation("TLS for another name")
def another_name(local):
    files = self_signed(local.folder, "127.0.0.2")
    with stub_key_manager.running(server_tls(files)) as server:
        yield server.url, {"cafile": files[0]}
        assert server.requests == []


@situation("a CA file that is not there")
def no_ca_file(local):
    with stub_key_manager.running(local.tls) as server:
        yield server.url, {"cafile": str(local.folder / "none.pem")}


@situation("TLS where there is none")
def no_tls(local):
    yield local.key_manager.url.replace("http:", "https:"), {"insecure": True}


@situation("no TLS where there is some")
def missing_tls(local):
    with stub_key_manager.running(local.tls) as server:
        yield server.url.replace("https:", "http:"), {}


SENDS = {"send_service_user_token": True}


def logs_in(url, **others):
    """Credentials for which Keystone is asked."""
    return dict({"auth_type": "v3password", "auth_url": url + "/v3", "username": "nova",
                 "password": "wrong", "user_domain_id": "default"}, **others)


@situation("[service_user] is not complete")
def incomplete_service_user(local):
    yield local.key_manager.url, {"service_user": dict(SENDS, auth_type="v3password")}


@situation("[service_user], which Keystone refuses")
def refused_service_user(local):
    yield local.key_manager.url, {"service_user": dict(SENDS, **logs_in(local.key_manager.url))}
    assert local.key_manager.requests == []


@situation("[service_user], and Keystone is down")
def keystone_down(local):
    yield local.key_manager.url, {"service_user": dict(SENDS, **logs_in("http://127.0.0.1:1"))}


@situation("no credentials")
def no_credentials(local):
    yield local.key_manager.url, {"auth": "service"}
    assert local.key_manager.connections == 0


@situation("[vtpm_compute] is not complete")
def incomplete_credentials(local):
    yield local.key_manager.url, {"auth": "service", "auth_type": "v3password"}


@situation("[vtpm_compute], which Keystone refuses")
def refused_credentials(local):
    yield local.key_manager.url, dict(logs_in(local.key_manager.url), auth="service")
    assert local.key_manager.requests == []


def answers_nova(name, status):
    def refuse(local):
        local.key_manager.status = status
        yield local.key_manager.url, as_service(local.key_manager.url)
    situation(name)(refuse)


answers_nova("the key manager refuses nova's token", 401)
answers_nova("not granted to nova", 403)
answers_nova("unknown, asked for by nova", 404)


def describes(name, metadata):
    def describe(local):
        local.key_manager.metadata = metadata
        yield local.key_manager.url, as_service(local.key_manager.url)
        assert len(local.key_manager.requests) == 1
    situation(name)(describe)


describes("stored by another user of another project", {"creator_id": "somebody-else"})
describes("stored by nobody", {"creator_id": ""})
describes("a description without a creator", {"status": "ACTIVE"})
describes("a description that is no object", None)
describes("a description that is huge", {"creator_id": CREATOR, "name": "x" * 100000})


describes("a description that is no JSON", b"<html>")


class TestFailures:

    @pytest.mark.parametrize("row", [row for _, row in key_failures.at(key_failures.LOCAL)],
                             ids=lambda row: row.situation)
    def test_as_the_table_says(self, key_manager, tmp_path, caplog, files, row):
        caplog.set_level(logging.DEBUG)
        local = Local(key_manager, tmp_path, caplog, server_tls(files), files[0])
        with SITUATIONS[row.situation](local) as (endpoint, options):
            error = failure(endpoint, **options)
        # The id of nova's user is not known to the kind of credentials that is used here.
        assert str(error) == row.message(error.reference)
        assert error.status == row.status
        assert str(error)[-1] != "."
        assert_nothing_secret(caplog.text)

    @pytest.mark.parametrize("script", [
        reset(HEADER + b"Content-Length: 1000\r\n\r\n" + SECRET), raw(SECRET + b"\r\n\r\n"),
        answer(status=503)])
    def test_nothing_secret_is_logged_when_it_is_tried_again(self, key_manager, caplog, script):
        caplog.set_level(logging.DEBUG)
        key_manager.script = script
        failure(key_manager.url, connect_retries=1, status_code_retries=1)
        assert_nothing_secret(caplog.text)

    @pytest.mark.parametrize("status", [401, 403, 404, 406, 410, 413, 429, 500, 503])
    @pytest.mark.parametrize("body", [b"", b"<html>", b'{"title": "T", "description": "D"}',
                                      b'{"error": {"message": "m", "code": 401}}', b"[]", b'"x"',
                                      SECRET])
    def test_whatever_the_body_of_a_refusal_is(self, key_manager, status, body):
        key_manager.status, key_manager.body = status, body
        key_manager.content_type = (
            "application/json" if body[:1] in (b"{", b"[", b'"') else "text/html")
        assert failure(key_manager.url).status == status

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirects_do_not_take_the_token_away(self, key_manager, status):
        with stub_key_manager.running() as foreign:
            key_manager.status = status
            key_manager.headers = {"Location": foreign.url + "/v1/secrets/x/payload"}
            for body in (b"", b"<html>Moved</html>"):
                key_manager.body = body
                assert "answered %d, a redirect, which is not followed" % status in str(
                    failure(key_manager.url))
            assert foreign.connections == 0

    def test_a_long_reference_does_not_hide_what_is_wrong(self, key_manager):
        key_manager.status = 403
        key = reference("https://%s.example.org/v1/secrets/%%s" % ("x" * 150))
        with pytest.raises(errors.KeyFetchError) as caught:
            fetch(key_manager.url, key)
        assert str(caught.value).startswith("vTPM key %s may not be read" % key.secret_id)

    def test_the_bytes_are_dropped(self, key_manager):
        """No frame of an error that Nova keeps holds what was read."""
        good, bad = reference(), reference()
        key_manager.payloads = {good.secret_id: SECRET, bad.secret_id: bytes(LIMIT + 1)}
        source = keys.KeySource(configuration(max_key_bytes=LIMIT))
        with pytest.raises(errors.KeyFetchError) as caught:
            source.fetch(Context(key_manager.url), [good, bad])
        found, waiting = set(), [caught.value]
        while waiting:
            error = waiting.pop()
            waiting += [one for one in (error.__cause__, error.__context__) if one is not None]
            trace = error.__traceback__
            while trace is not None:
                for value in trace.tb_frame.f_locals.values():
                    run = getattr(value, "_outcomes", value)
                    found |= {item for item in run if isinstance(item, bytes)} \
                        if isinstance(run, (list, tuple)) else set()
                    found |= {value} if isinstance(value, bytes) else set()
                trace = trace.tb_next
        assert found == set()


class TestTls:

    @pytest.fixture
    def tls(self, files):
        return server_tls(files)

    def test_with_its_ca(self, tls, files):
        with stub_key_manager.running(tls) as server:
            assert fetch(server.url, reference(), cafile=files[0]) == [SECRET]
            assert fetch(server.url, reference(), insecure=True) == [SECRET]

    def test_a_drip(self, tls, files):
        with stub_key_manager.running(tls) as server:
            server.script = drip_of_the_body
            assert "within 1 seconds" in str(failure(
                server.url, cafile=files[0], fetch_timeout=1))

    def test_with_a_client_certificate(self, tls, files, tmp_path):
        certificate, key = self_signed(tmp_path)
        tls.verify_mode = ssl.CERT_REQUIRED
        tls.load_verify_locations(certificate)
        with stub_key_manager.running(tls) as server:
            assert fetch(server.url, reference(), cafile=files[0], certfile=certificate,
                         keyfile=key) == [SECRET]
            # Not in the table: its connection may also break before the alert is read.
            failure(server.url, cafile=files[0])
            assert len(server.requests) == 1


class TestServiceToken:

    def test_goes_beside_the_users(self, key_manager):
        service_user = dict(SENDS, auth_type="admin_token", endpoint="http://127.0.0.1:1",
                            token=SERVICE_TOKEN)
        fetch(key_manager.url, *(reference() for _ in range(6)), service_user=service_user)
        for _, headers in key_manager.requests:
            assert headers["X-Auth-Token"] == TOKEN
            assert headers["X-Service-Token"] == SERVICE_TOKEN

    def test_without_credentials_the_users_goes_alone(self, key_manager, caplog):
        assert fetch(key_manager.url, reference(), service_user=SENDS) == [SECRET]
        assert "X-Service-Token" not in key_manager.requests[0][1]
        assert "has no auth_type" in caplog.text

    def test_one_login_for_all(self, key_manager):
        key_manager.grants = True
        service_user = dict(SENDS, **logs_in(key_manager.url, password="right"))
        source = keys.KeySource(configuration(service_user=service_user))
        for _ in range(2):
            source.fetch(Context(key_manager.url), [reference() for _ in range(6)])
        assert key_manager.others == ["/v3/auth/tokens"]
        assert {headers["X-Service-Token"] for _, headers in key_manager.requests} == {
            stub_key_manager.GRANTED}


class TestServiceCredentials:

    def test_reads_with_its_own_token_what_the_user_stored(self, key_manager):
        key = reference()
        context = Context("http://127.0.0.1:1")
        source = keys.KeySource(configuration(**as_service(key_manager.url)))
        assert source.fetch(context, [key]) == [SECRET]
        assert [path for path, _ in key_manager.requests] == [
            "/v1/secrets/%s" % key.secret_id, "/v1/secrets/%s/payload" % key.secret_id]
        for _, headers in key_manager.requests:
            assert headers["X-Auth-Token"] == SERVICE_TOKEN
            assert "X-Service-Token" not in headers

    def test_needs_no_token_of_the_user(self, key_manager):
        source = keys.KeySource(configuration(**as_service(key_manager.url)))
        assert source.fetch(Context(None, None), [reference()]) == [SECRET]

    @pytest.mark.parametrize("creator", [None, ""])
    def test_an_operation_without_a_user_reads_nothing(self, key_manager, creator):
        key_manager.metadata = {"creator_id": creator}
        source = keys.KeySource(configuration(**as_service(key_manager.url)))
        for user in (None, "", CREATOR):
            with pytest.raises(errors.KeyFetchError, match="stored by another user"):
                source.fetch(Context(None, None, user), [reference()])
        assert all("payload" not in path for path, _ in key_manager.requests)

    @pytest.mark.parametrize("metadata", [
        {}, [], "text", None, 1, {"status": "ACTIVE"}])
    def test_a_description_without_a_creator(self, key_manager, metadata):
        key_manager.metadata = metadata
        error = failure(key_manager.url, **as_service(key_manager.url))
        assert "does not say who stored it" in str(error)
        assert len(key_manager.requests) == 1

    def test_the_user_never_gets_the_services_rights(self, key_manager):
        """With the user's token refused, there is no second try with nova's own."""
        key_manager.status = 403
        failure(key_manager.url, **dict(as_service(key_manager.url), auth="user"))
        assert [headers["X-Auth-Token"] for _, headers in key_manager.requests] == [TOKEN]


class TestLog:

    def test_nothing_secret_is_logged(self, key_manager, caplog):
        caplog.set_level(logging.DEBUG)
        fetch(key_manager.url, *(reference() for _ in range(6)), service_user=dict(
            SENDS, auth_type="admin_token", endpoint="x", token=SERVICE_TOKEN))
        fetch(key_manager.url, reference(), **as_service(key_manager.url))
        assert "Reading vTPM key" in caplog.text
        # urllib3 says which requests there were.
        assert "/payload" in caplog.text
        assert_nothing_secret(caplog.text)

    def test_nor_when_it_is_text(self, key_manager, caplog):
        """keystoneauth logs bodies of text and JSON, unless it is told not to."""
        caplog.set_level(logging.DEBUG)
        for content_type in ("text/plain", "application/json"):
            key_manager.content_type = content_type
            failure(key_manager.url)
        assert_nothing_secret(caplog.text)
