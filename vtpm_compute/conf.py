"""Options of the compute half, section ``[vtpm_compute]`` of nova-compute's nova.conf."""

from __future__ import annotations

import itertools

from keystoneauth1 import loading
from oslo_config import cfg

SECTION = "vtpm_compute"


def _group() -> cfg.OptGroup:
    # A new one each time: oslo.config keeps the options of a group in the object itself.
    return cfg.OptGroup(
        SECTION, title="vTPM on Hyper-V",
        help="How nova-compute makes virtual TPMs on this host, and where it reads their keys. "
             "The options of the key manager's endpoint and of TLS are keystoneauth1's own.")


OPTIONS = [
    cfg.StrOpt(
        "fabric_guardian",
        help="""
Name of this fabric's guardian in the guardian store of the host (``Get-HgsGuardian``).

Its encryption certificate is the fabric's identity: only a host whose Host Guardian Service holds
the private key to it can start a virtual machine whose key protector it was granted in. Import it
once a host from the metadata of the key protection server::

    Import-HgsGuardian -Name Fabric -Path metadata.xml -AllowUntrustedRoot

Without it the host reports that it cannot run vTPMs.
"""),
    cfg.IntOpt(
        "max_key_bytes", default=65536, min=1024, max=1048576,
        help="""
The most bytes that one secret may hold. Barbican's own default limit is 20000.
"""),
]

# A request to the key manager never waits for ever, and passing trouble is tried again.
_DEFAULTS = {"timeout": 30, "connect_retries": 2, "status_code_retries": 2,
             "service_type": "key-manager", "valid_interfaces": ["internal", "public"]}


def _keystoneauth_options() -> list[cfg.Opt]:
    options = list(itertools.chain(loading.get_session_conf_options(),
                                   loading.get_adapter_conf_options(include_deprecated=False)))
    for option in options:
        if option.dest in _DEFAULTS:
            option.default = _DEFAULTS[option.dest]
    return options


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the section with ``conf``; repeating it is harmless."""
    conf.register_group(_group())
    conf.register_opts(OPTIONS + _keystoneauth_options(), group=SECTION)


def list_opts() -> list[tuple[cfg.OptGroup, list[cfg.Opt]]]:
    """The options for ``oslo-config-generator`` (entry point ``oslo.config.opts``)."""
    return [(_group(), OPTIONS + _keystoneauth_options())]
