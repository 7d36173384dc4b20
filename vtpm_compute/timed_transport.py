"""HTTP requests whose whole answer comes by a deadline, or not at all.

The time limit of requests is one for each wait on the socket: a server that sends a byte now and
then holds its reader as long as it likes, in the header as in the body. Here every wait is also
bounded by what is left until the deadline of the thread that makes the request.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import math
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import requests
import urllib3
from keystoneauth1 import session as keystone_session

_OK = 200
# The deadline of the requests that a thread, or a greenthread under eventlet, makes now.
_current = threading.local()


class Deadline:
    """A point in time; it can be brought forward to now.

    :param seconds: how far away it is.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds until it; negative once it has passed."""
        return self._end - time.monotonic()

    def has_passed(self) -> bool:
        """Whether nothing is to be waited for any more."""
        return self.remaining() <= 0

    def bring_forward(self) -> None:
        """Let it have passed: nobody needs the answers any more."""
        self._end = -math.inf

    @contextlib.contextmanager
    def for_requests_of_this_thread(self) -> Iterator[None]:
        """While this lasts, :class:`Transport` ends this thread's requests at the deadline."""
        _current.deadline = self
        try:
            yield
        finally:
            _current.deadline = None


class Transport(keystone_session.TCPKeepAliveAdapter):
    """Mount it on a ``requests.Session``. Safe for several threads.

    A request with ``stream=True`` is left after its header unless the status is 200: nothing
    reads its body, and it is never a redirect (requests would read the body of one whole, whatever
    its size, before it asks whether to follow it).
    """

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As requests does; with connections that know the deadline."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """As requests does; with connections that know the deadline."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def send(self, request: Any, stream: bool = False, timeout: float | None = None,
             *args: Any, **kwargs: Any) -> Any:
        """As requests does; raises a RequestException when the deadline has passed."""
        deadline = _deadline()
        if deadline is not None:
            remaining = deadline.remaining()
            if remaining <= 0:
                # keystoneauth tries this one no further time, unlike a Timeout.
                raise requests.exceptions.RequestException("the deadline has passed")
            timeout = remaining if timeout is None else min(timeout, remaining)
        response = super().send(request, stream, timeout, *args, **kwargs)
        if stream and response.status_code != _OK:
            response.headers.pop("Location", None)
            response.close()
        return response


def _deadline() -> Deadline | None:
    return getattr(_current, "deadline", None)


class _TimedReader(io.RawIOBase):
    """The bytes of a socket, until the deadline."""

    def __init__(self, sock: Any, raw: Any, deadline: Deadline) -> None:
        super().__init__()
        self._socket, self._raw, self._deadline = sock, raw, deadline
        self._timeout: float | None = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        remaining = self._deadline.remaining()
        if remaining <= 0:
            raise socket.timeout("the deadline has passed")
        self._socket.settimeout(
            remaining if self._timeout is None else min(self._timeout, remaining))
        try:
            count: int | None = self._raw.readinto(buffer)
        finally:
            self._socket.settimeout(self._timeout)
        return count

    def fileno(self) -> int:
        number: int = self._raw.fileno()
        return number

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        deadline = _deadline()
        if deadline is not None:
            self.fp = io.BufferedReader(_TimedReader(sock, self.fp.detach(), deadline))


class _Connection(urllib3.connection.HTTPConnection):
    response_class = _TimedResponse


class _TlsConnection(urllib3.connection.HTTPSConnection):
    response_class = _TimedResponse


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


_POOLS = {"http": _Pool, "https": _TlsPool}
