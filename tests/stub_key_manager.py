"""A key manager as small as can be, for tests of what Barbican's answers lead to."""

import contextlib
import http.server
import json
import threading

SECRET = b"\x00\x00 the key protector \xff" * 10

# What Barbican answers to the client's discovery.
VERSIONS = '''{"versions": [{"id": "v1", "status": "CURRENT", "min_version": "1.0",
  "max_version": "1.1", "links": [{"rel": "self", "href": "URL/v1/"}]}]}'''


class KeyManager(http.server.ThreadingHTTPServer):
    """Answers every request as a test sets.

    ``status``, ``headers``, ``content_type`` and ``body`` are those of every answer; ``payloads``
    has other bodies, by the id of the secret. ``containers`` has the ids of the secrets in a
    container by their names, by the id of the container. ``requests`` are those that came: (path,
    headers).
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.headers, self.body, self.requests = 200, {}, SECRET, []
        self.payloads, self.containers = {}, {}
        self.content_type = "application/octet-stream"

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.server_address[1]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if "/containers/" in self.path:
            self._answer_container(self.path.split("/containers/")[1].split("/")[0])
            return
        if "/secrets/" not in self.path:
            self._answer(200, {}, "application/json", VERSIONS.replace(
                "URL", self.server.url).encode())
            return
        self.server.requests.append((self.path, dict(self.headers)))
        identifier = self.path.split("/secrets/")[1].split("/")[0]
        if self.path.endswith("/secrets/" + identifier):
            self._answer_json({"content_types": {"default": self.server.content_type}})
            return
        self._answer(self.server.status, self.server.headers, self.server.content_type,
                     self.server.payloads.get(identifier, self.server.body))

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
        self._answer(status, {}, "application/json", json.dumps(value).encode())

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
def running():
    """A KeyManager that answers while this lasts."""
    server = KeyManager()
    # Seconds between looks at whether to end.
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
