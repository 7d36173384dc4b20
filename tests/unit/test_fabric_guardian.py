"""Which guardian of a simulated host's store is the fabric's, and its import."""

import http.server
import logging
import threading

import pytest

from tests.hyperv import guardian
from tests.unit.guarded_host import FABRIC, HOST, OTHER, module
from vtpm_compute import errors

NEW = "east-2"


@pytest.fixture
def pinned(host):
    return host.simulated.fabric_thumbprint(FABRIC)


def refused(finder, match):
    with pytest.raises(errors.HostGuardianError, match=match):
        finder.find()


def test_by_name(host, pinned):
    assert host.finder(FABRIC).find().thumbprint == pinned


def test_by_thumbprint(host, pinned):
    assert host.finder(None, pinned).find().name == FABRIC


def test_by_both(host, pinned):
    assert host.finder(FABRIC, pinned).find().name == FABRIC


def test_the_pinned_one_under_another_name(host, pinned):
    """It is taken: it is the fabric's by its certificate, and Windows imports none twice."""
    server = Server(host.simulated.metadata(FABRIC))
    finder = host.finder("Fabric", pinned, server)
    assert finder.stored() == finder.find()
    assert (finder.find().name, finder.find().thumbprint) == (FABRIC, pinned)
    assert server.urls == []
    host.maker.make(finder.find())
    host.assert_nothing_left()


def test_a_local_one_under_another_name(host):
    made = host.client.generate("local")
    refused(host.finder("Fabric", made.thumbprint), "Guardian local is a local one")
    host.client.remove("local")
    for one in host.simulated.certificates(HOST):
        host.simulated.remove_certificate(HOST, one["thumbprint"])


def test_by_nothing(host):
    refused(host.finder(None), "neither fabric_guardian nor fabric_thumbprint: set one")


def test_one_that_is_missing_and_not_pinned(host):
    refused(host.finder("north"), "no guardian named north: import it")


def test_another_one_under_the_name(host, pinned):
    refused(host.finder(OTHER, pinned), "Guardian west of the store has the certificate")


def test_several_with_the_certificate(host, pinned, monkeypatch):
    found = host.client.guardians()
    monkeypatch.setattr(host.client, "guardians", lambda: [found[0], found[0]])
    for name in (None, "Fabric"):
        refused(host.finder(name, pinned), "Several guardians .* Set fabric_guardian")


def test_a_local_one(host):
    made = host.client.generate("local")
    refused(host.finder("local"), "local is a local one, whose private key is on this host")
    refused(host.finder(None, made.thumbprint), "is a local one")
    host.client.remove("local")
    for one in host.simulated.certificates(HOST):
        host.simulated.remove_certificate(HOST, one["thumbprint"])


class Server:
    """A key protection server's documents: asked for metadata, it gives what a test set."""

    def __init__(self, document):
        self.document, self.urls = document, []

    def __call__(self, url):
        self.urls.append(url)
        if isinstance(self.document, Exception):
            raise self.document
        return self.document


@pytest.fixture
def without_guardian(host, pinned):
    """A host whose store lacks the fabric's guardian."""
    host.simulated.remove_guardian(HOST, FABRIC)
    yield host
    for one in host.simulated.guardians(HOST):
        host.simulated.remove_guardian(HOST, one["name"])
    for name in (FABRIC, OTHER):
        host.simulated.host(HOST).hgs_client.add(
            guardian.Guardian.from_metadata(host.simulated.metadata(name), name))


@pytest.mark.parametrize("name", [NEW, None])
def test_import(without_guardian, pinned, name, caplog):
    host = without_guardian
    caplog.set_level(logging.INFO, "vtpm_compute.fabric_guardian")
    server = Server(host.simulated.metadata(FABRIC))
    finder = host.finder(name, pinned, server)
    found = finder.find()
    assert (found.name, found.thumbprint) == (name or "Fabric-" + pinned[:16], pinned)
    assert not found.has_private_key
    assert server.urls == ["http://hgs.east.example/KeyProtection"]
    assert "(%s) was imported from %s" % (pinned, server.urls[0]) in caplog.text
    host.assert_no_file_left()
    # Protectors can be made for it, and it is found from now on.
    host.maker.make(found)
    assert finder.find() == found
    assert len(server.urls) == 1


def test_nothing_else_than_what_is_pinned_is_imported(without_guardian, pinned):
    host = without_guardian
    server = Server(host.simulated.metadata(OTHER))
    refused(host.finder(NEW, pinned, server),
            r"lacks the fabric's guardian \(%s\.\.\.\), and it cannot be imported from "
            r"http://hgs.east.example/KeyProtection: its guardian has the certificate" % (
                pinned[:16]))
    assert host.simulated.calls(HOST, "MSFT_HgsGuardian.Import") == []


@pytest.mark.parametrize(("document", "reason"), [
    (b"<html/>", "is not guardian metadata"), (b"", "is not guardian metadata"),
    (errors.HostGuardianError("it answered 503."), "it answered 503")])
