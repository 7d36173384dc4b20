"""Functions of Windows' own libraries, by ctypes, with their types declared."""

from __future__ import annotations

import ctypes
import types
from collections.abc import Mapping
from typing import Any

# Not those of ctypes.wintypes, which have other widths where this is only imported.
DWORD, BOOL, STATUS = ctypes.c_uint32, ctypes.c_int32, ctypes.c_int32
POINTER, TEXT = ctypes.c_void_p, ctypes.c_wchar_p

# {library: {function: (type of its result, types of its arguments)}}
Functions = Mapping[str, Mapping[str, "tuple[Any, list[Any]]"]]


def load(functions: Functions) -> types.SimpleNamespace:
    """The functions, by their names.

    :raises OSError: there is no such library.
    :raises AttributeError: it has no such function.
    """
    loaded = {}
    for name, declared in functions.items():
        # Windows' alone, so it is looked up late.
        library = ctypes.WinDLL(name, use_last_error=True)  # type: ignore[attr-defined]
        for function, (result, arguments) in declared.items():
            loaded[function] = getattr(library, function)
            loaded[function].restype, loaded[function].argtypes = result, arguments
    return types.SimpleNamespace(**loaded)


def last_error() -> int:
    """What GetLastError says of the last call of this thread."""
    return int(ctypes.get_last_error()) & 0xFFFFFFFF  # type: ignore[attr-defined]
