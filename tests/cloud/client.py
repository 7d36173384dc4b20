"""What tests and the demonstration do with a cloud, as one of its users."""
import functools
import time

import openstack
from barbicanclient import client as barbican_client

from tests.cloud import settings

# The newest that nova 28's client libraries speak; "networks: none" needs 2.37.
COMPUTE_MICROVERSION = "2.90"
# Seconds after which what takes a few will not happen any more, on a busy machine.
PATIENCE = 180


class Unexpected(Exception):
    """A server does not come to the status that was waited for."""


class Client:
    """A user's hands: secrets, images, flavors, servers, aggregates.

    ``compute`` and ``image`` are openstacksdk's proxies for whatever is not here, ``barbican`` is
    python-barbicanclient's client.
    """

    def __init__(self, session, barbican_url):
        self.session = session
        self._connection = openstack.connection.Connection(
            session=session, region_name=settings.REGION,
            compute_default_microversion=COMPUTE_MICROVERSION)
        self.barbican = barbican_client.Client(
            session=session, endpoint=barbican_url, version="v1")

    # Asked for when they are used: a cloud may have only Keystone and Barbican.

    @functools.cached_property
    def compute(self):
        """Openstacksdk's proxy of Nova."""
        return self._connection.compute

    @functools.cached_property
    def image(self):
        """Openstacksdk's proxy of Glance."""
        return self._connection.image

    def store_secret(self, name, payload, private=False):
        """Store bytes in Barbican and return the secret's UUID.

        :param private: whether the user's project may not read it, but the user alone
        """
        # Bytes without a content type: the client sends them as octet-stream.
        reference = self.barbican.secrets.create(name=name, payload=payload).store()
        if private:
            self.barbican.acls.create(entity_ref=reference, project_access=False).submit()
        return reference.rstrip("/").rpartition("/")[2]

    def upload_image(self, name, data, properties=None, disk_format="vhdx"):
        """Upload an image with these properties and return its id."""
        image = self.image.post("/images", json=dict(
            properties or {}, name=name, disk_format=disk_format, container_format="bare"))
        _check(image)
        image_id = image.json()["id"]
        _check(self.image.put("/images/%s/file" % image_id, data=data,
                              headers={"Content-Type": "application/octet-stream"}))
        return image_id

    def create_flavor(self, name, extra_specs=None, vcpus=1, ram=512, disk=1):
        """Make a flavor, as the operator, and return its id."""
        flavor = self.compute.create_flavor(name=name, vcpus=vcpus, ram=ram, disk=disk)
        if extra_specs:
            self.compute.create_flavor_extra_specs(flavor, extra_specs)
        return flavor.id

    def create_aggregate(self, name, hosts, metadata):
        """Make a host aggregate, as the operator, and return it."""
        aggregate = self.compute.create_aggregate(name=name)
        for host in hosts:
            self.compute.add_host_to_aggregate(aggregate, host)
        return self.compute.set_aggregate_metadata(aggregate, metadata)

    def traits(self, provider_id):
        """What placement says of a host, as the operator sees it: a list of traits."""
        answer = self.session.get(
            "/resource_providers/%s/traits" % provider_id,
            endpoint_filter={"service_type": "placement"},
            headers={"OpenStack-API-Version": "placement 1.6"})
        return answer.json()["traits"]

    def boot(self, name, image, flavor, wait=True, **attributes):
        """Boot a server without networks; with ``wait``, return when it is ACTIVE or in ERROR.

        ``attributes`` go into the request as they are (``availability_zone``, ``host``).
        """
        server = self.compute.create_server(
            name=name, image_id=image, flavor_id=flavor, networks="none", **attributes)
        return self.wait_for_status(server.id, "ACTIVE", "ERROR") if wait else server

    def server(self, server_id):
        """A server as Nova shows it now."""
        return self.compute.get_server(server_id)

    def wait_for_status(self, server_id, *statuses, seconds=PATIENCE):
        """Wait until a server has one of these statuses and nothing in progress; return it.

        :raises Unexpected: it stays in another one, or goes to ERROR
        """
        deadline = time.monotonic() + seconds
        while True:
            server = self.server(server_id)
            if server.status in statuses and not server.task_state:
                return server
            if server.status == "ERROR" or time.monotonic() > deadline:
                raise Unexpected("Server %s is %s (%s) instead of %s. %s" % (
                    server.name, server.status, server.task_state, " or ".join(statuses),
                    self.fault(server_id)))
            time.sleep(0.3)

    def fault(self, server_id):
        """What ``openstack server show`` says about a failure, or an empty string."""
        fault = self.server(server_id).fault or {}
        return fault.get("message", "")

    def delete_server(self, server_id, seconds=PATIENCE):
        """Delete a server and wait until it is gone.

        :raises Unexpected: it is not
        """
        self.compute.delete_server(server_id, ignore_missing=True)
        deadline = time.monotonic() + seconds
        while self.compute.find_server(server_id) is not None:
            if time.monotonic() > deadline:
                raise Unexpected("Server %s is still there." % server_id)
            time.sleep(0.3)


def _check(response):
    """Raise openstacksdk's exception if a request of its proxies failed."""
    openstack.exceptions.raise_from_response(response)
