"""Ports on 127.0.0.1: a block for each cloud, so that several can run on one machine."""
import fcntl
import os
import pathlib
import socket
import tempfile

# In the order of their distance from the block's base.
SERVICES = ("keystone", "barbican", "placement", "glance", "nova-api", "neutron",
            "rabbitmq", "rabbitmq-distribution", "epmd")

# Below the ports that Linux gives to outgoing connections (32768 and up).
FIRST, LAST, STEP = 15280, 31000, 16


class NoPorts(Exception):
    """The wanted block is taken, or all blocks are."""


class PortBlock:
    """Consecutive ports, one for each of SERVICES.

    ``lock`` is an open, locked file that keeps the block from other clouds between the choice of
    the ports and their use. Whoever holds a copy of it (a child process) holds the block.
    """

    def __init__(self, base, lock=None):
        self.base = base
        self.lock = lock

    def __getitem__(self, service):
        return self.base + SERVICES.index(service)

    def release(self):
        """Give up this process's hold on the block."""
        if self.lock is not None:
            self.lock.close()
            self.lock = None


def reserve(base=None):
    """Take a free block, or the one at ``base``.

    :raises NoPorts: no block is free
    """
    folder = pathlib.Path(tempfile.gettempdir(), "openstack-test-ports-%d" % os.getuid())
    folder.mkdir(mode=0o700, exist_ok=True)
    for candidate in [base] if base else range(FIRST, LAST, STEP):
        lock = open(folder / str(candidate), "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        if all(_is_free(candidate + offset) for offset in range(len(SERVICES))):
            return PortBlock(candidate, lock)
        lock.close()
    raise NoPorts("Ports %d to %d are not free." % (base, base + len(SERVICES) - 1)
                  if base else "No free block of ports on 127.0.0.1.")


def _is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
