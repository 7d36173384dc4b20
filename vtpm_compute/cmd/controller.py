"""Gets Nova's records on a controller, where Nova is; elsewhere says that they are not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vtpm_compute import errors


def load(files: Sequence[str]) -> Any:
    """:mod:`vtpm_compute.cmd.nova_records`, ready to read.

    :param files: of nova.conf; none: where Nova's services look for them.
    :raises vtpm_compute.errors.RecordsError: when they cannot be read here.
    """
    try:
        # Not above: commands that do not need it work without Nova.
        from vtpm_compute.cmd import nova_records
    except ModuleNotFoundError as exc:
        raise errors.RecordsError(
            "The Python package of %s is missing: run this on a controller, with the Python that "
            "Nova runs in" % exc.name) from None
    nova_records.load(files)
    return nova_records
