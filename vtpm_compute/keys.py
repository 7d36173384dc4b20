"""Reads an instance's keys from Barbican: references in, bytes out.

With the user's own token, so that nobody gets more than they may read themselves; there is no
falling back to nova's. One request a secret, as ``application/octet-stream``: keystoneauth writes
bodies of text and JSON into the debug log, and leaves this one out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from barbicanclient import client as barbican_client
from keystoneauth1 import exceptions as ksa_exceptions
from keystoneauth1 import loading, service_token
from oslo_config import cfg
from oslo_log import log as logging

from vtpm_compute import conf, errors
from vtpm_scheduling import policy

LOG = logging.getLogger(__name__)

_OK = 200
# Nova cuts a fault at 255 characters: what is wrong must stand before that.
_SHOWN = 60
_OCTETS = "application/octet-stream"
_BY_STATUS = {
    401: "was refused: the token is not valid any more. Boot the server again",
    403: "may not be read by you. Ask its owner for access (a Barbican ACL), or name your own",
    404: "was not found: it does not exist, was deleted, has expired or has no payload. Name "
         "another",
    406: "is not stored as bytes or text. Store it again as application/octet-stream",
    410: "is gone. Name an existing secret",
    413: "is too large for the key manager. Cut it into pieces",
    429: "could not be read now: the key manager has too many requests. Try again later",
}
_AWAY = "could not be read: the key manager does not answer. Try again later"


class KeySource:
    """The key manager of this cloud.

    :param configuration: nova's configuration; reads the sections ``[vtpm_compute]`` and
        ``[service_user]``.
    """

    def __init__(self, configuration: cfg.ConfigOpts) -> None:
        self._conf = configuration

    def fetch(self, context: Any, keys: Sequence[policy.KeyReference]) -> list[bytes]:
        """Read the secrets.

        :param context: the request context of the user who asked for the server.
        :param keys: what to read; at least one.
        :returns: the payloads, in the order of the references.
        :raises vtpm_compute.errors.KeyFetchError: when any of them cannot be read; names it.
        """
        if not context.auth_token:
            raise errors.KeyFetchError(
                _shown(keys[0]), "can be read by its owner only, and this operation carries no "
                "user's token. Let its owner start it")
        payloads: list[bytes] = []
        client = None
        answer = _LastAnswer()
        for key in keys:
            try:
                client = client or self._client(context, answer)
                payloads.append(self._fetch_one(client, key, answer))
            except errors.VtpmError:
                raise
            except Exception as exc:  # noqa: BLE001
                # The client trips over answers that it does not expect in many ways (KeyError,
                # TypeError, UnsupportedVersion). Any of them has to end the build, with a reason:
                # another one would make Nova try every host.
                raise _explain(key, exc, answer) from None
        return payloads

    def _client(self, context: Any, answer: _LastAnswer) -> Any:
        group = conf.SECTION
        session = loading.load_session_from_conf_options(self._conf, group)
        session.session.hooks["response"].append(answer.note)
        # A redirect would carry the token to wherever it points.
        session.redirect = False
        auth = context.get_auth_plugin()
        if self._conf.service_user.send_service_user_token:
            # With it Barbican also takes a user's token that expired while the request waited.
            auth = service_token.ServiceTokenAuthWrapper(
                user_auth=auth,
                service_auth=loading.load_auth_from_conf_options(self._conf, "service_user"))
        session.auth = auth
        adapter = loading.load_adapter_from_conf_options(self._conf, group, session=session)
        endpoint = adapter.endpoint_override or auth.get_endpoint(
            session, service_type=adapter.service_type, service_name=adapter.service_name,
            interface=adapter.interface, region_name=adapter.region_name)
        if not endpoint:
            raise ksa_exceptions.EndpointNotFound()
        endpoint = endpoint.rstrip("/")
        if endpoint.endswith("/v1"):
            # The client adds the version itself, and fails with a misleading 404 when it is there.
            endpoint = endpoint[:-len("/v1")]
        return barbican_client.Client(
            session=session, endpoint=endpoint, version="v1",
            connect_retries=adapter.connect_retries,
            status_code_retries=adapter.status_code_retries)

    def _fetch_one(self, client: Any, key: policy.KeyReference, answer: _LastAnswer) -> bytes:
        LOG.debug("Reading vTPM key %s", key.secret_id)
        # By id: the host in a reference is never asked, whatever the user wrote there.
        payload = client.secrets.get(key.secret_id, payload_content_type=_OCTETS).payload
        if answer.status != _OK:
            # A redirect that was not followed: its body is not the secret.
            raise ValueError("the answer is not the secret")
        if not payload:
            raise errors.KeyFetchError(_shown(key), "is empty. Store the key protector in it")
        limit = self._conf[conf.SECTION].max_key_bytes
        if len(payload) > limit:
            raise errors.KeyFetchError(
                _shown(key), "holds %d bytes, more than the %d allowed (max_key_bytes)"
                % (len(payload), limit))
        return bytes(payload)


class _LastAnswer:
    """The status of the key manager's last answer.

    The client's own errors lose it, or are a KeyError, for an answer in a form that it does not
    expect: that of keystonemiddleware's 401 for a token that has expired, or of a proxy.
    """

    def __init__(self) -> None:
        self.status: int | None = None

    def note(self, response: Any, **_: Any) -> None:
        """Hook of requests."""
        self.status = response.status_code


def _shown(key: policy.KeyReference) -> str:
    return key.text if len(key.text) <= _SHOWN else key.secret_id


def _explain(key: policy.KeyReference, exc: Exception,
             answer: _LastAnswer) -> errors.KeyFetchError:
    """One error for whatever the client raised; what it says may quote an answer: it is dropped."""
    if isinstance(exc, ksa_exceptions.CatalogException):
        return errors.KeyFetchError(
            _shown(key), "could not be read: this cloud's catalog has no key manager")
    if isinstance(exc, ksa_exceptions.ConnectionError):
        return errors.KeyFetchError(_shown(key), _AWAY)
    status = getattr(exc, "http_status", None) or answer.status
    if status in _BY_STATUS:
        return errors.KeyFetchError(_shown(key), _BY_STATUS[status], status)
    LOG.info("Key %s: %s, after HTTP status %s", key.secret_id, type(exc).__name__, status)
    return errors.KeyFetchError(
        _shown(key), "could not be read: the key manager answered %s. Try again later"
        % (status or "nothing that can be understood"), status)