def test_what_cannot_be_imported(without_guardian, pinned, document, reason):
    refused(without_guardian.finder(NEW, pinned, Server(document)), reason)


def test_windows_refuses_the_import(without_guardian, pinned):
    host = without_guardian
    host.simulated.add_fault(HOST, "MSFT_HgsGuardian.Import", return_value=5)
    refused(host.finder(NEW, pinned, Server(host.simulated.metadata(FABRIC))),
            "MSFT_HgsGuardian.Import returned 5")
    host.assert_no_file_left()


def test_a_failed_import_is_not_tried_again_at_once(without_guardian, pinned, monkeypatch):
    """Reports are made every minute, and each waits for the server."""
    host, server = without_guardian, Server(errors.HostGuardianError("it answered 503."))
    finder = host.finder(NEW, pinned, server)
    refused(finder, "503")
    refused(finder, "tried again every 10 minutes")
    assert len(server.urls) == 1
    time = module("fabric_guardian").time
    later = time.monotonic() + 601
    monkeypatch.setattr(time, "monotonic", lambda: later)
    server.document = host.simulated.metadata(FABRIC)
    assert finder.find().name == NEW


def test_a_report_and_a_spawn_at_the_same_time(without_guardian, pinned):
    """Whoever comes while the other one imports it waits, and is not told that it failed."""
    host, begun, go_on = without_guardian, threading.Event(), threading.Event()

    def read_metadata(url):
        begun.set()
        assert go_on.wait(10)
        return host.simulated.metadata(FABRIC)
    finder, found = host.finder(NEW, pinned, read_metadata), []
    threads = [threading.Thread(target=lambda: found.append(finder.find())) for _ in range(2)]
    threads[0].start()
    assert begun.wait(10)
    threads[1].start()
    threads[1].join(0.2)
    assert found == []
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert [one.name for one in found] == [NEW, NEW]


def test_one_that_has_expired(host):
    """It is still the fabric's, for the servers that there are; Windows makes no protector."""
    old = guardian.Guardian.generate("old", now=lambda: 0)
    host.simulated.host(HOST).hgs_client.add(old.public())
    found = host.finder("old").find()
    with pytest.raises(errors.HostGuardianError, match="expired on 1980-01-0"):
        module("fabric_guardian").require_valid(found)
    with pytest.raises(errors.HostGuardianError, match="validity period"):
        host.maker.make(found)
    module("fabric_guardian").require_valid(host.guardian)
    host.client.remove("old")


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.paths.append(self.path)
        self.server.authorizations.append(self.headers["Authorization"])
        self.send_response(self.server.status)
        self.send_header("Location", "http://127.0.0.1:%d/elsewhere" % self.server.server_port)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    """A real HTTP server in the place of a key protection server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as made:
        made.status, made.body, made.paths, made.authorizations = 200, b"<Metadata/>", [], []
        threading.Thread(target=made.serve_forever, daemon=True).start()
        made.url = "http://127.0.0.1:%d/KeyProtection" % made.server_port
        yield made
        made.shutdown()


def read(url, seconds=5):
    return module("key_protection_server").read_metadata(url, seconds, True)


def test_metadata_of_a_server(server):
    for url in (server.url, server.url + "/", server.url.replace("http", "HTTP")):
        assert read(url) == b"<Metadata/>"
    assert set(server.paths) == {"/KeyProtection/service/metadata/2014-07/metadata.xml"}


@pytest.mark.parametrize(("status", "body", "reason"), [
    (404, b"", "it answered 404"), (302, b"", "it answered 302"), (503, b"x" * 100, "503"),
    (200, b"x" * 65537, "more than 65536 bytes")])
def test_a_server_without_metadata(server, status, body, reason):
    server.status, server.body = status, body
    with pytest.raises(errors.HostGuardianError, match=reason):
        read(server.url)
    assert len(server.paths) == 1


def test_proxies_and_passwords_of_the_environment_are_not_for_it(server, monkeypatch, tmp_path):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login nova password topsecret")
    assert read(server.url) == server.body
    assert server.authorizations == [None]


def test_the_largest_that_is_read(server):
    server.body = b"x" * 65536
    assert read(server.url) == server.body


def test_no_server(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(errors.HostGuardianError, match=r"cannot be read \(ConnectionError\)"):
        read(server.url)
    with pytest.raises(errors.HostGuardianError, match="has no key protection server"):
        read("")
    for url in ("file:///etc/passwd", "hgs.example", "httpx://hgs.example", "HTTP:/hgs.example"):
        with pytest.raises(errors.HostGuardianError, match="is neither http:// nor https://"):
            read(url)


def test_a_server_that_keeps_its_reader(monkeypatch, server):
    class Slow(_Handler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                self.wfile.flush()
                if ended.wait(0.1):
                    return
    ended = threading.Event()
    server.RequestHandlerClass = Slow
    try:
        with pytest.raises(errors.HostGuardianError, match="cannot be read"):
            read(server.url, 0.5)
    finally:
        ended.set()
