"""WMI queries of this process to its simulated hosts, listed and made to fail.

They are no methods, which :meth:`tests.hyperv.fabric.Fabric.add_fault` makes fail.
"""

import contextlib

from tests.hyperv import cim, connection

_query = connection.LocalComputer.query


class FailingQueries:
    """What stands in the place of ``LocalComputer.query``.

    :ivar texts: the queries since the last :meth:`failing` began
    """

    def __init__(self):
        self.texts, self._number = [], None

        def query(computer, namespace, text):
            self.texts.append(text)
            if len(self.texts) - 1 == self._number:
                raise cim.error("FAILED", "The query failed.")
            return _query(computer, namespace, text)
        self.in_place_of_query = query

    @contextlib.contextmanager
    def failing(self, number):
        """While this lasts, one query fails.

        :param number: which one, counted from the beginning of this; None: none
        """
        self.texts, self._number = [], number
        try:
            yield
        finally:
            self._number = None
