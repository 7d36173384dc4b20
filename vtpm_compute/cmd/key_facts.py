"""What the secrets of ``os_vtpm_keys`` are: read with the caller's rights, and told without them.

They are read as nova-compute reads them, so that what is wrong is told in the same words. Nothing
of a secret leaves this module but what its certificates say.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from oslo_config import cfg

from vtpm_compute import conf, errors, key_material, key_protector, keys
from vtpm_compute.cmd import commands, explanation, login
from vtpm_scheduling import policy

# What nova-compute would log is in the answer.
logging.getLogger(keys.__name__).addHandler(logging.NullHandler())
logging.getLogger(keys.__name__).propagate = False

_SERVICE = "key-manager"
_PFX = "Made of an owner's private keys: only hosts with allow_owner_keys take them"


class _Caller:
    """The caller, as :mod:`vtpm_compute.keys` sees the user of a request."""

    def __init__(self, session: Any) -> None:
        self._auth = session.auth
        self.auth_token: str = session.get_token()
        self.user_id: str = session.get_user_id()
        self.project_id: str | None = session.get_project_id()

    def get_auth_plugin(self) -> Any:
        """keystoneauth's plugin."""
        return self._auth


def read(logged_in: login.Login, references: Sequence[policy.KeyReference],
         shielded: bool) -> explanation.Keys:
    """Read the secrets, and say what they are.

    :param references: at least one.
    :param shielded: whether the server is to be shielded.
    """
    caller = _Caller(logged_in.session)
    source = keys.KeySource(_configuration(logged_in))
    payloads, answers = [], []
    for reference in references:
        try:
            (payload,) = source.fetch(caller, [reference])
        except errors.KeyFetchError as exc:
            answers.append(explanation.KeyAnswer(reference.text, False, str(exc)))
        else:
            payloads.append(payload)
            answers.append(explanation.KeyAnswer(
                reference.text, True, "%d bytes: %s" % (
                    len(payload), key_material.described(payload))))
    read_by = "user %s, project %s" % (caller.user_id, caller.project_id or "none")
    unread = [one.sentence for one in answers if not one.readable]
    if unread:
        return explanation.Keys(read_by, tuple(answers), problem=unread[0])
    try:
        material = key_material.read(payloads, policy.IMAGE_KEYS, True, shielded)
    except errors.KeyProtectorError as exc:
        return explanation.Keys(read_by, tuple(answers), problem=str(exc))
    if isinstance(material, key_protector.KeyProtector):
        return explanation.Keys(
            read_by, tuple(answers), tuple(material.lines()),
            guardians=frozenset(one.thumbprint for one in material.guardians),
            details=commands.protector_as_json(material))
    return _of_ingredients(read_by, answers, material)


def _of_ingredients(read_by: str, answers: Sequence[explanation.KeyAnswer],
                    found: key_material.Ingredients) -> explanation.Keys:
    lines = ["The key protector is made on the host"]
    details: dict[str, Any] = {"kind": "ingredients", "guardians": [
        {"name": one.name, "thumbprint": one.thumbprint,
         "not_after": one.not_after.isoformat()} for one in found.guardians]}
    if found.owner is None:
        lines.append("Owner: a new one, whose keys nobody keeps")
    else:
        lines += ["Owner: %s" % found.owner, _PFX]
        details["owner"] = {"name": found.owner.encryption.name,
                            "thumbprint": found.owner.encryption.thumbprint}
    for one in found.guardians:
        lines += one.lines()
    return explanation.Keys(read_by, tuple(answers), tuple(lines), details=details)


def _configuration(logged_in: login.Login) -> cfg.ConfigOpts:
    """The options that the reader takes, with the cloud's own in their place."""
    found = cfg.ConfigOpts()
    conf.register_opts(found)
    # Nova's own; a command has no service token to send.
    found.register_opts([cfg.BoolOpt("send_service_user_token", default=False)], "service_user")
    found([], default_config_files=[], default_config_dirs=[])
    verify, certificate = logged_in.region.get_requests_verify_args()
    values: dict[str, Any] = {
        "insecure": not verify, "region_name": logged_in.region.get_region_name(_SERVICE),
        "endpoint_override": logged_in.region.get_endpoint(_SERVICE)}
    if isinstance(verify, str):
        values["cafile"] = verify
    if isinstance(certificate, tuple):
        values["certfile"], values["keyfile"] = certificate
    elif certificate:
        values["certfile"] = certificate
    interface = logged_in.region.get_interface(_SERVICE)
    if interface:
        values["valid_interfaces"] = [interface]
    for name, value in values.items():
        found.set_override(name, value, conf.SECTION)
    return found
