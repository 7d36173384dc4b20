"""The same work for several items, some of them at once, and one answer that is always the same.

Threads, which are greenthreads where eventlet has patched nova-compute.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from vtpm_compute.timed_transport import Deadline

Item = TypeVar("Item")
Result = TypeVar("Result")


class NotInTimeError(Exception):
    """The time was up before the outcome of an item was known.

    :ivar position: of the first such item.
    """

    def __init__(self, position: int) -> None:
        super().__init__("item %d was not done in time" % position)
        self.position = position


class SideBySide(Generic[Item, Result]):
    """One run.

    :param work: what is done: gets an item and the deadline by which to end; returns the result,
        or an exception where it failed. It must not raise.
    :param items: what it is done for, in this order.
    :param at_once: how many at the same time, at most.
    :param seconds: how long all of it may take.
    """

    def __init__(self, work: Callable[[Item, Deadline], Result | Exception],
                 items: Sequence[Item], at_once: int, seconds: float) -> None:
        self._work, self._items, self._at_once = work, items, at_once
        self._deadline = Deadline(seconds)
        # Of their own, so that one can be dropped.
        self._deadlines = [Deadline(seconds) for _ in items]
        self._outcomes: list[Result | Exception | None] = [None] * len(items)
        # Items from here on need no work: an earlier one failed, or it has begun.
        self._next, self._end = 0, len(items)
        self._changed = threading.Condition()

    def run(self) -> list[Result]:
        """Do it.

        After a failure, items that come later in the order are dropped, not waited for; those
        before are, since one of them may fail too and the first in the order is to be told.

        :returns: the results, in the order of the items.
        :raises: what the work returned for the first item, in their order, for which it failed.
        :raises NotInTimeError: when the time is up.
        """
        for number in range(min(self._at_once, len(self._items))):
            # Daemons: one that waits for an answer must not keep nova-compute from ending.
            threading.Thread(target=self._run_thread, name="side-by-side-%d" % number,
                             daemon=True).start()
        try:
            return [self._wait_for(position) for position in range(len(self._items))]
        finally:
            with self._changed:
                self._drop_from(0)

    def _wait_for(self, position: int) -> Result:
        with self._changed:
            known = self._changed.wait_for(
                lambda: self._outcomes[position] is not None, max(0, self._deadline.remaining()))
            outcome = self._outcomes[position]
        if not known or outcome is None:
            raise NotInTimeError(position)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _drop_from(self, position: int) -> None:
        self._end = min(self._end, position)
        for deadline in self._deadlines[position:]:
            deadline.bring_forward()
        for dropped in range(position, len(self._items)):
            self._outcomes[dropped] = None

    def _run_thread(self) -> None:
        while True:
            with self._changed:
                position = self._next
                if position >= self._end:
                    return
                self._next += 1
            outcome = self._work(self._items[position], self._deadlines[position])
            with self._changed:
                if position < self._end:
                    self._outcomes[position] = outcome
                    if isinstance(outcome, Exception):
                        self._drop_from(position + 1)
                    self._changed.notify_all()
            # Nothing secret stays in a thread that goes on.
            del outcome
