"""How ``mi`` sessions reach a simulated computer: in this process, or behind a socket.

The protocol on the Unix socket: a message is a length of four bytes (big endian) and a pickle.
A client sends (target, method, arguments), with the keywords as a fourth where there are some, and
reads ("result", value) or ("error", exception); after "subscribe" it only reads events until one
side closes. Only the owner may open the socket. What may be called:
:mod:`tests.hyperv.remote_methods`.
"""
import _socket
import collections
import os
import pickle

from tests.hyperv import cim, native
from tests.hyperv.storage import Storage


class _Computer:
    """What a session asks of a computer; how it is asked is the subclass's ``_call``.

    :ivar name: its computer name
    :ivar memory: what programs that run on it remember; {name of a cache: its contents}
    """

    def __init__(self, name):
        self.name, self.memory = name, {}

    def get_class(self, namespace, class_name):
        return self._call("find_class", namespace, class_name)

    def query(self, namespace, text):
        return self._call("query", namespace, text)

    def associators(self, namespace, instance, association_class, result_class):
        return self._call("associators", namespace, instance, association_class, result_class)

    def get_instance(self, namespace, instance):
        return self._call("get", instance)

    def invoke(self, target, method, parameters):
        return self._call("invoke", target, method, parameters)

    def modify(self, instance):
        return self._call("modify", instance)


class LocalComputer(_Computer):
    """A host of a fabric in this process.

    :param fabric: a :class:`tests.hyperv.fabric.Fabric`
    :param name: the computer name of one of its hosts
    """

    def __init__(self, fabric, name):
        super().__init__(name)
        self._fabric = fabric

    @property
    def storage(self):
        """The :class:`tests.hyperv.storage.Storage` of its fabric."""
        return self._fabric.storage

    def address_of(self, host_name):
        """:raises KeyError: no such host"""
        return self._fabric.address(host_name)

    def named(self, computer_name):
        """Another computer of the fabric; ``.`` and ``localhost`` are this one.

        :raises cim.Error: no such computer
        """
        if computer_name.lower() in (".", "localhost", "", self.name.lower()):
            return self
        return LocalComputer(self._fabric, self._fabric.require_host(computer_name))

    def subscribe(self, namespace, text, deliver, ended):
        """:returns: a function that ends the subscription"""
        return self._call("subscribe", namespace, text, deliver)

    def call_cluster(self, cluster, method, *arguments):
        """See :meth:`tests.hyperv.fabric.Fabric.call_cluster`."""
        return self._fabric.call_cluster(self.name, cluster, method, *arguments)

    def call_certificates(self, function, operation, *arguments):
        """See :meth:`tests.hyperv.fabric.Fabric.call_certificates`."""
        return self._fabric.call_certificates(self.name, function, operation, *arguments)

    def _call(self, method, *arguments):
        return self._fabric.call_repository(self.name, method, *arguments)


class RemoteComputer(_Computer):
    """A host of a fabric process; the same methods as :class:`LocalComputer`.

    :param socket_path: of the fabric process
    :param name: the computer name of one of its hosts
    """

    def __init__(self, socket_path, name, channels=None):
        super().__init__(name)
        self._path, self._storage = socket_path, None
        self._channels = channels or Channels(socket_path)

    @property
    def storage(self):
        if self._storage is None:
            self._storage = Storage(
                self._channels.call("fabric", "storage_template"),
                lambda host: self._channels.call("fabric", "computer_name", host))
        return self._storage

    def address_of(self, host_name):
        return self._channels.call("fabric", "address", host_name)

    def named(self, computer_name):
        if computer_name.lower() in (".", "localhost", "", self.name.lower()):
            return self
        return RemoteComputer(self._path, self._channels.call(
            "fabric", "require_host", computer_name), self._channels)

    def subscribe(self, namespace, text, deliver, ended):
        channel = Channel.connect(self._path)
        channel.request("fabric", "subscribe", self.name, namespace, text)

        def listen():
            try:
                while True:
                    deliver(*channel.receive())
            except (EOFError, OSError):
                channel.close()
                ended()
        thread = native.module("threading").Thread(target=listen, daemon=True)
        thread.start()
        return channel.shut_down

    def call_cluster(self, cluster, method, *arguments):
        return self._channels.call(
            "fabric", "call_cluster", self.name, cluster, method, *arguments)

    def call_certificates(self, function, operation, *arguments):
        return self._channels.call(
            "fabric", "call_certificates", self.name, function, operation, *arguments)

    def _call(self, method, *arguments):
        return self._channels.call("fabric", "call_repository", self.name, method, *arguments)


class Channels:
    """Connections to a fabric process, one for each thread that is in a call.

    ``deque`` needs no lock, and ``_socket`` is what eventlet does not patch: a call blocks its
    native thread, which PyMI has chosen for that (``avoid_blocking_call``).
    """

    def __init__(self, socket_path):
        self._path, self._process = socket_path, os.getpid()
        self._idle = collections.deque()

    def call(self, target, method, /, *arguments, **keywords):
        """Call a method behind the socket.

        :raises Exception: what the method raised there
        :raises OSError: the fabric process cannot be reached
        """
        if self._process != os.getpid():  # a fork shares the sockets of its parent
            self._idle, self._process = collections.deque(), os.getpid()
        try:
            channel = self._idle.pop()
        except IndexError:
            channel = Channel.connect(self._path)
        try:
            answer = channel.request(target, method, *arguments, **keywords)
        except EOFError:
            channel.close()
            raise cim.error("FAILED", "The RPC server is unavailable.") from None
        except OSError:
            channel.close()
            raise
        except BaseException:
            self._idle.append(channel)
            raise
        self._idle.append(channel)
        return answer


class Channel:
    """One connection: whole messages over a stream socket."""

    def __init__(self, stream):
        self._stream = stream

    @classmethod
    def connect(cls, path):
        stream = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        stream.setblocking(True)
        try:
            stream.connect(os.fspath(path))
        except OSError as fault:
            stream.close()
            raise ConnectionError("no simulated host answers at %s: %s" % (path, fault)) from None
        return cls(stream)

    def request(self, target, method, /, *arguments, **keywords):
        self.send((target, method, arguments, *([keywords] if keywords else ())))
        kind, value = self.receive()
        if kind == "error":
            raise value
        return value

    def send(self, message):
        data = pickle.dumps(message)
        self._stream.sendall(len(data).to_bytes(4, "big") + data)

    def receive(self):
        """:raises EOFError: the other side closed"""
        return pickle.loads(self._read(int.from_bytes(self._read(4), "big")))

    def _read(self, size):
        parts = []
        while size:
            part = self._stream.recv(min(size, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def shut_down(self):
        """Wake whoever reads; the reader closes."""
        try:
            self._stream.shutdown(_socket.SHUT_RDWR)
        except OSError:
            return  # already closed

    def close(self):
        self._stream.close()
