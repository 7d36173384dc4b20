"""A key manager as small as can be, for tests of what Barbican's answers lead to."""

import contextlib
import http.server
import json
import threading

SECRET = b"\x00\x00 the key protector \xff" * 10
# Who stored every secret.
CREATOR = "the-creators-id"
# What Keystone gives to who logs in.
GRANTED = "a-token-that-keystone-granted"

# What Barbican answers to its client's discovery.
VERSIONS = '''{"versions": [{"id": "v1", "status": "CURRENT", "min_version": "1.0",
  "max_version": "1.1", "links": [{"rel": "self", "href": "URL/v1/"}]}]}'''


class KeyManager(http.server.ThreadingHTTPServer):
    """Answers every request as a test sets.

    ``status``, ``headers``, ``content_type`` and ``body`` are those of every payload;
    ``payloads`` has other bodies, by the id of the secret, and ``metadata`` is what describes every
    secret, bytes as they are. ``containers`` has the ids of the secrets in a container by their
    names, by the id of the container. ``script`` is called with the handler instead of an answer to
    a request for a payload: it writes what it likes to ``handler.wfile``, and the connection is
    closed.

    ``requests`` are those for secrets that came: (path, headers); ``others`` the paths of all
    others, and ``connections`` counts the connections.
    """

    daemon_threads = True
    # Six at once, tried again.
    request_queue_size = 64

    def __init__(self, tls=None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.headers, self.body, self.requests = 200, {}, SECRET, []
        self.payloads, self.containers, self.others = {}, {}, []
        self.content_type = "application/octet-stream"
        self.metadata = {"creator_id": CREATOR, "content_types": {"default": self.content_type}}
        self.script = None
        self.grants = False
        self.connections = 0
        # Seconds that each answer takes.
        self.delay = 0
        # Set at the end: what waits is to stop.
        self.stopping = threading.Event()
        self._scheme = "http"
        if tls is not None:
            self._scheme = "https"
            self.socket = tls.wrap_socket(self.socket, server_side=True,
                                          do_handshake_on_connect=False)

    @property
    def url(self):
        return "%s://127.0.0.1:%d" % (self._scheme, self.server_address[1])

    def get_request(self):
        self.connections += 1
        return super().get_request()

    def handle_error(self, *_):
        """Clients that go away are what many tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # As Barbican's servers send: header and body of a small answer leave together.
    wbufsize = -1

    def do_GET(self):
        server = self.server
        server.stopping.wait(server.delay)
        if "/secrets/" not in self.path:
            server.others.append(self.path)
            if "/containers/" in self.path:
                self._answer_container(self.path.split("/containers/")[1].split("/")[0])
            else:
                self._answer(200, {}, "application/json",
                             VERSIONS.replace("URL", server.url).encode())
            return
        server.requests.append((self.path, dict(self.headers)))
        identifier, _, rest = self.path.split("/secrets/")[1].partition("/")
        if not rest:
            self._answer_json(server.metadata)
        elif server.script is not None:
            self.close_connection = True
            server.script(self)
        else:
            self._answer(server.status, server.headers, server.content_type,
                         server.payloads.get(identifier, server.body))

    def do_POST(self):
        """Log in to Keystone: refused, unless ``grants`` says otherwise."""
        self.server.others.append(self.path)
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.grants:
            self._answer(201, {"X-Subject-Token": GRANTED}, "application/json", json.dumps(
                {"token": {"methods": ["password"], "user": {"id": "nova"}, "catalog": [],
                           "issued_at": "2026-01-01T00:00:00.000000Z",
                           "expires_at": "2999-01-01T00:00:00.000000Z"}}).encode())
        else:
            self._answer_json({"error": {"message": "m", "code": 401}}, 401)

    def _answer_container(self, identifier):
        secrets = self.server.containers.get(identifier)
        if secrets is None:
            self._answer_json({"title": "Not Found"}, 404)
            return
        url = self.server.url
        self._answer_json({
            "type": "generic", "name": "container", "status": "ACTIVE",
            "container_ref": "%s/v1/containers/%s" % (url, identifier),
            "secret_refs": [{"name": name, "secret_ref": "%s/v1/secrets/%s" % (url, secret)}
                            for name, secret in secrets.items()]})

    def _answer_json(self, value, status=200):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self._answer(status, {}, "application/json", body)

    def _answer(self, status, headers, content_type, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def running(tls=None):
    """A KeyManager that answers while this lasts; with an ``ssl.SSLContext`` over TLS."""
    server = KeyManager(tls)
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
