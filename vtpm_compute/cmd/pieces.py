"""How the bytes of a key protector are cut into secrets. Pure: standard library only."""

from __future__ import annotations

from vtpm_compute import errors
from vtpm_scheduling import policy

# Barbican's default limits: a secret holds 20,000 bytes (max_allowed_secret_in_bytes), a request
# 25,000 (max_allowed_request_size_in_bytes), and base64 in the JSON of one request makes four
# bytes of three.
MOST_IN_ONE_REQUEST = 15_000
MOST_IN_A_SECRET = 20_000


def cut(data: bytes, most: int, source: str) -> list[bytes]:
    """Cut into as few pieces as there can be, all about as long.

    :param data: at least one byte.
    :param most: bytes in a piece.
    :param source: where it comes from, for the message.
    :raises vtpm_compute.errors.UnusableFileError: when they are more than ``os_vtpm_keys`` takes.
    """
    count = -(-len(data) // most)
    if count > policy.MAX_KEYS:
        least = -(-len(data) // policy.MAX_KEYS)
        raise errors.UnusableFileError(
            "%s has %d bytes: that is %d pieces of %d bytes, and %s takes %d. %s" % (
                source, len(data), count, most, policy.IMAGE_KEYS, policy.MAX_KEYS,
                "Give --piece-bytes %d or more." % least if least <= MOST_IN_A_SECRET else
                "Make a key protector with fewer guardians or shorter keys."))
    size = -(-len(data) // count)
    return [data[start:start + size] for start in range(0, len(data), size)]
