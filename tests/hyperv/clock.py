"""The time of a simulated fabric, which tests move."""
import datetime
import time


class Clock:
    """Real time and an offset. Time goes on by itself and can be moved forward.

    One for all hosts of a fabric and its Host Guardian Services: they agree on the time.
    """

    def __init__(self):
        self._offset = 0.0

    def now(self):
        """Seconds since 1970, UTC."""
        return time.time() + self._offset

    def utc(self):
        """The same as an aware datetime."""
        return datetime.datetime.fromtimestamp(self.now(), datetime.timezone.utc)

    def advance(self, seconds):
        """Move the time forward.

        :param seconds: not negative
        :raises ValueError: time does not go backwards
        """
        if seconds < 0:
            raise ValueError("time does not go backwards: %s" % seconds)
        self._offset += seconds
