"""What the commands print to."""

from __future__ import annotations

import io
import sys


def print_any_letter() -> None:
    """Escape the letters that the terminal does not have; a name in a certificate may have some."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
