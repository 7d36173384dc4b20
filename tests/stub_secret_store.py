"""A Keystone and a key manager that stores, as small as can be, for tests of who uses them.

It takes what Barbican takes with its default limits, and refuses what Barbican would refuse.
"""

import base64
import contextlib
import dataclasses
import http.server
import json
import re
import threading
import uuid

PASSWORD = "the-tenants-password-1234"
TOKEN = "a-token-of-the-tenant-5678"
MOST_IN_ONE_REQUEST, MOST_IN_A_SECRET = 25000, 20000
_OCTETS = "application/octet-stream"


@dataclasses.dataclass
class Secret:
    """What is stored."""

    name: str
    expiration: object
    payload: object = None
    private: bool = False
    # Whether it was so when its payload came.
    was_private: bool = False


class SecretStore(http.server.ThreadingHTTPServer):
    """Keeps secrets in ``secrets``, by id, in the order in which they were made.

    ``requests`` are those to the key manager: (method, path, headers). ``actions`` are called
    instead of, or before, an answer: {(method, number of the request with this method): function
    of the handler}; when it returns True, it has answered. ``logins`` counts those at Keystone, and
    ``refuses_logins`` is what it says. ``has_catalog`` is whether the key manager is in it.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.secrets, self.requests, self.actions = {}, [], {}
        self.logins, self.refuses_logins, self.has_catalog = 0, False, True
        self.endpoint_path = ""
        self.stopping = threading.Event()

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.server_address[1]

    def fail(self, method, number, status, headers=None):
        """Answer that request with a status."""
        def action(handler):
            handler.answer(status, b'{"title": "%d"}' % status, headers=headers)
            return True
        self.actions[method, number] = action

    def payloads(self):
        return [secret.payload for secret in self.secrets.values()]

    def environment(self):
        """The variables with which the openstack client is a tenant of it."""
        return {"OS_AUTH_URL": self.url + "/v3", "OS_USERNAME": "alice", "OS_PASSWORD": PASSWORD,
                "OS_PROJECT_NAME": "demo", "OS_USER_DOMAIN_NAME": "Default",
                "OS_PROJECT_DOMAIN_NAME": "Default", "OS_REGION_NAME": "RegionOne",
                "OS_IDENTITY_API_VERSION": "3"}

    def handle_error(self, *_):
        """Clients that go away are what some tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self):
        self._handle(b"")

    def do_DELETE(self):
        self._handle(b"")

    def do_POST(self):
        self._handle(self._body())

    def do_PUT(self):
        self._handle(self._body())

    def _body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _handle(self, body):
        server = self.server
        if self.path.startswith("/v3"):
            self._keystone()
            return
        number = 1 + sum(method == self.command for method, _, _ in server.requests)
        server.requests.append((self.command, self.path, dict(self.headers)))
        action = server.actions.get((self.command, number))
        if action is not None and action(self):
            return
        if self.headers.get("X-Auth-Token") != TOKEN:
            self.answer(401, b"{}")
            return
        found = re.fullmatch(
            re.escape(server.endpoint_path) + r"/v1/secrets(?:/([0-9a-f-]{36})(/payload|/acl)?)?",
            self.path)
        if found is None or found.group(1) and found.group(1) not in server.secrets:
            self.answer(404, b'{"title": "Not Found"}')
        elif self.command == "POST":
            self._create(body)
        else:
            self._use(found.group(1), found.group(2) or "", body)

    def _keystone(self):
        server = self.server
        if self.command == "GET":
            self.answer(200, json.dumps({"version": {
                "id": "v3.14", "status": "stable",
                "links": [{"rel": "self", "href": server.url + "/v3/"}]}}).encode())
            return
        server.logins += 1
        if server.refuses_logins:
            self.answer(401, b'{"error": {"message": "m", "code": 401}}')
            return
        catalog = [{"type": "key-manager", "name": "barbican", "id": "1", "endpoints": [
            {"interface": "public", "region": "RegionOne", "region_id": "RegionOne", "id": "2",
             "url": server.url + server.endpoint_path}]}] if server.has_catalog else []
        self.answer(201, json.dumps({"token": {
            "methods": ["password"], "user": {"id": "u", "name": "alice"},
            "project": {"id": "p", "name": "demo"}, "catalog": catalog,
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "expires_at": "2999-01-01T00:00:00.000000Z"}}).encode(),
            headers={"X-Subject-Token": TOKEN})

    def _create(self, body):
        if len(body) > MOST_IN_ONE_REQUEST:
            self.answer(413, b'{"title": "Request entity too large"}')
            return
        described = json.loads(body)
        assert described["secret_type"] == "opaque"
        secret = Secret(described["name"], described.get("expiration"))
        if "payload" in described:
            assert described["payload_content_type"] == _OCTETS
            assert described["payload_content_encoding"] == "base64"
            secret.payload = base64.b64decode(described["payload"], validate=True)
            if len(secret.payload) > 15000:
                self.answer(413, b'{"title": "Request entity too large"}')
                return
        identifier = str(uuid.uuid4())
        self.server.secrets[identifier] = secret
        self.answer(201, json.dumps({"secret_ref": "%s%s/v1/secrets/%s" % (
            self.server.url, self.server.endpoint_path, identifier)}).encode())

    def _use(self, identifier, rest, body):
        secret = self.server.secrets[identifier]
        what = self.command + rest
        if what == "DELETE":
            del self.server.secrets[identifier]
            self.answer(204)
        elif what == "PUT/acl":
            assert json.loads(body) == {"read": {"project-access": False}}
            secret.private = True
            self.answer(200, b"{}")
        elif what == "PUT":
            assert self.headers["Content-Type"] == _OCTETS
            if secret.payload is not None:
                self.answer(409, b'{"title": "Conflict"}')
            elif len(body) > MOST_IN_A_SECRET:
                self.answer(413, b'{"title": "Request entity too large"}')
            else:
                secret.payload, secret.was_private = body, secret.private
                self.answer(204)
        elif what == "GET/payload" and secret.payload is not None:
            assert self.headers["Accept"] == _OCTETS
            self.answer(200, secret.payload, _OCTETS)
        elif what == "GET":
            self.answer(200, json.dumps({
                "name": secret.name, "created": "2026-02-03T04:05:06"}).encode())
        else:
            self.answer(404, b'{"title": "Not Found"}')

    def answer(self, status, body=b"", content_type="application/json", headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if body:
            self.send_header("Content-Type", content_type)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def running():
    """A SecretStore that answers while this lasts."""
    server = SecretStore()
    # Seconds between looks at whether to end.
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()
