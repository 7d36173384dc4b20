"""Stores the pieces of a key protector as secrets: all of them, or none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from vtpm_compute import errors
from vtpm_compute.cmd import interruption, pieces, secret_store

Say = Callable[[str], None]


class Upload:
    """The secrets that were stored so far.

    :ivar secret_ids: in the order of the pieces.
    """

    def __init__(self, store: secret_store.SecretStore, interrupted: interruption.Interruption,
                 say: Say) -> None:
        self._store, self._interrupted, self._say = store, interrupted, say
        self.secret_ids: list[str] = []
        # The name of one that may be there, and whose id nobody knows.
        self._lost: str | None = None

    def run(self, payloads: Sequence[bytes], name: str, private: bool = False,
            expiration: str | None = None) -> None:
        """Store each and read it back.

        :param name: of the secrets; their number follows.
        :param private: whether nobody else of the project may read them.
        :param expiration: see :meth:`vtpm_compute.cmd.secret_store.SecretStore.create`.
        :raises vtpm_compute.errors.SecretStoreError: when one cannot be, or reads back otherwise.
        :raises vtpm_compute.cmd.interruption.Interrupted: between two requests.
        """
        for number, payload in enumerate(payloads, 1):
            which = "%d/%d" % (number, len(payloads))
            self._interrupted.check()
            try:
                self._run_one(payload, "%s %s" % (name, which), private, expiration)
            except errors.SecretStoreError as exc:
                raise errors.SecretStoreError("Piece %s cannot be stored: %s." % (which, exc),
                                              exc.status, exc.may_be_done) from None
            self._say("Piece %s: stored, and read back: %d bytes, secret %s" % (
                which, len(payload), self.secret_ids[-1]))
        self._interrupted.check()

    def _run_one(self, payload: bytes, name: str, private: bool, expiration: str | None) -> None:
        # One that is to be private is so before there is anything to read; a large one does not
        # fit into one request.
        in_steps = private or len(payload) > pieces.MOST_IN_ONE_REQUEST
        self._lost = name
        try:
            secret_id = self._store.create(name, None if in_steps else payload, expiration)
        except errors.SecretStoreError as exc:
            if not exc.may_be_done:
                self._lost = None
            raise
        self.secret_ids.append(secret_id)
        self._lost = None
        self._interrupted.check()
        if private:
            self._store.make_private(secret_id)
            self._interrupted.check()
        if in_steps:
            self._store.put_payload(secret_id, payload)
            self._interrupted.check()
        if self._store.read(secret_id, len(payload)) != payload:
            raise errors.SecretStoreError(
                "it reads back as something else. Try again; tell the administrator if it lasts")

    def undo(self) -> str:
        """Delete what was stored.

        :returns: sentences that say what became of it.
        """
        left = list(self.secret_ids)
        with contextlib.suppress(interruption.Interrupted):
            if left:
                self._say("Deleting what was stored: %d" % len(left))
            for secret_id in self.secret_ids:
                with contextlib.suppress(errors.SecretStoreError):
                    if _delete(self._store, secret_id):
                        left.remove(secret_id)
        said = []
        if self._lost is not None:
            said.append("Whether \"%s\" was stored is not known: look with openstack secret list."
                        % self._lost)
        if left:
            said.append("What was stored before is NOT deleted again: run "
                        "nova-hyperv-vtpm-protector delete %s" % ",".join(left))
        elif self.secret_ids:
            said.append("What was stored before was deleted again (%d)." % len(self.secret_ids))
        elif self._lost is None:
            said.append("Nothing was stored.")
        return " ".join(said)


@contextlib.contextmanager
def all_or_none(store: secret_store.SecretStore, say: Say) -> Iterator[Upload]:
    """An upload that is undone when an error or an interruption leaves this block.

    :param say: is told of each step, a line each.
    :raises vtpm_compute.errors.SecretStoreError: as the block; its words say too what was undone.
    :raises vtpm_compute.cmd.interruption.Interrupted: likewise.
    """
    with interruption.held_back() as interrupted:
        upload = Upload(store, interrupted, say)
        try:
            yield upload
        except interruption.Interrupted as exc:
            raise interruption.Interrupted(exc.number, upload.undo()) from None
        except errors.VtpmError as exc:
            raise errors.SecretStoreError("%s %s" % (exc, upload.undo())) from None
        except BaseException:
            upload.undo()
            raise


def _delete(store: secret_store.SecretStore, secret_id: str) -> bool:
    try:
        store.delete(secret_id)
    except errors.SecretStoreError as exc:
        return exc.status == 404
    return True
