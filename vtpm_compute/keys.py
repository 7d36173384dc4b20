"""Reads an instance's keys from Barbican: references in, bytes out.

With the user's own token, so that nobody gets more than they may read themselves; there is no
falling back to nova's. One request a secret, as ``application/octet-stream``, in which Barbican
gives bytes and text alike. keystoneauth is asked directly: python-barbicanclient loses the status
of many refusals, and reads an answer whole, whatever its size.
"""

from __future__ import annotations

import http.client
import http.cookiejar
import json
import logging as python_logging
import threading
import urllib.parse
from collections.abc import Sequence
from typing import Any

import urllib3
from keystoneauth1 import exceptions as ksa_exceptions
from keystoneauth1 import loading, service_token
from oslo_config import cfg
from oslo_log import log as logging

from vtpm_compute import conf, errors, http_answers, side_by_side, timed_transport
from vtpm_scheduling import policy

LOG = logging.getLogger(__name__)
# keystoneauth's retries and refusals quote what they did not understand; it may be a secret.
_SILENT = python_logging.getLogger(__name__ + ".silent")
_SILENT.propagate = False
_SILENT.setLevel(python_logging.CRITICAL + 1)

_SERVICE_USER = "service_user"
_OK = 200
# Nova cuts a fault at 255 characters: what is wrong must stand before that.
_SHOWN = 36
_OCTETS = "application/octet-stream"
_JSON = "application/json"
# Of Barbican's description of a secret; it is a few hundred in practice.
_MOST_METADATA_BYTES = 65536
_LATER = "Try again later"
_ADMINISTRATOR = "Tell the administrator"
_BY_STATUS = {
    401: "was refused: the token is not valid any more. Boot the server again",
    403: "may not be read by you. Ask its owner for access (a Barbican ACL), or name your own (it "
         "takes the role member)",
    404: "was not found: it does not exist, was deleted, has expired (Barbican does not tell "
         "which) or has no payload. Name another",
    406: "is not stored as bytes or text. Store it again as application/octet-stream",
    410: "is gone. Name an existing secret",
    413: "is too large for the key manager. Cut it into pieces",
    429: "could not be read now: the key manager has too many requests. Try again later",
}
# Passing trouble: tried again as often as status_code_retries says.
_WORTH_A_RETRY = (429, 502, 503, 504)


