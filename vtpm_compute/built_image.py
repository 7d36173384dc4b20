"""The image that a server was built from.

nova-api writes the new image into a server when it asks for a rebuild, and nobody takes it back
when that is refused. compute-hyperv would look for the base of the server's disk in the wrong image
then, at the next move, and connect the disk to it.
"""

from __future__ import annotations

import contextlib
from typing import Any

from nova import utils as nova_utils
from nova.image import glance
from oslo_log import log as logging

from vtpm_scheduling import policy

LOG = logging.getLogger(__name__)
_KEY = policy.MARK_BUILT_FROM
_PREFIX = nova_utils.SM_IMAGE_PROP_PREFIX
_BASE = _PREFIX + "base_image_ref"


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
    if instance.system_metadata.pop(_KEY, None) is not None:
        instance.save()


def restore(context: Any, instance: Any) -> None:
    """Give a server the image back that it was built from, with its properties, and save it.

    Nothing to do where Nova still has that image, or where it is not known: the server was built
    by another driver. Logs where Glance does not have the properties: the server keeps the others.

    :param context: of the user who asked for the rebuild.
    """
    image = instance.system_metadata.get(_KEY)
    if image is None or image == (instance.image_ref or ""):
        return
    if image:
        try:
            properties = nova_utils.get_system_metadata_from_image(
                glance.API().get(context, image), instance.flavor)
        # Of glanceclient, keystoneauth and Nova.
        except Exception as exc:  # noqa: BLE001
            LOG.warning("The server has its image %s again, and not its properties: %s", image,
                        exc, instance=instance)
        else:
            for name in [name for name in instance.system_metadata if name.startswith(_PREFIX)]:
                del instance.system_metadata[name]
            instance.system_metadata.update(properties)
    instance.system_metadata[_BASE] = image
    instance.image_ref = image
    instance.save()
