"""The cloud that a command talks to, with the credentials that the openstack client takes."""

from __future__ import annotations

import logging
from typing import Any

from keystoneauth1 import adapter as keystone_adapter
from keystoneauth1 import exceptions as ksa_exceptions

from vtpm_compute import errors
from vtpm_compute.cmd import missing
from vtpm_scheduling import policy

CREDENTIALS = "Check OS_CLOUD and clouds.yaml, or the OS_* variables"
# Seconds that each wait on a connection lasts, unless the configuration has api_timeout.
_TIMEOUT = 60.0

# Without a handler its warnings would go to the terminal.
logging.getLogger("keystoneauth").addHandler(logging.NullHandler())


class Login:
    """A user's session with a cloud.

    :ivar region: openstacksdk's ``CloudRegion``.
    :ivar session: keystoneauth's.
    """

    def __init__(self, region: Any, session: Any) -> None:
        self.region, self.session = region, session

    def adapter(self, service_type: str, **options: Any) -> keystone_adapter.Adapter:
        """A service of the cloud, where its configuration says that it is.

        :raises vtpm_compute.errors.LoginError: when the configuration cannot be used.
        """
        try:
            return keystone_adapter.Adapter(
                self.session, service_type=service_type,
                interface=self.region.get_interface(service_type),
                region_name=self.region.get_region_name(service_type),
                endpoint_override=self.region.get_endpoint(service_type), **options)
        except Exception as exc:  # noqa: BLE001
            raise _unreadable(exc) from None


def connect(cloud: str | None, program: str) -> Login:
    """The user's cloud; nothing is asked of it yet.

    :param cloud: its name in clouds.yaml; None: as OS_CLOUD, or the OS_* variables, say.
    :param program: who asks, for the user agent.
    :raises vtpm_compute.errors.LoginError: when the credentials are not complete.
    """
    try:
        # Not above: it is large, and only these commands need it.
        import openstack.config
        import openstack.exceptions
    except ModuleNotFoundError as exc:
        raise errors.LoginError(missing.clause(exc, missing.install("tool"))) from None
    try:
        region = openstack.config.get_cloud_region(cloud=cloud, app_name=program)
        session = region.get_session()
        if not session.timeout:
            session.timeout = _TIMEOUT
        return Login(region, session)
    except (openstack.exceptions.ConfigException, ksa_exceptions.ClientException) as exc:
        raise errors.LoginError("your credentials cannot be used: %s. %s" % (
            policy.quote(str(exc).rstrip("."), 200), CREDENTIALS)) from None
    except Exception as exc:  # noqa: BLE001
        raise _unreadable(exc) from None


def _unreadable(exc: Exception) -> errors.LoginError:
    # What YAML and the system say of a file that they cannot read quotes it, passwords too.
    return errors.LoginError("your credentials cannot be read (%s). %s" % (
        type(exc).__name__, CREDENTIALS))
