"""The little of Neutron that Nova asks for without networks: ``neutron_stub.py PORT``.

nova-api wants the security groups of a server that it shows, nova-compute the ports of one that it
deletes: every list is empty.
"""
import http.server
import json
import sys


class EmptyLists(http.server.BaseHTTPRequestHandler):
    """Answers every GET with an empty list of what the path names."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """Answer."""
        name = self.path.partition("?")[0].rstrip("/").rpartition("/")[2].partition(".")[0]
        body = json.dumps({name.replace("-", "_"): []}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), EmptyLists).serve_forever()
