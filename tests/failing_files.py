"""What vtpm_compute does with files, listed and made to fail: the disk is full, a file is in use.

Only calls of ``os`` in :mod:`vtpm_compute.private_folders`, which is all that touches files there.
"""

import contextlib
import errno
import os
import types

FUNCTIONS = ("makedirs", "listdir", "lstat", "open", "fdopen", "fsync", "unlink", "rmdir")


class FailingFiles:
    """What stands in the place of ``os`` in a module.

    :ivar calls: the names of the functions that were called
    :ivar in_place_of_os: what a test puts there
    """

    def __init__(self):
        self.calls = []
        self._number, self._point, self._error, self._locked = None, "before", None, None
        self.in_place_of_os = types.SimpleNamespace(
            **dict(vars(os), **{name: self._wrapped(name) for name in FUNCTIONS}))

    @contextlib.contextmanager
    def failing(self, number, point="before", error=None):
        """While this lasts, one call fails.

        :param number: which one, counted from the beginning of this
        :param point: "before" or "after" its work
        :param error: what is raised
        """
        self.calls.clear()
        self._number, self._point = number, point
        self._error = error or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            yield
        finally:
            self._number = None

    @contextlib.contextmanager
    def locked(self, name):
        """While this lasts, files of this name cannot be removed: another program reads them."""
        self._locked = name
        try:
            yield
        finally:
            self._locked = None

    def _wrapped(self, name):
        def call(*arguments, **keywords):
            self.calls.append(name)
            if name == "unlink" and os.path.basename(arguments[0]) == self._locked:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            is_chosen = len(self.calls) - 1 == self._number
            if is_chosen and self._point == "before":
                raise self._error
            result = getattr(os, name)(*arguments, **keywords)
            if is_chosen:
                if name == "open":
                    os.close(result)
                raise self._error
            return result
        return call
