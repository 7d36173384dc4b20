"""RSA key pairs, some of them made ahead: making one takes as long as the rest of a spawn.

Windows makes them in a provider of its own, off the caller's processor time as well.
"""
import _queue
import atexit

from cryptography.hazmat.primitives.asymmetric import rsa

from tests.hyperv import native

USUAL_BITS = 2048
_AHEAD = 2  # a guardian has two


class _KeysAhead:
    """Key pairs of the usual size, made by a native thread while nobody waits for them."""

    def __init__(self):
        self._ready = _queue.SimpleQueue()  # which eventlet does not patch
        self._maker = None
        # OpenSSL must not be cut off when the process ends, and a native thread of a process that
        # eventlet has patched is nobody's to wait for.
        atexit.register(self._wait)

    def take(self):
        try:
            return self._ready.get_nowait()
        except _queue.Empty:
            return _make(USUAL_BITS)
        finally:
            if self._maker is None or not self._maker.is_alive():
                self._maker = native.module("threading").Thread(target=self._fill)
                self._maker.start()

    def _wait(self):
        if self._maker is not None:
            self._maker.join()

    def _fill(self):
        while self._ready.qsize() < _AHEAD:
            self._ready.put(_make(USUAL_BITS))


_keys_ahead = _KeysAhead()


def new_key(bits=USUAL_BITS):
    """A new RSA key pair that nobody has had before."""
    return _keys_ahead.take() if bits == USUAL_BITS else _make(bits)


def _make(bits):
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)