class KeySource:
    """The key manager of this cloud.

    Connections are kept between servers; tokens are not: each request gets its own.

    :param configuration: nova's configuration; reads the sections ``[vtpm_compute]`` and
        ``[service_user]``.
    """

    def __init__(self, configuration: cfg.ConfigOpts) -> None:
        self._conf = configuration
        self._session = loading.load_session_from_conf_options(configuration, conf.SECTION)
        for scheme in ("http://", "https://"):
            self._session.session.mount(scheme, timed_transport.Transport())
        # A cookie would go from one user's request to another's.
        self._session.session.cookies.set_policy(
            http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        self._plugins: dict[str, Any] = {}
        self._plugins_lock = threading.Lock()

    def fetch(self, context: Any, keys: Sequence[policy.KeyReference]) -> list[bytes]:
        """Read the secrets.

        :param context: the request context of the user who asked for the server.
        :param keys: what to read; at least one.
        :returns: the payloads, in the order of the references.
        :raises vtpm_compute.errors.KeyFetchError: when any of them cannot be read; names the
            first of those.
        """
        section = self._conf[conf.SECTION]
        try:
            reader = self._reader(context)
        except _UnreadableError as exc:
            raise errors.KeyFetchError(_shown(keys[0]), exc.problem) from None
        for key in keys:
            LOG.debug("Reading vTPM key %s", key.secret_id)
        run = side_by_side.SideBySide(
            reader.read, keys, section.max_parallel_requests, section.fetch_timeout)
        try:
            return run.run()
        except side_by_side.NotInTimeError as exc:
            error = errors.KeyFetchError(
                _shown(keys[exc.position]), _not_in_time(section.fetch_timeout))
        except errors.KeyFetchError as exc:
            error = exc
        LOG.warning("%s%s", error, " (%s)" % error.detail if error.detail else "")
        raise error from None

    def _reader(self, context: Any) -> _Reader:
        section = self._conf[conf.SECTION]
        if section.auth == conf.AUTH_SERVICE:
            auth = self._plugin(conf.SECTION)
            if auth is None:
                raise _UnreadableError(
                    "could not be read: nova-compute has no credentials (auth_type). "
                    + _ADMINISTRATOR)
        elif not context.auth_token:
            raise _UnreadableError(
                "can be read by its owner only, and this operation carries no user's token. Let "
                "its owner start it")
        else:
            auth = context.get_auth_plugin()
            if self._conf.service_user.send_service_user_token:
                service = self._plugin(_SERVICE_USER)
                if service is None:
                    LOG.warning("[service_user] sends a token, but has no auth_type")
                else:
                    # With it Barbican also takes a user's token that expired while the request
                    # waited.
                    auth = service_token.ServiceTokenAuthWrapper(
                        user_auth=auth, service_auth=service)
        adapter = loading.load_adapter_from_conf_options(
            self._conf, conf.SECTION, session=self._session, auth=auth)
        return _Reader(adapter, section,
                       context.user_id if section.auth == conf.AUTH_SERVICE else None)

    def _plugin(self, group: str) -> Any:
        """Nova's own credentials, of a section; None where it has none. Keeps its token."""
        with self._plugins_lock:
            if group not in self._plugins:
                try:
                    self._plugins[group] = loading.load_auth_from_conf_options(self._conf, group)
                except ksa_exceptions.ClientException as exc:
                    LOG.error("Credentials in [%s]: %s", group, exc)
                    raise _UnreadableError(
                        "could not be read: nova-compute's credentials in [%s] are not complete. "
                        "%s" % (group, _ADMINISTRATOR)) from None
            return self._plugins[group]


class _UnreadableError(Exception):
    """Why a secret cannot be read; holds nothing that the key manager sent."""

    def __init__(self, problem: str, status: int | None = None) -> None:
        super().__init__(problem)
        self.problem, self.status = problem, status


class _Reader:
    """Reads for one request, with its credentials.

    :param adapter: keystoneauth's, with the session and the credentials.
    :param section: the options.
    :param creator: with nova's own credentials, the user who must have stored the secrets; with
        a user's token None: Barbican knows what the user may read.
    """

    def __init__(self, adapter: Any, section: Any, creator: str | None) -> None:
        self._adapter, self._section, self._creator = adapter, section, creator
        self._as_service = section.auth == conf.AUTH_SERVICE

    def read(self, key: policy.KeyReference,
             deadline: timed_transport.Deadline) -> bytes | Exception:
        """One secret's payload, or why there is none."""
        # Errors are returned, not raised: a traceback would keep the frames that hold the bytes.
        try:
            with deadline.for_requests_of_this_thread():
                return self._read(key)
        except _UnreadableError as exc:
            return errors.KeyFetchError(_shown(key), exc.problem, exc.status)
        except Exception as exc:  # noqa: BLE001
            # Whatever the libraries trip over has to end the build, with a reason: another
            # exception would make Nova try every host.
            problem = _not_in_time(self._section.fetch_timeout) if deadline.has_passed() \
                else _problem(exc)
            return errors.KeyFetchError(_shown(key), problem, detail=_chain(exc))

    def _read(self, key: policy.KeyReference) -> bytes:
        self._log_in()
        # By id: the host in a reference is never asked, whatever the user wrote there.
        url = "%s/v1/secrets/%s" % (self._endpoint(), key.secret_id)
        if self._as_service:
            self._require_creator(self._get(url, _JSON, _MOST_METADATA_BYTES))
        payload = self._get(url + "/payload", _OCTETS, self._section.max_key_bytes)
        if not payload:
            raise _UnreadableError("is empty. Store the key protector in it", _OK)
        return payload

    def _log_in(self) -> None:
        """Get the tokens, so that a refusal of nova's own is not taken for one of the user's."""
        try:
            self._adapter.session.get_auth_headers(self._adapter.auth)
        except ksa_exceptions.ClientException as exc:
            LOG.error("nova-compute cannot log in to read vTPM keys: %s", _chain(exc))
            raise _UnreadableError(
                "could not be read: nova-compute cannot log in to Keystone with [%s]. %s"
                % (conf.SECTION if self._as_service else _SERVICE_USER, _ADMINISTRATOR)) from None

    def _endpoint(self) -> str:
        adapter = self._adapter
        endpoint: str | None = adapter.endpoint_override or adapter.auth.get_endpoint(
            adapter.session, service_type=adapter.service_type, service_name=adapter.service_name,
            interface=adapter.interface, region_name=adapter.region_name, skip_discovery=True)
        if not endpoint:
            raise ksa_exceptions.EndpointNotFound()
        try:
            parts = urllib.parse.urlsplit(endpoint)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            is_url = False
        if not is_url:
            LOG.error("The key manager's endpoint is %s", endpoint)
            raise _UnreadableError(
                "could not be read: the key manager's endpoint is no URL. " + _ADMINISTRATOR)
        # There is one version, and both forms are in use.
        endpoint = endpoint.rstrip("/")
        return endpoint[:-len("/v1")] if endpoint.endswith("/v1") else endpoint

    def _get(self, url: str, content_type: str, most: int) -> bytes:
        """The body of a good answer.

        :param content_type: that is asked for, and that the answer must have.
        :param most: bytes that it may hold; no more are read.
        """
        response = self._adapter.get(
            url, headers={"Accept": content_type, "Accept-Encoding": "identity"}, stream=True,
            redirect=False, raise_exc=False, log=False, logger=_SILENT,
            retriable_status_codes=_WORTH_A_RETRY)
        if response.status_code != _OK:
            raise self._refusal(response.status_code)
        try:
            _check_header(response.headers, content_type, most)
            body = http_answers.read(response.raw, most + 1)
            if len(body) > most:
                raise _too_large(content_type, most)
            length = response.headers.get("Content-Length")
            if length is not None and "Transfer-Encoding" not in response.headers and \
                    len(body) != int(length):
                raise _UnreadableError(_CUT_OFF, _OK)
        except BaseException:
            # What is left of the answer must not be taken for the next one's.
            response.close()
            raise
        return body

    def _refusal(self, status: int) -> _UnreadableError:
        if self._as_service and status == 401:
            problem = "could not be read: the key manager refuses nova-compute's own " \
                "credentials. " + _ADMINISTRATOR
        elif self._as_service and status == 403:
            problem = "may not be read by nova. Let its read ACL name nova's user %s" % (
                self._adapter.auth.get_user_id(self._adapter.session))
        elif status in _BY_STATUS:
            problem = _BY_STATUS[status]
        elif 300 <= status < 400:
            problem = "could not be read: the key manager answered %d, a redirect, which is not " \
                "followed. %s" % (status, _ADMINISTRATOR)
        else:
            problem = "could not be read: the key manager answered %d. %s" % (
                status, _LATER if status in _WORTH_A_RETRY else _ADMINISTRATOR)
        return _UnreadableError(problem, status)

    def _require_creator(self, metadata: bytes) -> None:
        """Refuse what another user stored.

        An ACL that names nova says that nova may read a secret, not for whom: whoever knows its id
        could have a server made with it. Barbican's description of a secret holds no project; who
        stored it is there (Key Manager API reference, "GET /v1/secrets/{uuid}": creator_id).
        """
        try:
            creator = json.loads(metadata)["creator_id"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise _UnreadableError(_MALFORMED % "it does not say who stored it", _OK) from None
        if not creator or creator != self._creator:
            raise _UnreadableError(
                "was stored by another user, and nova-compute reads for each user only what they "
                "stored themselves. Store it again")


_AWAY = "could not be read: the key manager does not answer. " + _LATER
_CUT_OFF = "could not be read: the key manager's answer was cut off. " + _LATER
_MALFORMED = "could not be read: the key manager's answer is malformed, %s. " + _ADMINISTRATOR


def _too_large(content_type: str, most: int) -> _UnreadableError:
    if content_type == _JSON:
        return _UnreadableError(_MALFORMED % "it is too long", _OK)
    return _UnreadableError(
        "holds more than the %d bytes allowed (max_key_bytes). Cut it into pieces" % most, _OK)


def _not_in_time(seconds: int) -> str:
    return "could not be read within %d seconds (fetch_timeout). %s" % (seconds, _LATER)


def _check_header(headers: Any, content_type: str, most: int) -> None:
    """:raises _UnreadableError: when the body would not be what was asked for."""
    encoding = headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() not in ("identity", ""):
        # A few bytes of one may be gigabytes.
        raise _UnreadableError(_MALFORMED % "it is compressed", _OK)
    if headers.get("Transfer-Encoding", "chunked").strip().lower() != "chunked":
        raise _UnreadableError(_MALFORMED % "its transfer encoding is unknown", _OK)
    if headers.get("Content-Type", "").partition(";")[0].strip().lower() != content_type:
        # The page of a proxy, say.
        raise _UnreadableError(_MALFORMED % ("it is not of type " + content_type), _OK)
    length = headers.get("Content-Length", "0")
    if not (length.isascii() and length.isdigit() and len(length) < 20):
        raise _UnreadableError(_MALFORMED % "its length is no number", _OK)
    if "Transfer-Encoding" not in headers and int(length) > most:
        raise _too_large(content_type, most)


def _shown(key: policy.KeyReference) -> str:
    return key.text if len(key.text) <= _SHOWN else key.secret_id


def _problem(exc: Exception) -> str:
    """What an exception of the libraries means for the user. Its own words may quote an answer."""
    if isinstance(exc, ksa_exceptions.CatalogException):
        return "could not be read: this cloud's catalog has no key manager. " + _ADMINISTRATOR
    if isinstance(exc, (ksa_exceptions.ConnectTimeout, urllib3.exceptions.ReadTimeoutError)):
        return "could not be read: the key manager does not answer in time. " + _LATER
    # A CA file that is not there is an OSError out of requests.
    if isinstance(exc, (ksa_exceptions.SSLError, OSError)):
        return "could not be read: no trusted TLS connection to the key manager. " + _ADMINISTRATOR
    if isinstance(exc, ksa_exceptions.ConnectFailure):
        # One that is closed without a word is a ConnectionError too.
        is_no_http = any(isinstance(cause, http.client.HTTPException) and
                         not isinstance(cause, OSError) for cause in http_answers.causes(exc))
        return _MALFORMED % "it is no HTTP" if is_no_http else _AWAY
    if isinstance(exc, urllib3.exceptions.HTTPError):
        return _CUT_OFF
    return _MALFORMED % "it cannot be understood"


def _chain(exc: Exception) -> str:
    """For the log: the kinds of errors, and the system's words, which quote nothing."""
    parts = []
    for cause in http_answers.causes(exc):
        words = getattr(cause, "verify_message", None) or (
            cause.strerror if isinstance(cause, OSError) else None)
        parts.append("%s: %s" % (type(cause).__name__, words) if words else type(cause).__name__)
    return " < ".join(parts)
