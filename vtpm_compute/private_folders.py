"""Folders that the host's administrators alone can read, for what Windows takes only as a file.

Each lives for one piece of work. A process that is killed leaves it behind; the next one finds it,
with the notes in it, which it may believe: nobody else could write them.

Source: Microsoft Learn, "CreateDirectoryW function", "GetNamedSecurityInfoW function"; "Security
Descriptor String Format", "ACE Strings" and "SID Strings" (SY: Local System, BA: Administrators).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import stat
from collections.abc import Callable
from typing import TypeVar

from vtpm_compute import errors, windows_libraries
from vtpm_compute.windows_libraries import BOOL, DWORD, POINTER, TEXT

# Nothing is inherited from the folder above, all is handed on to the files below. The service is
# one of these two, as Hyper-V and the certificate stores want it.
_SECURITY = "O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
# The same as Windows tells it: whose it is, protected, and nobody else in it.
_PRIVATE = re.compile(r"O:(?:BA|SY)D:P(?:AI)?(?:\(A;OICI;FA;;;(?:SY|BA)\))+")
_SDDL_REVISION_1 = 1
_SE_FILE_OBJECT = 1
_OWNER_AND_DACL = 0x1 | 0x4
_ALREADY_EXISTS = 183
_NAME = re.compile("vtpm-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Windows alone tells text from bytes here, and would rewrite line ends.
_BYTES = getattr(os, "O_BINARY", 0)
_NEW_FILE, _OLD_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BYTES, os.O_RDONLY | _BYTES


class _SecurityAttributes(ctypes.Structure):
    _fields_ = [("nLength", DWORD), ("lpSecurityDescriptor", POINTER), ("bInheritHandle", BOOL)]


_FUNCTIONS: windows_libraries.Functions = {
    "advapi32": {
        "ConvertStringSecurityDescriptorToSecurityDescriptorW": (
            BOOL, [TEXT, DWORD, ctypes.POINTER(POINTER), ctypes.POINTER(DWORD)]),
        "ConvertSecurityDescriptorToStringSecurityDescriptorW": (
            BOOL, [POINTER, DWORD, DWORD, ctypes.POINTER(POINTER), ctypes.POINTER(DWORD)]),
        "GetNamedSecurityInfoW": (
            DWORD, [TEXT, DWORD, DWORD, POINTER, POINTER, POINTER, POINTER,
                    ctypes.POINTER(POINTER)])},
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
                with os.fdopen(os.open(os.path.join(self._path, name), _OLD_FILE), "rb") as file:
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

    :param root: the folder that they are made in; is made, private too, when it is needed.
    """

    def __init__(self, root: str) -> None:
        # Windows' providers are other processes, which are elsewhere.
        self._root = os.path.abspath(root)

    def new(self, identifier: str) -> PrivateFolder:
        """Make one.

        :param identifier: a UUID that no other one has.
        :raises vtpm_compute.errors.HostGuardianError: it cannot be made, or the root is open to
            others.
        """
        path = os.path.join(self._root, "vtpm-" + identifier)

        def make() -> None:
            os.makedirs(os.path.dirname(self._root), exist_ok=True)
            if not _make_private(self._root):
                _require_private(self._root)
            if not _make_private(path):
                raise OSError("it is there already")
        _translated("A private folder cannot be made on the host", make)
        return PrivateFolder(path)

    def left(self) -> list[PrivateFolder]:
        """Those that there are: while no work is under way, those of a killed process.

        :raises vtpm_compute.errors.HostGuardianError: they cannot be listed, or the root is open
            to others, who may have made them.
        """
        def paths() -> list[str]:
            try:
                found = sorted(os.listdir(self._root))
            except FileNotFoundError:
                return []
            _require_private(self._root)
            return [path for name in found if _NAME.fullmatch(name)
                    for path in [os.path.join(self._root, name)] if not _is_link(path)]
        return [PrivateFolder(path) for path in _translated(
            "The private folders of the host cannot be listed", paths)]


def _is_link(path: str) -> bool:
    """Whether it is a link or a junction, which leads elsewhere."""
    found = os.lstat(path)
    return stat.S_ISLNK(found.st_mode) or bool(
        getattr(found, "st_file_attributes", 0) & stat.FILE_ATTRIBUTE_REPARSE_POINT)


def _make_private(path: str) -> bool:
    """Make a folder; whether it was not there.

    :raises OSError: it cannot be made.
    """
    api = windows_libraries.load(_FUNCTIONS)
    descriptor = POINTER()
    if not api.ConvertStringSecurityDescriptorToSecurityDescriptorW(
            _SECURITY, _SDDL_REVISION_1, ctypes.byref(descriptor), None):
        raise _failed("ConvertStringSecurityDescriptorToSecurityDescriptorW",
                      windows_libraries.last_error())
    try:
        attributes = _SecurityAttributes(
            ctypes.sizeof(_SecurityAttributes), descriptor, False)
        if not api.CreateDirectoryW(path, ctypes.byref(attributes)):
            code = windows_libraries.last_error()
            if code == _ALREADY_EXISTS:
                return False
            raise _failed("CreateDirectoryW", code)
        return True
    finally:
        api.LocalFree(descriptor)


def _require_private(path: str) -> None:
    """:raises OSError: others than administrators can write to a folder, or it leads elsewhere."""
    if _is_link(path) or not _PRIVATE.fullmatch(_security_of(path)):
        raise OSError("others can write to the folder of [vtpm_compute] scratch_path, or could. "
                      "Remove it, or name another")


def _security_of(path: str) -> str:
    """The owner and the DACL of a folder, as a string."""
    api = windows_libraries.load(_FUNCTIONS)
    descriptor, text = POINTER(), POINTER()
    code = api.GetNamedSecurityInfoW(path, _SE_FILE_OBJECT, _OWNER_AND_DACL, None, None, None,
                                     None, ctypes.byref(descriptor))
    if code:
        raise _failed("GetNamedSecurityInfoW", code)
    try:
        if not api.ConvertSecurityDescriptorToStringSecurityDescriptorW(
                descriptor, _SDDL_REVISION_1, _OWNER_AND_DACL, ctypes.byref(text), None):
            raise _failed("ConvertSecurityDescriptorToStringSecurityDescriptorW",
                          windows_libraries.last_error())
        found = ctypes.wstring_at(text.value or 0)
        api.LocalFree(text)
        return found
    finally:
        api.LocalFree(descriptor)


def _failed(function: str, code: int) -> OSError:
    return OSError("%s failed with %d" % (function, code))


def _translated(problem: str, call: Callable[[], Result]) -> Result:
    try:
        return call()
    except OSError as exc:
        # Its own text names the path, which is not for a tenant.
        raise errors.HostGuardianError(
            "%s: %s." % (problem, exc.strerror or exc)) from exc
