"""How nova-scheduler learns what an instance asked for.

``RequestSpec.image`` keeps only the image properties that Nova knows, so ``os_vtpm`` is not in it.
nova-api writes all of them into the instance's system metadata before it asks the scheduler: into
the build request while the instance has no cell yet, into the cell's database afterwards. One look
at the mapping and one at the record answer every kind of request.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova.db.main import api as main_db

from vtpm_scheduling import policy


class InstanceRecordMissing(Exception):
    """Nova has no record of the instance (any more): it is being deleted."""


@dataclasses.dataclass(frozen=True)
class InstanceFacts:
    """What Nova's records say of an instance.

    :ivar image_properties: the properties of its image, by name. Values are cut at 255 characters.
    :ivar has_vtpm: whether it carries the mark of an instance with a vTPM.
    :ivar fabric_thumbprint: the fabric in that mark; None where it carries none.
    """

    image_properties: Mapping[str, str]
    has_vtpm: bool = False
    fabric_thumbprint: str | None = None

    @classmethod
    def from_system_metadata(cls, system_metadata: Mapping[str, str]) -> InstanceFacts:
        """Read an instance's system metadata."""
        return cls(
            image_properties=policy.image_properties_of(system_metadata),
            has_vtpm=policy.MARK_VTPM in system_metadata,
            fabric_thumbprint=system_metadata.get(policy.MARK_FABRIC) or None)


def load(context: nova_context.RequestContext, instance_uuid: str) -> InstanceFacts:
    """Read the facts of one instance: two queries.

    :param context: the request's; read with elevated rights.
    :param instance_uuid: the instance that a host is wanted for.
    :raises InstanceRecordMissing: when the instance has no mapping or no build request.
    """
    admin = context.elevated()
    try:
        mapping = objects.InstanceMapping.get_by_instance_uuid(admin, instance_uuid)
        if mapping.cell_mapping is None:
            request = objects.BuildRequest.get_by_instance_uuid(admin, instance_uuid)
            return InstanceFacts.from_system_metadata(request.instance.system_metadata)
    except (nova_exception.InstanceMappingNotFound,
            nova_exception.BuildRequestNotFound) as exc:
        raise InstanceRecordMissing(instance_uuid) from exc
    with nova_context.target_cell(admin, mapping.cell_mapping) as cell_context:
        return InstanceFacts.from_system_metadata(
            main_db.instance_system_metadata_get(cell_context, instance_uuid))
