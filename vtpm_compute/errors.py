"""What can go wrong between a request and a virtual machine with a vTPM.

Every message is for the user who asked for the server: it names what is wrong and what to do, and
holds nothing secret. The driver translates :class:`VtpmError` into Nova's exceptions, once.
"""

from __future__ import annotations

# Nova cuts a fault at 255 characters, of which "Build of instance <uuid> aborted: " takes 64.
MOST_CHARACTERS = 190
_LEAST_OF_A_CLAUSE = 90


def fitted(template: str, source: str, clause: object, remedy: str) -> str:
    """A message whose clause is cut in its middle, if need be: the user reads the remedy too.

    :param template: with places for the other three, in this order.
    """
    text = str(clause)
    room = MOST_CHARACTERS - len(template % (source, "", remedy))
    room = max(room, _LEAST_OF_A_CLAUSE)
    if len(text) > room:
        beginning = room // 3
        text = "%s...%s" % (text[:beginning], text[beginning + 3 - room:])
    return template % (source, text, remedy)


class VtpmError(Exception):
    """Base of all errors of this package; ``str()`` of it is the message for the user."""


class RequestRefusedError(VtpmError):
    """The image and the flavor ask for something that the policy refuses."""


class HostUnfitError(VtpmError):
    """This host cannot run a vTPM now, whatever the scheduler thought when it chose it."""


class ExistingVtpmError(VtpmError):
    """The operation would give a server that has a vTPM a new and empty one."""


class OperationRefusedError(VtpmError):
    """The operation would lose the server's TPM; see :mod:`vtpm_compute.lifecycle`."""


class ImportFailedError(VtpmError):
    """The VM of a server that is evacuated could not be made of its definition."""


class StartError(VtpmError):
    """This host cannot unwrap the key protector of a server that has a vTPM."""


class KeyFetchError(VtpmError):
    """A secret could not be read from the key manager.

    :ivar reference: the reference as the user wrote it, or the secret's id where that is long.
    :ivar status: the HTTP status, where there was an answer; else None.
    :ivar detail: what went wrong below, for the log; empty where the message says it all.
    """

    def __init__(self, reference: str, problem: str, status: int | None = None,
                 detail: str = "") -> None:
        super().__init__("vTPM key %s %s" % (reference, problem))
        self.reference = reference
        self.status = status
        self.detail = detail


class KeyProtectorError(VtpmError):
    """What was given as a key protector is none, or not one that this fabric can unwrap."""


class HostGuardianError(VtpmError):
    """The Host Guardian Service client of this host refused something."""


class AttachError(VtpmError):
    """Hyper-V refused the key protector, the vTPM, or to start with it."""


class UnusableFileError(VtpmError):
    """A file that a command was given cannot be read or written, or is not what it takes."""


class LoginError(VtpmError):
    """A user's credentials are not complete, or cannot be read; ``str()`` of it is a clause."""


class CloudError(VtpmError):
    """A service of the cloud did not answer a command; ``str()`` of it is a clause.

    :ivar status: the HTTP status, where there was an answer; else None.
    """

    def __init__(self, problem: str, status: int | None = None) -> None:
        super().__init__(problem)
        self.status = status


class RecordsError(VtpmError):
    """Nova's configuration or databases cannot be read by a command."""


class SecretStoreError(VtpmError):
    """The key manager did not do what a command asked of it.

    :ivar status: the HTTP status, where there was an answer; else None.
    :ivar may_be_done: whether it may have done it all the same: its answer was lost.
    """

    def __init__(self, problem: str, status: int | None = None, may_be_done: bool = False) -> None:
        super().__init__(problem)
        self.status, self.may_be_done = status, may_be_done
