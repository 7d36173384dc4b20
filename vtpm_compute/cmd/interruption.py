"""Ctrl-C while something is done that must be undone if it is not finished.

The first one waits until :meth:`Interruption.check` is asked, so that the answer to a request that
is under way is still read: what it made is then known. A further one interrupts at once.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

# Windows has no SIGHUP, which a terminal sends that is closed.
_NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP")
            if hasattr(signal, name)]


class Interrupted(KeyboardInterrupt):
    """Somebody wants this process to end.

    :ivar number: of the signal.
    :ivar outcome: a sentence that says what became of what was begun; empty where nothing was.
    """

    def __init__(self, number: int, outcome: str = "") -> None:
        super().__init__(outcome)
        self.number, self.outcome = number, outcome


class Interruption:
    """What came of signals since :func:`held_back`."""

    def __init__(self) -> None:
        self._number: int | None = None

    def note(self, number: int, _: Any = None) -> None:
        """Handle a signal."""
        if self._number is not None:
            raise Interrupted(number)
        self._number = number

    def check(self) -> None:
        """:raises Interrupted: when a signal came."""
        if self._number is not None:
            raise Interrupted(self._number)


@contextlib.contextmanager
def held_back() -> Iterator[Interruption]:
    """While this lasts, the first signal is only noted. In other threads it does nothing."""
    found = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    old = {number: signal.signal(number, found.note) for number in _NUMBERS
           # Who starts it with nohup wants it to go on.
           if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        yield found
    finally:
        for number, handler in old.items():
            signal.signal(number, handler or signal.SIG_DFL)
