"""Requests that end by a deadline: in every part of an answer, and without one as ever."""

import contextlib
import socket
import threading

import pytest
import requests
from keystoneauth1 import session as keystone_session

from tests import stub_key_manager
from vtpm_compute import timed_transport

HEADER = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"


@pytest.fixture
def session():
    with requests.Session() as one:
        one.mount("http://", timed_transport.Transport())
        yield one


@pytest.fixture
def server():
    with stub_key_manager.running() as one:
        one.address = one.url + "/v1/secrets/x/payload"
        yield one


def left(server, start, piece):
    """Let the server send a piece again and again; the event is set when the client has gone."""
    gone = threading.Event()

    def script(handler):
        handler.wfile.write(start)
        with contextlib.suppress(OSError):
            # Ten seconds: a client that stays is not to hold the test for ever.
            for _ in range(200):
                if server.stopping.wait(0.05):
                    return
                handler.wfile.write(piece)
                handler.wfile.flush()
                handler.connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    if handler.connection.recv(1) == b"":
                        break
                handler.connection.setblocking(True)
            else:
                return
        gone.set()

    server.script = script
    return gone


@pytest.mark.parametrize(("start", "piece"), [
    (b"", b""), (b"", b"H"), (b"", b"HTTP/1.1 100 Continue\r\n\r\n"), (HEADER + b"X: ", b"x"),
    (HEADER + b"Content-Length: 1000\r\n\r\n", b"x"), (HEADER + b"Content-Length: 9\r\n\r\n", b""),
    (HEADER + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"), (HEADER + b"\r\n", b"x")],
    ids=["silent", "status", "continue", "header", "body", "silent body", "chunks", "no length"])
@pytest.mark.parametrize("by_proxy", [False, True])
def test_the_connection_ends_at_the_deadline(session, server, monkeypatch, start, piece, by_proxy):
    if by_proxy:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", server.url)
        server.address = server.address.replace("127.0.0.1", "key-manager.example")
    gone = left(server, start, piece)
    deadline = timed_transport.Deadline(0.3)
    # Not "with": closing the answer would end the connection too.
    with deadline.for_requests_of_this_thread(), pytest.raises(
            (requests.exceptions.RequestException, timed_transport.urllib3.exceptions.HTTPError)):
        session.get(server.address, timeout=60, stream=True).raw.read(10 ** 6)
    assert deadline.has_passed()
    assert gone.wait(20)


def test_a_deadline_that_is_brought_forward(session, server):
    begun = threading.Event()
    gone = left(server, HEADER + b"\r\n", b"x")
    deadline = timed_transport.Deadline(1000)

    def read():
        with deadline.for_requests_of_this_thread(), contextlib.suppress(Exception):
            answer = session.get(server.address, timeout=60, stream=True)
            begun.set()
            answer.raw.read(10 ** 6)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert begun.wait(20)
    deadline.bring_forward()
    assert gone.wait(20)
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize(("seconds", "timeout", "given"), [
    (1000, 5, 5), (5, 1000, 5), (5, None, 5)])
def test_no_wait_is_longer_than_the_time_that_is_left(session, server, monkeypatch, seconds,
                                                      timeout, given):
    """Of the connection too, which the reader of the answer does not know."""
    seen = []
    send = keystone_session.TCPKeepAliveAdapter.send

    def note(self, request, stream, timeout, *args, **kwargs):
        seen.append(timeout)
        return send(self, request, stream, timeout, *args, **kwargs)

    monkeypatch.setattr(keystone_session.TCPKeepAliveAdapter, "send", note)
    with timed_transport.Deadline(seconds).for_requests_of_this_thread():
        session.get(server.address, timeout=timeout)
    assert given - 1 < seen[0] <= given


def test_after_the_deadline_nothing_is_sent(session, server):
    deadline = timed_transport.Deadline(1000)
    deadline.bring_forward()
    with deadline.for_requests_of_this_thread(), pytest.raises(
            requests.exceptions.RequestException) as caught:
        session.get(server.address)
    # Those are tried again.
    assert not isinstance(caught.value, (requests.exceptions.Timeout,
                                         requests.exceptions.ConnectionError))
    assert server.connections == 0


def test_the_deadline_is_this_threads_alone(session, server):
    deadline = timed_transport.Deadline(1000)
    deadline.bring_forward()
    with deadline.for_requests_of_this_thread():
        thread_got = []
        thread = threading.Thread(
            target=lambda: thread_got.append(session.get(server.address).content))
        thread.start()
        thread.join(20)
    assert thread_got == [stub_key_manager.SECRET]
    # And no longer than the block.
    assert session.get(server.address).content == stub_key_manager.SECRET


@pytest.mark.parametrize("timeout", [None, 7.0])
def test_a_sockets_own_timeout_stays(timeout):
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(timeout)
        reader = timed_transport._TimedReader(
            here, here.makefile("rb", buffering=0), timed_transport.Deadline(5))
        there.send(b"x")
        assert reader.read(1) == b"x"
        assert here.gettimeout() == timeout
        reader.close()


def test_refusals_are_left_after_their_header(session, server):
    gone = left(server, b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", b"x")
    answer = session.get(server.address, stream=True, timeout=60)
    assert answer.status_code == 302
    assert not answer.is_redirect
    assert gone.wait(20)
    answer.close()


def test_redirects_of_other_requests_are_followed(session, server):
    """Keystone may redirect a log-in."""
    server.status, server.headers = 302, {"Location": "/v3"}
    assert "versions" in session.get(server.address).text
