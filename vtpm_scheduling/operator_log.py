"""Tells the operator of what is set up wrongly: once each, not at every request."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from oslo_log import log as logging

LOG = logging.getLogger(__name__)


class Problems:
    """What is wrong with hosts and fabrics now. One for the process; safe between threads.

    It holds one sentence a host and one a mixture of guardians.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_hosts: dict[str, str] = {}
        self._of_fabrics: set[str] = set()

    def update_hosts(self, looked_at: Iterable[str], problems: Mapping[str, str]) -> None:
        """Log what is new of some hosts; what is solved is logged again when it comes back.

        :param looked_at: the names of the hosts; read only when one of them may be solved.
        :param problems: by the name of a host, what is wrong with it.
        """
        if not problems and not self._of_hosts:
            return
        with self._lock:
            new = {name: problem for name, problem in problems.items()
                   if self._of_hosts.get(name) != problem}
            perhaps_solved = self._of_hosts.keys() - problems.keys()
            for name in perhaps_solved.intersection(looked_at if perhaps_solved else ()):
                del self._of_hosts[name]
            self._of_hosts.update(new)
        for name, problem in sorted(new.items()):
            LOG.warning("Host %s gets no servers with a vTPM: %s", name, problem)

    def update_fabrics(self, problems: Iterable[str]) -> None:
        """Log what is new of the fabrics.

        A request sees some of a fabric's hosts only, so that one without the problem does not
        say that it is solved.
        """
        with self._lock:
            new = set(problems) - self._of_fabrics
            self._of_fabrics |= new
        for problem in sorted(new):
            LOG.warning("No servers with a vTPM: %s", problem)
