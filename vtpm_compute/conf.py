"""Options of the compute half, section ``[vtpm_compute]`` of nova-compute's nova.conf."""

from __future__ import annotations

import itertools
import re

from keystoneauth1 import loading
from oslo_config import cfg, types

SECTION = "vtpm_compute"
AUTH_USER, AUTH_SERVICE = "user", "service"


def _group() -> cfg.OptGroup:
    # A new one each time: oslo.config keeps the options of a group in the object itself.
    return cfg.OptGroup(
        SECTION, title="vTPM on Hyper-V",
        help="How nova-compute makes virtual TPMs on this host, and where it reads their keys. "
             "The options of the key manager's endpoint and of TLS are keystoneauth1's own.")


class _Thumbprint(types.String):
    """SHA-256 in hexadecimal, as programs print it: any case, with colons, dashes or spaces."""

    def __call__(self, value: object) -> str:
        digits = re.sub("[-: ]", "", str(value)).lower()
        if not re.fullmatch("[0-9a-f]{64}", digits):
            raise ValueError("a SHA-256 thumbprint has 64 hexadecimal digits: %s" % value)
        return digits


OPTIONS = [
    cfg.StrOpt(
        "fabric_guardian",
        help="""
Name of this fabric's guardian in the guardian store of the host (``Get-HgsGuardian``).

Its encryption certificate is the fabric's identity: only a host whose Host Guardian Service holds
the private key to it can start a virtual machine whose key protector it was granted in. Import it
once a host from the metadata of the key protection server::

    Import-HgsGuardian -Name Fabric -Path metadata.xml -AllowUntrustedRoot

or let nova-compute do it, with ``fabric_thumbprint``. Without both options the host reports that it
cannot run vTPMs.
"""),
    cfg.Opt(
        "fabric_thumbprint", type=_Thumbprint(),
        help="""
SHA-256 thumbprint of the encryption certificate of this fabric's guardian, 64 hexadecimal digits.

It pins the guardian: one with another certificate is not taken, whatever its name. Where none has
the name ``fabric_guardian``, the one with this certificate is taken under its own. Where the host's
guardian store has none with this certificate, nova-compute imports it from the metadata of the key
protection server with which the host is configured, as ``fabric_guardian`` if that is set.
The rest of the metadata is as trustworthy as the way to that server: where it is plain HTTP through
a network that is not yours, import the guardian by hand. ``cafile``, ``insecure`` and ``timeout``
of this section are for that server too.

``nova-hyperv-vtpm-protector show metadata.xml`` prints the thumbprint. In PowerShell::

    $metadata = [xml](Get-Content metadata.xml)
    $der = [Convert]::FromBase64String(
        $metadata.Metadata.GuardianInformation.EncryptionCertificate)
    [BitConverter]::ToString([Security.Cryptography.SHA256]::Create().ComputeHash($der))
"""),
    cfg.BoolOpt(
        "allow_owner_keys", default=False,
        help="""
Whether a tenant may give an owner's private keys (two PFX files) instead of a key protector.

The key protector is then made on the host: private keys that open everything that this owner owns
are on it for a moment. A key protector that the tenant makes at home needs nothing of the kind.
"""),
    cfg.BoolOpt(
        "refuse_wrong_signatures", default=True,
        help="""
Whether a key protector or guardian metadata with a wrong signature keeps a server from being built.

A signature is verified here where public certificates suffice and its algorithm is known. Windows
and the Host Guardian Service check all of them when the server starts. Without this option a wrong
one is only logged here: for a Windows that signs in a form that is not known here.
"""),
    cfg.StrOpt(
        "scratch_path", default="$state_path/vtpm",
        help="""
Folder for files that Windows takes by their path only: guardian metadata, and owners' PFX files.

It is made when it is needed, for the administrators of the host and Local System alone; one that is
there and open to others is refused. It must be on a local disk. Files lie in it for a moment; PFX
files are encrypted anew, under a password that is never written.
"""),
    cfg.IntOpt(
        "max_key_bytes", default=65536, min=1024, max=1048576,
        help="""
The most bytes that one secret may hold; no more are read of it.

Barbican's own default limit is 20000 (``max_allowed_secret_in_bytes``).
"""),
    cfg.IntOpt(
        "max_parallel_requests", default=6, min=1, max=64,
        help="""
How many of a server's keys are read from the key manager at once. A server has at most six.
"""),
    cfg.IntOpt(
        "fetch_timeout", default=120, min=1, max=3600,
        help="""
Seconds within which all keys of a server must have been read, with all retries.

``timeout`` is for each wait on a connection: a key manager that sends a byte now and then would
never reach it.
"""),
    cfg.StrOpt(
        "auth", default=AUTH_USER, ignore_case=True,
        choices=[(AUTH_USER, "the token of the user who asked for the server; beside it nova's "
                             "service token, if [service_user] sends one"),
                 (AUTH_SERVICE, "nova's own credentials, the auth_type and what belongs to it in "
                                "this section")],
        help="""
With whose rights keys are read from the key manager. There is no falling back to the other.

With ``user`` nobody gets a server made with a secret that they may not read themselves. A user's
token that expires while the request waits still works where ``[service_user]`` has
``send_service_user_token``.

``service`` is for clouds in which nova reads a secret for its owner: who stored it lets its read
ACL name nova's user (``openstack acl user add --user NOVA_USER_ID --operation-type read SECRET``).
Whether the project has access does not matter. Such an ACL does not say for which tenant nova may
read: any tenant who learns the secret's id could name it in an image. So nova-compute asks for the
secret's description first, which makes two requests a key, and refuses a secret unless the very
user who asked for the server stored it: the description has no project, and whether others of the
project may use it cannot be told.
"""),
]

