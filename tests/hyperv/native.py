"""Real threads in a process that eventlet has patched.

PyMI's event watcher and ``eventlet.tpool`` run on native threads; what serves them must not use
green locks and sockets.
"""
import sys


def module(name):
    """A standard module as it is without eventlet's patches."""
    if "eventlet" in sys.modules:
        from eventlet import patcher
        return patcher.original(name)
    return __import__(name)
