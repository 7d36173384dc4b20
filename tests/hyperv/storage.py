"""Where the disks of simulated hosts lie on this machine.

A template with ``%COMPUTERNAME%``, such as ``/tmp/x/%COMPUTERNAME%``, gives each host a folder:
what lies below it is that host's local disk. Windows hosts call their own disks by the same name
(``C:\\OpenStack\\Instances``); here the name of one host's folder stands for it, and
:meth:`Storage.path_on` says what the same name means on another host. A path outside of every
folder is storage that all hosts share. A path in the folder of a third host is a share of that
host, ``\\\\HV3\\C$\\...``, which means the same everywhere.
"""
import errno
import os
import re

COMPUTER_NAME = "%COMPUTERNAME%"

_SHARE = re.compile(r"\\\\([^\\]+)\\(.*)", re.DOTALL)


class Storage:
    """The disks of the hosts of a fabric.

    :param template: an absolute path with ``%COMPUTERNAME%`` in it, or None: one file system that
        all hosts share
    :param computer_name: a function that gives the computer name for a name or an address
    :raises ValueError: another template
    """

    def __init__(self, template=None, computer_name=lambda name: name):
        if template is not None:
            template = os.path.normpath(template)
            if not os.path.isabs(template) or COMPUTER_NAME not in template:
                raise ValueError("not an absolute path with %s: %s" % (COMPUTER_NAME, template))
        self.template, self._computer_name = template, computer_name

    def folder(self, host):
        """The folder that is a host's local disk, or None where all disks are shared."""
        return self.expand(self.template, host) if self.template else None

    def expand(self, path, host):
        """A path with ``%COMPUTERNAME%`` as the host understands it."""
        if COMPUTER_NAME not in path:
            return path
        # Windows sets COMPUTERNAME in upper case. Source: Microsoft Learn, "Recognized
        # environment variables", and GetComputerName.
        return path.replace(COMPUTER_NAME, self._computer_name(host).upper())

    def is_local(self, path, host):
        """Whether a path lies on a host's local disk."""
        folder = self.folder(host)
        return folder is not None and _below(path, folder) is not None

    def path_on(self, path, from_host, to_host):
        """The path that ``to_host`` knows by the name that ``path`` has on ``from_host``."""
        path = self.expand(os.fspath(path), from_host)
        inner = self.is_local(path, from_host) and _below(path, self.folder(from_host))
        if inner is False:
            return path
        return os.path.normpath(os.path.join(self.folder(to_host), inner))

    def reached(self, share_path, from_host):
        """What ``from_host`` reaches by an administrative share.

        :param share_path: ``\\\\server\\path``, with the path as it is called on ``from_host`` (the
            drivers expect the same place on the other host); another path is returned as it is,
            expanded for ``from_host``
        :raises FileNotFoundError: no host has that name. Windows says so when the path is used;
            here it would be a file of this machine
        """
        share = _SHARE.fullmatch(share_path)
        if share is None:
            return self.expand(share_path, from_host)
        server, path = share.groups()
        if not os.path.isabs(path):
            raise ValueError("shares by name are not simulated: " + share_path)
        try:
            return self.path_on(path, from_host, server)
        except KeyError:
            raise FileNotFoundError(
                errno.ENOENT, "The network path was not found. (0x80070035)", share_path) from None


def _below(path, folder):
    """The part of a path below a folder ("." for the folder itself), or None."""
    path = os.path.normpath(path)
    if path != folder and not path.startswith(folder + os.sep):
        return None
    return os.path.relpath(path, folder)
