"""The key protection server of a fabric: who its guardian is.

The document is public; who uses it compares its guardian with what the operator pinned.

Source: Microsoft Learn, "Create a shielding data file", "Get guardian metadata"
(``http://<HGS>/KeyProtection/service/metadata/2014-07/metadata.xml``).
"""

from __future__ import annotations

import requests
import urllib3

from vtpm_compute import errors, http_answers, timed_transport

_PATH = "/service/metadata/2014-07/metadata.xml"
# It has two certificates and three signatures.
_MOST_BYTES = 65536
_OK = 200


def read_metadata(url: str, seconds: float, verify: bool | str) -> bytes:
    """The guardian metadata of a key protection server.

    :param url: of the server, as the host is configured with it.
    :param seconds: within which the whole answer must have come.
    :param verify: whether, or with which CA file, TLS is checked; as requests takes it.
    :raises vtpm_compute.errors.HostGuardianError: it cannot be read; the message says why.
    """
    if not url:
        raise errors.HostGuardianError(
            "the host has no key protection server (Set-HgsClientConfiguration).")
    if not url.lower().startswith(("http://", "https://")):
        raise errors.HostGuardianError(
            "its address is neither http:// nor https:// (Set-HgsClientConfiguration).")
    deadline = timed_transport.Deadline(seconds)
    try:
        with requests.Session() as session, deadline.for_requests_of_this_thread():
            # No proxy and no password of the environment: the server is the host's own.
            session.trust_env = False
            for scheme in ("http://", "https://"):
                session.mount(scheme, timed_transport.Transport())
            response = session.get(
                url.rstrip("/") + _PATH, headers={"Accept-Encoding": "identity"}, verify=verify,
                stream=True, allow_redirects=False)
            if response.status_code != _OK:
                raise errors.HostGuardianError("it answered %d." % response.status_code)
            document = http_answers.read(response.raw, _MOST_BYTES + 1)
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as exc:
        raise errors.HostGuardianError(
            "it cannot be read (%s)." % type(exc).__name__) from exc
    if len(document) > _MOST_BYTES:
        raise errors.HostGuardianError("its metadata have more than %d bytes." % _MOST_BYTES)
    return document
