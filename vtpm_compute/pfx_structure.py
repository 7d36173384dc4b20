"""What opening a PFX file would cost, told from its outside ([RFC 7292] 4; [RFC 8018] A).

A PFX file says itself how often a hash is to be repeated to open it, and a stranger's may say
thousands of millions: the library that opens it would do as it is told. So what the library will
read is read here first, without any key, in DER alone. The same structure in BER would need no
length, and is refused: the library might see another one in it.

Private keys are counted where all programs put them, outside the encrypted parts. One that is
hidden in an encrypted part is not seen; those parts are kept small, for a private key costs its
check, and the longer it is the more.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

MAX_BYTES = 64 * 1024
# A certificate of RSA-4096 has about 2,000 bytes.
_MAX_ENCRYPTED_BYTES = 16 * 1024
# A private key of RSA-4096 has about 2,400 bytes. Its check takes a fifth of a second, that of
# RSA-16384 the better part of a minute.
_MAX_KEY_BYTES = 2560
# Half a second or so. Windows and OpenSSL write some 2,000 for each part.
MAX_ITERATIONS = 1_000_000

# A sequence that begins with version 3.
_BEGINNING = re.compile(
    rb"\x30(?:[\x00-\x80]|\x81.|\x82..|\x83...|\x84....)\x02\x01\x03", re.DOTALL)

_INTEGER, _OCTETS, _OBJECT, _SEQUENCE, _SET = 0x02, 0x04, 0x06, 0x30, 0x31
_EXPLICIT_0, _IMPLICIT_OCTETS_0 = 0xA0, 0x80

_RSADSI = bytes.fromhex("2a864886f70d01")
_DATA, _ENCRYPTED_DATA = _RSADSI + b"\7\1", _RSADSI + b"\7\6"
_PKCS12 = _RSADSI + b"\x0c"
_KEY_BAG, _SHROUDED_KEY_BAG, _CERTIFICATE_BAG, _CRL_BAG, _SECRET_BAG = (
    _PKCS12 + b"\x0a\1" + bytes([number]) for number in range(1, 6))
_PBES1 = [_PKCS12 + b"\1" + bytes([number]) for number in range(1, 7)]
_PBES2, _PBKDF2 = _RSADSI + b"\5\x0d", _RSADSI + b"\5\x0c"
# SHA-1 and the SHA-2 family: whose MAC repeats as often as MacData says, and PBMAC1's does not.
_MAC_DIGESTS = [bytes.fromhex("2b0e03021a")] + [
    bytes.fromhex("6086480165030402") + bytes([number]) for number in range(1, 5)]

_UNUSUAL = "it is damaged, or not in the form that Windows and OpenSSL write"


class PfxStructureError(Exception):
    """A PFX file that is not to be opened; ``str()`` of it is a clause that says why."""


@dataclasses.dataclass
class _Cost:
    """What was found so far."""

    iterations: int = 0
    encrypted_bytes: int = 0
    keys: list[int] = dataclasses.field(default_factory=list)


def is_pfx(data: bytes) -> bool:
    """Whether bytes begin like a PFX file, whatever they go on with."""
    return _BEGINNING.match(data) is not None


def check(data: bytes) -> None:
    """Check that opening a PFX file costs little, and that it holds one private key.

    :raises PfxStructureError: when it is too large, not in DER, holds no or several private keys,
        or asks for more than :data:`MAX_ITERATIONS`.
    """
    if len(data) > MAX_BYTES:
        raise PfxStructureError("it is larger than 64 KiB")
    cost = _Cost()
    _read_file(_Elements(data), cost)
    if cost.iterations > MAX_ITERATIONS:
        raise PfxStructureError("it asks for more than %d repetitions to be opened" % (
            MAX_ITERATIONS))
    if len(cost.keys) != 1:
        raise PfxStructureError("it holds %s private key%s, and needs one" % (
            len(cost.keys) or "no", "s" if cost.keys else ""))
    if cost.keys[0] > _MAX_KEY_BYTES:
        raise PfxStructureError("its private key is longer than RSA of 4096 bits")
    if cost.encrypted_bytes > _MAX_ENCRYPTED_BYTES:
        raise PfxStructureError("it holds too many certificates")


class _Elements:
    """DER elements, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def __bool__(self) -> bool:
        return self._place < len(self._data)

    def is_next(self, tag: int) -> bool:
        return self._data[self._place:self._place + 1] == bytes([tag])

    def take(self, tag: int) -> bytes:
        """The contents of the next one.

        :raises PfxStructureError: when it is of another type, or not in DER.
        """
        if not self.is_next(tag):
            raise PfxStructureError(_UNUSUAL)
        start = self._place + 2
        length = int.from_bytes(self._data[start - 1:start], "big")
        if length >= 0x80:
            size = length - 0x80
            encoded = self._data[start:start + size]
            length = int.from_bytes(encoded, "big")
            start += size
            # DER: as short as it can be; and 0x80 alone is a length that is not told.
            if encoded[:1] in (b"", b"\0") or length < 0x80:
                raise PfxStructureError(_UNUSUAL)
        if start + length > len(self._data):
            raise PfxStructureError("it is not whole")
        self._place = start + length
        return self._data[start:self._place]

    def within(self, tag: int) -> _Elements:
        return _Elements(self.take(tag))

    def number(self) -> int:
        value = int.from_bytes(self.take(_INTEGER), "big", signed=True)
        if value < 0:
            raise PfxStructureError(_UNUSUAL)
        return value

    def end(self) -> None:
        """:raises PfxStructureError: when there is one more."""
        if self:
            raise PfxStructureError(_UNUSUAL)


