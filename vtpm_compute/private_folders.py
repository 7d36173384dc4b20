"""Folders that this service alone can read, for what Windows takes only as a file.

Each lives for one piece of work. A process that is killed leaves it behind; the next one finds it,
with the notes in it.

Source: Microsoft Learn, "CreateDirectoryW function"; "Security Descriptor String Format", "ACE
Strings" and "SID Strings" (SY: Local System, OW: Owner Rights).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

from vtpm_compute import errors, windows_libraries
from vtpm_compute.windows_libraries import BOOL, DWORD, POINTER, TEXT

# Nothing is inherited from the folder above, all is handed on to the files below.
_SECURITY = "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;OW)"
_SDDL_REVISION_1 = 1
_PREFIX = "vtpm-"
# Windows alone tells text from bytes here, and would rewrite line ends.
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


class _SecurityAttributes(ctypes.Structure):
    _fields_ = [("nLength", DWORD), ("lpSecurityDescriptor", POINTER), ("bInheritHandle", BOOL)]


_FUNCTIONS: windows_libraries.Functions = {
    "advapi32": {"ConvertStringSecurityDescriptorToSecurityDescriptorW": (
        BOOL, [TEXT, DWORD, ctypes.POINTER(POINTER), ctypes.POINTER(DWORD)])},
    "kernel32": {
        "CreateDirectoryW": (BOOL, [TEXT, ctypes.POINTER(_SecurityAttributes)]),
        "LocalFree": (POINTER, [POINTER])},
}

Result = TypeVar("Result")


class PrivateFolder:
    """One folder. Its methods raise :class:`vtpm_compute.errors.HostGuardianError`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, name: str, content: bytes) -> str:
        """Write a new file, on the disk when this returns; its path."""
        path = os.path.join(self._path, name)

        def write() -> None:
            with os.fdopen(os.open(path, _NEW_FILE, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _translated("A file cannot be written for Windows", write)
        return path

    def read(self, name: str) -> bytes:
        """A file's content; empty where there is no such file."""
        def read() -> bytes:
            try:
                with open(os.path.join(self._path, name), "rb") as file:
                    return file.read()
            except FileNotFoundError:
                return b""
        return _translated("A file left on the host cannot be read", read)

    def remove_file(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        def remove() -> None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._path, name))
        _translated("A file stays on the host", remove)

    def remove(self) -> None:
        """Remove the folder with all that is in it; nothing there is no error."""
        def remove() -> None:
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(self._path):
                    os.unlink(os.path.join(self._path, name))
                os.rmdir(self._path)
        _translated("A folder stays on the host", remove)


class PrivateFolders:
    """The private folders of this host.

    :param root: the folder that they are made in; is made when it is needed.
    """

    def __init__(self, root: str) -> None:
        self._root = root

    def new(self, name: str) -> PrivateFolder:
        """Make one.

        :param name: that no other one has.
        :raises vtpm_compute.errors.HostGuardianError: it cannot be made.
        """
        path = os.path.join(self._root, _PREFIX + name)

        def make() -> None:
            os.makedirs(self._root, exist_ok=True)
            _make_private(path)
        _translated("A private folder cannot be made on the host", make)
        return PrivateFolder(path)

    def left(self) -> Iterator[PrivateFolder]:
        """Those that there are: while no work is under way, those of a killed process.

        :raises vtpm_compute.errors.HostGuardianError: they cannot be listed.
        """
        def names() -> list[str]:
            try:
                return sorted(os.listdir(self._root))
            except FileNotFoundError:
                return []
        for name in _translated("The private folders of the host cannot be listed", names):
            if name.startswith(_PREFIX):
                yield PrivateFolder(os.path.join(self._root, name))


def _make_private(path: str) -> None:
    """:raises OSError: it cannot be made, or is there."""
    api = windows_libraries.load(_FUNCTIONS)
    descriptor = POINTER()
    if not api.ConvertStringSecurityDescriptorToSecurityDescriptorW(
            _SECURITY, _SDDL_REVISION_1, ctypes.byref(descriptor), None):
        raise _failed("ConvertStringSecurityDescriptorToSecurityDescriptorW")
    try:
        attributes = _SecurityAttributes(
            ctypes.sizeof(_SecurityAttributes), descriptor, False)
        if not api.CreateDirectoryW(path, ctypes.byref(attributes)):
            raise _failed("CreateDirectoryW")
    finally:
        api.LocalFree(descriptor)


def _failed(function: str) -> OSError:
    return OSError("%s failed with %d" % (function, windows_libraries.last_error()))


def _translated(problem: str, call: Callable[[], Result]) -> Result:
    try:
        return call()
    except OSError as exc:
        # Its own text names the path, which is not for a tenant.
        raise errors.HostGuardianError(
            "%s: %s." % (problem, exc.strerror or exc)) from exc
