"""The image that a server was built from, and what Nova keeps of its properties.

nova-api writes the new image into a server when it asks for a rebuild, and nobody takes it back
when that is refused, or ends before the VM is touched. compute-hyperv would look for the base of
the server's disk in the wrong image then, at the next move, and connect the disk to it.
"""

from __future__ import annotations

import contextlib
from typing import Any

from nova import block_device, objects
from nova import exception as nova_exception
from nova import utils as nova_utils
from nova.image import glance
from nova.volume import cinder
from oslo_log import log as logging

from vtpm_scheduling import policy

LOG = logging.getLogger(__name__)
_KEY = policy.MARK_BUILT_FROM
_PREFIX = nova_utils.SM_IMAGE_PROP_PREFIX
_BASE = _PREFIX + "base_image_ref"

# Nova's, of an image that is not to be had any more.
GONE = (nova_exception.ImageNotFound, nova_exception.ImageNotAuthorized)


def remember(instance: Any) -> None:
    """Write that a server was built from the image that Nova has for it, and save it."""
    instance.system_metadata[_KEY] = instance.image_ref or ""
    with contextlib.ExitStack() as undo:
        # Where it is not saved, whoever saves the instance next must not do it.
        undo.callback(instance.system_metadata.pop, _KEY, None)
        instance.save()
        undo.pop_all()


def forget(instance: Any) -> None:
    """Write that it is not known any more what a server was built from, and save it."""
    image = instance.system_metadata.pop(_KEY, None)
    if image is not None:
        with contextlib.ExitStack() as undo:
            undo.callback(instance.system_metadata.__setitem__, _KEY, image)
            instance.save()
            undo.pop_all()


def details(instance: Any) -> dict[str, Any]:
    """What Nova keeps of a server's image, in the form in which its image API gives it.

    Glance may have it no more, and a nova-compute that starts has no user's token to ask with.
    """
    found: dict[str, Any] = nova_utils.get_image_from_system_metadata(instance.system_metadata)
    # Of one that boots from a volume there is none.
    return dict(found, id=instance.image_ref) if instance.image_ref else found


def is_other(instance: Any) -> bool:
    """Whether Nova has another image for a server than the one that it was built from.

    A rebuild ended after nova-api had asked for it, and before the VM was touched.
    """
    return instance.system_metadata.get(_KEY) not in {None, instance.image_ref or ""}


def restore(context: Any, instance: Any, rebuilt: bool = False) -> None:
    """Give a server the image back that it was built from, with its properties, and save it.

    Nothing to do where Nova still has that image, or where it is not known: the server was built
    by another driver. Where the image is gone the server keeps the other one's properties; where it
    could not be asked for all stays as it is. Both are logged.

    :param context: of the user who asked.
    :param rebuilt: a rebuild was just refused. Of a server that boots from a volume Nova has no
        image before and after it, and the properties of another.
    """
    image = instance.system_metadata.get(_KEY)
    if not is_other(instance) and not (rebuilt and image == ""):
        return
    try:
        properties = nova_utils.get_system_metadata_from_image(
            glance.API().get(context, image) if image else _of_volume(context, instance),
            instance.flavor)
    except GONE as exc:
        LOG.warning("The server has its image %s again, and not its properties: %s", image, exc,
                    instance=instance)
    # Of the clients of Glance and Cinder, keystoneauth and Nova.
    except Exception as exc:  # noqa: BLE001
        LOG.warning("The server does not get its image %s again at present: %s",
                    image or "on its volume", exc, instance=instance)
        return
    else:
        for name in [name for name in instance.system_metadata if name.startswith(_PREFIX)]:
            del instance.system_metadata[name]
        instance.system_metadata.update(properties)
    if image:
        instance.system_metadata[_BASE] = image
    else:
        # As nova-api does it, where Cinder does not say it.
        instance.system_metadata.setdefault(_BASE, image)
    instance.image_ref = image
    instance.save()


def _of_volume(context: Any, instance: Any) -> Any:
    """The properties that Cinder has of the image on a server's boot volume, as an image."""
    return block_device.get_bdm_image_metadata(
        context, glance.API(), cinder.API(),
        objects.BlockDeviceMappingList.get_by_instance_uuid(context, instance.uuid),
        legacy_bdm=False)
