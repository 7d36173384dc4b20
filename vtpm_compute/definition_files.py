"""The files of a VM's definition and guest state, in its server's folder, over their owner's life.

Hyper-V deletes them with the VM (DestroySystem), also where another host uses them by now.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from oslo_log import log as logging

LOG = logging.getLogger(__name__)
# Of Windows: the definition, its guest state (since Server 2019); those of checkpoints.
_FOLDERS = ("Virtual Machines", "Snapshots")
_DEFINITION, _GUEST_STATE = ".vmcx", ".vmgs"
# In the server's folder: copies that a host made, and those that are not all there yet.
_COPIES, _INCOMPLETE = "definition-%s", "definition-%s.incomplete"
# winerror.h: another process, or another host, has it open. Nobody can delete it then either.
_ERROR_SHARING_VIOLATION = 32


class DefinitionFiles:
    """:param folder: the server's, with the folders that Hyper-V makes in it.
    :param host: this host's name: another one may do the same now, on storage that they share.
    """

    def __init__(self, folder: str, host: str) -> None:
        self._folder = folder
        self._copies, self._incomplete = (
            os.path.join(folder, name % host) for name in (_COPIES, _INCOMPLETE))

    def problem(self) -> str | None:
        """Why the VM cannot be imported from them, for a log; None: it can."""
        folder = os.path.join(self._folder, _FOLDERS[0])
        try:
            names = os.listdir(folder)
        except OSError as exc:
            return "no definition: %s" % exc
        stems = [os.path.splitext(name)[0] for name in names
                 if name.lower().endswith(_DEFINITION)]
        if len(stems) != 1:
            return "%d definitions are in %s" % (len(stems), folder)
        guest_state = os.path.join(folder, stems[0] + _GUEST_STATE)
        try:
            # Windows refuses it while a host runs the VM.
            with open(guest_state, "r+b"):
                return None
        except OSError as exc:
            return "the guest state cannot be opened: %s" % exc

    def have_checkpoint(self) -> bool:
        """Whether the VM has one."""
        folder = os.path.join(self._folder, _FOLDERS[1])
        return os.path.isdir(folder) and any(
            name.lower().endswith(_DEFINITION) for name in os.listdir(folder))

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever is deleted while this lasts is there again afterwards.

        A process that dies meanwhile leaves copies in ``definition-<host>`` of the server's folder,
        from which what is missing is put back the next time. A file that another host has open is
        not copied.

        :raises OSError: when they cannot be copied, or put back.
        """
        self._copy()
        try:
            yield
        finally:
            self.put_back()

    @contextlib.contextmanager
    def kept_on_failure(self) -> Iterator[None]:
        """As :meth:`kept`, but only where something is raised."""
        self._copy()
        with contextlib.ExitStack() as undo:
            undo.callback(self.put_back)
            yield
            undo.pop_all()
        shutil.rmtree(self._copies, ignore_errors=True)

    def _copy(self) -> None:
        shutil.rmtree(self._incomplete, ignore_errors=True)
        # Left by a process that died, or could not put them back.
        self.put_back()
        try:
            for name in _FOLDERS:
                source = os.path.join(self._folder, name)
                if os.path.isdir(source):
                    shutil.copytree(source, os.path.join(self._incomplete, name),
                                    copy_function=_copy_unless_open_elsewhere)
        except OSError:
            shutil.rmtree(self._incomplete, ignore_errors=True)
            raise
        if os.path.isdir(self._incomplete):
            os.rename(self._incomplete, self._copies)

    def put_back(self) -> None:
        """Put back what is missing of what was copied, if it was; only then the copies go.

        :raises OSError: when it cannot be put back.
        """
        if not os.path.isdir(self._copies):
            return
        for folder, _, names in os.walk(self._copies):
            target = os.path.join(self._folder, os.path.relpath(folder, self._copies))
            os.makedirs(target, exist_ok=True)
            for name in names:
                if not os.path.exists(os.path.join(target, name)):
                    # Half of a file would be taken for it the next time.
                    incomplete = os.path.join(target, os.path.basename(self._incomplete))
                    shutil.copy2(os.path.join(folder, name), incomplete)
                    os.rename(incomplete, os.path.join(target, name))
        shutil.rmtree(self._copies)


def _copy_unless_open_elsewhere(source: str, target: str) -> None:
    try:
        shutil.copy2(source, target)
    except PermissionError as exc:
        if getattr(exc, "winerror", None) != _ERROR_SHARING_VIOLATION:
            raise
        LOG.info("%s is open on another host, and is left alone", source)


def put_back_left_copies(servers: str, host: str) -> None:
    """Put back what a process of a host had copied and did not put back before it died.

    Logs where that fails: the copies stay, for the next time.

    :param servers: the folder with the servers' folders, if there is one yet.
    :param host: this host's name.
    """
    try:
        names = os.listdir(servers) if os.path.isdir(servers) else []
    except OSError as exc:
        LOG.error("The folder of the servers could not be read: %s", exc)
        return
    for name in names:
        files = DefinitionFiles(os.path.join(servers, name), host)
        try:
            files.put_back()
        except OSError as exc:
            LOG.error("The files of VM %s, which an earlier nova-compute copied, could not be put "
                      "back: %s", name, exc)


def put_back_moved_files(moved_to: str, folder: str) -> None:
    """Undo what compute-hyperv did to a server's files when it began to move them elsewhere.

    :param moved_to: where the files went, not what is in its folders; removed, if it is there.
    :param folder: the server's; a file that is in it stays.
    :raises OSError: when one cannot be moved; nothing is removed then.
    """
    if not os.path.isdir(moved_to):
        return
    for name in os.listdir(moved_to):
        source, target = os.path.join(moved_to, name), os.path.join(folder, name)
        if os.path.isfile(source) and not os.path.exists(target):
            os.rename(source, target)
    shutil.rmtree(moved_to)
    LOG.info("The files of a move that was interrupted are back in %s", folder)
