"""The mark that a server with a vTPM carries in its system metadata; see vtpm_scheduling.policy."""

from __future__ import annotations

from typing import Any

from vtpm_scheduling import policy

_SHIELDED = "shielded"


def mark(instance: Any, shielded: bool, fabric_thumbprint: str) -> None:
    """Write that the instance's VM is to have a vTPM, of this fabric, and save it."""
    instance.system_metadata[policy.MARK_VTPM] = _SHIELDED if shielded else "vtpm"
    instance.system_metadata[policy.MARK_FABRIC] = fabric_thumbprint
    instance.save()


def unmark(instance: Any) -> None:
    """Remove the mark, if there is one, and save."""
    present = [key for key in (policy.MARK_VTPM, policy.MARK_FABRIC)
               if key in instance.system_metadata]
    for key in present:
        del instance.system_metadata[key]
    if present:
        instance.save()


def is_marked(instance: Any) -> bool:
    """Whether the instance has a vTPM that this project's driver attached."""
    return policy.MARK_VTPM in instance.system_metadata


def is_shielded(instance: Any) -> bool:
    """Whether a marked instance's VM was made shielded."""
    return instance.system_metadata[policy.MARK_VTPM] == _SHIELDED


def fabric_of(instance: Any) -> str | None:
    """The thumbprint of the fabric that a marked instance belongs to."""
    return instance.system_metadata.get(policy.MARK_FABRIC)