def _read_file(outside: _Elements, cost: _Cost) -> None:
    file = outside.within(_SEQUENCE)
    outside.end()
    file.number()
    safe = file.within(_SEQUENCE)
    if safe.take(_OBJECT) != _DATA:
        raise PfxStructureError("it is signed with a certificate, which is not read here")
    for contents in _each(_octets(safe)):
        _read_contents(contents, cost)
    if not file:
        raise PfxStructureError("it has no checksum (MAC)")
    mac = file.within(_SEQUENCE)
    file.end()
    algorithm = mac.within(_SEQUENCE).within(_SEQUENCE)
    if algorithm.take(_OBJECT) not in _MAC_DIGESTS:
        raise PfxStructureError("its checksum (MAC) is of a kind that is not read here")
    mac.take(_OCTETS)
    cost.iterations += mac.number() if mac else 1
    mac.end()


def _octets(elements: _Elements) -> _Elements:
    """What the octets that come next, and last, hold."""
    explicit = elements.within(_EXPLICIT_0)
    elements.end()
    inner = explicit.within(_OCTETS)
    explicit.end()
    return inner


def _each(outside: _Elements) -> Iterator[_Elements]:
    sequence = outside.within(_SEQUENCE)
    outside.end()
    while sequence:
        yield sequence.within(_SEQUENCE)


def _read_contents(contents: _Elements, cost: _Cost) -> None:
    kind = contents.take(_OBJECT)
    if kind == _DATA:
        for bag in _each(_octets(contents)):
            _read_bag(bag, cost)
    elif kind == _ENCRYPTED_DATA:
        explicit = contents.within(_EXPLICIT_0)
        contents.end()
        data = explicit.within(_SEQUENCE)
        explicit.end()
        data.number()
        inner = data.within(_SEQUENCE)
        data.end()
        inner.take(_OBJECT)
        cost.iterations += _iterations(inner.within(_SEQUENCE))
        cost.encrypted_bytes += len(inner.take(_IMPLICIT_OCTETS_0))
        inner.end()
    else:
        raise PfxStructureError("a part of it is encrypted with a certificate")


def _read_bag(bag: _Elements, cost: _Cost) -> None:
    kind = bag.take(_OBJECT)
    value = bag.within(_EXPLICIT_0)
    if bag:
        bag.take(_SET)
    bag.end()
    if kind == _KEY_BAG:
        cost.keys.append(len(value.take(_SEQUENCE)))
    elif kind == _SHROUDED_KEY_BAG:
        shrouded = value.within(_SEQUENCE)
        cost.iterations += _iterations(shrouded.within(_SEQUENCE))
        cost.keys.append(len(shrouded.take(_OCTETS)))
        shrouded.end()
    elif kind in (_CERTIFICATE_BAG, _CRL_BAG, _SECRET_BAG):
        value.take(_SEQUENCE)
    else:
        raise PfxStructureError(_UNUSUAL)
    value.end()


def _iterations(algorithm: _Elements) -> int:
    """How often an algorithm that encrypts with a password repeats a hash."""
    kind = algorithm.take(_OBJECT)
    parameters = algorithm.within(_SEQUENCE)
    algorithm.end()
    if kind == _PBES2:
        derivation = parameters.within(_SEQUENCE)
        kind = derivation.take(_OBJECT)
        if kind != _PBKDF2:
            raise PfxStructureError("it is encrypted in a way that is not read here")
        parameters = derivation.within(_SEQUENCE)
    elif kind not in _PBES1:
        raise PfxStructureError("it is encrypted in a way that is not read here")
    parameters.take(_OCTETS)
    return parameters.number()
