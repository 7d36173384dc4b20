"""How nova-scheduler learns what an instance asked for and where it runs now.

``RequestSpec.image`` keeps only the image properties that Nova knows, so ``os_vtpm`` is not in it.
nova-api writes all of them into the instance's system metadata before it asks the scheduler: into
the build request while the instance has no cell yet, into the cell's database afterwards. One look
at the mapping and one at the record answer every kind of request.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy
from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova.db.main import api as main_db
from nova.db.main import models
from sqlalchemy import orm

from vtpm_scheduling import policy

# Where Nova notes the host of a server that it shelves (nova.compute.manager, _shelve_instance).
_SHELVED_HOST = "shelved_host"


class InstanceRecordMissing(Exception):
    """Nova has no record of the instance (any more): it is being deleted."""


class BuildRequestMissing(InstanceRecordMissing):
    """The same of an instance that is being booted."""


@dataclasses.dataclass(frozen=True)
class InstanceFacts:
    """What Nova's records say of an instance.

    :ivar image_properties: the properties of its image, by name. Values are cut at 255 characters.
    :ivar has_vtpm: whether it carries the mark of an instance with a vTPM.
    :ivar has_no_vtpm: whether it is known to have none: it was built without, or runs on a host
        that is not Hyper-V.
    :ivar fabric_thumbprint: the fabric in that mark; None where it carries none.
    :ivar shelved_host: where it ran when it was shelved; None where it was not.
    :ivar is_booted: whether it is being booted: it has no record in a cell yet, and what follows
        is not known.
    :ivar host: where it runs; None for one that was shelved and offloaded.
    :ivar host_thumbprint: of the guardian of that host's fabric, as the host reported it last; None
        where it reports none.
    :ivar serialized_flavor: the flavor that it has now, as Nova's database holds it.
    """

    image_properties: Mapping[str, str]
    has_vtpm: bool = False
    has_no_vtpm: bool = False
    fabric_thumbprint: str | None = None
    shelved_host: str | None = None
    is_booted: bool = True
    host: str | None = None
    host_thumbprint: str | None = None
    serialized_flavor: str | None = None

    @property
    def extra_specs(self) -> Mapping[str, str]:
        """Of the flavor that it has now.

        :raises Exception: when Nova's record of it cannot be read.
        """
        if self.serialized_flavor is None:
            raise InstanceRecordMissing("no flavor")
        return objects.Flavor.obj_from_primitive(
            json.loads(self.serialized_flavor)["cur"]).extra_specs or {}

    @classmethod
    def from_system_metadata(cls, system_metadata: Mapping[str, str],
                             image_ref: str | None = None,
                             hypervisor_type: str | None = None, **more: Any) -> InstanceFacts:
        """Read an instance's system metadata; the other fields as they are.

        :param image_ref: the instance's image.
        :param hypervisor_type: of the host where it runs; None where that is not known.
        """
        has_vtpm = policy.MARK_VTPM in system_metadata
        return cls(
            image_properties=policy.image_properties_of(system_metadata),
            has_vtpm=has_vtpm,
            has_no_vtpm=(policy.is_built_without_vtpm(system_metadata, image_ref)
                         or not has_vtpm and hypervisor_type is not None
                         and not policy.is_hyperv(hypervisor_type)),
            fabric_thumbprint=system_metadata.get(policy.MARK_FABRIC) or None,
            shelved_host=system_metadata.get(_SHELVED_HOST) or None,
            **more)


def load(context: nova_context.RequestContext, instance_uuid: str) -> InstanceFacts:
    """Read the facts of one instance: two queries.

    :param context: the request's; read with elevated rights.
    :param instance_uuid: the instance that a host is wanted for.
    :raises InstanceRecordMissing: when the instance has no mapping or no record.
    :raises BuildRequestMissing: when it has no cell and no build request.
    """
    admin = context.elevated()
    try:
        mapping = objects.InstanceMapping.get_by_instance_uuid(admin, instance_uuid)
        if mapping.cell_mapping is None:
            request = objects.BuildRequest.get_by_instance_uuid(admin, instance_uuid)
            return InstanceFacts.from_system_metadata(request.instance.system_metadata)
    except nova_exception.InstanceMappingNotFound as exc:
        raise InstanceRecordMissing(instance_uuid) from exc
    except nova_exception.BuildRequestNotFound as exc:
        raise BuildRequestMissing(instance_uuid) from exc
    with nova_context.target_cell(admin, mapping.cell_mapping) as cell_context:
        row = _read_record(cell_context, instance_uuid)
        if row is None:
            raise InstanceRecordMissing(instance_uuid)
        record, stats, hypervisor_type = row
        report = policy.HostReport.from_stats(json.loads(stats or "{}"))
        return InstanceFacts.from_system_metadata(
            {item.key: item.value for item in record.system_metadata if not item.deleted},
            image_ref=record.image_ref, hypervisor_type=hypervisor_type, is_booted=False,
            host=record.host,
            host_thumbprint=report.fabric_thumbprint if report else None,
            serialized_flavor=record.extra.flavor if record.extra else None)


@main_db.pick_context_manager_reader
def _read_record(context: nova_context.RequestContext, instance_uuid: str) -> Any:
    """An instance's record in its cell, with its system metadata, its flavor and what its host is.

    One query, where Nova's objects make three.

    :returns: Nova's model, and the text of its host's stats and its host's hypervisor type, both
        None where there is no such host; None where there is no instance.
    """
    node = models.ComputeNode
    query = main_db.model_query(context, models.Instance).filter_by(uuid=instance_uuid).options(
        orm.joinedload(models.Instance.system_metadata),
        orm.joinedload(models.Instance.extra).undefer(models.InstanceExtra.flavor))
    return query.outerjoin(node, sqlalchemy.and_(
        node.host == models.Instance.host, node.hypervisor_hostname == models.Instance.node,
        node.deleted == 0)).add_columns(
            node.stats, node.hypervisor_type).one_or_none()


def fabric_labels(context: nova_context.RequestContext, host: str) -> frozenset[str]:
    """The values of ``hgs_fabric`` on the aggregates of a host: one query.

    :param context: the request's; read with elevated rights.
    """
    return frozenset(
        aggregate.metadata[policy.AGGREGATE_FABRIC]
        for aggregate in objects.AggregateList.get_by_host(context.elevated(), host)
        if policy.AGGREGATE_FABRIC in aggregate.metadata)
