"""The image that nova-api makes before it asks nova-compute to shelve a server.

Nova fills it once the server is stopped, and leaves it behind, queued, when it could not be.
"""

from __future__ import annotations

from typing import Any

from nova.compute import utils as compute_utils
from nova.image import glance
from oslo_context import context as oslo_context
from oslo_log import log as logging

LOG = logging.getLogger(__name__)


def delete_queued(instance: Any) -> None:
    """Delete it as the user who asked for the shelve, whose own it is; those of earlier ones too.

    Logs what goes wrong: the user is told another reason.
    """
    # Nova stops a server without saying for whom. This is what the request came with.
    context = oslo_context.get_current()
    if context is None:
        LOG.warning("Nobody is known as whom to delete the image of the shelve",
                    instance=instance)
        return
    image_api = glance.API()
    try:
        images = image_api.get_all(context, filters={
            "status": "queued", "property-instance_uuid": instance.uuid})
    # Of glanceclient, keystoneauth and Nova.
    except Exception as exc:  # noqa: BLE001
        LOG.warning("The image of the shelve was not looked for, and stays: %s", exc,
                    instance=instance)
        return
    for image in images:
        if _is_of_shelve(image, instance):
            compute_utils.delete_image(context, instance, image_api, image["id"])


def _is_of_shelve(image: dict[str, Any], instance: Any) -> bool:
    """Whether nova-api made it to shelve the instance, and nothing is in it."""
    properties = image["properties"]
    return (image["status"] == "queued" and image["name"] == "%s-shelved" % instance.display_name
            and properties.get("image_type") == "snapshot"
            and properties.get("instance_uuid") == instance.uuid)