# A request to the key manager never waits for ever, and passing trouble is tried again.
_DEFAULTS = {"timeout": 30, "connect_retries": 2, "status_code_retries": 2,
             "service_type": "key-manager", "valid_interfaces": ["internal", "public"]}
_LEAST = {"timeout": 1, "connect_retries": 0, "status_code_retries": 0}
# keystoneauth wants these when it loads a session and an adapter. There is one version of the key
# manager's API; nobody asks for timings; and keys.py says which answers are worth a retry.
_WITHOUT_EFFECT = [cfg.Opt(name, type=lambda _: None) for name in (
    "version", "min_version", "max_version", "collect_timing", "retriable_status_codes")]
# The kinds of credentials that the sample file shows; keystoneauth loads any.
_SHOWN_AUTH_TYPES = ("password", "v3applicationcredential")


def _keystoneauth_options() -> list[cfg.Opt]:
    unused = {option.dest for option in _WITHOUT_EFFECT}
    options = [option for option in itertools.chain(
        loading.get_session_conf_options(),
        loading.get_adapter_conf_options(include_deprecated=False)) if option.dest not in unused]
    for option in options:
        if option.dest in _DEFAULTS:
            option.default = _DEFAULTS[option.dest]
        if option.dest in _LEAST:
            option.type = types.Integer(min=_LEAST[option.dest])
    return options


def _sample_of_auth_options() -> list[cfg.Opt]:
    """What keystoneauth registers itself when it loads the credentials."""
    options = list(loading.get_auth_common_conf_options())
    for auth_type in _SHOWN_AUTH_TYPES:
        known = {option.dest for option in options}
        options += [option for option in loading.get_auth_plugin_conf_options(auth_type)
                    if option.dest not in known]
    return options


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the section with ``conf``; repeating it is harmless."""
    conf.register_group(_group())
    conf.register_opts(OPTIONS + _keystoneauth_options() + _WITHOUT_EFFECT, group=SECTION)
    loading.register_auth_conf_options(conf, SECTION)


def list_opts() -> list[tuple[cfg.OptGroup, list[cfg.Opt]]]:
    """The options for ``oslo-config-generator`` (entry point ``oslo.config.opts``)."""
    return [(_group(), OPTIONS + _keystoneauth_options() + _sample_of_auth_options())]
