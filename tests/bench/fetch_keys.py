"""Requests and time to read six secrets: this project beside compute-hyperv's own flow.

``python -m tests.bench.fetch_keys`` asks a small local key manager, whose every answer takes
``--delay`` seconds. ``--cloud FOLDER`` asks the real Barbican of a cloud that runs
(``python -m tests.cloud up --state FOLDER``). Both flows read the same six secrets as the same
user, one server after the other in turns, and every request is counted where it arrives: at the
local key manager, or at a relay before Barbican.

compute-hyperv's is ``compute_hyperv.nova.pdk.PDK``: a container of secrets, each described before
it is read.
"""

import argparse
import contextlib
import http.client
import http.server
import statistics
import tempfile
import threading
import time
import types
import urllib.parse
import uuid

import nova.conf
from compute_hyperv.nova import pdk
from nova import context as nova_context

from tests import stub_key_manager
from tests.cloud import identity, settings
from tests.cloud.client import Client
from vtpm_compute import conf, keys
from vtpm_scheduling import policy

SECRETS = 6
PAYLOADS = [bytes([number]) * 3000 for number in range(SECRETS)]


def nova_configuration():
    """Nova's configuration with this project's section, all as it is by default."""
    conf.register_opts(nova.conf.CONF)
    nova.conf.CONF([], project="nova", default_config_files=[])
    return nova.conf.CONF


def request_context(endpoint, token):
    """What Nova hands to a driver: a user's token, and the catalog."""
    return nova_context.RequestContext(user_id="user", project_id="project", auth_token=token,
                                       service_catalog=[{
        "type": "key-manager", "name": "barbican",
        "endpoints": [{"publicURL": endpoint, "internalURL": endpoint, "adminURL": endpoint}]}])


class Ours:
    """One KeySource, as a nova-compute has it."""

    name = "vtpm_compute.keys"

    def __init__(self, secrets, _):
        self._source = keys.KeySource(nova_configuration())
        self._keys = policy.parse_keys(",".join(secrets))

    def read(self, context):
        return b"".join(self._source.fetch(context, self._keys))


class ComputeHypervs:
    """compute-hyperv's PDK, which writes what it read into a file."""

    name = "compute_hyperv.nova.pdk"

    def __init__(self, _, container):
        self._image = {"properties": {"img_pdk_reference": container}}

    def read(self, context):
        instance = types.SimpleNamespace(uuid=str(uuid.uuid4()), metadata={})
        with tempfile.NamedTemporaryFile() as file:
            pdk.PDK().create_pdk(context, instance, self._image, file.name)
            return file.read()


@contextlib.contextmanager
def local(delay):
    """(endpoint, token, secrets, container, count) of the small key manager."""
    with stub_key_manager.running() as server:
        secrets = [str(uuid.uuid4()) for _ in range(SECRETS)]
        container = str(uuid.uuid4())
        server.payloads = dict(zip(secrets, PAYLOADS))
        server.containers = {container: {
            str(number): secret for number, secret in enumerate(secrets, 1)}}
        server.delay = delay
        yield (server.url, "a-token", secrets, "%s/v1/containers/%s" % (server.url, container),
               lambda: len(server.requests) + len(server.others))


class _Relay(http.server.BaseHTTPRequestHandler):
    """Counts what comes, and asks Barbican."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self):
        with self.server.lock:
            self.server.count += 1
        connection = http.client.HTTPConnection(self.server.target, timeout=60)
        connection.request("GET", self.path, headers={
            name: value for name, value in self.headers.items() if name.lower() != "connection"})
        answer = connection.getresponse()
        # Discovery has to lead here again.
        body = answer.read().replace(self.server.target.encode(), self.headers["Host"].encode())
        connection.close()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", ""))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def relay(target):
    """A relay to a URL; yields (its URL, count)."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Relay)
    server.target, server.lock, server.count = urllib.parse.urlsplit(target).netloc, \
        threading.Lock(), 0
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield "http://127.0.0.1:%d" % server.server_address[1], lambda: server.count
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def real(folder):
    """(endpoint, token, secrets, container, count) of the Barbican of a cloud that runs."""
    cloud = settings.Settings.load(folder)
    session = identity.session(cloud, "alice")
    client = Client(session, cloud.url("barbican"))
    identifiers = [client.store_secret("benchmark", payload) for payload in PAYLOADS]
    container = client.barbican.containers.create(name="benchmark", secrets={
        str(number): client.barbican.secrets.get(
            "%s/v1/secrets/%s" % (cloud.url("barbican"), identifier))
        for number, identifier in enumerate(identifiers, 1)}).store()
    with relay(cloud.url("barbican")) as (url, count):
        try:
            # With the version: without it the client that compute-hyperv uses gets a 404.
            yield url + "/v1", session.get_token(), identifiers, container, count
        finally:
            client.barbican.containers.delete(container)
            for identifier in identifiers:
                client.barbican.secrets.delete(identifier)


def measure(key_manager, rounds):
    """Let both read for so many servers in turns: {name: [(requests, seconds), …]}."""
    endpoint, token, secrets, container, count = key_manager
    flows = [flow(secrets, container) for flow in (Ours, ComputeHypervs)]
    results = {flow.name: [] for flow in flows}
    for _ in range(rounds):
        for flow in flows:
            context = request_context(endpoint, token)
            requests, start = count(), time.perf_counter()
            read = flow.read(context)
            results[flow.name].append((count() - requests, time.perf_counter() - start))
            if read != b"".join(PAYLOADS):
                raise SystemExit("%s read something else" % flow.name)
    return results


def report(results):
    """The lines of a table."""
    yield "%-26s %14s %14s %12s %12s" % (
        "six secrets, for a server", "requests: 1st", "each further", "median ms", "slowest ms")
    for name, runs in results.items():
        further = sorted({requests for requests, _ in runs[1:]})
        times = [seconds * 1000 for _, seconds in runs]
        yield "%-26s %14d %14s %12.0f %12.0f" % (
            name, runs[0][0], ", ".join(map(str, further)), statistics.median(times), max(times))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--delay", type=float, default=0.02, metavar="SECONDS",
                        help="how long the local key manager takes to answer (0.02)")
    parser.add_argument("--cloud", metavar="FOLDER", help="state folder of a cloud that runs")
    parser.add_argument("--servers", type=int, default=10, help="for how many to read (10)")
    options = parser.parse_args(arguments)
    source = real(options.cloud) if options.cloud else local(options.delay)
    with source as key_manager:
        for line in report(measure(key_manager, options.servers)):
            print(line)


if __name__ == "__main__":
    main()
