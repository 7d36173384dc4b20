"""Gets Nova's records on a controller, where Nova is; elsewhere says that they are not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vtpm_compute import errors
from vtpm_compute.cmd import missing


def load(files: Sequence[str]) -> Any:
    """:mod:`vtpm_compute.cmd.nova_records`, ready to read.

    :param files: of nova.conf; none: where Nova's services look for them.
    :raises vtpm_compute.errors.RecordsError: when they cannot be read here.
    """
    try:
        # Not above: commands that do not need it work without Nova.
        from vtpm_compute.cmd import nova_records
    except ModuleNotFoundError as exc:
        raise errors.RecordsError(missing.clause(exc, missing.ON_A_CONTROLLER)) from None
    nova_records.load(files)
    return nova_records
