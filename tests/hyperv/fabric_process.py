"""Serves a :class:`tests.hyperv.fabric.Fabric` to several processes over a Unix socket::

    python -m tests.hyperv.fabric_process --socket PATH --config FILE.json

Prints "ready" when the socket is open; ends on SIGTERM or SIGINT.
"""
import _socket
import argparse
import json
import os
import pickle
import queue
import signal
import sys
import threading
import types

from tests.hyperv import native, remote_methods
from tests.hyperv.connection import Channel
from tests.hyperv.fabric import Fabric


class Server:
    """Serves a fabric.

    :param fabric: the fabric
    :param path: where the socket is made, for its owner alone; what lies there is replaced
    """

    def __init__(self, fabric, path):
        self._fabric, self._path = fabric, os.fspath(path)
        if os.path.exists(self._path):
            os.unlink(self._path)
        self._listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        old_mask = os.umask(0o177)
        try:
            self._listener.bind(self._path)
        finally:
            os.umask(old_mask)
        self._listener.listen(64)

    def run(self):
        """Serve until :meth:`stop`."""
        while True:
            try:
                descriptor, _ = self._listener._accept()
            except OSError:
                return
            stream = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, descriptor)
            stream.setblocking(True)
            native.module("threading").Thread(
                target=self._serve, args=(Channel(stream),), daemon=True).start()

    def stop(self):
        try:
            self._listener.shutdown(_socket.SHUT_RDWR)
        except OSError:
            pass  # not connected: some systems say so
        self._listener.close()
        if os.path.exists(self._path):
            os.unlink(self._path)

    def _serve(self, channel):
        try:
            while True:
                _, method, arguments, *keywords = channel.receive()
                if method == "subscribe":
                    self._send_events(channel, *arguments)
                    return
                channel.send(self._answer(method, arguments, *keywords))
        except (EOFError, OSError):
            return
        finally:
            channel.close()

    def _answer(self, method, arguments, keywords=types.MappingProxyType({})):
        try:
            is_plain = remote_methods.require_remote(type(self._fabric), method)
            result = getattr(self._fabric, method)(*arguments, **keywords)
            if is_plain:
                remote_methods.check_plain(method, result)
            return "result", result
        except Exception as fault:  # noqa: BLE001 - every error belongs to the caller
            return "error", _whole(fault)

    def _send_events(self, channel, host_name, namespace, text):
        events = queue.SimpleQueue()
        try:
            cancel = self._fabric.call_repository(
                host_name, "subscribe", namespace, text,
                lambda instance, before: events.put((instance, before)))
        except Exception as fault:  # noqa: BLE001 - every error belongs to the caller
            channel.send(("error", _whole(fault)))
            return
        channel.send(("result", None))
        # The client sends nothing more: the reader notices that it is gone.
        threading.Thread(target=_wait_for_end, args=(channel, events), daemon=True).start()
        try:
            while True:
                event = events.get()
                if event is None:
                    return
                channel.send(event)
        finally:
            cancel()


def _whole(fault):
    """The error, if the caller can read it from a pickle, or one that says the same."""
    try:
        pickle.loads(pickle.dumps(fault))
    except Exception:  # noqa: BLE001 - whatever the error's own class makes of it
        return RuntimeError("%s: %s" % (type(fault).__name__, fault))
    return fault


def _wait_for_end(channel, events):
    try:
        channel.receive()
    except (EOFError, OSError):
        pass  # that is the end
    events.put(None)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--socket", required=True)
    parser.add_argument("--config", required=True, help="JSON; see tests/hyperv/README.rst")
    options = parser.parse_args(arguments)
    with open(options.config, encoding="utf-8") as config:
        fabric = Fabric(json.load(config))
    server = Server(fabric, options.socket)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    print("ready", flush=True)
    # The main thread is left to the signals.
    worker = threading.Thread(target=server.run)
    worker.start()
    worker.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
