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
# In the server's folder.
_COPIES = "definition"


class DefinitionFiles:
    """:param folder: the server's, with the folders that Hyper-V makes in it."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def put_back_left(self) -> None:
        """Put back the files that a process which died has copied, where they are gone.

        :raises OSError: when one cannot be put back; the copies stay then.
        """
        copies = os.path.join(self._folder, _COPIES)
        if os.path.isdir(copies):
            self._put_back(copies)
            shutil.rmtree(copies)
            LOG.info("The files of a VM's definition are back in %s", self._folder)

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

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever is deleted while this lasts is there again afterwards.

        A process that dies meanwhile leaves the copies in the server's folder: see
        :meth:`put_back_left`.

        :raises OSError: when they cannot be copied, or put back.
        """
        with self._copied() as copies:
            try:
                yield
            finally:
                self._put_back(copies)

    @contextlib.contextmanager
    def kept_on_failure(self) -> Iterator[None]:
        """As :meth:`kept`, but only where something is raised."""
        with self._copied() as copies, contextlib.ExitStack() as undo:
            undo.callback(self._put_back, copies)
            yield
            undo.pop_all()

    @contextlib.contextmanager
    def _copied(self) -> Iterator[str]:
        # They may be the only ones.
        self.put_back_left()
        copies = os.path.join(self._folder, _COPIES)
        for name in _FOLDERS:
            source = os.path.join(self._folder, name)
            if os.path.isdir(source):
                shutil.copytree(source, os.path.join(copies, name))
        try:
            yield copies
        finally:
            shutil.rmtree(copies, ignore_errors=True)

    def _put_back(self, copies: str) -> None:
        for folder, _, names in os.walk(copies):
            target = os.path.join(self._folder, os.path.relpath(folder, copies))
            os.makedirs(target, exist_ok=True)
            for name in names:
                if not os.path.exists(os.path.join(target, name)):
                    shutil.copy2(os.path.join(folder, name), os.path.join(target, name))


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
