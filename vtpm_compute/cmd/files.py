"""The files that a tenant names: read whole and bounded, written without overwriting any."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from collections.abc import Sequence

from vtpm_compute import errors

STDIN = "-"
# What key_protector takes at most.
MAX_BYTES = 1024 * 1024


def shown(path: str) -> str:
    """A file as messages name it."""
    name = "standard input" if path == STDIN else path
    return "".join(c if c.isprintable() else "?" for c in name)


def read(path: str) -> bytes:
    """The bytes of a file, or of standard input.

    :param path: ``-`` means standard input.
    :raises vtpm_compute.errors.UnusableFileError: when it cannot be read, is empty or too large.
    """
    # Windows says of a directory only that it may not be read.
    if path != STDIN and os.path.isdir(path):
        raise errors.UnusableFileError("%s is a directory: name a file in it." % shown(path))
    try:
        if path == STDIN:
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise errors.UnusableFileError("%s does not exist." % shown(path)) from None
    except PermissionError:
        raise errors.UnusableFileError("%s may not be read by you." % shown(path)) from None
    except (OSError, ValueError) as exc:
        raise errors.UnusableFileError("%s cannot be read: %s." % (
            shown(path), getattr(exc, "strerror", None) or "its name is not valid")) from None
    if not data:
        raise errors.UnusableFileError("%s is empty: name a file that holds a key protector." %
                                       shown(path))
    if len(data) > MAX_BYTES:
        raise errors.UnusableFileError(
            "%s is larger than 1 MiB, and no key protector is: name another file." % shown(path))
    return data


def write_pieces(pieces: Sequence[bytes], folder: str, name: str) -> list[pathlib.Path]:
    """Write pieces into files of their own, all or none.

    :param folder: is made if it is not there.
    :param name: what the files' names begin with.
    :returns: the files, in the order of the pieces.
    :raises vtpm_compute.errors.UnusableFileError: when one is there already, or cannot be written.
    """
    paths = [pathlib.Path(folder, "%s.%d-of-%d" % (name, number, len(pieces)))
             for number in range(1, len(pieces) + 1)]
    written: list[pathlib.Path] = []
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise errors.UnusableFileError("%s is a file: name a folder." % shown(folder))
    try:
        os.makedirs(folder, exist_ok=True)
        for path, piece in zip(paths, pieces):
            # Its owner's alone, where the system knows such a thing.
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600),
                      "wb") as file:
                written.append(path)
                file.write(piece)
    except BaseException as exc:
        for path in written:
            with contextlib.suppress(OSError):
                path.unlink()
        if isinstance(exc, FileExistsError):
            raise errors.UnusableFileError(
                "%s is there already, and is not overwritten: remove it, or name another folder."
                % shown(str(exc.filename))) from None
        if isinstance(exc, OSError):
            raise errors.UnusableFileError("The pieces cannot be written to %s: %s." % (
                shown(folder), exc.strerror)) from None
        raise
    return paths


_BINARY: int = getattr(os, "O_BINARY", 0)
