"""The tenant's secrets in Barbican, with the credentials that the openstack client takes.

keystoneauth is asked directly, as in :mod:`vtpm_compute.keys`: python-barbicanclient loses the
status of many refusals. No payload is ever logged, and no redirect is followed with the token.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import re
import urllib.parse
from collections.abc import Callable
from typing import Any, TypeVar

import requests
import urllib3
from keystoneauth1 import adapter as keystone_adapter
from keystoneauth1 import exceptions as ksa_exceptions

from vtpm_compute import errors, http_answers
from vtpm_compute.cmd import login
from vtpm_scheduling import policy

# keystoneauth's words about what it did not understand may quote it.
_SILENT = logging.getLogger(__name__ + ".silent")
_SILENT.propagate = False
_SILENT.setLevel(logging.CRITICAL + 1)

SERVICE_TYPE = "key-manager"
_PROGRAM = "nova-hyperv-vtpm-protector"
_RETRIES = 2
# Passing trouble: tried again, where doing it twice is as doing it once.
_WORTH_A_RETRY = (429, 502, 503, 504)
# A gateway does not know what became of the request.
_UNCERTAIN = (502, 504)
_OCTETS = "application/octet-stream"
_MOST_JSON_BYTES = 65536
_SECRET_REFERENCE = re.compile(
    r".*/secrets/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})/?", re.IGNORECASE)

_LATER = "Try again later"
_ADMINISTRATOR = "Tell the administrator"
_CREDENTIALS = login.CREDENTIALS
_BY_STATUS = {
    400: "the key manager refuses the request as malformed (400). If its limits are lower than "
         "Barbican's own, a smaller --piece-bytes helps",
    401: "the key manager does not accept your login (401). " + _CREDENTIALS,
    403: "you may not do this (403). It takes the role creator or member in the project, and room "
         "in its quota: ask the administrator",
    404: "it is not there (404): it does not exist, was deleted, or has expired. Check its id",
    413: "it is too large for the key manager (413). Give a smaller --piece-bytes",
    429: "the key manager has too many requests (429). " + _LATER,
}
_NO_KEY_MANAGER = "there is no key manager at %s (404). " + _ADMINISTRATOR
_MALFORMED = "the key manager's answer cannot be understood. " + _ADMINISTRATOR
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Description:
    """What Barbican says of a secret.

    :ivar name: printable, and cut; empty where it has none.
    :ivar created: when it was stored, as Barbican writes it; empty where that is not known.
    """

    name: str
    created: str


class SecretStore:
    """The secrets that a user may read, store and delete.

    Every method raises :class:`vtpm_compute.errors.SecretStoreError`; ``str()`` of it is a clause
    that says what is wrong and what to do, without a full stop.

    :param adapter: keystoneauth's, with a session, credentials and the service type.
    """

    def __init__(self, adapter: keystone_adapter.Adapter) -> None:
        self._adapter = adapter
        self._url = ""

    def log_in(self) -> None:
        """Get a token and find the key manager, so that both are known to work."""
        if not self._url:
            _translated("Keystone", lambda: self._adapter.session.get_auth_headers(
                self._adapter.auth or self._adapter.session.auth))
            self._url = _translated("Keystone", self._endpoint)

    def create(self, name: str, payload: bytes | None, expiration: str | None = None) -> str:
        """Store a new secret.

        :param payload: as many as :data:`vtpm_compute.cmd.pieces.MOST_IN_ONE_REQUEST` bytes; None
            for a secret that gets them by :meth:`put_payload`.
        :param expiration: when Barbican is to delete it: ISO 8601, UTC; None: never.
        :returns: its id. An error whose ``may_be_done`` is set may have left one.
        """
        described: dict[str, Any] = {"name": name, "secret_type": "opaque"}
        if expiration is not None:
            described["expiration"] = expiration
        if payload is not None:
            described.update(payload=base64.b64encode(payload).decode("ascii"),
                             payload_content_type=_OCTETS, payload_content_encoding="base64")
        # Once only: a second one would store a second secret.
        response = self._request("POST", "", 201, json=described, connect_retries=0,
                                 status_code_retries=0)
        reference = _json(response.content).get("secret_ref")
        found = _SECRET_REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
        if found is None:
            raise errors.SecretStoreError(_MALFORMED, 201, may_be_done=True)
        return found.group(1).lower()

    def make_private(self, secret_id: str) -> None:
        """Let nobody else of the project read a secret, but for its administrators.

        Source: Key Manager API reference, "ACLs"; Barbican's policies of secrets.
        """
        self._request("PUT", "/%s/acl" % secret_id, 200, json={"read": {"project-access": False}})

    def put_payload(self, secret_id: str, payload: bytes) -> None:
        """Give a secret that has none its bytes: more fit in than :meth:`create` takes."""
        self._request("PUT", "/%s" % secret_id, 204, data=payload,
                      headers={"Content-Type": _OCTETS}, connect_retries=0, status_code_retries=0)

    def read(self, secret_id: str, most: int) -> bytes:
        """A secret's bytes.

        :param most: of them; one more is read of a longer secret, which shows that it is longer.
        """
        response = self._request(
            "GET", "/%s/payload" % secret_id, 200, stream=True,
            headers={"Accept": _OCTETS, "Accept-Encoding": "identity"})
        with response:
            body: bytes = _translated(
                "The key manager", lambda: http_answers.read(response.raw, most + 1))
        return body

    def describe(self, secret_id: str) -> Description:
        """What Barbican says of a secret."""
        response = self._request("GET", "/%s" % secret_id, 200, stream=True,
                                 headers={"Accept": "application/json"})
        with response:
            body = _translated("The key manager", lambda: http_answers.read(
                response.raw, _MOST_JSON_BYTES, decode=True))
        described = _json(body)
        return Description(*(policy.quote(str(described.get(name) or ""), 80)
                             for name in ("name", "created")))

    def delete(self, secret_id: str) -> None:
        """Delete a secret, for ever. One that is not there is an error with status 404."""
        self._request("DELETE", "/%s" % secret_id, 204)

    def _endpoint(self) -> str:
        adapter = self._adapter
        endpoint = adapter.endpoint_override or adapter.session.get_endpoint(
            auth=adapter.auth, service_type=adapter.service_type, interface=adapter.interface,
            region_name=adapter.region_name, skip_discovery=True)
        if not endpoint:
            raise ksa_exceptions.EndpointNotFound()
        # There is one version, and both forms are in use.
        endpoint = endpoint.rstrip("/")
        return endpoint[:-len("/v1")] if endpoint.endswith("/v1") else endpoint

    def _request(self, method: str, path: str, expected: int, **options: Any) -> Any:
        """Make a request, and return the answer if it has the expected status."""
        self.log_in()
        options.setdefault("connect_retries", _RETRIES)
        options.setdefault("status_code_retries", _RETRIES)
        creates = method == "POST"
        response = _translated("The key manager", lambda: self._adapter.request(
            "%s/v1/secrets%s" % (self._url, path), method, redirect=False, raise_exc=False,
            log=False, logger=_SILENT, retriable_status_codes=_WORTH_A_RETRY, **options), creates)
        if response.status_code == expected:
            return response
        response.close()
        raise self._refusal(response.status_code, creates)

    def _refusal(self, status: int, creates: bool) -> errors.SecretStoreError:
        if status == 404 and creates:
            problem = _NO_KEY_MANAGER % _host(self._url)
        elif status in _BY_STATUS:
            problem = _BY_STATUS[status]
        elif 300 <= status < 400:
            problem = "the key manager answers with a redirect (%d), which is not followed with " \
                "your token. %s" % (status, _ADMINISTRATOR)
        elif status >= 500:
            problem = "the key manager is not able to answer (%d). %s" % (status, _LATER)
        else:
            problem = "the key manager gave an answer that was not expected (%d). %s" % (
                status, _ADMINISTRATOR)
        return errors.SecretStoreError(problem, status,
                                       may_be_done=creates and (
            status in _UNCERTAIN or 200 <= status < 300))


def connect(cloud: str | None = None) -> SecretStore:
    """The key manager of the user's cloud; nothing is asked of it yet.

    :param cloud: its name in clouds.yaml; None: as OS_CLOUD, or the OS_* variables, say.
    :raises vtpm_compute.errors.SecretStoreError: when the credentials are not complete.
    """
    try:
        found = login.connect(cloud, _PROGRAM)
        return SecretStore(found.adapter(SERVICE_TYPE))
    except errors.LoginError as exc:
        raise errors.SecretStoreError(str(exc)) from None


def _translated(who: str, call: Callable[[], Result], creates: bool = False) -> Result:
    """Make a call; what goes wrong is told in our words: the libraries' may quote an answer.

    :param who: is asked.
    :param creates: whether a request whose answer is lost may have made something.
    """
    try:
        return call()
    except ksa_exceptions.EndpointNotFound:
        raise errors.SecretStoreError("the catalog of your cloud has no key manager in this "
                                      "region. Check OS_REGION_NAME, or tell the administrator"
                                      ) from None
    except ksa_exceptions.CatalogException:
        raise errors.SecretStoreError(
            "your login has no catalog: it names no project. " + _CREDENTIALS) from None
    except ksa_exceptions.Unauthorized:
        raise errors.SecretStoreError(
            "Keystone refuses your login (401): wrong user, password or project. " + _CREDENTIALS,
            401) from None
    except ksa_exceptions.SSLError:
        raise errors.SecretStoreError(
            "%s has no certificate that this machine trusts. Check OS_CACERT" % who) from None
    except ksa_exceptions.ConnectTimeout as exc:
        raise errors.SecretStoreError("%s does not answer in time. %s" % (who, _LATER),
                                      may_be_done=creates and _was_sent(exc)) from None
    except ksa_exceptions.ConnectFailure as exc:
        raise errors.SecretStoreError(
            "%s cannot be reached, or ends the connection. Check the network, or try again later"
            % who, may_be_done=creates and _was_sent(exc)) from None
    except ksa_exceptions.HttpError as exc:
        raise errors.SecretStoreError("%s answers %s. Check the login URL, or try again later" % (
            who, exc.http_status), exc.http_status) from None
    except (ksa_exceptions.ClientException, requests.RequestException,
            urllib3.exceptions.HTTPError, OSError, ValueError) as exc:
        raise errors.SecretStoreError("%s cannot be asked (%s). %s" % (
            who, type(exc).__name__, _CREDENTIALS),
            may_be_done=creates and _was_sent(exc)) from None


def _was_sent(exc: BaseException) -> bool:
    """Whether the request may have reached the server."""
    return not any(isinstance(cause, (urllib3.exceptions.NewConnectionError,
                                      urllib3.exceptions.ConnectTimeoutError))
                   for cause in http_answers.causes(exc))


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise errors.SecretStoreError(_MALFORMED, may_be_done=True)
    return found


def _host(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return policy.quote(parts.netloc.rpartition("@")[2] or url, 80)

