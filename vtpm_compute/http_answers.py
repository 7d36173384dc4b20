"""What comes of an HTTP request: a bounded part of its answer, or a chain of errors. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def read(raw: Any, most: int, decode: bool = False) -> bytes:
    """As much of an answer's body as is wanted, whatever length was announced.

    :param raw: ``requests.Response.raw``, of a request with ``stream=True``.
    :param most: bytes; no more are read.
    :param decode: whether a compressed body is unpacked: a few bytes of one may be gigabytes.
    """
    body = b""
    while len(body) < most:
        piece = raw.read(most - len(body), decode_content=decode)
        if not piece:
            break
        body += piece
    return body


def causes(exc: BaseException | None) -> Iterator[BaseException]:
    """An exception, and what it came of."""
    seen: list[BaseException] = []
    while exc is not None and exc not in seen:
        seen.append(exc)
        yield exc
        exc = exc.__cause__ or exc.__context__
