"""Which simulated computer the running code runs on.

os-win asks for ``.``, and so do platform.node() and the like. A process that plays one host has
one answer. Where several hosts are in one process, each of their services acts on its own
(:func:`acting_on`, :func:`bind_methods`), and so do the green threads and the tpool threads that
it starts; an os-win object keeps to the computer it was made on. Where nobody has said which host
it is, there is no answer: an error, never a guess.

A computer is a :class:`tests.hyperv.connection.LocalComputer` or ``RemoteComputer``.
"""
import contextlib
import contextvars
import functools
from collections.abc import MutableMapping

_acting = contextvars.ContextVar("simulated_computer", default=None)
_only = None


class NoCurrentHost(RuntimeError):
    """Code asks for the local computer, and there are several."""


class MixedHosts(RuntimeError):
    """An object that was made on one host is used by the service of another."""


def set_only(computer):
    """Let all code that does not act on another computer run on this one; None: on none."""
    global _only
    _only = computer


def computer_or_none():
    """The computer that the caller runs on, or None where nobody has said."""
    return _acting.get() or _only


def computer():
    """The computer that the caller runs on.

    :raises NoCurrentHost: nobody has said
    """
    found = computer_or_none()
    if found is None:
        raise NoCurrentHost("which simulated host runs this? See tests.hyperv.windows.acting_as")
    return found


@contextlib.contextmanager
def acting_on(one):
    """Run a block of code on a computer."""
    before = _acting.set(one)
    try:
        yield
    finally:
        _acting.reset(before)


@contextlib.contextmanager
def of_an_object(made_on):
    """Run a block of code of an object that was made on this computer (None: on none).

    :raises MixedHosts: the caller acts on another one
    """
    acting = _acting.get()
    if made_on is None or acting is made_on:
        yield
        return
    if acting is not None:
        raise MixedHosts("an object of %s is used on %s" % (made_on.name, acting.name))
    with acting_on(made_on):
        yield


def carried(function):
    """The function, to be called in another thread, on the computer that the caller acts on."""
    acting = _acting.get()
    return function if acting is None else _on(acting, function)


def inherit(new_greenlet):
    """Let a greenlet that has not begun act on the computer that the caller acts on."""
    acting = _acting.get()
    if acting is not None:
        context = contextvars.Context()
        context.run(_acting.set, acting)
        new_greenlet.gr_context = context


def bind_methods(service, one):
    """Let every method of an object, such as a compute driver, run on a computer.

    The methods are replaced on the object alone; its class stays as it is.

    :returns: the object
    """
    for name in dir(type(service)):
        if not name.startswith("__") and callable(getattr(type(service), name)):
            setattr(service, name, _on(one, getattr(service, name)))
    return service


def _on(one, function):
    @functools.wraps(function)
    def call(*arguments, **keywords):
        with acting_on(one):
            return function(*arguments, **keywords)
    return call


class PerComputerDict(MutableMapping):
    """A cache that stands in the place of one for a whole process.

    :param name: of the cache; its contents lie in ``computer().memory[name]``
    """

    def __init__(self, name):
        self._name = name

    @property
    def _contents(self):
        return computer().memory.setdefault(self._name, {})

    def __getitem__(self, key):
        return self._contents[key]

    def __setitem__(self, key, value):
        self._contents[key] = value

    def __delitem__(self, key):
        del self._contents[key]

    def __iter__(self):
        return iter(self._contents)

    def __len__(self):
        return len(self._contents)
