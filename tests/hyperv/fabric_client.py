"""Asks a fabric process what its hosts do, and changes what tests need changed."""
import functools
import inspect

from tests.hyperv import remote_methods
from tests.hyperv.connection import Channels
from tests.hyperv.fabric import Fabric


class FabricClient:
    """The methods of :class:`tests.hyperv.fabric.Fabric` that tests call, over its socket.

    They are made of that class: see :mod:`tests.hyperv.remote_methods`.

    :param socket_path: of the fabric process
    """

    def __init__(self, socket_path):
        self._channels = Channels(socket_path)


def _over_the_socket(method):
    signature, name = inspect.signature(method), method.__name__

    @functools.wraps(method)
    def call(self, *arguments, **keywords):
        bound = signature.bind(self, *arguments, **keywords)
        values, named = bound.args[1:], bound.kwargs
        remote_methods.check_plain(name, [values, named])
        return self._channels.call("fabric", name, *values, **named)
    return call


for _name in remote_methods.of_tests(Fabric):
    setattr(FabricClient, _name, _over_the_socket(getattr(Fabric, _name)))
