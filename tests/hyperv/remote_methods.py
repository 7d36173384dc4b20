"""Which methods of a fabric are called over its socket, and what crosses it.

A public method of :class:`tests.hyperv.fabric.Fabric` is one of three kinds: for this process
alone, since it takes or gives what lives in it; for ``mi`` sessions and libraries, which exchange
instances and classes; or for tests, with plain values alone. A new one is of the last kind.
"""
import functools
import inspect

IN_PROCESS = frozenset({"add_host", "add_cluster", "host", "find_host", "catch_up"})

OF_SESSIONS = frozenset({
    "call_repository", "call_cluster", "call_certificates", "require_host"})

_PLAIN = (type(None), bool, int, float, str, bytes)


@functools.cache
def of_tests(cls):
    """The names of the methods of a fabric's class that tests call over the socket."""
    return frozenset(name for name, member in inspect.getmembers(cls, inspect.isfunction)
                  if not name.startswith("_") and name not in IN_PROCESS | OF_SESSIONS)


def require_remote(cls, name):
    """Refuse what is no method for others.

    :returns: whether it takes and gives plain values alone
    :raises AttributeError: there is none of this name, or it is for this process alone
    """
    is_of_tests = name in of_tests(cls)
    if not is_of_tests and name not in OF_SESSIONS:
        raise AttributeError("a fabric has no method %r for other processes" % (name,))
    return is_of_tests


def check_plain(method, value):
    """Refuse what is more than data: lists, tuples and dictionaries of numbers, texts and bytes.

    :param method: its name, for the message
    :raises TypeError: for anything else, a subclass of these too
    """
    if type(value) in (list, tuple):
        for item in value:
            check_plain(method, item)
    elif type(value) is dict:
        for key, item in value.items():
            check_plain(method, key)
            check_plain(method, item)
    elif type(value) not in _PLAIN:
        raise TypeError("%s: no plain value: %r" % (method, value))
