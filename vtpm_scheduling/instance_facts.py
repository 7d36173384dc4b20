"""How nova-scheduler learns what an instance asked for and where it runs now.

``RequestSpec.image`` keeps only the image properties that Nova knows, so ``os_vtpm`` is not in it.
nova-api writes all of them into the instance's system metadata before it asks the scheduler: into
the build request while the instance has no cell yet, into the cell's database afterwards. One look
at the mapping and one at the record answer every kind of request.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova.db.main import api as main_db

from vtpm_scheduling import policy

# Where Nova notes the host of a server that it shelves (nova.compute.manager, _shelve_instance).
_SHELVED_HOST = "shelved_host"


class InstanceRecordMissing(Exception):
    """Nova has no record of the instance (any more): it is being deleted."""


@dataclasses.dataclass(frozen=True)
class InstanceFacts:
    """What Nova's records say of an instance.

    :ivar image_properties: the properties of its image, by name. Values are cut at 255 characters.
    :ivar has_vtpm: whether it carries the mark of an instance with a vTPM.
    :ivar fabric_thumbprint: the fabric in that mark; None where it carries none.
    :ivar shelved_host: where it ran when it was shelved; None where it was not.
    :ivar cell: Nova's mapping of the cell that it lives in; None while it is booted.
    """

    image_properties: Mapping[str, str]
    has_vtpm: bool = False
    fabric_thumbprint: str | None = None
    shelved_host: str | None = None
    cell: Any = None

    @classmethod
    def from_system_metadata(cls, system_metadata: Mapping[str, str],
                             cell: Any = None) -> InstanceFacts:
        """Read an instance's system metadata."""
        return cls(
            image_properties=policy.image_properties_of(system_metadata),
            has_vtpm=policy.MARK_VTPM in system_metadata,
            fabric_thumbprint=system_metadata.get(policy.MARK_FABRIC) or None,
            shelved_host=system_metadata.get(_SHELVED_HOST) or None,
            cell=cell)


@dataclasses.dataclass(frozen=True)
class RunningInstance:
    """What only the record of an instance in its cell says.

    :ivar host: where it runs; None for one that was shelved and offloaded.
    :ivar extra_specs: of the flavor that it has now.
    """

    host: str | None
    extra_specs: Mapping[str, str]


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
            main_db.instance_system_metadata_get(cell_context, instance_uuid),
            mapping.cell_mapping)


def load_running(context: nova_context.RequestContext, cell: Any,
                 instance_uuid: str) -> RunningInstance:
    """Read an instance's record in its cell: one query.

    :param context: the request's; read with elevated rights.
    :param cell: from :class:`InstanceFacts`.
    :raises InstanceRecordMissing: when it is gone.
    """
    try:
        with nova_context.target_cell(context.elevated(), cell) as cell_context:
            instance = objects.Instance.get_by_uuid(
                cell_context, instance_uuid, expected_attrs=["flavor"])
    except nova_exception.InstanceNotFound as exc:
        raise InstanceRecordMissing(instance_uuid) from exc
    return RunningInstance(host=instance.host, extra_specs=instance.flavor.extra_specs or {})


def fabric_labels(context: nova_context.RequestContext, host: str) -> frozenset[str]:
    """The values of ``hgs_fabric`` on the aggregates of a host: one query.

    :param context: the request's; read with elevated rights.
    """
    return frozenset(
        aggregate.metadata[policy.AGGREGATE_FABRIC]
        for aggregate in objects.AggregateList.get_by_host(context.elevated(), host)
        if policy.AGGREGATE_FABRIC in aggregate.metadata)
