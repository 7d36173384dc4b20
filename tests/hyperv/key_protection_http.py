"""The key protection server of a fabric over HTTP: its metadata, as hosts and tenants get them.

Source: Microsoft Learn, "Create a shielding data file" (the path of the metadata). What hosts ask
it when a VM starts (RollTransportKey) goes no way of its own here: the HGS client is simulated.
"""
import http.server
import threading

_BASE = "/KeyProtection"
_SECONDS_BETWEEN_LOOKS = 0.02
_METADATA = _BASE + "/service/metadata/2014-07/metadata.xml"


class KeyProtectionHttp:
    """A server on this machine, until :meth:`stop`.

    :param guarded_fabric: the :class:`tests.hyperv.guarded_fabric.GuardedFabric`
    :ivar url: what hosts are configured with (KeyProtectionServerUrl)
    """

    def __init__(self, guarded_fabric):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                status, body = 404, b""
                if not guarded_fabric.reachable:
                    status = 503
                elif self.path == _METADATA:
                    status, body = 200, guarded_fabric.metadata()
                self.send_response(status)
                self.send_header("Content-Type", "application/xml")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                """Nothing on the console."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = "http://127.0.0.1:%d%s" % (self._server.server_port, _BASE)
        # A green one where eventlet has patched the sockets: the server waits on them.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_SECONDS_BETWEEN_LOOKS,), daemon=True)
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
